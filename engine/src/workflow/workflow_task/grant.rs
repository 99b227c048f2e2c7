//! Handing a workflow task to a worker: the grant, its durable start, and the check of a token.
//!
//! A start is first a grant in the overlay, and the events that stand for it are a function of
//! the state alone (`Plan`): the worker's copy and what is written later so agree.

use holdfast_proto::enums::{SuggestContinueAsNewReason, TaskQueueKind};
use holdfast_proto::errordetails::NotFoundFailure;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    HistoryEvent, WorkflowTaskCompletedEventAttributes, WorkflowTaskStartedEventAttributes,
};

use super::{StickySet, TaskStarted, WorkflowTask, normal_queue, scheduled_attributes};
use crate::change::Change;
use crate::env::Env;
use crate::event::{event_type, worker_version};
use crate::ids::{EventId, ExecutionKey, Hlc, Uuid};
use crate::input::{Poller, Reply, WorkflowTaskGrant};
use crate::limits::Limits;
use crate::live::{Draft, Grant, Live, TaskType};
use crate::reject::Rejection;
use crate::token::TaskToken;
use crate::workflow::State;

/// Hands the task to a poller, if it is still that task. Writes nothing: the grant lives in the
/// overlay until the next entry of the shard (DESIGN 3, rule 5).
pub fn grant(
    draft: &mut Draft,
    scheduled: EventId,
    stamp: u32,
    poller: Poller,
    env: &Env<'_>,
) -> Reply {
    let key = draft.key.clone();
    let Some(run) = draft.target() else { return Reply::Gone };
    if !waits(run, scheduled, stamp) {
        return Reply::Gone;
    }
    let grant = Grant {
        task: TaskType::Workflow,
        start_id: poller.start_id,
        base: run.state.seq,
        at: env.now,
        identity: poller.identity,
        queue: poller.queue,
        kind: poller.kind,
        build_id: poller.build_id,
    };
    let Some(task) = &run.state.workflow_task else { return Reply::Gone };
    let plan = Plan::of(&run.state, task);
    let start = Start::of(&grant);
    let tail = plan.events(&run.state, task, &start, env.limits);
    for _ in &tail {
        env.next_task_id();
    }
    let sticky = is_sticky_worker(&run.state, &grant);
    let reply = WorkflowTaskGrant {
        token: TaskToken {
            stamp,
            base: grant.base,
            ..plan.token(&key, run, &start, grant.start_id)
        },
        workflow_type: run.state.info.workflow_type.clone(),
        previous_started: run.state.previous_started,
        first_event: if sticky { run.state.previous_started + 1 } else { 1 },
        next_event: run.state.next_event,
        tail,
        task_queue: run.state.info.task_queue.clone(),
        scheduled_at: if plan.renewed { grant.at } else { Hlc(task.scheduled_at) },
    };
    run.overlay.grants.insert(scheduled, grant);
    Reply::WorkflowTask(Box::new(reply))
}

pub(super) fn waits(run: &Live, scheduled: EventId, stamp: u32) -> bool {
    let task = run.state.workflow_task.as_ref();
    run.state.is_open()
        && task.is_some_and(|t| t.scheduled == scheduled && t.stamp == stamp)
        && !run.task_in_progress()
}

/// Whether a start went to the worker that has the run in its cache.
fn is_sticky_worker(state: &State, grant: &Grant) -> bool {
    grant.kind == TaskQueueKind::Sticky
        && state.sticky.as_ref().is_some_and(|sticky| sticky.queue == grant.queue)
}

/// A start, granted or durable.
struct Start<'a> {
    at: Hlc,
    identity: &'a str,
    build_id: &'a str,
    request_id: String,
}

