//! One process: its groups, shards and hubs, started and stopped in order, and the calls that the
//! doors make on it.
//!
//! What may be awaited from outside is a boxed future, here and in [`crate::group`]: its code is then
//! made in this crate, once, and not again in every binary that awaits it.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_engine::ids::{ExecutionKey, Hlc, NamespaceId, RunId, Uuid};
use holdfast_engine::input::{HistoryOf, HistoryView, Poller};
use holdfast_engine::live::TaskType;
use holdfast_engine::matching::hub::STICKY_GONE_AFTER;
use holdfast_engine::matching::{HubKey, MatchingLimits, Rate};
use holdfast_engine::namespace::{self, Command, NamespaceView, Outcome, Registry};
use holdfast_engine::{Input, Limits, Reply};
use holdfast_proto::enums::TaskQueueKind;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::taskqueue::PollerInfo;
use holdfast_storage::tables::RunKey;
use holdfast_storage::{GroupId, StorageError, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::census::Census;
use crate::events::{self, EventRange};
use crate::flusher::{FlushPlan, Flusher};
use crate::group::{Group, GroupError};
use crate::host::Host;
use crate::hubs::{Handed, Hubs, PollId, ring};
use crate::meta::{self, MetaHandle};
use crate::reaper;
use crate::registry::{META_GROUP, RegistryWatch};
use crate::rt::Rt;
use crate::seal::{Purpose, Sealer};
use crate::shard::{
    Answer, HistoryWait, Inbox, Leading, ReplyTo, ShardConfig, ShardStatus, SubmitError, Work, run,
};
use crate::steps;
use crate::types::NodeId;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node.
    pub node_id: NodeId,
    /// All voters of every group. One node alone is a cluster of one.
    pub members: BTreeSet<NodeId>,
    /// Number of shards, fixed at creation.
    pub shards: u32,
    /// Temporal's limits.
    pub limits: Limits,
    /// Batching and caching of each shard; `cache_bytes` is divided among them.
    pub shard: ShardConfig,
    /// Polls.
    pub polls: MatchingLimits,
    /// Flushing.
    pub flush: FlushPlan,
}

