//! `make bench`: the figures of `RESULTS.md`, each beside its bound.
//!
//! Without a flag all of them, one after the other; with `--throughput`, `--startup`, `--idle` only
//! these.

use std::process::ExitCode;

use clap::Parser;
use holdfast_benches::{Fallible, process, run, say, server};
use load::Plan;

mod load;
mod rest;

/// Measures the server that make built.
#[derive(Parser, Debug)]
struct Flags {
    /// The throughput alone
    #[arg(long)]
    throughput: bool,
    /// The start of the server alone
    #[arg(long)]
    startup: bool,
    /// The server at rest alone
    #[arg(long)]
    idle: bool,
    /// Workflows of the measured window
    #[arg(long, default_value_t = 20_000)]
    workflows: usize,
    /// Workflows that are open at a time
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Workflows of the window with one in flight
    #[arg(long, default_value_t = 1_000)]
    alone: usize,
    /// Open workflows of the folder that is started on
    #[arg(long, default_value_t = 20_000)]
    open: usize,
    /// Seconds of rest
    #[arg(long, default_value_t = 30)]
    rest: u64,
    /// Folder, on a real disk, in which data is made and removed (default: cargo's target folder)
    #[arg(long)]
    on: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    run(bench(flags))
}

async fn bench(flags: Flags) -> Fallible<ExitCode> {
    let on = flags.on.clone().map_or_else(server::target, Ok)?;
    let disk = process::file_system(&on)?;
    if disk.starts_with("tmpfs") || disk.starts_with("ramfs") {
        return Err(format!("{disk}: its syncs cost nothing; name a disk with --on").into());
    }
    let binary = server::binary()?;
    say(format!("machine: {}; load average {}", process::machine(), process::load()));
    say(format!("disk: {disk}"));
    say(format!("server: {}, 4 shards, every write synced; driver beside it", binary.display()));
    let all = !(flags.throughput || flags.startup || flags.idle);
    let mut good = true;
    if all || flags.throughput {
        let plan =
            Plan { workflows: flags.workflows, in_flight: flags.in_flight, alone: flags.alone };
        good &= load::measure(&binary, &on, &plan).await?;
    }
    if all || flags.startup {
        good &= rest::startup(&binary, &on, flags.open).await?;
    }
    if all || flags.idle {
        good &= rest::idle(&binary, &on, flags.rest).await?;
    }
    say(format!("load average {} at the end", process::load()));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A figure beside its bound. Returns whether it keeps it.
fn figure(what: &str, value: f64, unit: &str, bound: f64, at_least: bool) -> bool {
    let good = if at_least { value >= bound } else { value <= bound };
    let (word, verdict) =
        (if at_least { "at least" } else { "at most" }, if good { "kept" } else { "MISSED" });
    say(format!("{what}: {value:.2} {unit} (bound: {word} {bound} {unit}, {verdict})"));
    good
}
