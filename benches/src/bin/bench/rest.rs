//! The start of the server, and the server at rest.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_benches::client::{Client, Start, text};
use holdfast_benches::sample::Sample;
use holdfast_benches::server::Launch;
use holdfast_benches::{Fallible, process, say};
use tokio::task::JoinSet;

use crate::figure;

const STARTS: usize = 20;
const RESTARTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for what a start leaves to do.
const SETTLE: Duration = Duration::from_secs(10);

/// From spawning the process until it and all its shards answer: on no data, and on much.
pub(crate) async fn startup(program: &Path, on: &Path, open: usize) -> Fallible<bool> {
    let mut fresh = Sample::default();
    for _ in 0..STARTS {
        let folder = folder(on)?;
        let launch = durable(program, folder.path())?;
        let mut server = launch.spawn()?;
        fresh.add(server.wait(launch.port, PATIENCE).await?);
        server.kill()?;
    }
    let name = format!("start to serving, empty folder, median of {STARTS}");
    let mut good = figure(&name, fresh.quantile_ms(0.5), "ms", 300.0, false);

    let folder = folder(on)?;
    let launch = durable(program, folder.path())?;
    let server = launch.start(PATIENCE).await?;
    fill(launch.port, open).await?;
    server.kill()?;
    for restart in 1..=RESTARTS {
        let mut server = launch.spawn()?;
        let took = server.wait(launch.port, PATIENCE).await?.as_secs_f64();
        let name =
            format!("start to serving, {open} open workflows, SIGKILL before, start {restart}");
        good &= figure(&name, took, "s", 2.0, false);
        let count = Client::new(launch.port, "bench")?.count("ExecutionStatus = 'Running'").await?;
        if count != open as i64 {
            return Err(format!("{count} of {open} workflows are open").into());
        }
        server.kill()?;
    }
    Ok(good)
}

/// Memory and processor time of a server that nobody calls.
pub(crate) async fn idle(program: &Path, on: &Path, seconds: u64) -> Fallible<bool> {
    let folder = folder(on)?;
    let launch = durable(program, folder.path())?;
    let server = launch.start(PATIENCE).await?;
    tokio::time::sleep(SETTLE).await;
    let before = process::cpu_ms(server.pid())?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let share = (process::cpu_ms(server.pid())? - before) / (seconds as f64 * 1e3) * 100.0;
    let resident = process::resident_mb(server.pid())?;
    server.stop().await?;
    let memory = figure("idle, 4 shards: resident memory", resident, "MB", 80.0, false);
    let name = format!("idle, 4 shards: processor over {seconds} s");
    Ok(figure(&name, share, "% of a core", 1.0, false) && memory)
}

fn folder(on: &Path) -> Fallible<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("holdfast-bench-").tempdir_in(on)?)
}

fn durable(program: &Path, folder: &Path) -> Fallible<Launch> {
    Ok(Launch { data: Some(folder.join("data")), ..Launch::new(program, folder)? })
}

/// Starts so many workflows, for which there is no worker.
async fn fill(port: u16, count: usize) -> Fallible<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut starters = JoinSet::new();
    for _ in 0..64 {
        let (client, next) = (Client::new(port, "bench")?, next.clone());
        starters.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Fallible::Ok(());
                }
                let start = Start {
                    id: format!("open-{index}"),
                    kind: "Open".to_owned(),
                    queue: "nobody".to_owned(),
                    input: text("waits"),
                    request_id: format!("open-{index}"),
                    task_timeout: None,
                };
                client.start(start).await?;
            }
        });
    }
    while let Some(outcome) = starters.join_next().await {
        outcome??;
    }
    say(format!("{count} workflows started and open"));
    Ok(())
}
