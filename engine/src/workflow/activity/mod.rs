//! Activities of a workflow: what is pending, and how changes fold into it.
//!
//! ```text
//! ScheduleActivityTask -> SCHEDULED -> AttemptStarted -> COMPLETED | FAILED | TIMED_OUT | CANCELED
//!                            ^               |
//!                            +- AttemptRetried (private: history shows the last attempt only)
//! ```
//! STARTED is written just before the event that closes the activity (surface 3.1). A close that
//! is buffered counts from then: the pending activity goes when its close is folded, once.

mod attempt;
mod command;
mod timeout;

#[cfg(test)]
mod tests;

use holdfast_proto::activity::ActivityOptions;
use holdfast_proto::common::{ActivityType, Payloads, Priority, RetryPolicy};
use holdfast_proto::enums::PendingActivityState;
use holdfast_proto::failure::Failure;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    ActivityTaskCancelRequestedEventAttributes, ActivityTaskCanceledEventAttributes,
    ActivityTaskCompletedEventAttributes, ActivityTaskFailedEventAttributes,
    ActivityTaskScheduledEventAttributes, ActivityTaskStartedEventAttributes,
    ActivityTaskTimedOutEventAttributes, HistoryEvent,
};
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflow::PendingActivityInfo;

use crate::ids::{EventId, Hlc};
use crate::live::TaskType;
use crate::rows::{BacklogRow, Dirty};
use crate::validate::{duration, priority_level};
use crate::workflow::State;

pub use attempt::{canceled, completed, failed, grant, heartbeat, materialise};
pub use command::{request_cancel, schedule, start_eagerly};
pub use timeout::{deadline, due};

/// A pending activity. Input and header stay in the event that scheduled it (A17). Times in
/// nanoseconds since the epoch, durations in nanoseconds, 0 for "none".
#[derive(Clone, PartialEq, prost::Message)]
pub struct Activity {
    /// The id that the workflow gave it.
    #[prost(string, tag = "1")]
    pub activity_id: String,
    /// The type.
    #[prost(string, tag = "2")]
    pub activity_type: String,
    /// The queue its tasks go to.
    #[prost(string, tag = "3")]
    pub task_queue: String,
    /// Schedule-to-close: over all attempts.
    #[prost(uint64, tag = "4")]
    pub schedule_to_close: u64,
    /// Schedule-to-start: of each attempt.
    #[prost(uint64, tag = "5")]
    pub schedule_to_start: u64,
    /// Start-to-close: of each attempt; never 0.
    #[prost(uint64, tag = "6")]
    pub start_to_close: u64,
    /// Heartbeat timeout.
    #[prost(uint64, tag = "7")]
    pub heartbeat_timeout: u64,
    /// How failures are retried.
    #[prost(message, required, tag = "8")]
    pub retry_policy: RetryPolicy,
    /// The command's own priority; what it leaves open is the workflow's.
    #[prost(message, optional, tag = "9")]
    pub priority: Option<Priority>,
    /// When it was scheduled first.
    #[prost(uint64, tag = "10")]
    pub scheduled_at: u64,
    /// The attempt that waits or runs, from 1.
    #[prost(uint32, tag = "11")]
    pub attempt: u32,
    /// When that attempt is or was to be handed out first.
    #[prost(uint64, tag = "12")]
    pub attempt_at: u64,
    /// Rises whenever the backlog row means something else.
    #[prost(uint32, tag = "13")]
    pub stamp: u32,
    /// When the attempt was handed to a worker; 0 while it waits.
    #[prost(uint64, tag = "14")]
    pub started_at: u64,
    /// The random id of that start, 16 bytes.
    #[prost(bytes = "vec", tag = "15")]
    pub start_id: Vec<u8>,
    /// The worker of this attempt, or of the one before while it waits.
    #[prost(string, tag = "16")]
    pub identity: String,
    /// When to look for the next heartbeat; no earlier than that of the last one in time.
    #[prost(uint64, tag = "17")]
    pub heartbeat_due: u64,
    /// The last heartbeat, of any attempt.
    #[prost(uint64, tag = "18")]
    pub heartbeat_at: u64,
    /// Its details; they reach the next attempt.
    #[prost(message, optional, tag = "19")]
    pub heartbeat_details: Option<Payloads>,
    /// How the attempt before ended, at most 4 KiB.
    #[prost(message, optional, tag = "20")]
    pub last_failure: Option<Failure>,
    /// When a worker last answered for an attempt; a timeout is no answer.
    #[prost(uint64, tag = "21")]
    pub answered_at: u64,
    /// The wait before this attempt.
    #[prost(uint64, tag = "22")]
    pub retry_interval: u64,
    /// The ACTIVITY_TASK_CANCEL_REQUESTED event; 0 when there is none.
    #[prost(int64, tag = "23")]
    pub cancel_requested: EventId,
    /// The build of the worker of this attempt; empty when it did not tell.
    #[prost(string, tag = "24")]
    pub build_id: String,
}

