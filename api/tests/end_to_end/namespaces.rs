//! Namespaces and what belongs to the server as a whole.

use holdfast_proto::enums::{IndexedValueType, NamespaceState};
use holdfast_proto::errordetails::NamespaceNotFoundFailure;
use holdfast_proto::operatorservice as op;
use holdfast_proto::workflowservice as rpc;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Fixture, details, seconds, start_request};

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_from_register_to_deprecate() {
    let t = Fixture::start().await;
    let mut client = t.workflow.clone();
    let register = rpc::RegisterNamespaceRequest {
        namespace: "mine".to_owned(),
        workflow_execution_retention_period: Some(seconds(86_400)),
        ..rpc::RegisterNamespaceRequest::default()
    };
    client.register_namespace(register.clone()).await.expect("registers");
    let again = client.register_namespace(register).await.expect_err("taken");
    assert_eq!(again.code(), Code::AlreadyExists);

    let by_name = rpc::DescribeNamespaceRequest {
        namespace: "mine".to_owned(),
        ..rpc::DescribeNamespaceRequest::default()
    };
    let described = client.describe_namespace(by_name.clone()).await.expect("described");
    let info = described.into_inner().namespace_info.expect("info");
    let by_id = rpc::DescribeNamespaceRequest {
        id: info.id.clone(),
        ..rpc::DescribeNamespaceRequest::default()
    };
    let same = client.describe_namespace(by_id).await.expect("described").into_inner();
    assert_eq!(same.namespace_info.map(|info| info.name), Some("mine".to_owned()));

    let start = || rpc::StartWorkflowExecutionRequest {
        namespace: "mine".to_owned(),
        ..start_request("w", "q")
    };
    t.try_start(start()).await.expect("read your writes");
    let deprecate = rpc::DeprecateNamespaceRequest {
        namespace: "mine".to_owned(),
        ..rpc::DeprecateNamespaceRequest::default()
    };
    client.deprecate_namespace(deprecate).await.expect("deprecates");
    let info = client.describe_namespace(by_name).await.expect("described").into_inner();
    let state = info.namespace_info.expect("info").state();
    assert_eq!(state, NamespaceState::Deprecated);
    let refused = t.try_start(start()).await.expect_err("nothing new");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_namespace_is_told_by_its_detail() {
    let t = Fixture::start().await;
    let request = rpc::StartWorkflowExecutionRequest {
        namespace: "nowhere".to_owned(),
        ..start_request("w", "q")
    };
    let refused = t.try_start(request).await.expect_err("unknown");
    assert_eq!(refused.code(), Code::NotFound);
    let failure: NamespaceNotFoundFailure = details(&refused).detail().expect("the detail");
    assert_eq!(failure.namespace, "nowhere");
    let request =
        rpc::StartWorkflowExecutionRequest { namespace: String::new(), ..start_request("w", "q") };
    let refused = t.try_start(request).await.expect_err("none");
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "Namespace is empty."));
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_attributes_come_and_go() {
    let t = Fixture::start().await;
    let mut operator = t.operator.clone();
    let add = op::AddSearchAttributesRequest {
        namespace: "default".to_owned(),
        search_attributes: [("Mine".to_owned(), IndexedValueType::Keyword.into())].into(),
    };
    operator.add_search_attributes(add).await.expect("adds");
    let list = || op::ListSearchAttributesRequest { namespace: "default".to_owned() };
    let listed = operator.list_search_attributes(list()).await.expect("lists").into_inner();
    assert_eq!(listed.custom_attributes.get("Mine"), Some(&IndexedValueType::Keyword.into()));
    assert!(listed.system_attributes.contains_key("WorkflowId"));
    let remove = op::RemoveSearchAttributesRequest {
        namespace: "default".to_owned(),
        search_attributes: vec!["Mine".to_owned()],
    };
    operator.remove_search_attributes(remove).await.expect("removes");
    let listed = operator.list_search_attributes(list()).await.expect("lists").into_inner();
    assert!(listed.custom_attributes.is_empty());
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_started_is_listed_at_once() {
    let t = Fixture::start().await;
    let mut client = t.workflow.clone();
    for n in 0..3 {
        t.start_workflow(&format!("w{n}"), "q").await;
        let query = "WorkflowType = 'wf' AND ExecutionStatus = 'Running'".to_owned();
        let list = rpc::ListWorkflowExecutionsRequest {
            namespace: "default".to_owned(),
            query: query.clone(),
            ..rpc::ListWorkflowExecutionsRequest::default()
        };
        let listed = client.list_workflow_executions(list).await.expect("lists").into_inner();
        assert_eq!(listed.executions.len(), n + 1);
        let count = rpc::CountWorkflowExecutionsRequest { namespace: "default".to_owned(), query };
        let counted = client.count_workflow_executions(count).await.expect("counts").into_inner();
        assert_eq!(counted.count, i64::try_from(n).expect("small") + 1);
    }
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_per_service() {
    let t = Fixture::start().await;
    // SDKs compress what they send.
    let mut client =
        HealthClient::new(t.channel.clone()).send_compressed(CompressionEncoding::Gzip);
    for (service, code) in [
        ("", Code::Ok),
        ("temporal.api.workflowservice.v1.WorkflowService", Code::Ok),
        ("temporal.api.operatorservice.v1.OperatorService", Code::Ok),
        ("no.such.Service", Code::NotFound),
    ] {
        let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), code, "{service}");
    }
    t.server.stop().await;
}
