//! The rules of DESIGN 3 as a client sees them, on a whole node over memory stores: no sockets, a
//! paused clock, a log whose syncs the test lets go.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_engine::ids::{ExecutionKey, Hlc, Slot, Uuid};
use holdfast_engine::input::{ActivityGrant, Started, WorkflowTaskGrant};
use holdfast_engine::live::TaskType;
use holdfast_engine::namespace::{NamespaceView, registration};
use holdfast_engine::{Code, Input, Reply};
use holdfast_proto::command::{Command, ScheduleActivityTaskCommandAttributes, command};
use holdfast_proto::common::{ActivityType, RetryPolicy, WorkflowExecution, WorkflowType};
use holdfast_proto::enums::{CommandType, EventType, TaskQueueKind};
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::flusher::FlushOn;
use holdfast_raft::host::{Clock, Host, SeededRng};
use holdfast_raft::links::LoopLinks;
use holdfast_raft::node::{EventRange, Node, NodeConfig, Poll};
use holdfast_raft::rt::TaskGroup;
use holdfast_raft::shard::{HistoryWait, SubmitError};
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use holdfast_storage::tables::journal::{self, Item, JournalKey};
use holdfast_storage::tables::{SlotKey, put};
use holdfast_storage::{Direction, Store};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A clock that follows tokio's, so that virtual time moves deadlines too.
struct TokioClock {
    began: Instant,
    epoch: u64,
}

impl Clock for TokioClock {
    fn now(&self) -> Hlc {
        Hlc(self.epoch).after(self.began.elapsed())
    }
}

/// A node and its disk.
struct Rig {
    node: Node,
    namespace: Arc<NamespaceView>,
    log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    tasks: Arc<TaskGroup>,
    epoch: u64,
}

const EPOCH: u64 = 1_700_000_000_000_000_000;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&[7; 32]))
        .build()
        .expect("runtime")
        .block_on(test)
}

/// Lets everything run until nothing can but by time.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

impl Rig {
    async fn new() -> Rig {
        Rig::open(Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()), EPOCH).await
    }

    async fn open(log: Arc<MemoryLog>, store: Arc<MemoryStore>, epoch: u64) -> Rig {
        let tasks = TaskGroup::new();
        let host = Host {
            clock: Arc::new(TokioClock { began: Instant::now(), epoch }),
            rng: Arc::new(SeededRng::new(epoch)),
            store: store.clone(),
            log: log.clone(),
            links: LoopLinks::new().node(1),
        };
        let mut config = NodeConfig::sole(2);
        config.flush.on = FlushOn::Task;
        let node = tasks.scope(Node::start(host, config)).await.expect("starts");
        node.serving().await.expect("serves");
        if node.namespace("default").await.is_err() {
            let made = node.command(registration("default", Duration::from_secs(86_400))).await;
            made.expect("registered");
        }
        let namespace = node.namespace("default").await.expect("there");
        Rig { node, namespace, log, store, tasks, epoch }
    }

    /// Ends the node where it stands and opens it again on what its disk has: the first `keep` of
    /// the writes that were not synced, and the tables as they were flushed.
    async fn crash(self, keep: usize) -> Rig {
        self.tasks.kill();
        let (log, store) = (self.log.crash(keep), self.store.crash());
        drop(self.node);
        Rig::open(Arc::new(log), Arc::new(store), self.epoch + 1_000_000_000).await
    }

    fn ask(&self, id: &str, input: Input) -> JoinHandle<Result<Reply, SubmitError>> {
        let (node, namespace, id) = (self.node.clone(), self.namespace.clone(), id.to_owned());
        self.tasks.spawn(async move { node.submit(namespace, &id, input, 100).await })
    }

    async fn now(&self, id: &str, input: Input) -> Result<Reply, SubmitError> {
        self.ask(id, input).await.expect("runs")
    }

    async fn start(&self, id: &str) -> Started {
        match self.now(id, start(id, "r1")).await {
            Ok(Reply::Started(started)) => *started,
            other => panic!("{other:?}"),
        }
    }

    fn poll(&self, task: TaskType, for_ms: u64) -> JoinHandle<Result<Option<Reply>, SubmitError>> {
        let poll = Poll {
            namespace: self.namespace.clone(),
            queue: "q".to_owned(),
            kind: TaskQueueKind::Normal,
            task,
            identity: "worker".to_owned(),
            until: Instant::now() + Duration::from_millis(for_ms),
        };
        let node = self.node.clone();
        self.tasks.spawn(async move { node.poll(poll).await })
    }

    async fn workflow_task(&self) -> WorkflowTaskGrant {
        match self.poll(TaskType::Workflow, 1000).await.expect("runs") {
            Ok(Some(Reply::WorkflowTask(task))) => *task,
            other => panic!("{other:?}"),
        }
    }

    async fn activity_task(&self) -> ActivityGrant {
        match self.poll(TaskType::Activity, 1000).await.expect("runs") {
            Ok(Some(Reply::ActivityTask(task))) => *task,
            other => panic!("{other:?}"),
        }
    }

    async fn complete(&self, task: WorkflowTaskGrant, commands: Vec<Command>) {
        let request =
            Box::new(rpc::RespondWorkflowTaskCompletedRequest { commands, ..Default::default() });
        let id = task.token.workflow_id.clone();
        let input = Input::WorkflowTaskCompleted { token: task.token, request };
        self.now(&id, input).await.expect("accepted");
    }

    async fn events(&self, id: &str) -> Vec<EventType> {
        let until = Instant::now();
        let view = self
            .node
            .history(self.namespace.clone(), id, None, HistoryWait::None, until)
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
        events.iter().map(|e| e.event_type()).collect()
    }
}

