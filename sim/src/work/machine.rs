//! Replays a program against its history, as an SDK does: events go in, in order; where a workflow
//! task completed, the program decides again, and what it asks for must be the events that follow.
//! Workers answer with it, and judges hold whole histories against it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;

use super::order::{Order, cause};
use super::program::{Ending, Job, OnCancel, Program, Step};
use super::wire::{closes, event_name, text_of};
use crate::record::Saw;

/// Where an activity of the program stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum JobState {
    Asked,
    Pending { scheduled: i64, cancelled: bool },
    Ended { well: bool },
}

/// Where a timer of the program stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TimerState {
    Asked,
    Pending(i64),
    Fired,
    Cancelled,
}

/// A program under replay. An error of [`Machine::feed`] is a history that it can't have.
#[derive(Clone, Debug)]
pub struct Machine {
    program: Option<Program>,
    /// The id that the next event must have.
    next: i64,
    at: usize,
    begun: bool,
    jobs: BTreeMap<String, JobState>,
    scheduled: BTreeMap<i64, String>,
    timers: BTreeMap<String, TimerState>,
    signals: u32,
    cancel_requested: bool,
    winding_down: bool,
    ended: bool,
    closed: bool,
    /// STARTED of the task in progress; 0 when there is none.
    started: i64,
    /// STARTED of the task that was decided last.
    decided: i64,
    /// COMPLETED of the task whose commands are expected.
    completed: i64,
    expected: VecDeque<Order>,
    tasks: BTreeSet<i64>,
    saw: Saw,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            program: None,
            next: 1,
            at: 0,
            begun: false,
            jobs: BTreeMap::new(),
            scheduled: BTreeMap::new(),
            timers: BTreeMap::new(),
            signals: 0,
            cancel_requested: false,
            winding_down: false,
            ended: false,
            closed: false,
            started: 0,
            decided: 0,
            completed: 0,
            expected: VecDeque::new(),
            tasks: BTreeSet::new(),
            saw: Saw::NOTHING,
        }
    }
}

impl Machine {
    /// The id of the event that it wants next.
    pub fn next_event(&self) -> i64 {
        self.next
    }

    /// What it was fed.
    pub fn saw(&self) -> Saw {
        self.saw
    }

    /// Whether it saw the end of the run.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the next event.
    pub fn feed(&mut self, event: &HistoryEvent) -> Result<(), String> {
        let wrong =
            |why: String| Err(format!("event {} ({}): {why}", event.event_id, event_name(event)));
        if event.event_id != self.next {
            return wrong(format!("event {} should be here", self.next));
        }
        if self.closed {
            return wrong("it follows the event that closed the run".to_owned());
        }
        self.next += 1;
        let Some(attributes) = &event.attributes else {
            return wrong("it has no attributes".to_owned());
        };
        self.saw = self.saw.next(event.event_id, event.event_type);
        match cause(event) {
            Some(cause) => {
                if let Err(why) = self.ordered(cause, attributes) {
                    return wrong(why);
                }
            }
            // The worker did not know of it when it ordered what comes behind.
            None if self.started == 0 && !self.expected.is_empty() => {
                return wrong(
                    "it stands between a completed task and what that ordered".to_owned(),
                );
            }
            None => {}
        }
        self.closed = closes(event);
        match self.take(event.event_id, attributes) {
            Ok(()) => Ok(()),
            Err(why) => wrong(why),
        }
    }

    /// What must hold behind the last event of a closed run.
    pub fn finish(&self) -> Result<(), String> {
        match self.expected.front() {
            Some(order) => Err(format!("the history ends without what was ordered: {order:?}")),
            None => Ok(()),
        }
    }

    /// What the program answers to the task in progress, which must be the last event.
    pub fn decide(&mut self) -> Result<Vec<Order>, String> {
        if self.started == 0 || self.started + 1 != self.next {
            return Err("a task that does not end with its start".to_owned());
        }
        if self.decided != self.started {
            let orders = self.advance();
            self.decided = self.started;
            self.expected = orders.into();
        }
        Ok(self.expected.iter().cloned().collect())
    }

    /// An event that a command caused: it must be the one that was ordered next.
    fn ordered(&mut self, cause: i64, event: &Event) -> Result<(), String> {
        if cause != self.completed {
            let now = self.completed;
            return Err(format!("it comes of task completion {cause}, the last one is {now}"));
        }
        match self.expected.pop_front() {
            Some(order) if order.is(event) => Ok(()),
            Some(order) => Err(format!("ordered was {order:?}")),
            None => Err("nothing more was ordered".to_owned()),
        }
    }

    /// A task ends, or the next one is scheduled: everything ordered must be there.
    fn settled(&self) -> Result<(), String> {
        match self.expected.front() {
            Some(order) => Err(format!("what was ordered is not there: {order:?}")),
            None => Ok(()),
        }
    }

