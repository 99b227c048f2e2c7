//! The ends of a run: completed, failed, canceled, terminated, timed out; then retention.
//!
//! ```text
//! CompleteWorkflowExecution | FailWorkflowExecution | CancelWorkflowExecution -> COMPLETED | FAILED | CANCELED
//! Terminate, limits -> TERMINATED;  Due -> TIMED_OUT;  each -> RetentionSet -> Due | Delete -> RunDeleted
//! ```

use holdfast_proto::command::{
    CancelWorkflowExecutionCommandAttributes, CompleteWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes,
};
use holdfast_proto::common::{Link, Payload, Payloads};
use holdfast_proto::decoded;
use holdfast_proto::enums::{
    RetryState, WorkflowExecutionStatus, WorkflowTaskFailedCause as Cause,
};
use holdfast_proto::errordetails::NotFoundFailure;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    HistoryEvent, WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionCompletedEventAttributes, WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes, WorkflowExecutionTimedOutEventAttributes,
};
use holdfast_proto::workflowservice::TerminateWorkflowExecutionRequest;

use crate::change::{Change, RetentionSet};
use crate::env::Env;
use crate::event::{command_event, new_event};
use crate::id_record::{CurrentRun, RecordLive};
use crate::ids::{Hlc, RunId};
use crate::input::{Halt, Refusal, Reply, Target};
use crate::live::{Draft, Live};
use crate::reject::Rejection;
use crate::rows::Dirty;
use crate::workflow::workflow_task::{SERVER_IDENTITY, force_out};
use crate::workflow::{
    CommandContext, State, activity, already_completed, make_starts_durable, run,
};

// Decisions: commands.

/// A close command is refused while events wait that the worker has not seen: it decides again
/// with them.
/// What its own commands put there a moment ago it knows.
fn nothing_waits(run: &mut Live, env: &Env<'_>) -> Result<(), Refusal> {
    let own = |event: &HistoryEvent| event.event_time == Some(env.now.timestamp());
    if !run.state.buffered.iter().all(own) {
        return Err(Refusal::bad(Cause::UnhandledCommand, ""));
    }
    run.flush_buffer(env);
    Ok(())
}

/// Payloads of close commands that are too large end the run. The cause is odd and Temporal's.
fn fits(bytes: Option<usize>, field: &str, env: &Env<'_>) -> Result<(), Refusal> {
    match bytes {
        Some(bytes) if bytes > env.limits.blob_bytes => Err(Refusal::too_large(
            Cause::BadScheduleActivityAttributes,
            format!("{field} exceeds size limit."),
        )),
        _ => Ok(()),
    }
}

/// CompleteWorkflowExecution.
pub fn complete(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &CompleteWorkflowExecutionCommandAttributes,
) -> Result<(), Refusal> {
    nothing_waits(run, env)?;
    let bytes = attributes.result.as_ref().map(|result| result.encoded().len());
    fits(bytes, "CompleteWorkflowExecutionCommandAttributes.Result", env)?;
    let event = WorkflowExecutionCompletedEventAttributes {
        result: attributes.result.clone(),
        workflow_task_completed_event_id: ctx.completed,
        ..WorkflowExecutionCompletedEventAttributes::default()
    };
    run.event_full(command_event(
        env,
        ctx.command,
        Attributes::WorkflowExecutionCompletedEventAttributes(Box::new(event)),
    ));
    Ok(())
}

/// FailWorkflowExecution.
pub fn fail(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &FailWorkflowExecutionCommandAttributes,
) -> Result<(), Refusal> {
    nothing_waits(run, env)?;
    let Some(failure) = &attributes.failure else {
        let text = "Failure is not set on FailWorkflowExecutionCommand.";
        return Err(Refusal::bad(Cause::BadFailWorkflowExecutionAttributes, text));
    };
    let bytes = Some(failure.encoded().len());
    fits(bytes, "FailWorkflowExecutionCommandAttributes.Failure", env)?;
    let event = WorkflowExecutionFailedEventAttributes {
        failure: Some(failure.clone()),
        retry_state: RetryState::RetryPolicyNotSet as i32,
        workflow_task_completed_event_id: ctx.completed,
        ..WorkflowExecutionFailedEventAttributes::default()
    };
    run.event_full(command_event(
        env,
        ctx.command,
        Attributes::WorkflowExecutionFailedEventAttributes(Box::new(event)),
    ));
    Ok(())
}