/// Body of `Change::AttemptStarted`: an attempt was handed to a worker.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AttemptStarted {
    /// The event that scheduled the activity.
    #[prost(int64, tag = "1")]
    pub scheduled: EventId,
    /// When.
    #[prost(uint64, tag = "2")]
    pub at: u64,
    /// The random id of the start, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub start_id: Vec<u8>,
    /// The worker.
    #[prost(string, tag = "4")]
    pub identity: String,
    /// Its build.
    #[prost(string, tag = "5")]
    pub build_id: String,
}

/// Body of `Change::AttemptRetried`: an attempt ended, and another is due later.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttemptRetried {
    /// The event that scheduled the activity.
    #[prost(int64, tag = "1")]
    pub scheduled: EventId,
    /// When the next attempt is due.
    #[prost(uint64, tag = "2")]
    pub at: u64,
    /// The wait until then.
    #[prost(uint64, tag = "3")]
    pub interval: u64,
    /// How the attempt ended, at most 4 KiB.
    #[prost(message, optional, tag = "4")]
    pub failure: Option<Failure>,
    /// When the worker said so; 0 for a timeout.
    #[prost(uint64, tag = "5")]
    pub answered_at: u64,
}

/// Body of `Change::Heartbeated`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Heartbeated {
    /// The event that scheduled the activity.
    #[prost(int64, tag = "1")]
    pub scheduled: EventId,
    /// When.
    #[prost(uint64, tag = "2")]
    pub at: u64,
    /// What came with it.
    #[prost(message, optional, tag = "3")]
    pub details: Option<Payloads>,
}

/// Body of `Change::HeartbeatRearmed`: the heartbeat deadline fired early and stands later now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeartbeatRearmed {
    /// The event that scheduled the activity.
    #[prost(int64, tag = "1")]
    pub scheduled: EventId,
    /// The new time.
    #[prost(uint64, tag = "2")]
    pub due: u64,
}

impl Activity {
    /// Whether a worker has the attempt, as far as the log knows.
    pub fn is_started(&self) -> bool {
        self.started_at != 0
    }

    /// When schedule-to-close ends, if it is set.
    fn expires(&self) -> Option<Hlc> {
        after(self.scheduled_at, self.schedule_to_close)
    }
}

/// `start + timeout`; `None` when the timeout is not set.
fn after(start: u64, timeout: u64) -> Option<Hlc> {
    (timeout != 0).then(|| Hlc(start.saturating_add(timeout)))
}

/// The priority of an activity: field by field its own, else the workflow's.
fn priority(state: &State, activity: &Activity) -> Option<Priority> {
    let (own, base) = match (&activity.priority, &state.info.priority) {
        (None, base) => return base.clone(),
        (own, None) => return own.clone(),
        (Some(own), Some(base)) => (own, base),
    };
    let text = if own.fairness_key.is_empty() { &base.fairness_key } else { &own.fairness_key };
    Some(Priority {
        priority_key: if own.priority_key == 0 { base.priority_key } else { own.priority_key },
        fairness_key: text.clone(),
        fairness_weight: if own.fairness_weight == 0.0 {
            base.fairness_weight
        } else {
            own.fairness_weight
        },
    })
}

/// The backlog row of an activity: while an attempt waits, also for its time (A16: becoming due
/// writes nothing).
pub fn backlog_row(state: &State, id: EventId) -> Option<BacklogRow> {
    if !state.is_open() {
        return None;
    }
    let activity = state.activities.get(&id).filter(|activity| !activity.is_started())?;
    Some(BacklogRow {
        queue: activity.task_queue.clone(),
        task: TaskType::Activity,
        priority: priority_level(priority(state, activity).as_ref()),
        at: Hlc(activity.attempt_at),
        scheduled: id,
        stamp: activity.stamp,
        attempt: activity.attempt,
        sticky: false,
    })
}

/// The run is no longer open: no row of its activities stays. They themselves stay for describe.
pub fn run_closed(state: &State, dirty: &mut Dirty) {
    dirty.activities.extend(state.activities.keys());
    dirty.deadline = true;
}

