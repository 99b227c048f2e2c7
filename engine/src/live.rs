//! A run as its leader holds it: what is folded from the log, and what only the leader knows.

use std::collections::BTreeMap;

use holdfast_proto::enums::{EventType, TaskQueueKind};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes;
use prost::Message;

use crate::change::{BufferFlushed, Change};
use crate::env::Env;
use crate::event::new_event;
use crate::id_record::RecordLive;
use crate::ids::{ChangeSeq, EventId, ExecutionKey, Hlc, RunId, Uuid};
use crate::rows::{Dirty, RowSet};
use crate::workflow::{self, State};

/// What the leader knows and nobody else must. Empty after a leader change; outside checkpoints.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Overlay {
    /// Tasks handed to a worker whose start is not durable yet, by the event that scheduled them.
    pub grants: BTreeMap<EventId, Grant>,
    /// A close command was refused because of buffered events: no new signals while the next
    /// task is held (BUSY_WORKFLOW).
    pub close_attempted: bool,
}

/// What kind of task a grant or a backlog row is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum TaskType {
    /// A workflow task.
    Workflow = 1,
    /// An activity task.
    Activity = 2,
}

/// A task handed to a worker, not durable yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Grant {
    /// What it is.
    pub task: TaskType,
    /// The random id of the start.
    pub start_id: Uuid,
    /// The run's change number when it was granted.
    pub base: ChangeSeq,
    /// When.
    pub at: Hlc,
    /// The worker.
    pub identity: String,
    /// The queue that was polled.
    pub queue: String,
    /// Its kind.
    pub kind: TaskQueueKind,
    /// The build of the worker; empty when it did not tell.
    pub build_id: String,
}

/// One run under a leader.
#[derive(Clone, PartialEq, Debug)]
pub struct Live {
    /// The run id.
    pub run: RunId,
    /// Folded from the log.
    pub state: State,
    /// The leader's own.
    pub overlay: Overlay,
    /// What this decision pushed; taken by the shard.
    pub changes: Vec<Change>,
    /// What this decision touched; taken by the shard.
    pub dirty: Dirty,
    /// The rows that the log says exist, for the diff; kept by the shard.
    pub rows: RowSet,
    /// How large the state is, from above.
    pub size: Size,
    /// After what its next decision is stamped: times rise, and so do the numbers of events.
    pub last: u64,
}

/// A bound of the encoded size of a state that costs nothing to keep: what was measured last, and
/// what was pushed since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    measured: u64,
    grown: u64,
}

impl Size {
    /// The state is no larger than this.
    pub fn bound(self) -> u64 {
        self.measured + self.grown
    }
}

/// What a change may add to a state beside its own bytes: times, ids, texts that it implies.
const CHANGE_OVERHEAD: u64 = 512;

impl Live {
    /// A run of which nothing is written yet.
    pub fn new(run: RunId) -> Live {
        Live {
            run,
            state: fresh(),
            overlay: Overlay::default(),
            changes: Vec::new(),
            dirty: Dirty::default(),
            rows: RowSet::default(),
            size: Size::default(),
            last: 0,
        }
    }

    /// A run as loaded: its rows are those that its state implies.
    pub fn loaded(run: RunId, state: State) -> Live {
        let rows = crate::rows::all(&state);
        let size = Size { measured: state.encoded_len() as u64, grown: 0 };
        let last = workflow::own_time::latest(&state);
        Live { rows, state, size, last, ..Live::new(run) }
    }

    /// Records and applies at once: the only mutator of `state`.
    pub fn push(&mut self, change: Change) {
        let written = self.state.history_bytes;
        workflow::apply(&mut self.state, &change, &mut self.dirty);
        let bytes = match &change {
            Change::Event(_) => self.state.history_bytes - written,
            private => private.encoded_len() as u64,
        };
        self.size.grown += bytes + CHANGE_OVERHEAD;
        self.changes.push(change);
    }

    /// Whether the state is larger than `limit` bytes. Measured only when what was pushed since
    /// the last time could make it so: a state far from its limit is hardly ever encoded for this.
    pub fn is_larger_than(&mut self, limit: u64) -> bool {
        if self.size.bound() <= limit {
            return false;
        }
        self.size = Size { measured: self.state.encoded_len() as u64, grown: 0 };
        self.size.measured > limit
    }

