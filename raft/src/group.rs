//! One Raft group on this node: opened, led, proposed to, stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_storage::{GroupId, StorageError, Store};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::raft::ClientWriteResult;
use openraft::{ReadPolicy, ServerState};
use tokio::sync::{mpsc, watch};

use crate::clocks::{Clocks, Verdict};
use crate::config::{ELECTION_MAX_MS, raft_config};
use crate::entry::EntryBytes;
use crate::host::Host;
use crate::links::{GroupNet, GroupRaft, Links, Peer};
use crate::log_adapter::GroupLog;
use crate::machine::{AppliedMark, Ended, Machine, Proposed, Wiring};
use crate::rows::GroupState;
use crate::rt::Rt;
use crate::types::{NodeId, OnEnd, TypeConfig, log_id};

/// How long openraft may take to hear that the tables were flushed.
const PURGE_WAIT: Duration = Duration::from_secs(10);

/// Why a group can't do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    /// This replica has stopped: a bad entry, a failed disk, or a clean stop. It will not serve
    /// again in this process; other groups are not affected.
    #[error("group {group} has stopped on this node: {why}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// What stopped it.
        why: String,
    },
    /// The log of this node is damaged, or can't be read. Unlike a bad row that concerns every group:
    /// one file holds them all, and votes may be missing too (DESIGN 7).
    #[error("group {group} can't use this node's log: {why}")]
    Log {
        /// The group.
        group: GroupId,
        /// What is wrong with it.
        why: String,
    },
    /// This node does not lead the group now, or can't reach a quorum to be sure.
    #[error("group {0} is not led by this node")]
    NotLeader(GroupId),
    /// The settings are not valid.
    #[error("openraft refuses its configuration: {0}")]
    Config(String),
}

/// A group on this node. Clones are handles to the same group.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: GroupId,
    node: NodeId,
    sole: bool,
    raft: GroupRaft,
    clocks: Clocks,
    links: Arc<dyn Links>,
    store: Arc<dyn Store>,
    events: mpsc::UnboundedSender<Ended>,
    leadership: watch::Receiver<Option<u64>>,
    applied: watch::Receiver<AppliedMark>,
    stopped: watch::Receiver<Option<String>>,
}

