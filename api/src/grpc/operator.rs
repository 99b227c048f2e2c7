//! The operator service: custom search attributes, and the deletion of namespaces.

use holdfast_engine::Rejection;
use holdfast_engine::namespace::{Command, Outcome, surface};
use holdfast_proto::operatorservice as op;
use tonic::{Request, Status};

use super::Frontend;
use super::door::unexpected;
use crate::errors::{refused, status};

impl Frontend {
    pub(super) async fn on_add_search_attributes(
        &self,
        request: Request<op::AddSearchAttributesRequest>,
    ) -> Result<op::AddSearchAttributesResponse, Status> {
        let command = Command::AddSearchAttributes(Box::new(request.into_inner()));
        self.node.command(command).await.map_err(status)?;
        Ok(op::AddSearchAttributesResponse::default())
    }

    pub(super) async fn on_remove_search_attributes(
        &self,
        request: Request<op::RemoveSearchAttributesRequest>,
    ) -> Result<op::RemoveSearchAttributesResponse, Status> {
        let command = Command::RemoveSearchAttributes(Box::new(request.into_inner()));
        self.node.command(command).await.map_err(status)?;
        Ok(op::RemoveSearchAttributesResponse::default())
    }

    pub(super) async fn on_list_search_attributes(
        &self,
        request: Request<op::ListSearchAttributesRequest>,
    ) -> Result<op::ListSearchAttributesResponse, Status> {
        let name = request.into_inner().namespace;
        if name.is_empty() {
            return Err(refused(Rejection::invalid("Namespace is not set on request.")));
        }
        let namespace = self.node.namespace(&name).await.map_err(status)?;
        Ok(surface::search_attributes(&namespace))
    }

    /// Takes a namespace out of use and gives its name free. What was in it can't be reached any
    /// more, and is removed from now on.
    pub(super) async fn on_delete_namespace(
        &self,
        request: Request<op::DeleteNamespaceRequest>,
    ) -> Result<op::DeleteNamespaceResponse, Status> {
        let request = request.into_inner();
        if request.namespace_delete_delay.is_some_and(|delay| delay != Default::default()) {
            return Err(refused(Rejection::unbuilt("namespace_delete_delay")));
        }
        let command = Command::Delete { namespace: request.namespace, id: request.namespace_id };
        match self.node.command(command).await.map_err(status)? {
            Outcome::Deleted { name, .. } => {
                Ok(op::DeleteNamespaceResponse { deleted_namespace: name })
            }
            Outcome::Done | Outcome::Registered(_) | Outcome::Updated(_) => {
                Err(unexpected("a deletion of a namespace"))
            }
        }
    }
}
