//! Signals, and signal-with-start.
//!
//! `Signal -> SIGNALED (buffered while a workflow task is in progress) -> SCHEDULED`

use holdfast_proto::common::{Header, Link, Payloads, WorkflowExecution};
use holdfast_proto::enums::{
    EventType, ResourceExhaustedCause, ResourceExhaustedScope, WorkflowIdConflictPolicy as Conflict,
};
use holdfast_proto::errordetails::ResourceExhaustedFailure;
use holdfast_proto::history::WorkflowExecutionSignaledEventAttributes;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::workflowservice::{
    SignalWithStartWorkflowExecutionRequest, SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
};
use prost::Message;

use crate::env::Env;
use crate::event::new_event;
use crate::id_record::{CurrentRun, RequestKind};
use crate::ids::RunId;
use crate::input::{Halt, Reply, Target};
use crate::live::{Draft, Live};
use crate::reject::{Code, Rejection};
use crate::workflow::start::{Choice, Met, Policies, begin, choose, earlier, existing};
use crate::workflow::workflow_task::{make_room, schedule_if_needed, schedule_now};
use crate::workflow::{State, already_completed, make_starts_durable, run};

/// A signal, whatever it came with.
struct Signal {
    name: String,
    input: Option<Payloads>,
    identity: String,
    header: Option<Header>,
    request_id: String,
    links: Vec<Link>,
}

/// SignalWorkflowExecution.
pub fn signal(
    draft: &mut Draft,
    at: Target,
    request: SignalWorkflowExecutionRequest,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    // Before anything else: a repeated call whose answer was lost must not read "not found" when
    // the run closed or left meanwhile, for it was applied (DESIGN 11).
    if let Some(run) = repeated(draft, at, &request.request_id, env) {
        return Ok(signaled_in(draft, run));
    }
    let run = run(draft, at)?;
    let id = run.run;
    let signal = Signal {
        name: request.signal_name,
        input: request.input,
        identity: request.identity,
        header: request.header,
        request_id: request.request_id,
        links: request.links,
    };
    if !run.state.is_open() {
        return Err(already_completed().into());
    }
    may_signal(run, env)?;
    make_starts_durable(run, env);
    draft.record.remember(signal.request_id.clone(), RequestKind::Signal, id, env);
    if let Some(run) = draft.target() {
        deliver(run, signal, env);
        schedule_if_needed(run, env);
    }
    Ok(signaled_in(draft, id))
}

/// The run in which this signal was accepted before: the run at hand as long as it is kept, as in
/// Temporal, and, unless the call names its run, any run of the id within the window of the record
/// (A13).
fn repeated(draft: &Draft, at: Target, request_id: &str, env: &Env<'_>) -> Option<RunId> {
    let mut recent = draft.record.seen(request_id, RequestKind::Signal, env);
    let recent = recent.find(|met| match at {
        Target::Current => true,
        Target::Run(named) => named == *met,
    });
    recent.or_else(|| has_signal(draft, request_id).map(|run| run.run))
}

/// The run at hand, if it has a signal of this request, be it one with a start.
fn has_signal<'a>(draft: &'a Draft, request_id: &str) -> Option<&'a Live> {
    let run = draft.runs.first().filter(|run| run.state.exists && !run.state.deleted)?;
    let known = run.state.knows_request(EventType::WorkflowExecutionSignaled, request_id);
    known.then_some(run)
}

fn signaled_in(draft: &Draft, run: RunId) -> Reply {
    let (workflow_id, run_id) = (draft.key.id.to_string(), run.to_string());
    Reply::Signaled(Box::new(WorkflowExecution { workflow_id, run_id }))
}

fn may_signal(run: &Live, env: &Env<'_>) -> Result<(), Rejection> {
    if run.state.signals >= env.limits.signals {
        return Err(Rejection::invalid("exceeded workflow execution limit for signal events"));
    }
    if run.overlay.close_attempted && run.task_in_progress() {
        let text = "workflow operation can not be applied because workflow is closing";
        return Err(Rejection::new(Code::ResourceExhausted, text).with(
            &ResourceExhaustedFailure {
                cause: ResourceExhaustedCause::BusyWorkflow as i32,
                scope: ResourceExhaustedScope::Namespace as i32,
            },
        ));
    }
    Ok(())
}

