//! The state machine of a group: writes what leaders decided, and runs no domain code.
//!
//! Three checks guard the tables (DESIGN 3.2). An entry whose term is not its leader's, or whose
//! reign and sequence do not follow, is skipped whole: a legal race. A change whose base is not
//! the slot's last change, or a row that is not the group's, stops the group on this node: it can
//! only be corruption. And nothing is written before this node's own log is durable to it (A4).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use holdfast_engine::ids::{ChangeSeq, ExecutionKey, Hlc, Slot};
use holdfast_storage::tables::{Key, RunKey, checkpoint::CheckpointKey, history, journal};
use holdfast_storage::{Direction, GroupId, Op, StorageError, Store, View};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use tokio::sync::{mpsc, watch};

use crate::entry::{EntryBytes, Reign, ShardEntry, SlotPart};
use crate::image::Image;
use crate::rows::{self, GroupState};
use crate::types::{LogId, StoredMembership, TypeConfig, corrupt, io_error, term_of};

/// The most bytes of rows that one batch takes before it is written.
pub const BATCH_BYTES: usize = 1 << 20;

/// How one proposal of this node ended. Each gets exactly one of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The reign it was proposed in.
    pub reign: Reign,
    /// Its place in it.
    pub seq: u64,
    /// What became of it.
    pub how: Proposed,
}

/// What became of a proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proposed {
    /// Committed, and its rows can be read.
    Accepted {
        /// Its index in the log.
        log_index: u64,
    },
    /// In the log, but of an older reign or behind a hole: it never applies anywhere.
    Skipped {
        /// Its index in the log.
        log_index: u64,
    },
    /// Never reached the log: it never applies anywhere.
    Refused,
    /// May or may not apply, now or later.
    Unknown,
}

/// Where the tables of a group stand on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppliedMark {
    /// The term of the last entry applied.
    pub term: u64,
    /// Its index; `None` before the first.
    pub index: Option<u64>,
    /// The newest reign accepted.
    pub reign: Reign,
    /// The latest time of an accepted entry.
    pub at: Hlc,
}

/// What a [`Machine`] is connected to.
pub struct Wiring {
    /// The group.
    pub group: GroupId,
    /// The tables.
    pub store: Arc<dyn Store>,
    /// Up to where this node's log is durable.
    pub durable: watch::Receiver<Option<u64>>,
    /// Hears of each entry that was proposed here, once it is written.
    pub events: mpsc::UnboundedSender<Ended>,
    /// Shows where the tables stand.
    pub applied: watch::Sender<AppliedMark>,
    /// Shows why the group stopped.
    pub stopped: watch::Sender<Option<String>>,
}

/// The state machine of one group.
pub struct Machine {
    wiring: Wiring,
    state: GroupState,
    /// Heads of slots changed lately, so that a busy execution costs no read.
    heads: Heads,
}

/// Numbers of last changes by the slots' checkpoint keys; 0 where the slot was removed.
type Heads = BTreeMap<Bytes, ChangeSeq>;

/// How many heads are remembered; beyond it all are forgotten.
const MAX_HEADS: usize = 1024;

impl Machine {
    /// Starts from what the tables say.
    pub fn open(wiring: Wiring) -> Result<Machine, StorageError> {
        let state = GroupState::read(wiring.store.view().as_ref(), wiring.group)?;
        let machine = Machine { wiring, state, heads: BTreeMap::new() };
        machine.show_applied();
        Ok(machine)
    }

    fn show_applied(&self) {
        let applied = self.state.applied.as_ref();
        self.wiring.applied.send_replace(AppliedMark {
            term: applied.map_or(0, term_of),
            index: applied.map(|id| id.index),
            reign: self.state.reign,
            at: self.state.at,
        });
    }

    /// Marks the group as stopped; what is returned ends its Raft core.
    fn stop(&self, why: String) -> io::Error {
        let group = self.wiring.group;
        tracing::error!(group, why, "this replica stops; the other groups go on");
        self.wiring.stopped.send_replace(Some(why.clone()));
        corrupt(format!("group {group}: {why}"))
    }

