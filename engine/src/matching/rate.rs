//! How fast the tasks of a queue may be handed out: the arithmetic of one bucket of tokens.
//!
//! `set (by every poll) -> ready_at -> take | (the grant failed) give_back`
//!
//! Nothing is counted and nothing ticks: a bucket is the time from which the next token is there.
//! A task takes a token, which moves that time on by the interval of the rate; a bucket that was
//! not used lags behind the present by [`BURST`] at most. So in any span of time at most
//! `rate * (span + BURST) + 1` tasks go out, and a queue that rested gives a second's worth at once.
//!
//! Rules of Temporal's matching service: the last poll decides, one that says nothing takes the
//! limit away; a rate of zero or less stops the queue; what is no number or too high gives way to
//! the limit of the system. Tasks that do not pass a queue (eager ones, tasks in the answer to a
//! completion) take no token.

use std::time::Duration;

use crate::ids::Hlc;

/// What a bucket that was not used holds: what its rate gives in this time.
pub const BURST: Duration = Duration::from_secs(1);

/// Below this many tasks a second, which is one in thirty years, a rate is a stop.
const LEAST: f64 = 1e-9;

/// A rate of tasks. The greater one is the slower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rate {
    /// One task in so many nanoseconds; 0 is no limit.
    Every(u64),
    /// None at all.
    Never,
}

impl Rate {
    /// As fast as can be.
    pub const UNLIMITED: Rate = Rate::Every(0);

    /// So many tasks a second. Zero, what is next to it and what is below it is [`Rate::Never`];
    /// what is no number, infinity and more than one a nanosecond are no limit.
    pub fn per_second(tasks: f64) -> Rate {
        if tasks.is_nan() {
            return Rate::UNLIMITED;
        }
        if tasks <= LEAST {
            return Rate::Never;
        }
        // At most 1e18, which fits; a cast of floats saturates.
        Rate::Every((1e9 / tasks) as u64)
    }

    /// The slower of two.
    pub fn and(self, other: Rate) -> Rate {
        self.max(other)
    }
}

/// The tokens of one task queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    rate: Rate,
    /// From when on the next token is there. Less than now by as many tokens as there are.
    ready: Hlc,
}

