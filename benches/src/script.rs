//! The workflow of the measurements: hello-world with one activity, in seven unary calls. Start;
//! then poll and answer three times: workflow task, activity task, workflow task.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::command::{
    Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes, command::Attributes,
};
use holdfast_proto::common::{ActivityType, Payloads, RetryPolicy};
use holdfast_proto::enums::CommandType;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;

use crate::client::{bytes_of, duration, queue};

/// The command that schedules an activity: retried without end, one attempt at most `attempt` long.
pub fn schedule(id: &str, on: &str, input: Payloads, attempt: Duration) -> Command {
    let attributes = ScheduleActivityTaskCommandAttributes {
        activity_id: id.to_owned(),
        activity_type: Some(ActivityType { name: "say_hello".to_owned() }),
        task_queue: Some(queue(on)),
        input: Some(input),
        start_to_close_timeout: Some(duration(attempt)),
        retry_policy: Some(RetryPolicy {
            initial_interval: Some(duration(Duration::from_millis(100))),
            backoff_coefficient: 1.0,
            ..RetryPolicy::default()
        }),
        ..Default::default()
    };
    command(
        CommandType::ScheduleActivityTask,
        Attributes::ScheduleActivityTaskCommandAttributes(attributes),
    )
}

/// The command that starts a timer.
pub fn timer(id: &str, after: Duration) -> Command {
    let attributes = StartTimerCommandAttributes {
        timer_id: id.to_owned(),
        start_to_fire_timeout: Some(duration(after)),
    };
    command(CommandType::StartTimer, Attributes::StartTimerCommandAttributes(attributes))
}

/// The command that completes a workflow.
pub fn complete(result: Payloads) -> Command {
    let attributes = CompleteWorkflowExecutionCommandAttributes { result: Some(result) };
    command(
        CommandType::CompleteWorkflowExecution,
        Attributes::CompleteWorkflowExecutionCommandAttributes(attributes),
    )
}

fn command(kind: CommandType, attributes: Attributes) -> Command {
    Command { command_type: kind as i32, attributes: Some(attributes), ..Command::default() }
}

/// What the workflow does next: schedules its activity with `input`, or completes with its result.
pub fn next(history: &[HistoryEvent], on: &str, input: impl FnOnce() -> Payloads) -> Command {
    match outcome(history) {
        Some(result) => complete(result),
        None => schedule("1", on, input(), Duration::from_secs(10)),
    }
}

/// The result of the one activity, once there is one.
fn outcome(history: &[HistoryEvent]) -> Option<Payloads> {
    history.iter().find_map(|event| match &event.attributes {
        Some(Event::ActivityTaskCompletedEventAttributes(done)) => done.result.clone(),
        _ => None,
    })
}

/// Why the history of a finished hello-world is not what it must be.
pub fn wrong(history: &[HistoryEvent]) -> Option<String> {
    if let Some(fault) = crate::history::faults(history).into_iter().next() {
        return Some(fault);
    }
    let activity = bytes_of(outcome(history).as_ref());
    let workflow = match history.last().and_then(|event| event.attributes.as_ref()) {
        Some(Event::WorkflowExecutionCompletedEventAttributes(done)) => {
            bytes_of(done.result.as_ref())
        }
        _ => Bytes::new(),
    };
    let right = history.len() == 11 && workflow.len() == 64 && workflow == activity;
    (!right).then(|| {
        let kinds: Vec<_> = history.iter().map(crate::history::kind).collect();
        format!("not a finished hello-world: {}", kinds.join(" "))
    })
}
