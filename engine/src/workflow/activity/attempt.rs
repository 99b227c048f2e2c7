//! An attempt in the hands of a worker: handed out, heartbeating, answered (surface 3.1, 3.2).

use holdfast_proto::common::{
    ActivityType, Payloads, WorkerVersionStamp, WorkflowExecution, WorkflowType,
};
use holdfast_proto::enums::RetryState;
use holdfast_proto::errordetails::NotFoundFailure;
use holdfast_proto::failure::Failure;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    ActivityTaskCanceledEventAttributes, ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes, ActivityTaskStartedEventAttributes,
};
use holdfast_proto::workflowservice as rpc;
use prost::Message;

use super::{AttemptRetried, AttemptStarted, Heartbeated, priority};
use crate::change::Change;
use crate::env::Env;
use crate::event::new_event;
use crate::failure;
use crate::ids::{EventId, Hlc, Uuid};
use crate::input::{ActivityGrant, ActivityRef, Halt, Poller, Reply};
use crate::limits::Limits;
use crate::live::{Grant, Live, TaskType};
use crate::reject::Rejection;
use crate::retry::{self, Verdict};
use crate::token::TaskToken;
use crate::workflow::{already_completed, workflow_task};

/// Hands the waiting attempt to a poller. A grant, unless the attempts are counted: then the
/// start is durable before anyone hears of it (DESIGN 3.5).
pub fn grant(
    run: &mut Live,
    env: &Env<'_>,
    scheduled: EventId,
    stamp: u32,
    poller: Poller,
) -> Result<Reply, Halt> {
    let offered = run.state.is_open()
        && !run.overlay.grants.contains_key(&scheduled)
        && run.state.activities.get(&scheduled).is_some_and(|activity| {
            !activity.is_started() && activity.stamp == stamp && Hlc(activity.attempt_at) <= env.now
        });
    if !offered {
        return Ok(Reply::Gone);
    }
    let Some(issued) = issue(run, env, scheduled, &poller) else {
        return Ok(Reply::Gone);
    };
    let counted = run
        .state
        .activities
        .get(&scheduled)
        .is_some_and(|activity| activity.retry_policy.maximum_attempts > 0);
    if counted {
        start_durably(run, scheduled, env.now, &poller);
    } else {
        let grant = Grant {
            task: TaskType::Activity,
            start_id: poller.start_id,
            base: run.state.seq,
            at: env.now,
            identity: poller.identity,
            queue: poller.queue,
            kind: poller.kind,
            build_id: poller.build_id,
        };
        run.overlay.grants.insert(scheduled, grant);
    }
    Ok(Reply::ActivityTask(Box::new(issued)))
}

/// The task as a worker gets it. The shell adds namespace name, token, header and input.
pub(super) fn issue(
    run: &Live,
    env: &Env<'_>,
    scheduled: EventId,
    poller: &Poller,
) -> Option<ActivityGrant> {
    let (state, activity) = (&run.state, run.state.activities.get(&scheduled)?);
    let token = TaskToken {
        namespace: env.namespace_id().0.to_vec(),
        workflow_id: state.info.workflow_id.clone(),
        run: run.run.0.to_vec(),
        scheduled,
        started: 0,
        attempt: activity.attempt,
        stamp: activity.stamp,
        start_id: poller.start_id.0.to_vec(),
        base: state.seq,
        started_at: env.now.0,
        identity: poller.identity.clone(),
        activity_id: activity.activity_id.clone(),
        build_id: poller.build_id.clone(),
    };
    let response = rpc::PollActivityTaskQueueResponse {
        workflow_type: Some(WorkflowType { name: state.info.workflow_type.clone() }),
        workflow_execution: Some(WorkflowExecution {
            workflow_id: state.info.workflow_id.clone(),
            run_id: run.run.to_string(),
        }),
        activity_type: Some(ActivityType { name: activity.activity_type.clone() }),
        activity_id: activity.activity_id.clone(),
        heartbeat_details: activity.heartbeat_details.clone(),
        scheduled_time: Some(Hlc(activity.scheduled_at).timestamp()),
        current_attempt_scheduled_time: Some(Hlc(activity.attempt_at).timestamp()),
        started_time: Some(env.now.timestamp()),
        attempt: activity.attempt as i32,
        schedule_to_close_timeout: Some(holdfast_proto::duration(activity.schedule_to_close)),
        start_to_close_timeout: Some(holdfast_proto::duration(activity.start_to_close)),
        heartbeat_timeout: Some(holdfast_proto::duration(activity.heartbeat_timeout)),
        retry_policy: Some(activity.retry_policy.clone()),
        priority: priority(state, activity),
        ..rpc::PollActivityTaskQueueResponse::default()
    };
    Some(ActivityGrant { token, response: Box::new(response), scheduled })
}

