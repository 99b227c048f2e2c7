//! The hubs of this node: who polls which task queue, and which shards have work for it
//! (DESIGN 5). The arithmetic is [`holdfast_engine::matching`]; here are the locks and channels.
//!
//! A queue whose rate is all that keeps a poller from a task is paired again when its next token
//! is there: an alarm is set whenever pairing ends so, and [`ring`] waits for the earliest. Nobody
//! else would: a shard that reported its work and a poller in line both only wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_engine::ids::{EventId, ExecutionKey, Hlc, RunId, Uuid};
use holdfast_engine::input::Poller;
use holdfast_engine::matching::{self, Head, HubKey, MatchingLimits, Offer, Rate};
use holdfast_engine::{Rejection, Reply};
use holdfast_proto::taskqueue::PollerInfo;
use holdfast_storage::tables::ShardId;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::host::Clock;
use crate::meta::stopped;
use crate::shard::{Inbox, SubmitError};

/// A poll, numbered by this node.
pub(crate) type PollId = u64;

/// A task of a backlog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TaskRef {
    pub(crate) execution: ExecutionKey,
    pub(crate) run: RunId,
    pub(crate) scheduled: EventId,
    pub(crate) stamp: u32,
}

/// A task on its way to a poll, with what it takes to bring it back.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) reply: Reply,
    pub(crate) task: TaskRef,
    pub(crate) start_id: Uuid,
}

/// Where the task of a poll goes.
pub(crate) type PollSender = oneshot::Sender<Result<Handed, SubmitError>>;

#[derive(Debug)]
struct Waiting {
    poller: Poller,
    sender: PollSender,
}

/// A poller lent to a shard, with the way back to it.
#[derive(Debug)]
pub(crate) struct LentPoller {
    pub(crate) hub: HubKey,
    pub(crate) offer: Offer<PollId, ShardId>,
    pub(crate) poller: Poller,
    pub(crate) sender: PollSender,
}

impl LentPoller {
    /// Whether the poll went away: it must not eat a task.
    pub(crate) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}

struct Held {
    hubs: matching::Hubs<PollId, ShardId>,
    waiting: BTreeMap<PollId, Waiting>,
    next: PollId,
    /// Polls until idle hubs are looked for again.
    until_sweep: u32,
    alarms: Alarms,
}

/// The queues that wait for a token, by when it is there; one alarm a queue.
#[derive(Default)]
struct Alarms {
    at: BTreeMap<HubKey, Hlc>,
    order: BTreeSet<(Hlc, HubKey)>,
}

impl Alarms {
    /// Sets, moves or takes away the alarm of a queue. Whether it is the earliest now.
    fn set(&mut self, hub: &HubKey, at: Option<Hlc>) -> bool {
        let before = match at {
            Some(at) => self.at.insert(hub.clone(), at),
            None => self.at.remove(hub),
        };
        if let Some(before) = before.filter(|before| Some(*before) != at) {
            self.order.remove(&(before, hub.clone()));
        }
        let Some(at) = at else { return false };
        self.order.insert((at, hub.clone()));
        before != Some(at) && self.order.first().is_some_and(|(_, first)| first == hub)
    }

    /// A queue whose time has come.
    fn pop(&mut self, now: Hlc) -> Option<HubKey> {
        let (_, hub) = self.order.first().filter(|(at, _)| *at <= now)?.clone();
        self.set(&hub, None);
        Some(hub)
    }
}

/// Every hub of this node.
pub(crate) struct Hubs {
    clock: Arc<dyn Clock>,
    inboxes: Vec<Arc<Inbox>>,
    held: Mutex<Held>,
    /// The earliest alarm is another one.
    alarm: Notify,
}

const SWEEP_EVERY: u32 = 10_000;

