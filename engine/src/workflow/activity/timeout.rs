//! The four timeouts of an activity (surface 3.1). All deadlines of a run share one row, so
//! [`due`] looks for itself which of them have come.

use holdfast_proto::enums::{RetryState, TimeoutType};
use holdfast_proto::history::ActivityTaskTimedOutEventAttributes;
use holdfast_proto::history::history_event::Attributes;

use super::attempt::{close, retried};
use super::{Activity, HeartbeatRearmed, after};
use crate::change::Change;
use crate::env::Env;
use crate::failure;
use crate::ids::{EventId, Hlc};
use crate::live::Live;
use crate::retry::timeout_name;
use crate::workflow::{State, workflow_task};

/// The message when no attempt fits before schedule-to-close any more.
const NO_TIME: &str = "Not enough time to schedule next retry before activity ScheduleToClose \
                       timeout, giving up retrying";

/// The earliest time at which an activity needs attention. The time of a retry is none: that is
/// the backlog row's.
pub fn deadline(state: &State) -> Option<Hlc> {
    if !state.is_open() {
        return None;
    }
    state.activities.values().filter_map(next).map(|(at, _)| at).min()
}

/// The earliest deadline of an activity, and which one it is.
fn next(activity: &Activity) -> Option<(Hlc, TimeoutType)> {
    let attempt = if activity.is_started() {
        [
            (after(activity.started_at, activity.start_to_close), TimeoutType::StartToClose),
            (
                (activity.heartbeat_due != 0).then_some(Hlc(activity.heartbeat_due)),
                TimeoutType::Heartbeat,
            ),
        ]
    } else {
        let start = after(activity.attempt_at, activity.schedule_to_start);
        [(start, TimeoutType::ScheduleToStart), (None, TimeoutType::Unspecified)]
    };
    // The first of equals wins, and schedule-to-start before schedule-to-close: nothing ran.
    attempt
        .into_iter()
        .chain([(activity.expires(), TimeoutType::ScheduleToClose)])
        .filter_map(|(at, kind)| at.map(|at| (at, kind)))
        .min_by_key(|(at, _)| *at)
}

/// Times out what is due until then, in the order of time. True when an activity closed, so that
/// the workflow needs a task.
pub fn due(run: &mut Live, env: &Env<'_>, until: Hlc) -> bool {
    let mut waiting: Vec<(Hlc, EventId)> = run
        .state
        .activities
        .iter()
        .filter_map(|(id, activity)| Some((next(activity)?.0, *id)))
        .filter(|(at, _)| *at <= until)
        .collect();
    waiting.sort_unstable();
    let mut news = false;
    for (_, id) in waiting {
        news |= time_out(run, env, id, until);
        // Many at once would wait in the buffer and be written again from there.
        workflow_task::enforce_buffer_limits(run, env);
    }
    news
}

/// Everything that is due of one activity; true when it closed.
fn time_out(run: &mut Live, env: &Env<'_>, id: EventId, until: Hlc) -> bool {
    loop {
        let Some(activity) = run.state.activities.get(&id) else { return true };
        let Some((_, kind)) = next(activity).filter(|(at, _)| *at <= until) else {
            return false;
        };
        if kind == TimeoutType::Heartbeat {
            // Heartbeats move no row (A16): whether one came is seen now.
            let last = activity.heartbeat_at.max(activity.started_at);
            let due = last.saturating_add(activity.heartbeat_timeout);
            if Hlc(due) > until {
                run.push(Change::HeartbeatRearmed(HeartbeatRearmed { scheduled: id, due }));
                continue;
            }
        }
        if expire(run, env, id, kind) {
            return true;
        }
    }
}

/// One attempt ran out of time: another one later, or the activity times out (true).
fn expire(run: &mut Live, env: &Env<'_>, id: EventId, kind: TimeoutType) -> bool {
    let message = format!("activity {} timeout", timeout_name(kind));
    let bare = failure::timeout(message.clone(), kind, None, None);
    let verdict = match kind {
        TimeoutType::ScheduleToStart | TimeoutType::ScheduleToClose => never_retried(run, id),
        TimeoutType::StartToClose | TimeoutType::Heartbeat | TimeoutType::Unspecified => {
            retried(run, env, id, Some(&bare), Hlc::ZERO)
        }
    };
    let Some(state) = verdict else { return false };
    let Some(activity) = run.state.activities.get(&id) else { return true };
    let details = activity.heartbeat_details.clone();
    // Why there was another attempt: users want to see what failed, not only what gave up.
    let cause = activity.last_failure.clone();
    let failure = if state == RetryState::Timeout && kind != TimeoutType::ScheduleToStart {
        failure::timeout(NO_TIME.to_owned(), TimeoutType::ScheduleToClose, details, cause)
    } else {
        failure::timeout(message, kind, details, cause)
    };
    close(run, env, id, None, |started| {
        Attributes::ActivityTaskTimedOutEventAttributes(Box::new(
            ActivityTaskTimedOutEventAttributes {
                failure: Some(failure),
                scheduled_event_id: id,
                started_event_id: started,
                retry_state: state as i32,
            },
        ))
    });
    true
}

fn never_retried(run: &Live, id: EventId) -> Option<RetryState> {
    let asked = run.state.activities.get(&id)?.cancel_requested != 0;
    Some(if asked { RetryState::CancelRequested } else { RetryState::Timeout })
}
