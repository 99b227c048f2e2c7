//! Every crash of the real log and tables: a child opens a data folder under the shim and works
//! through a script; then the power is cut after each change to the disk that the shim wrote down,
//! in several ways, and what opens from the rest is held against a model.
//!
//! The child notes in a file beside the data folder which step it begins and which one it was told
//! to be durable. The shim journals that file as any other, so its lines stand between the changes
//! of the disk just as they happened.
//!
//! What must hold: the log is what the first `n` steps make, all groups together, where `n` is not
//! below the last acknowledged step and not above the last begun one; the tables are what the first
//! `m` steps make, from the last flush that returned on; nothing is purged that is not applied, and
//! nothing applied that is not in the log; no loss is claimed.
//!
//! Starting again changes the disk, too: of some of the images the recovery itself is run under the
//! shim and cut after each of its changes, in one of the ways.

mod script;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use holdfast_storage::rocks::{Format, LogLimits, Opened, Settings, TablesLimits};

use crate::powerloss::{self, Disk, Event, Image, Journal, Tear};
use crate::rng::Rng;
use crate::{Fallible, say};
use script::{Bounds, GROUPS, Model, Said, Step, digest, steps};

const SEED: u64 = 4;
const STEPS: usize = 420;
/// What stays of the unsynced, at each point.
const CUTS: [Tear; 4] = [Tear::None, Tear::Prefix, Tear::Zeros, Tear::Pages];
/// The child's notes, and the data folder beside them.
const NOTES: &str = "notes";
const DATA: &str = "data";
/// The start from one of so many images is run under the shim.
const RECOVER_ONE_IN: usize = 100;
/// How RocksDB names the files of its write-ahead log, and no others.
const WAL: &str = ".log";
const SHOWN: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cut at one of so many points.
    pub every: usize,
    /// Whether the syncs of the write-ahead log are taken for nothing: the control, which has to fail.
    pub no_sync: bool,
    /// Where all that is random comes from.
    pub seed: u64,
    /// Where images are made.
    pub folder: PathBuf,
    /// The program of the child.
    pub child: PathBuf,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Changes of the disk that the shim saw.
    pub changes: usize,
    /// After how many of them the power was cut.
    pub points: usize,
    /// Cuts in all.
    pub cuts: usize,
    /// How many different folders they left, each of which was opened.
    pub opened: usize,
    /// Starts that were cut themselves.
    pub recoveries: usize,
    /// Cuts in them.
    pub recovery_cuts: usize,
    /// What was not as it must be.
    pub differences: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} changes of the disk, {} cuts each: {} cuts; {} recoveries, {} cuts in them; \
             {} different folders opened; {} differences",
            self.points,
            self.changes,
            CUTS.len(),
            self.cuts,
            self.recoveries,
            self.recovery_cuts,
            self.opened,
            self.differences.len()
        )
    }
}

/// As small as RocksDB allows, so that it writes table files and turns to new logs by itself.
fn settings() -> Settings {
    let small = 64 << 10;
    Settings {
        format: Format { shards: GROUPS - 1, node: 1 },
        exact: true,
        log: LogLimits { write_buffer_bytes: small, ..LogLimits::default() },
        tables: TablesLimits { write_buffer_bytes: small, ..TablesLimits::default() },
        on_fatal: Arc::new(|_| std::process::abort()),
    }
}

