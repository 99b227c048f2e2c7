//! Planted bugs: each patch in `sim/mutants/` puts one believable mistake into a copy of the tree,
//! and the simulator has to find it. Nothing in the product knows of this.
//!
//! ```text
//! copy of the tree -> apply one patch -> build -> swarm until the first violation -> next
//! ```
//! The copy and its build stay in `target/mutants`, and so does what came of each patch: a patch
//! that was tried on the same sources is not tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::run::Finding;
use crate::swarm::{self, swarm};
use crate::wall::Stopwatch;

/// Where the patches are.
const FOLDER: &str = "sim/mutants";
/// Which share of them has to be found, in percent.
const WANTED: usize = 90;
/// How long the tree without a patch is looked at first; half of it with random scenarios.
const SANITY: Duration = Duration::from_secs(90);
/// Real seconds after which a run hangs. One takes a few, but cores may be busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// What was made for this machine and git does not have.
const PREPARED: &str = ".cargo/rocksdb.toml";
/// Around the table in the README.
const MARKS: [&str; 2] = ["<!-- planted bugs: from here -->", "<!-- planted bugs: to here -->"];

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The folder of the workspace.
    pub root: PathBuf,
    /// Beginnings of names, with or without the number; none: all.
    pub only: Vec<String>,
    /// How long each is looked for, its build not counted.
    pub limit: Duration,
    /// Also those whose result is known.
    pub again: bool,
    /// Processes at once.
    pub jobs: usize,
    /// Write the table into the simulator's README.
    pub readme: bool,
}

/// A planted bug.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The patch's name without its ending.
    pub name: String,
    /// What is planted, in a line.
    pub title: String,
    /// The scenarios in which it is looked for; none: random ones.
    pub scenarios: Vec<String>,
    /// Why it is not found, of those of which that is known. It counts as missed all the same.
    pub excuse: Option<String>,
    patch: PathBuf,
    text: String,
}

/// What came of a planted bug.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Hash of the patch, and of the sources that it was applied to.
    key: String,
    /// How long it was looked for at most.
    limit_s: u64,
    /// How long it was looked for.
    pub seconds: f64,
    /// Seeds that ran.
    pub seeds: u64,
    /// What was found first.
    pub found: Option<Found>,
    /// It could not be tried.
    pub broken: Option<String>,
}

/// The first violation, and what else its seed showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The scenario file, or none for a random one.
    pub scenario: Option<PathBuf>,
    /// Every rule that did not hold with this seed.
    pub rules: Vec<String>,
    /// How the first of them did not.
    pub text: String,
}

impl Verdict {
    /// Whether it says all that a run with this limit would.
    fn stands(&self, key: &str, limit: Duration) -> bool {
        self.key == key
            && self.broken.is_none()
            && (self.found.is_some() || self.limit_s >= limit.as_secs())
    }

    fn summary(&self, mutant: &Mutant) -> String {
        let Verdict { seconds, seeds, .. } = self;
        match (&self.found, &self.broken) {
            (_, Some(why)) => format!("broken: {why}"),
            (Some(Found { rules, seed, .. }), _) => {
                let rules = rules.join(", ");
                format!("found by {rules} in {seconds:.0} s, seed {seed}, {seeds} seeds")
            }
            (None, None) => {
                let why = mutant.excuse.as_deref().unwrap_or("nobody knows why");
                format!("MISSED in {seconds:.0} s, {seeds} seeds: {why}")
            }
        }
    }
}

/// The planted bugs of a tree, by name.
pub fn all(root: &Path) -> Result<Vec<Mutant>, String> {
    let folder = root.join(FOLDER);
    let entries = fs::read_dir(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let mut mutants = Vec::new();
    for entry in entries {
        let path = entry.map_err(|why| why.to_string())?.path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            mutants.push(Mutant::read(path)?);
        }
    }
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(mutants)
}

