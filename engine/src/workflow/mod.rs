//! A run of a workflow: its state, and the tables that lead to the entities' files.
//!
//! Three tables without a `_` arm: [`decide`] by input, `apply_event` by event, [`apply`] by
//! change. What belongs to no single entity stands beside them: the deadline of a run, and
//! what follows every decision (limits, retention, the id's record).

pub mod activity;
pub mod cancel;
pub mod close;
pub mod commands;
pub mod describe;
pub mod marker;
pub mod own_time;
pub mod properties;
pub mod search_attributes;
pub mod signal;
pub mod start;
pub mod timer;
pub mod workflow_task;

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use holdfast_proto::command::Command;
use holdfast_proto::common::{Payload, Priority, WorkerVersionStamp, WorkflowExecution};
use holdfast_proto::enums::{EventType, WorkflowExecutionStatus};
use holdfast_proto::errordetails::NotFoundFailure;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::sdk::UserMetadata;
use holdfast_proto::workflow::ResetPointInfo;
use prost::Message;

use crate::change::Change;
use crate::env::Env;
use crate::ids::{ChangeSeq, EventId, Hlc, RunId, Uuid};
use crate::input::{ActivityRef, Halt, HistoryOf, Input, Reply, Target};
use crate::live::{Draft, Live, TaskType};
use crate::reject::Rejection;
use crate::rows::Dirty;

pub use describe::visibility_record;

/// What the command of a worker may know beside the run.
#[derive(Clone, Copy)]
pub struct CommandContext<'a> {
    /// The WORKFLOW_TASK_COMPLETED event that every event of a command names.
    pub completed: EventId,
    /// The worker.
    pub identity: &'a str,
    /// The command itself, for its user metadata.
    pub command: &'a Command,
}

/// What one run is: folded from its changes. Ids and sizes of events, never inputs or results.
#[derive(Clone, PartialEq, prost::Message)]
pub struct State {
    /// How many changes it has folded.
    #[prost(uint64, tag = "1")]
    pub seq: ChangeSeq,
    /// What it was started with, and what upserts made of it.
    #[prost(message, required, tag = "2")]
    pub info: RunInfo,
    /// One more than the last event written.
    #[prost(int64, tag = "3")]
    pub next_event: EventId,
    /// `WorkflowExecutionStatus`.
    #[prost(enumeration = "WorkflowExecutionStatus", tag = "4")]
    pub status: i32,
    /// When it closed; 0 while open.
    #[prost(uint64, tag = "5")]
    pub closed_at: u64,
    /// The workflow task that waits or is in progress.
    #[prost(message, optional, tag = "6")]
    pub workflow_task: Option<workflow_task::WorkflowTask>,
    /// The sticky queue of the worker that has the run in its cache.
    #[prost(message, optional, tag = "7")]
    pub sticky: Option<workflow_task::StickySet>,
    /// Pending activities, by the event that scheduled them.
    #[prost(btree_map = "int64, message", tag = "8")]
    pub activities: BTreeMap<EventId, activity::Activity>,
    /// Pending timers, by timer id.
    #[prost(btree_map = "string, message", tag = "9")]
    pub timers: BTreeMap<String, timer::Timer>,
    /// Events that wait for the workflow task in progress to end; their ids are 0.
    #[prost(message, repeated, tag = "10")]
    pub buffered: Vec<HistoryEvent>,
    /// How many of the next events come from the buffer, and so are already folded; 0 between
    /// drafts.
    #[prost(uint32, tag = "11")]
    pub flushing: u32,
    /// STARTED event of the last completed workflow task; 0 when none was.
    #[prost(int64, tag = "12")]
    pub previous_started: EventId,
    /// A cancel was requested.
    #[prost(bool, tag = "13")]
    pub cancel_requested: bool,
    /// Bytes of all events written.
    #[prost(uint64, tag = "14")]
    pub history_bytes: u64,
    /// Signals received.
    #[prost(uint64, tag = "15")]
    pub signals: u64,
    /// When the first workflow task is due (start delay); 0 once it was scheduled.
    #[prost(uint64, tag = "16")]
    pub first_task_at: u64,
    /// When the closed run is to be deleted; 0 while open.
    #[prost(uint64, tag = "17")]
    pub delete_at: u64,
    /// The run is deleted: no rows.
    #[prost(bool, tag = "18")]
    pub deleted: bool,
    /// Workflow tasks in a row that failed or timed out.
    #[prost(uint32, tag = "19")]
    pub task_problems: u32,
    /// The STARTED event of the run exists and `info` is set.
    #[prost(bool, tag = "20")]
    pub exists: bool,
    /// The latest time that an event carries: none that follows may carry an earlier one, but for
    /// ACTIVITY_TASK_STARTED.
    #[prost(uint64, tag = "21")]
    pub last_event_at: u64,
    /// Requests that made an event, the start first: all of them, for a signal is accepted once
    /// in the life of a run. `Limits::signals`, the length of a history and `Limits::state_bytes`
    /// bound their number.
    #[prost(message, repeated, tag = "22")]
    pub requests: Vec<RequestEvent>,
    /// Builds of the workers that completed a workflow task, as the attribute BuildIds.
    #[prost(string, repeated, tag = "23")]
    pub build_ids: Vec<String>,
    /// Where a reset may lead to, oldest first.
    #[prost(message, repeated, tag = "24")]
    pub reset_points: Vec<ResetPointInfo>,
    /// How the last workflow task ended badly; none after one that completed.
    #[prost(message, optional, tag = "25")]
    pub problem: Option<workflow_task::Problem>,
    /// The workflow task that completed last, for a heartbeat that follows it.
    #[prost(message, optional, tag = "26")]
    pub beat: Option<workflow_task::Beat>,
    /// `seq` when it closed; 0 while open. Lists show it, so that it may not move afterwards.
    #[prost(uint64, tag = "27")]
    pub closed_seq: ChangeSeq,
    /// The deployment of the worker that completed the last workflow task, if it told one.
    #[prost(string, tag = "28")]
    pub worker_deployment: String,
    /// The version of that worker, if it told one.
    #[prost(message, optional, tag = "29")]
    pub worker_version: Option<WorkerVersionStamp>,
    /// How far the run's time is ahead of the leader's clock, in nanoseconds; 0 but for a run that
    /// was open when a clock that was ahead was set right.
    #[prost(uint64, tag = "30")]
    pub ahead: u64,
    /// The number (`task_id`) of its last event. That may be later than all its times: an event is
    /// numbered when it is written.
    #[prost(uint64, tag = "31")]
    pub last_number: u64,
}

