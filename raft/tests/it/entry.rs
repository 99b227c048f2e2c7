//! The entry codec: round trips, limits, and no flipped byte gets through.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_engine::ids::{Archetype, ExecutionKey, Hlc, Slot, Uuid};
use holdfast_raft::entry::{
    EntryBytes, EntryDraft, EntryError, EntryLimits, Reign, ShardEntry, SlotPart, WireChange,
};
use holdfast_storage::Op;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn body(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (body(40), body(200)).prop_map(|(key, value)| Op::Put { key, value }),
        body(40).prop_map(|key| Op::Delete { key }),
    ]
}

fn part(slot: Slot) -> impl Strategy<Value = SlotPart> {
    let change = (1u16.., body(200)).prop_map(|(tag, body)| WireChange { tag, body });
    let live = (any::<u64>(), vec(change, 0..4), proptest::option::of(body(200))).prop_map(
        move |(base, changes, checkpoint)| SlotPart {
            slot,
            base,
            changes,
            checkpoint,
            drop: false,
        },
    );
    let gone = any::<u64>().prop_map(move |base| SlotPart {
        slot,
        base,
        changes: vec![],
        checkpoint: None,
        drop: true,
    });
    prop_oneof![4 => live, 1 => gone]
}

fn draft() -> impl Strategy<Value = EntryDraft> {
    let slots = btree_set(any::<[u8; 16]>().prop_map(Slot::from_bytes), 0..4);
    let parts = slots.prop_flat_map(|slots| slots.into_iter().map(part).collect::<Vec<_>>());
    (any::<[u8; 16]>(), "\\PC{0,30}", parts, vec(op(), 0..4)).prop_map(|(ns, id, parts, rows)| {
        let key =
            ExecutionKey { namespace: Uuid(ns), archetype: Archetype::Workflow, id: Arc::from(id) };
        EntryDraft { key, parts, rows }
    })
}

fn entry() -> impl Strategy<Value = ShardEntry> {
    (any::<[u64; 4]>(), vec(draft(), 0..4), vec(op(), 0..4)).prop_map(
        |([term, counter, seq, at], drafts, control)| ShardEntry {
            reign: Reign { term, counter },
            seq,
            at: Hlc(at),
            drafts,
            control,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn round_trips(entry in entry()) {
        let bytes = entry.encode().expect("within limits");
        prop_assert_eq!(bytes.len(), entry.encoded_len());
        let mark = bytes.mark().expect("a header");
        prop_assert_eq!((mark.reign, mark.seq, mark.at), (entry.reign, entry.seq, entry.at));
        prop_assert_eq!(ShardEntry::decode(&bytes), Ok(entry));
    }

    #[test]
    fn every_flipped_or_missing_byte_is_refused(entry in entry(), flip in 1u8..) {
        let good = entry.encode().expect("within limits").bytes().to_vec();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= flip;
            prop_assert!(ShardEntry::decode(&EntryBytes::from_wire(bad.into())).is_err(), "byte {}", at);
            let short = Bytes::copy_from_slice(&good[..at]);
            prop_assert!(ShardEntry::decode(&EntryBytes::from_wire(short)).is_err(), "cut at {}", at);
        }
    }

    #[test]
    fn garbage_with_a_right_checksum_never_panics(mut bytes in vec(any::<u8>(), 38..300)) {
        bytes[4..6].copy_from_slice(&1u16.to_be_bytes());
        let _ = ShardEntry::decode(&sealed(bytes));
    }
}

/// The bytes with a checksum that fits them.
fn sealed(mut bytes: Vec<u8>) -> EntryBytes {
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_be_bytes());
    EntryBytes::from_wire(bytes.into())
}

fn with(part: SlotPart) -> ShardEntry {
    let key = ExecutionKey::workflow(Uuid([7; 16]), "order-1");
    let mut entry = ShardEntry::new(Reign { term: 2, counter: 1 }, 3, Hlc(4));
    entry.drafts.push(EntryDraft { key, parts: vec![part], rows: vec![] });
    entry
}

fn plain() -> SlotPart {
    let change = WireChange { tag: 40, body: Bytes::from_static(b"x") };
    SlotPart { slot: Slot::Id, base: 0, changes: vec![change], checkpoint: None, drop: false }
}

#[test]
fn the_format_is_pinned() {
    let bytes = with(plain()).encode().expect("small");
    let text: String = bytes.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        "3e99fd4e",                         // checksum
        "0001",                             // format
        "0000000000000002",                 // reign: term
        "0000000000000001",                 // and counter
        "0000000000000003",                 // seq
        "0000000000000004",                 // time
        "01",                               // one draft
        "07070707070707070707070707070707", // namespace
        "01",                               // archetype
        "076f726465722d31",                 // id
        "01",                               // one part
        "00000000000000000000000000000000", // slot
        "0000000000000000",                 // base
        "00",                               // flags
        "01",                               // one change
        "03002878",                         // length, tag, body
        "00",                               // rows
        "00",                               // control
    ];
    assert_eq!(text, expected.concat());
}

#[test]
fn what_is_well_summed_but_wrong_is_refused() {
    let good = with(plain()).encode().expect("small").bytes().to_vec();
    let malformed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        ShardEntry::decode(&sealed(bytes)).expect_err("refused")
    };
    assert_eq!(malformed(&|bytes| bytes[5] = 2), EntryError::Format(2));
    assert_eq!(malformed(&|bytes| bytes.push(0)), EntryError::Malformed("bytes after the end"));
    assert_eq!(malformed(&|bytes| bytes[55] = 9), EntryError::Malformed("unknown archetype"));
    assert_eq!(malformed(&|bytes| bytes[57] = 0xff), EntryError::Malformed("bad execution id"));
    assert_eq!(malformed(&|bytes| bytes.truncate(60)), EntryError::Malformed("cut short"));

    let dropped = SlotPart { drop: true, ..plain() };
    let bytes = with(dropped).encode().expect("encodes");
    assert_eq!(
        ShardEntry::decode(&bytes),
        Err(EntryError::Malformed("a dropped slot with changes"))
    );
    let mut twice = with(plain());
    twice.drafts[0].parts.push(plain());
    let bytes = twice.encode().expect("encodes");
    assert_eq!(ShardEntry::decode(&bytes), Err(EntryError::Malformed("a slot twice in one draft")));
    let mut zero = with(plain());
    zero.drafts[0].parts[0].changes[0].tag = 0;
    assert_eq!(zero.encode(), Err(EntryError::Malformed("a change with tag 0")));
    let mut long = with(plain());
    long.drafts[0].key.id = Arc::from("x".repeat(1001));
    assert_eq!(long.encode(), Err(EntryError::Malformed("id too long")));
}

#[test]
fn limits_hold() {
    let of = |size: usize| {
        let change = WireChange { tag: 40, body: Bytes::from(vec![0; size]) };
        with(SlotPart { changes: vec![change], ..plain() })
    };
    let slack = of(0).encoded_len() + 8;
    let largest = of(EntryLimits::MAX_BYTES - slack);
    let bytes = largest.encode().expect("as large as an entry may be");
    assert_eq!(ShardEntry::decode(&bytes), Ok(largest));
    assert!(matches!(of(EntryLimits::MAX_BYTES).encode(), Err(EntryError::TooLarge(_))));
    let huge = EntryBytes::from_wire(vec![0; EntryLimits::MAX_BYTES + 1].into());
    assert!(matches!(ShardEntry::decode(&huge), Err(EntryError::TooLarge(_))));
}
