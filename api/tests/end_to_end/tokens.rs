//! Task tokens that are forged, stale, or of somebody else.

use holdfast_proto::workflowservice as rpc;
use tonic::Code;

use crate::support::{Fixture, complete_workflow, schedule_activity, seconds};

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_change_nothing() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    let task = t.poll("q").await;
    let empty = t.complete(b"", Vec::new()).await.expect_err("refused");
    assert_eq!(
        (empty.code(), empty.message()),
        (Code::InvalidArgument, "Task token not set on request.")
    );
    let mut forged: Vec<Vec<u8>> = vec![b"\xff\xffgarbage".to_vec()];
    for at in 0..task.task_token.len() {
        let mut token = task.task_token.to_vec();
        token[at] ^= 1;
        forged.push(token);
        forged.push(task.task_token[..at].to_vec());
    }
    for token in forged.iter().filter(|token| !token.is_empty()) {
        let refused = t.complete(token, vec![complete_workflow("1")]).await.expect_err("refused");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::InvalidArgument, "Error deserializing task token.")
        );
    }
    assert_eq!(t.status("w").await, "RUNNING");
    t.complete(&task.task_token, vec![complete_workflow("1")]).await.expect("the real one");
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_tokens_are_not_found() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    let task = t.poll("q").await;
    let commands = || vec![schedule_activity("a", "q")];
    t.complete(&task.task_token, commands()).await.expect("completes");
    let again = t.complete(&task.task_token, commands()).await.expect_err("answered");
    assert_eq!((again.code(), again.message()), (Code::NotFound, "Workflow task not found."));
    let activity = t.poll_activity("q").await;
    t.complete_activity(&activity.task_token, "1").await.expect("completes");
    let again = t.complete_activity(&activity.task_token, "2").await;
    assert_eq!(again.expect_err("answered").code(), Code::NotFound);
    let completed = t.events("w").await.iter().filter(|e| e.contains("ACTIVITY_TASK_COMP")).count();
    assert_eq!(completed, 1);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_another_kind_server_or_namespace_are_refused() {
    let (t, other) = (Fixture::start().await, Fixture::start().await);
    t.start_workflow("w", "q").await;
    let task = t.poll("q").await;
    let foreign = other.complete(&task.task_token, Vec::new()).await.expect_err("not its own");
    assert_eq!(foreign.message(), "Error deserializing task token.");
    let kind = t.complete_activity(&task.task_token, "1").await.expect_err("no activity");
    assert!(matches!(kind.code(), Code::InvalidArgument | Code::NotFound), "{kind:?}");

    let register = rpc::RegisterNamespaceRequest {
        namespace: "another".to_owned(),
        workflow_execution_retention_period: Some(seconds(86_400)),
        ..rpc::RegisterNamespaceRequest::default()
    };
    let mut client = t.workflow.clone();
    client.register_namespace(register).await.expect("registers");
    let request = |namespace: &str| rpc::RespondWorkflowTaskCompletedRequest {
        task_token: task.task_token.clone(),
        namespace: namespace.to_owned(),
        ..rpc::RespondWorkflowTaskCompletedRequest::default()
    };
    let elsewhere = client.respond_workflow_task_completed(request("another")).await;
    assert_eq!(
        elsewhere.expect_err("of default").message(),
        "Operation requested with a token from a different namespace."
    );
    client.respond_workflow_task_completed(request("")).await.expect("the token says it all");
    t.server.stop().await;
    other.server.stop().await;
}
