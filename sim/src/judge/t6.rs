//! T6 from below: timeouts of activities, workflow tasks and runs do not occur before they are due.
//! (That each occurs once is what the replay shows, H5; from above see [`super::t6_late`].)

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::enums::{RetryState, TimeoutType};
use holdfast_proto::failure::Failure;
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::history::{
    ActivityTaskScheduledEventAttributes, ActivityTaskTimedOutEventAttributes, HistoryEvent,
    WorkflowExecutionStartedEventAttributes, WorkflowTaskTimedOutEventAttributes,
};

use prost_types::Duration;

use super::{Evidence, Findings, RunHistory};
use crate::record::{Kind, Moment, Told};
use crate::work::HEARTBEAT;
use crate::work::wire::{event_time, nanos};

/// An attempt as the record has it, where it was handed out first. (Its STARTED event is written at
/// its end, and may bear a later time.)
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    /// When its poll was sent.
    pub(super) polled: Moment,
    /// When it was due and when it began, by the server's word.
    pub(super) due: u64,
    pub(super) began: u64,
}

/// By run, activity and number.
pub(super) type Key<'a> = (&'a str, &'a str, i32);

/// All attempts that were handed out.
pub(super) fn attempts(evidence: &Evidence) -> BTreeMap<Key<'_>, Attempt> {
    let mut attempts: BTreeMap<Key<'_>, Attempt> = BTreeMap::new();
    for (operation, told) in evidence.acknowledged(Kind::Attempt) {
        let Told::Attempt { run, due, began, .. } = told else { continue };
        let Some((activity, number)) = operation.asked.attempt.as_ref() else { continue };
        let this = Attempt { polled: operation.invoked, due: *due, began: *began };
        let known = attempts.entry((run, activity, *number)).or_insert(this);
        if this.began < known.began {
            *known = this;
        }
    }
    attempts
}

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let attempts = attempts(evidence);
    let kept_alive = kept_alive(evidence);
    for run in evidence.runs.values() {
        for event in &run.events {
            let early = match &event.attributes {
                Some(Event::ActivityTaskTimedOutEventAttributes(a)) => {
                    activity(run, event, a, &attempts)
                }
                Some(Event::WorkflowTaskTimedOutEventAttributes(_))
                    if kept_alive.contains(run.run.as_str()) =>
                {
                    None
                }
                Some(Event::WorkflowTaskTimedOutEventAttributes(a)) => task(run, event, a),
                Some(Event::WorkflowExecutionTimedOutEventAttributes(_)) => whole(run, event),
                _ => None,
            };
            if let Some(Early { what, from, after, by }) = early {
                let text = format!(
                    "run {}: event {}, {what} {} us after event {}, is {} us early",
                    run.run,
                    event.event_id,
                    after / 1000,
                    from,
                    by / 1000
                );
                findings.add(&run.id, text);
            }
        }
    }
}

/// Runs with a heartbeat of a workflow task that was not taken: a task that is kept alive for too
/// long is timed out there and then.
fn kept_alive(evidence: &Evidence) -> BTreeSet<&str> {
    let beats = evidence.operations.iter().filter(|operation| {
        let asked = &operation.asked;
        asked.kind == Kind::CompleteTask && asked.request.contains(HEARTBEAT)
    });
    beats.filter(|beat| beat.told().is_none()).map(|beat| beat.asked.run.as_str()).collect()
}

/// A timeout before its time, in nanoseconds.
struct Early {
    what: &'static str,
    /// The event that its time counts from.
    from: i64,
    after: u64,
    by: u64,
}

/// A timeout that counts from an event, when it is early.
fn early(
    what: &'static str,
    at: &HistoryEvent,
    from: &HistoryEvent,
    timeout: Option<&Duration>,
) -> Option<Early> {
    early_since(what, at, (from.event_id, event_time(from)), timeout)
}

/// As [`early`], of what an event of this id and of a time that is not its own stands for.
fn early_since(
    what: &'static str,
    at: &HistoryEvent,
    (from, since): (i64, u64),
    timeout: Option<&Duration>,
) -> Option<Early> {
    let after = event_time(at).saturating_sub(since);
    let by = nanos(timeout).saturating_sub(after);
    (by > 0).then_some(Early { what, from, after, by })
}

fn kind(failure: Option<&Failure>) -> Option<TimeoutType> {
    match failure?.decode().ok()?.failure_info? {
        FailureInfo::TimeoutFailureInfo(info) => Some(info.timeout_type()),
        _ => None,
    }
}

