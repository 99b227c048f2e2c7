//! [`RocksLog`]: all groups' entries, votes and marks in one RocksDB instance.
//!
//! Key: group (u32 BE), kind, index (u64 BE). Value: CRC-32 over the key and what follows, term
//! (u64 BE), payload. What the groups look like is held in memory; the database is read for what
//! has left a group's tail, and at start, when every entry is checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use rocksdb::{DB, IteratorMode, ReadOptions, WriteBatch};

use super::committer::{Committer, OnFatal, Position, Sink};
use super::dir::Lock;
use super::options::{self, LogLimits};
use super::refused;
use super::tail::Tail;
use crate::log::follow;
use crate::tables::meta::Synced;
use crate::{Done, GroupId, Log, LogEntry, LogState, StorageError};

/// The log of a node on RocksDB. Dropping the last handle writes what waits.
pub struct RocksLog {
    // The committer goes first: its last write needs the rest.
    committer: Committer,
    shared: Arc<Shared>,
}

struct Shared {
    db: DB,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    limits: LogLimits,
    /// Where the log stood when it was opened.
    opened_at: Position,
    _lock: Option<Arc<Lock>>,
}

/// What a group's log looks like to a reader: every write so far, synced or not.
#[derive(Default)]
struct Group {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, u64)>,
    /// The first index present, when there is a last.
    first: u64,
    last: Option<u64>,
    /// The term of every entry, as the index at which each term begins.
    terms: BTreeMap<u64, u64>,
    tail: Tail,
    /// Counts truncations, so that a sync of what is gone marks nothing.
    epoch: u64,
    synced: Option<(u64, u64)>,
    /// The log's position behind the group's last synced write of any kind.
    position: Position,
}

/// The byte behind the group in a key. On disk: never changed, never given again.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// Vote, committed and purged, told apart by the index.
    Mark = 0,
    Entry = 1,
}

const VOTE: u64 = 0;
const COMMITTED: u64 = 1;
const PURGED: u64 = 2;

const KEY: usize = 13;
/// The bytes of a value before its payload.
const HEAD: usize = 12;

impl RocksLog {
    /// Opens the log in a folder of its own and checks all of it.
    pub(super) fn open(
        path: &Path,
        limits: LogLimits,
        lock: Option<Arc<Lock>>,
        on_fatal: OnFatal,
    ) -> Result<RocksLog, StorageError> {
        let db = DB::open(&options::log(&limits), path)
            .map_err(|why| refused("opening the log", &why))?;
        let opened_at = db.latest_sequence_number();
        let groups = Mutex::new(load(&db, &limits, opened_at)?);
        let shared = Arc::new(Shared { db, groups, limits, opened_at, _lock: lock });
        let writer = Arc::clone(&shared);
        let options = options::synced();
        let sink: Sink = Box::new(move |batch| {
            let written = writer.db.write_opt(batch, &options);
            written.map_err(|why| refused("writing the log", &why))?;
            Ok(writer.db.latest_sequence_number())
        });
        RocksLog::over(shared, sink, on_fatal)
    }

    fn over(shared: Arc<Shared>, sink: Sink, on_fatal: OnFatal) -> Result<RocksLog, StorageError> {
        let committer = Committer::start(sink, shared.limits.pending_bytes, on_fatal)?;
        Ok(RocksLog { committer, shared })
    }

    /// What each group has synced: what the tables keep, to know a log that lost some of it.
    pub(super) fn marks(&self) -> BTreeMap<GroupId, Synced> {
        let groups = self.shared.groups();
        let mark = |(id, group): (&GroupId, &Group)| {
            let (term, index) = group.synced.unwrap_or_default();
            (*id, Synced { position: group.position, term, index, lost: false })
        };
        groups.iter().map(mark).collect()
    }

    /// Whether the log, as it was opened, reached the mark.
    pub(super) fn reached(&self, mark: &Synced) -> bool {
        self.shared.opened_at >= mark.position
    }

