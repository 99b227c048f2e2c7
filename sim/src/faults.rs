//! The nemesis: which faults come when, drawn from the seed before the run begins, and what each of
//! them does to the world. The list is plain data, so that single faults can be taken out of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holdfast_raft::types::NodeId;
use serde::{Deserialize, Serialize};

use crate::disk::Fuse;
use crate::explain::note::What;
use crate::net::{Effect, OUTSIDE};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::world::Shared;

/// What breaks. Each is described where its weight is, in [`crate::scenario::FaultPlan`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where the weights are")]
pub enum Kind {
    Crash,
    CrashInWrite,
    PowerLoss,
    Restart,
    Pause,
    Isolate,
    Split,
    OneWay,
    Bridge,
    Flap,
    Swizzle,
    SlowLink,
    Lossy,
    ClientCut,
    SlowDisk,
    HungDisk,
    FailedSync,
    FullDisk,
    BitFlip,
    ClockJump,
    Slept,
    SetWrong,
}

/// Every kind, in the order of the weights.
pub const KINDS: [Kind; 22] = [
    Kind::Crash,
    Kind::CrashInWrite,
    Kind::PowerLoss,
    Kind::Restart,
    Kind::Pause,
    Kind::Isolate,
    Kind::Split,
    Kind::OneWay,
    Kind::Bridge,
    Kind::Flap,
    Kind::Swizzle,
    Kind::SlowLink,
    Kind::Lossy,
    Kind::ClientCut,
    Kind::SlowDisk,
    Kind::HungDisk,
    Kind::FailedSync,
    Kind::FullDisk,
    Kind::BitFlip,
    Kind::ClockJump,
    Kind::Slept,
    Kind::SetWrong,
];

impl Kind {
    /// Its name in scenarios, traces and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Crash => "crash",
            Kind::CrashInWrite => "crash_in_write",
            Kind::PowerLoss => "power_loss",
            Kind::Restart => "restart",
            Kind::Pause => "pause",
            Kind::Isolate => "isolate",
            Kind::Split => "split",
            Kind::OneWay => "one_way",
            Kind::Bridge => "bridge",
            Kind::Flap => "flap",
            Kind::Swizzle => "swizzle",
            Kind::SlowLink => "slow_link",
            Kind::Lossy => "lossy",
            Kind::ClientCut => "client_cut",
            Kind::SlowDisk => "slow_disk",
            Kind::HungDisk => "hung_disk",
            Kind::FailedSync => "failed_sync",
            Kind::FullDisk => "full_disk",
            Kind::BitFlip => "bit_flip",
            Kind::ClockJump => "clock_jump",
            Kind::Slept => "slept",
            Kind::SetWrong => "set_wrong",
        }
    }

    /// How many nodes it needs to make sense.
    fn least(self) -> u32 {
        match self {
            Kind::Isolate
            | Kind::Split
            | Kind::OneWay
            | Kind::Bridge
            | Kind::Flap
            | Kind::Swizzle
            | Kind::SlowLink
            | Kind::Lossy
            | Kind::BitFlip => 3,
            _ => 1,
        }
    }

    /// What it is, in a few words.
    fn words(self) -> &'static str {
        match self {
            Kind::Crash => "dies where it stands",
            Kind::CrashInWrite => "is to die inside one of its next writes",
            Kind::PowerLoss => "lose power",
            Kind::Restart => "is stopped cleanly",
            Kind::Pause => "stands still",
            Kind::Isolate => "is cut off from the others",
            Kind::Split => "fall into two halves",
            Kind::OneWay => "are cut apart in one direction",
            Kind::Bridge => "do not hear each other",
            Kind::Flap => "have a link that goes down and up",
            Kind::Swizzle => "lose their links one by one",
            Kind::SlowLink => "have a slow link",
            Kind::Lossy => "lose and double messages",
            Kind::ClientCut => "does not reach its clients",
            Kind::SlowDisk => "has a slow disk",
            Kind::HungDisk => "has a disk that hangs",
            Kind::FailedSync => "is to see its next sync fail",
            Kind::FullDisk => "has a full disk",
            Kind::BitFlip => "has a bit flipped in its log",
            Kind::ClockJump => "has a wall clock that jumps",
            Kind::Slept => "sleep",
            Kind::SetWrong => "have their wall clocks set wrong",
        }
    }

    /// Whom of the nodes of a fault it hits.
    fn hits(self, nodes: &[NodeId]) -> &[NodeId] {
        let count = match self {
            Kind::PowerLoss
            | Kind::Split
            | Kind::Swizzle
            | Kind::Lossy
            | Kind::Slept
            | Kind::SetWrong => nodes.len(),
            Kind::OneWay | Kind::Bridge | Kind::Flap | Kind::SlowLink => 2,
            _ => 1,
        };
        nodes.get(..count).unwrap_or(nodes)
    }

    /// Whether it makes a node unfit for a quorum, so that only a minority may have it at once.
    fn takes_a_vote(self) -> bool {
        matches!(self, Kind::BitFlip | Kind::ClockJump)
    }
}

