//! The pollers of one hub: who waits, who holds an offer, who was here lately.
//!
//! `add -> waiting -> offered -> served | returned (to the front) | gone`
//!
//! **One arbiter per poller.** A poller is in exactly one of three places: waiting, offered to one
//! shard under one ticket, or gone. Only its hub moves it, and a shard hands a task over only when
//! the hub took the ticket back as served. So no poller is granted two tasks, whatever arrives
//! late, twice or from a leader that is no leader any more: an old ticket moves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::ids::Hlc;

/// How long a poller is shown after its last poll (`matching.PollerHistoryTTL`).
pub const HISTORY_TTL: Duration = Duration::from_secs(300);

/// A poller lent to a shard: to be answered by `poller_served` or `poller_returned`, once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Offer<P, S> {
    /// The poller.
    pub poller: P,
    /// The shard that may grant a task to it.
    pub shard: S,
    /// Never given twice by one hub.
    pub ticket: u64,
}

/// The pollers of a hub, in the order of their arrival.
#[derive(Clone, Debug)]
pub(super) struct Pollers<P, S> {
    /// By place in the line; those who came back stand before 0.
    line: BTreeMap<i64, P>,
    place: BTreeMap<P, i64>,
    offered: BTreeMap<P, Offer<P, S>>,
    front: i64,
    back: i64,
    tickets: u64,
}

impl<P: Copy + Ord, S: Copy + Ord> Pollers<P, S> {
    pub(super) fn new() -> Pollers<P, S> {
        Pollers {
            line: BTreeMap::new(),
            place: BTreeMap::new(),
            offered: BTreeMap::new(),
            front: 0,
            back: 0,
            tickets: 0,
        }
    }

    /// Waiting and offered ones together.
    pub(super) fn len(&self) -> usize {
        self.line.len() + self.offered.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    pub(super) fn contains(&self, poller: P) -> bool {
        self.place.contains_key(&poller) || self.offered.contains_key(&poller)
    }

    /// Whether a shard holds it.
    pub(super) fn is_offered(&self, poller: P) -> bool {
        self.offered.contains_key(&poller)
    }

    /// To the end of the line; `false` when it is here already.
    pub(super) fn add(&mut self, poller: P) -> bool {
        if self.contains(poller) {
            return false;
        }
        self.line.insert(self.back, poller);
        self.place.insert(poller, self.back);
        self.back += 1;
        true
    }

    /// Forgets it, wherever it is; `false` when it was not here.
    pub(super) fn remove(&mut self, poller: P) -> bool {
        if let Some(place) = self.place.remove(&poller) {
            self.line.remove(&place);
            return true;
        }
        self.offered.remove(&poller).is_some()
    }

    /// Lends the first in line to a shard.
    pub(super) fn offer(&mut self, shard: S) -> Option<Offer<P, S>> {
        let (_, poller) = self.line.pop_first()?;
        self.place.remove(&poller);
        self.tickets += 1;
        let offer = Offer { poller, shard, ticket: self.tickets };
        self.offered.insert(poller, offer);
        Some(offer)
    }

    /// Ends an offer; `false` when it is not the poller's offer, or the poller went away.
    pub(super) fn take_back(&mut self, offer: &Offer<P, S>) -> bool {
        let current = self.offered.get(&offer.poller) == Some(offer);
        if current {
            self.offered.remove(&offer.poller);
        }
        current
    }

    /// Ends an offer that came to nothing: the poller is the first in line again.
    pub(super) fn put_back(&mut self, offer: &Offer<P, S>) -> bool {
        let current = self.take_back(offer);
        if current {
            self.front -= 1;
            self.line.insert(self.front, offer.poller);
            self.place.insert(offer.poller, self.front);
        }
        current
    }

    /// The offers to one shard, the last first, so that putting them back keeps their order.
    pub(super) fn offers_to(&self, shard: S) -> Vec<Offer<P, S>> {
        let mut offers: Vec<_> =
            self.offered.values().filter(|offer| offer.shard == shard).copied().collect();
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.ticket));
        offers
    }
}

/// Who polled lately: for descriptions only.
#[derive(Clone, Debug, Default)]
pub struct History {
    last: BTreeMap<Arc<str>, Hlc>,
    by_time: BTreeSet<(Hlc, Arc<str>)>,
}

impl History {
    /// Notes a poll. Beyond `capacity` identities the one seen longest ago is forgotten.
    pub fn seen(&mut self, identity: &str, now: Hlc, capacity: usize) {
        let identity: Arc<str> = Arc::from(identity);
        if let Some(before) = self.last.insert(identity.clone(), now) {
            self.by_time.remove(&(before, identity.clone()));
        }
        self.by_time.insert((now, identity));
        self.forget(now, capacity);
    }

    /// Identities and their last poll, the latest first, none older than [`HISTORY_TTL`].
    pub fn recent(&self, now: Hlc) -> impl Iterator<Item = (&str, Hlc)> {
        let fresh = move |at: &Hlc| now.since(*at) <= HISTORY_TTL;
        self.by_time.iter().rev().take_while(move |(at, _)| fresh(at)).map(|(at, i)| (&**i, *at))
    }

    fn forget(&mut self, now: Hlc, capacity: usize) {
        while let Some((at, _)) = self.by_time.first() {
            if self.by_time.len() <= capacity && now.since(*at) <= HISTORY_TTL {
                return;
            }
            if let Some((_, identity)) = self.by_time.pop_first() {
                self.last.remove(&identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Hlc {
        Hlc(seconds * 1_000_000_000)
    }

    #[test]
    fn an_old_ticket_moves_nothing() {
        let mut pollers = Pollers::new();
        assert!(pollers.add('a'));
        assert!(!pollers.add('a'));
        let first = pollers.offer(1).expect("waiting");
        assert!(!pollers.add('a'), "an offered poller is here");
        assert!(pollers.put_back(&first));
        let second = pollers.offer(2).expect("waiting");
        assert!(!pollers.take_back(&first));
        assert!(!pollers.put_back(&first));
        assert!(pollers.take_back(&second));
        assert!(!pollers.take_back(&second));
        assert_eq!(pollers.len(), 0);
    }

    #[test]
    fn those_who_come_back_stand_first_in_their_old_order() {
        let mut pollers = Pollers::new();
        for poller in ['a', 'b', 'c'] {
            pollers.add(poller);
        }
        pollers.offer(1);
        pollers.offer(1);
        for offer in pollers.offers_to(1) {
            assert!(pollers.put_back(&offer));
        }
        let order: Vec<char> =
            std::iter::from_fn(|| pollers.offer(2)).map(|offer| offer.poller).collect();
        assert_eq!(order, ['a', 'b', 'c']);
    }

    #[test]
    fn history_is_bounded_in_time_and_number() {
        let mut history = History::default();
        history.seen("old", at(0), 3);
        history.seen("a", at(200), 3);
        history.seen("b", at(250), 3);
        history.seen("a", at(300), 3);
        let shown = |history: &History, now| {
            history.recent(now).map(|(i, _)| i.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&history, at(300)), ["a", "b", "old"]);
        assert_eq!(shown(&history, at(301)), ["a", "b"]);
        history.seen("c", at(400), 2);
        assert_eq!(shown(&history, at(400)), ["c", "a"]);
        assert_eq!(history.last.len(), 2);
    }
}