    /// Changes a group and queues the writes that make the change durable. The writes are encoded
    /// before, outside of the lock that all groups share.
    fn write(
        &self,
        id: GroupId,
        done: Option<Done>,
        mut writes: Writes,
        change: impl FnOnce(&mut Group, &mut Writes) -> Result<(), StorageError>,
    ) {
        self.committer.wait_for_room();
        let urgent = done.is_some();
        let bytes = writes.bytes();
        let mut guard = self.shared.groups();
        let group = guard.entry(id).or_default();
        if let Err(why) = change(group, &mut writes) {
            drop(guard);
            return done.into_iter().for_each(|done| done(Err(why.clone())));
        }
        let (epoch, mark) = (group.epoch, group.end());
        let shared = Arc::clone(&self.shared);
        let after = move |result: Result<Position, StorageError>| {
            if let Ok(position) = result {
                shared.mark(id, epoch, mark, position);
            }
            done.into_iter().for_each(|done| done(result.clone().map(|_| ())));
        };
        let fill = |batch: &mut WriteBatch| writes.fill(batch);
        let queued = self.committer.submit(bytes, urgent, fill, Box::new(after));
        let written = self.committer.written();
        match queued {
            Ok(number) => {
                for entry in writes.entries {
                    group.tail.push(entry, number);
                }
                group.tail.evict(&self.shared.limits, written);
            }
            Err((after, why)) => {
                drop(guard);
                after(Err(why));
            }
        }
    }
}

/// The writes of one call.
#[derive(Default)]
struct Writes {
    puts: Vec<([u8; KEY], Vec<u8>)>,
    removed: Option<([u8; KEY], [u8; KEY])>,
    entries: Vec<LogEntry>,
}

impl Writes {
    fn mark(group: GroupId, mark: u64, term: u64, payload: &[u8]) -> Writes {
        let key = key(group, Kind::Mark, mark);
        Writes { puts: vec![(key, encode(&key, term, payload))], ..Writes::default() }
    }

    fn entries(group: GroupId, entries: Vec<LogEntry>) -> Writes {
        let put = |entry: &LogEntry| {
            let key = key(group, Kind::Entry, entry.index);
            (key, encode(&key, entry.term, &entry.payload))
        };
        Writes { puts: entries.iter().map(put).collect(), removed: None, entries }
    }

    /// About what they take up in a batch.
    fn bytes(&self) -> usize {
        2 * KEY + self.puts.iter().map(|(_, value)| KEY + value.len()).sum::<usize>()
    }

    fn fill(&self, batch: &mut WriteBatch) {
        if let Some((from, to)) = &self.removed {
            batch.delete_range(from, to);
        }
        for (key, value) in &self.puts {
            batch.put(key, value);
        }
    }
}

impl Shared {
    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, id: GroupId, epoch: u64, mark: Option<(u64, u64)>, position: Position) {
        if let Some(group) = self.groups().get_mut(&id) {
            group.position = position;
            if group.epoch == epoch {
                group.synced = mark;
            }
        }
    }

    /// Entries from the database, in order from `from`; stops early at a missing one.
    fn cold(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        budget: &mut Budget,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let (start, end) = (key(group, Kind::Entry, from), key(group, Kind::Entry, to));
        let mut read = options::between(&start, &end);
        read.fill_cache(false);
        let mut out = Vec::new();
        for (index, row) in (from..to).zip(self.db.iterator_opt(IteratorMode::Start, read)) {
            let (found, value) = row.map_err(|why| refused("reading the log", &why))?;
            let (_, _, at) = split(&found)?;
            if at != index {
                break;
            }
            let (term, payload) = decode(&found, value)?;
            if !budget.take(payload.len()) {
                break;
            }
            out.push(LogEntry { index, term, payload });
        }
        Ok(out)
    }
}

/// How much a read may still take; the first entry always fits.
#[derive(Default)]
struct Budget {
    max: usize,
    used: usize,
    taken: usize,
    full: bool,
}

impl Budget {
    fn new(max: usize) -> Budget {
        Budget { max, ..Budget::default() }
    }

    fn take(&mut self, bytes: usize) -> bool {
        self.used = self.used.saturating_add(bytes);
        self.full |= self.used > self.max && self.taken > 0;
        self.taken += 1;
        !self.full
    }
}

impl Group {
    fn term(&self, index: u64) -> u64 {
        self.terms.range(..=index).next_back().map_or(0, |(_, term)| *term)
    }

    /// (term, index) of the last entry present.
    fn last(&self) -> Option<(u64, u64)> {
        self.last.map(|index| (self.term(index), index))
    }

    /// The last entry, or what was purged when there is none.
    fn end(&self) -> Option<(u64, u64)> {
        self.last().or(self.purged)
    }

