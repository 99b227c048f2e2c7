//! A server in this process, a client of it, and a worker played by hand.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use holdfast_api::dynamic_config::Settings;
use holdfast_api::server::{Data, Options, Server};
use holdfast_api::service::operator::operator_service_client::OperatorServiceClient;
use holdfast_api::service::workflow::workflow_service_client::WorkflowServiceClient;
use holdfast_proto::command::command::Attributes;
use holdfast_proto::command::{
    Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes,
};
use holdfast_proto::common::{ActivityType, Payload, Payloads, WorkflowExecution, WorkflowType};
use holdfast_proto::enums::{CommandType, TaskQueueKind};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::{decoded, workflowservice as rpc};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How long a poll of these tests waits. Long: only a failing test waits for it.
pub(crate) const POLL: Duration = Duration::from_secs(30);

/// A server and a client of it. The data is gone at the end.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) channel: Channel,
    pub(crate) workflow: WorkflowServiceClient<Channel>,
    pub(crate) operator: OperatorServiceClient<Channel>,
}

/// What the server of a test is.
pub(crate) fn options() -> Options {
    Options {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        data: Data::Temporary,
        shards: None,
        shards_of_new: 2,
        settings: Settings::default(),
        retention: Duration::from_secs(86_400),
        namespaces: vec!["default".to_owned()],
        search_attributes: BTreeMap::new(),
    }
}

