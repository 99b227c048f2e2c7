//! What a worker's answer to a workflow task does: complete it, have it refused, or fail it.
//!
//! ```text
//! completed: token, order of commands, COMPLETED, each command, what was buffered, the next task
//! refused:   the first half found a bad command; its draft is gone, this writes WORKFLOW_TASK_FAILED
//! ```

use holdfast_proto::enums::{TaskQueueKind, TimeoutType, WorkflowTaskFailedCause};
use holdfast_proto::errordetails::NotFoundFailure;
use holdfast_proto::history::{
    WorkflowTaskCompletedEventAttributes, WorkflowTaskFailedEventAttributes,
};
use holdfast_proto::taskqueue::StickyExecutionAttributes;
use holdfast_proto::workflowservice::{
    RespondWorkflowTaskCompletedRequest, RespondWorkflowTaskFailedRequest,
};

use super::end::{fail, force_out, retry, time_out};
use super::grant::{claim, complete, start_inline};
use super::{INLINE_REQUEST_ID, StickySet, schedule_now};
use crate::change::Change;
use crate::env::Env;
use crate::failure;
use crate::ids::{EventId, ExecutionKey, Hlc, Uuid};
use crate::input::{ActivityGrant, Halt, Input, Poller, Refusal, Reply, Target};
use crate::live::{Draft, Live, Overlay};
use crate::reject::Rejection;
use crate::token::TaskToken;
use crate::workflow::close::{Termination, terminate};
use crate::workflow::{
    CommandContext, activity, already_completed, commands, make_starts_durable, run,
};

/// RespondWorkflowTaskCompleted.
pub fn completed(
    draft: &mut Draft,
    token: &TaskToken,
    request: RespondWorkflowTaskCompletedRequest,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    let key = draft.key.clone();
    let run = run(draft, Target::Run(token.run_id()))?;
    claim(run, token, env.now)?;
    commands::check(&request.commands)?;
    let overlay = run.overlay.clone();
    make_starts_durable(run, env);
    if heartbeat_is_over(run, &request, env) {
        time_out(run, env, TimeoutType::StartToClose);
        let text = "workflow task heartbeat timeout";
        return Err(Rejection::not_found(text).with(&NotFoundFailure::default()).into());
    }
    match carry_out(run, &request, env) {
        Ok(done) => Ok(follow_up(run, &key, request, done, env)),
        Err(refusal) => Err(discard(token, request.identity, refusal, overlay)),
    }
}

/// A worker that only ever heartbeats its task does not get on with it: it must let go.
fn heartbeat_is_over(
    run: &Live,
    request: &RespondWorkflowTaskCompletedRequest,
    env: &Env<'_>,
) -> bool {
    let since =
        run.state.workflow_task.as_ref().map_or(env.now, |task| Hlc(task.original_scheduled_at));
    request.force_create_new_workflow_task
        && request.commands.is_empty()
        && request.messages.is_empty()
        && env.now > since.after(env.limits.workflow_task_heartbeat)
}

fn discard(token: &TaskToken, identity: String, refusal: Refusal, overlay: Overlay) -> Halt {
    Halt::Discard(Box::new(Input::WorkflowTaskRefused {
        token: token.clone(),
        identity,
        refusal: Box::new(refusal),
        overlay: Box::new(overlay),
    }))
}

/// What the commands left for after them.
struct Done {
    /// One of them needs the worker to look again.
    news: bool,
    /// Activities that asked to be started within the answer.
    eager: Vec<EventId>,
}

fn carry_out(
    run: &mut Live,
    request: &RespondWorkflowTaskCompletedRequest,
    env: &Env<'_>,
) -> Result<Done, Refusal> {
    run.overlay.close_attempted = false;
    let before = run.state.history_bytes;
    let completed = complete(run, completed_attributes(request), env);
    set_sticky(run, request.sticky_attributes.as_ref());
    let mut done = Done { news: false, eager: Vec::new() };
    for command in &request.commands {
        let context = CommandContext { completed, identity: &request.identity, command };
        let id = run.state.next_event;
        done.news |= commands::carry_out(run, env, &context, request)?;
        if commands::is_eager(command) {
            done.eager.push(id);
        }
    }
    if run.state.history_bytes - before > env.limits.transaction_bytes as u64 {
        let text = "Transaction size exceeds limit.";
        return Err(Refusal {
            cause: WorkflowTaskFailedCause::ForceCloseCommand,
            message: text.to_owned(),
            terminate: Some(text.to_owned()),
            answer: Box::new(Rejection::invalid(text)),
        });
    }
    Ok(done)
}

fn completed_attributes(
    request: &RespondWorkflowTaskCompletedRequest,
) -> WorkflowTaskCompletedEventAttributes {
    let deployment = request.deployment_options.as_ref();
    WorkflowTaskCompletedEventAttributes {
        identity: request.identity.clone(),
        worker_deployment_name: deployment.map_or(String::new(), |d| d.deployment_name.clone()),
        binary_checksum: request.binary_checksum.clone(),
        worker_version: request.worker_version_stamp.clone(),
        sdk_metadata: request.sdk_metadata.clone(),
        metering_metadata: request.metering_metadata,
        ..WorkflowTaskCompletedEventAttributes::default()
    }
}

