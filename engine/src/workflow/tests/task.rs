//! Workflow tasks: attempts, failures, timeouts, heartbeats, bad commands, buffers.

use holdfast_proto::command::Command;
use holdfast_proto::command::command::Attributes;
use holdfast_proto::command::{
    CancelTimerCommandAttributes, ContinueAsNewWorkflowExecutionCommandAttributes,
    ProtocolMessageCommandAttributes, RequestCancelExternalWorkflowExecutionCommandAttributes,
    ScheduleNexusOperationCommandAttributes, SignalExternalWorkflowExecutionCommandAttributes,
    StartChildWorkflowExecutionCommandAttributes,
};
use holdfast_proto::common::{WorkflowExecution, WorkflowType};
use holdfast_proto::enums::{CommandType, WorkflowTaskFailedCause};
use holdfast_proto::workflowservice as rpc;

use super::{complete_run, fail_task, idle, marker, timer};
use crate::input::Input;
use crate::testing::{World, command, completion};

#[test]
fn a_task_from_poll_to_the_end() {
    let mut w = World::new();
    w.start();
    w.forget();
    let task = w.poll();
    w.flush();
    w.complete(&task.token, vec![marker(), timer("t", 60)]);
    w.complete(&task.token, Vec::new());
    w.expect(
        "
> 0.000 worker polls task 2 stamp 0 on queue
=> task 2 3 attempt 1 events 1..3 [3 WORKFLOW_TASK_STARTED of 2 by worker] previous 0
> 0.000 flush starts
  3 WORKFLOW_TASK_STARTED of 2 by worker
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 10.000
=> done
> 0.000 completed 2 3 attempt 1 with 2 commands
  4 WORKFLOW_TASK_COMPLETED of 2 3
  5 MARKER_RECORDED
  6 TIMER_STARTED
  deadline 60.000
=> completed
> 0.000 completed 2 3 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
",
    );
}

#[test]
fn failed_task_is_retried() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    fail_task(&mut w, &task.token);
    let again = w.poll();
    w.flush();
    w.complete(&again.token, vec![complete_run()]);
    w.expect(
        "
> 0.000 failed 2 3 attempt 1
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_FAILED of 2 3 WorkflowWorkerUnhandledFailure by worker
  task attempt 2 as 5 timeout 10s
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  row + Workflow queue of 5 attempt 2 stamp 0 at 0.000
=> done
> 0.000 worker polls task 5 stamp 0 on queue
=> task 5 6 attempt 2 events 1..5 [5 WORKFLOW_TASK_SCHEDULED queue attempt 2 timeout 10s] [6 WORKFLOW_TASK_STARTED of 5 by worker] previous 0
> 0.000 flush starts
  task started as 6 by worker
  row - Workflow queue of 5 attempt 2 stamp 0 at 0.000
  deadline 10.000
=> done
> 0.000 completed 5 6 attempt 2 with 1 commands
  5 WORKFLOW_TASK_SCHEDULED queue attempt 2 timeout 10s
  6 WORKFLOW_TASK_STARTED of 5 by worker
  7 WORKFLOW_TASK_COMPLETED of 5 6
  8 WORKFLOW_EXECUTION_COMPLETED
  leaves at 3600.000
  deadline 3600.000
  record current run Completed
=> completed
",
    );
}

