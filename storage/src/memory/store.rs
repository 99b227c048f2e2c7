//! [`MemoryStore`]: rows with their versions; a crash goes back to the last flush.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{Direction, Op, StorageError, Store, View, Visit};

/// How many rows a scan takes at its first turn of the lock: most scans want one or two.
const FIRST_CHUNK: usize = 4;

/// How many rows it takes per turn at most; each turn takes four times as many as the one before.
const LARGEST_CHUNK: usize = 256;

/// After so many older versions of a row those that nobody sees any more are looked for.
const OLDER: usize = 16;

/// A store whose unflushed batches a crash takes away.
pub struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
}

/// A call that a test lets fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The next `apply` writes nothing.
    Apply,
    /// The next `flush` keeps nothing more than the last one.
    Flush,
}

/// Every batch has a number. A row keeps the versions that somebody can still see: the newest, the
/// one of the last flush, and those of open views.
#[derive(Default)]
struct Rows {
    rows: BTreeMap<Bytes, Row>,
    /// The number of the last batch.
    now: u64,
    /// The batch that a crash goes back to.
    flushed: u64,
    /// The batches that views stand at, and how many of them; `flushed` too.
    pins: BTreeMap<u64, usize>,
    /// Rows with older versions, some perhaps twice.
    loose: Vec<Bytes>,
    unflushed: u64,
    fault: Option<Fault>,
    crashed: bool,
}

/// The number of the batch that wrote it, and the value; `None` after a delete.
type Version = (u64, Option<Bytes>);

/// One key's versions. Most rows have one, and cost no list.
struct Row {
    newest: Version,
    /// Those before it, the oldest first.
    older: Vec<Version>,
}

impl Row {
    /// What a reader that stands at batch `at` sees.
    fn seen(&self, at: u64) -> Option<Bytes> {
        let mut versions = std::iter::once(&self.newest).chain(self.older.iter().rev());
        versions.find(|(written, _)| *written <= at).and_then(|(_, value)| value.clone())
    }

    /// Drops the older versions that nobody can see; returns whether anything is left of the row.
    fn prune(&mut self, pins: &BTreeMap<u64, usize>) -> bool {
        let ends: Vec<u64> = self.older.iter().map(|(at, _)| *at).collect();
        let mut ends = ends.into_iter().skip(1).chain([self.newest.0]);
        // Without a delete at the front, which says no more than no row.
        let mut first = true;
        self.older.retain(|(at, value)| {
            let seen = ends.next().is_some_and(|end| pins.range(*at..end).next().is_some());
            let keep = seen && !(first && value.is_none());
            first &= !keep;
            keep
        });
        !self.older.is_empty() || self.newest.1.is_some()
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        let mut rows = Rows::default();
        rows.pin(0);
        MemoryStore { rows: Arc::new(Mutex::new(rows)) }
    }

    /// What a crash leaves: the batches before the last flush. This handle and its views are dead.
    pub fn crash(&self) -> MemoryStore {
        let dead = Rows { crashed: true, ..Rows::default() };
        let mut rows = std::mem::replace(&mut *lock(&self.rows), dead);
        let kept = rows.flushed;
        rows.rows.retain(|_, row| {
            if row.newest.0 > kept {
                row.newest = (kept, row.seen(kept));
            }
            row.older = Vec::new();
            row.newest.1.is_some()
        });
        rows.loose = Vec::new();
        rows.pins = BTreeMap::from([(kept, 1)]);
        (rows.now, rows.unflushed, rows.fault) = (kept, 0, None);
        MemoryStore { rows: Arc::new(Mutex::new(rows)) }
    }

    /// Lets the next call of that kind fail.
    pub fn fail_next(&self, fault: Fault) {
        lock(&self.rows).fault = Some(fault);
    }
}

