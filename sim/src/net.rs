//! The network: messages between nodes, and the way of clients to them. A message is delayed, lost,
//! doubled or overtaken as the scenario and the faults of the moment say.
//!
//! A cut swallows: who sent hears nothing and gives up later. A message that is on its way when its
//! way is cut is lost too. A doubled message travels on its own and may arrive long after, also
//! when its sender is dead by then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_raft::links::{Answer, LinkError, Links, Message, Peer};
use holdfast_raft::types::NodeId;
use holdfast_storage::GroupId;
use tokio::sync::watch;

use crate::rng::Rng;
use crate::scenario::NetPlan;

/// Where clients and workers are; no node has this number.
pub const OUTSIDE: NodeId = 0;

/// How long a sender waits, at least and at most, before it takes a message for lost, in ms.
const GIVE_UP_MS: std::ops::Range<u64> = 100..1_000;

/// How much later than the first a doubled message may come, in ms.
const ECHO_MS: std::ops::Range<u64> = 0..3_000;

/// What became of something sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It arrived.
    Through,
    /// It arrived where nobody listens, and that was heard.
    Refused,
    /// It did not arrive, and nobody says so.
    Lost,
}

/// What a fault does to messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// All are lost.
    Cut,
    /// Each takes up to so many milliseconds more.
    Delay(u64),
    /// So many in a million are lost, and as many are doubled.
    Lossy(u32),
}

/// A fault of the network as long as it lasts; a side that is `None` is everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rule {
    fault: u32,
    from: Option<NodeId>,
    to: Option<NodeId>,
    effect: Effect,
}

impl Rule {
    fn concerns(&self, from: NodeId, to: NodeId) -> bool {
        self.from.is_none_or(|side| side == from) && self.to.is_none_or(|side| side == to)
    }
}

/// The network of a world; clones are the same one.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Changes whenever a node is paused or goes on.
    pauses: watch::Sender<u64>,
}

struct State {
    rng: Rng,
    plan: NetPlan,
    peers: BTreeMap<(NodeId, GroupId), Peer>,
    rules: Vec<Rule>,
    /// How many faults pause a node.
    paused: BTreeMap<NodeId, u32>,
    sent: u64,
    lost: u64,
}

/// What was drawn for one message.
struct Travel {
    delay: Duration,
    lost: bool,
}

