//! Commands of the workflow: schedule an activity, ask for its cancellation, start it eagerly.

use holdfast_proto::command::{
    RequestCancelActivityTaskCommandAttributes, ScheduleActivityTaskCommandAttributes,
};
use holdfast_proto::common::{Payload, Payloads};
use holdfast_proto::decoded;
use holdfast_proto::enums::{TaskQueueKind, WorkflowTaskFailedCause as Cause};
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    ActivityTaskCancelRequestedEventAttributes, ActivityTaskCanceledEventAttributes,
    ActivityTaskScheduledEventAttributes,
};
use holdfast_proto::taskqueue::TaskQueue;
use prost::Message;

use super::attempt::{issue, start_durably};
use super::closes;
use crate::change::Change;
use crate::env::Env;
use crate::event::{command_event, new_event};
use crate::ids::EventId;
use crate::input::{ActivityGrant, Poller, Refusal};
use crate::limits::Limits;
use crate::live::Live;
use crate::reject::Rejection;
use crate::retry;
use crate::validate::{self, capped, duration};
use crate::workflow::CommandContext;

/// The details of an activity that was cancelled before any worker had it.
const NOT_STARTED: &str = "\"ACTIVITY_ID_NOT_STARTED\"";

/// The four timeouts, normalised (surface 3.1). Nanoseconds, 0 for "none".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Timeouts {
    schedule_to_close: u64,
    schedule_to_start: u64,
    start_to_close: u64,
    heartbeat: u64,
}

/// ScheduleActivityTask.
pub fn schedule(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &ScheduleActivityTaskCommandAttributes,
) -> Result<(), Refusal> {
    const BAD: Cause = Cause::BadScheduleActivityAttributes;
    let event = checked(run, env.limits, ctx, attributes)
        .map_err(|rejection| Refusal::bad(BAD, rejection.message))?;
    let queue = event.task_queue.as_ref().map_or("", |queue| queue.name.as_str());
    if event.use_workflow_build_id && queue != run.state.info.task_queue {
        let message = "Activity with UseCompatibleVersion cannot run on different task queue.";
        return Err(Refusal::bad(BAD, message));
    }
    let input = attributes.input.as_ref().map_or(0, Message::encoded_len);
    let header = attributes.header.as_ref().map_or(0, Message::encoded_len);
    if input.max(header) > env.limits.blob_bytes {
        let field = if input > env.limits.blob_bytes { "Input" } else { "Header" };
        let message = format!("ScheduleActivityTaskCommandAttributes.{field} exceeds size limit.");
        return Err(Refusal::too_large(BAD, message));
    }
    let (pending, limit) = (run.state.activities.len(), env.limits.pending_activities);
    if pending >= limit {
        let message = format!(
            "the number of pending activities, {pending}, has reached the per-workflow limit of {limit}"
        );
        return Err(Refusal::bad(Cause::PendingActivitiesLimitExceeded, message));
    }
    let id = &attributes.activity_id;
    if run.state.activities.values().any(|activity| activity.activity_id == *id) {
        let message = format!(
            "invalid history builder state for action: add-activitytask-scheduled-event, ActivityID: {id}"
        );
        return Err(Refusal::bad(Cause::ScheduleActivityDuplicateId, message));
    }
    let attributes = Attributes::ActivityTaskScheduledEventAttributes(Box::new(event));
    run.event_full(command_event(env, ctx.command, attributes));
    Ok(())
}