fn deliver(run: &mut Live, signal: Signal, env: &Env<'_>) {
    let bytes = [
        signal.input.as_ref().map_or(0, Message::encoded_len),
        signal.header.as_ref().map_or(0, Message::encoded_len),
    ];
    make_room(run, env, bytes.into_iter().sum());
    let attributes = WorkflowExecutionSignaledEventAttributes {
        signal_name: signal.name,
        input: signal.input,
        identity: signal.identity,
        header: signal.header,
        request_id: signal.request_id,
        ..WorkflowExecutionSignaledEventAttributes::default()
    };
    let attributes = Attributes::WorkflowExecutionSignaledEventAttributes(Box::new(attributes));
    let mut event = new_event(env, env.now, attributes);
    event.links = signal.links;
    run.happened(event);
}

/// SignalWithStartWorkflowExecution.
pub fn with_start(
    draft: &mut Draft,
    request: SignalWithStartWorkflowExecutionRequest,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    let policies = Policies::new(
        request.workflow_id_reuse_policy(),
        request.workflow_id_conflict_policy(),
        Conflict::UseExisting,
    );
    if let Some(run) = repeated_with_start(draft, &request.request_id, env) {
        return Ok(known(draft, run));
    }
    let choice = choose(draft, &policies)?;
    let (start, signal) = split(request);
    match choice {
        Choice::Use => {
            // Within a run Temporal does not tell the two kinds of signals apart.
            if has_signal(draft, &signal.request_id).is_none() {
                signal_existing(draft, signal, env)?;
            }
            Ok(existing(draft, Met::Found, None))
        }
        Choice::New | Choice::Replace => {
            let id = begin(draft, start, false, true, env).run;
            remember_with_start(draft, id, &signal, env);
            if let Some(run) = draft.runs.last_mut() {
                deliver(run, signal, env);
                schedule_if_needed(run, env);
            }
            Ok(existing(draft, Met::Made, None))
        }
    }
}

/// The run that this signal-with-start made or met before: the current one as long as it made that,
/// and any run of the id within the window of the record (A13).
fn repeated_with_start(draft: &Draft, request_id: &str, env: &Env<'_>) -> Option<RunId> {
    let current = draft.record.record.current.as_ref();
    let made = current.filter(|current| {
        current.with_signal && !request_id.is_empty() && current.create_request_id == request_id
    });
    let mut recent = draft.record.seen(request_id, RequestKind::SignalWithStart, env);
    made.map(CurrentRun::run_id).or_else(|| recent.next())
}

fn remember_with_start(draft: &mut Draft, run: RunId, signal: &Signal, env: &Env<'_>) {
    let (id, kind) = (signal.request_id.clone(), RequestKind::SignalWithStart);
    draft.record.remember(id, kind, run, env);
}

/// The answer to a repeated call: the run that its signal went to, whatever became of it since.
fn known(draft: &Draft, run: RunId) -> Reply {
    let current = draft.record.record.current.as_ref();
    if current.is_some_and(|current| current.run_id() == run) {
        existing(draft, Met::Found, None)
    } else {
        earlier(run, Met::Found)
    }
}

/// Unlike a plain signal this one ends a start delay: the caller wants the workflow to run.
fn signal_existing(draft: &mut Draft, signal: Signal, env: &Env<'_>) -> Result<(), Rejection> {
    let run = run(draft, Target::Current)?;
    may_signal(run, env)?;
    make_starts_durable(run, env);
    let id = run.run;
    remember_with_start(draft, id, &signal, env);
    if let Some(run) = draft.target() {
        deliver(run, signal, env);
        schedule_now(run, env);
    }
    Ok(())
}

fn split(
    request: SignalWithStartWorkflowExecutionRequest,
) -> (StartWorkflowExecutionRequest, Signal) {
    let signal = Signal {
        name: request.signal_name,
        input: request.signal_input,
        identity: request.identity.clone(),
        header: request.header.clone(),
        request_id: request.request_id.clone(),
        links: request.links.clone(),
    };
    let start = StartWorkflowExecutionRequest {
        namespace: request.namespace,
        workflow_id: request.workflow_id,
        workflow_type: request.workflow_type,
        task_queue: request.task_queue,
        input: request.input,
        workflow_execution_timeout: request.workflow_execution_timeout,
        workflow_run_timeout: request.workflow_run_timeout,
        workflow_task_timeout: request.workflow_task_timeout,
        identity: request.identity,
        request_id: request.request_id,
        retry_policy: request.retry_policy,
        cron_schedule: request.cron_schedule,
        memo: request.memo,
        search_attributes: request.search_attributes,
        header: request.header,
        workflow_start_delay: request.workflow_start_delay,
        user_metadata: request.user_metadata,
        links: request.links,
        priority: request.priority,
        ..StartWorkflowExecutionRequest::default()
    };
    (start, signal)
}

// Changes.

/// SIGNALED.
pub fn signaled(state: &mut State) {
    state.signals += 1;
}
