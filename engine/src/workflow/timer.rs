//! Timers: durable, prompt, in order.
//!
//! ```text
//! StartTimer -> TIMER_STARTED -> TIMER_FIRED | TIMER_CANCELED
//! ```
//! A timer that fires while a worker holds the workflow task fires into the buffer; cancelling it
//! then takes the firing back (surface 2.1).

use holdfast_proto::command::{CancelTimerCommandAttributes, StartTimerCommandAttributes};
use holdfast_proto::enums::WorkflowTaskFailedCause as Cause;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    HistoryEvent, TimerCanceledEventAttributes, TimerFiredEventAttributes,
    TimerStartedEventAttributes,
};

use crate::change::{BufferDropped, Change};
use crate::env::Env;
use crate::event::{command_event, new_event};
use crate::ids::{EventId, Hlc};
use crate::input::Refusal;
use crate::limits::Limits;
use crate::live::Live;
use crate::rows::Dirty;
use crate::validate::duration;
use crate::workflow::{CommandContext, State};

/// A pending timer; its id is its key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Timer {
    /// The TIMER_STARTED event.
    #[prost(int64, tag = "1")]
    pub started: EventId,
    /// When it fires.
    #[prost(uint64, tag = "2")]
    pub fires_at: u64,
    /// When it began.
    #[prost(uint64, tag = "3")]
    pub began_at: u64,
}

/// StartTimer. A time of zero, or none, fires at once.
pub fn start(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &StartTimerCommandAttributes,
) -> Result<(), Refusal> {
    const BAD: Cause = Cause::BadStartTimerAttributes;
    let id = &attributes.timer_id;
    check_id(BAD, "StartTimerCommand", id, env.limits)?;
    let time = duration(attributes.start_to_fire_timeout.as_ref()).map_err(|cause| {
        let message = format!(
            "An invalid StartToFireTimeout is set on StartTimerCommand: {cause}. TimerId={id}"
        );
        Refusal::bad(BAD, message)
    })?;
    if run.state.timers.contains_key(id) {
        return Err(Refusal::bad(
            Cause::StartTimerDuplicateId,
            format!(
                "invalid history builder state for action: add-timer-started-event, TimerID: {id}"
            ),
        ));
    }
    let event = Attributes::TimerStartedEventAttributes(Box::new(TimerStartedEventAttributes {
        timer_id: id.clone(),
        start_to_fire_timeout: attributes
            .start_to_fire_timeout
            .as_ref()
            .map(|_| holdfast_proto::duration(time)),
        workflow_task_completed_event_id: ctx.completed,
    }));
    run.event_full(command_event(env, ctx.command, event));
    Ok(())
}

/// CancelTimer.
pub fn cancel(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    attributes: &CancelTimerCommandAttributes,
) -> Result<(), Refusal> {
    const BAD: Cause = Cause::BadCancelTimerAttributes;
    let id = &attributes.timer_id;
    check_id(BAD, "CancelTimerCommand", id, env.limits)?;
    let started = if let Some(timer) = run.state.timers.get(id) {
        timer.started
    } else if let Some(fired) = run.state.buffered.iter().find_map(|event| firing(event, id)) {
        let started = fired.started_event_id;
        run.push(Change::BufferDropped(BufferDropped { timer_id: id.clone() }));
        started
    } else {
        let message = format!(
            "invalid history builder state for action: add-timer-canceled-event, TimerID: {id}"
        );
        return Err(Refusal::bad(BAD, message));
    };
    let event = Attributes::TimerCanceledEventAttributes(Box::new(TimerCanceledEventAttributes {
        timer_id: id.clone(),
        started_event_id: started,
        workflow_task_completed_event_id: ctx.completed,
        identity: ctx.identity.to_owned(),
    }));
    run.event_full(command_event(env, ctx.command, event));
    Ok(())
}

fn check_id(cause: Cause, command: &str, id: &str, limits: &Limits) -> Result<(), Refusal> {
    if id.is_empty() {
        return Err(Refusal::bad(cause, format!("TimerId is not set on {command}.")));
    }
    let (length, limit) = (id.len(), limits.id_bytes);
    if length > limit {
        let message = format!(
            "TimerId on {command} exceeds length limit. Length={length} Limit={limit} TimerId={id}"
        );
        return Err(Refusal::bad(cause, message));
    }
    Ok(())
}

/// The TIMER_FIRED of this timer, if `event` is one.
fn firing<'a>(event: &'a HistoryEvent, id: &str) -> Option<&'a TimerFiredEventAttributes> {
    match &event.attributes {
        Some(Attributes::TimerFiredEventAttributes(fired)) if fired.timer_id == id => Some(fired),
        _ => None,
    }
}