fn activity(
    run: &RunHistory,
    at: &HistoryEvent,
    a: &ActivityTaskTimedOutEventAttributes,
    attempts: &BTreeMap<Key<'_>, Attempt>,
) -> Option<Early> {
    let scheduled = run.event(a.scheduled_event_id)?;
    let Some(Event::ActivityTaskScheduledEventAttributes(of)) = &scheduled.attributes else {
        return None;
    };
    let of: &ActivityTaskScheduledEventAttributes = of;
    let started = || {
        let event = run.event(a.started_event_id)?;
        let Some(Event::ActivityTaskStartedEventAttributes(it)) = &event.attributes else {
            return None;
        };
        let key = (run.run.as_str(), of.activity_id.as_str(), it.attempt);
        Some((event.event_id, attempts.get(&key)?.began))
    };
    match kind(a.failure.as_ref())? {
        TimeoutType::StartToClose => {
            let timeout = of.start_to_close_timeout.as_ref();
            early_since("a start-to-close timeout", at, started()?, timeout)
        }
        TimeoutType::Heartbeat => {
            let timeout = of.heartbeat_timeout.as_ref();
            early_since("a heartbeat timeout", at, started()?, timeout)
        }
        TimeoutType::ScheduleToStart => {
            let timeout = of.schedule_to_start_timeout.as_ref();
            early("a schedule-to-start timeout", at, scheduled, timeout)
        }
        // An attempt that ended with too little time for another ends the activity at once, and
        // says so by this timeout; only one without an attempt under way is due by the clock.
        TimeoutType::ScheduleToClose if a.retry_state() != RetryState::Timeout => {
            let timeout = of.schedule_to_close_timeout.as_ref();
            early("a schedule-to-close timeout", at, scheduled, timeout)
        }
        TimeoutType::ScheduleToClose | TimeoutType::Unspecified => None,
    }
}

fn task(
    run: &RunHistory,
    at: &HistoryEvent,
    a: &WorkflowTaskTimedOutEventAttributes,
) -> Option<Early> {
    if a.timeout_type() != TimeoutType::StartToClose {
        return None;
    }
    let scheduled = run.event(a.scheduled_event_id)?;
    let Some(Event::WorkflowTaskScheduledEventAttributes(of)) = &scheduled.attributes else {
        return None;
    };
    let started = run.event(a.started_event_id)?;
    early("a workflow task timeout", at, started, of.start_to_close_timeout.as_ref())
}

fn whole(run: &RunHistory, at: &HistoryEvent) -> Option<Early> {
    let first = run.events.first()?;
    let Some(Event::WorkflowExecutionStartedEventAttributes(a)) = &first.attributes else {
        return None;
    };
    let due = run_due(first, a)?;
    let (after, by) =
        (event_time(at).saturating_sub(event_time(first)), due.saturating_sub(event_time(at)));
    (by > 0).then_some(Early { what: "the timeout of the run", from: first.event_id, after, by })
}

/// When a run has to end: its own time counts from the end of its start delay, that of the whole
/// execution is a point in time.
pub(super) fn run_due(
    first: &HistoryEvent,
    a: &WorkflowExecutionStartedEventAttributes,
) -> Option<u64> {
    let timeout = nanos(a.workflow_run_timeout.as_ref());
    let delay = nanos(a.first_workflow_task_backoff.as_ref());
    let own = (timeout > 0).then(|| event_time(first) + delay + timeout);
    let whole = a.workflow_execution_expiration_time.as_ref().and_then(holdfast_proto::nanos);
    own.into_iter().chain(whole.filter(|at| *at > 0)).min()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_workflow_task_times_out_in_time() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task_timed_out(1_000, 1_000);
        quiet(check, &world);
        let mut soon = World::default();
        soon.run("w", "r1").started("s1").task_timed_out(1_000, 999);
        fires(check, &soon, "a workflow task timeout 999000 us after event 3, is 1000 us early");
    }

    #[test]
    fn an_attempt_times_out_in_time() {
        let mut world = World::default();
        world.attempt("w", "r1", "a0.0", 1, 0);
        world.run("w", "r1").started("s1").job_timed_out("a0.0", 500, 500);
        quiet(check, &world);
        let mut soon = World::default();
        soon.attempt("w", "r1", "a0.0", 1, 0);
        soon.run("w", "r1").started("s1").job_timed_out("a0.0", 500, 300);
        fires(check, &soon, "a start-to-close timeout 303000 us after event 3, is 197000 us early");
    }

    #[test]
    fn a_run_times_out_in_time() {
        let mut world = World::default();
        world.run("w", "r1").started_with_timeout("s1", 2_000).timed_out(2_000);
        quiet(check, &world);
        let mut soon = World::default();
        soon.run("w", "r1").started_with_timeout("s1", 2_000).timed_out(1_900);
        fires(check, &soon, "the timeout of the run");
    }
}
