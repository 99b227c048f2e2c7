//! The workload: clients that start and disturb workflows, workers that run them, and what all of
//! them were told.
//!
//! `program` and `order` are the workflows, `machine` replays them; `worker` and `attempts` run
//! them; `client` and `reads` are the callers; `calls` is how an SDK tries again. Nothing in here
//! lives inside a node, so no crash touches it, and every choice is drawn from the seed.

mod attempts;
mod calls;
mod client;
pub mod gifts;
pub mod machine;
pub mod order;
pub mod program;
mod reader;
mod reads;
mod seen;
pub mod wire;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::enums::IndexedValueType;
use holdfast_proto::workflowservice::PollWorkflowTaskQueueResponse;
use holdfast_raft::types::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use attempts::parse_beat;
pub use reader::Reader;
pub(crate) use reader::probe_id;
pub(crate) use worker::HEARTBEAT;

use crate::doors::{CallError, Doors};
use crate::explain::note::What;
use crate::judge::Violation;
use crate::record::{Asked, Kind, Moment, OpId, Outcome, Policies, Record, Told};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::trace::Trace;

/// Findings that one rule may report; the first ones say it all.
const FINDINGS_PER_RULE: usize = 20;

/// How long the namespace keeps closed runs: longer than any run of the simulator.
pub(crate) const RETENTION: Duration = Duration::from_secs(3 * 24 * 3600);

/// The first task of an eager start, and when the start was sent.
pub(crate) type Eager = (PollWorkflowTaskQueueResponse, Moment);

/// Attempt and number of a heartbeat and when it was acknowledged, by run and activity.
pub(crate) type Beats = BTreeMap<(String, String), ((i32, u32), Moment)>;

/// What clients and workers share.
pub(crate) struct Shared {
    pub(crate) doors: Doors,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) seed: u64,
    pub(crate) trace: Trace,
    pub(crate) record: Record,
    pub(crate) seen: Mutex<seen::Seen>,
    findings: Mutex<Vec<Violation>>,
    /// The node that answered last for a workflow id.
    homes: Mutex<BTreeMap<Arc<str>, NodeId>>,
    /// The run that a start was last told, by workflow id.
    pub(crate) newest: Mutex<BTreeMap<Arc<str>, String>>,
    /// The newest acknowledged heartbeat of each activity: attempt and number, and when.
    pub(crate) beats: Mutex<Beats>,
    /// A request id of an acknowledged call that no other call had since, by workflow id.
    pub(crate) spent: Mutex<BTreeMap<Arc<str>, (Kind, String)>>,
    /// How often callers took rare paths, by name.
    paths: Mutex<BTreeMap<&'static str, u64>>,
    /// Where the first tasks of eager starts go: the queue of each worker, and a way to it.
    pub(crate) eager: Mutex<Vec<(String, mpsc::Sender<Eager>)>>,
    /// Ids that a start was sent for.
    started: Mutex<BTreeSet<Arc<str>>>,
    /// Once the namespace is there.
    ready: watch::Sender<bool>,
    stopping: AtomicBool,
    /// Clients that have not ended.
    clients: watch::Sender<u32>,
    calm: Mutex<Option<Moment>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A stream of random numbers of its own for each caller.
    pub(crate) fn rng(&self, name: &str) -> Rng {
        Rng::stream(self.seed, name)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Writes a violation down.
    pub(crate) fn found(&self, rule: &'static str, key: &str, text: String) {
        let mut findings = lock(&self.findings);
        if findings.iter().filter(|finding| finding.rule == rule).count() < FINDINGS_PER_RULE {
            self.trace.line(format_args!("VIOLATION {rule} {key}: {text}"));
            self.trace.note(|| What::Broken { rule, key: key.to_owned(), text: text.clone() });
            findings.push(Violation { rule, key: key.to_owned(), text });
        }
    }

    pub(crate) fn home(&self, id: &Arc<str>) -> Option<NodeId> {
        lock(&self.homes).get(id).copied()
    }

    pub(crate) fn at_home(&self, id: &Arc<str>, node: NodeId) {
        lock(&self.homes).insert(id.clone(), node);
    }

    pub(crate) fn begin(&self, asked: Asked) -> OpId {
        let starts = matches!(asked.kind, Kind::Start | Kind::SignalWithStart);
        if starts {
            lock(&self.started).insert(asked.id.clone());
        }
        let op = self.record.begin(asked);
        self.trace.note(|| What::Asks(op));
        op
    }

    pub(crate) fn end(&self, op: OpId, what: &str, outcome: Outcome, unsure: bool) -> Moment {
        match &outcome {
            Outcome::Refused { code, .. } => self.trace.line(format_args!("{what} -> {code:?}")),
            Outcome::Ok(told) => self.trace.line(format_args!("{what} -> {told:?}")),
            other => self.trace.line(format_args!("{what} -> {other:?}")),
        }
        self.trace.note(|| What::Knows(op));
        self.record.end(op, outcome, unsure)
    }

    /// A poll was handed something.
    pub(crate) fn handed(&self, asked: Asked, invoked: Moment, told: Told) {
        let op = self.record.handed(asked, invoked, told);
        self.trace.note(|| What::Knows(op));
    }

    /// A caller took a rare path.
    pub(crate) fn took(&self, path: &'static str) {
        *lock(&self.paths).entry(path).or_default() += 1;
    }

    /// Waits until the namespace is there.
    pub(crate) async fn when_ready(&self) {
        // The sender is our own: this cannot fail.
        let mut ready = self.ready.subscribe();
        let _ready = ready.wait_for(|ready| *ready).await;
    }
}

