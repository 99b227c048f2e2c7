//! What a program asks of the server: as a command to send, and as the event that must come of it.

use holdfast_proto::command::command::Attributes as Ask;
use holdfast_proto::command::{
    CancelTimerCommandAttributes, CancelWorkflowExecutionCommandAttributes, Command,
    CompleteWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
    ModifyWorkflowPropertiesCommandAttributes, RecordMarkerCommandAttributes,
    RequestCancelActivityTaskCommandAttributes, ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes, UpsertWorkflowSearchAttributesCommandAttributes,
};
use holdfast_proto::common::{ActivityType, Memo, Payload, SearchAttributes};
use holdfast_proto::decoded;
use holdfast_proto::enums::CommandType;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;

use super::gifts::{self, failure};
use super::program::Job;
use super::wire::{
    ACTIVITY_TYPE, STEP_ATTRIBUTE, command, millis, nanos, priority, queue, text, text_of,
};

/// One thing that a program asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Schedule an activity.
    Schedule {
        /// Its id.
        id: String,
        /// What it is.
        job: Job,
    },
    /// Cancel an activity.
    CancelJob {
        /// The event that scheduled it.
        scheduled: i64,
    },
    /// Start a timer.
    StartTimer {
        /// Its id.
        id: String,
        /// How long.
        millis: u64,
    },
    /// Cancel a timer.
    CancelTimer {
        /// Its id.
        id: String,
    },
    /// Record a marker.
    Note {
        /// Its name.
        name: String,
    },
    /// Upsert the search attribute.
    Attribute {
        /// Its value.
        value: String,
    },
    /// Set a field of the memo.
    Memo {
        /// Its value.
        value: String,
    },
    /// Complete with this result.
    Complete {
        /// The result.
        result: String,
    },
    /// Fail.
    Fail,
    /// Be canceled.
    Cancel,
}

impl Order {
    /// Whether nothing can follow it.
    pub fn closes(&self) -> bool {
        matches!(self, Order::Complete { .. } | Order::Fail | Order::Cancel)
    }

    /// The command. Activities go to `on`; `eager` asks for them within the answer.
    pub fn command(&self, on: &str, eager: bool) -> Command {
        match self {
            Order::Schedule { id, job } => schedule(id, job, on, eager),
            Order::CancelJob { scheduled } => command(
                CommandType::RequestCancelActivityTask,
                Ask::RequestCancelActivityTaskCommandAttributes(
                    RequestCancelActivityTaskCommandAttributes { scheduled_event_id: *scheduled },
                ),
            ),
            Order::StartTimer { id, millis: after } => command(
                CommandType::StartTimer,
                Ask::StartTimerCommandAttributes(StartTimerCommandAttributes {
                    timer_id: id.clone(),
                    start_to_fire_timeout: Some(millis(*after)),
                }),
            ),
            Order::CancelTimer { id } => command(
                CommandType::CancelTimer,
                Ask::CancelTimerCommandAttributes(CancelTimerCommandAttributes {
                    timer_id: id.clone(),
                }),
            ),
            Order::Note { name } => command(
                CommandType::RecordMarker,
                Ask::RecordMarkerCommandAttributes(RecordMarkerCommandAttributes {
                    marker_name: name.clone(),
                    ..RecordMarkerCommandAttributes::default()
                }),
            ),
            Order::Attribute { value } => command(
                CommandType::UpsertWorkflowSearchAttributes,
                Ask::UpsertWorkflowSearchAttributesCommandAttributes(
                    UpsertWorkflowSearchAttributesCommandAttributes {
                        search_attributes: Some(attributes(value)),
                    },
                ),
            ),
            Order::Memo { value } => command(
                CommandType::ModifyWorkflowProperties,
                Ask::ModifyWorkflowPropertiesCommandAttributes(
                    ModifyWorkflowPropertiesCommandAttributes { upserted_memo: Some(memo(value)) },
                ),
            ),
            Order::Complete { .. } | Order::Fail | Order::Cancel => self.closing(),
        }
    }

    fn closing(&self) -> Command {
        match self {
            Order::Complete { result } => command(
                CommandType::CompleteWorkflowExecution,
                Ask::CompleteWorkflowExecutionCommandAttributes(
                    CompleteWorkflowExecutionCommandAttributes { result: Some(text(result)) },
                ),
            ),
            Order::Fail => command(
                CommandType::FailWorkflowExecution,
                Ask::FailWorkflowExecutionCommandAttributes(
                    FailWorkflowExecutionCommandAttributes {
                        failure: Some(failure("program", "Planned", true)),
                    },
                ),
            ),
            _ => command(
                CommandType::CancelWorkflowExecution,
                Ask::CancelWorkflowExecutionCommandAttributes(
                    CancelWorkflowExecutionCommandAttributes::default(),
                ),
            ),
        }
    }

