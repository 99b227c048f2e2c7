//! Workflow tasks: what a run remembers of the one that waits or is in progress.
//!
//! ```text
//! schedule -> SCHEDULED (attempt 1) | TaskAttempt (later ones: nothing in history until they complete)
//! grant    -> overlay -> STARTED | TaskStarted | SCHEDULED, STARTED (news came meanwhile: attempt 1 again)
//! answer   -> COMPLETED | FAILED | TaskUnstarted;  due -> TIMED_OUT | TaskUnstarted
//! ```
//!
//! State, schedule, rows and changes are here; handing out is in `grant`, the ways a task ends in
//! `end`, and what a worker's answer does in `answer`.

pub mod answer;
pub mod end;
pub mod grant;

pub use end::{due, enforce_buffer_limits, force_out, make_room, reset_sticky, sticky_unavailable};
pub use grant::{given, grant, start_durably, start_inline, transient_events};

use std::time::Duration;

use holdfast_proto::enums::{TaskQueueKind, TimeoutType};
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    HistoryEvent, WorkflowTaskCompletedEventAttributes, WorkflowTaskFailedEventAttributes,
    WorkflowTaskScheduledEventAttributes, WorkflowTaskStartedEventAttributes,
    WorkflowTaskTimedOutEventAttributes,
};
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflow::ResetPointInfo;

use crate::change::Change;
use crate::env::Env;
use crate::ids::{EventId, Hlc, Uuid};
use crate::limits::Limits;
use crate::live::{Live, TaskType};
use crate::rows::{BacklogRow, Dirty};
use crate::validate::{duration, priority_level};
use crate::workflow::State;

/// Who the server is in events that it causes by itself.
pub const SERVER_IDENTITY: &str = "history-service";
/// The request id of a task that went out inside the answer to the one before.
pub const INLINE_REQUEST_ID: &str = "request-from-RespondWorkflowTaskCompleted";
/// From this many bad ends in a row on, the run says so in a search attribute.
pub const PROBLEMS_REPORTED: u32 = 5;
/// Attempts up to this one have the workflow's own timeout; later ones get more.
const ATTEMPTS_WITH_PLAIN_TIMEOUT: u32 = 3;
/// How much more the first of those gets; each further one twice that of the one before.
const FIRST_BACKOFF: Duration = Duration::from_secs(5);
/// How many reset points a run remembers.
const RESET_POINTS: usize = 20;
/// How many values BuildIds has at most; "unversioned", the first, always stays.
const BUILD_IDS: usize = 20;

/// The workflow task that waits or is in progress. Times in nanoseconds since the epoch.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WorkflowTask {
    /// The SCHEDULED event; of an attempt above 1 the id it would have.
    #[prost(int64, tag = "1")]
    pub scheduled: EventId,
    /// The STARTED event, real or virtual; 0 while it waits.
    #[prost(int64, tag = "2")]
    pub started: EventId,
    /// The attempt, from 1.
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
    /// When it was scheduled.
    #[prost(uint64, tag = "4")]
    pub scheduled_at: u64,
    /// When the first of a row of heartbeats was scheduled.
    #[prost(uint64, tag = "5")]
    pub original_scheduled_at: u64,
    /// When it was started; 0 while it waits.
    #[prost(uint64, tag = "6")]
    pub started_at: u64,
    /// Start to close, in nanoseconds.
    #[prost(uint64, tag = "7")]
    pub timeout: u64,
    /// The queue it waits on.
    #[prost(string, tag = "8")]
    pub queue: String,
    /// That queue is the sticky one.
    #[prost(bool, tag = "9")]
    pub sticky: bool,
    /// Schedule to start, in nanoseconds. Only on sticky queues, where 0 is no time at all.
    #[prost(uint64, tag = "10")]
    pub schedule_to_start: u64,
    /// Counts changes of its shape, so that offers of the old one are recognised.
    #[prost(uint32, tag = "11")]
    pub stamp: u32,
    /// `request_id` of STARTED: the start id as text.
    #[prost(string, tag = "12")]
    pub request_id: String,
    /// The worker that has it.
    #[prost(string, tag = "13")]
    pub identity: String,
    /// Its build; empty when it did not tell.
    #[prost(string, tag = "14")]
    pub build_id: String,
}

