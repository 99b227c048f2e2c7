//! History: every event of a run, once, as it was encoded.
//!
//! (shard, execution, run, id of the first event) -> a batch of consecutive events. The journal
//! refers to events by their ids; only this table holds their bytes (A19).

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use holdfast_engine::ids::EventId;

use super::key::{Key, KeyReader, KeyWriter, RunKey, after};
use super::{ShardId, Table, value};
use crate::{Direction, StorageError, View};

/// The place of one batch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HistoryKey {
    /// The run.
    pub run: RunKey,
    /// The id of the batch's first event.
    pub first: EventId,
}

impl Key for HistoryKey {
    const TABLE: Table = Table::History;

    fn shard(&self) -> ShardId {
        self.run.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        self.run.write(out);
        out.event(self.first);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Ok(HistoryKey { run: RunKey::read(shard, input)?, first: input.event()? })
    }
}

/// Consecutive events, each an encoded `HistoryEvent`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// The events, in order.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub events: Vec<Bytes>,
}

impl Batch {
    /// The stored form.
    pub fn to_value(&self) -> Bytes {
        value::encode(self)
    }

    /// The reverse; the events share the value's buffer.
    pub fn from_value(value: Bytes) -> Result<Batch, StorageError> {
        value::decode("history", value)
    }
}

/// All batches of a run.
pub fn range(run: &RunKey) -> Range<Bytes> {
    let mut out = KeyWriter::new(Table::History, run.shard);
    run.write(&mut out);
    out.range()
}

/// Where a walk forward begins that is to meet `event`: the key of its batch, which may begin before
/// it and, when `event` is not stored, end before it; with nothing at or before `event`, that of the
/// first batch there could be.
pub fn start_at(view: &dyn View, run: &RunKey, event: EventId) -> Result<Bytes, StorageError> {
    let mut start = range(run).start;
    let to = after(&HistoryKey { run: run.clone(), first: event }.encode());
    view.scan(&start.clone(), &to, Direction::Backward, &mut |key, _| {
        start = Bytes::copy_from_slice(key);
        ControlFlow::Break(())
    })?;
    Ok(start)
}

/// Calls `visit` with each event of the run from `from` on, in order, until it breaks. A hole
/// between events is damage.
pub fn read(
    view: &dyn View,
    run: &RunKey,
    from: EventId,
    visit: &mut dyn FnMut(EventId, Bytes) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    let mut next = from;
    let start = start_at(view, run, from)?;
    let mut failed = None;
    view.scan(
        &start,
        &range(run).end,
        Direction::Forward,
        &mut |key, value| match row(key, value)
            .and_then(|(first, batch)| deliver(first, batch, &mut next, visit))
        {
            Ok(flow) => flow,
            Err(why) => {
                failed = Some(why);
                ControlFlow::Break(())
            }
        },
    )?;
    failed.map_or(Ok(()), Err)
}

fn row(key: &[u8], value: &[u8]) -> Result<(EventId, Batch), StorageError> {
    let first = HistoryKey::decode(key)?.first;
    Ok((first, Batch::from_value(Bytes::copy_from_slice(value))?))
}

fn deliver(
    first: EventId,
    batch: Batch,
    next: &mut EventId,
    visit: &mut dyn FnMut(EventId, Bytes) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StorageError> {
    if first > *next {
        return Err(StorageError::Corrupt(format!(
            "history: event {next} is missing, the next batch starts at {first}"
        )));
    }
    for (id, event) in (first..).zip(batch.events) {
        if id >= *next {
            *next = id + 1;
            if visit(id, event).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::{ExecutionKey, Uuid};
    use proptest::prelude::*;

    use super::super::{put, testing};
    use super::*;
    use crate::memory::MemoryStore;
    use crate::store::Store;

    fn key() -> impl Strategy<Value = HistoryKey> {
        (testing::run(), testing::event()).prop_map(|(run, first)| HistoryKey { run, first })
    }

    proptest! {
        #[test]
        fn keys(a in key(), b in key()) {
            testing::check(&a, &b);
        }

        #[test]
        fn values(events in proptest::collection::vec(testing::blob(), 0..4)) {
            let batch = Batch { events: events.into_iter().map(Bytes::from).collect() };
            prop_assert_eq!(Batch::from_value(batch.to_value()).expect("decodes"), batch);
        }
    }

    fn run_key() -> RunKey {
        let execution = ExecutionKey::workflow(Uuid([7; 16]), "order-1");
        RunKey { shard: 3, execution, run: Uuid([9; 16]) }
    }

    fn store(batches: &[(EventId, EventId)]) -> MemoryStore {
        let store = MemoryStore::new();
        let ops = batches.iter().map(|&(first, last)| {
            let events = (first..=last).map(|id| Bytes::from(format!("e{id}"))).collect();
            put(&HistoryKey { run: run_key(), first }, Batch { events }.to_value())
        });
        store.apply(ops.collect()).expect("applies");
        store
    }

    fn ids(store: &MemoryStore, from: EventId, most: usize) -> Result<Vec<EventId>, StorageError> {
        let mut seen = Vec::new();
        read(store.view().as_ref(), &run_key(), from, &mut |id, event| {
            assert_eq!(event, format!("e{id}"));
            seen.push(id);
            if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(seen)
    }

    #[test]
    fn reading_starts_inside_a_batch() {
        let store = store(&[(1, 3), (4, 4), (5, 9)]);
        assert_eq!(ids(&store, 1, 99).expect("reads"), (1..10).collect::<Vec<_>>());
        assert_eq!(ids(&store, 2, 99).expect("reads"), (2..10).collect::<Vec<_>>());
        assert_eq!(ids(&store, 3, 3).expect("reads"), [3, 4, 5]);
        assert_eq!(ids(&store, 9, 99).expect("reads"), [9]);
        assert_eq!(ids(&store, 10, 99).expect("reads"), Vec::<EventId>::new());
        let view = store.view();
        let start = |event| start_at(view.as_ref(), &run_key(), event).expect("reads");
        let batch = |first| HistoryKey { run: run_key(), first }.encode();
        assert_eq!([7, 4, 99].map(start), [5, 4, 5].map(batch));
        assert_eq!(start(0), range(&run_key()).start);
    }

    #[test]
    fn a_hole_is_damage() {
        let store = store(&[(1, 3), (5, 9)]);
        assert!(ids(&store, 1, 99).is_err());
        assert!(ids(&store, 4, 99).is_err());
        assert!(ids(&store, 5, 99).is_ok());
        assert_eq!(ids(&store, 2, 2).expect("the hole is not reached"), [2, 3]);
    }
}
