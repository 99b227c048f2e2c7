//! Starting: events, timeouts, id policies, request ids, start delays, eager first tasks.

use holdfast_proto::common::Priority;
use holdfast_proto::enums::{WorkflowIdConflictPolicy as Conflict, WorkflowIdReusePolicy as Reuse};
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::workflow::OnConflictOptions;
use holdfast_proto::workflowservice as rpc;

use super::{cancel, complete_run, fail_task, terminate};
use crate::input::{Input, Reply};
use crate::testing::World;

fn seconds(seconds: f64) -> Option<prost_types::Duration> {
    Some(holdfast_proto::duration((seconds * 1e9) as u64))
}

fn start_with(
    w: &mut World,
    change: impl FnOnce(&mut rpc::StartWorkflowExecutionRequest),
) -> String {
    let mut request = w.start_request();
    change(&mut request);
    w.say(Input::Start(Box::new(request)))
}

#[test]
fn a_start_writes_two_events_and_the_rows_they_imply() {
    let mut w = World::new();
    w.start();
    w.expect(
        "
> 0.000 start by start-1
  1 WORKFLOW_EXECUTION_STARTED
  started by request start-1
  2 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 2 attempt 1 stamp 0 at 0.000
  record current run Running
=> started
",
    );
}

#[test]
fn timeouts_defaulted_and_capped() {
    let becomes = |execution: f64, run: f64, task: f64| {
        let mut w = World::new();
        let set = |s: f64| if s == 0.0 { None } else { seconds(s) };
        start_with(&mut w, |request| {
            request.workflow_execution_timeout = set(execution);
            request.workflow_run_timeout = set(run);
            request.workflow_task_timeout = set(task);
        });
        let info = &w.state().info;
        [info.execution_timeout, info.run_timeout, info.task_timeout].map(|n| n as f64 / 1e9)
    };
    assert_eq!(becomes(100.0, 0.0, 0.0), [100.0, 100.0, 10.0]);
    assert_eq!(becomes(0.0, 50.0, 0.0), [0.0, 50.0, 10.0]);
    assert_eq!(becomes(100.0, 500.0, 0.0), [100.0, 100.0, 10.0]);
    assert_eq!(becomes(0.0, 0.0, 500.0), [0.0, 0.0, 120.0]);
    assert_eq!(becomes(0.0, 5.0, 60.0), [0.0, 5.0, 5.0]);
    assert_eq!(becomes(0.0, 4.0, 0.0), [0.0, 4.0, 4.0]);
    assert_eq!(becomes(100.25, 0.5, 0.25), [100.25, 0.5, 0.25]);
}

#[test]
fn request_id_dedup() {
    let mut w = World::new();
    w.start();
    w.forget();
    start_with(&mut w, |request| request.request_id = "start-1".to_owned());
    terminate(&mut w, "enough");
    start_with(&mut w, |request| request.request_id = "start-1".to_owned());
    w.expect(
        r#"
> 0.000 start by start-1
=> started
> 0.000 terminate "enough"
  3 WORKFLOW_EXECUTION_TERMINATED "enough" by client
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
  record current run Terminated
=> done
> 0.000 start by start-1
=> started
"#,
    );
}

#[test]
fn policy_matrix() {
    let reuses = [Reuse::AllowDuplicate, Reuse::AllowDuplicateFailedOnly, Reuse::RejectDuplicate];
    let conflicts = [Conflict::Fail, Conflict::UseExisting, Conflict::TerminateExisting];
    let mut text = String::new();
    for state in ["running", "completed", "terminated"] {
        for reuse in reuses {
            for conflict in conflicts {
                let mut w = World::new();
                w.start();
                match state {
                    "completed" => drop(w.turn(vec![complete_run()])),
                    "terminated" => drop(terminate(&mut w, "")),
                    _ => {}
                }
                let said = start_with(&mut w, |request| {
                    request.workflow_id_reuse_policy = reuse as i32;
                    request.workflow_id_conflict_policy = conflict as i32;
                });
                let refused = said.contains("=> AlreadyExists");
                let kept = said.ends_with("=> existing run\n");
                text += match (refused, kept) {
                    (true, _) => " refused",
                    (_, true) => " existing",
                    _ => " new",
                };
            }
            text += " |";
        }
        text += "\n";
    }
    // Columns: allow, failed only, reject; in each: fail, use existing, terminate existing. The
    // last column never gets here: validate refuses it.
    assert_eq!(
        text,
        " refused existing new | refused existing new | refused existing new |
 new new new | refused refused refused | refused refused refused |
 new new new | new new new | refused refused refused |
"
    );
}