impl WorkflowTask {
    /// The start id; nil unless the request that started it has the form of one.
    fn start(&self) -> Uuid {
        Uuid::parse(&self.request_id).unwrap_or(Uuid::NIL)
    }
}

/// Body of [`Change::TaskAttempt`]: an attempt above 1, always on the normal queue.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskAttempt {
    /// The id that its SCHEDULED event would have.
    #[prost(int64, tag = "1")]
    pub scheduled: EventId,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// When.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// Start to close, in nanoseconds.
    #[prost(uint64, tag = "4")]
    pub timeout: u64,
}

/// Body of [`Change::TaskStarted`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskStarted {
    /// The id that its STARTED event would have.
    #[prost(int64, tag = "1")]
    pub started: EventId,
    /// The start id as text.
    #[prost(string, tag = "2")]
    pub request_id: String,
    /// When.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// The worker.
    #[prost(string, tag = "4")]
    pub identity: String,
    /// Its build.
    #[prost(string, tag = "5")]
    pub build_id: String,
}

/// Body of [`Change::TaskUnstarted`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskUnstarted {
    /// The waiting task moved from the sticky queue to the normal one; otherwise it ended.
    #[prost(bool, tag = "1")]
    pub moved: bool,
    /// How it ended.
    #[prost(message, optional, tag = "2")]
    pub problem: Option<Problem>,
}

/// Body of [`Change::StickySet`], and what the state remembers of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StickySet {
    /// The worker's own queue; empty clears stickiness.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// How long a task may wait there, in nanoseconds; 0 is not at all.
    #[prost(uint64, tag = "2")]
    pub timeout: u64,
}

/// How a workflow task ended badly.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Problem {
    /// `WorkflowTaskFailedCause`, when it failed.
    #[prost(int32, tag = "1")]
    pub cause: i32,
    /// `TimeoutType`, when it timed out.
    #[prost(int32, tag = "2")]
    pub timeout: i32,
}

/// A completed task that may turn out to have been a heartbeat.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Beat {
    /// Its COMPLETED event.
    #[prost(int64, tag = "1")]
    pub completed: EventId,
    /// Its `original_scheduled_at`.
    #[prost(uint64, tag = "2")]
    pub since: u64,
}

// Decisions: schedule.

/// Something happened that the worker must see: schedules a task unless one waits or is in
/// progress, or the run still waits for its first (start delay).
pub fn schedule_if_needed(run: &mut Live, env: &Env<'_>) {
    if run.state.first_task_at == 0 {
        schedule_now(run, env);
    }
}

/// As [`schedule_if_needed`], also during a start delay.
pub fn schedule_now(run: &mut Live, env: &Env<'_>) {
    if run.state.is_open() && run.state.workflow_task.is_none() {
        schedule(run, env, 1);
    }
}

fn schedule(run: &mut Live, env: &Env<'_>, attempt: u32) {
    let info = &run.state.info;
    let timeout = start_to_close(info.task_timeout, attempt, env.limits);
    if attempt > 1 {
        let scheduled = run.state.next_event;
        run.push(Change::TaskAttempt(TaskAttempt { scheduled, attempt, at: env.now.0, timeout }));
        return;
    }
    let queue = match &run.state.sticky {
        Some(sticky) => sticky_queue(&sticky.queue, &info.task_queue),
        None => normal_queue(&info.task_queue),
    };
    run.event(env, scheduled_attributes(queue, timeout, attempt));
}

/// From the fourth attempt on a task gets more and more time: a worker that replays a long
/// history under load would time out for ever otherwise.
fn start_to_close(plain: u64, attempt: u32, limits: &Limits) -> u64 {
    let Some(extra) = attempt.checked_sub(ATTEMPTS_WITH_PLAIN_TIMEOUT + 1) else { return plain };
    let more = FIRST_BACKOFF.saturating_mul(1 << extra.min(30)).min(limits.workflow_task_retry_max);
    plain.saturating_add(more.as_nanos() as u64)
}

/// A normal queue, as events name it.
pub fn normal_queue(name: &str) -> TaskQueue {
    TaskQueue {
        name: name.to_owned(),
        kind: TaskQueueKind::Normal as i32,
        normal_name: String::new(),
    }
}

fn sticky_queue(name: &str, normal: &str) -> TaskQueue {
    TaskQueue {
        name: name.to_owned(),
        kind: TaskQueueKind::Sticky as i32,
        normal_name: normal.to_owned(),
    }
}

