//! Whether a record passes a filter.
//!
//! Three-valued, as SQL is: a comparison with a missing value is unknown, NOT of unknown is
//! unknown, and only what is true passes. Text and KeywordList are asked for words and elements,
//! which a missing value simply does not have.

use std::cmp::Ordering;

use holdfast_proto::common::Payload;
use serde_json::Value as Json;

use super::attribute::{Column, DIVISION, Field, Kind, Source};
use super::filter::{Comparison, Filter, Query, Test, Value, Values, words};
use super::literal::parse_time;
use crate::ids::Uuid;
use crate::rows::VisibilityRecord;

impl Query {
    /// Whether a record is in the result.
    pub fn matches(&self, record: &VisibilityRecord) -> bool {
        if !self.names_division && stored(record, DIVISION, Kind::Keyword).is_some() {
            return false;
        }
        self.filter.evaluate(record) == Some(true)
    }
}

impl Filter {
    /// True, false, or unknown.
    pub fn evaluate(&self, record: &VisibilityRecord) -> Option<bool> {
        match self {
            Filter::All(parts) => combine(parts, record, false),
            Filter::Any(parts) => combine(parts, record, true),
            Filter::Not(inner) => inner.evaluate(record).map(|passes| !passes),
            Filter::Test(column, test) => {
                let found = value(column, record);
                match column.kind {
                    Kind::Text => test_text(test, &found),
                    Kind::KeywordList => test_list(test, &found),
                    Kind::Keyword | Kind::Int | Kind::Double | Kind::Bool | Kind::Datetime => {
                        test_scalar(test, found.first(), column)
                    }
                }
            }
        }
    }
}

/// AND and OR: `decisive` decides at once; else unknown, if anything was unknown.
fn combine(parts: &[Filter], record: &VisibilityRecord, decisive: bool) -> Option<bool> {
    let mut out = Some(!decisive);
    for part in parts {
        match part.evaluate(record) {
            Some(passes) if passes == decisive => return Some(decisive),
            Some(_) => {}
            None => out = None,
        }
    }
    out
}

/// The values of an attribute: none when it is missing, several only of a KeywordList.
pub(super) fn value(column: &Column, record: &VisibilityRecord) -> Vec<Value> {
    match &column.source {
        Source::Field(field) => field_value(*field, record).into_iter().collect(),
        Source::Stored(name) => stored(record, name, column.kind).unwrap_or_default(),
        Source::Unset => Vec::new(),
    }
}

fn field_value(field: Field, record: &VisibilityRecord) -> Option<Value> {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    let time = |nanos: u64| (nanos != 0).then_some(Value::Time(i128::from(nanos)));
    let closed = |n: i64| (record.closed_at != 0).then_some(Value::Int(n));
    match field {
        Field::WorkflowId | Field::RootWorkflowId => text(&record.workflow_id),
        Field::RunId | Field::RootRunId => {
            Uuid::from_slice(&record.run).map(|run| Value::Text(run.to_string()))
        }
        Field::WorkflowType => text(&record.workflow_type),
        Field::Status => Some(Value::Int(i64::from(record.status))),
        Field::TaskQueue => text(&record.task_queue),
        Field::StartTime => time(record.started_at),
        Field::ExecutionTime => time(record.execution_at),
        Field::CloseTime => time(record.closed_at),
        Field::HistoryLength => closed(record.history_length),
        Field::HistorySizeBytes => closed(record.history_bytes),
        Field::StateTransitionCount => closed(record.transitions),
        Field::ExecutionDuration => closed(super::record::duration_nanos(record)),
        // Children come with their own record fields.
        Field::ParentWorkflowId | Field::ParentRunId => None,
    }
}

/// The value of an attribute that a run carries; `None` when it is missing or of another type
/// than the attribute has now.
fn stored(record: &VisibilityRecord, name: &str, kind: Kind) -> Option<Vec<Value>> {
    let payload = record.search_attributes.as_ref()?.indexed_fields.get(name)?;
    let values: Option<Vec<Value>> = match json(payload)? {
        Json::Array(items) if kind == Kind::KeywordList || items.len() == 1 => {
            items.iter().map(|item| scalar(item, kind)).collect()
        }
        item => scalar(&item, kind).map(|value| vec![value]),
    };
    values.filter(|values| !values.is_empty())
}