    /// Adds an entry to the batch, or refuses it with the reason to stop.
    fn stage(
        &self,
        batch: &mut Batch,
        id: LogId,
        payload: EntryPayload<EntryBytes, u64, ()>,
        proposed_here: bool,
    ) -> Result<(), String> {
        // That none is missing is the log's to see; here, that none comes twice.
        if batch.state.applied.is_some_and(|last| id.index <= last.index) {
            return Err(format!("entry {} again, after {:?}", id.index, batch.state.applied));
        }
        match payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                batch.state.membership = StoredMembership::new(Some(id), membership);
            }
            EntryPayload::Normal(bytes) => {
                let entry = ShardEntry::decode(&bytes)
                    .map_err(|why| format!("entry {}: {why}", id.index))?;
                let how = if follows(&batch.state, &entry, term_of(&id)) {
                    let derived = batch.derive(self.wiring.group, &self.heads, &entry);
                    batch.accept(
                        entry.reign,
                        entry.seq,
                        entry.at,
                        derived.map_err(|why| {
                            format!(
                                "entry {} ({}.{}): {why}",
                                id.index, entry.reign.term, entry.seq
                            )
                        })?,
                    );
                    Proposed::Accepted { log_index: id.index }
                } else {
                    tracing::debug!(index = id.index, entry = %bytes, "entry skipped");
                    Proposed::Skipped { log_index: id.index }
                };
                if proposed_here {
                    batch.ended.push(Ended { reign: entry.reign, seq: entry.seq, how });
                }
            }
        }
        batch.state.applied = Some(id);
        Ok(())
    }

    /// Writes a batch once the log is durable to its end, then tells who waits.
    async fn write(&mut self, mut batch: Batch) -> io::Result<()> {
        if batch.state.applied == self.state.applied {
            return Ok(());
        }
        let last = batch.state.applied.map(|id| id.index);
        let durable = self.wiring.durable.wait_for(|durable| *durable >= last).await;
        if durable.is_err() {
            return Err(io::Error::other("the log is gone"));
        }
        drop(durable);
        batch.ops.push(batch.state.row(self.wiring.group));
        self.wiring.store.apply(batch.ops).map_err(io_error)?;
        self.state = batch.state;
        self.heads.extend(batch.heads);
        if self.heads.len() > MAX_HEADS {
            self.heads.clear();
        }
        self.show_applied();
        for ended in batch.ended {
            // Nobody listens when the shard loop is gone; then nobody waits either.
            let _ = self.wiring.events.send(ended);
        }
        batch.responders.into_iter().for_each(|responder| responder.send(()));
        Ok(())
    }

    fn batch(&self) -> Batch {
        Batch {
            view: self.wiring.store.view(),
            state: self.state.clone(),
            ops: Vec::new(),
            bytes: 0,
            heads: BTreeMap::new(),
            written: BTreeSet::new(),
            ended: Vec::new(),
            responders: Vec::new(),
        }
    }
}

/// The rule of reigns: same on every replica, because it looks at nothing but the log.
fn follows(state: &GroupState, entry: &ShardEntry, leader_term: u64) -> bool {
    let next = entry.reign == state.reign && entry.seq == state.next_seq;
    let first = entry.reign > state.reign && entry.seq == 0;
    entry.reign.term == leader_term && (next || first)
}

/// Rows that are not written yet, and what later entries must know of them.
struct Batch {
    view: Box<dyn View>,
    state: GroupState,
    ops: Vec<Op>,
    bytes: usize,
    /// Heads that this batch moves.
    heads: Heads,
    /// Journal and history rows that this batch puts.
    written: BTreeSet<Bytes>,
    ended: Vec<Ended>,
    responders: Vec<ApplyResponder<TypeConfig>>,
}

/// What one entry adds to a batch.
#[derive(Default)]
struct Derived {
    ops: Vec<Op>,
    heads: Heads,
    /// Journal and history rows that it puts.
    written: BTreeSet<Bytes>,
    /// Rows of this batch that it removes again.
    gone: BTreeSet<Bytes>,
}

impl Batch {
    fn derive(&self, group: GroupId, known: &Heads, entry: &ShardEntry) -> Result<Derived, String> {
        let mut out = Derived::default();
        for draft in &entry.drafts {
            for part in &draft.parts {
                self.derive_part(group, known, &draft.key, part, &mut out)
                    .map_err(|why| format!("{}/{:?}: {why}", draft.key.id, part.slot))?;
            }
            out.add_rows(group, &draft.rows)?;
        }
        out.add_rows(group, &entry.control)?;
        Ok(out)
    }

    fn derive_part(
        &self,
        group: GroupId,
        known: &Heads,
        execution: &ExecutionKey,
        part: &SlotPart,
        out: &mut Derived,
    ) -> Result<(), String> {
        let shard = rows::shard_of(group).ok_or("group 0 holds no executions")?;
        let slot = rows::slot_key(shard, execution, part.slot);
        let name = CheckpointKey { slot: slot.clone() }.encode();
        let here =
            out.heads.get(&name).or_else(|| self.heads.get(&name)).or_else(|| known.get(&name));
        let head = match here {
            Some(head) => *head,
            None => rows::head(self.view.as_ref(), &slot).map_err(|why| why.to_string())?,
        };
        if part.base != head {
            return Err(format!("changes on base {}, but the last change is {head}", part.base));
        }
        if part.drop {
            self.delete_rows(journal::range(&slot), out)?;
            if let Slot::Run(run) = part.slot {
                let run = RunKey { shard, execution: execution.clone(), run };
                self.delete_rows(history::range(&run), out)?;
            }
            out.ops.push(rows::delete_checkpoint(&slot));
            out.heads.insert(name, 0);
            return Ok(());
        }
        let (items, events) = rows::split_changes(&part.changes)?;
        if let Some((first, bodies)) = events {
            let Slot::Run(run) = part.slot else {
                return Err("events outside of a run".to_owned());
            };
            let run = RunKey { shard, execution: execution.clone(), run };
            let row = rows::history_row(run, first, bodies);
            out.written.insert(Bytes::copy_from_slice(op_key(&row)));
            out.ops.push(row);
        }
        let last = part.base + part.changes.len() as u64;
        if let Some(state) = &part.checkpoint {
            self.delete_rows(journal::range(&slot), out)?;
            out.ops.push(rows::checkpoint_row(&slot, last, state));
        } else if !items.is_empty() {
            let row = rows::journal_row(&slot, part.base, &items);
            out.written.insert(Bytes::copy_from_slice(op_key(&row)));
            out.ops.push(row);
        }
        out.heads.insert(name, last);
        Ok(())
    }

