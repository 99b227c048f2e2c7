//! When each event of a workflow id can have happened, by what callers knew: not before its request
//! was sent, nor before a read that does not show it began; at the latest when the request was
//! acknowledged, or when a read that shows it came back. All runs of an id are one sequence, so
//! what holds for one event bounds those before and behind it. An event without room between its
//! bounds breaks the order of real time: that is the witness check of `reliability-regions.md` 3.2,
//! and it needs no search.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;
use tonic::Code;

use super::evidence::{Evidence, Mark, marks};
use crate::record::{Kind, Moment, Operation, Outcome, Told};
use crate::work::wire::{closes, ended_task};

/// A bound and the operation that says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// When.
    pub moment: Moment,
    /// The place of the operation in the record; `None` when nothing says anything.
    pub by: Option<usize>,
}

/// One event and its bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The run.
    pub run: String,
    /// Its place among the run's events.
    pub at: usize,
    /// Not before.
    pub low: Bound,
    /// Not after.
    pub high: Bound,
}

/// A run within a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The run.
    pub run: String,
    /// The slot of its first event.
    pub first: usize,
    /// One more than the slot of its last.
    pub end: usize,
    /// Whether its last event closes it.
    pub closed: bool,
}

/// All events of a workflow id, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Timeline {
    /// The events.
    pub slots: Vec<Slot>,
    /// The runs.
    pub spans: Vec<Span>,
    /// Answers about runs or events that are not there at the end: the operation and what it saw.
    pub ghosts: Vec<(usize, String)>,
}

const NOTHING_LOW: Bound = Bound { moment: Moment { step: 0, at: 0 }, by: None };
const NOTHING_HIGH: Bound = Bound { moment: Moment::NEVER, by: None };

/// The timelines of all ids.
pub(super) fn build(evidence: &Evidence) -> BTreeMap<Arc<str>, Timeline> {
    let mut timelines = BTreeMap::new();
    for (id, runs) in evidence.by_id() {
        let mut timeline = Timeline::default();
        for run in runs {
            let first = timeline.slots.len();
            let slots = (0..run.events.len()).map(|at| Slot {
                run: run.run.clone(),
                at,
                low: NOTHING_LOW,
                high: NOTHING_HIGH,
            });
            timeline.slots.extend(slots);
            let closed = run.events.last().is_some_and(closes);
            let end = timeline.slots.len();
            timeline.spans.push(Span { run: run.run.clone(), first, end, closed });
        }
        timelines.insert(id, timeline);
    }
    let index = &evidence.index;
    for (by, operation) in evidence.operations.iter().enumerate() {
        let timeline = timelines.entry(operation.asked.id.clone()).or_default();
        for mark in marks(operation.asked.kind) {
            let places = index.get(&(*mark, operation.asked.request.clone()));
            for (run, at) in places.into_iter().flatten() {
                let events = evidence.runs.get(run).map_or(&[][..], |run| &run.events);
                timeline.caused(by, operation, (run, *at), accepted_by(events, *at, *mark));
            }
        }
        timeline.told(by, operation);
    }
    timelines.values_mut().for_each(Timeline::spread);
    timelines
}

/// The last event that had to be in history when the one at `at` was acknowledged. What happens
/// while a worker holds the workflow task waits in a buffer and is written when that task ends; so
/// among events that follow the end of a task, up to the next one, all that is certain is what
/// stood before that task.
fn accepted_by(events: &[HistoryEvent], at: usize, mark: Mark) -> Option<usize> {
    let waits = match mark {
        Mark::Signal
        | Mark::Attached
        | Mark::Cancel
        | Mark::ActivityCompleted
        | Mark::ActivityFailed
        | Mark::ActivityCanceled => true,
        Mark::Start | Mark::Terminate | Mark::TaskCompleted | Mark::TaskFailed => false,
    };
    if !waits {
        return Some(at);
    }
    for event in events.get(..at).unwrap_or_default().iter().rev() {
        // Nobody held a task.
        if let Some(Event::WorkflowTaskScheduledEventAttributes(_)) = &event.attributes {
            return Some(at);
        }
        let Some((scheduled, _)) = ended_task(event) else { continue };
        // The event before SCHEDULED: that of a later attempt is written with its end, too.
        return usize::try_from(scheduled - 2).ok();
    }
    Some(at)
}

