//! The crash suites: a server that is killed again and again under work, and those who remember
//! every acknowledgement that it gave.
//!
//! `world` is what all tasks share, `ledger` what was acknowledged, `play` the workflows, workers
//! and clients, `check` what must hold at the end. Here: kill, cut the power, start again.

mod check;
mod ledger;
mod play;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::powerloss::{self, Disk, TEARS, Tear};
use crate::rng::Rng;
use crate::sample::Sample;
use crate::server::{Launch, Server};
use crate::{Fallible, say};
use world::World;

/// For one start of the server, with the data as the crash left it.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// For the acknowledgements between two kills.
const WORK_PATIENCE: Duration = Duration::from_secs(120);
/// For all workflows to end after the last kill.
const END_PATIENCE: Duration = Duration::from_secs(240);
/// How often a server that is starting is killed, too: once in so many starts.
const KILL_A_START: usize = 4;

/// How RocksDB names the files of its write-ahead log, and no others.
const WAL: &str = ".log";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all that is random comes from.
    pub seed: u64,
    /// SIGKILLs under work; more hit the server while it starts.
    pub kills: usize,
    /// Workflows that are open all the time.
    pub workflows: usize,
    /// Acknowledgements between kills, at least.
    pub acks: usize,
    /// Whether the power goes with each kill.
    pub power_loss: bool,
    /// Whether the syncs of the write-ahead log are taken for nothing: the control, which has to fail.
    pub no_sync: bool,
    /// What happens to unsynced writes; anything, by the seed, when not said.
    pub tear: Option<Tear>,
    /// Where the data is made.
    pub folder: PathBuf,
    /// The server's program.
    pub binary: PathBuf,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the server broke; empty when it kept everything.
    pub violations: Vec<String>,
}

/// Runs the suite. An error means that the suite itself could not go on.
pub async fn suite(plan: Plan) -> Fallible<Outcome> {
    let mut rng = Rng::new(plan.seed);
    let folder = plan.folder.canonicalize()?;
    let mut launch = Launch::new(&plan.binary, &folder)?;
    launch.data = Some(folder.join("data"));
    let world = World::new(&launch, plan.workflows, rng.fork())?;
    let mut crasher = Crasher { power: None, launch, rng, downtime: Sample::default() };
    if plan.power_loss {
        crasher.power = Some(Power::new(&plan, &folder)?);
    }

    let server = crasher.start().await?;
    world.rises();
    let players = play::all(&world);
    let outcome = crasher.torment(&world, server, &plan).await;
    let violations = match outcome {
        Ok(server) => {
            let found = check::all(&world).await;
            server.stop().await?;
            found
        }
        Err(Trouble::Broken(what)) => vec![what],
        Err(Trouble::Suite(error)) => return Err(error),
    };
    drop(players);
    say(format!("down for {}", crasher.downtime.summary()));
    Ok(Outcome { violations: world.violations().into_iter().chain(violations).collect() })
}

/// Why a run ended early.
enum Trouble {
    /// The server broke a promise.
    Broken(String),
    /// The suite is at fault.
    Suite(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Suite(error.into())
    }
}

struct Crasher {
    launch: Launch,
    rng: Rng,
    power: Option<Power>,
    downtime: Sample,
}