#[test]
fn failed_task_then_signal_held_and_waiting() {
    // Held: the attempt's own events come first.
    let mut w = World::new();
    w.start();
    let task = w.poll();
    fail_task(&mut w, &task.token);
    let again = w.poll();
    w.forget();
    w.signal("s", "r");
    w.complete(&again.token, Vec::new());
    w.expect(
        "
> 0.000 signal s by r
  task started as 6 by worker
  buffered WORKFLOW_EXECUTION_SIGNALED s
  row - Workflow queue of 5 attempt 2 stamp 0 at 0.000
  deadline 10.000
  record request r seen
=> signaled
> 0.000 completed 5 6 attempt 2 with 0 commands
  5 WORKFLOW_TASK_SCHEDULED queue attempt 2 timeout 10s
  6 WORKFLOW_TASK_STARTED of 5 by worker
  7 WORKFLOW_TASK_COMPLETED of 5 6
  buffer of 1 flushed
  8 WORKFLOW_EXECUTION_SIGNALED s
  9 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 9 attempt 1 stamp 0 at 0.000
  deadline none
=> completed
",
    );
    // Waiting: the news makes it a first attempt again, when it is handed out.
    let mut w = World::new();
    w.start();
    let task = w.poll();
    fail_task(&mut w, &task.token);
    w.forget();
    w.signal("s", "r");
    let again = w.poll();
    w.flush();
    w.complete(&again.token, Vec::new());
    w.expect(
        "
> 0.000 signal s by r
  5 WORKFLOW_EXECUTION_SIGNALED s
  record request r seen
=> signaled
> 0.000 worker polls task 5 stamp 0 on queue
=> task 6 7 attempt 1 events 1..6 [6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s] [7 WORKFLOW_TASK_STARTED of 6 by worker] previous 0
> 0.000 flush starts
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  7 WORKFLOW_TASK_STARTED of 6 by worker
  row - Workflow queue of 5 attempt 2 stamp 0 at 0.000
  deadline 10.000
=> done
> 0.000 completed 6 7 attempt 1 with 0 commands
  8 WORKFLOW_TASK_COMPLETED of 6 7
  deadline none
=> completed
",
    );
}

#[test]
fn buffered_events_of_failed_task() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.signal("s", "r");
    w.forget();
    fail_task(&mut w, &task.token);
    w.expect(
        "
> 0.000 failed 2 3 attempt 1
  4 WORKFLOW_TASK_FAILED of 2 3 WorkflowWorkerUnhandledFailure by worker
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_SIGNALED s
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline none
=> done
",
    );
}

#[test]
fn task_times_out() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.flush();
    w.forget();
    w.due();
    w.complete(&task.token, vec![complete_run()]);
    w.poll();
    w.flush();
    w.due();
    w.expect(
        "
> 10.000 due
  4 WORKFLOW_TASK_TIMED_OUT of 2 3 StartToClose
  task attempt 2 as 5 timeout 10s
  row + Workflow queue of 5 attempt 2 stamp 0 at 10.000
  deadline none
=> done
> 10.000 completed 2 3 attempt 1 with 1 commands
=> NotFound: Workflow task not found.
> 10.000 worker polls task 5 stamp 0 on queue
=> task 5 6 attempt 2 events 1..5 [5 WORKFLOW_TASK_SCHEDULED queue attempt 2 timeout 10s] [6 WORKFLOW_TASK_STARTED of 5 by worker] previous 0
> 10.000 flush starts
  task started as 6 by worker
  row - Workflow queue of 5 attempt 2 stamp 0 at 10.000
  deadline 20.000
=> done
> 20.000 due
  task ended
  task attempt 3 as 5 timeout 10s
  row + Workflow queue of 5 attempt 3 stamp 0 at 20.000
  deadline none
=> done
",
    );
}

#[test]
fn start_to_close_grows_from_the_fourth_attempt_on() {
    let mut w = World::new();
    w.start();
    let mut timeouts = Vec::new();
    for _ in 0..11 {
        timeouts
            .push(w.state().workflow_task.as_ref().map_or(0, |task| task.timeout / 1_000_000_000));
        let task = w.poll();
        fail_task(&mut w, &task.token);
    }
    assert_eq!(timeouts, [10, 10, 10, 15, 20, 30, 50, 90, 170, 330, 610]);
}

#[test]
fn bad_command_undoes_the_others() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    w.complete(&task.token, vec![marker(), timer("t", 60), timer("t", 60)]);
    w.expect(
        "
> 0.000 completed 2 3 attempt 1 with 3 commands
discarded
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_FAILED of 2 3 StartTimerDuplicateId by worker
  task attempt 2 as 5 timeout 10s
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  row + Workflow queue of 5 attempt 2 stamp 0 at 0.000
=> InvalidArgument: StartTimerDuplicateId: invalid history builder state for action: add-timer-started-event, TimerID: t
",
    );
    assert!(w.state().timers.is_empty());
}

