//! T6 from above: once the faults are over, nothing outlives its time by more than a timer may be
//! late (T2), and an attempt that is tried again is due when the policy of its activity says.
//!
//! Activities: start-to-close of an attempt, heartbeats or not; schedule-to-close over all attempts;
//! schedule-to-start of the first. Workflow tasks: start-to-close. Runs: their timeouts, from where
//! they count. (Heartbeat timeouts are not judged from above: when the last heartbeat counted is the
//! server's to know; the attempt's start-to-close timeout bounds them.)

use std::collections::BTreeMap;

use holdfast_proto::common::RetryPolicy;
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::history::{ActivityTaskScheduledEventAttributes, HistoryEvent};

use super::t2::{SETTLING, bound};
use super::t6::{Attempt, Key, attempts, run_due};
use super::{CLOCK_BOUND, Evidence, Findings, RunHistory, Timeline};
use crate::record::{Kind, Operation, Outcome};
use crate::work::wire::{closes, ended_task, event_time, nanos};

struct Judge<'a> {
    evidence: &'a Evidence,
    /// From here on everything is judged; true time since the beginning of the record.
    calm: u64,
    bound: u64,
    attempts: BTreeMap<Key<'a>, Attempt>,
    /// The accepted failure of each attempt.
    failures: BTreeMap<Key<'a>, &'a Operation>,
}

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let Some(calm) = evidence.calm.map(|calm| calm.at.saturating_add(SETTLING)) else { return };
    let judge = Judge {
        evidence,
        calm,
        bound: bound(evidence),
        attempts: attempts(evidence),
        failures: failures(evidence),
    };
    for run in evidence.runs.values() {
        let Some(timeline) = evidence.timelines.get(&run.id) else { continue };
        judge.whole(run, timeline, findings);
        judge.tasks(run, timeline, findings);
        judge.activities(run, timeline, findings);
    }
}

fn failures(evidence: &Evidence) -> BTreeMap<Key<'_>, &Operation> {
    let failed = evidence.operations.iter().filter(|operation| {
        operation.asked.kind == Kind::FailActivity && matches!(operation.outcome, Outcome::Ok(_))
    });
    failed
        .filter_map(|operation| {
            let (activity, number) = operation.asked.attempt.as_ref()?;
            Some(((operation.asked.run.as_str(), activity.as_str(), *number), operation))
        })
        .collect()
}

/// One activity of a run.
struct Activity<'a> {
    /// SCHEDULED, and what it says.
    event: &'a HistoryEvent,
    of: &'a ActivityTaskScheduledEventAttributes,
    /// Whether it was certainly scheduled in the calm.
    calm: bool,
}