/// The event of a command that makes sense.
fn checked(
    run: &Live,
    limits: &Limits,
    ctx: &CommandContext<'_>,
    a: &ScheduleActivityTaskCommandAttributes,
) -> Result<ActivityTaskScheduledEventAttributes, Rejection> {
    let activity_type = a.activity_type.as_ref().map_or("", |t| t.name.as_str());
    if a.activity_id.is_empty() {
        return Err(Rejection::invalid("activityId is not set"));
    }
    if activity_type.is_empty() {
        return Err(Rejection::invalid("activityType is not set"));
    }
    let queue = validate::task_queue(a.task_queue.as_ref(), "taskQueue is not set", limits)?;
    let mut retry_policy = a.retry_policy.clone().unwrap_or_default();
    retry::fill(&mut retry_policy);
    retry::check(&retry_policy)?;
    for (name, text) in [("activityId", a.activity_id.as_str()), ("activityType", activity_type)] {
        if text.len() > limits.id_bytes {
            return Err(Rejection::invalid(format!(
                "{name} exceeds length limit. Length={} Limit={}",
                text.len(),
                limits.id_bytes
            )));
        }
    }
    let timeouts = timeouts(run.state.info.run_timeout, a)?;
    validate::priority(a.priority.as_ref())
        .map_err(|why| Rejection::invalid(format!("invalid priorities: {}", why.message)))?;
    Ok(ActivityTaskScheduledEventAttributes {
        activity_id: a.activity_id.clone(),
        activity_type: a.activity_type.clone(),
        task_queue: Some(TaskQueue {
            name: queue.to_owned(),
            kind: TaskQueueKind::Normal as i32,
            ..TaskQueue::default()
        }),
        header: a.header.clone(),
        input: a.input.clone(),
        schedule_to_close_timeout: Some(holdfast_proto::duration(timeouts.schedule_to_close)),
        schedule_to_start_timeout: Some(holdfast_proto::duration(timeouts.schedule_to_start)),
        start_to_close_timeout: Some(holdfast_proto::duration(timeouts.start_to_close)),
        heartbeat_timeout: Some(holdfast_proto::duration(timeouts.heartbeat)),
        workflow_task_completed_event_id: ctx.completed,
        retry_policy: Some(retry_policy),
        use_workflow_build_id: a.use_workflow_build_id,
        priority: a.priority.clone(),
    })
}

fn timeouts(
    run_timeout: u64,
    a: &ScheduleActivityTaskCommandAttributes,
) -> Result<Timeouts, Rejection> {
    let read = |name: &str, value: Option<&prost_types::Duration>| {
        duration(value).map_err(|cause| Rejection::invalid(format!("invalid {name}: {cause}")))
    };
    let schedule_to_close = read("ScheduleToCloseTimeout", a.schedule_to_close_timeout.as_ref())?;
    let schedule_to_start = read("ScheduleToStartTimeout", a.schedule_to_start_timeout.as_ref())?;
    let start_to_close = read("StartToCloseTimeout", a.start_to_close_timeout.as_ref())?;
    let heartbeat = read("HeartbeatTimeout", a.heartbeat_timeout.as_ref())?;
    let whole = if schedule_to_close != 0 {
        schedule_to_close
    } else if start_to_close != 0 {
        run_timeout
    } else {
        let activity_type = a.activity_type.as_ref().map_or("", |t| t.name.as_str());
        return Err(Rejection::invalid(format!(
            "a valid StartToCloseTimeout or ScheduleToCloseTimeout must be set on the activity. \
             ActivityId={} ActivityType={activity_type}",
            a.activity_id
        )));
    };
    // None of them reaches beyond the whole, and the whole not beyond the run.
    let whole = capped(whole, run_timeout);
    let start_to_close = if start_to_close == 0 { whole } else { capped(start_to_close, whole) };
    Ok(Timeouts {
        schedule_to_close: whole,
        schedule_to_start: if schedule_to_start == 0 {
            whole
        } else {
            capped(schedule_to_start, whole)
        },
        start_to_close,
        heartbeat: capped(heartbeat, start_to_close),
    })
}

