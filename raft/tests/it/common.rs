//! A node, a cluster and a workload for the tests of this crate: deterministic, in memory.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses another part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_engine::ids::{ExecutionKey, Hlc, RunId, Slot, Uuid};
use holdfast_raft::entry::{EntryBytes, EntryDraft, Reign, ShardEntry, SlotPart, WireChange};
use holdfast_raft::group::Group;
use holdfast_raft::host::{Host, ManualClock, SeededRng};
use holdfast_raft::links::LoopLinks;
use holdfast_raft::machine::{Ended, Proposed};
use holdfast_raft::rows;
use holdfast_raft::rt::TaskGroup;
use holdfast_raft::types::NodeId;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use holdfast_storage::tables::checkpoint::{Checkpoint, CheckpointKey};
use holdfast_storage::tables::history::HistoryKey;
use holdfast_storage::tables::journal::{self, Item};
use holdfast_storage::tables::{self, Key, KeyWriter, RunKey, Table, history};
use holdfast_storage::{Direction, GroupId, Op, Store};
use tokio::sync::mpsc::UnboundedReceiver;

/// The group that the tests run: shard 0.
pub(crate) const GROUP: GroupId = 1;
const SHARD: u32 = 0;

/// Runs a test on one thread, with a clock that stands still and random numbers from `seed`.
pub(crate) fn run<T>(seed: u64, test: impl Future<Output = T>) -> T {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&bytes))
        .build()
        .expect("runtime")
        .block_on(test)
}

/// Lets everything run until nothing can, and a few milliseconds of virtual time pass: a paused
/// clock moves only when every task waits, and openraft waits for timers of up to one millisecond.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Lets virtual time pass.
pub(crate) async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// One node: its disk outlives it.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) tasks: Arc<TaskGroup>,
    pub(crate) group: Group,
    pub(crate) ended: UnboundedReceiver<Ended>,
}

/// What the clocks of nodes show, unless they are moved.
pub(crate) const NOW: Hlc = Hlc(1_700_000_000_000_000_000);

/// What a node is made of, apart from its disk.
pub(crate) fn host(
    id: NodeId,
    links: &LoopLinks,
    log: &Arc<MemoryLog>,
    store: &Arc<MemoryStore>,
) -> Host {
    Host {
        clock: Arc::new(ManualClock::new(NOW)),
        rng: Arc::new(SeededRng::new(id)),
        store: Arc::clone(store) as _,
        log: Arc::clone(log) as _,
        links: links.node(id),
    }
}

impl Node {
    /// Opens the group on a disk.
    pub(crate) async fn open(
        id: NodeId,
        members: &BTreeSet<NodeId>,
        links: &LoopLinks,
        log: Arc<MemoryLog>,
        store: Arc<MemoryStore>,
    ) -> Result<Node, String> {
        let tasks = TaskGroup::new();
        let clock = Arc::new(ManualClock::new(NOW));
        let host = Host { clock: clock.clone(), ..host(id, links, &log, &store) };
        let open = tasks.scope(Group::open(&host, GROUP, id, members)).await;
        let (group, ended) = open.map_err(|why| why.to_string())?;
        Ok(Node { id, log, store, clock, tasks, group, ended })
    }

    /// Ends the node where it stands; what is left is its disk, with the first `keep` unsynced
    /// writes of its log.
    pub(crate) fn crash(
        self,
        links: &LoopLinks,
        keep: usize,
    ) -> (Arc<MemoryLog>, Arc<MemoryStore>) {
        links.remove(self.id);
        self.tasks.kill();
        (Arc::new(self.log.crash(keep)), Arc::new(self.store.crash()))
    }

    /// How every proposal ended so far.
    pub(crate) fn drain(&mut self) -> Vec<Ended> {
        std::iter::from_fn(|| self.ended.try_recv().ok()).collect()
    }

    /// The term in which this node may decide.
    pub(crate) fn serving(&self) -> Option<u64> {
        *self.group.leadership().borrow()
    }

    /// The rows of the group.
    pub(crate) fn rows(&self) -> Vec<(Bytes, Bytes)> {
        dump(self.store.as_ref())
    }

    /// Proposes entry `n` of the workload.
    pub(crate) async fn propose(&self, term: u64, entry: &ShardEntry) {
        self.group.propose(term, entry.encode().expect("small")).await;
    }
}

/// Every row that a snapshot of the group would carry.
pub(crate) fn dump(store: &dyn Store) -> Vec<(Bytes, Bytes)> {
    let view = store.view();
    let mut all = Vec::new();
    for range in rows::ranges(GROUP) {
        view.scan(&range.start, &range.end, Direction::Forward, &mut |key, value| {
            all.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })
        .expect("readable");
    }
    all
}

/// A group of three.
pub(crate) struct Cluster {
    pub(crate) links: LoopLinks,
    pub(crate) members: BTreeSet<NodeId>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
}

impl Cluster {
    pub(crate) async fn of_three() -> Cluster {
        let links = LoopLinks::new();
        let members: BTreeSet<NodeId> = [1, 2, 3].into();
        let mut nodes = BTreeMap::new();
        // The first one initialises, so the others have to be there.
        for id in [3, 2, 1] {
            let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
            nodes.insert(id, Node::open(id, &members, &links, log, store).await.expect("opens"));
        }
        Cluster { links, members, nodes }
    }

    /// Waits until somebody may decide.
    pub(crate) async fn leader(&self) -> (NodeId, u64) {
        let waits = self.nodes.values().map(|node| {
            Box::pin(async move { (node.id, node.group.await_serving().await.expect("serves")) })
        });
        futures::future::select_all(waits).await.0
    }