impl Judge<'_> {
    /// Whether an event certainly happened in the calm.
    fn is_calm(&self, timeline: &Timeline, run: &RunHistory, at: usize) -> bool {
        timeline.slot(&run.run, at).is_some_and(|slot| slot.low.moment.at >= self.calm)
    }

    fn add(&self, run: &RunHistory, what: &str, late: u64, findings: &mut Findings) {
        let text = format!("run {}: {what}, {} ms later than it may", run.run, late / 1_000_000);
        findings.add(&run.id, text);
    }

    /// How much later than `due` something happened that may not, beyond the bound.
    fn late(&self, at: u64, due: u64) -> Option<u64> {
        at.checked_sub(due.saturating_add(self.bound)).filter(|late| *late > 0)
    }

    fn whole(&self, run: &RunHistory, timeline: &Timeline, findings: &mut Findings) {
        let (Some(first), Some(last)) = (run.events.first(), run.events.last()) else { return };
        let Some(Event::WorkflowExecutionStartedEventAttributes(a)) = &first.attributes else {
            return;
        };
        let Some(due) = run_due(first, a).filter(|_| self.is_calm(timeline, run, 0)) else {
            return;
        };
        if let Some(late) = self.late(event_time(last), due) {
            let what = match closes(last) {
                true => "it closed behind its timeout",
                false => "it goes on behind its timeout",
            };
            self.add(run, what, late, findings);
        }
    }

    fn tasks(&self, run: &RunHistory, timeline: &Timeline, findings: &mut Findings) {
        for ended in &run.events {
            let Some((scheduled, started)) = ended_task(ended) else { continue };
            let (Some(of), Some(from)) = (run.event(scheduled), run.event(started)) else {
                continue;
            };
            let Some(Event::WorkflowTaskScheduledEventAttributes(of)) = &of.attributes else {
                continue;
            };
            let timeout = nanos(of.start_to_close_timeout.as_ref());
            let at = usize::try_from(started - 1).unwrap_or(usize::MAX);
            if timeout > 0
                && self.is_calm(timeline, run, at)
                && let Some(late) = self.late(event_time(ended), event_time(from) + timeout)
            {
                let what = format!("event {} ended its workflow task", ended.event_id);
                self.add(run, &what, late, findings);
            }
        }
    }

    fn activities(&self, run: &RunHistory, timeline: &Timeline, findings: &mut Findings) {
        let mut activities = BTreeMap::new();
        let mut started = BTreeMap::new();
        // What ends while a worker holds the workflow task is written when that ends.
        let mut freed = 0;
        for (at, event) in run.events.iter().enumerate() {
            let (scheduled, start) = match &event.attributes {
                Some(Event::ActivityTaskScheduledEventAttributes(of)) => {
                    let calm = self.is_calm(timeline, run, at);
                    let activity = Activity { event, of, calm };
                    self.attempts_of(run, &activity, findings);
                    activities.insert(event.event_id, activity);
                    continue;
                }
                Some(Event::ActivityTaskStartedEventAttributes(a)) => {
                    started.insert(event.event_id, a.attempt);
                    continue;
                }
                Some(Event::ActivityTaskCompletedEventAttributes(a)) => {
                    (a.scheduled_event_id, a.started_event_id)
                }
                Some(Event::ActivityTaskFailedEventAttributes(a)) => {
                    (a.scheduled_event_id, a.started_event_id)
                }
                Some(Event::ActivityTaskTimedOutEventAttributes(a)) => {
                    (a.scheduled_event_id, a.started_event_id)
                }
                Some(Event::ActivityTaskCanceledEventAttributes(a)) => {
                    (a.scheduled_event_id, a.started_event_id)
                }
                _ => {
                    if ended_task(event).is_some() {
                        freed = event_time(event);
                    }
                    continue;
                }
            };
            let Some(activity) = activities.get(&scheduled) else { continue };
            let number = started.get(&start).copied();
            self.ended(run, activity, number, (event, freed), findings);
        }
    }

    /// The event that ended an activity: not long after the times of the activity and its attempt.
    fn ended(
        &self,
        run: &RunHistory,
        activity: &Activity<'_>,
        number: Option<i32>,
        (event, freed): (&HistoryEvent, u64),
        findings: &mut Findings,
    ) {
        let id = activity.of.activity_id.as_str();
        let within = nanos(activity.of.schedule_to_close_timeout.as_ref());
        let due = (event_time(activity.event) + within).max(freed);
        if within > 0
            && activity.calm
            && let Some(late) = self.late(event_time(event), due)
        {
            let what = format!("activity {id} ended behind its schedule-to-close timeout");
            self.add(run, &what, late, findings);
        }
        let Some(number) = number else { return };
        let Some(attempt) = self.attempts.get(&(run.run.as_str(), id, number)) else { return };
        let within = nanos(activity.of.start_to_close_timeout.as_ref());
        let due = (attempt.began + within).max(freed);
        if within > 0
            && attempt.polled.at >= self.calm
            && let Some(late) = self.late(event_time(event), due)
        {
            let what = format!(
                "attempt {number} of activity {id} ended behind its start-to-close timeout"
            );
            self.add(run, &what, late, findings);
        }
    }

    /// Attempts that were handed out: while there was time, and when the policy wants them.
    fn attempts_of(&self, run: &RunHistory, activity: &Activity<'_>, findings: &mut Findings) {
        let id = activity.of.activity_id.as_str();
        let scheduled = event_time(activity.event);
        for number in 1.. {
            let key = (run.run.as_str(), id, number);
            let Some(attempt) = self.attempts.get(&key) else {
                // One that was handed out to nobody who lived may be missing.
                if number > 1 { break } else { continue }
            };
            if attempt.began < attempt.due {
                let early = (attempt.due - attempt.began) / 1000;
                let text = format!(
                    "run {}: attempt {number} of activity {id} began {early} us before it was due",
                    run.run
                );
                findings.add(&run.id, text);
            }
            let within = match number {
                1 => nanos(activity.of.schedule_to_start_timeout.as_ref()),
                _ => nanos(activity.of.schedule_to_close_timeout.as_ref()),
            };
            if within > 0
                && activity.calm
                && let Some(late) = self.late(attempt.began, scheduled + within)
            {
                let what = format!("attempt {number} of activity {id} began behind its time");
                self.add(run, &what, late, findings);
            }
            self.again(run, activity, (number, attempt), findings);
        }
    }

    /// An attempt behind one whose failure was accepted: due as much later as the policy says.
    fn again(
        &self,
        run: &RunHistory,
        activity: &Activity<'_>,
        (number, attempt): (i32, &Attempt),
        findings: &mut Findings,
    ) {
        let id = activity.of.activity_id.as_str();
        let Some(failed) = self.failures.get(&(run.run.as_str(), id, number - 1)) else { return };
        let Some(policy) = activity.of.retry_policy.as_ref() else { return };
        // What keeps its own time does not say when it failed.
        if failed.invoked.at < self.calm || self.evidence.own_time.contains(&run.run) {
            return;
        }
        let wait = interval(policy, number - 1);
        let due = attempt.due.saturating_sub(self.evidence.calm_epoch());
        let earliest = failed.invoked.at.saturating_add(wait);
        let latest = failed.returned.at.saturating_add(wait);
        let wrong = if due.saturating_add(CLOCK_BOUND) < earliest {
            "sooner"
        } else if due > latest.saturating_add(CLOCK_BOUND) {
            "later"
        } else {
            return;
        };
        let text = format!(
            "run {}: attempt {number} of activity {id} is due at {:.3} s, {wrong} than {} ms after \
             the one before it failed; {}",
            run.run,
            due as f64 / 1e9,
            wait / 1_000_000,
            failed.describe()
        );
        findings.add(&run.id, text);
    }
}

