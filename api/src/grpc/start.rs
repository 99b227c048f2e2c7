//! StartWorkflowExecution and SignalWithStartWorkflowExecution.

use holdfast_engine::input::Started;
use holdfast_engine::namespace::NamespaceView;
use holdfast_engine::{Input, Reply};
use holdfast_proto::common::Link;
use holdfast_proto::common::link::workflow_event::{EventReference, Reference, RequestIdReference};
use holdfast_proto::common::link::{Variant, WorkflowEvent};
use holdfast_proto::enums::EventType;
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use tonic::{Request, Status};

use super::Frontend;
use super::door::{Needs, unexpected};
use crate::errors::status;

impl Frontend {
    pub(super) async fn on_start_workflow_execution(
        &self,
        request: Request<rpc::StartWorkflowExecutionRequest>,
    ) -> Result<rpc::StartWorkflowExecutionResponse, Status> {
        let mut request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Registered).await?;
        self.check(&namespace, |door| door.start(&mut request))?;
        let (id, bytes) = (request.workflow_id.clone(), request.encoded_len());
        let request_id = request.request_id.clone();
        let input = Input::Start(Box::new(request));
        let started = match self.node.submit(namespace.clone(), &id, input, bytes).await {
            Ok(Reply::Started(started)) => *started,
            Ok(_) => return Err(unexpected("a start")),
            Err(error) => return Err(status(error)),
        };
        let link = started_link(&namespace, &id, &started, request_id);
        let mut answer = rpc::StartWorkflowExecutionResponse {
            run_id: started.run.to_string(),
            first_execution_run_id: started.first_run.to_string(),
            started: started.started,
            status: started.status.into(),
            link: Some(link),
            eager_workflow_task: None,
        };
        if let Some(grant) = started.eager {
            let task = self.workflow_task(&namespace, *grant, answer.encoded_len())?;
            answer.eager_workflow_task = Some(task);
        }
        Ok(answer)
    }

    pub(super) async fn on_signal_with_start_workflow_execution(
        &self,
        request: Request<rpc::SignalWithStartWorkflowExecutionRequest>,
    ) -> Result<rpc::SignalWithStartWorkflowExecutionResponse, Status> {
        let mut request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Registered).await?;
        self.check(&namespace, |door| door.signal_with_start(&mut request))?;
        let (id, bytes) = (request.workflow_id.clone(), request.encoded_len());
        let request_id = request.request_id.clone();
        let input = Input::SignalWithStart(Box::new(request));
        let started = match self.node.submit(namespace.clone(), &id, input, bytes).await {
            Ok(Reply::Started(started)) => *started,
            Ok(_) => return Err(unexpected("a signal with start")),
            Err(error) => return Err(status(error)),
        };
        let run_id = started.run.to_string();
        Ok(rpc::SignalWithStartWorkflowExecutionResponse {
            signal_link: Some(super::signal::signal_link(&namespace, &id, &run_id, request_id)),
            first_execution_run_id: started.first_run.to_string(),
            run_id,
            started: started.started,
        })
    }
}

/// Where the started run begins, for callers that keep links. A request that was attached to a
/// run is named instead: its event may still wait in the buffer, without a number.
fn started_link(
    namespace: &NamespaceView,
    id: &str,
    started: &Started,
    request_id: String,
) -> Link {
    let reference = if started.attached {
        let event_type = EventType::WorkflowExecutionOptionsUpdated.into();
        Reference::RequestIdRef(RequestIdReference { request_id, event_type })
    } else {
        let event_type = EventType::WorkflowExecutionStarted.into();
        Reference::EventRef(EventReference { event_id: 1, event_type })
    };
    Link {
        variant: Some(Variant::WorkflowEvent(WorkflowEvent {
            namespace: namespace.name.clone(),
            workflow_id: id.to_owned(),
            run_id: started.run.to_string(),
            reference: Some(reference),
        })),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::Uuid;
    use holdfast_proto::enums::{NamespaceState, WorkflowExecutionStatus};

    use super::*;

    #[test]
    fn the_link_of_an_attached_start_names_its_request() {
        // Golden start/conflict_use_existing_attach.
        let namespace = NamespaceView {
            id: Uuid::NIL,
            name: "default".to_owned(),
            state: NamespaceState::Registered,
            retention: std::time::Duration::ZERO,
            search_attributes: std::collections::BTreeMap::new(),
        };
        let mut started = Started {
            run: Uuid::NIL,
            first_run: Uuid::NIL,
            started: false,
            status: WorkflowExecutionStatus::Running,
            attached: true,
            eager: None,
        };
        let reference =
            |started: &Started| match started_link(&namespace, "wf", started, "second".to_owned())
                .variant
            {
                Some(Variant::WorkflowEvent(event)) => event.reference,
                other => panic!("{other:?}"),
            };
        let attached = RequestIdReference {
            request_id: "second".to_owned(),
            event_type: EventType::WorkflowExecutionOptionsUpdated.into(),
        };
        assert_eq!(reference(&started), Some(Reference::RequestIdRef(attached)));
        started.attached = false;
        assert!(
            matches!(reference(&started), Some(Reference::EventRef(event)) if event.event_id == 1)
        );
    }
}