/// What the child does: the script, in a new folder below `root`, with notes beside it.
pub fn play(root: &Path) -> Fallible<()> {
    let notes = Arc::new(Notes(File::options().create(true).append(true).open(root.join(NOTES))?));
    let mut opened = Opened::open(&root.join(DATA), &settings())?;
    let (tell, told) = channel();
    let mut waits = 0;
    for (n, step) in (1..).zip(steps(SEED, STEPS)) {
        notes.say("begun", n)?;
        match &step {
            Step::Wait => wait(&told, &mut waits)?,
            Step::Reopen => {
                drop(opened);
                // What was lazy is written by now.
                notes.say("log", n)?;
                opened = Opened::open(&root.join(DATA), &settings())?;
            }
            _ => {
                let (tell, noting) = (tell.clone(), Arc::clone(&notes));
                let done = Box::new(move |result: Result<(), _>| {
                    let noted = result.is_ok() && noting.say("log", n).is_ok();
                    // Whoever waits is there as long as the log is.
                    let _ended = tell.send(noted);
                });
                waits += usize::from(step.is_told());
                step.make(&*opened.log, &*opened.store, done)?;
            }
        }
        if matches!(step, Step::Flush) {
            notes.say("tables", n)?;
        }
    }
    wait(&told, &mut waits)
}

fn wait(told: &Receiver<bool>, waits: &mut usize) -> Fallible<()> {
    for _ in 0..std::mem::take(waits) {
        if !told.recv()? {
            return Err("a write failed".into());
        }
    }
    Ok(())
}

/// What a child does of whose start every change is looked at.
pub fn recover(root: &Path) -> Fallible<()> {
    drop(Opened::open(&root.join(DATA), &settings())?);
    Ok(())
}

/// One line per note, each in one write.
struct Notes(File);

impl Notes {
    fn say(&self, what: &str, step: usize) -> std::io::Result<()> {
        (&self.0).write_all(format!("{what} {step}\n").as_bytes())
    }
}

impl Bounds {
    fn note(&mut self, line: &[u8]) -> Fallible<()> {
        let text = std::str::from_utf8(line)?;
        let (what, step) = text.trim_end().split_once(' ').ok_or("an odd note")?;
        let step = step.parse()?;
        match what {
            "begun" => self.begun = step,
            "log" => self.log = self.log.max(step),
            "tables" => self.tables = step,
            _ => return Err(format!("an odd note: {text}").into()),
        }
        Ok(())
    }
}

/// Runs the child and cuts the power wherever the plan says.
pub fn enumerate(plan: &Plan) -> Fallible<Outcome> {
    let base = plan.folder.canonicalize()?;
    let root = base.join("root");
    fs::create_dir(&root)?;
    let library = powerloss::build_shim(&base.join("shim"))?;
    let mut bench = Bench {
        plan: plan.clone(),
        library,
        rng: Rng::new(plan.seed),
        model: Model::new(&steps(SEED, STEPS))?,
        seen: BTreeMap::new(),
        images: 0,
        base,
        outcome: Outcome::default(),
    };
    let journal = bench.run("play", &root)?;
    let mut disk = Disk::new(plan.no_sync.then_some(WAL));
    let mut bounds = Bounds::default();
    let mut journal = Journal::open(&journal)?;
    while let Some(event) = disk.step(&mut journal)? {
        match event {
            Event::Written { path, bytes } if path == NOTES => bounds.note(&bytes)?,
            Event::Named(path) if path == NOTES => {}
            Event::Nothing => {}
            Event::Written { .. } | Event::Named(_) | Event::Synced => {
                bench.outcome.changes += 1;
                if bench.outcome.changes.is_multiple_of(plan.every.max(1)) {
                    bench.outcome.points += 1;
                    bench.point(&disk, &bounds)?;
                }
            }
        }
    }
    let unseen = disk.differs(&root)?;
    if !unseen.is_empty() {
        return Err(format!("the shim did not see all changes of {}", unseen.join(", ")).into());
    }
    Ok(bench.outcome)
}

/// What a folder says once it is open, or why it does not open.
type Opening = Rc<Result<Said, String>>;

struct Bench {
    plan: Plan,
    library: PathBuf,
    rng: Rng,
    model: Model,
    /// By the digest of the folder.
    seen: BTreeMap<u64, Opening>,
    /// How many of them the child left, not a recovery.
    images: usize,
    base: PathBuf,
    outcome: Outcome,
}

