//! Starts that are not durable yet (DESIGN 3, rule 5; design-reasons A7).

use super::{complete_run, fail_task, idle, terminate, timer};
use crate::ids::Uuid;
use crate::input::{ActivityRef, HistoryOf, Input, Poller, Reply, Target};
use crate::testing::{World, completion};
use crate::token::TaskToken;
use crate::workflow::target;
use holdfast_proto::common::{RetryPolicy, WorkerVersionStamp, WorkflowExecution};
use holdfast_proto::enums::TaskQueueKind;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as History;
use holdfast_proto::workflowservice as rpc;

#[test]
fn a_grant_writes_nothing_and_is_given_once() {
    let mut w = World::new();
    w.start();
    let row = w.live().rows.workflow_task.clone().expect("waits");
    w.forget();
    w.poll();
    assert!(w.poll_as(&row, "second worker").is_none());
    w.flush();
    w.flush();
    assert!(w.poll_as(&row, "third worker").is_none());
    w.expect(
        "
> 0.000 worker polls task 2 stamp 0 on queue
=> task 2 3 attempt 1 events 1..3 [3 WORKFLOW_TASK_STARTED of 2 by worker] previous 0
> 0.000 second worker polls task 2 stamp 0 on queue
=> gone
> 0.000 flush starts
  3 WORKFLOW_TASK_STARTED of 2 by worker
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 10.000
=> done
> 0.000 flush starts
=> done
> 0.000 third worker polls task 2 stamp 0 on queue
=> gone
",
    );
}

#[test]
fn a_revoked_grant_leaves_the_task_where_it_was() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.forget();
    let run = w.current();
    w.say(Input::Revoke { run, start_id: task.token.start() });
    w.say(Input::Revoke { run, start_id: task.token.start() });
    w.poll();
    w.flush();
    w.complete(&task.token, Vec::new());
    w.expect(
        "
> 0.000 revoke
=> done
> 0.000 revoke
=> gone
> 0.000 worker polls task 2 stamp 0 on queue
=> task 2 3 attempt 1 events 1..3 [3 WORKFLOW_TASK_STARTED of 2 by worker] previous 0
> 0.000 flush starts
  3 WORKFLOW_TASK_STARTED of 2 by worker
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 10.000
=> done
> 0.000 completed 2 3 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
",
    );
}

#[test]
fn a_durable_start_cannot_be_revoked() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.flush();
    w.forget();
    let run = w.current();
    w.say(Input::Revoke { run, start_id: task.token.start() });
    w.complete(&task.token, Vec::new());
    w.expect(
        "
> 0.000 revoke
=> gone
> 0.000 completed 2 3 attempt 1 with 0 commands
  4 WORKFLOW_TASK_COMPLETED of 2 3
  deadline none
=> completed
",
    );
}

#[test]
fn an_answer_whose_start_was_lost_is_taken_up() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.crash();
    w.forget();
    w.complete(&task.token, vec![complete_run()]);
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
",
    );
}

#[test]
fn an_answer_whose_start_was_lost_is_refused_once_the_run_moved_on() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.crash();
    w.signal("s", "r");
    w.forget();
    w.complete(&task.token, vec![complete_run()]);
    w.expect(
        "
> 0.000 completed 2 3 attempt 1 with 1 commands
=> NotFound: Workflow task not found.
",
    );
    // Another worker has it meanwhile.
    let mut w = World::new();
    w.start();
    let lost = w.poll();
    w.crash();
    let held = w.poll();
    w.forget();
    w.complete(&lost.token, vec![complete_run()]);
    fail_task(&mut w, &held.token);
    w.expect(
        "
> 0.000 completed 2 3 attempt 1 with 1 commands
=> NotFound: Workflow task not found.
> 0.000 failed 2 3 attempt 1
  3 WORKFLOW_TASK_STARTED of 2 by worker
  4 WORKFLOW_TASK_FAILED of 2 3 WorkflowWorkerUnhandledFailure by worker
  task attempt 2 as 5 timeout 10s
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  row + Workflow queue of 5 attempt 2 stamp 0 at 0.000
=> done
",
    );
}