#[test]
fn bad_command_on_second_attempt() {
    let mut w = World::new();
    w.start();
    w.turn(vec![timer("", 1)]);
    let second = w.poll();
    w.forget();
    w.complete(&second.token, vec![timer("", 1)]);
    w.due();
    w.expect(
        "
> 0.000 completed 5 6 attempt 2 with 1 commands
discarded
  task started as 6 by worker
  row - Workflow queue of 5 attempt 2 stamp 0 at 0.000
  deadline 10.000
=> InvalidArgument: BadStartTimerAttributes: TimerId is not set on StartTimerCommand.
> 10.000 due
  task ended
  task attempt 3 as 5 timeout 10s
  row + Workflow queue of 5 attempt 3 stamp 0 at 10.000
  deadline none
=> done
",
    );
}

#[test]
fn unhandled_command_on_second_attempt_ships_the_signal() {
    let mut w = World::new();
    w.start();
    w.turn(vec![timer("", 1)]);
    let second = w.poll();
    w.signal("s", "r");
    w.forget();
    w.complete(&second.token, vec![complete_run()]);
    w.expect(
        "
> 0.000 completed 5 6 attempt 2 with 1 commands
discarded
  task ended
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_SIGNALED s
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline none
=> InvalidArgument: UnhandledCommand
",
    );
}

#[test]
fn a_timer_that_fired_and_is_cancelled_does_not_hold_off_the_close() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    let mut request = completion(vec![timer("t", 1)]);
    request.force_create_new_workflow_task = true;
    w.complete_with(&task.token, request);
    let task = w.poll();
    w.flush();
    w.due();
    w.forget();
    let cancel = CancelTimerCommandAttributes { timer_id: "t".to_owned() };
    let cancel =
        command(CommandType::CancelTimer, Attributes::CancelTimerCommandAttributes(cancel));
    w.complete(&task.token, vec![cancel, complete_run()]);
    w.expect(
        "
> 1.000 completed 6 7 attempt 1 with 2 commands
  8 WORKFLOW_TASK_COMPLETED of 6 7
  firing of t dropped from the buffer
  9 TIMER_CANCELED
  10 WORKFLOW_EXECUTION_COMPLETED
  leaves at 3601.000
  deadline 3601.000
  record current run Completed
=> completed
",
    );
}

#[test]
fn lists_that_are_refused_leave_the_task_with_the_worker() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    w.complete(&task.token, vec![complete_run(), timer("t", 1)]);
    w.complete(&task.token, vec![Command::default()]);
    w.complete(&task.token, vec![marker(), Command { command_type: 99, ..Command::default() }]);
    w.complete(&task.token, vec![complete_run()]);
    w.expect(
        "
> 0.000 completed 2 3 attempt 1 with 2 commands
=> InvalidArgument: invalid command sequence: [CompleteWorkflowExecution, StartTimer], command CompleteWorkflowExecution must be the last command.
> 0.000 completed 2 3 attempt 1 with 1 commands
=> InvalidArgument: unknown command type: Unspecified
> 0.000 completed 2 3 attempt 1 with 2 commands
=> InvalidArgument: unknown command type: 99
> 0.000 completed 2 3 attempt 1 with 1 commands
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_COMPLETED of 2 3
  5 WORKFLOW_EXECUTION_COMPLETED
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Completed
=> completed
",
    );
}

/// What a worker is told, and the cause in history.
fn refused(commands: Vec<Command>) -> String {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    let said = w.complete(&task.token, commands);
    let answer = said.lines().last().unwrap_or("").to_owned();
    assert!(w.history().contains("4 WORKFLOW_TASK_FAILED of 2 3"), "{said}");
    answer
}