impl State {
    /// Whether the run is there and not closed.
    pub fn is_open(&self) -> bool {
        self.exists && !self.deleted && self.closed_at == 0
    }
}

/// A request that made an event of this run.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RequestEvent {
    /// The request id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `EventType`.
    #[prost(int32, tag = "2")]
    pub event_type: i32,
    /// The event.
    #[prost(int64, tag = "3")]
    pub event: EventId,
}

impl State {
    /// Whether a request of this id made an event of this type, which is written or waits in the
    /// buffer.
    pub fn knows_request(&self, event_type: EventType, id: &str) -> bool {
        let event_type = event_type as i32;
        let waits = |event: &HistoryEvent| {
            event.event_type == event_type && request_of(event).is_some_and(|known| known == id)
        };
        !id.is_empty()
            && (self.requests.iter().any(|r| r.event_type == event_type && r.id == id)
                || self.buffered.iter().any(waits))
    }
}

/// The request that made an event, of those that a run remembers.
fn request_of(event: &HistoryEvent) -> Option<&str> {
    match &event.attributes {
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) => Some(&a.request_id),
        Some(Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(a)) => {
            Some(&a.attached_request_id)
        }
        _ => None,
    }
    .filter(|id| !id.is_empty())
    .map(String::as_str)
}

/// What a run was started with; memo and search attributes as they stand. Times in nanoseconds
/// since the epoch, durations in nanoseconds, 0 for "none".
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunInfo {
    /// Workflow id.
    #[prost(string, tag = "1")]
    pub workflow_id: String,
    /// Run id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub run: Vec<u8>,
    /// First run of the chain, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub first_run: Vec<u8>,
    /// Workflow type.
    #[prost(string, tag = "4")]
    pub workflow_type: String,
    /// Normal task queue.
    #[prost(string, tag = "5")]
    pub task_queue: String,
    /// Execution timeout.
    #[prost(uint64, tag = "6")]
    pub execution_timeout: u64,
    /// Run timeout.
    #[prost(uint64, tag = "7")]
    pub run_timeout: u64,
    /// Workflow task timeout.
    #[prost(uint64, tag = "8")]
    pub task_timeout: u64,
    /// Start of the run.
    #[prost(uint64, tag = "9")]
    pub started_at: u64,
    /// When the execution (the whole chain) expires.
    #[prost(uint64, tag = "10")]
    pub execution_expires_at: u64,
    /// When the run expires.
    #[prost(uint64, tag = "11")]
    pub run_expires_at: u64,
    /// Start delay.
    #[prost(uint64, tag = "12")]
    pub first_task_backoff: u64,
    /// Attempt of the run, from 1.
    #[prost(int32, tag = "13")]
    pub attempt: i32,
    /// Memo fields.
    #[prost(btree_map = "string, message", tag = "14")]
    pub memo: BTreeMap<String, Payload>,
    /// Search attributes by the user's names.
    #[prost(btree_map = "string, message", tag = "15")]
    pub search_attributes: BTreeMap<String, Payload>,
    /// Priority.
    #[prost(message, optional, tag = "16")]
    pub priority: Option<Priority>,
    /// User metadata of the start.
    #[prost(message, optional, tag = "17")]
    pub user_metadata: Option<UserMetadata>,
}

