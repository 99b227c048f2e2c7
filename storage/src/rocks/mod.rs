//! The log and the tables on RocksDB, in one data folder.
//!
//! Two instances, because they want opposite things: the log syncs every write and lives in memory
//! and in the write-ahead file; the tables sync nothing until they are flushed as a whole.

mod committer;
mod dir;
mod log;
mod open;
mod options;
mod tables;
mod tail;
mod torn;

pub use committer::OnFatal;
pub use dir::{Abandoned, FORMAT_VERSION, Format, OpenError, abandoned};
pub use log::RocksLog;
pub use open::{Opened, Settings};
pub use options::{LogLimits, TablesLimits};
pub use tables::RocksStore;

fn failed(what: &str, why: &dyn std::fmt::Display) -> crate::StorageError {
    crate::StorageError::Io(format!("{what}: {why}"))
}

/// An error of RocksDB, sorted into what the disk did and what is on it.
fn refused(what: &str, why: &rocksdb::Error) -> crate::StorageError {
    match why.kind() {
        rocksdb::ErrorKind::Corruption => crate::StorageError::Corrupt(format!("{what}: {why}")),
        _ => failed(what, why),
    }
}
