//! How far the clocks of a group's nodes are apart, as each node hears it with every answer to an
//! append; whether this one's is good enough to lead (DESIGN 8, A8); and who answers at all.
//!
//! A leader stamps entries and says what is due. One whose clock is behind stamps timers into the
//! past, and the next leader fires them too early; one whose clock is ahead fires them itself. So a
//! node decides only while a majority of the voters, itself included, is within half the clock bound
//! of its clock: any two leaders have a voter in common, and are within the whole bound of each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_engine::ids::Hlc;
use tokio::sync::watch;

use crate::config::HEARTBEAT_MS;
use crate::host::{Clock, Standing};
use crate::links::CLOCK_BOUND;
use crate::types::NodeId;

/// How far from a leader's clock another counts as agreeing, in nanoseconds.
const AGREES: i64 = CLOCK_BOUND.as_nanos() as i64 / 2;

/// How long a sharp reading is believed over later ones that a slow link blurs. Clocks that are right
/// hardly part in that time: they lean by 500 ppm at most.
const BELIEVED: Duration = Duration::from_secs(10);

/// For how long a peer that answered counts as there: some heartbeats.
const ANSWERS: Duration = Duration::from_millis(5 * HEARTBEAT_MS);

/// A peer's clock against this node's: ahead by at least `low` and at most `high` nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reading {
    low: i64,
    high: i64,
    /// When, by this node's clock.
    at: Hlc,
}

impl Reading {
    fn width(&self) -> i64 {
        self.high.saturating_sub(self.low)
    }

    fn middle(&self) -> i64 {
        self.low.midpoint(self.high)
    }

    /// Whether it may be within the bound of a clock that is `from` ahead of this node's. What a slow
    /// link leaves open counts as agreement: a cluster with slow links must have a leader too.
    fn agrees(&self, from: i64) -> bool {
        self.low.saturating_sub(from) <= AGREES && self.high.saturating_sub(from) >= -AGREES
    }

    /// Which of two readings of one peer to believe. Those that can't both be true are of two lives.
    fn or(self, newer: Reading) -> Reading {
        let apart = newer.low > self.high || newer.high < self.low;
        let old = newer.at >= self.at.after(BELIEVED);
        if apart || old || newer.width() <= self.width() { newer } else { self }
    }
}

/// The clocks of a group's other nodes as this one knows them; clones are the same knowledge.
#[derive(Clone)]
pub(crate) struct Clocks(Arc<Inner>);

struct Inner {
    own: Arc<dyn Clock>,
    /// What has become of this node's wall clock.
    standing: watch::Receiver<Standing>,
    peers: Mutex<Known>,
    /// Changes when a peer begins or ceases to agree with this node, and while it disagrees.
    moved: watch::Sender<u64>,
}

/// What was heard since this node's clock made its last step: what was heard before is void.
#[derive(Debug, Default)]
struct Known {
    steps: u64,
    peers: BTreeMap<NodeId, Peer>,
}

/// When a peer was asked, by this node's clock as it was then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    at: Hlc,
    steps: u64,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    reading: Reading,
    /// When it answered last, by this node's clock.
    heard: Hlc,
}

/// What the clocks say of a node that wants to lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A majority agrees with it.
    Leads,
    /// A majority agrees with this other node, and not with it.
    Yields(NodeId),
    /// Too few clocks are known, or no majority agrees with anybody.
    Waits,
}

impl Clocks {
    pub(crate) fn new(own: Arc<dyn Clock>) -> Clocks {
        let (peers, moved) = (Mutex::default(), watch::Sender::new(0));
        let standing = own.standing();
        Clocks(Arc::new(Inner { own, standing, peers, moved }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let steps = self.0.standing.borrow().steps;
        let mut known = self.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if known.steps != steps {
            *known = Known { steps, peers: BTreeMap::new() };
        }
        known
    }

    /// Changes when this node's clock has made a step, and when it is doubted.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.clone()
    }

    /// For [`Clocks::answered`] later.
    pub(crate) fn asked(&self) -> Asked {
        Asked { steps: self.0.standing.borrow().steps, at: self.now() }
    }

    /// A peer's clock stood at `theirs` when it answered. What was asked before a step of this node's
    /// clock tells nothing.
    pub(crate) fn answered(&self, peer: NodeId, asked: Asked, theirs: Hlc) {
        if asked.steps == self.0.standing.borrow().steps {
            self.heard(peer, asked.at, theirs);
        }
    }

    /// This node's time.
    pub(crate) fn now(&self) -> Hlc {
        self.0.own.now()
    }

    /// A peer's clock stood at `theirs` when it answered what was asked at `asked` by this one's.
    fn heard(&self, peer: NodeId, asked: Hlc, theirs: Hlc) {
        let at = self.now();
        let reading = Reading { low: theirs.ahead_of(at), high: theirs.ahead_of(asked), at };
        let mut known = self.known();
        let peers = &mut known.peers;
        let before = peers.get(&peer).map(|known| known.reading);
        let now = before.map_or(reading, |before| before.or(reading));
        peers.insert(peer, Peer { reading: now, heard: at });
        drop(known);
        // While it disagrees, how far it is off says whom this node may yield to.
        if !now.agrees(0) || before.is_none_or(|before| !before.agrees(0)) {
            self.0.moved.send_modify(|times| *times += 1);
        }
    }

    /// Whether a peer has answered an append, of which heartbeats are some, in the last moments.
    pub(crate) fn answers(&self, peer: NodeId) -> bool {
        let now = self.now();
        self.known().peers.get(&peer).is_some_and(|known| now.since(known.heard) <= ANSWERS)
    }

    /// Changes when the verdict may have.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.0.moved.subscribe()
    }