fn json(payload: &Payload) -> Option<Json> {
    serde_json::from_slice(&payload.decode().ok()?.data).ok()
}

fn scalar(item: &Json, kind: Kind) -> Option<Value> {
    match kind {
        Kind::Text | Kind::Keyword | Kind::KeywordList => {
            item.as_str().map(|text| Value::Text(text.to_owned()))
        }
        Kind::Int => {
            let whole = |r: &f64| r.fract() == 0.0 && r.abs() < i64::MAX as f64;
            let n = item.as_i64().or_else(|| item.as_f64().filter(whole).map(|r| r as i64));
            n.map(Value::Int)
        }
        Kind::Double => item.as_f64().map(Value::Real),
        Kind::Bool => item.as_bool().map(Value::Bool),
        Kind::Datetime => item.as_str().and_then(parse_time).map(Value::Time),
    }
}

fn test_text(test: &Test, found: &[Value]) -> Option<bool> {
    let has = |wanted: &std::collections::BTreeSet<String>| {
        found.iter().any(|value| match value {
            Value::Text(text) => !words(text).is_disjoint(wanted),
            _ => false,
        })
    };
    match test {
        Test::Null => Some(found.is_empty()),
        Test::NotNull => Some(!found.is_empty()),
        Test::Words(wanted) => Some(has(wanted)),
        Test::NotWords(wanted) => Some(!has(wanted)),
        // The type check lets nothing else through.
        Test::Compare(..) | Test::In(_) | Test::NotIn(_) | Test::Between(..) => None,
        Test::NotBetween(..) | Test::Prefix(_) | Test::NotPrefix(_) => None,
    }
}

fn test_list(test: &Test, found: &[Value]) -> Option<bool> {
    let has = |wanted: &Value| found.contains(wanted);
    let any = |wanted: &Values| found.iter().any(|value| wanted.has(value));
    match test {
        Test::Null => Some(found.is_empty()),
        Test::NotNull => Some(!found.is_empty()),
        Test::Compare(Comparison::Equal, value) => Some(has(value)),
        Test::Compare(Comparison::NotEqual, value) => Some(!has(value)),
        Test::In(values) => Some(any(values)),
        Test::NotIn(values) => Some(!any(values)),
        // The type check lets nothing else through.
        Test::Compare(..) | Test::Between(..) | Test::NotBetween(..) => None,
        Test::Prefix(_) | Test::NotPrefix(_) | Test::Words(_) | Test::NotWords(_) => None,
    }
}

fn test_scalar(test: &Test, found: Option<&Value>, column: &Column) -> Option<bool> {
    match test {
        Test::Null => return Some(found.is_none()),
        Test::NotNull => return Some(found.is_some()),
        _ => {}
    }
    let found = found?;
    let holds = |op: Comparison, wanted: &Value| {
        let ordering = order(found, wanted)?;
        Some(match op {
            Comparison::Equal => ordering == Ordering::Equal,
            Comparison::NotEqual => ordering != Ordering::Equal,
            Comparison::Less => ordering == Ordering::Less,
            Comparison::LessOrEqual => ordering != Ordering::Greater,
            Comparison::Greater => ordering == Ordering::Greater,
            Comparison::GreaterOrEqual => ordering != Ordering::Less,
        })
    };
    let between = |from: &Value, to: &Value| {
        Some(holds(Comparison::GreaterOrEqual, from)? && holds(Comparison::LessOrEqual, to)?)
    };
    match test {
        Test::Null => Some(false),
        Test::NotNull => Some(true),
        Test::Compare(op, wanted) => holds(*op, wanted),
        Test::In(values) => Some(values.has(found)),
        Test::NotIn(values) => Some(!values.has(found)),
        Test::Between(from, to) => between(from, to),
        Test::NotBetween(from, to) => between(from, to).map(|within| !within),
        Test::Prefix(prefix) => Some(shown(found, column).starts_with(prefix.as_str())),
        Test::NotPrefix(prefix) => Some(!shown(found, column).starts_with(prefix.as_str())),
        // The type check lets nothing else through.
        Test::Words(_) | Test::NotWords(_) => None,
    }
}

