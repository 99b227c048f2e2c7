//! Signals, cancel requests, signal-with-start.

use holdfast_proto::common::{Header, Payload, WorkflowType};
use holdfast_proto::decoded;
use holdfast_proto::enums::{WorkflowIdConflictPolicy as Conflict, WorkflowIdReusePolicy as Reuse};
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as rpc;

use super::{cancel, complete_run, idle, marker, terminate};
use crate::input::{Input, Reply};
use crate::testing::World;

fn with_start(
    w: &mut World,
    id: &str,
    change: impl FnOnce(&mut rpc::SignalWithStartWorkflowExecutionRequest),
) -> String {
    let mut request = rpc::SignalWithStartWorkflowExecutionRequest {
        workflow_id: "wf".to_owned(),
        workflow_type: Some(WorkflowType { name: "type".to_owned() }),
        task_queue: Some(TaskQueue { name: "queue".to_owned(), ..TaskQueue::default() }),
        identity: "client".to_owned(),
        request_id: id.to_owned(),
        signal_name: "sig".to_owned(),
        ..Default::default()
    };
    change(&mut request);
    w.say(Input::SignalWithStart(Box::new(request)))
}

#[test]
fn before_first_task_then_idle() {
    let mut w = World::new();
    w.start();
    w.forget();
    w.signal("early", "r1");
    w.turn(Vec::new());
    w.signal("late", "r2");
    w.expect(
        "
> 0.000 signal early by r1
  3 WORKFLOW_EXECUTION_SIGNALED early
  record request r1 seen
=> signaled
> 0.000 worker polls task 2 stamp 0 on queue
=> task 2 4 attempt 1 events 1..4 [4 WORKFLOW_TASK_STARTED of 2 by worker] previous 0
> 0.000 completed 2 4 attempt 1 with 0 commands
  4 WORKFLOW_TASK_STARTED of 2 by worker
  5 WORKFLOW_TASK_COMPLETED of 2 4
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
=> completed
> 0.000 signal late by r2
  6 WORKFLOW_EXECUTION_SIGNALED late
  7 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 7 attempt 1 stamp 0 at 0.000
  record request r2 seen
=> signaled
",
    );
}

#[test]
fn while_task_is_held() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    w.signal("a", "r1");
    w.signal("a again", "r1");
    w.signal("b", "r2");
    w.complete(&task.token, vec![marker()]);
    w.expect(
        "
> 0.000 signal a by r1
  3 WORKFLOW_TASK_STARTED of 2 by worker
  buffered WORKFLOW_EXECUTION_SIGNALED a
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 10.000
  record request r1 seen
=> signaled
> 0.000 signal a again by r1
=> signaled
> 0.000 signal b by r2
  buffered WORKFLOW_EXECUTION_SIGNALED b
  record request r2 seen
=> signaled
> 0.000 completed 2 3 attempt 1 with 1 commands
  4 WORKFLOW_TASK_COMPLETED of 2 3
  5 MARKER_RECORDED
  buffer of 2 flushed
  6 WORKFLOW_EXECUTION_SIGNALED a
  7 WORKFLOW_EXECUTION_SIGNALED b
  8 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 8 attempt 1 stamp 0 at 0.000
  deadline none
=> completed
",
    );
}

#[test]
fn a_request_id_is_honoured_once_per_id_and_window() {
    let mut w = idle();
    w.signal("s", "r");
    terminate(&mut w, "enough");
    w.forget();
    // Also when the run that had it is closed: the call was applied, "not found" would lie.
    w.signal("s", "r");
    w.expect(
        "
> 0.000 signal s by r
=> signaled
",
    );
    w.start();
    w.forget();
    w.signal("s", "r");
    w.wait(601.0);
    w.signal("s", "r");
    w.expect(
        "
> 0.000 signal s by r
=> signaled
> 601.000 signal s by r
  3 WORKFLOW_EXECUTION_SIGNALED s
  record request r seen
=> signaled
",
    );
}

#[test]
fn refused_signals() {
    let mut w = World::new();
    w.signal("s", "r0");
    w.start();
    w.limits.signals = 1;
    w.signal("s", "r1");
    w.forget();
    w.signal("s", "r2");
    terminate(&mut w, "");
    w.signal("s", "r3");
    w.expect(
        r#"
> 0.000 signal s by r2
=> InvalidArgument: exceeded workflow execution limit for signal events
> 0.000 terminate ""
  4 WORKFLOW_EXECUTION_TERMINATED "terminated by user via frontend" by client
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> done
> 0.000 signal s by r3
=> NotFound: workflow execution already completed
"#,
    );
}

