//! The loop around a reign: take inputs, fill the open entry, propose it, take in what was
//! applied, answer. It awaits nothing but its inbox, the log and its clock.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use holdfast_engine::ids::{ExecutionKey, Hlc, Uuid};
use holdfast_engine::{Code, Input, Rejection, Reply};
use holdfast_storage::StorageError;
use holdfast_storage::tables::deadline::DeadlineKey;
use holdfast_storage::tables::{Key, ShardId};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::review::time_is_known;
use super::row_ops;
use super::{
    Answer, Batch, Held, InFlight, Leading, ReplyTo, RunEffects, Serving, ShardStatus, SubmitError,
    Work, hand_out,
};
use crate::admission::{Admission, Class, Refused, Waiting};
use crate::census::Census;
use crate::deadlines::Deadline;
use crate::entry::{EntryBytes, ShardEntry};
use crate::group::Group;
use crate::hubs::{Hubs, LentPoller, TaskRef};
use crate::machine::{Ended, Proposed};
use crate::meta::stopped;

/// What waits for a shard's leader.
#[derive(Debug)]
enum Message {
    Work(Box<Work>),
    Offer(Box<LentPoller>),
    /// A task that was handed over by this start, to a poll that was over.
    Return(Box<TaskRef>, Uuid),
    /// Somebody counts what is held.
    Census(oneshot::Sender<Census>),
}

/// The inbox of a shard on this node. Open only while this node leads the shard.
#[derive(Debug)]
pub(crate) struct Inbox {
    held: Mutex<Open>,
    wake: Notify,
}

struct Open {
    open: bool,
    admission: Admission<Message>,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "open: {}, waiting: {}", self.open, self.admission.len())
    }
}

const NO_LEADER: SubmitError = SubmitError::Unavailable("shard has no leader here");
const ANOTHER: &str = "the group has another leader or term";
const LEADERSHIP_LOST: SubmitError =
    SubmitError::Unavailable("leadership of the shard was lost, outcome unknown");