impl NodeConfig {
    /// One node alone with `shards` shards and every default.
    pub fn sole(shards: u32) -> NodeConfig {
        NodeConfig {
            node_id: 1,
            members: BTreeSet::from([1]),
            shards,
            limits: Limits::default(),
            shard: ShardConfig::default(),
            polls: MatchingLimits::default(),
            flush: FlushPlan::default(),
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A group does not open.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The tables can't be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The number of shards is not between 1 and 64.
    #[error("{0} shards: a node has 1 to 64")]
    Shards(u32),
}

/// A poll of a task queue.
#[derive(Clone, Debug)]
pub struct Poll {
    /// The namespace.
    pub namespace: Arc<NamespaceView>,
    /// The queue that is polled, a sticky one included.
    pub queue: String,
    /// Its kind.
    pub kind: TaskQueueKind,
    /// The type of task.
    pub task: TaskType,
    /// The worker.
    pub identity: String,
    /// Its build, if it tells.
    pub build_id: String,
    /// How fast the tasks of the queue are to be handed out from now on, to all its pollers.
    pub rate: Option<Rate>,
    /// When to give up.
    pub until: Instant,
}

/// A running node. Clones are handles to the same node.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

/// A handle that does not keep the node.
pub(crate) struct WeakNode(Weak<Inner>);

impl WeakNode {
    /// The node, while somebody else holds it.
    pub(crate) fn upgrade(&self) -> Option<Node> {
        self.0.upgrade().map(Node)
    }
}

struct Inner {
    host: Host,
    shards: u32,
    meta_group: Group,
    /// By shard; `None` where the replica on this node does not open.
    groups: Vec<Option<Group>>,
    inboxes: Vec<Arc<Inbox>>,
    serving: Vec<watch::Receiver<ShardStatus>>,
    hubs: Arc<Hubs>,
    registry: RegistryWatch,
    meta: MetaHandle,
    limits: Arc<Limits>,
    sealer: Sealer,
    stop: watch::Sender<bool>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    flusher: std::sync::Mutex<Option<Flusher>>,
}

const STOPPING: SubmitError = SubmitError::Unavailable("server is stopping");

/// How long a clean stop waits for a quorum, which may have gone first.
const WIND_DOWN: Duration = Duration::from_secs(5);

impl Node {
    /// Opens every group and returns when this node serves, or follows, all of them.
    pub fn start(host: Host, config: NodeConfig) -> BoxFuture<'static, Result<Node, StartError>> {
        Box::pin(async move {
            if !(1..=64).contains(&config.shards) {
                return Err(StartError::Shards(config.shards));
            }
            let (stop, stopped) = watch::channel(false);
            let (meta_group, ended) = open(&host, META_GROUP, &config).await?;
            let opened = open_shards(&host, &config).await?;
            let (meta, registry, task) =
                meta::start(&host, meta_group.clone(), Some(ended), stopped.clone())?;
            let members = config.members.clone();
            let watch = steps::watch(host.clone(), config.node_id, members, stopped.clone());
            let mut tasks = vec![task, Rt::spawn_task(watch)];

            let shard_config = ShardConfig {
                cache_bytes: config.shard.cache_bytes / config.shards as usize,
                ..config.shard.clone()
            };
            let inbox = |_| Arc::new(Inbox::new(shard_config.admission.clone()));
            let inboxes: Vec<_> = (0..config.shards).map(inbox).collect();
            let hubs = hubs(&host, &registry, config.polls, inboxes.clone());
            tasks.push(Rt::spawn_task(ring(hubs.clone(), stopped.clone())));
            let limits = Arc::new(config.limits);
            let (mut serving, mut groups) = (Vec::new(), Vec::new());
            for (shard, opened) in (0..).zip(opened) {
                let (show, shown) = watch::channel(ShardStatus::Waiting);
                serving.push(shown);
                groups.push(opened.as_ref().map(|(group, _)| group.clone()));
                let Some((group, ended)) = opened else {
                    show.send_replace(ShardStatus::Stopped);
                    continue;
                };
                let leading = Leading {
                    shard,
                    group,
                    host: host.clone(),
                    limits: limits.clone(),
                    config: shard_config.clone(),
                    hubs: hubs.clone(),
                    registry: registry.clone(),
                    inbox: inboxes[shard as usize].clone(),
                    serving: show,
                    reigns: 1,
                };
                tasks.push(Rt::spawn_task(run(leading, ended, stopped.clone())));
            }
            let all = [&meta_group].into_iter().chain(groups.iter().flatten()).cloned().collect();
            let flusher = Flusher::start(host.store.clone(), all, config.flush, end_the_process);
            let sealer = Sealer::new(&meta::token_secret(&host, &registry, &meta).await?);
            let (leadership, names) = (meta_group.leadership(), registry.clone());
            let node = Node(Arc::new(Inner {
                host,
                shards: config.shards,
                meta_group,
                groups,
                inboxes,
                serving,
                hubs,
                registry,
                meta,
                limits,
                sealer,
                stop,
                tasks: std::sync::Mutex::new(tasks),
                flusher: std::sync::Mutex::new(Some(flusher)),
            }));
            let weak = WeakNode(Arc::downgrade(&node.0));
            let reaper = Rt::spawn_task(reaper::run(weak, names, leadership, stopped));
            lock(&node.0.tasks).push(reaper);
            Ok(node)
        })
    }

    /// Waits until this node serves every shard that has not stopped here; a sole voter's start is
    /// complete then. An error when none is left.
    pub fn serving(&self) -> BoxFuture<'_, Result<(), SubmitError>> {
        Box::pin(async move {
            let mut some = false;
            for serving in &self.0.serving {
                let mut serving = serving.clone();
                let status = serving.wait_for(|now| *now != ShardStatus::Waiting).await;
                some |= status.is_ok_and(|status| *status == ShardStatus::Serving);
            }
            if some { Ok(()) } else { Err(SubmitError::Unavailable("every shard has stopped")) }
        })
    }

