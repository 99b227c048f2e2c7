//! Messages between nodes. [`Links`] is the seam; [`LoopLinks`] connects the nodes of one process,
//! with switches to cut and delay. The wire between machines comes with the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_engine::ids::Hlc;
use holdfast_storage::GroupId;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, Raft};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clocks::Clocks;
use crate::host::Clock;
use crate::image::Image;
use crate::machine::Machine;
use crate::rows::GroupState;
use crate::rt::TaskGroup;
use crate::types::{NodeId, TypeConfig, Vote};

/// The openraft handle of a group.
pub type GroupRaft = Raft<TypeConfig, Machine>;

pub use holdfast_engine::workflow::own_time::CLOCK_BOUND;

/// What one node of a group says to another.
#[derive(Clone, Debug)]
pub enum Message {
    /// Entries, or none: a heartbeat; and what the leader's clock says.
    Append(AppendEntriesRequest<TypeConfig>, Hlc),
    /// A candidate asks.
    Vote(VoteRequest<TypeConfig>),
    /// Somebody asks whether it could win.
    PreVote(VoteRequest<TypeConfig>),
    /// The whole group, because the log it needs is gone. The rows carry how far they are.
    Snapshot(Vote, Image),
    /// Take over.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// What do your clocks say? It concerns the node and no group.
    Time,
}

/// The answer to a [`Message`] of the same name.
#[derive(Debug)]
pub enum Answer {
    /// To [`Message::Append`], and what the answering node's clock says.
    Append(AppendEntriesResponse<TypeConfig>, Hlc),
    /// To [`Message::Vote`] and [`Message::PreVote`].
    Vote(VoteResponse<TypeConfig>),
    /// To [`Message::Snapshot`].
    Snapshot(SnapshotResponse<TypeConfig>),
    /// To [`Message::TransferLeader`].
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// To [`Message::Time`].
    Time {
        /// The node's time.
        now: Hlc,
        /// What its wall clock shows, followed or not.
        wall: Hlc,
    },
}

/// Why there is no answer. The message may have been received all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} does not answer for group {group}: {why}")]
pub struct LinkError {
    /// The node asked.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// What is known.
    pub why: String,
}

/// The links of one node to all others.
pub trait Links: Send + Sync + 'static {
    /// Sends a message and waits for its answer. Messages of one pair may overtake each other.
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        message: Message,
    ) -> BoxFuture<'static, Result<Answer, LinkError>>;

    /// Receives messages of a group from now on.
    fn serve(&self, group: GroupId, peer: Peer);

    /// Receives no more messages of a group.
    fn forget(&self, group: GroupId);
}

/// The receiving side of a group on one node.
#[derive(Clone)]
pub struct Peer {
    raft: GroupRaft,
    group: GroupId,
    clock: Arc<dyn Clock>,
    /// Before this, votes go unanswered: this node may have promised a lease it forgot (A3).
    silent_until: Instant,
    tasks: Option<Arc<TaskGroup>>,
}

impl Peer {
    /// Receives for `raft`, in the caller's task group; says nothing to candidates for `silence`.
    pub fn new(raft: GroupRaft, group: GroupId, clock: Arc<dyn Clock>, silence: Duration) -> Peer {
        let silent_until = Instant::now() + silence;
        Peer { raft, group, clock, silent_until, tasks: TaskGroup::current() }
    }

    /// Handles a message, in the task group of the receiving node.
    pub async fn receive(self, message: Message) -> Result<Answer, String> {
        let (done, answer) = oneshot::channel();
        let tasks = self.tasks.clone();
        let handle = async move { drop(done.send(self.handle(message).await)) };
        match tasks {
            Some(tasks) => drop(tasks.spawn(handle)),
            None => drop(tokio::spawn(handle)),
        }
        answer.await.unwrap_or_else(|_| Err("it stopped".to_owned()))
    }

    async fn handle(self, message: Message) -> Result<Answer, String> {
        let raft = &self.raft;
        match message {
            Message::Time => Ok(Answer::Time { now: self.clock.now(), wall: self.clock.wall() }),
            Message::Append(request, leader) => {
                check_stamps(&request, leader, self.clock.now())?;
                let answer = raft.append_entries(request).await.map_err(|e| e.to_string())?;
                Ok(Answer::Append(answer, self.clock.now()))
            }
            Message::Vote(_) | Message::PreVote(_) if Instant::now() < self.silent_until => {
                Err("it started a moment ago and keeps out of elections".to_owned())
            }
            Message::Vote(request) => {
                raft.vote(request).await.map(Answer::Vote).map_err(|e| e.to_string())
            }
            Message::PreVote(request) => {
                raft.pre_vote(request).await.map(Answer::Vote).map_err(|e| e.to_string())
            }
            Message::Snapshot(vote, image) => install(raft, self.group, vote, image).await,
            Message::TransferLeader(request) => {
                let answer = raft.handle_transfer_leader(request).await;
                answer.map(Answer::TransferLeader).map_err(|e| e.to_string())
            }
        }
    }
}