impl Bench {
    /// Runs a child on `root` and returns its journal.
    fn run(&self, scenario: &str, root: &Path) -> Fallible<PathBuf> {
        let journal = self.base.join(format!("journal-of-{scenario}"));
        fs::write(&journal, [])?;
        let mut child = Command::new(&self.plan.child);
        child.arg(scenario).arg(root).envs(powerloss::watch(&self.library, root, &journal));
        let output = child.output()?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{scenario} ended with {}: {words}", output.status).into());
        }
        Ok(journal)
    }

    /// Cuts the power here, in every way.
    fn point(&mut self, disk: &Disk, bounds: &Bounds) -> Fallible<()> {
        for tear in CUTS {
            self.outcome.cuts += 1;
            let (image, lost) = disk.left(tear, &mut self.rng);
            let known = self.seen.len();
            let opening = self.open(&image)?;
            let at = format!("change {}, {tear:?} of {lost}", self.outcome.changes);
            self.judge(&opening, bounds, &at);
            if self.seen.len() > known {
                self.images += 1;
                if self.images.is_multiple_of(RECOVER_ONE_IN) && opening.is_ok() {
                    self.cut_recovery(&image, bounds, &at)?;
                }
            }
        }
        Ok(())
    }

    fn judge(&mut self, opening: &Opening, bounds: &Bounds, at: &str) {
        let found = match &**opening {
            Ok(said) => self.model.differs(said, bounds),
            Err(why) => vec![why.clone()],
        };
        for what in found {
            if self.outcome.differences.len() < SHOWN {
                say(format!("DIFFERENCE at {at}: {what}"));
            }
            self.outcome.differences.push(format!("{at}: {what}"));
        }
    }

    /// Opens the folder of an image, unless the same one was open before.
    fn open(&mut self, image: &Image) -> Fallible<Opening> {
        let files = image.iter().filter(|(path, _)| path.starts_with(DATA) && counts(path));
        let digest = digest(&files.collect::<Vec<_>>());
        if let Some(opening) = self.seen.get(&digest) {
            return Ok(Rc::clone(opening));
        }
        self.outcome.opened += 1;
        let folder = self.base.join("image");
        powerloss::write(image, &folder)?;
        let opening = Rc::new(reading(&folder.join(DATA)));
        self.seen.insert(digest, Rc::clone(&opening));
        Ok(opening)
    }

    /// Runs the start from an image under the shim, and cuts the power after each change it makes.
    fn cut_recovery(&mut self, image: &Image, bounds: &Bounds, at: &str) -> Fallible<()> {
        self.outcome.recoveries += 1;
        let root = self.base.join("recovery");
        powerloss::write(image, &root)?;
        let mut disk = Disk::load(&root, None)?;
        let journal = self.run("recover", &root)?;
        let mut journal = Journal::open(&journal)?;
        let mut change = 0;
        while let Some(event) = disk.step(&mut journal)? {
            if matches!(event, Event::Nothing) {
                continue;
            }
            change += 1;
            self.outcome.recovery_cuts += 1;
            let tear = CUTS[change % CUTS.len()];
            let (image, lost) = disk.left(tear, &mut self.rng);
            let opening = self.open(&image)?;
            let at = format!("{at}; recovery's change {change}, {tear:?} of {lost}");
            self.judge(&opening, bounds, &at);
        }
        Ok(())
    }
}

/// Whether it matters what a file holds: not RocksDB's diary, nor who held the lock.
fn counts(path: &str) -> bool {
    !path.rsplit('/').next().is_some_and(|name| name.starts_with("LOG") || name == "LOCK")
}

fn reading(folder: &Path) -> Result<Said, String> {
    let opened = Opened::open(folder, &settings()).map_err(|why| format!("{why}: {why:?}"))?;
    let mut said = Said::read(&*opened.log, &*opened.store).map_err(|why| why.to_string())?;
    if !opened.lost.is_empty() {
        said.faults.push(format!("a loss is claimed in groups {:?}", opened.lost));
    }
    Ok(said)
}