/// When a fault heals that never does.
pub(crate) const NEVER: u64 = u64::MAX;

fn never() -> u64 {
    NEVER
}

fn is_never(at_ms: &u64) -> bool {
    *at_ms == NEVER
}

/// Numbers of 64 bits as text: TOML has only 63.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{number:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// One fault of a schedule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Its number in the schedule, from 1; stays when others are taken out.
    pub id: u32,
    /// What.
    pub kind: Kind,
    /// When it comes, in simulated milliseconds since the faults began.
    pub at_ms: u64,
    /// When it ends; never without it.
    #[serde(default = "never", skip_serializing_if = "is_never")]
    pub heal_ms: u64,
    /// Whom it hits, in an order that matters to some kinds.
    pub nodes: Vec<NodeId>,
    /// How much: milliseconds for clocks, disks and links, millionths for losses.
    #[serde(default)]
    pub amount: i64,
    /// Which of its variants, as the kind likes.
    #[serde(default, with = "hex")]
    pub variant: u64,
}

impl Fault {
    /// Why it can't happen among so many nodes.
    pub fn check(&self, nodes: u32) -> Result<(), &'static str> {
        if nodes < self.kind.least() {
            return Err("a fault needs more nodes");
        }
        if !self.nodes.iter().all(|node| (1..=u64::from(nodes)).contains(node)) {
            return Err("a fault names a node that there is not");
        }
        let pairs = self.kind.least() > 1 && !matches!(self.kind, Kind::BitFlip | Kind::Lossy);
        if self.nodes.len() < if pairs { 2 } else { 1 } {
            return Err("a fault names too few nodes");
        }
        Ok(())
    }
}

/// For people: what it does, and to whom.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hits: Vec<String> = self.kind.hits(&self.nodes).iter().map(NodeId::to_string).collect();
        let nodes = if hits.len() == 1 { "node" } else { "nodes" };
        write!(f, "{nodes} {} {}", hits.join(", "), self.kind.words())?;
        match self.kind {
            Kind::ClockJump | Kind::Slept | Kind::SetWrong | Kind::SlowDisk | Kind::SlowLink => {
                write!(f, " ({} ms)", self.amount)
            }
            Kind::Lossy => write!(f, " ({} in a million)", self.amount),
            _ => Ok(()),
        }
    }
}

/// Draws the faults of a run.
pub fn schedule(seed: u64, scenario: &Scenario) -> Vec<Fault> {
    let mut rng = Rng::stream(seed, "faults");
    let end_ms = u64::from(scenario.seconds) * 1000;
    let count = u64::from(scenario.faults.per_kilosecond) * u64::from(scenario.seconds) / 1000;
    let mut weights = scenario.faults.weights();
    for (kind, weight) in KINDS.iter().zip(&mut weights) {
        if kind.least() > scenario.nodes {
            *weight = 0;
        }
    }
    let mut times: Vec<u64> = (0..count).map(|_| rng.below(end_ms)).collect();
    times.sort_unstable();
    let mut faults: Vec<Fault> = Vec::new();
    for at_ms in times {
        let Some(kind) = rng.weighted(&weights).map(|at| KINDS[at]) else { break };
        let mut nodes: Vec<NodeId> = (1..=u64::from(scenario.nodes)).collect();
        rng.shuffle(&mut nodes);
        let id = faults.len() as u32 + 1;
        let heal_ms = (at_ms + lasts(&mut rng, scenario)).min(end_ms);
        let amount = amount(&mut rng, kind, scenario);
        let variant = rng.bits();
        let mut fault = Fault { id, kind, at_ms, heal_ms, nodes, amount, variant };
        if kind == Kind::BitFlip {
            fault.heal_ms = NEVER;
        }
        if !kind.takes_a_vote() || fits(&faults, &fault, scenario) {
            faults.push(fault);
        }
    }
    faults
}