fn scheduled_attributes(queue: TaskQueue, timeout: u64, attempt: u32) -> Attributes {
    Attributes::WorkflowTaskScheduledEventAttributes(Box::new(
        WorkflowTaskScheduledEventAttributes {
            task_queue: Some(queue),
            start_to_close_timeout: Some(holdfast_proto::duration(timeout)),
            attempt: attempt as i32,
        },
    ))
}

// Rows.

/// When the task, or the wait for the first one, ends by itself.
pub fn deadline(state: &State) -> Option<Hlc> {
    let first = (state.first_task_at != 0).then_some(Hlc(state.first_task_at));
    let task = state.workflow_task.as_ref().and_then(task_deadline);
    first.into_iter().chain(task).min()
}

fn task_deadline(task: &WorkflowTask) -> Option<Hlc> {
    let after = |from: u64, nanos: u64| Some(Hlc(from.saturating_add(nanos)));
    match (task.started, task.sticky) {
        // Without a timeout of its own it is due at once, as in Temporal: it would wait for ever
        // for a worker that died.
        (0, true) => after(task.scheduled_at, task.schedule_to_start),
        (0, false) => None,
        _ => after(task.started_at, task.timeout),
    }
}

/// The row of the task while it waits for a worker.
pub fn backlog_row(state: &State) -> Option<BacklogRow> {
    let task = state.workflow_task.as_ref().filter(|task| task.started == 0 && state.is_open())?;
    Some(BacklogRow {
        queue: task.queue.clone(),
        task: TaskType::Workflow,
        priority: priority_level(state.info.priority.as_ref()),
        at: Hlc(task.scheduled_at),
        scheduled: task.scheduled,
        stamp: task.stamp,
        attempt: task.attempt,
        sticky: task.sticky,
    })
}

// Changes.

/// SCHEDULED. Of an attempt above 1 it is written when that attempt completes.
pub fn scheduled(
    state: &mut State,
    event: &HistoryEvent,
    a: &WorkflowTaskScheduledEventAttributes,
    dirty: &mut Dirty,
) {
    let at = state.last_event_at;
    let queue = a.task_queue.clone().unwrap_or_default();
    let sticky = queue.kind == TaskQueueKind::Sticky as i32;
    let beat = state.beat.take().filter(|beat| beat.completed + 1 == event.event_id);
    state.workflow_task = Some(WorkflowTask {
        scheduled: event.event_id,
        attempt: a.attempt as u32,
        scheduled_at: at,
        original_scheduled_at: beat.map_or(at, |beat| beat.since),
        timeout: duration(a.start_to_close_timeout.as_ref()).unwrap_or(0),
        queue: queue.name,
        sticky,
        schedule_to_start: state.sticky.as_ref().filter(|_| sticky).map_or(0, |s| s.timeout),
        ..WorkflowTask::default()
    });
    state.first_task_at = 0;
    touched(dirty);
}

/// STARTED.
pub fn started(
    state: &mut State,
    event: &HistoryEvent,
    a: &WorkflowTaskStartedEventAttributes,
    dirty: &mut Dirty,
) {
    let at = state.last_event_at;
    let task = pending(state);
    assert_eq!(task.scheduled, a.scheduled_event_id, "STARTED names the task that waits");
    task.started = event.event_id;
    task.started_at = at;
    task.request_id.clone_from(&a.request_id);
    task.identity.clone_from(&a.identity);
    task.build_id = a.worker_version.as_ref().map_or(String::new(), |v| v.build_id.clone());
    touched(dirty);
}

/// COMPLETED.
pub fn completed(
    state: &mut State,
    event: &HistoryEvent,
    a: &WorkflowTaskCompletedEventAttributes,
    dirty: &mut Dirty,
) {
    let task = pending(state);
    assert_eq!(task.started, a.started_event_id, "COMPLETED names the task in progress");
    let since = task.original_scheduled_at;
    state.beat = Some(Beat { completed: event.event_id, since });
    state.previous_started = a.started_event_id;
    state.workflow_task = None;
    dirty.visibility |= state.task_problems >= PROBLEMS_REPORTED;
    state.task_problems = 0;
    state.problem = None;
    note_build(state, event, a, dirty);
    dirty.visibility |= state.worker_deployment != a.worker_deployment_name;
    state.worker_deployment.clone_from(&a.worker_deployment_name);
    state.worker_version.clone_from(&a.worker_version);
    touched(dirty);
}

