//! Reads of history: pages, waits, the close event.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::enums::HistoryEventFilterType;
use holdfast_proto::history::History;
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use tonic::{Code, Request};

use crate::support::{Fixture, execution, history_request, options, payloads, start_timer, types};

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_whole_transactions() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    let timers = (0..3).map(|n| start_timer(&n.to_string(), 60_000)).collect();
    t.turn("q", timers).await;
    let (mut pages, mut token) = (Vec::new(), bytes::Bytes::new());
    loop {
        let request = rpc::GetWorkflowExecutionHistoryRequest {
            maximum_page_size: 1,
            ..history_request("w", token)
        };
        let page = t.page(request).await.expect("a page");
        pages.push(types(&page.history.expect("events").events));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages.len(), 3, "{pages:?}");
    assert_eq!(pages[0], ["1 WORKFLOW_EXECUTION_STARTED", "2 WORKFLOW_TASK_SCHEDULED"]);
    assert_eq!(pages[2].len(), 4, "one completion is one transaction: {pages:?}");

    let mut client = t.workflow.clone();
    let (mut reversed, mut token) = (Vec::new(), bytes::Bytes::new());
    loop {
        let request = rpc::GetWorkflowExecutionHistoryReverseRequest {
            namespace: "default".to_owned(),
            execution: Some(execution("w", "")),
            maximum_page_size: 1,
            next_page_token: token,
        };
        let answer = client.get_workflow_execution_history_reverse(request).await;
        let page = answer.expect("a page").into_inner();
        reversed.extend(types(&page.history.expect("events").events));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    reversed.reverse();
    assert_eq!(reversed, pages.concat());
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_news() {
    let t = Arc::new(Fixture::start().await);
    t.start_workflow("w", "q").await;
    let waiting = |token| rpc::GetWorkflowExecutionHistoryRequest {
        wait_new_event: true,
        ..history_request("w", token)
    };
    let first = t.page(waiting(bytes::Bytes::new())).await.expect("at once");
    assert_eq!(first.history.expect("events").events.len(), 2);
    let next = tokio::spawn({
        let (t, request) = (t.clone(), waiting(first.next_page_token));
        async move { t.page(request).await }
    });
    tokio::task::yield_now().await;
    t.signal("w", "news").await.expect("signals");
    let second = next.await.expect("runs").expect("answers");
    assert_eq!(types(&second.history.expect("events").events), ["3 WORKFLOW_EXECUTION_SIGNALED"]);
    t.terminate("w").await.expect("terminates");
    let third = t.page(waiting(second.next_page_token)).await.expect("answers");
    assert!(third.next_page_token.is_empty(), "a closed run has no more news");
}

/// The pages of a read end where the history ended when it began; one that waits goes on from there,
/// also when the run closes between two of its pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_over_pages_sees_the_end_that_came_meanwhile() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    t.signal("w", "news").await.expect("signals");
    let (mut shown, mut token) = (Vec::new(), bytes::Bytes::new());
    loop {
        let request = rpc::GetWorkflowExecutionHistoryRequest {
            wait_new_event: true,
            maximum_page_size: 1,
            ..history_request("w", token)
        };
        let page = t.page(request).await.expect("a page");
        if shown.is_empty() {
            t.terminate("w").await.expect("terminates");
        }
        shown.extend(types(&page.history.expect("events").events));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(shown.len(), 4, "{shown:?}");
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_close_filter_waits_for_the_last_event() {
    let t = Arc::new(Fixture::start().await);
    let run = t.start_workflow("w", "q").await;
    let request = |wait| rpc::GetWorkflowExecutionHistoryRequest {
        wait_new_event: wait,
        history_event_filter_type: HistoryEventFilterType::CloseEvent.into(),
        ..history_request("w", bytes::Bytes::new())
    };
    let open = t.page(request(false)).await.expect("at once");
    assert!(open.history.expect("history").events.is_empty() && open.next_page_token.is_empty());
    let waiting = tokio::spawn({
        let (t, request) = (t.clone(), request(true));
        async move { t.page(request).await }
    });
    tokio::task::yield_now().await;
    t.signal("w", "no news").await.expect("signals");
    t.terminate("w").await.expect("terminates");
    let closed = waiting.await.expect("runs").expect("answers");
    let events = closed.history.expect("events").events;
    assert_eq!(types(&events), ["4 WORKFLOW_EXECUTION_TERMINATED"]);
    assert!(!run.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_stay_with_their_run() {
    let t = Fixture::start().await;
    t.start_workflow("one", "q").await;
    let two = t.start_workflow("two", "q").await;
    let request = rpc::GetWorkflowExecutionHistoryRequest {
        wait_new_event: true,
        ..history_request("one", bytes::Bytes::new())
    };
    let token = t.page(request).await.expect("a page").next_page_token;
    let foreign = rpc::GetWorkflowExecutionHistoryRequest {
        execution: Some(execution("two", &two)),
        ..history_request("two", token.clone())
    };
    let refused = t.page(foreign).await.expect_err("of another run");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "RunId in the request does not match the NextPageToken.");
    let unnamed = t.page(history_request("two", token.clone())).await;
    assert_eq!(unnamed.expect_err("not a run of two").code(), Code::NotFound);

    let garbage = t.page(history_request("one", b"garbage".as_slice().into())).await;
    let garbage = garbage.expect_err("refused");
    assert_eq!(
        (garbage.code(), garbage.message()),
        (Code::InvalidArgument, "Invalid NextPageToken.")
    );
    let reverse = rpc::GetWorkflowExecutionHistoryReverseRequest {
        namespace: "default".to_owned(),
        execution: Some(execution("one", "")),
        next_page_token: token,
        ..rpc::GetWorkflowExecutionHistoryReverseRequest::default()
    };
    let mut client = t.workflow.clone();
    let reverse = client.get_workflow_execution_history_reverse(reverse).await;
    assert_eq!(reverse.expect_err("of the other read").code(), Code::InvalidArgument);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_sdks_see_what_is_not_written() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    let task = t.poll("q").await;
    let failed = rpc::RespondWorkflowTaskFailedRequest {
        task_token: task.task_token,
        ..rpc::RespondWorkflowTaskFailedRequest::default()
    };
    let mut client = t.workflow.clone();
    client.respond_workflow_task_failed(failed).await.expect("fails");
    assert_eq!(t.poll("q").await.attempt, 2);
    for (name, count) in [("temporal-go", 6), ("temporal-cli", 4), ("temporal-ui", 4)] {
        let mut request = Request::new(history_request("w", bytes::Bytes::new()));
        request.metadata_mut().insert("client-name", name.parse().expect("a value"));
        let page = client.get_workflow_execution_history(request).await.expect("a page");
        let events = page.into_inner().history.expect("events").events;
        assert_eq!(events.len(), count, "{name}: {:?}", types(&events));
    }
    t.server.stop().await;
}

/// Four blobs of 1.5 MB: no answer is larger than what a client of gRPC takes by default.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_no_larger_than_a_message_may_be() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    let text = format!("\"{}\"", "x".repeat(1_500_000));
    for _ in 0..4 {
        let request = rpc::SignalWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            workflow_execution: Some(execution("w", "")),
            signal_name: "large".to_owned(),
            input: Some(payloads(&text)),
            ..rpc::SignalWorkflowExecutionRequest::default()
        };
        t.workflow.clone().signal_workflow_execution(request).await.expect("signals");
    }
    let most = 4 << 20;
    let task = t.poll("q").await;
    assert!(task.encoded_len() <= most, "a task of {} bytes", task.encoded_len());
    let mut ids = ids_of(task.history);
    assert_eq!(ids.len(), 4, "two large ones and what stands before them");
    let mut token = task.next_page_token;
    while !token.is_empty() {
        let page = t.page(history_request("w", token)).await.expect("a page");
        assert!(page.encoded_len() <= most, "a page of {} bytes", page.encoded_len());
        ids.extend(ids_of(page.history));
        token = page.next_page_token;
    }
    assert_eq!(ids, (1..=7).collect::<Vec<_>>());
    let mut reversed = Vec::new();
    loop {
        let request = rpc::GetWorkflowExecutionHistoryReverseRequest {
            namespace: "default".to_owned(),
            execution: Some(execution("w", "")),
            next_page_token: token,
            ..rpc::GetWorkflowExecutionHistoryReverseRequest::default()
        };
        let answer = t.workflow.clone().get_workflow_execution_history_reverse(request).await;
        let page = answer.expect("a page").into_inner();
        assert!(page.encoded_len() <= most, "a page of {} bytes", page.encoded_len());
        reversed.extend(ids_of(page.history));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    reversed.reverse();
    assert_eq!(reversed, ids);
    t.server.stop().await;
}

fn ids_of(history: Option<History>) -> Vec<i64> {
    history.expect("events").events.iter().map(|event| event.event_id).collect()
}

/// Everybody is shown a start as soon as the worker has its task, whichever way they read.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_shown_at_once() {
    let t = Fixture::start().await;
    for (id, cli) in [("a", true), ("b", false)] {
        t.start_workflow(id, id).await;
        t.poll(id).await;
        let mut client = t.workflow.clone();
        if cli {
            let mut request = Request::new(history_request(id, bytes::Bytes::new()));
            request.metadata_mut().insert("client-name", "temporal-cli".parse().expect("a value"));
            let page = client.get_workflow_execution_history(request).await.expect("a page");
            assert_eq!(ids_of(page.into_inner().history), [1, 2, 3]);
        } else {
            let request = rpc::GetWorkflowExecutionHistoryReverseRequest {
                namespace: "default".to_owned(),
                execution: Some(execution(id, "")),
                ..rpc::GetWorkflowExecutionHistoryReverseRequest::default()
            };
            let page = client.get_workflow_execution_history_reverse(request).await;
            assert_eq!(ids_of(page.expect("a page").into_inner().history), [3, 2, 1]);
        }
    }
    t.server.stop().await;
}

/// A reader that waits is shown what is not written with the first page, as one that does not wait
/// is, and again with the news.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_shows_what_is_not_written_behind_events() {
    let mut options = options();
    options.settings.history_wait = Duration::from_millis(10);
    let t = Fixture::with(options).await;
    t.start_workflow("w", "q").await;
    let task = t.poll("q").await;
    let failed = rpc::RespondWorkflowTaskFailedRequest {
        task_token: task.task_token,
        ..rpc::RespondWorkflowTaskFailedRequest::default()
    };
    t.workflow.clone().respond_workflow_task_failed(failed).await.expect("fails");
    let waiting = |token| rpc::GetWorkflowExecutionHistoryRequest {
        wait_new_event: true,
        ..history_request("w", token)
    };
    let page = t.page(waiting(bytes::Bytes::new())).await.expect("a page");
    assert_eq!(ids_of(page.history), [1, 2, 3, 4, 5]);
    let vain = t.page(waiting(page.next_page_token)).await.expect("a page");
    assert!(ids_of(vain.history).is_empty(), "nothing new");
    t.signal("w", "news").await.expect("signals");
    let news = t.page(waiting(vain.next_page_token)).await.expect("a page");
    let events = news.history.expect("events").events;
    assert_eq!(types(&events), ["5 WORKFLOW_EXECUTION_SIGNALED"], "and no attempt behind it");
    t.server.stop().await;
}
