//! The rules of DESIGN 3 as a client sees them, on a whole node over memory stores: no sockets, a
//! paused clock, a log whose syncs the test lets go.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use holdfast_engine::ids::{ExecutionKey, Slot, Uuid};
use holdfast_engine::input::{ActivityRef, HistoryOf};
use holdfast_engine::live::TaskType;
use holdfast_engine::namespace::{self};
use holdfast_engine::{Code, Input, Reply};
use holdfast_proto::common::{Payload, Payloads};
use holdfast_proto::decoded;
use holdfast_proto::enums::EventType;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::shard::{HistoryWait, SubmitError};
use holdfast_storage::tables::checkpoint::{Checkpoint, CheckpointKey};
use holdfast_storage::tables::journal::{self, Item, JournalKey};
use holdfast_storage::tables::{Key, SlotKey, Table, put};
use holdfast_storage::{Direction, Store};
use tokio::time::Instant;

use crate::rig::*;

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
            rig.ask("w", Input::History { run: None, of: HistoryOf::Events }),
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

/// Rule 4: a checkpoint is written when what has to be folded exceeds 4 KiB or the last one, and no
/// sooner; leaving the cache writes nothing (A18).
#[test]
fn checkpoints_are_amortised_and_eviction_writes_nothing() {
    run(async {
        let rig = Rig::without_cache().await;
        rig.start("w").await;
        rig.complete(rig.workflow_task().await, vec![activity(0)]).await;
        let task = rig.activity_task().await;
        let execution = ExecutionKey::workflow(rig.namespace.id, "w");
        let (shard, slot) = (execution.shard(2), Slot::Run(task.token.run_id()));
        let slot = SlotKey { shard, execution, slot };
        let (mut seqs, mut written) = (BTreeSet::new(), 0);
        for _ in 0..60 {
            let details = Payloads::encode_from(&decoded::Payloads {
                payloads: vec![Payload::json(&"x".repeat(1000))],
            });
            written += details.encoded().len();
            let request = rpc::RecordActivityTaskHeartbeatRequest {
                details: Some(details),
                ..Default::default()
            };
            let who = ActivityRef::Token(task.token.clone());
            rig.now("w", Input::Heartbeat { who, request: Box::new(request) }).await.expect("ok");
            let view = rig.store.view();
            let range = journal::range(&slot);
            let mut folded = 0;
            view.scan(&range.start, &range.end, Direction::Forward, &mut |_, value| {
                folded += value.len();
                ControlFlow::Continue(())
            })
            .expect("reads");
            assert!(folded <= 4096 + 1200, "{folded} bytes to fold");
            let row = CheckpointKey { slot: slot.clone() };
            if let Some(value) = view.get(&row.encode()).expect("reads") {
                seqs.insert(Checkpoint::from_value(value).expect("whole").seq);
            }
        }
        assert!((2..=written / 4096).contains(&seqs.len()), "{} of {written} bytes", seqs.len());
        let (syncs, rows) = (rig.node.syncs(), rig.store.unflushed_bytes());
        for _ in 0..10 {
            rig.now("w", Input::Describe { run: None }).await.expect("described");
        }
        assert_eq!((rig.node.syncs(), rig.store.unflushed_bytes()), (syncs, rows));
    });
}

/// Rule 5: a start is a grant; it is durable after 20 ms, with no other entry to ride on.
#[test]
fn a_start_becomes_durable_within_twenty_milliseconds() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let syncs = rig.node.syncs();
        let task = rig.workflow_task().await;
        assert_eq!(rig.node.syncs(), syncs, "a grant writes nothing");
        tokio::time::sleep(Duration::from_millis(25)).await;
        assert!(rig.node.syncs() > syncs, "nobody read, and it is durable");
        let rig = rig.crash(usize::MAX).await;
        let events = rig.events("w").await;
        assert_eq!(events.last(), Some(&EventType::WorkflowTaskStarted));
        // The task is held by its worker, not offered again, and its token still counts.
        assert!(matches!(rig.poll(TaskType::Workflow, 100).await.expect("runs"), Ok(None)));
        rig.complete(task, Vec::new()).await;
    });
}

