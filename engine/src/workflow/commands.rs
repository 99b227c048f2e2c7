//! The commands of a completed workflow task: their order, and the table that leads to each.

use holdfast_proto::command::command::Attributes;
use holdfast_proto::command::{
    Command, ContinueAsNewWorkflowExecutionCommandAttributes, ProtocolMessageCommandAttributes,
    RequestCancelExternalWorkflowExecutionCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes, StartChildWorkflowExecutionCommandAttributes,
};
use holdfast_proto::enums::{CommandType, WorkflowTaskFailedCause as Cause};
use holdfast_proto::workflowservice::RespondWorkflowTaskCompletedRequest;

use crate::env::Env;
use crate::ids::Uuid;
use crate::input::Refusal;
use crate::live::Live;
use crate::reject::Rejection;
use crate::workflow::{
    CommandContext, activity, close, marker, properties, search_attributes, timer,
};

/// Checks the list as a whole, before any command has an effect: the task stays with the worker
/// when it is wrong.
pub fn check(commands: &[Command]) -> Result<(), Rejection> {
    let before_last = &commands[..commands.len().saturating_sub(1)];
    if let Some(close) = before_last.iter().find(|command| closes(command)) {
        let names: Vec<_> = commands.iter().map(name).collect();
        return Err(Rejection::invalid(format!(
            "invalid command sequence: [{}], command {} must be the last command.",
            names.join(", "),
            name(close)
        )));
    }
    match commands.iter().find(|command| kind(command) == CommandType::Unspecified) {
        Some(unknown) => {
            Err(Rejection::invalid(format!("unknown command type: {}", name(unknown))))
        }
        None => Ok(()),
    }
}

fn kind(command: &Command) -> CommandType {
    CommandType::try_from(command.command_type).unwrap_or(CommandType::Unspecified)
}

fn name(command: &Command) -> String {
    match CommandType::try_from(command.command_type) {
        Ok(known) => format!("{known:?}"),
        Err(_) => command.command_type.to_string(),
    }
}

fn closes(command: &Command) -> bool {
    matches!(
        kind(command),
        CommandType::CompleteWorkflowExecution
            | CommandType::FailWorkflowExecution
            | CommandType::CancelWorkflowExecution
            | CommandType::ContinueAsNewWorkflowExecution
    )
}

/// Whether the command asks for its activity to be started within the answer.
pub fn is_eager(command: &Command) -> bool {
    match &command.attributes {
        Some(Attributes::ScheduleActivityTaskCommandAttributes(a)) => a.request_eager_execution,
        _ => false,
    }
}

/// Carries out one command. `true` when the worker must look again at what it did.
pub fn carry_out(
    run: &mut Live,
    env: &Env<'_>,
    ctx: &CommandContext<'_>,
    request: &RespondWorkflowTaskCompletedRequest,
) -> Result<bool, Refusal> {
    let Some(attributes) = &ctx.command.attributes else { return Err(not_set(kind(ctx.command))) };
    if type_of(attributes) != kind(ctx.command) {
        return Err(not_set(kind(ctx.command)));
    }
    match attributes {
        Attributes::ScheduleActivityTaskCommandAttributes(a) => {
            activity::schedule(run, env, ctx, a)?
        }
        Attributes::RequestCancelActivityTaskCommandAttributes(a) => {
            return activity::request_cancel(run, env, ctx, a);
        }
        Attributes::StartTimerCommandAttributes(a) => timer::start(run, env, ctx, a)?,
        Attributes::CancelTimerCommandAttributes(a) => timer::cancel(run, env, ctx, a)?,
        Attributes::RecordMarkerCommandAttributes(a) => marker::record(run, env, ctx, a)?,
        Attributes::UpsertWorkflowSearchAttributesCommandAttributes(a) => {
            search_attributes::upsert(run, env, ctx, a)?
        }
        Attributes::ModifyWorkflowPropertiesCommandAttributes(a) => {
            properties::modify(run, env, ctx, a)?
        }
        Attributes::CompleteWorkflowExecutionCommandAttributes(a) => {
            close::complete(run, env, ctx, a)?
        }
        Attributes::FailWorkflowExecutionCommandAttributes(a) => close::fail(run, env, ctx, a)?,
        Attributes::CancelWorkflowExecutionCommandAttributes(a) => close::cancel(run, env, ctx, a)?,
        Attributes::StartChildWorkflowExecutionCommandAttributes(a) => {
            return Err(start_child(env, a));
        }
        Attributes::SignalExternalWorkflowExecutionCommandAttributes(a) => {
            return Err(signal_external(a));
        }
        Attributes::RequestCancelExternalWorkflowExecutionCommandAttributes(a) => {
            return Err(cancel_external(a));
        }
        Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(a) => {
            return Err(continue_as_new(a));
        }
        Attributes::ProtocolMessageCommandAttributes(a) => {
            return Err(protocol_message(a, request));
        }
        Attributes::ScheduleNexusOperationCommandAttributes(a) => {
            let text = format!("endpoint {:?} not found", a.endpoint);
            return Err(Refusal::bad(Cause::BadScheduleNexusOperationAttributes, text));
        }
        Attributes::RequestCancelNexusOperationCommandAttributes(_) => {
            return Err(unbuilt(CommandType::RequestCancelNexusOperation));
        }
    }
    Ok(false)
}