/// How long a policy waits after the failure of an attempt, counted from 1, in nanoseconds.
/// Worked out here and not by the engine: a judge that asked it would share its mistakes.
fn interval(policy: &RetryPolicy, attempt: i32) -> u64 {
    let first = nanos(policy.initial_interval.as_ref()) as f64;
    let most = nanos(policy.maximum_interval.as_ref());
    let grown = (first * policy.backoff_coefficient.powi(attempt - 1)) as u64;
    if most > 0 { grown.min(most) } else { grown }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;
    use crate::record::Told;

    /// A world in which everything is in the calm.
    fn calm() -> World {
        let mut world = World::default();
        world.calm();
        world.pass_ms(20_000);
        world
    }

    #[test]
    fn a_run_that_outlives_its_timeout_is_found() {
        let world = |after: u64| {
            let mut world = calm();
            world.run("w", "r1").started_with_timeout("s1", 2_000).timed_out(after);
            world.start("w", "s1", "r1", true);
            world
        };
        quiet(check, &world(5_000));
        fires(check, &world(5_500), "it closed behind its timeout, 500 ms later");
    }

    #[test]
    fn a_workflow_task_that_outlives_its_timeout_is_found() {
        let world = |after: u64| {
            let mut world = calm();
            world.run("w", "r1").started("s1").task_timed_out(1_000, after);
            world.start("w", "s1", "r1", true);
            world
        };
        quiet(check, &world(4_000));
        fires(check, &world(4_500), "event 4 ended its workflow task, 500 ms later");
    }

    #[test]
    fn an_attempt_that_outlives_its_timeout_is_found() {
        let world = |after: u64| {
            let mut world = calm();
            world.attempt("w", "r1", "a0.0", 1, 0);
            world.run("w", "r1").started("s1").job_timed_out("a0.0", 500, after);
            world.start("w", "s1", "r1", true);
            world
        };
        quiet(check, &world(3_400));
        fires(check, &world(4_000), "attempt 1 of activity a0.0 ended behind its start-to-close");
    }

    #[test]
    fn an_activity_that_outlives_all_its_attempts_is_found() {
        let world = |after: u64| {
            let mut world = calm();
            world.run("w", "r1").started("s1").job_within("a0.0", 1_000, after);
            world.start("w", "s1", "r1", true);
            world
        };
        quiet(check, &world(4_000));
        fires(check, &world(4_500), "activity a0.0 ended behind its schedule-to-close timeout");
    }

    #[test]
    fn a_retry_is_due_when_its_policy_says() {
        let world = |due: u64| {
            let mut world = calm();
            world.run("w", "r1").started("s1").job_retried("a0.0", 1_000, 2.0);
            world.start("w", "s1", "r1", true);
            world.attempt_due("w", "r1", "a0.0", 1, 0);
            world.attempt_due("w", "r1", "a0.0", 2, 1_000);
            world.attempt_failed("w", "r1", "a0.0", 2);
            let failed = world.now() / 1_000_000;
            world.attempt_due("w", "r1", "a0.0", 3, failed + due);
            world
        };
        quiet(check, &world(2_000));
        quiet(check, &world(1_600));
        fires(check, &world(1_400), "sooner than 2000 ms after the one before it failed");
        fires(check, &world(2_700), "later than 2000 ms after the one before it failed");
    }

    #[test]
    fn an_attempt_does_not_begin_before_it_is_due() {
        let mut world = calm();
        world.run("w", "r1").started("s1").job_retried("a0.0", 1_000, 2.0);
        world.attempt_due("w", "r1", "a0.0", 2, 1_000);
        quiet(check, &world);
        for operation in &mut world.evidence.operations {
            if let Outcome::Ok(Told::Attempt { began, .. }) = &mut operation.outcome {
                *began -= 1_000_000;
            }
        }
        fires(check, &world, "attempt 2 of activity a0.0 began 1000 us before it was due");
    }
}