#[test]
fn commands_that_are_not_built_say_so() {
    let child = |id: &str, kind: &str| {
        let attributes = StartChildWorkflowExecutionCommandAttributes {
            workflow_id: id.to_owned(),
            workflow_type: Some(WorkflowType { name: kind.to_owned() }),
            ..Default::default()
        };
        let attributes = Attributes::StartChildWorkflowExecutionCommandAttributes(attributes);
        refused(vec![command(CommandType::StartChildWorkflowExecution, attributes)])
    };
    assert_eq!(
        child("", "child"),
        "=> InvalidArgument: BadStartChildExecutionAttributes: Required field WorkflowId is not set on StartChildWorkflowExecutionCommand. WorkflowType=child Namespace=default"
    );
    assert_eq!(
        child("c", ""),
        "=> InvalidArgument: BadStartChildExecutionAttributes: Required field WorkflowType is not set on StartChildWorkflowExecutionCommand. WorkflowId=c Namespace=default"
    );
    assert_eq!(
        child("c", "child"),
        "=> InvalidArgument: FeatureDisabled: StartChildWorkflowExecution is not implemented"
    );
    let signal = |id: &str, run: &str, name: &str| {
        let attributes = SignalExternalWorkflowExecutionCommandAttributes {
            execution: Some(WorkflowExecution {
                workflow_id: id.to_owned(),
                run_id: run.to_owned(),
            }),
            signal_name: name.to_owned(),
            ..Default::default()
        };
        let attributes = Attributes::SignalExternalWorkflowExecutionCommandAttributes(attributes);
        refused(vec![command(CommandType::SignalExternalWorkflowExecution, attributes)])
    };
    let bad = "=> InvalidArgument: BadSignalWorkflowExecutionAttributes:";
    assert_eq!(
        signal("", "", "s"),
        format!(
            "{bad} WorkflowId is not set on SignalExternalWorkflowExecutionCommand. Namespace= RunId= SignalName=s"
        )
    );
    assert_eq!(
        signal("x", "", ""),
        format!(
            "{bad} SignalName is not set on SignalExternalWorkflowExecutionCommand. WorkflowId=x Namespace= RunId="
        )
    );
    assert_eq!(
        signal("x", "not-a-uuid", "s"),
        format!(
            "{bad} Invalid RunId set on SignalExternalWorkflowExecutionCommand. WorkflowId=x Namespace= RunId=not-a-uuid SignalName=s"
        )
    );
    assert_eq!(
        signal("x", "", "s"),
        "=> InvalidArgument: FeatureDisabled: SignalExternalWorkflowExecution is not implemented"
    );
}

#[test]
fn more_commands_that_are_not_built_say_so() {
    let cancel = RequestCancelExternalWorkflowExecutionCommandAttributes::default();
    let cancel = Attributes::RequestCancelExternalWorkflowExecutionCommandAttributes(cancel);
    assert_eq!(
        refused(vec![command(CommandType::RequestCancelExternalWorkflowExecution, cancel)]),
        "=> InvalidArgument: BadRequestCancelExternalWorkflowExecutionAttributes: WorkflowId is not set on RequestCancelExternalWorkflowExecutionCommand. Namespace= RunId="
    );
    let again = ContinueAsNewWorkflowExecutionCommandAttributes {
        workflow_type: Some(WorkflowType { name: "wf".to_owned() }),
        task_queue: Some(crate::workflow::workflow_task::normal_queue("q")),
        workflow_run_timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        ..Default::default()
    };
    let again = Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(again);
    assert_eq!(
        refused(vec![command(CommandType::ContinueAsNewWorkflowExecution, again)]),
        "=> InvalidArgument: BadContinueAsNewAttributes: Invalid WorkflowRunTimeout on ContinueAsNewWorkflowExecutionCommand: negative duration. WorkflowType=wf TaskQueue=name:\"q\" kind:TASK_QUEUE_KIND_NORMAL"
    );
    let message = ProtocolMessageCommandAttributes { message_id: "nowhere".to_owned() };
    let message = Attributes::ProtocolMessageCommandAttributes(message);
    assert_eq!(
        refused(vec![command(CommandType::ProtocolMessage, message)]),
        "=> InvalidArgument: BadUpdateWorkflowExecutionMessage: ProtocolMessageCommand referenced absent message ID nowhere"
    );
    let nexus =
        ScheduleNexusOperationCommandAttributes { endpoint: "e".to_owned(), ..Default::default() };
    let nexus = Attributes::ScheduleNexusOperationCommandAttributes(nexus);
    assert_eq!(
        refused(vec![command(CommandType::ScheduleNexusOperation, nexus)]),
        "=> InvalidArgument: BadScheduleNexusOperationAttributes: endpoint \"e\" not found"
    );
}

