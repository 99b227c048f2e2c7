//! Peers that keep silent, withdraw what they asked, send long metadata, or stay to the end: what
//! becomes of their connections, and of everybody else's.

use std::time::Duration;

use holdfast_proto::workflowservice as rpc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::support::{Fixture, options};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

/// Flags of frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call, in literals that need no table.
fn head(method: &str) -> Vec<u8> {
    let path = format!("/temporal.api.workflowservice.v1.WorkflowService/{method}");
    let mut out = vec![0x83, 0x86];
    for (name, value) in [
        (":path", path.as_str()),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        out.push(0);
        for text in [name, value] {
            // In seven bits, or in those and another byte.
            match u8::try_from(text.len()).expect("short") {
                short @ ..127 => out.push(short),
                long => out.extend([127, long - 127]),
            }
            out.extend(text.as_bytes());
        }
    }
    out
}

/// A call that is opened and withdrawn at once.
fn withdrawn(stream: u32) -> Vec<u8> {
    let open = frame(HEADERS, END_HEADERS, stream, &head("GetSystemInfo"));
    [open, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
}

/// A peer that speaks HTTP/2 by hand.
struct Peer(TcpStream);

impl Peer {
    async fn connect(t: &Fixture, first: &[u8]) -> Peer {
        let mut stream = TcpStream::connect(t.server.address()).await.expect("connects");
        stream.write_all(first).await.expect("writes");
        Peer(stream)
    }

    /// The next frame of one of these kinds, or nothing if the connection ends before.
    async fn next(&mut self, kinds: &[u8]) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, _, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            if kinds.contains(&kind) {
                return Some((kind, u32::from_be_bytes(stream), payload));
            }
        }
    }

    /// Waits until the server has closed the connection.
    async fn closed(mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ended = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("is closed");
    }
}

async fn system_info(t: &Fixture, header: Option<usize>) -> Result<(), Status> {
    let mut request = Request::new(rpc::GetSystemInfoRequest::default());
    if let Some(length) = header {
        let token = MetadataValue::try_from("a".repeat(length)).expect("ASCII");
        request.metadata_mut().insert("authorization", token);
    }
    t.workflow.clone().get_system_info(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_finish_their_greeting_are_sent_away() {
    let mut options = options();
    options.settings.handshake = Duration::from_millis(300);
    let t = Fixture::with(options).await;
    let polite = [PREFACE, SETTINGS].concat();
    let mut greeted = Peer::connect(&t, &polite).await;
    let began = Instant::now();
    for first in [b"", &PREFACE[..10], PREFACE, &polite[..polite.len() - 1]] {
        Peer::connect(&t, first).await.closed().await;
    }
    assert!(began.elapsed() >= Duration::from_millis(300), "not before their time");
    // Whoever finished it may be idle for as long as it likes.
    let call = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GetSystemInfo"));
    greeted.0.write_all(&call).await.expect("is open");
    assert!(greeted.next(&[HEADERS]).await.is_some(), "is answered");
    system_info(&t, None).await.expect("is answered");
    t.server.stop().await;
}

/// A stall makes every call of a client run into its deadline at once: that must not cost it the
/// connection, on which others wait.
#[tokio::test(flavor = "multi_thread")]
async fn who_withdraws_many_calls_at_once_keeps_the_others() {
    let t = Fixture::start().await;
    let mut peer = Peer::connect(&t, &[PREFACE, SETTINGS].concat()).await;
    let open = frame(HEADERS, END_HEADERS, 1, &head("GetSystemInfo"));
    let burst: Vec<u8> = (1..10_000).flat_map(|n| withdrawn(2 * n + 1)).collect();
    // The one call has its message after all of that.
    let body = frame(DATA, END_STREAM, 1, &[0; 5]);
    peer.0.write_all(&[open, burst, body].concat()).await.expect("writes");
    let answer = timeout(PATIENCE, async {
        loop {
            match peer.next(&[DATA, GOAWAY]).await {
                Some((DATA, 1, _)) => return,
                Some((DATA, ..)) => {}
                other => panic!("{:?}", other.map(|(_, _, said)| said)),
            }
        }
    });
    answer.await.expect("in time");
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_attacks_with_withdrawn_calls_loses_the_connection() {
    let t = Fixture::start().await;
    let mut peer = Peer::connect(&t, &[PREFACE, SETTINGS].concat()).await;
    let burst: Vec<u8> = (0..200_000).flat_map(|n| withdrawn(2 * n + 1)).collect();
    // It fails when the server has hung up in the midst of it.
    let _written = timeout(PATIENCE, peer.0.write_all(&burst)).await.expect("in time");
    peer.closed().await;
    system_info(&t, None).await.expect("everybody else is answered");
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_metadata_passes_up_to_its_limit() {
    let t = Fixture::start().await;
    for length in [20_000, 200_000, 1_000_000] {
        system_info(&t, Some(length)).await.expect("passes");
    }
    let status = system_info(&t, Some(3_000_000)).await.expect_err("too long");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().starts_with("received metadata larger than max (300"), "{status:?}");
    assert!(status.message().ends_with(" vs. 1048576)"), "{status:?}");
    system_info(&t, None).await.expect("the connection lives");
    t.server.stop().await;

    let mut options = options();
    options.settings.metadata_bytes = 1000;
    let t = Fixture::with(options).await;
    system_info(&t, Some(500)).await.expect("passes");
    let status = system_info(&t, Some(1000)).await.expect_err("too long");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    t.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_time_is_over() {
    let t = Fixture::start().await;
    let mut request = Request::new(rpc::GetSystemInfoRequest::default());
    request.metadata_mut().insert("grpc-timeout", MetadataValue::from_static("0S"));
    let status = t.workflow.clone().get_system_info(request).await.expect_err("too late");
    let (code, text) = (Code::DeadlineExceeded, "context deadline exceeded");
    assert_eq!((status.code(), status.message()), (code, text));
    t.server.stop().await;
}

/// Neither those who say nothing nor those who do not answer the goodbye hold up the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_without_a_call() {
    let t = Fixture::start().await;
    let mut peers = Vec::new();
    for _ in 0..100 {
        let mut idle = Peer::connect(&t, &[PREFACE, SETTINGS].concat()).await;
        assert!(idle.next(&[4]).await.is_some(), "greets back");
        peers.push(idle);
    }
    for first in [&b""[..], PREFACE].repeat(5) {
        peers.push(Peer::connect(&t, first).await);
    }
    let began = Instant::now();
    t.server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "took {:?}", began.elapsed());
    for peer in peers {
        peer.closed().await;
    }
}

/// A call that does not end is cut after its time, and with it everything that uses the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_a_call_and_not_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options();
    options.data = holdfast_api::server::Data::Folder(folder.path().join("data"));
    options.settings.drain = Duration::from_millis(700);
    let t = Fixture::with(options.clone()).await;
    let open = frame(HEADERS, END_HEADERS, 1, &head("GetSystemInfo"));
    // Its message never comes.
    let first = [PREFACE, SETTINGS, &open].concat();
    let mut peer = Peer::connect(&t, &first).await;
    let answered = frame(HEADERS, END_HEADERS | END_STREAM, 3, &head("GetSystemInfo"));
    peer.0.write_all(&answered).await.expect("writes");
    assert!(peer.next(&[HEADERS]).await.is_some(), "both calls are there");
    let began = Instant::now();
    t.server.stop().await;
    assert!(began.elapsed() >= Duration::from_millis(700), "took {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
    peer.closed().await;
    Fixture::with(options).await.server.stop().await;
}
