//! Retry policies: what is refused, what is filled in, and whether and when to try again
//! (surface 3.2). Pure arithmetic; activities use it today, runs will.

use holdfast_proto::common::RetryPolicy;
use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::enums::{RetryState, TimeoutType};
use holdfast_proto::failure::Failure;

use crate::ids::Hlc;
use crate::reject::Rejection;
use crate::validate::duration;

const SECOND: u64 = 1_000_000_000;
/// The longest interval that is filled in by default, as a multiple of the first.
const MAXIMUM_FACTOR: u64 = 100;
/// How a policy names a timeout that it does not retry.
const TIMEOUT_PREFIX: &str = "TemporalTimeout:";

/// Whether to try again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    /// Again, `interval` nanoseconds from now.
    Again {
        /// Nanoseconds.
        interval: u64,
    },
    /// Not again, and why.
    Stop(RetryState),
}

/// Fills in what a policy leaves open.
pub fn fill(policy: &mut RetryPolicy) {
    if is_unset(policy.initial_interval.as_ref()) {
        policy.initial_interval = Some(holdfast_proto::duration(SECOND));
    }
    if policy.backoff_coefficient == 0.0 {
        policy.backoff_coefficient = 2.0;
    }
    if is_unset(policy.maximum_interval.as_ref()) {
        let initial = duration(policy.initial_interval.as_ref()).unwrap_or(0);
        let maximum = initial.saturating_mul(MAXIMUM_FACTOR);
        policy.maximum_interval = Some(holdfast_proto::duration(maximum));
    }
}

fn is_unset(interval: Option<&prost_types::Duration>) -> bool {
    interval.is_none_or(|d| d.seconds == 0 && d.nanos == 0)
}

/// Refuses a filled policy that makes no sense.
pub fn check(policy: &RetryPolicy) -> Result<(), Rejection> {
    if policy.maximum_attempts == 1 {
        return Ok(()); // there is never an interval
    }
    let initial = duration(policy.initial_interval.as_ref()).map_err(|cause| {
        Rejection::invalid(format!("invalid InitialInterval set on retry policy: {cause}"))
    })?;
    if policy.backoff_coefficient.is_nan() || policy.backoff_coefficient < 1.0 {
        return Err(Rejection::invalid(
            "BackoffCoefficient cannot be less than 1 on retry policy.",
        ));
    }
    let maximum = duration(policy.maximum_interval.as_ref()).map_err(|cause| {
        Rejection::invalid(format!("invalid MaximumInterval set on retry policy: {cause}"))
    })?;
    if maximum < initial {
        let message = "MaximumInterval cannot be less than InitialInterval on retry policy.";
        return Err(Rejection::invalid(message));
    }
    if policy.maximum_attempts < 0 {
        return Err(Rejection::invalid("MaximumAttempts cannot be negative on retry policy."));
    }
    for name in &policy.non_retryable_error_types {
        if let Some(kind) = name.strip_prefix(TIMEOUT_PREFIX)
            && !TIMEOUT_TYPES.iter().any(|t| timeout_name(*t) == kind)
        {
            return Err(Rejection::invalid(format!("Invalid timeout type value: {kind}.")));
        }
    }
    Ok(())
}

const TIMEOUT_TYPES: [TimeoutType; 4] = [
    TimeoutType::StartToClose,
    TimeoutType::ScheduleToStart,
    TimeoutType::ScheduleToClose,
    TimeoutType::Heartbeat,
];

/// Temporal's short name of a kind of timeout.
pub fn timeout_name(kind: TimeoutType) -> &'static str {
    match kind {
        TimeoutType::Unspecified => "Unspecified",
        TimeoutType::StartToClose => "StartToClose",
        TimeoutType::ScheduleToStart => "ScheduleToStart",
        TimeoutType::ScheduleToClose => "ScheduleToClose",
        TimeoutType::Heartbeat => "Heartbeat",
    }
}

/// Nanoseconds to wait after the failure of `attempt` (from 1): first interval times coefficient
/// to the power of the attempts before, at most the maximum interval.
pub fn interval(policy: &RetryPolicy, attempt: u32) -> u64 {
    let initial = duration(policy.initial_interval.as_ref()).unwrap_or(0);
    let maximum = duration(policy.maximum_interval.as_ref()).unwrap_or(0);
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    // A float too large for u64 becomes u64::MAX, and the maximum caps it.
    let grown = (initial as f64 * policy.backoff_coefficient.powi(exponent)) as u64;
    if maximum == 0 { grown } else { grown.min(maximum) }
}

