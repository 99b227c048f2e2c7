//! Namespaces as callers see them: describe, list, update.

use holdfast_proto::enums::{ArchivalState, NamespaceState, ReplicationState};
use holdfast_proto::namespace::{BadBinaries, BadBinaryInfo, NamespaceConfig, NamespaceInfo};
use holdfast_proto::replication::{ClusterReplicationConfig, NamespaceReplicationConfig};
use holdfast_proto::workflowservice as rpc;

use super::record::NamespaceRecord;
use super::registry::Registry;
use super::surface::{CLUSTER_NAME, namespace_capabilities, namespace_limits};
use super::{not_found, not_set};
use crate::ids::{Hlc, Uuid};
use crate::limits::Limits;
use crate::reject::Rejection;

/// The page of a list that asks for none.
pub const DEFAULT_PAGE: usize = 100;
/// The greatest page.
pub const MAX_PAGE: usize = 1000;

/// The body of the page token; sealed outside.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespacePage {
    /// The name of the last namespace shown.
    #[prost(string, tag = "1")]
    pub after: String,
}

fn info(record: &NamespaceRecord) -> NamespaceInfo {
    NamespaceInfo {
        name: record.name.clone(),
        state: record.state,
        description: record.description.clone(),
        owner_email: record.owner_email.clone(),
        data: record.data.clone(),
        id: record.namespace_id().to_string(),
        capabilities: Some(namespace_capabilities()),
        limits: Some(namespace_limits(&Limits::default())),
        supports_schedules: false,
    }
}

fn config(record: &NamespaceRecord) -> NamespaceConfig {
    let bad = record.bad_binaries.iter().map(|(checksum, bad)| {
        let info = BadBinaryInfo {
            reason: bad.reason.clone(),
            operator: bad.operator.clone(),
            create_time: Hlc(bad.created_at).optional_timestamp(),
        };
        (checksum.clone(), info)
    });
    let aliases = record.attributes.iter().map(|a| (a.column.clone(), a.name.clone()));
    NamespaceConfig {
        workflow_execution_retention_ttl: Some(holdfast_proto::duration(record.retention)),
        bad_binaries: (!record.bad_binaries.is_empty())
            .then(|| BadBinaries { binaries: bad.collect() }),
        history_archival_state: ArchivalState::Disabled.into(),
        visibility_archival_state: ArchivalState::Disabled.into(),
        custom_search_attribute_aliases: aliases.collect(),
        ..NamespaceConfig::default()
    }
}

fn replication() -> NamespaceReplicationConfig {
    NamespaceReplicationConfig {
        active_cluster_name: CLUSTER_NAME.to_owned(),
        clusters: vec![ClusterReplicationConfig {
            cluster_name: CLUSTER_NAME.to_owned(),
            ..ClusterReplicationConfig::default()
        }],
        state: ReplicationState::Normal.into(),
    }
}

/// The entry of describe and list.
pub fn described(record: &NamespaceRecord) -> rpc::DescribeNamespaceResponse {
    rpc::DescribeNamespaceResponse {
        namespace_info: Some(info(record)),
        config: Some(config(record)),
        replication_config: Some(replication()),
        ..rpc::DescribeNamespaceResponse::default()
    }
}

/// The answer of UpdateNamespace.
pub(super) fn updated(record: &NamespaceRecord) -> rpc::UpdateNamespaceResponse {
    rpc::UpdateNamespaceResponse {
        namespace_info: Some(info(record)),
        config: Some(config(record)),
        replication_config: Some(replication()),
        ..rpc::UpdateNamespaceResponse::default()
    }
}

impl Registry {
    /// DescribeNamespace, by name or id.
    pub fn describe(
        &self,
        request: &rpc::DescribeNamespaceRequest,
    ) -> Result<rpc::DescribeNamespaceResponse, Rejection> {
        match (request.namespace.is_empty(), request.id.is_empty()) {
            (true, true) => Err(not_set()),
            (false, false) => Err(Rejection::invalid(
                "GetNamespace operation failed. Both ID and Name specified in request.",
            )),
            (false, true) => self.record_by_name(&request.namespace).map(described),
            (true, false) => Uuid::parse(&request.id)
                .and_then(|id| self.record(id))
                .map(described)
                .ok_or_else(|| not_found(&request.id)),
        }
    }