/// CancelWorkflowExecution.
pub fn cancel(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &CancelWorkflowExecutionCommandAttributes,
) -> Result<(), Refusal> {
    nothing_waits(run, env)?;
    let bytes = attributes.details.as_ref().map(|details| details.encoded().len());
    fits(bytes, "CancelWorkflowExecutionCommandAttributes.Details", env)?;
    let event = WorkflowExecutionCanceledEventAttributes {
        workflow_task_completed_event_id: ctx.completed,
        details: attributes.details.clone(),
    };
    run.event_full(command_event(
        env,
        ctx.command,
        Attributes::WorkflowExecutionCanceledEventAttributes(Box::new(event)),
    ));
    Ok(())
}

// Decisions: from outside.

/// Who ends a run, and why.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Termination {
    /// Why, in words.
    pub reason: String,
    /// More of that.
    pub details: Option<Payloads>,
    /// Who.
    pub identity: String,
    /// What it follows from.
    pub links: Vec<Link>,
}

impl Termination {
    /// The server itself ends the run.
    pub fn by_server(reason: impl Into<String>) -> Termination {
        let identity = SERVER_IDENTITY.to_owned();
        Termination { reason: reason.into(), identity, ..Termination::default() }
    }

    /// A start took the id over.
    pub fn by_new_run(new: RunId) -> Termination {
        let text = Payload::json(&format!("\"terminated by new runID: {new}\""));
        let details = Payloads::encode_from(&decoded::Payloads { payloads: vec![text] });
        let why = "TerminateIfRunning WorkflowIdReusePolicy";
        Termination { details: Some(details), ..Termination::by_server(why) }
    }
}

/// Ends an open run: a task in progress is failed, and what waited for it is written before.
pub fn terminate(run: &mut Live, by: Termination, env: &Env<'_>) {
    force_out(run, env);
    run.flush_buffer(env);
    let attributes = WorkflowExecutionTerminatedEventAttributes {
        reason: by.reason,
        details: by.details,
        identity: by.identity,
    };
    let attributes = Attributes::WorkflowExecutionTerminatedEventAttributes(Box::new(attributes));
    let mut event = new_event(env, env.now, attributes);
    event.links = by.links;
    run.event_full(event);
}

/// TerminateWorkflowExecution.
pub fn terminate_requested(
    draft: &mut Draft,
    at: Target,
    request: TerminateWorkflowExecutionRequest,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    check_chain(draft, at, &request.first_execution_run_id)?;
    let run = run(draft, at)?;
    if !run.state.is_open() {
        return Err(already_completed().into());
    }
    make_starts_durable(run, env);
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    let by = Termination {
        reason: or(request.reason, "terminated by user via frontend"),
        details: request.details,
        identity: or(request.identity, "frontend-service"),
        links: request.links,
    };
    terminate(run, by, env);
    Ok(Reply::Done)
}

/// A caller that names the first run of a chain means no other chain of that id.
pub fn check_chain(draft: &mut Draft, at: Target, first_run: &str) -> Result<(), Rejection> {
    let record = draft.record.record.current.as_ref().map(|current| current.first_run_id());
    run(draft, at)?;
    if first_run.is_empty() || record.is_some_and(|run| run.to_string() == first_run) {
        return Ok(());
    }
    Err(Rejection::not_found("workflow execution not found").with(&NotFoundFailure::default()))
}

/// When the run or its execution times out.
pub fn deadline(state: &State) -> Option<Hlc> {
    let times = [state.info.run_expires_at, state.info.execution_expires_at];
    times.into_iter().filter(|at| *at != 0).min().map(Hlc)
}