impl Timeline {
    /// The span of a run.
    pub fn span(&self, run: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.run == run)
    }

    /// The slot of an event, counted from 0.
    pub fn slot(&self, run: &str, at: usize) -> Option<&Slot> {
        let span = self.span(run)?;
        self.slots.get(span.first + at).filter(|_| span.first + at < span.end)
    }

    fn not_before(&mut self, slot: usize, by: usize, moment: Moment) {
        if let Some(slot) = self.slots.get_mut(slot)
            && moment > slot.low.moment
        {
            slot.low = Bound { moment, by: Some(by) };
        }
    }

    fn not_after(&mut self, slot: usize, by: usize, moment: Moment) {
        if let Some(slot) = self.slots.get_mut(slot)
            && moment < slot.high.moment
        {
            slot.high = Bound { moment, by: Some(by) };
        }
    }

    /// The operation made the event at a place. What is acknowledged had to be in history up to
    /// `there`.
    fn caused(
        &mut self,
        by: usize,
        operation: &Operation,
        (run, at): (&str, usize),
        there: Option<usize>,
    ) {
        let Some(first) = self.span(run).map(|span| span.first) else { return };
        self.not_before(first + at, by, operation.invoked);
        if let Some(there) = there
            && matches!(operation.outcome, Outcome::Ok(_))
        {
            self.not_after(first + there, by, operation.returned);
        }
    }

    /// What an answer says about the order of things.
    fn told(&mut self, by: usize, operation: &Operation) {
        match &operation.outcome {
            Outcome::Ok(Told::Started { run, started }) => {
                self.exists(by, operation, run);
                if !started && !operation.unsure {
                    self.was_open(by, operation, run);
                }
            }
            Outcome::Ok(Told::Attached { run }) => {
                self.exists(by, operation, run);
                if !operation.unsure {
                    self.was_open(by, operation, run);
                }
            }
            Outcome::Ok(Told::Shown { run, from, to, closed }) => {
                self.shown(by, operation, run, (*from, *to), *closed);
            }
            Outcome::Ok(Told::Attempt { run, .. }) => {
                self.exists(by, operation, run);
                self.was_open(by, operation, run);
            }
            Outcome::Ok(Told::Listed(rows)) => self.listed(by, operation, rows),
            Outcome::Ok(Told::Counted(count)) => self.counted(by, operation, *count),
            Outcome::Refused { code: Code::AlreadyExists, text } => {
                self.already(by, operation, text);
            }
            Outcome::Refused { code: Code::NotFound, text } => {
                self.not_found(by, operation, text);
            }
            Outcome::Ok(Told::Done | Told::Beat(_))
            | Outcome::Refused { .. }
            | Outcome::Open
            | Outcome::Unknown
            | Outcome::NotSent => {}
        }
    }

    fn exists(&mut self, by: usize, operation: &Operation, run: &str) {
        match self.span(run).map(|span| span.first) {
            Some(first) => self.not_after(first, by, operation.returned),
            None => self.ghosts.push((by, format!("run {run}"))),
        }
    }

    /// Some moment of the operation was before the end of the run.
    fn was_open(&mut self, by: usize, operation: &Operation, run: &str) {
        if let Some(end) = self.span(run).filter(|span| span.closed).map(|span| span.end - 1) {
            self.not_before(end, by, operation.invoked);
        }
    }

    fn was_closed(&mut self, by: usize, operation: &Operation, run: &str) {
        match self.span(run) {
            Some(span) if span.closed => {
                let end = span.end - 1;
                self.not_after(end, by, operation.returned);
            }
            Some(_) => self.ghosts.push((by, format!("the end of run {run}"))),
            None => {}
        }
    }

    fn shown(
        &mut self,
        by: usize,
        operation: &Operation,
        run: &str,
        (from, to): (i64, i64),
        closed: Option<bool>,
    ) {
        if run.is_empty() {
            return;
        }
        let Some(span) = self.span(run).cloned() else {
            self.ghosts.push((by, format!("run {run}")));
            return;
        };
        let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
        if from > span.end - span.first {
            self.ghosts.push((by, format!("event {from} of run {run}")));
        } else if from > 0 {
            self.not_after(span.first + from - 1, by, operation.returned);
        }
        if to > 0 && span.first + to < span.end {
            self.not_before(span.first + to, by, operation.invoked);
        }
        match closed {
            Some(true) => self.was_closed(by, operation, run),
            Some(false) => self.was_open(by, operation, run),
            None => {}
        }
    }

    fn listed(&mut self, by: usize, operation: &Operation, rows: &[(String, i32)]) {
        for (run, status) in rows {
            self.exists(by, operation, run);
            if *status == RUNNING {
                self.was_open(by, operation, run);
            } else {
                self.was_closed(by, operation, run);
            }
        }
        let missing = |span: &&Span| !rows.iter().any(|(run, _)| *run == span.run);
        let firsts: Vec<_> = self.spans.iter().filter(missing).map(|span| span.first).collect();
        for first in firsts {
            self.not_before(first, by, operation.invoked);
        }
    }

    fn counted(&mut self, by: usize, operation: &Operation, count: i64) {
        let count = usize::try_from(count).unwrap_or(0);
        if count > self.spans.len() {
            self.ghosts.push((by, format!("{count} runs")));
        }
        if let Some(last) = count.checked_sub(1).and_then(|at| self.spans.get(at)) {
            let first = last.first;
            self.not_after(first, by, operation.returned);
        }
        if let Some(next) = self.spans.get(count) {
            let first = next.first;
            self.not_before(first, by, operation.invoked);
        }
    }

    /// "already running" and "already finished" name the run.
    fn already(&mut self, by: usize, operation: &Operation, text: &str) {
        let Some(run) = text.split("RunId: ").nth(1).and_then(|rest| rest.split('.').next()) else {
            return;
        };
        let run = run.to_owned();
        self.exists(by, operation, &run);
        if text.contains("already running") {
            self.was_open(by, operation, &run);
        } else {
            self.was_closed(by, operation, &run);
        }
    }

    /// NOT_FOUND of clients: of a run that is named, or of an id that was never used. What workers
    /// are told of their tasks says nothing about the order of events.
    fn not_found(&mut self, by: usize, operation: &Operation, text: &str) {
        let asked = &operation.asked;
        let client = matches!(
            asked.kind,
            Kind::Signal
                | Kind::Cancel
                | Kind::Terminate
                | Kind::Describe
                | Kind::Read
                | Kind::ReadBack
                | Kind::AwaitClose
        );
        if !client || operation.unsure {
            return;
        }
        if text.contains("already completed") {
            if !asked.run.is_empty() {
                self.was_closed(by, operation, &asked.run.clone());
            }
            return;
        }
        let first = match asked.run.as_str() {
            "" => self.spans.first(),
            run => self.span(run),
        };
        if let Some(first) = first.map(|span| span.first) {
            self.not_before(first, by, operation.invoked);
        }
    }

    /// What bounds an event bounds those behind it from below, and those before it from above.
    fn spread(&mut self) {
        let mut low = NOTHING_LOW;
        for slot in &mut self.slots {
            if slot.low.moment >= low.moment {
                low = slot.low;
            } else {
                slot.low = low;
            }
        }
        let mut high = NOTHING_HIGH;
        for slot in self.slots.iter_mut().rev() {
            if slot.high.moment <= high.moment {
                high = slot.high;
            } else {
                slot.high = high;
            }
        }
    }
}

/// The status of an open run.
const RUNNING: i32 = 1;
