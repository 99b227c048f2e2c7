//! Bytes that no honest client sends: each is refused with the code that the reference gives, and
//! the server goes on as if nothing had been.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_proto::enums::WorkflowTaskFailedCause;
use holdfast_proto::workflowservice as rpc;
use http_body_util::Full;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::support::{Fixture, complete_workflow, payloads, schedule_activity, start_request};

const SERVICE: &str = "/temporal.api.workflowservice.v1.WorkflowService/";

/// Sends the bytes of a request body as they are.
async fn raw(channel: &Channel, method: &str, body: Bytes) -> Status {
    send(channel.clone(), method, body, None).await
}

/// The same, with the compression that the head of the request names.
async fn send(channel: Channel, method: &str, body: Bytes, encoding: Option<&str>) -> Status {
    let mut request = http::Request::post(format!("http://test{SERVICE}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let request = request.body(Body::new(Full::new(body))).expect("a request");
    let response = channel.oneshot(request).await.expect("the connection lives");
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
}

/// A message in its frame.
fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).expect("small"));
    out.put_slice(message);
    out.freeze()
}

/// A field of bytes.
fn field(tag: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(tag, WireType::LengthDelimited, &mut out);
    encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

/// The server still works: a workflow starts, runs, and completes.
async fn unharmed(t: &Fixture) {
    t.describe("bad").await.expect_err("nothing of what was refused is there");
    t.start_workflow("good", "unharmed").await;
    t.turn("unharmed", vec![complete_workflow("1")]).await;
    assert_eq!(t.status("good").await, "COMPLETED");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8() {
    let t = Fixture::start().await;
    let good = start_request("bad", "q").encode_to_vec();
    let payload = |metadata: &[u8]| field(1, &field(1, metadata));
    let key = [field(1, b"\xff"), field(2, b"x")].concat();
    for (what, extra) in [
        ("namespace", field(1, b"\xff")),
        ("workflow id", field(2, b"a\xc0\xaf")),
        ("identity", field(9, b"\xed\xa0\x80")),
        ("the type's name", field(3, &field(1, b"\xff"))),
        ("a key in the input", field(5, &payload(&key))),
    ] {
        let status =
            raw(&t.channel, "StartWorkflowExecution", frame(&[&good[..], &extra].concat())).await;
        assert_eq!(status.code(), Code::Internal, "{what}: {status:?}");
        assert!(status.message().ends_with("invalid UTF-8"), "{what}: {status:?}");
    }
    unharmed(&t).await;
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_cut_or_lie() {
    let t = Fixture::start().await;
    let whole = frame(&start_request("bad", "q").encode_to_vec());
    for at in [0, 3, 5, 20, whole.len() - 1] {
        let status = raw(&t.channel, "StartWorkflowExecution", whole.slice(..at)).await;
        assert_eq!(status.code(), Code::Unknown, "cut at {at}: {status:?}");
        assert!(matches!(status.message(), "EOF" | "unexpected EOF"), "cut at {at}: {status:?}");
    }
    let mut cut = start_request("bad", "q").encode_to_vec();
    cut.pop();
    let status = raw(&t.channel, "StartWorkflowExecution", frame(&cut)).await;
    assert_eq!(status.code(), Code::Internal, "a message cut inside its frame");
    assert!(
        status.message().starts_with("grpc: error unmarshalling request: proto:"),
        "{status:?}"
    );
    let group = [start_request("bad", "q").encode_to_vec(), vec![0x0b]].concat();
    let status = raw(&t.channel, "StartWorkflowExecution", frame(&group)).await;
    assert_eq!(status.code(), Code::Internal, "a group without end");
    unharmed(&t).await;
    t.server.stop().await;
}

/// By these texts a worker of any SDK knows that what it sends can never be taken. With another one
/// it sends the same again until the task times out, and so does the next attempt, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_limit() {
    let t = Fixture::start().await;
    let mut request = start_request("bad", "q");
    request.input = Some(payloads(&format!("\"{}\"", "x".repeat(5 << 20))));
    let plain = t.try_start(request.clone()).await.expect_err("refused");
    let text =
        format!("grpc: received message larger than max ({} vs. 4194304)", request.encoded_len());
    assert_eq!((plain.code(), plain.message()), (Code::ResourceExhausted, text.as_str()));

    let mut zipping = t.workflow.clone().send_compressed(CompressionEncoding::Gzip);
    let text = "grpc: received message after decompression larger than max 4194304";
    let zipped = zipping.start_workflow_execution(request).await.expect_err("refused");
    assert_eq!((zipped.code(), zipped.message()), (Code::ResourceExhausted, text));

    t.start_workflow("w", "q").await;
    let task = t.poll("q").await;
    let answer = rpc::RespondWorkflowTaskCompletedRequest {
        task_token: task.task_token.clone(),
        commands: vec![complete_workflow(&format!("\"{}\"", "x".repeat(6 << 20)))],
        namespace: "default".to_owned(),
        ..rpc::RespondWorkflowTaskCompletedRequest::default()
    };
    let zipped = zipping.respond_workflow_task_completed(answer).await.expect_err("refused");
    assert_eq!((zipped.code(), zipped.message()), (Code::ResourceExhausted, text));
    let failed = rpc::RespondWorkflowTaskFailedRequest {
        task_token: task.task_token,
        cause: WorkflowTaskFailedCause::GrpcMessageTooLarge.into(),
        namespace: "default".to_owned(),
        ..rpc::RespondWorkflowTaskFailedRequest::default()
    };
    zipping.respond_workflow_task_failed(failed).await.expect("is taken");
    assert_eq!(t.status("w").await, "TERMINATED");
    unharmed(&t).await;
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_unpacked() {
    let t = Fixture::start().await;
    let call = |body: &[u8], flag: u8, encoding: Option<&'static str>| {
        let mut framed = frame(body).to_vec();
        framed[0] = flag;
        send(t.channel.clone(), "GetSystemInfo", framed.into(), encoding)
    };
    for (what, body, flag, encoding, text) in [
        ("another format", &b"junk that is no gzip"[..], 1, Some("gzip"), "gzip: invalid header"),
        ("nothing", b"", 1, Some("gzip"), "EOF"),
        ("no encoding named", b"", 1, None, "compressed flag set with identity or empty encoding"),
        ("a flag that is none", b"", 2, None, "received unexpected payload format 2"),
    ] {
        let status = call(body, flag, encoding).await;
        assert_eq!(status.code(), Code::Internal, "{what}: {status:?}");
        assert!(status.message().starts_with("grpc: "), "{what}: {status:?}");
        assert!(status.message().ends_with(text), "{what}: {status:?}");
    }
    unharmed(&t).await;
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_nest_without_end() {
    let t = Fixture::start().await;
    t.start_workflow("w", "q").await;
    t.turn("q", vec![schedule_activity("a", "q")]).await;
    let activity = t.poll_activity("q").await;
    // A cause in a cause in a cause .., written back to front.
    let mut reversed: Vec<u8> = Vec::new();
    for _ in 0..11_000 {
        let mut head = Vec::new();
        encode_key(4, WireType::LengthDelimited, &mut head);
        encode_varint(reversed.len() as u64, &mut head);
        reversed.extend(head.iter().rev());
    }
    reversed.reverse();
    let request = [field(1, &activity.task_token), field(2, &reversed)].concat();
    let status = raw(&t.channel, "RespondActivityTaskFailed", frame(&request)).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    t.complete_activity(&activity.task_token, "1").await.expect("the task is still the worker's");
    unharmed(&t).await;
    t.server.stop().await;
}
