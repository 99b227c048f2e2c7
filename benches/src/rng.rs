//! Random numbers from a seed (SplitMix64): the same seed, the same numbers, on every machine.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these, if there are any.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Bytes {
        (0..count).map(|_| self.number() as u8).collect::<Vec<_>>().into()
    }

    /// A stream of its own, for another task.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

/// A seed that nobody chose.
pub fn any_seed() -> u64 {
    // The standard library asks the system for the keys of its hashers.
    RandomState::new().hash_one(std::process::id()) >> 32
}
