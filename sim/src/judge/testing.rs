//! Hand-made evidence for the tests of the rules: histories event by event, answers one by one, and
//! a clock that moves with each of them.

use holdfast_engine::ids::Hlc;
use holdfast_proto::common::RetryPolicy;
use holdfast_proto::decoded;
use holdfast_proto::enums::{EventType, TimeoutType};
use holdfast_proto::failure::{Failure, TimeoutFailureInfo};
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::history::*;

use super::{Evidence, Findings, RunHistory};
use crate::record::{Asked, Kind, Moment, Operation, Outcome, Policies, Saw, Told};
use crate::work::wire::{self, millis, text};
use crate::work::{gifts, order};

const MS: u64 = 1_000_000;

/// Evidence under construction.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) evidence: Evidence,
    clock: Moment,
    event_clock: u64,
}

/// Builds one history.
pub(super) struct Builder<'a> {
    run: &'a mut RunHistory,
    clock: &'a mut u64,
}

fn judged(rule: fn(&Evidence, &mut Findings), world: &World) -> Vec<String> {
    let mut evidence = world.evidence.clone();
    evidence.settle();
    let mut findings = Findings::default();
    rule(&evidence, &mut findings);
    findings.list.into_iter().map(|violation| violation.text).collect()
}

/// The rule says nothing.
pub(super) fn quiet(rule: fn(&Evidence, &mut Findings), world: &World) {
    assert_eq!(judged(rule, world), Vec::<String>::new());
}

/// The rule says this.
pub(super) fn fires(rule: fn(&Evidence, &mut Findings), world: &World, what: &str) {
    let found = judged(rule, world);
    assert!(found.iter().any(|text| text.contains(what)), "{what:?} is not in {found:?}");
}

/// The failure of a timeout.
fn timeout_of(kind: TimeoutType) -> Failure {
    let info = TimeoutFailureInfo { timeout_type: kind as i32, ..TimeoutFailureInfo::default() };
    Failure::encode_from(&decoded::Failure {
        failure_info: Some(decoded::failure::FailureInfo::TimeoutFailureInfo(info)),
        ..decoded::Failure::default()
    })
}

impl World {
    fn tick(&mut self) -> Moment {
        self.clock.step += 1;
        self.clock.at += MS / 10;
        self.clock
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.clock.at += ms * MS;
    }

    /// True time, nanoseconds since the epoch.
    pub(super) fn now(&self) -> u64 {
        self.evidence.epoch + self.clock.at
    }

    pub(super) fn calm(&mut self) {
        self.evidence.calm = Some(self.clock);
    }

