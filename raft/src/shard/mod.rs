//! The leader of a shard: takes inputs, decides them on its own uncommitted drafts, has them
//! agreed on, and answers once that is done (DESIGN 3).
//!
//! ```text
//! inbox -> decide -> open entry -> propose -> (quorum, synced, applied) -> effects, answers
//! ```
//!
//! [`Serving`] is everything a leader knows during one reign, without a single await: it can be
//! dropped whole when the reign ends. [`run`] is the loop around it.

mod decide;
mod hand_out;
mod open;
mod reads;
mod review;
mod row_ops;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_engine::ids::{EventId, ExecutionKey, Hlc, RunId};
use holdfast_engine::namespace::NamespaceView;
use holdfast_engine::rows::RowDiff;
use holdfast_engine::{Input, Limits, Rejection, Reply};
use holdfast_storage::GroupId;
use holdfast_storage::tables::ShardId;
use holdfast_storage::tables::backlog::QueueKey;
use holdfast_storage::tables::counter::CounterKey;
use tokio::sync::{oneshot, watch};

use crate::cache::Cache;
use crate::deadlines::Wheel;
use crate::entry::{EntryDraft, EntryLimits, Reign};
use crate::group::Group;
use crate::host::Host;
use crate::hubs::{Hubs, LentPoller, TaskRef};
use crate::registry::RegistryWatch;
use crate::waits::Waits;

pub use crate::admission::AdmissionLimits;
use hand_out::Queue;
use review::Review;
pub(crate) use serve::{Inbox, run};

/// How a shard batches and how much it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardConfig {
    /// Entries on their way at once. One is being synced while the next fills behind it.
    pub pipeline: usize,
    /// Drafts in one entry at most.
    pub entry_drafts: usize,
    /// Bytes of drafts in an entry of several decisions, at most; an entry that is half full takes
    /// no more. One decision may be larger ([`EntryLimits::DECISION_BYTES`]).
    pub entry_bytes: usize,
    /// How long a start may stay a grant (DESIGN 3.5).
    pub start_flush: std::time::Duration,
    /// Bytes of executions in memory.
    pub cache_bytes: usize,
    /// Deadlines in memory, and in one read of their table; later ones stay there. At least 1.
    pub deadlines: usize,
    /// Deadlines that fire before the place is moved from which a new leader reads their table.
    pub low_water_every: u64,
    /// How far that place stays behind the clock: rows may be written for a time that has just
    /// passed, and one that lies before it costs a move back.
    pub low_water_margin: std::time::Duration,
    /// Tasks of one queue and priority in memory; the others stay in their table. At least 1.
    pub backlog: usize,
    /// Long polls for news of a run; one more is refused.
    pub parked: usize,
    /// The inbox.
    pub admission: AdmissionLimits,
}

impl Default for ShardConfig {
    fn default() -> ShardConfig {
        ShardConfig {
            pipeline: 2,
            entry_drafts: 512,
            entry_bytes: EntryLimits::ENTRY_BYTES,
            start_flush: std::time::Duration::from_millis(20),
            cache_bytes: 64 << 20,
            deadlines: 20_000,
            low_water_every: 1000,
            low_water_margin: std::time::Duration::from_secs(60),
            backlog: 10_000,
            parked: 20_000,
            admission: AdmissionLimits::default(),
        }
    }
}

/// Why a call has no answer of the engine.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SubmitError {
    /// A rule refuses it.
    #[error("{}", .0.message)]
    Rejected(Rejection),
    /// No leader, leadership lost on the way, or stopping. Trying again is right; what happened
    /// to a change is not known.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl From<Rejection> for SubmitError {
    fn from(rejection: Rejection) -> SubmitError {
        SubmitError::Rejected(rejection)
    }
}

/// What a node does for a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ShardStatus {
    /// It follows, or is about to serve.
    Waiting,
    /// It leads and takes inputs.
    Serving,
    /// Nothing any more: its tables are damaged, or the node stops.
    Stopped,
}

/// What a history reader waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryWait {
    /// Nothing: what is there.
    None,
    /// An event at or after this one, or the end of the run.
    Event(EventId),
    /// The end of the run.
    Close,
}

/// The answer to an input, and for a history read that has to wait, what wakes it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) parked: Option<oneshot::Receiver<()>>,
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    /// A call that waits.
    Caller(oneshot::Sender<Result<Answer, SubmitError>>, HistoryWait),
    /// A poller that gets the task of a queue.
    Poller(Box<LentPoller>, TaskRef),
}

