//! One run: the world is built, clients and workers start, faults come (the safety phase); then the
//! faults stop, everything is healed, and all that was begun must finish (the liveness phase); then
//! the judges look at it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, RngSeed};

use crate::doors::Doors;
use crate::explain::Account;
use crate::explain::note::What;
use crate::faults;
use crate::retire::retire;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::wall::{Stopwatch, processor};
use crate::world::Shared;
use crate::{judge, logs, work};

/// How long the nodes get to come up before faults begin.
const SETTLE: Duration = Duration::from_secs(5);

/// How much longer than the longest long poll a node may hold something for callers that are gone.
const ALONE: Duration = Duration::from_secs(10);

/// How long healed nodes get to come up.
const COME_BACK: Duration = Duration::from_secs(60);

/// What a run may be told besides seed and scenario.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the trace goes, line by line.
    pub trace: Option<PathBuf>,
}

/// A rule that did not hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule.
    pub rule: String,
    /// What it was broken for.
    pub key: String,
    /// How.
    pub text: String,
}

/// What came of a run. All but `wall_ms` and `cpu_ms` follows from seed and scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The name of the scenario.
    pub scenario: String,
    /// Voters.
    pub nodes: u32,
    /// Simulated time, all phases.
    pub simulated_ms: u64,
    /// Simulated time that everything took to finish after the faults.
    pub drain_ms: u64,
    /// Real time.
    pub wall_ms: u64,
    /// Time on a processor.
    pub cpu_ms: u64,
    /// Lives of all nodes.
    pub lives: u64,
    /// Syncs of all logs.
    pub syncs: u64,
    /// Messages sent, of nodes and clients.
    pub messages: u64,
    /// Those of them that were lost.
    pub lost: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Steps of wall clocks that nodes took over, forward and back, and how often one was the odd one
    /// out.
    pub clocks: BTreeMap<String, u64>,
    /// Operations by kind.
    pub operations: BTreeMap<String, u64>,
    /// Changes in the logs by variant.
    pub changes: BTreeMap<String, u64>,
    /// Events in the logs by type.
    pub events: BTreeMap<String, u64>,
    /// How often rare paths were taken, by name.
    pub paths: BTreeMap<String, u64>,
    /// Hash of the trace.
    pub trace: String,
    /// Lines of the trace.
    pub trace_lines: u64,
    /// What was found.
    pub violations: Vec<Finding>,
}

/// Runs a scenario from a seed. Once per process: the second run of a process differs.
pub fn run(seed: u64, scenario: Scenario, options: Options) -> io::Result<Report> {
    Ok(start(seed, scenario, options, false)?.0)
}

/// The same run, with what happened inside of it.
pub fn account(seed: u64, scenario: Scenario, options: Options) -> io::Result<(Report, Account)> {
    let (report, account) = start(seed, scenario, options, true)?;
    Ok((report, account.unwrap_or_default()))
}