/// The run or its execution timed out.
pub fn time_out(run: &mut Live, env: &Env<'_>) {
    force_out(run, env);
    run.flush_buffer(env);
    // Where the whole execution has no time left, nobody asks for a policy.
    let expires = run.state.info.execution_expires_at;
    let retry_state = match expires != 0 && Hlc(expires) <= env.now {
        true => RetryState::Timeout,
        false => RetryState::RetryPolicyNotSet,
    };
    let attributes = WorkflowExecutionTimedOutEventAttributes {
        retry_state: retry_state as i32,
        ..WorkflowExecutionTimedOutEventAttributes::default()
    };
    run.event(env, Attributes::WorkflowExecutionTimedOutEventAttributes(Box::new(attributes)));
}

/// A history that grows without end is cut: the run is terminated.
pub fn enforce_history_limits(run: &mut Live, env: &Env<'_>) {
    let state = &run.state;
    let reason = if state.next_event - 1 > env.limits.history_events_max {
        "Workflow history count exceeds limit."
    } else if state.history_bytes > env.limits.history_bytes_max {
        "Workflow history size exceeds limit."
    } else {
        return;
    };
    if run.state.is_open() {
        terminate(run, Termination::by_server(reason), env);
    }
}

/// The run, when this decision took its state over the limit. As in Temporal nothing of such a
/// decision counts, so that no state is ever larger, and the run ends instead. A run that the
/// decision created is as small as its request, and looked at by the next one.
pub fn overgrown(run: &mut Live, env: &Env<'_>) -> Option<RunId> {
    let looked_at = !run.changes.is_empty() && run.state.is_open();
    (looked_at && run.is_larger_than(env.limits.state_bytes)).then_some(run.run)
}

/// Ends a run whose state would have become too large; the caller whose decision that was is told.
pub fn end_overgrown(run: &mut Live, env: &Env<'_>) -> Result<Reply, Halt> {
    const REASON: &str = "Workflow mutable state size exceeds limit.";
    if run.state.is_open() {
        terminate(run, Termination::by_server(REASON), env);
    }
    Err(Rejection::invalid(REASON).into())
}

/// A run that closed leaves when the namespace's retention is over.
pub fn set_retention(run: &mut Live, env: &Env<'_>) {
    let state = &run.state;
    if state.closed_at != 0 && state.delete_at == 0 && !state.deleted {
        let delete_at = Hlc(state.closed_at).after(env.namespace.retention).0;
        run.push(Change::RetentionSet(RetentionSet { delete_at }));
    }
}

/// The record of the id follows the status of its current run.
pub fn record_status(record: &mut RecordLive, run: &Live) {
    match &record.record.current {
        Some(current) if current.run_id() == run.run && current.status != run.state.status => {
            let current = CurrentRun { status: run.state.status, ..current.clone() };
            record.push(Change::CurrentRun(current));
        }
        _ => {}
    }
}

/// Takes a run away, with all its rows; an open one is terminated before.
pub fn delete(draft: &mut Draft, env: &Env<'_>) -> Reply {
    let Some(run) = draft.runs.first_mut().filter(|run| run.state.exists && !run.state.deleted)
    else {
        return Reply::Gone;
    };
    if run.state.is_open() {
        make_starts_durable(run, env);
        terminate(run, Termination::by_server("Delete workflow execution"), env);
    }
    run.push(Change::RunDeleted);
    let current = draft.record.record.current.as_ref();
    if current.is_some_and(|current| current.run_id() == run.run) {
        draft.record.push(Change::CurrentRun(CurrentRun::default()));
    }
    Reply::Done
}

// Changes.

/// Any of the five close events.
pub fn closed(state: &mut State, status: WorkflowExecutionStatus, dirty: &mut Dirty) {
    assert!(state.buffered.is_empty(), "nothing waits when a run closes");
    state.status = status as i32;
    state.closed_at = state.last_event_at;
    state.closed_seq = state.seq;
    all_rows(state, dirty);
}

/// [`Change::RetentionSet`].
pub fn retention_set(state: &mut State, b: &RetentionSet, dirty: &mut Dirty) {
    state.delete_at = b.delete_at;
    dirty.deadline = true;
}

/// [`Change::RunDeleted`].
pub fn deleted(state: &mut State, dirty: &mut Dirty) {
    state.deleted = true;
    all_rows(state, dirty);
}

fn all_rows(state: &State, dirty: &mut Dirty) {
    dirty.workflow_task = true;
    dirty.visibility = true;
    activity::run_closed(state, dirty);
}
