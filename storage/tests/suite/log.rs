//! What every log promises.

use std::sync::mpsc::channel;

use bytes::Bytes;
use holdfast_storage::{LogEntry, LogState, StorageError};

use crate::bed::{Bed, entries, entry, ignored, result, synced, words};

crate::on_every_bed!(
    entries_are_readable_at_once,
    callbacks_come_in_order,
    groups_do_not_meet,
    reads_are_limited,
    truncation_is_ordered_before_later_appends,
    everything_can_be_truncated,
    purging_keeps_the_rest,
    purging_beyond_the_end_starts_anew,
    a_hole_is_refused,
    votes_and_marks_survive,
    lazy_writes_go_with_the_next_sync,
    what_was_synced_survives_a_crash,
    a_long_log_survives,
);

fn entries_are_readable_at_once(bed: Bed) {
    for index in 1..=50 {
        bed.log.append(1, entries(1, index..=index), ignored());
        let found = bed.log.read(1, 1, u64::MAX, usize::MAX).expect("reads");
        assert_eq!(found, entries(1, 1..=index));
        assert_eq!(bed.log.state(1).expect("reads").last, Some((1, index)));
    }
    synced(|done| bed.log.append(1, Vec::new(), done));
    assert_eq!(bed.log.synced(1), Some((1, 50)));
    assert!(bed.log.syncs() > 0);
}

fn callbacks_come_in_order(bed: Bed) {
    let (tell, told) = channel();
    for index in 1..=200 {
        let tell = tell.clone();
        let done = Box::new(move |result: Result<(), StorageError>| {
            tell.send((index, result.is_ok())).expect("the test listens");
        });
        match index % 3 {
            0 => bed.log.save_vote(2, Bytes::from("v"), done),
            _ => bed.log.append(1, vec![entry(1, index - index / 3)], done),
        }
    }
    let order: Vec<_> = told.iter().take(200).collect();
    assert_eq!(order, (1..=200).map(|index| (index, true)).collect::<Vec<_>>());
}

fn groups_do_not_meet(bed: Bed) {
    for group in [0, 1, u32::MAX - 1] {
        bed.log.append(group, entries(u64::from(group), 1..=3), ignored());
    }
    bed.log.truncate_after(0, Some(1));
    bed.log.purge(1, (1, 2));
    let last = u32::MAX - 1;
    let bed = bed.reopen();
    assert_eq!(words(&*bed.log, 0), "0.1");
    assert_eq!(words(&*bed.log, 1), "1.3");
    assert_eq!(words(&*bed.log, last), format!("{last}.1 {last}.2 {last}.3"));
    assert_eq!(bed.log.state(7).expect("reads"), LogState::default());
    assert_eq!(words(&*bed.log, 7), "");
    assert_eq!(bed.log.synced(7), None);
}

