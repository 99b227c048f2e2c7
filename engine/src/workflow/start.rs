//! Starting a run: id policies, request ids, and the first events.
//!
//! ```text
//! Start -> STARTED, StartedBy, CurrentRun -> SCHEDULED (at once, or after the start delay)
//!       |  the current run again (same request id; USE_EXISTING, with OPTIONS_UPDATED when asked)
//!       |  TERMINATED of the current run, and a new one (TERMINATE_EXISTING)
//! ```

use holdfast_proto::enums::EventType;
use holdfast_proto::enums::{
    WorkflowExecutionStatus as Status, WorkflowIdConflictPolicy as Conflict,
    WorkflowIdReusePolicy as Reuse,
};
use holdfast_proto::errordetails::WorkflowExecutionAlreadyStartedFailure;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    HistoryEvent, WorkflowExecutionOptionsUpdatedEventAttributes,
    WorkflowExecutionStartedEventAttributes,
};
use holdfast_proto::workflowservice::StartWorkflowExecutionRequest;
use prost_types::Duration;

use crate::change::{Change, StartedBy};
use crate::env::Env;
use crate::event::new_event;
use crate::id_record::{CurrentRun, RequestKind};
use crate::ids::{Hlc, RunId, Uuid};
use crate::input::{Halt, Reply, Started, WorkflowTaskGrant};
use crate::live::{Draft, Live};
use crate::reject::{Code, Rejection};
use crate::rows::Dirty;
use crate::validate::duration;
use crate::workflow::close::{Termination, terminate};
use crate::workflow::workflow_task::{given, normal_queue, schedule_if_needed, start_inline};
use crate::workflow::{RequestEvent, RunInfo, State, make_starts_durable, own_time};

/// A start that comes again.
enum Repeated {
    /// Its request met the current run.
    Current(Met),
    /// Its request met a run before the current one.
    Earlier(RunId, Met),
}

/// What the request of a start did to a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// It made the run.
    Made,
    /// It was attached to the run that it found.
    Attached,
    /// It found the run, and left nothing in it but perhaps a signal.
    Found,
}

/// What a start finds.
pub enum Choice {
    /// The current run is used.
    Use,
    /// There is no open run: a new one.
    New,
    /// The open run ends, and a new one takes its place.
    Replace,
}

/// The two policies, with the old third one resolved.
pub struct Policies {
    reuse: Reuse,
    conflict: Conflict,
}

impl Policies {
    /// From a request; `default` is the conflict policy when none is set.
    pub fn new(reuse: Reuse, conflict: Conflict, default: Conflict) -> Policies {
        match (reuse, conflict) {
            (Reuse::TerminateIfRunning, _) => {
                Policies { reuse: Reuse::AllowDuplicate, conflict: Conflict::TerminateExisting }
            }
            (reuse, Conflict::Unspecified) => Policies { reuse, conflict: default },
            (reuse, conflict) => Policies { reuse, conflict },
        }
    }
}

/// What a start with this request id has met already, if it comes again.
fn repeated(draft: &Draft, request_id: &str, env: &Env<'_>) -> Option<Repeated> {
    let current = draft.record.record.current.as_ref()?;
    if current.create_request_id == request_id {
        return Some(Repeated::Current(Met::Made));
    }
    // The record forgets the oldest of many; the run does not.
    let run = draft.runs.first().filter(|run| run.run == current.run_id());
    let attached = |run: &Live| {
        run.state.knows_request(EventType::WorkflowExecutionOptionsUpdated, request_id)
    };
    if current.attached_request_ids.iter().any(|id| id == request_id) || run.is_some_and(attached) {
        return Some(Repeated::Current(Met::Attached));
    }
    let before = |kind| draft.record.seen(request_id, kind, env).next();
    let made = before(RequestKind::Start).map(|run| Repeated::Earlier(run, Met::Made));
    made.or_else(|| before(RequestKind::Attached).map(|run| Repeated::Earlier(run, Met::Attached)))
}