/// The run that the shard must load before it decides `input`.
pub fn target(input: &Input) -> Target {
    match input {
        Input::Start(_) | Input::SignalWithStart(_) => Target::Current,
        Input::Signal(r) => named(r.workflow_execution.as_ref()),
        Input::RequestCancel(r) => {
            in_chain(&r.first_execution_run_id, r.workflow_execution.as_ref())
        }
        Input::Terminate(r) => in_chain(&r.first_execution_run_id, r.workflow_execution.as_ref()),
        Input::Describe { run } | Input::History { run, .. } | Input::ResetSticky { run } => {
            run_or_current(*run)
        }
        Input::GrantWorkflowTask { run, .. }
        | Input::GrantActivity { run, .. }
        | Input::Revoke { run, .. }
        | Input::FlushStarts { run }
        | Input::StickyUnavailable { run, .. }
        | Input::Due { run }
        | Input::Overgrown { run }
        | Input::Delete { run } => Target::Run(*run),
        Input::WorkflowTaskCompleted { token, .. }
        | Input::WorkflowTaskRefused { token, .. }
        | Input::WorkflowTaskFailed { token, .. } => Target::Run(token.run_id()),
        Input::ActivityCompleted { who, .. }
        | Input::ActivityFailed { who, .. }
        | Input::ActivityCanceled { who, .. }
        | Input::Heartbeat { who, .. } => match who {
            ActivityRef::Token(token) => Target::Run(token.run_id()),
            ActivityRef::ById { run, .. } => run_or_current(*run),
        },
    }
}

fn run_or_current(run: Option<RunId>) -> Target {
    run.map_or(Target::Current, Target::Run)
}

/// A run id that is not one passed [`crate::validate`] only if that check is missing; it then
/// names a run that never exists.
fn named(execution: Option<&WorkflowExecution>) -> Target {
    match execution.map_or("", |e| e.run_id.as_str()) {
        "" => Target::Current,
        run => Target::Run(Uuid::parse(run).unwrap_or(Uuid::NIL)),
    }
}

/// The first run of a chain stands for the chain, whatever run is named beside it.
fn in_chain(first_run: &str, execution: Option<&WorkflowExecution>) -> Target {
    if first_run.is_empty() { named(execution) } else { Target::Current }
}

/// Turns an input into changes of `draft`, and the answer. Only on the leader of the shard.
///
/// On `Halt::Discard` the caller throws the draft away and decides what it carries instead.
pub fn decide(draft: &mut Draft, input: Input, env: &Env<'_>) -> Result<Reply, Halt> {
    let known = draft.runs.len();
    let decided = dispatch(draft, input, env);
    if matches!(decided, Err(Halt::Discard(_))) {
        return decided;
    }
    settle(draft, env);
    let stamped = env.now.0.saturating_add(env.stamped.get());
    for run in &mut draft.runs {
        run.last = run.last.max(stamped);
    }
    match draft.runs[..known].iter_mut().find_map(|run| close::overgrown(run, env)) {
        Some(run) => Err(Halt::Discard(Box::new(Input::Overgrown { run }))),
        None => decided,
    }
}

