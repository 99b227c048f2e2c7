//! What every history must be, and a history as lines to read.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::enums::EventType;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;

use crate::client::text_of;

/// The name of an event's type.
pub fn kind(event: &HistoryEvent) -> String {
    let name = EventType::try_from(event.event_type);
    name.map_or_else(|_| event.event_type.to_string(), |kind| format!("{kind:?}"))
}

/// When an event happened, in nanoseconds after 1970.
pub fn at(event: &HistoryEvent) -> u64 {
    event.event_time.as_ref().and_then(holdfast_proto::nanos).unwrap_or(0)
}

/// Nanoseconds from the first event to the last.
pub fn length(events: &[HistoryEvent]) -> u64 {
    match (events.first(), events.last()) {
        (Some(first), Some(last)) => at(last).saturating_sub(at(first)),
        _ => 0,
    }
}

/// Whether this event ends the run.
pub fn closes(event: &HistoryEvent) -> bool {
    matches!(
        EventType::try_from(event.event_type),
        Ok(EventType::WorkflowExecutionCompleted
            | EventType::WorkflowExecutionFailed
            | EventType::WorkflowExecutionTimedOut
            | EventType::WorkflowExecutionCanceled
            | EventType::WorkflowExecutionTerminated
            | EventType::WorkflowExecutionContinuedAsNew)
    )
}

/// What is wrong with a history, whatever its workflow does: ids that are not 1 to n, a close event
/// that is not the only one and the last, a second outcome of anything, an outcome of nothing, and a
/// timer that fired before its time. An open history has no close event, which is not wrong.
pub fn faults(events: &[HistoryEvent]) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, event) in events.iter().enumerate() {
        if event.event_id != index as i64 + 1 {
            faults.push(format!("event {} stands at place {}", event.event_id, index + 1));
        }
        if closes(event) && index + 1 != events.len() {
            faults.push(format!("event {} closes the run and is not the last", event.event_id));
        }
        if at(event) == 0 {
            faults.push(format!("event {} has no time", event.event_id));
        }
    }
    if events.first().map(|event| event.event_type)
        != Some(EventType::WorkflowExecutionStarted as i32)
    {
        faults.push("the first event is not the start".to_owned());
    }
    outcomes(events, &mut faults);
    faults
}

/// The starts and outcomes of activities, timers and workflow tasks: each at most once, of something
/// that is there.
fn outcomes(events: &[HistoryEvent], faults: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    let by_id: BTreeMap<i64, &HistoryEvent> =
        events.iter().map(|event| (event.event_id, event)).collect();
    for event in events {
        let Some((what, of, kind)) = reference(event) else { continue };
        let cause = by_id.get(&of).filter(|cause| cause.event_type == kind as i32);
        match cause {
            _ if of >= event.event_id => {
                faults.push(format!("event {} is of event {of}, a later one", event.event_id));
            }
            None => faults.push(format!("event {} is of {of}, no {kind:?}", event.event_id)),
            Some(cause) => early(cause, event, faults),
        }
        if !seen.insert((what, of)) {
            faults.push(format!("event {} is a second {what} of event {of}", event.event_id));
        }
    }
}

/// What an event is of: a start or an outcome, the id of the event it refers to, and what type that
/// one must have.
fn reference(event: &HistoryEvent) -> Option<(&'static str, i64, EventType)> {
    use EventType::{ActivityTaskScheduled, TimerStarted, WorkflowTaskScheduled};
    Some(match event.attributes.as_ref()? {
        Event::ActivityTaskStartedEventAttributes(it) => {
            ("start", it.scheduled_event_id, ActivityTaskScheduled)
        }
        Event::ActivityTaskCompletedEventAttributes(it) => {
            ("outcome", it.scheduled_event_id, ActivityTaskScheduled)
        }
        Event::ActivityTaskFailedEventAttributes(it) => {
            ("outcome", it.scheduled_event_id, ActivityTaskScheduled)
        }
        Event::ActivityTaskTimedOutEventAttributes(it) => {
            ("outcome", it.scheduled_event_id, ActivityTaskScheduled)
        }
        Event::ActivityTaskCanceledEventAttributes(it) => {
            ("outcome", it.scheduled_event_id, ActivityTaskScheduled)
        }
        Event::TimerFiredEventAttributes(it) => ("outcome", it.started_event_id, TimerStarted),
        Event::TimerCanceledEventAttributes(it) => ("outcome", it.started_event_id, TimerStarted),
        Event::WorkflowTaskStartedEventAttributes(it) => {
            ("start", it.scheduled_event_id, WorkflowTaskScheduled)
        }
        Event::WorkflowTaskCompletedEventAttributes(it) => {
            ("outcome", it.scheduled_event_id, WorkflowTaskScheduled)
        }
        Event::WorkflowTaskFailedEventAttributes(it) => {
            ("outcome", it.scheduled_event_id, WorkflowTaskScheduled)
        }
        Event::WorkflowTaskTimedOutEventAttributes(it) => {
            ("outcome", it.scheduled_event_id, WorkflowTaskScheduled)
        }
        _ => return None,
    })
}

fn early(started: &HistoryEvent, fired: &HistoryEvent, faults: &mut Vec<String>) {
    let (
        Some(Event::TimerStartedEventAttributes(timer)),
        Some(Event::TimerFiredEventAttributes(_)),
    ) = (&started.attributes, &fired.attributes)
    else {
        return;
    };
    let after = timer.start_to_fire_timeout.as_ref();
    let after = after.and_then(|it| holdfast_proto::duration_nanos(it).ok()).unwrap_or(0);
    if at(fired) < at(started) + after.unsigned_abs() {
        faults.push(format!("the timer of event {} fired before its time", started.event_id));
    }
}

/// A history as lines: id, milliseconds since the start, type, and what matters of it.
pub fn lines(events: &[HistoryEvent]) -> Vec<String> {
    let start = events.first().map_or(0, at);
    let line = |event: &HistoryEvent| {
        let after = at(event).saturating_sub(start) as f64 / 1e6;
        format!("{:>4} {after:>9.2} ms  {:<26} {}", event.event_id, kind(event), detail(event))
    };
    events.iter().map(|event| line(event).trim_end().to_owned()).collect()
}

fn detail(event: &HistoryEvent) -> String {
    let Some(attributes) = &event.attributes else { return String::new() };
    match attributes {
        Event::WorkflowExecutionStartedEventAttributes(it) => format!(
            "{}({})",
            it.workflow_type.as_ref().map_or("", |kind| &kind.name),
            text_of(it.input.as_ref())
        ),
        Event::ActivityTaskScheduledEventAttributes(it) => format!(
            "{}({})",
            it.activity_type.as_ref().map_or("", |kind| &kind.name),
            text_of(it.input.as_ref())
        ),
        Event::ActivityTaskCompletedEventAttributes(it) => text_of(it.result.as_ref()),
        Event::WorkflowExecutionCompletedEventAttributes(it) => text_of(it.result.as_ref()),
        Event::WorkflowExecutionSignaledEventAttributes(it) => {
            format!("{}({})", it.signal_name, text_of(it.input.as_ref()))
        }
        _ => reference(event).map_or_else(String::new, |(_, of, _)| format!("of {of}")),
    }
}
