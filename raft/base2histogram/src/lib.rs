//! The histogram that openraft counts batch sizes with, in half a kilobyte each.
//!
//! It stands in for the published crate of the same name (`[patch.crates-io]` in the root
//! `Cargo.toml`) with the part of its interface that openraft uses. The published one computes
//! tables for every precision it knows at first use: about 50 MB and tens of milliseconds in each
//! process, more than all the rest of a start. Nothing reads these histograms here (openraft's
//! feature `runtime-stats` is off), so powers of two are precise enough.

use std::fmt;
use std::marker::PhantomData;

/// A bucket for zero and one for each length of a number in bits.
const BUCKETS: usize = 65;

/// How many values of each size were recorded; `T` marks what they mean and holds nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    marks: PhantomData<T>,
}

/// The value at this share of all recorded ones, by size; the field names the share in percent. It is
/// the smallest one of its bucket: at most the true one, and more than half of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(missing_docs, reason = "the fields are named by their share")]
pub struct PercentileStats {
    /// Values recorded.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl<T> Histogram<T> {
    /// Without a value.
    #[must_use]
    pub const fn new() -> Histogram<T> {
        Histogram { counts: [0; BUCKETS], marks: PhantomData }
    }

    /// Counts `value`.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` as often as `times`.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(times);
        }
    }

    /// Values recorded.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The usual shares.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.below(1),
            p1: self.below(10),
            p5: self.below(50),
            p10: self.below(100),
            p50: self.below(500),
            p90: self.below(900),
            p99: self.below(990),
            p99_9: self.below(999),
        }
    }

    /// The smallest value of the bucket in which `permille` of all values are reached; 0 without a
    /// value.
    fn below(&self, permille: u64) -> u64 {
        let wanted = self.total().saturating_mul(permille).div_ceil(1000);
        let mut seen = 0u64;
        for (bucket, count) in (0u32..).zip(&self.counts) {
            seen = seen.saturating_add(*count);
            if *count > 0 && seen >= wanted {
                return if bucket == 0 { 0 } else { 1 << (bucket - 1) };
            }
        }
        0
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram::new()
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PercentileStats { samples, p50, p99, .. } = self;
        write!(f, "{samples} values, the middle from {p50} on, the 99th from {p99} on")
    }
}

/// Named histograms as text, a line each.
#[derive(Clone, Default, Debug)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// Without a histogram.
    #[must_use]
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// With one more.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the interface that openraft calls")]
    pub fn add<T>(mut self, name: &str, histogram: Histogram<T>) -> AsciiChart {
        self.lines.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_found_within_a_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        for value in 0..1000 {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        let found = [stats.samples, stats.p0_1, stats.p1, stats.p5, stats.p50, stats.p99_9];
        assert_eq!(found, [1000, 0, 8, 32, 256, 512]);
    }

    #[test]
    fn the_largest_value_has_a_bucket() {
        let mut histogram = Histogram::<()>::new();
        histogram.record(u64::MAX);
        assert_eq!(histogram.total(), 1);
        assert_eq!(histogram.percentile_stats().p50, 1 << 63);
    }

    #[test]
    fn a_chart_has_a_line_per_histogram() {
        let mut histogram = Histogram::<()>::new();
        histogram.record(4);
        let chart = AsciiChart::new().add("a", histogram).add("b", Histogram::<()>::new());
        let line = |name, n, at| {
            format!("{name}: {n} values, the middle from {at} on, the 99th from {at} on\n")
        };
        assert_eq!(chart.to_string(), line("a", 1, 4) + &line("b", 0, 0));
    }
}