/// Short ones are common, long ones come.
fn lasts(rng: &mut Rng, scenario: &Scenario) -> u64 {
    let longest = scenario.faults.longest_ms.max(2);
    match rng.below(4) {
        0 => rng.within(1..longest.min(300)),
        1 | 2 => rng.within(1..longest / 4 + 2),
        _ => rng.within(1..longest),
    }
}

/// The longest step, in milliseconds, that all clocks of a random run make at once: a few of them are
/// less than a request id is remembered for, since a client that asks again over longer ones may
/// rightly be unknown.
fn longest_step(scenario: &Scenario) -> u64 {
    scenario.sizes.request_window_ms / 4
}

fn amount(rng: &mut Rng, kind: Kind, scenario: &Scenario) -> i64 {
    let span = match kind {
        // A sole voter that starts with a wrong clock has nobody to be corrected by.
        Kind::ClockJump if scenario.nodes == 1 => 100,
        Kind::ClockJump => [400, 2_000, 60_000, 3_600_000][rng.below(4) as usize],
        Kind::Slept => {
            let longest = [2_000, 15_000, longest_step(scenario)][rng.below(3) as usize];
            return rng.within(600..longest) as i64;
        }
        Kind::SetWrong => [2_000, 15_000, longest_step(scenario)][rng.below(3) as usize],
        Kind::SlowLink => return rng.within(5..500) as i64,
        Kind::SlowDisk => return rng.within(5..1_500) as i64,
        Kind::Lossy => return rng.within(10_000..400_000) as i64,
        _ => return 0,
    };
    let by = rng.within(1..span) as i64;
    if rng.one_in(2) { by } else { -by }
}

/// Whether a quorum stays fit with this one more.
fn fits(faults: &[Fault], new: &Fault, scenario: &Scenario) -> bool {
    let overlaps = |fault: &&Fault| {
        fault.kind.takes_a_vote() && fault.heal_ms >= new.at_ms && fault.at_ms <= new.heal_ms
    };
    let mut unfit: Vec<_> = faults.iter().filter(overlaps).map(|fault| fault.nodes[0]).collect();
    unfit.push(new.nodes[0]);
    unfit.sort_unstable();
    unfit.dedup();
    scenario.nodes == 1 || unfit.len() as u32 <= scenario.minority()
}

impl Fault {
    /// Whether it has to be ended, when it changed something or not: one that meets a node which is
    /// down already holds it down all the same.
    fn heals(&self, done: bool) -> bool {
        let holds = matches!(self.kind, Kind::Crash | Kind::PowerLoss);
        self.heal_ms != NEVER && self.kind != Kind::Slept && (done || holds)
    }
}

/// Carries out a schedule; returns when its last fault has healed.
pub(crate) async fn run(world: Arc<Shared>, faults: Vec<Fault>) {
    let began = tokio::time::Instant::now();
    let mut tasks = Vec::new();
    for fault in faults {
        let world = Arc::clone(&world);
        tasks.push(tokio::spawn(async move {
            let at = |ms| tokio::time::sleep_until(began + Duration::from_millis(ms));
            let mut rng = Rng::stream(fault.variant, "fault");
            at(fault.at_ms).await;
            // Timers fire when everything else waits. Some turns later is in the middle of things.
            for _ in 0..rng.below(200) {
                tokio::task::yield_now().await;
            }
            let done = begin(&world, &fault, &mut rng);
            world.count_fault(fault.kind, done);
            let (id, kind) = (fault.id, fault.kind.name());
            let Fault { nodes, amount, heal_ms, .. } = &fault;
            world.trace.line(format_args!(
                "fault {id} {kind} nodes={nodes:?} amount={amount} heal_ms={heal_ms} done={done}"
            ));
            if done {
                let hit = fault.kind.hits(&fault.nodes).to_vec();
                world
                    .trace
                    .note(|| What::World { nodes: hit, text: format!("fault {id}: {fault}") });
            }
            if !fault.heals(done) {
                return;
            }
            let heals = began + Duration::from_millis(fault.heal_ms);
            match fault.kind {
                Kind::Flap => flap(&world, &fault, &mut rng, heals).await,
                Kind::Swizzle => swizzle(&world, &fault, &mut rng, heals).await,
                _ => {}
            }
            tokio::time::sleep_until(heals).await;
            heal(&world, &fault);
            world.trace.line(format_args!("heal {id} {kind}"));
            let hit = fault.kind.hits(&fault.nodes).to_vec();
            world.trace.note(|| What::World { nodes: hit, text: format!("fault {id} is over") });
        }));
    }
    for task in tasks {
        if let Err(why) = task.await {
            world.violation("nemesis", "faults", format!("a fault's task ended: {why}"));
        }
    }
}

