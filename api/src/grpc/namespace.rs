//! Namespaces: group 0 decides, this node's copy of it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_engine::Rejection;
use holdfast_engine::ids::Uuid;
use holdfast_engine::namespace::surface::namespace_limits;
use holdfast_engine::namespace::{Command, NamespacePage, Outcome, not_set, registration};
use holdfast_proto::enums::IndexedValueType;
use holdfast_proto::namespace::NamespaceInfo;
use holdfast_proto::operatorservice as op;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::seal::Purpose;
use prost::Message;
use tonic::{Code, Request, Status};

use super::Frontend;
use super::door::unexpected;
use crate::errors::{refused, status};

impl Frontend {
    pub(super) async fn on_register_namespace(
        &self,
        request: Request<rpc::RegisterNamespaceRequest>,
    ) -> Result<rpc::RegisterNamespaceResponse, Status> {
        let command = Command::Register(Box::new(request.into_inner()));
        self.node.command(command).await.map_err(status)?;
        Ok(rpc::RegisterNamespaceResponse::default())
    }

    pub(super) async fn on_update_namespace(
        &self,
        request: Request<rpc::UpdateNamespaceRequest>,
    ) -> Result<rpc::UpdateNamespaceResponse, Status> {
        let command = Command::Update(Box::new(request.into_inner()));
        match self.node.command(command).await.map_err(status)? {
            Outcome::Updated(mut response) => {
                self.tell_limits(response.namespace_info.as_mut());
                Ok(*response)
            }
            Outcome::Done | Outcome::Registered(_) | Outcome::Deleted { .. } => {
                Err(unexpected("an update of a namespace"))
            }
        }
    }

    pub(super) async fn on_deprecate_namespace(
        &self,
        request: Request<rpc::DeprecateNamespaceRequest>,
    ) -> Result<rpc::DeprecateNamespaceResponse, Status> {
        let namespace = request.into_inner().namespace;
        self.node.command(Command::Deprecate { namespace }).await.map_err(status)?;
        Ok(rpc::DeprecateNamespaceResponse::default())
    }

    pub(super) async fn on_describe_namespace(
        &self,
        request: Request<rpc::DescribeNamespaceRequest>,
    ) -> Result<rpc::DescribeNamespaceResponse, Status> {
        let request = request.into_inner();
        self.catch_up().await;
        // Looking it up makes sure that a miss is one; the answer may be a deleted namespace.
        let found = match (request.namespace.as_str(), Uuid::parse(&request.id)) {
            ("", None) if request.id.is_empty() => return Err(refused(not_set())),
            ("", Some(id)) => self.node.namespace_by_id(id).await.map(drop),
            ("", None) => Ok(()),
            (name, _) => self.node.namespace(name).await.map(drop),
        };
        found.map_err(status)?;
        let mut response = self.node.registry().describe(&request).map_err(refused)?;
        self.tell_limits(response.namespace_info.as_mut());
        Ok(response)
    }

    pub(super) async fn on_list_namespaces(
        &self,
        request: Request<rpc::ListNamespacesRequest>,
    ) -> Result<rpc::ListNamespacesResponse, Status> {
        let request = request.into_inner();
        let page = match request.next_page_token.as_ref() {
            [] => None,
            sealed => {
                let page = self.node.open(Purpose::ListPage, sealed);
                let page = page.and_then(|body| NamespacePage::decode(body).ok());
                let refusal = || refused(Rejection::invalid("Invalid NextPageToken."));
                Some(page.ok_or_else(refusal)?)
            }
        };
        self.catch_up().await;
        let (mut response, next) = self.node.registry().list(&request, page.as_ref());
        for namespace in &mut response.namespaces {
            self.tell_limits(namespace.namespace_info.as_mut());
        }
        response.next_page_token =
            next.map(|page| self.seal(Purpose::ListPage, &page)).unwrap_or_default();
        Ok(response)
    }

    /// What was acknowledged is shown. A node that does not lead group 0 shows what it has applied:
    /// the way to the leader comes with the wire between nodes.
    async fn catch_up(&self) {
        if let Err(why) = self.node.catch_up().await {
            tracing::debug!(%why, "namespaces are shown as this node knows them");
        }
    }

    /// SDKs check sizes themselves, against the limits that a namespace tells.
    fn tell_limits(&self, info: Option<&mut NamespaceInfo>) {
        if let Some(info) = info {
            info.limits = Some(namespace_limits(&self.settings.limits));
        }
    }

    /// Makes a namespace and its search attributes, as far as they do not exist.
    pub async fn ensure_namespace(
        &self,
        name: &str,
        retention: Duration,
        search_attributes: &BTreeMap<String, IndexedValueType>,
    ) -> Result<(), Status> {
        if self.node.registry().view_by_name(name).is_none() {
            let made = self.node.command(registration(name, retention)).await.map_err(status);
            match made {
                Err(refusal) if refusal.code() != Code::AlreadyExists => return Err(refusal),
                _ => {}
            }
        }
        let namespace = self.node.namespace(name).await.map_err(status)?;
        let missing: BTreeMap<_, _> = search_attributes
            .iter()
            .filter(|(attribute, _)| !namespace.search_attributes.contains_key(*attribute))
            .map(|(attribute, kind)| (attribute.clone(), i32::from(*kind)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let request = op::AddSearchAttributesRequest {
            search_attributes: missing,
            namespace: name.to_owned(),
        };
        let command = Command::AddSearchAttributes(Box::new(request));
        self.node.command(command).await.map(drop).map_err(status)
    }
}