/// Pending activities as describe shows them, in the order in which they were scheduled.
pub fn describe(state: &State, now: Hlc) -> Vec<PendingActivityInfo> {
    state.activities.values().map(|activity| pending(activity, now)).collect()
}

fn pending(activity: &Activity, now: Hlc) -> PendingActivityInfo {
    let started = activity.started_at != 0;
    let state = match (activity.cancel_requested, started) {
        (0, false) => PendingActivityState::Scheduled,
        (0, true) => PendingActivityState::Started,
        _ => PendingActivityState::CancelRequested,
    };
    let backing_off = !started && activity.attempt > 1 && Hlc(activity.attempt_at) > now;
    PendingActivityInfo {
        activity_id: activity.activity_id.clone(),
        activity_type: Some(ActivityType { name: activity.activity_type.clone() }),
        state: state as i32,
        heartbeat_details: activity.heartbeat_details.clone(),
        last_heartbeat_time: Hlc(activity.heartbeat_at).optional_timestamp(),
        last_started_time: Hlc(activity.started_at).optional_timestamp(),
        attempt: activity.attempt as i32,
        maximum_attempts: activity.retry_policy.maximum_attempts,
        scheduled_time: Some(Hlc(activity.attempt_at).timestamp()),
        expiration_time: activity.expires().map(Hlc::timestamp),
        last_failure: activity.last_failure.clone(),
        last_worker_identity: activity.identity.clone(),
        current_retry_interval: backing_off
            .then(|| holdfast_proto::duration(activity.retry_interval)),
        last_attempt_complete_time: Hlc(activity.answered_at).optional_timestamp(),
        next_attempt_schedule_time: backing_off.then(|| Hlc(activity.attempt_at).timestamp()),
        priority: activity.priority.clone(),
        activity_options: Some(options(activity)),
        ..PendingActivityInfo::default()
    }
}

fn options(activity: &Activity) -> ActivityOptions {
    let queue = &activity.task_queue;
    ActivityOptions {
        task_queue: Some(TaskQueue {
            name: queue.clone(),
            normal_name: queue.clone(),
            ..TaskQueue::default()
        }),
        schedule_to_close_timeout: Some(holdfast_proto::duration(activity.schedule_to_close)),
        schedule_to_start_timeout: Some(holdfast_proto::duration(activity.schedule_to_start)),
        start_to_close_timeout: Some(holdfast_proto::duration(activity.start_to_close)),
        heartbeat_timeout: Some(holdfast_proto::duration(activity.heartbeat_timeout)),
        // Temporal leaves the types out.
        retry_policy: Some(RetryPolicy {
            non_retryable_error_types: Vec::new(),
            ..activity.retry_policy.clone()
        }),
        priority: activity.priority.clone(),
        ..ActivityOptions::default()
    }
}

// ---- Changes: total, asserts only ----

/// ACTIVITY_TASK_SCHEDULED: it is pending.
pub fn scheduled(
    state: &mut State,
    event: &HistoryEvent,
    attributes: &ActivityTaskScheduledEventAttributes,
    dirty: &mut Dirty,
) {
    let at = event.event_time.as_ref().map_or(Hlc::ZERO, Hlc::from_timestamp).0;
    let a = attributes;
    let activity = Activity {
        activity_id: a.activity_id.clone(),
        activity_type: a.activity_type.as_ref().map(|t| t.name.clone()).unwrap_or_default(),
        task_queue: a.task_queue.as_ref().map(|q| q.name.clone()).unwrap_or_default(),
        schedule_to_close: duration(a.schedule_to_close_timeout.as_ref()).unwrap_or(0),
        schedule_to_start: duration(a.schedule_to_start_timeout.as_ref()).unwrap_or(0),
        start_to_close: duration(a.start_to_close_timeout.as_ref()).unwrap_or(0),
        heartbeat_timeout: duration(a.heartbeat_timeout.as_ref()).unwrap_or(0),
        retry_policy: a.retry_policy.clone().unwrap_or_default(),
        priority: a.priority.clone(),
        scheduled_at: at,
        attempt: 1,
        attempt_at: at,
        stamp: 1,
        ..Activity::default()
    };
    let before = state.activities.insert(event.event_id, activity);
    assert!(before.is_none(), "event {} schedules one activity", event.event_id);
    touched(event.event_id, dirty);
}

fn touched(id: EventId, dirty: &mut Dirty) {
    dirty.activities.insert(id);
    dirty.deadline = true;
}