impl<'a> Start<'a> {
    fn of(grant: &'a Grant) -> Start<'a> {
        Start {
            at: grant.at,
            identity: &grant.identity,
            build_id: &grant.build_id,
            request_id: grant.start_id.to_string(),
        }
    }

    fn durable(task: &'a WorkflowTask) -> Start<'a> {
        Start {
            at: Hlc(task.started_at),
            identity: &task.identity,
            build_id: &task.build_id,
            request_id: task.request_id.clone(),
        }
    }
}

/// Which events stand for a start that is not in history, and their ids. A function of the state
/// alone, so that the worker's copy and what is written later agree.
struct Plan {
    scheduled: EventId,
    started: EventId,
    attempt: u32,
    /// SCHEDULED is not in history.
    unwritten: bool,
    /// News came while an attempt above 1 waited: it is attempt 1 again, behind the news.
    renewed: bool,
}

impl Plan {
    fn of(state: &State, task: &WorkflowTask) -> Plan {
        let next = state.next_event;
        let unwritten = task.attempt > 1;
        let renewed = unwritten && task.scheduled != next;
        Plan {
            scheduled: if renewed { next } else { task.scheduled },
            started: if unwritten { next + 1 } else { next },
            attempt: if renewed { 1 } else { task.attempt },
            unwritten,
            renewed,
        }
    }

    fn scheduled_event(&self, state: &State, task: &WorkflowTask, at: Hlc) -> HistoryEvent {
        let (at, timeout) = match self.renewed {
            true => (at, state.info.task_timeout),
            false => (Hlc(task.scheduled_at), task.timeout),
        };
        event(
            self.scheduled,
            at,
            scheduled_attributes(normal_queue(&task.queue), timeout, self.attempt),
        )
    }

    fn events(
        &self,
        state: &State,
        task: &WorkflowTask,
        start: &Start<'_>,
        limits: &Limits,
    ) -> Vec<HistoryEvent> {
        let scheduled = self.unwritten.then(|| self.scheduled_event(state, task, start.at));
        let started =
            event(self.started, start.at, started_attributes(state, self.scheduled, start, limits));
        let mut events: Vec<_> = scheduled.into_iter().chain([started]).collect();
        for (n, event) in events.iter_mut().enumerate() {
            event.task_id = i64::try_from(start.at.0).unwrap_or(i64::MAX).saturating_add(n as i64);
        }
        events
    }

    fn token(
        &self,
        key: &ExecutionKey,
        run: &Live,
        start: &Start<'_>,
        start_id: Uuid,
    ) -> TaskToken {
        TaskToken {
            namespace: key.namespace.0.to_vec(),
            workflow_id: key.id.to_string(),
            run: run.run.0.to_vec(),
            scheduled: self.scheduled,
            started: self.started,
            attempt: self.attempt,
            stamp: 0,
            start_id: start_id.0.to_vec(),
            base: run.state.seq,
            started_at: start.at.0,
            identity: start.identity.to_owned(),
            activity_id: String::new(),
            build_id: start.build_id.to_owned(),
        }
    }
}

fn event(id: EventId, at: Hlc, attributes: Attributes) -> HistoryEvent {
    HistoryEvent {
        event_id: id,
        event_time: Some(at.timestamp()),
        event_type: event_type(&attributes) as i32,
        attributes: Some(attributes),
        ..HistoryEvent::default()
    }
}

fn started_attributes(
    state: &State,
    scheduled: EventId,
    start: &Start<'_>,
    limits: &Limits,
) -> Attributes {
    let mut reasons = Vec::new();
    if state.history_bytes >= limits.history_bytes_suggest {
        reasons.push(SuggestContinueAsNewReason::HistorySizeTooLarge as i32);
    }
    if state.next_event > limits.history_events_suggest {
        reasons.push(SuggestContinueAsNewReason::TooManyHistoryEvents as i32);
    }
    Attributes::WorkflowTaskStartedEventAttributes(Box::new(WorkflowTaskStartedEventAttributes {
        scheduled_event_id: scheduled,
        identity: start.identity.to_owned(),
        request_id: start.request_id.clone(),
        suggest_continue_as_new: !reasons.is_empty(),
        suggest_continue_as_new_reasons: reasons,
        history_size_bytes: i64::try_from(state.history_bytes).unwrap_or(i64::MAX),
        worker_version: worker_version(start.build_id),
        ..WorkflowTaskStartedEventAttributes::default()
    }))
}

/// Makes a grant durable. Of an attempt above 1 nothing may show in history before it completes.
/// Does nothing when the task is not that one any more.
pub fn start_durably(run: &mut Live, scheduled: EventId, grant: &Grant, env: &Env<'_>) {
    let same = |task: &&WorkflowTask| task.started == 0 && task.scheduled == scheduled;
    let Some(task) = run.state.workflow_task.as_ref().filter(same).cloned() else { return };
    let plan = Plan::of(&run.state, &task);
    if plan.unwritten && !plan.renewed {
        run.push(Change::TaskStarted(TaskStarted {
            started: plan.started,
            request_id: grant.start_id.to_string(),
            at: grant.at.0,
            identity: grant.identity.clone(),
            build_id: grant.build_id.clone(),
        }));
    } else {
        for event in plan.events(&run.state, &task, &Start::of(grant), env.limits) {
            run.event_full(event);
        }
    }
    // Another worker has the run in its cache from here on.
    if run.state.sticky.is_some() && !is_sticky_worker(&run.state, grant) {
        run.push(Change::StickySet(StickySet::default()));
    }
}

/// Starts the waiting task of attempt 1 for the caller that this decision answers; durable at
/// once, since the entry is written anyway. `request_id` is what STARTED shows.
pub fn start_inline(
    run: &mut Live,
    key: &ExecutionKey,
    identity: &str,
    build_id: &str,
    request_id: &str,
    env: &Env<'_>,
) -> Option<WorkflowTaskGrant> {
    let task =
        run.state.workflow_task.clone().filter(|task| task.started == 0 && task.attempt == 1)?;
    let start = Start { at: env.now, identity, build_id, request_id: request_id.to_owned() };
    run.event(env, started_attributes(&run.state, task.scheduled, &start, env.limits));
    given(run, key)
}

/// The task that a caller holds by a durable start of attempt 1, as it was handed out inline.
pub fn given(run: &Live, key: &ExecutionKey) -> Option<WorkflowTaskGrant> {
    let task =
        run.state.workflow_task.as_ref().filter(|task| task.started != 0 && task.attempt == 1)?;
    let plan = Plan {
        scheduled: task.scheduled,
        started: task.started,
        attempt: 1,
        unwritten: false,
        renewed: false,
    };
    Some(WorkflowTaskGrant {
        token: TaskToken {
            stamp: task.stamp,
            ..plan.token(key, run, &Start::durable(task), task.start())
        },
        workflow_type: run.state.info.workflow_type.clone(),
        previous_started: run.state.previous_started,
        first_event: run.state.previous_started + 1,
        next_event: run.state.next_event,
        tail: Vec::new(),
        task_queue: run.state.info.task_queue.clone(),
        scheduled_at: Hlc(task.scheduled_at),
    })
}

/// Writes the end of a task that completed; what an attempt above 1 left out comes first.
pub fn complete(
    run: &mut Live,
    mut attributes: WorkflowTaskCompletedEventAttributes,
    env: &Env<'_>,
) -> EventId {
    let Some(task) = run.state.workflow_task.clone() else { return 0 };
    if task.attempt > 1 {
        let plan = Plan::of(&run.state, &task);
        for mut event in plan.events(&run.state, &task, &Start::durable(&task), env.limits) {
            event.task_id = env.next_task_id();
            run.event_full(event);
        }
    }
    attributes.scheduled_event_id = task.scheduled;
    attributes.started_event_id = task.started;
    run.event(env, Attributes::WorkflowTaskCompletedEventAttributes(Box::new(attributes)))
}

/// What SDKs are shown behind the last event: the task of an attempt above 1, whose worker is not
/// named. Nothing once news came while it waited: it will be a first attempt behind the news.
pub fn transient_events(state: &State, limits: &Limits) -> Vec<HistoryEvent> {
    let task = state.workflow_task.as_ref();
    let Some(task) = task.filter(|task| state.is_open() && task.attempt > 1) else {
        return Vec::new();
    };
    let plan = Plan::of(state, task);
    if plan.renewed {
        return Vec::new();
    }
    if task.started == 0 {
        return vec![plan.scheduled_event(state, task, Hlc(task.scheduled_at))];
    }
    let start = Start { identity: "", build_id: "", ..Start::durable(task) };
    plan.events(state, task, &start, limits)
}

/// Checks that `token` is for the task in progress. A start that this leader never heard of is
/// taken up as a grant when nothing else has happened to the run since (A7), unless it lies in the
/// future: the clock of that leader was ahead, and what is written behind it would have earlier times.
pub fn claim(run: &mut Live, token: &TaskToken, now: Hlc) -> Result<(), Rejection> {
    let stale =
        || Rejection::not_found("Workflow task not found.").with(&NotFoundFailure::default());
    let task =
        run.state.workflow_task.as_ref().filter(|_| run.state.is_open()).ok_or_else(stale)?;
    if task.started != 0 {
        let same = (task.scheduled, task.started, task.attempt, task.start())
            == (token.scheduled, token.started, token.attempt, token.start());
        return if same { Ok(()) } else { Err(stale()) };
    }
    if let Some(grant) = run.overlay.grants.get(&task.scheduled) {
        return if grant.start_id == token.start() { Ok(()) } else { Err(stale()) };
    }
    let plan = Plan::of(&run.state, task);
    let same = (plan.scheduled, plan.started, plan.attempt, run.state.seq)
        == (token.scheduled, token.started, token.attempt, token.base);
    // Its SCHEDULED and STARTED have two numbers.
    let in_future = token.granted_at().0.saturating_add(2) > now.0;
    if !same || in_future || token.start().is_nil() {
        return Err(stale());
    }
    let kind = if task.sticky { TaskQueueKind::Sticky } else { TaskQueueKind::Normal };
    let grant = Grant {
        task: TaskType::Workflow,
        start_id: token.start(),
        base: token.base,
        at: token.granted_at(),
        identity: token.identity.clone(),
        queue: task.queue.clone(),
        kind,
        build_id: token.build_id.clone(),
    };
    let scheduled = task.scheduled;
    run.overlay.grants.insert(scheduled, grant);
    Ok(())
}
