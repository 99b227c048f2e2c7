//! Polls: who gets a task, and what becomes of polls that nobody waits for any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::taskqueue::TaskQueueMetadata;
use holdfast_proto::workflowservice as rpc;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::support::{Fixture, POLL, complete_workflow, normal, schedule_activity};

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_ends_empty_before_its_deadline() {
    let t = Fixture::start().await;
    let began = tokio::time::Instant::now();
    let answer = t.try_poll("q", "worker", Duration::from_secs(3)).await.expect("answers");
    assert!(answer.task_token.is_empty());
    assert!((2.0..3.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_that_are_refused() {
    let t = Fixture::start().await;
    let mut client = t.workflow.clone();
    let request = |namespace: &str, queue: &str| rpc::PollWorkflowTaskQueueRequest {
        namespace: namespace.to_owned(),
        task_queue: Some(normal(queue)),
        ..rpc::PollWorkflowTaskQueueRequest::default()
    };
    let endless = client.poll_workflow_task_queue(request("default", "q")).await;
    assert_eq!(endless.expect_err("no deadline").code(), Code::InvalidArgument);
    let short = t.try_poll("q", "worker", Duration::from_secs(1)).await;
    assert_eq!(short.expect_err("too short").code(), Code::FailedPrecondition);
    let mut nowhere = Request::new(request("nowhere", "q"));
    nowhere.set_timeout(Duration::from_secs(5));
    let nowhere = client.poll_workflow_task_queue(nowhere).await.expect_err("unknown");
    assert_eq!(
        (nowhere.code(), nowhere.message()),
        (Code::NotFound, "Namespace nowhere is not found.")
    );
    let unnamed = t.try_poll("", "worker", Duration::from_secs(5)).await.expect_err("no queue");
    assert_eq!(
        (unnamed.code(), unnamed.message()),
        (Code::InvalidArgument, "taskQueue is not set")
    );
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_that_went_away_never_eats_a_task() {
    let t = Arc::new(Fixture::start().await);
    for round in 0..20 {
        let queue = format!("q{round}");
        let gone = tokio::spawn({
            let (t, queue) = (t.clone(), queue.clone());
            async move { t.try_poll(&queue, "gone", Duration::from_secs(30)).await }
        });
        // Wherever that poll is by now, on its way or waiting: it must not matter.
        tokio::task::yield_now().await;
        t.describe("nobody").await.expect_err("a round trip");
        gone.abort();
        let _aborted = gone.await;
        // The reset of the stream travels before the start on the same connection.
        t.start_workflow(&format!("w{round}"), &queue).await;
        let task = t.poll(&queue).await;
        assert_eq!(task.attempt, 1, "round {round}");
        let done = t.complete(&task.task_token, vec![complete_workflow("1")]).await;
        done.expect("completes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_equal_pollers_each_gets_its_share() {
    const POLLERS: usize = 4;
    const TASKS: usize = 40;
    let t = Arc::new(Fixture::start().await);
    let (sender, mut handed) = tokio::sync::mpsc::unbounded_channel();
    let pollers: Vec<_> = (0..POLLERS)
        .map(|n| {
            let (t, sender) = (t.clone(), sender.clone());
            tokio::spawn(async move {
                let name = format!("worker {n}");
                while let Ok(task) = t.try_poll("q", &name, Duration::from_secs(30)).await {
                    let done = t.complete(&task.task_token, vec![complete_workflow("1")]).await;
                    if done.is_err() || sender.send(n).is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    for n in 0..TASKS {
        t.start_workflow(&format!("w{n}"), "q").await;
    }
    let mut share = BTreeMap::new();
    for _ in 0..TASKS {
        *share.entry(handed.recv().await.expect("a task")).or_insert(0) += 1;
    }
    pollers.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(share.len(), POLLERS, "{share:?}");
    assert!(share.values().all(|count| *count >= TASKS / POLLERS / 2), "{share:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answers_its_polls_empty() {
    let t = Fixture::start().await;
    let mut client = t.workflow.clone();
    let poll = tokio::spawn(async move {
        let mut request = Request::new(rpc::PollWorkflowTaskQueueRequest {
            namespace: "default".to_owned(),
            task_queue: Some(normal("q")),
            ..rpc::PollWorkflowTaskQueueRequest::default()
        });
        request.set_timeout(Duration::from_secs(60));
        client.poll_workflow_task_queue(request).await
    });
    tokio::task::yield_now().await;
    // The poll is sent before this, on the same connection.
    t.describe("nobody").await.expect_err("a round trip");
    t.server.stop().await;
    let answer = poll.await.expect("runs").expect("answered, not cut off");
    assert!(answer.into_inner().task_token.is_empty());
}

/// A poll of "q" for an activity that asks for a rate of the queue.
async fn poll_at(t: &Fixture, rate: f64) -> rpc::PollActivityTaskQueueResponse {
    let mut request = Request::new(rpc::PollActivityTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(normal("q")),
        task_queue_metadata: Some(TaskQueueMetadata { max_tasks_per_second: Some(rate) }),
        ..rpc::PollActivityTaskQueueRequest::default()
    });
    request.set_timeout(POLL);
    t.workflow.clone().poll_activity_task_queue(request).await.expect("polls").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_go_out_at_the_rate_that_their_polls_ask_for() {
    let t = Arc::new(Fixture::start().await);
    t.start_workflow("w", "q").await;
    t.turn("q", (0..7).map(|n| schedule_activity(&format!("a{n}"), "q")).collect()).await;
    let began = Instant::now();
    let workers: Vec<_> = (0..3)
        .map(|n| {
            let t = t.clone();
            tokio::spawn(async move {
                for _ in 0..(if n == 0 { 3 } else { 2 }) {
                    assert!(!poll_at(&t, 2.0).await.task_token.is_empty());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("runs");
    }
    // Three at once, then one each half a second. How late it may be is the machine's affair.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1990), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_by_id_keeps_its_cause() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    t.turn("q", vec![schedule_activity("a", "q")]).await;
    t.poll_activity("q").await;
    let failure =
        holdfast_proto::failure::Failure::encode_from(&holdfast_proto::decoded::Failure {
            failure_info: Some(
                holdfast_proto::decoded::failure::FailureInfo::ApplicationFailureInfo(
                    holdfast_proto::failure::ApplicationFailureInfo {
                        non_retryable: true,
                        ..Default::default()
                    },
                ),
            ),
            ..Default::default()
        });
    let request = rpc::RespondActivityTaskFailedByIdRequest {
        namespace: "default".to_owned(),
        workflow_id: "w".to_owned(),
        activity_id: "a".to_owned(),
        failure: Some(failure),
        cause: 1,
        ..rpc::RespondActivityTaskFailedByIdRequest::default()
    };
    t.workflow.clone().respond_activity_task_failed_by_id(request).await.expect("fails");
    let causes = t.history("w").await.into_iter().filter_map(|event| match event.attributes {
        Some(Attributes::ActivityTaskFailedEventAttributes(failed)) => Some(failed.cause),
        _ => None,
    });
    assert_eq!(causes.collect::<Vec<_>>(), [1]);
}
