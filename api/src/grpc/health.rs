//! The standard health service, and the question that `operator cluster health` asks.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::service::operator::operator_service_server as operator;
use crate::service::workflow::workflow_service_server as workflow;

/// The services that have a health of their own; it is the same for all. Everyone asks for the
/// workflow service.
const SERVICES: [&str; 3] = ["", workflow::SERVICE_NAME, operator::SERVICE_NAME];

/// Tells load balancers and SDKs whether to send calls here.
pub struct HealthService {
    draining: watch::Receiver<bool>,
}

impl HealthService {
    /// Healthy until `draining` is true.
    pub fn new(draining: watch::Receiver<bool>) -> HealthService {
        HealthService { draining }
    }
}

fn answer(draining: bool) -> HealthCheckResponse {
    let status = if draining { ServingStatus::NotServing } else { ServingStatus::Serving };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(*self.draining.borrow())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            // The protocol keeps such a stream open: the service might appear. Until the drain.
            let drained = WatchStream::new(self.draining.clone()).filter(|draining| *draining);
            let end = drained.map(|_| None).take(1);
            let stream = tokio_stream::once(Some(Ok(unknown))).chain(end);
            return Ok(Response::new(Box::pin(stream.map_while(|answer| answer))));
        }
        let changes = WatchStream::new(self.draining.clone());
        // The stream ends with the change to NOT_SERVING, or it would hold up the drain.
        let mut over = false;
        let stream = changes.take_while(move |draining| !std::mem::replace(&mut over, *draining));
        Ok(Response::new(Box::pin(stream.map(|draining| Ok(answer(draining))))))
    }
}

/// Why a server is not known to serve.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is not one.
    #[error("{0:?} is not HOST:PORT")]
    Address(String),
    /// Nobody answers there.
    #[error("no server answers at {0}")]
    Unreachable(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server says no.
    #[error("the server at {0} does not serve")]
    NotServing(String),
}

/// Asks the server at `address` whether it serves.
pub async fn ask(address: &str) -> Result<(), HealthError> {
    let limit = Duration::from_secs(5);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| HealthError::Address(address.to_owned()))?
        .connect_timeout(limit)
        .timeout(limit);
    let unreachable = |source| HealthError::Unreachable(address.to_owned(), source);
    let channel = endpoint.connect().await.map_err(|e| unreachable(e.into()))?;
    let request = HealthCheckRequest { service: workflow::SERVICE_NAME.to_owned() };
    let response = HealthClient::new(channel).check(request).await;
    let status = response.map_err(|e| unreachable(e.into()))?.into_inner().status();
    match status {
        ServingStatus::Serving => Ok(()),
        ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown => {
            Err(HealthError::NotServing(address.to_owned()))
        }
    }
}
