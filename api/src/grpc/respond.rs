//! Answers of workers: to workflow tasks, to activity tasks by token and by id, heartbeats.

use std::sync::Arc;

use holdfast_engine::input::ActivityRef;
use holdfast_engine::namespace::NamespaceView;
use holdfast_engine::{Input, Reply, validate};
use holdfast_proto::failure::Failure;
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use tonic::{Request, Status};

use super::Frontend;
use super::door::{Needs, unexpected};
use crate::errors::{refused, status};

/// An activity that an answer is for, and where it is.
struct Answered {
    namespace: Arc<NamespaceView>,
    workflow_id: String,
    who: ActivityRef,
}

impl Frontend {
    pub(super) async fn on_respond_workflow_task_completed(
        &self,
        request: Request<rpc::RespondWorkflowTaskCompletedRequest>,
    ) -> Result<rpc::RespondWorkflowTaskCompletedResponse, Status> {
        let request = request.into_inner();
        let (namespace, token) = self.token(&request.task_token, &request.namespace).await?;
        self.check(&namespace, |door| door.workflow_task_completed(&request))?;
        let bytes = request.encoded_len();
        let id = token.workflow_id.clone();
        let input = Input::WorkflowTaskCompleted { token, request: Box::new(request) };
        let reply = self.node.submit(namespace.clone(), &id, input, bytes).await.map_err(status)?;
        let Reply::Completed { next, activities } = reply else {
            return Err(unexpected("a completed workflow task"));
        };
        let activity_tasks = activities
            .into_iter()
            .map(|grant| self.activity_task(&namespace, grant))
            .collect::<Result<_, _>>()?;
        let mut answer = rpc::RespondWorkflowTaskCompletedResponse {
            activity_tasks,
            ..rpc::RespondWorkflowTaskCompletedResponse::default()
        };
        if let Some(grant) = next {
            let task = self.workflow_task(&namespace, *grant, answer.encoded_len())?;
            answer.workflow_task = Some(task);
        }
        Ok(answer)
    }

    pub(super) async fn on_respond_workflow_task_failed(
        &self,
        request: Request<rpc::RespondWorkflowTaskFailedRequest>,
    ) -> Result<rpc::RespondWorkflowTaskFailedResponse, Status> {
        let mut request = request.into_inner();
        let (namespace, token) = self.token(&request.task_token, &request.namespace).await?;
        self.check(&namespace, |door| door.workflow_task_failed(&mut request))?;
        let bytes = request.encoded_len();
        let id = token.workflow_id.clone();
        let input = Input::WorkflowTaskFailed { token, request: Box::new(request) };
        self.node.submit(namespace, &id, input, bytes).await.map_err(status)?;
        Ok(rpc::RespondWorkflowTaskFailedResponse::default())
    }

    pub(super) async fn on_respond_activity_task_completed(
        &self,
        request: Request<rpc::RespondActivityTaskCompletedRequest>,
    ) -> Result<rpc::RespondActivityTaskCompletedResponse, Status> {
        let request = request.into_inner();
        let answered = self.by_token(&request.task_token, &request.namespace).await?;
        self.activity_completed(answered, request).await?;
        Ok(rpc::RespondActivityTaskCompletedResponse::default())
    }

    pub(super) async fn on_respond_activity_task_completed_by_id(
        &self,
        request: Request<rpc::RespondActivityTaskCompletedByIdRequest>,
    ) -> Result<rpc::RespondActivityTaskCompletedByIdResponse, Status> {
        let r = request.into_inner();
        let answered = self.by_id(&r.namespace, r.workflow_id, &r.run_id, r.activity_id).await?;
        let request = rpc::RespondActivityTaskCompletedRequest {
            namespace: r.namespace,
            result: r.result,
            identity: r.identity,
            ..rpc::RespondActivityTaskCompletedRequest::default()
        };
        self.activity_completed(answered, request).await?;
        Ok(rpc::RespondActivityTaskCompletedByIdResponse::default())
    }

    pub(super) async fn on_respond_activity_task_failed(
        &self,
        request: Request<rpc::RespondActivityTaskFailedRequest>,
    ) -> Result<rpc::RespondActivityTaskFailedResponse, Status> {
        let request = request.into_inner();
        let answered = self.by_token(&request.task_token, &request.namespace).await?;
        let failures = self.activity_failed(answered, request).await?;
        Ok(rpc::RespondActivityTaskFailedResponse { failures })
    }

    pub(super) async fn on_respond_activity_task_failed_by_id(
        &self,
        request: Request<rpc::RespondActivityTaskFailedByIdRequest>,
    ) -> Result<rpc::RespondActivityTaskFailedByIdResponse, Status> {
        let r = request.into_inner();
        let answered = self.by_id(&r.namespace, r.workflow_id, &r.run_id, r.activity_id).await?;
        let request = rpc::RespondActivityTaskFailedRequest {
            namespace: r.namespace,
            failure: r.failure,
            identity: r.identity,
            last_heartbeat_details: r.last_heartbeat_details,
            cause: r.cause,
            ..rpc::RespondActivityTaskFailedRequest::default()
        };
        let failures = self.activity_failed(answered, request).await?;
        Ok(rpc::RespondActivityTaskFailedByIdResponse { failures })
    }

    pub(super) async fn on_respond_activity_task_canceled(
        &self,
        request: Request<rpc::RespondActivityTaskCanceledRequest>,
    ) -> Result<rpc::RespondActivityTaskCanceledResponse, Status> {
        let request = request.into_inner();
        let answered = self.by_token(&request.task_token, &request.namespace).await?;
        self.activity_canceled(answered, request).await?;
        Ok(rpc::RespondActivityTaskCanceledResponse::default())
    }

