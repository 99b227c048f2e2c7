//! Checkpoints: the folded state of a slot at one change number.
//!
//! (shard, execution, slot) -> (change number, state). The record of a workflow id is the slot
//! `Slot::Id`, with a journal of its own, so it needs no table of its own.

use std::ops::Range;

use bytes::Bytes;
use holdfast_engine::ids::{ChangeSeq, ExecutionKey};

use super::key::{Key, KeyReader, KeyWriter, SlotKey};
use super::{ShardId, Table, value};
use crate::StorageError;

/// The place of one checkpoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CheckpointKey {
    /// The slot.
    pub slot: SlotKey,
}

impl Key for CheckpointKey {
    const TABLE: Table = Table::Checkpoint;

    fn shard(&self) -> ShardId {
        self.slot.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        self.slot.write(out);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        Ok(CheckpointKey { slot: SlotKey::read(shard, input)? })
    }
}

/// A folded state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Checkpoint {
    /// The change number it stands at.
    #[prost(uint64, tag = "1")]
    pub seq: ChangeSeq,
    /// The state, opaque here.
    #[prost(bytes = "bytes", tag = "2")]
    pub state: Bytes,
}

impl Checkpoint {
    /// The stored form.
    pub fn to_value(&self) -> Bytes {
        value::encode(self)
    }

    /// The reverse; the state shares the value's buffer.
    pub fn from_value(value: Bytes) -> Result<Checkpoint, StorageError> {
        value::decode("checkpoint", value)
    }
}

/// The checkpoints of all slots of an execution: its record first, then its runs.
pub fn range(shard: ShardId, execution: &ExecutionKey) -> Range<Bytes> {
    let mut out = KeyWriter::new(Table::Checkpoint, shard);
    out.execution(execution);
    out.range()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    proptest! {
        #[test]
        fn keys(a in testing::slot(), b in testing::slot()) {
            let (a, b) = (CheckpointKey { slot: a }, CheckpointKey { slot: b });
            testing::check(&a, &b);
            let same = a.slot.shard == b.slot.shard && a.slot.execution == b.slot.execution;
            prop_assert_eq!(range(a.slot.shard, &a.slot.execution).contains(&b.encode()), same);
        }

        #[test]
        fn values(seq in any::<u64>(), state in testing::blob()) {
            let checkpoint = Checkpoint { seq, state: Bytes::from(state) };
            let back = Checkpoint::from_value(checkpoint.to_value()).expect("decodes");
            prop_assert_eq!(back, checkpoint);
        }
    }
}
