//! openraft's own storage suite over our adapters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{GROUP, bytes, entry, run, verify};
use holdfast_raft::entry::Reign;
use holdfast_raft::flusher::{FlushPlan, Flusher};
use holdfast_raft::group::Group;
use holdfast_raft::host::{Host, OsRng, system_clock};
use holdfast_raft::links::LoopLinks;
use holdfast_raft::log_adapter::{GroupLog, PurgeFloor};
use holdfast_raft::machine::{AppliedMark, Machine, Proposed, Wiring};
use holdfast_raft::types::{Entry, TypeConfig, log_id};
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use holdfast_storage::rocks::{Format, Opened, Settings};
use holdfast_storage::{Log, StorageError, Store};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::{mpsc, watch};

/// Builds an empty log and machine. The suite applies entries that no log holds and purges what
/// no table holds, so the two guards that tie them together stand open.
struct Build<F>(F);

impl<G, F> StoreBuilder<TypeConfig, GroupLog, Machine, G> for Build<F>
where
    G: Send + Sync,
    F: Fn() -> (G, Arc<dyn Log>, Arc<dyn Store>) + Send + Sync,
{
    async fn build(&self) -> Result<(G, GroupLog, Machine), openraft::StorageError<TypeConfig>> {
        let (guard, log, store) = (self.0)();
        let (log, machine) = adapters(log, store).expect("opens");
        Ok((guard, log, machine))
    }
}

fn adapters(log: Arc<dyn Log>, store: Arc<dyn Store>) -> Result<(GroupLog, Machine), StorageError> {
    let open: PurgeFloor = Arc::new(|| Ok(Some(u64::MAX)));
    let machine = Machine::open(Wiring {
        group: GROUP,
        store,
        durable: watch::channel(Some(u64::MAX)).1,
        events: mpsc::unbounded_channel().0,
        applied: watch::channel(AppliedMark::default()).0,
        stopped: watch::channel(None).0,
    })?;
    Ok((GroupLog::open(GROUP, log, open)?, machine))
}

#[test]
fn memory() {
    run(60, async {
        let build = || {
            let log = Arc::new(MemoryLog::new()) as Arc<dyn Log>;
            ((), log, Arc::new(MemoryStore::new()) as Arc<dyn Store>)
        };
        Suite::test_all(Build(build)).await.expect("passes");
    });
}

#[test]
fn a_purge_beyond_the_tables_is_refused() {
    run(61, async {
        let floor = Arc::new(AtomicU64::new(0));
        let at = Arc::clone(&floor);
        let tables: PurgeFloor = Arc::new(move || Ok(at.load(Ordering::Relaxed).checked_sub(1)));
        let log = Arc::new(MemoryLog::new()) as Arc<dyn Log>;
        let mut group = GroupLog::open(GROUP, Arc::clone(&log), tables).expect("opens");
        let entries = (0..10).map(|index| Entry::new_blank(log_id(1, index)));
        group.append(entries, IOFlushed::noop()).await.expect("appends");
        for (durable, upto, good) in [(0, 0, false), (1, 0, true), (5, 4, true), (5, 5, false)] {
            floor.store(durable, Ordering::Relaxed);
            assert_eq!(group.purge(log_id(1, upto)).await.is_ok(), good, "{durable} {upto}");
        }
        assert_eq!(log.state(GROUP).expect("reads").purged, Some((1, 4)));
    });
}

/// An empty data folder; it goes when the guard is dropped.
fn folder() -> (tempfile::TempDir, Opened) {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = Opened::open(dir.path(), &settings()).expect("opens");
    (dir, opened)
}

fn settings() -> Settings {
    Settings {
        format: Format { shards: 1, node: 1 },
        exact: true,
        log: Default::default(),
        tables: Default::default(),
        on_fatal: Arc::new(|why| panic!("{why}")),
    }
}

fn real_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

#[test]
fn rocksdb() {
    real_time().block_on(async {
        let build = || {
            let (dir, opened) = folder();
            (dir, opened.log as Arc<dyn Log>, opened.store as Arc<dyn Store>)
        };
        Suite::test_all(Build(build)).await.expect("passes");
    });
}

#[test]
fn a_group_on_rocksdb_lives_through_restarts() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut written = 0;
    for life in 0..4u64 {
        let opened = Opened::open(dir.path(), &settings()).expect("opens");
        let (log, store) = (opened.log as Arc<dyn Log>, opened.store as Arc<dyn Store>);
        let runtime = real_time();
        runtime.block_on(async {
            let host = Host {
                clock: Arc::new(system_clock()),
                rng: Arc::new(OsRng),
                store: Arc::clone(&store),
                log: Arc::clone(&log),
                links: LoopLinks::new().node(1),
            };
            let (group, mut ended) =
                Group::open(&host, GROUP, 1, &[1].into()).await.expect("opens");
            let term = group.await_serving().await.expect("serves");
            assert_eq!(verify(store.as_ref()), written, "what was acknowledged");
            for n in 0..40 {
                let reign = Reign { term, counter: 1 };
                group.propose(term, bytes(&entry(reign, n, written + n))).await;
            }
            for _ in 0..40 {
                let end = ended.recv().await.expect("an end");
                assert!(matches!(end.how, Proposed::Accepted { .. }), "{end:?}");
            }
            written += 40;
            group.stop().await;
            if life % 2 == 0 {
                let plan = FlushPlan::default();
                let flusher = Flusher::start(Arc::clone(&store), vec![group], plan, drop);
                flusher.stop().await.expect("flushes");
            }
            // The other lives end without a flush: the log has to bring it back.
        });
        drop(runtime);
    }
}
