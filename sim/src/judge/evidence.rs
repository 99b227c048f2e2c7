//! What a judge sees, and how it finds things in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;

use super::c2::{Contents, Sought};
use super::tables::NodeRows;
use super::timeline::Timeline;
use crate::record::{Kind, Moment, Operation, Outcome, Poll, Told};
use crate::work::wire::{closes, event_time};

/// A run as it is at the end.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunHistory {
    /// The workflow id.
    pub id: Arc<str>,
    /// The run id.
    pub run: String,
    /// All its events.
    pub events: Vec<HistoryEvent>,
}

/// What a list and what describe say of a run at the end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// The workflow id.
    pub id: String,
    /// `WorkflowExecutionStatus`.
    pub status: i32,
    /// When it started, nanoseconds.
    pub started: u64,
    /// When it closed; 0 while it is open.
    pub closed: u64,
    /// Events; 0 where it is not said.
    pub length: i64,
}

/// A step that the wall clocks of all machines made together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// When, in nanoseconds since the beginning of the record.
    pub at: u64,
    /// By how many nanoseconds.
    pub by: i64,
}

/// Everything that the rules look at.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What callers were told, in the order in which they asked.
    pub operations: Vec<Operation>,
    /// The runs at the end, by run id.
    pub runs: BTreeMap<String, RunHistory>,
    /// What describe says at the end, by run id.
    pub described: BTreeMap<String, Shown>,
    /// What lists say at the end, by run id; `None` when nobody could list.
    pub listed: Option<BTreeMap<String, Shown>>,
    /// What describe and lists show of memos and search attributes at the end, by run id.
    pub contents: Vec<(&'static str, BTreeMap<String, Contents>)>,
    /// What lists that ask for something find at the end: run ids.
    pub sought: Vec<(Sought, BTreeSet<String>)>,
    /// What count says at the end; `None` when nobody could count.
    pub counted: Option<i64>,
    /// The tables of the nodes that are up.
    pub nodes: Vec<NodeRows>,
    /// How many events of each run somebody was shown on the way.
    pub lengths: BTreeMap<String, i64>,
    /// The polls of workers that were answered.
    pub polls: Vec<Poll>,
    /// True wall time at the beginning of the record, nanoseconds since the epoch.
    pub epoch: u64,
    /// The steps that the wall clocks of all machines made together, in order.
    pub steps: Vec<Step>,
    /// The runs that keep their own time, since they were open when clocks were set back.
    pub own_time: BTreeSet<String>,
    /// When the first entry of each reign was appended, over all shards, nanoseconds since the epoch.
    pub reigns: Vec<u64>,
    /// The longest that a sync takes when nothing is broken, in nanoseconds.
    pub slowest_sync: u64,
    /// When the faults stopped.
    pub calm: Option<Moment>,
    /// The newest acknowledged heartbeat of each activity: run and activity; attempt and number.
    pub beats: BTreeMap<(String, String), (i32, u32)>,
    /// One timeline per workflow id; see [`Evidence::settle`].
    pub timelines: BTreeMap<Arc<str>, Timeline>,
    /// The places that name each request; see [`Evidence::settle`].
    pub(super) index: Index,
}

/// What of an event names the request that caused it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Mark {
    /// The start of a run.
    Start,
    /// A start that was attached to a run.
    Attached,
    /// A signal.
    Signal,
    /// A request to cancel.
    Cancel,
    /// A termination.
    Terminate,
    /// A completed workflow task.
    TaskCompleted,
    /// A failed workflow task.
    TaskFailed,
    /// A completed activity.
    ActivityCompleted,
    /// A failed activity.
    ActivityFailed,
    /// A canceled activity.
    ActivityCanceled,
}

/// The request that an event names.
pub(super) fn mark(event: &HistoryEvent) -> Option<(Mark, &str)> {
    Some(match event.attributes.as_ref()? {
        Event::WorkflowExecutionStartedEventAttributes(a) => (Mark::Start, &a.identity),
        Event::WorkflowExecutionOptionsUpdatedEventAttributes(a) => {
            (Mark::Attached, &a.attached_request_id)
        }
        Event::WorkflowExecutionSignaledEventAttributes(a) => (Mark::Signal, &a.identity),
        Event::WorkflowExecutionCancelRequestedEventAttributes(a) => (Mark::Cancel, &a.identity),
        Event::WorkflowExecutionTerminatedEventAttributes(a) => (Mark::Terminate, &a.identity),
        Event::WorkflowTaskCompletedEventAttributes(a) => (Mark::TaskCompleted, &a.identity),
        Event::WorkflowTaskFailedEventAttributes(a) => (Mark::TaskFailed, &a.identity),
        Event::ActivityTaskCompletedEventAttributes(a) => (Mark::ActivityCompleted, &a.identity),
        Event::ActivityTaskFailedEventAttributes(a) => (Mark::ActivityFailed, &a.identity),
        Event::ActivityTaskCanceledEventAttributes(a) => (Mark::ActivityCanceled, &a.identity),
        _ => return None,
    })
}

/// The name of the request that an event comes of, if it says.
pub(crate) fn request_of(event: &HistoryEvent) -> Option<&str> {
    mark(event).map(|(_, request)| request).filter(|request| !request.is_empty())
}

