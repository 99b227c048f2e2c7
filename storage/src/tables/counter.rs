//! Counters: numbers that are written with what they count, so that nothing is scanned for them.
//!
//! (shard, namespace, kind, name, sub) -> a signed number, absolute (A16).

use std::ops::Range;

use bytes::Bytes;
use holdfast_engine::ids::NamespaceId;

use super::key::{Key, KeyReader, KeyWriter};
use super::{ShardId, Table, value};
use crate::StorageError;

/// The place of one counter. What kinds there are is the caller's to say; their numbers stay.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CounterKey {
    /// The shard.
    pub shard: ShardId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// What is counted.
    pub kind: u8,
    /// Of which thing, such as a queue.
    pub name: String,
    /// Of which part of it, such as a priority.
    pub sub: Vec<u8>,
}

impl CounterKey {
    /// All counters of one kind and name.
    pub fn range(shard: ShardId, namespace: NamespaceId, kind: u8, name: &str) -> Range<Bytes> {
        let mut out = KeyWriter::new(Table::Counter, shard);
        out.uuid(namespace).u8(kind).string(name);
        out.range()
    }
}

impl Key for CounterKey {
    const TABLE: Table = Table::Counter;

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        out.uuid(self.namespace).u8(self.kind).string(&self.name).bytes(&self.sub);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Ok(CounterKey {
            shard,
            namespace: input.uuid()?,
            kind: input.u8()?,
            name: input.string()?,
            sub: input.bytes()?,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredCounter {
    #[prost(sint64, tag = "1")]
    count: i64,
}

/// The stored form of a count.
pub fn to_value(count: i64) -> Bytes {
    value::encode(&StoredCounter { count })
}

/// The reverse of [`to_value`].
pub fn from_value(value: Bytes) -> Result<i64, StorageError> {
    Ok(value::decode::<StoredCounter>("counter", value)?.count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn key() -> impl Strategy<Value = CounterKey> {
        (testing::shard(), testing::uuid(), 0..3u8, testing::text(), testing::blob()).prop_map(
            |(shard, namespace, kind, name, sub)| CounterKey { shard, namespace, kind, name, sub },
        )
    }

    proptest! {
        #[test]
        fn keys(a in key(), b in key()) {
            testing::check(&a, &b);
            let range = CounterKey::range(a.shard, a.namespace, a.kind, &a.name);
            let same = (a.shard, a.namespace, a.kind, &a.name) == (b.shard, b.namespace, b.kind, &b.name);
            prop_assert_eq!(range.contains(&b.encode()), same);
        }

        #[test]
        fn values(count in any::<i64>()) {
            prop_assert_eq!(from_value(to_value(count)).expect("decodes"), count);
        }
    }
}