/// Applies the id policies to what the record says.
pub fn choose(draft: &Draft, policies: &Policies) -> Result<Choice, Rejection> {
    let Some(current) = &draft.record.record.current else { return Ok(Choice::New) };
    let status = Status::try_from(current.status).unwrap_or(Status::Unspecified);
    let (id, run) = (&draft.key.id, current.run_id());
    if status == Status::Running {
        assert!(!draft.runs.is_empty(), "the shard loads the current run");
        return match policies.conflict {
            Conflict::UseExisting => Ok(Choice::Use),
            Conflict::TerminateExisting => Ok(Choice::Replace),
            Conflict::Fail | Conflict::Unspecified => Err(exists(
                current,
                format!("Workflow execution is already running. WorkflowId: {id}, RunId: {run}."),
            )),
        };
    }
    let failed =
        matches!(status, Status::Failed | Status::Canceled | Status::Terminated | Status::TimedOut);
    match policies.reuse {
        Reuse::RejectDuplicate => Err(exists(
            current,
            format!(
                "Workflow execution already finished. WorkflowId: {id}, RunId: {run}. Workflow Id reuse policy: reject duplicate workflow Id."
            ),
        )),
        Reuse::AllowDuplicateFailedOnly if !failed => Err(exists(
            current,
            format!(
                "Workflow execution already finished successfully. WorkflowId: {id}, RunId: {run}. Workflow Id reuse policy: allow duplicate workflow Id if last run failed."
            ),
        )),
        Reuse::AllowDuplicateFailedOnly
        | Reuse::AllowDuplicate
        | Reuse::TerminateIfRunning
        | Reuse::Unspecified => Ok(Choice::New),
    }
}

fn exists(current: &CurrentRun, message: String) -> Rejection {
    Rejection::new(Code::AlreadyExists, message).with(&WorkflowExecutionAlreadyStartedFailure {
        start_request_id: current.create_request_id.clone(),
        run_id: current.run_id().to_string(),
        first_execution_run_id: current.first_run_id().to_string(),
    })
}

/// StartWorkflowExecution.
pub fn start(
    draft: &mut Draft,
    request: StartWorkflowExecutionRequest,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    let policies = Policies::new(
        request.workflow_id_reuse_policy(),
        request.workflow_id_conflict_policy(),
        Conflict::Fail,
    );
    match repeated(draft, &request.request_id, env) {
        Some(Repeated::Current(met)) => {
            let eager = met == Met::Made && request.request_eager_execution;
            return Ok(existing(draft, met, if eager { first_task(draft) } else { None }));
        }
        Some(Repeated::Earlier(run, met)) => return Ok(earlier(run, met)),
        None => {}
    }
    match choose(draft, &policies)? {
        Choice::Use => {
            let met = if attach(draft, &request, env) { Met::Attached } else { Met::Found };
            Ok(existing(draft, met, None))
        }
        Choice::New | Choice::Replace => {
            let eager = request.request_eager_execution
                && nanos(request.workflow_start_delay.as_ref()) == 0;
            let identity = request.identity.clone();
            let request_id = request.request_id.clone();
            let key = draft.key.clone();
            let run = begin(draft, request, eager, false, env);
            schedule_if_needed(run, env);
            let task = match eager {
                true => start_inline(run, &key, &identity, "", &request_id, env).map(Box::new),
                false => None,
            };
            Ok(existing(draft, Met::Made, task))
        }
    }
}

/// What the record says of the current run, as the answer to a start.
pub fn existing(draft: &Draft, met: Met, eager: Option<Box<WorkflowTaskGrant>>) -> Reply {
    let current = draft.record.record.current.clone().unwrap_or_default();
    Reply::Started(Box::new(Started {
        run: current.run_id(),
        first_run: current.first_run_id(),
        started: met == Met::Made,
        status: Status::try_from(current.status).unwrap_or(Status::Unspecified),
        attached: met == Met::Attached,
        eager,
    }))
}

/// The answer to a request that met a run which has given way to another since.
pub fn earlier(run: RunId, met: Met) -> Reply {
    Reply::Started(Box::new(Started {
        run,
        first_run: run,
        started: met == Met::Made,
        // What became of it is not known here.
        status: Status::Unspecified,
        attached: met == Met::Attached,
        eager: None,
    }))
}