/// Refuses entries of a leader whose clock is far ahead, so that a bad clock cannot commit. What is
/// committed already was accepted by a majority, and what such a clock stamped that has been set right
/// since is old: who refused either would lag behind until its own clock shows that time.
fn check_stamps(
    request: &AppendEntriesRequest<TypeConfig>,
    leader: Hlc,
    now: Hlc,
) -> Result<(), String> {
    let limit = now.after(CLOCK_BOUND);
    if leader <= limit {
        return Ok(());
    }
    let open = request.entries.iter().filter(|entry| Some(entry.log_id) > request.leader_commit);
    let early = open.into_iter().find_map(|entry| match &entry.payload {
        EntryPayload::Normal(bytes) => bytes.mark().map(|mark| mark.at).filter(|at| *at > limit),
        _ => None,
    });
    match early {
        Some(at) => {
            let ahead = at.since(now);
            tracing::warn!(?ahead, "refused an entry: its leader's clock, or this one, is wrong");
            Err(format!("an entry stamped {ahead:?} ahead of this clock"))
        }
        None => Ok(()),
    }
}

async fn install(
    raft: &GroupRaft,
    group: GroupId,
    vote: Vote,
    image: Image,
) -> Result<Answer, String> {
    let image = image.receive().map_err(|e| e.to_string())?;
    let GroupState { applied, membership, .. } = image.state(group).map_err(|e| e.to_string())?;
    let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
    let snapshot = Snapshot { meta, snapshot: image.into_image() };
    let answer = raft.install_full_snapshot(vote, snapshot).await;
    answer.map(Answer::Snapshot).map_err(|e| e.to_string())
}

type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Image>;

/// The sending side of a group on one node: what openraft asks for connections.
#[derive(Clone)]
pub struct GroupNet {
    group: GroupId,
    links: Arc<dyn Links>,
    clocks: Clocks,
}

impl GroupNet {
    /// Sends for `group` over `links`; what it hears of the peers' clocks goes into `clocks`.
    pub(crate) fn new(group: GroupId, links: Arc<dyn Links>, clocks: Clocks) -> GroupNet {
        GroupNet { group, links, clocks }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNet {
    type Network = GroupLink;

    async fn new_client(&mut self, target: NodeId, _: &()) -> GroupLink {
        let (links, clocks) = (Arc::clone(&self.links), self.clocks.clone());
        GroupLink { group: self.group, target, links, clocks }
    }
}

/// The way of one group to one node.
pub struct GroupLink {
    group: GroupId,
    target: NodeId,
    links: Arc<dyn Links>,
    clocks: Clocks,
}

impl GroupLink {
    async fn call(&self, message: Message) -> Result<Answer, Unreachable<TypeConfig>> {
        let answer = self.links.call(self.target, self.group, message).await;
        answer.map_err(|why| Unreachable::new(&why))
    }

    /// For an answer that does not belong to its question.
    fn strange(&self) -> Unreachable<TypeConfig> {
        let (node, group) = (self.target, self.group);
        let why = "the answer is of another kind".to_owned();
        Unreachable::new(&LinkError { node, group, why })
    }
}

impl RaftNetworkV2<TypeConfig> for GroupLink {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let asked = self.clocks.asked();
        match self.call(Message::Append(request, self.clocks.now())).await? {
            Answer::Append(answer, theirs) => {
                self.clocks.answered(self.target, asked, theirs);
                Ok(answer)
            }
            _ => Err(self.strange().into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Message::Vote(request)).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(self.strange().into()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Message::PreVote(request)).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(self.strange().into()),
        }
    }

    /// Reads the rows here and now: what is sent is newer than what openraft announced, and says
    /// itself how far it is. openraft tries again and again while a node is away, so the rows, which
    /// may be all of a shard, are read only for one that answers.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        if !self.clocks.answers(self.target) {
            let (node, group) = (self.target, self.group);
            let why = "it does not answer heartbeats, so no snapshot is read for it".to_owned();
            return Err(Unreachable::new(&LinkError { node, group, why }).into());
        }
        let image = snapshot.snapshot.receive().map_err(|why| Unreachable::new(&why))?;
        let call = self.call(Message::Snapshot(vote, image.into_image()));
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = call => answer?,
        };
        match answer {
            Answer::Snapshot(answer) => Ok(answer),
            _ => Err(self.strange().into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Message::TransferLeader(request)).await? {
            Answer::TransferLeader(answer) => Ok(answer),
            _ => Err(self.strange().into()),
        }
    }
}