    pub(super) async fn on_respond_activity_task_canceled_by_id(
        &self,
        request: Request<rpc::RespondActivityTaskCanceledByIdRequest>,
    ) -> Result<rpc::RespondActivityTaskCanceledByIdResponse, Status> {
        let r = request.into_inner();
        let answered = self.by_id(&r.namespace, r.workflow_id, &r.run_id, r.activity_id).await?;
        let request = rpc::RespondActivityTaskCanceledRequest {
            namespace: r.namespace,
            details: r.details,
            identity: r.identity,
            ..rpc::RespondActivityTaskCanceledRequest::default()
        };
        self.activity_canceled(answered, request).await?;
        Ok(rpc::RespondActivityTaskCanceledByIdResponse::default())
    }

    pub(super) async fn on_record_activity_task_heartbeat(
        &self,
        request: Request<rpc::RecordActivityTaskHeartbeatRequest>,
    ) -> Result<rpc::RecordActivityTaskHeartbeatResponse, Status> {
        let request = request.into_inner();
        let answered = self.by_token(&request.task_token, &request.namespace).await?;
        let cancel_requested = self.heartbeat(answered, request).await?;
        Ok(rpc::RecordActivityTaskHeartbeatResponse {
            cancel_requested,
            ..rpc::RecordActivityTaskHeartbeatResponse::default()
        })
    }

    pub(super) async fn on_record_activity_task_heartbeat_by_id(
        &self,
        request: Request<rpc::RecordActivityTaskHeartbeatByIdRequest>,
    ) -> Result<rpc::RecordActivityTaskHeartbeatByIdResponse, Status> {
        let r = request.into_inner();
        let answered = self.by_id(&r.namespace, r.workflow_id, &r.run_id, r.activity_id).await?;
        let request = rpc::RecordActivityTaskHeartbeatRequest {
            namespace: r.namespace,
            details: r.details,
            identity: r.identity,
            ..rpc::RecordActivityTaskHeartbeatRequest::default()
        };
        let cancel_requested = self.heartbeat(answered, request).await?;
        Ok(rpc::RecordActivityTaskHeartbeatByIdResponse {
            cancel_requested,
            ..rpc::RecordActivityTaskHeartbeatByIdResponse::default()
        })
    }

    async fn activity_completed(
        &self,
        answered: Answered,
        request: rpc::RespondActivityTaskCompletedRequest,
    ) -> Result<(), Status> {
        let Answered { namespace, workflow_id, who } = answered;
        self.check(&namespace, |door| door.activity_identity(&request.identity))?;
        let bytes = request.encoded_len();
        let input = Input::ActivityCompleted { who, request: Box::new(request) };
        self.node.submit(namespace, &workflow_id, input, bytes).await.map(|_| ()).map_err(status)
    }

    /// Fails an activity; gives what was cut off because it was too large.
    async fn activity_failed(
        &self,
        answered: Answered,
        mut request: rpc::RespondActivityTaskFailedRequest,
    ) -> Result<Vec<Failure>, Status> {
        let Answered { namespace, workflow_id, who } = answered;
        let failures = self.check(&namespace, |door| door.activity_failed(&mut request))?;
        let bytes = request.encoded_len();
        let input = Input::ActivityFailed { who, request: Box::new(request) };
        self.node.submit(namespace, &workflow_id, input, bytes).await.map_err(status)?;
        Ok(failures)
    }

    async fn activity_canceled(
        &self,
        answered: Answered,
        request: rpc::RespondActivityTaskCanceledRequest,
    ) -> Result<(), Status> {
        let Answered { namespace, workflow_id, who } = answered;
        self.check(&namespace, |door| door.activity_identity(&request.identity))?;
        let bytes = request.encoded_len();
        let input = Input::ActivityCanceled { who, request: Box::new(request) };
        self.node.submit(namespace, &workflow_id, input, bytes).await.map(|_| ()).map_err(status)
    }

    /// Records a heartbeat; tells whether the activity should stop.
    async fn heartbeat(
        &self,
        answered: Answered,
        request: rpc::RecordActivityTaskHeartbeatRequest,
    ) -> Result<bool, Status> {
        let Answered { namespace, workflow_id, who } = answered;
        let bytes = request.encoded_len();
        let input = Input::Heartbeat { who, request: Box::new(request) };
        match self.node.submit(namespace, &workflow_id, input, bytes).await.map_err(status)? {
            Reply::Heartbeat { cancel_requested } => Ok(cancel_requested),
            _ => Err(unexpected("a heartbeat")),
        }
    }

    async fn by_token(&self, sealed: &[u8], namespace: &str) -> Result<Answered, Status> {
        let (namespace, token) = self.token(sealed, namespace).await?;
        let workflow_id = token.workflow_id.clone();
        Ok(Answered { namespace, workflow_id, who: ActivityRef::Token(token) })
    }

    async fn by_id(
        &self,
        namespace: &str,
        workflow_id: String,
        run: &str,
        activity_id: String,
    ) -> Result<Answered, Status> {
        let namespace = self.namespace(namespace, Needs::Alive).await?;
        let run = validate::activity_by_id(&workflow_id, run, &activity_id).map_err(refused)?;
        let who = ActivityRef::ById { run, activity_id };
        Ok(Answered { namespace, workflow_id, who })
    }
}