#[test]
fn attributes_that_are_missing_or_of_another_type_fail_the_task() {
    let bare = Command { command_type: CommandType::StartTimer as i32, ..Command::default() };
    assert_eq!(
        refused(vec![bare]),
        "=> InvalidArgument: BadStartTimerAttributes: StartTimerCommandAttributes is not set on StartTimerCommand."
    );
    let other = Command { command_type: CommandType::RecordMarker as i32, ..timer("t", 1) };
    assert_eq!(
        refused(vec![other]),
        "=> InvalidArgument: BadRecordMarkerAttributes: RecordMarkerCommandAttributes is not set on RecordMarkerCommand."
    );
}

#[test]
fn force_new_task_with_and_without_return() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    let mut request = completion(Vec::new());
    request.force_create_new_workflow_task = true;
    w.complete_with(&task.token, request.clone());
    let task = w.poll();
    request.return_new_workflow_task = true;
    w.complete_with(&task.token, request.clone());
    let key = w.key.clone();
    let inline = crate::workflow::workflow_task::given(w.live(), &key).expect("held");
    request.force_create_new_workflow_task = false;
    w.complete_with(&inline.token, request);
    w.expect(
        "
> 0.000 completed 2 3 attempt 1 with 0 commands
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_COMPLETED of 2 3
  5 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  row + Workflow queue of 5 attempt 1 stamp 0 at 0.000
=> completed
> 0.000 worker polls task 5 stamp 0 on queue
=> task 5 6 attempt 1 events 1..6 [6 WORKFLOW_TASK_STARTED of 5 by worker] previous 3
> 0.000 completed 5 6 attempt 1 with 0 commands
  6 WORKFLOW_TASK_STARTED of 5 by worker
  7 WORKFLOW_TASK_COMPLETED of 5 6
  8 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  9 WORKFLOW_TASK_STARTED of 8 by worker
  row - Workflow queue of 5 attempt 1 stamp 0 at 0.000
  deadline 10.000
=> completed, with task 8 9 attempt 1 events 7..10 previous 6
> 0.000 completed 8 9 attempt 1 with 0 commands
  10 WORKFLOW_TASK_COMPLETED of 8 9
  deadline none
=> completed
",
    );
}

#[test]
fn heartbeats_keep_the_first_time_and_end_after_half_an_hour() {
    let mut w = World::new();
    w.start();
    let mut token = w.poll().token;
    let mut request = completion(Vec::new());
    request.force_create_new_workflow_task = true;
    request.return_new_workflow_task = true;
    let key = w.key.clone();
    for _ in 0..179 {
        w.wait(10.0);
        w.complete_with(&token, request.clone());
        token = crate::workflow::workflow_task::given(w.live(), &key).expect("held").token;
    }
    assert_eq!(
        w.state().workflow_task.as_ref().map(|task| task.original_scheduled_at),
        Some(crate::testing::EPOCH.0)
    );
    w.wait(20.0);
    w.forget();
    w.complete_with(&token, request);
    w.expect(
        "
> 1810.000 completed 539 540 attempt 1 with 0 commands
  541 WORKFLOW_TASK_TIMED_OUT of 539 540 StartToClose
  task attempt 2 as 542 timeout 10s
  row + Workflow queue of 542 attempt 2 stamp 0 at 1810.000
  deadline none
=> NotFound: workflow task heartbeat timeout
",
    );
}

