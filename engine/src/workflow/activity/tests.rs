//! Transcripts of activities, each after the golden of the same name.

use holdfast_proto::command::ScheduleActivityTaskCommandAttributes;
use holdfast_proto::common::{Priority, RetryPolicy};
use holdfast_proto::decoded;
use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::enums::{PendingActivityState, RetryState, TimeoutType};
use holdfast_proto::failure::{ApplicationFailureInfo, Failure};
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    ActivityTaskCanceledEventAttributes, ActivityTaskFailedEventAttributes,
    ActivityTaskStartedEventAttributes, ActivityTaskTimedOutEventAttributes,
};
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as rpc;

use crate::change::Change;
use crate::ids::Hlc;
use crate::input::{ActivityGrant, ActivityRef, Input, Reply};
use crate::workflow::rig::{
    Rig, SECOND, activity, cancel_activity, message, payloads, record_marker, seconds,
};

const GONE: &str =
    "invalid activityID or activity already timed out or invoking workflow is completed";

/// A run with activity "a" scheduled by event 5 and no workflow task.
fn scheduled(change: impl FnOnce(&mut ScheduleActivityTaskCommandAttributes)) -> Rig {
    let mut rig = Rig::start();
    rig.turn(vec![activity("a", change)]).expect("scheduled");
    rig
}

fn policy(initial_tenths: u64, attempts: i32) -> Option<RetryPolicy> {
    Some(RetryPolicy {
        initial_interval: Some(holdfast_proto::duration(initial_tenths * SECOND / 10)),
        maximum_attempts: attempts,
        ..RetryPolicy::default()
    })
}

