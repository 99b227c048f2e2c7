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
    if let Some(why) = failed {
        return Err(why);
    }
    for item in items {
        match item {
            Item::Change { tag, bytes } => {
                let tag = u16::try_from(tag)
                    .map_err(|_| StorageError::Corrupt(format!("journal: tag {tag}")))?;
                mark.count(tag, bytes.len());
                fold(&change(tag, &bytes)?);
            }
            Item::Events { first, last } => events(view, run, first, last, mark, fold)?,
        }
    }
    Ok(())
}

fn events(
    view: &dyn View,
    run: &RunKey,
    first: EventId,
    last: EventId,
    mark: &mut FoldMark,
    fold: &mut dyn FnMut(&Change),
) -> Result<(), StorageError> {
    let mut next = first;
    let mut failed = None;
    history::read(view, run, first, &mut |id, bytes| {
        if id > last {
            return ControlFlow::Break(());
        }
        mark.count(holdfast_engine::change::EVENT_TAG, bytes.len());
        match change(holdfast_engine::change::EVENT_TAG, &bytes) {
            Ok(change) => fold(&change),
            Err(why) => {
                failed = Some(why);
                return ControlFlow::Break(());
            }
        }
        next = id + 1;
        if id == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match failed {
        Some(why) => Err(why),
        None if next <= last => {
            Err(StorageError::Corrupt(format!("history ends at {next}, the journal at {last}")))
        }
        None => Ok(()),
    }
}

fn change(tag: u16, bytes: &[u8]) -> Result<Change, StorageError> {
    Change::decode(tag, bytes)
        .map_err(|why| StorageError::Corrupt(format!("change of tag {tag}: {why}")))
}