    /// ListNamespaces, by name. `page` is the opened page token; the next one is to be sealed into
    /// the response.
    pub fn list(
        &self,
        request: &rpc::ListNamespacesRequest,
        page: Option<&NamespacePage>,
    ) -> (rpc::ListNamespacesResponse, Option<NamespacePage>) {
        let with_deleted = request.namespace_filter.as_ref().is_some_and(|f| f.include_deleted);
        let size = match usize::try_from(request.page_size).unwrap_or(0) {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let after = page.map_or("", |page| page.after.as_str());
        let mut shown = self
            .by_name(after)
            .filter(|record| with_deleted || record.state() != NamespaceState::Deleted)
            .peekable();
        let namespaces: Vec<_> = shown.by_ref().take(size).map(described).collect();
        let next = shown.peek().and(namespaces.last()).and_then(|last| {
            last.namespace_info.as_ref().map(|info| NamespacePage { after: info.name.clone() })
        });
        let response =
            rpc::ListNamespacesResponse { namespaces, ..rpc::ListNamespacesResponse::default() };
        (response, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::IdSource;
    use crate::namespace::{DEV_RETENTION, decide, registration};
    use crate::reject::Code;

    fn registry(names: &[&str]) -> Registry {
        let (mut registry, ids) = (Registry::default(), IdSource::new(1));
        for name in names {
            let command = registration(name, DEV_RETENTION);
            let (_, changes) = decide(&registry, command, Hlc(1), &ids).expect("free");
            changes.iter().for_each(|change| registry.apply(change).expect("readable"));
        }
        registry
    }

    fn request(namespace: &str, id: &str) -> rpc::DescribeNamespaceRequest {
        let (namespace, id) = (namespace.to_owned(), id.to_owned());
        rpc::DescribeNamespaceRequest { namespace, id, ..Default::default() }
    }

    #[test]
    fn describe_by_name_or_id() {
        // conformance/golden/namespace/not_found.json, register_and_describe.json
        let registry = registry(&["default"]);
        let shown = registry.describe(&request("default", "")).expect("there");
        let info = shown.namespace_info.clone().expect("info");
        assert_eq!(registry.describe(&request("", &info.id)), Ok(shown.clone()));
        assert_eq!(info.limits.map(|l| l.blob_size_limit_error), Some(2_097_152));
        assert_eq!(
            info.limits.map(|l| l.workflow_task_completion_size_limit_error),
            Some(41_943_040)
        );
        let config = shown.config.expect("config");
        let kept = config.workflow_execution_retention_ttl;
        assert_eq!(kept, Some(prost_types::Duration { seconds: 86_400, nanos: 0 }));
        assert_eq!(config.history_archival_state(), ArchivalState::Disabled);
        assert_eq!(shown.replication_config.map(|r| r.active_cluster_name), Some("active".into()));
        for (name, id, code, text) in [
            ("", "", Code::InvalidArgument, "Namespace not set on request."),
            ("nobody", "", Code::NotFound, "Namespace nobody is not found."),
            ("", "x", Code::NotFound, "Namespace x is not found."),
            (
                "default",
                "x",
                Code::InvalidArgument,
                "GetNamespace operation failed. Both ID and Name specified in request.",
            ),
        ] {
            let refusal = registry.describe(&request(name, id)).expect_err(text);
            assert_eq!((refusal.code, refusal.message.as_str()), (code, text));
        }
    }

    #[test]
    fn a_list_shows_every_namespace_once() {
        let registry = registry(&["b", "default", "a", "c", "d"]);
        for page_size in 0..7 {
            let request = rpc::ListNamespacesRequest { page_size, ..Default::default() };
            let (mut names, mut page) = (Vec::new(), None);
            loop {
                let (response, next) = registry.list(&request, page.as_ref());
                assert!(page_size == 0 || response.namespaces.len() <= page_size as usize);
                let infos = response.namespaces.into_iter().filter_map(|n| n.namespace_info);
                names.extend(infos.map(|info| info.name));
                page = next;
                if page.is_none() {
                    break;
                }
            }
            assert_eq!(names, ["a", "b", "c", "d", "default"], "{page_size}");
        }
    }

    #[test]
    fn deleted_ones_are_listed_only_when_asked_for() {
        let mut registry = registry(&["a", "b"]);
        let command = crate::namespace::Command::Delete { namespace: "a".into(), id: "".into() };
        let (_, changes) = decide(&registry, command, Hlc(1), &IdSource::new(1)).expect("there");
        changes.iter().for_each(|change| registry.apply(change).expect("readable"));
        let count = |include_deleted| {
            let filter = holdfast_proto::namespace::NamespaceFilter { include_deleted };
            let request =
                rpc::ListNamespacesRequest { namespace_filter: Some(filter), ..Default::default() };
            registry.list(&request, None).0.namespaces.len()
        };
        assert_eq!((count(false), count(true)), (1, 2));
    }
}