    /// Whether node `me` of `voters` may lead. A sole voter is its own majority.
    pub(crate) fn verdict(&self, me: NodeId, voters: &[NodeId]) -> Verdict {
        // Its own clock may be right still, but it does not follow one that is.
        let odd = self.0.standing.borrow().odd;
        let peers = &self.known().peers;
        let majority = voters.len() / 2 + 1;
        let own = Reading { low: 0, high: 0, at: Hlc::ZERO };
        let known: Vec<(NodeId, Reading)> = voters
            .iter()
            .filter_map(|node| match *node == me {
                true => (!odd).then_some((*node, own)),
                false => peers.get(node).map(|known| (*node, known.reading)),
            })
            .collect();
        let with = |from: i64| known.iter().filter(|(_, clock)| clock.agrees(from)).count();
        if !odd && with(0) >= majority {
            return Verdict::Leads;
        }
        let best = known.iter().max_by_key(|(node, clock)| (with(clock.middle()), *node));
        match best {
            Some((node, clock)) if with(clock.middle()) >= majority => Verdict::Yields(*node),
            _ => Verdict::Waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MachineClock, ManualClock, Readings};

    const MS: i64 = 1_000_000;
    const NOW: Hlc = Hlc(1_700_000_000_000_000_000);

    fn clocks() -> (Clocks, Arc<ManualClock>) {
        let own = Arc::new(ManualClock::new(NOW));
        (Clocks::new(own.clone()), own)
    }

    fn ahead(by_ms: i64) -> Hlc {
        Hlc(NOW.0.saturating_add_signed(by_ms * MS))
    }

    #[test]
    fn a_sole_voter_leads() {
        assert_eq!(clocks().0.verdict(1, &[1]), Verdict::Leads);
    }

    #[test]
    fn a_majority_must_agree() {
        let (clocks, _) = clocks();
        let voters = [1, 2, 3];
        assert_eq!(clocks.verdict(1, &voters), Verdict::Waits, "nothing is known");
        clocks.heard(2, NOW, ahead(250));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Leads);
        clocks.heard(2, NOW, ahead(251));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Waits, "one of two is wrong, but which");
        clocks.heard(3, NOW, ahead(33_000));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Waits, "all three disagree");
        clocks.heard(3, NOW, ahead(400));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Yields(3));
        clocks.heard(2, NOW, ahead(-250));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Leads, "the other one is wrong");
    }

    #[test]
    fn a_node_whose_wall_clock_is_the_odd_one_out_yields() {
        let own = Arc::new(MachineClock::new(|| Readings { boot: 0, wall: NOW.0 }));
        let (clocks, voters) = (Clocks::new(own.clone()), [1, 2, 3]);
        clocks.heard(2, NOW, ahead(0));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Leads);
        own.doubt(true);
        assert_eq!(clocks.verdict(1, &voters), Verdict::Waits, "to whom?");
        clocks.heard(3, NOW, ahead(10));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Yields(3));
        own.doubt(false);
        assert_eq!(clocks.verdict(1, &voters), Verdict::Leads);
    }

    #[test]
    fn what_was_heard_before_a_step_is_void() {
        let own = Arc::new(MachineClock::new(|| Readings { boot: 0, wall: NOW.0 }));
        let (clocks, voters) = (Clocks::new(own.clone()), [1, 2, 3]);
        let asked = clocks.asked();
        clocks.heard(2, NOW, ahead(0));
        own.take_over();
        assert_eq!(clocks.verdict(1, &voters), Verdict::Waits);
        clocks.answered(2, asked, ahead(0));
        assert!(!clocks.answers(2), "it was asked before");
        clocks.answered(2, clocks.asked(), ahead(0));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Leads);
    }

    #[test]
    fn who_begins_or_ceases_to_agree_is_told_and_who_disagrees() {
        let (clocks, _) = clocks();
        let mut moved = clocks.moved();
        let mut told = |ms| {
            clocks.heard(2, NOW, ahead(ms));
            let told = moved.has_changed().expect("open");
            moved.mark_unchanged();
            told
        };
        assert_eq!([10, 20, 600, 601, 0].map(&mut told), [true, false, true, true, true]);
    }

    #[test]
    fn a_slow_link_does_not_blur_what_is_known() {
        let (clocks, own) = clocks();
        let (voters, second) = ([1, 2, 3], Duration::from_secs(1));
        clocks.heard(2, NOW, ahead(-400));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Waits);
        // An answer that took a second says it may be anything from 400 ms behind to 600 ahead.
        own.advance(second);
        clocks.heard(2, NOW, ahead(600));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Waits);
        own.advance(BELIEVED);
        let asked = NOW.after(BELIEVED);
        clocks.heard(2, asked, asked.after(second / 2));
        assert_eq!(clocks.verdict(1, &voters), Verdict::Leads);
    }

    #[test]
    fn who_has_not_answered_for_some_heartbeats_is_not_there() {
        let (clocks, own) = clocks();
        assert!(!clocks.answers(2), "nothing was heard of it");
        clocks.heard(2, NOW, ahead(0));
        own.advance(ANSWERS);
        assert!(clocks.answers(2) && !clocks.answers(3));
        own.advance(Duration::from_millis(1));
        assert!(!clocks.answers(2));
    }

    #[test]
    fn a_peer_that_restarts_with_another_clock_is_believed() {
        let (clocks, own) = clocks();
        clocks.heard(2, NOW, ahead(-60_000));
        own.advance(Duration::from_millis(300));
        clocks.heard(2, NOW, ahead(100));
        assert_eq!(clocks.verdict(1, &[1, 2, 3]), Verdict::Leads);
    }
}
