//! [`RocksStore`]: the tables in one RocksDB instance without a write-ahead log.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, SnapshotWithThreadMode,
    WriteBatch, WriteOptions,
};
use self_cell::self_cell;

use super::dir::Lock;
use super::log::RocksLog;
use super::options::{self, TablesLimits};
use super::refused;
use crate::tables::meta::{Synced, SyncedKey};
use crate::tables::{Key, Table, put};
use crate::{Direction, GroupId, Op, StorageError, Store, View, Visit};

const ROWS: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
const HISTORY: &str = "history";

/// The tables of a node on RocksDB.
pub struct RocksStore {
    db: Arc<DB>,
    log: Arc<RocksLog>,
    /// Groups whose log lost writes: their marks stay as they are until they are refilled.
    lost: Mutex<BTreeSet<GroupId>>,
    unflushed: AtomicU64,
    write: WriteOptions,
    _lock: Arc<Lock>,
}

impl RocksStore {
    /// Opens the tables in a folder of their own.
    pub(super) fn open(
        path: &Path,
        limits: &TablesLimits,
        log: Arc<RocksLog>,
        lock: Arc<Lock>,
    ) -> Result<RocksStore, StorageError> {
        let cache = Cache::new_lru_cache(limits.cache_bytes);
        let families = [
            ColumnFamilyDescriptor::new(ROWS, options::rows(limits, &cache)),
            ColumnFamilyDescriptor::new(HISTORY, options::history(limits, &cache)),
        ];
        let db = DB::open_cf_descriptors(&options::tables(limits), path, families)
            .map_err(|why| refused("opening the tables", &why))?;
        Ok(RocksStore {
            db: Arc::new(db),
            log,
            lost: Mutex::default(),
            unflushed: AtomicU64::new(0),
            write: options::unlogged(),
            _lock: lock,
        })
    }

    /// Which of the groups have a log that ended below their mark when it was opened, now or at
    /// an earlier start. Remembered before anything is written to the log, which then moves on.
    pub(super) fn compare(
        &self,
        groups: impl Iterator<Item = GroupId>,
    ) -> Result<Vec<GroupId>, StorageError> {
        let (mut lost, mut news) = (Vec::new(), Vec::new());
        for group in groups {
            let key = SyncedKey { group };
            let row = self.get_persisted(&key.encode())?;
            let Some(mark) = row.map(Synced::from_value).transpose()? else { continue };
            if mark.lost || !self.log.reached(&mark) {
                lost.push(group);
                news.push(put(&key, Synced { lost: true, ..mark }.to_value()));
            }
        }
        self.lost().extend(&lost);
        if !news.is_empty() {
            self.apply(news)?;
            self.flush()?;
        }
        Ok(lost)
    }

    /// Says that a group of `Opened::lost` has everything again, from its peers; true after a
    /// restart once the tables are flushed. Until then every start reports it.
    pub fn refilled(&self, group: GroupId) {
        self.lost().remove(&group);
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<GroupId>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_marks(&self) -> Result<(), StorageError> {
        let lost = self.lost().clone();
        let marks = self.log.marks().into_iter().filter(|(group, _)| !lost.contains(group));
        self.apply(marks.map(|(group, mark)| put(&SyncedKey { group }, mark.to_value())).collect())
    }
}

/// The column family of a key.
fn family<'a>(db: &'a DB, key: &[u8]) -> Result<&'a ColumnFamily, StorageError> {
    let name = if key.first() == Some(&(Table::History as u8)) { HISTORY } else { ROWS };
    db.cf_handle(name).ok_or_else(|| StorageError::Corrupt(format!("tables: no family {name}")))
}

impl Store for RocksStore {
    fn apply(&self, batch: Vec<Op>) -> Result<(), StorageError> {
        let mut writes = WriteBatch::default();
        for op in &batch {
            match op {
                Op::Put { key, value } => writes.put_cf(family(&self.db, key)?, key, value),
                Op::Delete { key } => writes.delete_cf(family(&self.db, key)?, key),
            }
        }
        let bytes = writes.size_in_bytes() as u64;
        let written = self.db.write_opt(writes, &self.write);
        written.map_err(|why| refused("writing the tables", &why))?;
        self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn view(&self) -> Box<dyn View> {
        let pinned = Pinned::new(Arc::clone(&self.db), |db| db.snapshot());
        Box::new(RocksView { pinned })
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.write_marks()?;
        let bytes = self.unflushed.swap(0, Ordering::Relaxed);
        let families = [family(&self.db, &[])?, family(&self.db, &[Table::History as u8])?];
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        self.db.flush_cfs_opt(&[&families[0], &families[1]], &wait).map_err(|why| {
            self.unflushed.fetch_add(bytes, Ordering::Relaxed);
            refused("flushing the tables", &why)
        })
    }

    fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    fn get_persisted(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let found = self.db.get_cf_opt(family(&self.db, key)?, key, &options::persisted());
        let found = found.map_err(|why| refused("reading the tables", &why))?;
        Ok(found.map(Bytes::from))
    }
}

type Snapshot<'a> = SnapshotWithThreadMode<'a, DB>;

self_cell!(
    /// A snapshot, with the database that it must not outlive.
    struct Pinned {
        owner: Arc<DB>,
        #[covariant]
        dependent: Snapshot,
    }
);

struct RocksView {
    pinned: Pinned,
}

impl View for RocksView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let family = family(self.pinned.borrow_owner(), key)?;
        let found = self.pinned.borrow_dependent().get_cf(family, key);
        let found = found.map_err(|why| refused("reading the tables", &why))?;
        Ok(found.map(Bytes::from))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        let mut parts = by_family(from, to);
        if direction == Direction::Backward {
            parts.reverse();
        }
        for part in parts {
            if self.walk(&part, direction, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Cuts a range where it enters or leaves the column family of history.
fn by_family(from: &[u8], to: &[u8]) -> Vec<Range<Vec<u8>>> {
    let enter: &[u8] = &[Table::History as u8];
    let leave: &[u8] = &[Table::History as u8 + 1];
    [(from, to.min(enter)), (from.max(enter), to.min(leave)), (from.max(leave), to)]
        .into_iter()
        .filter(|(from, to)| from < to)
        .map(|(from, to)| from.to_vec()..to.to_vec())
        .collect()
}

impl RocksView {
    /// Scans a range that lies in one column family.
    fn walk(
        &self,
        range: &Range<Vec<u8>>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<ControlFlow<()>, StorageError> {
        let family = family(self.pinned.borrow_owner(), &range.start)?;
        let read = options::between(&range.start, &range.end);
        let mut rows = self.pinned.borrow_dependent().raw_iterator_cf_opt(family, read);
        match direction {
            Direction::Forward => rows.seek_to_first(),
            Direction::Backward => rows.seek_to_last(),
        }
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.prev(),
            }
        }
        rows.status().map_err(|why| refused("reading the tables", &why))?;
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_history() {
        let cut = |from: &[u8], to: &[u8]| {
            by_family(from, to).into_iter().map(|r| (r.start, r.end)).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[1, 5], &[1, 9]), [(vec![1, 5], vec![1, 9])]);
        assert_eq!(cut(&[1, 5], &[2]), [(vec![1, 5], vec![2])]);
        assert_eq!(cut(&[2], &[3]), [(vec![2], vec![3])]);
        assert_eq!(cut(&[0], &[9]), [(vec![0], vec![1]), (vec![1], vec![2]), (vec![2], vec![9])]);
        assert_eq!(cut(&[3], &[3]), []);
        assert_eq!(cut(&[4], &[3]), []);
    }
}
