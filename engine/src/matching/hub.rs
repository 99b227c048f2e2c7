//! The hub of one task queue: pairs waiting pollers with shards that have work. Volatile; a lost
//! hub is rebuilt by the pollers and shards that register again.
//!
//! A shard with a new task and a waiting poller at hand asks [`Hub::try_take_poller`]; otherwise it
//! reports its head and the hub lends it a poller by [`Hub::pair`]: the best head first (priority,
//! then age), the poller that waits longest first. After either the shard grants and says
//! [`Hub::poller_served`], or says [`Hub::poller_returned`] when the task was gone.
//!
//! Who is lent a poller is lent a token of the queue's rate with it: the hub is the only place that
//! all shards pass. An offer that ends without a task gives its token back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_proto::taskqueue::PollerInfo;

use super::poller::{History, Offer, Pollers};
use super::rate::{Bucket, Rate};
use crate::ids::Hlc;

/// While older work elsewhere was reported this lately, no task passes it (DESIGN 5).
pub const YIELD_FOR: Duration = Duration::from_millis(100);

/// A sticky worker that has not polled for so long, and does not, is gone.
pub const STICKY_GONE_AFTER: Duration = Duration::from_secs(10);

/// The first task of a shard's backlog. The lesser one goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Head {
    /// 1 (first) to 5; 3 when nothing is said.
    pub priority: u8,
    /// Since when it could be handed out.
    pub at: Hlc,
}

/// What a shard last said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Report {
    head: Head,
    said: Hlc,
    /// Tasks that are ready and no poller was lent for yet.
    open: usize,
}

/// The pollers and the work of one (namespace, queue, type).
#[derive(Clone, Debug)]
pub struct Hub<P, S> {
    pollers: Pollers<P, S>,
    reports: BTreeMap<S, Report>,
    /// The reports with open tasks, best first.
    order: BTreeSet<(Head, S)>,
    tokens: Bucket,
    history: History,
    /// The last sign of life of any poller; at first the birth of the hub, so that a new leader
    /// gives a sticky worker its time.
    last_poll: Hlc,
    /// The worker said that it stops, and has not begun a poll since.
    shut_down: bool,
}

impl<P: Copy + Ord, S: Copy + Ord> Hub<P, S> {
    /// A hub that knows nothing yet; tasks go out at `rate` until a poll says otherwise.
    pub fn new(rate: Rate, now: Hlc) -> Hub<P, S> {
        Hub {
            pollers: Pollers::new(),
            reports: BTreeMap::new(),
            order: BTreeSet::new(),
            tokens: Bucket::new(rate),
            history: History::default(),
            last_poll: now,
            shut_down: false,
        }
    }

    /// The rate that holds from now on, for every task of the queue: that of the last poll. Call
    /// [`Hub::pair`] afterwards.
    pub fn set_rate(&mut self, rate: Rate, now: Hlc) {
        self.tokens.set(rate, now);
    }

    /// A poll begins: to the end of the line. `false` when this poller is here already. At most
    /// `history` identities are remembered. Call [`Hub::pair`] afterwards.
    pub fn add_poller(&mut self, poller: P, identity: &str, now: Hlc, history: usize) -> bool {
        self.last_poll = self.last_poll.max(now);
        self.history.seen(identity, now, history);
        self.shut_down = false;
        self.pollers.add(poller)
    }

    /// A poll ended without a task (its deadline, its connection). May be repeated. A poller that
    /// holds an offer is removed too: the offer then cannot be served any more, and its token is
    /// free. Call [`Hub::pair`] afterwards.
    pub fn remove_poller(&mut self, poller: P, now: Hlc) -> bool {
        if self.pollers.is_offered(poller) {
            self.tokens.give_back();
        }
        let removed = self.pollers.remove(poller);
        if removed {
            self.last_poll = self.last_poll.max(now);
        }
        removed
    }

