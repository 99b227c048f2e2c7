//! The ends of a run, retention, limits.

use holdfast_proto::command::command::Attributes;
use holdfast_proto::command::{
    CancelWorkflowExecutionCommandAttributes, CompleteWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes,
};
use holdfast_proto::enums::{CommandType, RetryState};
use holdfast_proto::history::history_event::Attributes as History;
use holdfast_proto::workflowservice as rpc;
use prost::Message;

use super::{complete_run, fail_task, idle, marker, payloads, terminate, timer};
use crate::failure;
use crate::input::Input;
use crate::testing::{World, command};

#[test]
fn completed_then_retention() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    w.complete(&task.token, vec![complete_run()]);
    w.due();
    let run = w.current();
    w.say(Input::Delete { run });
    w.expect(
        "
> 0.000 completed 2 3 attempt 1 with 1 commands
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_COMPLETED of 2 3
  5 WORKFLOW_EXECUTION_COMPLETED
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Completed
=> completed
> 3600.000 due
  deleted
  deadline none
  record no current run
=> done
> 3600.000 delete
=> gone
",
    );
    assert_eq!(w.live().rows, crate::rows::RowSet::default());
}

#[test]
fn failed_and_canceled() {
    let mut w = idle();
    w.signal("s", "r");
    w.forget();
    let attributes =
        FailWorkflowExecutionCommandAttributes { failure: Some(failure::server("broken", false)) };
    let attributes = Attributes::FailWorkflowExecutionCommandAttributes(attributes);
    w.turn(vec![command(CommandType::FailWorkflowExecution, attributes)]);
    w.expect(
        "
> 0.000 worker polls task 6 stamp 0 on queue
=> task 6 7 attempt 1 events 1..7 [7 WORKFLOW_TASK_STARTED of 6 by worker] previous 3
> 0.000 completed 6 7 attempt 1 with 1 commands
  7 WORKFLOW_TASK_STARTED of 6 by worker
  8 WORKFLOW_TASK_COMPLETED of 6 7
  9 WORKFLOW_EXECUTION_FAILED
  leaves at 3600.000
  row - Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Failed
=> completed
",
    );
    let mut w = idle();
    w.signal("s", "r");
    w.forget();
    let attributes = CancelWorkflowExecutionCommandAttributes { details: Some(payloads("1")) };
    let attributes = Attributes::CancelWorkflowExecutionCommandAttributes(attributes);
    w.turn(vec![command(CommandType::CancelWorkflowExecution, attributes)]);
    w.expect(
        "
> 0.000 worker polls task 6 stamp 0 on queue
=> task 6 7 attempt 1 events 1..7 [7 WORKFLOW_TASK_STARTED of 6 by worker] previous 3
> 0.000 completed 6 7 attempt 1 with 1 commands
  7 WORKFLOW_TASK_STARTED of 6 by worker
  8 WORKFLOW_TASK_COMPLETED of 6 7
  9 WORKFLOW_EXECUTION_CANCELED
  leaves at 3600.000
  row - Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Canceled
=> completed
",
    );
}

#[test]
fn terminated_while_the_task_waits_is_held_or_is_retried() {
    let mut w = World::new();
    w.start();
    w.forget();
    terminate(&mut w, "");
    terminate(&mut w, "");
    w.expect(
        r#"
> 0.000 terminate ""
  3 WORKFLOW_EXECUTION_TERMINATED "terminated by user via frontend" by client
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> done
> 0.000 terminate ""
=> NotFound: workflow execution already completed
"#,
    );
    let mut w = World::new();
    w.start();
    w.poll();
    w.signal("s", "r");
    w.forget();
    terminate(&mut w, "enough");
    w.expect(
        r#"
> 0.000 terminate "enough"
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by history-service
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_SIGNALED s
  6 WORKFLOW_EXECUTION_TERMINATED "enough" by client
  leaves at 3600.000
  deadline 3600.000
  record current run Terminated
=> done
"#,
    );
    let mut w = World::new();
    w.start();
    let task = w.poll();
    fail_task(&mut w, &task.token);
    w.poll();
    w.forget();
    terminate(&mut w, "enough");
    w.expect(
        r#"
> 0.000 terminate "enough"
  task started as 6 by worker
  task ended
  5 WORKFLOW_EXECUTION_TERMINATED "enough" by client
  leaves at 3600.000
  row - Workflow queue of 5 attempt 2 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> done
"#,
    );
}

