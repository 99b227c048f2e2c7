//! `holdfast-sim`: runs seeds, and tells people what came of them.

mod say;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use holdfast_sim::logs;
use holdfast_sim::mutants;
use holdfast_sim::run::{Options, run};
use holdfast_sim::scenario::Scenario;
use holdfast_sim::swarm::{Plan, swarm};

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
    /// Runs many seeds, one process each.
    Swarm(SwarmArgs),
    /// Plants bugs in a copy of the tree, one at a time, and sees whether each is found.
    Mutants(MutantsArgs),
    /// Prints the scenario of a seed, or the default one, as a file to start from.
    Scenario {
        /// Draw it from this seed.
        #[arg(long)]
        seed: Option<u64>,
    },
}

#[derive(Args)]
struct RunArgs {
    /// What everything follows from.
    #[arg(long)]
    seed: u64,
    /// A scenario file; without one the default scenario runs.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Draw the scenario from the seed, as a swarm does.
    #[arg(long, conflicts_with = "scenario")]
    random: bool,
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
    #[arg(long)]
    readme: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Run(args) => one(args),
        What::Replay(args) => {
            let trace = PathBuf::from(format!("holdfast-sim-{}.trace", args.seed));
            let trace = args.trace.clone().or(Some(trace));
            one(RunArgs { trace, ..args })
        }
        What::Swarm(args) => many(args),
        What::Mutants(args) => planted(args),
        What::Scenario { seed } => {
            say::line(&seed.map_or_else(Scenario::default, Scenario::randomised).to_toml());
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
    let text = std::fs::read_to_string(file).map_err(|why| format!("{}: {why}", file.display()))?;
    Scenario::parse(&text).map_err(|why| format!("{}: {why}", file.display()))
}

fn one(args: RunArgs) -> Result<bool, String> {
    let scenario = match &args.scenario {
        Some(file) => read(file)?,
        None if args.random => Scenario::randomised(args.seed),
        None => Scenario::default(),
    };
    logs::listen(args.log.as_deref());
    let options = Options { trace: args.trace.clone(), faults: None };
    let report = run(args.seed, scenario, options).map_err(|why| why.to_string())?;
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
