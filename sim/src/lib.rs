//! The deterministic simulator: whole nodes (the real engine, agreement, matching and handlers) on
//! one thread, with a paused clock and random numbers from one seed, over simulated disks, networks
//! and clocks, under scripted clients and workers. Any failure replays from its seed.
//!
//! Map: `world` holds the nodes and what outlives them, `node` is one life of one, `clock`, `disk`
//! and `net` are the fakes behind `Host`, `faults` breaks things, `scenario` says how much of what,
//! `doors` is the way in from outside, `work` calls and works, `record` remembers what everybody was
//! told, `judge` decides whether it was right, `trace` is what must repeat, `run` is one run and
//! `swarm` many of them, one process each. `coverage` counts what logs have seen, `shrink` makes a
//! failing run small and `explain` tells its story; both learn through `watch`. `retire` ends every run;
//! `mutants` tries whether bugs that are planted are found.
//!
//! Invariants: no threads, no sockets, no real clock and no hash map on the path of a run; nothing in
//! the product knows that it is simulated.

pub mod clock;
pub mod coverage;
pub mod disk;
pub mod doors;
pub mod explain;
pub mod faults;
pub mod judge;
pub mod logs;
pub mod mutants;
pub mod net;
mod node;
pub mod record;
mod retire;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod shrink;
mod sizes;
pub mod swarm;
pub mod trace;
pub mod wall;
mod watch;
pub mod work;
pub mod world;