    /// Removes every row of a journal or a history, in the tables or still in this batch.
    fn delete_rows(&self, range: Range<Bytes>, out: &mut Derived) -> Result<(), String> {
        let mut keys: BTreeSet<Bytes> = self.written.range(range.clone()).cloned().collect();
        keys.extend(out.written.range(range.clone()).cloned());
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.insert(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        };
        self.view
            .scan(&range.start, &range.end, Direction::Forward, &mut visit)
            .map_err(|why| why.to_string())?;
        for key in keys {
            out.written.remove(&key);
            out.gone.insert(key.clone());
            out.ops.push(Op::Delete { key });
        }
        Ok(())
    }

    fn accept(&mut self, reign: Reign, seq: u64, at: Hlc, derived: Derived) {
        self.bytes += derived.ops.iter().map(op_len).sum::<usize>();
        self.ops.extend(derived.ops);
        self.heads.extend(derived.heads);
        self.written.retain(|key| !derived.gone.contains(key));
        self.written.extend(derived.written);
        self.state.reign = reign;
        self.state.next_seq = seq + 1;
        self.state.at = self.state.at.max(at);
    }
}

impl Derived {
    fn add_rows(&mut self, group: GroupId, ops: &[Op]) -> Result<(), String> {
        match ops.iter().find(|op| !rows::may_write(op_key(op), group)) {
            Some(op) => Err(format!("row {:?} is not this group's", op_key(op))),
            None => {
                self.ops.extend_from_slice(ops);
                Ok(())
            }
        }
    }
}

fn op_key(op: &Op) -> &[u8] {
    match op {
        Op::Put { key, .. } | Op::Delete { key } => key,
    }
}

fn op_len(op: &Op) -> usize {
    match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = ImageBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.state.applied, self.state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut batch = self.batch();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let (id, payload) = (entry.log_id(), entry.payload);
            if let Err(why) = self.stage(&mut batch, id, payload, responder.is_some()) {
                self.write(batch).await?;
                return Err(self.stop(why));
            }
            batch.responders.extend(responder);
            if batch.bytes >= BATCH_BYTES {
                self.write(batch).await?;
                batch = self.batch();
            }
        }
        self.write(batch).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<ImageBuilder> {
        let Wiring { group, store, .. } = &self.wiring;
        Some(ImageBuilder { group: *group, store: Arc::clone(store), flush: force })
    }

    async fn get_snapshot_builder(&mut self) -> ImageBuilder {
        let Wiring { group, store, .. } = &self.wiring;
        ImageBuilder { group: *group, store: Arc::clone(store), flush: false }
    }

    /// Replaces every row of the group in one batch, and flushes before it says so.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, image: Image) -> io::Result<()> {
        let Wiring { group, store, .. } = &self.wiring;
        let image = image.receive().map_err(io_error)?;
        let state = image.state(*group).map_err(io_error)?;
        if (state.applied, &state.membership) != (meta.last_log_id, &meta.last_membership) {
            return Err(corrupt(format!(
                "group {group}: the image is not what it was announced as"
            )));
        }
        let ops = image.install(*group, store.view().as_ref()).map_err(io_error)?;
        store.apply(ops).map_err(io_error)?;
        store.flush().map_err(io_error)?;
        self.state = state;
        self.heads.clear();
        self.show_applied();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Wiring { group, store, .. } = &self.wiring;
        let snapshot = virtual_snapshot(*group, store).map_err(io_error)?;
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}

type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Image>;

/// A snapshot costs nothing: it says how far the tables are durable and promises their rows.
fn virtual_snapshot(group: GroupId, store: &Arc<dyn Store>) -> Result<Snapshot, StorageError> {
    let state = GroupState::persisted(store.as_ref(), group)?;
    let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership };
    Ok(Snapshot { meta, snapshot: Image::local(group, Arc::clone(store)) })
}

/// Builds virtual snapshots.
pub struct ImageBuilder {
    group: GroupId,
    store: Arc<dyn Store>,
    /// Flush first: only when openraft must have a snapshot, at start.
    flush: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for ImageBuilder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        if self.flush {
            self.store.flush().map_err(io_error)?;
        }
        virtual_snapshot(self.group, &self.store).map_err(io_error)
    }
}