fn dispatch(draft: &mut Draft, input: Input, env: &Env<'_>) -> Result<Reply, Halt> {
    let at = target(&input);
    Ok(match input {
        Input::Start(request) => start::start(draft, *request, env)?,
        Input::SignalWithStart(request) => signal::with_start(draft, *request, env)?,
        Input::Signal(request) => signal::signal(draft, at, *request, env)?,
        Input::RequestCancel(request) => cancel::request(draft, at, *request, env)?,
        Input::Terminate(request) => close::terminate_requested(draft, at, *request, env)?,
        Input::Describe { .. } => describe::describe(writable(draft, at, env)?, env),
        Input::History { of: HistoryOf::Events, .. } => {
            describe::history(writable(draft, at, env)?, env)
        }
        Input::History { of: HistoryOf::Close, .. } => describe::history(run(draft, at)?, env),
        Input::GrantWorkflowTask { scheduled, stamp, poller, .. } => {
            workflow_task::grant(draft, scheduled, stamp, poller, env)
        }
        Input::GrantActivity { scheduled, stamp, poller, .. } => {
            grant_activity(draft, scheduled, stamp, poller, env)?
        }
        Input::Revoke { start_id, .. } => revoke(draft, start_id),
        Input::FlushStarts { .. } => flush_starts(draft, env),
        Input::WorkflowTaskCompleted { token, request } => {
            workflow_task::answer::completed(draft, &token, *request, env)?
        }
        Input::WorkflowTaskRefused { token, identity, refusal, overlay } => {
            workflow_task::answer::refused(draft, &token, &identity, *refusal, *overlay, env)?
        }
        Input::WorkflowTaskFailed { token, request } => {
            workflow_task::answer::failed(draft, &token, *request, env)?
        }
        Input::ActivityCompleted { who, request } => {
            activity::completed(writable(draft, at, env)?, env, &who, &request)?
        }
        Input::ActivityFailed { who, request } => {
            activity::failed(writable(draft, at, env)?, env, &who, &request)?
        }
        Input::ActivityCanceled { who, request } => {
            activity::canceled(writable(draft, at, env)?, env, &who, &request)?
        }
        Input::Heartbeat { who, request } => {
            activity::heartbeat(writable(draft, at, env)?, env, &who, &request)?
        }
        Input::ResetSticky { .. } => workflow_task::reset_sticky(writable(draft, at, env)?)?,
        Input::StickyUnavailable { scheduled, stamp, .. } => {
            workflow_task::sticky_unavailable(draft, scheduled, stamp, env)
        }
        Input::Due { .. } => due(draft, env),
        Input::Overgrown { .. } => close::end_overgrown(writable(draft, at, env)?, env)?,
        Input::Delete { .. } => close::delete(draft, env),
    })
}

/// The run that the input names, or Temporal's NOT_FOUND.
fn run(draft: &mut Draft, at: Target) -> Result<&mut Live, Rejection> {
    let refusal = not_found(draft, at);
    draft.target().filter(|run| run.state.exists && !run.state.deleted).ok_or(refusal)
}

/// As [`run`], with its grants made durable: what follows may push, or shows what was granted, which
/// no crash and no poller that went away may then undo.
fn writable<'a>(
    draft: &'a mut Draft,
    at: Target,
    env: &Env<'_>,
) -> Result<&'a mut Live, Rejection> {
    let run = run(draft, at)?;
    make_starts_durable(run, env);
    Ok(run)
}

fn not_found(draft: &Draft, at: Target) -> Rejection {
    let id = &draft.key.id;
    Rejection::not_found(match at {
        Target::Current => format!("workflow not found for ID: {id}"),
        Target::Run(run) => {
            format!("workflow execution not found for workflow ID \"{id}\" and run ID \"{run}\"")
        }
    })
    .with(&NotFoundFailure::default())
}

/// NOT_FOUND for what needs an open run.
pub(crate) fn already_completed() -> Rejection {
    Rejection::not_found("workflow execution already completed").with(&NotFoundFailure::default())
}

