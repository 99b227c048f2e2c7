//! Folding a slot from the tables: its checkpoint, then its journal, with the events that the
//! journal refers to read from history (DESIGN 3.3).

use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_engine::ids::{ChangeSeq, EventId, ExecutionKey, RunId, Slot};
use holdfast_engine::rows::Dirty;
use holdfast_engine::{Change, IdRecord, State, id_record, workflow};
use holdfast_storage::tables::checkpoint::{Checkpoint, CheckpointKey};
use holdfast_storage::tables::journal::{self, Item};
use holdfast_storage::tables::{Key, RunKey, ShardId, SlotKey, history};
use holdfast_storage::{Direction, StorageError, View};
use prost::Message;

/// What an event costs in a fold, beside its own reading: it counts toward the next checkpoint so
/// that the fold of a run with many events stays bounded too.
const EVENT_WEIGHT: usize = 64;

/// How far a slot is from its last checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FoldMark {
    /// Bytes of private changes, and weight of events, since the last checkpoint.
    pub(crate) since: usize,
    /// Size of the last checkpoint.
    pub(crate) checkpoint: usize,
}

impl FoldMark {
    /// The least that a checkpoint waits for (A18).
    pub(crate) const LEAST: usize = 4096;

    /// Counts a change in its wire form.
    pub(crate) fn count(&mut self, tag: u16, bytes: usize) {
        self.since +=
            if tag == holdfast_engine::change::EVENT_TAG { EVENT_WEIGHT } else { bytes + 4 };
    }

    /// Whether a checkpoint is due: what would be folded exceeds max(4 KiB, the last checkpoint).
    pub(crate) fn is_due(&self) -> bool {
        self.since > Self::LEAST.max(self.checkpoint)
    }

    /// A checkpoint of `bytes` was written.
    pub(crate) fn written(&mut self, bytes: usize) {
        *self = FoldMark { since: 0, checkpoint: bytes };
    }
}

/// Loads the record of an id; an id that was never used has an empty one.
pub(crate) fn record(
    view: &dyn View,
    shard: ShardId,
    key: &ExecutionKey,
) -> Result<(IdRecord, FoldMark), StorageError> {
    let slot = SlotKey { shard, execution: key.clone(), slot: Slot::Id };
    let (found, mut mark) = checkpoint(view, &slot)?;
    let mut record = match found {
        Some(found) => decode::<IdRecord>("id record", &found.state)?,
        None => IdRecord::default(),
    };
    let run = RunKey { shard, execution: key.clone(), run: holdfast_engine::ids::Uuid::NIL };
    replay(view, &slot, &run, record.seq, &mut mark, &mut |change| {
        id_record::apply(&mut record, change);
    })?;
    Ok((record, mark))
}

/// Loads a run; `None` when there is nothing of it.
pub(crate) fn run(
    view: &dyn View,
    shard: ShardId,
    key: &ExecutionKey,
    run: RunId,
) -> Result<Option<(State, FoldMark)>, StorageError> {
    let slot = SlotKey { shard, execution: key.clone(), slot: Slot::Run(run) };
    let (found, mut mark) = checkpoint(view, &slot)?;
    let mut state = match found {
        Some(found) => decode::<State>("run", &found.state)?,
        None => holdfast_engine::live::fresh(),
    };
    let run = RunKey { shard, execution: key.clone(), run };
    let mut dirty = Dirty::default();
    replay(view, &slot, &run, state.seq, &mut mark, &mut |change| {
        workflow::apply(&mut state, change, &mut dirty);
    })?;
    Ok((state.seq > 0).then_some((state, mark)))
}

fn checkpoint(
    view: &dyn View,
    slot: &SlotKey,
) -> Result<(Option<Checkpoint>, FoldMark), StorageError> {
    let Some(value) = view.get(&CheckpointKey { slot: slot.clone() }.encode())? else {
        return Ok((None, FoldMark::default()));
    };
    let found = Checkpoint::from_value(value)?;
    let mark = FoldMark { since: 0, checkpoint: found.state.len() };
    Ok((Some(found), mark))
}