/// Makes a grant durable, unless its activity is gone or started meanwhile.
pub fn materialise(run: &mut Live, scheduled: EventId, grant: &Grant) {
    let (identity, build_id) = (grant.identity.clone(), grant.build_id.clone());
    let start_id = grant.start_id.0.to_vec();
    started(run, AttemptStarted { scheduled, at: grant.at.0, start_id, identity, build_id });
}

pub(super) fn start_durably(run: &mut Live, scheduled: EventId, at: Hlc, poller: &Poller) {
    let (identity, build_id) = (poller.identity.clone(), poller.build_id.clone());
    let start_id = poller.start_id.0.to_vec();
    started(run, AttemptStarted { scheduled, at: at.0, start_id, identity, build_id });
}

fn started(run: &mut Live, start: AttemptStarted) {
    if run.state.activities.get(&start.scheduled).is_some_and(|a| !a.is_started()) {
        run.push(Change::AttemptStarted(start));
    }
}

/// NOT_FOUND for an attempt that is over, or never was the caller's.
fn gone() -> Rejection {
    Rejection::not_found(
        "invalid activityID or activity already timed out or invoking workflow is completed",
    )
    .with(&NotFoundFailure::default())
}

/// The activity that a worker means, started; grants of this leader are durable by now. A start that this leader never heard of is made
/// durable from the token when the same attempt still waits and nobody else has it (A7).
fn held(run: &mut Live, who: &ActivityRef) -> Result<EventId, Rejection> {
    let scheduled = named(run, who)?;
    let token = match who {
        ActivityRef::Token(token) => Some(token),
        ActivityRef::ById { .. } => None,
    };
    let activity = run.state.activities.get(&scheduled).ok_or_else(gone)?;
    if let Some(token) = token {
        if !activity.is_started() {
            let same = (activity.attempt, activity.stamp) == (token.attempt, token.stamp);
            if !same || token.start().is_nil() || token.started_at == 0 {
                return Err(gone());
            }
            let (identity, build_id) = (token.identity.clone(), token.build_id.clone());
            let (at, start_id) = (token.started_at, token.start_id.clone());
            started(run, AttemptStarted { scheduled, at, start_id, identity, build_id });
        } else if activity.start_id != token.start_id {
            return Err(gone());
        }
    } else if !activity.is_started() {
        return Err(gone());
    }
    Ok(scheduled)
}

/// The event that scheduled the activity that a worker means; the run must be open.
fn named(run: &Live, who: &ActivityRef) -> Result<EventId, Rejection> {
    if !run.state.is_open() {
        return Err(already_completed());
    }
    match who {
        ActivityRef::Token(token) => Ok(token.scheduled),
        ActivityRef::ById { activity_id, .. } => {
            let found = run.state.activities.iter().find(|(_, a)| a.activity_id == *activity_id);
            found.map(|(id, _)| *id).ok_or_else(|| {
                Rejection::not_found(format!(
                    "cannot find pending activity with ActivityID {activity_id}, \
                     check workflow execution history for more details"
                ))
                .with(&NotFoundFailure::default())
            })
        }
    }
}

