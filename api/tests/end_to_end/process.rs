//! The binary: its command line, its start and its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

const BINARY: &str = env!("CARGO_BIN_EXE_holdfast");

/// A server in a process of its own; killed when the test is over.
struct Running {
    child: Child,
    address: String,
    data: String,
    said: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(flags: &[&str]) -> Running {
        let mut child = Command::new(BINARY)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = || {
            let mut line = String::new();
            said.read_line(&mut line).expect("reads");
            line.trim_end().to_owned()
        };
        let (first, second) = (line(), line());
        let address = first.rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(first.contains("serves Temporal's API on 127.0.0.1:"), "{first:?}");
        let data = second.strip_prefix("data: ").expect("says where").to_owned();
        Running { child, address, data, said }
    }

    fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }

    /// Sends a signal and gives what the process ended with and said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("reads");
        (self.child.wait().expect("ends").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // When the test has ended it, there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().expect("the binary runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_whole_grammar_of_start_dev_is_taken() {
    let temp = tempfile::tempdir().expect("a folder");
    let assets = temp.path().to_str().expect("UTF-8");
    let server = Running::start(&[
        "server",
        "start-dev",
        "--port=0",
        "--ip",
        "127.0.0.1",
        "--http-port",
        "7243",
        "--metrics-port=0",
        "--ui-port",
        "8233",
        "--ui-ip=127.0.0.1",
        "--ui-public-path",
        "/ui",
        "--ui-asset-path",
        assets,
        "--ui-codec-endpoint=http://localhost:1",
        "--ui-disable-news-fetch",
        "--headless",
        "--namespace",
        "one",
        "--namespace=two",
        "--search-attribute",
        "CustomTextField=Text",
        "--search-attribute=Lower=keywordlist",
        "--dynamic-config-value",
        "frontend.enableUpdateWorkflowExecution=true",
        "--dynamic-config-value=LIMIT.blobSize.error=1024",
        "--dynamic-config-value",
        "system.refreshNexusEndpointsMinWait=\"0s\"",
        "--dynamic-config-value",
        "no.such.key=1",
        "--sqlite-pragma",
        "journal_mode=wal",
        "--log-level=never",
        "--log-format",
        "json",
        "--log-config",
    ]);
    let health = run(&["operator", "cluster", "health", "--address", &server.address]);
    assert_eq!(String::from_utf8_lossy(&health.stdout).trim(), "SERVING");
    let (code, notes) = server.end("-TERM");
    assert_eq!(code, Some(0));
    assert!(notes.contains("flags without effect so far: --http-port"), "{notes}");
    assert!(notes.contains("dynamic config key no.such.key is not known"), "{notes}");
}

#[test]
fn wrong_flags_are_refused() {
    for flags in [
        &["--port", "70000"][..],
        &["--ip", "nowhere"],
        &["--log-level", "loud"],
        &["--log-format=xml"],
        &["--search-attribute", "Name"],
        &["--search-attribute", "Name=Blob"],
        &["--dynamic-config-value", "key"],
        &["--dynamic-config-value", "key=not json"],
        &["--dynamic-config-value", "limit.blobSize.error=\"x\""],
        &["--sqlite-pragma", "x"],
        &["--headless=perhaps"],
        &["--no-such-flag"],
    ] {
        let output = run(&[&["server", "start-dev", "--port=0"], flags].concat());
        assert!(!output.status.success(), "{flags:?}");
        assert!(!output.stderr.is_empty(), "{flags:?}");
    }
}

