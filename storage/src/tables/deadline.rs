//! Deadlines: when each run next needs attention. One row per run, its earliest need.
//!
//! (shard, time, execution, run) -> nothing. Read from a low-water key, never from the start of
//! the table, which is full of the tombstones of what fired before (A16, `meta::LowWaterKey`).

use bytes::Bytes;
use holdfast_engine::ids::{ExecutionKey, Hlc, RunId};

use super::key::{Key, KeyReader, KeyWriter, RunKey};
use super::{ShardId, Table, value};
use crate::StorageError;

/// One deadline.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeadlineKey {
    /// The shard.
    pub shard: ShardId,
    /// When.
    pub at: Hlc,
    /// Of which execution.
    pub execution: ExecutionKey,
    /// Of which run.
    pub run: RunId,
}

impl DeadlineKey {
    /// The run it belongs to.
    pub fn run_key(&self) -> RunKey {
        RunKey { shard: self.shard, execution: self.execution.clone(), run: self.run }
    }

    /// The value of every row.
    pub fn value() -> Bytes {
        Bytes::from_static(&[value::VERSION])
    }
}

impl Key for DeadlineKey {
    const TABLE: Table = Table::Deadline;

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        out.hlc(self.at).execution(&self.execution).uuid(self.run);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        let at = input.hlc()?;
        Ok(DeadlineKey { shard, at, execution: input.execution()?, run: input.uuid()? })
    }
}

/// The first key of a shard that is due after `at`: the exclusive end of a scan for what is due.
pub fn end_of(shard: ShardId, at: Hlc) -> Bytes {
    let mut out = KeyWriter::new(Table::Deadline, shard);
    out.hlc(at);
    out.range().end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn key() -> impl Strategy<Value = DeadlineKey> {
        (testing::run(), testing::hlc()).prop_map(|(run, at)| DeadlineKey {
            shard: run.shard,
            at,
            execution: run.execution,
            run: run.run,
        })
    }

    proptest! {
        #[test]
        fn keys(a in key(), b in key()) {
            testing::check(&a, &b);
            if a.shard == b.shard {
                prop_assert_eq!(b.encode() < end_of(a.shard, a.at), b.at <= a.at);
            }
        }
    }
}