    fn append(&mut self, entries: &[LogEntry]) {
        for entry in entries {
            if self.last.is_none() {
                self.first = entry.index;
            }
            if self.last.is_none_or(|last| self.term(last) != entry.term) {
                self.terms.insert(entry.index, entry.term);
            }
            self.last = Some(entry.index);
        }
    }

    fn truncate_after(&mut self, index: Option<u64>) {
        let kept = index.filter(|index| self.last.is_some() && *index >= self.first);
        match kept {
            Some(index) => {
                self.terms.split_off(&(index + 1));
                self.last = self.last.map(|last| last.min(index));
            }
            None => {
                self.terms.clear();
                self.last = None;
            }
        }
        self.tail.truncate_after(index);
        self.epoch += 1;
        if self.synced > self.end() {
            self.synced = self.end();
        }
    }

    fn purge(&mut self, upto: (u64, u64)) {
        match self.last {
            Some(_) if self.first > upto.1 => {}
            Some(last) if last > upto.1 => {
                let (term, rest) = (self.term(upto.1 + 1), self.terms.split_off(&(upto.1 + 2)));
                self.terms = rest;
                self.terms.insert(upto.1 + 1, term);
                self.first = upto.1 + 1;
            }
            _ => {
                self.terms.clear();
                self.last = None;
            }
        }
        self.tail.purge(upto.1);
        self.purged = Some(upto);
    }
}

impl Log for RocksLog {
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) {
        let writes = Writes::entries(group, entries);
        self.write(group, Some(done), writes, |state, writes| {
            follow(state.end().map(|(_, index)| index), &writes.entries)?;
            state.append(&writes.entries);
            Ok(())
        });
    }

    fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        let writes = Writes::mark(group, VOTE, 0, &vote);
        self.write(group, Some(done), writes, |state, _| {
            state.vote = Some(vote);
            Ok(())
        });
    }

    fn save_committed(&self, group: GroupId, committed: Bytes) {
        let writes = Writes::mark(group, COMMITTED, 0, &committed);
        self.write(group, None, writes, |state, _| {
            state.committed = Some(committed);
            Ok(())
        });
    }

    fn truncate_after(&self, group: GroupId, index: Option<u64>) {
        self.write(group, None, Writes::default(), |state, writes| {
            let from = index.map_or(0, |index| index + 1);
            if let Some(last) = state.last
                && last >= from
            {
                let start = key(group, Kind::Entry, from.max(state.first));
                writes.removed = Some((start, key(group, Kind::Entry, last + 1)));
                state.truncate_after(index);
            }
            Ok(())
        });
    }

    fn purge(&self, group: GroupId, upto: (u64, u64)) {
        let writes = Writes::mark(group, PURGED, upto.0, &upto.1.to_be_bytes());
        self.write(group, None, writes, |state, writes| {
            // A mark that leaves a hole before the first entry would say less than none.
            if state.purged.is_some_and(|purged| purged.1 >= upto.1)
                || state.last.is_some() && state.first > upto.1 + 1
            {
                *writes = Writes::default();
                return Ok(());
            }
            if let Some(last) = state.last
                && state.first <= upto.1
            {
                // From the first one present, so that the tombstones of purges never overlap.
                let end = key(group, Kind::Entry, last.min(upto.1) + 1);
                writes.removed = Some((key(group, Kind::Entry, state.first), end));
            }
            state.purge(upto);
            Ok(())
        });
    }

    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let mut out: Vec<LogEntry> = Vec::new();
        let mut budget = Budget::new(max_bytes);
        let mut epoch = None;
        loop {
            let next = out.last().map_or(from, |entry| entry.index + 1);
            let (next, cold_end) = {
                let groups = self.shared.groups();
                let Some(state) = groups.get(&group) else { return Ok(out) };
                let Some(last) = state.last else { return Ok(out) };
                if *epoch.get_or_insert(state.epoch) != state.epoch {
                    // Truncated meanwhile: what was gathered may be of another leader.
                    out.clear();
                    budget = Budget::new(max_bytes);
                    epoch = None;
                    continue;
                }
                // Purged meanwhile: an answer may begin later, but has no hole.
                let (next, to) = (next.max(state.first), to.min(last + 1));
                if next >= to || out.last().is_some_and(|entry| entry.index + 1 < next) {
                    return Ok(out);
                }
                let warm = state.tail.from(next).take_while(|entry| entry.index < to);
                let before = out.len();
                out.extend(warm.take_while(|e| budget.take(e.payload.len())).cloned());
                if out.len() > before || budget.full {
                    return Ok(out);
                }
                (next, state.tail.first().map_or(to, |first| first.min(to)))
            };
            let cold = self.shared.cold(group, next, cold_end, &mut budget)?;
            let none = cold.is_empty();
            out.extend(cold);
            if budget.full {
                return Ok(out);
            }
            if none && self.present(group, next, epoch) {
                return Err(StorageError::Corrupt(format!(
                    "log of group {group}: no entry {next}"
                )));
            }
        }
    }

    fn state(&self, group: GroupId) -> Result<LogState, StorageError> {
        let groups = self.shared.groups();
        let Some(state) = groups.get(&group) else { return Ok(LogState::default()) };
        Ok(LogState {
            vote: state.vote.clone(),
            committed: state.committed.clone(),
            purged: state.purged,
            last: state.last(),
        })
    }

    fn synced(&self, group: GroupId) -> Option<(u64, u64)> {
        self.shared.groups().get(&group).and_then(|state| state.synced)
    }

    fn syncs(&self) -> u64 {
        self.committer.written()
    }
}

