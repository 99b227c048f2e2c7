//! What this server says it is and can do. A capability is true once it is built, not before:
//! SDKs rely on it.

use holdfast_proto::enums::IndexedValueType;
use holdfast_proto::namespace::namespace_info;
use holdfast_proto::operatorservice::ListSearchAttributesResponse;
use holdfast_proto::workflowservice as rpc;
use rpc::get_system_info_response::Capabilities as SystemCapabilities;

use super::NamespaceView;
use crate::limits::Limits;
use crate::visibility::attribute::{Kind, columns, system_attributes};

/// The name of the only cluster, as the reference's development server calls it.
pub const CLUSTER_NAME: &str = "active";

/// `limit.workflowTaskCompletionSize.error`: what SDKs may send in one completion.
const TASK_COMPLETION_BYTES: i64 = 40 << 20;

/// What namespaces can do.
pub fn namespace_capabilities() -> namespace_info::Capabilities {
    // Everything else is not built: updates, worker heartbeats, pauses, standalone activities and
    // operations, poller autoscaling.
    namespace_info::Capabilities {
        eager_workflow_start: true,
        reported_problems_search_attribute: true,
        ..namespace_info::Capabilities::default()
    }
}

/// The limits that SDKs check before they send.
pub fn namespace_limits(limits: &Limits) -> namespace_info::Limits {
    let bytes = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    namespace_info::Limits {
        blob_size_limit_error: bytes(limits.blob_bytes),
        memo_size_limit_error: bytes(limits.memo_bytes),
        workflow_task_completion_size_limit_error: TASK_COMPLETION_BYTES,
    }
}

/// GetSystemInfo.
pub fn system_info(server_version: &str) -> rpc::GetSystemInfoResponse {
    rpc::GetSystemInfoResponse {
        server_version: server_version.to_owned(),
        capabilities: Some(SystemCapabilities {
            signal_and_query_header: true,
            internal_error_differentiation: true,
            activity_failure_include_heartbeat: true,
            encoded_failure_attributes: true,
            sdk_metadata: true,
            count_group_by_execution_status: true,
            upsert_memo: true,
            eager_workflow_start: true,
            // As in Temporal, where the old versioning is off, too. SDKs ask here where to say what
            // their build is, and say it in `worker_version_stamp` only when it is true; whoever
            // wants tasks by build is refused by name, and would be served unversioned, in silence,
            // if this were false.
            build_id_based_versioning: true,
            // Not built.
            supports_schedules: false,
            nexus: false,
            server_scaled_deployments: false,
            ..SystemCapabilities::default()
        }),
    }
}

/// GetClusterInfo. `shards` is the number of shards of the data folder.
pub fn cluster_info(
    server_version: &str,
    cluster_id: &str,
    shards: u32,
) -> rpc::GetClusterInfoResponse {
    let clients = [
        ("Nexus-go-sdk", "<2.0.0"),
        ("temporal-cli", "<2.0.0"),
        ("temporal-go", "<2.0.0"),
        ("temporal-java", "<2.0.0"),
        ("temporal-php", "<2.0.0"),
        ("temporal-server", "<2.0.0"),
        ("temporal-typescript", "<2.0.0"),
        ("temporal-ui", "<3.0.0"),
    ];
    rpc::GetClusterInfoResponse {
        supported_clients: clients
            .map(|(client, versions)| (client.to_owned(), versions.to_owned()))
            .into(),
        server_version: server_version.to_owned(),
        cluster_id: cluster_id.to_owned(),
        cluster_name: CLUSTER_NAME.to_owned(),
        history_shard_count: i32::try_from(shards).unwrap_or(i32::MAX),
        persistence_store: "holdfast".to_owned(),
        visibility_store: "holdfast".to_owned(),
        initial_failover_version: 1,
        failover_version_increment: 10,
        ..rpc::GetClusterInfoResponse::default()
    }
}

fn typed<N: Into<String>>((name, kind): (N, Kind)) -> (String, i32) {
    (name.into(), kind.value_type().into())
}

/// ListSearchAttributes.
pub fn search_attributes(namespace: &NamespaceView) -> ListSearchAttributesResponse {
    let number = |(name, kind): (&String, &IndexedValueType)| (name.clone(), i32::from(*kind));
    ListSearchAttributesResponse {
        custom_attributes: namespace.search_attributes.iter().map(number).collect(),
        system_attributes: system_attributes().map(typed).collect(),
        ..ListSearchAttributesResponse::default()
    }
}

/// The old GetSearchAttributes, which knows no namespace and so lists columns.
pub fn all_search_attributes() -> rpc::GetSearchAttributesResponse {
    let keys = system_attributes().map(typed).chain(columns().map(typed));
    rpc::GetSearchAttributesResponse { keys: keys.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_claimed_and_nothing_else() {
        let system = system_info("1.32.0").capabilities.expect("some");
        assert!(!system.supports_schedules && !system.nexus);
        // Without it the SDKs' workers leave their build out of what they complete.
        assert!(system.build_id_based_versioning);
        assert!(system.internal_error_differentiation && system.sdk_metadata);
        assert!(system.upsert_memo && system.eager_workflow_start);
        let namespace = namespace_capabilities();
        assert!(namespace.eager_workflow_start && namespace.reported_problems_search_attribute);
        assert!(!namespace.sync_update && !namespace.poller_autoscaling);
    }

    #[test]
    fn cluster_and_attributes_as_the_goldens_show_them() {
        // conformance/golden/system/cluster_info.json, search_attributes.json
        let cluster = cluster_info("1.32.0", "id", 4);
        assert_eq!(cluster.supported_clients.len(), 8);
        assert_eq!((cluster.initial_failover_version, cluster.failover_version_increment), (1, 10));
        assert_eq!(cluster.history_shard_count, 4);
        let keys = all_search_attributes().keys;
        let keyword = i32::from(IndexedValueType::Keyword);
        assert_eq!(keys.get("Keyword01"), Some(&keyword));
        assert_eq!(keys.get("CustomKeywordField"), None);
    }
}