/// No clock gets there.
const NO_TIME: Hlc = Hlc(u64::MAX);

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate) -> Bucket {
        match rate {
            Rate::Never => Bucket { rate, ready: NO_TIME },
            Rate::Every(_) => Bucket { rate, ready: Hlc::ZERO },
        }
    }

    /// The rate that holds.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Another rate from now on. A stop holds at once. Nothing is waited for longer than a bucket
    /// that was just emptied takes at the new rate, and after a stop that is how long it takes.
    pub fn set(&mut self, rate: Rate, now: Hlc) {
        if self.rate != rate {
            self.rate = rate;
            self.ready = self.clipped(now);
        }
    }

    /// When the next token is there: now or before, if there is one. `None`: not at this rate.
    pub fn ready_at(&self, now: Hlc) -> Option<Hlc> {
        match self.rate {
            Rate::Never => None,
            Rate::Every(_) => Some(self.clipped(now)),
        }
    }

    /// Whether a token is there.
    pub fn is_ready(&self, now: Hlc) -> bool {
        self.ready_at(now).is_some_and(|at| at <= now)
    }

    /// Takes the token that is ready; a loan when none is.
    pub fn take(&mut self, now: Hlc) {
        let Rate::Every(interval) = self.rate else { return };
        let oldest = Hlc(now.0.saturating_sub(nanos(BURST)));
        self.ready = Hlc(self.clipped(now).max(oldest).0.saturating_add(interval));
    }

    /// A token was taken for a task that did not go out.
    pub fn give_back(&mut self) {
        let Rate::Every(interval) = self.rate else { return };
        self.ready = Hlc(self.ready.0.saturating_sub(interval));
    }

    /// The next token, no later than any order of calls explains: also when time was set back.
    fn clipped(&self, now: Hlc) -> Hlc {
        match self.rate {
            Rate::Never => NO_TIME,
            Rate::Every(interval) => {
                self.ready.min(now.after(BURST).after(Duration::from_nanos(interval)))
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Hlc {
        Hlc((1_000_000 + ms) * MS)
    }

    /// When the next `count` tasks go out from `from` on, in ms, if they are always there.
    fn drain(bucket: &mut Bucket, from: u64, count: usize) -> Vec<u64> {
        let mut now = from;
        std::iter::from_fn(|| {
            let ready = bucket.ready_at(at(now))?;
            now = now.max((ready.0.div_ceil(MS)).saturating_sub(1_000_000));
            bucket.take(at(now));
            Some(now)
        })
        .take(count)
        .collect()
    }

    #[test]
    fn a_rested_queue_gives_a_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(Rate::per_second(2.0));
        assert_eq!(drain(&mut bucket, 0, 6), [0, 0, 0, 500, 1000, 1500]);
        assert_eq!(drain(&mut bucket, 5000, 4), [5000, 5000, 5000, 5500]);
        let mut slow = Bucket::new(Rate::per_second(0.5));
        assert_eq!(drain(&mut slow, 0, 4), [0, 1000, 3000, 5000]);
        let mut one = Bucket::new(Rate::per_second(1.0));
        assert_eq!(drain(&mut one, 0, 4), [0, 0, 1000, 2000]);
    }

    #[test]
    fn absurd_rates_stop_the_queue_or_leave_it_to_the_limit_of_the_system() {
        for stop in [0.0, -0.0, -1.0, 1e-10, f64::MIN, f64::NEG_INFINITY, f64::MIN_POSITIVE] {
            assert_eq!(Rate::per_second(stop), Rate::Never, "{stop}");
        }
        let system = Rate::per_second(1000.0);
        for high in [f64::NAN, f64::INFINITY, f64::MAX, 1e12, 100_000.0] {
            assert_eq!(Rate::per_second(high).and(system), system, "{high}");
        }
        assert_eq!(Rate::per_second(2.0).and(system), Rate::Every(500 * MS));
        assert_eq!(Rate::per_second(0.0).and(system), Rate::Never);
        assert_eq!(Rate::per_second(2.0).and(Rate::Never), Rate::Never);
        assert!(matches!(Rate::per_second(1.1e-9), Rate::Every(n) if n > 900_000_000_000_000_000));
    }

    #[test]
    fn a_stop_holds_at_once_and_its_end_finds_an_empty_bucket() {
        let mut bucket = Bucket::new(Rate::per_second(5.0));
        bucket.set(Rate::Never, at(0));
        assert_eq!(bucket.ready_at(at(0)), None);
        bucket.give_back();
        bucket.take(at(0));
        assert!(!bucket.is_ready(at(1 << 40)));
        bucket.set(Rate::per_second(2.0), at(3000));
        assert_eq!(drain(&mut bucket, 3000, 3), [4500, 5000, 5500]);
        let mut born = Bucket::new(Rate::Never);
        assert!(!born.is_ready(at(0)));
        born.set(Rate::UNLIMITED, at(0));
        assert_eq!(drain(&mut born, 0, 2), [1000, 1000]);
    }

    #[test]
    fn another_rate_keeps_what_is_there_and_no_long_wait() {
        let mut bucket = Bucket::new(Rate::per_second(1.0));
        assert_eq!(drain(&mut bucket, 0, 3), [0, 0, 1000]);
        bucket.set(Rate::per_second(5.0), at(1000));
        assert_eq!(drain(&mut bucket, 1000, 3), [2000, 2200, 2400]);
        bucket.set(Rate::per_second(1.0), at(2400));
        assert_eq!(drain(&mut bucket, 2400, 3), [2600, 3600, 4600]);
        // One task in eleven days, then a usual rate.
        bucket.set(Rate::per_second(1e-6), at(5600));
        bucket.take(at(5600));
        bucket.set(Rate::per_second(2.0), at(5700));
        assert_eq!(bucket.ready_at(at(5700)), Some(at(7200)));
    }

    #[test]
    fn a_token_that_came_back_is_there() {
        let mut bucket = Bucket::new(Rate::per_second(2.0));
        drain(&mut bucket, 0, 3);
        assert!(!bucket.is_ready(at(0)));
        bucket.give_back();
        assert!(bucket.is_ready(at(0)));
        bucket.take(at(0));
        assert!(!bucket.is_ready(at(499)));
        assert!(bucket.is_ready(at(500)));
    }

    #[test]
    fn time_that_was_set_back_does_not_stop_a_queue() {
        let mut bucket = Bucket::new(Rate::per_second(2.0));
        bucket.take(at(3_600_000));
        assert_eq!(bucket.ready_at(at(0)), Some(at(1500)));
    }

    proptest! {
        /// In no span of time do more tasks go out than its rate and the burst allow, and none
        /// waits while the rate allows it.
        #[test]
        fn the_rate_holds_in_every_span(
            tasks in 1u64..40,
            steps in proptest::collection::vec((0u64..400, any::<bool>()), 1..300),
        ) {
            let rate = tasks as f64 / 2.0;
            let mut bucket = Bucket::new(Rate::per_second(rate));
            let mut now = 0;
            let mut out: Vec<u64> = Vec::new();
            for (pause, fails) in steps {
                now += pause;
                let due = out.last().is_none_or(|last| (now - last) as f64 >= 1000.0 / rate + 1.0);
                prop_assert!(bucket.is_ready(at(now)) || !due, "a token is due at {now}");
                if bucket.is_ready(at(now)) {
                    bucket.take(at(now));
                    if fails { bucket.give_back() } else { out.push(now) }
                }
            }
            for (n, first) in out.iter().enumerate() {
                for (m, last) in out.iter().enumerate().skip(n) {
                    let most = rate * ((last - first) as f64 / 1000.0 + 1.0) + 1.0;
                    prop_assert!((m - n + 1) as f64 <= most + 0.001, "{first}..{last}");
                }
            }
        }
    }
}