fn decode<M: Message + Default>(what: &str, bytes: &Bytes) -> Result<M, StorageError> {
    M::decode(bytes.as_ref())
        .map_err(|why| StorageError::Corrupt(format!("checkpoint of a {what}: {why}")))
}

/// Feeds every change after `seq` to `fold`, in order.
fn replay(
    view: &dyn View,
    slot: &SlotKey,
    run: &RunKey,
    seq: ChangeSeq,
    mark: &mut FoldMark,
    fold: &mut dyn FnMut(&Change),
) -> Result<(), StorageError> {
    let mut replay = Replay { items: journal(view, slot, seq)?.into_iter(), mark, fold };
    let Some((first, mut last)) = replay.up_to_events()? else { return Ok(()) };
    // The events of a run are consecutive: one walk through its history meets all of them.
    let mut next = first;
    let mut meet = |id: EventId, bytes: Bytes| -> Result<ControlFlow<()>, StorageError> {
        replay.feed(holdfast_engine::change::EVENT_TAG, &bytes)?;
        next = id + 1;
        if id < last {
            return Ok(ControlFlow::Continue(()));
        }
        match replay.up_to_events()? {
            None => Ok(ControlFlow::Break(())),
            Some((first, end)) if first == next => {
                last = end;
                Ok(ControlFlow::Continue(()))
            }
            Some((first, _)) => {
                Err(StorageError::Corrupt(format!("journal: event {first} after {id}")))
            }
        }
    };
    let mut failed = None;
    history::read(view, run, first, &mut |id, bytes| {
        meet(id, bytes).unwrap_or_else(|why| {
            failed = Some(why);
            ControlFlow::Break(())
        })
    })?;
    match failed {
        Some(why) => Err(why),
        None if next <= last => {
            Err(StorageError::Corrupt(format!("history ends at {next}, the journal at {last}")))
        }
        None => Ok(()),
    }
}