/// RespondActivityTaskCompleted. By id also before any worker has started it.
pub fn completed(
    run: &mut Live,
    env: &Env<'_>,
    who: &ActivityRef,
    request: &rpc::RespondActivityTaskCompletedRequest,
) -> Result<Reply, Halt> {
    if let ActivityRef::ById { .. } = who {
        let scheduled = named(run, who)?;
        // The start that never was: by whoever completes it, without a request id.
        let (at, start_id, identity) = (env.now.0, Uuid::NIL.0.to_vec(), request.identity.clone());
        started(run, AttemptStarted { scheduled, at, start_id, identity, build_id: String::new() });
    }
    let scheduled = held(run, who)?;
    if size(request.result.as_ref()) > env.limits.blob_bytes {
        let failure = failure::server("Complete result exceeds size limit.", true);
        fail(run, env, scheduled, Failing::by(&request.identity, Some(failure)));
        return Ok(Reply::Done);
    }
    close(run, env, scheduled, request.worker_version.as_ref(), |started| {
        Attributes::ActivityTaskCompletedEventAttributes(Box::new(
            ActivityTaskCompletedEventAttributes {
                result: request.result.clone(),
                scheduled_event_id: scheduled,
                started_event_id: started,
                identity: request.identity.clone(),
                ..ActivityTaskCompletedEventAttributes::default()
            },
        ))
    });
    workflow_task::schedule_if_needed(run, env);
    Ok(Reply::Done)
}

/// RespondActivityTaskFailed. The door has cut an oversized failure down.
pub fn failed(
    run: &mut Live,
    env: &Env<'_>,
    who: &ActivityRef,
    request: &rpc::RespondActivityTaskFailedRequest,
) -> Result<Reply, Halt> {
    let scheduled = held(run, who)?;
    if let Some(details) = &request.last_heartbeat_details {
        beat(run, env, scheduled, Some(details));
    }
    let failing = Failing {
        identity: &request.identity,
        failure: request.failure.clone(),
        cause: request.cause,
        worker_version: request.worker_version.clone(),
    };
    fail(run, env, scheduled, failing);
    Ok(Reply::Done)
}

/// RespondActivityTaskCanceled: only after the workflow asked for it.
pub fn canceled(
    run: &mut Live,
    env: &Env<'_>,
    who: &ActivityRef,
    request: &rpc::RespondActivityTaskCanceledRequest,
) -> Result<Reply, Halt> {
    let scheduled = held(run, who)?;
    if size(request.details.as_ref()) > env.limits.blob_bytes {
        let failure = failure::server("Cancel details exceed size limit.", true);
        fail(run, env, scheduled, Failing::by(&request.identity, Some(failure)));
        return Ok(Reply::Done);
    }
    let requested = run.state.activities.get(&scheduled).map_or(0, |a| a.cancel_requested);
    if requested == 0 {
        let message =
            "unable to mark activity as canceled without activity being request canceled first";
        return Err(Rejection::invalid(message).into());
    }
    close(run, env, scheduled, None, |started| {
        Attributes::ActivityTaskCanceledEventAttributes(Box::new(
            ActivityTaskCanceledEventAttributes {
                details: request.details.clone(),
                latest_cancel_requested_event_id: requested,
                scheduled_event_id: scheduled,
                started_event_id: started,
                identity: request.identity.clone(),
                ..ActivityTaskCanceledEventAttributes::default()
            },
        ))
    });
    workflow_task::schedule_if_needed(run, env);
    Ok(Reply::Done)
}

/// RecordActivityTaskHeartbeat. Details that are too large fail the activity.
pub fn heartbeat(
    run: &mut Live,
    env: &Env<'_>,
    who: &ActivityRef,
    request: &rpc::RecordActivityTaskHeartbeatRequest,
) -> Result<Reply, Halt> {
    let scheduled = held(run, who)?;
    if size(request.details.as_ref()) > env.limits.blob_bytes {
        let failure = failure::server("Heartbeat details exceed size limit.", true);
        fail(run, env, scheduled, Failing::by(&request.identity, Some(failure)));
        return Ok(Reply::Heartbeat { cancel_requested: true });
    }
    beat(run, env, scheduled, request.details.as_ref());
    let requested = run.state.activities.get(&scheduled).is_some_and(|a| a.cancel_requested != 0);
    Ok(Reply::Heartbeat { cancel_requested: requested })
}

fn size(payloads: Option<&Payloads>) -> usize {
    payloads.map_or(0, Message::encoded_len)
}

