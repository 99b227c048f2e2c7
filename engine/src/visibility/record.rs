//! Visibility records in lists: their order, their place in it, and what callers see.

use holdfast_proto::common::{Payload, SearchAttributes, WorkflowExecution, WorkflowType};
use holdfast_proto::enums::WorkflowExecutionStatus as Status;
use holdfast_proto::workflow::WorkflowExecutionInfo;

use super::attribute::{Kind, system_kind};
use super::filter::STATUS_NAMES;
use crate::ids::{Hlc, NamespaceId, Uuid};
use crate::namespace::NamespaceView;
use crate::rows::VisibilityRecord;

/// The place of a run in every list: open runs first, then the latest close, then the latest
/// start, then the run id. Bytes that sort so; also the key of the record in its table (A21).
///
/// A run that closes between two pages moves behind the open ones and may show twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SortKey(pub [u8; SortKey::LENGTH]);

impl SortKey {
    /// One byte open or closed, close time, start time, run id.
    pub const LENGTH: usize = 33;
    /// The first byte of an open run.
    pub const OPEN: u8 = 0;
    /// The first byte of a closed run.
    pub const CLOSED: u8 = 1;

    /// The place of a record.
    pub fn of(record: &VisibilityRecord) -> SortKey {
        let mut key = [0; SortKey::LENGTH];
        key[0] = if record.closed_at == 0 { SortKey::OPEN } else { SortKey::CLOSED };
        // Complements, so that later times come first.
        key[1..9].copy_from_slice(&(!record.closed_at).to_be_bytes());
        key[9..17].copy_from_slice(&(!record.started_at).to_be_bytes());
        key[17..].copy_from_slice(&Uuid::from_slice(&record.run).unwrap_or(Uuid::NIL).0);
        SortKey(key)
    }

    /// From stored bytes; `None` when the length is wrong.
    pub fn from_slice(bytes: &[u8]) -> Option<SortKey> {
        bytes.try_into().ok().map(SortKey)
    }
}

/// The body of a list's page token; sealed outside.
///
/// It says where the next page begins and nothing about the query: as in the reference, the next
/// page may ask something else.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListPage {
    /// Namespace id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub namespace: Vec<u8>,
    /// The [`SortKey`] of the last run shown.
    #[prost(bytes = "vec", tag = "2")]
    pub after: Vec<u8>,
}

impl ListPage {
    /// The page that begins behind `after`.
    pub fn new(namespace: NamespaceId, after: SortKey) -> ListPage {
        ListPage { namespace: namespace.0.to_vec(), after: after.0.to_vec() }
    }

    /// Where the page begins; `None` when the token is of another namespace.
    pub fn after(&self, namespace: NamespaceId) -> Option<SortKey> {
        (self.namespace == namespace.0).then(|| SortKey::from_slice(&self.after))?
    }
}

/// The name of a status in queries and in groups.
pub fn status_name(status: i32) -> &'static str {
    usize::try_from(status).ok().and_then(|n| STATUS_NAMES.get(n)).copied().unwrap_or("Unspecified")
}

/// Nanoseconds from execution time to close; 0 while open.
pub(super) fn duration_nanos(record: &VisibilityRecord) -> i64 {
    i64::try_from(record.closed_at.saturating_sub(record.execution_at)).unwrap_or(i64::MAX)
}

/// The entry of a list. Attributes that the namespace does not have any more are left out.
pub fn info(record: &VisibilityRecord, namespace: &NamespaceView) -> WorkflowExecutionInfo {
    let run_id = Uuid::from_slice(&record.run).unwrap_or(Uuid::NIL).to_string();
    let execution = WorkflowExecution { workflow_id: record.workflow_id.clone(), run_id };
    let closed = record.closed_at != 0;
    WorkflowExecutionInfo {
        execution: Some(execution.clone()),
        r#type: Some(WorkflowType { name: record.workflow_type.clone() }),
        start_time: Hlc(record.started_at).optional_timestamp(),
        close_time: Hlc(record.closed_at).optional_timestamp(),
        status: Status::try_from(record.status).unwrap_or(Status::Unspecified).into(),
        history_length: record.history_length,
        execution_time: Hlc(record.execution_at).optional_timestamp(),
        memo: record.memo.clone().filter(|memo| !memo.is_empty()),
        search_attributes: attributes(record, namespace),
        task_queue: record.task_queue.clone(),
        state_transition_count: record.transitions,
        history_size_bytes: record.history_bytes,
        execution_duration: closed
            .then(|| holdfast_proto::duration(duration_nanos(record).max(0).unsigned_abs())),
        // A run without a parent is the root of itself.
        root_execution: Some(execution),
        ..WorkflowExecutionInfo::default()
    }
}

