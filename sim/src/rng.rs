//! Random numbers that follow from the seed of a run. Each part of the world draws from a stream of
//! its own, so that one more draw in one part moves nothing in another.

use std::ops::Range;
use std::time::Duration;

use holdfast_raft::host::SplitMix;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(SplitMix);

impl Rng {
    /// The stream called `name` of a run.
    pub fn stream(seed: u64, name: &str) -> Rng {
        Rng(SplitMix(xxh3_64_with_seed(name.as_bytes(), seed)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next()
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(n);
        (wide >> 64) as u64
    }

    /// A number of a range; its start when it is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// True `ppm` times out of a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of several; `None` when there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }

    /// An index, drawn by weight; `None` when all weights are 0.
    pub fn weighted(&mut self, weights: &[u32]) -> Option<usize> {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut at = self.below(total);
        weights.iter().position(|weight| {
            let weight = u64::from(*weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }

    /// A duration between two numbers of milliseconds, to the microsecond.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.within(range.start * 1000..range.end * 1000))
    }

    /// Mixes a list.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_follow_from_seed_and_name() {
        let draw = |seed, name| Rng::stream(seed, name).bits();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut rng = Rng::stream(7, "bounds");
        let mut seen = [0; 3];
        for _ in 0..1000 {
            assert!((3..9).contains(&rng.within(3..9)));
            if let Some(at) = rng.weighted(&[1, 0, 3]) {
                seen[at] += 1;
            }
        }
        assert!(seen[0] > 150 && seen[1] == 0 && seen[2] > 600, "{seen:?}");
        assert_eq!(rng.weighted(&[0, 0]), None);
        assert_eq!((rng.below(0), rng.within(5..5)), (0, 5));
        assert!(!rng.chance(0) && rng.chance(1_000_000));
    }

    #[test]
    fn a_mixed_list_has_what_it_had() {
        let mut list: Vec<u64> = (0..20).collect();
        Rng::stream(7, "mix").shuffle(&mut list);
        assert_ne!(list, (0..20).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..20).collect::<Vec<_>>());
    }
}
