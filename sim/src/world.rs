//! The world: nodes, their machines and disks, the network between them, and what happens to them.
//! Whatever is here outlives the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use holdfast_api::grpc::Frontend;
use holdfast_raft::node::Node;
use holdfast_raft::rt::TaskGroup;
use holdfast_raft::types::NodeId;
use tokio::sync::watch;

use crate::clock::{Machine, NodeClock, TrueTime};
use crate::coverage::Coverage;
use crate::disk::{Disk, SimStore, Trouble};
use crate::explain::note::What;
use crate::faults::Kind;
use crate::judge::Violation;
use crate::net::Net;
use crate::node::{self, Birth};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::trace::Trace;

/// How far a clock may be off before its machine's owner restarts the node; one that is further off
/// than the clock bound sees to it itself.
const CLOCK_OFF: std::ops::Range<u64> = 250_000_000..550_000_000;

/// How long a clean stop may take before the process is killed.
const STOP: Duration = Duration::from_secs(20);

/// The world of a run.
pub struct Shared {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) time: TrueTime,
    pub(crate) net: Net,
    pub(crate) trace: Trace,
    me: Weak<Shared>,
    members: BTreeSet<NodeId>,
    slots: Mutex<BTreeMap<NodeId, Slot>>,
    found: Mutex<Found>,
    steps: Mutex<Vec<Step>>,
    coverage: Mutex<Coverage>,
}

/// A step that the wall clocks of all machines made together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// When, since the beginning of the run.
    pub at: Duration,
    /// By how many nanoseconds.
    pub by: i64,
    /// It is later by so much: the machines slept. Otherwise the clocks were set.
    pub slept: bool,
}

/// What was counted and found on the way.
#[derive(Default)]
struct Found {
    faults: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
}

/// A place for a node: what stays when it dies.
struct Slot {
    machine: Machine,
    disk: Disk,
    rng: Rng,
    /// Lives so far.
    lives: u32,
    life: Option<Life>,
    /// Faults because of which it must not start.
    holds: BTreeSet<u32>,
    /// Its disk is damaged: it is not expected to start again.
    damaged: bool,
}

/// One life of a node, from its start to its death.
struct Life {
    number: u32,
    tasks: Arc<TaskGroup>,
    clock: Arc<NodeClock>,
    /// Once it is open for calls.
    up: Option<Up>,
}

/// A node that takes calls.
#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) tasks: Arc<TaskGroup>,
    pub(crate) frontend: Frontend,
    pub(crate) node: Node,
    pub(crate) store: Arc<SimStore>,
    pub(crate) draining: Arc<watch::Sender<bool>>,
}