impl Fixture {
    pub(crate) async fn start() -> Fixture {
        Fixture::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Fixture {
        let server = Server::start(options).await.expect("the server starts");
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address()));
        let channel = endpoint.expect("an address").connect().await.expect("connects");
        Fixture {
            server,
            workflow: WorkflowServiceClient::new(channel.clone())
                .max_decoding_message_size(usize::MAX)
                .max_encoding_message_size(usize::MAX),
            operator: OperatorServiceClient::new(channel.clone()),
            channel,
        }
    }

    pub(crate) async fn start_workflow(&self, id: &str, queue: &str) -> String {
        let started = self.try_start(start_request(id, queue)).await.expect("starts");
        started.run_id
    }

    pub(crate) async fn try_start(
        &self,
        request: rpc::StartWorkflowExecutionRequest,
    ) -> Result<rpc::StartWorkflowExecutionResponse, Status> {
        let mut client = self.workflow.clone();
        client.start_workflow_execution(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn signal(&self, id: &str, name: &str) -> Result<(), Status> {
        let request = rpc::SignalWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            workflow_execution: Some(execution(id, "")),
            signal_name: name.to_owned(),
            ..rpc::SignalWorkflowExecutionRequest::default()
        };
        self.workflow.clone().signal_workflow_execution(request).await.map(drop)
    }

    pub(crate) async fn cancel(&self, id: &str) -> Result<(), Status> {
        let request = rpc::RequestCancelWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            workflow_execution: Some(execution(id, "")),
            ..rpc::RequestCancelWorkflowExecutionRequest::default()
        };
        self.workflow.clone().request_cancel_workflow_execution(request).await.map(drop)
    }

    pub(crate) async fn terminate(&self, id: &str) -> Result<(), Status> {
        let request = rpc::TerminateWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            workflow_execution: Some(execution(id, "")),
            reason: "because".to_owned(),
            ..rpc::TerminateWorkflowExecutionRequest::default()
        };
        self.workflow.clone().terminate_workflow_execution(request).await.map(drop)
    }

    pub(crate) async fn describe(
        &self,
        id: &str,
    ) -> Result<rpc::DescribeWorkflowExecutionResponse, Status> {
        let request = rpc::DescribeWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            execution: Some(execution(id, "")),
        };
        let mut client = self.workflow.clone();
        client.describe_workflow_execution(request).await.map(tonic::Response::into_inner)
    }

    /// The status of the current run, without its prefix: `RUNNING`, `COMPLETED`, ..
    pub(crate) async fn status(&self, id: &str) -> String {
        let described = self.describe(id).await.expect("described");
        let info = described.workflow_execution_info.expect("info");
        let name = info.status().as_str_name();
        name.strip_prefix("WORKFLOW_EXECUTION_STATUS_").unwrap_or(name).to_owned()
    }

    pub(crate) async fn page(
        &self,
        request: rpc::GetWorkflowExecutionHistoryRequest,
    ) -> Result<rpc::GetWorkflowExecutionHistoryResponse, Status> {
        let mut client = self.workflow.clone();
        let mut request = Request::new(request);
        request.set_timeout(POLL);
        client.get_workflow_execution_history(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn history(&self, id: &str) -> Vec<HistoryEvent> {
        let (mut events, mut token) = (Vec::new(), bytes::Bytes::new());
        loop {
            let page = self.page(history_request(id, token)).await.expect("a page");
            events.extend(page.history.unwrap_or_default().events);
            token = page.next_page_token;
            if token.is_empty() {
                return events;
            }
        }
    }

    /// The types of the events, with their ids.
    pub(crate) async fn events(&self, id: &str) -> Vec<String> {
        types(&self.history(id).await)
    }

    pub(crate) async fn poll(&self, queue: &str) -> rpc::PollWorkflowTaskQueueResponse {
        let task = self.try_poll(queue, "worker", POLL).await.expect("polls");
        assert!(!task.task_token.is_empty(), "no task within {POLL:?}");
        task
    }

    pub(crate) async fn try_poll(
        &self,
        queue: &str,
        identity: &str,
        timeout: Duration,
    ) -> Result<rpc::PollWorkflowTaskQueueResponse, Status> {
        let mut request = Request::new(rpc::PollWorkflowTaskQueueRequest {
            namespace: "default".to_owned(),
            task_queue: Some(normal(queue)),
            identity: identity.to_owned(),
            ..rpc::PollWorkflowTaskQueueRequest::default()
        });
        request.set_timeout(timeout);
        let mut client = self.workflow.clone();
        client.poll_workflow_task_queue(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn poll_activity(&self, queue: &str) -> rpc::PollActivityTaskQueueResponse {
        let mut request = Request::new(rpc::PollActivityTaskQueueRequest {
            namespace: "default".to_owned(),
            task_queue: Some(normal(queue)),
            identity: "worker".to_owned(),
            ..rpc::PollActivityTaskQueueRequest::default()
        });
        request.set_timeout(POLL);
        let answer = self.workflow.clone().poll_activity_task_queue(request).await;
        let task = answer.expect("polls").into_inner();
        assert!(!task.task_token.is_empty(), "no task within {POLL:?}");
        task
    }

    pub(crate) async fn complete(
        &self,
        token: &[u8],
        commands: Vec<Command>,
    ) -> Result<rpc::RespondWorkflowTaskCompletedResponse, Status> {
        let request = rpc::RespondWorkflowTaskCompletedRequest {
            task_token: token.to_vec().into(),
            commands,
            identity: "worker".to_owned(),
            namespace: "default".to_owned(),
            ..rpc::RespondWorkflowTaskCompletedRequest::default()
        };
        let mut client = self.workflow.clone();
        client.respond_workflow_task_completed(request).await.map(tonic::Response::into_inner)
    }

    /// Polls one workflow task and completes it.
    pub(crate) async fn turn(&self, queue: &str, commands: Vec<Command>) {
        let task = self.poll(queue).await;
        self.complete(&task.task_token, commands).await.expect("completes");
    }

    pub(crate) async fn complete_activity(&self, token: &[u8], text: &str) -> Result<(), Status> {
        let request = rpc::RespondActivityTaskCompletedRequest {
            task_token: token.to_vec().into(),
            result: Some(payloads(text)),
            identity: "worker".to_owned(),
            namespace: "default".to_owned(),
            ..rpc::RespondActivityTaskCompletedRequest::default()
        };
        self.workflow.clone().respond_activity_task_completed(request).await.map(drop)
    }
}

pub(crate) fn start_request(id: &str, queue: &str) -> rpc::StartWorkflowExecutionRequest {
    rpc::StartWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_id: id.to_owned(),
        workflow_type: Some(WorkflowType { name: "wf".to_owned() }),
        task_queue: Some(normal(queue)),
        input: Some(payloads("\"hello\"")),
        identity: "client".to_owned(),
        request_id: format!("start {id}"),
        ..rpc::StartWorkflowExecutionRequest::default()
    }
}

pub(crate) fn history_request(
    id: &str,
    token: bytes::Bytes,
) -> rpc::GetWorkflowExecutionHistoryRequest {
    rpc::GetWorkflowExecutionHistoryRequest {
        namespace: "default".to_owned(),
        execution: Some(execution(id, "")),
        next_page_token: token,
        ..rpc::GetWorkflowExecutionHistoryRequest::default()
    }
}

pub(crate) fn execution(id: &str, run: &str) -> WorkflowExecution {
    WorkflowExecution { workflow_id: id.to_owned(), run_id: run.to_owned() }
}

pub(crate) fn normal(queue: &str) -> TaskQueue {
    TaskQueue { name: queue.to_owned(), kind: TaskQueueKind::Normal.into(), ..TaskQueue::default() }
}

pub(crate) fn payloads(json: &str) -> Payloads {
    Payloads::encode_from(&decoded::Payloads { payloads: vec![Payload::json(json)] })
}

pub(crate) fn types(events: &[HistoryEvent]) -> Vec<String> {
    let name = |event: &HistoryEvent| {
        let name = event.event_type().as_str_name();
        format!("{} {}", event.event_id, name.strip_prefix("EVENT_TYPE_").unwrap_or(name))
    };
    events.iter().map(name).collect()
}

fn command(kind: CommandType, attributes: Attributes) -> Command {
    Command { command_type: kind.into(), attributes: Some(attributes), ..Command::default() }
}

pub(crate) fn schedule_activity(id: &str, queue: &str) -> Command {
    let attributes = ScheduleActivityTaskCommandAttributes {
        activity_id: id.to_owned(),
        activity_type: Some(ActivityType { name: "act".to_owned() }),
        task_queue: Some(normal(queue)),
        input: Some(payloads("[1,2]")),
        start_to_close_timeout: Some(seconds(30)),
        ..ScheduleActivityTaskCommandAttributes::default()
    };
    command(
        CommandType::ScheduleActivityTask,
        Attributes::ScheduleActivityTaskCommandAttributes(attributes),
    )
}

pub(crate) fn start_timer(id: &str, millis: i32) -> Command {
    let attributes = StartTimerCommandAttributes {
        timer_id: id.to_owned(),
        start_to_fire_timeout: Some(prost_types::Duration {
            seconds: i64::from(millis / 1000),
            nanos: millis % 1000 * 1_000_000,
        }),
    };
    command(CommandType::StartTimer, Attributes::StartTimerCommandAttributes(attributes))
}

pub(crate) fn complete_workflow(json: &str) -> Command {
    let attributes = CompleteWorkflowExecutionCommandAttributes { result: Some(payloads(json)) };
    command(
        CommandType::CompleteWorkflowExecution,
        Attributes::CompleteWorkflowExecutionCommandAttributes(attributes),
    )
}

pub(crate) fn cancel_workflow() -> Command {
    command(
        CommandType::CancelWorkflowExecution,
        Attributes::CancelWorkflowExecutionCommandAttributes(Default::default()),
    )
}

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// The details of a status, as clients read them.
pub(crate) fn details(status: &Status) -> holdfast_proto::Status {
    holdfast_proto::Status::decode(status.details()).expect("details decode")
}