impl Mutant {
    /// A text, then the patch. Lines of the text that begin with `scenario:` and `missed:` are for
    /// [`Mutant::scenarios`] and [`Mutant::excuse`].
    fn read(patch: PathBuf) -> Result<Mutant, String> {
        let text = fs::read_to_string(&patch).map_err(|e| format!("{}: {e}", patch.display()))?;
        let head = text.lines().take_while(|line| !line.starts_with("--- "));
        let head: Vec<&str> = head.filter(|line| !line.starts_with("diff ")).collect();
        let named = |name: &str| {
            let values = head.iter().filter_map(|line| line.strip_prefix(name));
            values.map(|value| value.trim().to_owned()).collect::<Vec<_>>()
        };
        let name = patch.file_stem().map(|name| name.to_string_lossy().into_owned());
        Ok(Mutant {
            name: name.unwrap_or_default(),
            title: head.first().map_or(String::new(), |line| line.trim().to_owned()),
            scenarios: named("scenario:"),
            excuse: named("missed:").pop(),
            patch,
            text,
        })
    }

    /// Whether the patch fits the tree in `root`, or why not.
    pub fn fits(&self, root: &Path) -> Result<(), String> {
        self.apply(root, &["--check"])
    }

    fn apply(&self, tree: &Path, how: &[&str]) -> Result<(), String> {
        let tree = tree.canonicalize().map_err(|why| why.to_string())?;
        let patch = self.patch.canonicalize().map_err(|why| why.to_string())?;
        let mut git = Command::new("git");
        git.arg("apply").args(how).arg(patch).current_dir(&tree).env_remove("GIT_DIR");
        // A repository further up would make git look for the paths in there.
        git.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(&tree));
        outcome(&mut git).map(drop)
    }

    fn is_meant(&self, only: &[String]) -> bool {
        let plain = self.name.split_once('_').map_or("", |(_, name)| name);
        let meant = |name: &String| self.name.starts_with(name) || plain.starts_with(name);
        only.is_empty() || only.iter().any(meant)
    }
}

/// Runs a program to its end; its output, or the end of its complaints.
fn outcome(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|why| format!("{}: {why}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(lines[lines.len().saturating_sub(12)..].join("\n"))
}

/// What came of all of them.
#[derive(Debug)]
pub struct Summary {
    /// The planted bugs that were meant, in order, with what came of them.
    pub verdicts: Vec<(Mutant, Verdict)>,
}

impl Summary {
    fn found(&self) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| verdict.found.is_some()).count()
    }

    /// Whether enough of them were found.
    pub fn is_enough(&self) -> bool {
        self.found() * 100 >= self.verdicts.len() * WANTED
    }

    /// One line each, and one about all.
    pub fn lines(&self) -> Vec<String> {
        let row = |(mutant, verdict): &(Mutant, Verdict)| {
            format!("{:32} {}", mutant.name, verdict.summary(mutant))
        };
        let mut lines: Vec<String> = self.verdicts.iter().map(row).collect();
        lines.push(format!("{} of {} found", self.found(), self.verdicts.len()));
        lines
    }

    /// As a table of the README.
    fn table(&self) -> String {
        let mut table = "| planted | what | found by | after |\n|---|---|---|---|\n".to_owned();
        for (mutant, verdict) in &self.verdicts {
            let by = match &verdict.found {
                Some(found) => found.rules.join(", "),
                None if verdict.broken.is_some() => "could not be tried".to_owned(),
                None => {
                    format!("missed: {}", mutant.excuse.as_deref().unwrap_or("nobody knows why"))
                }
            };
            let (name, title, seconds) = (&mutant.name, &mutant.title, verdict.seconds);
            let _ = writeln!(table, "| `{name}` | {title} | {by} | {seconds:.0} s |");
        }
        let _ = writeln!(table, "\n{} of {} found.", self.found(), self.verdicts.len());
        table
    }
}