fn note_build(
    state: &mut State,
    event: &HistoryEvent,
    a: &WorkflowTaskCompletedEventAttributes,
    dirty: &mut Dirty,
) {
    let build = a.worker_version.as_ref().map_or("", |version| version.build_id.as_str());
    let names = ["unversioned".to_owned(), format!("unversioned:{build}")];
    for name in names.into_iter().take(if build.is_empty() { 1 } else { 2 }) {
        if !state.build_ids.contains(&name) {
            if state.build_ids.len() >= BUILD_IDS {
                state.build_ids.remove(1);
            }
            state.build_ids.push(name);
            dirty.visibility = true;
        }
    }
    let known = |p: &ResetPointInfo| p.binary_checksum == a.binary_checksum && p.build_id == build;
    if state.reset_points.iter().any(known) {
        return;
    }
    if state.reset_points.len() >= RESET_POINTS {
        state.reset_points.remove(0);
    }
    state.reset_points.push(ResetPointInfo {
        build_id: build.to_owned(),
        binary_checksum: a.binary_checksum.clone(),
        run_id: Uuid::from_slice(&state.info.run).unwrap_or(Uuid::NIL).to_string(),
        first_workflow_task_completed_id: event.event_id,
        create_time: event.event_time,
        expire_time: None,
        resettable: true,
    });
}

/// FAILED.
pub fn failed(state: &mut State, a: &WorkflowTaskFailedEventAttributes, dirty: &mut Dirty) {
    ended_badly(state, Some(Problem { cause: a.cause, timeout: 0 }), dirty);
}

/// TIMED_OUT. A sticky task that nobody picked up in time is not a problem of the workflow.
pub fn timed_out(state: &mut State, a: &WorkflowTaskTimedOutEventAttributes, dirty: &mut Dirty) {
    let counted = a.timeout_type == TimeoutType::StartToClose as i32;
    ended_badly(state, counted.then_some(Problem { cause: 0, timeout: a.timeout_type }), dirty);
}

fn ended_badly(state: &mut State, problem: Option<Problem>, dirty: &mut Dirty) {
    state.workflow_task = None;
    state.sticky = None;
    if problem.is_some() {
        state.task_problems += 1;
        state.problem = problem;
        dirty.visibility |= state.task_problems >= PROBLEMS_REPORTED;
    }
    touched(dirty);
}

/// [`Change::TaskAttempt`].
pub fn attempted(state: &mut State, b: &TaskAttempt, dirty: &mut Dirty) {
    state.workflow_task = Some(WorkflowTask {
        scheduled: b.scheduled,
        attempt: b.attempt,
        scheduled_at: b.at,
        original_scheduled_at: b.at,
        timeout: b.timeout,
        queue: state.info.task_queue.clone(),
        ..WorkflowTask::default()
    });
    touched(dirty);
}

/// [`Change::TaskStarted`].
pub fn started_without_event(state: &mut State, b: &TaskStarted, dirty: &mut Dirty) {
    let task = pending(state);
    task.started = b.started;
    task.started_at = b.at;
    task.request_id.clone_from(&b.request_id);
    task.identity.clone_from(&b.identity);
    task.build_id.clone_from(&b.build_id);
    touched(dirty);
}

/// [`Change::TaskUnstarted`].
pub fn unstarted(state: &mut State, b: &TaskUnstarted, dirty: &mut Dirty) {
    if !b.moved {
        return ended_badly(state, b.problem.clone(), dirty);
    }
    let normal = state.info.task_queue.clone();
    let task = pending(state);
    task.queue = normal;
    task.sticky = false;
    task.schedule_to_start = 0;
    task.stamp += 1;
    touched(dirty);
}

/// [`Change::StickySet`]. A task that waits already stays where it is.
pub fn sticky_set(state: &mut State, b: &StickySet) {
    state.sticky = (!b.queue.is_empty()).then(|| b.clone());
}

fn pending(state: &mut State) -> &mut WorkflowTask {
    match &mut state.workflow_task {
        Some(task) => task,
        None => panic!("a workflow task is pending"),
    }
}

fn touched(dirty: &mut Dirty) {
    dirty.workflow_task = true;
    dirty.deadline = true;
}
