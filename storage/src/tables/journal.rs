//! Journal: what happened to a slot since its checkpoint, as a fold needs it.
//!
//! (shard, execution, slot, base change number) -> items. The item at place `n` (from 0) of a row
//! brings the slot to change number base + 1 + n for a private change; a range of events counts one
//! for each event. Rows at or below a checkpoint go with the entry that writes it (A19).

use std::ops::Range;

use bytes::Bytes;
use holdfast_engine::ids::{ChangeSeq, EventId};

use super::key::{Key, KeyReader, KeyWriter, SlotKey};
use super::{ShardId, Table, value};
use crate::StorageError;

/// The place of one row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct JournalKey {
    /// The slot.
    pub slot: SlotKey,
    /// The change number that the row's items follow.
    pub base: ChangeSeq,
}

impl Key for JournalKey {
    const TABLE: Table = Table::Journal;

    fn shard(&self) -> ShardId {
        self.slot.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        self.slot.write(out);
        out.u64(self.base);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Ok(JournalKey { slot: SlotKey::read(shard, input)?, base: input.seq()? })
    }
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A private change.
    Change {
        /// Which change.
        tag: u32,
        /// Its encoding.
        bytes: Bytes,
    },
    /// Events whose bytes are in history, first to last.
    Events {
        /// The first.
        first: EventId,
        /// The last; not below the first.
        last: EventId,
    },
}

impl Item {
    /// By how much the item raises the change number.
    pub fn changes(&self) -> u64 {
        match self {
            Item::Change { .. } => 1,
            Item::Events { first, last } => u64::try_from(last - first + 1).unwrap_or(0),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredRow {
    #[prost(message, repeated, tag = "1")]
    items: Vec<StoredItem>,
}

/// Tag 0 means events.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredItem {
    #[prost(uint32, tag = "1")]
    tag: u32,
    #[prost(bytes = "bytes", tag = "2")]
    bytes: Bytes,
    #[prost(int64, tag = "3")]
    first: i64,
    #[prost(int64, tag = "4")]
    last: i64,
}

/// The stored form of a row. A private change has a tag above 0.
pub fn to_value(items: &[Item]) -> Bytes {
    let items = items.iter().map(|item| match item {
        Item::Change { tag, bytes } => {
            debug_assert!(*tag > 0, "tag 0 means events");
            StoredItem { tag: *tag, bytes: bytes.clone(), first: 0, last: 0 }
        }
        Item::Events { first, last } => {
            debug_assert!(first <= last, "events {first} to {last}");
            StoredItem { tag: 0, bytes: Bytes::new(), first: *first, last: *last }
        }
    });
    value::encode(&StoredRow { items: items.collect() })
}

/// The reverse of [`to_value`].
pub fn from_value(value: Bytes) -> Result<Vec<Item>, StorageError> {
    let row: StoredRow = value::decode("journal", value)?;
    let item = |item: StoredItem| match item {
        StoredItem { tag: 0, first, last, .. } if first < 1 || last < first => {
            Err(StorageError::Corrupt(format!("value of journal: events {first} to {last}")))
        }
        StoredItem { tag: 0, first, last, .. } => Ok(Item::Events { first, last }),
        StoredItem { tag, bytes, .. } => Ok(Item::Change { tag, bytes }),
    };
    row.items.into_iter().map(item).collect()
}

/// The rows of a slot that follow change number `base` or a later one.
pub fn range_from(slot: &SlotKey, base: ChangeSeq) -> Range<Bytes> {
    let start = JournalKey { slot: slot.clone(), base }.encode();
    start..range(slot).end
}

/// All rows of a slot.
pub fn range(slot: &SlotKey) -> Range<Bytes> {
    let mut out = KeyWriter::new(Table::Journal, slot.shard);
    slot.write(&mut out);
    out.range()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn key() -> impl Strategy<Value = JournalKey> {
        (testing::slot(), testing::number()).prop_map(|(slot, base)| JournalKey { slot, base })
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            (1..u32::MAX, testing::blob())
                .prop_map(|(tag, bytes)| Item::Change { tag, bytes: Bytes::from(bytes) }),
            (1..9i64, 0..9i64).prop_map(|(first, more)| Item::Events { first, last: first + more }),
        ]
    }

    proptest! {
        #[test]
        fn keys(a in key(), b in key()) {
            testing::check(&a, &b);
            let all = range(&a.slot);
            prop_assert_eq!(all.contains(&b.encode()), a.slot == b.slot);
            let rest = range_from(&a.slot, a.base);
            prop_assert_eq!(rest.contains(&b.encode()), a.slot == b.slot && b.base >= a.base);
        }

        #[test]
        fn values(items in proptest::collection::vec(item(), 0..5)) {
            prop_assert_eq!(from_value(to_value(&items)).expect("decodes"), items);
        }
    }

    #[test]
    fn ranges_count_their_events() {
        assert_eq!(Item::Events { first: 3, last: 7 }.changes(), 5);
        assert_eq!(Item::Change { tag: 1, bytes: Bytes::new() }.changes(), 1);
    }
}
