//! What one workflow id remembers across its runs: the current run, and recent request ids.
//!
//! The record is a slot of its own ([`crate::ids::Slot::Id`]): it has a change number, a journal
//! and checkpoints like a run, and only [`apply`] changes it.

use std::time::Duration;

use crate::change::Change;
use crate::ids::{ChangeSeq, Hlc, RunId, Uuid};

/// How long a request id is remembered across runs (A13). The run that it met remembers it for
/// good.
pub const REQUEST_WINDOW: Duration = Duration::from_secs(600);
/// How many request ids are remembered at most (A13).
pub const REQUESTS_REMEMBERED: usize = 1000;

/// The record of one workflow id. `Default` is an id that was never used.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IdRecord {
    /// How many changes it has folded.
    #[prost(uint64, tag = "1")]
    pub seq: ChangeSeq,
    /// The newest run, open or closed; none once it is deleted.
    #[prost(message, optional, tag = "2")]
    pub current: Option<CurrentRun>,
    /// Request ids of signals and the like, oldest first.
    #[prost(message, repeated, tag = "3")]
    pub recent: Vec<RequestSeen>,
}

/// The newest run of an id.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CurrentRun {
    /// Run id, 16 bytes; empty removes the current run.
    #[prost(bytes = "vec", tag = "1")]
    pub run: Vec<u8>,
    /// Its `WorkflowExecutionStatus`.
    #[prost(int32, tag = "2")]
    pub status: i32,
    /// First run of its chain, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub first_run: Vec<u8>,
    /// The request id of the start that created it.
    #[prost(string, tag = "4")]
    pub create_request_id: String,
    /// When it started.
    #[prost(uint64, tag = "5")]
    pub started_at: u64,
    /// Request ids attached to it later by starts with a conflict policy.
    #[prost(string, repeated, tag = "6")]
    pub attached_request_ids: Vec<String>,
}

impl CurrentRun {
    /// The run id.
    pub fn run_id(&self) -> RunId {
        Uuid::from_slice(&self.run).unwrap_or(Uuid::NIL)
    }

    /// The first run of the chain.
    pub fn first_run_id(&self) -> RunId {
        Uuid::from_slice(&self.first_run).unwrap_or(Uuid::NIL)
    }
}

/// A request id that was honoured.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RequestSeen {
    /// The request id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// When.
    #[prost(uint64, tag = "2")]
    pub at: u64,
    /// The run it went to, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
    /// It was the request of a start: that run was created by it, or it was attached to it.
    #[prost(bool, tag = "4")]
    pub start: bool,
}

/// An id record under decision.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RecordLive {
    /// The folded record.
    pub record: IdRecord,
    /// What this decision pushed; taken by the shard.
    pub changes: Vec<Change>,
}

impl RecordLive {
    /// Records and applies at once: the only mutator.
    pub fn push(&mut self, change: Change) {
        apply(&mut self.record, &change);
        self.changes.push(change);
    }

    /// The run that the signal `id` met within the window that ends at `now`.
    pub fn seen(&self, id: &str, now: Hlc) -> Option<RunId> {
        self.recent(id, false, now)
    }

    /// The run before the current one that the start `id` made or met, within the window.
    pub fn started(&self, id: &str, now: Hlc) -> Option<RunId> {
        self.recent(id, true, now)
    }

    fn recent(&self, id: &str, start: bool, now: Hlc) -> Option<RunId> {
        let oldest = now.0.saturating_sub(REQUEST_WINDOW.as_nanos() as u64);
        let mut recent = self.record.recent.iter();
        let seen = recent.find(|r| r.at >= oldest && r.start == start && r.id == id)?;
        Uuid::from_slice(&seen.run)
    }

    /// The current run gives way: its start may still be repeated (A13).
    pub fn replace_current(&mut self, by: CurrentRun, now: Hlc) {
        if let Some(old) = self.record.current.clone() {
            let ids = [old.create_request_id].into_iter().chain(old.attached_request_ids);
            for id in ids.filter(|id| !id.is_empty()) {
                let seen = RequestSeen { id, at: now.0, run: old.run.clone(), start: true };
                self.push(Change::RequestSeen(seen));
            }
        }
        self.push(Change::CurrentRun(by));
    }
}

/// Folds one change into a record.
///
/// # Panics
/// On a change that does not belong to a record: the journal is damaged.
pub fn apply(record: &mut IdRecord, change: &Change) {
    record.seq += 1;
    match change {
        Change::RequestSeen(seen) => {
            let oldest = seen.at.saturating_sub(REQUEST_WINDOW.as_nanos() as u64);
            record.recent.retain(|r| r.at >= oldest);
            if record.recent.len() >= REQUESTS_REMEMBERED {
                record.recent.remove(0);
            }
            record.recent.push(seen.clone());
        }
        Change::CurrentRun(current) if current.run.is_empty() => record.current = None,
        Change::CurrentRun(current) => record.current = Some(current.clone()),
        Change::Event(_)
        | Change::Buffered(_)
        | Change::BufferFlushed(_)
        | Change::BufferDropped(_)
        | Change::TaskAttempt(_)
        | Change::TaskStarted(_)
        | Change::TaskUnstarted(_)
        | Change::StickySet(_)
        | Change::AttemptStarted(_)
        | Change::AttemptRetried(_)
        | Change::Heartbeated(_)
        | Change::HeartbeatRearmed(_)
        | Change::RetentionSet(_)
        | Change::StartedBy(_)
        | Change::RunDeleted => panic!("{change:?} is not a change of an id record"),
    }
}
