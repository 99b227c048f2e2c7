//! [`MemoryLog`]: what is readable, what is synced, and the writes in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::log::follow;
use crate::{Done, GroupId, Log, LogEntry, LogState, StorageError};

/// A log whose syncs the test can hold back, fail, or cut off by a crash.
#[derive(Default)]
pub struct MemoryLog {
    disk: Mutex<Disk>,
}

#[derive(Default)]
struct Disk {
    /// What reads see: every write so far.
    live: Image,
    /// What a crash keeps: every write that was synced.
    synced: Image,
    /// The writes in between, in order.
    pending: VecDeque<(GroupId, Write, Option<Done>)>,
    gated: bool,
    /// Syncs until one fails.
    fail_in: Option<u64>,
    /// Why nothing can be written any more.
    failed: Option<StorageError>,
    syncs: u64,
    /// Entries that were damaged, as (group, index).
    damaged: BTreeSet<(GroupId, u64)>,
}

type Image = BTreeMap<GroupId, Group>;

#[derive(Clone, Default)]
struct Group {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, u64)>,
    entries: BTreeMap<u64, LogEntry>,
}

#[derive(Clone)]
enum Write {
    Append(Vec<LogEntry>),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(Option<u64>),
    Purge((u64, u64)),
}

/// Callbacks to run once the lock is free.
type Calls = Vec<(Done, Result<(), StorageError>)>;

impl MemoryLog {
    /// An empty log that syncs at once: `done` runs before the call that it came with returns.
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }

    /// An empty log that syncs nothing until [`MemoryLog::release`] or its like.
    pub fn gated() -> MemoryLog {
        let log = MemoryLog::new();
        log.disk().gated = true;
        log
    }

    /// Holds syncs back from now on, or no longer. Opening the gate syncs what is pending.
    pub fn set_gated(&self, gated: bool) {
        self.disk().gated = gated;
        if !gated {
            self.release_all();
        }
    }

    /// How many writes wait for a sync.
    pub fn pending(&self) -> usize {
        self.disk().pending.len()
    }

    /// Syncs the first `n` pending writes with one sync, then runs their callbacks.
    pub fn release(&self, n: usize) {
        let calls = self.disk().sync(n);
        run(calls);
    }

    /// Syncs everything that is pending.
    pub fn release_all(&self) {
        self.release(usize::MAX);
    }

    /// Lets the `n`th sync from now (1 is the next) fail. The log is dead afterwards, as after a
    /// real one: every waiting and later `done` gets the error.
    pub fn fail_sync(&self, n: u64) {
        self.disk().fail_in = Some(n);
    }

    /// The failure that a node would have ended with.
    pub fn failed(&self) -> Option<StorageError> {
        self.disk().failed.clone()
    }

    /// Flips a bit of an entry: reading it, or opening the group, gives `Corrupt`.
    pub fn damage(&self, group: GroupId, index: u64) {
        self.disk().damaged.insert((group, index));
    }

    /// What a power loss leaves: the synced writes and the first `keep` of the pending ones (one
    /// log file is cut at one place). Callbacks are dropped without a call. This handle is dead.
    /// The new log is not gated.
    pub fn crash(&self, keep: usize) -> MemoryLog {
        let dead = StorageError::Io("the node has crashed".into());
        let fresh = Disk { failed: Some(dead), ..Disk::default() };
        let mut old = std::mem::replace(&mut *self.disk(), fresh);
        for (group, write, _) in old.pending.iter().take(keep) {
            old.synced.entry(*group).or_default().apply(write);
        }
        let disk = Disk {
            live: old.synced.clone(),
            synced: old.synced,
            damaged: old.damaged,
            ..Disk::default()
        };
        MemoryLog { disk: Mutex::new(disk) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, group: GroupId, write: Write, done: Option<Done>) {
        let calls = self.disk().write(group, write, done);
        run(calls);
    }
}

fn run(calls: Calls) {
    for (done, result) in calls {
        done(result);
    }
}

impl Disk {
    fn write(&mut self, group: GroupId, write: Write, done: Option<Done>) -> Calls {
        if let Some(why) = &self.failed {
            return done.map(|done| (done, Err(why.clone()))).into_iter().collect();
        }
        let live = self.live.entry(group).or_default();
        if let Write::Append(entries) = &write
            && let Err(why) = follow(live.end(), entries)
        {
            return done.map(|done| (done, Err(why))).into_iter().collect();
        }
        live.apply(&write);
        let urgent = done.is_some();
        self.pending.push_back((group, write, done));
        if urgent && !self.gated { self.sync(usize::MAX) } else { Calls::new() }
    }

