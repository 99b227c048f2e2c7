//! Many measurements of one thing.

use std::time::Duration;

/// Durations, in any order.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Adds one.
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// The value that this share of the sample (0 to 1) does not exceed, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64) * 1e3
    }

    /// Median and 99th percentile, to print.
    pub fn summary(&self) -> String {
        format!("p50 {:.2} ms, p99 {:.2} ms", self.quantile_ms(0.5), self.quantile_ms(0.99))
    }
}

impl Extend<Duration> for Sample {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_members() {
        let mut sample = Sample::default();
        sample.extend((1..=100).rev().map(Duration::from_millis));
        assert_eq!(sample.quantile_ms(0.5), 50.0);
        assert_eq!(sample.quantile_ms(0.99), 99.0);
        assert_eq!(Sample::default().quantile_ms(0.5), 0.0);
    }
}
