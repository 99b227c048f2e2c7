//! [`MemoryStore`]: rows with their versions; a crash goes back to the last flush.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{Direction, Op, StorageError, Store, View, Visit};

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
    fn seen(&self, at: u64) -> Option<&Bytes> {
        let mut versions = std::iter::once(&self.newest).chain(self.older.iter().rev());
        versions.find(|(written, _)| *written <= at).and_then(|(_, value)| value.as_ref())
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
                row.newest = (kept, row.seen(kept).cloned());
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
        self.alive()?;
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

    fn alive(&self) -> Result<(), StorageError> {
        match self.crashed {
            true => Err(StorageError::Io("the node has crashed".into())),
            false => Ok(()),
        }
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Bytes>, StorageError> {
        self.alive()?;
        Ok(self.rows.get(key).and_then(|row| row.seen(at)).cloned())
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

/// Shows rows to `visit` as a reader sees them that stands at batch `at`.
fn walk<'a>(rows: impl Iterator<Item = (&'a Bytes, &'a Row)>, at: u64, visit: Visit<'_>) {
    for (key, row) in rows {
        if row.seen(at).is_some_and(|value| visit(key, value).is_break()) {
            return;
        }
    }
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
        let rows = lock(&self.rows);
        rows.alive()?;
        let range = rows.rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        match direction {
            Direction::Forward => walk(range, self.at, visit),
            Direction::Backward => walk(range.rev(), self.at, visit),
        }
        Ok(())
    }
}