#[test]
fn already_started_names_run_and_request() {
    let mut w = World::new();
    w.start();
    let run = w.current();
    let request = w.start_request();
    let refused = w.decide(Input::Start(Box::new(request))).expect_err("refused");
    assert_eq!(
        refused.message,
        format!("Workflow execution is already running. WorkflowId: wf, RunId: {run}.")
    );
    let detail = refused.detail.expect("a detail");
    assert_eq!(
        detail.type_name,
        "temporal.api.errordetails.v1.WorkflowExecutionAlreadyStartedFailure"
    );
    assert!(String::from_utf8_lossy(&detail.body).contains("start-1"));
}

#[test]
fn reuse_messages() {
    let refused = |reuse: Reuse| {
        let mut w = World::new();
        w.start();
        w.turn(vec![complete_run()]);
        let said = start_with(&mut w, |request| request.workflow_id_reuse_policy = reuse as i32);
        said.replace(&w.current().to_string(), "RUN")
    };
    assert_eq!(
        refused(Reuse::RejectDuplicate),
        "=> AlreadyExists: Workflow execution already finished. WorkflowId: wf, RunId: RUN. Workflow Id reuse policy: reject duplicate workflow Id.\n"
    );
    assert_eq!(
        refused(Reuse::AllowDuplicateFailedOnly),
        "=> AlreadyExists: Workflow execution already finished successfully. WorkflowId: wf, RunId: RUN. Workflow Id reuse policy: allow duplicate workflow Id if last run failed.\n"
    );
}

#[test]
fn terminate_existing_with_task_started() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    start_with(&mut w, |request| {
        request.workflow_id_reuse_policy = Reuse::TerminateIfRunning as i32;
    });
    w.complete(&task.token, Vec::new());
    w.expect(
        r#"
> 0.000 start by start-2
run 1
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_FAILED of 2 3 ForceCloseCommand by history-service
  5 WORKFLOW_EXECUTION_TERMINATED "TerminateIfRunning WorkflowIdReusePolicy" by history-service
  leaves at 3600.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 3600.000
run 2
  1 WORKFLOW_EXECUTION_STARTED
  started by request start-2
  2 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 2 attempt 1 stamp 0 at 0.000
  record request start-1 seen
  record current run Running
=> started
> 0.000 completed 2 3 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
"#,
    );
}

#[test]
fn conflict_use_existing_attach() {
    let mut w = World::new();
    w.start();
    w.forget();
    for _ in 0..2 {
        start_with(&mut w, |request| {
            request.request_id = "second".to_owned();
            request.workflow_id_conflict_policy = Conflict::UseExisting as i32;
            request.on_conflict_options = Some(OnConflictOptions {
                attach_request_id: true,
                attach_completion_callbacks: true,
                attach_links: true,
            });
        });
    }
    start_with(&mut w, |request| {
        request.workflow_id_conflict_policy = Conflict::UseExisting as i32;
    });
    w.expect(
        "
> 0.000 start by second
  3 WORKFLOW_EXECUTION_OPTIONS_UPDATED
  record current run Running
=> existing run, request attached
> 0.000 start by second
=> existing run, request attached
> 0.000 start by start-2
=> existing run
",
    );
}

