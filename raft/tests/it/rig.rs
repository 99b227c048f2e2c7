//! A whole node over memory stores, a clock that the test moves, and short inputs for it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_engine::input::{ActivityGrant, HistoryOf, Started, WorkflowTaskGrant};
use holdfast_engine::live::TaskType;
use holdfast_engine::namespace::{NamespaceView, registration};
use holdfast_engine::{Input, Reply};
use holdfast_proto::command::{
    Command, ScheduleActivityTaskCommandAttributes, StartTimerCommandAttributes, command,
};
use holdfast_proto::common::{ActivityType, RetryPolicy, WorkflowExecution, WorkflowType};
use holdfast_proto::enums::{CommandType, EventType, TaskQueueKind};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::events::EventRange;
use holdfast_raft::flusher::FlushOn;
use holdfast_raft::host::{Host, MachineClock, Readings, SeededRng};
use holdfast_raft::links::LoopLinks;
use holdfast_raft::node::{Node, NodeConfig, Poll};
use holdfast_raft::rt::TaskGroup;
use holdfast_raft::shard::{HistoryWait, SubmitError};
use holdfast_storage::Direction;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A node's clock over a machine whose boot clock is tokio's, so that virtual time moves deadlines
/// too, and whose wall clock the test moves; `wall` is what that showed when this clock began.
pub(crate) fn machine_clock(wall: Arc<AtomicU64>) -> MachineClock {
    let began = Instant::now();
    MachineClock::new(move || {
        let boot = u64::try_from(began.elapsed().as_nanos()).expect("short");
        Readings { boot, wall: wall.load(Ordering::Relaxed) + boot }
    })
}

/// A node and its disk.
pub(crate) struct Rig {
    pub(crate) node: Node,
    pub(crate) namespace: Arc<NamespaceView>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) tasks: Arc<TaskGroup>,
    /// The wall clock of the machine, less the time since the node was started.
    pub(crate) wall: Arc<AtomicU64>,
    pub(crate) began: Instant,
}

pub(crate) const EPOCH: u64 = 1_700_000_000_000_000_000;

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&[7; 32]))
        .build()
        .expect("runtime")
        .block_on(test)
}

/// Lets everything run until nothing can but by time.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