/// Rule 5: a start becomes durable with the shard's next entry, whatever that is about.
#[test]
fn a_start_rides_on_the_next_entry() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let task = rig.workflow_task().await;
        rig.start("w0").await;
        let shard = |id: &str| ExecutionKey::workflow(rig.namespace.id, id).shard(2);
        let other = (1..).map(|n| format!("w{n}")).find(|id| shard(id) == shard("w"));
        rig.start(&other.expect("some share the shard")).await;
        let events = rig.events("w").await;
        assert_eq!(events.last(), Some(&EventType::WorkflowTaskStarted), "within the 20 ms");
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
                node.history(namespace, "w", None, HistoryOf::Events, HistoryWait::Event(3), until)
                    .await
            })
        };
        let view = wait(300).await.expect("runs").expect("a view");
        assert_eq!(view.next_event, 3);
        let waiting = wait(60_000);
        settle().await;
        assert!(!waiting.is_finished());
        let asked = Instant::now();
        rig.now("w", signal("w", "s")).await.expect("signaled");
        assert_eq!(waiting.await.expect("runs").expect("a view").next_event, 4);
        assert!(asked.elapsed() < Duration::from_secs(1), "not woken, but at its deadline");
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

/// What a step of the wall clock may take to be believed, and what is due to happen.
const BELIEVED: Duration = Duration::from_millis(1_500);

fn fired(events: &[HistoryEvent]) -> usize {
    events.iter().filter(|e| e.event_type() == EventType::TimerFired).count()
}

/// The machine slept for an hour, and its boot clock with it: the wall clock is right, and a timer
/// that fell due meanwhile fires (DESIGN 8, 11).
#[test]
fn a_timer_fires_when_the_machine_wakes() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let timers = vec![timer("short", 1_800), timer("long", 7_200)];
        rig.complete(rig.workflow_task().await, timers).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        rig.jump(1);
        tokio::time::sleep(BELIEVED).await;
        assert_eq!(fired(&rig.history("w").await), 1);
        // The other one is due an hour later, by the wall clock.
        tokio::time::sleep(Duration::from_secs(7_200 - 3_600 - 60 - 3)).await;
        assert_eq!(fired(&rig.history("w").await), 1);
        tokio::time::sleep(BELIEVED * 2).await;
        assert_eq!(fired(&rig.history("w").await), 2);
    });
}

/// A clock that was a day ahead is set right: later runs have right times, in this life and in the
/// next; a run that was open goes on, no time of it falls, and its timer takes as long as it should.
#[test]
fn a_clock_that_was_a_day_ahead_is_forgotten_once_it_is_right() {
    run(async {
        const DAY: u64 = 86_400_000_000_000;
        let (log, store) = Default::default();
        let rig = Rig::open(log, store, EPOCH + DAY).await;
        let began = rig.began;
        let right = |at: u64| {
            let now = EPOCH + u64::try_from(began.elapsed().as_nanos()).expect("short");
            // A restart of the rig takes a second of its machine's time.
            now.abs_diff(at) < 2_000_000_000
        };
        rig.start("w").await;
        rig.complete(rig.workflow_task().await, vec![timer("t", 10)]).await;
        rig.start("waits").await;
        rig.jump(-24);
        tokio::time::sleep(BELIEVED).await;
        rig.start("v").await;
        let v = rig.history("v").await;
        assert!(right(nanos(&v[0])), "{:?}", v[0].event_time);
        // What waited for a worker is handed out, to the first poll.
        let mut tasks = [rig.workflow_task().await, rig.workflow_task().await];
        tasks.sort_by_key(|task| task.token.workflow_id.clone());
        assert_eq!(tasks[1].token.workflow_id, "waits");
        assert_eq!(fired(&rig.history("w").await), 0, "not before its time");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(fired(&rig.history("w").await), 1, "and not a day later");
        let rig = rig.crash(usize::MAX).await;
        rig.start("u").await;
        let u = rig.history("u").await;
        assert!(right(nanos(&u[0])), "{:?}", u[0].event_time);
        rig.now("w", signal("w", "s")).await.expect("signaled");
        assert_eq!(rig.events("w").await.last(), Some(&EventType::WorkflowExecutionSignaled));
    });
}

