//! One file per table: its key codec, its value codec, and property tests for both.
//!
//! A key is the table's byte, the shard (u32 BE), then the table's own parts, all of which keep
//! their order as bytes (DESIGN 13). A value is a version byte, then prost or opaque bytes.

pub mod backlog;
pub mod checkpoint;
pub mod counter;
pub mod deadline;
pub mod history;
pub mod journal;
mod key;
pub mod meta;
#[cfg(test)]
mod testing;
mod value;
pub mod visibility;

pub use key::{Key, KeyReader, KeyWriter, RunKey, SlotKey, after, delete, prefix_end, put};

/// A shard's number, 0 .. shards - 1.
pub type ShardId = u32;

/// The first byte of every key. These numbers are on disk: they never change, and the number of
/// a table that is gone is never given to another. 6 is kept for the outbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Table {
    /// Events as they were encoded, in batches.
    History = 1,
    /// Private changes and event ranges since the last checkpoint.
    Journal = 2,
    /// The folded state of a slot; the id record is one of them.
    Checkpoint = 3,
    /// When a run next needs attention.
    Deadline = 4,
    /// Tasks that wait for a poller.
    Backlog = 5,
    /// What lists show of a run.
    Visibility = 7,
    /// The order of lists.
    VisibilityIndex = 8,
    /// Counts that nobody wants to scan for.
    Counter = 9,
    /// What a group knows about itself. Keyed by group, not by shard: see [`meta`].
    Meta = 10,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 9] = [
        Table::History,
        Table::Journal,
        Table::Checkpoint,
        Table::Deadline,
        Table::Backlog,
        Table::Visibility,
        Table::VisibilityIndex,
        Table::Counter,
        Table::Meta,
    ];

    /// All keys of this table in one shard (in one group for [`Table::Meta`]).
    pub fn range(self, shard: ShardId) -> std::ops::Range<bytes::Bytes> {
        KeyWriter::new(self, shard).range()
    }
}
