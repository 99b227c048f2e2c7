//! Handing tasks to pollers: the backlog's head in memory, direct hand-over, offers, revocation.

use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_engine::ids::{ExecutionKey, Hlc, RunId, Uuid};
use holdfast_engine::input::HistoryView;
use holdfast_engine::live::TaskType;
use holdfast_engine::matching::{Head, HubKey, Pop, TaskKey, Window};
use holdfast_engine::rows::BacklogRow;
use holdfast_engine::{Input, Reply};
use holdfast_storage::tables::Key;
use holdfast_storage::tables::backlog::{BacklogKey, QueueKey, Task};
use holdfast_storage::{Direction, StorageError};

use super::{Held, HistoryWait, ReplyTo, Serving, row_ops};
use crate::hubs::{Handed, LentPoller, TaskRef};
use crate::links::CLOCK_BOUND;

/// Backlog rows that are read when only the first is asked for.
const LOOK: usize = 64;

/// Tasks of one queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) hub: HubKey,
    window: Window<TaskRef>,
}

impl Queue {
    fn new(key: &QueueKey, window: Window<TaskRef>) -> Queue {
        let task = match key.task_type {
            1 => TaskType::Workflow,
            _ => TaskType::Activity,
        };
        let queue = key.queue.as_str().into();
        Queue { hub: HubKey { namespace: key.namespace, queue, task }, window }
    }
}

fn task_key(key: &BacklogKey) -> TaskKey {
    TaskKey { priority: key.priority, pass: key.pass, at: key.at, run: key.run, event: key.event }
}

impl Serving {
    /// What time it is for tasks and decisions: what has been decided is not in the future, though the
    /// clock of this node may be a little behind that of the leader before it. What was decided
    /// further ahead than that was so by a clock that was wrong.
    pub(super) fn now(&self) -> Hlc {
        let now = self.host.clock.now();
        if self.clock > now.after(CLOCK_BOUND) { now } else { now.max(self.clock) }
    }

    /// Opens the window of a queue that had a backlog before this reign.
    pub(super) fn open_queue(&mut self, key: QueueKey) -> Result<(), StorageError> {
        let queue = Queue::new(&key, Window::unloaded(self.config.backlog));
        self.queues.insert(key.clone(), queue);
        self.hand_out(&key)?;
        self.look_later(&key);
        Ok(())
    }

