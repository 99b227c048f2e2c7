//! Messages as clients and workers write and read them.

use bytes::Bytes;
use holdfast_proto::command::Command;
use holdfast_proto::command::command::Attributes;
use holdfast_proto::common::{Payload, Payloads, Priority, WorkflowExecution};
use holdfast_proto::decoded;
use holdfast_proto::enums::{CommandType, EventType, TaskQueueKind};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::taskqueue::TaskQueue;
use prost_types::Timestamp;

/// The namespace of all that the simulator runs.
pub const NAMESPACE: &str = "sim";
/// The type of every generated workflow.
pub const WORKFLOW_TYPE: &str = "program";
/// The type of every generated activity.
pub const ACTIVITY_TYPE: &str = "job";
/// The search attribute that programs upsert.
pub const STEP_ATTRIBUTE: &str = "SimStep";

/// One argument or result, of text.
pub fn text(text: &str) -> Payloads {
    Payloads::encode_from(&decoded::Payloads { payloads: vec![plain(text)] })
}

/// A value of text.
pub fn plain(text: &str) -> Payload {
    let encoding = ("encoding".to_owned(), Bytes::from_static(b"binary/plain"));
    Payload::encode_from(&decoded::Payload {
        metadata: [encoding].into(),
        data: Bytes::copy_from_slice(text.as_bytes()),
        ..decoded::Payload::default()
    })
}

/// The text of a single argument or result; empty when there is none.
pub fn text_of(payloads: Option<&Payloads>) -> String {
    let first = payloads.and_then(|payloads| payloads.decode().ok()?.payloads.into_iter().next());
    first.map_or_else(String::new, |payload| text_in(&payload))
}

/// The text of a value.
pub fn text_in(payload: &Payload) -> String {
    payload
        .decode()
        .map_or_else(|_| String::new(), |it| String::from_utf8_lossy(&it.data).into_owned())
}

/// Milliseconds, as they travel.
pub fn millis(millis: u64) -> prost_types::Duration {
    holdfast_proto::duration(millis.saturating_mul(1_000_000))
}

/// A duration in nanoseconds; 0 when it is not set.
pub fn nanos(duration: Option<&prost_types::Duration>) -> u64 {
    let nanos = duration.and_then(|it| holdfast_proto::duration_nanos(it).ok()).unwrap_or(0);
    u64::try_from(nanos).unwrap_or(0)
}

/// A task queue of the usual kind.
pub fn queue(name: &str) -> TaskQueue {
    TaskQueue { name: name.to_owned(), kind: TaskQueueKind::Normal as i32, ..TaskQueue::default() }
}

/// A worker's own queue beside the usual one.
pub fn sticky(name: &str, normal: &str) -> TaskQueue {
    TaskQueue {
        name: name.to_owned(),
        kind: TaskQueueKind::Sticky as i32,
        normal_name: normal.to_owned(),
    }
}

/// An execution; its current run when `run` is empty.
pub fn execution(id: &str, run: &str) -> WorkflowExecution {
    WorkflowExecution { workflow_id: id.to_owned(), run_id: run.to_owned() }
}

/// A priority, without fairness.
pub fn priority(key: i32) -> Priority {
    Priority { priority_key: key, ..Priority::default() }
}

/// A command.
pub fn command(kind: CommandType, attributes: Attributes) -> Command {
    Command { command_type: kind as i32, attributes: Some(attributes), ..Command::default() }
}

/// The name of an event's type.
pub fn event_name(event: &HistoryEvent) -> String {
    let name = EventType::try_from(event.event_type);
    name.map_or_else(|_| event.event_type.to_string(), |kind| format!("{kind:?}"))
}

/// When an event happened by its own word, in nanoseconds since the epoch.
pub fn event_time(event: &HistoryEvent) -> u64 {
    time(event.event_time.as_ref())
}

/// A point in time in nanoseconds since the epoch; 0 when it is not set.
pub fn time(time: Option<&Timestamp>) -> u64 {
    time.and_then(holdfast_proto::nanos).unwrap_or(0)
}

/// What scheduled and what started the workflow task that an event ends.
pub fn ended_task(event: &HistoryEvent) -> Option<(i64, i64)> {
    Some(match event.attributes.as_ref()? {
        Event::WorkflowTaskCompletedEventAttributes(a) => {
            (a.scheduled_event_id, a.started_event_id)
        }
        Event::WorkflowTaskFailedEventAttributes(a) => (a.scheduled_event_id, a.started_event_id),
        Event::WorkflowTaskTimedOutEventAttributes(a) => (a.scheduled_event_id, a.started_event_id),
        _ => return None,
    })
}

/// Whether an event ends its run.
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
