//! What every store promises.

use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_storage::Direction::{Backward, Forward};
use holdfast_storage::tables::Table;
use holdfast_storage::{Op, Store};

use crate::bed::{Bed, rows, set, unset};

crate::on_every_bed!(
    batches_are_applied_in_order,
    scans_walk_both_ways,
    scans_cross_tables,
    long_scans_come_to_their_end,
    views_stand_still,
    persisted_is_what_was_flushed,
    a_crash_goes_back_to_the_last_flush,
    unflushed_bytes_are_counted,
    views_outlive_the_store,
);

fn get(store: &dyn Store, key: &str) -> Option<String> {
    let found = store.view().get(key.as_bytes()).expect("reads");
    found.map(|value| String::from_utf8_lossy(&value).into_owned())
}

fn batches_are_applied_in_order(bed: Bed) {
    bed.store
        .apply(vec![set("a", "1"), set("a", "2"), set("b", "1"), unset("b")])
        .expect("applies");
    assert_eq!(get(&*bed.store, "a"), Some("2".into()));
    assert_eq!(get(&*bed.store, "b"), None);
    bed.store.apply(vec![unset("a"), set("a", ""), unset("never")]).expect("applies");
    assert_eq!(get(&*bed.store, "a"), Some(String::new()));
    bed.store.apply(Vec::new()).expect("applies nothing");
    let bed = bed.reopen();
    assert_eq!(get(&*bed.store, "a"), Some(String::new()));
    assert_eq!(get(&*bed.store, "b"), None);
}

fn scans_walk_both_ways(bed: Bed) {
    let keys = ["k", "ka", "kb", "kc", "l"];
    bed.store.apply(keys.map(|key| set(key, "v")).to_vec()).expect("applies");
    bed.store.apply(vec![unset("kb")]).expect("applies");
    let view = bed.store.view();
    assert_eq!(rows(&*view, "k", "l", Forward), ["k=v", "ka=v", "kc=v"]);
    assert_eq!(rows(&*view, "k", "l", Backward), ["kc=v", "ka=v", "k=v"]);
    assert_eq!(rows(&*view, "ka", "kc", Forward), ["ka=v"]);
    assert_eq!(rows(&*view, "kb", "kc", Forward), [""; 0]);
    assert_eq!(rows(&*view, "z", "a", Forward), [""; 0]);
    assert_eq!(rows(&*view, "k", "k", Backward), [""; 0]);
    let mut first = None;
    let stop = view.scan(b"k", b"z", Backward, &mut |key, _| {
        assert_eq!(first, None, "called after it broke");
        first = Some(key.to_vec());
        ControlFlow::Break(())
    });
    stop.expect("scans");
    assert_eq!(first, Some(b"l".to_vec()));
}

