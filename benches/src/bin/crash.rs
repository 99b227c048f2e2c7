//! The crash suites. SIGKILL under work, again and again; with `--power-loss` the disk keeps only
//! what was synced; with `--enumerate` no server but its log and tables, crashed after every change
//! that they make to the disk. Exit code 0: every promise kept; 1: one was broken; 2: the suite failed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use holdfast_benches::crash::{Plan, suite};
use holdfast_benches::enumeration;
use holdfast_benches::powerloss::{TEARS, Tear};
use holdfast_benches::rng::any_seed;
use holdfast_benches::{Fallible, process, run, say, server};
use tokio::time::Instant;

/// Kills the server under work and checks what it had acknowledged.
#[derive(Parser, Debug)]
#[command(group = ArgGroup::new("power").args(["power_loss", "enumerate"]))]
struct Flags {
    /// Kills under work
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Workflows that are open all the time
    #[arg(long, default_value_t = 1_000)]
    workflows: usize,
    /// Acknowledgements between kills, at least
    #[arg(long, default_value_t = 200)]
    acks: usize,
    /// The power goes with every kill
    #[arg(long)]
    power_loss: bool,
    /// The control: syncs of the write-ahead log count for nothing, so this must find violations
    #[arg(long, requires = "power")]
    no_sync: bool,
    /// What happens to unsynced writes: none, prefix, zeros, pages or all (default: any, by seed)
    #[arg(long, value_parser = tear)]
    tear: Option<Tear>,
    /// Instead of a server: the log and the tables, the power cut at every point of a script
    #[arg(long, conflicts_with_all = ["kills", "workflows", "acks", "tear"])]
    enumerate: bool,
    /// Only at every so many points
    #[arg(long, default_value_t = 1, requires = "enumerate")]
    every: usize,
    /// Seed of all that is random
    #[arg(long)]
    seed: Option<u64>,
    /// Folder in which data is made (default: cargo's target folder); kept when a promise is broken
    #[arg(long)]
    on: Option<PathBuf>,
}

fn tear(name: &str) -> Result<Tear, String> {
    let tears = TEARS.map(|tear| (format!("{tear:?}").to_lowercase(), tear));
    let found = tears.iter().find(|(known, _)| known == name);
    found.map(|(_, tear)| *tear).ok_or_else(|| format!("{name} is no tear"))
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    run(async {
        match flags.enumerate {
            true => enumerate(flags),
            false => crash(flags).await,
        }
    })
}

fn enumerate(flags: Flags) -> Fallible<ExitCode> {
    // The disk is modelled, and each image is looked at once: in memory where the system has that.
    let memory = PathBuf::from("/dev/shm");
    let on = flags.on.or(memory.is_dir().then_some(memory)).map_or_else(server::target, Ok)?;
    let folder = tempfile::Builder::new().prefix("holdfast-enumerate-").tempdir_in(on)?;
    let plan = enumeration::Plan {
        every: flags.every,
        no_sync: flags.no_sync,
        seed: flags.seed.unwrap_or_else(any_seed),
        folder: folder.path().to_owned(),
        child: std::env::current_exe()?.with_file_name("powerloss-child"),
    };
    let began = Instant::now();
    let outcome = enumeration::enumerate(&plan)?;
    say(format!("seed {}: {outcome} in {:.0?}", plan.seed, began.elapsed()));
    Ok(if outcome.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn crash(flags: Flags) -> Fallible<ExitCode> {
    let on = flags.on.map_or_else(server::target, Ok)?;
    let folder = tempfile::Builder::new().prefix("holdfast-crash-").tempdir_in(on)?;
    let plan = Plan {
        seed: flags.seed.unwrap_or_else(any_seed),
        kills: flags.kills,
        workflows: flags.workflows,
        acks: flags.acks,
        power_loss: flags.power_loss,
        no_sync: flags.no_sync,
        tear: flags.tear,
        folder: folder.path().to_owned(),
        binary: server::binary()?,
    };
    say(format!(
        "seed {}: {} kills{}{}, {} open workflows, {} acknowledgements between kills or more, on {}",
        plan.seed,
        plan.kills,
        if plan.power_loss { " with power loss" } else { "" },
        if plan.no_sync { " and no syncs of the log" } else { "" },
        plan.workflows,
        plan.acks,
        process::file_system(folder.path())?
    ));
    let outcome = suite(plan).await?;
    say(format!("{} violations", outcome.violations.len()));
    if outcome.violations.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for violation in outcome.violations.iter().take(30) {
        say(format!("VIOLATION {violation}"));
    }
    // The control is meant to fail, and leaves nothing to look into.
    if !flags.no_sync {
        say(format!("kept: {}", folder.keep().display()));
    }
    Ok(ExitCode::FAILURE)
}