/// Whether to follow `attempt`, which ended with `failure` at `now`, by another one that must
/// start before `expires`. A failure may name its own interval, beyond the policy's maximum.
pub fn verdict(
    policy: &RetryPolicy,
    attempt: u32,
    failure: Option<&Failure>,
    now: Hlc,
    expires: Option<Hlc>,
) -> Verdict {
    let info = failure.and_then(|f| f.decode().ok()).and_then(|f| f.failure_info);
    if !is_retryable(info.as_ref(), &policy.non_retryable_error_types) {
        return Verdict::Stop(RetryState::NonRetryableFailure);
    }
    if policy.maximum_attempts > 0 && attempt >= policy.maximum_attempts as u32 {
        return Verdict::Stop(RetryState::MaximumAttemptsReached);
    }
    let interval = next_retry_delay(info.as_ref()).unwrap_or_else(|| interval(policy, attempt));
    if expires.is_some_and(|expires| Hlc(now.0.saturating_add(interval)) > expires) {
        return Verdict::Stop(RetryState::Timeout);
    }
    Verdict::Again { interval }
}

fn next_retry_delay(info: Option<&FailureInfo>) -> Option<u64> {
    match info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            info.next_retry_delay.as_ref().and_then(|delay| duration(Some(delay)).ok())
        }
        _ => None,
    }
}