/// An operation about a workflow id, without what only some kinds have.
pub(crate) fn asked(kind: Kind, who: &Arc<str>, id: &Arc<str>, request: &str) -> Asked {
    Asked {
        kind,
        who: who.clone(),
        id: id.clone(),
        run: String::new(),
        request: request.to_owned(),
        policies: Policies::default(),
        attempt: None,
        saw: None,
    }
}

/// A running workload. Its clients and workers end when it is dropped.
pub struct Workload {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// Starts the clients and workers of a scenario. Call it on the runtime of the run.
pub fn start(doors: Doors, scenario: Arc<Scenario>, seed: u64, trace: Trace) -> Workload {
    let clients = watch::Sender::new(scenario.workload.clients);
    let shared = Arc::new(Shared {
        doors,
        scenario,
        seed,
        trace,
        record: Record::new(),
        seen: Mutex::default(),
        findings: Mutex::default(),
        homes: Mutex::default(),
        newest: Mutex::default(),
        beats: Mutex::default(),
        spent: Mutex::default(),
        paths: Mutex::default(),
        eager: Mutex::default(),
        started: Mutex::default(),
        ready: watch::Sender::new(false),
        stopping: AtomicBool::new(false),
        clients,
        calm: Mutex::new(None),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(set_up(shared.clone()));
    for worker in 0..shared.scenario.workload.workers {
        worker::spawn(&shared, worker, &mut tasks);
    }
    for client in 0..shared.scenario.workload.clients {
        let shared = shared.clone();
        tasks.spawn(async move {
            client::run(shared.clone(), client).await;
            shared.clients.send_modify(|running| *running -= 1);
        });
    }
    Workload { shared, tasks }
}

/// Makes the namespace, on whichever node can.
async fn set_up(shared: Arc<Shared>) {
    loop {
        for node in shared.doors.nodes() {
            let made =
                shared.doors.call("set-up", node, Duration::from_secs(5), |front| async move {
                    let attributes = [wire::STEP_ATTRIBUTE, gifts::CALLER_ATTRIBUTE]
                        .map(|name| (name.to_owned(), IndexedValueType::Keyword))
                        .into();
                    let made =
                        front.ensure_namespace(wire::NAMESPACE, RETENTION, &attributes).await;
                    made.map(tonic::Response::new)
                });
            match made.await {
                Ok(()) => {
                    shared.trace.line(format_args!("set-up: the namespace is there"));
                    shared.ready.send_replace(true);
                    return;
                }
                Err(CallError::Status(_) | CallError::NotSent | CallError::Unknown) => {}
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

impl Workload {
    /// Clients start nothing new from here on. Workers go on.
    pub fn stop_load(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.faults_over();
    }

    /// Faults have stopped: from a little later on the bounds on lateness hold. The first call
    /// counts; [`Workload::stop_load`] implies it.
    pub fn faults_over(&self) {
        let mut calm = lock(&self.shared.calm);
        if calm.is_none() {
            *calm = Some(self.shared.record.moment());
        }
    }

    /// Waits until every client has heard what it asked and every workflow that was started is
    /// closed, for `limit` at most. Gives those that are not, and `clients` while those wait.
    pub async fn drained(&self, limit: Duration) -> Vec<Arc<str>> {
        let until = Instant::now() + limit;
        let who: Arc<str> = "drain".into();
        let mut clients = self.shared.clients.subscribe();
        // What a client still tries may start a workflow that was closed when it was looked at.
        let heard =
            timeout_at(until - limit / 4, clients.wait_for(|running| *running == 0)).await.is_ok();
        let waiting = (!heard).then(|| Arc::from("clients"));
        let mut open = self.closed(until, &who).await;
        open.extend(waiting);
        open
    }

    /// Waits until every workflow that was started is closed; gives those that are not by then.
    async fn closed(&self, until: Instant, who: &Arc<str>) -> Vec<Arc<str>> {
        let mut closed = BTreeSet::new();
        loop {
            let ids: Vec<Arc<str>> = lock(&self.shared.started).iter().cloned().collect();
            let mut open = Vec::new();
            for id in ids.iter().filter(|id| !closed.contains(*id)).cloned().collect::<Vec<_>>() {
                match reads::is_open(&self.shared, who, &id).await {
                    Some(false) => drop(closed.insert(id)),
                    Some(true) | None => open.push(id),
                }
                if Instant::now() >= until {
                    open.extend(ids.iter().filter(|id| !closed.contains(*id)).cloned());
                    open.sort();
                    open.dedup();
                    return open;
                }
            }
            if open.is_empty() && ids.len() == closed.len() {
                return open;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// How often callers took rare paths, by name.
    pub fn paths(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.shared.paths).clone()
    }

    /// The newest acknowledged heartbeat of each activity: run and activity; attempt and number.
    pub fn beats(&self) -> BTreeMap<(String, String), (i32, u32)> {
        let beats = lock(&self.shared.beats);
        beats.iter().map(|(key, (beat, _))| (key.clone(), *beat)).collect()
    }

    /// Every client and worker that is left ends where it stands.
    pub async fn leave(&mut self) {
        self.tasks.shutdown().await;
    }

    /// How many operations of each kind began.
    pub fn ops(&self) -> BTreeMap<&'static str, u64> {
        self.shared.record.look(|operations| {
            let mut counts = BTreeMap::new();
            for operation in operations {
                *counts.entry(operation.asked.kind.name()).or_default() += 1;
            }
            counts
        })
    }

    /// The kinds of operations that clients begin.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        client::MIX.iter().map(|(kind, _)| kind.name())
    }

    /// What every caller was told.
    pub fn record(&self) -> &Record {
        &self.shared.record
    }

    /// When the faults stopped, if they did.
    pub fn calm(&self) -> Option<Moment> {
        *lock(&self.shared.calm)
    }

    /// What was found broken on the way.
    pub fn findings(&self) -> Vec<Violation> {
        lock(&self.shared.findings).clone()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}