/// Tries the planted bugs. `say` hears of each.
pub fn run(plan: &Plan, say: &dyn Fn(&str)) -> Result<Summary, String> {
    let known = all(&plan.root)?;
    let mutants: Vec<Mutant> = known.into_iter().filter(|one| one.is_meant(&plan.only)).collect();
    if mutants.is_empty() {
        return Err("there is no such planted bug".to_owned());
    }
    let shop = Workshop::open(&plan.root)?;
    let sources = shop.renew()?;
    let mut results = shop.results();
    shop.sanity(plan, &mutants, &sources, &mut results, say)?;
    let mut verdicts = Vec::new();
    for mutant in mutants {
        let key = shop.key(&sources, &mutant.text, &mutant.scenarios);
        let known = results.get(&mutant.name).filter(|_| !plan.again);
        let verdict = match known.filter(|known| known.stands(&key, plan.limit)) {
            Some(known) => known.clone(),
            None => {
                let verdict = shop.attempt(plan, &mutant, &sources, key);
                results.insert(mutant.name.clone(), verdict.clone());
                shop.keep(&results)?;
                verdict
            }
        };
        say(&format!("{}: {}", mutant.name, verdict.summary(&mutant)));
        verdicts.push((mutant, verdict));
    }
    shop.renew()?;
    let summary = Summary { verdicts };
    if plan.readme && plan.only.is_empty() {
        write_table(&plan.root, &summary.table())?;
    }
    Ok(summary)
}

/// Replaces what stands between the marks.
fn write_table(root: &Path, table: &str) -> Result<(), String> {
    let path = root.join("sim/README.md");
    let text = fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    let [from, to] = MARKS;
    let parts = text.split_once(from).and_then(|(head, rest)| Some((head, rest.split_once(to)?)));
    let Some((head, (_, tail))) = parts else {
        return Err(format!("{} has no place for the table", path.display()));
    };
    let text = format!("{head}{from}\n\n{table}\n{to}{tail}");
    fs::write(&path, text).map_err(|why| format!("{}: {why}", path.display()))
}

/// Names of the results that are of no patch.
const UNPATCHED: &str = "unpatched";

type Results = BTreeMap<String, Verdict>;

/// The copy of the tree, and where it is built.
struct Workshop {
    root: PathBuf,
    tree: PathBuf,
    build: PathBuf,
    results: PathBuf,
}

impl Workshop {
    fn open(root: &Path) -> Result<Workshop, String> {
        let root = root.canonicalize().map_err(|why| format!("{}: {why}", root.display()))?;
        let folder = root.join("target/mutants");
        let (tree, build) = (folder.join("tree"), folder.join("build"));
        for folder in [&tree, &build] {
            fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        }
        Ok(Workshop { root, tree, build, results: folder.join("results.json") })
    }

