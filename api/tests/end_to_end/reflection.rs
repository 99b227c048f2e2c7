//! What the server says that there is to call, and what the README says that there is not.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ExtensionRequest, FileDescriptorResponse, ServerReflectionRequest};
use tonic_reflection::pb::v1alpha;
use tower::ServiceExt;

use crate::support::Fixture;

const WORKFLOW: &str = "temporal.api.workflowservice.v1.WorkflowService";
const OPERATOR: &str = "temporal.api.operatorservice.v1.OperatorService";

/// What the reference names, without its internal service.
const NAMED: [&str; 5] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    OPERATOR,
    WORKFLOW,
];

async fn ask(t: &Fixture, question: MessageRequest) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest { message_request: Some(question), ..Default::default() };
    let mut client = ServerReflectionClient::new(t.channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    let answer = answers.message().await?.expect("an answer");
    Ok(answer.message_response.expect("says something"))
}

async fn file(t: &Fixture, question: MessageRequest) -> FileDescriptorProto {
    let said = ask(t, question.clone()).await;
    let Ok(MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto: files,
    })) = said
    else {
        panic!("{question:?}: {said:?}")
    };
    FileDescriptorProto::decode(files[0].as_slice()).expect("a file")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_name_the_services() {
    let t = Fixture::start().await;
    let said = ask(&t, MessageRequest::ListServices(String::new())).await.expect("is told");
    let MessageResponse::ListServicesResponse(list) = said else { panic!("{said:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert_eq!(names, NAMED);

    let question = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request =
        v1alpha::ServerReflectionRequest { message_request: Some(question), ..Default::default() };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(t.channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await;
    let answer = answers.expect("is told").into_inner().message().await.expect("an answer");
    let said = answer.and_then(|answer| answer.message_response);
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        said
    else {
        panic!("{said:?}")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert_eq!(names, NAMED);
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_described_with_all_it_refers_to() {
    let t = Fixture::start().await;
    let mut seen = BTreeSet::new();
    let mut open = Vec::new();
    for name in NAMED {
        let file = file(&t, MessageRequest::FileContainingSymbol(name.to_owned())).await;
        open.extend(file.dependency);
    }
    while let Some(name) = open.pop() {
        if seen.insert(name.clone()) {
            open.extend(file(&t, MessageRequest::FileByFilename(name)).await.dependency);
        }
    }
    assert!(seen.contains("temporal/api/common/v1/message.proto"), "{seen:?}");
    t.server.stop().await;
}

/// What is in a message, by full name.
fn within(scope: &str, message: &DescriptorProto, names: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    names.extend(message.field.iter().map(|field| format!("{name}.{}", field.name())));
    names.extend(message.oneof_decl.iter().map(|oneof| format!("{name}.{}", oneof.name())));
    for kind in &message.enum_type {
        names.push(format!("{name}.{}", kind.name()));
        // Values stand beside their enumeration.
        names.extend(kind.value.iter().map(|value| format!("{name}.{}", value.name())));
    }
    message.nested_type.iter().for_each(|nested| within(&name, nested, names));
    names.push(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_described_is_found_by_its_name() {
    let t = Fixture::start().await;
    let mut names = Vec::new();
    let mut open = vec![file(&t, MessageRequest::FileContainingSymbol(WORKFLOW.to_owned())).await];
    let mut seen = BTreeSet::new();
    while let Some(described) = open.pop() {
        let scope = described.package().to_owned();
        described.message_type.iter().for_each(|message| within(&scope, message, &mut names));
        for kind in &described.enum_type {
            names.push(format!("{scope}.{}", kind.name()));
            names.extend(kind.value.iter().map(|value| format!("{scope}.{}", value.name())));
        }
        names.extend(described.extension.iter().map(|field| format!("{scope}.{}", field.name())));
        for service in &described.service {
            let of = |method: &str| format!("{scope}.{}.{method}", service.name());
            names.extend(service.method.iter().map(|method| of(method.name())));
        }
        for dependency in described.dependency {
            if seen.insert(dependency.clone()) {
                open.push(file(&t, MessageRequest::FileByFilename(dependency)).await);
            }
        }
    }
    assert!(names.len() > 3000, "{}", names.len());
    let questions: Vec<_> =
        names.iter().cloned().map(MessageRequest::FileContainingSymbol).collect();
    for (name, answer) in names.iter().zip(converse(&t, questions).await) {
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{name}: {answer:?}");
    }
    t.server.stop().await;
}

/// Asks one question after the other in one conversation.
async fn converse(t: &Fixture, questions: Vec<MessageRequest>) -> Vec<MessageResponse> {
    let count = questions.len();
    let requests = questions.into_iter().map(|question| ServerReflectionRequest {
        message_request: Some(question),
        ..Default::default()
    });
    let mut client = ServerReflectionClient::new(t.channel.clone());
    let asked = client.server_reflection_info(tokio_stream::iter(requests.collect::<Vec<_>>()));
    let answers = asked.await.expect("a conversation").into_inner();
    let answers: Vec<_> =
        answers.map(|answer| answer.expect("goes on").message_response).collect().await;
    assert_eq!(answers.len(), count);
    answers.into_iter().map(|answer| answer.expect("says something")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_does_not_end_the_conversation() {
    const OPTIONS: &str = "google.protobuf.MethodOptions";
    let t = Fixture::start().await;
    let extension = |number| {
        MessageRequest::FileContainingExtension(ExtensionRequest {
            containing_type: OPTIONS.to_owned(),
            extension_number: number,
        })
    };
    let answers = converse(
        &t,
        vec![
            MessageRequest::FileContainingSymbol("no.Body".to_owned()),
            MessageRequest::FileByFilename("no.proto".to_owned()),
            MessageRequest::AllExtensionNumbersOfType("no.Body".to_owned()),
            extension(7),
            extension(72_295_728),
            MessageRequest::AllExtensionNumbersOfType(OPTIONS.to_owned()),
        ],
    )
    .await;
    for answer in &answers[..4] {
        let MessageResponse::ErrorResponse(error) = answer else { panic!("{answer:?}") };
        assert_eq!(error.error_code, Code::NotFound as i32);
    }
    // That which says how a method is called over HTTP.
    assert!(matches!(answers[4], MessageResponse::FileDescriptorResponse(_)), "{answers:?}");
    let MessageResponse::AllExtensionNumbersResponse(known) = &answers[5] else {
        panic!("{answers:?}")
    };
    assert!(known.extension_number.contains(&72_295_728), "{known:?}");
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_does_not_hold_up_the_end() {
    let t = Fixture::start().await;
    let (questions, asked) = tokio::sync::mpsc::channel(1);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { message_request: Some(list), ..Default::default() };
    questions.send(request).await.expect("is open");
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut client = ServerReflectionClient::new(t.channel.clone());
    let mut answers = client.server_reflection_info(asked).await.expect("opens").into_inner();
    assert!(answers.message().await.expect("an answer").is_some());
    // Without an end of its own the server would cut it after ten seconds.
    let stopped = tokio::time::timeout(Duration::from_secs(5), t.server.stop());
    let (stopped, rest) = tokio::join!(stopped, answers.message());
    stopped.expect("stops at once");
    assert!(rest.expect("ends well").is_none());
}

/// The names in the table of the README.
fn not_built() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path).expect("the README");
    let (_, table) = text.split_once("### RPCs that are not built").expect("the section");
    let table = table.split("\n#").next().expect("its text");
    let rows = table.lines().filter_map(|line| line.strip_prefix('|')?.split('|').nth(1));
    let names = rows.skip(2).flat_map(|names| names.split(','));
    names.map(|name| name.trim().to_owned()).collect()
}

/// Calls a method with an empty message.
async fn call(t: &Fixture, service: &str, method: &str) -> Status {
    let request = http::Request::post(format!("http://test/{service}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(http_body_util::Full::new(Bytes::from_static(&[0; 5]))))
        .expect("a request");
    let response = t.channel.clone().oneshot(request).await.expect("the connection lives");
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_names_every_rpc_that_is_not_built() {
    let t = Fixture::start().await;
    let mut found = BTreeSet::new();
    for service in [WORKFLOW, OPERATOR] {
        let file = file(&t, MessageRequest::FileContainingSymbol(service.to_owned())).await;
        for method in &file.service[0].method {
            let status = call(&t, service, method.name()).await;
            // What the generated defaults say; some that are built are refused with this code, too.
            if status.code() == Code::Unimplemented && status.message() == "Not yet implemented" {
                found.insert(method.name().to_owned());
            }
        }
    }
    assert_eq!(found, not_built());
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_is_refused_by_name() {
    let t = Fixture::start().await;
    for (service, method, text) in [
        (WORKFLOW, "Nope", format!("unknown method Nope for service {WORKFLOW}")),
        ("a.B", "C", "unknown service a.B".to_owned()),
    ] {
        let status = call(&t, service, method).await;
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, text.as_str()));
    }
    t.server.stop().await;
}
