//! The table rows that a state implies, as a pure function of it (A10, design-reasons C2).
//!
//! `apply` says which parts it touched; [`diff`] compares those parts with the rows that exist and
//! gives the row operations of the entry. Rows can so never be lost or left behind: the test is
//! equality with [`all`].

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::common::{Memo, SearchAttributes};

use crate::ids::{EventId, Hlc};
use crate::live::TaskType;
use crate::workflow::State;
use crate::workflow::own_time::by_the_clock;

/// The parts of a run that a change touched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dirty {
    /// The workflow task's backlog row.
    pub workflow_task: bool,
    /// Activities whose backlog row may differ, by scheduled event.
    pub activities: BTreeSet<EventId>,
    /// Anything that has a time to be due at.
    pub deadline: bool,
    /// The visibility record.
    pub visibility: bool,
}

/// A task that waits for a worker: one backlog row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BacklogRow {
    /// The task queue; of a sticky task the sticky one.
    pub queue: String,
    /// What kind of task.
    pub task: TaskType,
    /// Priority 1 (first) .. 5; 3 when unset.
    pub priority: u8,
    /// Not to be handed out before, by the leader's clock; also its age.
    pub at: Hlc,
    /// The event that scheduled it.
    pub scheduled: EventId,
    /// Invalidates offers made for an earlier shape of the same task.
    pub stamp: u32,
    /// The attempt.
    pub attempt: u32,
    /// On a sticky queue.
    pub sticky: bool,
}

/// All rows of one run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RowSet {
    /// The earliest time, by the leader's clock, at which the run needs attention; `None` when never.
    pub deadline: Option<Hlc>,
    /// The workflow task, while it waits.
    pub workflow_task: Option<BacklogRow>,
    /// Activities that wait, by scheduled event.
    pub activities: BTreeMap<EventId, BacklogRow>,
    /// The visibility record; `None` once the run is deleted.
    pub visibility: Option<VisibilityRecord>,
}

/// What lists and counts know of a run. Stored as is in the visibility table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VisibilityRecord {
    /// Workflow id.
    #[prost(string, tag = "1")]
    pub workflow_id: String,
    /// Run id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub run: Vec<u8>,
    /// Workflow type.
    #[prost(string, tag = "3")]
    pub workflow_type: String,
    /// When it started.
    #[prost(uint64, tag = "4")]
    pub started_at: u64,
    /// When its first workflow task was or is due (start delay).
    #[prost(uint64, tag = "5")]
    pub execution_at: u64,
    /// When it closed; 0 while open.
    #[prost(uint64, tag = "6")]
    pub closed_at: u64,
    /// `WorkflowExecutionStatus`.
    #[prost(int32, tag = "7")]
    pub status: i32,
    /// Number of events; set when closed.
    #[prost(int64, tag = "8")]
    pub history_length: i64,
    /// Bytes of events; set when closed.
    #[prost(int64, tag = "9")]
    pub history_bytes: i64,
    /// Number of state transitions; set when closed.
    #[prost(int64, tag = "10")]
    pub transitions: i64,
    /// The workflow's task queue.
    #[prost(string, tag = "11")]
    pub task_queue: String,
    /// Memo.
    #[prost(message, optional, tag = "12")]
    pub memo: Option<Memo>,
    /// Search attributes by the user's names.
    #[prost(message, optional, tag = "13")]
    pub search_attributes: Option<SearchAttributes>,
    /// First run of the chain, 16 bytes.
    #[prost(bytes = "vec", tag = "14")]
    pub first_run: Vec<u8>,
}

/// How the rows of a run change.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RowDiff {
    /// Deadline rows: (old, new).
    pub deadline: Option<(Option<Hlc>, Option<Hlc>)>,
    /// Backlog rows that go.
    pub removed: Vec<BacklogRow>,
    /// Backlog rows that come.
    pub added: Vec<BacklogRow>,
    /// Visibility: (old, new).
    pub visibility: Option<(Option<VisibilityRecord>, Option<VisibilityRecord>)>,
}

/// Every row of a run.
pub fn all(state: &State) -> RowSet {
    RowSet {
        deadline: deadline(state),
        workflow_task: workflow_task(state),
        activities: state
            .activities
            .keys()
            .filter_map(|id| activity(state, *id).map(|row| (*id, row)))
            .collect(),
        visibility: crate::workflow::visibility_record(state),
    }
}

fn deadline(state: &State) -> Option<Hlc> {
    crate::workflow::deadline(state).map(|at| by_the_clock(state, at))
}

fn workflow_task(state: &State) -> Option<BacklogRow> {
    crate::workflow::workflow_task::backlog_row(state).map(|row| read_by_the_clock(state, row))
}

fn activity(state: &State, id: EventId) -> Option<BacklogRow> {
    crate::workflow::activity::backlog_row(state, id).map(|row| read_by_the_clock(state, row))
}

fn read_by_the_clock(state: &State, row: BacklogRow) -> BacklogRow {
    BacklogRow { at: by_the_clock(state, row.at), ..row }
}

/// Brings `rows` up to date with `state` where `dirty` says so, and gives what changed.
pub fn diff(rows: &mut RowSet, state: &State, dirty: &Dirty) -> RowDiff {
    let mut out = RowDiff::default();
    if dirty.deadline {
        let new = deadline(state);
        if new != rows.deadline {
            out.deadline = Some((rows.deadline, new));
            rows.deadline = new;
        }
    }
    if dirty.workflow_task {
        let new = workflow_task(state);
        if new != rows.workflow_task {
            out.removed.extend(std::mem::replace(&mut rows.workflow_task, new.clone()));
            out.added.extend(new);
        }
    }
    for id in &dirty.activities {
        let new = activity(state, *id);
        if new.as_ref() != rows.activities.get(id) {
            out.removed.extend(rows.activities.remove(id));
            if let Some(row) = new {
                rows.activities.insert(*id, row.clone());
                out.added.push(row);
            }
        }
    }
    if dirty.visibility {
        let new = crate::workflow::visibility_record(state);
        if new != rows.visibility {
            out.visibility = Some((rows.visibility.take(), new.clone()));
            rows.visibility = new;
        }
    }
    out
}