    /// Makes the copy equal to the tree. What is equal stays untouched, or cargo would build it
    /// again. Gives the hash of what a run can depend on.
    fn renew(&self) -> Result<String, String> {
        let mut git = Command::new("git");
        let listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let listed = outcome(git.args(listing).current_dir(&self.root))?;
        let listed = String::from_utf8(listed).map_err(|why| why.to_string())?;
        let mut files: BTreeSet<&str> = listed.split('\0').filter(|f| !f.is_empty()).collect();
        files.insert(PREPARED);
        files.retain(|file| self.root.join(file).is_file());
        let mut hash = Xxh3::new();
        for file in &files {
            let (from, to) = (self.root.join(file), self.tree.join(file));
            let failed = |why: std::io::Error| format!("{}: {why}", to.display());
            let new = fs::read(&from).map_err(failed)?;
            if matters(file) {
                hash.update(file.as_bytes());
                hash.update(&new);
            }
            if fs::read(&to).is_ok_and(|old| old == new) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&self.tree)).map_err(failed)?;
            fs::copy(&from, &to).map_err(failed)?;
            // A copy may keep the time of the original, which cargo would take for old.
            let touched = fs::File::options().append(true).open(&to);
            touched.and_then(|file| file.set_modified(now())).map_err(failed)?;
        }
        self.forget_others(&self.tree, &files)?;
        Ok(format!("{:016x}", hash.digest()))
    }

    /// Removes from the copy what the tree does not have.
    fn forget_others(&self, folder: &Path, files: &BTreeSet<&str>) -> Result<(), String> {
        let failed = |why: std::io::Error| format!("{}: {why}", folder.display());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.strip_prefix(&self.tree).unwrap_or(&path).to_string_lossy();
            if path.is_dir() {
                self.forget_others(&path, files)?;
            } else if !files.contains(&*name) {
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn results(&self) -> Results {
        let text = fs::read_to_string(&self.results).unwrap_or_default();
        // A file of another version is worth nothing.
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn keep(&self, results: &Results) -> Result<(), String> {
        let text = serde_json::to_string_pretty(results).map_err(|why| why.to_string())?;
        let new = self.results.with_extension("new");
        let failed = |why: std::io::Error| format!("{}: {why}", self.results.display());
        fs::write(&new, text).map_err(failed)?;
        fs::rename(&new, &self.results).map_err(failed)
    }

    fn key(&self, sources: &str, patch: &str, scenarios: &[String]) -> String {
        let texts = scenarios.iter().map(|file| fs::read(self.root.join(file)).unwrap_or_default());
        let all: Vec<u8> = patch.bytes().chain(texts.flatten()).collect();
        format!("{sources}-{:016x}", xxh3_64(&all))
    }

    fn paths(&self, scenarios: &[String]) -> Vec<PathBuf> {
        scenarios.iter().map(|file| self.root.join(file)).collect()
    }

    /// The tree without a patch must show nothing, or what a patch shows says nothing.
    fn sanity(
        &self,
        plan: &Plan,
        mutants: &[Mutant],
        sources: &str,
        results: &mut Results,
        say: &dyn Fn(&str),
    ) -> Result<(), String> {
        let named: BTreeSet<String> =
            mutants.iter().flat_map(|mutant| mutant.scenarios.clone()).collect();
        let named: Vec<String> = named.into_iter().collect();
        let key = self.key(sources, "", &named);
        let known = results.get(UNPATCHED).is_some_and(|known| known.stands(&key, Duration::ZERO));
        if known && self.unpatched().is_file() {
            return Ok(());
        }
        let watch = Stopwatch::start();
        self.build()?;
        // From here on the binary is of these sources, whatever comes of it.
        results.remove(UNPATCHED);
        self.keep(results)?;
        let built = self.build.join("release/holdfast-sim");
        fs::copy(built, self.unpatched()).map_err(|why| why.to_string())?;
        say(&format!("built without a patch in {:.0} s", watch.elapsed().as_secs_f64()));
        let limit = if named.is_empty() { SANITY } else { SANITY / 2 };
        let mut verdict = self.look(plan, key.clone(), &[], limit);
        if verdict.found.is_none() && !named.is_empty() {
            let more = self.look(plan, key, &self.paths(&named), limit);
            let (seconds, seeds) = (verdict.seconds + more.seconds, verdict.seeds + more.seeds);
            verdict = Verdict { seconds, seeds, ..more };
        }
        if let Some(found) = &verdict.found {
            return Err(format!("without a patch: {} (seed {})", found.text, found.seed));
        }
        if let Some(why) = &verdict.broken {
            return Err(format!("without a patch: {why}"));
        }
        say(&format!("without a patch: {} seeds, no violation", verdict.seeds));
        results.insert(UNPATCHED.to_owned(), verdict);
        self.keep(results)
    }

    /// Applies, builds, looks. What goes wrong is a verdict too: the others are still to be tried.
    fn attempt(&self, plan: &Plan, mutant: &Mutant, sources: &str, key: String) -> Verdict {
        let same = |now: String| match now == sources {
            true => Ok(()),
            false => Err("the tree has changed since the beginning".to_owned()),
        };
        let ready = self.renew().and_then(same).and_then(|()| mutant.apply(&self.tree, &[]));
        match ready.and_then(|()| self.build()) {
            Ok(()) => {
                let verdict = self.look(plan, key, &self.paths(&mutant.scenarios), plan.limit);
                self.confirmed(plan, verdict)
            }
            Err(why) => {
                let (limit_s, broken) = (plan.limit.as_secs(), Some(why));
                Verdict { key, limit_s, seconds: 0.0, seeds: 0, found: None, broken }
            }
        }
    }

    /// A seed that shows something without the patch too says nothing about it.
    fn confirmed(&self, plan: &Plan, verdict: Verdict) -> Verdict {
        let Some(found) = &verdict.found else { return verdict };
        let scenarios: Vec<PathBuf> = found.scenario.iter().cloned().collect();
        let summary = swarm(
            &swarm::Plan {
                program: self.unpatched(),
                first: found.seed,
                seeds: 1,
                ..self.plan(plan, scenarios, Duration::MAX)
            },
            &|_, _| {},
        );
        match summary.violations.first() {
            Some((seed, _, one)) => {
                let why = format!("seed {seed} shows it without the patch: {}", one.text);
                Verdict { found: None, broken: Some(why), ..verdict }
            }
            None => verdict,
        }
    }

    fn unpatched(&self) -> PathBuf {
        self.build.with_file_name("holdfast-sim-unpatched")
    }

    fn plan(&self, plan: &Plan, scenarios: Vec<PathBuf>, limit: Duration) -> swarm::Plan {
        swarm::Plan {
            program: self.build.join("release/holdfast-sim"),
            first: 1,
            seeds: u64::MAX,
            limit,
            scenarios,
            jobs: plan.jobs,
            patience: PATIENCE,
            until_found: true,
        }
    }

    /// Builds the copy. Only what the patch touches, and what depends on it, is compiled, in small
    /// units and with little effort for our own crates: ten seconds and not a minute and a half, for
    /// a swarm that often runs no longer than that. What it depends on is compiled as always.
    fn build(&self) -> Result<(), String> {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--quiet", "-p", "holdfast-sim"]);
        for package in ["engine", "storage", "raft", "api", "sim"] {
            cargo.arg("--config");
            cargo.arg(format!("profile.release.package.holdfast-{package}.opt-level=1"));
        }
        cargo.current_dir(&self.tree);
        cargo.env("CARGO_TARGET_DIR", &self.build).env("CARGO_INCREMENTAL", "1");
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256");
        outcome(&mut cargo).map(drop)
    }

    fn look(&self, plan: &Plan, key: String, scenarios: &[PathBuf], limit: Duration) -> Verdict {
        let summary = swarm(&self.plan(plan, scenarios.to_vec(), limit), &|_, _| {});
        // A process that did not report, say for a broken build, has not looked at anything; where
        // others did, it ended for what they found.
        let (mute, found): (Vec<_>, Vec<_>) = summary.violations.iter().partition(is_mute);
        let broken = mute.first().filter(|_| found.is_empty());
        let broken = broken.map(|(.., one)| one.text.clone());
        let says = |one: &&&Violation| one.2.rule != "hangs";
        let best = found.iter().find(says).or(found.first()).copied();
        let found = best.map(|(seed, scenario, first)| {
            let same = summary.violations.iter().filter(|(other, ..)| other == seed);
            let rules: BTreeSet<String> = same.map(|(.., one)| one.rule.clone()).collect();
            Found {
                seed: *seed,
                scenario: scenario.clone(),
                rules: rules.into_iter().collect(),
                text: format!("{} ({}): {}", first.rule, first.key, first.text),
            }
        });
        let seconds = summary.wall.as_secs_f64();
        Verdict { key, limit_s: limit.as_secs(), seconds, seeds: summary.runs, found, broken }
    }
}

/// A seed, its scenario file, and what was found.
type Violation = (u64, Option<PathBuf>, Finding);

fn is_mute((.., one): &&Violation) -> bool {
    ["no-report", "no-process"].contains(&one.rule.as_str())
}

/// Whether what a seed comes to can depend on a file.
fn matters(file: &str) -> bool {
    let source = [".rs", ".toml", ".lock"].iter().any(|ending| file.ends_with(ending));
    let other = file.contains("/tests/")
        || [FOLDER, "benches/", "sim/scenarios/"].iter().any(|folder| file.starts_with(folder))
        || ["sim/src/mutants.rs", "sim/src/say.rs"].contains(&file);
    source && !other
}

#[expect(clippy::disallowed_methods, reason = "the time of a file, which cargo compares")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