fn start(id: &str, request_id: &str) -> Input {
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

fn signal(id: &str, request_id: &str) -> Input {
    Input::Signal(Box::new(rpc::SignalWorkflowExecutionRequest {
        workflow_execution: Some(WorkflowExecution {
            workflow_id: id.to_owned(),
            ..Default::default()
        }),
        signal_name: "s".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }))
}

fn activity(attempts: i32) -> Command {
    Command {
        command_type: CommandType::ScheduleActivityTask as i32,
        attributes: Some(command::Attributes::ScheduleActivityTaskCommandAttributes(
            ScheduleActivityTaskCommandAttributes {
                activity_id: "a".to_owned(),
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

/// Rule 1: pipelining with a reply barrier (A1, test E3).
#[test]
fn no_answer_leaves_before_what_it_saw_is_synced() {
    run(async {
        let rig = Rig::new().await;
        rig.log.set_gated(true);
        let first = rig.ask("w", start("w", "r1"));
        settle().await;
        // A retry of the same request, a refusal, a read: all rest on the draft of `first`.
        let held = [
            rig.ask("w", start("w", "r1")),
            rig.ask("w", start("w", "r2")),
            rig.ask("w", Input::Describe { run: None }),
            rig.ask("w", Input::History { run: None }),
            rig.ask("w", signal("w", "s1")),
        ];
        settle().await;
        assert!(!first.is_finished(), "the start was answered before its sync");
        for (n, answer) in held.iter().enumerate() {
            assert!(!answer.is_finished(), "answer {n} left before the start was synced");
        }
        rig.log.set_gated(false);
        rig.log.release_all();
        assert!(matches!(first.await.expect("runs"), Ok(Reply::Started(_))));
        let mut answers = Vec::new();
        for answer in held {
            answers.push(answer.await.expect("runs"));
        }
        assert!(matches!(&answers[0], Ok(Reply::Started(s)) if s.started));
        let Err(SubmitError::Rejected(why)) = &answers[1] else { panic!("{:?}", answers[1]) };
        assert_eq!(why.code, Code::AlreadyExists);
        assert!(matches!(&answers[2], Ok(Reply::Described(_))));
    });
}

/// Rule 1, the other half: what was never synced was never answered, and is not there.
#[test]
fn what_was_lost_was_not_acknowledged() {
    run(async {
        let rig = Rig::new().await;
        rig.start("kept").await;
        rig.log.set_gated(true);
        let lost = rig.ask("lost", start("lost", "r1"));
        settle().await;
        assert!(!lost.is_finished());
        let rig = rig.crash(0).await;
        assert!(rig.now("kept", Input::Describe { run: None }).await.is_ok());
        let why = rig.now("lost", Input::Describe { run: None }).await;
        assert!(matches!(why, Err(SubmitError::Rejected(why)) if why.code == Code::NotFound));
    });
}

/// Acknowledged state comes back from the log alone: the tables were never flushed.
#[test]
fn everything_acknowledged_survives_a_crash() {
    run(async {
        let mut rig = Rig::new().await;
        for n in 0..5 {
            let id = format!("w{n}");
            rig.start(&id).await;
            rig.now(&id, signal(&id, "s")).await.expect("signaled");
            rig = rig.crash(usize::MAX).await;
            for m in 0..=n {
                let events = rig.events(&format!("w{m}")).await;
                assert_eq!(
                    events,
                    [
                        EventType::WorkflowExecutionStarted,
                        EventType::WorkflowTaskScheduled,
                        EventType::WorkflowExecutionSignaled,
                    ]
                );
            }
            // A retry of an acknowledged request changes nothing (A13).
            rig.now(&id, signal(&id, "s")).await.expect("signaled");
            assert_eq!(rig.events(&id).await.len(), 3);
        }
    });
}

/// Rule 5: a start is a grant; it is durable after 20 ms, with no other entry to ride on.
#[test]
fn a_start_becomes_durable_within_twenty_milliseconds() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let task = rig.workflow_task().await;
        assert_eq!(rig.events("w").await.len(), 2, "a grant writes nothing");
        tokio::time::sleep(Duration::from_millis(25)).await;
        let events = rig.events("w").await;
        assert_eq!(events.last(), Some(&EventType::WorkflowTaskStarted));
        let rig = rig.crash(usize::MAX).await;
        // The task is held by its worker, not offered again, and its token still counts.
        assert!(matches!(rig.poll(TaskType::Workflow, 100).await.expect("runs"), Ok(None)));
        rig.complete(task, Vec::new()).await;
    });
}

/// Rule 5: a grant that was not durable is offered again after a crash, and the worker that has
/// it may still answer: its start is materialised.
#[test]
fn an_answer_to_a_lost_grant_is_accepted_once() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let first = rig.workflow_task().await;
        let rig = rig.crash(usize::MAX).await;
        let token = first.token.clone();
        rig.complete(first, Vec::new()).await;
        let events = rig.events("w").await;
        assert_eq!(events[2..], [EventType::WorkflowTaskStarted, EventType::WorkflowTaskCompleted]);
        let request = Box::default();
        let again = rig.now("w", Input::WorkflowTaskCompleted { token, request }).await;
        assert!(matches!(again, Err(SubmitError::Rejected(why)) if why.code == Code::NotFound));
    });
}