impl Rig {
    pub(crate) async fn new() -> Rig {
        Rig::open(Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()), EPOCH).await
    }

    /// One that keeps nothing in memory that it need not.
    pub(crate) async fn without_cache() -> Rig {
        let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
        let mut config = NodeConfig::sole(2);
        config.shard.cache_bytes = 0;
        Rig::open_as(config, log, store, EPOCH).await
    }

    pub(crate) async fn open(log: Arc<MemoryLog>, store: Arc<MemoryStore>, epoch: u64) -> Rig {
        Rig::open_as(NodeConfig::sole(2), log, store, epoch).await
    }

    pub(crate) async fn open_as(
        mut config: NodeConfig,
        log: Arc<MemoryLog>,
        store: Arc<MemoryStore>,
        epoch: u64,
    ) -> Rig {
        let tasks = TaskGroup::new();
        let (wall, began) = (Arc::new(AtomicU64::new(epoch)), Instant::now());
        let host = Host {
            clock: Arc::new(machine_clock(wall.clone())),
            rng: Arc::new(SeededRng::new(epoch)),
            store: store.clone(),
            log: log.clone(),
            links: LoopLinks::new().node(1),
        };
        config.flush.on = FlushOn::Task(Duration::ZERO);
        let node = tasks.scope(Node::start(host, config)).await.expect("starts");
        node.serving().await.expect("serves");
        if node.namespace("default").await.is_err() {
            let made = node.command(registration("default", Duration::from_secs(86_400))).await;
            made.expect("registered");
        }
        let namespace = node.namespace("default").await.expect("there");
        Rig { node, namespace, log, store, tasks, wall, began }
    }

    /// Ends the node where it stands and opens it again on what its disk has: the first `keep` of
    /// the writes that were not synced, and the tables as they were flushed.
    pub(crate) async fn crash(self, keep: usize) -> Rig {
        self.tasks.kill();
        let (log, store) = (self.log.crash(keep), self.store.crash());
        drop(self.node);
        let boot = u64::try_from(self.began.elapsed().as_nanos()).expect("short");
        let wall = self.wall.load(Ordering::Relaxed) + boot;
        Rig::open(Arc::new(log), Arc::new(store), wall + 1_000_000_000).await
    }

    /// The machine's wall clock jumps.
    pub(crate) fn jump(&self, hours: i64) {
        let by = hours * 3_600_000_000_000;
        let moved = self.wall.load(Ordering::Relaxed).saturating_add_signed(by);
        self.wall.store(moved, Ordering::Relaxed);
    }

    pub(crate) fn ask(&self, id: &str, input: Input) -> JoinHandle<Result<Reply, SubmitError>> {
        let (node, namespace, id) = (self.node.clone(), self.namespace.clone(), id.to_owned());
        self.tasks.spawn(async move { node.submit(namespace, &id, input, 100).await })
    }

    pub(crate) async fn now(&self, id: &str, input: Input) -> Result<Reply, SubmitError> {
        self.ask(id, input).await.expect("runs")
    }

    pub(crate) async fn start(&self, id: &str) -> Started {
        match self.now(id, start(id, "r1")).await {
            Ok(Reply::Started(started)) => *started,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn poll(
        &self,
        task: TaskType,
        for_ms: u64,
    ) -> JoinHandle<Result<Option<Reply>, SubmitError>> {
        let (node, poll) = (self.node.clone(), self.poll_of(task, for_ms));
        self.tasks.spawn(async move { node.poll(poll).await })
    }

    pub(crate) fn poll_of(&self, task: TaskType, for_ms: u64) -> Poll {
        Poll {
            namespace: self.namespace.clone(),
            queue: "q".to_owned(),
            kind: TaskQueueKind::Normal,
            task,
            identity: "worker".to_owned(),
            build_id: String::new(),
            rate: None,
            until: Instant::now() + Duration::from_millis(for_ms),
        }
    }

    pub(crate) async fn workflow_task(&self) -> WorkflowTaskGrant {
        match self.poll(TaskType::Workflow, 1000).await.expect("runs") {
            Ok(Some(Reply::WorkflowTask(task))) => *task,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn activity_task(&self) -> ActivityGrant {
        self.activity_task_within(1000).await
    }

    pub(crate) async fn activity_task_within(&self, ms: u64) -> ActivityGrant {
        match self.poll(TaskType::Activity, ms).await.expect("runs") {
            Ok(Some(Reply::ActivityTask(task))) => *task,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn complete(&self, task: WorkflowTaskGrant, commands: Vec<Command>) {
        let request =
            Box::new(rpc::RespondWorkflowTaskCompletedRequest { commands, ..Default::default() });
        let id = task.token.workflow_id.clone();
        let input = Input::WorkflowTaskCompleted { token: task.token, request };
        self.now(&id, input).await.expect("accepted");
    }

    pub(crate) async fn events(&self, id: &str) -> Vec<EventType> {
        self.history(id).await.iter().map(|e| e.event_type()).collect()
    }

    /// The whole history; that it has no gap and that its times do not fall is checked.
    pub(crate) async fn history(&self, id: &str) -> Vec<HistoryEvent> {
        let until = Instant::now();
        let view = self
            .node
            .history(self.namespace.clone(), id, None, HistoryOf::Events, HistoryWait::None, until)
            .await
            .expect("a history");
        let range = EventRange {
            from: 1,
            to: view.next_event,
            batches: usize::MAX,
            bytes: usize::MAX,
            direction: Direction::Forward,
        };
        let batches = self.node.events(self.namespace.id, id, view.run, range).expect("readable");
        let events: Vec<_> = batches.into_iter().flatten().collect();
        let ids: Vec<_> = events.iter().map(|e| e.event_id).collect();
        assert_eq!(ids, (1..view.next_event).collect::<Vec<_>>(), "gapless");
        // The start of an activity is written late, with the time at which it was.
        let late = |e: &&HistoryEvent| e.event_type() == EventType::ActivityTaskStarted;
        let times = events.iter().filter(|e| !late(e)).map(nanos);
        assert!(times.is_sorted(), "event times fall: {events:?}");
        events
    }
}

pub(crate) fn nanos(event: &HistoryEvent) -> u64 {
    let at = event.event_time.expect("every event has a time");
    u64::try_from(i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)).expect("late")
}

pub(crate) fn start(id: &str, request_id: &str) -> Input {
    Input::Start(Box::new(rpc::StartWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_id: id.to_owned(),
        workflow_type: Some(WorkflowType { name: "wf".to_owned() }),
        task_queue: Some(TaskQueue { name: "q".to_owned(), ..Default::default() }),
        workflow_task_timeout: Some(holdfast_proto::duration(10_000_000_000)),
        request_id: request_id.to_owned(),
        ..Default::default()
    }))
}

pub(crate) fn execution(id: &str) -> WorkflowExecution {
    WorkflowExecution { workflow_id: id.to_owned(), ..Default::default() }
}

pub(crate) fn signal(id: &str, request_id: &str) -> Input {
    Input::Signal(Box::new(rpc::SignalWorkflowExecutionRequest {
        workflow_execution: Some(execution(id)),
        signal_name: "s".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }))
}

pub(crate) fn activity(attempts: i32) -> Command {
    activity_named("a", attempts)
}

pub(crate) fn activity_named(id: &str, attempts: i32) -> Command {
    Command {
        command_type: CommandType::ScheduleActivityTask as i32,
        attributes: Some(command::Attributes::ScheduleActivityTaskCommandAttributes(
            ScheduleActivityTaskCommandAttributes {
                activity_id: id.to_owned(),
                activity_type: Some(ActivityType { name: "act".to_owned() }),
                task_queue: Some(TaskQueue { name: "q".to_owned(), ..Default::default() }),
                start_to_close_timeout: Some(holdfast_proto::duration(60_000_000_000)),
                retry_policy: (attempts > 0)
                    .then(|| RetryPolicy { maximum_attempts: attempts, ..Default::default() }),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

pub(crate) fn timer(id: &str, seconds: u64) -> Command {
    Command {
        command_type: CommandType::StartTimer as i32,
        attributes: Some(command::Attributes::StartTimerCommandAttributes(
            StartTimerCommandAttributes {
                timer_id: id.to_owned(),
                start_to_fire_timeout: Some(holdfast_proto::duration(seconds * 1_000_000_000)),
            },
        )),
        ..Default::default()
    }
}