/// The attributes that are still known, each with its type in the metadata.
fn attributes(record: &VisibilityRecord, namespace: &NamespaceView) -> Option<SearchAttributes> {
    let fields = &record.search_attributes.as_ref()?.indexed_fields;
    let indexed_fields = fields
        .iter()
        .filter_map(|(name, payload)| {
            let custom = namespace.search_attributes.get(name).copied().and_then(Kind::of);
            let kind = custom.or_else(|| system_kind(name))?;
            Some((name.clone(), typed(payload, kind)))
        })
        .collect::<std::collections::BTreeMap<_, _>>();
    (!indexed_fields.is_empty()).then_some(SearchAttributes { indexed_fields })
}

/// A payload that says its type; one that says another keeps it, as in the reference.
fn typed(payload: &Payload, kind: Kind) -> Payload {
    match payload.decode() {
        Ok(mut open) if !open.metadata.contains_key("type") => {
            open.metadata.insert("type".to_owned(), kind.name().into());
            Payload::encode_from(&open)
        }
        _ => payload.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visibility::testing::{closed, open, view, with};
    use proptest::prelude::*;

    #[test]
    fn an_entry_shows_what_the_reference_shows() {
        // conformance/golden/visibility/entry_open_and_closed.json
        let gone =
            with(open("o", 5), [("CustomIntField", "7"), ("Removed", "1"), ("BuildIds", "['a']")]);
        let entry = info(&gone, &view());
        assert_eq!(entry.close_time, None);
        assert_eq!(entry.execution_duration, None);
        assert_eq!(entry.root_execution, entry.execution);
        assert_eq!(entry.first_run_id, "");
        let shown = entry.search_attributes.expect("some").indexed_fields;
        assert_eq!(shown.keys().collect::<Vec<_>>(), ["BuildIds", "CustomIntField"]);
        let int = shown["CustomIntField"].decode().expect("payload");
        assert_eq!(int.metadata["type"], "Int");
        assert_eq!(int.data, "7");

        let entry = info(&closed("c", 7, 10), &view());
        assert_eq!(entry.execution_duration, Some(holdfast_proto::duration(3)));
        assert_eq!(entry.status(), Status::Completed);
        assert_eq!(entry.history_length, 5);
        assert_eq!(entry.search_attributes, None);
    }

    #[test]
    fn a_page_belongs_to_its_namespace() {
        let key = SortKey::of(&closed("c", 7, 10));
        let page = ListPage::new(Uuid([1; 16]), key);
        assert_eq!(page.after(Uuid([1; 16])), Some(key));
        assert_eq!(page.after(Uuid([2; 16])), None);
        let cut = ListPage { after: vec![1], ..page };
        assert_eq!(cut.after(Uuid([1; 16])), None);
    }

    /// The order in words, to hold the bytes against.
    fn rank(r: &VisibilityRecord) -> impl Ord + std::fmt::Debug {
        use std::cmp::Reverse;
        (r.closed_at != 0, Reverse(r.closed_at), Reverse(r.started_at), r.run.clone())
    }

    proptest! {
        #[test]
        fn keys_sort_open_first_then_latest(
            a in (0u64..4, 1u64..4, any::<[u8; 16]>()),
            b in (0u64..4, 1u64..4, any::<[u8; 16]>()),
        ) {
            let record = |(closed_at, started_at, run): (u64, u64, [u8; 16])| VisibilityRecord {
                closed_at, started_at, run: run.to_vec(), ..VisibilityRecord::default()
            };
            let (a, b) = (record(a), record(b));
            prop_assert_eq!(SortKey::of(&a).cmp(&SortKey::of(&b)), rank(&a).cmp(&rank(&b)));
        }
    }
}
