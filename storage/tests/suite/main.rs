//! One suite over every log and store: on RocksDB, on RocksDB with hardly any memory, in memory.
//! Below it what only one of them can show: a folder on disk, and a disk that loses what a crash
//! finds unsynced.

mod bed;
mod damage;
mod differential;
mod folder;
mod golden;
mod log;
mod long;
mod memory;
mod store;

/// Makes each function a test of each kind of storage.
macro_rules! on_every_bed {
    ($($name:ident),+ $(,)?) => {
        mod rocks { $(#[test] fn $name() { super::$name(crate::bed::Bed::rocks()); })+ }
        mod rocks_cold { $(#[test] fn $name() { super::$name(crate::bed::Bed::cold()); })+ }
        mod memory { $(#[test] fn $name() { super::$name(crate::bed::Bed::memory()); })+ }
    };
}
pub(crate) use on_every_bed;
