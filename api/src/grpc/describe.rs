//! DescribeWorkflowExecution, and what is asked of a run beside it.

use holdfast_engine::{Input, Reply, validate};
use holdfast_proto::workflowservice as rpc;
use tonic::{Request, Status};

use super::Frontend;
use super::door::{Needs, unexpected};
use crate::errors::{refused, status};

impl Frontend {
    pub(super) async fn on_describe_workflow_execution(
        &self,
        request: Request<rpc::DescribeWorkflowExecutionRequest>,
    ) -> Result<rpc::DescribeWorkflowExecutionResponse, Status> {
        let request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        let run = validate::describe(&request).map_err(refused)?;
        let execution = request.execution.unwrap_or_default();
        let input = Input::Describe { run };
        let reply = self.node.submit(namespace, &execution.workflow_id, input, 0).await;
        match reply.map_err(status)? {
            Reply::Described(response) => Ok(*response),
            _ => Err(unexpected("a describe")),
        }
    }

    pub(super) async fn on_reset_sticky_task_queue(
        &self,
        request: Request<rpc::ResetStickyTaskQueueRequest>,
    ) -> Result<rpc::ResetStickyTaskQueueResponse, Status> {
        let request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        let run = validate::reset_sticky(&request).map_err(refused)?;
        let execution = request.execution.unwrap_or_default();
        let input = Input::ResetSticky { run };
        self.node.submit(namespace, &execution.workflow_id, input, 0).await.map_err(status)?;
        Ok(rpc::ResetStickyTaskQueueResponse::default())
    }
}