impl Group {
    /// Opens a group, inside the task group of the node if it has one. The second part hears how
    /// each proposal of this node ended: exactly once each, accepted ones in log order. It holds
    /// no more than the proposals in flight, which the shard loop bounds.
    ///
    /// A pristine group is initialised by the first of its members. A sole voter is elected at
    /// once, and then nothing of it ticks.
    pub fn open<'a>(
        host: &'a Host,
        id: GroupId,
        node: NodeId,
        members: &'a BTreeSet<NodeId>,
    ) -> BoxFuture<'a, Result<(Group, mpsc::UnboundedReceiver<Ended>), GroupError>> {
        Box::pin(async move {
            Rt::seed(host.rng.next_u64());
            let (stop, stopped) = watch::channel(None);
            // What stops a replica while it applies says so; anything else comes from the log.
            let broken = |why: &dyn std::fmt::Display| match stopped.borrow().clone() {
                Some(why) => GroupError::Stopped { group: id, why },
                None => GroupError::Log { group: id, why: why.to_string() },
            };
            let log = open_log(host, id).map_err(|e| broken(&e))?;
            let fresh = host.log.state(id).map_err(|e| broken(&e))?.vote.is_none();
            let (events, ended) = mpsc::unbounded_channel();
            let (show, applied) = watch::channel(AppliedMark::default());
            let machine = Machine::open(Wiring {
                group: id,
                store: Arc::clone(&host.store),
                durable: log.durable(),
                events: events.clone(),
                applied: show,
                stopped: stop,
            })
            .map_err(|why| GroupError::Stopped { group: id, why: why.to_string() })?;
            let config = raft_config(id).map_err(|e| GroupError::Config(e.to_string()))?;
            let clocks = Clocks::new(Arc::clone(&host.clock));
            let net = GroupNet::new(id, Arc::clone(&host.links), clocks.clone());
            let raft =
                GroupRaft::new(node, config, net, log, machine).await.map_err(|e| broken(&e))?;

            let sole = members.len() == 1;
            let quiet =
                if fresh || sole { Duration::ZERO } else { Duration::from_millis(ELECTION_MAX_MS) };
            host.links.serve(id, Peer::new(raft.clone(), id, Arc::clone(&host.clock), quiet));
            keep_quiet(&raft, quiet);
            start(&raft, id, node, members).await?;
            let leadership = watch_leadership(&raft, node, applied.clone(), clocks.clone());
            let inner = Inner {
                id,
                node,
                sole,
                raft,
                clocks,
                links: Arc::clone(&host.links),
                store: Arc::clone(&host.store),
                events,
                leadership,
                applied,
                stopped,
            };
            Ok((Group { inner: Arc::new(inner) }, ended))
        })
    }

    /// Which group.
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Whether this node is all of the group.
    pub fn is_sole_voter(&self) -> bool {
        self.inner.sole
    }

    /// openraft's handle: membership, transfer, metrics.
    pub fn raft(&self) -> &GroupRaft {
        &self.inner.raft
    }

    /// The term in which this node leads **and may decide**: it has applied an entry of that term
    /// (A3). `None` at all other times, and for good once the group has stopped.
    pub fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.inner.leadership.clone()
    }

    /// Waits until this node may decide; gives the term.
    pub fn await_serving(&self) -> BoxFuture<'_, Result<u64, GroupError>> {
        Box::pin(async move {
            let mut leadership = self.leadership();
            match leadership.wait_for(Option::is_some).await {
                Ok(term) => term.ok_or(GroupError::NotLeader(self.inner.id)),
                Err(_) => Err(self.gone(&"it ended")),
            }
        })
    }

    /// Where the tables of this group stand here; moves also for entries of other leaders.
    pub fn applied(&self) -> watch::Receiver<AppliedMark> {
        self.inner.applied.clone()
    }

    /// Why this replica stopped, once it has because of what it was told to apply.
    pub fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.inner.stopped.clone()
    }

    /// Whether a majority of clocks agrees with this node's, as far as is known at this moment.
    pub(crate) fn clocks_agree(&self) -> bool {
        let metrics = self.inner.raft.server_metrics();
        let voters: Vec<NodeId> = metrics.borrow_watched().membership_config.voter_ids().collect();
        self.inner.clocks.verdict(self.inner.node, &voters) == Verdict::Leads
    }

    /// The state that the tables show: the reign to go beyond, when its last entry was decided.
    pub fn state(&self) -> Result<GroupState, StorageError> {
        GroupState::read(self.inner.store.view().as_ref(), self.inner.id)
    }

    /// Proposes an entry, decided in `term`; refused unless this node still leads in that term.
    /// Returns when it is queued; proposals of one task keep their order. How it ends is told on
    /// the receiver from [`Group::open`], whatever happens.
    pub fn propose(&self, term: u64, entry: EntryBytes) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mark = entry.mark().unwrap_or_default();
            let events = self.inner.events.clone();
            let end = OnEnd::new(move |result: Option<ClientWriteResult<TypeConfig>>| {
                let how = match result {
                    // Applied: the machine has said what became of it.
                    Some(Ok(_)) => return,
                    Some(Err(ClientWriteError::ForwardToLeader(_))) => Proposed::Refused,
                    Some(Err(_)) | None => Proposed::Unknown,
                };
                let _ = events.send(Ended { reign: mark.reign, seq: mark.seq, how });
            });
            let leader = log_id(term, 0).leader_id;
            // A group that has stopped drops the proposal, which answers it.
            let _ = self.inner.raft.write(entry).with_leader(leader).responder(end).await;
        })
    }

    /// Commits an entry without contents and waits until it is applied here: everything proposed
    /// before it has then been applied or never will be.
    pub fn barrier(&self) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            match self.inner.raft.write_blank().await {
                Ok(_) => Ok(()),
                Err(RaftError::Fatal(why)) => Err(self.gone(&why)),
                Err(RaftError::APIError(_)) => Err(GroupError::NotLeader(self.inner.id)),
            }
        })
    }

    /// Waits until a read of the tables sees everything acknowledged before this call.
    pub fn read_index(&self) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(_) => Ok(()),
                Err(RaftError::Fatal(why)) => Err(self.gone(&why)),
                Err(RaftError::APIError(_)) => Err(GroupError::NotLeader(self.inner.id)),
            }
        })
    }

    /// Lets go of the log up to where the tables are durable, except the last `keep` entries.
    /// Gives the index that is durable. Called by the flusher, after a flush.
    pub fn purge(&self, keep: u64) -> BoxFuture<'_, Result<Option<u64>, GroupError>> {
        Box::pin(async move {
            let state = GroupState::persisted(self.inner.store.as_ref(), self.inner.id);
            let Some(at) = state.map_err(|e| self.gone(&e))?.applied else { return Ok(None) };
            let raft = &self.inner.raft;
            let mut metrics = raft.data_metrics();
            if metrics.borrow_watched().snapshot < Some(at) {
                raft.trigger().snapshot().await.map_err(|e| self.gone(&e))?;
                let known = metrics.wait_until(|now| now.snapshot >= Some(at));
                match tokio::time::timeout(PURGE_WAIT, known).await {
                    Ok(known) => drop(known.map_err(|e| self.gone(&e))?),
                    Err(_) => {
                        tracing::warn!(group = self.inner.id, "openraft takes no note of a flush")
                    }
                }
            }
            if let Some(upto) = at.index.checked_sub(keep) {
                raft.trigger().purge_log(upto).await.map_err(|e| self.gone(&e))?;
            }
            Ok(Some(at.index))
        })
    }

    /// Stops the group. Proposals without an answer end as unknown.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.inner.links.forget(self.inner.id);
            if let Err(why) = self.inner.raft.shutdown().await {
                tracing::warn!(group = self.inner.id, %why, "the group did not stop cleanly");
            }
        })
    }

    fn gone(&self, why: &dyn std::fmt::Display) -> GroupError {
        let known = self.inner.stopped.borrow().clone();
        GroupError::Stopped { group: self.inner.id, why: known.unwrap_or_else(|| why.to_string()) }
    }
}