impl RocksLog {
    /// Whether the entry is still there: its absence from the database is then damage.
    fn present(&self, group: GroupId, index: u64, epoch: Option<u64>) -> bool {
        self.shared.groups().get(&group).is_some_and(|state| {
            epoch == Some(state.epoch)
                && index >= state.first
                && state.last.is_some_and(|last| index <= last)
        })
    }
}

fn key(group: GroupId, kind: Kind, index: u64) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4] = kind as u8;
    key[5..].copy_from_slice(&index.to_be_bytes());
    key
}

fn split(key: &[u8]) -> Result<(GroupId, Kind, u64), StorageError> {
    let bad = || StorageError::Corrupt(format!("key of the log: {key:02x?}"));
    let (group, rest) = key.split_first_chunk::<4>().ok_or_else(bad)?;
    let (kind, index) = rest.split_first().ok_or_else(bad)?;
    let kind = match kind {
        0 => Kind::Mark,
        1 => Kind::Entry,
        _ => return Err(bad()),
    };
    let index = u64::from_be_bytes(index.try_into().map_err(|_| bad())?);
    Ok((u32::from_be_bytes(*group), kind, index))
}

fn encode(key: &[u8], term: u64, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD + payload.len());
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(&term.to_be_bytes());
    value.extend_from_slice(payload);
    let sum = checksum(key, &value[4..]);
    value[..4].copy_from_slice(&sum.to_be_bytes());
    value
}

fn decode(key: &[u8], value: Box<[u8]>) -> Result<(u64, Bytes), StorageError> {
    let mut value = Bytes::from(value);
    if value.len() < HEAD || value.get_u32() != checksum(key, &value) {
        return Err(StorageError::Corrupt(format!("log: checksum of {key:02x?}")));
    }
    Ok((value.get_u64(), value))
}

fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key);
    sum.update(rest);
    sum.finalize()
}

/// Reads and checks everything.
fn load(
    db: &DB,
    limits: &LogLimits,
    position: Position,
) -> Result<BTreeMap<GroupId, Group>, StorageError> {
    let mut groups: BTreeMap<GroupId, Group> = BTreeMap::new();
    let mut read = ReadOptions::default();
    read.fill_cache(false);
    for row in db.iterator_opt(IteratorMode::Start, read) {
        let (key, value) = row.map_err(|why| refused("reading the log", &why))?;
        let (id, kind, index) = split(&key)?;
        let (term, payload) = decode(&key, value)?;
        let group = groups.entry(id).or_default();
        match (kind, index) {
            (Kind::Mark, VOTE) => group.vote = Some(payload),
            (Kind::Mark, COMMITTED) => group.committed = Some(payload),
            (Kind::Mark, PURGED) => group.purged = Some((term, number(&payload)?)),
            (Kind::Mark, _) => {
                return Err(StorageError::Corrupt(format!("log: unknown mark {index}")));
            }
            (Kind::Entry, _) => {
                let entry = LogEntry { index, term, payload };
                follow(group.end().map(|(_, end)| end), std::slice::from_ref(&entry))?;
                group.append(std::slice::from_ref(&entry));
                group.tail.push(entry, 0);
                group.tail.evict(limits, 0);
            }
        }
    }
    for group in groups.values_mut() {
        group.synced = group.end();
        group.position = position;
    }
    Ok(groups)
}