    /// Stops cleanly: polls end empty, grants become durable and what is on its way is answered if
    /// a quorum is there, tables are flushed, groups end.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.0.stop.send(true);
            let tasks = std::mem::take(&mut *lock(&self.0.tasks));
            let until = Instant::now() + WIND_DOWN;
            for mut task in tasks {
                if tokio::time::timeout_at(until, &mut task).await.is_err() {
                    tracing::warn!(
                        "a group did not wind down in time: what it was about to do is void"
                    );
                    task.abort();
                }
            }
            let flusher = lock(&self.0.flusher).take();
            if let Some(flusher) = flusher
                && let Err(why) = flusher.stop().await
            {
                tracing::error!(%why, "the last flush failed; the log has everything");
            }
            for group in self.0.groups.iter().flatten().chain([&self.0.meta_group]) {
                group.stop().await;
            }
        })
    }

    /// This node's time.
    pub fn now(&self) -> Hlc {
        self.0.host.clock.now()
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.0.host.rng.next_u64()
    }

    /// Temporal's limits, as configured.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// This node's copy of group 0.
    pub fn registry(&self) -> Arc<Registry> {
        self.0.registry.current()
    }

    /// Returns when this node's copy of group 0 shows everything acknowledged before this call.
    pub fn catch_up(&self) -> BoxFuture<'_, Result<(), SubmitError>> {
        Box::pin(async move { self.0.meta.catch_up().await })
    }

    /// A namespace by name. A miss is confirmed by one read index of group 0 before it is an
    /// answer (A23).
    pub fn namespace<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<NamespaceView>, SubmitError>> {
        Box::pin(async move {
            if let Some(found) = self.registry().view_by_name(name) {
                return Ok(found);
            }
            self.0.meta.catch_up().await?;
            self.registry().view_by_name(name).ok_or_else(|| namespace::not_found(name).into())
        })
    }

    /// A namespace by id, as [`Node::namespace`].
    pub fn namespace_by_id(
        &self,
        id: NamespaceId,
    ) -> BoxFuture<'_, Result<Arc<NamespaceView>, SubmitError>> {
        Box::pin(async move {
            if let Some(found) = self.registry().view(id) {
                return Ok(found);
            }
            self.0.meta.catch_up().await?;
            self.registry().view(id).ok_or_else(|| namespace::not_found(&id.to_string()).into())
        })
    }

    /// The view of a namespace for what is left of it, deleted or forgotten.
    pub(crate) fn namespace_left(&self, id: &NamespaceId) -> Arc<NamespaceView> {
        self.0.registry.view(id)
    }

    /// Changes group 0.
    pub fn command(&self, command: Command) -> BoxFuture<'_, Result<Outcome, SubmitError>> {
        Box::pin(async move { self.0.meta.command(command).await })
    }

    fn inbox(&self, key: &ExecutionKey) -> &Inbox {
        // One node leads every shard as long as there is one node; the wire between nodes and the
        // hop to another leader come with the cluster.
        &self.0.inboxes[key.shard(self.0.shards) as usize]
    }

    async fn ask(
        &self,
        key: ExecutionKey,
        namespace: Arc<NamespaceView>,
        input: Input,
        wait: HistoryWait,
        bytes: usize,
    ) -> Result<Answer, SubmitError> {
        let (sender, answer) = oneshot::channel();
        let inbox = self.inbox(&key);
        let to = ReplyTo::Caller(sender, wait);
        inbox.submit(Work { key, input, namespace, to }, bytes)?;
        answer.await.map_err(|_| STOPPING)?
    }

    /// Has an input decided, agreed on and applied, and gives the answer. `bytes` is the size of
    /// the request, for the limits of the inbox.
    pub fn submit<'a>(
        &'a self,
        namespace: Arc<NamespaceView>,
        workflow_id: &'a str,
        input: Input,
        bytes: usize,
    ) -> BoxFuture<'a, Result<Reply, SubmitError>> {
        Box::pin(async move {
            let key = ExecutionKey::workflow(namespace.id, workflow_id);
            Ok(self.ask(key, namespace, input, HistoryWait::None, bytes).await?.reply)
        })
    }

    /// What a history reader may read, after waiting for `wait` until `until` at the latest.
    pub fn history<'a>(
        &'a self,
        namespace: Arc<NamespaceView>,
        workflow_id: &'a str,
        run: Option<RunId>,
        of: HistoryOf,
        wait: HistoryWait,
        until: Instant,
    ) -> BoxFuture<'a, Result<HistoryView, SubmitError>> {
        Box::pin(async move {
            let key = ExecutionKey::workflow(namespace.id, workflow_id);
            let mut run = run;
            loop {
                let over = Instant::now() >= until;
                let wait = if over { HistoryWait::None } else { wait };
                let input = Input::History { run, of };
                let answer = self.ask(key.clone(), namespace.clone(), input, wait, 0).await?;
                let Reply::History(view) = answer.reply else {
                    return Err(SubmitError::Unavailable("a history read got another answer"));
                };
                let Some(parked) = answer.parked else { return Ok(*view) };
                // The run that was current at first stays the one that is waited for.
                run = Some(view.run);
                // Woken or out of time: look again. Let go by a leader that is none any more: what was
                // there is the answer, and the reader asks again.
                if let Ok(Err(_)) = tokio::time::timeout_at(until, parked).await {
                    return Ok(*view);
                }
            }
        })
    }

    /// Waits for a task. `None` when there was none until `poll.until`. Dropping the future
    /// withdraws the poll; a task that was on its way to it goes to somebody else.
    pub fn poll(&self, poll: Poll) -> BoxFuture<'_, Result<Option<Reply>, SubmitError>> {
        Box::pin(async move {
            let queue = poll.queue.as_str().into();
            let hub = HubKey { namespace: poll.namespace.id, queue, task: poll.task };
            let start_id = Uuid::v4(self.0.host.rng.next_u128());
            let poller = Poller {
                identity: poll.identity,
                queue: poll.queue,
                kind: poll.kind,
                start_id,
                build_id: poll.build_id,
            };
            let (sender, task) = oneshot::channel();
            let id = self.0.hubs.poll(&hub, poller, poll.rate, sender)?;
            let mut waiting = WaitingPoll { node: self, hub, id, task };
            let mut stop = self.0.stop.subscribe();
            let waited = tokio::select! {
                biased;
                task = &mut waiting.task => Some(task),
                () = tokio::time::sleep_until(poll.until) => None,
                () = meta::stopped(&mut stop) => None,
            };
            let answer = match waited {
                Some(answer) => answer.ok(),
                // A task that was handed over at this very moment is not lost.
                None => waiting.close(),
            };
            Ok(answer.transpose()?.map(|handed| handed.reply))
        })
    }

    /// Events of a run by batches, from this node's tables. Ask for what an answer said is there.
    pub fn events(
        &self,
        namespace: NamespaceId,
        workflow_id: &str,
        run: RunId,
        range: EventRange,
    ) -> Result<Vec<Vec<HistoryEvent>>, SubmitError> {
        let execution = ExecutionKey::workflow(namespace, workflow_id);
        let shard = execution.shard(self.0.shards);
        let run = RunKey { shard, execution, run };
        let view = self.0.host.store.view();
        events::read(view.as_ref(), &run, range).map_err(|why| {
            tracing::error!(%why, "history can't be read");
            SubmitError::Unavailable("history can't be read")
        })
    }

    /// A consistent view of the tables that shows everything acknowledged before this call, in
    /// every shard: one read index per shard, never silently partial (A21).
    pub fn read_all(&self) -> BoxFuture<'_, Result<Box<dyn View>, SubmitError>> {
        Box::pin(async move {
            const NO_LEADER: SubmitError = SubmitError::Unavailable("a shard has no leader here");
            for group in &self.0.groups {
                group.as_ref().ok_or(NO_LEADER)?.read_index().await.map_err(|_| NO_LEADER)?;
            }
            Ok(self.0.host.store.view())
        })
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.0.shards
    }

    /// Makes a token.
    pub fn seal(&self, purpose: Purpose, body: &[u8]) -> Bytes {
        self.0.sealer.seal(purpose, body)
    }

    /// The body of a token of this cluster; `None` for anything else.
    pub fn open(&self, purpose: Purpose, sealed: &[u8]) -> Option<Bytes> {
        self.0.sealer.open(purpose, sealed).ok().map(Bytes::copy_from_slice)
    }

    /// Who polled a queue lately.
    pub fn pollers(&self, namespace: NamespaceId, queue: &str, task: TaskType) -> Vec<PollerInfo> {
        self.0.hubs.pollers(&HubKey { namespace, queue: queue.into(), task })
    }

    /// A worker says goodbye: its sticky queue has no worker any more.
    pub fn sticky_shutdown(&self, namespace: NamespaceId, queue: &str) {
        let task = TaskType::Workflow;
        self.0.hubs.sticky_shutdown(&HubKey { namespace, queue: queue.into(), task });
    }

    /// What this node holds in memory for callers and on top of its tables. It asks the loop of
    /// every shard that this node leads, which looks at all that it has in memory.
    pub fn census(&self) -> BoxFuture<'_, Census> {
        Box::pin(async move {
            let mut census = Census { polls: self.0.hubs.polls(), ..Census::default() };
            for inbox in &self.0.inboxes {
                census.add(&inbox.census().await);
            }
            census
        })
    }

    /// Syncs of this node's log so far.
    pub fn syncs(&self) -> u64 {
        self.0.host.log.syncs()
    }
}

