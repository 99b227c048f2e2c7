//! Sticky queues.

use holdfast_proto::taskqueue::{StickyExecutionAttributes, TaskQueue};

use super::fail_task;
use crate::input::Input;
use crate::testing::{World, completion};

/// A run whose worker has it in its cache.
fn sticky() -> World {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    let mut request = completion(Vec::new());
    request.sticky_attributes = Some(StickyExecutionAttributes {
        worker_task_queue: Some(TaskQueue { name: "sticky".to_owned(), ..TaskQueue::default() }),
        schedule_to_start_timeout: Some(holdfast_proto::duration(5_000_000_000)),
    });
    w.complete_with(&task.token, request);
    w.forget();
    w
}

#[test]
fn sticky_queue() {
    let mut w = sticky();
    w.signal("s", "r");
    let task = w.poll();
    // Without sticky attributes the worker says that it forgets the run.
    w.complete(&task.token, Vec::new());
    w.expect(
        "
> 0.000 signal s by r
  5 WORKFLOW_EXECUTION_SIGNALED s
  6 WORKFLOW_TASK_SCHEDULED sticky attempt 1 timeout 10s
  row + Workflow sticky of 6 attempt 1 stamp 0 at 0.000 sticky
  deadline 5.000
  record request r seen
=> signaled
> 0.000 worker polls task 6 stamp 0 on sticky
=> task 6 7 attempt 1 events 4..7 [7 WORKFLOW_TASK_STARTED of 6 by worker] previous 3
> 0.000 completed 6 7 attempt 1 with 0 commands
  7 WORKFLOW_TASK_STARTED of 6 by worker
  8 WORKFLOW_TASK_COMPLETED of 6 7
  sticky cleared
  row - Workflow sticky of 6 attempt 1 stamp 0 at 0.000 sticky
  deadline none
=> completed
",
    );
}

#[test]
fn sticky_times_out() {
    let mut w = sticky();
    w.signal("s", "r");
    w.forget();
    w.due();
    assert_eq!(w.state().task_problems, 0, "the worker's absence is no problem of the workflow");
    w.poll();
    w.expect(
        "
> 5.000 due
  7 WORKFLOW_TASK_TIMED_OUT of 6 0 ScheduleToStart
  8 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row - Workflow sticky of 6 attempt 1 stamp 0 at 0.000 sticky
  row + Workflow queue of 8 attempt 1 stamp 0 at 5.000
  deadline none
=> done
> 5.000 worker polls task 8 stamp 0 on queue
=> task 8 9 attempt 1 events 1..9 [9 WORKFLOW_TASK_STARTED of 8 by worker] previous 3
",
    );
}

#[test]
fn sticky_worker_gone() {
    let mut w = sticky();
    w.signal("s", "r");
    let old = w.live().rows.workflow_task.clone().expect("waits");
    w.forget();
    let run = w.current();
    w.say(Input::StickyUnavailable { run, scheduled: 6, stamp: 0 });
    w.say(Input::StickyUnavailable { run, scheduled: 6, stamp: 1 });
    assert!(w.poll_as(&old, "late sticky worker").is_none());
    w.poll();
    w.flush();
    w.expect(
        "
> 0.000 sticky worker of 6 stamp 0 is gone
  task moved to the normal queue
  row - Workflow sticky of 6 attempt 1 stamp 0 at 0.000 sticky
  row + Workflow queue of 6 attempt 1 stamp 1 at 0.000
  deadline none
=> done
> 0.000 sticky worker of 6 stamp 1 is gone
=> gone
> 0.000 late sticky worker polls task 6 stamp 0 on sticky
=> gone
> 0.000 worker polls task 6 stamp 1 on queue
=> task 6 7 attempt 1 events 1..7 [7 WORKFLOW_TASK_STARTED of 6 by worker] previous 3
> 0.000 flush starts
  7 WORKFLOW_TASK_STARTED of 6 by worker
  sticky cleared
  row - Workflow queue of 6 attempt 1 stamp 1 at 0.000
  deadline 10.000
=> done
",
    );
}

#[test]
fn sticky_reset() {
    let mut w = sticky();
    w.say(Input::ResetSticky { run: None });
    w.say(Input::ResetSticky { run: None });
    w.signal("s", "r");
    super::terminate(&mut w, "");
    w.forget();
    w.say(Input::ResetSticky { run: None });
    w.expect(
        "
> 0.000 reset sticky
=> NotFound: workflow execution already completed
",
    );
}

#[test]
fn sticky_task_fails() {
    let mut w = sticky();
    w.signal("s", "r");
    let task = w.poll();
    w.forget();
    fail_task(&mut w, &task.token);
    w.expect(
        "
> 0.000 failed 6 7 attempt 1
  7 WORKFLOW_TASK_STARTED of 6 by worker
  8 WORKFLOW_TASK_FAILED of 6 7 WorkflowWorkerUnhandledFailure by worker
  9 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row - Workflow sticky of 6 attempt 1 stamp 0 at 0.000 sticky
  row + Workflow queue of 9 attempt 1 stamp 0 at 0.000
  deadline none
=> done
",
    );
}

#[test]
fn a_sticky_task_that_times_out_is_attempt_one_again() {
    let mut w = sticky();
    w.signal("s", "r");
    w.poll();
    w.flush();
    w.forget();
    w.due();
    w.expect(
        "
> 10.000 due
  8 WORKFLOW_TASK_TIMED_OUT of 6 7 StartToClose
  9 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row + Workflow queue of 9 attempt 1 stamp 0 at 10.000
  deadline none
=> done
",
    );
}

#[test]
fn a_lost_start_is_not_taken_up_after_any_other_change() {
    // The ids would still fit; the change number does not (A7).
    let mut w = sticky();
    w.signal("s", "r");
    let task = w.poll();
    w.crash();
    w.say(Input::ResetSticky { run: None });
    w.forget();
    w.complete(&task.token, Vec::new());
    w.expect(
        "
> 0.000 completed 6 7 attempt 1 with 0 commands
=> NotFound: Workflow task not found.
",
    );
}

#[test]
fn sticky_without_a_timeout_falls_back_at_once() {
    let mut w = World::new();
    w.start();
    let task = w.poll();
    let mut request = completion(Vec::new());
    request.sticky_attributes = Some(StickyExecutionAttributes {
        worker_task_queue: Some(TaskQueue { name: "sticky".to_owned(), ..TaskQueue::default() }),
        schedule_to_start_timeout: None,
    });
    w.complete_with(&task.token, request);
    w.signal("s", "r");
    w.forget();
    // As the reference does; a worker that waits there may still be faster.
    w.due();
    w.expect(
        "
> 0.000 due
  7 WORKFLOW_TASK_TIMED_OUT of 6 0 ScheduleToStart
  8 WORKFLOW_TASK_SCHEDULED queue attempt 1 timeout 10s
  row - Workflow sticky of 6 attempt 1 stamp 0 at 0.000 sticky
  row + Workflow queue of 8 attempt 1 stamp 0 at 0.000
  deadline none
=> done
",
    );
}