#[test]
fn an_attached_request_waits_for_the_held_task() {
    let mut w = World::new();
    w.start();
    w.poll();
    w.forget();
    start_with(&mut w, |request| {
        request.request_id = "second".to_owned();
        request.workflow_id_conflict_policy = Conflict::UseExisting as i32;
        request.on_conflict_options =
            Some(OnConflictOptions { attach_request_id: true, ..OnConflictOptions::default() });
    });
    w.expect(
        "
> 0.000 start by second
  3 WORKFLOW_TASK_STARTED of 2 by worker
  buffered WORKFLOW_EXECUTION_OPTIONS_UPDATED
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 10.000
  record current run Running
=> existing run, request attached
",
    );
}

#[test]
fn start_delay_and_signal() {
    let mut w = World::new();
    start_with(&mut w, |request| request.workflow_start_delay = seconds(2.0));
    w.wait(1.0);
    w.signal("s", "r");
    w.due();
    w.poll();
    w.expect(
        "
> 0.000 start by start-1
  1 WORKFLOW_EXECUTION_STARTED
  started by request start-1
  deadline 2.000
  record current run Running
=> started
> 1.000 signal s by r
  2 WORKFLOW_EXECUTION_SIGNALED s
  record request r seen
=> signaled
> 2.000 due
  3 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 3 attempt 1 stamp 0 at 2.000
  deadline none
=> done
> 2.000 worker polls task 3 stamp 0 on queue
=> task 3 4 attempt 1 events 1..4 [4 WORKFLOW_TASK_STARTED of 3 by worker] previous 0
",
    );
}

#[test]
fn a_cancel_request_ends_a_start_delay() {
    let mut w = World::new();
    start_with(&mut w, |request| request.workflow_start_delay = seconds(60.0));
    w.forget();
    cancel(&mut w, "c");
    w.expect(
        "
> 0.000 request cancel by c
  2 WORKFLOW_EXECUTION_CANCEL_REQUESTED
  3 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 3 attempt 1 stamp 0 at 0.000
  deadline none
=> done
",
    );
}

#[test]
fn start_delay_and_run_timeout() {
    let mut w = World::new();
    start_with(&mut w, |request| {
        request.workflow_start_delay = seconds(1.0);
        request.workflow_run_timeout = seconds(1.0);
    });
    w.due();
    w.forget();
    w.due();
    w.expect(
        "
> 2.000 due
  3 WORKFLOW_EXECUTION_TIMED_OUT
  leaves at 3602.000
  row - Workflow queue of 2 attempt 1 stamp 0 at 1.000
  deadline 3602.000
  record current run TimedOut
=> done
",
    );
}

#[test]
fn eager_start_and_its_repetition() {
    let mut w = World::new();
    start_with(&mut w, |request| request.request_eager_execution = true);
    let first = w.live().state.workflow_task.clone().expect("a task").request_id;
    let mut request = w.start_request();
    request.request_id = "start-1".to_owned();
    request.request_eager_execution = true;
    let Ok(Reply::Started(again)) = w.decide(Input::Start(Box::new(request))) else {
        panic!("known")
    };
    let task = again.eager.expect("the first task again");
    // As in the reference: this start has no poll that could have named it.
    assert_eq!(first, "start-1");
    assert!(again.started);
    w.complete(&task.token, vec![complete_run()]);
    w.expect(
        "
> 0.000 start by start-1
  1 WORKFLOW_EXECUTION_STARTED
  started by request start-1
  2 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  3 WORKFLOW_TASK_STARTED of 2 by client
  deadline 10.000
  record current run Running
=> started
> 0.000 start by start-1
=> started
> 0.000 completed 2 3 attempt 1 with 1 commands
  4 WORKFLOW_TASK_COMPLETED of 2 3
  5 WORKFLOW_EXECUTION_COMPLETED
  leaves at 3600.000
  deadline 3600.000
  record current run Completed
=> completed
",
    );
    let first = w.events().swap_remove(0);
    let Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) = first.attributes else {
        panic!()
    };
    assert!(a.eager_execution_accepted);
}