    /// Reads rows of one priority that a window misses, so many at most.
    fn load(&mut self, key: &QueueKey, from: TaskKey, page: usize) -> Result<(), StorageError> {
        let start = backlog_key(key, &from).encode();
        let end = backlog_key(key, &TaskKey::first_of(from.priority + 1)).encode();
        let mut rows = Vec::new();
        let mut failed = None;
        let view = self.host.store.view();
        view.scan(&start, &end, Direction::Forward, &mut |row, value| {
            match task_of(row, value) {
                Ok(task) => rows.push(task),
                Err(why) => {
                    failed = Some(why);
                    return ControlFlow::Break(());
                }
            }
            if rows.len() > page { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(why) = failed {
            return Err(why);
        }
        let more = rows.len() > page;
        rows.truncate(page);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.window.load(from, rows, more);
        }
        // Some of what was read may be for later.
        self.look_later(key);
        Ok(())
    }

    /// Takes the first task of a queue that may go out now.
    fn pop(&mut self, key: &QueueKey) -> Result<Option<TaskRef>, StorageError> {
        loop {
            let now = self.now();
            let Some(queue) = self.queues.get_mut(key) else { return Ok(None) };
            match queue.window.pop_ready(now) {
                Pop::Task(_, task) => return Ok(Some(task)),
                Pop::Load(from) => self.load(key, from, self.config.backlog.max(1))?,
                Pop::Empty => return Ok(None),
            }
        }
    }

    /// The first task of a queue that may go out now, and how many are known. Looked up where the
    /// window does not hold it: a hub that is told less than the truth lets younger work pass that of
    /// other shards.
    fn head(&mut self, key: &QueueKey) -> Result<Option<(Head, usize)>, StorageError> {
        loop {
            let now = self.now();
            let Some(queue) = self.queues.get_mut(key) else { return Ok(None) };
            match queue.window.hidden_head(now) {
                Some(from) => self.load(key, from, LOOK.min(self.config.backlog.max(1)))?,
                None => return Ok(queue.window.head(now)),
            }
        }
    }

    /// Remembers when a queue has something that is not ready now.
    fn look_later(&mut self, key: &QueueKey) {
        let now = self.now();
        if let Some(at) = self.queues.get(key).and_then(|queue| queue.window.next_delayed(now)) {
            self.delayed.insert((at, key.clone()));
        }
    }

    /// A committed backlog row: its task can be handed out from now on.
    pub(super) fn task_added(
        &mut self,
        key: &ExecutionKey,
        run: RunId,
        row: &BacklogRow,
    ) -> Result<(), StorageError> {
        let place = row_ops::backlog_key(self.shard, key, run, row);
        let (scheduled, stamp) = (row.scheduled, row.stamp);
        let task = TaskRef { execution: key.clone(), run, scheduled, stamp };
        let queue_key = place.queue.clone();
        let held = self.config.backlog;
        let new = || Queue::new(&queue_key, Window::new(held));
        let queue = self.queues.entry(queue_key.clone()).or_insert_with(new);
        queue.window.insert(task_key(&place), task);
        if row.sticky && self.hubs.is_sticky_gone(&queue.hub) {
            return self.internal(key, Input::StickyUnavailable { run, scheduled, stamp });
        }
        if row.at > self.now() {
            self.delayed.insert((row.at, queue_key));
            return Ok(());
        }
        self.hand_out(&queue_key)
    }

    /// A committed removal of a backlog row.
    pub(super) fn task_removed(&mut self, key: &ExecutionKey, run: RunId, row: &BacklogRow) {
        let place = row_ops::backlog_key(self.shard, key, run, row);
        let Some(queue) = self.queues.get_mut(&place.queue) else { return };
        queue.window.remove(&task_key(&place));
        let window = &queue.window;
        if window.is_empty() && window.taken() == 0 && !window.is_truncated() {
            self.queues.remove(&place.queue);
        }
    }

    /// Gives tasks of a queue to pollers while there are both, then tells the hub what is left.
    pub(super) fn hand_out(&mut self, key: &QueueKey) -> Result<(), StorageError> {
        loop {
            let work = self.head(key)?;
            let Some(queue) = self.queues.get(key) else { return Ok(()) };
            let Some((head, _)) = work else {
                self.hubs.report(&queue.hub, self.shard, None);
                return Ok(());
            };
            let Some(lent) = self.hubs.take(&queue.hub, self.shard, head) else {
                self.hubs.report(&queue.hub, self.shard, work);
                return Ok(());
            };
            if let Some(lent) = self.grant(key, lent)? {
                self.hubs.give_back(lent);
            }
        }
    }

    /// The hub lent a poller. It gets the head of its queue, or goes back: also when another shard has
    /// better by now.
    pub(super) fn offered(&mut self, lent: LentPoller) -> Result<(), StorageError> {
        let hub = lent.hub.clone();
        let key = QueueKey {
            shard: self.shard,
            namespace: hub.namespace,
            queue: hub.queue.to_string(),
            task_type: hub.task as u8,
        };
        let head = self.head(&key)?.map(|(head, _)| head);
        // The task it was lent for may be gone, or granted to the poller before it.
        let passes = head.is_some_and(|head| self.hubs.has_better(&hub, self.shard, head));
        let keeps = lent.is_gone() || passes;
        let left = if keeps { Some(lent) } else { self.grant(&key, lent)? };
        let work = self.head(&key)?;
        // What is left must be known before the poller is in line again, or it comes right back.
        self.hubs.report(&hub, self.shard, work);
        if let Some(lent) = left {
            self.hubs.give_back(lent);
        }
        Ok(())
    }

    /// Grants the first task that is still there; gives the poller back when none is.
    fn grant(
        &mut self,
        key: &QueueKey,
        lent: LentPoller,
    ) -> Result<Option<LentPoller>, StorageError> {
        loop {
            let Some(task) = self.pop(key)? else { return Ok(Some(lent)) };
            let namespace = self.registry.view(&task.execution.namespace);
            let (run, scheduled, stamp) = (task.run, task.scheduled, task.stamp);
            let poller = lent.poller.clone();
            let input = match lent.hub.task {
                TaskType::Workflow => Input::GrantWorkflowTask { run, scheduled, stamp, poller },
                TaskType::Activity => Input::GrantActivity { run, scheduled, stamp, poller },
            };
            let decided = self.decide(&task.execution.clone(), &namespace, input)?;
            // Otherwise the task is not there any more: its row leaves with the entry that ended it.
            if let Ok(Reply::WorkflowTask(_) | Reply::ActivityTask(_)) = decided.result {
                let to = ReplyTo::Poller(Box::new(lent), task);
                let held = Held { to, result: decided.result, parked: None };
                self.hold(held, decided.observed);
                return Ok(None);
            }
        }
    }

    /// Hands a granted task over, now that what it rests on is committed; a poll that went away
    /// eats nothing.
    pub(super) fn hand_over(
        &mut self,
        lent: LentPoller,
        task: TaskRef,
        reply: Reply,
    ) -> Result<(), StorageError> {
        let served = self.hubs.served(&lent);
        let start_id = lent.poller.start_id;
        if served {
            if lent.sender.send(Ok(Handed { reply, task: task.clone(), start_id })).is_ok() {
                return Ok(());
            }
            self.hubs.unserved(&lent.hub);
        }
        tracing::debug!(queue = %lent.hub.queue, "a poll went away before its task");
        self.returned(&task, start_id)
    }

    /// A task was granted and nobody has it: unless that is durable already, it waits again.
    pub(super) fn returned(&mut self, task: &TaskRef, start_id: Uuid) -> Result<(), StorageError> {
        let namespace = self.registry.view(&task.execution.namespace);
        let input = Input::Revoke { run: task.run, start_id };
        self.decide(&task.execution.clone(), &namespace, input)?;
        // The rows as they stand now tell whether the task waits again, and where.
        if let Some(row) = self.waiting_row(task) {
            self.task_added(&task.execution.clone(), task.run, &row)?;
        }
        Ok(())
    }

    /// The backlog row of a task, if it waits.
    fn waiting_row(&mut self, task: &TaskRef) -> Option<BacklogRow> {
        let cached = self.cache.take(&task.execution)?;
        let row = cached.runs.get(&task.run).and_then(|run| {
            let granted = run.live.overlay.grants.contains_key(&task.scheduled);
            let rows = &run.live.rows;
            let workflow = rows.workflow_task.as_ref().filter(|r| r.scheduled == task.scheduled);
            let row = rows.activities.get(&task.scheduled).or(workflow);
            row.filter(|row| !granted && row.stamp == task.stamp).cloned()
        });
        self.cache.put(task.execution.clone(), cached, self.applied);
        row
    }

    /// Decides an input of our own, whose answer nobody waits for.
    pub(super) fn internal(
        &mut self,
        key: &ExecutionKey,
        input: Input,
    ) -> Result<(), StorageError> {
        let namespace = self.registry.view(&key.namespace);
        self.decide(key, &namespace, input)?;
        Ok(())
    }

    /// Offers tasks whose time has come.
    pub(super) fn delayed(&mut self, now: Hlc) -> Result<(), StorageError> {
        while let Some((at, key)) = self.delayed.first().filter(|(at, _)| *at <= now).cloned() {
            self.delayed.remove(&(at, key.clone()));
            self.hand_out(&key)?;
            self.look_later(&key);
        }
        Ok(())
    }
}

fn task_of(row: &[u8], value: &[u8]) -> Result<(TaskKey, TaskRef), StorageError> {
    let key = BacklogKey::decode(row)?;
    let task = Task::from_value(key.queue.namespace, Bytes::copy_from_slice(value))?;
    let (run, scheduled, stamp) = (key.run, key.event, task.stamp);
    Ok((task_key(&key), TaskRef { execution: task.execution, run, scheduled, stamp }))
}

fn backlog_key(queue: &QueueKey, key: &TaskKey) -> BacklogKey {
    BacklogKey {
        queue: queue.clone(),
        subqueue: String::new(),
        priority: key.priority,
        pass: key.pass,
        at: key.at,
        run: key.run,
        event: key.event,
    }
}

/// A history read that is not satisfied yet parks instead of answering.
pub(super) fn satisfied(wait: HistoryWait, view: &HistoryView) -> bool {
    match wait {
        HistoryWait::None => true,
        HistoryWait::Event(from) => view.closed || view.next_event > from,
        HistoryWait::Close => view.closed,
    }
}