#[test]
fn unhandled_command_holds_off_signals() {
    let mut w = World::new();
    w.start();
    let first = w.poll();
    w.signal("one", "r1");
    w.forget();
    w.complete(&first.token, vec![complete_run()]);
    let second = w.poll();
    w.signal("two", "r2");
    w.complete(&second.token, vec![complete_run()]);
    w.expect(
        "
> 0.000 completed 2 3 attempt 1 with 1 commands
discarded
  4 WORKFLOW_TASK_FAILED of 2 3 UnhandledCommand by worker
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_SIGNALED one
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline none
=> InvalidArgument: UnhandledCommand
> 0.000 worker polls task 6 stamp 0 on queue
=> task 6 7 attempt 1 events 1..7 [7 WORKFLOW_TASK_STARTED of 6 by worker] previous 0
> 0.000 signal two by r2
=> ResourceExhausted: workflow operation can not be applied because workflow is closing
> 0.000 completed 6 7 attempt 1 with 1 commands
  7 WORKFLOW_TASK_STARTED of 6 by worker
  8 WORKFLOW_TASK_COMPLETED of 6 7
  9 WORKFLOW_EXECUTION_COMPLETED
  leaves at 3600.000
  row - Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Completed
=> completed
",
    );
}

#[test]
fn signals_flow_again_after_a_task_that_did_not_close() {
    let mut w = World::new();
    w.start();
    let first = w.poll();
    w.signal("one", "r1");
    w.complete(&first.token, vec![complete_run()]);
    w.turn(Vec::new());
    w.signal("two", "r2");
    w.poll();
    w.forget();
    w.signal("three", "r3");
    w.expect(
        "
> 0.000 signal three by r3
  11 WORKFLOW_TASK_STARTED of 10 by worker
  buffered WORKFLOW_EXECUTION_SIGNALED three
  row - Workflow queue of 10 attempt 1 stamp 0 at 0.000
  deadline 10.000
  record request r3 seen
=> signaled
",
    );
}

#[test]
fn cancel_while_idle_held_twice_and_after_close() {
    let mut w = idle();
    cancel(&mut w, "c1");
    cancel(&mut w, "c2");
    terminate(&mut w, "");
    cancel(&mut w, "c3");
    w.expect(
        r#"
> 0.000 request cancel by c1
  5 WORKFLOW_EXECUTION_CANCEL_REQUESTED
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 6 attempt 1 stamp 0 at 0.000
=> done
> 0.000 request cancel by c2
=> done
> 0.000 terminate ""
  7 WORKFLOW_EXECUTION_TERMINATED "terminated by user via frontend" by client
  leaves at 3600.000
  row - Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> done
> 0.000 request cancel by c3
=> done
"#,
    );
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    cancel(&mut w, "c1");
    w.complete(&task.token, vec![complete_run()]);
    w.expect(
        "
> 0.000 request cancel by c1
  3 WORKFLOW_TASK_STARTED of 2 by worker
  buffered WORKFLOW_EXECUTION_CANCEL_REQUESTED
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 10.000
=> done
> 0.000 completed 2 3 attempt 1 with 1 commands
discarded
  4 WORKFLOW_TASK_FAILED of 2 3 UnhandledCommand by worker
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_CANCEL_REQUESTED
  6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 6 attempt 1 stamp 0 at 0.000
  deadline none
=> InvalidArgument: UnhandledCommand
",
    );
}

#[test]
fn the_first_run_names_the_chain() {
    let mut w = World::new();
    w.start();
    let first = w.current().to_string();
    let ask = |w: &mut World, run: &str, first: &str| {
        let mut execution = w.execution();
        execution.run_id = run.to_owned();
        let request = rpc::RequestCancelWorkflowExecutionRequest {
            workflow_execution: Some(execution),
            first_execution_run_id: first.to_owned(),
            ..Default::default()
        };
        w.say(Input::RequestCancel(Box::new(request)))
    };
    let other = "6b0b5a3c-1b4e-4f57-8ad5-0a8cd2b7a111";
    assert_eq!(ask(&mut w, "", other), "=> NotFound: workflow execution not found\n");
    assert_eq!(
        ask(&mut w, other, ""),
        format!(
            "=> NotFound: workflow execution not found for workflow ID \"wf\" and run ID \"{other}\"\n"
        )
    );
    // The chain is found whatever run is named beside it.
    assert!(ask(&mut w, other, &first).ends_with("=> done\n"));
}

#[test]
fn with_start_new_running_and_repeated() {
    let mut w = World::new();
    with_start(&mut w, "r1", |_| {});
    with_start(&mut w, "r1", |_| {});
    with_start(&mut w, "r2", |_| {});
    with_start(&mut w, "r2", |_| {});
    w.expect(
        "
> 0.000 signal sig with start by r1
  1 WORKFLOW_EXECUTION_STARTED
  started by request r1
  2 WORKFLOW_EXECUTION_SIGNALED sig
  3 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 3 attempt 1 stamp 0 at 0.000
  record current run Running
  record request r1 seen
=> started
> 0.000 signal sig with start by r1
=> existing run
> 0.000 signal sig with start by r2
  4 WORKFLOW_EXECUTION_SIGNALED sig
  record request r2 seen
=> existing run
> 0.000 signal sig with start by r2
=> existing run
",
    );
}

