//! Meta: what a group knows about itself, and the registry of group 0.
//!
//! Keyed by group instead of shard: (group, kind, the kind's parts). What a snapshot of the group
//! carries comes first, what is this node's own comes behind it: [`replicated`].

use std::ops::Range;

use bytes::Bytes;
use holdfast_engine::ids::Hlc;

use super::key::{Key, KeyReader, KeyWriter};
use super::{Table, value};
use crate::{GroupId, StorageError};

/// The byte behind the group. On disk: never changed, never given again.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Applied = 1,
    Registry = 2,
    LowWater = 3,
    /// This and above: the node's own.
    Synced = 0x80,
}

impl Kind {
    fn expect(self, input: &mut KeyReader<'_>) -> Result<(), StorageError> {
        match input.u8()? {
            byte if byte == self as u8 => Ok(()),
            _ => Err(input.bad("another kind of row")),
        }
    }
}

/// The rows of a group that its snapshot carries.
pub fn replicated(group: GroupId) -> Range<Bytes> {
    let mut end = KeyWriter::new(Table::Meta, group);
    end.u8(Kind::Synced as u8);
    KeyWriter::new(Table::Meta, group).finish()..end.finish()
}

/// The place of a group's [`Applied`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AppliedKey {
    /// The group.
    pub group: GroupId,
}

impl Key for AppliedKey {
    const TABLE: Table = Table::Meta;

    fn shard(&self) -> GroupId {
        self.group
    }

    fn write(&self, out: &mut KeyWriter) {
        out.u8(Kind::Applied as u8);
    }

    fn read(group: GroupId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Kind::Applied.expect(input)?;
        Ok(AppliedKey { group })
    }
}

/// How far a group has applied its log. One value, so that it is always of one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// (term, index) of the last applied entry; `None` before the first.
    pub last: Option<(u64, u64)>,
    /// The membership as of then, opaque.
    pub membership: Bytes,
    /// (term, counter) of the newest reign; (0, 0) before the first.
    pub reign: (u64, u64),
    /// The number that the reign's next entry carries.
    pub next_seq: u64,
    /// The highest time in an applied entry.
    pub hlc: Hlc,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredApplied {
    #[prost(message, optional, tag = "1")]
    last: Option<StoredId>,
    #[prost(bytes = "bytes", tag = "2")]
    membership: Bytes,
    #[prost(uint64, tag = "3")]
    reign_term: u64,
    #[prost(uint64, tag = "4")]
    reign_counter: u64,
    #[prost(uint64, tag = "5")]
    next_seq: u64,
    #[prost(uint64, tag = "6")]
    hlc: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredId {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

impl Applied {
    /// The stored form.
    pub fn to_value(&self) -> Bytes {
        value::encode(&StoredApplied {
            last: self.last.map(|(term, index)| StoredId { term, index }),
            membership: self.membership.clone(),
            reign_term: self.reign.0,
            reign_counter: self.reign.1,
            next_seq: self.next_seq,
            hlc: self.hlc.0,
        })
    }

    /// The reverse.
    pub fn from_value(value: Bytes) -> Result<Applied, StorageError> {
        let stored: StoredApplied = value::decode("meta (applied)", value)?;
        Ok(Applied {
            last: stored.last.map(|id| (id.term, id.index)),
            membership: stored.membership,
            reign: (stored.reign_term, stored.reign_counter),
            next_seq: stored.next_seq,
            hlc: Hlc(stored.hlc),
        })
    }
}

/// The place of a group's [`Synced`] mark.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SyncedKey {
    /// The group.
    pub group: GroupId,
}

impl Key for SyncedKey {
    const TABLE: Table = Table::Meta;

    fn shard(&self) -> GroupId {
        self.group
    }

    fn write(&self, out: &mut KeyWriter) {
        out.u8(Kind::Synced as u8);
    }

    fn read(group: GroupId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Kind::Synced.expect(input)?;
        Ok(SyncedKey { group })
    }
}

/// What the log of a group had synced when the tables were last flushed.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Synced {
    /// The log's own position behind the group's last synced write of any kind: votes and
    /// truncations count too. A log that opens below it has lost that write.
    #[prost(uint64, tag = "1")]
    pub position: u64,
    /// The last entry's term, for people.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// The last entry's index, for people; 0 when there was none.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The log has been found below the mark, and the group was not refilled since.
    #[prost(bool, tag = "4")]
    pub lost: bool,
}

impl Synced {
    /// The stored form.
    pub fn to_value(&self) -> Bytes {
        value::encode(self)
    }

    /// The reverse.
    pub fn from_value(value: Bytes) -> Result<Synced, StorageError> {
        value::decode("meta (synced)", value)
    }
}

/// The place of the low-water key of a queue-like index: everything before it is gone, so a read
/// starts there instead of crossing the tombstones (A16).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LowWaterKey {
    /// The group whose shard the index belongs to.
    pub group: GroupId,
    /// The index.
    pub table: Table,
    /// Which part of it, such as a queue; empty for all.
    pub part: Vec<u8>,
}

