//! Records and a namespace for the tests of this module.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_proto::common::{Payload, SearchAttributes};
use holdfast_proto::enums::NamespaceState;

use super::{Kind, Query};
use crate::ids::Uuid;
use crate::namespace::NamespaceView;
use crate::rows::VisibilityRecord;

/// A namespace with one custom attribute of each type.
pub(super) fn view() -> NamespaceView {
    NamespaceView {
        id: Uuid([1; 16]),
        name: "default".into(),
        state: NamespaceState::Registered,
        retention: Duration::from_secs(86_400),
        search_attributes: Kind::ALL
            .into_iter()
            .map(|kind| (format!("Custom{kind}Field"), kind.value_type()))
            .collect(),
    }
}

/// An open run.
pub(super) fn open(id: &str, started_at: u64) -> VisibilityRecord {
    let mut run = [0; 16];
    run[..id.len()].copy_from_slice(id.as_bytes());
    VisibilityRecord {
        workflow_id: id.into(),
        run: run.to_vec(),
        workflow_type: "type".into(),
        started_at,
        execution_at: started_at,
        status: 1,
        task_queue: "q".into(),
        ..VisibilityRecord::default()
    }
}

/// A completed run.
pub(super) fn closed(id: &str, started_at: u64, closed_at: u64) -> VisibilityRecord {
    VisibilityRecord {
        closed_at,
        status: 2,
        history_length: 5,
        history_bytes: 500,
        transitions: 3,
        ..open(id, started_at)
    }
}

/// A run with attributes in JSON, written with single quotes.
pub(super) fn with<'a>(
    mut record: VisibilityRecord,
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> VisibilityRecord {
    let indexed_fields: BTreeMap<String, Payload> = attributes
        .into_iter()
        .map(|(name, json)| (name.to_owned(), Payload::json(&json.replace('\'', "\""))))
        .collect();
    record.search_attributes = Some(SearchAttributes { indexed_fields });
    record
}

/// The names of the runs that pass a query, in order.
pub(super) fn passing(query: &str, runs: &[(&str, VisibilityRecord)]) -> String {
    let query = Query::parse(query, &view()).unwrap_or_else(|e| panic!("{query}: {e}"));
    let found = runs.iter().filter(|(_, run)| query.matches(run)).map(|(name, _)| *name);
    found.collect::<Vec<_>>().join(" ")
}