/// An answer without sticky attributes says that the worker does not keep the run.
fn set_sticky(run: &mut Live, attributes: Option<&StickyExecutionAttributes>) {
    let timeout = attributes.and_then(|a| a.schedule_to_start_timeout.as_ref());
    let timeout = timeout.and_then(|d| holdfast_proto::duration_nanos(d).ok()).unwrap_or(0);
    let wanted = StickySet {
        queue: attributes
            .and_then(|a| a.worker_task_queue.as_ref())
            .map_or(String::new(), |q| q.name.clone()),
        timeout: u64::try_from(timeout).unwrap_or(0),
    };
    if run.state.sticky.clone().unwrap_or_default().queue.is_empty() && wanted.queue.is_empty() {
        return;
    }
    if run.state.sticky.as_ref() != Some(&wanted) {
        run.push(Change::StickySet(wanted));
    }
}

/// Writes what waited for the task to end, schedules the next one, and starts what the caller
/// takes along.
fn follow_up(
    run: &mut Live,
    key: &ExecutionKey,
    request: RespondWorkflowTaskCompletedRequest,
    done: Done,
    env: &Env<'_>,
) -> Reply {
    if !run.state.is_open() {
        return Reply::Completed { next: None, activities: Vec::new() };
    }
    let flushed = run.flush_buffer(env);
    let forced = request.force_create_new_workflow_task;
    if forced || done.news || flushed > 0 {
        schedule_now(run, env);
    }
    let next = match request.return_new_workflow_task {
        true => {
            let build = request.worker_version_stamp.as_ref().map_or("", |v| v.build_id.as_str());
            start_inline(run, key, &request.identity, build, INLINE_REQUEST_ID, env).map(Box::new)
        }
        false => None,
    };
    let activities = eager(run, &request.identity, done.eager, env);
    Reply::Completed { next, activities }
}

fn eager(
    run: &mut Live,
    identity: &str,
    wanted: Vec<EventId>,
    env: &Env<'_>,
) -> Vec<ActivityGrant> {
    let poller = Poller {
        identity: identity.to_owned(),
        queue: run.state.info.task_queue.clone(),
        kind: TaskQueueKind::Normal,
        start_id: Uuid::NIL,
        build_id: String::new(),
    };
    wanted.into_iter().filter_map(|id| activity::start_eagerly(run, env, id, &poller)).collect()
}

/// The second half of a refused completion.
pub fn refused(
    draft: &mut Draft,
    token: &TaskToken,
    identity: &str,
    refusal: Refusal,
    overlay: Overlay,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    let run = run(draft, Target::Run(token.run_id()))?;
    run.overlay = overlay;
    claim(run, token, env.now)?;
    make_starts_durable(run, env);
    let unhandled = refusal.cause == WorkflowTaskFailedCause::UnhandledCommand;
    let first = run.state.workflow_task.as_ref().is_some_and(|task| task.attempt == 1);
    if !first && !unhandled && refusal.terminate.is_none() {
        // A later attempt runs into its timeout instead: a worker that keeps answering nonsense
        // must not spin.
        return Err(Halt::Rejected(*refusal.answer));
    }
    let text = match &refusal.terminate {
        Some(reason) => reason.clone(),
        None => Refusal::text(refusal.cause, &refusal.message),
    };
    let attributes = WorkflowTaskFailedEventAttributes {
        cause: refusal.cause as i32,
        failure: Some(failure::server(&text, false)),
        identity: identity.to_owned(),
        ..WorkflowTaskFailedEventAttributes::default()
    };
    let next = fail(run, attributes, env);
    match refusal.terminate {
        Some(reason) => terminate(run, Termination::by_server(reason), env),
        None => retry(run, env, next),
    }
    run.overlay.close_attempted = unhandled;
    Err(Halt::Rejected(*refusal.answer))
}

/// RespondWorkflowTaskFailed. The door has cut an oversized failure down.
pub fn failed(
    draft: &mut Draft,
    token: &TaskToken,
    request: RespondWorkflowTaskFailedRequest,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    let run = run(draft, Target::Run(token.run_id()))?;
    if !run.state.is_open() {
        return Err(already_completed().into());
    }
    claim(run, token, env.now)?;
    make_starts_durable(run, env);
    if request.cause == WorkflowTaskFailedCause::GrpcMessageTooLarge as i32 {
        // Its history or its commands do not fit through the door; no attempt ever will.
        force_out(run, env);
        let cause = WorkflowTaskFailedCause::GrpcMessageTooLarge;
        terminate(run, Termination::by_server(format!("{cause:?}")), env);
        return Ok(Reply::Done);
    }
    let attributes = WorkflowTaskFailedEventAttributes {
        cause: request.cause,
        failure: request.failure,
        identity: request.identity,
        binary_checksum: request.binary_checksum,
        ..WorkflowTaskFailedEventAttributes::default()
    };
    let next = fail(run, attributes, env);
    run.overlay.close_attempted = false;
    retry(run, env, next);
    Ok(Reply::Done)
}
