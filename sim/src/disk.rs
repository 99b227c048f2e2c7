//! The disk of a node: a log whose syncs take time, hang and fail, and tables that fall back to
//! their last flush; both over the memory pair of `storage`. The disk outlives its node.
//!
//! A power loss keeps the synced writes of the log and a random prefix of the pending ones (one log
//! file is cut at one place), and of the tables what the last flush had.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use holdfast_raft::types::NodeId;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use holdfast_storage::tables::Key;
use holdfast_storage::tables::meta::{Applied, AppliedKey};
use holdfast_storage::{Done, GroupId, Log, LogEntry, LogState, Op, StorageError, Store, View};
use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::Xxh3;

use crate::rng::Rng;
use crate::scenario::DiskPlan;
use crate::world::Shared;

/// Where inside a write a node dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fuse {
    /// In the `n`th write to the tables from now: before it, or after it.
    Apply {
        /// 0 is the next.
        n: u32,
        /// Whether that write is done.
        after: bool,
    },
    /// In the next flush of the tables.
    Flush {
        /// Whether it is done.
        after: bool,
    },
    /// In the next sync of the log, with a random part of it done.
    Sync,
}

/// A disk: what is on it, and what is wrong with it.
pub struct Disk {
    plan: DiskPlan,
    log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    trouble: Arc<Trouble>,
    rng: Rng,
}

/// What is wrong with a disk, shared with the node that runs on it.
pub struct Trouble {
    state: Mutex<Wrong>,
    /// Changes whenever something hangs no longer.
    unhung: watch::Sender<u64>,
}

#[derive(Default)]
struct Wrong {
    /// What each fault adds to a sync, in milliseconds.
    slow: Vec<(u32, u64)>,
    /// Faults because of which no sync ends.
    hung: Vec<u32>,
    /// Faults because of which every sync fails.
    full: Vec<u32>,
    fuse: Option<Fuse>,
    syncs: u64,
}