fn beat(run: &mut Live, env: &Env<'_>, scheduled: EventId, details: Option<&Payloads>) {
    let details = details.cloned();
    run.push(Change::Heartbeated(Heartbeated { scheduled, at: env.now.0, details }));
}

/// A failure, as the event that may come of it has it.
struct Failing<'a> {
    identity: &'a str,
    failure: Option<Failure>,
    cause: i32,
    worker_version: Option<WorkerVersionStamp>,
}

impl Failing<'_> {
    fn by(identity: &str, failure: Option<Failure>) -> Failing<'_> {
        Failing { identity, failure, cause: 0, worker_version: None }
    }
}

/// The attempt failed: another one later, or the activity fails.
fn fail(run: &mut Live, env: &Env<'_>, scheduled: EventId, failing: Failing<'_>) {
    let Some(state) = retried(run, env, scheduled, failing.failure.as_ref(), env.now) else {
        return;
    };
    close(run, env, scheduled, failing.worker_version.as_ref(), |started| {
        Attributes::ActivityTaskFailedEventAttributes(Box::new(ActivityTaskFailedEventAttributes {
            failure: failing.failure,
            scheduled_event_id: scheduled,
            started_event_id: started,
            identity: failing.identity.to_owned(),
            retry_state: state as i32,
            cause: failing.cause,
            ..ActivityTaskFailedEventAttributes::default()
        }))
    });
    workflow_task::schedule_if_needed(run, env);
}

/// Pushes the retry of an attempt that ended with `failure`, or says why there is none.
/// `answered_at` is when a worker said so; zero for a timeout.
pub(super) fn retried(
    run: &mut Live,
    env: &Env<'_>,
    scheduled: EventId,
    failure: Option<&Failure>,
    answered_at: Hlc,
) -> Option<RetryState> {
    let activity = run.state.activities.get(&scheduled)?;
    if activity.cancel_requested != 0 {
        return Some(RetryState::CancelRequested);
    }
    let policy = &activity.retry_policy;
    match retry::verdict(policy, activity.attempt, failure, env.now, activity.expires()) {
        Verdict::Stop(state) => Some(state),
        Verdict::Again { interval } => {
            run.push(Change::AttemptRetried(AttemptRetried {
                scheduled,
                at: env.now.0.saturating_add(interval),
                interval,
                failure: failure.map(|failure| kept(failure, env.limits)),
                answered_at: answered_at.0,
            }));
            None
        }
    }
}

/// A failure as State keeps it, at most 4 KiB.
fn kept(failure: &Failure, limits: &Limits) -> Failure {
    if failure.encoded_len() <= limits.activity_failure_bytes {
        return failure.clone();
    }
    failure::too_large(failure, false, limits.activity_failure_bytes)
}

/// Writes STARTED, if a worker had the attempt, and right behind it the event that closes the
/// activity. While a worker holds the workflow task both wait in the buffer. STARTED is where
/// Temporal shows the version that the worker gave with its result or failure.
pub(super) fn close(
    run: &mut Live,
    env: &Env<'_>,
    scheduled: EventId,
    version: Option<&WorkerVersionStamp>,
    event: impl FnOnce(EventId) -> Attributes,
) {
    let Some(activity) = run.state.activities.get(&scheduled) else { return };
    let mut started = 0;
    if activity.is_started() {
        let start_id = Uuid::from_slice(&activity.start_id).unwrap_or(Uuid::NIL);
        let attributes = ActivityTaskStartedEventAttributes {
            scheduled_event_id: scheduled,
            identity: activity.identity.clone(),
            request_id: if start_id.is_nil() { String::new() } else { start_id.to_string() },
            attempt: activity.attempt as i32,
            last_failure: activity.last_failure.clone(),
            worker_version: version.cloned(),
            ..ActivityTaskStartedEventAttributes::default()
        };
        let at = Hlc(activity.started_at);
        let attributes = Attributes::ActivityTaskStartedEventAttributes(Box::new(attributes));
        started = run.happened(new_event(env, at, attributes));
    }
    run.happened(new_event(env, env.now, event(started)));
}
