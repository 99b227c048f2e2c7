//! What the program prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the program's own output")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_engine::Change;
use holdfast_sim::coverage;
use holdfast_sim::run::{Finding, Report};
use holdfast_sim::shrink::Small;
use holdfast_sim::swarm::Summary;

/// Violations that a summary shows in full.
const SHOWN: usize = 20;

pub(crate) fn line(text: &str) {
    println!("{text}");
}

pub(crate) fn error(text: &str) {
    eprintln!("holdfast-sim: {text}");
}

/// What one run came to.
pub(crate) fn report(report: &Report) {
    let Report { seed, scenario, nodes, simulated_ms, cpu_ms, wall_ms, .. } = report;
    let simulated = *simulated_ms as f64 / 1000.0;
    let (cpu, wall) = (*cpu_ms as f64 / 1000.0, *wall_ms as f64 / 1000.0);
    println!(
        "seed {seed}, scenario {scenario}, {nodes} node(s): {simulated:.1} simulated seconds in \
         {cpu:.2} s of a core ({wall:.2} s), {:.0} per second and core",
        simulated / cpu.max(0.001)
    );
    println!(
        "  {} lives, {} syncs, {} messages ({} lost), finished {:.1} s after the faults",
        report.lives,
        report.syncs,
        report.messages,
        report.lost,
        report.drain_ms as f64 / 1000.0
    );
    counts("faults", &report.faults);
    counts("steps of wall clocks", &report.clocks);
    counts("operations", &report.operations);
    covered(&report.changes, &report.events);
    counts("rare paths", &report.paths);
    println!("  trace {} over {} lines", report.trace, report.trace_lines);
    for one in &report.violations {
        println!("VIOLATION {} ({}): {}", one.rule, one.key, one.text);
    }
    if report.violations.is_empty() {
        println!("  no violation");
    }
}

/// What the logs have seen of all that there is.
fn covered(changes: &BTreeMap<String, u64>, events: &BTreeMap<String, u64>) {
    let (all, never) = (Change::NAMES.len(), coverage::never(changes));
    let seen = all - never.len();
    let never = if never.is_empty() { "-".to_owned() } else { never.join(", ") };
    println!("  changes: {seen} of {all}; never: {never}; events of {} types", events.len());
    counts("changes", changes);
    counts("events", events);
}

fn counts(what: &str, counts: &BTreeMap<String, u64>) {
    let all: u64 = counts.values().sum();
    let each: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("  {all} {what}: {}", each.join(", "));
}

/// A line now and then, and one for each run that found something.
pub(crate) fn progress(report: &Report, summary: &Summary) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for one in report.violations.iter().take(1) {
        let more = report.violations.len() - 1;
        let seed = report.seed;
        println!("seed {seed}: VIOLATION {} ({}): {} (+{more})", one.rule, one.key, one.text);
    }
    let seconds = summary.wall.as_secs();
    if seconds >= NEXT.load(Ordering::Relaxed) {
        NEXT.store(seconds + 10, Ordering::Relaxed);
        println!(
            "{seconds:>5} s: {} seeds, {:.2} simulated hours, {:.0} simulated seconds per second \
             and core, {} violations",
            summary.runs,
            hours(summary.simulated),
            summary.speed(),
            summary.violations.len()
        );
    }
}

fn hours(time: Duration) -> f64 {
    time.as_secs_f64() / 3600.0
}

/// What shrinking came to.
pub(crate) fn small(small: &Small, file: &Path) {
    let Finding { rule, key, text } = &small.finding;
    println!("after {} runs{}:", small.runs, if small.unfinished { ", not finished" } else { "" });
    for line in &small.removed {
        println!("  {line}");
    }
    for fault in small.scenario.fault.iter().flatten() {
        println!("  fault {} at {:.3} s: {fault}", fault.id, fault.at_ms as f64 / 1000.0);
    }
    println!("VIOLATION {rule} ({key}): {text}");
    println!("  holdfast-sim explain --scenario {}", file.display());
}

/// What a swarm came to.
pub(crate) fn summary(summary: &Summary) {
    let by: Vec<String> = summary.by_nodes.iter().map(|(n, runs)| format!("{n}: {runs}")).collect();
    println!(
        "{} seeds (by nodes {}), {:.2} simulated hours in {:.0} s; {:.0} simulated seconds per \
         second and core",
        summary.runs,
        by.join(", "),
        hours(summary.simulated),
        summary.wall.as_secs_f64(),
        summary.speed()
    );
    println!(
        "  {} lives of nodes, {} messages, everything finished at most {:.1} s after the faults",
        summary.lives,
        summary.messages,
        summary.longest_drain.as_secs_f64()
    );
    counts("faults", &summary.faults);
    counts("steps of wall clocks", &summary.clocks);
    counts("operations", &summary.operations);
    covered(&summary.changes, &summary.events);
    counts("rare paths", &summary.paths);
    for (seed, file, one) in summary.violations.iter().take(SHOWN) {
        let how = match file {
            Some(file) => format!("--scenario {}", file.display()),
            None => "--random".to_owned(),
        };
        println!("VIOLATION {} ({}): {}", one.rule, one.key, one.text);
        println!("  holdfast-sim replay --seed {seed} {how}");
    }
    let more = summary.violations.len().saturating_sub(SHOWN);
    if more > 0 {
        println!("  and {more} more");
    }
    println!("{} violations", summary.violations.len());
}