    /// The task was handed to the poller. `false`: the poller went away or the offer is an old
    /// one; the grant must be revoked.
    pub fn poller_served(&mut self, offer: &Offer<P, S>, now: Hlc) -> bool {
        let served = self.pollers.take_back(offer);
        if served {
            self.last_poll = self.last_poll.max(now);
        }
        served
    }

    /// A poller was served, and was gone before it had its task, which waits again: the token is
    /// free. Call [`Hub::pair`] afterwards.
    pub fn unserved(&mut self) {
        self.tokens.give_back();
    }

    /// The task was gone: the poller is the first in line again. Call [`Hub::pair`] afterwards.
    pub fn poller_returned(&mut self, offer: &Offer<P, S>) -> bool {
        let current = self.pollers.put_back(offer);
        if current {
            self.tokens.give_back();
        }
        current
    }

    /// What a shard has: its first task and how many are ready (0 is taken for 1), or nothing.
    /// Replaces what it said before. Call [`Hub::pair`] afterwards.
    pub fn report_work(&mut self, shard: S, work: Option<(Head, usize)>, now: Hlc) {
        self.clear(shard);
        if let Some((head, ready)) = work {
            self.reports.insert(shard, Report { head, said: now, open: ready.max(1) });
            self.order.insert((head, shard));
        }
    }

    fn clear(&mut self, shard: S) {
        if let Some(report) = self.reports.remove(&shard) {
            self.order.remove(&(report.head, shard));
        }
    }

    /// A shard has a new leader or none: its report is void, pollers lent to it are in line again.
    pub fn shard_lost(&mut self, shard: S) {
        self.clear(shard);
        for offer in self.pollers.offers_to(shard) {
            self.poller_returned(&offer);
        }
    }

    /// Lends the poller that waits longest to the shard with the best head, if there are both and
    /// the rate allows it. To be called until it gives nothing; then see [`Hub::pair_again_at`].
    pub fn pair(&mut self, now: Hlc) -> Option<Offer<P, S>> {
        let (head, shard) = *self.order.first()?;
        let offer = self.offer(shard, now)?;
        if let Some(report) = self.reports.get_mut(&shard) {
            report.open = report.open.saturating_sub(1);
            if report.open == 0 {
                // The report stays, as what was said lately, until the shard says more.
                self.order.remove(&(head, shard));
            }
        }
        Some(offer)
    }

    /// When [`Hub::pair`] gives something if nothing else happens before: a poller and a task wait
    /// for nothing but the next token. `None` when they do not, or the rate is a stop.
    pub fn pair_again_at(&self, now: Hlc) -> Option<Hlc> {
        let both = self.pollers.waiting() > 0 && !self.order.is_empty();
        if both { self.tokens.ready_at(now) } else { None }
    }

    fn offer(&mut self, shard: S, now: Hlc) -> Option<Offer<P, S>> {
        if !self.tokens.is_ready(now) {
            return None;
        }
        let offer = self.pollers.offer(shard)?;
        self.tokens.take(now);
        Some(offer)
    }

    /// The poller of the last [`Hub::pair`] was not there any more: the shard's task still waits.
    pub fn not_lent(&mut self, shard: S) {
        if let Some(report) = self.reports.get_mut(&shard) {
            report.open += 1;
            self.order.insert((report.head, shard));
        }
    }

    /// Lends a poller directly for a shard's task, if that passes no better work elsewhere: work
    /// that still waits for a poller, or that was reported in the last [`YIELD_FOR`]; and if the
    /// rate allows it. When it gives nothing, the shard reports its head instead.
    pub fn try_take_poller(&mut self, shard: S, head: Head, now: Hlc) -> Option<Offer<P, S>> {
        let passed = self.reports.iter().any(|(other, report)| {
            let lately = now.since(report.said) <= YIELD_FOR;
            *other != shard && report.head < head && (report.open > 0 || lately)
        });
        if passed { None } else { self.offer(shard, now) }
    }

