//! Where the version that a worker gives with its answers shows (asked of the reference).

use holdfast_proto::common::{RetryPolicy, WorkerVersionStamp};
use holdfast_proto::deployment::WorkerDeploymentOptions;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::workflowservice as rpc;

use crate::input::{ActivityRef, Input, Reply};
use crate::testing::{World, completion};
use crate::workflow::rig::{Rig, activity};

fn stamp(build: &str) -> Option<WorkerVersionStamp> {
    Some(WorkerVersionStamp { build_id: build.to_owned(), use_versioning: false })
}

/// An activity of one attempt, in the hands of a worker whose poll named a build.
fn started() -> (Rig, ActivityRef) {
    let mut rig = Rig::start();
    let once = RetryPolicy { maximum_attempts: 1, ..RetryPolicy::default() };
    rig.turn(vec![activity("a", |a| a.retry_policy = Some(once))]).expect("scheduled");
    rig.world.build_id = "polled".to_owned();
    let who = ActivityRef::Token(rig.poll_activity().expect("a task").token);
    rig.world.crash();
    (rig, who)
}

/// The version that an activity's STARTED event names, and that of the event behind it.
fn versions(rig: &Rig) -> (Option<WorkerVersionStamp>, Option<WorkerVersionStamp>) {
    let Attributes::ActivityTaskStartedEventAttributes(started) = rig.event(6) else { panic!() };
    let closed = match rig.event(7) {
        Attributes::ActivityTaskCompletedEventAttributes(a) => a.worker_version,
        Attributes::ActivityTaskFailedEventAttributes(a) => a.worker_version,
        other => panic!("{other:?}"),
    };
    (started.worker_version, closed)
}

#[test]
fn the_start_of_an_activity_names_the_build_that_answered_and_no_other_event_does() {
    for version in [None, stamp("answered")] {
        let (mut rig, who) = started();
        let request = rpc::RespondActivityTaskCompletedRequest {
            worker_version: version.clone(),
            ..Default::default()
        };
        rig.decide(Input::ActivityCompleted { who, request: Box::new(request) }).expect("done");
        assert_eq!(versions(&rig), (version.clone(), None));

        let (mut rig, who) = started();
        let request = rpc::RespondActivityTaskFailedRequest {
            worker_version: version.clone(),
            ..Default::default()
        };
        rig.decide(Input::ActivityFailed { who, request: Box::new(request) }).expect("done");
        assert_eq!(versions(&rig), (version, None));
    }
}

#[test]
fn a_failed_workflow_task_names_no_build() {
    let mut rig = Rig::start();
    let task = rig.world.poll();
    let request =
        rpc::RespondWorkflowTaskFailedRequest { worker_version: stamp("b"), ..Default::default() };
    let input = Input::WorkflowTaskFailed { token: task.token, request: Box::new(request) };
    rig.decide(input).expect("failed");
    let Attributes::WorkflowTaskFailedEventAttributes(failed) = rig.event(4) else { panic!() };
    assert_eq!(failed.worker_version, None);
}

#[test]
fn an_unversioned_worker_shows_its_deployment_until_one_without_completes() {
    let mut w = World::new();
    w.start();
    for (n, name) in ["d", "e", "", "e"].into_iter().enumerate() {
        w.signal("s", &n.to_string());
        let task = w.poll();
        let mut request = completion(Vec::new());
        request.deployment_options = (!name.is_empty()).then(|| WorkerDeploymentOptions {
            deployment_name: name.to_owned(),
            build_id: "b".to_owned(),
            ..WorkerDeploymentOptions::default()
        });
        w.complete_with(&task.token, request);
        let last = w.events().into_iter().filter_map(|event| match event.attributes {
            Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => Some(a),
            _ => None,
        });
        let last = last.last().expect("completed");
        assert_eq!((last.worker_deployment_name.as_str(), last.worker_version), (name, None));
        let Ok(Reply::Described(shown)) = w.decide(Input::Describe { run: None }) else { panic!() };
        let info = shown.workflow_execution_info.expect("info");
        assert_eq!(info.worker_deployment_name, name);
        let shown = info.search_attributes.expect("build ids").indexed_fields;
        let shown = shown.get("TemporalWorkerDeployment").map(|value| value.decode().expect("ok"));
        let data = shown.map(|value| String::from_utf8_lossy(&value.data).into_owned());
        assert_eq!(data, (!name.is_empty()).then(|| format!("{name:?}")));
    }
}

#[test]
fn the_version_of_the_last_answer_is_described() {
    let mut w = World::new();
    w.start();
    for (n, version) in [stamp("b1"), stamp("b2"), None].into_iter().enumerate() {
        w.signal("s", &n.to_string());
        let task = w.poll();
        let mut request = completion(Vec::new());
        request.worker_version_stamp.clone_from(&version);
        w.complete_with(&task.token, request);
        let Ok(Reply::Described(shown)) = w.decide(Input::Describe { run: None }) else { panic!() };
        let info = shown.workflow_execution_info.expect("info");
        assert_eq!(info.most_recent_worker_version_stamp, version);
    }
}
