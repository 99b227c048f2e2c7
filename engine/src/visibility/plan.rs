//! Which rows a filter can concern at all: a hint that may say too much, never too little.

use std::collections::BTreeSet;

use super::attribute::{Field, Source};
use super::filter::{Comparison, Filter, Test, Value};
use super::record::SortKey;
use crate::ids::{RunId, Uuid};

/// Where the rows are that may pass a filter. Each restriction is necessary, none sufficient: the
/// filter is still asked for each row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Only runs of this workflow id: one shard, and its rows.
    pub workflow_id: Option<String>,
    /// Only this run.
    pub run: Option<RunId>,
    /// Only open (`true`) or only closed runs: one end of the sort order.
    pub open: Option<bool>,
    /// Only these statuses.
    pub statuses: Option<BTreeSet<i32>>,
    /// Nothing can pass.
    pub empty: bool,
}

impl Plan {
    /// The plan of a filter.
    pub fn of(filter: &Filter) -> Plan {
        let mut plan = Plan::default();
        plan.restrict(filter);
        if let Some(statuses) = plan.statuses.clone() {
            plan.empty |= statuses.is_empty();
            if !statuses.is_empty() && statuses.iter().all(|status| is_open(*status)) {
                plan.restrict_open(true);
            } else if statuses.iter().all(|status| !is_open(*status)) {
                plan.restrict_open(false);
            }
        }
        plan
    }

    /// The first and, excluded, the last byte of the sort keys to scan.
    pub fn key_range(&self) -> (u8, u8) {
        match self.open {
            None => (SortKey::OPEN, SortKey::CLOSED + 1),
            Some(true) => (SortKey::OPEN, SortKey::CLOSED),
            Some(false) => (SortKey::CLOSED, SortKey::CLOSED + 1),
        }
    }

    fn restrict(&mut self, filter: &Filter) {
        match filter {
            Filter::All(parts) => parts.iter().for_each(|part| self.restrict(part)),
            Filter::Any(parts) => {
                if let [only] = parts.as_slice() {
                    self.restrict(only);
                }
            }
            Filter::Not(_) => {}
            Filter::Test(column, test) => {
                if let Source::Field(field) = column.source {
                    self.restrict_field(field, test);
                }
            }
        }
    }

    fn restrict_field(&mut self, field: Field, test: &Test) {
        match (field, test) {
            (Field::WorkflowId, Test::Compare(Comparison::Equal, Value::Text(id))) => {
                self.empty |= self.workflow_id.as_ref().is_some_and(|known| known != id);
                self.workflow_id = Some(id.clone());
            }
            (Field::RunId, Test::Compare(Comparison::Equal, Value::Text(text))) => {
                match Uuid::parse(text).filter(|run| run.to_string() == *text) {
                    Some(run) => {
                        self.empty |= self.run.is_some_and(|known| known != run);
                        self.run = Some(run);
                    }
                    None => self.empty = true,
                }
            }
            (Field::Status, Test::Compare(Comparison::Equal, value)) => {
                self.restrict_statuses(std::iter::once(value));
            }
            (Field::Status, Test::In(values)) => self.restrict_statuses(values.iter()),
            (Field::CloseTime, Test::Null) => self.restrict_open(true),
            (Field::CloseTime, Test::NotNull | Test::Compare(..) | Test::Between(..)) => {
                self.restrict_open(false);
            }
            _ => {}
        }
    }

    fn restrict_statuses<'a>(&mut self, values: impl Iterator<Item = &'a Value>) {
        let wanted: BTreeSet<i32> = values
            .filter_map(|value| match value {
                Value::Int(n) => i32::try_from(*n).ok(),
                _ => None,
            })
            .collect();
        self.statuses = Some(match self.statuses.take() {
            Some(known) => &known & &wanted,
            None => wanted,
        });
    }

    fn restrict_open(&mut self, open: bool) {
        self.empty |= self.open == Some(!open);
        self.open = Some(open);
    }
}

/// Running and paused runs are open; 0 stands on no record.
fn is_open(status: i32) -> bool {
    matches!(status, 1 | 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visibility::Query;
    use crate::visibility::testing::{closed, open, view};

    fn plan(query: &str) -> Plan {
        Plan::of(&Query::parse(query, &view()).expect(query).filter)
    }

    #[test]
    fn restrictions_are_found_in_conjunctions_only() {
        assert_eq!(plan("WorkflowId = 'a' AND HistoryLength > 1").workflow_id, Some("a".into()));
        assert_eq!(plan("(ScheduleId = 'a')").workflow_id, Some("a".into()));
        assert_eq!(plan("WorkflowId = 'a' OR HistoryLength > 1"), Plan::default());
        assert_eq!(plan("NOT WorkflowId = 'a'"), Plan::default());
        assert_eq!(plan("WorkflowId != 'a'"), Plan::default());
        assert!(plan("WorkflowId = 'a' AND WorkflowId = 'b'").empty);
        assert!(plan("RunId = 'not-a-uuid'").empty);
        assert_eq!(plan("ExecutionStatus IN ('Running', 'Paused')").open, Some(true));
        assert_eq!(plan("ExecutionStatus = 'Failed'").key_range(), (1, 2));
        assert_eq!(plan("ExecutionStatus IN ('Running', 'Failed')").open, None);
        assert!(plan("ExecutionStatus = 'Running' AND CloseTime IS NOT NULL").empty);
        assert!(plan("ExecutionStatus = 1 AND ExecutionStatus = 2").empty);
    }

    #[test]
    fn a_plan_never_loses_a_row() {
        let runs = [open("a", 1), open("b", 2), closed("a", 3, 9), closed("b", 4, 8)];
        let id = Uuid::from_slice(&runs[1].run).expect("16 bytes");
        let parts = [
            "WorkflowId = 'a'".to_owned(),
            format!("RunId = '{id}'"),
            "ExecutionStatus = 'Completed'".into(),
            "ExecutionStatus IN ('Running')".into(),
            "CloseTime IS NULL".into(),
            "CloseTime >= 8".into(),
            "NOT WorkflowId = 'a'".into(),
        ];
        for left in &parts {
            for right in &parts {
                for word in ["AND", "OR"] {
                    let text = format!("{left} {word} {right}");
                    let query = Query::parse(&text, &view()).expect("valid");
                    let plan = Plan::of(&query.filter);
                    for run in runs.iter().filter(|run| query.matches(run)) {
                        let (from, to) = plan.key_range();
                        let first = SortKey::of(run).0[0];
                        assert!(!plan.empty && (from..to).contains(&first), "{text}");
                        assert!(plan.workflow_id.as_ref().is_none_or(|id| *id == run.workflow_id));
                        assert!(plan.run.is_none_or(|id| id.0 == run.run[..]), "{text}");
                        assert!(plan.statuses.as_ref().is_none_or(|s| s.contains(&run.status)));
                    }
                }
            }
        }
    }
}
