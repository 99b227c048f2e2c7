//! What a decision may know beside the state: the time, random ids, the namespace, the limits.

use std::cell::Cell;

use crate::ids::{Hlc, NamespaceId, Uuid};
use crate::limits::Limits;
use crate::namespace::NamespaceView;

/// The surroundings of one decision. Stamped by the shard once per input.
pub struct Env<'a> {
    /// The time of this decision, above every earlier one of the id.
    pub now: Hlc,
    /// How far the run that the input names is ahead of the leader's clock, in nanoseconds, as
    /// [`crate::workflow::own_time::of`] gives both.
    pub ahead: u64,
    /// Fresh ids, seeded for this input.
    pub ids: IdSource,
    /// The namespace of the execution, as this node last saw it.
    pub namespace: &'a NamespaceView,
    /// Temporal's limits, as configured.
    pub limits: &'a Limits,
    /// How many events this decision has stamped; the id's next `now` lies above `now + stamped`.
    pub stamped: Cell<u64>,
}

impl Env<'_> {
    /// The leader's clock, for what is remembered across runs.
    pub fn clock(&self) -> Hlc {
        Hlc(self.now.0.saturating_sub(self.ahead))
    }

    /// The id of the namespace.
    pub fn namespace_id(&self) -> NamespaceId {
        self.namespace.id
    }

    /// A number above every one given before in this run; the `task_id` of an event.
    pub fn next_task_id(&self) -> i64 {
        let n = self.stamped.get();
        self.stamped.set(n + 1);
        i64::try_from(self.now.0.saturating_add(n)).unwrap_or(i64::MAX)
    }
}

/// A stream of random 128-bit numbers from a seed: SplitMix64, two steps each. Not secret.
pub struct IdSource(Cell<u64>);

impl IdSource {
    /// The stream of a seed.
    pub fn new(seed: u64) -> IdSource {
        IdSource(Cell::new(seed))
    }

    fn step(&self) -> u64 {
        let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A fresh UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::v4((u128::from(self.step()) << 64) | u128::from(self.step()))
    }
}