/// RequestCancelActivityTask. True when the activity was not running, so that it is cancelled
/// now and the workflow must hear of it: a new workflow task is needed.
pub fn request_cancel(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &RequestCancelActivityTaskCommandAttributes,
) -> Result<bool, Refusal> {
    const BAD: Cause = Cause::BadRequestCancelActivityAttributes;
    let id = attributes.scheduled_event_id;
    if id <= 0 {
        let message = "ScheduledEventId is not set on RequestCancelActivityTaskCommand.";
        return Err(Refusal::bad(BAD, message));
    }
    let (known, waits) = match run.state.activities.get(&id) {
        Some(activity) => (activity.cancel_requested == 0, !activity.is_started()),
        // Its close waits in the buffer: the worker could not know, so that the event is written
        // although nothing is left to cancel.
        None => (run.state.buffered.iter().any(|event| closes(event) == Some(id)), false),
    };
    if !known {
        return Err(Refusal::bad(
            BAD,
            format!(
                "invalid history builder state for action: add-activitytask-cancel-requested-event, ScheduledEventID: {id}"
            ),
        ));
    }
    let requested = Attributes::ActivityTaskCancelRequestedEventAttributes(Box::new(
        ActivityTaskCancelRequestedEventAttributes {
            scheduled_event_id: id,
            workflow_task_completed_event_id: ctx.completed,
        },
    ));
    let requested = run.event_full(command_event(env, ctx.command, requested));
    if waits {
        let canceled = ActivityTaskCanceledEventAttributes {
            details: Some(Payloads::encode_from(&decoded::Payloads {
                payloads: vec![Payload::json(NOT_STARTED)],
            })),
            latest_cancel_requested_event_id: requested,
            scheduled_event_id: id,
            identity: ctx.identity.to_owned(),
            ..ActivityTaskCanceledEventAttributes::default()
        };
        // No event of a command: it comes behind those of the commands that follow (surface
        // 2.3.6 c and d), with what else the buffer holds.
        let canceled = Attributes::ActivityTaskCanceledEventAttributes(Box::new(canceled));
        run.push(Change::Buffered(Box::new(new_event(env, env.now, canceled))));
    }
    Ok(waits)
}

/// Starts an activity that this draft scheduled for the worker whose answer this is; `None` when
/// a later command of the same answer cancelled it. Durable with the draft, not a grant.
pub fn start_eagerly(
    run: &mut Live,
    env: &Env<'_>,
    scheduled: EventId,
    poller: &Poller,
) -> Option<ActivityGrant> {
    run.state.activities.get(&scheduled).filter(|activity| !activity.is_started())?;
    // One poller, several starts.
    let poller = Poller { start_id: env.ids.uuid(), ..poller.clone() };
    let mut grant = issue(run, env, scheduled, &poller)?;
    // No queue orders it, so Temporal shows what the command said, not what it comes to.
    grant.response.priority =
        run.state.activities.get(&scheduled).and_then(|activity| activity.priority.clone());
    start_durably(run, scheduled, env.now, &poller);
    Some(grant)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seconds(n: u64) -> Option<prost_types::Duration> {
        (n != 0).then(|| holdfast_proto::duration(n * SECOND))
    }

    /// Schedule-to-close, schedule-to-start, start-to-close, heartbeat: as set and as they become.
    fn become_of(run_timeout: u64, set: [u64; 4]) -> [u64; 4] {
        let attributes = ScheduleActivityTaskCommandAttributes {
            schedule_to_close_timeout: seconds(set[0]),
            schedule_to_start_timeout: seconds(set[1]),
            start_to_close_timeout: seconds(set[2]),
            heartbeat_timeout: seconds(set[3]),
            ..Default::default()
        };
        let t = timeouts(run_timeout * SECOND, &attributes).expect("valid");
        [t.schedule_to_close, t.schedule_to_start, t.start_to_close, t.heartbeat]
            .map(|n| n / SECOND)
    }

    #[test]
    fn timeouts_are_normalised_as_in_the_golden() {
        // Golden activity/timeouts_normalised.
        for (set, without, with_run_of_100) in [
            ([0, 0, 10, 0], [0, 0, 10, 0], [100, 100, 10, 0]),
            ([10, 0, 0, 0], [10, 10, 10, 0], [10, 10, 10, 0]),
            ([10, 0, 20, 0], [10, 10, 10, 0], [10, 10, 10, 0]),
            ([10, 20, 0, 0], [10, 10, 10, 0], [10, 10, 10, 0]),
            ([0, 0, 10, 20], [0, 0, 10, 10], [100, 100, 10, 10]),
            ([40, 5, 20, 2], [40, 5, 20, 2], [40, 5, 20, 2]),
            ([500, 500, 500, 500], [500, 500, 500, 500], [100, 100, 100, 100]),
        ] {
            assert_eq!(become_of(0, set), without, "{set:?}");
            assert_eq!(become_of(100, set), with_run_of_100, "{set:?}");
        }
    }
}