fn is_retryable(info: Option<&FailureInfo>, non_retryable: &[String]) -> bool {
    let listed = |name: &str| non_retryable.iter().any(|n| n == name);
    match info {
        Some(FailureInfo::TerminatedFailureInfo(_) | FailureInfo::CanceledFailureInfo(_)) => false,
        Some(FailureInfo::TimeoutFailureInfo(info)) => match info.timeout_type() {
            kind @ (TimeoutType::StartToClose | TimeoutType::Heartbeat) => {
                !listed(&format!("{TIMEOUT_PREFIX}{}", timeout_name(kind)))
            }
            TimeoutType::Unspecified
            | TimeoutType::ScheduleToStart
            | TimeoutType::ScheduleToClose => false,
        },
        Some(FailureInfo::ServerFailureInfo(info)) => !info.non_retryable,
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            !info.non_retryable && !listed(&info.r#type)
        }
        None
        | Some(
            FailureInfo::ResetWorkflowFailureInfo(_)
            | FailureInfo::ActivityFailureInfo(_)
            | FailureInfo::ChildWorkflowExecutionFailureInfo(_)
            | FailureInfo::NexusOperationExecutionFailureInfo(_)
            | FailureInfo::NexusHandlerFailureInfo(_),
        ) => true,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::decoded;
    use holdfast_proto::failure::{ApplicationFailureInfo, CanceledFailureInfo};
    use proptest::prelude::*;

    use super::*;
    use crate::failure;

    fn policy(initial: u64, coefficient: f64, maximum: u64, attempts: i32) -> RetryPolicy {
        RetryPolicy {
            initial_interval: Some(holdfast_proto::duration(initial)),
            backoff_coefficient: coefficient,
            maximum_interval: Some(holdfast_proto::duration(maximum)),
            maximum_attempts: attempts,
            non_retryable_error_types: vec!["Listed".into(), "TemporalTimeout:Heartbeat".into()],
        }
    }

    fn application(kind: &str, non_retryable: bool, delay: Option<u64>) -> Failure {
        let info = ApplicationFailureInfo {
            r#type: kind.to_owned(),
            non_retryable,
            next_retry_delay: delay.map(holdfast_proto::duration),
            ..ApplicationFailureInfo::default()
        };
        Failure::encode_from(&decoded::Failure {
            failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
            ..decoded::Failure::default()
        })
    }

    fn of(attempt: u32, failure: Option<&Failure>, expires: Option<u64>) -> Verdict {
        let policy = policy(SECOND, 2.0, 10 * SECOND, 3);
        verdict(&policy, attempt, failure, Hlc(100 * SECOND), expires.map(|s| Hlc(s * SECOND)))
    }

    #[test]
    fn order_of_the_reasons() {
        use RetryState::{MaximumAttemptsReached, NonRetryableFailure, Timeout};
        let canceled = Failure::encode_from(&decoded::Failure {
            failure_info: Some(FailureInfo::CanceledFailureInfo(CanceledFailureInfo::default())),
            ..decoded::Failure::default()
        });
        let timeout = |kind| failure::timeout(String::new(), kind, None, None);
        assert_eq!(of(1, None, None), Verdict::Again { interval: SECOND });
        assert_eq!(of(2, None, Some(102)), Verdict::Again { interval: 2 * SECOND });
        assert_eq!(of(2, None, Some(101)), Verdict::Stop(Timeout));
        assert_eq!(of(3, None, Some(101)), Verdict::Stop(MaximumAttemptsReached));
        for bad in [
            canceled,
            application("Kind", true, None),
            application("Listed", false, None),
            timeout(TimeoutType::Heartbeat),
            timeout(TimeoutType::ScheduleToStart),
            timeout(TimeoutType::ScheduleToClose),
            failure::server("no", true),
        ] {
            assert_eq!(of(3, Some(&bad), Some(0)), Verdict::Stop(NonRetryableFailure));
        }
        for good in [
            application("Kind", false, None),
            timeout(TimeoutType::StartToClose),
            failure::server("yes", false),
        ] {
            assert_eq!(of(1, Some(&good), None), Verdict::Again { interval: SECOND });
        }
        // Its own delay may exceed the maximum interval.
        let own = application("Kind", false, Some(99 * SECOND));
        assert_eq!(of(1, Some(&own), None), Verdict::Again { interval: 99 * SECOND });
    }

    #[test]
    fn defaults_and_refusals() {
        let mut empty = RetryPolicy::default();
        fill(&mut empty);
        assert_eq!(
            empty,
            RetryPolicy {
                non_retryable_error_types: vec![],
                ..policy(SECOND, 2.0, 100 * SECOND, 0)
            }
        );
        let mut five = RetryPolicy {
            initial_interval: Some(holdfast_proto::duration(5 * SECOND)),
            ..Default::default()
        };
        fill(&mut five);
        assert_eq!(five.maximum_interval, Some(holdfast_proto::duration(500 * SECOND)));

        // Golden start/retry_policy_invalid.
        let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let good = policy(SECOND, 1.0, SECOND, 0);
        let unknown = vec!["TemporalTimeout:Nonsense".to_owned()];
        for (bad, message) in [
            (
                RetryPolicy { initial_interval: negative, ..good.clone() },
                "invalid InitialInterval set on retry policy: negative duration",
            ),
            (
                RetryPolicy { backoff_coefficient: 0.5, ..good.clone() },
                "BackoffCoefficient cannot be less than 1 on retry policy.",
            ),
            (
                RetryPolicy { backoff_coefficient: f64::NAN, ..good.clone() },
                "BackoffCoefficient cannot be less than 1 on retry policy.",
            ),
            (
                RetryPolicy { maximum_interval: negative, ..good.clone() },
                "invalid MaximumInterval set on retry policy: negative duration",
            ),
            (
                policy(10, 1.0, 1, 0),
                "MaximumInterval cannot be less than InitialInterval on retry policy.",
            ),
            (policy(1, 1.0, 1, -1), "MaximumAttempts cannot be negative on retry policy."),
            (
                RetryPolicy { non_retryable_error_types: unknown, ..good.clone() },
                "Invalid timeout type value: Nonsense.",
            ),
        ] {
            assert_eq!(check(&bad), Err(Rejection::invalid(message)));
        }
        assert_eq!(check(&good), Ok(()));
    }

    proptest! {
        #[test]
        fn intervals_grow_up_to_the_maximum(
            initial in 1..1_000 * SECOND, factor in 1.0..10.0f64, extra in 0..10_000 * SECOND, attempt in 1..=u32::MAX,
        ) {
            let maximum = initial + extra;
            let policy = policy(initial, factor, maximum, 0);
            let this = interval(&policy, attempt);
            prop_assert!((initial..=maximum).contains(&this), "{this}");
            prop_assert!(this <= interval(&policy, attempt.saturating_add(1)));
            prop_assert_eq!(interval(&policy, 1), initial);
        }

        #[test]
        fn no_attempt_starts_after_the_deadline_or_beyond_the_count(
            attempt in 1..50u32, attempts in 0..50i32, expires in 0..10_000u64, delay in proptest::option::of(0..20_000u64),
        ) {
            let policy = policy(SECOND, 2.0, 100 * SECOND, attempts);
            let failure = application("Kind", false, delay.map(|s| s * SECOND));
            let (now, end) = (Hlc(5_000 * SECOND), Hlc(expires * SECOND));
            if let Verdict::Again { interval } = verdict(&policy, attempt, Some(&failure), now, Some(end)) {
                prop_assert!(now.0 + interval <= end.0);
                prop_assert!(attempts == 0 || attempt < attempts as u32);
            }
        }
    }
}
