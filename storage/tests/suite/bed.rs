//! What the suite runs on.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use holdfast_storage::rocks::{Format, LogLimits, Opened, Settings, TablesLimits};
use holdfast_storage::{Direction, Done, GroupId, Log, LogEntry, Op, StorageError, Store, View};
use tempfile::TempDir;

/// A log and a store that can be closed and crashed.
pub(crate) struct Bed {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) store: Arc<dyn Store>,
    kind: Kind,
}

enum Kind {
    Rocks { folder: TempDir, settings: Settings },
    Memory { log: Arc<MemoryLog>, store: Arc<MemoryStore> },
}

pub(crate) fn settings() -> Settings {
    Settings {
        format: Format { shards: 4, node: 1 },
        exact: true,
        log: LogLimits::default(),
        tables: TablesLimits::default(),
        on_fatal: Arc::new(|why| panic!("the log failed: {why}")),
    }
}

impl Bed {
    pub(crate) fn rocks() -> Bed {
        Bed::open(tempfile::tempdir().expect("a folder"), settings())
    }

    /// RocksDB with so little memory that most reads of the log go to the disk.
    pub(crate) fn cold() -> Bed {
        let log = LogLimits { tail_entries: 1, tail_bytes: 8, ..LogLimits::default() };
        Bed::open(tempfile::tempdir().expect("a folder"), Settings { log, ..settings() })
    }

    fn open(folder: TempDir, settings: Settings) -> Bed {
        let opened = Opened::open(folder.path(), &settings).expect("opens");
        assert_eq!(opened.lost, Vec::<GroupId>::new());
        Bed { log: opened.log, store: opened.store, kind: Kind::Rocks { folder, settings } }
    }

    pub(crate) fn memory() -> Bed {
        Bed::over(MemoryLog::new(), MemoryStore::new())
    }

    fn over(log: MemoryLog, store: MemoryStore) -> Bed {
        let (log, store) = (Arc::new(log), Arc::new(store));
        let kind = Kind::Memory { log: Arc::clone(&log), store: Arc::clone(&store) };
        Bed { log, store, kind }
    }

    /// A clean stop and a start.
    pub(crate) fn reopen(self) -> Bed {
        let Bed { log, store, kind } = self;
        drop((log, store));
        match kind {
            Kind::Rocks { folder, settings } => Bed::open(folder, settings),
            Kind::Memory { log, store } => {
                store.flush().expect("flushes");
                Bed::over(log.crash(usize::MAX), store.crash())
            }
        }
    }

    /// An end without a stop, and a start. What was synced is there; what was not may be.
    pub(crate) fn crash(self) -> Bed {
        match &self.kind {
            Kind::Rocks { folder, settings } => Bed::open(image(folder.path()), settings.clone()),
            Kind::Memory { log, store } => Bed::over(log.crash(0), store.crash()),
        }
    }

    /// The same, and the disk did not keep everything either: `lose` takes away from its files what
    /// was not synced.
    pub(crate) fn crash_losing(self, lose: impl FnOnce(&Path)) -> Bed {
        match &self.kind {
            Kind::Rocks { folder, settings } => {
                let left = image(folder.path());
                lose(left.path());
                Bed::open(left, settings.clone())
            }
            Kind::Memory { .. } => self.crash(),
        }
    }

    /// Where its files are. None in memory.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Rocks { folder, .. } => Some(folder.path()),
            Kind::Memory { .. } => None,
        }
    }

    /// Waits until everything so far is synced.
    pub(crate) fn settle(&self) {
        synced(|done| self.log.save_vote(GroupId::MAX, Bytes::from("settle"), done));
    }
}

/// The files of the write-ahead log of a RocksDB folder with their sizes, by name.
pub(crate) fn wals(folder: &Path) -> BTreeMap<String, u64> {
    let sized = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let wal = path.extension()? == "log";
        let name = path.file_name()?.to_str()?.to_owned();
        // It may be gone by now: then it is no longer needed.
        wal.then(|| Some((name, fs::metadata(&path).ok()?.len())))?
    };
    fs::read_dir(folder).expect("lists").filter_map(sized).collect()
}

/// A copy of a folder in use: what a process that is killed now leaves behind. Files are copied one
/// by one, so a copy is of one moment only when nothing has changed meanwhile (RocksDB flushes and
/// compacts in the background): else it is made again.
pub(crate) fn image(from: &Path) -> TempDir {
    for _ in 0..1000 {
        let folder = tempfile::tempdir().expect("a folder");
        let before = sizes(from);
        if copy(from, folder.path()).is_ok() && sizes(from) == before {
            return folder;
        }
    }
    panic!("{} does not come to rest", from.display());
}

/// Every file with its size; every change of a database makes, removes or lengthens one.
fn sizes(folder: &Path) -> Vec<(PathBuf, Option<u64>)> {
    let size = |path: PathBuf| {
        let size = fs::metadata(&path).map(|found| found.len()).ok();
        (path, size)
    };
    files(folder).into_iter().map(size).collect()
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            fs::create_dir(&target)?;
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// All files below a folder, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Makes one call and waits for its callback.
pub(crate) fn result(call: impl FnOnce(Done)) -> Result<(), StorageError> {
    let (tell, told) = channel();
    call(Box::new(move |result| tell.send(result).expect("the test waits")));
    told.recv().expect("called")
}

/// Makes one call that must succeed and waits until it is synced.
pub(crate) fn synced(call: impl FnOnce(Done)) {
    result(call).expect("syncs");
}

/// A callback that nobody listens to.
pub(crate) fn ignored() -> Done {
    Box::new(|_| {})
}

/// The entry whose payload says what it is.
pub(crate) fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { index, term, payload: Bytes::from(format!("{term}.{index}")) }
}

pub(crate) fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<LogEntry> {
    indexes.map(|index| entry(term, index)).collect()
}

/// The whole log of a group as "term.index" words.
pub(crate) fn words(log: &dyn Log, group: GroupId) -> String {
    let found = log.read(group, 0, u64::MAX, usize::MAX).expect("reads");
    for entry in &found {
        assert_eq!(entry.payload, format!("{}.{}", entry.term, entry.index));
    }
    let words = found.iter().map(|entry| format!("{}.{}", entry.term, entry.index));
    words.collect::<Vec<_>>().join(" ")
}

pub(crate) fn set(key: &str, value: &str) -> Op {
    Op::Put { key: Bytes::from(key.to_string()), value: Bytes::from(value.to_string()) }
}

pub(crate) fn unset(key: &str) -> Op {
    Op::Delete { key: Bytes::from(key.to_string()) }
}

/// The rows of a range as "key=value" words.
pub(crate) fn rows(view: &dyn View, from: &str, to: &str, direction: Direction) -> Vec<String> {
    let mut found = Vec::new();
    let walk = view.scan(from.as_bytes(), to.as_bytes(), direction, &mut |key, value| {
        let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        found.push(format!("{key}={value}"));
        ControlFlow::Continue(())
    });
    walk.expect("scans");
    found
}