/// An input on its way to its decision.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) key: ExecutionKey,
    pub(crate) input: Input,
    pub(crate) namespace: Arc<NamespaceView>,
    pub(crate) to: ReplyTo,
}

/// An answer that is held until what it rests on is committed (DESIGN 3.1).
#[derive(Debug)]
pub(crate) struct Held {
    to: ReplyTo,
    result: Result<Reply, Rejection>,
    parked: Option<oneshot::Receiver<()>>,
}

/// What follows from a draft once it is applied.
#[derive(Debug)]
struct RunEffects {
    key: ExecutionKey,
    run: RunId,
    diff: RowDiff,
    /// History grew, or the run left: long polls look again.
    wake: bool,
}

/// What one decision, or a whole entry, has written and entails.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) drafts: Vec<EntryDraft>,
    bytes: usize,
    moves: Vec<(CounterKey, i64)>,
    effects: Vec<RunEffects>,
    pub(crate) held: Vec<Held>,
}

impl Batch {
    fn add(&mut self, draft: EntryDraft) {
        self.bytes += draft.encoded_len();
        self.drafts.push(draft);
    }

    /// Takes another decision in.
    fn join(&mut self, other: Batch) {
        self.bytes += other.bytes;
        self.drafts.extend(other.drafts);
        self.moves.extend(other.moves);
        self.effects.extend(other.effects);
        self.held.extend(other.held);
    }

    /// Whether `more` bytes would make it larger than an entry of several decisions may be.
    fn overflows(&self, more: usize, config: &ShardConfig) -> bool {
        !self.drafts.is_empty() && self.bytes + more > config.entry_bytes
    }

    fn is_full(&self, config: &ShardConfig) -> bool {
        self.bytes >= config.entry_bytes / 2 || self.drafts.len() >= config.entry_drafts
    }
}

/// An entry that was proposed and is not applied yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    number: u64,
    effects: Vec<RunEffects>,
    pub(crate) held: Vec<Held>,
}

/// A shard as this node takes part in it, across reigns.
pub(crate) struct Leading {
    pub(crate) shard: ShardId,
    pub(crate) group: Group,
    pub(crate) host: Host,
    pub(crate) limits: Arc<Limits>,
    pub(crate) config: ShardConfig,
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) registry: RegistryWatch,
    pub(crate) inbox: Arc<Inbox>,
    /// Shows whether this node serves the shard now.
    pub(crate) serving: watch::Sender<ShardStatus>,
    /// The least counter that the next reign of the same term may carry.
    pub(crate) reigns: u64,
}

/// Everything a leader knows during one reign.
pub(crate) struct Serving {
    shard: ShardId,
    group: GroupId,
    host: Host,
    limits: Arc<Limits>,
    config: ShardConfig,
    hubs: Arc<Hubs>,
    registry: RegistryWatch,
    reign: Reign,
    /// When the last thing was decided here, by this clock or an earlier leader's.
    clock: Hlc,
    /// What the clock showed when it was last looked at; at first, when the last entry was decided.
    looked: Hlc,
    /// The rows that are to be looked at since the clock was set back.
    review: Option<Review>,
    /// The steps of the clock that the clocks of the others are known to agree with.
    steps: u64,
    /// Entries proposed in this reign; the next has seq `proposed`.
    proposed: u64,
    /// Entries of this reign that are applied.
    pub(crate) applied: u64,
    pub(crate) cache: Cache,
    /// Entries that are full, in order: they wait for a place in the pipeline.
    pub(crate) sealed: VecDeque<Batch>,
    /// The entry that is being filled.
    pub(crate) batch: Batch,
    /// Entries that were proposed, in order.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// Answers without a change of their own that wait for a read index.
    pub(crate) reads: Vec<Held>,
    /// Runs with grants that are not durable.
    pub(crate) grants: BTreeSet<(ExecutionKey, RunId)>,
    /// When the first of them was made, by the steady clock.
    first_grant: Hlc,
    wheel: Wheel,
    /// Deadline rows before this key are gone (A16).
    low_water: Bytes,
    /// Deadlines fired since it was last moved.
    fired: u64,
    /// The earliest deadline that came due and was not met, since its execution is quarantined.
    unmet: Option<Hlc>,
    queues: BTreeMap<QueueKey, Queue>,
    /// Queues by when their next task of the future may go out.
    delayed: BTreeSet<(Hlc, QueueKey)>,
    counters: BTreeMap<CounterKey, i64>,
    pub(crate) waits: Waits,
    quarantined: BTreeSet<ExecutionKey>,
}