impl Inbox {
    pub(crate) fn new(limits: crate::admission::AdmissionLimits) -> Inbox {
        let held = Open { open: false, admission: Admission::new(limits) };
        Inbox { held: Mutex::new(held), wake: Notify::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a decision. `bytes` is the size of the request.
    pub(crate) fn submit(&self, work: Work, bytes: usize) -> Result<(), SubmitError> {
        let class = class_of(&work.input);
        let key = work.key.clone();
        let mut held = self.lock();
        if !held.open {
            return Err(NO_LEADER);
        }
        let waiting = Waiting { key, class, bytes, work: Message::Work(Box::new(work)) };
        let pushed = held.admission.push(waiting);
        drop(held);
        match pushed {
            Ok(()) => {
                self.wake.notify_one();
                Ok(())
            }
            Err((why, _)) => Err(SubmitError::Rejected(refusal(why))),
        }
    }

    /// A poller that the hub paired with this shard.
    pub(crate) fn offer(&self, poller: LentPoller) {
        let key = ExecutionKey::workflow(poller.hub.namespace, "");
        let mut held = self.lock();
        if held.open {
            let waiting = Waiting {
                key,
                class: Class::Internal,
                bytes: 0,
                work: Message::Offer(Box::new(poller)),
            };
            // Internal work is never refused.
            let _ = held.admission.push(waiting);
            drop(held);
            self.wake.notify_one();
        } else {
            drop(held);
            let _ = poller.sender.send(Err(NO_LEADER));
        }
    }

    /// A task reached a poll that was over already: it goes to somebody else.
    pub(crate) fn give_back(&self, task: TaskRef, start_id: Uuid) {
        let key = task.execution.clone();
        let work = Message::Return(Box::new(task), start_id);
        let mut held = self.lock();
        if held.open {
            // Internal work is never refused. Without a leader here the grant is gone anyway.
            let waiting = Waiting { key, class: Class::Internal, bytes: 0, work };
            let _ = held.admission.push(waiting);
            drop(held);
            self.wake.notify_one();
        }
    }

    /// What waits here and what the shard's leader holds; nothing when that is another node.
    pub(crate) async fn census(&self) -> Census {
        let (sender, counted) = oneshot::channel();
        let waiting = Waiting {
            key: ExecutionKey::workflow(Uuid::NIL, ""),
            class: Class::Internal,
            bytes: 0,
            work: Message::Census(sender),
        };
        let inputs = {
            let mut held = self.lock();
            if !held.open {
                return Census::default();
            }
            let inputs = held.admission.len();
            // Internal work is never refused.
            let _ = held.admission.push(waiting);
            inputs
        };
        self.wake.notify_one();
        let held = counted.await.unwrap_or_default();
        Census { inputs, ..held }
    }

    fn pop(&self) -> Option<Message> {
        self.lock().admission.pop().map(|waiting| waiting.work)
    }

    fn open(&self) {
        self.lock().open = true;
    }

    /// Refuses what waits and what comes.
    fn close(&self) {
        let waiting: Vec<Message> = {
            let mut held = self.lock();
            held.open = false;
            std::iter::from_fn(|| held.admission.pop().map(|w| w.work)).collect()
        };
        for message in waiting {
            match message {
                Message::Work(work) => match work.to {
                    ReplyTo::Caller(sender, _) => drop(sender.send(Err(NO_LEADER))),
                    ReplyTo::Poller(poller, _) => drop(poller.sender.send(Err(NO_LEADER))),
                },
                Message::Offer(poller) => drop(poller.sender.send(Err(NO_LEADER))),
                Message::Return(..) | Message::Census(_) => {}
            }
        }
    }
}

fn class_of(input: &Input) -> Class {
    match input {
        Input::WorkflowTaskCompleted { .. }
        | Input::WorkflowTaskRefused { .. }
        | Input::Overgrown { .. }
        | Input::WorkflowTaskFailed { .. }
        | Input::ActivityCompleted { .. }
        | Input::ActivityFailed { .. }
        | Input::ActivityCanceled { .. }
        | Input::Heartbeat { .. } => Class::Completion,
        Input::Signal(_)
        | Input::SignalWithStart(_)
        | Input::RequestCancel(_)
        | Input::Terminate(_)
        | Input::ResetSticky { .. } => Class::Signal,
        Input::Start(_) | Input::Delete { .. } => Class::Start,
        Input::Describe { .. } | Input::History { .. } => Class::Read,
        Input::GrantWorkflowTask { .. }
        | Input::GrantActivity { .. }
        | Input::Revoke { .. }
        | Input::FlushStarts { .. }
        | Input::StickyUnavailable { .. }
        | Input::Due { .. } => Class::Internal,
    }
}

fn refusal(why: Refused) -> Rejection {
    use holdfast_proto::enums::{ResourceExhaustedCause, ResourceExhaustedScope};
    use holdfast_proto::errordetails::ResourceExhaustedFailure;
    let (cause, message) = match why {
        Refused::Overloaded => (ResourceExhaustedCause::SystemOverloaded, "shard is overloaded"),
        Refused::BusyWorkflow => (ResourceExhaustedCause::BusyWorkflow, "workflow is busy"),
    };
    Rejection::new(Code::ResourceExhausted, message).with(&ResourceExhaustedFailure {
        cause: cause as i32,
        scope: ResourceExhaustedScope::Namespace as i32,
    })
}

/// Inputs decided before the loop looks at anything else.
const TURN: usize = 256;

/// Runs the shard's leader duties for as long as its group is open. `stop` ends it cleanly: the
/// grants are made durable, what is on its way is answered.
pub(crate) async fn run(
    mut leading: Leading,
    mut ended: mpsc::UnboundedReceiver<Ended>,
    mut stop: watch::Receiver<bool>,
) {
    let _stopped = Stopped(leading.serving.clone());
    let (shard, group) = (leading.shard, leading.group.clone());
    let duties = AssertUnwindSafe(duties(&mut leading, &mut ended, &mut stop));
    if duties.catch_unwind().await.is_err() {
        tracing::error!(shard, "the shard's loop panicked: it stops on this node");
        group.stop().await;
    }
}

async fn duties(
    leading: &mut Leading,
    ended: &mut mpsc::UnboundedReceiver<Ended>,
    stop: &mut watch::Receiver<bool>,
) {
    let mut reigned = None;
    loop {
        let term = tokio::select! {
            biased;
            () = stopped(stop) => return,
            term = leading.group.await_serving() => match term {
                Ok(term) => term,
                Err(_) => return,
            },
        };
        // A leader whose clock is doubted for a moment ceases to serve and serves again, in one term.
        if reigned == Some(term) {
            let settled = tokio::select! {
                biased;
                () = stopped(stop) => return,
                settled = settle(&leading.group, term) => settled,
            };
            if !settled {
                continue;
            }
        }
        let known = tokio::select! {
            biased;
            () = stopped(stop) => return,
            known = time_is_known(leading, term) => known,
        };
        if !known {
            continue;
        }
        while ended.try_recv().is_ok() {}
        reigned = Some(term);
        match reign(leading, term, ended, stop).await {
            End::Stopped => return,
            End::Damaged(why) => {
                tracing::error!(shard = leading.shard, %why, "the shard's tables are damaged: it stops");
                // Whoever has them whole may lead.
                leading.group.stop().await;
                return;
            }
            End::Lost(why) => tracing::info!(shard = leading.shard, why, "reign over"),
        }
    }
}

/// One reign in `term`, from its opening to its end.
async fn reign(
    leading: &mut Leading,
    term: u64,
    ended: &mut mpsc::UnboundedReceiver<Ended>,
    stop: &mut watch::Receiver<bool>,
) -> End {
    let mut serving = match Serving::open(leading, term) {
        Ok(serving) => serving,
        Err(why) => return End::Damaged(why),
    };
    leading.reigns = serving.reign.counter + 1;
    // However the reign ends, by a panic of ours too, nobody waits for an answer that never comes.
    let _open = OpenInbox::new(leading);
    if let Err(why) = serving.open_queues() {
        return End::Damaged(why);
    }
    tracing::info!(shard = leading.shard, term, reign = serving.reign.counter, "shard serves");
    let end = serving.serve(leading, ended, stop).await;
    serving.give_up();
    end
}

/// Waits until whatever was proposed in `term` has been applied or never will be: then the tables
/// may be read for the next reign of this term (DESIGN 3.2). An entry that is in the log of a leader
/// who hears no quorum is neither, so there is no giving up while this node serves; gives `false`
/// when it ceased to, and then nothing is known.
async fn settle(group: &Group, term: u64) -> bool {
    /// Between tries; openraft refuses at once while its lease is over.
    const AGAIN: Duration = Duration::from_millis(50);
    let mut leadership = group.leadership();
    while group.barrier().await.is_err() {
        tokio::select! {
            biased;
            () = left(&mut leadership, term) => return false,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    true
}

/// The inbox of a shard for as long as a reign lasts.
struct OpenInbox {
    shard: ShardId,
    inbox: Arc<Inbox>,
    hubs: Arc<Hubs>,
    serving: watch::Sender<ShardStatus>,
}

impl OpenInbox {
    fn new(leading: &Leading) -> OpenInbox {
        leading.inbox.open();
        leading.serving.send_replace(ShardStatus::Serving);
        OpenInbox {
            shard: leading.shard,
            inbox: leading.inbox.clone(),
            hubs: leading.hubs.clone(),
            serving: leading.serving.clone(),
        }
    }
}

impl Drop for OpenInbox {
    fn drop(&mut self) {
        self.serving.send_replace(ShardStatus::Waiting);
        self.inbox.close();
        self.hubs.shard_gone(self.shard);
    }
}

/// Shows that this node has stopped serving a shard, whatever the reason.
struct Stopped(watch::Sender<ShardStatus>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.send_replace(ShardStatus::Stopped);
    }
}

/// How a reign ended.
enum End {
    Stopped,
    Lost(&'static str),
    Damaged(StorageError),
}

impl From<StorageError> for End {
    fn from(why: StorageError) -> End {
        End::Damaged(why)
    }
}

impl Serving {
    async fn serve(
        &mut self,
        leading: &Leading,
        ended: &mut mpsc::UnboundedReceiver<Ended>,
        stop: &mut watch::Receiver<bool>,
    ) -> End {
        let mut leadership = leading.group.leadership();
        let mut standing = self.host.clock.standing();
        let term = self.reign.term;
        let (rounds_out, mut rounds) = mpsc::channel::<(Vec<Held>, bool)>(1);
        let mut reading = false;
        loop {
            if !self.knows_the_time(leading) {
                match self.stand_still(leading, ended, stop).await {
                    Some(end) => return end,
                    None => continue,
                }
            }
            let wake_at = match self.turn(leading) {
                Ok(at) => at,
                Err(why) => return End::Damaged(why),
            };
            if let Err(why) = self.propose(leading, term).await {
                return End::Damaged(why);
            }
            if !reading && !self.reads.is_empty() {
                reading = true;
                self.begin_reads(leading.group.clone(), rounds_out.clone());
            }
            if !leading.inbox.lock().admission.is_empty() && !self.is_full() {
                // More work waits: do not sleep, but let others run.
                tokio::task::yield_now().await;
                if let Some(end) = self.take_ended(ended) {
                    return end;
                }
                if let Ok((held, ok)) = rounds.try_recv() {
                    reading = false;
                    if let Err(why) = self.finish_reads(held, ok) {
                        return End::Damaged(why);
                    }
                }
                if *leadership.borrow() != Some(term) {
                    return End::Lost(ANOTHER);
                }
                if *stop.borrow() {
                    return self.wind_down(leading, ended).await;
                }
                continue;
            }
            let sleep = tokio::time::sleep_until(wake_at);
            tokio::select! {
                biased;
                () = left(&mut leadership, term) => {
                    return End::Lost(ANOTHER);
                }
                one = ended.recv() => match one {
                    Some(one) => {
                        if let Some(end) = self.ended(one) { return end; }
                        if let Some(end) = self.take_ended(ended) { return end; }
                    }
                    None => return End::Lost("the group is gone"),
                },
                Some((held, ok)) = rounds.recv() => {
                    reading = false;
                    if let Err(why) = self.finish_reads(held, ok) { return End::Damaged(why); }
                }
                () = stopped(stop) => return self.wind_down(leading, ended).await,
                () = leading.inbox.wake.notified() => {}
                // What is due is another matter now.
                Ok(()) = standing.changed() => {}
                // A full entry that waits for a place in the pipeline: nothing that is due can be
                // decided before one is applied, and looking again at once would only spin.
                () = sleep, if !self.is_full() => {}
            }
        }
    }

    /// Waits until this node may say what time it is; gives how the reign ends where it does before.
    async fn stand_still(
        &mut self,
        leading: &Leading,
        ended: &mut mpsc::UnboundedReceiver<Ended>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<End> {
        tokio::select! {
            biased;
            () = stopped(stop) => Some(self.wind_down(leading, ended).await),
            known = time_is_known(leading, self.reign.term) => {
                (!known).then_some(End::Lost(ANOTHER))
            }
        }
    }

    /// Proposes the entries that are ready, as long as the pipeline takes them.
    async fn propose(&mut self, leading: &Leading, term: u64) -> Result<(), StorageError> {
        while let Some(entry) = self.next_entry()? {
            leading.group.propose(term, entry).await;
        }
        Ok(())
    }

    /// One turn: due deadlines, due tasks, inputs. Gives when to wake at the latest.
    fn turn(&mut self, leading: &Leading) -> Result<Instant, StorageError> {
        let now = self.look_at_the_clock();
        let mut budget = TURN;
        self.refill_wheel()?;
        while budget > 0 && !self.is_full() {
            let Some(due) = self.wheel.pop_due(now) else { break };
            self.fired += 1;
            budget -= 1;
            self.internal(&due.key, Input::Due { run: due.run })?;
            if self.quarantined.contains(&due.key) {
                self.unmet = Some(self.unmet.map_or(due.at, |unmet| unmet.min(due.at)));
            }
            self.refill_wheel()?;
        }
        self.delayed(now)?;
        let reviewing = self.go_on_reviewing(now)?;
        while budget > 0 && !self.is_full() {
            budget -= 1;
            match leading.inbox.pop() {
                Some(Message::Work(work)) => self.work(*work)?,
                Some(Message::Offer(poller)) => self.offered(*poller)?,
                Some(Message::Return(task, start_id)) => self.returned(&task, start_id)?,
                Some(Message::Census(to)) => {
                    // Whoever counts may have gone.
                    let _ = to.send(self.census());
                }
                None => break,
            }
        }
        let steady = self.host.clock.steady();
        let flush =
            (!self.grants.is_empty()).then(|| self.first_grant.after(self.config.start_flush));
        if flush.is_some_and(|at| at <= steady) {
            self.flush_starts()?;
        }
        let flush = flush.filter(|at| *at > steady).map(|at| at.since(steady));
        // An offer of this turn may have found that its queue's tasks are for later.
        let next_task = self.delayed.first().map(|(at, _)| *at);
        let next = [self.wheel.next(), next_task].into_iter().flatten().map(|at| at.since(now));
        let rows = reviewing.then_some(Duration::ZERO);
        // Clocks differ in rate by little; an hour bounds what a wrong guess costs.
        let most = Duration::from_secs(3600);
        let wait = next.chain(flush).chain(rows).fold(most, Duration::min);
        Ok(Instant::now() + wait)
    }

    fn work(&mut self, work: Work) -> Result<(), StorageError> {
        let Work { key, input, namespace, to } = work;
        let decided = self.decide(&key, &namespace, input)?;
        let mut held = Held { to, result: decided.result, parked: None };
        if let (ReplyTo::Caller(_, wait), Ok(Reply::History(view))) = (&held.to, &held.result)
            && !hand_out::satisfied(*wait, view)
        {
            match self.waits.park(view.run) {
                Some(parked) => held.parked = Some(parked),
                None => held.result = Err(refusal(Refused::Overloaded)),
            }
        }
        self.hold(held, decided.observed);
        Ok(())
    }

    /// Makes every outstanding grant durable with the open entry.
    fn flush_starts(&mut self) -> Result<(), StorageError> {
        for (key, run) in std::mem::take(&mut self.grants) {
            self.internal(&key, Input::FlushStarts { run })?;
        }
        Ok(())
    }

    /// Whether deciding has to wait for entries to be applied.
    pub(super) fn is_full(&self) -> bool {
        !self.sealed.is_empty() || self.batch.is_full(&self.config)
    }

    /// Closes the open entry, if there is one and room for it in the pipeline.
    fn next_entry(&mut self) -> Result<Option<EntryBytes>, StorageError> {
        if self.in_flight.len() >= self.config.pipeline {
            return Ok(None);
        }
        if self.sealed.is_empty() {
            if self.batch.drafts.is_empty() {
                return Ok(None);
            }
            // Starts become durable with the shard's next entry (DESIGN 3.5), or with the one
            // behind it when that one is full.
            self.flush_starts()?;
        }
        let next = self.sealed.pop_front();
        let next = next.unwrap_or_else(|| std::mem::take(&mut self.batch));
        let Batch { drafts, moves, effects, held, .. } = next;
        let mut entry = ShardEntry::new(self.reign, self.proposed, self.host.clock.now());
        let mut touched = std::collections::BTreeSet::new();
        for (key, by) in moves {
            *self.counters.entry(key.clone()).or_insert(0) += by;
            touched.insert(key);
        }
        for key in touched {
            let count = self.counters.get(&key).copied().unwrap_or(0);
            entry.control.push(row_ops::counter_op(&key, count));
            if count == 0 {
                self.counters.remove(&key);
            }
        }
        let written: Vec<_> = effects.iter().filter_map(|e| self.deadline_key(e)).collect();
        entry.control.extend(self.move_low_water(&written));
        entry.drafts = drafts;
        self.proposed += 1;
        self.in_flight.push_back(InFlight { number: self.proposed, effects, held });
        let bytes = entry.encode().map_err(|why| StorageError::Corrupt(why.to_string()))?;
        Ok(Some(bytes))
    }

    fn deadline_key(&self, effects: &RunEffects) -> Option<bytes::Bytes> {
        let at = effects.diff.deadline?.1?;
        let (shard, execution, run) = (self.shard, effects.key.clone(), effects.run);
        Some(DeadlineKey { shard, at, execution, run }.encode())
    }

    fn take_ended(&mut self, ended: &mut mpsc::UnboundedReceiver<Ended>) -> Option<End> {
        while let Ok(one) = ended.try_recv() {
            if let Some(end) = self.ended(one) {
                return Some(end);
            }
        }
        None
    }

    /// One of our proposals ended. Anything but acceptance, in order, ends the reign: what was
    /// decided on top of it is void (DESIGN 3.2).
    fn ended(&mut self, one: Ended) -> Option<End> {
        if one.reign != self.reign {
            return None;
        }
        match one.how {
            Proposed::Accepted { .. } => {}
            Proposed::Skipped { .. } => return Some(End::Lost("an entry was skipped")),
            Proposed::Refused => return Some(End::Lost("a proposal was refused")),
            Proposed::Unknown => return Some(End::Lost("a proposal has an unknown outcome")),
        }
        let Some(entry) = self.in_flight.pop_front() else {
            return Some(End::Lost("an entry was applied that is not on its way"));
        };
        if entry.number != one.seq + 1 {
            return Some(End::Lost("entries were applied out of order"));
        }
        self.applied = entry.number;
        match self.release(entry) {
            Ok(()) => None,
            Err(why) => Some(End::Damaged(why)),
        }
    }

    /// An entry is committed and applied: its effects happen, its answers leave.
    fn release(&mut self, entry: InFlight) -> Result<(), StorageError> {
        for held in entry.held {
            self.answer(held)?;
        }
        for RunEffects { key, run, diff, wake } in entry.effects {
            self.cache.settle(&key, self.applied);
            if let Some((old, new)) = diff.deadline {
                let deadline = |at: Hlc| Deadline { at, key: key.clone(), run };
                if let Some(at) = old {
                    self.wheel.remove(&deadline(at));
                }
                if let Some(at) = new {
                    self.wheel.insert(deadline(at));
                }
            }
            for row in &diff.removed {
                self.task_removed(&key, run, row);
            }
            for row in &diff.added {
                self.task_added(&key, run, row)?;
            }
            if wake {
                self.waits.wake(run);
            }
        }
        Ok(())
    }

    fn answer(&mut self, held: Held) -> Result<(), StorageError> {
        match held.to {
            ReplyTo::Caller(sender, _) => {
                let answer = match held.result {
                    Ok(reply) => Ok(Answer { reply, parked: held.parked }),
                    Err(why) => Err(SubmitError::Rejected(why)),
                };
                // A caller that went away needs no answer.
                let _ = sender.send(answer);
            }
            ReplyTo::Poller(lent, task) => {
                let Ok(reply) = held.result else { return Ok(()) };
                self.hand_over(*lent, task, reply)?;
            }
        }
        Ok(())
    }

    /// A read index came back: what waited for it may leave, or was not answered by a leader.
    fn finish_reads(&mut self, held: Vec<Held>, ok: bool) -> Result<(), StorageError> {
        for one in held {
            if ok {
                self.answer(one)?;
            } else {
                fail(one.to);
            }
        }
        Ok(())
    }

    /// A clean stop: grants become durable, what is on its way is answered.
    async fn wind_down(
        &mut self,
        leading: &Leading,
        ended: &mut mpsc::UnboundedReceiver<Ended>,
    ) -> End {
        leading.inbox.close();
        self.waits.wake_all();
        if let Err(why) = self.flush_starts() {
            return End::Damaged(why);
        }
        loop {
            match self.next_entry() {
                Ok(Some(entry)) => {
                    leading.group.propose(self.reign.term, entry).await;
                    continue;
                }
                Ok(None) if self.in_flight.is_empty() => break,
                Ok(None) => {}
                Err(why) => return End::Damaged(why),
            }
            let Some(one) = ended.recv().await else { return End::Stopped };
            // All that is known to have ended counts before the next entry goes out.
            if let Some(end) = self.ended(one).or_else(|| self.take_ended(ended)) {
                return end;
            }
        }
        let reads = std::mem::take(&mut self.reads);
        let ok = !reads.is_empty() && leading.group.read_index().await.is_ok();
        match self.finish_reads(reads, ok) {
            Ok(()) => End::Stopped,
            Err(why) => End::Damaged(why),
        }
    }

    /// The reign is over: every answer that was held becomes Unavailable.
    fn give_up(mut self) {
        let in_flight = self.in_flight.drain(..).flat_map(|entry| entry.held);
        let sealed = self.sealed.drain(..).flat_map(|batch| batch.held);
        let open = self.batch.held.drain(..).chain(self.reads.drain(..));
        for held in in_flight.chain(sealed).chain(open) {
            fail(held.to);
        }
        self.waits.wake_all();
    }
}

/// Waits until this node does not lead in `term` any more.
pub(super) async fn left(leadership: &mut watch::Receiver<Option<u64>>, term: u64) {
    let _ = leadership.wait_for(|now| *now != Some(term)).await;
}

fn fail(to: ReplyTo) {
    match to {
        ReplyTo::Caller(sender, _) => drop(sender.send(Err(LEADERSHIP_LOST))),
        ReplyTo::Poller(poller, _) => drop(poller.sender.send(Err(LEADERSHIP_LOST))),
    }
}