    /// Whether an event is what comes of this.
    pub fn is(&self, event: &Event) -> bool {
        match (self, event) {
            (Order::Schedule { id, job }, Event::ActivityTaskScheduledEventAttributes(a)) => {
                a.activity_id == *id && text_of(a.input.as_ref()) == job.seed.to_string()
            }
            (
                Order::CancelJob { scheduled },
                Event::ActivityTaskCancelRequestedEventAttributes(a),
            ) => a.scheduled_event_id == *scheduled,
            (Order::StartTimer { id, millis }, Event::TimerStartedEventAttributes(a)) => {
                a.timer_id == *id
                    && nanos(a.start_to_fire_timeout.as_ref()) == millis.saturating_mul(1_000_000)
            }
            (Order::CancelTimer { id }, Event::TimerCanceledEventAttributes(a)) => {
                a.timer_id == *id
            }
            (Order::Note { name }, Event::MarkerRecordedEventAttributes(a)) => {
                a.marker_name == *name
            }
            (Order::Attribute { .. }, Event::UpsertWorkflowSearchAttributesEventAttributes(a)) => {
                a.search_attributes.is_some()
            }
            (Order::Memo { value }, Event::WorkflowPropertiesModifiedEventAttributes(a)) => {
                a.upserted_memo == Some(memo(value))
            }
            (Order::Complete { result }, Event::WorkflowExecutionCompletedEventAttributes(a)) => {
                text_of(a.result.as_ref()) == *result
            }
            (Order::Fail, Event::WorkflowExecutionFailedEventAttributes(_))
            | (Order::Cancel, Event::WorkflowExecutionCanceledEventAttributes(_)) => true,
            _ => false,
        }
    }
}

fn schedule(id: &str, job: &Job, on: &str, eager: bool) -> Command {
    let some = |ms: u64| (ms != 0).then(|| millis(ms));
    let attributes = ScheduleActivityTaskCommandAttributes {
        activity_id: id.to_owned(),
        activity_type: Some(ActivityType { name: ACTIVITY_TYPE.to_owned() }),
        task_queue: Some(queue(on)),
        input: Some(text(&job.seed.to_string())),
        header: Some(gifts::header(&job.seed.to_string())),
        schedule_to_close_timeout: some(job.schedule_to_close_ms),
        schedule_to_start_timeout: some(job.schedule_to_start_ms),
        start_to_close_timeout: some(job.start_to_close_ms),
        heartbeat_timeout: some(job.heartbeat_ms),
        retry_policy: Some(job.policy()),
        request_eager_execution: eager,
        priority: (job.priority != 0).then(|| priority(job.priority)),
        ..ScheduleActivityTaskCommandAttributes::default()
    };
    command(
        CommandType::ScheduleActivityTask,
        Ask::ScheduleActivityTaskCommandAttributes(attributes),
    )
}

/// The search attribute that a program upserts.
pub fn attributes(value: &str) -> SearchAttributes {
    let value = Payload::json(&format!("\"{value}\""));
    SearchAttributes { indexed_fields: [(STEP_ATTRIBUTE.to_owned(), value)].into() }
}

/// The memo that a program upserts.
pub fn memo(value: &str) -> Memo {
    let value = Payload::json(&format!("\"{value}\""));
    Memo::encode_from(&decoded::Memo { fields: [("step".to_owned(), value)].into() })
}

/// The completed workflow task whose command an event comes of; `None` for other events.
pub fn cause(event: &HistoryEvent) -> Option<i64> {
    Some(match event.attributes.as_ref()? {
        Event::ActivityTaskScheduledEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::ActivityTaskCancelRequestedEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::TimerStartedEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::TimerCanceledEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::MarkerRecordedEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::UpsertWorkflowSearchAttributesEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Event::WorkflowPropertiesModifiedEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::WorkflowExecutionCompletedEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::WorkflowExecutionFailedEventAttributes(a) => a.workflow_task_completed_event_id,
        Event::WorkflowExecutionCanceledEventAttributes(a) => a.workflow_task_completed_event_id,
        _ => return None,
    })
}