/// Lets a restarted voter stand for nothing while a lease that it has forgotten may last (A3).
fn keep_quiet(raft: &GroupRaft, quiet: Duration) {
    if quiet.is_zero() {
        return;
    }
    raft.runtime_config().elect(false);
    let raft = raft.clone();
    Rt::spawn_task(async move {
        tokio::time::sleep(quiet).await;
        raft.runtime_config().elect(true);
    });
}

fn open_log(host: &Host, id: GroupId) -> Result<GroupLog, StorageError> {
    let store = Arc::clone(&host.store);
    let floor = Arc::new(move || {
        let state = GroupState::persisted(store.as_ref(), id)?;
        Ok(state.applied.map(|at| at.index))
    });
    GroupLog::open(id, Arc::clone(&host.log), floor)
}

/// Initialises a pristine group on its first member; a sole voter takes office and stops ticking.
async fn start(
    raft: &GroupRaft,
    id: GroupId,
    node: NodeId,
    members: &BTreeSet<NodeId>,
) -> Result<(), GroupError> {
    let gone =
        |why: &dyn std::fmt::Display| GroupError::Stopped { group: id, why: why.to_string() };
    if members.len() == 1 {
        raft.runtime_config().tick(false);
    }
    if members.first() == Some(&node) {
        let all: BTreeMap<NodeId, ()> = members.iter().map(|member| (*member, ())).collect();
        match raft.initialize(all).await {
            // It was initialised in an earlier life.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(why) => return Err(gone(&why)),
        }
    }
    if members.len() == 1 {
        raft.trigger().elect(false).await.map_err(|e| gone(&e))?;
    }
    Ok(())
}

/// Follows openraft's view of who leads, what is applied, and what the clocks of the others say.
fn watch_leadership(
    raft: &GroupRaft,
    node: NodeId,
    mut applied: watch::Receiver<AppliedMark>,
    clocks: Clocks,
) -> watch::Receiver<Option<u64>> {
    let (show, leadership) = watch::channel(None);
    let (mut metrics, mut moved) = (raft.server_metrics(), clocks.moved());
    let mut standing = clocks.standing();
    let raft = raft.clone();
    let (mut given_away, mut warned) = (None, None);
    Rt::spawn_task(async move {
        loop {
            moved.mark_unchanged();
            standing.mark_unchanged();
            let (leads, verdict) = {
                let now = metrics.borrow_watched();
                let term = now.vote.leader_id.term;
                let voters: Vec<NodeId> = now.membership_config.voter_ids().collect();
                let verdict = clocks.verdict(node, &voters);
                ((now.state == ServerState::Leader).then_some(term), verdict)
            };
            let at = applied.borrow_and_update().term;
            // By then a majority has answered, and what it said of its clocks is known.
            let in_office = leads.filter(|term| at == *term);
            let serving = in_office.filter(|_| verdict == Verdict::Leads);
            show.send_if_modified(|shown| std::mem::replace(shown, serving) != serving);
            let idle = in_office.filter(|_| verdict != Verdict::Leads).map(|term| (term, verdict));
            if let Some((term, Verdict::Yields(to))) = idle
                && given_away != Some(term)
            {
                if give_way(&raft, to).await.is_err() {
                    break;
                }
                given_away = Some(term);
            } else if matches!(idle, Some((_, Verdict::Waits))) && idle != warned {
                tracing::warn!("too few clocks agree with this leader's: it decides nothing");
            }
            warned = idle;
            let waits = leads.is_some() && in_office.is_none();
            tokio::select! {
                biased;
                changed = metrics.changed() => if changed.is_err() { break },
                changed = applied.changed(), if waits => if changed.is_err() { break },
                changed = moved.changed(), if leads.is_some() => if changed.is_err() { break },
                // A clock that follows nothing never changes.
                Ok(()) = standing.changed(), if leads.is_some() => {}
                () = show.closed() => return,
            }
        }
        show.send_replace(None);
    });
    leadership
}

/// A group that has stopped.
struct Gone;

/// A leader whose clock is wrong, or may be, decides nothing; it hands the office to a node that is
/// known to be right.
async fn give_way(raft: &GroupRaft, to: NodeId) -> Result<(), Gone> {
    tracing::warn!(to, "this leader's clock is far from a majority's: it yields");
    // It sends no heartbeats from now on: should the message be lost, an election follows.
    raft.trigger().transfer_leader(to).await.map_err(|_| Gone)
}