fn reads_are_limited(bed: Bed) {
    let sized = |index, size| LogEntry { index, term: 1, payload: Bytes::from(vec![b'x'; size]) };
    let sizes = [10, 10, 10, 50, 0, 10];
    synced(|done| bed.log.append(1, (1..).zip(sizes).map(|(i, s)| sized(i, s)).collect(), done));
    let read = |from, to, bytes| {
        let found = bed.log.read(1, from, to, bytes).expect("reads");
        found.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(read(1, 99, 1000), [1, 2, 3, 4, 5, 6]);
    assert_eq!(read(1, 99, 25), [1, 2]);
    assert_eq!(read(1, 99, 30), [1, 2, 3]);
    assert_eq!(read(1, 99, 0), [1], "at least one");
    assert_eq!(read(4, 99, 20), [4], "at least one");
    assert_eq!(read(4, 99, 50), [4, 5]);
    assert_eq!(read(5, 99, 9), [5]);
    assert_eq!(read(0, 3, 1000), [1, 2]);
    assert_eq!(read(6, 7, 1000), [6]);
    assert_eq!(read(3, 3, 1000), [0; 0]);
    assert_eq!(read(5, 2, 1000), [0; 0]);
    assert_eq!(read(7, 99, 1000), [0; 0]);
}

fn truncation_is_ordered_before_later_appends(bed: Bed) {
    bed.log.append(1, entries(1, 1..=9), ignored());
    bed.log.truncate_after(1, Some(5));
    assert_eq!(words(&*bed.log, 1), "1.1 1.2 1.3 1.4 1.5");
    bed.log.append(1, entries(2, 6..=7), ignored());
    bed.log.truncate_after(1, Some(6));
    bed.log.truncate_after(1, Some(99));
    synced(|done| bed.log.append(1, entries(4, 7..=8), done));
    let expected = "1.1 1.2 1.3 1.4 1.5 2.6 4.7 4.8";
    assert_eq!(words(&*bed.log, 1), expected);
    assert_eq!(bed.log.synced(1), Some((4, 8)));
    let bed = bed.crash();
    assert_eq!(words(&*bed.log, 1), expected);
    assert_eq!(bed.log.state(1).expect("reads").last, Some((4, 8)));
    // Nothing after the sync, but what is synced and gone is no longer claimed.
    bed.log.truncate_after(1, Some(3));
    assert_eq!(bed.log.synced(1), Some((1, 3)));
    assert_eq!(bed.log.state(1).expect("reads").last, Some((1, 3)));
}

fn everything_can_be_truncated(bed: Bed) {
    bed.log.append(1, entries(1, 1..=4), ignored());
    bed.log.truncate_after(1, None);
    assert_eq!(bed.log.state(1).expect("reads").last, None);
    bed.log.append(1, entries(3, 1..=2), ignored());
    let bed = bed.reopen();
    assert_eq!(words(&*bed.log, 1), "3.1 3.2");
    bed.log.truncate_after(1, Some(0));
    bed.log.append(1, entries(5, 1..=1), ignored());
    assert_eq!(words(&*bed.reopen().log, 1), "5.1");
}

fn purging_keeps_the_rest(bed: Bed) {
    bed.log.append(1, entries(1, 1..=4), ignored());
    bed.log.append(1, entries(2, 5..=9), ignored());
    bed.log.purge(1, (1, 3));
    assert_eq!(words(&*bed.log, 1), "1.4 2.5 2.6 2.7 2.8 2.9");
    bed.log.purge(1, (2, 6));
    bed.log.purge(1, (1, 2));
    let bed = bed.reopen();
    assert_eq!(words(&*bed.log, 1), "2.7 2.8 2.9");
    let state = bed.log.state(1).expect("reads");
    assert_eq!((state.purged, state.last), (Some((2, 6)), Some((2, 9))));
    // All of it.
    bed.log.purge(1, (2, 9));
    let bed = bed.reopen();
    let state = bed.log.state(1).expect("reads");
    assert_eq!((state.purged, state.last), (Some((2, 9)), None));
    assert_eq!(bed.log.synced(1), Some((2, 9)));
    synced(|done| bed.log.append(1, entries(3, 10..=11), done));
    assert_eq!(words(&*bed.log, 1), "3.10 3.11");
    bed.log.truncate_after(1, Some(9));
    assert_eq!(bed.log.synced(1), Some((2, 9)));
}

fn purging_beyond_the_end_starts_anew(bed: Bed) {
    bed.log.append(1, entries(1, 1..=4), ignored());
    bed.log.purge(1, (7, 100));
    assert_eq!(words(&*bed.log, 1), "");
    assert!(result(|done| bed.log.append(1, entries(7, 5..=5), done)).is_err());
    synced(|done| bed.log.append(1, entries(7, 101..=102), done));
    let bed = bed.crash();
    assert_eq!(words(&*bed.log, 1), "7.101 7.102");
    assert_eq!(bed.log.state(1).expect("reads").purged, Some((7, 100)));
    // The first index of a log is free, as after an installed snapshot or with 0 or 1.
    synced(|done| bed.log.append(2, entries(1, 0..=1), done));
    synced(|done| bed.log.append(3, entries(1, 30..=31), done));
    bed.log.purge(3, (1, 5));
    assert_eq!(words(&*bed.reopen().log, 3), "1.30 1.31");
}

fn a_hole_is_refused(bed: Bed) {
    synced(|done| bed.log.append(1, entries(1, 1..=4), done));
    for bad in [entries(1, 6..=7), entries(1, 4..=5), vec![entry(1, 5), entry(1, 7)]] {
        let refused = result(|done| bed.log.append(1, bad, done));
        assert!(matches!(refused, Err(StorageError::Corrupt(_))), "{refused:?}");
    }
    synced(|done| bed.log.append(1, entries(1, 5..=5), done));
    assert_eq!(words(&*bed.reopen().log, 1), "1.1 1.2 1.3 1.4 1.5");
}

fn votes_and_marks_survive(bed: Bed) {
    synced(|done| bed.log.save_vote(1, Bytes::from("old"), done));
    bed.log.save_committed(1, Bytes::from("old mark"));
    bed.log.save_committed(1, Bytes::from("mark"));
    synced(|done| bed.log.save_vote(1, Bytes::from("vote"), done));
    synced(|done| bed.log.save_vote(2, Bytes::from("other"), done));
    let bed = bed.crash();
    let state = bed.log.state(1).expect("reads");
    assert_eq!((state.vote, state.committed), (Some("vote".into()), Some("mark".into())));
    let state = bed.log.state(2).expect("reads");
    assert_eq!((state.vote, state.committed), (Some("other".into()), None));
}

fn lazy_writes_go_with_the_next_sync(bed: Bed) {
    synced(|done| bed.log.append(1, entries(1, 1..=9), done));
    bed.log.purge(1, (1, 2));
    bed.log.truncate_after(1, Some(6));
    bed.log.save_committed(1, Bytes::from("5"));
    bed.settle();
    let bed = bed.crash();
    assert_eq!(words(&*bed.log, 1), "1.3 1.4 1.5 1.6");
    let state = bed.log.state(1).expect("reads");
    assert_eq!((state.purged, state.committed), (Some((1, 2)), Some("5".into())));
}

fn what_was_synced_survives_a_crash(mut bed: Bed) {
    for round in 0..5 {
        let first = round * 10 + 1;
        synced(|done| bed.log.append(1, entries(round, first..=first + 9), done));
        bed = bed.crash();
        let found = bed.log.read(1, 0, u64::MAX, usize::MAX).expect("reads");
        assert_eq!(found.len() as u64, first + 9);
        assert_eq!(bed.log.synced(1), Some((round, first + 9)));
    }
}

/// Longer than the tail in memory, over several table files, read from everywhere.
fn a_long_log_survives(bed: Bed) {
    let mut bed = bed;
    for start in [1, 1001, 2001] {
        for first in (start..start + 1000).step_by(50) {
            bed.log.append(1, entries(start, first..=first + 49), ignored());
        }
        bed = bed.reopen();
    }
    bed.log.purge(1, (1, 700));
    bed = bed.reopen();
    for from in (701..3001).step_by(333) {
        let found = bed.log.read(1, from, from + 500, usize::MAX).expect("reads");
        let indexes: Vec<u64> = found.iter().map(|entry| entry.index).collect();
        assert_eq!(indexes, (from..(from + 500).min(3001)).collect::<Vec<_>>());
    }
}
