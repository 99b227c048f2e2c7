//! Throughput: hello-world with one activity, seven unary calls each, nothing eager or inline.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_benches::client::{Client, Start, binary, bytes_of};
use holdfast_benches::rng::{Rng, any_seed};
use holdfast_benches::sample::Sample;
use holdfast_benches::server::{Launch, Server, target};
use holdfast_benches::{Fallible, history, powerloss, process, say, script};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::figure;

const QUEUE: &str = "bench";
const PAYLOAD: usize = 64;
const CONNECTIONS: usize = 4;
const WARM_UP: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(600);

/// How much is to be measured.
pub(crate) struct Plan {
    pub(crate) workflows: usize,
    pub(crate) in_flight: usize,
    pub(crate) alone: usize,
}

/// Those who wait for a workflow to close, by its id.
type Waiting = Arc<Mutex<BTreeMap<String, oneshot::Sender<()>>>>;

/// What a window cost.
struct Window {
    took: Duration,
    /// From the call that starts a workflow to the answer of the call that completes it.
    wall: Sample,
    /// Workflows per second in each quarter of the window: whether it slows as it fills.
    quarters: Vec<f64>,
    /// From the first event to the last, by the server's clock.
    in_history: Sample,
    cpu_ms: f64,
    syncs: u64,
}

/// Measures and prints; returns whether the bound is kept.
pub(crate) async fn measure(program: &Path, on: &Path, plan: &Plan) -> Fallible<bool> {
    let folder = tempfile::Builder::new().prefix("holdfast-bench-").tempdir_in(on)?;
    let counter = folder.path().join("syncs");
    std::fs::write(&counter, [0; 8])?;
    let shim = powerloss::build_shim(&target()?.join("powerloss"))?;
    let launch = Launch {
        data: Some(folder.path().join("data")),
        environment: vec![("LD_PRELOAD", shim), ("HOLDFAST_SYNC_COUNT", counter.clone())],
        ..Launch::new(program, folder.path())?
    };
    let server = launch.start(Duration::from_secs(30)).await?;
    let driver = Driver::new(launch.port, plan.in_flight, server, counter)?;

    driver.window("warm-up", WARM_UP, plan.in_flight).await?;
    let window = driver.window("w", plan.workflows, plan.in_flight).await?;
    let alone = driver.window("alone", plan.alone, 1).await?;
    say(format!("throughput: {} workflows, {} in flight", plan.workflows, plan.in_flight));
    let rate = plan.workflows as f64 / window.took.as_secs_f64();
    let good = figure("  workflows per second", rate, "/s", 500.0, true);
    report(&window, plan.workflows);
    say(format!("alone: {} workflows, 1 in flight", plan.alone));
    report(&alone, plan.alone);
    say(format!("  resident at the end {:.0} MB", process::resident_mb(driver.server.pid())?));
    driver.server.stop().await?;
    Ok(good)
}

fn report(window: &Window, count: usize) {
    let per = |total: f64| total / count as f64;
    say(format!(
        "  took {:.2} s; every history read: gapless, right result",
        window.took.as_secs_f64()
    ));
    let quarters: Vec<_> = window.quarters.iter().map(|rate| format!("{rate:.0}")).collect();
    say(format!("  workflows per second, by quarter of the window: {}", quarters.join(", ")));
    say(format!("  first to last event, by the history: {}", window.in_history.summary()));
    say(format!("  start called to completion answered: {}", window.wall.summary()));
    say(format!("  syncs per workflow {:.3}", per(window.syncs as f64)));
    say(format!("  server's processor time per workflow {:.3} ms", per(window.cpu_ms)));
}

/// The clients, and the workers that play the workflows until this is dropped.
struct Driver {
    clients: Vec<Client>,
    waiting: Waiting,
    workers: Mutex<JoinSet<Fallible<()>>>,
    server: Server,
    counter: std::path::PathBuf,
}

impl Driver {
    fn new(
        port: u16,
        pollers: usize,
        server: Server,
        counter: std::path::PathBuf,
    ) -> Fallible<Self> {
        let clients: Vec<Client> =
            (0..CONNECTIONS).map(|_| Client::new(port, "bench")).collect::<Fallible<_>>()?;
        let waiting = Waiting::default();
        let mut workers = JoinSet::new();
        let mut rng = Rng::new(any_seed());
        for poller in 0..pollers.max(2) {
            let client = &clients[poller % CONNECTIONS];
            workers.spawn(play_workflows(client.clone(), waiting.clone(), rng.fork()));
            workers.spawn(play_activities(client.clone(), rng.fork()));
        }
        Ok(Self { clients, waiting, workers: Mutex::new(workers), server, counter })
    }

