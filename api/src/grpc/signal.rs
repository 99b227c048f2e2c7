//! Requests to a workflow that exists: signal, cancel, terminate.

use holdfast_engine::namespace::NamespaceView;
use holdfast_engine::{Input, Reply};
use holdfast_proto::common::link::workflow_event::{Reference, RequestIdReference};
use holdfast_proto::common::link::{Variant, WorkflowEvent};
use holdfast_proto::common::{Link, WorkflowExecution};
use holdfast_proto::enums::EventType;
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use tonic::{Request, Status};

use super::Frontend;
use super::door::{Needs, unexpected};
use crate::errors::status;

impl Frontend {
    pub(super) async fn on_signal_workflow_execution(
        &self,
        request: Request<rpc::SignalWorkflowExecutionRequest>,
    ) -> Result<rpc::SignalWorkflowExecutionResponse, Status> {
        let mut request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        self.check(&namespace, |door| door.signal(&mut request))?;
        let bytes = request.encoded_len();
        let id = workflow_id(request.workflow_execution.as_ref());
        let request_id = request.request_id.clone();
        let input = Input::Signal(Box::new(request));
        match self.node.submit(namespace.clone(), &id, input, bytes).await.map_err(status)? {
            Reply::Signaled(execution) => Ok(rpc::SignalWorkflowExecutionResponse {
                link: Some(signal_link(&namespace, &id, &execution.run_id, request_id)),
            }),
            _ => Err(unexpected("a signal")),
        }
    }

    pub(super) async fn on_request_cancel_workflow_execution(
        &self,
        request: Request<rpc::RequestCancelWorkflowExecutionRequest>,
    ) -> Result<rpc::RequestCancelWorkflowExecutionResponse, Status> {
        let request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        self.check(&namespace, |door| door.request_cancel(&request))?;
        let bytes = request.encoded_len();
        let id = workflow_id(request.workflow_execution.as_ref());
        let input = Input::RequestCancel(Box::new(request));
        self.node.submit(namespace, &id, input, bytes).await.map_err(status)?;
        Ok(rpc::RequestCancelWorkflowExecutionResponse::default())
    }

    pub(super) async fn on_terminate_workflow_execution(
        &self,
        request: Request<rpc::TerminateWorkflowExecutionRequest>,
    ) -> Result<rpc::TerminateWorkflowExecutionResponse, Status> {
        let mut request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        self.check(&namespace, |door| door.terminate(&mut request))?;
        let bytes = request.encoded_len();
        let id = workflow_id(request.workflow_execution.as_ref());
        let input = Input::Terminate(Box::new(request));
        self.node.submit(namespace, &id, input, bytes).await.map_err(status)?;
        Ok(rpc::TerminateWorkflowExecutionResponse::default())
    }
}

/// The workflow id that a request names. Requests without one have been refused before.
pub(super) fn workflow_id(execution: Option<&WorkflowExecution>) -> String {
    execution.map(|execution| execution.workflow_id.clone()).unwrap_or_default()
}

/// The event of a signal. It may be buffered still, so it is named by its request.
pub(super) fn signal_link(
    namespace: &NamespaceView,
    id: &str,
    run_id: &str,
    request_id: String,
) -> Link {
    Link {
        variant: Some(Variant::WorkflowEvent(WorkflowEvent {
            namespace: namespace.name.clone(),
            workflow_id: id.to_owned(),
            run_id: run_id.to_owned(),
            reference: Some(Reference::RequestIdRef(RequestIdReference {
                request_id,
                event_type: EventType::WorkflowExecutionSignaled.into(),
            })),
        })),
    }
}