    pub(crate) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("there")
    }

    pub(crate) fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.members.iter().copied().filter(|other| *other != id).collect()
    }

    /// Waits until every node has applied what the leader has, and compares all their rows.
    pub(crate) async fn agree(&self) -> Vec<(Bytes, Bytes)> {
        let marks = self.nodes.values().map(|node| node.group.applied().borrow().index);
        let last = marks.max().flatten();
        for node in self.nodes.values() {
            let mut applied = node.group.applied();
            applied.wait_for(|mark| mark.index >= last).await.expect("alive");
            assert_eq!(*node.group.stopped().borrow(), None, "node {}", node.id);
        }
        let mut all = self.nodes.values().map(Node::rows);
        let first = all.next().expect("a node");
        all.for_each(|rows| assert!(rows == first, "replicas differ"));
        first
    }
}

/// The execution that the workload writes to.
pub(crate) fn execution() -> ExecutionKey {
    ExecutionKey::workflow(Uuid([7; 16]), "order-1")
}

/// Its run.
pub(crate) const RUN: RunId = Uuid([9; 16]);

fn event(id: i64) -> WireChange {
    let mut body = vec![8];
    prost::encoding::encode_varint(id as u64, &mut body);
    WireChange { tag: WireChange::EVENT, body: body.into() }
}

/// Entry `n` (0, 1, ..) of the workload, on top of entries 0 .. n: a private change, two events,
/// a row; every fifth a checkpoint.
pub(crate) fn entry(reign: Reign, seq: u64, n: u64) -> ShardEntry {
    let private = WireChange { tag: 40, body: Bytes::copy_from_slice(&n.to_be_bytes()) };
    let first = 2 * n as i64 + 1;
    let state = Bytes::copy_from_slice(&(3 * n + 3).to_be_bytes());
    let part = SlotPart {
        slot: Slot::Run(RUN),
        base: 3 * n,
        changes: vec![event(first), private, event(first + 1)],
        checkpoint: (n % 5 == 4).then_some(state),
        drop: false,
    };
    let rows = vec![Op::Put { key: row_key(), value: Bytes::copy_from_slice(&n.to_be_bytes()) }];
    let mut entry = ShardEntry::new(reign, seq, Hlc(NOW.0 + n));
    entry.drafts.push(EntryDraft { key: execution(), parts: vec![part], rows });
    entry
}

/// What removes the history of the workload up to event `last`, and its row.
pub(crate) fn history_deletes(last: i64) -> Vec<Op> {
    let run = RunKey { shard: SHARD, execution: execution(), run: RUN };
    let batch = |first| tables::delete(&HistoryKey { run: run.clone(), first });
    let mut ops: Vec<Op> = (1..=last).step_by(2).map(batch).collect();
    ops.push(Op::Delete { key: row_key() });
    ops
}

fn row_key() -> Bytes {
    let mut key = KeyWriter::new(Table::Counter, SHARD);
    key.string("workload");
    key.finish()
}

/// How many entries of the workload the tables hold; panics unless they hold exactly what those
/// entries say.
pub(crate) fn verify(store: &dyn Store) -> u64 {
    let view = store.view();
    let slot = rows::slot_key(SHARD, &execution(), Slot::Run(RUN));
    let head = rows::head(view.as_ref(), &slot).expect("head");
    assert_eq!(head % 3, 0, "half an entry");
    let n = head / 3;
    let row = view.get(&row_key()).expect("row");
    let last = n.checked_sub(1).map(|last| Bytes::copy_from_slice(&last.to_be_bytes()));
    assert_eq!(row, last, "the row of the last entry");

    let run = RunKey { shard: SHARD, execution: execution(), run: RUN };
    let mut events = Vec::new();
    history::read(view.as_ref(), &run, 1, &mut |id, body| {
        assert_eq!(body, event(id).body);
        events.push(id);
        ControlFlow::Continue(())
    })
    .expect("no hole");
    assert_eq!(events, (1..=2 * n as i64).collect::<Vec<_>>());

    let row = view.get(&CheckpointKey { slot: slot.clone() }.encode()).expect("checkpoint");
    let mut fold = row.map_or(0, |row| Checkpoint::from_value(row).expect("decodes").seq);
    assert_eq!(fold, n / 5 * 15, "a checkpoint every fifth entry");
    let range = journal::range(&slot);
    view.scan(&range.start, &range.end, Direction::Forward, &mut |_, value| {
        let items = journal::from_value(Bytes::copy_from_slice(value)).expect("decodes");
        assert_eq!(items.len(), 3);
        let Item::Change { tag: 40, bytes } = &items[1] else { panic!("{items:?}") };
        assert_eq!(bytes[..], (fold / 3).to_be_bytes());
        fold += 3;
        ControlFlow::Continue(())
    })
    .expect("journal");
    assert_eq!(fold, head, "checkpoint and journal fold to the head");
    n
}

/// The log indexes of accepted entries, checked to be in order.
pub(crate) fn accepted(ended: &[Ended]) -> usize {
    let indexes: Vec<u64> = ended
        .iter()
        .filter_map(|end| match end.how {
            Proposed::Accepted { log_index } => Some(log_index),
            _ => None,
        })
        .collect();
    assert!(indexes.is_sorted_by(|a, b| a < b), "accepted in log order: {indexes:?}");
    indexes.len()
}

/// An entry as bytes.
pub(crate) fn bytes(entry: &ShardEntry) -> EntryBytes {
    entry.encode().expect("small")
}
