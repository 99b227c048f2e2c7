//! The hubs of this node: who polls which task queue, and which shards have work for it
//! (DESIGN 5). The arithmetic is [`holdfast_engine::matching`]; here are the locks and channels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_engine::ids::{EventId, ExecutionKey, Hlc, RunId, Uuid};
use holdfast_engine::input::Poller;
use holdfast_engine::matching::{self, Head, HubKey, MatchingLimits, Offer};
use holdfast_engine::{Rejection, Reply};
use holdfast_proto::taskqueue::PollerInfo;
use holdfast_storage::tables::ShardId;
use tokio::sync::oneshot;

use crate::host::Clock;
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
}

/// Every hub of this node.
pub(crate) struct Hubs {
    clock: Arc<dyn Clock>,
    inboxes: Vec<Arc<Inbox>>,
    held: Mutex<Held>,
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
        };
        Hubs { clock, inboxes, held: Mutex::new(held) }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a poll in and gives the id to withdraw it with. Some shard may be asked to serve it
    /// before this returns.
    pub(crate) fn poll(
        &self,
        hub: &HubKey,
        poller: Poller,
        sender: PollSender,
    ) -> Result<PollId, Rejection> {
        let now = self.clock.now();
        let mut held = self.lock();
        held.next += 1;
        let id = held.next;
        held.hubs.add_poller(hub, id, &poller.identity, now)?;
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
        let mut held = self.lock();
        held.waiting.remove(&id);
        held.hubs.remove_poller(hub, id, self.clock.now());
    }

    /// A poller for a task that a shard has at its head, when no better work waits elsewhere.
    pub(crate) fn take(&self, hub: &HubKey, shard: ShardId, head: Head) -> Option<LentPoller> {
        let now = self.clock.now();
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
        self.lock().hubs.poller_served(&lent.hub, &lent.offer, self.clock.now())
    }

    /// A shard has nothing for the poller it was lent: it waits again, as the first.
    pub(crate) fn give_back(&self, lent: LentPoller) {
        let now = self.clock.now();
        let LentPoller { hub, offer, poller, sender } = lent;
        let mut held = self.lock();
        if sender.is_closed() {
            held.hubs.remove_poller(&hub, offer.poller, now);
        } else if held.hubs.poller_returned(&hub, &offer) {
            held.waiting.insert(offer.poller, Waiting { poller, sender });
            self.pair(&mut held, &hub, now);
        }
    }

    /// What a shard has for a queue: its first task and how many are ready.
    pub(crate) fn report(&self, hub: &HubKey, shard: ShardId, work: Option<(Head, usize)>) {
        let now = self.clock.now();
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
        let now = self.clock.now();
        let mut held = self.lock();
        for hub in held.hubs.shard_lost(shard) {
            self.pair(&mut held, &hub, now);
        }
    }

    /// Whether the worker of a sticky queue is gone.
    pub(crate) fn is_sticky_gone(&self, hub: &HubKey) -> bool {
        let now = self.clock.now();
        self.lock().hubs.sticky_gone(hub, now)
    }

    /// The worker of a sticky queue said goodbye.
    pub(crate) fn sticky_shutdown(&self, hub: &HubKey) {
        self.lock().hubs.worker_shut_down(hub);
    }

    /// Who polled a queue lately.
    pub(crate) fn pollers(&self, hub: &HubKey) -> Vec<PollerInfo> {
        let now = self.clock.now();
        self.lock().hubs.get(hub).map(|hub| hub.describe(now)).unwrap_or_default()
    }

    /// Lends waiting pollers to shards that have work.
    fn pair(&self, held: &mut Held, hub: &HubKey, now: Hlc) {
        while let Some(offer) = held.hubs.pair(hub) {
            let Some(inbox) = self.inboxes.get(offer.shard as usize) else { return };
            match held.lend(hub, offer, now) {
                Some(lent) => inbox.offer(lent),
                // The shard's task still needs a poller.
                None => held.hubs.not_lent(hub, offer.shard),
            }
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