/// When the next timer fires.
pub fn deadline(state: &State) -> Option<Hlc> {
    if !state.is_open() {
        return None;
    }
    state.timers.values().map(|timer| Hlc(timer.fires_at)).min()
}

/// Fires what is due until then, in the order of time and then of start. True when anything fired.
pub fn due(run: &mut Live, env: &Env<'_>, until: Hlc) -> bool {
    let mut due: Vec<(u64, EventId, String)> = run
        .state
        .timers
        .iter()
        .filter(|(_, timer)| Hlc(timer.fires_at) <= until)
        .map(|(id, timer)| (timer.fires_at, timer.started, id.clone()))
        .collect();
    due.sort_unstable();
    let fired = !due.is_empty();
    for (_, started, timer_id) in due {
        let event = TimerFiredEventAttributes { timer_id, started_event_id: started };
        let event = Attributes::TimerFiredEventAttributes(Box::new(event));
        run.happened(new_event(env, env.now, event));
    }
    fired
}

// ---- Changes: total, asserts only ----

/// TIMER_STARTED.
pub fn started(
    state: &mut State,
    event: &HistoryEvent,
    attributes: &TimerStartedEventAttributes,
    dirty: &mut Dirty,
) {
    let at = event.event_time.as_ref().map_or(Hlc::ZERO, Hlc::from_timestamp);
    let time = duration(attributes.start_to_fire_timeout.as_ref()).unwrap_or(0);
    let (started, fires_at) = (event.event_id, at.0.saturating_add(time));
    let timer = Timer { started, fires_at, began_at: at.0 };
    let before = state.timers.insert(attributes.timer_id.clone(), timer);
    assert!(before.is_none(), "timer {} starts once at a time", attributes.timer_id);
    dirty.deadline = true;
}

/// TIMER_FIRED, also into the buffer.
pub fn fired(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &TimerFiredEventAttributes,
    dirty: &mut Dirty,
) {
    let before = state.timers.remove(&attributes.timer_id);
    assert!(before.is_some(), "timer {} fires once", attributes.timer_id);
    dirty.deadline = true;
}

/// TIMER_CANCELED; one that had fired into the buffer is not pending any more.
pub fn canceled(
    state: &mut State,
    _event: &HistoryEvent,
    attributes: &TimerCanceledEventAttributes,
    dirty: &mut Dirty,
) {
    state.timers.remove(&attributes.timer_id);
    dirty.deadline = true;
}

