//! Power lost at every step of a run (`design-reasons.md` E5): whatever the log and the tables
//! kept, each on its own, the node starts, holds what it acknowledged, and goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::*;
use holdfast_raft::entry::Reign;
use holdfast_raft::links::LoopLinks;
use holdfast_raft::machine::Proposed;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use holdfast_storage::{Log, Store};

/// Entries that one life of the node proposes.
const ENTRIES: u64 = 12;

/// One voter, every write of its log held back until the script lets it through.
struct Life {
    links: LoopLinks,
    members: BTreeSet<u64>,
    log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    node: Option<Node>,
    acknowledged: u64,
    /// The step at which the power goes, counted down.
    left: usize,
}

struct PowerLost;

impl Life {
    fn new(steps: usize) -> Life {
        Life {
            links: LoopLinks::new(),
            members: [1].into(),
            log: Arc::new(MemoryLog::gated()),
            store: Arc::new(MemoryStore::new()),
            node: None,
            acknowledged: 0,
            left: steps,
        }
    }

    /// Something reached a disk, or is about to: the power may go here.
    async fn step(&mut self) -> Result<(), PowerLost> {
        settle().await;
        if let Some(node) = &mut self.node {
            self.acknowledged += accepted(&node.drain()) as u64;
        }
        self.left = self.left.checked_sub(1).ok_or(PowerLost)?;
        Ok(())
    }

    async fn open(&mut self) -> Result<(), PowerLost> {
        let (log, store) = (Arc::clone(&self.log), Arc::clone(&self.store));
        let (members, links) = (self.members.clone(), self.links.clone());
        let open = tokio::spawn(async move { Node::open(1, &members, &links, log, store).await });
        while !open.is_finished() {
            self.step().await?;
            self.log.release(1);
            settle().await;
        }
        self.node = Some(open.await.expect("no panic").expect("opens"));
        Ok(())
    }

    async fn serving(&mut self) -> Result<u64, PowerLost> {
        loop {
            if let Some(term) = self.node.as_ref().and_then(Node::serving) {
                return Ok(term);
            }
            self.step().await?;
            self.log.release(1);
            settle().await;
        }
    }

    /// Proposes, syncs some, flushes some, purges some.
    async fn work(&mut self) -> Result<(), PowerLost> {
        self.open().await?;
        let term = self.serving().await?;
        let reign = Reign { term, counter: 1 };
        for n in 0..ENTRIES {
            let node = self.node.as_ref().expect("open");
            node.propose(term, &entry(reign, n, n)).await;
            self.step().await?;
            if n % 3 == 2 {
                self.log.release(2);
                self.step().await?;
            }
            if n % 4 == 3 {
                self.store.flush().expect("flushes");
                self.step().await?;
                let group = self.node.as_ref().expect("open").group.clone();
                group.purge(0).await.expect("purges");
                self.step().await?;
            }
        }
        self.log.release_all();
        self.step().await
    }

    /// The node after the crash.
    async fn revive(mut self, keep: usize) -> Node {
        let (log, store) = match self.node.take() {
            Some(node) => node.crash(&self.links, keep),
            None => (Arc::new(self.log.crash(keep)), Arc::new(self.store.crash())),
        };
        let links = LoopLinks::new();
        Node::open(1, &self.members, &links, log, store).await.expect("starts after a crash")
    }
}

#[test]
fn every_step_of_a_sole_voter() {
    let mut runs = 0;
    let mut steps = 0;
    loop {
        let mut pending = 0;
        let mut done = false;
        let mut keep = 0;
        while keep <= pending {
            run(11, async {
                let mut life = Life::new(steps);
                done = life.work().await.is_ok();
                pending = life.log.pending();
                let acknowledged = life.acknowledged;
                let mut node = life.revive(keep).await;
                let term = node.group.await_serving().await.expect("serves again");
                let found = verify(node.store.as_ref());
                assert!(found >= acknowledged, "step {steps}.{keep}: {found} < {acknowledged}");
                assert!(found <= ENTRIES);
                node.propose(term, &entry(Reign { term, counter: 1 }, 0, found)).await;
                let end = node.ended.recv().await.expect("an end");
                assert!(matches!(end.how, Proposed::Accepted { .. }), "step {steps}.{keep}");
                assert_eq!(verify(node.store.as_ref()), found + 1);
            });
            runs += 1;
            keep += 1;
        }
        if done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20 && runs > 60, "{steps} steps, {runs} runs");
}

/// The tables of a follower are flushed while its log lags behind what the others committed.
#[test]
fn a_follower_that_loses_its_unsynced_log_starts_and_catches_up() {
    for lost_at in 0..12 {
        run(20 + lost_at, async {
            let mut cluster = Cluster::of_three().await;
            let (leader, term) = cluster.leader().await;
            cluster.agree().await;
            let slow = cluster.others(leader)[1];
            cluster.node(slow).log.set_gated(true);
            let reign = Reign { term, counter: 1 };
            for n in 0..12 {
                cluster.node(leader).propose(term, &entry(reign, n, n)).await;
                settle().await;
                if n % 2 == 0 {
                    cluster.node(slow).log.release(1);
                    settle().await;
                }
                cluster.node(slow).store.flush().expect("flushes");
                if n == lost_at {
                    let links = cluster.links.clone();
                    let node = cluster.nodes.remove(&slow).expect("there");
                    let (log, store) = node.crash(&links, 0);
                    let node = Node::open(slow, &cluster.members, &links, log, store).await;
                    cluster.nodes.insert(slow, node.expect("starts after a crash"));
                }
            }
            pass(500).await;
            assert_eq!(accepted(&cluster.node(leader).drain()), 12);
            cluster.node(slow).log.set_gated(false);
            cluster.agree().await;
            assert_eq!(verify(cluster.node(slow).store.as_ref()), 12);
        });
    }
}

#[test]
fn the_log_is_not_purged_beyond_what_is_flushed() {
    run(40, async {
        let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
        let links = LoopLinks::new();
        let node = Node::open(1, &[1].into(), &links, Arc::clone(&log), Arc::clone(&store)).await;
        let mut node = node.expect("opens");
        let term = node.group.await_serving().await.expect("serves");
        let reign = Reign { term, counter: 1 };
        for n in 0..10 {
            if n == 5 {
                store.flush().expect("flushes");
            }
            node.propose(term, &entry(reign, n, n)).await;
            node.ended.recv().await.expect("an end");
        }
        let durable = node.group.purge(0).await.expect("purges").expect("something");
        settle().await;
        let state = log.state(GROUP).expect("reads");
        assert_eq!(state.purged.map(|(_, index)| index), Some(durable));
        assert_eq!(state.last.map(|(_, index)| index), Some(durable + 5));
        // openraft asked to go on regardless, as a bug of ours or its would.
        node.group.raft().trigger().snapshot().await.expect("asked");
        node.group.raft().trigger().purge_log(durable + 5).await.expect("asked");
        settle().await;
        assert_eq!(log.state(GROUP).expect("reads").purged.map(|(_, index)| index), Some(durable));
        node.group.barrier().await.expect("openraft knew that it must not, so nothing was refused");
        let (log, store) = node.crash(&links, 0);
        let node = Node::open(1, &[1].into(), &links, log, store).await.expect("opens");
        node.group.await_serving().await.expect("serves");
        assert_eq!(verify(node.store.as_ref()), 10, "replayed");
    });
}
