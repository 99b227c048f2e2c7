//! Which changes and events the logs of a run have seen, and when a leader opened a reign. A variant
//! of `Change` that no run reaches is a part of the product that the simulator says nothing about.
//!
//! Each place of a log counts once: the first entry that any node appends there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_engine::change::{Change, EVENT_TAG};
use holdfast_engine::ids::{Hlc, Slot};
use holdfast_engine::workflow::own_time::Ahead;
use holdfast_proto::enums::{EventType, WorkflowTaskFailedCause};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes;
use holdfast_raft::entry::{Reign, ShardEntry, WireChange};
use holdfast_storage::{GroupId, LogEntry};
use prost::Message;

use crate::scenario::Sizes;

/// Counts by the tag of the change, and by the type of the event.
#[derive(Debug, Default)]
pub struct Coverage {
    /// The highest index that was counted, by group.
    reached: BTreeMap<GroupId, u64>,
    changes: BTreeMap<u16, u64>,
    events: BTreeMap<i32, u64>,
    /// Events that say by themselves which rare path led to them.
    paths: BTreeMap<&'static str, u64>,
    reigns: BTreeMap<GroupId, Reign>,
    opened: Vec<u64>,
    own_time: BTreeSet<String>,
    /// Drafts and bytes from which on an entry takes no more; the default counts none as full.
    full: Option<(usize, usize)>,
}

/// What of an event says which it is; the rest is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct TypeOnly {
    #[prost(int32, tag = "3")]
    event_type: i32,
}

/// The entry of a shard that a log entry holds; `None` when it is Raft's own.
pub(crate) fn shard_entry(entry: &LogEntry) -> Option<ShardEntry> {
    ShardEntry::decode(&holdfast_raft::types::application_data(entry)?).ok()
}

impl Coverage {
    /// Counts entries that are as full as these sizes allow.
    pub fn new(sizes: &Sizes) -> Coverage {
        // A shard closes an entry at half of its bytes: the next decision may take as many.
        let full = Some((sizes.entry_drafts, sizes.entry_bytes / 2));
        Coverage { full, ..Coverage::default() }
    }

    /// A node appends entries to its log, at this true time.
    pub fn appended(&mut self, group: GroupId, entries: &[LogEntry], at: Hlc) {
        let reached = self.reached.entry(group).or_default();
        for entry in entries.iter().filter(|entry| entry.index > *reached) {
            let Some(decided) = shard_entry(entry) else { continue };
            let newest = self.reigns.entry(group).or_default();
            if decided.reign > *newest {
                *newest = decided.reign;
                self.opened.push(at.0);
            }
            let (drafts, bytes) = (decided.drafts.len(), entry.payload.len());
            if self.full.is_some_and(|(most, closes)| drafts >= most || bytes >= closes) {
                *self.paths.entry(FULL_ENTRY).or_default() += 1;
            }
            let ahead = Change::Ahead(Ahead::default()).encode().0;
            let parts: Vec<_> = decided.drafts.into_iter().flat_map(|it| it.parts).collect();
            // The last change of a run travels as what it means: the slot is gone.
            let dropped = parts.iter().filter(|part| part.drop).count() as u64;
            if dropped > 0 {
                *self.changes.entry(Change::RunDeleted.encode().0).or_default() += dropped;
            }
            for part in &parts {
                if let Slot::Run(run) = part.slot
                    && part.changes.iter().any(|change| change.tag == ahead)
                {
                    self.own_time.insert(run.to_string());
                }
            }
            let ends =
                [EventType::WorkflowExecutionTerminated, EventType::WorkflowExecutionTimedOut];
            let changes = parts.into_iter().flat_map(|part| {
                let is_end = |change: &WireChange| {
                    change.tag == EVENT_TAG
                        && ends.iter().any(|end| *end as i32 == event_type(&change.body))
                };
                let closes = part.changes.iter().any(is_end);
                part.changes.into_iter().map(move |change| (change, closes))
            });
            for (change, closes) in changes {
                *self.changes.entry(change.tag).or_default() += 1;
                if change.tag == EVENT_TAG {
                    let kind = event_type(&change.body);
                    *self.events.entry(kind).or_default() += 1;
                    if let Some(path) =
                        path(kind, &change.body).filter(|path| !closes || *path == OVERGROWN)
                    {
                        *self.paths.entry(path).or_default() += 1;
                    }
                }
            }
        }
        *reached = entries.last().map_or(*reached, |last| last.index.max(*reached));
    }

    /// The runs that the logs say keep their own time.
    pub fn own_time(&self) -> &BTreeSet<String> {
        &self.own_time
    }

    /// When the first entry of each reign was appended, nanoseconds since the epoch, in order.
    pub fn reigns(&self) -> &[u64] {
        &self.opened
    }

    /// How often each change was seen, by name; those that never were are not there.
    pub fn changes(&self) -> BTreeMap<String, u64> {
        let seen = Change::NAMES.iter().filter_map(|(tag, name)| {
            let count = self.changes.get(tag)?;
            Some(((*name).to_owned(), *count))
        });
        seen.collect()
    }

