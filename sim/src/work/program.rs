//! Generated workflows. A program follows from a number that travels in the workflow's input, and
//! so does what each attempt of its activities does: workers need nothing but the history.
//!
//! Every program ends: waits are bounded by timers, and an activity that is tried without end
//! succeeds from its fourth attempt on, or has a schedule-to-close timeout.

use holdfast_proto::common::RetryPolicy;

use super::gifts::failure;
use super::wire::millis;
use crate::rng::Rng;
use holdfast_proto::failure::Failure;

/// The kind of failure that some retry policies name as final.
pub const FATAL: &str = "Fatal";

/// From this attempt on an activity does what it should.
const SETTLES: i32 = 4;

/// How far over its start-to-close timeout an attempt runs that will not see it, in milliseconds:
/// longer than a timeout may be late.
const FAR_OVER_MS: u64 = 5_500;

/// One workflow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// How it ends when nothing else ends it.
    pub ending: Ending,
    /// What it does when it is asked to stop.
    pub on_cancel: OnCancel,
}

/// One step. What is built later joins here and in [`super::machine`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Runs activities side by side, until all have ended.
    Work(Vec<Job>),
    /// Waits for a timer.
    Sleep {
        /// How long.
        millis: u64,
    },
    /// Runs an activity against a timer; the slower one is cancelled.
    Race {
        /// The timer.
        millis: u64,
        /// The activity.
        job: Job,
    },
    /// Waits for a signal, for so long at most.
    Await {
        /// How long.
        millis: u64,
    },
    /// Records a marker.
    Note,
    /// Upserts a search attribute.
    Attribute,
    /// Changes the memo.
    Memo,
}

/// How a program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Completes, with how many activities succeeded.
    Complete,
    /// Fails.
    Fail,
}

/// What a program does when it is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnCancel {
    /// Goes on.
    Ignore,
    /// Cancels what it waits for, waits for that, and is canceled.
    WindDown,
    /// Is canceled at once, whatever is still under way.
    AtOnce,
}

/// One activity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// All else follows from it; travels as the activity's input.
    pub seed: u64,
    /// Attempts at most; 0 for no limit.
    pub maximum_attempts: i32,
    /// Start to close of each attempt.
    pub start_to_close_ms: u64,
    /// Schedule to close; 0 when not set.
    pub schedule_to_close_ms: u64,
    /// Schedule to start; 0 when not set.
    pub schedule_to_start_ms: u64,
    /// Heartbeat timeout; 0 when not set.
    pub heartbeat_ms: u64,
    /// The first wait between attempts.
    pub retry_ms: u64,
    /// Whether the wait doubles.
    pub doubles: bool,
    /// Whether failures of kind [`FATAL`] are final by the policy.
    pub fatal_is_final: bool,
    /// Whether every attempt fails until it settles, or for ever when schedule-to-close is set.
    pub stubborn: bool,
    /// Its priority, 1 to 5; 0 for that of the workflow.
    pub priority: i32,
}

/// What an attempt does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conduct {
    /// How long it takes.
    pub millis: u64,
    /// How often it heartbeats meanwhile; 0 for never.
    pub beat_ms: u64,
    /// How it ends.
    pub end: End,
}

/// How an attempt ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// With a result.
    Succeed,
    /// With a failure: its kind, and whether it says itself that it is final.
    Fail(&'static str, bool),
    /// The worker never answers.
    Vanish,
}

impl Program {
    /// The program of a number.
    pub fn generate(seed: u64) -> Program {
        let mut rng = Rng::stream(seed, "program");
        let count = 1 + rng.below(4);
        let steps = (0..count).map(|_| Step::generate(&mut rng)).collect();
        let ending = if rng.one_in(8) { Ending::Fail } else { Ending::Complete };
        let on_cancel = match rng.below(4) {
            0 => OnCancel::Ignore,
            1 => OnCancel::AtOnce,
            _ => OnCancel::WindDown,
        };
        Program { steps, ending, on_cancel }
    }
}

impl Step {
    fn generate(rng: &mut Rng) -> Step {
        match rng.below(16) {
            0..=5 => {
                let count = 1 + rng.below(3);
                Step::Work((0..count).map(|_| Job::generate(rng.bits())).collect())
            }
            6..=8 => Step::Sleep { millis: rng.within(1..3_000) },
            9..=10 => {
                let millis = rng.within(50..3_000);
                Step::Race { millis, job: Job::generate(rng.bits()) }
            }
            11..=12 => Step::Await { millis: rng.within(200..6_000) },
            13 => Step::Note,
            14 => Step::Attribute,
            _ => Step::Memo,
        }
    }
}