fn lock(rows: &Mutex<Rows>) -> MutexGuard<'_, Rows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rows {
    fn pin(&mut self, at: u64) {
        *self.pins.entry(at).or_default() += 1;
    }

    fn unpin(&mut self, at: u64) {
        if let Some(count) = self.pins.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&at);
            }
        }
    }

    fn fail(&mut self, fault: Fault) -> Result<(), StorageError> {
        if self.crashed {
            return Err(StorageError::Io("the node has crashed".into()));
        }
        if self.fault == Some(fault) {
            self.fault = None;
            return Err(StorageError::Io(format!("injected failure: {fault:?}")));
        }
        Ok(())
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        self.unflushed += (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
        let newest = (self.now, value);
        let mut entry = match self.rows.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                if newest.1.is_some() {
                    entry.insert(Row { newest, older: Vec::new() });
                }
                return;
            }
        };
        let row = entry.get_mut();
        let before = std::mem::replace(&mut row.newest, newest);
        if self.pins.range(before.0..self.now).next().is_some() {
            row.older.push(before);
            if row.older.len() == 1 {
                self.loose.push(entry.key().clone());
            } else if row.older.len().is_multiple_of(OLDER) {
                row.prune(&self.pins);
            }
        } else if row.older.is_empty() && row.newest.1.is_none() {
            entry.remove();
        }
    }

    /// Drops the versions of a row that nobody can see, and the row when nothing is left.
    fn prune(&mut self, key: Bytes) {
        let Entry::Occupied(mut entry) = self.rows.entry(key) else { return };
        if !entry.get_mut().prune(&self.pins) {
            entry.remove();
        } else if !entry.get().older.is_empty() {
            self.loose.push(entry.key().clone());
        }
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Bytes>, StorageError> {
        if self.crashed {
            return Err(StorageError::Io("the node has crashed".into()));
        }
        Ok(self.rows.get(key).and_then(|row| row.seen(at)))
    }
}

impl Store for MemoryStore {
    fn apply(&self, batch: Vec<Op>) -> Result<(), StorageError> {
        let mut rows = lock(&self.rows);
        rows.fail(Fault::Apply)?;
        rows.now += 1;
        for op in batch {
            match op {
                Op::Put { key, value } => rows.write(key, Some(value)),
                Op::Delete { key } => rows.write(key, None),
            }
        }
        Ok(())
    }

    fn view(&self) -> Box<dyn View> {
        let mut rows = lock(&self.rows);
        let at = rows.now;
        rows.pin(at);
        Box::new(MemoryView { rows: Arc::clone(&self.rows), at })
    }

    fn flush(&self) -> Result<(), StorageError> {
        let mut rows = lock(&self.rows);
        rows.fail(Fault::Flush)?;
        let (before, now) = (rows.flushed, rows.now);
        rows.pin(now);
        rows.unpin(before);
        (rows.flushed, rows.unflushed) = (now, 0);
        for key in std::mem::take(&mut rows.loose) {
            rows.prune(key);
        }
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        lock(&self.rows).unflushed
    }

    fn get_persisted(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let rows = lock(&self.rows);
        rows.get(key, rows.flushed)
    }
}

struct MemoryView {
    rows: Arc<Mutex<Rows>>,
    at: u64,
}

impl Drop for MemoryView {
    fn drop(&mut self) {
        lock(&self.rows).unpin(self.at);
    }
}

impl MemoryView {
    /// At most `most` rows between the bounds, from the end at which the scan starts. `last` is the
    /// last key looked at, seen or not; `None` when there are no more.
    fn chunk(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        most: usize,
    ) -> Result<Chunk, StorageError> {
        let rows = lock(&self.rows);
        rows.get(&[], self.at)?;
        let range = rows.rows.range::<[u8], _>((from, to));
        let mut chunk = Chunk { rows: Vec::with_capacity(FIRST_CHUNK), last: None, looked_at: 0 };
        let mut last = None;
        let rows: Box<dyn Iterator<Item = (&Bytes, &Row)>> = match direction {
            Direction::Forward => Box::new(range),
            Direction::Backward => Box::new(range.rev()),
        };
        for (key, row) in rows.take(most) {
            chunk.rows.extend(row.seen(self.at).map(|value| (key.clone(), value)));
            chunk.looked_at += 1;
            last = Some(key);
        }
        // A chunk that is not full was the last.
        chunk.last = last.filter(|_| chunk.looked_at == most).cloned();
        Ok(chunk)
    }
}

struct Chunk {
    rows: Vec<(Bytes, Bytes)>,
    last: Option<Bytes>,
    looked_at: usize,
}

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        lock(&self.rows).get(key, self.at)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let mut reached: Option<Bytes> = None;
        let mut most = FIRST_CHUNK;
        loop {
            let (low, high) = match (direction, reached.as_deref()) {
                (_, None) => (Bound::Included(from), Bound::Excluded(to)),
                (Direction::Forward, Some(at)) => (Bound::Excluded(at), Bound::Excluded(to)),
                (Direction::Backward, Some(at)) => (Bound::Included(from), Bound::Excluded(at)),
            };
            let chunk = self.chunk(low, high, direction, most)?;
            for (key, value) in &chunk.rows {
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
            match chunk.last {
                Some(last) => (reached, most) = (Some(last), LARGEST_CHUNK.min(most * 4)),
                None => return Ok(()),
            }
        }
    }
}
