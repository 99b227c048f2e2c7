//! What describe and lists show.

use holdfast_proto::common::WorkerVersionStamp;
use holdfast_proto::enums::PendingWorkflowTaskState as Shown;
use holdfast_proto::workflowservice::DescribeWorkflowExecutionResponse;

use super::{cancel, complete_run, fail_task, terminate};
use crate::input::{Input, Reply};
use crate::testing::{EPOCH, World, completion};

fn describe(w: &mut World) -> DescribeWorkflowExecutionResponse {
    match w.decide(Input::Describe { run: None }) {
        Ok(Reply::Described(described)) => *described,
        other => panic!("{other:?}"),
    }
}

fn task(w: &mut World) -> Option<(Shown, i32, bool)> {
    let task = describe(w).pending_workflow_task?;
    Some((task.state(), task.attempt, task.started_time.is_some()))
}

#[test]
fn the_pending_task_in_every_state() {
    let mut w = World::new();
    w.start();
    assert_eq!(task(&mut w), Some((Shown::Scheduled, 1, false)));
    let first = w.poll();
    assert_eq!(task(&mut w), Some((Shown::Started, 1, true)));
    w.flush();
    assert_eq!(task(&mut w), Some((Shown::Started, 1, true)));
    fail_task(&mut w, &first.token);
    let second = w.poll();
    fail_task(&mut w, &second.token);
    assert_eq!(task(&mut w), Some((Shown::Scheduled, 3, false)));
    w.turn(Vec::new());
    assert_eq!(task(&mut w), None);
}

#[test]
fn a_terminated_run_shows_the_task_that_waited() {
    let mut w = World::new();
    w.start();
    terminate(&mut w, "");
    assert_eq!(task(&mut w), Some((Shown::Scheduled, 1, false)));
}

#[test]
fn a_granted_start_counts_in_the_history_length() {
    let mut w = World::new();
    w.start();
    let length =
        |w: &mut World| describe(w).workflow_execution_info.map(|info| info.history_length);
    assert_eq!(length(&mut w), Some(2));
    let first = w.poll();
    assert_eq!(length(&mut w), Some(3));
    fail_task(&mut w, &first.token);
    w.poll();
    assert_eq!(length(&mut w), Some(4));
}

#[test]
fn times_and_requests() {
    let mut w = World::new();
    let mut request = w.start_request();
    request.workflow_execution_timeout = Some(holdfast_proto::duration(300_000_000_000));
    request.workflow_run_timeout = Some(holdfast_proto::duration(100_000_000_000));
    request.workflow_start_delay = Some(holdfast_proto::duration(30_000_000_000));
    w.say(Input::Start(Box::new(request)));
    let at = |seconds: u64| EPOCH.0 + seconds * 1_000_000_000;
    let described = describe(&mut w);
    let info = described.workflow_extended_info.expect("extended info");
    let nanos = |t: Option<prost_types::Timestamp>| t.and_then(|t| holdfast_proto::nanos(&t));
    assert_eq!(nanos(info.execution_expiration_time), Some(at(300)));
    assert_eq!(nanos(info.run_expiration_time), Some(at(130)));
    assert_eq!(
        nanos(described.workflow_execution_info.and_then(|i| i.execution_time)),
        Some(at(30))
    );
    cancel(&mut w, "c");
    w.poll();
    w.signal("s", "signal-1");
    let info = describe(&mut w).workflow_extended_info.expect("extended info");
    assert!(info.cancel_requested);
    let requests = info.request_id_infos;
    assert_eq!((requests["start-1"].event_id, requests["signal-1"].buffered), (1, true));
    terminate(&mut w, "");
    let info = describe(&mut w).workflow_extended_info.expect("extended info");
    let signal = &info.request_id_infos["signal-1"];
    assert_eq!((signal.event_id, signal.buffered), (6, false));
}

#[test]
fn a_run_without_timeouts_expires_at_gos_zero_time() {
    let mut w = World::new();
    w.start();
    let info = describe(&mut w).workflow_extended_info.expect("extended info");
    assert_eq!(info.run_expiration_time.map(|t| t.seconds), Some(-62_135_596_800));
    assert_eq!(info.execution_expiration_time, None);
}

#[test]
fn a_closed_run_shows_duration_builds_and_reset_point() {
    let mut w = World::new();
    w.start();
    w.wait(2.0);
    w.turn(vec![complete_run()]);
    let info = describe(&mut w).workflow_execution_info.expect("info");
    assert_eq!(info.history_length, 5);
    assert_eq!(info.execution_duration.map(|d| d.seconds), Some(2));
    let builds = &info.search_attributes.expect("attributes").indexed_fields["BuildIds"];
    assert_eq!(&builds.decode().expect("a payload").data[..], b"[\"unversioned\"]");
    let points = info.auto_reset_points.expect("points").points;
    assert_eq!((points.len(), points[0].first_workflow_task_completed_id), (1, 4));
    let record = w.live().rows.visibility.clone().expect("listed");
    assert_eq!((record.history_length, record.closed_at), (5, w.state().closed_at));
}

#[test]
fn not_found() {
    let mut w = World::new();
    let run = w.uuid();
    w.say(Input::Describe { run: None });
    w.say(Input::Describe { run: Some(run) });
    w.expect(
        r#"
> 0.000 describe
=> NotFound: workflow not found for ID: wf
> 0.000 describe
=> NotFound: workflow execution not found for workflow ID "wf" and run ID "00000000-0000-4001-8000-000000000000"
"#,
    );
}

#[test]
fn builds_and_reset_points_are_bounded() {
    let mut w = World::new();
    w.start();
    for n in 0..30 {
        w.signal("s", &n.to_string());
        let task = w.poll();
        let mut request = completion(Vec::new());
        let stamp = WorkerVersionStamp { build_id: format!("b{n}"), use_versioning: false };
        request.worker_version_stamp = Some(stamp);
        w.complete_with(&task.token, request);
    }
    let state = w.state();
    assert_eq!((state.build_ids.len(), state.reset_points.len()), (20, 20));
    assert_eq!(state.build_ids[..2], ["unversioned", "unversioned:b11"]);
    assert_eq!(state.build_ids[19], "unversioned:b29");
}
