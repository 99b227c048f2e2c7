//! The simulator itself: a seed repeats in every process, and a small swarm finds nothing. More of
//! both with `HOLDFAST_SIM_SEEDS`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_sim::mutants;
use holdfast_sim::run::Report;
use holdfast_sim::scenario::Scenario;
use holdfast_sim::swarm::{Plan, swarm};

const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast-sim");

/// How many seeds: so many, or as many as the environment says.
#[expect(clippy::disallowed_methods, reason = "the reader of this test chooses how much of it")]
fn seeds(usual: u64) -> u64 {
    std::env::var("HOLDFAST_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// A random scenario, shortened.
fn scenario(folder: &Path, seed: u64) -> PathBuf {
    let mut scenario = Scenario::randomised(seed);
    scenario.seconds = 20;
    scenario.name = format!("short {seed}");
    let file = folder.join(format!("{seed}.toml"));
    fs::write(&file, scenario.to_toml()).expect("writes");
    file
}

fn run(seed: u64, scenario: &Path, trace: &Path) -> (Report, Vec<u8>) {
    let output = Command::new(PROGRAM)
        .args(["run", "--json", "--seed", &seed.to_string(), "--scenario"])
        .arg(scenario)
        .arg("--trace")
        .arg(trace)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text);
    let report = report.unwrap_or_else(|why| {
        panic!("seed {seed}: {why}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    (report, fs::read(trace).expect("a trace"))
}

#[test]
fn a_seed_repeats_in_another_process() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 1..=seeds(6) {
        let file = scenario(folder.path(), seed);
        let (first, lines) = run(seed, &file, &folder.path().join("a"));
        let (second, again) = run(seed, &file, &folder.path().join("b"));
        let differs = lines.split(|c| *c == b'\n').zip(again.split(|c| *c == b'\n'));
        if let Some((one, other)) = differs.into_iter().find(|(one, other)| one != other) {
            let text = String::from_utf8_lossy;
            panic!("seed {seed} does not repeat:\n{}\n{}", text(one), text(other));
        }
        assert_eq!(lines.len(), again.len(), "seed {seed}");
        assert!(first.trace_lines > 1000, "seed {seed}: {} lines", first.trace_lines);
        let same = |report: Report| {
            serde_json::to_string(&Report { wall_ms: 0, cpu_ms: 0, ..report }).expect("a report")
        };
        assert_eq!(same(first), same(second), "seed {seed}");
    }
}

/// The examples in `scenarios/`, a third of their length.
#[test]
fn every_example_runs_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut seen = 0;
    for entry in fs::read_dir(examples).expect("the examples") {
        let path = entry.expect("reads").path();
        let text = fs::read_to_string(&path).expect("reads");
        let mut example = Scenario::parse(&text).expect("a scenario");
        example.seconds /= 3;
        let file = folder.path().join("example.toml");
        fs::write(&file, example.to_toml()).expect("writes");
        let (report, _) = run(1, &file, &folder.path().join("trace"));
        assert!(report.violations.is_empty(), "{}: {:#?}", path.display(), report.violations);
        assert!(!report.faults.is_empty(), "{}: no fault", path.display());
        seen += 1;
    }
    assert!(seen >= 10);
}

#[test]
fn a_small_swarm_finds_nothing() {
    let plan = Plan {
        program: PROGRAM.into(),
        first: 1000,
        seeds: seeds(12),
        limit: Duration::from_secs(120),
        scenarios: Vec::new(),
        jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        patience: Duration::from_secs(120),
        until_found: false,
    };
    let summary = swarm(&plan, &|_, _| {});
    assert!(summary.runs > 0);
    assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
}

/// Each planted bug can still be planted, in a tree that has no other use for it.
#[test]
fn every_planted_bug_fits_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let planted = mutants::all(&root).expect("the patches");
    assert!(planted.len() >= 20, "{} planted bugs", planted.len());
    let readme = fs::read_to_string(root.join("sim/README.md")).expect("reads");
    let mut wrong = Vec::new();
    for mutant in planted {
        wrong.extend(mutant.fits(&root).err().map(|why| format!("{}: {why}", mutant.name)));
        for scenario in &mutant.scenarios {
            let text = fs::read_to_string(root.join(scenario)).expect("reads");
            Scenario::parse(&text).expect("a scenario");
        }
        if !readme.contains(&format!("| `{}` | {} |", mutant.name, mutant.title)) {
            wrong.push(format!("{}: not in the README as it is", mutant.name));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