/// Begins a fault; whether it changed anything.
fn begin(world: &Arc<Shared>, fault: &Fault, rng: &mut Rng) -> bool {
    let node = fault.nodes[0];
    let other = fault.nodes.get(1).copied().unwrap_or(node);
    let (id, net) = (fault.id, &world.net);
    let cut = |from: NodeId, to: NodeId| net.add(id, Some(from), Some(to), Effect::Cut);
    let both = |a: NodeId, b: NodeId| {
        cut(a, b);
        cut(b, a);
    };
    match fault.kind {
        Kind::Crash => {
            world.hold(node, id);
            world.crash(node, "crash")
        }
        Kind::CrashInWrite => world.trouble(node, |trouble| trouble.light(fuse(rng))),
        Kind::PowerLoss => {
            fault.nodes.iter().for_each(|node| world.hold(*node, id));
            let crashed = fault.nodes.iter().filter(|node| world.crash(**node, "power loss"));
            crashed.count() > 0
        }
        Kind::Restart => world.restart(node, id),
        Kind::Pause => {
            net.pause(node);
            true
        }
        Kind::Isolate => {
            // Clients may be on either side of a partition.
            let outside = rng.one_in(2).then_some(OUTSIDE);
            fault.nodes[1..].iter().copied().chain(outside).for_each(|other| both(node, other));
            true
        }
        Kind::Split => {
            let (some, rest) = fault.nodes.split_at(fault.nodes.len() / 2);
            some.iter().for_each(|a| rest.iter().for_each(|b| both(*a, *b)));
            true
        }
        Kind::OneWay => {
            cut(node, other);
            true
        }
        Kind::Bridge => {
            both(node, other);
            true
        }
        Kind::Flap | Kind::Swizzle => true,
        Kind::SlowLink => {
            let delay = Effect::Delay(fault.amount.unsigned_abs());
            net.add(id, Some(node), Some(other), delay);
            net.add(id, Some(other), Some(node), delay);
            true
        }
        Kind::Lossy => {
            let ppm = u32::try_from(fault.amount).unwrap_or(0);
            net.add(id, None, None, Effect::Lossy(ppm));
            true
        }
        Kind::ClientCut => {
            // The answers are lost at least.
            let calls = rng.one_in(2).then_some((OUTSIDE, node));
            calls.into_iter().chain([(node, OUTSIDE)]).for_each(|(from, to)| cut(from, to));
            true
        }
        Kind::SlowDisk => world.trouble(node, |t| t.slow(id, fault.amount.unsigned_abs())),
        Kind::HungDisk => world.trouble(node, |t| t.hang(id)),
        Kind::FailedSync => world.trouble(node, |t| t.light(Fuse::Sync)),
        Kind::FullDisk => world.trouble(node, |t| t.fill(id)),
        Kind::BitFlip => world.damage(node),
        Kind::ClockJump => world.jump(node, fault.amount, rng.one_in(2)),
        Kind::Slept => world.sleep(fault.amount),
        Kind::SetWrong => world.set_wrong(fault.amount, rng.one_in(2)),
    }
}

fn fuse(rng: &mut Rng) -> Fuse {
    let after = rng.one_in(2);
    match rng.below(5) {
        0 => Fuse::Flush { after },
        1 => Fuse::Sync,
        _ => Fuse::Apply { n: rng.below(30) as u32, after },
    }
}