/// The marks that an operation may leave.
pub(super) fn marks(kind: Kind) -> &'static [Mark] {
    match kind {
        Kind::Start => &[Mark::Start, Mark::Attached],
        Kind::Signal => &[Mark::Signal],
        Kind::SignalWithStart => &[Mark::Start, Mark::Signal],
        Kind::Cancel => &[Mark::Cancel],
        Kind::Terminate => &[Mark::Terminate],
        Kind::CompleteTask => &[Mark::TaskCompleted],
        Kind::FailTask => &[Mark::TaskFailed],
        Kind::CompleteActivity => &[Mark::ActivityCompleted],
        Kind::FailActivity => &[Mark::ActivityFailed],
        Kind::CancelActivity => &[Mark::ActivityCanceled],
        Kind::Describe
        | Kind::Read
        | Kind::ReadBack
        | Kind::Watch
        | Kind::AwaitClose
        | Kind::List
        | Kind::Count
        | Kind::Task
        | Kind::Attempt
        | Kind::Heartbeat => &[],
    }
}

/// Whether operations of a kind may leave a mark: reads, heartbeats and what is handed out do not.
pub(crate) fn leaves_marks(kind: Kind) -> bool {
    !marks(kind).is_empty()
}

/// Where a mark stands: run, index of the event.
pub(super) type Place = (String, usize);

/// The places of every request, by mark.
pub(super) type Index = BTreeMap<(Mark, String), Vec<Place>>;

/// How long after a step of all wall clocks a node may go by what they showed before, in nanoseconds.
const TAKEN_OVER: u64 = 2_000_000_000;

impl Evidence {
    /// What wall clocks that are right show at a moment of the record, nanoseconds since the epoch.
    pub fn wall(&self, at: u64) -> u64 {
        let steps = self.steps.iter().filter(|step| step.at <= at);
        let by = steps.fold(0_i64, |sum, step| sum.saturating_add(step.by));
        self.epoch.saturating_add(at).saturating_add_signed(by)
    }

    /// What they showed at the beginning of the record, reckoned from what they show in the calm.
    pub fn calm_epoch(&self) -> u64 {
        self.wall(u64::MAX / 4).saturating_sub(u64::MAX / 4)
    }

    /// How much more may have passed by the wall clock than in truth between two moments: most, from
    /// any moment within to any later one.
    pub fn gained(&self, from: u64, to: u64) -> u64 {
        let within = from.saturating_sub(TAKEN_OVER)..=to;
        let steps = self.steps.iter().filter(|step| within.contains(&step.at));
        let mut gained = (0_i64, 0);
        for step in steps {
            let since = gained.0.saturating_add(step.by).max(0);
            gained = (since, since.max(gained.1));
        }
        gained.1.unsigned_abs()
    }

    fn places(&self) -> Index {
        let mut index = Index::new();
        for run in self.runs.values() {
            for (at, event) in run.events.iter().enumerate() {
                if let Some((mark, request)) = mark(event) {
                    let places: &mut Vec<Place> =
                        index.entry((mark, request.to_owned())).or_default();
                    places.push((run.run.clone(), at));
                }
            }
        }
        index
    }

    /// Builds the index and the timelines. Call it once everything else is there.
    pub fn settle(&mut self) {
        self.index = self.places();
        self.timelines = super::timeline::build(self);
    }

    /// The runs of each workflow id, in the order in which they were.
    pub fn by_id(&self) -> BTreeMap<Arc<str>, Vec<&RunHistory>> {
        let mut by_id: BTreeMap<Arc<str>, Vec<&RunHistory>> = BTreeMap::new();
        for run in self.runs.values() {
            by_id.entry(run.id.clone()).or_default().push(run);
        }
        for runs in by_id.values_mut() {
            runs.sort_by_key(|run| (run.started(), run.closed().unwrap_or(u64::MAX)));
        }
        by_id
    }

    /// Acknowledged operations of a kind.
    pub fn acknowledged(&self, kind: Kind) -> impl Iterator<Item = (&Operation, &Told)> {
        self.operations
            .iter()
            .filter(move |operation| operation.asked.kind == kind)
            .filter_map(|operation| Some((operation, operation.told()?)))
    }
}

impl RunHistory {
    /// The event of an id.
    pub fn event(&self, id: i64) -> Option<&HistoryEvent> {
        self.events.get(usize::try_from(id - 1).ok()?)
    }

    /// When it started by its own word, nanoseconds since the epoch.
    pub fn started(&self) -> u64 {
        self.events.first().map_or(0, event_time)
    }

    /// When it closed by its own word; `None` while it is open.
    pub fn closed(&self) -> Option<u64> {
        self.events.last().filter(|event| closes(event)).map(event_time)
    }

    /// For people.
    pub fn name(&self) -> String {
        format!("{}/{}", self.id, self.run)
    }
}

/// Requests whose acknowledgement must have left exactly one mark, and requests that left more
/// marks than one: the common part of A1, A2, A4, A5 and A6.
pub(super) fn once_each(
    evidence: &Evidence,
    kinds: &[Kind],
    mark: Mark,
    must: impl Fn(&Operation) -> bool,
    findings: &mut super::Findings,
) {
    let index = &evidence.index;
    for operation in &evidence.operations {
        if !kinds.contains(&operation.asked.kind) {
            continue;
        }
        let places = index.get(&(mark, operation.asked.request.clone()));
        let count = places.map_or(0, Vec::len);
        if count > 1 {
            let places: Vec<_> = places
                .into_iter()
                .flatten()
                .map(|(run, at)| format!("event {} of run {run}", at + 1))
                .collect();
            let text = format!("{}; it is {}", operation.describe(), places.join(" and "));
            findings.add(&operation.asked.id, text);
        }
        if count == 0 && matches!(operation.outcome, Outcome::Ok(_)) && must(operation) {
            let text = format!("{}; no history has it", operation.describe());
            findings.add(&operation.asked.id, text);
        }
    }
}
