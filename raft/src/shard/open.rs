//! The start of a reign: what a new leader reads from its tables before it serves. Nothing is
//! scanned in full: counters name the queues that have work, and of each index only the head is
//! read (A16).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_engine::ids::Hlc;
use holdfast_storage::tables::backlog::QueueKey;
use holdfast_storage::tables::counter::{self, CounterKey};
use holdfast_storage::tables::deadline::{self, DeadlineKey};
use holdfast_storage::tables::meta::{self, LowWaterKey};
use holdfast_storage::tables::{Key, KeyWriter, ShardId, Table};
use holdfast_storage::{Direction, GroupId, Op, StorageError, Store};

use super::row_ops::CounterKind;
use super::{Batch, Leading, Serving};
use crate::cache::Cache;
use crate::deadlines::{Deadline, Wheel};
use crate::entry::Reign;
use crate::rows::GroupState;
use crate::waits::Waits;

impl Serving {
    /// Opens a reign in `term` over what the tables say.
    pub(super) fn open(leading: &Leading, term: u64) -> Result<Serving, StorageError> {
        let store = leading.host.store.as_ref();
        let state = GroupState::read(store.view().as_ref(), leading.group.id())?;
        let counter = if state.reign.term == term { state.reign.counter + 1 } else { 1 };
        let mut serving = Serving {
            shard: leading.shard,
            group: leading.group.id(),
            host: leading.host.clone(),
            limits: leading.limits.clone(),
            config: leading.config.clone(),
            hubs: leading.hubs.clone(),
            registry: leading.registry.clone(),
            reign: Reign { term, counter: counter.max(leading.reigns) },
            clock: state.at,
            looked: state.at,
            review: None,
            steps: leading.host.clock.standing().borrow().steps,
            proposed: 0,
            applied: 0,
            cache: Cache::new(leading.config.cache_bytes),
            sealed: VecDeque::new(),
            batch: Batch::default(),
            in_flight: VecDeque::new(),
            reads: Vec::new(),
            grants: BTreeSet::new(),
            first_grant: Hlc::ZERO,
            wheel: Wheel::new(leading.config.deadlines),
            low_water: Bytes::new(),
            fired: 0,
            unmet: None,
            queues: BTreeMap::new(),
            delayed: BTreeSet::new(),
            counters: counters(store, leading.shard)?,
            waits: Waits::new(leading.config.parked),
            quarantined: BTreeSet::new(),
        };
        serving.low_water = low_water(store, leading.group.id(), leading.shard)?;
        let (from, page) = (serving.low_water.clone(), serving.wheel.most());
        let (rows, more) = deadlines(store, leading.shard, from, page)?;
        serving.wheel.refill(rows, more);
        Ok(serving)
    }

    /// Offers what waited before this reign. Pollers may be lent at once: the inbox must be open.
    pub(super) fn open_queues(&mut self) -> Result<(), StorageError> {
        let queues: Vec<QueueKey> = self.counters.keys().filter_map(queue_of).collect();
        queues.into_iter().try_for_each(|key| self.open_queue(key))
    }

    /// Reads the deadlines behind the horizon, when the wheel ran out of those before it.
    pub(super) fn refill_wheel(&mut self) -> Result<(), StorageError> {
        while let Some(last) = self.wheel.wants() {
            let from = DeadlineKey {
                shard: self.shard,
                at: last.at,
                execution: last.key.clone(),
                run: last.run,
            };
            let from = holdfast_storage::tables::after(&from.encode());
            let page = self.wheel.most();
            let (rows, more) = deadlines(self.host.store.as_ref(), self.shard, from, page)?;
            self.wheel.refill(rows, more);
        }
        Ok(())
    }

    /// Moves the low-water key of the deadline table to its first row, now and then; and back in
    /// the entry that writes a row before it (A16).
    pub(super) fn move_low_water(&mut self, written: &[Bytes]) -> Option<Op> {
        let lowest = written.iter().min().filter(|key| **key < self.low_water);
        let moved = if let Some(lowest) = lowest {
            lowest.clone()
        } else if self.fired >= self.config.low_water_every {
            self.fired = 0;
            let margin = self.config.low_water_margin.as_nanos() as u64;
            let safe = Hlc(self.host.clock.now().0.saturating_sub(margin));
            // The rows of quarantined executions are for the next leader.
            let head = [self.wheel.next(), self.unmet].into_iter().flatten().fold(safe, Hlc::min);
            deadline::end_of(self.shard, Hlc(head.0.saturating_sub(1)))
        } else {
            return None;
        };
        self.low_water = moved.clone();
        let key = LowWaterKey { group: self.group, table: Table::Deadline, part: Vec::new() };
        Some(Op::Put { key: key.encode(), value: meta::low_water_to_value(&moved) })
    }
}

fn counters(store: &dyn Store, shard: ShardId) -> Result<BTreeMap<CounterKey, i64>, StorageError> {
    let range = KeyWriter::new(Table::Counter, shard).range();
    let mut out = BTreeMap::new();
    let mut failed = None;
    store.view().scan(&range.start, &range.end, Direction::Forward, &mut |key, value| {
        let row = CounterKey::decode(key).and_then(|key| {
            counter::from_value(Bytes::copy_from_slice(value)).map(|count| (key, count))
        });
        match row {
            Ok((key, count)) => {
                out.insert(key, count);
                ControlFlow::Continue(())
            }
            Err(why) => {
                failed = Some(why);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(out), Err)
}

fn queue_of(key: &CounterKey) -> Option<QueueKey> {
    if key.kind != CounterKind::Backlog as u8 {
        return None;
    }
    Some(QueueKey {
        shard: key.shard,
        namespace: key.namespace,
        queue: key.name.clone(),
        task_type: *key.sub.first()?,
    })
}

/// Where the deadline table may be read from: everything before it is gone.
fn low_water(store: &dyn Store, group: GroupId, shard: ShardId) -> Result<Bytes, StorageError> {
    let key = LowWaterKey { group, table: Table::Deadline, part: Vec::new() };
    match store.view().get(&key.encode())? {
        Some(value) => meta::low_water_from_value(value),
        None => Ok(KeyWriter::new(Table::Deadline, shard).range().start),
    }
}

/// One `page` of deadline rows from `from` on, and whether there are more.
fn deadlines(
    store: &dyn Store,
    shard: ShardId,
    from: Bytes,
    page: usize,
) -> Result<(Vec<Deadline>, bool), StorageError> {
    let end = KeyWriter::new(Table::Deadline, shard).range().end;
    let mut rows = Vec::new();
    let mut failed = None;
    store.view().scan(&from, &end, Direction::Forward, &mut |key, _| {
        match DeadlineKey::decode(key) {
            Ok(row) => rows.push(Deadline { at: row.at, key: row.execution, run: row.run }),
            Err(why) => {
                failed = Some(why);
                return ControlFlow::Break(());
            }
        }
        if rows.len() > page { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(why) = failed {
        return Err(why);
    }
    let more = rows.len() > page;
    rows.truncate(page);
    Ok((rows, more))
}
