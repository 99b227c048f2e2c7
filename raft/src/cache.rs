//! The executions that a leader holds in memory, and what of them is not applied yet.
//!
//! Bounded by bytes; the longest unused goes first. What has uncommitted changes or outstanding
//! grants stays, since nothing else knows them. Eviction writes nothing (A18).

use std::collections::{BTreeMap, VecDeque};

use holdfast_engine::ids::{ChangeSeq, ExecutionKey, RunId, Slot};
use holdfast_engine::{Change, Live, RecordLive};
use prost::Message;

use crate::load::FoldMark;

/// Changes of a slot that the tables may not have yet.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// The entry that holds them.
    pub(crate) entry: u64,
    /// The change number before them.
    pub(crate) base: ChangeSeq,
    /// The changes.
    pub(crate) changes: Vec<Change>,
}

/// A run in memory.
#[derive(Clone, Debug)]
pub(crate) struct CachedRun {
    /// The run.
    pub(crate) live: Live,
    /// Distance to its last checkpoint.
    pub(crate) mark: FoldMark,
    /// Not applied yet, oldest first.
    pub(crate) pending: VecDeque<Pending>,
}

/// An execution in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cached {
    /// The record of the id.
    pub(crate) record: RecordLive,
    /// Distance of the record to its last checkpoint.
    pub(crate) mark: FoldMark,
    /// Changes of the record that are not applied yet.
    pub(crate) pending: VecDeque<Pending>,
    /// The runs that were needed so far.
    pub(crate) runs: BTreeMap<RunId, CachedRun>,
    /// The newest entry with a draft of this execution; 0 when there is none in this reign.
    pub(crate) observed: u64,
    bytes: usize,
    used: u64,
}

/// What an execution, and each of its runs, costs beside what it would encode to.
const OVERHEAD: usize = 2048;
/// How much larger a state is in memory than encoded.
const SPREAD: usize = 4;

impl Cached {
    /// A new one around a record.
    pub(crate) fn new(record: RecordLive, mark: FoldMark) -> Cached {
        Cached { record, mark, ..Cached::default() }
    }

    /// Keeps changes until their entry is applied.
    pub(crate) fn remember(&mut self, slot: Slot, pending: Pending) {
        match slot {
            Slot::Id => self.pending.push_back(pending),
            Slot::Run(run) => {
                if let Some(held) = self.runs.get_mut(&run) {
                    held.pending.push_back(pending);
                }
            }
        }
    }

    fn measure(&self) -> usize {
        let runs: usize =
            self.runs.values().map(|run| OVERHEAD + SPREAD * run.live.state.encoded_len()).sum();
        OVERHEAD + SPREAD * self.record.record.encoded_len() + runs
    }

    fn may_leave(&self, applied: u64) -> bool {
        self.observed <= applied && self.runs.values().all(|run| run.live.overlay.grants.is_empty())
    }

    /// Entry `applied` and all before it are in the tables.
    pub(crate) fn settle(&mut self, applied: u64) {
        let settle = |pending: &mut VecDeque<Pending>| {
            while pending.front().is_some_and(|p| p.entry <= applied) {
                pending.pop_front();
            }
        };
        settle(&mut self.pending);
        let current = self.record.record.current.as_ref().map(|current| current.run_id());
        self.runs.retain(|id, run| {
            settle(&mut run.pending);
            // Earlier runs of an id are not kept for its sake: one id may have thousands.
            let over = !run.live.state.is_open() && current != Some(*id);
            !over || !run.pending.is_empty() || !run.live.overlay.grants.is_empty()
        });
    }
}

/// The cache of one shard.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    bytes: usize,
    clock: u64,
    held: BTreeMap<ExecutionKey, Cached>,
    /// Least recently used first.
    order: BTreeMap<u64, ExecutionKey>,
}

impl Cache {
    /// An empty cache that holds `limit` bytes.
    pub(crate) fn new(limit: usize) -> Cache {
        Cache { limit, bytes: 0, clock: 0, held: BTreeMap::new(), order: BTreeMap::new() }
    }

    /// Takes an execution out; it must be [put](Cache::put) back, or is forgotten.
    pub(crate) fn take(&mut self, key: &ExecutionKey) -> Option<Cached> {
        let cached = self.held.remove(key)?;
        self.order.remove(&cached.used);
        self.bytes -= cached.bytes;
        Some(cached)
    }