impl Job {
    /// The activity of a number.
    pub fn generate(seed: u64) -> Job {
        let mut rng = Rng::stream(seed, "job");
        let maximum_attempts = match rng.below(4) {
            0 => 1,
            1 => 2 + rng.below(3) as i32,
            _ => 0,
        };
        let now_and_then =
            |rng: &mut Rng, n, range| if rng.one_in(n) { rng.within(range) } else { 0 };
        Job {
            seed,
            maximum_attempts,
            start_to_close_ms: rng.within(500..2_500),
            schedule_to_close_ms: now_and_then(&mut rng, 4, 3_000..20_000),
            schedule_to_start_ms: now_and_then(&mut rng, 6, 1_000..10_000),
            heartbeat_ms: now_and_then(&mut rng, 3, 300..1_200),
            retry_ms: rng.within(20..400),
            doubles: rng.one_in(2),
            fatal_is_final: rng.one_in(2),
            stubborn: false,
            priority: now_and_then(&mut rng, 3, 1..6) as i32,
        }
        .or_stubborn(&mut rng)
    }

    /// Now and then an activity fails with long waits: until it settles, and they double, or for
    /// ever, and nothing but its schedule-to-close timeout ends it.
    fn or_stubborn(self, rng: &mut Rng) -> Job {
        if !rng.one_in(6) {
            return self;
        }
        let forever = rng.one_in(2);
        Job {
            maximum_attempts: 0,
            schedule_to_close_ms: if forever { rng.within(1_600..3_000) } else { 0 },
            schedule_to_start_ms: 0,
            retry_ms: rng.within(700..1_500),
            doubles: !forever,
            stubborn: true,
            ..self
        }
    }

    /// Whether only its schedule-to-close timeout ends it.
    fn is_hopeless(&self) -> bool {
        self.stubborn && self.schedule_to_close_ms > 0
    }

    /// The retry policy of its command.
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            initial_interval: Some(millis(self.retry_ms)),
            backoff_coefficient: if self.doubles { 2.0 } else { 1.0 },
            maximum_interval: Some(millis(self.retry_ms.max(1_000) * 3)),
            maximum_attempts: self.maximum_attempts,
            non_retryable_error_types: self
                .fatal_is_final
                .then(|| FATAL.to_owned())
                .into_iter()
                .collect(),
        }
    }

    /// What an attempt does, counted from 1.
    pub fn conduct(&self, attempt: i32) -> Conduct {
        let mut rng = Rng::stream(self.seed, &format!("attempt {attempt}"));
        let beat_ms = if self.heartbeat_ms == 0 { 0 } else { self.heartbeat_ms / 3 };
        let short = rng.within(1..300);
        if attempt >= SETTLES && !self.is_hopeless() {
            return Conduct { millis: short, beat_ms, end: End::Succeed };
        }
        if self.stubborn {
            return Conduct { millis: short, beat_ms, end: End::Fail("Stubborn", false) };
        }
        match rng.below(20) {
            0 => Conduct { millis: 1, beat_ms: 0, end: End::Vanish },
            // Too slow for its start-to-close timeout, or silent for longer than its heartbeat's.
            1 => Conduct { millis: self.start_to_close_ms + short, beat_ms, end: End::Succeed },
            // Far over it, and alive; not often, as it keeps a worker from everything else.
            9 if beat_ms > 0 && rng.one_in(3) => {
                let millis = self.start_to_close_ms + FAR_OVER_MS;
                Conduct { millis, beat_ms, end: End::Succeed }
            }
            2 => {
                let millis = self.heartbeat_ms.max(100) * 2;
                Conduct { millis, beat_ms: 0, end: End::Succeed }
            }
            3 => Conduct { millis: self.start_to_close_ms * 2 / 3, beat_ms, end: End::Succeed },
            4..=6 => Conduct { millis: short, beat_ms, end: End::Fail("Flaky", false) },
            7 => Conduct { millis: short, beat_ms, end: End::Fail(FATAL, false) },
            8 => Conduct { millis: short, beat_ms, end: End::Fail("Last", rng.one_in(3)) },
            _ => Conduct { millis: short, beat_ms, end: End::Succeed },
        }
    }
}

impl End {
    /// The failure of an attempt that ends with one.
    pub fn failure(&self, request: &str) -> Option<Failure> {
        match self {
            End::Fail(kind, last) => Some(failure(request, kind, *last)),
            End::Succeed | End::Vanish => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_follow_from_their_number() {
        assert_eq!(Program::generate(7), Program::generate(7));
        let drawn: Vec<_> = (0..2_000).map(Program::generate).collect();
        let has = |wanted: fn(&Step) -> bool| drawn.iter().any(|p| p.steps.iter().any(wanted));
        assert!(has(|step| matches!(step, Step::Work(jobs) if jobs.len() == 3)));
        assert!(has(|step| matches!(step, Step::Race { .. })));
        assert!(has(|step| matches!(step, Step::Await { .. })));
        assert!(has(|step| matches!(step, Step::Memo)));
        assert!(drawn.iter().any(|p| p.on_cancel == OnCancel::AtOnce && p.ending == Ending::Fail));
    }

    #[test]
    fn an_activity_without_a_limit_succeeds_in_the_end() {
        for seed in 0..500 {
            let job = Job::generate(seed);
            if job.is_hopeless() {
                continue;
            }
            let last = job.conduct(SETTLES);
            assert_eq!(last.end, End::Succeed);
            assert!(last.millis < job.start_to_close_ms);
            assert!(last.beat_ms == 0 || last.beat_ms < job.heartbeat_ms);
            assert!(job.heartbeat_ms == 0 || last.beat_ms > 0);
        }
    }
}
