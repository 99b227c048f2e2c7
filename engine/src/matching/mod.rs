//! Matching: how waiting pollers and waiting tasks meet. Arithmetic only, in memory only; the
//! shell moves the messages and asks the shard to grant.
//!
//! [`Hubs`] are the hubs of a node, [`hub::Hub`] the one of a task queue, [`backlog::Window`] the
//! head of a shard's backlog, [`rate::Bucket`] the rate of a queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::enums::{ResourceExhaustedCause, ResourceExhaustedScope};
use holdfast_proto::errordetails::ResourceExhaustedFailure;

use crate::ids::{Hlc, NamespaceId};
use crate::live::TaskType;
use crate::reject::{Code, Rejection};

pub mod backlog;
pub mod hub;
pub mod poller;
pub mod rate;

pub use backlog::{Pop, TaskKey, Window};
pub use hub::{Head, Hub};
pub use poller::Offer;
pub use rate::Rate;

/// What matching may hold in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MatchingLimits {
    /// Pollers of one queue and type.
    pub pollers_per_queue: usize,
    /// Pollers of one namespace and type (`frontend.namespaceCount`, which counts by method).
    pub pollers_per_namespace: usize,
    /// Pollers of the node.
    pub pollers: usize,
    /// Queues of the node that have a hub.
    pub hubs: usize,
    /// Identities that a queue remembers for descriptions.
    pub history: usize,
    /// How long a hub without pollers and work is kept (`matching.idleTaskqueueCheckInterval`).
    pub idle: Duration,
    /// Tasks of one queue and type in a second, whatever its pollers say; 0 hands nothing out
    /// (`admin.matchingNamespaceTaskqueueToPartitionDispatchRate`, where Temporal has 1,000 for
    /// each of four partitions).
    pub tasks_per_second: Rate,
}

impl Default for MatchingLimits {
    fn default() -> MatchingLimits {
        MatchingLimits {
            pollers_per_queue: 1000,
            pollers_per_namespace: 1200,
            pollers: 20_000,
            hubs: 50_000,
            history: 100,
            idle: Duration::from_secs(300),
            tasks_per_second: Rate::per_second(100_000.0),
        }
    }
}

/// What has one hub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HubKey {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The task queue, sticky or normal.
    pub queue: Arc<str>,
    /// What it holds.
    pub task: TaskType,
}

/// The hubs of a node, with the limits that concern more than one.
#[derive(Clone, Debug)]
pub struct Hubs<P, S> {
    hubs: BTreeMap<HubKey, Hub<P, S>>,
    /// Waiting and offered pollers, by namespace and type; entries of 0 are dropped.
    counts: BTreeMap<(NamespaceId, TaskType), usize>,
    total: usize,
    limits: MatchingLimits,
    /// Until then a sticky worker that has not polled this node yet may only be on its way.
    grace_until: Hlc,
}

impl<P: Copy + Ord, S: Copy + Ord> Hubs<P, S> {
    /// How many pollers wait or are offered, over all queues.
    pub fn pollers(&self) -> usize {
        self.total
    }

    /// No hubs. Workers that polled before this node was started have until `grace_until` to come
    /// back to their sticky queues.
    pub fn new(limits: MatchingLimits, grace_until: Hlc) -> Hubs<P, S> {
        Hubs { hubs: BTreeMap::new(), counts: BTreeMap::new(), total: 0, limits, grace_until }
    }

    /// A poll begins. Refused when too many wait. `rate` is what it asks for; the last poll that
    /// is not refused decides for the queue, and one that asks for nothing takes the limit away.
    pub fn add_poller(
        &mut self,
        key: &HubKey,
        poller: P,
        identity: &str,
        rate: Option<Rate>,
        now: Hlc,
    ) -> Result<(), Rejection> {
        let count = self.counts.get(&(key.namespace, key.task)).copied().unwrap_or(0);
        let queue = self.hubs.get(key).map_or(0, Hub::pollers);
        if count >= self.limits.pollers_per_namespace || queue >= self.limits.pollers_per_queue {
            return Err(refused(ResourceExhaustedScope::Namespace));
        }
        if self.total >= self.limits.pollers {
            return Err(refused(ResourceExhaustedScope::System));
        }
        let history = self.limits.history;
        let rate = rate.unwrap_or(Rate::UNLIMITED).and(self.fastest());
        self.with(key, now, |hub| {
            hub.set_rate(rate, now);
            hub.add_poller(poller, identity, now, history)
        })?;
        Ok(())
    }

    /// A poll ended without a task. May be repeated.
    pub fn remove_poller(&mut self, key: &HubKey, poller: P, now: Hlc) -> bool {
        self.existing(key, |hub| hub.remove_poller(poller, now))
    }