    /// Runs so many workflows, so many at a time, then reads every history.
    async fn window(&self, tag: &str, count: usize, in_flight: usize) -> Fallible<Window> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut slots = JoinSet::new();
        let cpu = process::cpu_ms(self.server.pid())?;
        let syncs = self.syncs()?;
        let begun = Instant::now();
        for slot in 0..in_flight {
            let client = self.clients[slot % CONNECTIONS].clone();
            let (waiting, next, tag) = (self.waiting.clone(), next.clone(), tag.to_owned());
            let rng = Rng::new(any_seed());
            slots.spawn(start_in_turn(client, waiting, next, tag, count, rng));
        }
        let mut ends = Vec::new();
        let all = async {
            while let Some(slot) = slots.join_next().await {
                ends.extend(slot??);
            }
            Fallible::Ok(())
        };
        tokio::select! {
            outcome = tokio::time::timeout(PATIENCE, all) => {
                outcome.map_err(|_| format!("the window took more than {PATIENCE:?}"))??;
            }
            error = self.worker_failed() => return Err(error),
        }
        let took = begun.elapsed();
        let cpu_ms = process::cpu_ms(self.server.pid())? - cpu;
        let syncs = self.syncs()? - syncs;
        let in_history = self.check(tag, count).await?;
        let mut wall = Sample::default();
        wall.extend(ends.iter().map(|(_, wall)| *wall));
        Ok(Window { took, wall, quarters: quarters(begun, ends), in_history, cpu_ms, syncs })
    }

    /// Waits until a worker fails, which none should.
    async fn worker_failed(&self) -> Box<dyn std::error::Error + Send + Sync> {
        loop {
            let ended = self.workers.lock().unwrap_or_else(PoisonError::into_inner).try_join_next();
            match ended {
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => return error.into(),
                Some(Ok(Ok(()))) | None => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Reads every history; returns how long each workflow took by it.
    async fn check(&self, tag: &str, count: usize) -> Fallible<Sample> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut readers = JoinSet::new();
        for reader in 0..16 {
            let client = self.clients[reader % CONNECTIONS].clone();
            let (next, tag) = (next.clone(), tag.to_owned());
            readers.spawn(async move {
                let mut lengths = Vec::new();
                while let Some(index) = turn(&next, count) {
                    let id = format!("{tag}-{index}");
                    let events = client.history(&id).await?;
                    if let Some(fault) = script::wrong(&events) {
                        return Err(format!("workflow {id}: {fault}").into());
                    }
                    lengths.push(Duration::from_nanos(history::length(&events)));
                }
                Fallible::Ok(lengths)
            });
        }
        let mut sample = Sample::default();
        while let Some(lengths) = readers.join_next().await {
            sample.extend(lengths??);
        }
        Ok(sample)
    }

    fn syncs(&self) -> Fallible<u64> {
        let bytes = std::fs::read(&self.counter)?;
        Ok(u64::from_le_bytes(bytes[..8].try_into()?))
    }
}

/// The rate of each quarter of the workflows, in the order in which they ended.
fn quarters(begun: Instant, mut ends: Vec<(Instant, Duration)>) -> Vec<f64> {
    ends.sort();
    let (mut since, size) = (begun, ends.len() / 4);
    let last_of = ends.chunks_exact(size.max(1)).filter_map(<[_]>::last).take(4);
    let rate = |(end, _): &(Instant, Duration)| {
        let took = end.duration_since(since);
        since = *end;
        size as f64 / took.as_secs_f64()
    };
    last_of.map(rate).collect()
}

/// The next number below `count`.
fn turn(next: &AtomicUsize, count: usize) -> Option<usize> {
    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < count)
}

/// Starts workflows, each when the one before has closed. Returns when each closed, and how long
/// that took.
async fn start_in_turn(
    client: Client,
    waiting: Waiting,
    next: Arc<AtomicUsize>,
    tag: String,
    count: usize,
    mut rng: Rng,
) -> Fallible<Vec<(Instant, Duration)>> {
    let mut ends = Vec::new();
    while let Some(index) = turn(&next, count) {
        let id = format!("{tag}-{index}");
        let (closed, close) = oneshot::channel();
        waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), closed);
        let begun = Instant::now();
        client
            .start(Start {
                kind: "SayHello".to_owned(),
                queue: QUEUE.to_owned(),
                input: binary(rng.bytes(PAYLOAD)),
                request_id: format!("{id}-{:x}", rng.number()),
                task_timeout: None,
                id,
            })
            .await?;
        close.await?;
        ends.push((Instant::now(), begun.elapsed()));
    }
    Ok(ends)
}

async fn play_workflows(client: Client, waiting: Waiting, mut rng: Rng) -> Fallible<()> {
    loop {
        let Some(task) = client.poll_workflow(QUEUE).await? else { continue };
        let id = task.workflow_execution.map_or_else(String::new, |it| it.workflow_id);
        let events = task.history.unwrap_or_default().events;
        let command = script::next(&events, QUEUE, || binary(rng.bytes(PAYLOAD)));
        let completes = command.command_type
            == holdfast_proto::enums::CommandType::CompleteWorkflowExecution as i32;
        client.answer_workflow(task.task_token, vec![command], &client.identity).await?;
        if completes {
            let closed = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            closed.ok_or_else(|| format!("workflow {id} closed twice"))?.send(()).ok();
        }
    }
}

async fn play_activities(client: Client, mut rng: Rng) -> Fallible<()> {
    loop {
        let Some(task) = client.poll_activity(QUEUE).await? else { continue };
        if bytes_of(task.input.as_ref()).len() != PAYLOAD {
            return Err("the activity's argument did not arrive".into());
        }
        client.answer_activity(task.task_token, binary(rng.bytes(PAYLOAD))).await?;
    }
}