    /// Writes an event now, with the next id, and gives the id.
    pub fn event(&mut self, env: &Env<'_>, attributes: Attributes) -> EventId {
        self.event_at(env, env.now, attributes)
    }

    /// As [`Live::event`], for something that happened at `at`.
    pub fn event_at(&mut self, env: &Env<'_>, at: Hlc, attributes: Attributes) -> EventId {
        self.event_full(new_event(env, at, attributes))
    }

    /// Writes an event whose further fields (user metadata, links, ..) the caller has set;
    /// its id is assigned here. Times of events never decrease: what happened before the last
    /// event was written carries that one's time. ACTIVITY_TASK_STARTED alone is written long
    /// after the fact by design (surface 3.1) and tells the true time.
    pub fn event_full(&mut self, mut event: HistoryEvent) -> EventId {
        event.event_id = self.state.next_event.max(1);
        let id = event.event_id;
        let at = event.event_time.as_ref().map_or(Hlc::ZERO, Hlc::from_timestamp);
        if event.event_type() != EventType::ActivityTaskStarted {
            event.event_time = Some(at.max(Hlc(self.state.last_event_at)).timestamp());
        }
        self.push(Change::Event(Box::new(event)));
        id
    }

    /// Something that did not come from a command happened: written now, or buffered while a
    /// workflow task is in progress (surface 2.4). Gives the id, 0 when buffered.
    pub fn happened(&mut self, event: HistoryEvent) -> EventId {
        if self.task_in_progress() {
            self.push(Change::Buffered(Box::new(event)));
            return 0;
        }
        self.event_full(event)
    }

    /// Whether a worker holds the workflow task, durable or granted.
    pub fn task_in_progress(&self) -> bool {
        self.state.workflow_task.as_ref().is_some_and(|task| {
            task.started != 0 || self.overlay.grants.contains_key(&task.scheduled)
        })
    }

    /// Writes what waited in the buffer: closes of activities and children after everything
    /// else, otherwise in order (surface 2.4 and 10). Gives how many events that were.
    pub fn flush_buffer(&mut self, env: &Env<'_>) -> usize {
        if self.state.buffered.is_empty() {
            return 0;
        }
        let waiting = self.state.buffered.clone();
        let count = waiting.len();
        let (closes, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_close_of_part);
        self.push(Change::BufferFlushed(BufferFlushed { count: count as u32 }));
        let mut started = BTreeMap::new();
        for mut event in others.into_iter().chain(closes) {
            event.task_id = env.next_task_id();
            if let Some(Attributes::ActivityTaskStartedEventAttributes(a)) = &event.attributes {
                started.insert(a.scheduled_event_id, self.state.next_event);
            }
            patch_started(&mut event, &started);
            self.event_full(event);
        }
        count
    }
}

fn is_close_of_part(event: &HistoryEvent) -> bool {
    workflow::activity::closes(event).is_some()
}

/// A buffered close refers to a STARTED that got its id just now.
fn patch_started(event: &mut HistoryEvent, started: &BTreeMap<EventId, EventId>) {
    let (scheduled, slot) = match &mut event.attributes {
        Some(Attributes::ActivityTaskCompletedEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        Some(Attributes::ActivityTaskFailedEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        Some(Attributes::ActivityTaskTimedOutEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        Some(Attributes::ActivityTaskCanceledEventAttributes(a)) => {
            (a.scheduled_event_id, &mut a.started_event_id)
        }
        _ => return,
    };
    if let Some(id) = started.get(&scheduled) {
        *slot = *id;
    }
}

/// The state of a run of which nothing is written yet: its first event will be number 1.
pub fn fresh() -> State {
    State { next_event: 1, ..State::default() }
}

/// Everything one decision may change: the id's record and up to three runs.
///
/// `runs[0]`, when present, is the run that the input's [`crate::input::Target`] names; a decision
/// appends the runs it creates.
#[derive(Clone, PartialEq, Debug)]
pub struct Draft {
    /// The execution.
    pub key: ExecutionKey,
    /// The record of the id.
    pub record: RecordLive,
    /// The runs under change.
    pub runs: Vec<Live>,
}

impl Draft {
    /// Whether this decision pushed anything.
    pub fn is_empty(&self) -> bool {
        self.record.changes.is_empty() && self.runs.iter().all(|run| run.changes.is_empty())
    }

    /// The run that the input names.
    pub fn target(&mut self) -> Option<&mut Live> {
        self.runs.first_mut()
    }
}