/// Turns the grants of a run into changes, oldest first. Every decision that pushes a change
/// onto a run does this before, so that the log has things in the order in which workers saw
/// them: a signal that meets a granted task must be buffered behind it. Before all, the log learns
/// what time it is for the run.
pub fn make_starts_durable(run: &mut Live, env: &Env<'_>) {
    own_time::keep(run, env);
    let mut grants: Vec<_> = std::mem::take(&mut run.overlay.grants).into_iter().collect();
    grants.sort_by_key(|(_, grant)| grant.at);
    for (scheduled, grant) in grants {
        match grant.task {
            TaskType::Workflow => workflow_task::start_durably(run, scheduled, &grant, env),
            TaskType::Activity => activity::materialise(run, scheduled, &grant),
        }
    }
}

fn grant_activity(
    draft: &mut Draft,
    scheduled: EventId,
    stamp: u32,
    poller: crate::input::Poller,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    let Some(run) = draft.target().filter(|run| run.state.is_open()) else {
        return Ok(Reply::Gone);
    };
    // Counted attempts are durable before anyone hears of them, so this one pushes.
    let counted = |a: &activity::Activity| a.retry_policy.maximum_attempts > 0;
    if run.state.activities.get(&scheduled).is_some_and(counted) {
        make_starts_durable(run, env);
    }
    activity::grant(run, env, scheduled, stamp, poller)
}

/// A grant that is not durable can be taken back; the backlog row is still there (A15).
fn revoke(draft: &mut Draft, start_id: Uuid) -> Reply {
    let Some(run) = draft.target() else { return Reply::Gone };
    let before = run.overlay.grants.len();
    run.overlay.grants.retain(|_, grant| grant.start_id != start_id);
    if run.overlay.grants.len() < before { Reply::Done } else { Reply::Gone }
}

fn flush_starts(draft: &mut Draft, env: &Env<'_>) -> Reply {
    if let Some(run) = draft.target() {
        make_starts_durable(run, env);
    }
    Reply::Done
}

/// Everything that is due at `env.now`: timers and activities, which a workflow task that times
/// out in the same moment may buffer, then that task. The end of the run itself comes when its
/// time has: what was due before it happened before it, however late the leader looks.
fn due(draft: &mut Draft, env: &Env<'_>) -> Reply {
    let Some(run) = draft.target().filter(|run| run.state.exists && !run.state.deleted) else {
        return Reply::Gone;
    };
    own_time::keep(run, env);
    if deadline(&run.state).is_none_or(|at| at > env.now) {
        return Reply::Done;
    }
    if !run.state.is_open() {
        return close::delete(draft, env);
    }
    make_starts_durable(run, env);
    let expires = close::deadline(&run.state).filter(|at| *at <= env.now);
    let until = expires.map_or(env.now, |at| Hlc(at.0.saturating_sub(1)));
    let news = [timer::due(run, env, until), activity::due(run, env, until)];
    if news.contains(&true) {
        workflow_task::schedule_if_needed(run, env);
    }
    workflow_task::due(run, env, until);
    if expires.is_some() && run.state.is_open() {
        close::time_out(run, env);
    }
    Reply::Done
}

/// The earliest time at which a run needs attention (one deadline row per run, C2).
pub fn deadline(state: &State) -> Option<Hlc> {
    if !state.exists || state.deleted {
        return None;
    }
    if state.closed_at != 0 {
        return (state.delete_at != 0).then_some(Hlc(state.delete_at));
    }
    let all = [
        close::deadline(state),
        workflow_task::deadline(state),
        activity::deadline(state),
        timer::deadline(state),
    ];
    all.into_iter().flatten().min()
}

/// What follows every decision: limits of the run, retention of one that closed, and the
/// record of the id.
fn settle(draft: &mut Draft, env: &Env<'_>) {
    for run in &mut draft.runs {
        if run.changes.is_empty() {
            continue;
        }
        workflow_task::enforce_buffer_limits(run, env);
        close::enforce_history_limits(run, env);
        close::set_retention(run, env);
        close::record_status(&mut draft.record, run);
    }
}