impl Key for LowWaterKey {
    const TABLE: Table = Table::Meta;

    fn shard(&self) -> GroupId {
        self.group
    }

    fn write(&self, out: &mut KeyWriter) {
        out.u8(Kind::LowWater as u8).u8(self.table as u8).bytes(&self.part);
    }

    fn read(group: GroupId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Kind::LowWater.expect(input)?;
        let byte = input.u8()?;
        let table = Table::ALL.into_iter().find(|table| *table as u8 == byte);
        let table = table.ok_or_else(|| input.bad("unknown table"))?;
        Ok(LowWaterKey { group, table, part: input.bytes()? })
    }
}

/// The stored form of a low-water key.
pub fn low_water_to_value(key: &[u8]) -> Bytes {
    value::wrap(key)
}

/// The reverse of [`low_water_to_value`].
pub fn low_water_from_value(value: Bytes) -> Result<Bytes, StorageError> {
    value::unwrap("meta (low water)", value)
}

/// The place of a thing of the cluster (a namespace, an endpoint, a token key) in group 0. What
/// kinds there are is the caller's to say; their numbers stay. The value is the caller's too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RegistryKey {
    /// The group, which is 0.
    pub group: GroupId,
    /// What kind of thing.
    pub kind: u8,
    /// Its name among its kind.
    pub key: Vec<u8>,
}

impl RegistryKey {
    /// All things of a kind.
    pub fn range(group: GroupId, kind: u8) -> Range<Bytes> {
        let mut out = KeyWriter::new(Table::Meta, group);
        out.u8(Kind::Registry as u8).u8(kind);
        out.range()
    }
}

impl Key for RegistryKey {
    const TABLE: Table = Table::Meta;

    fn shard(&self) -> GroupId {
        self.group
    }

    fn write(&self, out: &mut KeyWriter) {
        out.u8(Kind::Registry as u8).u8(self.kind).bytes(&self.key);
    }

    fn read(group: GroupId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Kind::Registry.expect(input)?;
        Ok(RegistryKey { group, kind: input.u8()?, key: input.bytes()? })
    }
}

/// The stored form of a thing of the registry.
pub fn registry_to_value(thing: &[u8]) -> Bytes {
    value::wrap(thing)
}

/// The reverse of [`registry_to_value`].
pub fn registry_from_value(value: Bytes) -> Result<Bytes, StorageError> {
    value::unwrap("meta (registry)", value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn low_water() -> impl Strategy<Value = LowWaterKey> {
        let table = prop_oneof![Just(Table::Deadline), Just(Table::Backlog)];
        (testing::shard(), table, testing::blob()).prop_map(|(group, table, part)| LowWaterKey {
            group,
            table,
            part,
        })
    }

    fn registry() -> impl Strategy<Value = RegistryKey> {
        (testing::shard(), 0..3u8, testing::blob()).prop_map(|(group, kind, key)| RegistryKey {
            group,
            kind,
            key,
        })
    }

    proptest! {
        #[test]
        fn keys_of_groups(a in testing::shard(), b in testing::shard()) {
            testing::check(&AppliedKey { group: a }, &AppliedKey { group: b });
            testing::check(&SyncedKey { group: a }, &SyncedKey { group: b });
        }

        #[test]
        fn keys(a in low_water(), b in low_water(), c in registry(), d in registry()) {
            testing::check(&a, &b);
            testing::check(&c, &d);
            let all = RegistryKey::range(c.group, c.kind);
            prop_assert_eq!(all.contains(&d.encode()), (c.group, c.kind) == (d.group, d.kind));
            prop_assert!(LowWaterKey::decode(&c.encode()).is_err());
            let shipped = replicated(a.group);
            prop_assert!(shipped.contains(&a.encode()));
            let (applied, synced) = (AppliedKey { group: a.group }, SyncedKey { group: a.group });
            prop_assert!(shipped.contains(&applied.encode()));
            prop_assert!(!shipped.contains(&synced.encode()));
            prop_assert_eq!(shipped.contains(&c.encode()), c.group == a.group);
        }

        #[test]
        fn values(
            last in proptest::option::of(any::<(u64, u64)>()),
            membership in testing::blob(),
            n in any::<(u64, u64, u64, u64)>(),
        ) {
            let applied = Applied {
                last,
                membership: Bytes::from(membership),
                reign: (n.0, n.1),
                next_seq: n.2,
                hlc: Hlc(n.3),
            };
            prop_assert_eq!(Applied::from_value(applied.to_value()).expect("decodes"), applied);
            let synced = Synced { position: n.0, term: n.1, index: n.2, lost: n.3 > 9 };
            prop_assert_eq!(Synced::from_value(synced.to_value()).expect("decodes"), synced);
        }

        #[test]
        fn opaque_values(bytes in testing::blob()) {
            let low = low_water_from_value(low_water_to_value(&bytes)).expect("decodes");
            prop_assert_eq!(&low, &bytes);
            let thing = registry_from_value(registry_to_value(&bytes)).expect("decodes");
            prop_assert_eq!(&thing, &bytes);
        }
    }
}
