//! A log and a store in memory that lose on a crash what a disk would lose.
//!
//! For tests and the simulator: no threads, no clock, no randomness. Whoever crashes a node takes
//! what its disk held with `crash`; the old handles are dead from then on, so that a task that
//! outlived its node cannot write to the disk of the next one.

mod log;
mod store;

pub use log::MemoryLog;
pub use store::{Fault, MemoryStore};
