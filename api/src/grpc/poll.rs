//! Polls: they wait for a task until shortly before the caller's deadline, and answer empty then.

use holdfast_engine::Reply;
use holdfast_engine::live::TaskType;
use holdfast_engine::matching::Rate;
use holdfast_proto::enums::TaskQueueKind;
use holdfast_proto::taskqueue::{TaskQueue, TaskQueueMetadata};
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::node::Poll;
use tonic::{Request, Status};

use super::Frontend;
use super::door::{Needs, poll_until, unexpected};
use crate::errors::status;

impl Frontend {
    pub(super) async fn on_poll_workflow_task_queue(
        &self,
        request: Request<rpc::PollWorkflowTaskQueueRequest>,
    ) -> Result<rpc::PollWorkflowTaskQueueResponse, Status> {
        let (headers, _, request) = request.into_parts();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        let until = poll_until(&headers, self.settings.poll_wait)?;
        self.check(&namespace, |door| door.poll_workflow_task(&request))?;
        let queue = request.task_queue.unwrap_or_default();
        let poll = Poll {
            namespace: namespace.clone(),
            kind: kind(&queue),
            queue: queue.name,
            task: TaskType::Workflow,
            identity: request.identity,
            build_id: request.worker_version_capabilities.unwrap_or_default().build_id,
            rate: None,
            until,
        };
        match self.wait_for_task(poll).await? {
            Some(Reply::WorkflowTask(grant)) => self.workflow_task(&namespace, *grant, 0),
            None => Ok(rpc::PollWorkflowTaskQueueResponse::default()),
            Some(_) => Err(unexpected("a poll")),
        }
    }

    pub(super) async fn on_poll_activity_task_queue(
        &self,
        request: Request<rpc::PollActivityTaskQueueRequest>,
    ) -> Result<rpc::PollActivityTaskQueueResponse, Status> {
        let (headers, _, request) = request.into_parts();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        let until = poll_until(&headers, self.settings.poll_wait)?;
        self.check(&namespace, |door| door.poll_activity_task(&request))?;
        let queue = request.task_queue.unwrap_or_default();
        let poll = Poll {
            namespace: namespace.clone(),
            kind: kind(&queue),
            queue: queue.name,
            task: TaskType::Activity,
            identity: request.identity,
            build_id: request.worker_version_capabilities.unwrap_or_default().build_id,
            rate: rate(request.task_queue_metadata),
            until,
        };
        match self.wait_for_task(poll).await? {
            Some(Reply::ActivityTask(grant)) => self.activity_task(&namespace, *grant),
            None => Ok(rpc::PollActivityTaskQueueResponse::default()),
            Some(_) => Err(unexpected("a poll")),
        }
    }

    /// Waits for a task. When the caller goes away this future is dropped, and the poll with it.
    async fn wait_for_task(&self, poll: Poll) -> Result<Option<Reply>, Status> {
        tokio::select! {
            biased;
            task = self.node.poll(poll) => task.map_err(status),
            () = self.drained() => Ok(None),
        }
    }
}

/// The kind of a polled queue; unspecified means normal.
fn kind(queue: &TaskQueue) -> TaskQueueKind {
    match queue.kind() {
        TaskQueueKind::Unspecified => TaskQueueKind::Normal,
        kind => kind,
    }
}

/// The rate that a poll asks for its queue. Go's SDK asks for 100,000 a second with every poll.
fn rate(metadata: Option<TaskQueueMetadata>) -> Option<Rate> {
    metadata?.max_tasks_per_second.map(Rate::per_second)
}
