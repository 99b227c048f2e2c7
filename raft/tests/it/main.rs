//! Agreement as a whole. One binary: each one that uses openraft costs a minute to compile.

mod cluster;
mod common;
mod crash;
mod entry;
mod group;
mod rates;
mod rig;
mod shard;
mod sizes;
mod snapshot;
mod suite;