/// Folds one change into a run.
///
/// # Panics
/// On a change that this version never writes, or that contradicts the state: the log is damaged.
pub fn apply(state: &mut State, change: &Change, dirty: &mut Dirty) {
    state.seq += 1;
    match change {
        Change::Event(event) => written(state, event, dirty),
        Change::Buffered(event) => {
            state.buffered.push(event.as_ref().clone());
            apply_event(state, event, dirty);
        }
        Change::BufferFlushed(b) => {
            assert_eq!(b.count as usize, state.buffered.len(), "the buffer holds what is flushed");
            state.buffered.clear();
            state.flushing = b.count;
        }
        Change::BufferDropped(b) => timer::buffer_dropped(state, b),
        Change::TaskAttempt(b) => workflow_task::attempted(state, b, dirty),
        Change::TaskStarted(b) => workflow_task::started_without_event(state, b, dirty),
        Change::TaskUnstarted(b) => workflow_task::unstarted(state, b, dirty),
        Change::StickySet(b) => workflow_task::sticky_set(state, b),
        Change::AttemptStarted(b) => activity::attempt_started(state, b, dirty),
        Change::AttemptRetried(b) => activity::attempt_retried(state, b, dirty),
        Change::Heartbeated(b) => activity::heartbeated(state, b, dirty),
        Change::HeartbeatRearmed(b) => activity::heartbeat_rearmed(state, b, dirty),
        Change::RetentionSet(b) => close::retention_set(state, b, dirty),
        Change::RunDeleted => close::deleted(state, dirty),
        Change::StartedBy(b) => start::started_by(state, b),
        Change::Ahead(b) => own_time::set(state, b, dirty),
        Change::RequestSeen(_) | Change::CurrentRun(_) => {
            panic!("{change:?} is not a change of a run")
        }
    }
}

/// The bookkeeping of every event that gets its id, and its meaning unless that was folded when
/// it was buffered.
fn written(state: &mut State, event: &HistoryEvent, dirty: &mut Dirty) {
    assert_eq!(event.event_id, state.next_event.max(1), "events have no hole");
    assert!(state.closed_at == 0, "nothing follows the close event");
    state.next_event = event.event_id + 1;
    state.history_bytes += event.encoded_len() as u64;
    let at = event.event_time.as_ref().map_or(Hlc::ZERO, Hlc::from_timestamp).0;
    state.last_event_at = state.last_event_at.max(at);
    state.last_number = state.last_number.max(u64::try_from(event.task_id).unwrap_or(0));
    note_request(state, event);
    if state.flushing > 0 {
        state.flushing -= 1;
        return;
    }
    apply_event(state, event, dirty);
}

/// Requests that made an event are remembered. Their event ids exist only now.
fn note_request(state: &mut State, event: &HistoryEvent) {
    if let Some(id) = request_of(event) {
        let (id, event_type) = (id.to_owned(), event.event_type);
        state.requests.push(RequestEvent { id, event_type, event: event.event_id });
    }
}

