//! The simulator itself: a seed repeats in every process, and a small swarm finds nothing. More of
//! both with `HOLDFAST_SIM_SEEDS`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_sim::coverage;
use holdfast_sim::explain::explain;
use holdfast_sim::faults::schedule;
use holdfast_sim::mutants;
use holdfast_sim::run::{Options, Report, account};
use holdfast_sim::scenario::Scenario;
use holdfast_sim::swarm::{Plan, swarm};

const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast-sim");

/// How many seeds: so many, or as many as the environment says.
#[expect(clippy::disallowed_methods, reason = "the reader of this test chooses how much of it")]
fn seeds(usual: u64) -> u64 {
    std::env::var("HOLDFAST_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// The scenarios in a folder of this crate, by name.
fn scenarios(folder: &str) -> Vec<(String, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("reads").path());
    let mut examples: Vec<(String, Scenario)> = files
        .map(|path| {
            let text = fs::read_to_string(&path).expect("reads");
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
            (name.expect("a name"), Scenario::parse(&text).expect("a scenario"))
        })
        .collect();
    examples.sort_by(|(one, _), (other, _)| one.cmp(other));
    examples
}

/// The examples, by name.
fn examples() -> Vec<(String, Scenario)> {
    let examples = scenarios("scenarios");
    assert!(examples.len() >= 10);
    examples
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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

/// What must repeat of a run: all but how fast it was.
fn repeats(seed: u64, name: &str, scenario: &Path, folder: &Path) {
    let file = |run: &str| folder.join(format!("{seed}-{name}-{run}"));
    let (first, lines) = run(seed, scenario, &file("a"));
    let (second, again) = run(seed, scenario, &file("b"));
    let differs = lines.split(|c| *c == b'\n').zip(again.split(|c| *c == b'\n'));
    if let Some((one, other)) = differs.into_iter().find(|(one, other)| one != other) {
        let text = String::from_utf8_lossy;
        panic!("seed {seed} of {name} does not repeat:\n{}\n{}", text(one), text(other));
    }
    assert_eq!(lines.len(), again.len(), "seed {seed} of {name}");
    assert!(first.trace_lines > 200, "seed {seed} of {name}: {} lines", first.trace_lines);
    let same = |report: Report| {
        serde_json::to_string(&Report { wall_ms: 0, cpu_ms: 0, ..report }).expect("a report")
    };
    assert_eq!(same(first), same(second), "seed {seed} of {name}");
    fs::remove_file(file("a")).and_then(|()| fs::remove_file(file("b"))).expect("removes");
}

/// Fifty seeds, dealt to the ten examples, each run twice: every line of the traces is the same.
/// With `HOLDFAST_SIM_SEEDS` so many seeds of every example.
#[test]
fn a_seed_repeats_in_another_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut pairs = Vec::new();
    let (examples, each) = (examples(), seeds(0));
    for (at, (name, mut scenario)) in examples.into_iter().enumerate() {
        // Short, and full of faults from the first second on.
        (scenario.seconds, scenario.calm_seconds) = (4, 1);
        scenario.faults.per_kilosecond = 2_000;
        let file = folder.path().join(format!("{name}.toml"));
        fs::write(&file, scenario.to_toml()).expect("writes");
        let dealt: Vec<u64> = match each {
            0 => (1..=50).filter(|seed| seed % 10 == at as u64 % 10).collect(),
            each => (1..=each).collect(),
        };
        pairs.extend(dealt.into_iter().map(|seed| (seed, name.clone(), file.clone())));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| {
                while let Some((seed, name, file)) = pairs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    repeats(*seed, name, file, folder.path());
                }
            });
        }
    });
}

/// The examples in `scenarios/`, a third of their length.
#[test]
fn every_example_runs_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, mut example) in examples() {
        example.seconds /= 3;
        let file = folder.path().join("example.toml");
        fs::write(&file, example.to_toml()).expect("writes");
        let (report, _) = run(1, &file, &folder.path().join("trace"));
        assert!(report.violations.is_empty(), "{name}: {:#?}", report.violations);
        assert!(!report.faults.is_empty(), "{name}: no fault");
    }
}

/// What was found once and mended, each with the seed that it was found with.
#[test]
fn what_was_found_once_is_not_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, scenario) in scenarios("tests/regressions") {
        let file = folder.path().join("regression.toml");
        fs::write(&file, scenario.to_toml()).expect("writes");
        let seed = scenario.seed.expect("a seed");
        let (report, _) = run(seed, &file, &folder.path().join("trace"));
        assert!(report.violations.is_empty(), "{name}: {:#?}", report.violations);
    }
}

/// What is noted for an explanation changes nothing, and the story names who did what.
#[test]
fn an_explanation_is_of_the_same_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut scenario = Scenario { seconds: 10, calm_seconds: 1, ..Scenario::default() };
    scenario.workload.workflow_ids = 3;
    scenario.fault = Some(schedule(5, &scenario));
    scenario.seed = Some(5);
    let file = folder.path().join("explained.toml");
    fs::write(&file, scenario.to_short_toml()).expect("writes");
    let (plain, _) = run(5, &file, &folder.path().join("trace"));
    // One run in this process; whatever else runs here is in processes of its own.
    let (noted, account) = account(5, scenario, Options::default()).expect("runs");
    assert_eq!(plain.trace, noted.trace);
    let story = explain(&noted, &account, Some("w-1"), 80).expect("a story");
    for part in ["leads the shard", "asks for", "is on disk on", "In the end", "has"] {
        assert!(story.contains(part), "{part} is not in\n{story}");
    }
    assert!(story.lines().count() < 130, "{story}");
}

#[test]
fn a_small_swarm_finds_nothing() {
    let plan = Plan {
        program: PROGRAM.into(),
        first: 1000,
        seeds: seeds(12),
        limit: Duration::from_secs(120),
        scenarios: Vec::new(),
        jobs: cores(),
        patience: Duration::from_secs(300),
        until_found: false,
    };
    let summary = swarm(&plan, &|_, _| {});
    assert!(summary.runs > 0);
    assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
    // A few seeds may miss what is rare.
    if summary.runs >= 8 {
        let never = coverage::never(&summary.changes);
        assert!(never.is_empty(), "no log has seen {never:?}");
    }
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