fn start(
    seed: u64,
    scenario: Scenario,
    options: Options,
    notes: bool,
) -> io::Result<(Report, Option<Account>)> {
    let watch = Stopwatch::start();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&Rng::stream(seed, "tokio").bits().to_be_bytes());
    // Without the drivers of sockets and signals: turning them over would cost a system call each
    // time that the clock moves.
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&bytes))
        .build()?;
    holdfast_raft::rt::Rt::seed(Rng::stream(seed, "raft").bits());
    let simulated = simulate(seed, Arc::new(scenario), options, notes);
    let (mut report, account) = runtime.block_on(simulated)?;
    report.wall_ms = millis(watch.elapsed());
    report.cpu_ms = millis(processor()).max(1);
    Ok((report, account))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn simulate(
    seed: u64,
    scenario: Arc<Scenario>,
    options: Options,
    notes: bool,
) -> io::Result<(Report, Option<Account>)> {
    logs::begin();
    let trace = match &options.trace {
        Some(path) => Trace::to_file(path)?,
        None => Trace::new(),
    };
    if notes {
        trace.take_notes();
    }
    let world = Shared::new(seed, Arc::clone(&scenario), trace.clone());
    let doors = Doors(Arc::clone(&world));
    world.start_all();
    let mut load = work::start(doors.clone(), Arc::clone(&scenario), seed, trace.clone());
    tokio::time::sleep(SETTLE).await;

    let faults = scenario.fault.clone().unwrap_or_else(|| faults::schedule(seed, &scenario));
    let until = tokio::time::Instant::now() + Duration::from_secs(u64::from(scenario.seconds));
    faults::run(Arc::clone(&world), faults).await;
    tokio::time::sleep_until(until).await;

    trace.line(format_args!("calm"));
    world.heal_all();
    load.faults_over();
    let calm = world.time.elapsed();
    come_back(&world).await;
    // Timers and long polls are judged by how late they are while there is load and no fault.
    tokio::time::sleep(Duration::from_secs(u64::from(scenario.calm_seconds))).await;
    load.stop_load();
    let limit = Duration::from_secs(u64::from(scenario.liveness_seconds));
    let open = load.drained(limit).await;
    if let Some(first) = open.first() {
        let (limit, count) = (limit.as_secs(), open.len());
        let text = format!("it did not finish within {limit} s; {count} workflow(s) did not");
        world.violation("stuck", first, text);
    }
    let drain_ms = millis(world.time.elapsed().saturating_sub(calm));
    world.net.calm();
    let judged = judge::judge(&load, &doors, &scenario).await;
    for one in &judged {
        trace.line(format_args!("violation {} {}: {}", one.rule, one.key, one.text));
    }
    // Nothing is left in the tables after the runs are retired; A8 is about that time all the same.
    let tables = notes.then(|| Account::read_tables(&doors, scenario.shards));
    trace.note(|| What::Judged);
    load.leave().await;
    alone(&world).await;
    if open.is_empty() {
        let is_known = judged.iter().any(|one| one.rule == "L3");
        retire(&world, &load, is_known).await;
    }
    let account = tables.map(|tables| Account {
        notes: trace.finish_notes(),
        operations: load.record().operations(),
        tables,
    });
    trace.flush()?;
    let report = Report { seed, drain_ms, ..report(&world, &load, &trace, judged) };
    Ok((report, account))
}

/// Nobody calls any more: waits until no node holds anything for anybody, as long as the longest
/// long poll and something more (S2).
async fn alone(world: &Arc<Shared>) {
    let sizes = &world.scenario.sizes;
    let longest = Duration::from_millis(sizes.poll_ms.max(sizes.history_wait_ms));
    let until = tokio::time::Instant::now() + longest + ALONE;
    let mut nodes = BTreeMap::new();
    loop {
        for node in world.node_ids() {
            let Some(up) = world.up(node) else { continue };
            let (tasks, up) = (Arc::clone(&up.tasks), up.node);
            let asked = tasks.spawn(async move { up.census().await });
            let census = tokio::time::timeout(ALONE, asked).await;
            nodes.insert(node, census.ok().and_then(Result::ok));
        }
        let held = nodes.values().any(|census| census.is_none_or(|census| !census.is_empty()));
        if !held || tokio::time::Instant::now() >= until {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for found in judge::left(&nodes) {
        world.violation(found.rule, &found.key, found.text);
    }
}

/// What is known when everything is over.
fn report(
    world: &Shared,
    load: &work::Workload,
    trace: &Trace,
    judged: Vec<judge::Violation>,
) -> Report {
    let mut violations = world.take_violations();
    violations.extend(judged);
    violations.extend(logs::take());
    let (hash, trace_lines) = trace.hash();
    let (messages, lost) = world.net.counts();
    let (lives, syncs) = world.lives_and_syncs();
    let named = |counts: BTreeMap<&'static str, u64>| {
        counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    };
    let coverage = world.coverage();
    let mut paths = coverage.paths();
    paths.extend(named(load.paths()));
    Report {
        scenario: world.scenario.name.clone(),
        nodes: world.scenario.nodes,
        simulated_ms: millis(world.time.elapsed()),
        lives,
        syncs,
        messages,
        lost,
        faults: named(world.faults()),
        clocks: named(world.taken_over()),
        operations: named(load.ops()),
        changes: coverage.changes(),
        events: coverage.events(),
        paths,
        trace: format!("{hash:016x}"),
        trace_lines,
        violations: violations.into_iter().map(finding).collect(),
        ..Report::default()
    }
}

fn finding(violation: judge::Violation) -> Finding {
    let judge::Violation { rule, key, text } = violation;
    Finding { rule: rule.to_owned(), key, text }
}

/// Waits until every node that can is up.
async fn come_back(world: &Arc<Shared>) {
    let until = tokio::time::Instant::now() + COME_BACK;
    for node in world.node_ids() {
        while world.up(node).is_none() && !world.is_lost(node) {
            if tokio::time::Instant::now() >= until {
                let text = format!("it did not come up within {} s", COME_BACK.as_secs());
                world.violation("down", &format!("node {node}"), text);
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
