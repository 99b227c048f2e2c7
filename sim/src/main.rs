//! `holdfast-sim`: runs seeds, and tells people what came of them.

mod say;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use holdfast_sim::explain::explain;
use holdfast_sim::faults::schedule;
use holdfast_sim::logs;
use holdfast_sim::mutants;
use holdfast_sim::run::{Options, account, run};
use holdfast_sim::scenario::Scenario;
use holdfast_sim::shrink::{self, shrink};
use holdfast_sim::swarm::{Plan, swarm};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs Holdfast in a world where everything breaks, and repeats it from a number.
#[derive(Parser)]
#[command(name = "holdfast-sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs one seed and reports.
    Run(RunArgs),
    /// Runs one seed again with everything that helps to see why: the trace goes to a file.
    Replay(RunArgs),
    /// Makes a failing run small: fewer faults, clients, nodes, seconds, but the same rule broken.
    Shrink(ShrinkArgs),
    /// Tells what happened in a failing run: who knew what when, across nodes.
    Explain(ExplainArgs),
    /// Runs many seeds, one process each.
    Swarm(SwarmArgs),
    /// Plants bugs in a copy of the tree, one at a time, and sees whether each is found.
    Mutants(MutantsArgs),
    /// Prints the scenario of a seed, or the default one, as a file to start from.
    Scenario {
        /// Draw it from this seed.
        #[arg(long)]
        seed: Option<u64>,
        /// With its faults one by one, to take some out or to change them.
        #[arg(long, requires = "seed")]
        faults: bool,
    },
}

/// Which run.
#[derive(Args)]
struct Which {
    /// What everything follows from; without it the scenario file names it.
    #[arg(long)]
    seed: Option<u64>,
    /// A scenario file, `-` for standard input; without one the default scenario runs.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Draw the scenario from the seed, as a swarm does.
    #[arg(long, conflicts_with = "scenario")]
    random: bool,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    which: Which,
    /// Write the trace to this file.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Log to standard error, for example `holdfast=debug,openraft=info`.
    #[arg(long)]
    log: Option<String>,
    /// Report as one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ShrinkArgs {
    #[command(flatten)]
    which: Which,
    /// The rule that is to stay broken; the first violation's without it.
    #[arg(long)]
    rule: Option<String>,
    /// Where the small scenario goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Runs at most.
    #[arg(long, default_value_t = 500)]
    runs: usize,
    /// No run begins after so many minutes; the result depends on the machine if that happens.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Processes at once; as many as there are cores without it.
    #[arg(long)]
    jobs: Option<usize>,
    /// Seeds that each smaller run is tried with.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Real seconds that one run may take.
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

#[derive(Args)]
struct ExplainArgs {
    #[command(flatten)]
    which: Which,
    /// The workflow to tell of; without it that of the first violation.
    #[arg(long)]
    workflow: Option<String>,
    /// Lines at most, besides the frame.
    #[arg(long, default_value_t = 150)]
    lines: usize,
}

#[derive(Args)]
struct SwarmArgs {
    /// No new seed begins after so many minutes.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Seeds at most.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Scenario files, taken in turns; without any each seed draws its own.
    #[arg(long, num_args = 1..)]
    scenario: Vec<PathBuf>,
    /// Processes at once; as many as there are cores without it.
    #[arg(long)]
    jobs: Option<usize>,
    /// Real seconds that one run may take.
    #[arg(long, default_value_t = 300)]
    patience: u64,
}

#[derive(Args)]
struct MutantsArgs {
    /// Only those whose names begin like this.
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// How long each is looked for, its build not counted.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Try also those whose result is known.
    #[arg(long)]
    again: bool,
    /// Processes at once; as many as there are cores without it.
    #[arg(long)]
    jobs: Option<usize>,
    /// The folder of the workspace.
    #[arg(long, default_value = ".")]
    tree: PathBuf,
    /// Write the table of all results into `sim/README.md`.
    #[arg(long, conflicts_with = "only")]
    readme: bool,
}

/// Starts the program once more with an allocator that keeps what it has: a run is short, and the
/// allocator reads its options before `main`.
#[expect(clippy::disallowed_methods, reason = "this is main, which reads the configuration")]
fn keep_memory() {
    const PURGE: &str = "MIMALLOC_PURGE_DELAY";
    if std::env::var_os(PURGE).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        // It returns when it has failed: then the run is slower, and no other.
        let _ = Command::new(program).args(std::env::args_os().skip(1)).env(PURGE, "-1").exec();
    }
}

