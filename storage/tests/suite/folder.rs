//! The data folder: who may open it, and what its marks give away.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::rocks::{Format, LogLimits, OpenError, Opened, Settings, TablesLimits};
use holdfast_storage::tables::history::{Batch, HistoryKey};
use holdfast_storage::tables::meta::{Applied, AppliedKey};
use holdfast_storage::tables::{Key, RunKey, put};
use holdfast_storage::{Log, Store};

use crate::bed::{entries, ignored, image, settings, synced, words};

fn refused(opened: Result<Opened, OpenError>) -> OpenError {
    opened.err().expect("refused")
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Opened::open(folder.path(), &settings()).expect("opens");
    let second = refused(Opened::open(folder.path(), &settings()));
    assert!(matches!(second, OpenError::Locked { .. }), "{second}");
    assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
    // The log alone still needs the folder.
    let Opened { log, store, .. } = opened;
    drop(store);
    assert!(matches!(refused(Opened::open(folder.path(), &settings())), OpenError::Locked { .. }));
    drop(log);
    Opened::open(folder.path(), &settings()).expect("opens");
}

#[test]
fn another_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Opened::open(folder.path(), &settings()).expect("opens");
    assert_eq!(opened.format, Format { shards: 4, node: 1 });
    drop(opened);
    let other = Settings { format: Format { shards: 8, node: 1 }, ..settings() };
    let why = refused(Opened::open(folder.path(), &other)).to_string();
    assert!(why.contains("4 shards"), "{why}");
    let any = Settings { exact: false, ..other };
    assert_eq!(Opened::open(folder.path(), &any).expect("opens").format.shards, 4);
    let file = folder.path().join("FORMAT");
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, text.replace("version 2", "version 3")).expect("writes");
    let why = refused(Opened::open(folder.path(), &any)).to_string();
    assert!(why.contains("version 3"), "{why}");
}

#[test]
fn a_log_that_lost_synced_writes_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Opened::open(folder.path(), &settings()).expect("opens");
    synced(|done| opened.log.append(1, entries(1, 1..=5), done));
    synced(|done| opened.log.append(2, entries(1, 1..=5), done));
    let early = image(folder.path());
    // A vote is as dear as an entry.
    synced(|done| opened.log.save_vote(2, Bytes::from("vote"), done));
    opened.store.flush().expect("flushes");
    synced(|done| opened.log.append(1, entries(1, 6..=6), done));
    let late = image(folder.path());
    drop(opened);

    assert_eq!(Opened::open(late.path(), &settings()).expect("opens").lost, [0; 0]);
    // The tables of now over the log of then.
    let mixed = late;
    fs::remove_dir_all(mixed.path().join("log")).expect("removes");
    fs::rename(early.path().join("log"), mixed.path().join("log")).expect("moves");
    for first in [6, 31] {
        let opened = Opened::open(mixed.path(), &settings()).expect("opens");
        assert_eq!(opened.lost, [2], "group 1 has all that was marked");
        // The loss is not forgotten by flushes and restarts ..
        synced(|done| opened.log.append(1, entries(1, first..=first + 24), done));
        opened.store.flush().expect("flushes");
    }
    // .. but by a refill.
    let opened = Opened::open(mixed.path(), &settings()).expect("opens");
    synced(|done| opened.log.save_vote(2, Bytes::from("vote"), done));
    opened.store.refilled(2);
    opened.store.flush().expect("flushes");
    drop(opened);
    assert_eq!(Opened::open(mixed.path(), &settings()).expect("opens").lost, [0; 0]);
    // A log that is gone has lost everything.
    fs::remove_dir_all(mixed.path().join("log")).expect("removes");
    assert_eq!(Opened::open(mixed.path(), &settings()).expect("opens").lost, [1, 2]);
}

/// Whatever RocksDB decides to flush, what is on disk is a prefix of the batches, over both column
/// families.
#[test]
fn what_is_persisted_is_a_prefix() {
    let folder = tempfile::tempdir().expect("a folder");
    let tables = TablesLimits { write_buffer_bytes: 128 << 10, ..TablesLimits::default() };
    let small = Settings { tables, ..settings() };
    let opened = Opened::open(folder.path(), &small).expect("opens");
    let execution = holdfast_engine::ids::ExecutionKey::workflow(Default::default(), "w");
    let run = RunKey { shard: 0, execution, run: holdfast_engine::ids::Uuid([1; 16]) };
    let event = |n: u64| HistoryKey { run: run.clone(), first: n as i64 };
    let (mut partly, batches) = (0, 3000);
    for n in 1..=batches {
        let body = Batch { events: vec![Bytes::from(vec![n as u8; 300])] };
        let applied = Applied { last: Some((1, n)), ..Applied::default() };
        let rows = vec![
            put(&event(n), body.to_value()),
            put(&AppliedKey { group: 1 }, applied.to_value()),
        ];
        opened.store.apply(rows).expect("applies");
        if n % 500 > 0 {
            continue;
        }
        let image = image(folder.path());
        let crashed = Opened::open(image.path(), &small).expect("opens");
        let row = crashed.store.get_persisted(&AppliedKey { group: 1 }.encode()).expect("reads");
        let row = row.map(|row| Applied::from_value(row).expect("decodes"));
        let kept = row.and_then(|row| row.last).map_or(0, |last| last.1);
        partly += u32::from(kept > 0);
        let view = crashed.store.view();
        for m in [1, kept / 2, kept, kept + 1, n].into_iter().filter(|m| *m > 0) {
            let found = view.get(&event(m).encode()).expect("reads").is_some();
            assert_eq!(found, m <= kept, "batch {m} of {kept} persisted");
        }
    }
    assert!(partly > 0, "nothing was flushed: the test shows nothing");
}

/// Many threads, many groups: everything arrives, in order, in fewer syncs than calls.
#[test]
fn one_sync_serves_many_groups() {
    let folder = tempfile::tempdir().expect("a folder");
    // So little room that callers wait for each other.
    let log = LogLimits { pending_bytes: 2000, ..LogLimits::default() };
    let opened = Opened::open(folder.path(), &Settings { log, ..settings() }).expect("opens");
    std::thread::scope(|scope| {
        for group in 0..8 {
            let log = Arc::clone(&opened.log);
            scope.spawn(move || {
                for index in 1..=100 {
                    log.append(group, entries(1, index..=index), ignored());
                    if index % 10 == 0 {
                        log.purge(group, (1, index - 5));
                    }
                }
                synced(|done| log.append(group, Vec::new(), done));
            });
        }
    });
    assert!(opened.log.syncs() < 800, "{} syncs", opened.log.syncs());
    let image = image(folder.path());
    let crashed = Opened::open(image.path(), &settings()).expect("opens");
    for group in 0..8 {
        assert_eq!(words(&*crashed.log, group), "1.96 1.97 1.98 1.99 1.100");
        assert_eq!(opened.log.synced(group), Some((1, 100)));
    }
}
