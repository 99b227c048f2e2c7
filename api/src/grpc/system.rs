//! What the server says about itself.

use holdfast_engine::namespace::{DEFAULT_NAMESPACE, surface};
use holdfast_proto::workflowservice as rpc;
use tonic::{Request, Status};

use super::Frontend;
use super::door::Needs;

/// The version of Temporal's server whose behaviour this is: SDKs compare it with what they need.
const SERVER_VERSION: &str = "1.32.0";

impl Frontend {
    pub(super) async fn on_get_system_info(
        &self,
        _: Request<rpc::GetSystemInfoRequest>,
    ) -> Result<rpc::GetSystemInfoResponse, Status> {
        Ok(surface::system_info(SERVER_VERSION))
    }

    pub(super) async fn on_get_cluster_info(
        &self,
        _: Request<rpc::GetClusterInfoRequest>,
    ) -> Result<rpc::GetClusterInfoResponse, Status> {
        // What is made once in the life of a cluster, at random: the id of its first namespace.
        let first = self.node.registry().view_by_name(DEFAULT_NAMESPACE);
        let id = first.map(|namespace| namespace.id).unwrap_or_default();
        Ok(surface::cluster_info(SERVER_VERSION, &id.to_string(), self.node.shards()))
    }

    /// A worker that stops says so: tasks for its sticky queue need not wait for it any more.
    pub(super) async fn on_shutdown_worker(
        &self,
        request: Request<rpc::ShutdownWorkerRequest>,
    ) -> Result<rpc::ShutdownWorkerResponse, Status> {
        let request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        if !request.sticky_task_queue.is_empty() {
            self.node.sticky_shutdown(namespace.id, &request.sticky_task_queue);
        }
        Ok(rpc::ShutdownWorkerResponse::default())
    }

    // Given up by Temporal itself; what it answers names the successor.

    pub(super) async fn on_list_deployments(
        &self,
        _: Request<rpc::ListDeploymentsRequest>,
    ) -> Result<rpc::ListDeploymentsResponse, Status> {
        Err(given_up())
    }

    pub(super) async fn on_describe_deployment(
        &self,
        _: Request<rpc::DescribeDeploymentRequest>,
    ) -> Result<rpc::DescribeDeploymentResponse, Status> {
        Err(given_up())
    }

    pub(super) async fn on_get_deployment_reachability(
        &self,
        _: Request<rpc::GetDeploymentReachabilityRequest>,
    ) -> Result<rpc::GetDeploymentReachabilityResponse, Status> {
        Err(given_up())
    }

    pub(super) async fn on_get_current_deployment(
        &self,
        _: Request<rpc::GetCurrentDeploymentRequest>,
    ) -> Result<rpc::GetCurrentDeploymentResponse, Status> {
        Err(given_up())
    }

    pub(super) async fn on_set_current_deployment(
        &self,
        _: Request<rpc::SetCurrentDeploymentRequest>,
    ) -> Result<rpc::SetCurrentDeploymentResponse, Status> {
        Err(given_up())
    }

    pub(super) async fn on_fetch_worker_config(
        &self,
        _: Request<rpc::FetchWorkerConfigRequest>,
    ) -> Result<rpc::FetchWorkerConfigResponse, Status> {
        Err(Status::unimplemented("FetchWorkerConfig command is not enabled."))
    }

    pub(super) async fn on_update_worker_config(
        &self,
        _: Request<rpc::UpdateWorkerConfigRequest>,
    ) -> Result<rpc::UpdateWorkerConfigResponse, Status> {
        Err(Status::unimplemented("UpdateWorkerConfig command is not enabled."))
    }
}

fn given_up() -> Status {
    Status::unimplemented(
        "Deployments are deprecated and no longer supported, use Worker Deployments instead",
    )
}