    /// How often a limit was met, by what came of it.
    pub fn paths(&self) -> BTreeMap<String, u64> {
        self.paths.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    /// How often each event was seen, by name.
    pub fn events(&self) -> BTreeMap<String, u64> {
        let named = |kind: i32| EventType::try_from(kind).map(|kind| format!("{kind:?}"));
        let seen = self.events.iter();
        seen.map(|(kind, n)| (named(*kind).unwrap_or_else(|_| kind.to_string()), *n)).collect()
    }
}

fn event_type(body: &Bytes) -> i32 {
    TypeOnly::decode(body.as_ref()).map_or(0, |event| event.event_type)
}

const FULL_ENTRY: &str = "full entry";
const OVERGROWN: &str = "overgrown run";
/// How the reasons begin for which the server terminates a run that became too large.
const OVERGROWN_REASONS: [&str; 3] = ["Workflow history", "Workflow mutable state", "Transaction"];
const FULL_BUFFER: &str = "task ended for a full buffer";

/// The limit that an event comes of, if it comes of one. A task that is ended because its run ends
/// looks like one that is ended for a full buffer: the caller knows.
fn path(kind: i32, body: &Bytes) -> Option<&'static str> {
    let may = [EventType::WorkflowExecutionTerminated, EventType::WorkflowTaskFailed];
    if !may.iter().any(|one| *one as i32 == kind) {
        return None;
    }
    match HistoryEvent::decode(body.as_ref()).ok()?.attributes? {
        Attributes::WorkflowExecutionTerminatedEventAttributes(a)
            if OVERGROWN_REASONS.iter().any(|start| a.reason.starts_with(start)) =>
        {
            Some(OVERGROWN)
        }
        Attributes::WorkflowTaskFailedEventAttributes(a)
            if a.cause == WorkflowTaskFailedCause::ForceCloseCommand as i32 =>
        {
            Some(FULL_BUFFER)
        }
        _ => None,
    }
}

/// The changes that counts do not name.
pub fn never(changes: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let names = Change::NAMES.iter().map(|(_, name)| *name);
    names.filter(|name| !changes.contains_key(*name)).collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use bytes::{BufMut, BytesMut};
    use holdfast_engine::ids::{ExecutionKey, Slot, Uuid};
    use holdfast_raft::entry::{EntryDraft, SlotPart};

    /// An entry of term 1 that changes the record of workflow `w`.
    pub(crate) fn entry(index: u64, changes: &[Change]) -> LogEntry {
        let changes = changes.iter().map(Change::encode);
        let part = SlotPart {
            slot: Slot::Id,
            base: 0,
            changes: changes.map(|(tag, body)| WireChange { tag, body }).collect(),
            checkpoint: None,
            drop: false,
        };
        let key = ExecutionKey::workflow(Uuid::NIL, "w");
        let draft = EntryDraft { key, parts: vec![part], rows: Vec::new() };
        let mut entry = ShardEntry::new(Reign { term: 1, counter: 1 }, 0, Hlc(1));
        entry.drafts.push(draft);
        let mut payload = BytesMut::new();
        payload.put_u8(1);
        payload.put_slice(entry.encode().expect("encodes").bytes());
        LogEntry { index, term: 1, payload: payload.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::entry;
    use super::*;

    #[test]
    fn entries_that_take_no_more_are_counted() {
        let one = [Change::RunDeleted];
        let full = |entry_drafts, entry_bytes| {
            let sizes = Sizes { entry_drafts, entry_bytes, ..Sizes::default() };
            let mut coverage = Coverage::new(&sizes);
            coverage.appended(1, &[entry(1, &one)], Hlc(1));
            coverage.paths().get(FULL_ENTRY).copied()
        };
        assert_eq!((full(2, 10_000), full(1, 10_000), full(2, 10)), (None, Some(1), Some(1)));
    }

    #[test]
    fn each_place_of_a_log_counts_once() {
        let signaled = HistoryEvent {
            event_type: EventType::WorkflowExecutionSignaled as i32,
            event_id: 7,
            ..HistoryEvent::default()
        };
        let entries =
            [entry(1, &[Change::Event(Box::new(signaled))]), entry(2, &[Change::RunDeleted])];
        let mut coverage = Coverage::default();
        coverage.appended(1, &entries[..1], Hlc(5));
        coverage.appended(1, &entries, Hlc(6));
        coverage.appended(2, &entries, Hlc(7));
        assert_eq!(coverage.reigns(), [5, 7], "one in each log");
        assert_eq!(coverage.events(), [("WorkflowExecutionSignaled".to_owned(), 2)].into());
        let changes = coverage.changes();
        assert_eq!(changes, [("Event".to_owned(), 2), ("RunDeleted".to_owned(), 2)].into());
        assert_eq!(never(&changes).len(), Change::NAMES.len() - 2);
    }
}