fn type_of(attributes: &Attributes) -> CommandType {
    match attributes {
        Attributes::ScheduleActivityTaskCommandAttributes(_) => CommandType::ScheduleActivityTask,
        Attributes::RequestCancelActivityTaskCommandAttributes(_) => {
            CommandType::RequestCancelActivityTask
        }
        Attributes::StartTimerCommandAttributes(_) => CommandType::StartTimer,
        Attributes::CancelTimerCommandAttributes(_) => CommandType::CancelTimer,
        Attributes::RecordMarkerCommandAttributes(_) => CommandType::RecordMarker,
        Attributes::UpsertWorkflowSearchAttributesCommandAttributes(_) => {
            CommandType::UpsertWorkflowSearchAttributes
        }
        Attributes::ModifyWorkflowPropertiesCommandAttributes(_) => {
            CommandType::ModifyWorkflowProperties
        }
        Attributes::CompleteWorkflowExecutionCommandAttributes(_) => {
            CommandType::CompleteWorkflowExecution
        }
        Attributes::FailWorkflowExecutionCommandAttributes(_) => CommandType::FailWorkflowExecution,
        Attributes::CancelWorkflowExecutionCommandAttributes(_) => {
            CommandType::CancelWorkflowExecution
        }
        Attributes::StartChildWorkflowExecutionCommandAttributes(_) => {
            CommandType::StartChildWorkflowExecution
        }
        Attributes::SignalExternalWorkflowExecutionCommandAttributes(_) => {
            CommandType::SignalExternalWorkflowExecution
        }
        Attributes::RequestCancelExternalWorkflowExecutionCommandAttributes(_) => {
            CommandType::RequestCancelExternalWorkflowExecution
        }
        Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(_) => {
            CommandType::ContinueAsNewWorkflowExecution
        }
        Attributes::ProtocolMessageCommandAttributes(_) => CommandType::ProtocolMessage,
        Attributes::ScheduleNexusOperationCommandAttributes(_) => {
            CommandType::ScheduleNexusOperation
        }
        Attributes::RequestCancelNexusOperationCommandAttributes(_) => {
            CommandType::RequestCancelNexusOperation
        }
    }
}

fn not_set(kind: CommandType) -> Refusal {
    let cause = match kind {
        CommandType::ScheduleActivityTask => Cause::BadScheduleActivityAttributes,
        CommandType::RequestCancelActivityTask => Cause::BadRequestCancelActivityAttributes,
        CommandType::StartTimer => Cause::BadStartTimerAttributes,
        CommandType::CompleteWorkflowExecution => Cause::BadCompleteWorkflowExecutionAttributes,
        CommandType::FailWorkflowExecution => Cause::BadFailWorkflowExecutionAttributes,
        CommandType::CancelTimer => Cause::BadCancelTimerAttributes,
        CommandType::CancelWorkflowExecution => Cause::BadCancelWorkflowExecutionAttributes,
        CommandType::RequestCancelExternalWorkflowExecution => {
            Cause::BadRequestCancelExternalWorkflowExecutionAttributes
        }
        CommandType::RecordMarker => Cause::BadRecordMarkerAttributes,
        CommandType::ContinueAsNewWorkflowExecution => Cause::BadContinueAsNewAttributes,
        CommandType::StartChildWorkflowExecution => Cause::BadStartChildExecutionAttributes,
        CommandType::SignalExternalWorkflowExecution => Cause::BadSignalWorkflowExecutionAttributes,
        CommandType::UpsertWorkflowSearchAttributes => Cause::BadSearchAttributes,
        CommandType::ProtocolMessage => Cause::BadUpdateWorkflowExecutionMessage,
        CommandType::ModifyWorkflowProperties => Cause::BadModifyWorkflowPropertiesAttributes,
        CommandType::ScheduleNexusOperation => Cause::BadScheduleNexusOperationAttributes,
        CommandType::RequestCancelNexusOperation => Cause::BadRequestCancelNexusOperationAttributes,
        CommandType::Unspecified => Cause::Unspecified,
    };
    Refusal::bad(cause, format!("{kind:?}CommandAttributes is not set on {kind:?}Command."))
}