    /// The task was handed over; `false`: revoke the grant.
    pub fn poller_served(&mut self, key: &HubKey, offer: &Offer<P, S>, now: Hlc) -> bool {
        self.existing(key, |hub| hub.poller_served(offer, now))
    }

    /// The task was gone: the poller is the first in line again.
    pub fn poller_returned(&mut self, key: &HubKey, offer: &Offer<P, S>) -> bool {
        self.existing(key, |hub| hub.poller_returned(offer))
    }

    /// What a shard has for a queue.
    pub fn report_work(
        &mut self,
        key: &HubKey,
        shard: S,
        work: Option<(Head, usize)>,
        now: Hlc,
    ) -> Result<(), Rejection> {
        if work.is_none() && !self.hubs.contains_key(key) {
            return Ok(());
        }
        self.with(key, now, |hub| hub.report_work(shard, work, now))
    }

    /// A poller was served and gone before it had its task: the queue's token is free.
    pub fn unserved(&mut self, key: &HubKey) {
        if let Some(hub) = self.hubs.get_mut(key) {
            hub.unserved();
        }
    }

    /// The next pairing of a queue; to be called until it gives nothing.
    pub fn pair(&mut self, key: &HubKey, now: Hlc) -> Option<Offer<P, S>> {
        self.hubs.get_mut(key)?.pair(now)
    }

    /// When a queue is to be paired again, since nothing but its rate is in the way.
    pub fn pair_again_at(&self, key: &HubKey, now: Hlc) -> Option<Hlc> {
        self.hubs.get(key)?.pair_again_at(now)
    }

    /// A pairing found its poller gone: the shard's task still waits for one.
    pub fn not_lent(&mut self, key: &HubKey, shard: S) {
        if let Some(hub) = self.hubs.get_mut(key) {
            hub.not_lent(shard);
        }
    }

    /// A poller for a shard's task at once, if that passes no better work elsewhere.
    pub fn try_take_poller(
        &mut self,
        key: &HubKey,
        shard: S,
        head: Head,
        now: Hlc,
    ) -> Option<Offer<P, S>> {
        self.hubs.get_mut(key)?.try_take_poller(shard, head, now)
    }

    /// A shard has a new leader or none. Gives the queues whose pollers came back: pair them.
    pub fn shard_lost(&mut self, shard: S) -> Vec<HubKey> {
        let mut touched = Vec::new();
        for (key, hub) in &mut self.hubs {
            let waiting = hub.waiting();
            hub.shard_lost(shard);
            if hub.waiting() != waiting {
                touched.push(key.clone());
            }
        }
        touched
    }

    /// Whether the worker of a sticky queue is gone. A queue without a hub has none, except while
    /// the workers of an earlier life are given time to come back.
    pub fn sticky_gone(&self, key: &HubKey, now: Hlc) -> bool {
        self.hubs.get(key).map_or(now >= self.grace_until, |hub| hub.sticky_gone(now))
    }

    /// The worker of a sticky queue says that it stops.
    pub fn worker_shut_down(&mut self, key: &HubKey) {
        if let Some(hub) = self.hubs.get_mut(key) {
            hub.worker_shut_down();
        }
    }

    /// A hub, if the queue has one.
    pub fn get(&self, key: &HubKey) -> Option<&Hub<P, S>> {
        self.hubs.get(key)
    }

    /// Drops the hubs that nobody used for long. To be called now and then.
    pub fn sweep(&mut self, now: Hlc) {
        let idle = self.limits.idle;
        self.hubs.retain(|_, hub| !hub.is_idle(now, idle));
    }

    /// How many hubs there are.
    pub fn len(&self) -> usize {
        self.hubs.len()
    }

    /// Whether there is no hub.
    pub fn is_empty(&self) -> bool {
        self.hubs.is_empty()
    }

    /// What the configuration allows every queue.
    fn fastest(&self) -> Rate {
        self.limits.tasks_per_second
    }

    fn with<T>(
        &mut self,
        key: &HubKey,
        now: Hlc,
        change: impl FnOnce(&mut Hub<P, S>) -> T,
    ) -> Result<T, Rejection> {
        if !self.hubs.contains_key(key) {
            if self.hubs.len() >= self.limits.hubs {
                self.sweep(now);
            }
            if self.hubs.len() >= self.limits.hubs {
                return Err(refused(ResourceExhaustedScope::System));
            }
        }
        let fastest = self.fastest();
        let hub = self.hubs.entry(key.clone()).or_insert_with(|| Hub::new(fastest, now));
        let before = hub.pollers();
        let out = change(hub);
        let after = hub.pollers();
        self.recount(key, before, after);
        Ok(out)
    }