fn of(state: &mut State, id: EventId) -> &mut Activity {
    match state.activities.get_mut(&id) {
        Some(activity) => activity,
        None => panic!("no activity is pending that event {id} scheduled"),
    }
}

/// ACTIVITY_TASK_STARTED: says what `AttemptStarted` has said before; the close follows at once.
pub fn started(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &ActivityTaskStartedEventAttributes,
    _dirty: &mut Dirty,
) {
    of(state, attributes.scheduled_event_id);
}

/// The activity that an event closes, if the event closes one.
pub fn closes(event: &HistoryEvent) -> Option<EventId> {
    match event.attributes.as_ref()? {
        Attributes::ActivityTaskCompletedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskFailedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskTimedOutEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskCanceledEventAttributes(a) => Some(a.scheduled_event_id),
        _ => None,
    }
}

fn closed(state: &mut State, id: EventId, dirty: &mut Dirty) {
    let before = state.activities.remove(&id);
    assert!(before.is_some(), "the activity that event {id} scheduled closes once");
    touched(id, dirty);
}

/// ACTIVITY_TASK_COMPLETED.
pub fn event_completed(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &ActivityTaskCompletedEventAttributes,
    dirty: &mut Dirty,
) {
    closed(state, attributes.scheduled_event_id, dirty);
}

/// ACTIVITY_TASK_FAILED.
pub fn event_failed(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &ActivityTaskFailedEventAttributes,
    dirty: &mut Dirty,
) {
    closed(state, attributes.scheduled_event_id, dirty);
}

/// ACTIVITY_TASK_TIMED_OUT.
pub fn event_timed_out(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &ActivityTaskTimedOutEventAttributes,
    dirty: &mut Dirty,
) {
    closed(state, attributes.scheduled_event_id, dirty);
}

/// ACTIVITY_TASK_CANCELED.
pub fn event_canceled(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &ActivityTaskCanceledEventAttributes,
    dirty: &mut Dirty,
) {
    closed(state, attributes.scheduled_event_id, dirty);
}

/// ACTIVITY_TASK_CANCEL_REQUESTED: its worker hears of it with the next heartbeat. Nothing is
/// pending any more when the close of the activity waits in the buffer.
pub fn event_cancel_requested(
    state: &mut State,
    event: &HistoryEvent,
    attributes: &ActivityTaskCancelRequestedEventAttributes,
    _dirty: &mut Dirty,
) {
    if let Some(activity) = state.activities.get_mut(&attributes.scheduled_event_id) {
        activity.cancel_requested = event.event_id;
    }
}

/// A worker has the attempt: its row goes, its deadlines begin.
pub fn attempt_started(state: &mut State, body: &AttemptStarted, dirty: &mut Dirty) {
    let activity = of(state, body.scheduled);
    assert!(!activity.is_started(), "an attempt starts once");
    activity.started_at = body.at;
    activity.start_id.clone_from(&body.start_id);
    activity.identity.clone_from(&body.identity);
    activity.build_id.clone_from(&body.build_id);
    activity.heartbeat_due = after(body.at, activity.heartbeat_timeout).map_or(0, |due| due.0);
    touched(body.scheduled, dirty);
}

/// The attempt is over; the next one waits for its time.
pub fn attempt_retried(state: &mut State, body: &AttemptRetried, dirty: &mut Dirty) {
    let activity = of(state, body.scheduled);
    activity.attempt += 1;
    activity.attempt_at = body.at;
    activity.retry_interval = body.interval;
    activity.stamp += 1;
    activity.started_at = 0;
    activity.start_id.clear();
    activity.build_id.clear();
    activity.heartbeat_due = 0;
    activity.last_failure.clone_from(&body.failure);
    if body.answered_at != 0 {
        activity.answered_at = body.answered_at;
    }
    touched(body.scheduled, dirty);
}

/// A heartbeat. The deadline stays where it is; it is looked at when it comes.
pub fn heartbeated(state: &mut State, body: &Heartbeated, _dirty: &mut Dirty) {
    let activity = of(state, body.scheduled);
    activity.heartbeat_at = body.at;
    activity.heartbeat_details.clone_from(&body.details);
}

/// The heartbeat deadline moves to where the last heartbeat puts it.
pub fn heartbeat_rearmed(state: &mut State, body: &HeartbeatRearmed, dirty: &mut Dirty) {
    of(state, body.scheduled).heartbeat_due = body.due;
    dirty.deadline = true;
}
