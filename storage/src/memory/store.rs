//! [`MemoryStore`]: rows with their versions; a crash goes back to the last flush.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{Direction, Op, StorageError, Store, View, Visit};

/// How many rows a scan takes per turn of the lock.
const SCAN_CHUNK: usize = 64;

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
    rows: BTreeMap<Bytes, Vec<Version>>,
    /// The number of the last batch.
    now: u64,
    /// The batch that a crash goes back to.
    flushed: u64,
    /// The batches that views stand at, and how many of them; `flushed` too.
    pins: BTreeMap<u64, usize>,
    /// Rows with more versions than the newest, or without a value.
    loose: BTreeSet<Bytes>,
    unflushed: u64,
    fault: Option<Fault>,
    crashed: bool,
}

/// The number of the batch that wrote it, and the value; `None` after a delete.
type Version = (u64, Option<Bytes>);

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
        rows.rows.retain(|_, versions| {
            versions.retain(|(at, _)| *at <= kept);
            matches!(versions.last(), Some((_, Some(_))))
        });
        rows.loose = rows.rows.keys().cloned().collect();
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
        self.rows.entry(key.clone()).or_default().push((self.now, value));
        self.prune(key);
    }

    /// Drops the versions of a row that nobody can see, and the row when nothing is left.
    fn prune(&mut self, key: Bytes) {
        let Some(versions) = self.rows.get_mut(&key) else { return };
        let ends: Vec<u64> = versions.iter().skip(1).map(|(at, _)| *at).collect();
        let mut ends = ends.into_iter();
        let mut first = true;
        versions.retain(|(at, value)| {
            let seen = match ends.next() {
                Some(end) => *at < end && self.pins.range(*at..end).next().is_some(),
                None => true,
            };
            // A delete with nothing before it says no more than no row.
            let keep = seen && !(first && value.is_none());
            first &= !keep;
            keep
        });
        match versions.as_slice() {
            [] => {
                self.rows.remove(&key);
            }
            [(_, Some(_))] => {}
            _ => {
                self.loose.insert(key);
            }
        }
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Bytes>, StorageError> {
        if self.crashed {
            return Err(StorageError::Io("the node has crashed".into()));
        }
        Ok(self.rows.get(key).and_then(|versions| seen(versions, at)))
    }
}

/// What a reader that stands at batch `at` sees.
fn seen(versions: &[Version], at: u64) -> Option<Bytes> {
    versions.iter().rev().find(|(written, _)| *written <= at).and_then(|(_, value)| value.clone())
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
    /// Some rows between the bounds, from the end at which the scan starts. `last` is the last
    /// key looked at, seen or not; `None` when there was none.
    fn chunk(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Result<Chunk, StorageError> {
        let rows = lock(&self.rows);
        rows.get(&[], self.at)?;
        let range = rows.rows.range::<[u8], _>((from, to));
        let mut chunk = Chunk { rows: Vec::new(), last: None };
        let mut take = |(key, versions): (&Bytes, &Vec<Version>)| {
            chunk.rows.extend(seen(versions, self.at).map(|value| (key.clone(), value)));
            chunk.last = Some(key.clone());
        };
        match direction {
            Direction::Forward => range.take(SCAN_CHUNK).for_each(&mut take),
            Direction::Backward => range.rev().take(SCAN_CHUNK).for_each(&mut take),
        }
        Ok(chunk)
    }
}

struct Chunk {
    rows: Vec<(Bytes, Bytes)>,
    last: Option<Bytes>,
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
        loop {
            let (low, high) = match (direction, reached.as_deref()) {
                (_, None) => (Bound::Included(from), Bound::Excluded(to)),
                (Direction::Forward, Some(at)) => (Bound::Excluded(at), Bound::Excluded(to)),
                (Direction::Backward, Some(at)) => (Bound::Included(from), Bound::Excluded(at)),
            };
            let chunk = self.chunk(low, high, direction)?;
            for (key, value) in &chunk.rows {
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
            match chunk.last {
                Some(last) => reached = Some(last),
                None => return Ok(()),
            }
        }
    }
}