/// Folds one event into a run, when it is written or when it is buffered (its id is 0 then).
#[expect(clippy::too_many_lines, reason = "one match of one-line arms")]
fn apply_event(state: &mut State, event: &HistoryEvent, dirty: &mut Dirty) {
    let Some(attributes) = &event.attributes else {
        panic!("event {} has no attributes", event.event_id);
    };
    match attributes {
        Attributes::WorkflowExecutionStartedEventAttributes(a) => {
            start::started(state, event, a, dirty)
        }
        Attributes::WorkflowExecutionCompletedEventAttributes(_) => {
            close::closed(state, WorkflowExecutionStatus::Completed, dirty)
        }
        Attributes::WorkflowExecutionFailedEventAttributes(_) => {
            close::closed(state, WorkflowExecutionStatus::Failed, dirty)
        }
        Attributes::WorkflowExecutionTimedOutEventAttributes(_) => {
            close::closed(state, WorkflowExecutionStatus::TimedOut, dirty)
        }
        Attributes::WorkflowTaskScheduledEventAttributes(a) => {
            workflow_task::scheduled(state, event, a, dirty)
        }
        Attributes::WorkflowTaskStartedEventAttributes(a) => {
            workflow_task::started(state, event, a, dirty)
        }
        Attributes::WorkflowTaskCompletedEventAttributes(a) => {
            workflow_task::completed(state, event, a, dirty)
        }
        Attributes::WorkflowTaskTimedOutEventAttributes(a) => {
            workflow_task::timed_out(state, a, dirty)
        }
        Attributes::WorkflowTaskFailedEventAttributes(a) => workflow_task::failed(state, a, dirty),
        Attributes::ActivityTaskScheduledEventAttributes(a) => {
            activity::scheduled(state, event, a, dirty)
        }
        Attributes::ActivityTaskStartedEventAttributes(a) => {
            activity::started(state, event, a, dirty)
        }
        Attributes::ActivityTaskCompletedEventAttributes(a) => {
            activity::event_completed(state, event, a, dirty)
        }
        Attributes::ActivityTaskFailedEventAttributes(a) => {
            activity::event_failed(state, event, a, dirty)
        }
        Attributes::ActivityTaskTimedOutEventAttributes(a) => {
            activity::event_timed_out(state, event, a, dirty)
        }
        Attributes::TimerStartedEventAttributes(a) => timer::started(state, event, a, dirty),
        Attributes::TimerFiredEventAttributes(a) => timer::fired(state, event, a, dirty),
        Attributes::ActivityTaskCancelRequestedEventAttributes(a) => {
            activity::event_cancel_requested(state, event, a, dirty)
        }
        Attributes::ActivityTaskCanceledEventAttributes(a) => {
            activity::event_canceled(state, event, a, dirty)
        }
        Attributes::TimerCanceledEventAttributes(a) => timer::canceled(state, event, a, dirty),
        Attributes::MarkerRecordedEventAttributes(_) => {}
        Attributes::WorkflowExecutionSignaledEventAttributes(_) => signal::signaled(state),
        Attributes::WorkflowExecutionTerminatedEventAttributes(_) => {
            close::closed(state, WorkflowExecutionStatus::Terminated, dirty)
        }
        Attributes::WorkflowExecutionCancelRequestedEventAttributes(_) => cancel::requested(state),
        Attributes::WorkflowExecutionCanceledEventAttributes(_) => {
            close::closed(state, WorkflowExecutionStatus::Canceled, dirty)
        }
        Attributes::UpsertWorkflowSearchAttributesEventAttributes(a) => {
            search_attributes::upserted(state, event, a, dirty)
        }
        Attributes::WorkflowPropertiesModifiedEventAttributes(a) => {
            properties::modified(state, event, a, dirty)
        }
        Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(a) => start::options_updated(a),
        Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_)
        | Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(_)
        | Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(_)
        | Attributes::WorkflowExecutionContinuedAsNewEventAttributes(_)
        | Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(_)
        | Attributes::StartChildWorkflowExecutionFailedEventAttributes(_)
        | Attributes::ChildWorkflowExecutionStartedEventAttributes(_)
        | Attributes::ChildWorkflowExecutionCompletedEventAttributes(_)
        | Attributes::ChildWorkflowExecutionFailedEventAttributes(_)
        | Attributes::ChildWorkflowExecutionCanceledEventAttributes(_)
        | Attributes::ChildWorkflowExecutionTimedOutEventAttributes(_)
        | Attributes::ChildWorkflowExecutionTerminatedEventAttributes(_)
        | Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(_)
        | Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(_)
        | Attributes::ExternalWorkflowExecutionSignaledEventAttributes(_)
        | Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(_)
        | Attributes::WorkflowExecutionUpdateRejectedEventAttributes(_)
        | Attributes::WorkflowExecutionUpdateCompletedEventAttributes(_)
        | Attributes::WorkflowPropertiesModifiedExternallyEventAttributes(_)
        | Attributes::ActivityPropertiesModifiedExternallyEventAttributes(_)
        | Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(_)
        | Attributes::NexusOperationScheduledEventAttributes(_)
        | Attributes::NexusOperationStartedEventAttributes(_)
        | Attributes::NexusOperationCompletedEventAttributes(_)
        | Attributes::NexusOperationFailedEventAttributes(_)
        | Attributes::NexusOperationCanceledEventAttributes(_)
        | Attributes::NexusOperationTimedOutEventAttributes(_)
        | Attributes::NexusOperationCancelRequestedEventAttributes(_)
        | Attributes::NexusOperationCancelRequestCompletedEventAttributes(_)
        | Attributes::NexusOperationCancelRequestFailedEventAttributes(_)
        | Attributes::WorkflowExecutionPausedEventAttributes(_)
        | Attributes::WorkflowExecutionUnpausedEventAttributes(_)
        | Attributes::WorkflowExecutionTimeSkippingTransitionedEventAttributes(_) => {
            panic!("this version never writes {:?}: {event:?}", event.event_type())
        }
    }
}
