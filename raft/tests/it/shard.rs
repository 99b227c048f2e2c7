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

/// Test E7: the wall clock jumps by hours, to and fro, while timers run. They fire by the time that
/// passes, and event times do not fall, also when the machine comes back an hour earlier (A8).
#[test]
fn a_clock_that_jumps_fires_nothing_early_and_turns_no_time_back() {
    run(async {
        // Leaning after the jump is all that may move a timer: 500 ppm of its 10 s.
        const LEAN: Duration = Duration::from_millis(5);
        let fired = |events: &[HistoryEvent]| {
            events.iter().filter(|e| e.event_type() == EventType::TimerFired).count()
        };
        let rig = Rig::new().await;
        rig.start("w").await;
        rig.complete(rig.workflow_task().await, vec![timer("1", 10), timer("2", 20)]).await;
        let set = Instant::now();
        for (n, hours) in [(1, 2), (2, -4)] {
            rig.jump(hours);
            tokio::time::sleep_until(set + 10 * n * Duration::from_secs(1) - 2 * LEAN).await;
            assert_eq!(fired(&rig.history("w").await) as u32, n - 1, "early after {hours} h");
            tokio::time::sleep(4 * LEAN).await;
            assert_eq!(fired(&rig.history("w").await) as u32, n, "late after {hours} h");
        }
        // A restart believes the wall clock, which is two hours behind by now.
        let rig = rig.crash(usize::MAX).await;
        rig.now("w", signal("w", "s")).await.expect("signaled");
        assert_eq!(rig.events("w").await.last(), Some(&EventType::WorkflowExecutionSignaled));
        // What is stamped now is not in the future for this clock: tasks go out, timers run.
        rig.start("v").await;
        let mut tasks = vec![rig.workflow_task().await, rig.workflow_task().await];
        tasks.sort_by_key(|task| task.token.workflow_id.clone());
        rig.complete(tasks.remove(0), vec![timer("3", 5)]).await;
        tokio::time::sleep(Duration::from_secs(5) + LEAN).await;
        assert_eq!(fired(&rig.history("v").await), 1);
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
