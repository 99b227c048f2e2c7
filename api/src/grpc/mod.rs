//! The gRPC services: one method per RPC, one file per family. What is not here is answered
//! UNIMPLEMENTED by the generated defaults.

mod assemble;
mod describe;
mod door;
#[cfg(test)]
mod fields;
pub mod health;
mod history;
mod list;
mod namespace;
mod operator;
mod poll;
pub(crate) mod reflection;
mod respond;
mod signal;
mod start;
mod system;

use std::sync::Arc;

use holdfast_proto::operatorservice as op;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::node::Node;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server;
use tonic_reflection::pb::{v1, v1alpha};

use crate::dynamic_config::Settings;
use crate::service::operator::operator_service_server::{self, OperatorService};
use crate::service::workflow::workflow_service_server::{self, WorkflowService};

/// The names of all services that are served.
pub(crate) const SERVICES: [&str; 5] = [
    health_server::SERVICE_NAME,
    v1::server_reflection_server::SERVICE_NAME,
    v1alpha::server_reflection_server::SERVICE_NAME,
    operator_service_server::SERVICE_NAME,
    workflow_service_server::SERVICE_NAME,
];

/// Both services of a node.
#[derive(Clone)]
pub struct Frontend {
    node: Node,
    settings: Arc<Settings>,
    /// True once the server stops: calls that wait are answered as if their time was over.
    draining: watch::Receiver<bool>,
}

impl Frontend {
    /// The services of `node`.
    pub fn new(node: Node, settings: Arc<Settings>, draining: watch::Receiver<bool>) -> Frontend {
        Frontend { node, settings, draining }
    }
}