fn failure(message: &str) -> Option<Failure> {
    let info = ApplicationFailureInfo { r#type: "Kind".into(), ..Default::default() };
    Some(Failure::encode_from(&decoded::Failure {
        message: message.into(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
        ..decoded::Failure::default()
    }))
}

fn text(failure: &Option<Failure>) -> String {
    failure.as_ref().map_or_else(String::new, |f| f.decode().expect("decodes").message)
}

fn polled(rig: &mut Rig) -> ActivityGrant {
    rig.poll_activity().expect("an activity task waits")
}

fn started(rig: &Rig, id: i64) -> ActivityTaskStartedEventAttributes {
    match rig.event(id) {
        Attributes::ActivityTaskStartedEventAttributes(a) => *a,
        other => panic!("{other:?}"),
    }
}

fn failed(rig: &Rig, id: i64) -> ActivityTaskFailedEventAttributes {
    match rig.event(id) {
        Attributes::ActivityTaskFailedEventAttributes(a) => *a,
        other => panic!("{other:?}"),
    }
}

fn timed_out(rig: &Rig, id: i64) -> ActivityTaskTimedOutEventAttributes {
    match rig.event(id) {
        Attributes::ActivityTaskTimedOutEventAttributes(a) => *a,
        other => panic!("{other:?}"),
    }
}

/// Message, type and last heartbeat details of the failure of a timeout, and the retry state.
fn timeout_of(rig: &Rig, id: i64) -> (String, TimeoutType, bool, RetryState) {
    let event = timed_out(rig, id);
    let failure = event.failure.as_ref().expect("failure").decode().expect("decodes");
    assert_eq!(failure.source, "Server");
    let Some(FailureInfo::TimeoutFailureInfo(info)) = failure.failure_info else { panic!() };
    (
        failure.message,
        info.timeout_type(),
        info.last_heartbeat_details.is_some(),
        event.retry_state(),
    )
}

#[test]
fn completes() {
    let mut rig = scheduled(|_| ());
    assert_eq!(rig.run().rows.activities.len(), 1);
    let task = polled(&mut rig);
    // A grant: nothing of it is in the log, its row stands, and nobody else gets it.
    assert!(!rig.log().iter().any(|change| matches!(change, Change::AttemptStarted(_))));
    assert_eq!(rig.run().rows.activities.len(), 1);
    assert_eq!(rig.grant(5, 1), None);
    let response = &task.response;
    assert_eq!((response.attempt, response.activity_id.as_str()), (1, "a"));
    assert_eq!(response.schedule_to_close_timeout, Some(holdfast_proto::duration(0)));
    rig.complete_activity(&task).expect("completes");
    assert_eq!(
        rig.types(4),
        [
            "5 ActivityTaskScheduled",
            "6 ActivityTaskStarted",
            "7 ActivityTaskCompleted",
            "8 WorkflowTaskScheduled"
        ]
    );
    let event = started(&rig, 6);
    assert_eq!(event.request_id, task.token.start().to_string());
    assert_eq!((event.identity.as_str(), event.attempt), ("worker", 1));
    assert_eq!(rig.history()[5].event_time, Some(task.token.granted_at().timestamp()));
    let Attributes::ActivityTaskCompletedEventAttributes(event) = rig.event(7) else { panic!() };
    assert_eq!((event.scheduled_event_id, event.started_event_id), (5, 6));
    for answer in [
        rig.complete_activity(&task),
        rig.fail_activity(&task, None),
        rig.cancel_activity(&task),
        rig.heartbeat(&task, None),
    ] {
        assert_eq!(message(answer), GONE);
    }
}

#[test]
fn retries_until_the_attempts_are_used_up() {
    let mut rig = scheduled(|a| a.retry_policy = policy(10, 3));
    for (text, wait) in [("one", 1), ("two", 2)] {
        let task = polled(&mut rig);
        // Counted attempts are durable before anyone hears of them (DESIGN 3.5).
        assert!(rig.run().overlay.grants.is_empty());
        assert!(rig.state().activities[&5].is_started());
        rig.fail_activity(&task, failure(text)).expect("retried");
        assert_eq!(rig.run().rows.deadline, None, "the time of a retry is the backlog row's");
        assert_eq!(rig.poll_activity(), None);
        rig.pass(wait * SECOND - SECOND / 100);
        assert_eq!(rig.poll_activity(), None);
        rig.pass(SECOND / 100);
        assert_eq!(message(rig.complete_activity(&task)), GONE, "of the attempt before");
    }
    let task = polled(&mut rig);
    assert_eq!(
        (task.response.attempt, rig.types(4)),
        (3, vec!["5 ActivityTaskScheduled".to_owned()])
    );
    rig.fail_activity(&task, failure("three")).expect("fails");
    let event = started(&rig, 6);
    assert_eq!((event.attempt, text(&event.last_failure)), (3, "two".to_owned()));
    let event = failed(&rig, 7);
    assert_eq!(event.retry_state(), RetryState::MaximumAttemptsReached);
    assert_eq!((text(&event.failure), event.started_event_id), ("three".to_owned(), 6));
    assert_eq!(rig.types(7), ["8 WorkflowTaskScheduled"]);
}

#[test]
fn an_offer_of_an_earlier_shape_is_gone() {
    let mut rig = scheduled(|a| a.retry_policy = policy(1, 0));
    let stamp = rig.run().rows.activities[&5].stamp;
    let task = polled(&mut rig);
    rig.fail_activity(&task, None).expect("retried");
    let row = rig.run().rows.activities[&5].clone();
    assert_ne!(row.stamp, stamp);
    assert_eq!(rig.grant(5, row.stamp), None, "not before its time");
    rig.pass(SECOND);
    assert_eq!(rig.grant(5, stamp), None);
    assert!(rig.grant(5, row.stamp).is_some());
}

#[test]
fn a_start_that_the_new_leader_does_not_know_is_made_durable_with_its_outcome() {
    // A7: the same attempt and stamp still wait, and nobody else has it.
    let mut rig = scheduled(|_| ());
    let task = polled(&mut rig);
    rig.world.crash();
    rig.heartbeat(&task, None).expect("known again");
    assert_eq!(rig.state().activities[&5].started_at, task.token.started_at);
    rig.complete_activity(&task).expect("completes");
    assert_eq!(started(&rig, 6).request_id, task.token.start().to_string());

    let mut rig = scheduled(|_| ());
    let first = polled(&mut rig);
    rig.world.crash();
    let second = polled(&mut rig);
    assert_eq!(message(rig.complete_activity(&first)), GONE, "another start lives");
    rig.complete_activity(&second).expect("completes");

    let mut rig = scheduled(|a| a.retry_policy = policy(1, 0));
    let task = polled(&mut rig);
    rig.fail_activity(&task, None).expect("retried");
    rig.world.crash();
    assert_eq!(message(rig.complete_activity(&task)), GONE, "another attempt waits");
    for (attempt, stamp) in [(2, 1), (1, 2)] {
        let mut stale = task.clone();
        (stale.token.attempt, stale.token.stamp) = (attempt, stamp);
        assert_eq!(message(rig.complete_activity(&stale)), GONE, "attempt 2 has stamp 2");
    }
}

#[test]
fn start_to_close_is_retried_and_schedule_to_start_is_not() {
    let mut rig = scheduled(|a| {
        a.start_to_close_timeout = seconds(1);
        a.retry_policy = policy(1, 2);
    });
    let stale = polled(&mut rig);
    rig.pass(2 * SECOND);
    assert_eq!(message(rig.complete_activity(&stale)), GONE);
    assert_eq!(text(&rig.state().activities[&5].last_failure), "activity StartToClose timeout");
    assert_eq!(rig.state().activities[&5].answered_at, 0);
    let second = polled(&mut rig);
    rig.pass(2 * SECOND);
    assert_eq!(
        rig.types(5),
        ["6 ActivityTaskStarted", "7 ActivityTaskTimedOut", "8 WorkflowTaskScheduled"]
    );
    assert_eq!(started(&rig, 6).attempt, 2);
    let expected = (
        "activity StartToClose timeout".to_owned(),
        TimeoutType::StartToClose,
        false,
        RetryState::MaximumAttemptsReached,
    );
    assert_eq!(timeout_of(&rig, 7), expected);
    // What the attempt before came to.
    let last = timed_out(&rig, 7).failure.expect("failure").decode().expect("decodes");
    assert_eq!(text(&last.cause), "activity StartToClose timeout");
    assert_eq!(message(rig.complete_activity(&second)), GONE);

    let mut rig = scheduled(|a| a.schedule_to_start_timeout = seconds(1));
    rig.pass(2 * SECOND);
    assert_eq!(rig.types(5), ["6 ActivityTaskTimedOut", "7 WorkflowTaskScheduled"]);
    let expected = (
        "activity ScheduleToStart timeout".to_owned(),
        TimeoutType::ScheduleToStart,
        false,
        RetryState::Timeout,
    );
    assert_eq!(timeout_of(&rig, 6), expected);
}

#[test]
fn a_granted_start_is_not_timed_out_as_one_that_waits() {
    let mut rig = scheduled(|a| a.schedule_to_start_timeout = seconds(1));
    let task = polled(&mut rig);
    rig.world.due();
    rig.complete_activity(&task).expect("completes");
}

#[test]
fn schedule_to_close_spans_the_attempts() {
    let mut rig = scheduled(|a| {
        a.schedule_to_close_timeout = seconds(2);
        a.start_to_close_timeout = None;
        a.retry_policy = policy(5, 0);
    });
    let task = polled(&mut rig);
    rig.fail_activity(&task, failure("one")).expect("retried");
    rig.pass(SECOND / 2);
    polled(&mut rig);
    rig.pass(SECOND + SECOND * 6 / 10);
    let no_time = "Not enough time to schedule next retry before activity ScheduleToClose timeout, giving up retrying";
    assert_eq!(
        timeout_of(&rig, 7),
        (no_time.to_owned(), TimeoutType::ScheduleToClose, false, RetryState::Timeout)
    );
    let cause = timed_out(&rig, 7).failure.and_then(|f| f.decode().ok()).and_then(|f| f.cause);
    assert_eq!(text(&cause), "one");

    // The next attempt would start too late: after a failure, and after a timeout.
    let tight = |a: &mut ScheduleActivityTaskCommandAttributes| {
        a.schedule_to_close_timeout = seconds(5);
        a.start_to_close_timeout = seconds(1);
        a.retry_policy = policy(100, 0);
    };
    let mut rig = scheduled(tight);
    let task = polled(&mut rig);
    rig.fail_activity(&task, failure("one")).expect("fails");
    assert_eq!(failed(&rig, 7).retry_state(), RetryState::Timeout);
    let mut rig = scheduled(tight);
    polled(&mut rig);
    rig.pass(2 * SECOND);
    assert_eq!(
        timeout_of(&rig, 7),
        (no_time.to_owned(), TimeoutType::ScheduleToClose, false, RetryState::Timeout)
    );
}

#[test]
fn heartbeats_keep_an_attempt_alive_without_moving_its_row() {
    let mut rig = scheduled(|a| {
        a.heartbeat_timeout = seconds(1);
        a.retry_policy = policy(1, 1);
    });
    let task = polled(&mut rig);
    let row = rig.run().rows.deadline;
    rig.pass(SECOND / 2);
    for n in 0..4 {
        let reply = rig.heartbeat(&task, Some(payloads(&n.to_string())));
        assert_eq!(reply, Ok(Reply::Heartbeat { cancel_requested: false }));
        if n == 0 {
            assert_eq!(rig.run().rows.deadline, row);
        }
        rig.pass(SECOND / 2);
    }
    assert!(rig.state().activities.contains_key(&5));
    let rearmed = rig.log().iter().filter(|c| matches!(c, Change::HeartbeatRearmed(_))).count();
    assert!((1..=4).contains(&rearmed), "{rearmed}");
    rig.pass(SECOND);
    let expected = (
        "activity Heartbeat timeout".to_owned(),
        TimeoutType::Heartbeat,
        true,
        RetryState::MaximumAttemptsReached,
    );
    assert_eq!(timeout_of(&rig, 7), expected);
}

#[test]
fn the_next_attempt_gets_the_last_heartbeat() {
    let mut rig = scheduled(|a| {
        a.heartbeat_timeout = seconds(1);
        a.retry_policy = policy(1, 0);
    });
    let task = polled(&mut rig);
    rig.heartbeat(&task, Some(payloads("\"b\""))).expect("beats");
    rig.fail_activity(&task, None).expect("retried");
    for _ in 0..2 {
        rig.pass(2 * SECOND); // the second one is left to its heartbeat timeout
        assert_eq!(polled(&mut rig).response.heartbeat_details, Some(payloads("\"b\"")));
    }
    // What comes with the failure counts, too.
    let mut rig = scheduled(|a| a.retry_policy = policy(1, 0));
    let task = polled(&mut rig);
    let request = rpc::RespondActivityTaskFailedRequest {
        last_heartbeat_details: Some(payloads("\"end\"")),
        ..Default::default()
    };
    let who = ActivityRef::Token(task.token);
    rig.decide(Input::ActivityFailed { who, request: Box::new(request) }).expect("retried");
    rig.pass(SECOND);
    assert_eq!(polled(&mut rig).response.heartbeat_details, Some(payloads("\"end\"")));
}

#[test]
fn what_is_too_large_fails_the_activity() {
    let huge = payloads(&format!("\"{}\"", "x".repeat(2 << 20)));
    let mut rig = scheduled(|_| ());
    let task = polled(&mut rig);
    let request = rpc::RespondActivityTaskCompletedRequest {
        result: Some(huge.clone()),
        ..Default::default()
    };
    let who = ActivityRef::Token(task.token);
    rig.decide(Input::ActivityCompleted { who, request: Box::new(request) }).expect("accepted");
    assert_eq!(text(&failed(&rig, 7).failure), "Complete result exceeds size limit.");
    assert_eq!(failed(&rig, 7).retry_state(), RetryState::NonRetryableFailure);

    let mut rig = scheduled(|_| ());
    let task = polled(&mut rig);
    assert_eq!(
        rig.heartbeat(&task, Some(huge.clone())),
        Ok(Reply::Heartbeat { cancel_requested: true })
    );
    assert_eq!(text(&failed(&rig, 7).failure), "Heartbeat details exceed size limit.");

    let mut rig = Rig::start();
    let held = rig.turn_and_hold(vec![activity("a", |_| ())]);
    let task = polled(&mut rig);
    rig.complete(&held, vec![cancel_activity(5)], false).expect("asked");
    let request =
        rpc::RespondActivityTaskCanceledRequest { details: Some(huge), ..Default::default() };
    let who = ActivityRef::Token(task.token);
    rig.decide(Input::ActivityCanceled { who, request: Box::new(request) }).expect("accepted");
    assert_eq!(text(&failed(&rig, 11).failure), "Cancel details exceed size limit.");
    assert_eq!(failed(&rig, 11).retry_state(), RetryState::CancelRequested);

    // A large failure is kept small while the activity is retried.
    let mut rig = scheduled(|a| a.retry_policy = policy(1, 0));
    let task = polled(&mut rig);
    rig.fail_activity(&task, failure(&"x".repeat(5000))).expect("retried");
    let kept = rig.state().activities[&5].last_failure.clone();
    assert_eq!(text(&kept), "Failure exceeds size limit.");
    // To the byte as the reference cuts it: what is left of 4096 beside the type.
    let cause = kept.expect("kept").decode().expect("decodes").cause;
    assert_eq!(text(&cause).len(), 4096 - (4 + 4 + 8));
}

fn canceled(rig: &Rig, id: i64) -> ActivityTaskCanceledEventAttributes {
    match rig.event(id) {
        Attributes::ActivityTaskCanceledEventAttributes(a) => *a,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cancel_before_a_start_closes_at_once() {
    // In the task that schedules it: behind the events of the other commands.
    let mut rig = Rig::start();
    rig.turn(vec![activity("a", |_| ()), cancel_activity(5), record_marker("m")]).expect("done");
    assert_eq!(
        rig.types(4),
        [
            "5 ActivityTaskScheduled",
            "6 ActivityTaskCancelRequested",
            "7 MarkerRecorded",
            "8 ActivityTaskCanceled",
            "9 WorkflowTaskScheduled"
        ]
    );
    let event = canceled(&rig, 8);
    assert_eq!(event.details, Some(payloads("\"ACTIVITY_ID_NOT_STARTED\"")));
    assert_eq!((event.latest_cancel_requested_event_id, event.started_event_id), (6, 0));
    assert_eq!(event.identity, "worker");
    assert_eq!(rig.poll_activity(), None);

    // While it waits for its next attempt.
    let mut rig = scheduled(|a| a.retry_policy = policy(300, 0));
    let task = polled(&mut rig);
    rig.fail_activity(&task, None).expect("retried");
    rig.signal();
    rig.turn(vec![cancel_activity(5)]).expect("done");
    assert_eq!(
        rig.types(9),
        ["10 ActivityTaskCancelRequested", "11 ActivityTaskCanceled", "12 WorkflowTaskScheduled"]
    );
}

#[test]
fn cancel_of_a_running_activity_is_told_by_heartbeat() {
    let mut rig = scheduled(|_| ());
    let task = polled(&mut rig);
    assert_eq!(rig.heartbeat(&task, None), Ok(Reply::Heartbeat { cancel_requested: false }));
    let early = "unable to mark activity as canceled without activity being request canceled first";
    assert_eq!(message(rig.cancel_activity(&task)), early);
    rig.signal();
    rig.turn(vec![cancel_activity(5)]).expect("done");
    assert_eq!(rig.types(9), ["10 ActivityTaskCancelRequested"]);
    assert_eq!(rig.heartbeat(&task, None), Ok(Reply::Heartbeat { cancel_requested: true }));
    let shown = super::describe(&rig.run().state, rig.world.now);
    assert_eq!(shown[0].state(), PendingActivityState::CancelRequested);
    rig.cancel_activity(&task).expect("canceled");
    assert_eq!(
        rig.types(10),
        ["11 ActivityTaskStarted", "12 ActivityTaskCanceled", "13 WorkflowTaskScheduled"]
    );
    assert_eq!(canceled(&rig, 12).latest_cancel_requested_event_id, 10);

    // It may fail instead, and is not retried then; a second request is a bad command.
    let mut rig = scheduled(|_| ());
    let task = polled(&mut rig);
    rig.signal();
    rig.turn(vec![cancel_activity(5)]).expect("done");
    rig.signal();
    let twice = "BadRequestCancelActivityAttributes: invalid history builder state for action: add-activitytask-cancel-requested-event, ScheduledEventID: 5";
    assert_eq!(rig.refused(vec![cancel_activity(5)]), twice);
    rig.fail_activity(&task, failure("no")).expect("fails");
    let last = rig.history().iter().rev().find_map(|e| match &e.attributes {
        Some(Attributes::ActivityTaskFailedEventAttributes(a)) => Some(a.retry_state()),
        _ => None,
    });
    assert_eq!(last, Some(RetryState::CancelRequested));
}

#[test]
fn by_id() {
    let who = |id: &str| ActivityRef::ById { run: None, activity_id: id.into() };
    let completed = || {
        Box::new(rpc::RespondActivityTaskCompletedRequest {
            identity: "by-id".into(),
            ..Default::default()
        })
    };
    let mut rig = scheduled(|_| ());
    for answer in [
        rig.decide(Input::Heartbeat { who: who("a"), request: Box::default() }),
        rig.decide(Input::ActivityFailed { who: who("a"), request: Box::default() }),
        rig.decide(Input::ActivityCanceled { who: who("a"), request: Box::default() }),
    ] {
        assert_eq!(message(answer), GONE);
    }
    let nope = rig.decide(Input::ActivityCompleted { who: who("nope"), request: completed() });
    assert_eq!(
        message(nope),
        "cannot find pending activity with ActivityID nope, check workflow execution history for more details"
    );
    // Complete alone makes up for the start that never was.
    rig.decide(Input::ActivityCompleted { who: who("a"), request: completed() })
        .expect("completes");
    let event = started(&rig, 6);
    assert_eq!(
        (event.identity.as_str(), event.request_id.as_str(), event.attempt),
        ("by-id", "", 1)
    );

    let mut rig = scheduled(|_| ());
    polled(&mut rig);
    rig.decide(Input::Heartbeat { who: who("a"), request: Box::default() }).expect("beats");
    rig.decide(Input::ActivityCompleted { who: who("a"), request: completed() })
        .expect("completes");
    assert_eq!(started(&rig, 6).identity, "worker");
}

#[test]
fn closes_wait_while_a_workflow_task_is_held() {
    // Golden many_at_once: all STARTED first, then all the closes.
    let mut rig = Rig::start();
    let held = rig.turn_and_hold(["0", "1", "2"].map(|id| activity(id, |_| ())).into());
    for _ in 0..3 {
        let task = polled(&mut rig);
        rig.complete_activity(&task).expect("completes");
    }
    assert!(rig.state().activities.is_empty());
    rig.complete(&held, vec![activity("0", |_| ())], false).expect("completes");
    assert_eq!(
        rig.types(9),
        [
            "10 WorkflowTaskCompleted",
            "11 ActivityTaskScheduled",
            "12 ActivityTaskStarted",
            "13 ActivityTaskStarted",
            "14 ActivityTaskStarted",
            "15 ActivityTaskCompleted",
            "16 ActivityTaskCompleted",
            "17 ActivityTaskCompleted",
            "18 WorkflowTaskScheduled"
        ]
    );
    let Attributes::ActivityTaskCompletedEventAttributes(event) = rig.event(16) else { panic!() };
    assert_eq!((event.scheduled_event_id, event.started_event_id), (6, 13));
}

#[test]
fn eager() {
    let mut rig = Rig::start();
    let reply = rig.turn(vec![
        activity("eager", |a| a.request_eager_execution = true),
        activity("not", |_| ()),
    ]);
    let Ok(Reply::Completed { activities, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(activities.len(), 1);
    assert!(rig.state().activities[&5].is_started());
    assert_eq!(polled(&mut rig).response.activity_id, "not");
    rig.complete_activity(&activities[0]).expect("completes");
    assert_eq!(
        rig.types(6),
        ["7 ActivityTaskStarted", "8 ActivityTaskCompleted", "9 WorkflowTaskScheduled"]
    );
}

/// Asked of the reference: the task that goes through a queue has what both say together.
#[test]
fn an_eager_task_shows_the_priority_of_its_command_alone() {
    let of = |key: i32| Some(Priority { priority_key: key, ..Priority::default() });
    let mut rig = Rig::start_with(|r| r.priority = of(4));
    let eager = |id: &'static str, own: Option<Priority>| {
        activity(id, move |a| (a.request_eager_execution, a.priority) = (true, own))
    };
    let reply = rig.turn(vec![eager("plain", None), eager("own", of(1))]);
    let Ok(Reply::Completed { activities, .. }) = reply else { panic!("{reply:?}") };
    let shown: Vec<_> = activities.iter().map(|task| task.response.priority.clone()).collect();
    assert_eq!(shown, [None, of(1)]);
}

#[test]
fn options_show_the_priority_and_no_types() {
    let own = Priority { priority_key: 2, ..Priority::default() };
    let types = vec!["Kind".to_owned()];
    let rig = scheduled(|a| {
        a.priority = Some(own.clone());
        a.retry_policy =
            policy(10, 3).map(|p| RetryPolicy { non_retryable_error_types: types.clone(), ..p });
    });
    assert_eq!(rig.state().activities[&5].retry_policy.non_retryable_error_types, types);
    let shown = super::describe(rig.state(), rig.world.now).remove(0).activity_options;
    let shown = shown.expect("options");
    assert_eq!(shown.priority, Some(own));
    let policy = shown.retry_policy.expect("a policy");
    assert_eq!((policy.maximum_attempts, policy.non_retryable_error_types), (3, Vec::new()));
}

#[test]
fn a_closed_run_offers_nothing_and_still_shows() {
    let mut rig = scheduled(|a| a.schedule_to_start_timeout = seconds(1));
    let task = polled(&mut rig);
    rig.terminate();
    assert!(rig.run().rows.activities.is_empty());
    for answer in
        [rig.complete_activity(&task), rig.fail_activity(&task, None), rig.heartbeat(&task, None)]
    {
        assert_eq!(message(answer), "workflow execution already completed");
    }
    assert_eq!(super::deadline(rig.state()), None);
    assert_eq!(super::describe(&rig.run().state, rig.world.now).len(), 1);
    let mut rig = scheduled(|_| ());
    rig.terminate();
    assert!(rig.run().rows.activities.is_empty());
}

#[test]
fn shown_while_backing_off() {
    let mut rig = scheduled(|a| a.retry_policy = policy(10, 3));
    let task = polled(&mut rig);
    rig.fail_activity(&task, failure("one")).expect("retried");
    let shown = super::describe(&rig.run().state, rig.world.now).remove(0);
    assert_eq!(shown.state(), PendingActivityState::Scheduled);
    assert_eq!((shown.attempt, shown.maximum_attempts), (2, 3));
    assert_eq!(shown.current_retry_interval, seconds(1));
    assert!(
        shown.next_attempt_schedule_time.is_some() && shown.last_attempt_complete_time.is_some()
    );
    assert_eq!((shown.last_started_time, text(&shown.last_failure)), (None, "one".to_owned()));
    rig.pass(SECOND);
    polled(&mut rig);
    let shown = super::describe(&rig.run().state, rig.world.now).remove(0);
    assert_eq!(
        (shown.state(), shown.current_retry_interval),
        (PendingActivityState::Started, None)
    );
}

#[test]
fn priority_is_inherited_field_by_field() {
    let workflow =
        Priority { priority_key: 4, fairness_key: "tenant".into(), fairness_weight: 2.0 };
    let mut rig = Rig::start_with(|r| r.priority = Some(workflow.clone()));
    let own = Priority { priority_key: 1, ..Priority::default() };
    let fair = Priority { fairness_key: "other".into(), ..Priority::default() };
    let commands = vec![
        activity("inherits", |_| ()),
        activity("overrides", |a| a.priority = Some(own)),
        activity("fair", |a| a.priority = Some(fair)),
    ];
    rig.turn(commands).expect("done");
    assert_eq!(polled(&mut rig).response.priority, Some(workflow.clone()));
    assert_eq!(
        polled(&mut rig).response.priority,
        Some(Priority { priority_key: 1, ..workflow.clone() })
    );
    assert_eq!(
        polled(&mut rig).response.priority,
        Some(Priority { fairness_key: "other".into(), ..workflow })
    );
    let levels: Vec<u8> = rig.run().rows.activities.values().map(|row| row.priority).collect();
    assert_eq!(levels, [4, 1, 4]);
    assert_eq!(scheduled(|_| ()).run().rows.activities[&5].priority, 3);
}

#[test]
fn bad_commands() {
    // Golden workflow_task/bad_commands.
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let bad = "BadScheduleActivityAttributes: ";
    for (command, expected) in [
        (activity("", |_| ()), format!("{bad}activityId is not set")),
        (activity("a", |a| a.activity_type = None), format!("{bad}activityType is not set")),
        (activity("a", |a| a.task_queue = None), format!("{bad}taskQueue is not set")),
        (activity("a", |a| a.start_to_close_timeout = None), format!("{bad}a valid StartToCloseTimeout or ScheduleToCloseTimeout must be set on the activity. ActivityId=a ActivityType=act")),
        (activity("a", |a| a.start_to_close_timeout = negative), format!("{bad}invalid StartToCloseTimeout: negative duration")),
        (activity(&"x".repeat(1001), |_| ()), format!("{bad}activityId exceeds length limit. Length=1001 Limit=1000")),
        (activity("a", |a| a.retry_policy = Some(RetryPolicy { backoff_coefficient: 0.1, ..Default::default() })), format!("{bad}BackoffCoefficient cannot be less than 1 on retry policy.")),
        (activity("a", |a| a.input = Some(payloads(&format!("\"{}\"", "x".repeat(2 << 20))))), format!("{bad}ScheduleActivityTaskCommandAttributes.Input exceeds size limit.")),
        (activity("a", |a| a.priority = Some(Priority { priority_key: -1, ..Default::default() })), format!("{bad}invalid priorities: priority key can't be negative")),
        (activity("a", |a| a.priority = Some(Priority { fairness_weight: -1.0, ..Default::default() })), format!("{bad}invalid priorities: must be greater than zero")),
        (activity("a", |a| {
            a.use_workflow_build_id = true;
            a.task_queue = Some(TaskQueue { name: "other".into(), ..Default::default() });
        }), format!("{bad}Activity with UseCompatibleVersion cannot run on different task queue.")),
        (cancel_activity(0), "BadRequestCancelActivityAttributes: ScheduledEventId is not set on RequestCancelActivityTaskCommand.".to_owned()),
        (cancel_activity(99), "BadRequestCancelActivityAttributes: invalid history builder state for action: add-activitytask-cancel-requested-event, ScheduledEventID: 99".to_owned()),
    ] {
        assert_eq!(Rig::start().refused(vec![command]), expected);
    }
    assert_eq!(
        Rig::start().refused(vec![activity("a", |_| ()), activity("a", |_| ())]),
        "ScheduleActivityDuplicateId: invalid history builder state for action: add-activitytask-scheduled-event, ActivityID: a"
    );
    let own = |a: &mut ScheduleActivityTaskCommandAttributes| a.use_workflow_build_id = true;
    Rig::start().turn(vec![activity("a", own)]).expect("the queue of the workflow is allowed");
    let mut rig = Rig::start();
    rig.world.limits.pending_activities = 2;
    let three = ["a", "b", "c"].map(|id| activity(id, |_| ()));
    assert_eq!(
        rig.refused(three.into()),
        "PendingActivitiesLimitExceeded: the number of pending activities, 2, has reached the per-workflow limit of 2"
    );
    assert!(rig.state().activities.is_empty(), "a refused draft leaves nothing");
}

#[test]
fn cancel_of_an_activity_whose_close_waits_in_the_buffer() {
    let mut rig = Rig::start();
    let held = rig.turn_and_hold(vec![activity("a", |_| ())]);
    let task = polled(&mut rig);
    rig.complete_activity(&task).expect("completes");
    // As the reference: each command leaves its event, and nothing is cancelled.
    rig.complete(&held, vec![cancel_activity(5), cancel_activity(5)], false).expect("completes");
    assert_eq!(
        rig.types(7),
        [
            "8 WorkflowTaskCompleted",
            "9 ActivityTaskCancelRequested",
            "10 ActivityTaskCancelRequested",
            "11 ActivityTaskStarted",
            "12 ActivityTaskCompleted",
            "13 WorkflowTaskScheduled"
        ]
    );
    // Once the close is history, the worker has seen it.
    let text = rig.refused(vec![cancel_activity(5)]);
    assert!(text.starts_with("BadRequestCancelActivityAttributes: "), "{text}");

    // The same when a command before cancelled it before any worker had it.
    let mut rig = Rig::start();
    let twice = vec![activity("a", |_| ()), cancel_activity(5), cancel_activity(5)];
    rig.turn(twice).expect("completes");
    assert_eq!(
        rig.types(5),
        [
            "6 ActivityTaskCancelRequested",
            "7 ActivityTaskCancelRequested",
            "8 ActivityTaskCanceled",
            "9 WorkflowTaskScheduled"
        ]
    );
    assert_eq!(canceled(&rig, 8).latest_cancel_requested_event_id, 6);
}

#[test]
fn a_start_written_late_tells_when_it_was() {
    let mut rig = scheduled(|_| ());
    let task = polled(&mut rig);
    rig.pass(SECOND);
    rig.signal();
    rig.pass(SECOND);
    rig.complete_activity(&task).expect("completes");
    assert_eq!(
        rig.types(5)[..3],
        ["6 WorkflowExecutionSignaled", "7 WorkflowTaskScheduled", "8 ActivityTaskStarted"]
    );
    let times: Vec<_> = rig.history().into_iter().filter_map(|event| event.event_time).collect();
    assert_eq!(times[7], task.token.granted_at().timestamp());
    assert!(times[7].seconds < times[6].seconds && times[6].seconds < times[8].seconds);
    assert_eq!(Some(times[8]), Hlc(rig.state().last_event_at).optional_timestamp());
}

/// Activities "0", "1", .. whose last heartbeats carry almost all that one may.
fn heavy(count: usize, change: impl Fn(&mut ScheduleActivityTaskCommandAttributes)) -> (Rig, u64) {
    let mut rig = Rig::start();
    let schedule = (0..count).map(|n| activity(&n.to_string(), &change));
    rig.turn(schedule.collect()).expect("scheduled");
    let details = payloads(&format!("\"{}\"", "x".repeat((2 << 20) - 100)));
    for _ in 0..count {
        let task = polled(&mut rig);
        let _ = rig.heartbeat(&task, Some(details.clone()));
    }
    let bytes = prost::Message::encoded_len(rig.state()) as u64;
    (rig, bytes)
}

#[test]
fn heartbeats_do_not_grow_a_state_beyond_its_limit() {
    // The laws of the world watch: no state over 8 MiB, no decision over 16 MiB.
    let (rig, bytes) = heavy(3, |_| ());
    assert!(rig.state().is_open() && bytes > 6_000_000);
    let (rig, bytes) = heavy(4, |_| ());
    assert!(!rig.state().is_open() && bytes < 8 << 20, "{bytes}");
    let Attributes::WorkflowExecutionTerminatedEventAttributes(end) =
        rig.history().pop().and_then(|event| event.attributes).expect("an event")
    else {
        panic!()
    };
    assert_eq!(end.reason, "Workflow mutable state size exceeds limit.");
}

#[test]
fn many_timeouts_at_once_do_not_pile_up_in_the_buffer() {
    let (mut rig, _) = heavy(3, |a| {
        a.start_to_close_timeout = seconds(5);
        a.retry_policy = policy(1, 1);
    });
    rig.signal();
    rig.world.poll();
    // The worker and the leader were away: one decision meets all three.
    rig.world.now = Hlc(rig.world.now.0 + 6 * SECOND);
    rig.pass(0);
    let ends: Vec<_> = rig.types(0).into_iter().filter(|e| e.ends_with("TimedOut")).collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    let log = rig.log();
    let buffered = log.iter().filter(|change| matches!(change, Change::Buffered(_))).count();
    assert!(buffered < 2 * ends.len(), "all of {buffered} waited, and were written twice");
    assert!(rig.state().buffered.is_empty() && rig.state().workflow_task.is_some());
}