    /// Whether another shard has better work that still waits for a poller. A shard that was lent one
    /// and finds its first task gone asks before it hands out the next.
    pub fn has_better(&self, shard: S, head: Head) -> bool {
        let better = |(other, report): (&S, &Report)| {
            *other != shard && report.head < head && report.open > 0
        };
        self.reports.iter().any(better)
    }

    /// Pollers in line.
    pub fn waiting(&self) -> usize {
        self.pollers.waiting()
    }

    /// Pollers in line or holding an offer.
    pub fn pollers(&self) -> usize {
        self.pollers.len()
    }

    /// Whether the poller is in line or holds an offer.
    pub fn has_poller(&self, poller: P) -> bool {
        self.pollers.contains(poller)
    }

    /// Whether the worker of this sticky queue is gone: no poller is here, and none was for
    /// [`STICKY_GONE_AFTER`].
    pub fn sticky_gone(&self, now: Hlc) -> bool {
        let silent = self.shut_down || now.since(self.last_poll) >= STICKY_GONE_AFTER;
        self.pollers.len() == 0 && silent
    }

    /// The worker of this sticky queue says that it stops (ShutdownWorker): it is gone as soon as
    /// its polls have ended.
    pub fn worker_shut_down(&mut self) {
        self.shut_down = true;
    }

    /// The tokens of the queue's rate.
    pub fn tokens(&self) -> &Bucket {
        &self.tokens
    }

    /// When the last poller was here.
    pub fn last_poll(&self) -> Hlc {
        self.last_poll
    }

    /// Whether nothing would be missed if this hub were dropped. A bucket that is not full again by
    /// then is forgotten, or hubs of the slowest rates would stay for ever.
    pub fn is_idle(&self, now: Hlc, after: Duration) -> bool {
        self.pollers.len() == 0 && self.reports.is_empty() && now.since(self.last_poll) > after
    }