/// Ends a fault.
fn heal(world: &Arc<Shared>, fault: &Fault) {
    let node = fault.nodes[0];
    // Nothing is cut in the name of a fault of another kind.
    world.net.heal(fault.id);
    match fault.kind {
        Kind::Crash | Kind::Restart => world.release(node, fault.id),
        Kind::PowerLoss => fault.nodes.iter().for_each(|node| world.release(*node, fault.id)),
        Kind::Pause => world.net.resume(node),
        Kind::SlowDisk | Kind::HungDisk | Kind::FullDisk => {
            world.trouble(node, |trouble| trouble.heal(fault.id));
        }
        Kind::ClockJump => world.set_right(node),
        Kind::SetWrong => {
            world.set_wrong(-fault.amount, false);
        }
        _ => {}
    }
}

/// Down and up again, many times.
async fn flap(world: &Arc<Shared>, fault: &Fault, rng: &mut Rng, until: tokio::time::Instant) {
    let (a, b) = (fault.nodes[0], fault.nodes[1]);
    while tokio::time::Instant::now() < until {
        world.net.add(fault.id, Some(a), Some(b), Effect::Cut);
        world.net.add(fault.id, Some(b), Some(a), Effect::Cut);
        tokio::time::sleep(rng.millis(10..400)).await;
        world.net.heal(fault.id);
        tokio::time::sleep(rng.millis(10..400)).await;
    }
}

/// Links cut one by one, healed in random order.
async fn swizzle(world: &Arc<Shared>, fault: &Fault, rng: &mut Rng, until: tokio::time::Instant) {
    let (id, nodes) = (fault.id, &fault.nodes);
    let mut pairs: Vec<(NodeId, NodeId)> = nodes
        .iter()
        .flat_map(|a| nodes.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| a != b)
        .collect();
    let step = until.saturating_duration_since(tokio::time::Instant::now())
        / (2 * pairs.len() as u32).max(1);
    rng.shuffle(&mut pairs);
    for (a, b) in &pairs {
        world.net.add(id, Some(*a), Some(*b), Effect::Cut);
        tokio::time::sleep(step).await;
    }
    rng.shuffle(&mut pairs);
    for (a, b) in &pairs {
        world.net.heal_one(id, *a, *b);
        tokio::time::sleep(step).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_follow_from_the_seed_and_keep_a_quorum_fit() {
        for seed in 0..30 {
            let mut scenario = Scenario::randomised(seed);
            (scenario.faults.bit_flip, scenario.faults.clock_jump) = (20, 20);
            let faults = schedule(seed, &scenario);
            assert_eq!(faults, schedule(seed, &scenario));
            for fault in &faults {
                assert!(fault.heal_ms >= fault.at_ms && fault.kind.least() <= scenario.nodes);
                let unfit = |f: &&Fault| {
                    f.kind.takes_a_vote() && f.at_ms <= fault.at_ms && f.heal_ms >= fault.at_ms
                };
                let mut nodes: Vec<_> =
                    faults.iter().filter(unfit).map(|fault| fault.nodes[0]).collect();
                nodes.sort_unstable();
                nodes.dedup();
                assert!(scenario.nodes == 1 || nodes.len() as u32 <= scenario.minority());
            }
        }
    }

    #[test]
    fn a_crash_of_a_node_that_is_down_ends_too() {
        let scenario = Scenario::default();
        let every: Vec<Fault> = (0..20).flat_map(|seed| schedule(seed, &scenario)).collect();
        for kind in [Kind::Crash, Kind::PowerLoss] {
            let fault = every.iter().find(|fault| fault.kind == kind).expect("one of them");
            assert!(fault.heals(true) && fault.heals(false), "{fault}");
            assert!(!Fault { heal_ms: NEVER, ..fault.clone() }.heals(true));
        }
        let pause = every.iter().find(|fault| fault.kind == Kind::Pause).expect("one of them");
        assert!(pause.heals(true) && !pause.heals(false), "it must not be resumed twice");
    }

    #[test]
    fn names_are_those_of_the_weights() {
        for kind in KINDS {
            let text = format!("[faults]\n{} = 77\n", kind.name());
            let scenario = Scenario::parse(&text).expect("a weight of that name");
            let at = KINDS.iter().position(|other| *other == kind).expect("listed");
            assert_eq!(scenario.faults.weights()[at], 77, "{}", kind.name());
        }
    }
}
