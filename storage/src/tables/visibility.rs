//! Visibility: what lists show, and the orders they walk in.
//!
//! Records: (shard, namespace, archetype, run) -> record. Index: (shard, namespace, index, value,
//! sort, archetype, run) -> record or nothing. There is one sort for all lists (A21): open first,
//! then the last closed, then the last started, then the run id.

use std::cmp::Reverse;
use std::ops::Range;

use bytes::Bytes;
use holdfast_engine::ids::{Archetype, Hlc, NamespaceId, RunId};

use super::key::{Key, KeyReader, KeyWriter};
use super::{ShardId, Table, value};
use crate::StorageError;

/// The index that holds every record, under an empty value. Others are named by whoever writes
/// them, attributes by ids that are never used again.
pub const ALL: u16 = 0;

/// The place of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordKey {
    /// The shard.
    pub shard: ShardId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The kind of execution.
    pub archetype: Archetype,
    /// The run.
    pub run: RunId,
}

impl Key for RecordKey {
    const TABLE: Table = Table::Visibility;

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        out.uuid(self.namespace).u8(self.archetype as u8).uuid(self.run);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        let namespace = input.uuid()?;
        Ok(RecordKey { shard, namespace, archetype: input.archetype()?, run: input.uuid()? })
    }
}

/// The place of a run in every list. Lesser comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sort {
    /// When the run closed; `None` while it is open.
    pub closed: Option<Hlc>,
    /// When it started.
    pub started: Hlc,
    /// The run.
    pub run: RunId,
}

impl Sort {
    fn order(&self) -> (Option<Reverse<Hlc>>, Reverse<Hlc>, RunId) {
        (self.closed.map(Reverse), Reverse(self.started), self.run)
    }

    fn write(&self, out: &mut KeyWriter) {
        out.u8(u8::from(self.closed.is_some()));
        out.descending(self.closed.unwrap_or(Hlc::ZERO).0).descending(self.started.0);
        out.uuid(self.run);
    }

    fn read(input: &mut KeyReader<'_>) -> Result<Sort, StorageError> {
        let (open, closed) = (input.u8()?, Hlc(input.descending()?));
        let closed = match open {
            0 if closed == Hlc::ZERO => None,
            1 => Some(closed),
            _ => return Err(input.bad("neither open nor closed")),
        };
        Ok(Sort { closed, started: Hlc(input.descending()?), run: input.uuid()? })
    }
}

impl PartialOrd for Sort {
    fn partial_cmp(&self, other: &Sort) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sort {
    fn cmp(&self, other: &Sort) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// The place of a run in one index.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IndexKey {
    /// The shard.
    pub shard: ShardId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// Which index.
    pub index: u16,
    /// The indexed value, encoded so that it sorts; empty in [`ALL`].
    pub value: Vec<u8>,
    /// The place among equal values.
    pub sort: Sort,
    /// The kind of execution, with which the record is found.
    pub archetype: Archetype,
}

impl IndexKey {
    /// The place of the record.
    pub fn record(&self) -> RecordKey {
        let IndexKey { shard, namespace, archetype, .. } = *self;
        RecordKey { shard, namespace, archetype, run: self.sort.run }
    }

    /// All rows of one value in an index.
    pub fn range(shard: ShardId, namespace: NamespaceId, index: u16, value: &[u8]) -> Range<Bytes> {
        let mut out = KeyWriter::new(Table::VisibilityIndex, shard);
        out.uuid(namespace).u16(index).bytes(value);
        out.range()
    }

    /// The rows of one value behind a place in the list: the next page.
    pub fn range_after(
        shard: ShardId,
        namespace: NamespaceId,
        index: u16,
        value: &[u8],
        place: &Sort,
    ) -> Range<Bytes> {
        let mut out = KeyWriter::new(Table::VisibilityIndex, shard);
        out.uuid(namespace).u16(index).bytes(value);
        place.write(&mut out);
        out.range().end..IndexKey::range(shard, namespace, index, value).end
    }
}

impl Key for IndexKey {
    const TABLE: Table = Table::VisibilityIndex;

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        out.uuid(self.namespace).u16(self.index).bytes(&self.value);
        self.sort.write(out);
        out.u8(self.archetype as u8);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Ok(IndexKey {
            shard,
            namespace: input.uuid()?,
            index: input.u16()?,
            value: input.bytes()?,
            sort: Sort::read(input)?,
            archetype: input.archetype()?,
        })
    }
}

/// The stored form of a record, or of nothing.
pub fn to_value(record: &[u8]) -> Bytes {
    value::wrap(record)
}

/// The reverse of [`to_value`].
pub fn from_value(value: Bytes) -> Result<Bytes, StorageError> {
    value::unwrap("visibility", value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn record() -> impl Strategy<Value = RecordKey> {
        (testing::shard(), testing::uuid(), testing::uuid()).prop_map(|(shard, namespace, run)| {
            RecordKey { shard, namespace, archetype: Archetype::Workflow, run }
        })
    }

    fn index() -> impl Strategy<Value = IndexKey> {
        let closed = proptest::option::of(testing::hlc());
        let sort = (closed, testing::hlc(), testing::uuid())
            .prop_map(|(closed, started, run)| Sort { closed, started, run });
        (testing::shard(), testing::uuid(), 0..2u16, testing::blob(), sort).prop_map(
            |(shard, namespace, index, value, sort)| IndexKey {
                shard,
                namespace,
                index,
                value,
                sort,
                archetype: Archetype::Workflow,
            },
        )
    }

    proptest! {
        #[test]
        fn records(a in record(), b in record()) {
            testing::check(&a, &b);
        }

        #[test]
        fn places(a in index(), b in index()) {
            testing::check(&a, &b);
            let list = |k: &IndexKey| (k.shard, k.namespace, k.index, k.value.clone());
            let same = list(&a) == list(&b);
            let range = IndexKey::range(a.shard, a.namespace, a.index, &a.value);
            prop_assert_eq!(range.contains(&b.encode()), same);
            let next = IndexKey::range_after(a.shard, a.namespace, a.index, &a.value, &a.sort);
            prop_assert_eq!(next.contains(&b.encode()), same && b.sort > a.sort);
        }

        #[test]
        fn values(record in testing::blob()) {
            prop_assert_eq!(from_value(to_value(&record)).expect("decodes"), record);
        }
    }

    #[test]
    fn lists_show_the_open_then_the_newest() {
        let at = |closed: Option<u64>, started| Sort {
            closed: closed.map(Hlc),
            started: Hlc(started),
            run: RunId::default(),
        };
        let order = [at(None, 9), at(None, 1), at(Some(8), 3), at(Some(8), 2), at(Some(7), 6)];
        assert!(order.is_sorted(), "{order:?}");
    }
}