    pub(super) fn run(&mut self, id: &str, run: &str) -> Builder<'_> {
        let history = RunHistory { id: id.into(), run: run.to_owned(), ..RunHistory::default() };
        let run = self.evidence.runs.entry(run.to_owned()).or_insert(history);
        Builder { run, clock: &mut self.event_clock }
    }

    fn asked(kind: Kind, id: &str, request: &str) -> Asked {
        Asked {
            kind,
            who: "c1".into(),
            id: id.into(),
            run: String::new(),
            request: request.to_owned(),
            policies: Policies::default(),
            attempt: None,
            saw: None,
        }
    }

    fn operation(&mut self, asked: Asked, outcome: Outcome) {
        let (invoked, returned) = (self.tick(), self.tick());
        let operation = Operation { asked, invoked, returned, outcome, unsure: false };
        self.evidence.operations.push(operation);
    }

    pub(super) fn ok(&mut self, kind: Kind, id: &str, request: &str) {
        self.operation(World::asked(kind, id, request), Outcome::Ok(Told::Done));
    }

    pub(super) fn unknown(&mut self, kind: Kind, id: &str, request: &str) {
        self.operation(World::asked(kind, id, request), Outcome::Unknown);
    }

    pub(super) fn refused(
        &mut self,
        kind: Kind,
        id: &str,
        request: &str,
        code: tonic::Code,
        text: &str,
    ) {
        let outcome = Outcome::Refused { code, text: text.to_owned() };
        self.operation(World::asked(kind, id, request), outcome);
    }

    pub(super) fn start(&mut self, id: &str, request: &str, run: &str, started: bool) {
        let told = Told::Started { run: run.to_owned(), started };
        self.operation(World::asked(Kind::Start, id, request), Outcome::Ok(told));
    }

    /// A start that was attached to a run.
    pub(super) fn attached(&mut self, id: &str, request: &str, run: &str) {
        let told = Told::Attached { run: run.to_owned() };
        self.operation(World::asked(Kind::Start, id, request), Outcome::Ok(told));
    }

    pub(super) fn read(&mut self, id: &str, run: &str, length: i64) {
        let told = Told::Shown { run: run.to_owned(), from: length, to: length, closed: None };
        self.operation(World::asked(Kind::Read, id, ""), Outcome::Ok(told));
    }

    /// A list of an id, with the runs and statuses that it shows.
    pub(super) fn listed(&mut self, id: &str, rows: &[(&str, i32)]) {
        let rows = rows.iter().map(|(run, status)| ((*run).to_owned(), *status)).collect();
        self.operation(World::asked(Kind::List, id, ""), Outcome::Ok(Told::Listed(rows)));
    }

    /// A reader waits for news of an open run, `wait` milliseconds in vain; meanwhile something
    /// happens.
    pub(super) fn watch_while(
        &mut self,
        id: &str,
        run: &str,
        length: i64,
        wait: u64,
        meanwhile: impl FnOnce(&mut World),
    ) {
        let invoked = self.tick();
        meanwhile(self);
        self.pass_ms(wait);
        let returned = self.tick();
        let told = Told::Shown { run: run.to_owned(), from: length, to: length, closed: None };
        let asked = World::asked(Kind::Watch, id, "");
        let outcome = Outcome::Ok(told);
        let operation = Operation { asked, invoked, returned, outcome, unsure: false };
        self.evidence.operations.push(operation);
    }

    pub(super) fn attempt(&mut self, id: &str, run: &str, job: &str, number: i32, maximum: i32) {
        let mut asked = World::asked(Kind::Attempt, id, "");
        asked.run = run.to_owned();
        asked.attempt = Some((job.to_owned(), number));
        let (due, began) = (self.event_clock, self.event_clock);
        let told = Told::Attempt { run: run.to_owned(), maximum, due, began };
        self.operation(asked, Outcome::Ok(told));
    }

    /// An attempt that is due so many milliseconds behind the last event, and handed out then.
    pub(super) fn attempt_due(&mut self, id: &str, run: &str, job: &str, number: i32, ms: u64) {
        let due = self.evidence.epoch + ms * MS;
        let mut asked = World::asked(Kind::Attempt, id, "");
        asked.run = run.to_owned();
        asked.attempt = Some((job.to_owned(), number));
        let told = Told::Attempt { run: run.to_owned(), maximum: 0, due, began: due };
        self.operation(asked, Outcome::Ok(told));
    }

    /// A worker's failure of an attempt, accepted.
    pub(super) fn attempt_failed(&mut self, id: &str, run: &str, job: &str, number: i32) {
        let mut asked = World::asked(Kind::FailActivity, id, "");
        asked.run = run.to_owned();
        asked.attempt = Some((job.to_owned(), number));
        self.operation(asked, Outcome::Ok(Told::Done));
    }

    /// A worker's answer to a workflow task, with what it was shown.
    pub(super) fn task_answered(&mut self, id: &str, request: &str, saw: Saw) {
        let mut asked = World::asked(Kind::CompleteTask, id, request);
        asked.saw = Some(saw);
        self.operation(asked, Outcome::Ok(Told::Done));
    }

    pub(super) fn answered(&mut self, id: &str, run: &str, job: &str, number: i32, request: &str) {
        let mut asked = World::asked(Kind::CompleteActivity, id, request);
        asked.run = run.to_owned();
        asked.attempt = Some((job.to_owned(), number));
        self.operation(asked, Outcome::Ok(Told::Done));
    }
}

