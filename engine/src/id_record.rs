//! What one workflow id remembers across its runs: the current run, and recent request ids.
//!
//! The record is a slot of its own ([`crate::ids::Slot::Id`]): it has a change number, a journal
//! and checkpoints like a run, and only [`apply`] changes it.

use crate::change::Change;
use crate::env::Env;
use crate::ids::{ChangeSeq, RunId, Uuid};

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
    /// What created it was a signal-with-start.
    #[prost(bool, tag = "7")]
    pub with_signal: bool,
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

/// What a request asked for. A request id belongs to one kind of call: another kind that carries
/// the same id is another request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum RequestKind {
    /// A signal.
    Signal = 0,
    /// A start, which made the run.
    Start = 1,
    /// A signal-with-start.
    SignalWithStart = 2,
    /// A start, which was attached to the run that it found.
    Attached = 3,
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
    /// What it asked for.
    #[prost(enumeration = "RequestKind", tag = "4")]
    pub kind: i32,
    /// How many of the oldest are forgotten for it. It was decided by the limits of its time: a
    /// journal means the same whatever is configured when it is folded.
    #[prost(uint32, tag = "5")]
    pub forgets: u32,
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

    /// The runs that requests of this id and kind met within the window that ends now, the newest
    /// first.
    pub fn seen(&self, id: &str, kind: RequestKind, env: &Env<'_>) -> impl Iterator<Item = RunId> {
        let oldest = window_begin(env);
        let recent = self.record.recent.iter().rev();
        recent
            .filter(move |r| r.at >= oldest && r.kind == kind as i32 && r.id == id)
            .filter_map(|r| Uuid::from_slice(&r.run))
    }

    /// A request that met `run` is remembered across runs; one without an id is nobody's.
    pub fn remember(&mut self, id: String, kind: RequestKind, run: RunId, env: &Env<'_>) {
        if !id.is_empty() {
            let (oldest, recent) = (window_begin(env), &self.record.recent);
            let over = recent.iter().take_while(|seen| seen.at < oldest).count();
            let room = env.limits.requests_remembered.max(1) - 1;
            let forgets = over.max(recent.len().saturating_sub(room));
            let forgets = u32::try_from(forgets).unwrap_or(u32::MAX);
            let (kind, run) = (kind as i32, run.0.to_vec());
            let seen = RequestSeen { id, at: env.clock().0, run, kind, forgets };
            self.push(Change::RequestSeen(seen));
        }
    }

    /// The current run gives way: its start may still be repeated (A13).
    pub fn replace_current(&mut self, by: CurrentRun, env: &Env<'_>) {
        if let Some(old) = self.record.current.clone() {
            let run = old.run_id();
            // A signal-with-start was remembered when it came, and is no start.
            if !old.with_signal {
                self.remember(old.create_request_id, RequestKind::Start, run, env);
            }
            for id in old.attached_request_ids {
                self.remember(id, RequestKind::Attached, run, env);
            }
        }
        self.push(Change::CurrentRun(by));
    }
}

/// When the time begins in which a request is remembered across runs, nanoseconds since the epoch.
fn window_begin(env: &Env<'_>) -> u64 {
    let window = u64::try_from(env.limits.request_window.as_nanos()).unwrap_or(u64::MAX);
    env.clock().0.saturating_sub(window)
}

/// Folds one change into a record.
///
/// # Panics
/// On a change that does not belong to a record: the journal is damaged.
pub fn apply(record: &mut IdRecord, change: &Change) {
    record.seq += 1;
    match change {
        Change::RequestSeen(seen) => {
            let forgotten = record.recent.len().min(seen.forgets as usize);
            record.recent.drain(..forgotten);
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
        | Change::Ahead(_)
        | Change::RunDeleted => panic!("{change:?} is not a change of an id record"),
    }
}
