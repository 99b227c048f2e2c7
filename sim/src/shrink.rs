//! Makes a failing run small: fewer faults, fewer clients, fewer nodes, a shorter time, as long as
//! the same rule is broken. Each trial is a run in a process of its own.
//!
//! Whatever is taken out of a run shifts everything that follows, so a smaller run is tried with a
//! few seeds. The search tries in a fixed order and takes the first that fails, whoever is faster:
//! the same failure always becomes the same small run, unless the time is up before.

mod search;

use std::path::PathBuf;
use std::time::Duration;

use crate::faults;
use crate::run::{Finding, Report};
use crate::scenario::{FaultPlan, Scenario};
use crate::swarm::{Given, child};
use crate::work::Workload;

use search::Search;

/// How hard to try.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program to run for each trial.
    pub program: PathBuf,
    /// The rule that is to stay broken; the first violation's without it.
    pub rule: Option<String>,
    /// Runs at most.
    pub runs: usize,
    /// No run begins after this.
    pub limit: Duration,
    /// Runs at once.
    pub jobs: usize,
    /// A run that takes longer, in real time, hangs.
    pub patience: Duration,
    /// Seeds that each smaller run is tried with.
    pub seeds: u64,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Small {
    /// The smallest run that was found: it names its seed and its faults.
    pub scenario: Scenario,
    /// How it fails.
    pub finding: Finding,
    /// What is smaller than it was, in words.
    pub removed: Vec<String>,
    /// How many runs that took.
    pub runs: usize,
    /// Runs or time were used up before nothing smaller was left to try.
    pub unfinished: bool,
}

impl Small {
    /// The run as a file that `run --scenario` repeats.
    pub fn to_file(&self) -> String {
        let Finding { rule, key, text } = &self.finding;
        let text = text.replace('\n', " ");
        format!("# VIOLATION {rule} ({key}): {text}\n{}", self.scenario.to_short_toml())
    }
}

/// Makes the run of a seed and a scenario smaller. `progress` hears of every step.
pub fn shrink(
    plan: &Plan,
    seed: u64,
    scenario: Scenario,
    progress: &dyn Fn(&str),
) -> Result<Small, String> {
    let whole = whole(seed, scenario);
    let report = trial(plan, &whole);
    let found = report.violations.first().ok_or("that run breaks no rule")?;
    let rule = plan.rule.clone().unwrap_or_else(|| found.rule.clone());
    let of_rule = |report: Report| report.violations.into_iter().find(|one| one.rule == rule);
    let Some(finding) = of_rule(report) else {
        return Err(format!("that run does not break {rule}"));
    };
    progress(&format!("{} breaks {rule} ({})", size(&whole), finding.key));
    let fails = |scenario: &Scenario| of_rule(trial(plan, scenario));
    let mut search = Search::new(plan, &fails, progress, whole.clone(), finding);
    search.run();
    let mut small = search.finish();
    small.removed = removed(&whole, &small.scenario);
    Ok(small)
}

/// The same run, with all that it follows from written out.
fn whole(seed: u64, mut scenario: Scenario) -> Scenario {
    scenario.seed = Some(seed);
    if scenario.fault.is_none() {
        scenario.fault = Some(faults::schedule(seed, &scenario));
    }
    scenario.faults = FaultPlan::default();
    scenario
}

fn trial(plan: &Plan, scenario: &Scenario) -> Report {
    let seed = scenario.seed.unwrap_or_default();
    child(&plan.program, plan.patience, seed, Given::Text(&scenario.to_toml()))
}

/// A number that makes a run large.
struct Dial {
    name: &'static str,
    get: fn(&Scenario) -> u32,
    set: fn(&mut Scenario, u32),
    least: u32,
}