impl Net {
    /// A network without nodes.
    pub fn new(seed: u64, plan: NetPlan) -> Net {
        let state = State {
            rng: Rng::stream(seed, "net"),
            plan,
            peers: BTreeMap::new(),
            rules: Vec::new(),
            paused: BTreeMap::new(),
            sent: 0,
            lost: 0,
        };
        Net(Arc::new(Inner { state: Mutex::new(state), pauses: watch::Sender::new(0) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The links of one node.
    pub fn node(&self, node: NodeId) -> Arc<dyn Links> {
        Arc::new(NodeLinks { node, net: self.clone() })
    }

    /// Removes a node that died.
    pub fn remove(&self, node: NodeId) {
        self.state().peers.retain(|(at, _), _| *at != node);
    }

    /// Adds what a fault does; `None` is every place.
    pub fn add(&self, fault: u32, from: Option<NodeId>, to: Option<NodeId>, effect: Effect) {
        self.state().rules.push(Rule { fault, from, to, effect });
    }

    /// Ends what a fault did.
    pub fn heal(&self, fault: u32) {
        self.state().rules.retain(|rule| rule.fault != fault);
    }

    /// Ends one cut of a fault.
    pub fn heal_one(&self, fault: u32, from: NodeId, to: NodeId) {
        self.state()
            .rules
            .retain(|rule| rule.fault != fault || (rule.from, rule.to) != (Some(from), Some(to)));
    }

    /// Ends every fault of the network, and every pause.
    pub fn heal_all(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.paused.clear();
        drop(state);
        self.0.pauses.send_modify(|n| *n += 1);
    }

    /// From now on nothing is late, lost or doubled: for who only asks what came of it all.
    pub fn calm(&self) {
        let quiet = NetPlan { delay_min_us: 0, delay_max_us: 0, loss_ppm: 0, duplicate_ppm: 0 };
        self.state().plan = quiet;
    }

    /// Stops a node in its tracks as far as the world can tell: nothing it sends leaves, nothing
    /// sent to it is received, its disk hangs. (Its timers fire all the same, into this silence.)
    pub fn pause(&self, node: NodeId) {
        *self.state().paused.entry(node).or_default() += 1;
        self.0.pauses.send_modify(|n| *n += 1);
    }

    /// Ends one pause of a node; what waited happens now.
    pub fn resume(&self, node: NodeId) {
        if let Some(count) = self.state().paused.get_mut(&node) {
            *count = count.saturating_sub(1);
        }
        self.0.pauses.send_modify(|n| *n += 1);
    }

    fn is_paused(&self, node: NodeId) -> bool {
        self.state().paused.get(&node).is_some_and(|count| *count > 0)
    }

    /// Waits until a node is not paused.
    pub async fn running(&self, node: NodeId) {
        if !self.is_paused(node) {
            return;
        }
        let mut pauses = self.0.pauses.subscribe();
        while self.is_paused(node) {
            if pauses.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether everything from one place to the other is lost now.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state().is_cut(from, to)
    }

    /// Messages sent, and those of them that were lost.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.sent, state.lost)
    }

    /// Takes as long as the way does, and says whether it was gone to its end.
    pub async fn travel(&self, from: NodeId, to: NodeId) -> Way {
        let Travel { delay, lost } = self.state().draw(from, to);
        if delay.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(delay).await;
        }
        let mut state = self.state();
        if lost || state.is_cut(from, to) {
            state.lost += 1;
            return Way::Lost;
        }
        Way::Through
    }

    async fn give_up(&self) {
        let wait = self.state().rng.millis(GIVE_UP_MS);
        tokio::time::sleep(wait).await;
    }

    async fn call(
        self,
        from: NodeId,
        to: NodeId,
        group: GroupId,
        message: Message,
    ) -> Result<Answer, LinkError> {
        let lost = |why: &str| LinkError { node: to, group, why: why.to_owned() };
        self.running(from).await;
        if let Some(delay) = self.state().doubled(from, to) {
            tokio::spawn(self.clone().echo((from, to), group, message.clone(), delay));
        }
        if self.travel(from, to).await != Way::Through {
            self.give_up().await;
            return Err(lost("lost"));
        }
        self.running(to).await;
        let peer = self.state().peers.get(&(to, group)).cloned();
        let answer = peer.ok_or_else(|| lost("not there"))?.receive(message).await;
        self.running(to).await;
        if self.travel(to, from).await != Way::Through {
            self.give_up().await;
            return Err(lost("the answer was lost"));
        }
        self.running(from).await;
        answer.map_err(|why| lost(&why))
    }

    /// The second arrival of a message. Whatever it is answered, nobody waits for it.
    async fn echo(
        self,
        (from, to): (NodeId, NodeId),
        group: GroupId,
        message: Message,
        delay: Duration,
    ) {
        tokio::time::sleep(delay).await;
        if self.travel(from, to).await == Way::Through {
            self.running(to).await;
            let peer = self.state().peers.get(&(to, group)).cloned();
            if let Some(peer) = peer {
                drop(peer.receive(message).await);
            }
        }
    }
}

impl State {
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.rules.iter().any(|rule| rule.effect == Effect::Cut && rule.concerns(from, to))
    }

    fn draw(&mut self, from: NodeId, to: NodeId) -> Travel {
        self.sent += 1;
        let NetPlan { delay_min_us, delay_max_us, .. } = self.plan;
        let mut us = self.rng.within(delay_min_us..delay_max_us + 1);
        if self.rng.one_in(100) {
            us *= 10;
        }
        let mut loss = self.plan.loss_ppm;
        for rule in self.rules.iter().filter(|rule| rule.concerns(from, to)) {
            match rule.effect {
                Effect::Cut => loss = 1_000_000,
                Effect::Delay(ms) => us += self.rng.below(ms * 1000 + 1),
                Effect::Lossy(ppm) => loss += ppm,
            }
        }
        // Timers go by the millisecond.
        Travel { delay: Duration::from_millis(us / 1000), lost: self.rng.chance(loss) }
    }

    /// Whether a message comes twice, and how much later.
    fn doubled(&mut self, from: NodeId, to: NodeId) -> Option<Duration> {
        let rules = self.rules.iter().filter(|rule| rule.concerns(from, to));
        let more = rules.map(|rule| match rule.effect {
            Effect::Lossy(ppm) => ppm,
            Effect::Cut | Effect::Delay(_) => 0,
        });
        let ppm = self.plan.duplicate_ppm + more.sum::<u32>();
        self.rng.chance(ppm).then(|| self.rng.millis(ECHO_MS))
    }
}

/// One node's end of the network.
struct NodeLinks {
    node: NodeId,
    net: Net,
}

impl Links for NodeLinks {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        message: Message,
    ) -> BoxFuture<'static, Result<Answer, LinkError>> {
        Box::pin(self.net.clone().call(self.node, to, group, message))
    }

    fn serve(&self, group: GroupId, peer: Peer) {
        self.net.state().peers.insert((self.node, group), peer);
    }

    fn forget(&self, group: GroupId) {
        self.net.state().peers.remove(&(self.node, group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net() -> Net {
        let plan = NetPlan { delay_min_us: 1_000, delay_max_us: 2_000, ..NetPlan::default() };
        Net::new(1, NetPlan { loss_ppm: 0, ..plan })
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_has_a_direction_and_an_end() {
        let net = net();
        net.add(7, Some(1), Some(2), Effect::Cut);
        assert_eq!(net.travel(1, 2).await, Way::Lost);
        assert_eq!(net.travel(2, 1).await, Way::Through);
        net.heal(7);
        assert_eq!(net.travel(1, 2).await, Way::Through);
        assert_eq!(net.counts(), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_is_lost_by_a_cut() {
        let net = net();
        let way = tokio::spawn({
            let net = net.clone();
            async move { net.travel(1, 2).await }
        });
        tokio::task::yield_now().await;
        net.add(1, None, Some(2), Effect::Cut);
        assert_eq!(way.await.ok(), Some(Way::Lost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_node_goes_on_when_every_pause_is_over() {
        let net = net();
        net.pause(3);
        net.pause(3);
        let waits = tokio::spawn({
            let net = net.clone();
            async move { net.running(3).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        net.resume(3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waits.is_finished());
        net.resume(3);
        assert!(waits.await.is_ok());
    }
}
