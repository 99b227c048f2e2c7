//! T6: timeouts of activities, workflow tasks and runs occur when they are due, not before. (That
//! each occurs once is what the replay shows, H5.)

use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::enums::{RetryState, TimeoutType};
use holdfast_proto::failure::Failure;
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::history::{
    ActivityTaskScheduledEventAttributes, ActivityTaskTimedOutEventAttributes, HistoryEvent,
    WorkflowTaskTimedOutEventAttributes,
};

use super::{Evidence, Findings, RunHistory};
use crate::work::wire::{event_time, nanos};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        for event in &run.events {
            let early = match &event.attributes {
                Some(Event::ActivityTaskTimedOutEventAttributes(a)) => activity(run, event, a),
                Some(Event::WorkflowTaskTimedOutEventAttributes(a)) => task(run, event, a),
                Some(Event::WorkflowExecutionTimedOutEventAttributes(_)) => whole(run, event),
                _ => None,
            };
            if let Some((what, by)) = early {
                let by = by / 1000;
                let text =
                    format!("run {}: event {}, {what}, is {by} us early", run.run, event.event_id);
                findings.add(&run.id, text);
            }
        }
    }
}

/// What is early, and by how much, when it is.
type Early = Option<(&'static str, u64)>;

fn early(what: &'static str, at: &HistoryEvent, due: u64) -> Early {
    let early = due.saturating_sub(event_time(at));
    (early > 0).then_some((what, early))
}

fn event(run: &RunHistory, id: i64) -> Option<&HistoryEvent> {
    run.events.get(usize::try_from(id - 1).ok()?)
}

fn kind(failure: Option<&Failure>) -> Option<TimeoutType> {
    match failure?.decode().ok()?.failure_info? {
        FailureInfo::TimeoutFailureInfo(info) => Some(info.timeout_type()),
        _ => None,
    }
}

fn activity(run: &RunHistory, at: &HistoryEvent, a: &ActivityTaskTimedOutEventAttributes) -> Early {
    let scheduled = event(run, a.scheduled_event_id)?;
    let Some(Event::ActivityTaskScheduledEventAttributes(of)) = &scheduled.attributes else {
        return None;
    };
    let of: &ActivityTaskScheduledEventAttributes = of;
    let started = event(run, a.started_event_id).map_or(0, event_time);
    match kind(a.failure.as_ref())? {
        TimeoutType::StartToClose => {
            let due = started + nanos(of.start_to_close_timeout.as_ref());
            early("a start-to-close timeout", at, due)
        }
        TimeoutType::Heartbeat => {
            let due = started + nanos(of.heartbeat_timeout.as_ref());
            early("a heartbeat timeout", at, due)
        }
        TimeoutType::ScheduleToStart => {
            let due = event_time(scheduled) + nanos(of.schedule_to_start_timeout.as_ref());
            early("a schedule-to-start timeout", at, due)
        }
        // An attempt that ended with too little time for another ends the activity at once, and
        // says so by this timeout; only one without an attempt under way is due by the clock.
        TimeoutType::ScheduleToClose if a.retry_state() != RetryState::Timeout => {
            let due = event_time(scheduled) + nanos(of.schedule_to_close_timeout.as_ref());
            early("a schedule-to-close timeout", at, due)
        }
        TimeoutType::ScheduleToClose | TimeoutType::Unspecified => None,
    }
}

fn task(run: &RunHistory, at: &HistoryEvent, a: &WorkflowTaskTimedOutEventAttributes) -> Early {
    if a.timeout_type() != TimeoutType::StartToClose {
        return None;
    }
    let scheduled = event(run, a.scheduled_event_id)?;
    let Some(Event::WorkflowTaskScheduledEventAttributes(of)) = &scheduled.attributes else {
        return None;
    };
    let started = event(run, a.started_event_id)?;
    let due = event_time(started) + nanos(of.start_to_close_timeout.as_ref());
    early("a workflow task timeout", at, due)
}

fn whole(run: &RunHistory, at: &HistoryEvent) -> Early {
    let first = run.events.first()?;
    let Some(Event::WorkflowExecutionStartedEventAttributes(a)) = &first.attributes else {
        return None;
    };
    let timeouts = [a.workflow_run_timeout.as_ref(), a.workflow_execution_timeout.as_ref()];
    let shortest = timeouts.into_iter().map(nanos).filter(|timeout| *timeout != 0).min()?;
    early("the timeout of the run", at, event_time(first).saturating_add(shortest))
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
        fires(check, &soon, "a workflow task timeout, is 1000 us early");
    }

    #[test]
    fn an_attempt_times_out_in_time() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").job_timed_out("a0.0", 500, 500);
        quiet(check, &world);
        let mut soon = World::default();
        soon.run("w", "r1").started("s1").job_timed_out("a0.0", 500, 400);
        fires(check, &soon, "a start-to-close timeout, is 100000 us early");
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