/// What may become smaller, in the order in which it is tried: what makes runs short comes first.
const DIALS: [Dial; 9] = [
    Dial {
        name: "seconds",
        get: |it| it.seconds,
        set: |it, to| {
            it.seconds = to;
            let end = u64::from(to) * 1000;
            for fault in it.fault.iter_mut().flatten() {
                if fault.heal_ms != faults::NEVER {
                    fault.heal_ms = fault.heal_ms.min(end.max(fault.at_ms));
                }
            }
            if let Some(faults) = &mut it.fault {
                faults.retain(|fault| fault.at_ms < end);
            }
        },
        least: 1,
    },
    Dial {
        name: "calm_seconds",
        get: |it| it.calm_seconds,
        set: |it, to| it.calm_seconds = to,
        least: 0,
    },
    Dial {
        name: "nodes",
        get: |it| it.nodes,
        set: |it, to| {
            it.nodes = to;
            if let Some(faults) = &mut it.fault {
                for fault in faults.iter_mut() {
                    fault.nodes.retain(|node| *node <= u64::from(to));
                }
                faults.retain(|fault| fault.check(to).is_ok());
            }
        },
        least: 1,
    },
    Dial {
        name: "clients",
        get: |it| it.workload.clients,
        set: |it, to| it.workload.clients = to,
        least: 1,
    },
    Dial {
        name: "operations_per_second",
        get: |it| it.workload.operations_per_second,
        set: |it, to| it.workload.operations_per_second = to,
        least: 1,
    },
    Dial {
        name: "workers",
        get: |it| it.workload.workers,
        set: |it, to| it.workload.workers = to,
        least: 1,
    },
    Dial {
        name: "workflow_ids",
        get: |it| it.workload.workflow_ids,
        set: |it, to| it.workload.workflow_ids = to,
        least: 1,
    },
    Dial { name: "shards", get: |it| it.shards, set: |it, to| it.shards = to, least: 1 },
    Dial {
        name: "queues",
        get: |it| it.workload.queues,
        set: |it, to| it.workload.queues = to,
        least: 1,
    },
];

/// A part of a scenario that may become plain.
type Plain = (&'static str, fn(&mut Scenario));

/// What may become as it is by default, or quieter.
const PLAIN: [Plain; 4] = [
    ("the network is quiet", |it| {
        it.net = crate::scenario::NetPlan { loss_ppm: 0, duplicate_ppm: 0, ..Default::default() };
    }),
    ("clocks are right", |it| {
        it.clocks = crate::scenario::ClockPlan { skew_ms: 0, drift_ppm: 0 };
    }),
    ("disks are as usual", |it| it.disk = Default::default()),
    ("limits are as usual", |it| it.sizes = Default::default()),
];

fn faults_of(scenario: &Scenario) -> usize {
    scenario.fault.as_ref().map_or(0, Vec::len)
}

/// Kinds of operations that clients do not begin.
fn silent(scenario: &Scenario) -> impl Iterator<Item = &'static str> {
    let weights = scenario.workload.weights.clone();
    Workload::kinds().filter(move |kind| weights.get(*kind) == Some(&0))
}

/// How large a run is, in a few words.
fn size(scenario: &Scenario) -> String {
    let dials = DIALS.iter().map(|dial| format!("{} {}", dial.name, (dial.get)(scenario)));
    let dials: Vec<String> = dials.collect();
    format!("{} faults, {}", faults_of(scenario), dials.join(", "))
}

fn removed(from: &Scenario, to: &Scenario) -> Vec<String> {
    let mut lines = Vec::new();
    let mut number = |name: &str, before: usize, after: usize| {
        if before != after {
            lines.push(format!("{name}: {after} of {before} are left"));
        }
    };
    number("faults", faults_of(from), faults_of(to));
    for dial in &DIALS {
        number(dial.name, (dial.get)(from) as usize, (dial.get)(to) as usize);
    }
    let all = Workload::kinds().count();
    number("kinds of operations", all - silent(from).count(), all - silent(to).count());
    for (name, plain) in &PLAIN {
        let (mut was, mut is) = (from.clone(), to.clone());
        plain(&mut was);
        plain(&mut is);
        if was != *from && is == *to {
            lines.push((*name).to_owned());
        }
    }
    if from.seed != to.seed {
        let seed = |it: &Scenario| it.seed.unwrap_or_default();
        lines.push(format!("the seed is {} instead of {}", seed(to), seed(from)));
    }
    lines
}
