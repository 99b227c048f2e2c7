//! The time of a run, where it is not that of the leader's clock (DESIGN 8).
//!
//! Times never go back within a workflow id. When a clock that was ahead is set right, what is open
//! keeps its own time: it runs on from where it stood, as far ahead of the clock as it was, until it
//! ends. So the time between two events of a history is the time that passed, and nothing that the
//! run waits for hangs for as long as the clock was wrong. An id without an open run has the clock's
//! time again, once that has caught up with its last event.
//!
//! States and events are in the run's own time; rows, which a leader compares with its clock, are in
//! that of the clock ([`by_the_clock`]).

use std::time::Duration;

use crate::change::Change;
use crate::env::Env;
use crate::ids::Hlc;
use crate::input::Target;
use crate::live::{Draft, Live};
use crate::rows::Dirty;
use crate::workflow::State;

/// How far the clocks of two leaders may be apart (A8). What lies no further behind was stamped by
/// another leader; what lies further behind, by a clock that was wrong.
pub const CLOCK_BOUND: Duration = Duration::from_millis(500);

/// The time of one decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnTime {
    /// What it stamps.
    pub now: Hlc,
    /// How far the run that it is about is ahead of the clock, in nanoseconds.
    pub ahead: u64,
}

/// Body of [`Change::Ahead`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ahead {
    /// How far the run's time is ahead of the clock from now on, in nanoseconds.
    #[prost(uint64, tag = "1")]
    pub by: u64,
    /// What the clock showed.
    #[prost(uint64, tag = "2")]
    pub clock: u64,
}

/// The latest moment that the state of a run tells of: after it the next decision is stamped that is
/// made on a run that was just loaded.
pub fn latest(state: &State) -> u64 {
    let task = state.workflow_task.iter().map(|task| task.scheduled_at.max(task.started_at));
    let activities = state.activities.values().map(|a| {
        let began = a.attempt_at.saturating_sub(a.retry_interval);
        began.max(a.started_at).max(a.heartbeat_at).max(a.answered_at)
    });
    let buffered = state.buffered.iter().filter_map(|event| event.event_time.as_ref());
    let buffered = buffered.map(|at| Hlc::from_timestamp(at).0);
    task.chain(activities)
        .chain(buffered)
        .fold(state.last_event_at.max(state.last_number), u64::max)
}

/// The time of a decision on `draft` by a leader whose clock shows `clock`: no earlier than anything
/// that was decided for this id, and beyond its clock only as far as that takes.
pub fn of(draft: &Draft, target: Target, clock: Hlc) -> OwnTime {
    let run = draft.runs.first().filter(|run| run.state.exists);
    // A run that is to follow a closed one is not bound to the time that it had.
    let follows = target == Target::Current && !run.is_some_and(|run| run.state.is_open());
    let ahead = run.map_or(0, |run| if follows { 0 } else { run.state.ahead });
    let current = draft.record.record.current.as_ref().filter(|_| target == Target::Current);
    let last = run.map_or(0, |run| run.last).max(current.map_or(0, |run| run.started_at));
    let own = clock.0.saturating_add(ahead);
    let ahead = match Hlc(last).since(Hlc(own)) {
        behind if behind > CLOCK_BOUND => (last + 1).saturating_sub(clock.0),
        _ => ahead,
    };
    OwnTime { now: Hlc(own.max(last.saturating_add(1))), ahead }
}

/// By its own time so far, a run has nothing later than this when its clock shows `clock`; but for
/// what was stamped while that was wrong.
fn limit(run: &State, clock: u64) -> u64 {
    Hlc(clock).after(CLOCK_BOUND).0.saturating_add(run.ahead)
}

/// Says in the log that the run keeps its own time, where the log does not say so yet.
pub fn keep(run: &mut Live, env: &Env<'_>) {
    if env.ahead > run.state.ahead {
        let clock = env.clock().0;
        run.push(Change::Ahead(Ahead { by: env.ahead, clock }));
    }
}

/// A time of the run as the leader's clock shows it.
pub fn by_the_clock(state: &State, at: Hlc) -> Hlc {
    Hlc(at.0.saturating_sub(state.ahead))
}

// ---- Changes: total, asserts only ----

/// [`Change::Ahead`]. What began before the clock was wrong comes when it would have come; its times
/// move with the run's.
pub fn set(state: &mut State, body: &Ahead, dirty: &mut Dirty) {
    let step = body.by.saturating_sub(state.ahead);
    let limit = limit(state, body.clock);
    let move_since = |since: u64, at: &mut u64| {
        if *at != 0 && since <= limit {
            *at = at.saturating_add(step);
        }
    };
    let move_one = |at: &mut u64| move_since(*at, at);
    for timer in state.timers.values_mut() {
        move_since(timer.began_at, &mut timer.fires_at);
        move_one(&mut timer.began_at);
    }
    for activity in state.activities.values_mut() {
        let beat = activity.heartbeat_due.saturating_sub(activity.heartbeat_timeout);
        move_since(beat, &mut activity.heartbeat_due);
        let attempt = activity.attempt_at.saturating_sub(activity.retry_interval);
        move_since(attempt, &mut activity.attempt_at);
        move_one(&mut activity.scheduled_at);
        move_one(&mut activity.started_at);
        move_one(&mut activity.heartbeat_at);
        move_one(&mut activity.answered_at);
    }
    if let Some(task) = &mut state.workflow_task {
        move_one(&mut task.scheduled_at);
        move_one(&mut task.original_scheduled_at);
        move_one(&mut task.started_at);
    }
    if let Some(beat) = &mut state.beat {
        move_one(&mut beat.since);
    }
    let began = state.info.started_at;
    move_since(began, &mut state.first_task_at);
    move_since(began, &mut state.info.run_expires_at);
    move_since(began, &mut state.info.execution_expires_at);
    move_since(state.closed_at, &mut state.delete_at);
    state.ahead = body.by;
    dirty.workflow_task = true;
    dirty.deadline = true;
    dirty.activities.extend(state.activities.keys());
}
