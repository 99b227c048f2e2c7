//! Lists and counts of workflows.

use holdfast_engine::Rejection;
use holdfast_engine::namespace::{NamespaceView, surface};
use holdfast_engine::visibility::{ListPage, Listing, Query, info};
use holdfast_proto::workflow::WorkflowExecutionInfo;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::seal::Purpose;
use prost::Message;
use std::sync::Arc;
use tonic::{Request, Status};

use super::Frontend;
use super::door::Needs;
use crate::errors::{refused, status};

/// One page: what it shows, and the token of the next.
type Shown = (Vec<WorkflowExecutionInfo>, bytes::Bytes);

impl Frontend {
    pub(super) async fn on_list_workflow_executions(
        &self,
        request: Request<rpc::ListWorkflowExecutionsRequest>,
    ) -> Result<rpc::ListWorkflowExecutionsResponse, Status> {
        let r = request.into_inner();
        let (namespace, page) = self.listed(&r.namespace, &r.next_page_token).await?;
        let listing = Listing::list(&r.query, r.page_size, page.as_ref(), &namespace);
        let (executions, next_page_token) = self.show(&namespace, listing).await?;
        Ok(rpc::ListWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(super) async fn on_scan_workflow_executions(
        &self,
        request: Request<rpc::ScanWorkflowExecutionsRequest>,
    ) -> Result<rpc::ScanWorkflowExecutionsResponse, Status> {
        let r = request.into_inner();
        let (namespace, page) = self.listed(&r.namespace, &r.next_page_token).await?;
        let listing = Listing::list(&r.query, r.page_size, page.as_ref(), &namespace);
        let (executions, next_page_token) = self.show(&namespace, listing).await?;
        Ok(rpc::ScanWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(super) async fn on_list_open_workflow_executions(
        &self,
        request: Request<rpc::ListOpenWorkflowExecutionsRequest>,
    ) -> Result<rpc::ListOpenWorkflowExecutionsResponse, Status> {
        let r = request.into_inner();
        let (namespace, page) = self.listed(&r.namespace, &r.next_page_token).await?;
        let listing = Listing::open(&r, page.as_ref(), &namespace);
        let (executions, next_page_token) = self.show(&namespace, listing).await?;
        Ok(rpc::ListOpenWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(super) async fn on_list_closed_workflow_executions(
        &self,
        request: Request<rpc::ListClosedWorkflowExecutionsRequest>,
    ) -> Result<rpc::ListClosedWorkflowExecutionsResponse, Status> {
        let r = request.into_inner();
        let (namespace, page) = self.listed(&r.namespace, &r.next_page_token).await?;
        let listing = Listing::closed(&r, page.as_ref(), &namespace);
        let (executions, next_page_token) = self.show(&namespace, listing).await?;
        Ok(rpc::ListClosedWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(super) async fn on_count_workflow_executions(
        &self,
        request: Request<rpc::CountWorkflowExecutionsRequest>,
    ) -> Result<rpc::CountWorkflowExecutionsResponse, Status> {
        let request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        let query = Query::parse(&request.query, &namespace).map_err(|e| refused(e.into()))?;
        let tally = self.node.count(&namespace, &query).await.map_err(status)?;
        Ok(tally.response())
    }

    pub(super) async fn on_get_search_attributes(
        &self,
        _: Request<rpc::GetSearchAttributesRequest>,
    ) -> Result<rpc::GetSearchAttributesResponse, Status> {
        Ok(surface::all_search_attributes())
    }

    /// The namespace and the page token of a list.
    async fn listed(
        &self,
        name: &str,
        sealed: &[u8],
    ) -> Result<(Arc<NamespaceView>, Option<ListPage>), Status> {
        let namespace = self.namespace(name, Needs::Alive).await?;
        if sealed.is_empty() {
            return Ok((namespace, None));
        }
        let page = self.node.open(Purpose::ListPage, sealed);
        let page = page.and_then(|body| ListPage::decode(body).ok());
        let refusal = || refused(Rejection::invalid("Invalid page token."));
        Ok((namespace, Some(page.ok_or_else(refusal)?)))
    }

    async fn show(
        &self,
        namespace: &Arc<NamespaceView>,
        listing: Result<Listing, Rejection>,
    ) -> Result<Shown, Status> {
        let mut listing = listing.map_err(refused)?;
        listing.size = listing.size.min(self.settings.list_page_max);
        let (rows, next) = self.node.list(namespace, &listing).await.map_err(status)?;
        let executions = rows.iter().map(|row| info(row, namespace)).collect();
        let token = next.map(|page| self.seal(Purpose::ListPage, &page)).unwrap_or_default();
        Ok((executions, token))
    }
}