/// The firing of a cancelled timer leaves the buffer.
pub fn buffer_dropped(state: &mut State, body: &BufferDropped) {
    let at = state.buffered.iter().position(|event| firing(event, &body.timer_id).is_some());
    match at {
        Some(at) => {
            state.buffered.remove(at);
        }
        None => panic!("timer {} has not fired into the buffer", body.timer_id),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::sdk::UserMetadata;

    use super::*;
    use crate::workflow::rig::{
        Rig, SECOND, cancel_timer, payloads, record_marker, seconds, start_timer,
    };

    fn fired(rig: &Rig) -> Vec<(String, EventId)> {
        let events = rig.history().into_iter().filter_map(|event| match event.attributes {
            Some(Attributes::TimerFiredEventAttributes(a)) => {
                Some((a.timer_id, a.started_event_id))
            }
            _ => None,
        });
        events.collect()
    }

    #[test]
    fn fires_no_earlier_than_its_time_and_once() {
        let mut rig = Rig::start();
        rig.turn(vec![start_timer("1", seconds(1))]).expect("started");
        rig.pass(SECOND - 1_000_000);
        assert_eq!(rig.types(4), ["5 TimerStarted"]);
        rig.pass(1_000_000);
        assert_eq!(rig.types(5), ["6 TimerFired", "7 WorkflowTaskScheduled"]);
        rig.pass(10 * SECOND);
        assert_eq!(fired(&rig), [("1".to_owned(), 5)]);
    }

    #[test]
    fn without_time_it_fires_at_once_and_a_very_long_one_is_recorded_shorter() {
        let mut rig = Rig::start();
        let thousand_years =
            Some(prost_types::Duration { seconds: 1000 * 365 * 24 * 3600, nanos: 0 });
        let commands = vec![
            start_timer("unset", None),
            start_timer("zero", seconds(0)),
            start_timer("long", thousand_years),
        ];
        rig.turn(commands).expect("started");
        rig.pass(1);
        assert_eq!(fired(&rig), [("unset".to_owned(), 5), ("zero".to_owned(), 6)]);
        let times = [5, 6, 7].map(|id| match rig.event(id) {
            Attributes::TimerStartedEventAttributes(a) => a.start_to_fire_timeout,
            other => panic!("{other:?}"),
        });
        assert_eq!(times, [None, seconds(0), seconds(3_153_600_000)]);
    }

    #[test]
    fn several_due_fire_in_the_order_of_their_time_and_then_of_their_start() {
        let mut rig = Rig::start();
        let times = [("late", 15), ("early", 5), ("z", 10), ("a", 10)];
        let commands = times.map(|(id, tenths)| {
            start_timer(id, Some(holdfast_proto::duration(tenths * SECOND / 10)))
        });
        rig.turn(commands.into()).expect("started");
        // One decision meets all of them: the leader was away.
        rig.world.now = Hlc(rig.world.now.0 + 2 * SECOND);
        rig.pass(0);
        let order: Vec<_> = fired(&rig).into_iter().map(|(id, _)| id).collect();
        assert_eq!(order, ["early", "z", "a", "late"]);
        assert_eq!(rig.types(12), ["13 WorkflowTaskScheduled"]);
    }

    #[test]
    fn cancelled_it_never_fires_and_its_id_is_free() {
        let mut rig = Rig::start();
        let mut commands =
            vec![start_timer("1", seconds(60)), cancel_timer("1"), start_timer("1", seconds(70))];
        let note = UserMetadata {
            summary: None,
            details: Some(payloads("1").decode().expect("decodes").payloads.remove(0)),
        };
        commands[0].user_metadata = Some(note.clone());
        rig.turn(commands).expect("done");
        assert_eq!(rig.types(4), ["5 TimerStarted", "6 TimerCanceled", "7 TimerStarted"]);
        assert_eq!(rig.history()[4].user_metadata, Some(note));
        let Attributes::TimerCanceledEventAttributes(a) = rig.event(6) else { panic!() };
        assert_eq!(
            (a.started_event_id, a.workflow_task_completed_event_id, a.identity.as_str()),
            (5, 4, "worker")
        );
        rig.pass(100 * SECOND);
        assert_eq!(fired(&rig), [("1".to_owned(), 7)]);
    }

    #[test]
    fn fires_into_the_buffer_while_a_task_is_held() {
        let mut rig = Rig::start();
        let held = rig.turn_and_hold(vec![start_timer("1", seconds(1))]);
        rig.pass(2 * SECOND);
        assert_eq!(rig.types(7), Vec::<String>::new());
        rig.complete(&held, vec![record_marker("m")], false).expect("completes");
        assert_eq!(
            rig.types(7),
            [
                "8 WorkflowTaskCompleted",
                "9 MarkerRecorded",
                "10 TimerFired",
                "11 WorkflowTaskScheduled"
            ]
        );
    }

    #[test]
    fn cancelling_takes_a_buffered_firing_back() {
        let mut rig = Rig::start();
        let held =
            rig.turn_and_hold(vec![start_timer("1", seconds(1)), start_timer("2", seconds(1))]);
        rig.pass(2 * SECOND);
        rig.complete(&held, vec![cancel_timer("2")], false).expect("completes");
        assert_eq!(
            rig.types(8),
            [
                "9 WorkflowTaskCompleted",
                "10 TimerCanceled",
                "11 TimerFired",
                "12 WorkflowTaskScheduled"
            ]
        );
        assert_eq!(fired(&rig), [("1".to_owned(), 5)]);

        let mut rig = Rig::start();
        let held = rig.turn_and_hold(vec![start_timer("1", seconds(1))]);
        rig.pass(2 * SECOND);
        rig.complete(&held, vec![cancel_timer("1")], false).expect("completes");
        assert_eq!(rig.types(7), ["8 WorkflowTaskCompleted", "9 TimerCanceled"]);
        let Attributes::TimerCanceledEventAttributes(a) = rig.event(9) else { panic!() };
        assert_eq!(a.started_event_id, 5);
    }

    #[test]
    fn bad_commands() {
        // Golden workflow_task/bad_commands.
        let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let twice = vec![start_timer("t", seconds(9)), start_timer("t", seconds(9))];
        for (commands, expected) in [
            (
                vec![start_timer("", seconds(1))],
                "BadStartTimerAttributes: TimerId is not set on StartTimerCommand.",
            ),
            (
                vec![start_timer("t", negative)],
                "BadStartTimerAttributes: An invalid StartToFireTimeout is set on StartTimerCommand: negative duration. TimerId=t",
            ),
            (
                twice,
                "StartTimerDuplicateId: invalid history builder state for action: add-timer-started-event, TimerID: t",
            ),
            (
                vec![cancel_timer("t")],
                "BadCancelTimerAttributes: invalid history builder state for action: add-timer-canceled-event, TimerID: t",
            ),
            (
                vec![cancel_timer("")],
                "BadCancelTimerAttributes: TimerId is not set on CancelTimerCommand.",
            ),
        ] {
            assert_eq!(Rig::start().refused(commands), expected);
        }
    }
}
