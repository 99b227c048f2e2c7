//! The tables: ordered keys and values, written in atomic batches, read through consistent views.
//!
//! Writes are not synced (the log is what makes them durable): after a crash the store stands at
//! an earlier batch boundary, the same for all groups of the node, never between two batches.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::StorageError;

/// One absolute write. Replaying it is harmless.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The whole key, table byte first.
        key: Bytes,
        /// The whole value, version byte first.
        value: Bytes,
    },
    /// Removes a key; nothing happens when it is absent.
    Delete {
        /// The whole key.
        key: Bytes,
    },
}

/// Which way a scan walks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the low end.
    Forward,
    /// From the high end.
    Backward,
}

/// The table store of a node.
pub trait Store: Send + Sync + 'static {
    /// Writes all or nothing, in order. Visible to every later view.
    fn apply(&self, batch: Vec<Op>) -> Result<(), StorageError>;

    /// A consistent cut: what every batch applied so far says, and nothing later.
    fn view(&self) -> Box<dyn View>;

    /// Makes everything applied so far durable. Blocks for the disk.
    fn flush(&self) -> Result<(), StorageError>;

    /// Bytes applied since the last flush began; what the flush watcher looks at.
    fn unflushed_bytes(&self) -> u64;

    /// Reads a key as a crash at this moment would leave it.
    fn get_persisted(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;
}

/// Takes a key and its value, and says whether to go on. It uses neither the view nor the store: a
/// lock of theirs may be held.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// A pinned, consistent read of the store.
pub trait View: Send + Sync {
    /// The value of one key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Calls `visit` for each key in `from .. to` (`to` excluded) until it breaks.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), StorageError>;
}