    fn take(&mut self, id: i64, attributes: &Event) -> Result<(), String> {
        match attributes {
            Event::WorkflowExecutionStartedEventAttributes(a) => {
                if id != 1 {
                    return Err("a second start".to_owned());
                }
                let input = text_of(a.input.as_ref());
                let seed = input.parse().map_err(|_| format!("the input is {input:?}"))?;
                self.program = Some(Program::generate(seed));
            }
            Event::WorkflowTaskScheduledEventAttributes(_) => {
                self.settled()?;
                if !self.tasks.is_empty() || self.started != 0 {
                    return Err("another workflow task is outstanding".to_owned());
                }
                self.tasks.insert(id);
            }
            Event::WorkflowTaskStartedEventAttributes(a) => {
                if !self.tasks.contains(&a.scheduled_event_id) || self.started != 0 {
                    return Err(format!("task {} does not wait", a.scheduled_event_id));
                }
                self.started = id;
            }
            Event::WorkflowTaskCompletedEventAttributes(a) => {
                self.task_ended(a.scheduled_event_id, a.started_event_id)?;
                if a.started_event_id + 1 != id {
                    return Err("something happened between start and completion".to_owned());
                }
                self.completed = id;
                if self.decided != a.started_event_id {
                    self.expected = self.advance().into();
                    self.decided = a.started_event_id;
                }
            }
            Event::WorkflowTaskFailedEventAttributes(a) => {
                self.task_ended(a.scheduled_event_id, a.started_event_id)?;
                self.undecided(a.started_event_id)?;
            }
            Event::WorkflowTaskTimedOutEventAttributes(a) => {
                self.task_ended(a.scheduled_event_id, a.started_event_id)?;
                self.undecided(a.started_event_id)?;
            }
            Event::WorkflowExecutionSignaledEventAttributes(_) => self.signals += 1,
            Event::WorkflowExecutionCancelRequestedEventAttributes(_) => {
                if self.cancel_requested {
                    return Err("a second request to cancel".to_owned());
                }
                self.cancel_requested = true;
            }
            _ => return self.take_job(id, attributes),
        }
        Ok(())
    }

    /// Activities and timers.
    fn take_job(&mut self, id: i64, attributes: &Event) -> Result<(), String> {
        match attributes {
            Event::ActivityTaskScheduledEventAttributes(a) => {
                let pending = JobState::Pending { scheduled: id, cancelled: false };
                if self.jobs.insert(a.activity_id.clone(), pending) != Some(JobState::Asked) {
                    return Err("an activity that nobody asked for".to_owned());
                }
                self.scheduled.insert(id, a.activity_id.clone());
            }
            Event::ActivityTaskStartedEventAttributes(a)
                if !self.scheduled.contains_key(&a.scheduled_event_id) =>
            {
                return Err(format!("activity {} is not pending", a.scheduled_event_id));
            }
            Event::ActivityTaskStartedEventAttributes(_) => {}
            Event::ActivityTaskCompletedEventAttributes(a) => {
                self.job_ended(a.scheduled_event_id, true)?;
            }
            Event::ActivityTaskFailedEventAttributes(a) => {
                self.job_ended(a.scheduled_event_id, false)?;
            }
            Event::ActivityTaskTimedOutEventAttributes(a) => {
                self.job_ended(a.scheduled_event_id, false)?;
            }
            Event::ActivityTaskCanceledEventAttributes(a) => {
                self.job_ended(a.scheduled_event_id, false)?;
            }
            Event::TimerStartedEventAttributes(a) => {
                let pending = TimerState::Pending(id);
                if self.timers.insert(a.timer_id.clone(), pending) != Some(TimerState::Asked) {
                    return Err("a timer that nobody asked for".to_owned());
                }
            }
            Event::TimerFiredEventAttributes(a) => {
                let pending = TimerState::Pending(a.started_event_id);
                if self.timers.get(&a.timer_id) != Some(&pending) {
                    return Err(format!("timer {} is not pending", a.timer_id));
                }
                self.timers.insert(a.timer_id.clone(), TimerState::Fired);
            }
            _ => {}
        }
        Ok(())
    }

    fn task_ended(&mut self, scheduled: i64, started: i64) -> Result<(), String> {
        if !self.tasks.remove(&scheduled) || self.started != started {
            return Err(format!("task {scheduled}, started by {started}, is not in progress"));
        }
        self.started = 0;
        Ok(())
    }

    /// A task that ended without a result must not have been decided here: the copy is stale.
    fn undecided(&self, started: i64) -> Result<(), String> {
        if started != 0 && self.decided == started {
            return Err("decided here, and not accepted".to_owned());
        }
        Ok(())
    }

    fn job_ended(&mut self, scheduled: i64, well: bool) -> Result<(), String> {
        let Some(id) = self.scheduled.remove(&scheduled) else {
            return Err(format!("activity {scheduled} is not pending"));
        };
        self.jobs.insert(id, JobState::Ended { well });
        Ok(())
    }