/// The switchboard of the nodes of one process.
#[derive(Clone, Default)]
pub struct LoopLinks(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    peers: BTreeMap<(NodeId, GroupId), Peer>,
    /// Directions that lose everything.
    cut: BTreeSet<(NodeId, NodeId)>,
    delay: BTreeMap<(NodeId, NodeId), Duration>,
}

impl LoopLinks {
    /// Without nodes, cuts or delays.
    pub fn new() -> LoopLinks {
        LoopLinks::default()
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The links of one node.
    pub fn node(&self, node: NodeId) -> Arc<dyn Links> {
        Arc::new(LoopNode { node, links: self.clone() })
    }

    /// Loses whatever goes from one node to the other, answers included, until healed.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.board().cut.insert((from, to));
    }

    /// Cuts a node off from all of `others`, in both directions.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Removes every cut.
    pub fn heal(&self) {
        self.board().cut.clear();
    }

    /// Lets whatever goes from one node to the other take this long.
    pub fn delay(&self, from: NodeId, to: NodeId, by: Duration) {
        self.board().delay.insert((from, to), by);
    }

    /// Removes a node that was killed.
    pub fn remove(&self, node: NodeId) {
        self.board().peers.retain(|(at, _), _| *at != node);
    }

    /// Waits as long as the way takes; whether something gets through.
    async fn travel(&self, from: NodeId, to: NodeId) -> bool {
        let delay = self.board().delay.get(&(from, to)).copied();
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        !self.board().cut.contains(&(from, to))
    }

    async fn call(
        self,
        from: NodeId,
        to: NodeId,
        group: GroupId,
        message: Message,
    ) -> Result<Answer, LinkError> {
        let lost = |why: &str| LinkError { node: to, group, why: why.to_owned() };
        if !self.travel(from, to).await {
            return Err(lost("cut"));
        }
        let peer = self.board().peers.get(&(to, group)).cloned();
        let answer = peer.ok_or_else(|| lost("not there"))?.receive(message).await;
        if !self.travel(to, from).await {
            return Err(lost("the answer was cut off"));
        }
        answer.map_err(|why| lost(&why))
    }
}

/// One node's end of the switchboard.
struct LoopNode {
    node: NodeId,
    links: LoopLinks,
}

impl Links for LoopNode {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        message: Message,
    ) -> BoxFuture<'static, Result<Answer, LinkError>> {
        Box::pin(self.links.clone().call(self.node, to, group, message))
    }

    fn serve(&self, group: GroupId, peer: Peer) {
        self.links.board().peers.insert((self.node, group), peer);
    }

    fn forget(&self, group: GroupId) {
        self.links.board().peers.remove(&(self.node, group));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_storage::memory::MemoryStore;

    use super::*;
    use crate::host::ManualClock;

    #[tokio::test]
    async fn rows_are_read_only_for_a_node_that_answers() {
        let links = LoopLinks::default();
        let clocks = Clocks::new(Arc::new(ManualClock::new(Hlc(1_000_000_000))));
        let mut net = GroupNet::new(7, links.node(1), clocks.clone());
        let mut link = net.new_client(2, &()).await;
        let mut send = async || {
            let image = Image::local(7, Arc::new(MemoryStore::default()));
            let snapshot = Snapshot { meta: SnapshotMeta::default(), snapshot: image };
            let never = std::future::pending();
            let option = RPCOption::new(Duration::from_secs(1));
            let sent = link.full_snapshot(Vote::new(1, 1), snapshot, never, option).await;
            sent.expect_err("nobody is there").to_string()
        };
        let silent = send().await;
        assert!(silent.contains("no snapshot is read"), "{silent}");
        clocks.answered(2, clocks.asked(), clocks.now());
        let sent = send().await;
        assert!(!sent.contains("no snapshot is read"), "{sent}");
    }
}
