//! What the logs and stores in memory can show: gates, failures, and crashes at every point.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use holdfast_storage::memory::{Fault, MemoryLog, MemoryStore};
use holdfast_storage::{Done, Log, LogState, StorageError, Store};

use crate::bed::{entries, ignored, set, words};

#[test]
fn a_lazy_write_waits_for_an_urgent_one() {
    let log = MemoryLog::new();
    log.append(1, entries(1, 1..=2), ignored());
    log.save_committed(1, Bytes::from("c"));
    log.purge(1, (1, 1));
    assert_eq!((log.pending(), log.syncs()), (2, 1));
    let left = log.crash(1);
    let state = left.state(1).expect("reads");
    assert_eq!((state.committed, state.purged), (Some("c".into()), None));
    left.purge(1, (1, 1));
    left.save_vote(1, Bytes::from("v"), ignored());
    assert_eq!((left.pending(), left.crash(0).state(1).expect("reads").purged), (0, Some((1, 1))));
}

/// Counts the calls that went well and those that did not.
#[derive(Default)]
struct Calls {
    good: AtomicUsize,
    bad: AtomicUsize,
}

impl Calls {
    fn done(self: &Arc<Self>) -> Done {
        let calls = Arc::clone(self);
        Box::new(move |result| {
            let counter = if result.is_ok() { &calls.good } else { &calls.bad };
            counter.fetch_add(1, Ordering::SeqCst);
        })
    }

    fn seen(&self) -> (usize, usize) {
        (self.good.load(Ordering::SeqCst), self.bad.load(Ordering::SeqCst))
    }
}

#[test]
fn nothing_is_told_before_its_sync() {
    let (log, calls) = (MemoryLog::gated(), Arc::new(Calls::default()));
    log.append(1, entries(1, 1..=2), calls.done());
    log.save_committed(1, Bytes::from("c"));
    log.save_vote(1, Bytes::from("v"), calls.done());
    log.append(2, entries(1, 1..=2), calls.done());
    assert_eq!((log.pending(), log.syncs(), calls.seen()), (4, 0, (0, 0)));
    assert_eq!((words(&log, 1), log.synced(1)), ("1.1 1.2".into(), None));
    log.release(1);
    assert_eq!((log.pending(), log.syncs(), calls.seen()), (3, 1, (1, 0)));
    assert_eq!((log.synced(1), log.synced(2)), (Some((1, 2)), None));
    log.release(1);
    assert_eq!(calls.seen(), (1, 0), "a lazy write has nobody to tell");
    log.release_all();
    assert_eq!((log.pending(), log.syncs(), calls.seen()), (0, 3, (3, 0)));
    log.append(2, entries(1, 3..=3), calls.done());
    log.set_gated(false);
    assert_eq!(calls.seen(), (4, 0));
    log.append(2, entries(1, 4..=4), calls.done());
    assert_eq!(calls.seen(), (5, 0));
}

type Call = Box<dyn Fn(&MemoryLog)>;

/// The writes of two groups over three terms, as a node would make them: each vote before the
/// entries that it allows.
fn stream() -> Vec<Call> {
    let vote = |group, term: u64| -> Call {
        Box::new(move |log| log.save_vote(group, Bytes::from(vec![term as u8]), ignored()))
    };
    let append = |group, term, first, last| -> Call {
        Box::new(move |log| log.append(group, entries(term, first..=last), ignored()))
    };
    vec![
        vote(1, 1),
        append(1, 1, 1, 3),
        vote(2, 1),
        append(2, 1, 1, 1),
        append(1, 1, 4, 6),
        Box::new(|log| log.save_committed(1, Bytes::from("3"))),
        vote(1, 2),
        Box::new(|log| log.truncate_after(1, Some(4))),
        append(1, 2, 5, 7),
        Box::new(|log| log.purge(1, (1, 2))),
        vote(2, 3),
        append(2, 3, 2, 2),
        Box::new(|log| log.purge(2, (3, 2))),
        append(1, 2, 8, 8),
    ]
}

