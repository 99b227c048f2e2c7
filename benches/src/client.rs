//! The API as a client and a worker use it, call by call. Nothing is retried here.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::command::Command;
use holdfast_proto::common::{Payload, Payloads, WorkflowExecution, WorkflowType};
use holdfast_proto::decoded;
use holdfast_proto::enums::TaskQueueKind;
use holdfast_proto::failure::{ApplicationFailureInfo, Failure};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as api;
use prost::Message;
use tokio::task::JoinSet;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::Fallible;

/// The namespace that is always there.
pub const NAMESPACE: &str = "default";

/// Longer than any answer takes, long polls included: what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(75);

/// What the server is told of our patience.
const LONGEST_POLL: Duration = Duration::from_secs(65);

type Answer<T> = Result<T, Status>;

/// A connection to a server. Connects when it is first used, and again when the server was away.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    /// Who answers, in histories.
    pub identity: String,
}

/// A workflow to start.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Its id.
    pub id: String,
    /// The name of its code.
    pub kind: String,
    /// Where its tasks go.
    pub queue: String,
    /// Its argument.
    pub input: Payloads,
    /// Honoured once.
    pub request_id: String,
    /// How long a workflow task may take; the server's default when there is none.
    pub task_timeout: Option<Duration>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $method:literal, $request:ident => $response:ident;)*) => {
        $(
            $(#[$doc])*
            pub async fn $name(&self, request: api::$request) -> Answer<api::$response> {
                const PATH: &str =
                    concat!("/temporal.api.workflowservice.v1.WorkflowService/", $method);
                self.call(PATH, request).await
            }
        )*
    };
}

