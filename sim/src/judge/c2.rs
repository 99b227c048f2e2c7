//! C2: describe and lists show the memo and the search attributes that a run was started with,
//! merged with what its program changed, open and closed; and a list that asks for an attribute
//! finds exactly the runs that have it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_proto::common::{Memo, SearchAttributes};
use holdfast_proto::enums::WorkflowExecutionStatus as Status;
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::workflow::WorkflowExecutionInfo;

use super::{Evidence, Findings, RunHistory, v3};
use crate::work::{gifts, wire};

/// What a run shows of itself beside its state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// Its memo, each value encoded.
    pub memo: BTreeMap<String, Bytes>,
    /// Its search attributes, each value as it is indexed.
    pub attributes: BTreeMap<String, Bytes>,
}

impl Contents {
    /// What an answer shows.
    pub(super) fn of(info: &WorkflowExecutionInfo) -> Contents {
        let mut shown = Contents::default();
        shown.merge(info.memo.as_ref(), info.search_attributes.as_ref());
        shown
    }

    /// What a history says.
    fn of_run(run: &RunHistory) -> Contents {
        let mut truth = Contents::default();
        for event in &run.events {
            match &event.attributes {
                Some(Event::WorkflowExecutionStartedEventAttributes(a)) => {
                    truth.merge(a.memo.as_ref(), a.search_attributes.as_ref());
                }
                Some(Event::WorkflowPropertiesModifiedEventAttributes(a)) => {
                    truth.merge(a.upserted_memo.as_ref(), None);
                }
                Some(Event::UpsertWorkflowSearchAttributesEventAttributes(a)) => {
                    truth.merge(None, a.search_attributes.as_ref());
                }
                _ => {}
            }
        }
        truth
    }

    fn merge(&mut self, memo: Option<&Memo>, attributes: Option<&SearchAttributes>) {
        let fields = memo.and_then(|memo| memo.decode().ok()).unwrap_or_default().fields;
        self.memo.extend(fields.into_iter().map(|(name, value)| (name, value.encoded().clone())));
        let own = |name: &str| [wire::STEP_ATTRIBUTE, gifts::CALLER_ATTRIBUTE].contains(&name);
        // The server has attributes of its own.
        let given = gifts::indexed(attributes).into_iter().filter(|(name, _)| own(name));
        self.attributes.extend(given);
    }
}

/// What a list asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sought {
    /// Runs with this value of a search attribute.
    Attribute(&'static str, String),
    /// Runs in this status.
    Status(Status),
}

impl Sought {
    /// What the judge lists at the end.
    pub(super) fn all() -> impl Iterator<Item = Sought> {
        let attribute = |name, value: &str| Sought::Attribute(name, value.to_owned());
        let caller = ["c0", "c1", "c2", "c3"].map(|it| attribute(gifts::CALLER_ATTRIBUTE, it));
        let step = ["step 0", "step 1", "step 2"].map(|it| attribute(wire::STEP_ATTRIBUTE, it));
        let status = [
            Status::Completed,
            Status::Failed,
            Status::Canceled,
            Status::Terminated,
            Status::TimedOut,
        ];
        caller.into_iter().chain(step).chain(status.map(Sought::Status))
    }

    /// The query.
    pub(super) fn query(&self) -> String {
        match self {
            Sought::Attribute(name, value) => format!("{name} = '{value}'"),
            Sought::Status(status) => format!("ExecutionStatus = '{status:?}'"),
        }
    }

    fn is_met(&self, run: &RunHistory) -> bool {
        match self {
            Sought::Attribute(name, value) => {
                let found = Contents::of_run(run).attributes.remove(*name);
                found.is_some_and(|found| found == format!("\"{value}\""))
            }
            Sought::Status(status) => v3::shown_of(run).status == *status as i32,
        }
    }
}

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (name, run) in &evidence.runs {
        let truth = Contents::of_run(run);
        for (what, all) in &evidence.contents {
            let Some(shown) = all.get(name) else { continue };
            let names = |values: &BTreeMap<String, Bytes>| -> Vec<String> {
                values.keys().cloned().collect()
            };
            if shown.memo != truth.memo {
                let (shown, truth) = (names(&shown.memo), names(&truth.memo));
                let text = format!(
                    "run {name}: {what} shows another memo than its history: {shown:?}, {truth:?}"
                );
                findings.add(&run.id, text);
            }
            if shown.attributes != truth.attributes {
                let text = format!(
                    "run {name}: {what} shows the search attributes {:?}, its history {:?}",
                    shown.attributes, truth.attributes
                );
                findings.add(&run.id, text);
            }
        }
    }
    for (sought, found) in &evidence.sought {
        let met = evidence.runs.iter().filter(|(_, run)| sought.is_met(run));
        let met: BTreeSet<&String> = met.map(|(name, _)| name).collect();
        let found: BTreeSet<&String> = found.iter().collect();
        for run in met.symmetric_difference(&found) {
            let how = if found.contains(run) { "finds" } else { "does not find" };
            let id = evidence.runs.get(*run).map_or("", |run| &run.id);
            findings.add(id, format!("a list of {} {how} run {run}", sought.query()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    fn world(what: &'static str) -> World {
        let mut world = World::default();
        world.run("w", "r1").given("c1-1").upserted("step 2").terminated("x");
        world.run("w", "r2").given("c2-1");
        let contents = world.evidence.runs.iter();
        let contents = contents.map(|(name, run)| (name.clone(), Contents::of_run(run))).collect();
        world.evidence.contents = vec![(what, contents)];
        world
    }

    fn of_first(world: &mut World) -> &mut Contents {
        world.evidence.contents[0].1.get_mut("r1").expect("shown")
    }

    #[test]
    fn memos_and_attributes_are_merged_and_stay() {
        let mut right = world("describe");
        quiet(check, &right);
        assert_eq!(of_first(&mut right).memo.len(), 2, "given and upserted");
        let mut lost = world("describe");
        of_first(&mut lost).memo.clear();
        fires(check, &lost, "run r1: describe shows another memo than its history");
        let mut replaced = world("the list");
        of_first(&mut replaced).attributes.remove(gifts::CALLER_ATTRIBUTE);
        fires(check, &replaced, "run r1: the list shows the search attributes");
    }

    #[test]
    fn lists_find_the_runs_that_have_it() {
        let with = |sought: Sought, found: &[&str]| {
            let mut world = world("describe");
            let found = found.iter().map(|run| (*run).to_owned()).collect();
            world.evidence.sought = vec![(sought, found)];
            world
        };
        let of = |client: &str| Sought::Attribute(gifts::CALLER_ATTRIBUTE, client.to_owned());
        quiet(check, &with(of("c1"), &["r1"]));
        fires(check, &with(of("c1"), &[]), "a list of SimCaller = 'c1' does not find run r1");
        fires(check, &with(of("c1"), &["r1", "r2"]), "a list of SimCaller = 'c1' finds run r2");
        let terminated = Sought::Status(Status::Terminated);
        quiet(check, &with(terminated.clone(), &["r1"]));
        fires(check, &with(terminated, &["r2"]), "ExecutionStatus = 'Terminated' finds run r2");
    }
}