impl Crasher {
    /// Fills the server, kills it as often as planned, and lets the workflows end.
    async fn torment(
        &mut self,
        world: &Arc<World>,
        mut server: Server,
        plan: &Plan,
    ) -> Result<Server, Trouble> {
        let filled = timeout(WORK_PATIENCE, world.filled()).await;
        filled.map_err(|_| stuck(world, "the first workflows do not start", &server))?;
        say(format!("{} workflows open", plan.workflows));
        for kill in 1..=plan.kills {
            let before = world.acks();
            let wanted = before + plan.acks + self.rng.below(plan.acks + 1);
            let enough = timeout(WORK_PATIENCE, world.acks_reach(wanted)).await;
            enough.map_err(|_| stuck(world, "the work does not go on", &server))?;
            sleep(Duration::from_micros(self.rng.below(20_000) as u64)).await;
            if let Some(status) = server.ended()? {
                let words = server.last_words();
                return Err(Trouble::Broken(format!("the server ended: {status}\n{words}")));
            }
            let down = Instant::now();
            world.falls();
            server.kill()?;
            let acks = world.acks() - before;
            let (note, next) = self.rise_again(kill).await?;
            server = next;
            let down = down.elapsed();
            self.downtime.add(down);
            say(format!("kill {kill}: after {acks} acknowledgements; back in {down:.0?}{note}"));
            world.rises();
        }
        world.finish();
        let ended = timeout(END_PATIENCE, world.all_closed()).await;
        ended.map_err(|_| stuck(world, "not every workflow completes", &server))?;
        Ok(server)
    }

    /// After a kill: cuts the power if that is the plan, and starts the server again, which may be
    /// killed in that, too.
    async fn rise_again(&mut self, kill: usize) -> Result<(String, Server), Trouble> {
        let mut note = String::new();
        loop {
            if let Some(power) = &mut self.power {
                note += &power.cut(&mut self.rng)?;
            }
            if self.rng.one_in(KILL_A_START) {
                let server = self.spawn()?;
                let after = Duration::from_micros(self.rng.below(200_000) as u64);
                sleep(after).await;
                server.kill()?;
                note += &format!(", killed {after:.0?} after a start");
                continue;
            }
            // Not the suite's fault when it does not start on what a crash left.
            let started = self.start().await;
            return match started {
                Ok(server) => Ok((note, server)),
                Err(error) => Err(Trouble::Broken(format!("after kill {kill}{note}: {error}"))),
            };
        }
    }

    fn spawn(&mut self) -> Fallible<Server> {
        if let Some(power) = &mut self.power {
            self.launch.environment = power.watch()?;
        }
        self.launch.spawn()
    }

    async fn start(&mut self) -> Fallible<Server> {
        let mut server = self.spawn()?;
        server.wait(self.launch.port, START_PATIENCE).await?;
        Ok(server)
    }
}

fn stuck(world: &World, what: &str, server: &Server) -> Trouble {
    Trouble::Broken(format!("{what}: {}\n{}", world.summary(), server.last_words()))
}

/// The shim, and the disk that it tells of.
struct Power {
    library: PathBuf,
    root: PathBuf,
    journal: PathBuf,
    unsynced: Option<&'static str>,
    tear: Option<Tear>,
    disk: Disk,
}

impl Power {
    fn new(plan: &Plan, folder: &Path) -> Fallible<Self> {
        let root = folder.join("data");
        fs::create_dir_all(&root)?;
        Ok(Self {
            library: powerloss::build_shim(&crate::server::target()?.join("powerloss"))?,
            root,
            journal: folder.join("journal"),
            unsynced: plan.no_sync.then_some(WAL),
            tear: plan.tear,
            disk: Disk::default(),
        })
    }

    /// Takes the folder as it is for safe, and returns what puts the next server under watch.
    fn watch(&mut self) -> Fallible<Vec<(&'static str, PathBuf)>> {
        self.disk = Disk::load(&self.root, self.unsynced)?;
        fs::write(&self.journal, [])?;
        Ok(powerloss::watch(&self.library, &self.root, &self.journal))
    }

    /// Leaves in the folder what a disk could hold.
    fn cut(&mut self, rng: &mut Rng) -> Fallible<String> {
        let syncs = self.disk.replay(&self.journal)?;
        let unseen = self.disk.differs(&self.root)?;
        if !unseen.is_empty() {
            return Err(format!("the shim did not see all changes of {}", unseen.join(", ")).into());
        }
        let tear = self.tear.or_else(|| rng.pick(&TEARS).copied()).unwrap_or(Tear::None);
        let lost = self.disk.cut(&self.root, tear, rng)?;
        let stays = tear.what_stays();
        Ok(format!("; power lost after {syncs} syncs, unsynced {lost}: {stays}"))
    }
}