impl Client {
    /// A client of the server on this port of the loopback.
    pub fn new(port: u16, identity: &str) -> Fallible<Self> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true);
        Ok(Self { channel: endpoint.connect_lazy(), identity: identity.to_owned() })
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Answer<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let call = async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::default();
            let mut request = Request::new(request);
            // A long poll is refused without one.
            request.set_timeout(LONGEST_POLL);
            grpc.unary(request, PathAndQuery::from_static(path), codec).await
        };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer to {path}"))),
        }
    }

    calls! {
        /// StartWorkflowExecution.
        start_raw: "StartWorkflowExecution",
            StartWorkflowExecutionRequest => StartWorkflowExecutionResponse;
        /// SignalWorkflowExecution.
        signal_raw: "SignalWorkflowExecution",
            SignalWorkflowExecutionRequest => SignalWorkflowExecutionResponse;
        /// PollWorkflowTaskQueue.
        poll_workflow_raw: "PollWorkflowTaskQueue",
            PollWorkflowTaskQueueRequest => PollWorkflowTaskQueueResponse;
        /// RespondWorkflowTaskCompleted.
        answer_workflow_raw: "RespondWorkflowTaskCompleted",
            RespondWorkflowTaskCompletedRequest => RespondWorkflowTaskCompletedResponse;
        /// PollActivityTaskQueue.
        poll_activity_raw: "PollActivityTaskQueue",
            PollActivityTaskQueueRequest => PollActivityTaskQueueResponse;
        /// RespondActivityTaskCompleted.
        answer_activity_raw: "RespondActivityTaskCompleted",
            RespondActivityTaskCompletedRequest => RespondActivityTaskCompletedResponse;
        /// RespondActivityTaskFailed.
        fail_activity_raw: "RespondActivityTaskFailed",
            RespondActivityTaskFailedRequest => RespondActivityTaskFailedResponse;
        /// GetWorkflowExecutionHistory.
        history_raw: "GetWorkflowExecutionHistory",
            GetWorkflowExecutionHistoryRequest => GetWorkflowExecutionHistoryResponse;
        /// DescribeWorkflowExecution.
        describe_raw: "DescribeWorkflowExecution",
            DescribeWorkflowExecutionRequest => DescribeWorkflowExecutionResponse;
        /// CountWorkflowExecutions.
        count_raw: "CountWorkflowExecutions",
            CountWorkflowExecutionsRequest => CountWorkflowExecutionsResponse;
        /// GetSystemInfo.
        system_raw: "GetSystemInfo", GetSystemInfoRequest => GetSystemInfoResponse;
    }

    /// Starts a workflow and returns its run id.
    pub async fn start(&self, start: Start) -> Answer<String> {
        let request = api::StartWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: start.id,
            workflow_type: Some(WorkflowType { name: start.kind }),
            task_queue: Some(queue(&start.queue)),
            input: Some(start.input),
            identity: self.identity.clone(),
            request_id: start.request_id,
            workflow_task_timeout: start.task_timeout.map(duration),
            ..Default::default()
        };
        Ok(self.start_raw(request).await?.run_id)
    }

    /// Sends a signal.
    pub async fn signal(&self, id: &str, name: &str, input: Payloads, request: &str) -> Answer<()> {
        let request = api::SignalWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_execution: Some(execution(id)),
            signal_name: name.to_owned(),
            input: Some(input),
            identity: self.identity.clone(),
            request_id: request.to_owned(),
            ..Default::default()
        };
        self.signal_raw(request).await.map(|_| ())
    }

    /// Waits for a workflow task; `None` when the poll came back empty.
    pub async fn poll_workflow(
        &self,
        name: &str,
    ) -> Answer<Option<api::PollWorkflowTaskQueueResponse>> {
        let request = api::PollWorkflowTaskQueueRequest {
            namespace: NAMESPACE.to_owned(),
            task_queue: Some(queue(name)),
            identity: self.identity.clone(),
            ..Default::default()
        };
        let task = self.poll_workflow_raw(request).await?;
        Ok(Some(task).filter(|task| !task.task_token.is_empty()))
    }

    /// Answers a workflow task. `answer` names this answer in the history.
    pub async fn answer_workflow(
        &self,
        token: Bytes,
        commands: Vec<Command>,
        answer: &str,
    ) -> Answer<()> {
        let request = api::RespondWorkflowTaskCompletedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: token,
            commands,
            identity: answer.to_owned(),
            ..Default::default()
        };
        self.answer_workflow_raw(request).await.map(|_| ())
    }

    /// Waits for an activity task; `None` when the poll came back empty.
    pub async fn poll_activity(
        &self,
        name: &str,
    ) -> Answer<Option<api::PollActivityTaskQueueResponse>> {
        let request = api::PollActivityTaskQueueRequest {
            namespace: NAMESPACE.to_owned(),
            task_queue: Some(queue(name)),
            identity: self.identity.clone(),
            ..Default::default()
        };
        let task = self.poll_activity_raw(request).await?;
        Ok(Some(task).filter(|task| !task.task_token.is_empty()))
    }

    /// Answers an activity task with a result.
    pub async fn answer_activity(&self, token: Bytes, result: Payloads) -> Answer<()> {
        let request = api::RespondActivityTaskCompletedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: token,
            result: Some(result),
            identity: self.identity.clone(),
            ..Default::default()
        };
        self.answer_activity_raw(request).await.map(|_| ())
    }

    /// Answers an activity task with a failure that may be tried again.
    pub async fn fail_activity(&self, token: Bytes, why: &str) -> Answer<()> {
        let info = ApplicationFailureInfo { r#type: "Planned".to_owned(), ..Default::default() };
        let failure = decoded::Failure {
            message: why.to_owned(),
            failure_info: Some(decoded::failure::FailureInfo::ApplicationFailureInfo(info)),
            ..Default::default()
        };
        let request = api::RespondActivityTaskFailedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: token,
            failure: Some(Failure::encode_from(&failure)),
            identity: self.identity.clone(),
            ..Default::default()
        };
        self.fail_activity_raw(request).await.map(|_| ())
    }

    /// A workflow's whole history, page by page.
    pub async fn history(&self, id: &str) -> Answer<Vec<HistoryEvent>> {
        let mut events = Vec::new();
        let mut page = Bytes::new();
        loop {
            let request = api::GetWorkflowExecutionHistoryRequest {
                namespace: NAMESPACE.to_owned(),
                execution: Some(execution(id)),
                next_page_token: page,
                ..Default::default()
            };
            let answer = self.history_raw(request).await?;
            events.extend(answer.history.unwrap_or_default().events);
            if answer.next_page_token.is_empty() {
                return Ok(events);
            }
            page = answer.next_page_token;
        }
    }

    /// A workflow's status, as the number of Temporal's enumeration.
    pub async fn status(&self, id: &str) -> Answer<i32> {
        let request = api::DescribeWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            execution: Some(execution(id)),
        };
        let answer = self.describe_raw(request).await?;
        Ok(answer.workflow_execution_info.map_or(0, |info| info.status))
    }

    /// How many workflows a filter finds.
    pub async fn count(&self, query: &str) -> Answer<i64> {
        let request = api::CountWorkflowExecutionsRequest {
            namespace: NAMESPACE.to_owned(),
            query: query.to_owned(),
        };
        Ok(self.count_raw(request).await?.count)
    }

    /// Whether the server answers, and each of its shards: an unknown workflow is an answer, too.
    pub async fn serves(&self) -> Answer<()> {
        self.system_raw(api::GetSystemInfoRequest::default()).await?;
        let mut probes = JoinSet::new();
        for probe in 0..32 {
            let client = self.clone();
            probes.spawn(async move { client.status(&format!("probe-{probe}")).await });
        }
        while let Some(answer) = probes.join_next().await {
            match answer.map_err(|error| Status::internal(error.to_string()))? {
                Err(refusal) if refusal.code() == tonic::Code::NotFound => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

/// A duration as it travels.
pub fn duration(duration: Duration) -> prost_types::Duration {
    holdfast_proto::duration(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// The current run of a workflow.
fn execution(id: &str) -> WorkflowExecution {
    WorkflowExecution { workflow_id: id.to_owned(), run_id: String::new() }
}

/// A task queue of the usual kind.
pub fn queue(name: &str) -> TaskQueue {
    TaskQueue { name: name.to_owned(), kind: TaskQueueKind::Normal as i32, ..TaskQueue::default() }
}

/// One argument or result, of bytes.
pub fn binary(data: Bytes) -> Payloads {
    let encoding = ("encoding".to_owned(), Bytes::from_static(b"binary/plain"));
    one(&Payload::encode_from(&decoded::Payload {
        metadata: [encoding].into(),
        data,
        ..decoded::Payload::default()
    }))
}

/// One argument or result, of text.
pub fn text(text: &str) -> Payloads {
    binary(Bytes::copy_from_slice(text.as_bytes()))
}

fn one(payload: &Payload) -> Payloads {
    Payloads::encode_from(&decoded::Payloads { payloads: vec![payload.clone()] })
}

/// The bytes of a single argument or result; empty when there is none.
pub fn bytes_of(payloads: Option<&Payloads>) -> Bytes {
    let first = payloads.and_then(|payloads| payloads.decode().ok()?.payloads.into_iter().next());
    first.and_then(|payload| payload.decode().ok()).map_or_else(Bytes::new, |it| it.data)
}

/// The text of a single argument or result.
pub fn text_of(payloads: Option<&Payloads>) -> String {
    String::from_utf8_lossy(&bytes_of(payloads)).into_owned()
}