    /// Puts an execution in as the most recently used, and makes room for it: entries up to
    /// `applied` are in the tables.
    pub(crate) fn put(&mut self, key: ExecutionKey, mut cached: Cached, applied: u64) {
        cached.settle(applied);
        self.clock += 1;
        cached.used = self.clock;
        cached.bytes = cached.measure();
        self.bytes += cached.bytes;
        self.order.insert(cached.used, key.clone());
        self.held.insert(key, cached);
        self.make_room(applied);
    }

    /// Entry `applied` and all before it are in the tables: lets go of what `key` kept for them.
    pub(crate) fn settle(&mut self, key: &ExecutionKey, applied: u64) {
        if let Some(cached) = self.held.get_mut(key) {
            cached.settle(applied);
        }
    }

    /// How many executions have outstanding grants, and how many changes beyond entry `applied`.
    pub(crate) fn unsettled(&self, applied: u64) -> (usize, usize) {
        let granted =
            |held: &&Cached| held.runs.values().any(|run| !run.live.overlay.grants.is_empty());
        let behind = |pending: &VecDeque<Pending>| pending.iter().any(|it| it.entry > applied);
        let changed = |held: &&Cached| {
            behind(&held.pending) || held.runs.values().any(|run| behind(&run.pending))
        };
        let held = self.held.values();
        (held.clone().filter(granted).count(), held.filter(changed).count())
    }

    fn make_room(&mut self, applied: u64) {
        /// How many that may not leave are passed over before giving up for now.
        const PASSED: usize = 64;
        while self.bytes > self.limit {
            let victim = self
                .order
                .values()
                .take(PASSED)
                .find(|key| self.held.get(*key).is_some_and(|c| c.may_leave(applied)))
                .cloned();
            match victim {
                Some(key) => drop(self.take(&key)),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::Uuid;

    use super::*;

    fn key(n: u32) -> ExecutionKey {
        ExecutionKey::workflow(Uuid([1; 16]), &format!("w{n}"))
    }

    #[test]
    fn the_longest_unused_leaves_first() {
        let mut cache = Cache::new(3 * OVERHEAD);
        for n in 0..3 {
            cache.put(key(n), Cached::default(), 0);
        }
        let first = cache.take(&key(0)).expect("held");
        cache.put(key(0), first, 0);
        cache.put(key(3), Cached::default(), 0);
        assert_eq!(cache.held.len(), 3);
        assert!(cache.take(&key(1)).is_none());
        assert!(cache.take(&key(0)).is_some());
    }

    #[test]
    fn what_is_not_applied_stays() {
        let mut cache = Cache::new(OVERHEAD);
        let uncommitted = Cached { observed: 7, ..Cached::default() };
        cache.put(key(0), uncommitted, 6);
        cache.put(key(1), Cached::default(), 6);
        assert!(cache.take(&key(0)).is_some(), "entry 7 is not applied");
        cache.put(key(0), Cached { observed: 7, ..Cached::default() }, 7);
        cache.put(key(1), Cached::default(), 7);
        assert!(cache.take(&key(0)).is_none());
    }

    #[test]
    fn an_applied_entry_leaves_nothing_pending() {
        let mut cache = Cache::new(1 << 20);
        let pending = Pending { entry: 3, base: 0, changes: Vec::new() };
        let cached = Cached { observed: 3, pending: [pending].into(), ..Cached::default() };
        cache.put(key(0), cached, 2);
        cache.settle(&key(0), 2);
        assert_eq!(cache.held[&key(0)].pending.len(), 1);
        assert_eq!(cache.unsettled(2), (0, 1));
        cache.settle(&key(0), 3);
        assert!(cache.held[&key(0)].pending.is_empty());
        assert_eq!(cache.unsettled(3), (0, 0));
    }

    #[test]
    fn settling_drops_what_the_tables_have() {
        let pending = |entry| Pending { entry, base: entry, changes: Vec::new() };
        let mut cached = Cached { pending: (1..=4).map(pending).collect(), ..Cached::default() };
        cached.settle(2);
        assert_eq!(cached.pending.iter().map(|p| p.entry).collect::<Vec<_>>(), [3, 4]);
    }
}