impl Hubs {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        limits: MatchingLimits,
        inboxes: Vec<Arc<Inbox>>,
        grace_until: Hlc,
    ) -> Hubs {
        let held = Held {
            hubs: matching::Hubs::new(limits, grace_until),
            waiting: BTreeMap::new(),
            next: 0,
            until_sweep: SWEEP_EVERY,
            alarms: Alarms::default(),
        };
        Hubs { clock, inboxes, held: Mutex::new(held), alarm: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a poll in and gives the id to withdraw it with. Some shard may be asked to serve it
    /// before this returns. `rate` is what the poll asks for its queue.
    pub(crate) fn poll(
        &self,
        hub: &HubKey,
        poller: Poller,
        rate: Option<Rate>,
        sender: PollSender,
    ) -> Result<PollId, Rejection> {
        let now = self.clock.steady();
        let mut held = self.lock();
        held.next += 1;
        let id = held.next;
        held.hubs.add_poller(hub, id, &poller.identity, rate, now)?;
        held.waiting.insert(id, Waiting { poller, sender });
        self.pair(&mut held, hub, now);
        held.until_sweep -= 1;
        if held.until_sweep == 0 {
            held.until_sweep = SWEEP_EVERY;
            held.hubs.sweep(now);
        }
        Ok(id)
    }

    /// The poll is over, served or not. May be repeated.
    pub(crate) fn withdraw(&self, hub: &HubKey, id: PollId) {
        let now = self.clock.steady();
        let mut held = self.lock();
        held.waiting.remove(&id);
        if held.hubs.remove_poller(hub, id, now) {
            // It may have held a token.
            self.pair(&mut held, hub, now);
        }
    }

    /// A poll that was served went away before it had its task: another one may have it at once.
    pub(crate) fn unserved(&self, hub: &HubKey) {
        let now = self.clock.steady();
        let mut held = self.lock();
        held.hubs.unserved(hub);
        self.pair(&mut held, hub, now);
    }

    /// A poller for a task that a shard has at its head, when no better work waits elsewhere.
    pub(crate) fn take(&self, hub: &HubKey, shard: ShardId, head: Head) -> Option<LentPoller> {
        let now = self.clock.steady();
        let mut held = self.lock();
        loop {
            let offer = held.hubs.try_take_poller(hub, shard, head, now)?;
            if let Some(lent) = held.lend(hub, offer, now) {
                return Some(lent);
            }
        }
    }

    /// The task is about to be handed over. `false`: the poll is over, revoke the grant.
    pub(crate) fn served(&self, lent: &LentPoller) -> bool {
        self.lock().hubs.poller_served(&lent.hub, &lent.offer, self.clock.steady())
    }

    /// A shard has nothing for the poller it was lent: it waits again, as the first.
    pub(crate) fn give_back(&self, lent: LentPoller) {
        let now = self.clock.steady();
        let LentPoller { hub, offer, poller, sender } = lent;
        let mut held = self.lock();
        if sender.is_closed() {
            held.hubs.remove_poller(&hub, offer.poller, now);
        } else if held.hubs.poller_returned(&hub, &offer) {
            held.waiting.insert(offer.poller, Waiting { poller, sender });
        }
        self.pair(&mut held, &hub, now);
    }

    /// Whether another shard of this node has better work for a queue that waits for a poller.
    pub(crate) fn has_better(&self, hub: &HubKey, shard: ShardId, head: Head) -> bool {
        self.lock().hubs.get(hub).is_some_and(|hub| hub.has_better(shard, head))
    }

    /// What a shard has for a queue: its first task and how many are ready.
    pub(crate) fn report(&self, hub: &HubKey, shard: ShardId, work: Option<(Head, usize)>) {
        let now = self.clock.steady();
        let mut held = self.lock();
        if held.hubs.report_work(hub, shard, work, now).is_err() {
            // Too many hubs: the backlog row stays, and the next poll of the queue finds it when
            // the shard reports again.
            tracing::warn!(queue = %hub.queue, "too many task queues have a hub");
            return;
        }
        self.pair(&mut held, hub, now);
    }

    /// A shard no longer leads here: what it reported is void.
    pub(crate) fn shard_gone(&self, shard: ShardId) {
        let now = self.clock.steady();
        let mut held = self.lock();
        for hub in held.hubs.shard_lost(shard) {
            self.pair(&mut held, &hub, now);
        }
    }

    /// Whether the worker of a sticky queue is gone.
    pub(crate) fn is_sticky_gone(&self, hub: &HubKey) -> bool {
        let now = self.clock.steady();
        self.lock().hubs.sticky_gone(hub, now)
    }

    /// The worker of a sticky queue said goodbye.
    pub(crate) fn sticky_shutdown(&self, hub: &HubKey) {
        self.lock().hubs.worker_shut_down(hub);
    }

    /// How many polls wait or are lent to a shard.
    pub(crate) fn polls(&self) -> usize {
        let held = self.lock();
        held.hubs.pollers().max(held.waiting.len())
    }

    /// Who polled a queue lately.
    pub(crate) fn pollers(&self, hub: &HubKey) -> Vec<PollerInfo> {
        let (steady, now) = (self.clock.steady(), self.clock.now());
        let mut infos =
            self.lock().hubs.get(hub).map(|hub| hub.describe(steady)).unwrap_or_default();
        for at in infos.iter_mut().filter_map(|info| info.last_access_time.as_mut()) {
            let ago = steady.since(Hlc::from_timestamp(at)).as_nanos();
            *at = Hlc(now.0.saturating_sub(u64::try_from(ago).unwrap_or(0))).timestamp();
        }
        infos
    }

    /// Pairs the queues whose next token is there, and gives when the next one will be.
    fn pair_due(&self) -> Option<Instant> {
        let now = self.clock.steady();
        let mut held = self.lock();
        while let Some(hub) = held.alarms.pop(now) {
            self.pair(&mut held, &hub, now);
        }
        let (next, _) = held.alarms.order.first()?;
        Instant::now().checked_add(next.since(now))
    }

    /// Lends waiting pollers to shards that have work.
    fn pair(&self, held: &mut Held, hub: &HubKey, now: Hlc) {
        self.pair_all(held, hub, now);
        let again = held.hubs.pair_again_at(hub, now);
        if held.alarms.set(hub, again) {
            self.alarm.notify_one();
        }
    }

    fn pair_all(&self, held: &mut Held, hub: &HubKey, now: Hlc) {
        while let Some(offer) = held.hubs.pair(hub, now) {
            let Some(inbox) = self.inboxes.get(offer.shard as usize) else { return };
            match held.lend(hub, offer, now) {
                Some(lent) => inbox.offer(lent),
                // The shard's task still needs a poller.
                None => held.hubs.not_lent(hub, offer.shard),
            }
        }
    }
}

/// Pairs each queue that waits for a token when it is there, until `stop`.
pub(crate) async fn ring(hubs: Arc<Hubs>, mut stop: watch::Receiver<bool>) {
    loop {
        let next = hubs.pair_due();
        let token = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = hubs.alarm.notified() => {}
            () = token => {}
        }
    }
}