#[test]
fn run_timeout_with_a_held_task() {
    let mut w = World::new();
    let mut request = w.start_request();
    request.workflow_run_timeout = Some(holdfast_proto::duration(1_000_000_000));
    w.say(Input::Start(Box::new(request)));
    w.wait(0.5);
    w.poll();
    w.flush();
    w.signal("s", "r");
    w.forget();
    w.due();
    w.expect(
        "
> 1.000 due
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by history-service
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_SIGNALED s
  6 WORKFLOW_EXECUTION_TIMED_OUT
  leaves at 3601.000
  deadline 3601.000
  record current run TimedOut
=> done
",
    );
}

/// Asked of the reference.
#[test]
fn only_an_execution_without_time_left_says_so() {
    let state = |execution: u64, run: u64| {
        let mut w = World::new();
        let mut request = w.start_request();
        let some =
            |tenths: u64| (tenths != 0).then(|| holdfast_proto::duration(tenths * 100_000_000));
        request.workflow_execution_timeout = some(execution);
        request.workflow_run_timeout = some(run);
        w.say(Input::Start(Box::new(request)));
        w.due();
        match w.events().pop().and_then(|event| event.attributes) {
            Some(History::WorkflowExecutionTimedOutEventAttributes(a)) => a.retry_state(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(state(10, 0), RetryState::Timeout);
    assert_eq!(state(10, 10), RetryState::Timeout);
    assert_eq!(state(0, 10), RetryState::RetryPolicyNotSet);
    assert_eq!(state(11, 10), RetryState::RetryPolicyNotSet);
}

#[test]
fn an_early_deadline_changes_nothing() {
    let mut w = World::new();
    w.start();
    w.turn(vec![timer("t", 10)]);
    w.forget();
    let run = w.current();
    w.say(Input::Due { run });
    w.expect(
        "
> 0.000 due
=> done
",
    );
}

#[test]
fn an_open_run_is_terminated_before_it_is_deleted() {
    let mut w = idle();
    let run = w.current();
    w.say(Input::Delete { run });
    let run = w.order[0];
    w.say(Input::Delete { run });
    w.expect(
        r#"
> 0.000 delete
  5 WORKFLOW_EXECUTION_TERMINATED "Delete workflow execution" by history-service
  deleted
  record no current run
=> done
> 0.000 delete
=> gone
"#,
    );
    w.signal("s", "r");
    w.start();
    w.expect(
        "
> 0.000 signal s by r
=> NotFound: workflow not found for ID: wf
> 0.000 start by start-2
  1 WORKFLOW_EXECUTION_STARTED
  started by request start-2
  2 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 2 attempt 1 stamp 0 at 0.000
  record current run Running
=> started
",
    );
}

#[test]
fn too_large_result_terminates() {
    let mut w = World::new();
    w.limits.blob_bytes = 10;
    w.start();
    w.forget();
    let result = Some(payloads("\"much too large\""));
    let attributes = CompleteWorkflowExecutionCommandAttributes { result };
    let attributes = Attributes::CompleteWorkflowExecutionCommandAttributes(attributes);
    w.turn(vec![marker(), command(CommandType::CompleteWorkflowExecution, attributes)]);
    w.expect(
        r#"
> 0.000 worker polls task 2 stamp 0 on queue
=> task 2 3 attempt 1 events 1..3 [3 WORKFLOW_TASK_STARTED of 2 by worker] previous 0
> 0.000 completed 2 3 attempt 1 with 2 commands
discarded
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_FAILED of 2 3 BadScheduleActivityAttributes by worker
  5 WORKFLOW_EXECUTION_TERMINATED "BadScheduleActivityAttributes: CompleteWorkflowExecutionCommandAttributes.Result exceeds size limit." by history-service
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> InvalidArgument: BadScheduleActivityAttributes: CompleteWorkflowExecutionCommandAttributes.Result exceeds size limit.
"#,
    );
}

#[test]
fn too_large_a_transaction_terminates() {
    let mut w = World::new();
    w.limits.transaction_bytes = 200;
    w.start();
    w.forget();
    w.turn(vec![marker(), marker(), marker(), marker(), marker(), marker()]);
    w.expect(
        r#"
> 0.000 worker polls task 2 stamp 0 on queue
=> task 2 3 attempt 1 events 1..3 [3 WORKFLOW_TASK_STARTED of 2 by worker] previous 0
> 0.000 completed 2 3 attempt 1 with 6 commands
discarded
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by worker
  5 WORKFLOW_EXECUTION_TERMINATED "Transaction size exceeds limit." by history-service
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> InvalidArgument: Transaction size exceeds limit.
"#,
    );
}

#[test]
fn too_long_a_history_terminates() {
    let mut w = idle();
    w.limits.history_events_max = 5;
    w.signal("s", "r");
    w.expect(
        r#"
> 0.000 signal s by r
  5 WORKFLOW_EXECUTION_SIGNALED s
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  7 WORKFLOW_EXECUTION_TERMINATED "Workflow history count exceeds limit." by history-service
  leaves at 3600.000
  deadline 3600.000
  record request r seen
  record current run Terminated
=> signaled
"#,
    );
    let mut w = idle();
    w.limits.history_bytes_max = 100;
    w.signal("s", "r");
    w.expect(
        r#"
> 0.000 signal s by r
  5 WORKFLOW_EXECUTION_SIGNALED s
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  7 WORKFLOW_EXECUTION_TERMINATED "Workflow history size exceeds limit." by history-service
  leaves at 3600.000
  deadline 3600.000
  record request r seen
  record current run Terminated
=> signaled
"#,
    );
}

#[test]
fn termination_without_reason_is_filled_in() {
    let mut w = World::new();
    w.start();
    let execution = w.execution();
    let request = rpc::TerminateWorkflowExecutionRequest {
        workflow_execution: Some(execution),
        ..Default::default()
    };
    w.say(Input::Terminate(Box::new(request)));
    assert!(w.history().ends_with("3 WORKFLOW_EXECUTION_TERMINATED \"terminated by user via frontend\" by frontend-service\n"), "{}", w.history());
}

#[test]
fn what_was_due_before_the_run_timed_out_comes_before_it() {
    let mut w = World::new();
    let mut request = w.start_request();
    request.workflow_run_timeout = Some(holdfast_proto::duration(10_000_000_000));
    w.say(Input::Start(Box::new(request)));
    w.turn(vec![timer("late", 30), timer("second", 7), timer("first", 5), timer("same", 10)]);
    // The leader was away when each of them was due.
    w.wait(60.0);
    w.forget();
    let run = w.current();
    w.say(Input::Due { run });
    w.expect(
        "
> 60.000 due
  9 TIMER_FIRED
  10 TIMER_FIRED
  11 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  12 WORKFLOW_EXECUTION_TIMED_OUT
  leaves at 3660.000
  deadline 3660.000
  record current run TimedOut
=> done
",
    );
    let fired = w.events().into_iter().filter_map(|event| match event.attributes {
        Some(History::TimerFiredEventAttributes(a)) => Some(a.timer_id),
        _ => None,
    });
    assert_eq!(fired.collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn a_state_that_would_become_too_large_ends_the_run() {
    let mut w = idle();
    w.limits.state_bytes = w.state().encoded_len() as u64 + 100;
    w.signal("s", "small");
    w.turn(Vec::new());
    w.forget();
    // Nothing of the decision counts, not even that the request was seen.
    w.signal("s", &"r".repeat(120));
    let log = std::mem::take(&mut w.log);
    let text = log.split_once('\n').expect("lines").1;
    assert_eq!(
        text,
        "discarded
  9 WORKFLOW_EXECUTION_TERMINATED \"Workflow mutable state size exceeds limit.\" by history-service
  leaves at 3600.000
  deadline 3600.000
  record current run Terminated
=> InvalidArgument: Workflow mutable state size exceeds limit.
"
    );
    // A run that is over the limit because the limit came down ends with its next change.
    let mut w = idle();
    w.limits.state_bytes = 10;
    w.say(Input::Describe { run: None });
    assert!(w.state().is_open());
    w.signal("s", "r");
    assert!(!w.state().is_open());
}