/// The same with nobody there when the clock was set: the next leader looks at what waits.
#[test]
fn a_clock_that_is_set_right_while_the_node_is_down_keeps_nothing_waiting() {
    run(async {
        let rig = Rig::new().await;
        rig.start("before").await;
        rig.complete(rig.workflow_task().await, vec![timer("t", 3_600)]).await;
        rig.jump(20);
        tokio::time::sleep(BELIEVED).await;
        assert_eq!(fired(&rig.history("before").await), 1, "by the clock its time had come");
        rig.start("w").await;
        let mut tasks = vec![rig.workflow_task().await, rig.workflow_task().await];
        tasks.sort_by_key(|task| task.token.workflow_id.clone());
        rig.complete(tasks.remove(1), vec![timer("t", 10), timer("u", 90_000)]).await;
        rig.jump(-20);
        let rig = rig.crash(usize::MAX).await;
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(fired(&rig.history("w").await), 1);
        // The machine's clock goes back once more, under a node that runs.
        rig.jump(-3);
        tokio::time::sleep(BELIEVED).await;
        rig.start("x").await;
        let tasks = [(); 3].map(|()| rig.poll(TaskType::Workflow, 1000));
        let mut got = Vec::new();
        for task in tasks {
            match task.await.expect("runs") {
                Ok(Some(Reply::WorkflowTask(task))) => got.push(task),
                other => panic!("{other:?}"),
            }
        }
        assert!(got.iter().any(|task| task.token.workflow_id == "x"));
    });
}

/// A wall clock that shows something else for a moment is not believed.
#[test]
fn a_step_that_is_not_confirmed_moves_nothing() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        rig.complete(rig.workflow_task().await, vec![timer("t", 1_800)]).await;
        for hours in [1, -1] {
            rig.jump(hours);
            tokio::time::sleep(Duration::from_millis(190)).await;
            rig.jump(-hours);
            tokio::time::sleep(BELIEVED).await;
        }
        assert_eq!(fired(&rig.history("w").await), 0);
    });
}

/// An attempt that backs off while its leader goes is handed out by the next one when its time has
/// come, to a poll that has waited since before that.
#[test]
fn a_retry_that_is_not_due_yet_survives_its_leader() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        rig.complete(rig.workflow_task().await, vec![activity(0)]).await;
        for _ in 0..6 {
            let task = rig.activity_task_within(40_000).await;
            let who = ActivityRef::Token(task.token);
            let failed = Input::ActivityFailed { who, request: Box::default() };
            rig.now("w", failed).await.expect("accepted");
        }
        let rig = rig.crash(usize::MAX).await;
        let poll = rig.poll(TaskType::Activity, 60_000);
        assert!(matches!(poll.await.expect("runs"), Ok(Some(Reply::ActivityTask(_)))));
    });
}

/// A poll whose caller goes away when its task has just reached it: somebody else gets the task.
#[test]
fn a_poll_that_ends_with_its_task_in_hand_gives_it_back() {
    run(async {
        let rig = Rig::new().await;
        rig.log.set_gated(true);
        let starting = rig.ask("x", start("x", "r1"));
        let node = rig.node.clone();
        let mut poll = Box::pin(node.poll(rig.poll_of(TaskType::Workflow, 60_000)));
        assert!(poll.as_mut().now_or_never().is_none(), "nothing waits");
        rig.log.set_gated(false);
        starting.await.expect("runs").expect("started");
        settle().await;
        drop(poll);
        assert_eq!(rig.workflow_task().await.token.workflow_id, "x");
    });
}

/// DeleteNamespace: every row of what was in it goes, then the namespace itself; a crash on the way
/// delays that and no more.
#[test]
fn a_deleted_namespace_leaves_nothing() {
    run(async {
        let rig = Rig::new().await;
        for n in 0..300 {
            rig.start(&format!("w{n}")).await;
        }
        rig.complete(rig.workflow_task().await, vec![timer("1", 10)]).await;
        rig.complete(rig.workflow_task().await, vec![activity(0)]).await;
        let id = rig.namespace.id;
        let rows = |rig: &Rig| {
            let mut found = 0;
            let (low, high) = ([0_u8; 1], [0xff_u8; 8]);
            let view = rig.store.view();
            view.scan(&low, &high, Direction::Forward, &mut |key, _| {
                let meta = key.first() == Some(&(Table::Meta as u8));
                found += usize::from(!meta && key.windows(16).any(|part| part == id.0));
                ControlFlow::Continue(())
            })
            .expect("reads");
            found
        };
        assert!(rows(&rig) > 1000, "{}", rows(&rig));
        let delete =
            namespace::Command::Delete { namespace: "default".to_owned(), id: String::new() };
        rig.node.command(delete).await.expect("deleted");
        settle().await;
        let again = rig.crash(usize::MAX).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(rows(&again), 0);
        let gone = again.node.namespace_by_id(id).await;
        assert!(matches!(gone, Err(SubmitError::Rejected(why)) if why.code == Code::NotFound));
    });
}