impl Held {
    /// The poller of an offer, unless the poll is over.
    fn lend(
        &mut self,
        hub: &HubKey,
        offer: Offer<PollId, ShardId>,
        now: Hlc,
    ) -> Option<LentPoller> {
        match self.waiting.remove(&offer.poller) {
            Some(Waiting { poller, sender }) if !sender.is_closed() => {
                Some(LentPoller { hub: hub.clone(), offer, poller, sender })
            }
            Some(_) | None => {
                self.hubs.remove_poller(hub, offer.poller, now);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_engine::live::TaskType;

    #[test]
    fn a_queue_has_one_alarm_and_only_the_earliest_is_told() {
        let hub = |queue: &str| HubKey {
            namespace: Uuid([1; 16]),
            queue: queue.into(),
            task: TaskType::Activity,
        };
        let mut alarms = Alarms::default();
        assert!(alarms.set(&hub("a"), Some(Hlc(10))), "the first");
        assert!(!alarms.set(&hub("a"), Some(Hlc(10))), "known");
        assert!(!alarms.set(&hub("b"), Some(Hlc(20))), "later");
        assert!(alarms.set(&hub("b"), Some(Hlc(5))), "moved to the front");
        assert!(!alarms.set(&hub("b"), None), "taken away");
        assert_eq!(alarms.order.len(), 1);
        assert!(!alarms.set(&hub("c"), Some(Hlc(30))));
        assert_eq!(alarms.pop(Hlc(9)), None);
        assert_eq!(alarms.pop(Hlc(10)), Some(hub("a")));
        assert_eq!(alarms.pop(Hlc(29)), None);
        assert_eq!(alarms.pop(Hlc(30)), Some(hub("c")));
        assert!(alarms.at.is_empty() && alarms.order.is_empty());
    }
}