impl Shared {
    /// A world without a living node. Call it on the runtime of the run.
    pub fn new(seed: u64, scenario: Arc<Scenario>, trace: Trace) -> Arc<Shared> {
        let time = TrueTime::begin();
        let members: BTreeSet<NodeId> = (1..=u64::from(scenario.nodes)).collect();
        let mut rng = Rng::stream(seed, "machines");
        let mut off = |most: u64| rng.below(2 * most + 1) as i64 - most as i64;
        let mut slots = BTreeMap::new();
        for node in &members {
            let drift = off(scenario.clocks.drift_ppm);
            let skew = off(scenario.clocks.skew_ms) * 1_000_000;
            let slot = Slot {
                machine: Machine::new(time, drift, skew),
                disk: Disk::new(seed, *node, scenario.disk.clone()),
                rng: Rng::stream(seed, &format!("node {node}")),
                lives: 0,
                life: None,
                holds: BTreeSet::new(),
                damaged: false,
            };
            slots.insert(*node, slot);
        }
        let net = Net::new(seed, scenario.net.clone());
        let coverage = Mutex::new(Coverage::new(&scenario.sizes));
        Arc::new_cyclic(|me| Shared {
            scenario,
            time,
            net,
            trace,
            me: me.clone(),
            members,
            slots: Mutex::new(slots),
            found: Mutex::default(),
            steps: Mutex::default(),
            coverage,
        })
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<NodeId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the logs have seen so far.
    pub(crate) fn coverage(&self) -> MutexGuard<'_, Coverage> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something about a node for whoever explains the run.
    fn note(&self, node: NodeId, text: impl FnOnce() -> String) {
        self.trace.note(|| What::World { nodes: vec![node], text: text() });
    }

    pub(crate) fn node_ids(&self) -> Vec<NodeId> {
        self.slots().keys().copied().collect()
    }

    /// A node that takes calls now.
    pub(crate) fn up(&self, node: NodeId) -> Option<Up> {
        self.slots().get(&node)?.life.as_ref()?.up.clone()
    }

    /// Waits until a node is not paused.
    pub(crate) async fn running(&self, node: NodeId) {
        self.net.running(node).await;
    }

    /// Whether a node that is not up is not expected to come up again.
    pub(crate) fn is_lost(&self, node: NodeId) -> bool {
        self.slots().get(&node).is_some_and(|slot| slot.damaged)
    }

    /// A rule that did not hold.
    pub(crate) fn violation(&self, rule: &'static str, key: &str, text: String) {
        self.trace.line(format_args!("violation {rule} {key}: {text}"));
        self.trace.note(|| What::Broken { rule, key: key.to_owned(), text: text.clone() });
        self.found().violations.push(Violation { rule, key: key.to_owned(), text });
    }

    /// What was found on the way, once.
    pub(crate) fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut self.found().violations)
    }

    pub(crate) fn count_fault(&self, kind: Kind, done: bool) {
        if done {
            *self.found().faults.entry(kind.name()).or_default() += 1;
        }
    }

    /// Faults by kind, those that found nothing to break left out.
    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.found().faults.clone()
    }

    /// Lives of all nodes, and syncs of all disks.
    pub(crate) fn lives_and_syncs(&self) -> (u64, u64) {
        let slots = self.slots();
        let lives = slots.values().map(|slot| u64::from(slot.lives)).sum();
        (lives, slots.values().map(|slot| slot.disk.trouble().syncs()).sum())
    }

    /// Does something to what is wrong with a disk. True, for whoever counts.
    pub(crate) fn trouble(&self, node: NodeId, with: impl FnOnce(&Trouble)) -> bool {
        if let Some(slot) = self.slots().get(&node) {
            with(slot.disk.trouble());
        }
        true
    }

    /// Starts every node that is down and may start.
    pub(crate) fn start_all(&self) {
        self.node_ids().into_iter().for_each(|node| self.start(node));
    }

    /// Starts a node, unless it lives or must not.
    pub(crate) fn start(&self, node: NodeId) {
        let Some(me) = self.me.upgrade() else { return };
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(&node) else { return };
        if slot.life.is_some() || !slot.holds.is_empty() {
            return;
        }
        slot.lives += 1;
        let (number, tasks) = (slot.lives, TaskGroup::new());
        let clock = Arc::new(slot.machine.start());
        let (log, store) = slot.disk.open(&self.me, node);
        slot.life =
            Some(Life { number, tasks: Arc::clone(&tasks), clock: Arc::clone(&clock), up: None });
        let birth = Birth { node, number, tasks, clock, log, store, rng: slot.rng.bits() };
        drop(slots);
        self.trace.line(format_args!("start node={node} life={number}"));
        self.note(node, || format!("node {node} starts (its life {number})"));
        let members = self.members.clone();
        tokio::spawn(async move { node::live(me, birth, members).await });
    }

    /// A node has come up, unless it died in the meantime.
    pub(crate) fn is_up(&self, node: NodeId, number: u32, up: Up) {
        let mut slots = self.slots();
        let life = slots.get_mut(&node).and_then(|slot| slot.life.as_mut());
        if let Some(life) = life.filter(|life| life.number == number) {
            life.up = Some(up);
            drop(slots);
            self.trace.line(format_args!("up node={node} life={number}"));
            self.note(node, || format!("node {node} takes calls"));
        }
    }

    /// A node refused to start. It is right to when its disk is damaged, and wrong otherwise.
    pub(crate) fn refused(&self, node: NodeId, number: u32, why: &str) {
        let alive = self.slots().get(&node).is_some_and(|slot| {
            slot.life.as_ref().is_some_and(|life| life.number == number) && !slot.damaged
        });
        if alive {
            self.violation("refused-to-start", &format!("node {node}"), why.to_owned());
        }
        self.trace.line(format_args!("refused node={node} life={number} why={why}"));
        self.note(node, || format!("node {node} refuses to start: {why}"));
        self.end(node, "it refused to start", !self.is_lost(node));
    }

    /// Ends a node where it stands; its disk keeps what a power loss leaves. Starts it again a
    /// little later, unless a fault holds it. False when it is not alive.
    pub(crate) fn crash(&self, node: NodeId, why: &str) -> bool {
        self.end(node, why, true)
    }

    fn end(&self, node: NodeId, why: &str, again: bool) -> bool {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(&node) else { return false };
        let Some(life) = slot.life.take() else { return false };
        life.tasks.kill();
        self.net.remove(node);
        let (pending, kept) = slot.disk.crash();
        let groups = 0..=self.scenario.shards;
        let ends = self.trace.takes_notes().then(|| slot.disk.log_ends(groups));
        let wait = slot.rng.millis(20..2_000);
        drop(slots);
        let number = life.number;
        self.trace.line(format_args!(
            "end node={node} life={number} why={why} pending={pending} kept={kept}"
        ));
        self.note(node, || {
            format!(
                "node {node} ends ({why}); of {pending} writes to its log on the way {kept} stay"
            )
        });
        self.logs_end(node, ends.unwrap_or_default());
        // The handles of a dead node may be the last ones.
        drop(life);
        if again && let Some(me) = self.me.upgrade() {
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                me.start(node);
            });
        }
        true
    }

    /// Keeps a node from starting until [`Shared::release`] with the same fault.
    pub(crate) fn hold(&self, node: NodeId, fault: u32) {
        if let Some(slot) = self.slots().get_mut(&node) {
            slot.holds.insert(fault);
        }
    }

    /// The fault keeps the node from starting no longer.
    pub(crate) fn release(&self, node: NodeId, fault: u32) {
        if let Some(slot) = self.slots().get_mut(&node) {
            slot.holds.remove(&fault);
        }
        self.start(node);
    }

    /// Stops a node as its operator would, and holds it for the fault. False when it is not up.
    pub(crate) fn restart(&self, node: NodeId, fault: u32) -> bool {
        let (Some(me), Some(up)) = (self.me.upgrade(), self.close_doors(node, fault)) else {
            return false;
        };
        self.trace.line(format_args!("stopping node={node}"));
        self.note(node, || format!("node {node} is being stopped and takes no more calls"));
        let tasks = Arc::clone(&up.tasks);
        tokio::spawn(async move {
            let _ = up.draining.send(true);
            let stop = tasks.spawn(async move { up.node.stop().await });
            let stopped = tokio::time::timeout(STOP, stop).await;
            let why = match stopped {
                Ok(Ok(())) => "stopped",
                Ok(Err(_)) => return,
                Err(_) => "killed, it did not stop",
            };
            me.crash(node, why);
        });
        true
    }

    /// New calls find nobody, those under way go on.
    fn close_doors(&self, node: NodeId, fault: u32) -> Option<Up> {
        let mut slots = self.slots();
        let slot = slots.get_mut(&node)?;
        let up = slot.life.as_mut()?.up.take()?;
        slot.holds.insert(fault);
        Some(up)
    }

    /// Flips a bit in the log of a node and ends it: it must not start again.
    pub(crate) fn damage(&self, node: NodeId) -> bool {
        self.end(node, "a bit flipped", true);
        let groups = self.scenario.shards + 1;
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(&node) else { return false };
        let at = slot.disk.damage(groups);
        slot.damaged |= at.is_some();
        drop(slots);
        if let Some((group, index)) = at {
            self.trace.line(format_args!("damage node={node} group={group} index={index}"));
            self.note(node, || {
                format!("a bit flips in entry {index} of node {node}, group {group}")
            });
        }
        at.is_some()
    }

    /// Lets the wall clock of a node jump; with `restart` the node believes it.
    pub(crate) fn jump(&self, node: NodeId, by_ms: i64, restart: bool) -> bool {
        if let Some(slot) = self.slots().get(&node) {
            slot.machine.set_skew(slot.machine.skew().saturating_add(by_ms * 1_000_000));
        }
        if restart {
            self.crash(node, "its clock is set");
        }
        true
    }

    /// The steps that all wall clocks made together.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What all nodes made of the steps of their wall clocks.
    pub(crate) fn taken_over(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for slot in self.slots().values() {
            let steps = slot.machine.steps();
            *counts.entry("forward").or_default() += steps.forward;
            *counts.entry("back").or_default() += steps.back;
            *counts.entry("odd one out").or_default() += steps.odd;
        }
        counts
    }

    /// All machines sleep for so many milliseconds. True, for whoever counts.
    pub(crate) fn sleep(&self, ms: i64) -> bool {
        self.step(ms * 1_000_000, true);
        true
    }

    /// Sets all wall clocks, while the nodes are down or under nodes that run. True, for whoever
    /// counts.
    pub(crate) fn set_wrong(&self, by_ms: i64, down: bool) -> bool {
        self.step(by_ms * 1_000_000, false);
        if down {
            for node in self.node_ids() {
                self.crash(node, "clocks are set");
            }
        }
        true
    }

    fn step(&self, by: i64, slept: bool) {
        for slot in self.slots().values() {
            slot.machine.set_skew(slot.machine.skew().saturating_add(by));
        }
        let step = Step { at: self.time.elapsed(), by, slept };
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }

    /// Sets the wall clock of a node to what those of all show, and restarts the node when its own
    /// clock is off by less than it sees to itself.
    pub(crate) fn set_right(&self, node: NodeId) {
        let all = self.steps().iter().map(|step| step.by).sum();
        let off = self.slots().get(&node).is_some_and(|slot| {
            slot.machine.set_skew(all);
            let off = |life: &Life| life.clock.ahead_of_the_wall().unsigned_abs();
            slot.life.as_ref().is_some_and(|life| CLOCK_OFF.contains(&off(life)))
        });
        if off {
            self.crash(node, "its clock is set right");
        }
    }

    /// Ends every fault and starts every node that can start.
    pub(crate) fn heal_all(&self) {
        self.net.heal_all();
        for slot in self.slots().values_mut() {
            slot.holds.clear();
            slot.disk.trouble().heal_all();
        }
        self.node_ids().into_iter().for_each(|node| self.set_right(node));
        self.start_all();
    }
}
