//! The log: entries, votes and marks of every Raft group of a node.
//!
//! One sync serves all groups. What each call promises is openraft's contract
//! (`RaftLogStorage`), with one queue per node: writes of one node reach the disk in call order,
//! so a durable entry never exists without the vote that allowed it.

use bytes::Bytes;

use crate::StorageError;

/// A Raft group of this node. 0 is the meta group, shard `n` is group `n + 1`.
pub type GroupId = u32;

/// One log entry; the payload is opaque here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// Its place, from 0 or 1 upward without a hole.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// The encoded entry.
    pub payload: Bytes,
}

/// Called once when the write it came with is durable, or has failed for good. May run on the
/// committer's thread; must not block.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Everything a group needs at start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogState {
    /// The last saved vote, opaque.
    pub vote: Option<Bytes>,
    /// The last saved committed mark, opaque; may be stale.
    pub committed: Option<Bytes>,
    /// (term, index) of the last purged entry.
    pub purged: Option<(u64, u64)>,
    /// (term, index) of the last entry present; `None` when there is none.
    pub last: Option<(u64, u64)>,
}

/// The log of a node. Synchronous calls; only durability completes later.
pub trait Log: Send + Sync + 'static {
    /// Appends entries that directly follow what is there. Readable on return; `done` runs after
    /// they are synced. Completing the last append of a group implies the earlier ones.
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done);

    /// Saves the vote; `done` runs after it is synced.
    fn save_vote(&self, group: GroupId, vote: Bytes, done: Done);

    /// Saves the committed mark with the next sync, whenever that is.
    fn save_committed(&self, group: GroupId, committed: Bytes);

    /// Removes every entry above `index` (all when `None`). Ordered before later appends, made
    /// durable with the next sync.
    fn truncate_after(&self, group: GroupId, index: Option<u64>);

    /// Removes every entry up to and including `upto` (term, index) and remembers it as purged.
    /// Made durable with the next sync.
    fn purge(&self, group: GroupId, upto: (u64, u64));

    /// Entries with `from <= index < to`, in order, as many as fit `max_bytes` of payload but at
    /// least one if any is present. Damage gives `Corrupt`.
    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError>;

    /// What a group starts from.
    fn state(&self, group: GroupId) -> Result<LogState, StorageError>;

    /// (term, index) of the last entry of the group known to be synced.
    fn synced(&self, group: GroupId) -> Option<(u64, u64)>;

    /// How many syncs this log has made since it was opened; for measurements.
    fn syncs(&self) -> u64;
}

/// Refuses entries that leave a hole behind `last`, or among themselves. A log without entries
/// and marks takes any first index.
pub(crate) fn follow(last: Option<u64>, entries: &[LogEntry]) -> Result<(), StorageError> {
    let mut next = last.map(|index| index + 1);
    for entry in entries {
        if next.is_some_and(|next| next != entry.index) {
            return Err(StorageError::Corrupt(format!(
                "append at index {} where {} follows",
                entry.index,
                next.unwrap_or_default()
            )));
        }
        next = Some(entry.index + 1);
    }
    Ok(())
}