fn main() -> ExitCode {
    keep_memory();
    let done = match Cli::parse().what {
        What::Run(args) => one(args),
        What::Replay(args) => {
            let seed = args.which.seed.map_or_else(String::new, |seed| format!("-{seed}"));
            let trace = PathBuf::from(format!("holdfast-sim{seed}.trace"));
            let trace = args.trace.clone().or(Some(trace));
            one(RunArgs { trace, ..args })
        }
        What::Shrink(args) => smaller(args),
        What::Explain(args) => told(&args),
        What::Swarm(args) => many(args),
        What::Mutants(args) => planted(args),
        What::Scenario { seed, faults } => {
            let mut scenario = seed.map_or_else(Scenario::default, Scenario::randomised);
            if faults {
                scenario.seed = seed;
                scenario.fault = seed.map(|seed| schedule(seed, &scenario));
            }
            say::line(&scenario.to_toml());
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            say::error(&why);
            ExitCode::from(2)
        }
    }
}

fn read(file: &Path) -> Result<Scenario, String> {
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(file),
    };
    let text = text.map_err(|why| format!("{}: {why}", file.display()))?;
    Scenario::parse(&text).map_err(|why| format!("{}: {why}", file.display()))
}

impl Which {
    fn get(&self) -> Result<(u64, Scenario), String> {
        let scenario = self.scenario.as_deref().map(read).transpose()?;
        let seed = self.seed.or(scenario.as_ref().and_then(|scenario| scenario.seed));
        let seed = seed.ok_or("--seed is needed: no scenario names one")?;
        let usual = || if self.random { Scenario::randomised(seed) } else { Scenario::default() };
        Ok((seed, scenario.unwrap_or_else(usual)))
    }
}

fn one(args: RunArgs) -> Result<bool, String> {
    let (seed, scenario) = args.which.get()?;
    logs::listen(args.log.as_deref());
    let options = Options { trace: args.trace.clone() };
    let report = run(seed, scenario, options).map_err(|why| why.to_string())?;
    if args.json {
        say::line(&serde_json::to_string(&report).map_err(|why| why.to_string())?);
        return Ok(report.violations.is_empty());
    }
    say::report(&report);
    if let Some(trace) = args.trace {
        say::line(&format!("trace: {}", trace.display()));
    }
    Ok(report.violations.is_empty())
}

fn smaller(args: ShrinkArgs) -> Result<bool, String> {
    let (seed, scenario) = args.which.get()?;
    let plan = shrink::Plan {
        program: std::env::current_exe().map_err(|why| why.to_string())?,
        rule: args.rule,
        runs: args.runs,
        limit: minutes(args.minutes)?,
        jobs: args.jobs.unwrap_or(cores()),
        patience: Duration::from_secs(args.patience),
        seeds: args.seeds,
    };
    let small = shrink(&plan, seed, scenario, &say::line)?;
    let out = args.out.unwrap_or_else(|| PathBuf::from(format!("holdfast-sim-{seed}.toml")));
    let written = std::fs::write(&out, small.to_file());
    written.map_err(|why| format!("{}: {why}", out.display()))?;
    say::small(&small, &out);
    Ok(true)
}

fn told(args: &ExplainArgs) -> Result<bool, String> {
    let (seed, scenario) = args.which.get()?;
    logs::listen(None);
    let (report, account) =
        account(seed, scenario, Options::default()).map_err(|why| why.to_string())?;
    say::line(&explain(&report, &account, args.workflow.as_deref(), args.lines)?);
    Ok(true)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn minutes(minutes: f64) -> Result<Duration, String> {
    let time = Duration::try_from_secs_f64(minutes * 60.0);
    time.map_err(|_| "--minutes is a number from 0 on".to_owned())
}

fn planted(args: MutantsArgs) -> Result<bool, String> {
    let plan = mutants::Plan {
        root: args.tree,
        only: args.only,
        limit: minutes(args.minutes)?,
        again: args.again,
        jobs: args.jobs.unwrap_or_else(cores),
        readme: args.readme,
    };
    let summary = mutants::run(&plan, &say::line)?;
    say::line("");
    summary.lines().iter().for_each(|line| say::line(line));
    Ok(summary.is_enough())
}

fn many(args: SwarmArgs) -> Result<bool, String> {
    for file in &args.scenario {
        read(file)?;
    }
    let plan = Plan {
        program: std::env::current_exe().map_err(|why| why.to_string())?,
        first: args.first,
        seeds: args.seeds.unwrap_or(u64::MAX),
        limit: minutes(args.minutes)?,
        scenarios: args.scenario,
        jobs: args.jobs.unwrap_or_else(cores),
        patience: Duration::from_secs(args.patience),
        until_found: false,
    };
    let summary = swarm(&plan, &say::progress);
    say::summary(&summary);
    Ok(summary.violations.is_empty())
}