/// What a method of a service gives.
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WorkflowService for Frontend {
    async fn get_system_info(
        &self,
        request: Request<rpc::GetSystemInfoRequest>,
    ) -> Answer<rpc::GetSystemInfoResponse> {
        self.on_get_system_info(request).await.map(Response::new)
    }

    async fn get_cluster_info(
        &self,
        request: Request<rpc::GetClusterInfoRequest>,
    ) -> Answer<rpc::GetClusterInfoResponse> {
        self.on_get_cluster_info(request).await.map(Response::new)
    }

    async fn register_namespace(
        &self,
        request: Request<rpc::RegisterNamespaceRequest>,
    ) -> Answer<rpc::RegisterNamespaceResponse> {
        self.on_register_namespace(request).await.map(Response::new)
    }

    async fn describe_namespace(
        &self,
        request: Request<rpc::DescribeNamespaceRequest>,
    ) -> Answer<rpc::DescribeNamespaceResponse> {
        self.on_describe_namespace(request).await.map(Response::new)
    }

    async fn list_namespaces(
        &self,
        request: Request<rpc::ListNamespacesRequest>,
    ) -> Answer<rpc::ListNamespacesResponse> {
        self.on_list_namespaces(request).await.map(Response::new)
    }

    async fn update_namespace(
        &self,
        request: Request<rpc::UpdateNamespaceRequest>,
    ) -> Answer<rpc::UpdateNamespaceResponse> {
        self.on_update_namespace(request).await.map(Response::new)
    }

    async fn deprecate_namespace(
        &self,
        request: Request<rpc::DeprecateNamespaceRequest>,
    ) -> Answer<rpc::DeprecateNamespaceResponse> {
        self.on_deprecate_namespace(request).await.map(Response::new)
    }

    async fn start_workflow_execution(
        &self,
        request: Request<rpc::StartWorkflowExecutionRequest>,
    ) -> Answer<rpc::StartWorkflowExecutionResponse> {
        self.on_start_workflow_execution(request).await.map(Response::new)
    }

    async fn signal_with_start_workflow_execution(
        &self,
        request: Request<rpc::SignalWithStartWorkflowExecutionRequest>,
    ) -> Answer<rpc::SignalWithStartWorkflowExecutionResponse> {
        self.on_signal_with_start_workflow_execution(request).await.map(Response::new)
    }

    async fn signal_workflow_execution(
        &self,
        request: Request<rpc::SignalWorkflowExecutionRequest>,
    ) -> Answer<rpc::SignalWorkflowExecutionResponse> {
        self.on_signal_workflow_execution(request).await.map(Response::new)
    }

    async fn request_cancel_workflow_execution(
        &self,
        request: Request<rpc::RequestCancelWorkflowExecutionRequest>,
    ) -> Answer<rpc::RequestCancelWorkflowExecutionResponse> {
        self.on_request_cancel_workflow_execution(request).await.map(Response::new)
    }

    async fn terminate_workflow_execution(
        &self,
        request: Request<rpc::TerminateWorkflowExecutionRequest>,
    ) -> Answer<rpc::TerminateWorkflowExecutionResponse> {
        self.on_terminate_workflow_execution(request).await.map(Response::new)
    }

    async fn describe_workflow_execution(
        &self,
        request: Request<rpc::DescribeWorkflowExecutionRequest>,
    ) -> Answer<rpc::DescribeWorkflowExecutionResponse> {
        self.on_describe_workflow_execution(request).await.map(Response::new)
    }

    async fn poll_workflow_task_queue(
        &self,
        request: Request<rpc::PollWorkflowTaskQueueRequest>,
    ) -> Answer<rpc::PollWorkflowTaskQueueResponse> {
        self.on_poll_workflow_task_queue(request).await.map(Response::new)
    }

    async fn poll_activity_task_queue(
        &self,
        request: Request<rpc::PollActivityTaskQueueRequest>,
    ) -> Answer<rpc::PollActivityTaskQueueResponse> {
        self.on_poll_activity_task_queue(request).await.map(Response::new)
    }

    async fn respond_workflow_task_completed(
        &self,
        request: Request<rpc::RespondWorkflowTaskCompletedRequest>,
    ) -> Answer<rpc::RespondWorkflowTaskCompletedResponse> {
        self.on_respond_workflow_task_completed(request).await.map(Response::new)
    }

    async fn respond_workflow_task_failed(
        &self,
        request: Request<rpc::RespondWorkflowTaskFailedRequest>,
    ) -> Answer<rpc::RespondWorkflowTaskFailedResponse> {
        self.on_respond_workflow_task_failed(request).await.map(Response::new)
    }

    async fn respond_activity_task_completed(
        &self,
        request: Request<rpc::RespondActivityTaskCompletedRequest>,
    ) -> Answer<rpc::RespondActivityTaskCompletedResponse> {
        self.on_respond_activity_task_completed(request).await.map(Response::new)
    }

    async fn respond_activity_task_completed_by_id(
        &self,
        request: Request<rpc::RespondActivityTaskCompletedByIdRequest>,
    ) -> Answer<rpc::RespondActivityTaskCompletedByIdResponse> {
        self.on_respond_activity_task_completed_by_id(request).await.map(Response::new)
    }

    async fn respond_activity_task_failed(
        &self,
        request: Request<rpc::RespondActivityTaskFailedRequest>,
    ) -> Answer<rpc::RespondActivityTaskFailedResponse> {
        self.on_respond_activity_task_failed(request).await.map(Response::new)
    }

    async fn respond_activity_task_failed_by_id(
        &self,
        request: Request<rpc::RespondActivityTaskFailedByIdRequest>,
    ) -> Answer<rpc::RespondActivityTaskFailedByIdResponse> {
        self.on_respond_activity_task_failed_by_id(request).await.map(Response::new)
    }

    async fn respond_activity_task_canceled(
        &self,
        request: Request<rpc::RespondActivityTaskCanceledRequest>,
    ) -> Answer<rpc::RespondActivityTaskCanceledResponse> {
        self.on_respond_activity_task_canceled(request).await.map(Response::new)
    }

    async fn respond_activity_task_canceled_by_id(
        &self,
        request: Request<rpc::RespondActivityTaskCanceledByIdRequest>,
    ) -> Answer<rpc::RespondActivityTaskCanceledByIdResponse> {
        self.on_respond_activity_task_canceled_by_id(request).await.map(Response::new)
    }

    async fn record_activity_task_heartbeat(
        &self,
        request: Request<rpc::RecordActivityTaskHeartbeatRequest>,
    ) -> Answer<rpc::RecordActivityTaskHeartbeatResponse> {
        self.on_record_activity_task_heartbeat(request).await.map(Response::new)
    }

    async fn record_activity_task_heartbeat_by_id(
        &self,
        request: Request<rpc::RecordActivityTaskHeartbeatByIdRequest>,
    ) -> Answer<rpc::RecordActivityTaskHeartbeatByIdResponse> {
        self.on_record_activity_task_heartbeat_by_id(request).await.map(Response::new)
    }

    async fn reset_sticky_task_queue(
        &self,
        request: Request<rpc::ResetStickyTaskQueueRequest>,
    ) -> Answer<rpc::ResetStickyTaskQueueResponse> {
        self.on_reset_sticky_task_queue(request).await.map(Response::new)
    }

    async fn shutdown_worker(
        &self,
        request: Request<rpc::ShutdownWorkerRequest>,
    ) -> Answer<rpc::ShutdownWorkerResponse> {
        self.on_shutdown_worker(request).await.map(Response::new)
    }

    async fn get_workflow_execution_history(
        &self,
        request: Request<rpc::GetWorkflowExecutionHistoryRequest>,
    ) -> Answer<rpc::GetWorkflowExecutionHistoryResponse> {
        self.on_get_workflow_execution_history(request).await.map(Response::new)
    }

    async fn get_workflow_execution_history_reverse(
        &self,
        request: Request<rpc::GetWorkflowExecutionHistoryReverseRequest>,
    ) -> Answer<rpc::GetWorkflowExecutionHistoryReverseResponse> {
        self.on_get_workflow_execution_history_reverse(request).await.map(Response::new)
    }

    async fn list_workflow_executions(
        &self,
        request: Request<rpc::ListWorkflowExecutionsRequest>,
    ) -> Answer<rpc::ListWorkflowExecutionsResponse> {
        self.on_list_workflow_executions(request).await.map(Response::new)
    }

    async fn count_workflow_executions(
        &self,
        request: Request<rpc::CountWorkflowExecutionsRequest>,
    ) -> Answer<rpc::CountWorkflowExecutionsResponse> {
        self.on_count_workflow_executions(request).await.map(Response::new)
    }

    async fn scan_workflow_executions(
        &self,
        request: Request<rpc::ScanWorkflowExecutionsRequest>,
    ) -> Answer<rpc::ScanWorkflowExecutionsResponse> {
        self.on_scan_workflow_executions(request).await.map(Response::new)
    }

    async fn list_open_workflow_executions(
        &self,
        request: Request<rpc::ListOpenWorkflowExecutionsRequest>,
    ) -> Answer<rpc::ListOpenWorkflowExecutionsResponse> {
        self.on_list_open_workflow_executions(request).await.map(Response::new)
    }

    async fn list_closed_workflow_executions(
        &self,
        request: Request<rpc::ListClosedWorkflowExecutionsRequest>,
    ) -> Answer<rpc::ListClosedWorkflowExecutionsResponse> {
        self.on_list_closed_workflow_executions(request).await.map(Response::new)
    }

    async fn get_search_attributes(
        &self,
        request: Request<rpc::GetSearchAttributesRequest>,
    ) -> Answer<rpc::GetSearchAttributesResponse> {
        self.on_get_search_attributes(request).await.map(Response::new)
    }

    async fn list_deployments(
        &self,
        request: Request<rpc::ListDeploymentsRequest>,
    ) -> Answer<rpc::ListDeploymentsResponse> {
        self.on_list_deployments(request).await.map(Response::new)
    }

    async fn describe_deployment(
        &self,
        request: Request<rpc::DescribeDeploymentRequest>,
    ) -> Answer<rpc::DescribeDeploymentResponse> {
        self.on_describe_deployment(request).await.map(Response::new)
    }

    async fn get_deployment_reachability(
        &self,
        request: Request<rpc::GetDeploymentReachabilityRequest>,
    ) -> Answer<rpc::GetDeploymentReachabilityResponse> {
        self.on_get_deployment_reachability(request).await.map(Response::new)
    }

    async fn get_current_deployment(
        &self,
        request: Request<rpc::GetCurrentDeploymentRequest>,
    ) -> Answer<rpc::GetCurrentDeploymentResponse> {
        self.on_get_current_deployment(request).await.map(Response::new)
    }

    async fn set_current_deployment(
        &self,
        request: Request<rpc::SetCurrentDeploymentRequest>,
    ) -> Answer<rpc::SetCurrentDeploymentResponse> {
        self.on_set_current_deployment(request).await.map(Response::new)
    }

    async fn fetch_worker_config(
        &self,
        request: Request<rpc::FetchWorkerConfigRequest>,
    ) -> Answer<rpc::FetchWorkerConfigResponse> {
        self.on_fetch_worker_config(request).await.map(Response::new)
    }

    async fn update_worker_config(
        &self,
        request: Request<rpc::UpdateWorkerConfigRequest>,
    ) -> Answer<rpc::UpdateWorkerConfigResponse> {
        self.on_update_worker_config(request).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl OperatorService for Frontend {
    async fn add_search_attributes(
        &self,
        request: Request<op::AddSearchAttributesRequest>,
    ) -> Answer<op::AddSearchAttributesResponse> {
        self.on_add_search_attributes(request).await.map(Response::new)
    }

    async fn remove_search_attributes(
        &self,
        request: Request<op::RemoveSearchAttributesRequest>,
    ) -> Answer<op::RemoveSearchAttributesResponse> {
        self.on_remove_search_attributes(request).await.map(Response::new)
    }

    async fn list_search_attributes(
        &self,
        request: Request<op::ListSearchAttributesRequest>,
    ) -> Answer<op::ListSearchAttributesResponse> {
        self.on_list_search_attributes(request).await.map(Response::new)
    }

    async fn delete_namespace(
        &self,
        request: Request<op::DeleteNamespaceRequest>,
    ) -> Answer<op::DeleteNamespaceResponse> {
        self.on_delete_namespace(request).await.map(Response::new)
    }
}