#[test]
fn version_help_and_what_is_not_built() {
    for flag in ["-v", "--version"] {
        let said = String::from_utf8_lossy(&run(&[flag]).stdout).into_owned();
        assert_eq!(said.trim(), concat!("holdfast ", env!("CARGO_PKG_VERSION")));
    }
    assert!(String::from_utf8_lossy(&run(&["--help"]).stdout).contains("server"));
    let output = run(&["7777", "--enable-time-skipping"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("time-skipping test server is not built"));
    let output = run(&["operator", "cluster", "health", "--address", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("no server answers at 127.0.0.1:1"), "{}", errors(&output));
}

#[test]
fn two_servers_share_neither_port_nor_data() {
    let temp = tempfile::tempdir().expect("a folder");
    let data = temp.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let first = Running::start(&["server", "start", "--port=0", "--data-dir", data, "--shards=2"]);
    let same_port = run(&["server", "start-dev", "--port", first.port()]);
    assert_eq!(same_port.status.code(), Some(1));
    assert!(errors(&same_port).contains("cannot listen on"), "{}", errors(&same_port));
    let same_data = run(&["server", "start", "--port=0", "--data-dir", data]);
    assert_eq!(same_data.status.code(), Some(1));
    assert!(errors(&same_data).contains("is in use by process"), "{}", errors(&same_data));
    assert_eq!(errors(&same_data).trim().lines().count(), 1, "{}", errors(&same_data));
    let beside = Running::start(&["server", "start-dev", "--port=0"]);
    assert_ne!(first.address, beside.address);
    assert_eq!(beside.end("-INT").0, Some(0));
    assert_eq!(first.end("-TERM").0, Some(0));
    let other_shards = ["server", "start", "--port=0", "--data-dir", data, "--shards=3"];
    let other_shards = run(&other_shards);
    assert!(errors(&other_shards).contains("it has 2 shards"), "{}", errors(&other_shards));
}

/// Peers that are idle do not answer the goodbye here, and those that are silent never greeted.
#[test]
fn a_signal_ends_it_at_once_whoever_is_connected() {
    let server = Running::start(&["server", "start-dev", "--port=0"]);
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let connect = || TcpStream::connect(&server.address).expect("connects");
    let idle: Vec<_> = std::iter::repeat_with(connect)
        .take(100)
        .map(|mut peer| {
            peer.write_all(greeting).expect("writes");
            peer.read_exact(&mut [0; 9]).expect("is greeted back");
            peer
        })
        .collect();
    let silent: Vec<_> = std::iter::repeat_with(connect).take(10).collect();
    let began = Instant::now();
    assert_eq!(server.end("-TERM").0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(1), "took {:?}", began.elapsed());
    drop((idle, silent));
}

#[test]
fn private_data_is_gone_at_exit() {
    let server = Running::start(&["server", "start-dev", "--port=0"]);
    let folder = server.data.strip_suffix(" (removed at exit)").expect("private").to_owned();
    assert!(Path::new(&folder).join("FORMAT").exists());
    assert_eq!(server.end("-TERM").0, Some(0));
    assert!(!Path::new(&folder).exists());
}

#[test]
fn a_file_in_the_place_of_the_data() {
    let temp = tempfile::tempdir().expect("a folder");
    let path = temp.path().join("temporal.db");
    let name = path.to_str().expect("UTF-8");
    std::fs::write(&path, "SQLite format 3").expect("writes");
    let refused = run(&["server", "start-dev", "--port=0", "--db-filename", name]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("is a file with content"), "{}", errors(&refused));
    assert_eq!(std::fs::read_to_string(&path).expect("untouched"), "SQLite format 3");

    std::fs::write(&path, "").expect("writes");
    let server = Running::start(&["server", "start-dev", "--port=0", "--db-filename", name]);
    assert_eq!(server.end("-TERM").0, Some(0));
    assert!(path.join("FORMAT").exists(), "durable");
}

#[test]
fn what_a_killed_server_leaves_the_next_one_removes() {
    let flags = ["server", "start-dev", "--headless", "--port", "0"];
    let (living, killed) = (Running::start(&flags), Running::start(&flags));
    let folder = |server: &Running| server.data.trim_end_matches(" (removed at exit)").to_owned();
    let (used, left) = (folder(&living), folder(&killed));
    killed.end("-KILL");
    assert!(Path::new(&left).exists());
    let next = Running::start(&flags);
    assert!(!Path::new(&left).exists(), "{left} is still there");
    assert!(Path::new(&used).exists(), "{used} belongs to a server that runs");
    next.end("-TERM");
}
