//! Workflows played by hand, from the first call to the last event.

use holdfast_proto::enums::{EventType, WorkflowIdReusePolicy};
use holdfast_proto::errordetails::WorkflowExecutionAlreadyStartedFailure;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::workflowservice as rpc;
use tonic::Code;

use crate::support::{
    Fixture, cancel_workflow, complete_workflow, details, execution, normal, payloads,
    schedule_activity, start_request, start_timer,
};

#[tokio::test(flavor = "multi_thread")]
async fn hello_world_with_one_activity() {
    let t = Fixture::start().await;
    let run = t.start_workflow("hello", "q").await;
    let task = t.poll("q").await;
    assert_eq!((task.started_event_id, task.previous_started_event_id, task.attempt), (3, 0, 1));
    assert_eq!(task.workflow_execution, Some(execution("hello", &run)));
    t.complete(&task.task_token, vec![schedule_activity("a", "q")]).await.expect("completes");

    let activity = t.poll_activity("q").await;
    assert_eq!((activity.activity_id.as_str(), activity.attempt), ("a", 1));
    assert_eq!(activity.workflow_namespace, "default");
    assert_eq!(activity.input, Some(payloads("[1,2]")), "read from the event");
    assert!(activity.schedule_to_close_timeout.is_some(), "SDKs need it, if only as zero");
    t.complete_activity(&activity.task_token, "\"done\"").await.expect("completes");

    let task = t.poll("q").await;
    assert_eq!((task.started_event_id, task.previous_started_event_id), (9, 3));
    t.complete(&task.task_token, vec![complete_workflow("7")]).await.expect("completes");
    assert_eq!(t.status("hello").await, "COMPLETED");
    assert_eq!(
        t.events("hello").await,
        [
            "1 WORKFLOW_EXECUTION_STARTED",
            "2 WORKFLOW_TASK_SCHEDULED",
            "3 WORKFLOW_TASK_STARTED",
            "4 WORKFLOW_TASK_COMPLETED",
            "5 ACTIVITY_TASK_SCHEDULED",
            "6 ACTIVITY_TASK_STARTED",
            "7 ACTIVITY_TASK_COMPLETED",
            "8 WORKFLOW_TASK_SCHEDULED",
            "9 WORKFLOW_TASK_STARTED",
            "10 WORKFLOW_TASK_COMPLETED",
            "11 WORKFLOW_EXECUTION_COMPLETED",
        ]
    );
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_a_running_workflow_and_no_other() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    t.turn("q", Vec::new()).await;
    t.signal("w", "one").await.expect("signals");
    let task = t.poll("q").await;
    let signal = task
        .history
        .expect("events")
        .events
        .into_iter()
        .find(|event| event.event_type() == EventType::WorkflowExecutionSignaled);
    let Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) =
        signal.and_then(|event| event.attributes)
    else {
        panic!("no signal in the task");
    };
    assert_eq!(a.signal_name, "one");
    t.complete(&task.task_token, vec![complete_workflow("1")]).await.expect("completes");

    let late = t.signal("w", "late").await.expect_err("closed");
    assert_eq!(late.code(), Code::NotFound);
    assert_eq!(late.message(), "workflow execution already completed");
    assert_eq!(t.signal("nobody", "x").await.expect_err("none").code(), Code::NotFound);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_with_start_starts_once() {
    let t = Fixture::start().await;
    let request = rpc::SignalWithStartWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_id: "w".to_owned(),
        workflow_type: start_request("w", "q").workflow_type,
        task_queue: Some(normal("q")),
        signal_name: "s".to_owned(),
        ..rpc::SignalWithStartWorkflowExecutionRequest::default()
    };
    let mut client = t.workflow.clone();
    let first = client.signal_with_start_workflow_execution(request.clone()).await;
    let first = first.expect("starts").into_inner();
    let second = client.signal_with_start_workflow_execution(request).await;
    let second = second.expect("signals").into_inner();
    assert!(first.started && !second.started);
    assert_eq!(first.run_id, second.run_id);
    let signals = t.events("w").await.iter().filter(|e| e.ends_with("_SIGNALED")).count();
    assert_eq!(signals, 2);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_fires() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    t.turn("q", vec![start_timer("t", 20)]).await;
    let task = t.poll("q").await;
    t.complete(&task.task_token, vec![complete_workflow("1")]).await.expect("completes");
    let events = t.history("w").await;
    let at = |kind: EventType| {
        let event = events.iter().find(|event| event.event_type() == kind).expect("there");
        holdfast_proto::nanos(event.event_time.as_ref().expect("a time")).expect("in range")
    };
    assert!(at(EventType::TimerFired) >= at(EventType::TimerStarted) + 20_000_000, "not early");
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_is_a_request() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    t.turn("q", Vec::new()).await;
    t.cancel("w").await.expect("requested");
    t.cancel("w").await.expect("again is nothing");
    assert_eq!(t.status("w").await, "RUNNING");
    t.turn("q", vec![cancel_workflow()]).await;
    assert_eq!(t.status("w").await, "CANCELED");
    let requests = t.events("w").await.iter().filter(|e| e.contains("CANCEL_REQUESTED")).count();
    assert_eq!(requests, 1);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminate_ends_a_workflow_under_its_worker() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    let task = t.poll("q").await;
    t.terminate("w").await.expect("terminates");
    assert_eq!(t.status("w").await, "TERMINATED");
    let late = t.complete(&task.task_token, vec![complete_workflow("1")]).await;
    assert_eq!(late.expect_err("too late").code(), Code::NotFound);
    assert_eq!(t.terminate("w").await.expect_err("closed").code(), Code::NotFound);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_done_once() {
    let t = Fixture::start().await;
    let first = t.try_start(start_request("w", "q")).await.expect("starts");
    let again = t.try_start(start_request("w", "q")).await.expect("the same request");
    assert!(first.started);
    assert_eq!(first.run_id, again.run_id);

    let other = rpc::StartWorkflowExecutionRequest {
        request_id: "another".to_owned(),
        ..start_request("w", "q")
    };
    let refused = t.try_start(other.clone()).await.expect_err("it runs");
    assert_eq!(refused.code(), Code::AlreadyExists);
    let failure: WorkflowExecutionAlreadyStartedFailure =
        details(&refused).detail().expect("the detail");
    assert_eq!(failure.run_id, first.run_id);

    t.terminate("w").await.expect("terminates");
    let never = rpc::StartWorkflowExecutionRequest {
        workflow_id_reuse_policy: WorkflowIdReusePolicy::RejectDuplicate.into(),
        ..other.clone()
    };
    assert_eq!(t.try_start(never).await.expect_err("refused").code(), Code::AlreadyExists);
    let second = t.try_start(other).await.expect("closed runs may be followed");
    assert_ne!(first.run_id, second.run_id);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_says_so() {
    let t = Fixture::start().await;
    let mut client = t.workflow.clone();
    let refused = client.query_workflow(rpc::QueryWorkflowRequest::default()).await;
    assert_eq!(refused.expect_err("not built").code(), Code::Unimplemented);
    let info = client.get_system_info(rpc::GetSystemInfoRequest::default()).await;
    let capabilities = info.expect("answers").into_inner().capabilities.expect("capabilities");
    assert!(!capabilities.supports_schedules && !capabilities.nexus);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_outlives_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || holdfast_api::server::Options {
        data: holdfast_api::server::Data::Folder(folder.path().join("data")),
        ..crate::support::options()
    };
    let t = Fixture::with(options()).await;
    let run = t.start_workflow("w", "q").await;
    t.server.stop().await;

    let t = Fixture::with(options()).await;
    let task = t.poll("q").await;
    assert_eq!(task.workflow_execution, Some(execution("w", &run)));
    t.server.stop().await;
}