fn all(log: &MemoryLog) -> Vec<(LogState, String)> {
    [1, 2].map(|group| (log.state(group).expect("reads"), words(log, group))).to_vec()
}

/// Whatever prefix of the writes was synced and whatever prefix of the rest got to the disk: the
/// log is what those writes make, and no entry is there without the vote for its term.
#[test]
fn a_crash_anywhere_leaves_a_prefix() {
    let ops = stream();
    for released in 0..=ops.len() {
        for kept in 0..=ops.len() - released {
            let log = MemoryLog::gated();
            ops.iter().for_each(|op| op(&log));
            log.release(released);
            let left = log.crash(kept);
            let model = MemoryLog::new();
            ops.iter().take(released + kept).for_each(|op| op(&model));
            assert_eq!(all(&left), all(&model), "{released} released, {kept} kept");
            for group in [1, 2] {
                let state = left.state(group).expect("reads");
                let vote = state.vote.map_or(0, |vote| u64::from(vote[0]));
                assert!(state.last.is_none_or(|(term, _)| term <= vote));
                assert_eq!(left.synced(group), state.last.or(state.purged));
            }
        }
    }
}

#[test]
fn a_failed_sync_is_the_end() {
    let (log, calls) = (MemoryLog::gated(), Arc::new(Calls::default()));
    log.append(1, entries(1, 1..=2), calls.done());
    log.release_all();
    log.fail_sync(2);
    log.append(1, entries(1, 3..=3), calls.done());
    log.release_all();
    assert_eq!((calls.seen(), log.failed().is_some()), ((2, 0), false));
    log.append(1, entries(1, 4..=4), calls.done());
    log.save_vote(1, Bytes::from("v"), calls.done());
    log.release(1);
    assert_eq!((calls.seen(), log.failed().is_some()), ((2, 2), true));
    log.append(1, entries(1, 5..=5), calls.done());
    assert_eq!(calls.seen(), (2, 3));
    let left = log.crash(usize::MAX);
    assert_eq!((words(&left, 1), left.state(1).expect("reads").vote), ("1.1 1.2 1.3".into(), None));
}

#[test]
fn a_dead_node_writes_to_no_disk() {
    let (log, calls) = (Arc::new(MemoryLog::gated()), Arc::new(Calls::default()));
    log.append(1, entries(1, 1..=2), calls.done());
    let left = log.crash(0);
    log.append(1, entries(1, 1..=2), calls.done());
    log.release_all();
    assert_eq!(calls.seen(), (0, 1), "the first was dropped with the node");
    assert!(log.read(1, 0, 9, 9).is_err());
    assert_eq!(words(&left, 1), "");

    let store = MemoryStore::new();
    store.apply(vec![set("a", "1")]).expect("applies");
    let view = store.view();
    store.crash();
    assert!(store.apply(vec![set("a", "1")]).is_err());
    assert!(store.flush().is_err());
    assert!(view.get(b"a").is_err() && store.view().get(b"a").is_err());
    assert!(store.get_persisted(b"a").is_err());
}

#[test]
fn a_damaged_entry_is_never_shown() {
    let log = MemoryLog::new();
    log.append(1, entries(1, 1..=5), ignored());
    log.damage(1, 3);
    assert!(log.read(1, 1, 3, usize::MAX).is_ok());
    let refused = log.read(1, 1, 9, usize::MAX);
    assert!(matches!(refused, Err(StorageError::Corrupt(_))), "{refused:?}");
    assert!(log.crash(0).state(1).is_err());
}

#[test]
fn a_store_can_fail_once() {
    let store = MemoryStore::new();
    store.fail_next(Fault::Apply);
    assert!(store.apply(vec![set("a", "1")]).is_err());
    assert_eq!(store.view().get(b"a").expect("reads"), None);
    store.apply(vec![set("a", "2")]).expect("applies");
    store.fail_next(Fault::Flush);
    assert!(store.flush().is_err());
    assert_eq!(store.get_persisted(b"a").expect("reads"), None);
    store.flush().expect("flushes");
    assert_eq!(store.crash().view().get(b"a").expect("reads"), Some("2".into()));
}