/// History lies in a column family of its own; nobody outside can tell.
fn scans_cross_tables(bed: Bed) {
    let key = |table: u8, n: u8| Bytes::from(vec![table, n]);
    let tables = [0, Table::History as u8, Table::Journal as u8, Table::Meta as u8];
    let put = |table, n| Op::Put { key: key(table, n), value: Bytes::from(vec![n]) };
    bed.store
        .apply(tables.iter().flat_map(|&t| [put(t, 1), put(t, 2)]).collect())
        .expect("applies");
    let all: Vec<(u8, u8)> = tables.iter().flat_map(|&table| [(table, 1), (table, 2)]).collect();
    let view = bed.store.view();
    let scan = |from: &[u8], to: &[u8], direction, most: usize| {
        let mut found = Vec::new();
        let walk = view.scan(from, to, direction, &mut |key, value| {
            assert_eq!(key[1..], *value);
            found.push((key[0], key[1]));
            if found.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        walk.expect("scans");
        found
    };
    assert_eq!(scan(&[0], &[99], Forward, 99), all);
    let back: Vec<(u8, u8)> = all.iter().rev().copied().collect();
    assert_eq!(scan(&[0], &[99], Backward, 99), back);
    assert_eq!(scan(&[0, 2], &[2, 2], Forward, 99), all[1..5]);
    assert_eq!(scan(&[1, 2], &[2, 1, 0], Backward, 99), back[3..5]);
    assert_eq!(scan(&[0], &[99], Forward, 3), all[..3]);
    assert_eq!(scan(&[0], &[99], Backward, 5), back[..5]);
}

fn long_scans_come_to_their_end(bed: Bed) {
    let name = |n: u32| format!("k{n:05}");
    bed.store.apply((0..1000).map(|n| set(&name(n), "v")).collect()).expect("applies");
    bed.store
        .apply((0..1000).filter(|n| n % 7 > 0).map(|n| unset(&name(n))).collect())
        .expect("ok");
    let mut expected: Vec<String> =
        (0..1000).filter(|n| n % 7 == 0).map(|n| format!("{}=v", name(n))).collect();
    let view = bed.store.view();
    assert_eq!(rows(&*view, "k", "l", Forward), expected);
    expected.reverse();
    assert_eq!(rows(&*view, "k", "l", Backward), expected);
}

fn views_stand_still(bed: Bed) {
    bed.store.apply(vec![set("a", "1"), set("b", "1")]).expect("applies");
    let first = bed.store.view();
    bed.store.apply(vec![set("a", "2"), unset("b"), set("c", "2")]).expect("applies");
    let second = bed.store.view();
    bed.store.flush().expect("flushes");
    bed.store.apply(vec![unset("a"), set("b", "3"), unset("c")]).expect("applies");
    assert_eq!(rows(&*first, "a", "z", Forward), ["a=1", "b=1"]);
    assert_eq!(rows(&*second, "a", "z", Backward), ["c=2", "a=2"]);
    assert_eq!(rows(&*bed.store.view(), "a", "z", Forward), ["b=3"]);
    assert_eq!(first.get(b"a").expect("reads"), Some("1".into()));
    drop(first);
    bed.store.flush().expect("flushes");
    assert_eq!(rows(&*second, "a", "z", Forward), ["a=2", "c=2"]);
    assert_eq!(second.get(b"b").expect("reads"), None);
}

fn persisted_is_what_was_flushed(bed: Bed) {
    let history = "\u{1}h";
    let persisted = |key: &str| bed.store.get_persisted(key.as_bytes()).expect("reads");
    bed.store.apply(vec![set("a", "1"), set(history, "1")]).expect("applies");
    assert_eq!((persisted("a"), persisted(history)), (None, None));
    assert_eq!(get(&*bed.store, "a"), Some("1".into()));
    bed.store.flush().expect("flushes");
    assert_eq!((persisted("a"), persisted(history)), (Some("1".into()), Some("1".into())));
    bed.store.apply(vec![set("a", "2"), unset(history)]).expect("applies");
    assert_eq!((persisted("a"), persisted(history)), (Some("1".into()), Some("1".into())));
    assert_eq!(get(&*bed.store, "a"), Some("2".into()));
    bed.store.flush().expect("flushes");
    assert_eq!((persisted("a"), persisted(history)), (Some("2".into()), None));
}

fn a_crash_goes_back_to_the_last_flush(mut bed: Bed) {
    let history = "\u{1}h";
    bed.store.apply(vec![set("a", "1"), set(history, "1"), set("gone", "1")]).expect("applies");
    bed.store.flush().expect("flushes");
    for _ in 0..2 {
        bed.store.apply(vec![set("a", "2"), unset("gone")]).expect("applies");
        bed.store.apply(vec![set(history, "2"), set("new", "2")]).expect("applies");
        bed = bed.crash();
        let found = ["a", history, "gone", "new"].map(|key| get(&*bed.store, key));
        assert_eq!(found, [Some("1".into()), Some("1".into()), Some("1".into()), None]);
    }
}

fn unflushed_bytes_are_counted(bed: Bed) {
    assert_eq!(bed.store.unflushed_bytes(), 0);
    bed.store.apply(vec![set("a", &"x".repeat(1000))]).expect("applies");
    let one = bed.store.unflushed_bytes();
    assert!((1000..1200).contains(&one), "{one}");
    bed.store.apply(vec![set("b", &"x".repeat(1000))]).expect("applies");
    assert_eq!(bed.store.unflushed_bytes(), one * 2);
    bed.store.flush().expect("flushes");
    assert_eq!(bed.store.unflushed_bytes(), 0);
}

fn views_outlive_the_store(bed: Bed) {
    bed.store.apply(vec![set("a", "1")]).expect("applies");
    let view = bed.store.view();
    let Bed { store, log, .. } = bed;
    drop((store, log));
    assert_eq!(rows(&*view, "a", "b", Forward), ["a=1"]);
}