fn number(payload: &[u8]) -> Result<u64, StorageError> {
    let bytes = payload.try_into();
    bytes.map(u64::from_be_bytes).map_err(|_| StorageError::Corrupt("log: purged mark".into()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    #[test]
    fn bytes_are_pinned() {
        let key = key(258, Kind::Entry, 3);
        assert_eq!(key, [0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 3]);
        let value = encode(&key, 4, b"ab");
        assert_eq!(value[4..], [0, 0, 0, 0, 0, 0, 0, 4, b'a', b'b']);
        assert_eq!(value[..4], checksum(&key, &value[4..]).to_be_bytes());
        assert_eq!(value[..4], [0xb1, 0xe7, 0xc5, 0x41]);
    }

    #[test]
    fn a_flipped_bit_and_a_moved_value_are_damage() {
        let here = key(1, Kind::Entry, 3);
        let value = encode(&here, 4, b"ab");
        let (term, payload) = decode(&here, value.clone().into()).expect("decodes");
        assert_eq!((term, payload), (4, Bytes::from("ab")));
        assert!(decode(&key(1, Kind::Entry, 4), value.clone().into()).is_err());
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&here, flipped.into()).is_err(), "bit {bit}");
        }
        assert!(decode(&here, Box::from(&value[..HEAD - 1])).is_err());
    }

    /// A log over a disk that is the test's.
    fn over(sink: Sink, on_fatal: OnFatal) -> (tempfile::TempDir, RocksLog) {
        let temp = tempfile::tempdir().expect("a folder");
        let limits = LogLimits::default();
        let db = DB::open(&options::log(&limits), temp.path()).expect("opens");
        let shared = Shared { db, groups: Mutex::default(), limits, opened_at: 0, _lock: None };
        let log = RocksLog::over(Arc::new(shared), sink, on_fatal).expect("starts");
        (temp, log)
    }

    fn append(log: &RocksLog, term: u64, index: u64) -> Receiver<bool> {
        let (tell, told) = channel();
        let entry = LogEntry { index, term, payload: Bytes::from("x") };
        let done = Box::new(move |result: Result<(), StorageError>| {
            tell.send(result.is_ok()).expect("the test listens");
        });
        log.append(5, vec![entry], done);
        told
    }

    #[test]
    fn a_failed_sync_fails_everything_and_ends() {
        let broken = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&broken);
        let sink: Sink = Box::new(move |_| match switch.load(Ordering::SeqCst) {
            true => Err(StorageError::Io("sync".into())),
            false => Ok(1),
        });
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let (_temp, log) = over(sink, Arc::new(move |_| end.store(true, Ordering::SeqCst)));
        assert_eq!(append(&log, 1, 1).recv(), Ok(true));
        assert_eq!(log.synced(5), Some((1, 1)));
        broken.store(true, Ordering::SeqCst);
        assert_eq!(append(&log, 1, 2).recv(), Ok(false));
        broken.store(false, Ordering::SeqCst);
        assert_eq!(append(&log, 1, 3).recv(), Ok(false), "a disk that recovered is not trusted");
        assert_eq!(log.synced(5), Some((1, 1)));
        drop(log);
        assert!(ended.load(Ordering::SeqCst));
    }

    /// The sync of entries that are truncated while it runs marks nothing, not even the entries
    /// that have taken their places meanwhile.
    #[test]
    fn a_sync_of_what_is_gone_marks_nothing() {
        let (release, gate) = channel::<()>();
        let (begin, begun) = channel();
        let sink: Sink = Box::new(move |_| {
            begin.send(()).expect("the test listens");
            // Open once the test is over, or a failure would wait for the log's thread.
            let _ = gate.recv();
            Ok(1)
        });
        let (_temp, log) = over(sink, Arc::new(|why| panic!("{why}")));
        let release = release;
        let first = append(&log, 1, 1);
        begun.recv().expect("begins");
        release.send(()).expect("waits");
        assert_eq!(first.recv(), Ok(true));
        let second = append(&log, 1, 2);
        begun.recv().expect("begins");
        log.truncate_after(5, Some(1));
        let third = append(&log, 2, 2);
        release.send(()).expect("waits");
        assert_eq!(second.recv(), Ok(true));
        begun.recv().expect("begins");
        assert_eq!(log.synced(5), Some((1, 1)), "(2, 2) is not synced yet");
        release.send(()).expect("waits");
        assert_eq!(third.recv(), Ok(true));
        assert_eq!(log.synced(5), Some((2, 2)));
    }
}
