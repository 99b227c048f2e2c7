//! What the tests of all tables share.

use std::fmt::Debug;
use std::sync::Arc;

use holdfast_engine::ids::{Archetype, ExecutionKey, Hlc, Slot, Uuid};
use proptest::prelude::*;

use super::{Key, RunKey, SlotKey};

/// Both keys come back, sort as bytes as they sort as values, and are refused when cut or longer.
pub(super) fn check<K: Key + Ord + Debug>(a: &K, b: &K) {
    for key in [a, b] {
        let bytes = key.encode();
        assert_eq!(&K::decode(&bytes).expect("decodes"), key);
        assert!(K::decode(&bytes[..bytes.len() - 1]).is_err(), "a cut key was accepted");
        assert!(K::decode(&super::after(&bytes)).is_err(), "a longer key was accepted");
    }
    assert_eq!(a.cmp(b), a.encode().cmp(&b.encode()), "{a:?} {b:?}");
}

/// Numbers, most of them so small that two are often equal.
pub(super) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..3u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

pub(super) fn event() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..3i64, 1 => 0..i64::MAX]
}

pub(super) fn shard() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..2u32, 1 => any::<u32>()]
}

pub(super) fn hlc() -> impl Strategy<Value = Hlc> {
    number().prop_map(Hlc)
}

/// Strings over few characters, those that escaping is about among them.
pub(super) fn text() -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        Just('\0'),
        Just('\u{1}'),
        Just('a'),
        Just('b'),
        Just('\u{ff}'),
        Just('\u{10ffff}'),
    ];
    proptest::collection::vec(letter, 0..4).prop_map(|letters| letters.into_iter().collect())
}

pub(super) fn blob() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![Just(0u8), Just(1), Just(2), Just(0xfe), Just(0xff)],
        0..4,
    )
}

pub(super) fn uuid() -> impl Strategy<Value = Uuid> {
    prop_oneof![
        4 => (1..3u8).prop_map(|n| Uuid([n; 16])),
        1 => any::<[u8; 16]>().prop_map(Uuid),
    ]
}

pub(super) fn execution() -> impl Strategy<Value = ExecutionKey> {
    (uuid(), text()).prop_map(|(namespace, id)| ExecutionKey {
        namespace,
        archetype: Archetype::Workflow,
        id: Arc::from(id),
    })
}

pub(super) fn run() -> impl Strategy<Value = RunKey> {
    (shard(), execution(), uuid()).prop_map(|(shard, execution, run)| RunKey {
        shard,
        execution,
        run,
    })
}

pub(super) fn slot() -> impl Strategy<Value = SlotKey> {
    let slot = prop_oneof![Just(Slot::Id), uuid().prop_map(Slot::Run)];
    (shard(), execution(), slot).prop_map(|(shard, execution, slot)| SlotKey {
        shard,
        execution,
        slot,
    })
}