impl Trouble {
    fn new() -> Trouble {
        Trouble { state: Mutex::default(), unhung: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, Wrong> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every sync takes up to so many milliseconds more.
    pub fn slow(&self, fault: u32, ms: u64) {
        self.state().slow.push((fault, ms));
    }

    /// No sync ends.
    pub fn hang(&self, fault: u32) {
        self.state().hung.push(fault);
    }

    /// Every sync fails.
    pub fn fill(&self, fault: u32) {
        self.state().full.push(fault);
    }

    /// The node dies at that point, once.
    pub fn light(&self, fuse: Fuse) {
        self.state().fuse = Some(fuse);
    }

    /// Ends what a fault did. A lit fuse stays.
    pub fn heal(&self, fault: u32) {
        let mut state = self.state();
        state.slow.retain(|(id, _)| *id != fault);
        state.hung.retain(|id| *id != fault);
        state.full.retain(|id| *id != fault);
        drop(state);
        self.unhung.send_modify(|n| *n += 1);
    }

    /// Ends everything, fuses too.
    pub fn heal_all(&self) {
        let mut state = self.state();
        let syncs = state.syncs;
        *state = Wrong { syncs, ..Wrong::default() };
        drop(state);
        self.unhung.send_modify(|n| *n += 1);
    }

    /// Syncs that were made, over all lives of the node.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    async fn not_hung(&self) {
        let mut unhung = self.unhung.subscribe();
        while !self.state().hung.is_empty() {
            if unhung.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether this write to the tables is the last of this life, and whether it is done.
    fn burns_apply(&self) -> Option<bool> {
        let mut state = self.state();
        match state.fuse {
            Some(Fuse::Apply { n: 0, after }) => {
                state.fuse = None;
                Some(after)
            }
            Some(Fuse::Apply { n, after }) => {
                state.fuse = Some(Fuse::Apply { n: n - 1, after });
                None
            }
            _ => None,
        }
    }

    fn burns_flush(&self) -> Option<bool> {
        let mut state = self.state();
        match state.fuse {
            Some(Fuse::Flush { after }) => {
                state.fuse = None;
                Some(after)
            }
            _ => None,
        }
    }

    fn burns_sync(&self) -> bool {
        let mut state = self.state();
        let burns = state.fuse == Some(Fuse::Sync);
        if burns {
            state.fuse = None;
        }
        burns || !state.full.is_empty()
    }
}

impl Disk {
    /// An empty disk.
    pub fn new(seed: u64, node: NodeId, plan: DiskPlan) -> Disk {
        Disk {
            plan,
            log: Arc::new(MemoryLog::gated()),
            store: Arc::new(MemoryStore::new()),
            trouble: Arc::new(Trouble::new()),
            rng: Rng::stream(seed, &format!("disk {node}")),
        }
    }

    /// What is wrong with it.
    pub fn trouble(&self) -> &Arc<Trouble> {
        &self.trouble
    }

    /// The handles of a node that starts on it, dead once the power is lost.
    pub fn open(&mut self, world: &Weak<Shared>, node: NodeId) -> (Arc<SimLog>, Arc<SimStore>) {
        let draws = Mutex::new(Rng::stream(self.rng.bits(), "sync"));
        let log = SimLog {
            world: world.clone(),
            node,
            plan: self.plan.clone(),
            memory: Arc::clone(&self.log),
            trouble: Arc::clone(&self.trouble),
            draws,
            wake: Notify::new(),
        };
        let store = SimStore {
            world: world.clone(),
            node,
            memory: Arc::clone(&self.store),
            log: Arc::clone(&self.log),
            trouble: Arc::clone(&self.trouble),
            ahead: Mutex::default(),
        };
        (Arc::new(log), Arc::new(store))
    }

    /// The power is lost. Gives how many writes were pending and how many of them stayed.
    pub fn crash(&mut self) -> (usize, usize) {
        let pending = self.log.pending();
        // Nothing, everything and something are equally likely.
        let keep = match self.rng.below(3) {
            0 => 0,
            1 => pending,
            _ => self.rng.below(pending as u64 + 1) as usize,
        };
        self.log = Arc::new(self.log.crash(keep));
        self.log.set_gated(true);
        self.store = Arc::new(self.store.crash());
        (pending, keep)
    }

    /// The last entry of the log of each group.
    pub fn log_ends(&self, groups: RangeInclusive<GroupId>) -> Vec<(GroupId, Option<u64>)> {
        let last = |group| {
            let state = self.log.state(group).ok()?;
            // Where every entry was purged the log ends there all the same: none is lost.
            state.last.or(state.purged).map(|(_, index)| index)
        };
        groups.map(|group| (group, last(group))).collect()
    }

    /// Flips a bit of a synced entry; where. `None` when there is no entry.
    pub fn damage(&mut self, groups: u32) -> Option<(GroupId, u64)> {
        let mut found = Vec::new();
        for group in 0..groups {
            let last = self.log.synced(group).map(|(_, index)| index);
            let first = self.log.state(group).ok().and_then(|state| state.purged);
            let first = first.map_or(0, |(_, index)| index + 1);
            found.extend(last.filter(|last| *last >= first).map(|last| (group, first, last)));
        }
        let (group, first, last) = *self.rng.pick(&found)?;
        let index = self.rng.within(first..last + 1);
        self.log.damage(group, index);
        Some((group, index))
    }
}

/// The log of one life of a node.
pub struct SimLog {
    world: Weak<Shared>,
    node: NodeId,
    plan: DiskPlan,
    memory: Arc<MemoryLog>,
    trouble: Arc<Trouble>,
    draws: Mutex<Rng>,
    wake: Notify,
}

impl SimLog {
    /// Syncs what is pending, one sync after the other, as the committer of the real log does. Run
    /// it as a task of the node.
    pub async fn commit(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            while self.memory.pending() > 0 {
                let Some(world) = self.world.upgrade() else { return };
                // What is written while a sync is under way waits for the next.
                let taken = self.memory.pending();
                let latency = self.latency();
                if latency.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(latency).await;
                }
                self.trouble.not_hung().await;
                world.net.running(self.node).await;
                if self.trouble.burns_sync() {
                    world.crash(self.node, "a sync failed");
                    return;
                }
                self.trouble.state().syncs += 1;
                self.memory.release(taken);
            }
        }
    }

    fn latency(&self) -> Duration {
        let DiskPlan { sync_min_us, sync_max_us, .. } = self.plan;
        let mut draws = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
        let mut us = draws.within(sync_min_us..sync_max_us + 1);
        if draws.one_in(100) {
            us *= DiskPlan::RARELY;
        }
        for (_, ms) in &self.trouble.state().slow {
            us += draws.below(ms * 1000 + 1);
        }
        // Timers go by the millisecond.
        Duration::from_millis(us / 1000)
    }
}

impl Log for SimLog {
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) {
        let done = match self.world.upgrade() {
            Some(world) => world.appends(self.node, group, &entries, done),
            None => done,
        };
        self.memory.append(group, entries, done);
        self.wake.notify_one();
    }

    fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        if let Some(world) = self.world.upgrade() {
            world.votes(self.node, group, &vote);
        }
        self.memory.save_vote(group, vote, done);
        self.wake.notify_one();
    }

    fn save_committed(&self, group: GroupId, committed: Bytes) {
        self.memory.save_committed(group, committed);
    }

    fn truncate_after(&self, group: GroupId, index: Option<u64>) {
        if let Some(world) = self.world.upgrade() {
            world.truncates(self.node, group, index);
        }
        self.memory.truncate_after(group, index);
    }

    fn purge(&self, group: GroupId, upto: (u64, u64)) {
        self.memory.purge(group, upto);
    }

    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.memory.read(group, from, to, max_bytes)
    }

    fn state(&self, group: GroupId) -> Result<LogState, StorageError> {
        self.memory.state(group)
    }

    fn synced(&self, group: GroupId) -> Option<(u64, u64)> {
        self.memory.synced(group)
    }

    fn syncs(&self) -> u64 {
        self.memory.syncs()
    }
}

/// The tables of one life of a node. Each write goes into the trace.
pub struct SimStore {
    world: Weak<Shared>,
    node: NodeId,
    memory: Arc<MemoryStore>,
    log: Arc<MemoryLog>,
    trouble: Arc<Trouble>,
    /// How the last write to the tables went further than the log, if it did.
    ahead: Mutex<Option<(GroupId, String)>>,
}

impl SimStore {
    fn ahead(&self) -> MutexGuard<'_, Option<(GroupId, String)>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables never hold an entry that the log of the same disk lacks (S1): says so of the write
    /// before this one, and looks at this one. Only a snapshot, which is flushed before anything
    /// else is written, brings what the log never had; see [`Store::flush`].
    fn outran(&self, batch: &[Op]) -> Option<(GroupId, String)> {
        let outruns = batch.last().and_then(|last| self.outruns(last));
        std::mem::replace(&mut *self.ahead(), outruns)
    }

    /// The row that says how far a group has applied is the last of a batch of entries.
    fn outruns(&self, last: &Op) -> Option<(GroupId, String)> {
        let Op::Put { key, value } = last else { return None };
        let group = AppliedKey::decode(key).ok()?.group;
        let (_, index) = Applied::from_value(value.clone()).ok()?.last?;
        let synced = self.log.synced(group).map(|(_, index)| index);
        let text = format!("entry {index} is in the tables, the log has synced up to {synced:?}");
        synced.is_none_or(|synced| synced < index).then_some((group, text))
    }

    fn die(&self, at: &'static str) -> StorageError {
        if let Some(world) = self.world.upgrade() {
            world.crash(self.node, at);
        }
        StorageError::Io("the node has crashed".into())
    }
}

/// A hash over the writes of a batch, in order.
fn digest(batch: &[Op]) -> u64 {
    let mut hash = Xxh3::new();
    for op in batch {
        match op {
            Op::Put { key, value } => {
                hash.update(key);
                hash.update(value);
            }
            Op::Delete { key } => hash.update(key),
        }
    }
    hash.digest()
}