/// The first task again, for a repeated eager start whose answer was lost.
fn first_task(draft: &Draft) -> Option<Box<WorkflowTaskGrant>> {
    let run =
        draft.runs.first().filter(|run| run.state.is_open() && run.state.previous_started == 0)?;
    let eager =
        run.state.workflow_task.as_ref().is_some_and(|task| (task.attempt, task.started) == (1, 3));
    if eager { given(run, &draft.key).map(Box::new) } else { None }
}

/// Attaches the request to the run that it found, when it asks for that.
fn attach(draft: &mut Draft, request: &StartWorkflowExecutionRequest, env: &Env<'_>) -> bool {
    let Some(options) = request.on_conflict_options.filter(|options| options.attach_request_id)
    else {
        return false;
    };
    let Some(run) = draft.runs.first_mut().filter(|run| run.state.is_open()) else { return false };
    make_starts_durable(run, env);
    let attributes = WorkflowExecutionOptionsUpdatedEventAttributes {
        attached_request_id: request.request_id.clone(),
        ..WorkflowExecutionOptionsUpdatedEventAttributes::default()
    };
    let attributes =
        Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(Box::new(attributes));
    let mut event = new_event(env, env.now, attributes);
    event.worker_may_ignore = true;
    if options.attach_links {
        event.links = request.links.clone();
    }
    run.happened(event);
    if let Some(mut current) = draft.record.record.current.clone() {
        let attached = &mut current.attached_request_ids;
        let over = (attached.len() + 1).saturating_sub(env.limits.attached_requests.max(1));
        attached.drain(..over);
        attached.push(request.request_id.clone());
        draft.record.push(Change::CurrentRun(current));
    }
    true
}

/// Creates the run and makes it the current one; what was open is terminated. The first workflow
/// task is left to the caller, and so is the signal that the request came with, if
/// `with_signal` says that it did.
pub fn begin<'a>(
    draft: &'a mut Draft,
    request: StartWorkflowExecutionRequest,
    eager: bool,
    with_signal: bool,
    env: &Env<'_>,
) -> &'a mut Live {
    let id = env.ids.uuid();
    if let Some(old) = draft.runs.first_mut().filter(|run| run.state.is_open()) {
        make_starts_durable(old, env);
        terminate(old, Termination::by_new_run(id), env);
    }
    let mut run = Live::new(id);
    own_time::keep(&mut run, env);
    let request_id = request.request_id.clone();
    run.event_full(started_event(&draft.key.id, id, request, eager, env));
    run.push(Change::StartedBy(StartedBy { request_id: request_id.clone() }));
    let current = CurrentRun {
        run: id.0.to_vec(),
        status: Status::Running as i32,
        first_run: id.0.to_vec(),
        create_request_id: request_id,
        started_at: run.state.info.started_at,
        attached_request_ids: Vec::new(),
        with_signal,
    };
    draft.record.replace_current(current, env);
    draft.runs.push(run);
    let newest = draft.runs.len() - 1;
    &mut draft.runs[newest]
}

fn started_event(
    id: &str,
    run: RunId,
    request: StartWorkflowExecutionRequest,
    eager: bool,
    env: &Env<'_>,
) -> HistoryEvent {
    let timeouts = Timeouts::of(&request, env);
    let some = |nanos: u64| (nanos != 0).then(|| holdfast_proto::duration(nanos));
    let expires = (timeouts.execution != 0)
        .then(|| Hlc(env.now.0.saturating_add(timeouts.execution)).timestamp());
    let queue = request.task_queue.map_or(String::new(), |queue| queue.name);
    let attributes = WorkflowExecutionStartedEventAttributes {
        workflow_type: request.workflow_type,
        task_queue: Some(normal_queue(&queue)),
        input: request.input,
        workflow_execution_timeout: some(timeouts.execution),
        workflow_run_timeout: some(timeouts.run),
        workflow_task_timeout: some(timeouts.task),
        continued_failure: request.continued_failure,
        last_completion_result: request.last_completion_result,
        original_execution_run_id: run.to_string(),
        identity: request.identity,
        first_execution_run_id: run.to_string(),
        retry_policy: request.retry_policy,
        attempt: 1,
        workflow_execution_expiration_time: expires,
        cron_schedule: request.cron_schedule,
        first_workflow_task_backoff: Some(holdfast_proto::duration(nanos(
            request.workflow_start_delay.as_ref(),
        ))),
        memo: request.memo,
        search_attributes: request.search_attributes,
        header: request.header,
        workflow_id: id.to_owned(),
        priority: request.priority,
        eager_execution_accepted: eager,
        ..WorkflowExecutionStartedEventAttributes::default()
    };
    let attributes = Attributes::WorkflowExecutionStartedEventAttributes(Box::new(attributes));
    let mut event = new_event(env, env.now, attributes);
    event.user_metadata = request.user_metadata;
    event.links = request.links;
    event
}