impl Builder<'_> {
    fn push(self, kind: EventType, attributes: Event) -> Self {
        *self.clock += MS;
        let event = HistoryEvent {
            event_id: self.next(),
            event_time: Some(Hlc(*self.clock).timestamp()),
            event_type: kind as i32,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        };
        self.run.events.push(event);
        self
    }

    fn next(&self) -> i64 {
        self.run.events.len() as i64 + 1
    }

    /// Moves the next event to so many milliseconds behind the last.
    fn after(self, ms: u64) -> Self {
        *self.clock += (ms * MS).saturating_sub(MS);
        self
    }

    pub(super) fn started(self, request: &str) -> Self {
        self.started_with_timeout(request, 0)
    }

    /// A start as clients make it, with all that they give.
    pub(super) fn given(self, request: &str) -> Self {
        let started = self.started(request);
        if let Some(event) = started.run.events.last_mut()
            && let Some(Event::WorkflowExecutionStartedEventAttributes(a)) = &mut event.attributes
        {
            a.input = Some(gifts::values("1", request, "input"));
            a.memo = Some(gifts::memo(request));
            a.header = Some(gifts::header(request));
            a.search_attributes = Some(gifts::attributes(request));
        }
        started
    }

    /// What a program changes of the memo and of the search attributes of its run.
    pub(super) fn upserted(self, value: &str) -> Self {
        let (memo, fields) = (order::memo(value), order::attributes(value));
        let attributes = WorkflowPropertiesModifiedEventAttributes {
            upserted_memo: Some(memo),
            ..WorkflowPropertiesModifiedEventAttributes::default()
        };
        let attributes = Event::WorkflowPropertiesModifiedEventAttributes(Box::new(attributes));
        let changed = self.push(EventType::WorkflowPropertiesModified, attributes);
        let attributes = UpsertWorkflowSearchAttributesEventAttributes {
            search_attributes: Some(fields),
            ..UpsertWorkflowSearchAttributesEventAttributes::default()
        };
        let attributes = Event::UpsertWorkflowSearchAttributesEventAttributes(Box::new(attributes));
        changed.push(EventType::UpsertWorkflowSearchAttributes, attributes)
    }

    pub(super) fn started_with_timeout(self, request: &str, ms: u64) -> Self {
        let run = self.run.run.clone();
        let attributes = WorkflowExecutionStartedEventAttributes {
            identity: request.to_owned(),
            original_execution_run_id: run,
            workflow_run_timeout: (ms > 0).then(|| millis(ms)),
            // A program that begins with something else than work.
            input: Some(text("1")),
            ..WorkflowExecutionStartedEventAttributes::default()
        };
        let attributes = Event::WorkflowExecutionStartedEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowExecutionStarted, attributes)
    }

    pub(super) fn signaled(self, request: &str) -> Self {
        let attributes = WorkflowExecutionSignaledEventAttributes {
            identity: request.to_owned(),
            ..WorkflowExecutionSignaledEventAttributes::default()
        };
        let attributes = Event::WorkflowExecutionSignaledEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowExecutionSignaled, attributes)
    }

    pub(super) fn attached(self, request: &str) -> Self {
        let attributes = WorkflowExecutionOptionsUpdatedEventAttributes {
            attached_request_id: request.to_owned(),
            ..WorkflowExecutionOptionsUpdatedEventAttributes::default()
        };
        let attributes =
            Event::WorkflowExecutionOptionsUpdatedEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowExecutionOptionsUpdated, attributes)
    }

    pub(super) fn cancel_requested(self, request: &str) -> Self {
        let attributes = WorkflowExecutionCancelRequestedEventAttributes {
            identity: request.to_owned(),
            ..WorkflowExecutionCancelRequestedEventAttributes::default()
        };
        let attributes =
            Event::WorkflowExecutionCancelRequestedEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowExecutionCancelRequested, attributes)
    }

    pub(super) fn terminated(self, request: &str) -> Self {
        let attributes = WorkflowExecutionTerminatedEventAttributes {
            identity: request.to_owned(),
            ..WorkflowExecutionTerminatedEventAttributes::default()
        };
        let attributes = Event::WorkflowExecutionTerminatedEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowExecutionTerminated, attributes)
    }

    pub(super) fn timed_out(self, after_ms: u64) -> Self {
        let attributes = WorkflowExecutionTimedOutEventAttributes::default();
        let attributes = Event::WorkflowExecutionTimedOutEventAttributes(Box::new(attributes));
        self.after(after_ms).push(EventType::WorkflowExecutionTimedOut, attributes)
    }

    pub(super) fn task_scheduled(self) -> Self {
        self.scheduled_for(10_000)
    }

    fn scheduled_for(self, timeout: u64) -> Self {
        let attributes = WorkflowTaskScheduledEventAttributes {
            start_to_close_timeout: Some(millis(timeout)),
            ..WorkflowTaskScheduledEventAttributes::default()
        };
        let attributes = Event::WorkflowTaskScheduledEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowTaskScheduled, attributes)
    }

    /// A workflow task on a queue that has a name.
    pub(super) fn queued(self, queue: &str, sticky: bool) -> Self {
        let queue = if sticky { wire::sticky(queue, "q") } else { wire::queue(queue) };
        let attributes = WorkflowTaskScheduledEventAttributes {
            task_queue: Some(queue),
            ..WorkflowTaskScheduledEventAttributes::default()
        };
        let attributes = Event::WorkflowTaskScheduledEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowTaskScheduled, attributes)
    }

    fn task_started(self) -> Self {
        let attributes = WorkflowTaskStartedEventAttributes {
            scheduled_event_id: self.next() - 1,
            ..WorkflowTaskStartedEventAttributes::default()
        };
        let attributes = Event::WorkflowTaskStartedEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowTaskStarted, attributes)
    }

    /// A whole workflow task.
    pub(super) fn task(self, request: &str) -> Self {
        let started = self.task_scheduled().task_started();
        let next = started.next();
        started.task_completed(next - 2, next - 1, request)
    }

    pub(super) fn task_completed(self, scheduled: i64, started: i64, request: &str) -> Self {
        let attributes = WorkflowTaskCompletedEventAttributes {
            scheduled_event_id: scheduled,
            started_event_id: started,
            identity: request.to_owned(),
            ..WorkflowTaskCompletedEventAttributes::default()
        };
        let attributes = Event::WorkflowTaskCompletedEventAttributes(Box::new(attributes));
        self.push(EventType::WorkflowTaskCompleted, attributes)
    }

    pub(super) fn task_timed_out(self, timeout: u64, after: u64) -> Self {
        let started = self.scheduled_for(timeout).task_started();
        let attributes = WorkflowTaskTimedOutEventAttributes {
            scheduled_event_id: started.next() - 2,
            started_event_id: started.next() - 1,
            timeout_type: TimeoutType::StartToClose as i32,
        };
        let attributes = Event::WorkflowTaskTimedOutEventAttributes(Box::new(attributes));
        started.after(after).push(EventType::WorkflowTaskTimedOut, attributes)
    }

    /// A timer of `length` that fires `after` so long, both in milliseconds.
    pub(super) fn timer(self, id: &str, length: u64, after: u64) -> Self {
        let attributes = TimerStartedEventAttributes {
            timer_id: id.to_owned(),
            start_to_fire_timeout: Some(millis(length)),
            workflow_task_completed_event_id: self.next() - 1,
        };
        let attributes = Event::TimerStartedEventAttributes(Box::new(attributes));
        let started = self.push(EventType::TimerStarted, attributes);
        let attributes = TimerFiredEventAttributes {
            timer_id: id.to_owned(),
            started_event_id: started.next() - 1,
        };
        let attributes = Event::TimerFiredEventAttributes(Box::new(attributes));
        started.after(after).push(EventType::TimerFired, attributes).signaled("")
    }

    fn job_scheduled(self, id: &str, maximum: i32) -> Self {
        let attributes = ActivityTaskScheduledEventAttributes {
            activity_id: id.to_owned(),
            start_to_close_timeout: Some(millis(500)),
            retry_policy: Some(RetryPolicy { maximum_attempts: maximum, ..RetryPolicy::default() }),
            ..ActivityTaskScheduledEventAttributes::default()
        };
        let attributes = Event::ActivityTaskScheduledEventAttributes(Box::new(attributes));
        self.push(EventType::ActivityTaskScheduled, attributes)
    }

    fn job_started(self, attempt: i32) -> Self {
        let attributes = ActivityTaskStartedEventAttributes {
            scheduled_event_id: self.next() - 1,
            attempt,
            ..ActivityTaskStartedEventAttributes::default()
        };
        let attributes = Event::ActivityTaskStartedEventAttributes(Box::new(attributes));
        self.push(EventType::ActivityTaskStarted, attributes)
    }

    /// An activity that completes.
    pub(super) fn job(self, id: &str, attempt: i32, request: &str) -> Self {
        self.counted_job(id, attempt, 0, request)
    }

    /// An activity with a limited number of attempts that completes.
    pub(super) fn counted_job(self, id: &str, attempt: i32, maximum: i32, request: &str) -> Self {
        let started = self.job_scheduled(id, maximum).job_started(attempt);
        let attributes = ActivityTaskCompletedEventAttributes {
            scheduled_event_id: started.next() - 2,
            started_event_id: started.next() - 1,
            identity: request.to_owned(),
            ..ActivityTaskCompletedEventAttributes::default()
        };
        let attributes = Event::ActivityTaskCompletedEventAttributes(Box::new(attributes));
        started.push(EventType::ActivityTaskCompleted, attributes)
    }

    /// An activity that nobody took within `timeout` milliseconds.
    pub(super) fn job_expired(self, id: &str, queue: &str, timeout: u64) -> Self {
        let attributes = ActivityTaskScheduledEventAttributes {
            activity_id: id.to_owned(),
            task_queue: Some(wire::queue(queue)),
            schedule_to_start_timeout: Some(millis(timeout)),
            ..ActivityTaskScheduledEventAttributes::default()
        };
        let attributes = Event::ActivityTaskScheduledEventAttributes(Box::new(attributes));
        let scheduled = self.push(EventType::ActivityTaskScheduled, attributes);
        let attributes = ActivityTaskTimedOutEventAttributes {
            failure: Some(timeout_of(TimeoutType::ScheduleToStart)),
            scheduled_event_id: scheduled.next() - 1,
            ..ActivityTaskTimedOutEventAttributes::default()
        };
        let attributes = Event::ActivityTaskTimedOutEventAttributes(Box::new(attributes));
        scheduled.push(EventType::ActivityTaskTimedOut, attributes)
    }

    pub(super) fn job_timed_out(self, id: &str, timeout: u64, after: u64) -> Self {
        assert_eq!(timeout, 500, "that of all activities here");
        let started = self.job_scheduled(id, 0).after(after).job_started(1);
        let attributes = ActivityTaskTimedOutEventAttributes {
            failure: Some(timeout_of(TimeoutType::StartToClose)),
            scheduled_event_id: started.next() - 2,
            started_event_id: started.next() - 1,
            ..ActivityTaskTimedOutEventAttributes::default()
        };
        let attributes = Event::ActivityTaskTimedOutEventAttributes(Box::new(attributes));
        started.after(0).push(EventType::ActivityTaskTimedOut, attributes)
    }

    /// An activity with a schedule-to-close timeout that times out `after` milliseconds.
    pub(super) fn job_within(self, id: &str, timeout: u64, after: u64) -> Self {
        let attributes = ActivityTaskScheduledEventAttributes {
            activity_id: id.to_owned(),
            schedule_to_close_timeout: Some(millis(timeout)),
            ..ActivityTaskScheduledEventAttributes::default()
        };
        let attributes = Event::ActivityTaskScheduledEventAttributes(Box::new(attributes));
        let scheduled = self.push(EventType::ActivityTaskScheduled, attributes);
        let attributes = ActivityTaskTimedOutEventAttributes {
            failure: Some(timeout_of(TimeoutType::ScheduleToClose)),
            scheduled_event_id: scheduled.next() - 1,
            ..ActivityTaskTimedOutEventAttributes::default()
        };
        let attributes = Event::ActivityTaskTimedOutEventAttributes(Box::new(attributes));
        scheduled.after(after).push(EventType::ActivityTaskTimedOut, attributes)
    }

    /// An activity that is tried again after so many milliseconds, and later each time.
    pub(super) fn job_retried(self, id: &str, initial: u64, coefficient: f64) -> Self {
        let attributes = ActivityTaskScheduledEventAttributes {
            activity_id: id.to_owned(),
            retry_policy: Some(RetryPolicy {
                initial_interval: Some(millis(initial)),
                backoff_coefficient: coefficient,
                ..RetryPolicy::default()
            }),
            ..ActivityTaskScheduledEventAttributes::default()
        };
        let attributes = Event::ActivityTaskScheduledEventAttributes(Box::new(attributes));
        self.push(EventType::ActivityTaskScheduled, attributes)
    }

    /// Gives the event at a place the number of a stamp.
    pub(super) fn set_number(self, at: usize, number: i64) -> Self {
        if let Some(event) = self.run.events.get_mut(at) {
            event.task_id = number;
        }
        self
    }

    /// Sets the time of an event, in milliseconds on the events' clock.
    pub(super) fn set_time(self, event: usize, ms: u64) -> Self {
        if let Some(event) = self.run.events.get_mut(event - 1) {
            event.event_time = Some(Hlc(ms * MS).timestamp());
        }
        self
    }

    /// Takes an event away.
    pub(super) fn drop_event(self, at: usize) -> Self {
        self.run.events.remove(at);
        self
    }
}