#[test]
fn the_third_attempt_whose_start_was_lost_is_taken_up() {
    let mut w = World::new();
    w.start();
    for _ in 0..2 {
        let task = w.poll();
        fail_task(&mut w, &task.token);
    }
    let task = w.poll();
    w.crash();
    w.forget();
    w.complete(&task.token, Vec::new());
    w.expect(
        "
> 0.000 completed 5 6 attempt 3 with 0 commands
  task started as 6 by worker
  5 WORKFLOW_TASK_SCHEDULED queue attempt 3 timeout 10s
  6 WORKFLOW_TASK_STARTED of 5 by worker
  7 WORKFLOW_TASK_COMPLETED of 5 6
  row - Workflow queue of 5 attempt 3 stamp 0 at 0.000
=> completed
",
    );
}

#[test]
fn a_forged_token_is_refused() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    w.flush();
    w.forget();
    let other = |change: fn(&mut TaskToken)| {
        let mut token = task.token.clone();
        change(&mut token);
        token
    };
    w.complete(&other(|t| t.start_id = vec![1; 16]), Vec::new());
    w.complete(&other(|t| t.attempt = 2), Vec::new());
    w.complete(&other(|t| t.scheduled = 1), Vec::new());
    w.complete(&other(|t| t.started = 4), Vec::new());
    w.complete(&other(|t| t.run = vec![9; 16]), Vec::new());
    w.expect(
        r#"
> 0.000 completed 2 3 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
> 0.000 completed 2 3 attempt 2 with 0 commands
=> NotFound: Workflow task not found.
> 0.000 completed 1 3 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
> 0.000 completed 2 4 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
> 0.000 completed 2 3 attempt 1 with 0 commands
=> NotFound: workflow execution not found for workflow ID "wf" and run ID "09090909-0909-0909-0909-090909090909"
"#,
    );
}

#[test]
fn a_refused_completion_keeps_other_grants() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    let activity = crate::workflow::rig::activity("a", |_| {});
    let mut request = completion(vec![activity]);
    request.force_create_new_workflow_task = true;
    w.complete_with(&task.token, request);
    let row = w.live().rows.activities[&5].clone();
    let activity = w.poll_as(&row, "worker").expect("an activity task");
    let task = w.poll();
    w.forget();
    // Neither is durable yet: the discarded draft had made them so, and the second half must
    // know of both.
    w.complete(&task.token, vec![timer("", 1)]);
    assert!(w.poll_as(&row, "second worker").is_none());
    let Reply::ActivityTask(activity) = activity else { panic!() };
    let who = ActivityRef::Token(activity.token);
    w.say(Input::ActivityCompleted { who, request: Box::default() });
    w.expect(
        "
> 0.000 completed 6 7 attempt 1 with 1 commands
discarded
  attempt of 5 started by worker
  7 WORKFLOW_TASK_STARTED of 6 by worker
  8 WORKFLOW_TASK_FAILED of 6 7 BadStartTimerAttributes by worker
  task attempt 2 as 9 timeout 10s
  row - Workflow queue of 6 attempt 1 stamp 0 at 0.000
  row - Activity queue of 5 attempt 1 stamp 1 at 0.000
  row + Workflow queue of 9 attempt 2 stamp 0 at 0.000
  deadline 30.000
=> InvalidArgument: BadStartTimerAttributes: TimerId is not set on StartTimerCommand.
> 0.000 second worker polls activity 5 stamp 1 on queue
=> gone
> 0.000 activity completed
  9 ACTIVITY_TASK_STARTED
  10 ACTIVITY_TASK_COMPLETED
  deadline none
=> done
",
    );
}

#[test]
fn inputs_lead_to_their_run() {
    let mut w = World::new();
    w.start();
    let run = w.current();
    let task = w.poll();
    let named = |run: &str, first: &str| {
        target(&Input::Terminate(Box::new(rpc::TerminateWorkflowExecutionRequest {
            workflow_execution: Some(WorkflowExecution {
                run_id: run.to_owned(),
                ..Default::default()
            }),
            first_execution_run_id: first.to_owned(),
            ..Default::default()
        })))
    };
    assert_eq!(named("", ""), Target::Current);
    assert_eq!(named(&run.to_string(), ""), Target::Run(run));
    assert_eq!(named(&run.to_string(), "first"), Target::Current);
    assert_eq!(named("no uuid", ""), Target::Run(Uuid::NIL));
    let who = ActivityRef::ById { run: None, activity_id: "a".to_owned() };
    assert_eq!(target(&Input::Heartbeat { who, request: Box::default() }), Target::Current);
    let who = ActivityRef::Token(task.token);
    assert_eq!(target(&Input::Heartbeat { who, request: Box::default() }), Target::Run(run));
}

