//! Agreement: makes a decision durable, ordered and followed up.

mod admission;
mod cache;
mod clocks;
pub mod config;
mod deadlines;
pub mod entry;
pub mod flusher;
pub mod group;
pub mod host;
mod hubs;
pub mod image;
pub mod links;
pub mod lists;
mod load;
pub mod log_adapter;
pub mod machine;
mod meta;
pub mod node;
mod reaper;
mod registry;
pub mod rows;
pub mod rt;
pub mod seal;
pub mod shard;
pub mod types;
mod waits;
mod wire;