// Commands that are not built: bad attributes are told first, as they will be then.

fn unbuilt(kind: CommandType) -> Refusal {
    Refusal::bad(Cause::FeatureDisabled, format!("{kind:?} is not implemented"))
}

fn start_child(env: &Env<'_>, a: &StartChildWorkflowExecutionCommandAttributes) -> Refusal {
    let namespace = if a.namespace.is_empty() { &env.namespace.name } else { &a.namespace };
    let kind = a.workflow_type.as_ref().map_or("", |kind| kind.name.as_str());
    let missing = match (a.workflow_id.as_str(), kind) {
        ("", _) => format!(
            "WorkflowId is not set on StartChildWorkflowExecutionCommand. WorkflowType={kind} Namespace={namespace}"
        ),
        (id, "") => format!(
            "WorkflowType is not set on StartChildWorkflowExecutionCommand. WorkflowId={id} Namespace={namespace}"
        ),
        _ => return unbuilt(CommandType::StartChildWorkflowExecution),
    };
    Refusal::bad(Cause::BadStartChildExecutionAttributes, format!("Required field {missing}"))
}

fn signal_external(a: &SignalExternalWorkflowExecutionCommandAttributes) -> Refusal {
    let (namespace, signal) = (&a.namespace, &a.signal_name);
    let execution = a.execution.clone().unwrap_or_default();
    let (id, run) = (&execution.workflow_id, &execution.run_id);
    let on = "on SignalExternalWorkflowExecutionCommand.";
    let text = if id.is_empty() {
        format!("WorkflowId is not set {on} Namespace={namespace} RunId={run} SignalName={signal}")
    } else if !run.is_empty() && Uuid::parse(run).is_none() {
        format!(
            "Invalid RunId set {on} WorkflowId={id} Namespace={namespace} RunId={run} SignalName={signal}"
        )
    } else if signal.is_empty() {
        format!("SignalName is not set {on} WorkflowId={id} Namespace={namespace} RunId={run}")
    } else {
        return unbuilt(CommandType::SignalExternalWorkflowExecution);
    };
    Refusal::bad(Cause::BadSignalWorkflowExecutionAttributes, text)
}

fn cancel_external(a: &RequestCancelExternalWorkflowExecutionCommandAttributes) -> Refusal {
    let (namespace, id, run) = (&a.namespace, &a.workflow_id, &a.run_id);
    let on = "on RequestCancelExternalWorkflowExecutionCommand.";
    let text = if id.is_empty() {
        format!("WorkflowId is not set {on} Namespace={namespace} RunId={run}")
    } else if !run.is_empty() && Uuid::parse(run).is_none() {
        format!("Invalid RunId set {on} WorkflowId={id} Namespace={namespace} RunId={run}")
    } else {
        return unbuilt(CommandType::RequestCancelExternalWorkflowExecution);
    };
    Refusal::bad(Cause::BadRequestCancelExternalWorkflowExecutionAttributes, text)
}

fn continue_as_new(a: &ContinueAsNewWorkflowExecutionCommandAttributes) -> Refusal {
    let negative = |d: &Option<prost_types::Duration>| {
        d.as_ref().is_some_and(|d| holdfast_proto::duration_nanos(d).is_ok_and(|n| n < 0))
    };
    let field = match (negative(&a.workflow_run_timeout), negative(&a.workflow_task_timeout)) {
        (true, _) => "WorkflowRunTimeout",
        (_, true) => "WorkflowTaskTimeout",
        _ => return unbuilt(CommandType::ContinueAsNewWorkflowExecution),
    };
    let kind = a.workflow_type.as_ref().map_or("", |kind| kind.name.as_str());
    let queue = a.task_queue.as_ref().map_or(String::new(), |queue| {
        format!("name:{:?} kind:{}", queue.name, queue.kind().as_str_name())
    });
    let text = format!(
        "Invalid {field} on ContinueAsNewWorkflowExecutionCommand: negative duration. WorkflowType={kind} TaskQueue={queue}"
    );
    Refusal::bad(Cause::BadContinueAsNewAttributes, text)
}

fn protocol_message(
    a: &ProtocolMessageCommandAttributes,
    request: &RespondWorkflowTaskCompletedRequest,
) -> Refusal {
    if request.messages.iter().any(|message| message.id == a.message_id) {
        return unbuilt(CommandType::ProtocolMessage);
    }
    let text = format!("ProtocolMessageCommand referenced absent message ID {}", a.message_id);
    Refusal::bad(Cause::BadUpdateWorkflowExecutionMessage, text)
}