    fn sync(&mut self, n: usize) -> Calls {
        let n = n.min(self.pending.len());
        if n == 0 {
            return Calls::new();
        }
        self.fail_in = self.fail_in.map(|left| left.saturating_sub(1));
        if self.fail_in == Some(0) {
            let why = StorageError::Io("injected sync failure".into());
            self.failed = Some(why.clone());
            let waiting = self.pending.drain(..).filter_map(|(_, _, done)| done);
            return waiting.map(|done| (done, Err(why.clone()))).collect();
        }
        self.syncs += 1;
        let mut calls = Calls::new();
        for (group, write, done) in self.pending.drain(..n) {
            self.synced.entry(group).or_default().apply(&write);
            calls.extend(done.map(|done| (done, Ok(()))));
        }
        calls
    }

    /// A dead handle reads nothing; a log that failed still reads what it had.
    fn group(&self, group: GroupId) -> Result<Option<&Group>, StorageError> {
        match (&self.failed, self.live.get(&group)) {
            (Some(why), None) => Err(why.clone()),
            (_, found) => Ok(found),
        }
    }

    fn check(&self, group: GroupId, entry: &LogEntry) -> Result<(), StorageError> {
        if self.damaged.contains(&(group, entry.index)) {
            let index = entry.index;
            return Err(StorageError::Corrupt(format!("log of group {group}: entry {index}")));
        }
        Ok(())
    }
}

impl Group {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(entries) => {
                self.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
            }
            Write::Vote(vote) => self.vote = Some(vote.clone()),
            Write::Committed(committed) => self.committed = Some(committed.clone()),
            Write::Truncate(None) => self.entries.clear(),
            Write::Truncate(Some(index)) => {
                self.entries.split_off(&(index + 1));
            }
            // A mark that leaves a hole before the first entry would say less than none.
            Write::Purge(upto)
                if self.entries.first_key_value().is_some_and(|(first, _)| *first > upto.1 + 1) => {
            }
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.1 + 1));
                if self.purged.is_none_or(|purged| purged.1 < upto.1) {
                    self.purged = Some(*upto);
                }
            }
        }
    }

    fn last(&self) -> Option<(u64, u64)> {
        self.entries.last_key_value().map(|(_, entry)| (entry.term, entry.index))
    }

    /// The index behind which the next entry goes.
    fn end(&self) -> Option<u64> {
        self.last().or(self.purged).map(|(_, index)| index)
    }

    fn holds(&self, entry: &LogEntry) -> bool {
        self.purged.is_some_and(|purged| purged.1 >= entry.index)
            || self.entries.get(&entry.index).is_some_and(|here| here.term == entry.term)
    }
}

impl Log for MemoryLog {
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) {
        self.write(group, Write::Append(entries), Some(done));
    }

    fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        self.write(group, Write::Vote(vote), Some(done));
    }

    fn save_committed(&self, group: GroupId, committed: Bytes) {
        self.write(group, Write::Committed(committed), None);
    }

    fn truncate_after(&self, group: GroupId, index: Option<u64>) {
        self.write(group, Write::Truncate(index), None);
    }

    fn purge(&self, group: GroupId, upto: (u64, u64)) {
        self.write(group, Write::Purge(upto), None);
    }

    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let disk = self.disk();
        let mut out: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        let found = disk.group(group)?;
        let entries = found.into_iter().flat_map(|group| group.entries.range(from..to.max(from)));
        for (_, entry) in entries {
            bytes += entry.payload.len();
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            disk.check(group, entry)?;
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn state(&self, group: GroupId) -> Result<LogState, StorageError> {
        let disk = self.disk();
        let Some(found) = disk.group(group)? else { return Ok(LogState::default()) };
        for entry in found.entries.values() {
            disk.check(group, entry)?;
        }
        Ok(LogState {
            vote: found.vote.clone(),
            committed: found.committed.clone(),
            purged: found.purged,
            last: found.last(),
        })
    }

    fn synced(&self, group: GroupId) -> Option<(u64, u64)> {
        let disk = self.disk();
        let (synced, live) = (disk.synced.get(&group)?, disk.live.get(&group)?);
        let entry = synced.entries.values().rev().find(|entry| live.holds(entry));
        entry.map(|entry| (entry.term, entry.index)).or(synced.purged)
    }

    fn syncs(&self) -> u64 {
        self.disk().syncs
    }
}
