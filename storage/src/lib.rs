//! Bytes that survive. Knows keys and tables; neither Raft nor Temporal's rules.

mod error;
pub mod log;
pub mod memory;
pub mod rocks;
pub mod store;
pub mod tables;

pub use error::StorageError;
pub use log::{Done, GroupId, Log, LogEntry, LogState};
pub use store::{Direction, Op, Store, View, Visit};