/// What the journal of a slot has after `seq`.
fn journal(view: &dyn View, slot: &SlotKey, seq: ChangeSeq) -> Result<Vec<Item>, StorageError> {
    let mut items = Vec::new();
    let mut failed = None;
    let range = journal::range_from(slot, seq);
    view.scan(&range.start, &range.end, Direction::Forward, &mut |_, value| {
        match journal::from_value(Bytes::copy_from_slice(value)) {
            Ok(row) => {
                items.extend(row);
                ControlFlow::Continue(())
            }
            Err(why) => {
                failed = Some(why);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(items), Err)
}

/// A fold under way.
struct Replay<'a> {
    items: std::vec::IntoIter<Item>,
    mark: &'a mut FoldMark,
    fold: &'a mut dyn FnMut(&Change),
}

impl Replay<'_> {
    /// Folds the private changes before the next events; gives the first and the last of those, or
    /// `None` when there are no more.
    fn up_to_events(&mut self) -> Result<Option<(EventId, EventId)>, StorageError> {
        while let Some(item) = self.items.next() {
            match item {
                Item::Events { first, last } => return Ok(Some((first, last))),
                Item::Change { tag, bytes } => {
                    let tag = u16::try_from(tag)
                        .map_err(|_| StorageError::Corrupt(format!("journal: tag {tag}")))?;
                    self.feed(tag, &bytes)?;
                }
            }
        }
        Ok(None)
    }

    fn feed(&mut self, tag: u16, bytes: &[u8]) -> Result<(), StorageError> {
        self.mark.count(tag, bytes.len());
        (self.fold)(&change(tag, bytes)?);
        Ok(())
    }
}

fn change(tag: u16, bytes: &[u8]) -> Result<Change, StorageError> {
    Change::decode(tag, bytes)
        .map_err(|why| StorageError::Corrupt(format!("change of tag {tag}: {why}")))
}

#[cfg(test)]
mod tests {
    use holdfast_engine::change::{EVENT_TAG, StartedBy};
    use holdfast_engine::ids::Uuid;
    use holdfast_proto::history::HistoryEvent;
    use holdfast_storage::Store;
    use holdfast_storage::memory::MemoryStore;

    use super::*;
    use crate::rows::{history_row, journal_row};

    fn places() -> (SlotKey, RunKey) {
        let (execution, run) = (ExecutionKey::workflow(Uuid([7; 16]), "w"), Uuid([9; 16]));
        let slot = SlotKey { shard: 3, execution: execution.clone(), slot: Slot::Run(run) };
        (slot, RunKey { shard: 3, execution, run })
    }

    fn private(name: &str) -> Item {
        let change = Change::StartedBy(StartedBy { request_id: name.to_owned() });
        let (tag, bytes) = change.encode();
        Item::Change { tag: u32::from(tag), bytes }
    }

    fn events(first: EventId, last: EventId) -> Item {
        Item::Events { first, last }
    }

    /// The changes after `seq` of a journal in two rows, over a history with events 1 to 5.
    fn folded(rows: [&[Item]; 2], seq: ChangeSeq) -> Result<Vec<String>, StorageError> {
        let (slot, run) = places();
        let store = MemoryStore::new();
        let bodies = |range: std::ops::RangeInclusive<i64>| {
            let body = |event_id| HistoryEvent { event_id, ..HistoryEvent::default() };
            range.map(|id| Change::Event(Box::new(body(id))).encode().1).collect()
        };
        let second = rows[0].iter().map(Item::changes).sum();
        store.apply(vec![
            journal_row(&slot, 0, rows[0]),
            journal_row(&slot, second, rows[1]),
            history_row(run.clone(), 1, bodies(1..=3)),
            history_row(run.clone(), 4, bodies(4..=5)),
        ])?;
        let (mut mark, mut seen) = (FoldMark::default(), Vec::new());
        replay(store.view().as_ref(), &slot, &run, seq, &mut mark, &mut |change| {
            seen.push(match change {
                Change::Event(event) => event.event_id.to_string(),
                Change::StartedBy(by) => by.request_id.clone(),
                other => format!("{other:?}"),
            });
        })?;
        let weight = |name: &String| match name.parse::<i64>() {
            Ok(_) => EVENT_WEIGHT,
            Err(_) => name.len() + 2 + 4,
        };
        assert_eq!(mark.since, seen.iter().map(weight).sum::<usize>());
        assert_eq!(EVENT_TAG, Change::Event(Box::default()).encode().0);
        Ok(seen)
    }

    #[test]
    fn private_changes_keep_their_place_among_the_events() {
        let first = [private("a"), events(1, 2), private("b"), private("c"), events(3, 4)];
        let second = [private("d"), events(5, 5), private("e")];
        let all = ["a", "1", "2", "b", "c", "3", "4", "d", "5", "e"];
        assert_eq!(folded([&first, &second], 0).expect("folds"), all);
        // From a checkpoint on, inside of a batch of history.
        assert_eq!(folded([&first, &second], 7).expect("folds"), ["d", "5", "e"]);
        assert_eq!(folded([&[private("a")], &[private("b")]], 0).expect("folds"), ["a", "b"]);
    }

    #[test]
    fn events_that_are_missing_are_damage() {
        let gap = folded([&[events(1, 2)], &[events(4, 5)]], 0);
        assert!(
            matches!(gap, Err(StorageError::Corrupt(why)) if why == "journal: event 4 after 2")
        );
        let short = folded([&[events(1, 2)], &[events(3, 6)]], 0);
        let text = "history ends at 6, the journal at 6";
        assert!(matches!(short, Err(StorageError::Corrupt(why)) if why == text));
    }
}