/// Rule 5: with a finite number of attempts the start is durable before the worker has it, so a
/// crash never makes it run once more (A7).
#[test]
fn a_counted_attempt_is_durable_before_it_is_handed_out() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let task = rig.workflow_task().await;
        rig.complete(task, vec![activity(1)]).await;
        rig.log.set_gated(true);
        let poll = rig.poll(TaskType::Activity, 500);
        settle().await;
        assert!(!poll.is_finished(), "handed out before its start was synced");
        rig.log.set_gated(false);
        rig.log.release_all();
        assert!(matches!(poll.await.expect("runs"), Ok(Some(Reply::ActivityTask(_)))));
        let rig = rig.crash(usize::MAX).await;
        assert!(matches!(rig.poll(TaskType::Activity, 100).await.expect("runs"), Ok(None)));
    });
}

/// An attempt without a limit is a mere grant: lost with the leader, offered again.
#[test]
fn an_uncounted_attempt_is_offered_again_after_a_crash() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let task = rig.workflow_task().await;
        rig.complete(task, vec![activity(0)]).await;
        let first = rig.activity_task().await;
        let rig = rig.crash(usize::MAX).await;
        let second = rig.activity_task().await;
        assert_eq!(first.token.attempt, second.token.attempt);
        assert_ne!(first.token.start_id, second.token.start_id);
    });
}

/// A poll that went away never eats a task (issue 3, item 6).
#[test]
fn a_poll_that_went_away_eats_nothing() {
    run(async {
        let rig = Rig::new().await;
        let gone = rig.poll(TaskType::Workflow, 60_000);
        settle().await;
        gone.abort();
        rig.start("w").await;
        let task = rig.workflow_task().await;
        assert_eq!(task.token.workflow_id, "w");
        // The same at the last moment: granted, not yet handed over, because its barrier waits.
        rig.complete(task, Vec::new()).await;
        rig.log.set_gated(true);
        let starting = rig.ask("x", start("x", "r1"));
        let gone = rig.poll(TaskType::Workflow, 60_000);
        settle().await;
        gone.abort();
        rig.log.set_gated(false);
        rig.log.release_all();
        starting.await.expect("runs").expect("started");
        assert_eq!(rig.workflow_task().await.token.workflow_id, "x");
    });
}

/// A poll waits until its deadline and is answered empty; a task that comes later wakes it.
#[test]
fn a_poll_is_answered_by_a_task_or_empty_at_its_deadline() {
    run(async {
        let rig = Rig::new().await;
        let began = Instant::now();
        let empty = rig.poll(TaskType::Workflow, 700).await.expect("runs");
        assert!(matches!(empty, Ok(None)));
        assert_eq!(began.elapsed().as_millis(), 700);
        let poll = rig.poll(TaskType::Workflow, 60_000);
        settle().await;
        rig.start("w").await;
        assert!(matches!(poll.await.expect("runs"), Ok(Some(Reply::WorkflowTask(_)))));
    });
}