/// The three timeouts of a run, each within the one above it; 0 is none.
struct Timeouts {
    execution: u64,
    run: u64,
    task: u64,
}

impl Timeouts {
    fn of(request: &StartWorkflowExecutionRequest, env: &Env<'_>) -> Timeouts {
        let within = |nanos: u64, outer: u64| match (nanos, outer) {
            (nanos, 0) => nanos,
            (0, outer) => outer,
            (nanos, outer) => nanos.min(outer),
        };
        let execution = nanos(request.workflow_execution_timeout.as_ref());
        let run = within(nanos(request.workflow_run_timeout.as_ref()), execution);
        let task = match nanos(request.workflow_task_timeout.as_ref()) {
            0 => env.limits.workflow_task_timeout.as_nanos() as u64,
            given => given,
        };
        let task = task.min(env.limits.workflow_task_timeout_max.as_nanos() as u64);
        Timeouts { execution, run, task: within(task, run) }
    }
}

/// A duration that the door has checked, in nanoseconds.
fn nanos(value: Option<&Duration>) -> u64 {
    duration(value).unwrap_or(0)
}

// Changes.

/// STARTED.
pub fn started(
    state: &mut State,
    event: &HistoryEvent,
    a: &WorkflowExecutionStartedEventAttributes,
    dirty: &mut Dirty,
) {
    let at = state.last_event_at;
    let backoff = nanos(a.first_workflow_task_backoff.as_ref());
    let run_timeout = nanos(a.workflow_run_timeout.as_ref());
    let from = at.saturating_add(backoff);
    let expires = a.workflow_execution_expiration_time.as_ref();
    state.info = RunInfo {
        workflow_id: a.workflow_id.clone(),
        run: bytes_of(&a.original_execution_run_id),
        first_run: bytes_of(&a.first_execution_run_id),
        workflow_type: a.workflow_type.as_ref().map_or(String::new(), |kind| kind.name.clone()),
        task_queue: a.task_queue.as_ref().map_or(String::new(), |queue| queue.name.clone()),
        execution_timeout: nanos(a.workflow_execution_timeout.as_ref()),
        run_timeout,
        task_timeout: nanos(a.workflow_task_timeout.as_ref()),
        started_at: at,
        execution_expires_at: expires.map_or(0, |at| Hlc::from_timestamp(at).0),
        run_expires_at: if run_timeout == 0 { 0 } else { from.saturating_add(run_timeout) },
        first_task_backoff: backoff,
        attempt: a.attempt,
        memo: a
            .memo
            .as_ref()
            .and_then(|memo| memo.decode().ok())
            .map_or_else(Default::default, |memo| memo.fields),
        search_attributes: a
            .search_attributes
            .as_ref()
            .map_or_else(Default::default, |s| s.indexed_fields.clone()),
        priority: a.priority.clone(),
        user_metadata: event.user_metadata.clone(),
    };
    state.exists = true;
    state.status = Status::Running as i32;
    state.first_task_at = if backoff == 0 { 0 } else { from };
    dirty.deadline = true;
    dirty.visibility = true;
}

fn bytes_of(run: &str) -> Vec<u8> {
    Uuid::parse(run).unwrap_or(Uuid::NIL).0.to_vec()
}

/// [`Change::StartedBy`].
pub fn started_by(state: &mut State, b: &StartedBy) {
    let event_type = EventType::WorkflowExecutionStarted as i32;
    state.requests.push(RequestEvent { id: b.request_id.clone(), event_type, event: 1 });
}

/// OPTIONS_UPDATED: an attached request is noted when the event gets its id; nothing else of a
/// run can be changed by this version.
pub fn options_updated(a: &WorkflowExecutionOptionsUpdatedEventAttributes) {
    assert!(a.versioning_override.is_none() && a.priority.is_none(), "options are not built");
}
