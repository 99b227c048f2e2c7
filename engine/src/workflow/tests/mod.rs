//! Transcripts of whole runs, one file per theme, and the same laws under random inputs.
//!
//! A test named after a scenario of the conformance kit shows what its golden records.

mod close;
mod corpus;
mod describe;
mod grants;
mod own_time;
mod random;
mod requests;
mod signal;
mod start;
mod sticky;
mod task;
mod versions;

use holdfast_proto::command::command::Attributes;
use holdfast_proto::command::{
    Command, CompleteWorkflowExecutionCommandAttributes, RecordMarkerCommandAttributes,
    StartTimerCommandAttributes,
};
use holdfast_proto::common::{Payload, Payloads};
use holdfast_proto::decoded;
use holdfast_proto::enums::{CommandType, WorkflowTaskFailedCause};
use holdfast_proto::workflowservice as rpc;

use crate::input::Input;
use crate::testing::{World, command};
use crate::token::TaskToken;

fn complete_run() -> Command {
    let attributes = CompleteWorkflowExecutionCommandAttributes::default();
    let attributes = Attributes::CompleteWorkflowExecutionCommandAttributes(attributes);
    command(CommandType::CompleteWorkflowExecution, attributes)
}

fn marker() -> Command {
    let attributes =
        RecordMarkerCommandAttributes { marker_name: "m".to_owned(), ..Default::default() };
    command(CommandType::RecordMarker, Attributes::RecordMarkerCommandAttributes(attributes))
}

/// A timer; one without an id is a bad command.
fn timer(id: &str, seconds: u64) -> Command {
    let attributes = StartTimerCommandAttributes {
        timer_id: id.to_owned(),
        start_to_fire_timeout: Some(holdfast_proto::duration(seconds * 1_000_000_000)),
    };
    command(CommandType::StartTimer, Attributes::StartTimerCommandAttributes(attributes))
}

fn payloads(text: &str) -> Payloads {
    Payloads::encode_from(&decoded::Payloads { payloads: vec![Payload::json(text)] })
}

fn fail_task(w: &mut World, token: &TaskToken) -> String {
    let request = rpc::RespondWorkflowTaskFailedRequest {
        cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure as i32,
        identity: "worker".to_owned(),
        ..Default::default()
    };
    w.say(Input::WorkflowTaskFailed { token: token.clone(), request: Box::new(request) })
}

fn terminate(w: &mut World, reason: &str) -> String {
    let request = rpc::TerminateWorkflowExecutionRequest {
        workflow_execution: Some(w.execution()),
        reason: reason.to_owned(),
        identity: "client".to_owned(),
        ..Default::default()
    };
    w.say(Input::Terminate(Box::new(request)))
}

fn cancel(w: &mut World, request_id: &str) -> String {
    let request = rpc::RequestCancelWorkflowExecutionRequest {
        workflow_execution: Some(w.execution()),
        identity: "client".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    w.say(Input::RequestCancel(Box::new(request)))
}

/// Starts a run that is past its first workflow task.
fn idle() -> World {
    let mut w = World::new();
    w.start();
    w.turn(Vec::new());
    w.forget();
    w
}