#[test]
fn a_signal_after_a_grant_is_buffered_and_behind_started() {
    let mut w = World::new();
    w.start();
    w.poll();
    w.forget();
    w.signal("s", "r");
    w.expect(
        "
> 0.000 signal s by r
  3 WORKFLOW_TASK_STARTED of 2 by worker
  buffered WORKFLOW_EXECUTION_SIGNALED s
  row - Workflow queue of 2 attempt 1 stamp 0 at 0.000
  deadline 10.000
  record request r seen
=> signaled
",
    );
}

#[test]
fn what_the_worker_saw_is_what_is_written() {
    let mut w = idle();
    w.signal("s", "r");
    let task = w.poll();
    w.wait(0.02);
    w.flush();
    assert_eq!(w.events().last(), task.tail.last());
    // And of a task that became a first attempt again.
    let mut w = World::new();
    w.start();
    let task = w.poll();
    fail_task(&mut w, &task.token);
    w.signal("s", "r");
    let task = w.poll();
    w.wait(0.02);
    w.flush();
    assert_eq!(w.events()[5..], task.tail[..]);
}

/// What SDKs are shown behind the last event.
fn transient(w: &mut World) -> Vec<String> {
    match w.decide(Input::History { run: None, of: HistoryOf::Events }) {
        Ok(Reply::History(view)) => {
            assert_eq!(view.next_event, w.state().next_event, "where the rows end");
            view.transient.iter().map(crate::testing::event_text).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sdks_are_shown_a_later_attempt_behind_the_last_event() {
    let mut w = World::new();
    w.start();
    assert!(transient(&mut w).is_empty());
    let task = w.poll();
    fail_task(&mut w, &task.token);
    assert_eq!(transient(&mut w), ["5 WORKFLOW_TASK_SCHEDULED queue attempt 2 timeout 10s"]);
    w.poll();
    let both = [
        "5 WORKFLOW_TASK_SCHEDULED queue attempt 2 timeout 10s",
        "6 WORKFLOW_TASK_STARTED of 5 by ",
    ];
    assert_eq!(transient(&mut w), both);
    w.flush();
    assert_eq!(transient(&mut w), both);
    // News wait in the buffer: nothing changes behind the last event.
    w.signal("s", "r");
    assert_eq!(transient(&mut w), both);
    super::terminate(&mut w, "");
    assert!(transient(&mut w).is_empty());
}

#[test]
fn a_later_attempt_is_not_shown_behind_news() {
    let news: [fn(&mut World); 2] = [|w| drop(w.signal("s", "r")), |w| drop(super::cancel(w, "c"))];
    for news in news {
        let mut w = World::new();
        w.start();
        let task = w.poll();
        fail_task(&mut w, &task.token);
        news(&mut w);
        assert!(transient(&mut w).is_empty(), "it will be a first attempt, behind the news");
        let task = w.poll();
        assert_eq!((task.token.scheduled, task.token.attempt), (6, 1));
        assert!(transient(&mut w).is_empty());
        let written: Vec<_> = w.events()[5..].iter().map(crate::testing::event_text).collect();
        let expected = [
            "6 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s",
            "7 WORKFLOW_TASK_STARTED of 6 by worker",
        ];
        assert_eq!(written, expected);
    }
}

#[test]
fn a_start_that_a_reader_is_shown_is_durable() {
    let readers =
        [Input::History { run: None, of: HistoryOf::Events }, Input::Describe { run: None }];
    for reader in readers {
        let mut w = World::new();
        w.start();
        let task = w.poll();
        let start_id = Uuid::from_slice(&task.token.start_id).expect("an id");
        assert_eq!(w.events().len(), 2, "a grant alone writes nothing");
        assert!(w.decide(reader).is_ok());
        assert_eq!(w.events().last(), task.tail.last());
        // Neither a poller that went away nor a crash takes it back.
        let run = w.current();
        assert_eq!(w.decide(Input::Revoke { run, start_id }), Ok(Reply::Gone));
        assert!(w.live().overlay.grants.is_empty());
        assert_eq!(w.state().workflow_task.as_ref().map(|task| task.started), Some(3));
    }
}

#[test]
fn a_wait_for_the_end_makes_nothing_durable() {
    let mut w = World::new();
    w.start();
    w.poll();
    w.forget();
    w.say(Input::History { run: None, of: HistoryOf::Close });
    w.expect(
        "
> 0.000 history
=> history to 2, 0 transient
",
    );
}

#[test]
fn tasks_of_runs_that_are_gone_are_gone() {
    let mut w = World::new();
    w.start();
    let row = w.live().rows.workflow_task.clone().expect("waits");
    super::terminate(&mut w, "");
    w.forget();
    assert!(w.poll_as(&row, "worker").is_none());
    let (run, start_id) = (w.uuid(), w.uuid());
    let poller = Poller {
        identity: String::new(),
        queue: "queue".to_owned(),
        kind: TaskQueueKind::Normal,
        start_id,
        build_id: String::new(),
    };
    w.say(Input::GrantWorkflowTask { run, scheduled: 2, stamp: 0, poller });
    w.expect(
        "
> 0.000 worker polls task 2 stamp 0 on queue
=> gone
> 0.000  polls task 2 stamp 0 on queue
=> gone
",
    );
}

#[test]
fn an_early_deadline_leaves_a_grant_alone() {
    let mut w = World::new();
    w.start();
    w.turn(vec![timer("t", 10)]);
    w.signal("s", "r");
    w.poll();
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
fn a_counted_attempt_is_durable_at_once_and_behind_what_was_granted_before() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    let activity = crate::workflow::rig::activity("a", |a| {
        a.retry_policy = Some(RetryPolicy { maximum_attempts: 2, ..RetryPolicy::default() });
    });
    let mut request = completion(vec![activity]);
    request.force_create_new_workflow_task = true;
    w.complete_with(&task.token, request);
    w.poll();
    let row = w.live().rows.activities[&5].clone();
    w.forget();
    w.poll_as(&row, "worker");
    w.expect(
        "
> 0.000 worker polls activity 5 stamp 1 on queue
  7 WORKFLOW_TASK_STARTED of 6 by worker
  attempt of 5 started by worker
  row - Workflow queue of 6 attempt 1 stamp 0 at 0.000
  row - Activity queue of 5 attempt 1 stamp 1 at 0.000
  deadline 10.000
=> activity task a attempt 1
",
    );
}

/// The builds that the STARTED events of workflow tasks and activities name, in order.
fn builds(w: &World) -> Vec<String> {
    let version = |event: HistoryEvent| match event.attributes {
        Some(History::WorkflowTaskStartedEventAttributes(a)) => Some(a.worker_version),
        Some(History::ActivityTaskStartedEventAttributes(a)) => Some(a.worker_version),
        _ => None,
    };
    let versions = w.events().into_iter().filter_map(version);
    versions.map(|version| version.map_or(String::new(), |v| v.build_id)).collect()
}

#[test]
fn a_start_names_the_build_of_the_worker_that_polled() {
    // Golden sequences/sdk_activity_retries.
    let mut w = World::new();
    w.build_id = "b1".to_owned();
    w.start();
    let first = w.poll();
    fail_task(&mut w, &first.token);
    w.build_id = "b2".to_owned();
    // An attempt without events of its own, whose leader is gone: the token remembers.
    let second = w.poll();
    w.crash();
    let mut request = completion(vec![timer("t", 1)]);
    request.force_create_new_workflow_task = true;
    request.return_new_workflow_task = true;
    let stamp = WorkerVersionStamp { build_id: "b3".to_owned(), use_versioning: false };
    request.worker_version_stamp = Some(stamp);
    w.complete_with(&second.token, request);
    assert_eq!(builds(&w), ["b1", "b2", "b3"]);
    w.build_id = String::new();
    terminate(&mut w, "");
    w.start();
    w.turn(Vec::new());
    assert_eq!(builds(&w), [""]);
}