    /// The pollers of DescribeTaskQueue, the latest first.
    pub fn describe(&self, now: Hlc) -> Vec<PollerInfo> {
        let info = |(identity, at): (&str, Hlc)| PollerInfo {
            identity: identity.to_owned(),
            last_access_time: at.optional_timestamp(),
            ..PollerInfo::default()
        };
        self.history.recent(now).map(info).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn head(priority: u8, at: u64) -> Head {
        Head { priority, at: Hlc(at) }
    }

    fn hub(pollers: &[u32]) -> Hub<u32, u32> {
        let mut hub = Hub::new(Rate::UNLIMITED, Hlc::ZERO);
        for poller in pollers {
            hub.add_poller(*poller, "w", Hlc::ZERO, 10);
        }
        hub
    }

    #[test]
    fn the_best_head_meets_the_longest_waiting_poller() {
        let mut hub = hub(&[1, 2, 3]);
        hub.report_work(10, Some((head(3, 5), 1)), Hlc::ZERO);
        hub.report_work(11, Some((head(3, 4), 1)), Hlc::ZERO);
        hub.report_work(12, Some((head(1, 9), 1)), Hlc::ZERO);
        let pairs: Vec<(u32, u32)> = std::iter::from_fn(|| hub.pair(Hlc::ZERO))
            .map(|offer| (offer.poller, offer.shard))
            .collect();
        assert_eq!(pairs, [(1, 12), (2, 11), (3, 10)]);
    }

    #[test]
    fn a_report_is_lent_as_many_pollers_as_it_has_tasks() {
        let mut hub = hub(&[1, 2, 3]);
        hub.report_work(10, Some((head(3, 5), 2)), Hlc::ZERO);
        assert_eq!(std::iter::from_fn(|| hub.pair(Hlc::ZERO)).count(), 2);
        assert_eq!(hub.waiting(), 1);
        hub.report_work(10, Some((head(3, 6), 0)), Hlc::ZERO);
        assert!(hub.pair(Hlc(1)).is_some());
    }

    #[test]
    fn a_direct_hand_over_passes_no_older_work() {
        let now = Hlc(1000 * MS);
        let newer = head(3, 900 * MS);
        // Nothing elsewhere, or only what is younger or less urgent, or the shard's own.
        for other in
            [None, Some((7, head(3, 950 * MS))), Some((7, head(4, 1))), Some((8, head(3, 1)))]
        {
            let mut hub = hub(&[1]);
            if let Some((shard, head)) = other {
                hub.report_work(shard, Some((head, 1)), now);
            }
            assert!(hub.try_take_poller(8, newer, now).is_some(), "{other:?}");
        }
        for older in [head(3, 800 * MS), head(2, 950 * MS)] {
            let mut hub = hub(&[1]);
            hub.report_work(7, Some((older, 1)), now);
            assert!(hub.try_take_poller(8, newer, now).is_none(), "{older:?}");
            // Also when a poller is under way to it: there may be more where it came from ..
            assert!(hub.pair(Hlc(1)).is_some());
            hub.add_poller(2, "w", now, 10);
            let at = |ms| now.after(Duration::from_millis(ms));
            assert!(hub.try_take_poller(8, newer, at(100)).is_none());
            // .. for a tenth of a second, or until the shard says that there is none.
            assert!(hub.clone().try_take_poller(8, newer, at(101)).is_some());
            hub.report_work(7, None, now);
            assert!(hub.try_take_poller(8, newer, now).is_some());
        }
        // Work that no poller was lent for is not passed however long ago it was reported.
        let mut hub = hub(&[1]);
        hub.report_work(7, Some((head(3, 1), 1)), Hlc::ZERO);
        assert!(hub.try_take_poller(8, newer, now).is_none());
    }

    #[test]
    fn a_shard_whose_first_task_is_gone_knows_of_better_work_elsewhere() {
        let mut hub = hub(&[1, 2]);
        hub.report_work(7, Some((head(1, 5), 2)), Hlc::ZERO);
        hub.report_work(8, Some((head(3, 4), 1)), Hlc::ZERO);
        let lent = hub.pair(Hlc::ZERO).expect("both");
        assert_eq!(lent.shard, 7);
        for (left, better) in [(head(1, 9), false), (head(3, 3), false), (head(3, 5), true)] {
            assert_eq!(hub.has_better(7, left), better, "{left:?}");
        }
        // The poller comes back and goes there.
        hub.report_work(7, Some((head(3, 5), 1)), Hlc(1));
        assert!(hub.poller_returned(&lent));
        assert_eq!(hub.pair(Hlc(1)).map(|offer| offer.shard), Some(8));
        assert!(!hub.has_better(7, head(3, 5)), "it has its poller");
    }

    #[test]
    fn a_removed_poller_eats_no_task() {
        let mut hub = hub(&[1, 2]);
        assert!(hub.remove_poller(1, Hlc(1)));
        assert!(!hub.remove_poller(1, Hlc(1)));
        let offer = hub.try_take_poller(7, head(3, 1), Hlc(1)).expect("waiting");
        assert_eq!(offer.poller, 2);
        assert!(hub.remove_poller(2, Hlc(1)));
        assert!(!hub.poller_served(&offer, Hlc(1)), "the grant is to be revoked");
        assert!(!hub.poller_returned(&offer));
        assert_eq!(hub.pollers(), 0);
    }

    #[test]
    fn a_poller_comes_back_to_the_front() {
        let mut hub = hub(&[1, 2]);
        let offer = hub.try_take_poller(7, head(3, 1), Hlc(1)).expect("waiting");
        assert!(hub.poller_returned(&offer));
        assert_eq!(hub.try_take_poller(7, head(3, 1), Hlc(1)).map(|o| o.poller), Some(1));
    }

    #[test]
    fn a_lost_shard_gives_its_pollers_back_and_cannot_serve_them() {
        let mut hub = hub(&[1, 2]);
        hub.report_work(7, Some((head(3, 1), 5)), Hlc::ZERO);
        let offer = hub.pair(Hlc(1)).expect("both");
        hub.shard_lost(7);
        assert!(!hub.poller_served(&offer, Hlc(1)));
        assert_eq!(hub.pair(Hlc(1)), None, "its report is void");
        assert_eq!(hub.try_take_poller(8, head(3, 1), Hlc(1)).map(|o| o.poller), Some(1));
    }

    #[test]
    fn a_sticky_worker_is_gone_after_ten_seconds_without_a_poll() {
        let at = |seconds: u64| Hlc(seconds * 1000 * MS);
        let mut hub: Hub<u32, u32> = Hub::new(Rate::UNLIMITED, at(100));
        assert!(!hub.sticky_gone(at(109)));
        assert!(hub.sticky_gone(at(110)));
        hub.add_poller(1, "w", at(110), 10);
        assert!(!hub.sticky_gone(at(170)), "a poller waits");
        hub.remove_poller(1, at(170));
        assert!(!hub.sticky_gone(at(179)));
        assert!(hub.sticky_gone(at(180)));
        assert_eq!(hub.describe(at(180)).len(), 1);
        assert_eq!(hub.describe(at(180))[0].identity, "w");
    }

    #[test]
    fn a_pairing_whose_poller_is_gone_costs_the_task_nothing() {
        let mut hub = hub(&[1, 2]);
        let head = Head { priority: 3, at: Hlc(1) };
        hub.report_work(7, Some((head, 1)), Hlc(1));
        let offer = hub.pair(Hlc(1)).expect("both are there");
        assert_eq!(hub.pair(Hlc(1)), None, "one task, one poller");
        hub.remove_poller(offer.poller, Hlc(1));
        hub.not_lent(7);
        assert!(hub.pair(Hlc(1)).is_some_and(|again| again.poller != offer.poller));
    }

    #[test]
    fn a_worker_that_says_that_it_stops_is_gone_until_it_polls() {
        let mut hub = hub(&[1]);
        hub.worker_shut_down();
        assert!(!hub.sticky_gone(Hlc(1)), "a poller waits");
        hub.remove_poller(1, Hlc(1));
        assert!(hub.sticky_gone(Hlc(1)));
        hub.add_poller(2, "w", Hlc(2), 10);
        hub.remove_poller(2, Hlc(2));
        assert!(!hub.sticky_gone(Hlc(2)));
    }

    #[test]
    fn the_shards_of_a_queue_share_its_rate() {
        let start = Hlc(1_000_000 * MS);
        let at = |ms: u64| start.after(Duration::from_millis(ms));
        let mut hub = hub(&[1, 2, 3, 4, 5, 6, 7]);
        hub.set_rate(Rate::per_second(2.0), start);
        let direct = hub.try_take_poller(7, head(3, 1), start);
        hub.report_work(7, Some((head(3, 1), 9)), start);
        hub.report_work(8, Some((head(3, 2), 9)), start);
        let mut burst: Vec<_> = std::iter::from_fn(|| hub.pair(start)).collect();
        burst.extend(direct);
        assert_eq!(burst.len(), 3, "one direct, two by pairing");
        assert!(burst.iter().all(|offer| hub.poller_served(offer, start)));
        assert!(hub.try_take_poller(7, head(3, 1), start).is_none());
        // No earlier than the next token, and no later: nobody else will say a word.
        assert_eq!(hub.pair_again_at(start), Some(at(500)));
        assert_eq!(hub.pair(at(499)), None);
        let offer = hub.pair(at(500)).expect("a token");
        assert_eq!(hub.pair_again_at(at(500)), Some(at(1000)));
        // What came to nothing cost nothing, in whatever way it ended.
        assert!(hub.poller_returned(&offer));
        let offer = hub.pair(at(500)).expect("its token");
        assert!(hub.remove_poller(offer.poller, at(500)));
        assert!(!hub.poller_served(&offer, at(500)));
        let offer = hub.pair(at(500)).expect("its token");
        hub.shard_lost(offer.shard);
        hub.report_work(offer.shard, Some((head(3, 1), 9)), at(500));
        let offer = hub.pair(at(500)).expect("its token");
        assert!(hub.poller_served(&offer, at(500)));
        hub.unserved();
        let offer = hub.pair(at(500)).expect("its token");
        assert!(hub.poller_served(&offer, at(500)));
        assert_eq!(hub.pair(at(500)), None);
    }

    #[test]
    fn nobody_waits_for_a_token_in_vain() {
        let now = Hlc(1_000_000 * MS);
        let mut hub = hub(&[]);
        hub.set_rate(Rate::per_second(0.0), now);
        hub.report_work(7, Some((head(3, 1), 9)), now);
        assert_eq!(hub.pair_again_at(now), None, "no poller");
        hub.add_poller(1, "w", now, 10);
        assert_eq!(hub.pair_again_at(now), None, "a stop");
        hub.set_rate(Rate::per_second(2.0), now);
        assert_eq!(hub.pair_again_at(now), Some(now.after(Duration::from_millis(1500))));
        hub.report_work(7, None, now);
        assert_eq!(hub.pair_again_at(now), None, "no task");
    }

    proptest! {
        /// Of N equal pollers that come again as soon as they are served, each gets its share.
        #[test]
        fn equal_pollers_get_equal_shares(
            pollers in 1u32..9,
            ways in proptest::collection::vec((0u32..3, any::<bool>()), 1..200),
        ) {
            let all: Vec<u32> = (0..pollers).collect();
            let mut hub = hub(&all);
            let mut shares = vec![0u32; all.len()];
            for (n, (shard, direct)) in ways.iter().enumerate() {
                let now = Hlc(n as u64 * 1000 * MS);
                let head = head(3, now.0);
                let offer = if *direct {
                    hub.try_take_poller(*shard, head, now)
                } else {
                    hub.report_work(*shard, Some((head, 1)), now);
                    hub.pair(now)
                };
                let offer = offer.expect("a poller always waits");
                prop_assert!(hub.poller_served(&offer, now));
                shares[offer.poller as usize] += 1;
                hub.add_poller(offer.poller, "w", now, 10);
            }
            let (least, most) = (shares.iter().min(), shares.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(m, l)| m - l <= 1), "{:?}", shares);
        }

        /// Whatever happens, a poller is served at most once per poll and never after it left.
        #[test]
        fn no_poller_is_served_twice_or_after_it_left(
            steps in proptest::collection::vec((0u8..7, 0u32..4, 0u32..3), 1..300),
        ) {
            let mut hub: Hub<u32, u32> = Hub::new(Rate::UNLIMITED, Hlc::ZERO);
            let mut here = BTreeSet::new();
            let mut offers: Vec<Offer<u32, u32>> = Vec::new();
            for (n, (what, poller, shard)) in steps.into_iter().enumerate() {
                let now = Hlc(n as u64 * 30 * MS);
                match what {
                    0 => prop_assert_eq!(hub.add_poller(poller, "w", now, 2), here.insert(poller)),
                    1 => prop_assert_eq!(hub.remove_poller(poller, now), here.remove(&poller)),
                    2 => offers.extend(hub.try_take_poller(shard, head(3, now.0), now)),
                    3 => hub.report_work(shard, Some((head(3, now.0), 2)), now),
                    4 => offers.extend(hub.pair(now)),
                    5 => hub.shard_lost(shard),
                    _ => {
                        // Any offer ever made, old ones too, is answered.
                        if let Some(offer) = offers.get(poller as usize * 7 % offers.len().max(1)) {
                            if shard == 0 {
                                hub.poller_returned(offer);
                            } else if hub.poller_served(offer, now) {
                                prop_assert!(here.remove(&offer.poller), "served after it left");
                            }
                        }
                    }
                }
                prop_assert_eq!(hub.pollers(), here.len());
                prop_assert!(here.iter().all(|poller| hub.has_poller(*poller)));
            }
        }
    }
}
