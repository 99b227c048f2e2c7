//! Damaged files: refused, or harmless, never a quietly shorter log.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_storage::rocks::{OpenError, Opened};
use holdfast_storage::{Log, LogEntry, StorageError, Store};
use tempfile::TempDir;

use crate::bed::{files, image, settings, synced};

const ENTRIES: u64 = 200;

fn payload(index: u64) -> Bytes {
    Bytes::from(index.to_be_bytes().repeat(40))
}

fn append(log: &dyn Log, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let entry = LogEntry { index, term: 1, payload: payload(index) };
        synced(|done| log.append(1, vec![entry], done));
    }
}

/// A folder as a kill leaves it: half of the entries in a table file, half in the write-ahead log,
/// all of them synced and known to the tables.
fn killed() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Opened::open(folder.path(), &settings()).expect("opens");
    append(&*opened.log, 1..=ENTRIES / 2);
    drop(opened);
    let opened = Opened::open(folder.path(), &settings()).expect("opens");
    append(&*opened.log, ENTRIES / 2 + 1..=ENTRIES);
    opened.store.flush().expect("flushes");
    image(folder.path())
}

/// Opens a folder. `Some(n)`: the first `n` entries are there and whole, and no loss is claimed.
fn opens_with(folder: &Path) -> Option<u64> {
    let opened = match Opened::open(folder, &settings()) {
        Ok(opened) if opened.lost.is_empty() => opened,
        Ok(_) | Err(OpenError::Storage(_)) => return None,
        Err(other) => panic!("{other}"),
    };
    let found = opened.log.read(1, 0, u64::MAX, usize::MAX).ok()?;
    for (index, entry) in (1..).zip(&found) {
        assert_eq!((entry.index, entry.term, &entry.payload), (index, 1, &payload(index)));
    }
    Some(found.len() as u64)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("reads");
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("writes");
}

fn log_file(folder: &Path, extension: &str) -> PathBuf {
    let all = files(&folder.join("log")).into_iter();
    let with = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let size = |path: &PathBuf| fs::metadata(path).expect("is there").len();
    all.filter(with).max_by_key(size).expect("such a file")
}

#[test]
fn an_undamaged_folder_opens() {
    assert_eq!(opens_with(killed().path()), Some(ENTRIES));
}

#[test]
fn damage_before_the_tail_refuses_to_open() {
    let killed = killed();
    for extension in ["log", "sst"] {
        let file = log_file(killed.path(), extension);
        let (size, mark) = (fs::metadata(&file).expect("is there").len() as usize, payload(20));
        let bytes = fs::read(&file).expect("reads");
        for part in 1..4 {
            let copy = image(killed.path());
            flip(&copy.path().join("log").join(file.file_name().expect("a name")), size * part / 4);
            // Nor does a refused start leave anything behind that a later one would take.
            for start in 1..=3 {
                let opened = Opened::open(copy.path(), &settings());
                let why = opened.err().expect("refused");
                assert!(
                    matches!(why, OpenError::Storage(StorageError::Corrupt(_))),
                    "{extension} at {part}/4 of {} with {}, start {start}: {why:?}",
                    bytes.len(),
                    mark.len()
                );
            }
        }
    }
}

/// A power loss cuts the write-ahead log anywhere behind what was synced; here the synced part is
/// what the tables know of, and the cut goes through the entries after it.
#[test]
fn a_torn_tail_is_cut_off() {
    let killed = killed();
    let known = fs::metadata(log_file(killed.path(), "log")).expect("is there").len();
    let opened = Opened::open(killed.path(), &settings()).expect("opens");
    drop(opened);
    // The write-ahead log begins anew at each start, so what was known is in a table file now.
    let opened = Opened::open(killed.path(), &settings()).expect("opens");
    append(&*opened.log, ENTRIES + 1..=ENTRIES + 3);
    let more = image(killed.path());
    drop(opened);
    let file = log_file(more.path(), "log");
    let name = file.file_name().expect("a name");
    let size = fs::metadata(&file).expect("is there").len();
    assert!(size < known);
    let mut last = 0;
    let cut = |at, then| {
        let copy = image(more.path());
        let torn = fs::OpenOptions::new().write(true).open(copy.path().join("log").join(name));
        torn.and_then(|file| file.set_len(at).and_then(|()| file.set_len(then))).expect("cuts");
        opens_with(copy.path()).unwrap_or_else(|| panic!("a torn tail opens, {at} of {then}"))
    };
    for at in (0..=size).step_by(23).chain([size]) {
        let found = cut(at, at);
        assert!((ENTRIES..=ENTRIES + 3).contains(&found), "{found} entries");
        assert!(found >= last, "a longer file has fewer entries");
        last = found;
    }
    assert_eq!(last, ENTRIES + 3);
    // The file has its length, and zeroes from a sector on.
    last = 0;
    for at in (0..=size).step_by(512).chain([size]) {
        let found = cut(at, size);
        assert!(found >= last.max(ENTRIES), "{found} entries, {at} bytes of {size}");
        last = found;
    }
    assert_eq!(last, ENTRIES + 3);
}

/// Any bit of any file of the log: all entries are there, or the folder is refused, or the loss is
/// told. Never a quietly shorter log.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let killed = killed();
    let (mut intact, mut noticed) = (0, 0);
    for file in files(&killed.path().join("log")) {
        let name = file.strip_prefix(killed.path()).expect("below");
        let size = fs::metadata(&file).expect("is there").len() as usize;
        for at in (0..size).step_by((size / 12).max(1)) {
            let copy = image(killed.path());
            flip(&copy.path().join(name), at);
            match opens_with(copy.path()) {
                Some(found) => {
                    assert_eq!(found, ENTRIES, "{} at {at}: quietly shorter", name.display());
                    intact += 1;
                }
                None => noticed += 1,
            }
        }
    }
    // Diaries and empty files can be flipped without harm.
    assert!(intact > 0 && noticed > 20, "{intact} intact, {noticed} noticed");
}

/// A sector that reads as zeroes, in the middle of what was synced since the tables were flushed,
/// so that no mark of theirs tells of it. RocksDB takes such a sector for room that was never used
/// when a record should begin in it, and leaves out the rest of its block without a word.
#[test]
fn a_sector_of_zeroes_in_the_log_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Opened::open(folder.path(), &settings()).expect("opens");
    opened.store.flush().expect("flushes");
    append(&*opened.log, 1..=ENTRIES);
    let killed = image(folder.path());
    drop(opened);
    let name = log_file(killed.path(), "log");
    let bytes = fs::read(&name).expect("reads");
    let name = name.strip_prefix(killed.path()).expect("below");
    // Where the last record begins, whose damage is a torn write and therefore legal.
    let last = bytes.len() - bytes.len() / ENTRIES as usize;
    let (mut refused, mut quiet) = (0, Vec::new());
    for at in (0..last - 512).step_by(512) {
        let copy = image(killed.path());
        let mut bad = bytes.clone();
        bad[at..at + 512].fill(0);
        fs::write(copy.path().join(name), bad).expect("writes");
        match opens_with(copy.path()) {
            Some(found) => quiet.push((at, found)),
            None => refused += 1,
        }
    }
    assert_eq!(quiet, [], "{refused} refused");
}