#[test]
fn buffered_events_limit() {
    let mut w = World::new();
    w.limits.buffered_events = 2;
    w.start();
    let task = w.poll();
    w.signal("1", "r1");
    w.signal("2", "r2");
    w.forget();
    w.signal("3", "r3");
    w.complete(&task.token, Vec::new());
    w.expect(
        "
> 0.000 signal 3 by r3
  buffered WORKFLOW_EXECUTION_SIGNALED 3
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by history-service
  buffer of 3 flushed
  5 WORKFLOW_EXECUTION_SIGNALED 1
  6 WORKFLOW_EXECUTION_SIGNALED 2
  7 WORKFLOW_EXECUTION_SIGNALED 3
  task attempt 2 as 8 timeout 10s
  row + Workflow queue of 8 attempt 2 stamp 0 at 0.000
  deadline none
  record request r3 seen
=> signaled
> 0.000 completed 2 3 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
",
    );
    let mut w = World::new();
    w.limits.buffered_bytes = 10;
    w.start();
    w.poll();
    w.forget();
    w.signal("1", "r1");
    w.expect(
        "
> 0.000 signal 1 by r1
  3 WORKFLOW_TASK_STARTED of 2 by worker
  buffered WORKFLOW_EXECUTION_SIGNALED 1
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by history-service
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_SIGNALED 1
  task attempt 2 as 6 timeout 10s
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  row + Workflow queue of 6 attempt 2 stamp 0 at 0.000
  record request r1 seen
=> signaled
",
    );
}

#[test]
fn message_too_large_terminates() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    let request = rpc::RespondWorkflowTaskFailedRequest {
        cause: WorkflowTaskFailedCause::GrpcMessageTooLarge as i32,
        ..Default::default()
    };
    w.say(Input::WorkflowTaskFailed { token: task.token.clone(), request: Box::new(request) });
    fail_task(&mut w, &task.token);
    w.complete(&task.token, Vec::new());
    w.expect(
        r#"
> 0.000 failed 2 3 attempt 1
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by history-service
  5 WORKFLOW_EXECUTION_TERMINATED "GrpcMessageTooLarge" by history-service
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> done
> 0.000 failed 2 3 attempt 1
=> NotFound: workflow execution already completed
> 0.000 completed 2 3 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
"#,
    );
}

#[test]
fn reported_problems() {
    let mut w = World::new();
    w.start();
    let shown = |w: &World| {
        let record = w.live().rows.visibility.clone().expect("listed");
        let fields = record.search_attributes.map(|a| a.indexed_fields).unwrap_or_default();
        fields
            .get("TemporalReportedProblems")
            .map(|p| String::from_utf8_lossy(&p.decode().expect("a payload").data).into_owned())
    };
    let mut seen = Vec::new();
    for _ in 0..5 {
        let task = w.poll();
        fail_task(&mut w, &task.token);
        seen.push(shown(&w).is_some());
    }
    assert_eq!(seen, [false, false, false, false, true]);
    assert_eq!(
        shown(&w).as_deref(),
        Some(
            "[\"category=WorkflowTaskFailed\",\"cause=WorkflowTaskFailedCauseWorkflowWorkerUnhandledFailure\"]"
        )
    );
    w.poll();
    w.flush();
    w.due();
    assert_eq!(
        shown(&w).as_deref(),
        Some("[\"category=WorkflowTaskTimedOut\",\"cause=WorkflowTaskTimedOutCauseStartToClose\"]")
    );
    w.turn(Vec::new());
    assert_eq!(shown(&w), None);
}

#[test]
fn a_long_history_suggests_to_continue_as_new() {
    let mut w = idle();
    w.limits.history_events_suggest = 5;
    w.signal("s", "r");
    let task = w.poll();
    let last = task.tail.last().and_then(|event| event.attributes.clone());
    let Some(
        holdfast_proto::history::history_event::Attributes::WorkflowTaskStartedEventAttributes(a),
    ) = last
    else {
        panic!("STARTED")
    };
    assert!(a.suggest_continue_as_new);
    assert_eq!(a.history_size_bytes as u64, w.state().history_bytes);
}

#[test]
fn a_timer_due_with_the_task_that_holds_it_up_is_news_for_the_next() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    let mut request = completion(vec![timer("t", 5)]);
    request.force_create_new_workflow_task = true;
    w.complete_with(&task.token, request);
    w.poll();
    w.flush();
    w.forget();
    w.wait(11.0);
    let run = w.current();
    w.say(Input::Due { run });
    w.expect(
        "
> 11.000 due
  buffered TIMER_FIRED
  8 WORKFLOW_TASK_TIMED_OUT of 6 7 StartToClose
  buffer of 1 flushed
  9 TIMER_FIRED
  10 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 10 attempt 1 stamp 0 at 11.000
  deadline none
=> done
",
    );
}