/// A poll that waits. Withdrawn when it ends, in whatever way; a task that reached it and that
/// nobody took goes back.
struct WaitingPoll<'a> {
    node: &'a Node,
    hub: HubKey,
    id: PollId,
    task: oneshot::Receiver<Result<Handed, SubmitError>>,
}

impl WaitingPoll<'_> {
    /// Takes no task any more; gives one that is there already.
    fn close(&mut self) -> Option<Result<Handed, SubmitError>> {
        self.task.close();
        self.task.try_recv().ok()
    }
}

impl Drop for WaitingPoll<'_> {
    fn drop(&mut self) {
        if let Some(Ok(Handed { task, start_id, .. })) = self.close() {
            self.node.inbox(&task.execution).give_back(task, start_id);
            self.node.0.hubs.unserved(&self.hub);
        }
        self.node.0.hubs.withdraw(&self.hub, self.id);
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[expect(clippy::needless_pass_by_value, reason = "what the flusher calls")]
fn end_the_process(why: StorageError) {
    tracing::error!(%why, "flushing the tables failed: the process ends");
    std::process::abort();
}

/// A group, and how its proposals end.
type Opened = (Group, mpsc::UnboundedReceiver<crate::machine::Ended>);

fn hubs(
    host: &Host,
    registry: &RegistryWatch,
    limits: MatchingLimits,
    inboxes: Vec<Arc<Inbox>>,
) -> Arc<Hubs> {
    // Workers that polled before a restart get the time to come back; at first there are none.
    let fresh = registry.current().is_empty();
    let grace_until = if fresh { Hlc::ZERO } else { host.clock.steady().after(STICKY_GONE_AFTER) };
    Arc::new(Hubs::new(host.clock.clone(), limits, inboxes, grace_until))
}

/// The groups of all shards; `None` for one whose tables are damaged, which does not keep the others
/// from serving. Damage in the log does (DESIGN 7).
async fn open_shards(host: &Host, config: &NodeConfig) -> Result<Vec<Option<Opened>>, GroupError> {
    let mut opened = Vec::new();
    for shard in 0..config.shards {
        match open(host, shard + 1, config).await {
            Ok(group) => opened.push(Some(group)),
            Err(why @ GroupError::Stopped { .. }) => {
                tracing::error!(shard, %why, "a shard does not open on this node");
                opened.push(None);
            }
            Err(why) => return Err(why),
        }
    }
    Ok(opened)
}

async fn open(host: &Host, group: GroupId, config: &NodeConfig) -> Result<Opened, GroupError> {
    Group::open(host, group, config.node_id, &config.members).await
}