    fn existing(&mut self, key: &HubKey, change: impl FnOnce(&mut Hub<P, S>) -> bool) -> bool {
        let Some(hub) = self.hubs.get_mut(key) else { return false };
        let before = hub.pollers();
        let out = change(hub);
        let after = hub.pollers();
        self.recount(key, before, after);
        out
    }

    fn recount(&mut self, key: &HubKey, before: usize, after: usize) {
        self.total = (self.total + after).saturating_sub(before);
        let count = self.counts.entry((key.namespace, key.task)).or_default();
        *count = (*count + after).saturating_sub(before);
        if *count == 0 {
            self.counts.remove(&(key.namespace, key.task));
        }
    }
}

fn refused(scope: ResourceExhaustedScope) -> Rejection {
    Rejection::new(Code::ResourceExhausted, "namespace concurrent poller limit exceeded").with(
        &ResourceExhaustedFailure {
            cause: ResourceExhaustedCause::ConcurrentLimit.into(),
            scope: scope.into(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;

    fn key(namespace: u8, queue: &str) -> HubKey {
        HubKey { namespace: Uuid([namespace; 16]), queue: queue.into(), task: TaskType::Activity }
    }

    fn hubs(limits: MatchingLimits) -> Hubs<u32, u32> {
        Hubs::new(limits, Hlc::ZERO)
    }

    #[test]
    fn a_sticky_worker_nobody_knows_is_gone_unless_it_may_be_on_its_way() {
        let second = |n: u64| Hlc(n * 1_000_000_000);
        let mut hubs = Hubs::<u32, u32>::new(MatchingLimits::default(), second(10));
        assert!(!hubs.sticky_gone(&key(1, "s"), second(9)));
        assert!(hubs.sticky_gone(&key(1, "s"), second(10)));
        assert!(hubs.add_poller(&key(1, "s"), 1, "w", None, second(11)).is_ok());
        assert!(!hubs.sticky_gone(&key(1, "s"), second(30)), "it polls");
        assert!(hubs.remove_poller(&key(1, "s"), 1, second(40)));
        assert!(!hubs.sticky_gone(&key(1, "s"), second(49)));
        assert!(hubs.sticky_gone(&key(1, "s"), second(51)));
    }

    #[test]
    fn pollers_are_limited_by_queue_by_namespace_and_in_all() {
        let limits = MatchingLimits {
            pollers_per_queue: 2,
            pollers_per_namespace: 3,
            pollers: 4,
            ..MatchingLimits::default()
        };
        let mut hubs = hubs(limits);
        let add = |hubs: &mut Hubs<u32, u32>, key: HubKey, poller| {
            hubs.add_poller(&key, poller, "w", None, Hlc(1)).map_err(|r| (r.code, r.message))
        };
        let full =
            Err((Code::ResourceExhausted, "namespace concurrent poller limit exceeded".to_owned()));
        assert_eq!(add(&mut hubs, key(1, "a"), 1), Ok(()));
        assert_eq!(add(&mut hubs, key(1, "a"), 2), Ok(()));
        assert_eq!(add(&mut hubs, key(1, "a"), 3), full, "the queue");
        assert_eq!(add(&mut hubs, key(1, "b"), 3), Ok(()));
        assert_eq!(add(&mut hubs, key(1, "c"), 4), full, "the namespace");
        assert_eq!(add(&mut hubs, key(2, "a"), 4), Ok(()));
        assert_eq!(add(&mut hubs, key(3, "a"), 5), full, "the node");
        // An offered poller still counts; one that was served or removed does not.
        let head = Head { priority: 3, at: Hlc(1) };
        let offer = hubs.try_take_poller(&key(1, "a"), 7, head, Hlc(1)).expect("waiting");
        assert_eq!(add(&mut hubs, key(3, "a"), 5), full);
        assert!(hubs.poller_served(&key(1, "a"), &offer, Hlc(1)));
        assert_eq!(add(&mut hubs, key(3, "a"), 5), Ok(()));
        assert!(hubs.remove_poller(&key(3, "a"), 5, Hlc(1)));
        assert!(!hubs.remove_poller(&key(3, "a"), 5, Hlc(1)));
        assert_eq!(add(&mut hubs, key(1, "c"), 6), Ok(()));
        assert_eq!(hubs.total, 4);
    }

    #[test]
    fn hubs_are_limited_and_idle_ones_make_room() {
        let mut hubs = hubs(MatchingLimits { hubs: 2, ..MatchingLimits::default() });
        let at = |seconds: u64| Hlc(seconds * 1_000_000_000);
        let head = Head { priority: 3, at: at(0) };
        assert!(hubs.report_work(&key(1, "a"), 1, Some((head, 1)), at(0)).is_ok());
        assert!(hubs.report_work(&key(1, "a"), 1, None, at(0)).is_ok());
        assert!(hubs.add_poller(&key(1, "b"), 1, "w", None, at(0)).is_ok());
        assert!(hubs.add_poller(&key(1, "c"), 2, "w", None, at(300)).is_err());
        assert!(hubs.add_poller(&key(1, "c"), 2, "w", None, at(301)).is_ok());
        assert!(hubs.get(&key(1, "a")).is_none());
        assert!(hubs.report_work(&key(1, "z"), 1, None, at(301)).is_ok(), "needs no hub");
        assert_eq!(hubs.len(), 2);
    }

    #[test]
    fn a_lost_shard_names_the_queues_to_pair_again() {
        let mut hubs = hubs(MatchingLimits::default());
        for queue in ["a", "b"] {
            assert!(hubs.add_poller(&key(1, queue), 1, "w", None, Hlc(1)).is_ok());
        }
        let head = Head { priority: 3, at: Hlc(1) };
        assert!(hubs.report_work(&key(1, "b"), 7, Some((head, 1)), Hlc(1)).is_ok());
        assert!(hubs.pair(&key(1, "b"), Hlc(1)).is_some());
        assert_eq!(hubs.shard_lost(7), [key(1, "b")]);
    }

    #[test]
    fn the_last_poll_decides_how_fast_a_queue_is_within_the_limit_of_all() {
        let mut hubs = hubs(MatchingLimits {
            tasks_per_second: Rate::per_second(1000.0),
            ..MatchingLimits::default()
        });
        let (queue, now) = (key(1, "a"), Hlc(1 << 60));
        let head = Head { priority: 3, at: Hlc(1) };
        let rate = |hubs: &mut Hubs<u32, u32>, poller, rate: Option<f64>| {
            assert!(hubs.add_poller(&queue, poller, "w", rate.map(Rate::per_second), now).is_ok());
            hubs.get(&queue).map(|hub| hub.tokens().rate())
        };
        assert!(hubs.report_work(&queue, 7, Some((head, 9)), now).is_ok());
        assert_eq!(hubs.get(&queue).map(|hub| hub.tokens().rate()), Some(Rate::Every(1_000_000)));
        assert_eq!(rate(&mut hubs, 1, Some(0.0)), Some(Rate::Never));
        assert!(hubs.pair(&queue, now).is_none());
        assert_eq!(hubs.pair_again_at(&queue, now), None);
        // A poll that says nothing ends the stop, for the one that waits as well.
        assert_eq!(rate(&mut hubs, 2, None), Some(Rate::Every(1_000_000)));
        let again = now.after(Duration::from_millis(1001));
        assert_eq!(hubs.pair_again_at(&queue, now), Some(again));
        assert_eq!(hubs.pair(&queue, again).map(|offer| offer.poller), Some(1));
        for (n, absurd) in [f64::NAN, f64::INFINITY, 100_000.0].into_iter().enumerate() {
            let rate = rate(&mut hubs, 10 + n as u32, Some(absurd));
            assert_eq!(rate, Some(Rate::Every(1_000_000)), "{absurd}");
        }
        assert_eq!(rate(&mut hubs, 20, Some(2.0)), Some(Rate::Every(500_000_000)));
        // Another queue, and the same name with tasks of another type, have their own.
        let other = HubKey { task: TaskType::Workflow, ..queue.clone() };
        assert!(hubs.add_poller(&other, 30, "w", None, now).is_ok());
        assert_eq!(hubs.get(&other).map(|hub| hub.tokens().rate()), Some(Rate::Every(1_000_000)));
        // A refused poll changes nothing.
        hubs.limits.pollers_per_queue = 1;
        assert!(hubs.add_poller(&queue, 40, "w", Some(Rate::Never), now).is_err());
        assert_eq!(hubs.get(&queue).map(|hub| hub.tokens().rate()), Some(Rate::Every(500_000_000)));
    }

    #[test]
    fn a_configured_rate_of_nothing_stops_every_queue() {
        let mut hubs =
            hubs(MatchingLimits { tasks_per_second: Rate::Never, ..MatchingLimits::default() });
        assert!(hubs.add_poller(&key(1, "a"), 1, "w", Some(Rate::UNLIMITED), Hlc(1)).is_ok());
        let head = Head { priority: 3, at: Hlc(1) };
        assert!(hubs.report_work(&key(1, "a"), 7, Some((head, 1)), Hlc(1)).is_ok());
        assert!(hubs.pair(&key(1, "a"), Hlc(1 << 60)).is_none());
    }
}