#[test]
fn with_start_closed_policies_and_terminate_existing() {
    let mut w = World::new();
    w.start();
    w.forget();
    with_start(&mut w, "r1", |request| {
        request.workflow_id_conflict_policy = Conflict::TerminateExisting as i32;
    });
    w.expect(
        r#"
> 0.000 signal sig with start by r1
run 1
  3 WORKFLOW_EXECUTION_TERMINATED "TerminateIfRunning WorkflowIdReusePolicy" by history-service
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
run 2
  1 WORKFLOW_EXECUTION_STARTED
  started by request r1
  2 WORKFLOW_EXECUTION_SIGNALED sig
  3 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 3 attempt 1 stamp 0 at 0.000
  record request start-1 seen
  record current run Running
  record request r1 seen
=> started
"#,
    );
    w.turn(vec![complete_run()]);
    let said = with_start(&mut w, "r2", |request| {
        request.workflow_id_reuse_policy = Reuse::RejectDuplicate as i32;
    });
    assert!(said.starts_with("=> AlreadyExists: Workflow execution already finished. "), "{said}");
}

#[test]
fn with_start_delay_and_while_delayed() {
    let mut w = World::new();
    with_start(&mut w, "r1", |request| {
        request.workflow_start_delay = Some(holdfast_proto::duration(30_000_000_000));
    });
    with_start(&mut w, "r2", |_| {});
    w.expect(
        "
> 0.000 signal sig with start by r1
  1 WORKFLOW_EXECUTION_STARTED
  started by request r1
  2 WORKFLOW_EXECUTION_SIGNALED sig
  deadline 30.000
  record current run Running
  record request r1 seen
=> started
> 0.000 signal sig with start by r2
  3 WORKFLOW_EXECUTION_SIGNALED sig
  4 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 4 attempt 1 stamp 0 at 0.000
  deadline none
  record request r2 seen
=> existing run
",
    );
}

#[test]
fn a_repeated_signal_is_known_as_long_as_its_run() {
    let mut w = idle();
    w.signal("s", "first");
    // The window is over: the record has forgotten it.
    w.wait(601.0);
    w.signal("s", "second");
    assert_eq!(w.record.recent.len(), 1);
    w.crash();
    assert_eq!(w.signal("s", "first"), "=> signaled\n");
    assert_eq!(with_start(&mut w, "first", |_| {}), "=> existing run\n");
    // So it is while it waits in the buffer, and once it was written from there.
    let task = w.poll();
    w.signal("s", "late");
    w.wait(601.0);
    assert_eq!(w.signal("s", "late"), "=> signaled\n");
    w.complete(&task.token, Vec::new());
    assert_eq!(w.signal("s", "late"), "=> signaled\n");
    assert_eq!(w.state().signals, 3);
    // A start's request id is another matter.
    assert!(w.signal("s", "start-1").contains("WORKFLOW_EXECUTION_SIGNALED"));
    terminate(&mut w, "");
    w.wait(601.0);
    assert_eq!(w.signal("s", "first"), "=> signaled\n");
    let refused = w.signal("s", "never seen");
    assert_eq!(refused, "=> NotFound: workflow execution already completed\n");
}

#[test]
fn a_repeated_signal_with_start_answers_the_run_that_it_met() {
    let mut w = World::new();
    with_start(&mut w, "r1", |_| {});
    let first = w.current();
    terminate(&mut w, "");
    with_start(&mut w, "r2", |_| {});
    assert_ne!(w.current(), first);
    let mut request = rpc::SignalWithStartWorkflowExecutionRequest {
        workflow_id: "wf".to_owned(),
        request_id: "r1".to_owned(),
        ..Default::default()
    };
    let answer = w.decide(Input::SignalWithStart(Box::new(request.clone())));
    let Ok(Reply::Started(started)) = answer else { panic!("{answer:?}") };
    assert_eq!((started.run, started.first_run, started.started), (first, first, false));
    request.request_id = "r2".to_owned();
    let answer = w.decide(Input::SignalWithStart(Box::new(request)));
    let Ok(Reply::Started(started)) = answer else { panic!("{answer:?}") };
    assert_eq!(started.run, w.current());
}

#[test]
fn a_signal_that_no_buffer_holds_ends_the_task_first() {
    let mut w = World::new();
    w.start();
    w.poll();
    w.signal("small", "r1");
    w.limits.buffered_bytes = 200;
    w.forget();
    let header =
        decoded::Header { fields: [("h".to_owned(), Payload::json(&"7".repeat(300)))].into() };
    w.say(Input::Signal(Box::new(rpc::SignalWorkflowExecutionRequest {
        workflow_execution: Some(w.execution()),
        signal_name: "huge".to_owned(),
        request_id: "r2".to_owned(),
        header: Some(Header::encode_from(&header)),
        ..Default::default()
    })));
    // It is in the log once: never buffered.
    w.expect(
        "
> 0.000 signal huge by r2
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by history-service
  buffer of 1 flushed
  5 WORKFLOW_EXECUTION_SIGNALED small
  task attempt 2 as 6 timeout 10s
  6 WORKFLOW_EXECUTION_SIGNALED huge
  row + Workflow queue of 6 attempt 2 stamp 0 at 0.000
  deadline none
  record request r2 seen
=> signaled
",
    );
}
