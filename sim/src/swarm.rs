//! Many seeds, one process each, as many at once as there are cores: a second run in one process
//! would not repeat. The child writes one line of JSON; this adds them up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::run::{Finding, Report};
use crate::wall::Stopwatch;

/// What a swarm is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program to run for each seed.
    pub program: PathBuf,
    /// The first seed.
    pub first: u64,
    /// Seeds at most.
    pub seeds: u64,
    /// No new seed begins after this.
    pub limit: Duration,
    /// Scenario files, taken in turns; none: each seed draws its own.
    pub scenarios: Vec<PathBuf>,
    /// Processes at once.
    pub jobs: usize,
    /// A run that takes longer, in real time, is ended and counts as a violation.
    pub patience: Duration,
    /// No new seed begins after the first violation.
    pub until_found: bool,
}

/// What a swarm came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that ended.
    pub runs: u64,
    /// By number of nodes.
    pub by_nodes: BTreeMap<u32, u64>,
    /// Simulated time.
    pub simulated: Duration,
    /// Time on processors of all runs.
    pub cpu: Duration,
    /// Real time of the swarm.
    pub wall: Duration,
    /// The longest time that everything took to finish after the faults.
    pub longest_drain: Duration,
    /// Lives of nodes.
    pub lives: u64,
    /// Messages.
    pub messages: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Steps of wall clocks.
    pub clocks: BTreeMap<String, u64>,
    /// Operations by kind.
    pub operations: BTreeMap<String, u64>,
    /// Changes in the logs by variant.
    pub changes: BTreeMap<String, u64>,
    /// Events in the logs by type.
    pub events: BTreeMap<String, u64>,
    /// How often rare paths were taken, by name.
    pub paths: BTreeMap<String, u64>,
    /// What was found, with the seed and the scenario file, if there was one.
    pub violations: Vec<(u64, Option<PathBuf>, Finding)>,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        *self.by_nodes.entry(report.nodes).or_default() += 1;
        self.simulated += Duration::from_millis(report.simulated_ms);
        self.cpu += Duration::from_millis(report.cpu_ms);
        self.longest_drain = self.longest_drain.max(Duration::from_millis(report.drain_ms));
        self.lives += report.lives;
        self.messages += report.messages;
        for (to, from) in [
            (&mut self.faults, &report.faults),
            (&mut self.clocks, &report.clocks),
            (&mut self.operations, &report.operations),
            (&mut self.changes, &report.changes),
            (&mut self.events, &report.events),
            (&mut self.paths, &report.paths),
        ] {
            for (name, count) in from {
                *to.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// Simulated seconds per second of one core.
    pub fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.cpu.as_secs_f64().max(0.001)
    }
}

/// Runs the seeds. `progress` hears of each run that ended, and of the violations so far.
pub fn swarm(plan: &Plan, progress: &(dyn Fn(&Report, &Summary) + Sync)) -> Summary {
    let watch = Stopwatch::start();
    let next = AtomicU64::new(0);
    let found = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let enough = plan.until_found && found.load(Ordering::Relaxed);
                    if n >= plan.seeds || watch.elapsed() >= plan.limit || enough {
                        return;
                    }
                    let seed = plan.first + n;
                    let turn = n as usize % plan.scenarios.len().max(1);
                    let file = plan.scenarios.get(turn).cloned();
                    let given = file.as_deref().map_or(Given::Random, Given::File);
                    let report = child(&plan.program, plan.patience, seed, given);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(&report);
                    found.fetch_or(!report.violations.is_empty(), Ordering::Relaxed);
                    let violations = report.violations.iter().cloned();
                    summary.violations.extend(violations.map(|one| (seed, file.clone(), one)));
                    summary.wall = watch.elapsed();
                    progress(&report, &summary);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.violations.sort();
    summary
}

/// Where a process gets its scenario from.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    /// From its seed.
    Random,
    /// From a file.
    File(&'a Path),
    /// From this text.
    Text(&'a str),
}

/// One seed in a process of its own. What goes wrong with the process is a violation too.
pub(crate) fn child(program: &Path, patience: Duration, seed: u64, given: Given<'_>) -> Report {
    let failed = |rule: &str, text: String| Report {
        seed,
        violations: vec![Finding { rule: rule.to_owned(), key: "process".to_owned(), text }],
        ..Report::default()
    };
    let mut command = Command::new(program);
    command.args(["run", "--json", "--seed"]).arg(seed.to_string());
    let mut input = "";
    match given {
        Given::File(file) => command.arg("--scenario").arg(file),
        Given::Random => command.arg("--random"),
        Given::Text(text) => {
            input = text;
            command.args(["--scenario", "-"])
        }
    };
    match output(command, patience, input) {
        Ok(Ended::Output(text)) => match serde_json::from_str(&text) {
            Ok(report) => report,
            Err(why) => failed("no-report", format!("{why}; it said: {}", tail(&text))),
        },
        Ok(Ended::Impatient) => {
            failed("hangs", format!("it did not end within {} s", patience.as_secs()))
        }
        Err(why) => failed("no-process", why.to_string()),
    }
}

enum Ended {
    Output(String),
    Impatient,
}

fn output(mut command: Command, patience: Duration, input: &str) -> io::Result<Ended> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that does not want it says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || read(out));
    let complaints = std::thread::spawn(move || read(err));
    let watch = Stopwatch::start();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if watch.elapsed() >= patience => {
                child.kill()?;
                child.wait()?;
                return Ok(Ended::Impatient);
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut text = reader.join().unwrap_or_default();
    if text.is_empty() {
        let complaints = complaints.join().unwrap_or_default();
        let _ = write!(text, "{status}: {}", tail(&complaints));
    }
    Ok(Ended::Output(text))
}

fn read(from: Option<impl Read>) -> String {
    let mut text = String::new();
    if let Some(mut from) = from {
        // What was read before an error is what there is.
        let _ = from.read_to_string(&mut text);
    }
    text
}

/// The end of a long text.
fn tail(text: &str) -> String {
    let from = text.chars().count().saturating_sub(500);
    text.chars().skip(from).collect()
}