/// The text that a prefix is compared with.
fn shown(value: &Value, column: &Column) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Int(n) if column.is_status() => {
            super::record::status_name(i32::try_from(*n).unwrap_or(0)).to_owned()
        }
        other => other.to_string(),
    }
}

/// How two values of one attribute stand to each other; `None` when they cannot be compared.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Real(b)) => Some(order_mixed(*a, *b)),
        (Value::Real(a), Value::Real(b)) => a.partial_cmp(b),
        (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// An integer and a finite fraction, exactly: the integer need not fit a float.
fn order_mixed(a: i64, b: f64) -> Ordering {
    if b >= i64::MAX as f64 {
        return Ordering::Less;
    }
    if b < i64::MIN as f64 {
        return Ordering::Greater;
    }
    let floor = b.floor();
    a.cmp(&(floor as i64)).then(if b > floor { Ordering::Less } else { Ordering::Equal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visibility::testing::{closed, open, passing, with};
    use proptest::prelude::*;

    /// Runs a..f of conformance/scenarios/visibility.py.
    fn colours() -> Vec<(&'static str, VisibilityRecord)> {
        let run = |name: &'static str, json: [&str; 7]| {
            let kinds = ["Keyword", "Int", "Double", "Bool", "Datetime", "KeywordList", "Text"];
            let fields = kinds.map(|kind| format!("Custom{kind}Field"));
            let set = fields.iter().map(String::as_str).zip(json).filter(|(_, j)| !j.is_empty());
            (name, with(open(name, 1), set))
        };
        let a = [
            "'red'",
            "1",
            "0.5",
            "true",
            "'2020-01-01T00:00:00Z'",
            "['x']",
            "'the quick brown fox'",
        ];
        let b = [
            "'green'",
            "2",
            "1.5",
            "false",
            "'2021-06-01T12:30:15.123456Z'",
            "['x','y']",
            "'lazy dog'",
        ];
        let c = [
            "'blue'",
            "3",
            "-2.25",
            "true",
            "'2022-12-31T23:59:59+05:30'",
            "['y','z z']",
            "'Quick, the DOG!'",
        ];
        let d = ["'redder'", "-4", "1e10", "false", "'2019-01-01T00:00:00Z'", "['w']", "'foxes'"];
        let e = ["'GREEN'", "0", "0", "", "", "", ""];
        let f = [""; 7];
        [("a", a), ("b", b), ("c", c), ("d", d), ("e", e), ("f", f)]
            .map(|(name, json)| run(name, json))
            .into()
    }

    #[test]
    fn goldens_of_every_type() {
        // Which runs the reference finds: conformance/golden/visibility/*.json.
        let goldens = include_str!("matches.txt");
        let runs = colours();
        let mut count = 0;
        for line in goldens.lines().filter(|line| !line.starts_with('#')) {
            let (query, expected) = line.split_once(" => ").expect(line);
            assert_eq!(passing(query, &runs), expected, "{query}");
            count += 1;
        }
        assert!(count > 80, "{count}");
    }

    #[test]
    fn what_the_reference_gets_wrong() {
        // Equality of custom times; STARTS_WITH is not without regard to case (surface 10).
        let runs = colours();
        assert_eq!(passing("CustomDatetimeField = '2020-01-01T01:00:00+01:00'", &runs), "a");
        assert_eq!(passing("CustomDatetimeField IN ('2019-01-01T00:00:00Z')", &runs), "d");
        assert_eq!(passing("CustomKeywordField STARTS_WITH 'gr'", &runs), "b");
        // An integer is not cut to fit a fraction, nor the other way round.
        assert_eq!(passing("CustomIntField < 1.5", &runs), "a d e");
        assert_eq!(passing("CustomIntField = 1.5", &runs), "");
    }

    #[test]
    fn system_attributes_of_open_and_closed_runs() {
        let hour = 3_600_000_000_000;
        let runs = [("o", open("open", 5)), ("c", closed("closed", 7, 7 + hour))];
        for (query, expected) in [
            ("WorkflowId = 'open'", "o"),
            ("WorkflowId STARTS_WITH 'op'", "o"),
            ("WorkflowType IS NOT NULL", "o c"),
            ("CloseTime IS NULL", "o"),
            ("CloseTime IS NOT NULL", "c"),
            ("HistoryLength IS NULL", "o"),
            ("HistoryLength > 0", "c"),
            ("HistorySizeBytes > 0", "c"),
            ("StateTransitionCount IS NULL", "o"),
            ("ExecutionDuration = '1h'", "c"),
            ("ExecutionDuration < '1h'", ""),
            ("ExecutionDuration IS NULL", "o"),
            ("ExecutionStatus = 'Running'", "o"),
            ("ExecutionStatus = 1", "o"),
            ("ExecutionStatus != 'Running'", "c"),
            ("ExecutionStatus > 'Running'", "c"),
            ("ExecutionStatus BETWEEN 'Canceled' AND 'Failed'", ""),
            ("ExecutionStatus STARTS_WITH 'Completed'", "c"),
            ("ExecutionStatus IS NULL", ""),
            ("StartTime = 5", "o"),
            ("StartTime >= '1970-01-01T00:00:00.000000007Z'", "c"),
            ("TaskQueue = 'q'", "o c"),
            ("ParentWorkflowId IS NULL", "o c"),
            ("RootWorkflowId = 'open'", "o"),
            ("RootRunId IS NULL", ""),
            ("RunId = 'not-a-uuid'", ""),
            ("Keyword01 = 'x' OR NOT Keyword01 = 'x'", ""),
        ] {
            assert_eq!(passing(query, &runs), expected, "{query}");
        }
        let run = Uuid::from_slice(&runs[0].1.run).expect("16 bytes");
        assert_eq!(passing(&format!("RunId = '{run}'"), &runs), "o");
    }

    #[test]
    fn other_divisions_are_hidden_until_named() {
        let mark = |name, division: &str| with(open(name, 1), [(DIVISION, division)]);
        let runs = [("w", open("w", 1)), ("s", mark("s", "'TemporalScheduler'"))];
        for (query, expected) in [
            ("", "w"),
            ("WorkflowId = 's'", ""),
            ("TemporalNamespaceDivision IS NULL", "w"),
            ("TemporalNamespaceDivision IS NOT NULL", "s"),
            ("NamespaceDivision = 'TemporalScheduler'", "s"),
        ] {
            assert_eq!(passing(query, &runs), expected, "{query}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_missing() {
        let runs = [
            ("text", with(open("a", 1), [("CustomIntField", "'x'")])),
            ("one", with(open("b", 1), [("CustomIntField", "[7]")])),
            ("two", with(open("c", 1), [("CustomIntField", "[7,8]")])),
            ("whole", with(open("d", 1), [("CustomIntField", "7.0")])),
            ("null", with(open("e", 1), [("CustomIntField", "null")])),
            ("broken", with(open("f", 1), [("CustomIntField", "{")])),
        ];
        assert_eq!(passing("CustomIntField = 7", &runs), "one whole");
        assert_eq!(passing("CustomIntField IS NULL", &runs), "text two null broken");
    }

    proptest! {
        #[test]
        fn an_integer_meets_a_fraction_exactly(a in any::<i64>(), offset in -2i64..3, half in any::<bool>()) {
            // Close neighbours, where a float alone could not tell.
            let b = a.saturating_add(offset) as f64 + if half { 0.5 } else { 0.0 };
            let exact = (a as i128).cmp(&(b.floor() as i128))
                .then(if b.fract() > 0.0 || (b < 0.0 && b.fract() != 0.0) { Ordering::Less } else { Ordering::Equal });
            prop_assert_eq!(order_mixed(a, b), exact);
        }
    }
}