/// Of N equal pollers each gets its share.
#[test]
fn pollers_share_alike() {
    run(async {
        let rig = Rig::new().await;
        let mut polls: Vec<_> = (0..4).map(|_| rig.poll(TaskType::Workflow, 60_000)).collect();
        settle().await;
        for n in 0..4 {
            rig.start(&format!("w{n}")).await;
        }
        for poll in polls.drain(..) {
            assert!(matches!(poll.await.expect("runs"), Ok(Some(Reply::WorkflowTask(_)))));
        }
    });
}

/// A history long poll is woken by the event it waits for, and answered when it waits in vain.
#[test]
fn a_history_read_waits_for_its_event() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let wait = |ms| {
            let (node, namespace) = (rig.node.clone(), rig.namespace.clone());
            let until = Instant::now() + Duration::from_millis(ms);
            rig.tasks.spawn(async move {
                node.history(namespace, "w", None, HistoryWait::Event(3), until).await
            })
        };
        let view = wait(300).await.expect("runs").expect("a view");
        assert_eq!(view.next_event, 3);
        let waiting = wait(60_000);
        settle().await;
        assert!(!waiting.is_finished());
        rig.now("w", signal("w", "s")).await.expect("signaled");
        assert_eq!(waiting.await.expect("runs").expect("a view").next_event, 4);
    });
}

/// Rule 8: a panic while folding quarantines that execution; the shard goes on.
#[test]
fn a_panic_concerns_one_execution() {
    run(async {
        let rig = Rig::new().await;
        rig.start("sick").await;
        let rig = rig.crash(usize::MAX).await;
        // A change of another slot's kind in the journal of the id: folding it panics.
        let execution = ExecutionKey::workflow(rig.namespace.id, "ill");
        let shard = execution.shard(2);
        let slot = SlotKey { shard, execution, slot: Slot::Id };
        let row = JournalKey { slot, base: 0 };
        let item = Item::Change { tag: 40, bytes: Bytes::new() };
        rig.store.apply(vec![put(&row, journal::to_value(&[item]))]).expect("written");
        let why = rig.now("ill", start("ill", "r1")).await;
        assert!(
            matches!(&why, Err(SubmitError::Rejected(why)) if why.code == Code::Internal),
            "{why:?}"
        );
        let others: Vec<String> = (0..8).map(|n| format!("well{n}")).collect();
        assert!(
            others
                .iter()
                .any(|id| { ExecutionKey::workflow(rig.namespace.id, id).shard(2) == shard }),
            "some must share the shard"
        );
        for id in others {
            rig.start(&id).await;
        }
        assert!(rig.now("sick", Input::Describe { run: None }).await.is_ok());
    });
}

/// A clean stop makes grants durable and ends polls empty.
#[test]
fn a_clean_stop_loses_no_grant() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let task = rig.workflow_task().await;
        let poll = rig.poll(TaskType::Workflow, 60_000);
        settle().await;
        rig.node.stop().await;
        assert!(matches!(poll.await.expect("runs"), Ok(None)));
        let rig = rig.crash(0).await;
        assert!(matches!(rig.poll(TaskType::Workflow, 100).await.expect("runs"), Ok(None)));
        rig.complete(task, Vec::new()).await;
        assert_eq!(rig.events("w").await.len(), 4);
    });
}

/// Rule 7: a hot workflow id is refused before it fills the inbox of its shard.
#[test]
fn a_hot_execution_is_refused() {
    run(async {
        let rig = Rig::new().await;
        rig.start("hot").await;
        rig.log.set_gated(true);
        // The pipeline fills and the shard stops taking inputs; what comes then waits.
        let asked: Vec<_> =
            (0..4000).map(|n| rig.ask("hot", signal("hot", &format!("s{n}")))).collect();
        settle().await;
        rig.log.set_gated(false);
        rig.log.release_all();
        let (mut accepted, mut busy) = (0, 0);
        for answer in asked {
            match answer.await.expect("runs") {
                Ok(_) => accepted += 1,
                Err(SubmitError::Rejected(why)) if why.code == Code::ResourceExhausted => busy += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(busy > 0 && accepted >= 1000, "{accepted} accepted, {busy} busy");
        assert_eq!(rig.events("hot").await.len(), 2 + accepted);
        let _ = Uuid::NIL;
    });
}