#[test]
fn an_eager_start_is_not_repeated_once_its_task_failed() {
    let mut w = World::new();
    start_with(&mut w, |request| request.request_eager_execution = true);
    let key = w.key.clone();
    let task = crate::workflow::workflow_task::given(w.live(), &key).expect("held");
    fail_task(&mut w, &task.token);
    w.forget();
    start_with(&mut w, |request| {
        request.request_id = "start-1".to_owned();
        request.request_eager_execution = true;
    });
    w.expect(
        "
> 0.000 start by start-1
=> started
",
    );
}

#[test]
fn eager_start_with_delay_carries_no_task() {
    let mut w = World::new();
    start_with(&mut w, |request| {
        request.request_eager_execution = true;
        request.workflow_start_delay = seconds(30.0);
    });
    w.expect(
        "
> 0.000 start by start-1
  1 WORKFLOW_EXECUTION_STARTED
  started by request start-1
  deadline 30.000
  record current run Running
=> started
",
    );
    let started = w.events().swap_remove(0).attributes;
    let Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) = started else { panic!() };
    assert!(!a.eager_execution_accepted);
}

#[test]
fn a_repeated_start_gets_no_task_that_another_worker_polled_later() {
    let mut w = World::new();
    w.start();
    w.signal("s", "r");
    w.poll();
    w.flush();
    let mut request = w.start_request();
    request.request_id = "start-1".to_owned();
    request.request_eager_execution = true;
    let known = w.decide(Input::Start(Box::new(request)));
    let Ok(Reply::Started(again)) = known else { panic!("known") };
    assert!(again.started && again.eager.is_none());
}

#[test]
fn a_priority_beyond_the_last_level_is_the_last() {
    let mut w = World::new();
    let mut request = w.start_request();
    request.priority = Some(Priority { priority_key: 300, ..Priority::default() });
    w.say(Input::Start(Box::new(request)));
    assert_eq!(w.live().rows.workflow_task.as_ref().map(|row| row.priority), Some(5));
}

#[test]
fn an_attached_request_is_known_as_long_as_its_run() {
    let mut w = World::new();
    w.start();
    let attach = |w: &mut World, id: &str| {
        start_with(w, |request| {
            request.request_id = id.to_owned();
            request.workflow_id_conflict_policy = Conflict::UseExisting as i32;
            request.on_conflict_options =
                Some(OnConflictOptions { attach_request_id: true, ..Default::default() });
        })
    };
    for n in 0..102 {
        attach(&mut w, &format!("r{n}"));
    }
    let record = w.record.current.as_ref().expect("current");
    assert_eq!(record.attached_request_ids.len(), 100);
    assert_eq!(attach(&mut w, "r0"), "=> existing run, request attached\n");
}

/// A13: found by the simulator as a run more than was asked for.
#[test]
fn a_repeated_start_whose_run_gave_way_makes_no_other() {
    let mut w = World::new();
    w.start();
    let first = w.current();
    w.turn(vec![complete_run()]);
    w.start();
    let second = w.current();
    assert_ne!(first, second);
    let repeat = |w: &mut World| {
        let mut request = w.start_request();
        request.request_id = "start-1".to_owned();
        w.decide(Input::Start(Box::new(request)))
    };
    let Ok(Reply::Started(again)) = repeat(&mut w) else { panic!("{}", w.said) };
    assert_eq!((again.run, again.started), (first, true));
    assert_eq!(w.order.len(), 2, "no third run");
    // A signal of that name is another request.
    w.signal("s", "start-1");
    assert!(w.history().contains("SIGNALED"), "{}", w.history());
    // Once the window is over, the policies decide.
    w.wait(601.0);
    assert!(repeat(&mut w).is_err(), "the second run is open");
}