impl Store for SimStore {
    fn apply(&self, batch: Vec<Op>) -> Result<(), StorageError> {
        let burns = self.trouble.burns_apply();
        if burns == Some(false) {
            return Err(self.die("before a write to the tables"));
        }
        let (count, hash) = (batch.len(), digest(&batch));
        let (world, node) = (self.world.upgrade(), self.node);
        if let Some((group, text)) = self.outran(&batch)
            && let Some(world) = &world
        {
            world.violation("S1", &format!("node {node}, group {group}"), text);
        }
        let noted = world.as_ref().filter(|world| world.trace.takes_notes());
        let noted = noted.map(|world| (world, batch.clone()));
        self.memory.apply(batch)?;
        if let Some((world, batch)) = noted {
            world.applied(node, &batch);
        }
        if let Some(world) = world {
            world.trace.line(format_args!("apply node={node} ops={count} hash={hash:016x}"));
        }
        if burns == Some(true) {
            return Err(self.die("after a write to the tables"));
        }
        Ok(())
    }

    fn view(&self) -> Box<dyn View> {
        self.memory.view()
    }

    fn flush(&self) -> Result<(), StorageError> {
        // It was a snapshot: its entries are durable without the log.
        *self.ahead() = None;
        let burns = self.trouble.burns_flush();
        if burns == Some(false) {
            // A failed flush would end the process; this one is dead already.
            let _ = self.die("before a flush");
            return Ok(());
        }
        self.memory.flush()?;
        if burns == Some(true) {
            let _ = self.die("after a flush");
        }
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.memory.unflushed_bytes()
    }

    fn get_persisted(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.memory.get_persisted(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> LogEntry {
        LogEntry { index, term: 1, payload: Bytes::from_static(b"x") }
    }

    #[tokio::test(start_paused = true)]
    async fn a_power_loss_keeps_what_was_synced_and_ends_the_handles() {
        let mut disk = Disk::new(1, 1, DiskPlan::default());
        let (log, store) = disk.open(&Weak::new(), 1);
        log.append(1, vec![entry(1)], Box::new(|_| {}));
        log.memory.release_all();
        log.append(1, vec![entry(2)], Box::new(|_| {}));
        let key = Bytes::from_static(b"k");
        let put = |value| vec![Op::Put { key: key.clone(), value: Bytes::from_static(value) }];
        store.apply(put(b"kept")).expect("writes");
        store.flush().expect("flushes");
        store.apply(put(b"lost")).expect("writes");
        let (pending, keep) = disk.crash();
        assert_eq!(pending, 1);
        assert!(log.state(1).is_err() && store.apply(put(b"late")).is_err(), "dead handles");
        let (log, store) = disk.open(&Weak::new(), 1);
        let last = log.state(1).expect("reads").last.map(|(_, index)| index);
        assert_eq!(last, Some(1 + keep as u64));
        assert_eq!(store.view().get(&key).expect("reads"), Some(Bytes::from_static(b"kept")));
    }

    #[test]
    fn tables_before_their_log_are_seen_unless_they_are_a_snapshot() {
        let mut disk = Disk::new(1, 1, DiskPlan::default());
        let (log, store) = disk.open(&Weak::new(), 1);
        log.append(1, vec![entry(1), entry(2)], Box::new(|_| {}));
        let applied = |index| {
            let row = Applied { last: Some((1, index)), ..Applied::default() };
            vec![Op::Put { key: AppliedKey { group: 1 }.encode(), value: row.to_value() }]
        };
        assert_eq!(store.outran(&applied(1)), None, "nothing was written before");
        let (group, text) = store.outran(&applied(2)).expect("entry 1 is not synced");
        assert!(group == 1 && text.starts_with("entry 1 is in the tables"), "{text}");
        store.flush().expect("flushes");
        assert_eq!(store.outran(&applied(1)), None, "what came before was a snapshot");
        store.flush().expect("flushes");
        log.memory.release_all();
        store.outran(&applied(2));
        assert_eq!(store.outran(&applied(2)), None, "both are synced");
    }

    #[test]
    fn a_flipped_bit_is_found_on_opening() {
        let mut disk = Disk::new(1, 1, DiskPlan::default());
        assert_eq!(disk.damage(3), None);
        let (log, _) = disk.open(&Weak::new(), 1);
        log.append(2, vec![entry(1), entry(2)], Box::new(|_| {}));
        log.memory.release_all();
        let (group, index) = disk.damage(3).expect("an entry");
        assert!(group == 2 && (1..=2).contains(&index));
        assert!(matches!(log.state(2), Err(StorageError::Corrupt(_))));
    }
}