    /// Runs the program until it waits or ends.
    fn advance(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        let Some(program) = self.program.clone() else { return orders };
        if self.ended {
            return orders;
        }
        if self.cancel_requested {
            match program.on_cancel {
                OnCancel::Ignore => {}
                OnCancel::AtOnce => {
                    self.ended = true;
                    return vec![Order::Cancel];
                }
                OnCancel::WindDown => return self.wind_down(),
            }
        }
        while let Some(step) = program.steps.get(self.at) {
            if !self.begun {
                self.begun = true;
                self.begin(step, &mut orders);
            }
            if !self.is_over(step, &mut orders) {
                return orders;
            }
            self.at += 1;
            self.begun = false;
        }
        self.ended = true;
        orders.push(match program.ending {
            Ending::Fail => Order::Fail,
            Ending::Complete => Order::Complete { result: self.result() },
        });
        orders
    }

    fn result(&self) -> String {
        let well = self.jobs.values().filter(|job| **job == JobState::Ended { well: true });
        format!("{} of {}", well.count(), self.jobs.len())
    }

    fn wind_down(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        if !self.winding_down {
            self.winding_down = true;
            let pending = |state: &&mut TimerState| matches!(state, TimerState::Pending(_));
            for (id, timer) in self.timers.iter_mut().filter(|(_, state)| pending(state)) {
                *timer = TimerState::Cancelled;
                orders.push(Order::CancelTimer { id: id.clone() });
            }
            for job in self.jobs.values_mut() {
                if let JobState::Pending { scheduled, cancelled: cancelled @ false } = job {
                    *cancelled = true;
                    orders.push(Order::CancelJob { scheduled: *scheduled });
                }
            }
        }
        if self.scheduled.is_empty() {
            self.ended = true;
            orders.push(Order::Cancel);
        }
        orders
    }

    fn begin(&mut self, step: &Step, orders: &mut Vec<Order>) {
        let at = self.at;
        match step {
            Step::Work(jobs) => {
                for (n, job) in jobs.iter().enumerate() {
                    self.ask(format!("a{at}.{n}"), job, orders);
                }
            }
            Step::Sleep { millis } => self.start_timer(*millis, orders),
            Step::Race { millis, job } => {
                self.start_timer(*millis, orders);
                self.ask(format!("a{at}.0"), job, orders);
            }
            Step::Await { millis } => {
                if self.signals == 0 {
                    self.start_timer(*millis, orders);
                }
            }
            Step::Note => orders.push(Order::Note { name: format!("note {at}") }),
            Step::Attribute => orders.push(Order::Attribute { value: format!("step {at}") }),
            Step::Memo => orders.push(Order::Memo { value: format!("step {at}") }),
        }
    }

    fn ask(&mut self, id: String, job: &Job, orders: &mut Vec<Order>) {
        self.jobs.insert(id.clone(), JobState::Asked);
        orders.push(Order::Schedule { id, job: job.clone() });
    }

    fn timer_id(&self) -> String {
        format!("t{}", self.at)
    }

    fn start_timer(&mut self, millis: u64, orders: &mut Vec<Order>) {
        let id = self.timer_id();
        self.timers.insert(id.clone(), TimerState::Asked);
        orders.push(Order::StartTimer { id, millis });
    }

    /// Cancels the timer of this step, if it is pending.
    fn stop_timer(&mut self, orders: &mut Vec<Order>) {
        let id = self.timer_id();
        if let Some(timer @ TimerState::Pending(_)) = self.timers.get_mut(&id) {
            *timer = TimerState::Cancelled;
            orders.push(Order::CancelTimer { id });
        }
    }

    /// Whether the current step has what it waits for; orders what follows from that.
    fn is_over(&mut self, step: &Step, orders: &mut Vec<Order>) -> bool {
        let ended = |job: Option<&JobState>| matches!(job, Some(JobState::Ended { .. }));
        let at = self.at;
        let fired = self.timers.get(&self.timer_id()) == Some(&TimerState::Fired);
        match step {
            Step::Work(jobs) => {
                (0..jobs.len()).all(|n| ended(self.jobs.get(&format!("a{at}.{n}"))))
            }
            Step::Sleep { .. } => fired,
            Step::Race { .. } => {
                let job = self.jobs.get_mut(&format!("a{at}.0"));
                if ended(job.as_deref()) {
                    self.stop_timer(orders);
                    return true;
                }
                if let Some(JobState::Pending { scheduled, cancelled: cancelled @ false }) = job
                    && fired
                {
                    *cancelled = true;
                    orders.push(Order::CancelJob { scheduled: *scheduled });
                }
                false
            }
            Step::Await { .. } => {
                if self.signals > 0 {
                    self.signals -= 1;
                    self.stop_timer(orders);
                    return true;
                }
                fired
            }
            Step::Note | Step::Attribute | Step::Memo => true,
        }
    }
}
