//! Requests of every size that Temporal's limits allow: none of them is more than an entry can take,
//! alone or with others, and a long history can leave (A17).

use holdfast_engine::input::ActivityRef;
use holdfast_engine::{Input, Reply};
use holdfast_proto::common::{Payload, Payloads};
use holdfast_proto::decoded;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::entry::{EntryBytes, EntryLimits, ShardEntry};
use holdfast_storage::tables::history;
use holdfast_storage::tables::{RunKey, Table};
use holdfast_storage::{Log, Store};
use std::ops::ControlFlow;
use std::time::Duration;

use crate::rig::*;

const MIB: usize = 1 << 20;

fn payloads(bytes: usize) -> Payloads {
    Payloads::encode_from(&decoded::Payloads { payloads: vec![Payload::json(&"x".repeat(bytes))] })
}

fn start_of(id: &str, bytes: usize) -> Input {
    let Input::Start(mut request) = start(id, "r1") else { unreachable!() };
    request.input = Some(payloads(bytes));
    Input::Start(request)
}

/// Many inputs of one turn, small and large: each entry takes what it can.
#[test]
fn large_and_small_inputs_share_a_shard() {
    run(async {
        let rig = Rig::new().await;
        let sizes = [10, MIB + MIB / 10, 1000, 2 * MIB - 1000, 10, MIB, 400_000, 400_000, 10];
        let asked: Vec<_> = (0..40)
            .map(|n| rig.ask(&format!("w{n}"), start_of(&format!("w{n}"), sizes[n % sizes.len()])))
            .collect();
        for answer in asked {
            assert!(matches!(answer.await.expect("runs"), Ok(Reply::Started(_))));
        }
        let (mut entries, mut shared) = (0, 0);
        for group in 1..=2 {
            for entry in rig.log.read(group, 0, 1000, usize::MAX).expect("reads") {
                // The first byte says what kind of entry it is.
                let bytes = EntryBytes::from_wire(entry.payload.slice(1..));
                let Ok(entry) = ShardEntry::decode(&bytes) else { continue };
                entries += 1;
                if entry.drafts.len() > 1 {
                    shared += 1;
                    let slack = EntryLimits::ENTRY_BYTES / 16;
                    assert!(bytes.len() <= EntryLimits::ENTRY_BYTES + slack, "{bytes}");
                }
            }
        }
        assert!(entries >= 20 && shared >= 4, "{entries} entries, {shared} of several decisions");
        let rig = rig.crash(usize::MAX).await;
        for n in 0..40 {
            assert_eq!(rig.events(&format!("w{n}")).await.len(), 2);
        }
    });
}

/// An answer within 20 ms of its grant writes the start too, as a transaction of its own.
#[test]
fn a_large_answer_comes_at_once() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let task = rig.workflow_task().await;
        rig.complete(task, vec![activity(0)]).await;
        let task = rig.activity_task().await;
        let request = Box::new(rpc::RespondActivityTaskCompletedRequest {
            result: Some(payloads(2 * MIB - 1000)),
            ..Default::default()
        });
        let who = ActivityRef::Token(task.token);
        rig.now("w", Input::ActivityCompleted { who, request }).await.expect("accepted");
        assert_eq!(rig.events("w").await.len(), 8);
    });
}

/// The largest start: input and memo, which the list's row holds once more.
#[test]
fn a_large_memo_is_taken() {
    run(async {
        let rig = Rig::new().await;
        let Input::Start(mut request) = start_of("w", 2 * MIB - 1000) else { unreachable!() };
        let field = Payload::json(&"x".repeat(2 * MIB - 1000));
        let fields = [("k".to_owned(), field)].into();
        request.memo = Some(holdfast_proto::common::Memo::encode_from(&decoded::Memo { fields }));
        assert!(matches!(rig.now("w", Input::Start(request)).await, Ok(Reply::Started(_))));
        rig.now("w", signal("w", "s")).await.expect("the shard goes on");
    });
}

/// Heartbeat details are state, and go into each checkpoint that becomes due.
#[test]
fn large_heartbeats_make_large_checkpoints() {
    run(async {
        let rig = Rig::new().await;
        rig.start("w").await;
        let commands = ["a", "b", "c"].map(|id| activity_named(id, 0)).to_vec();
        rig.complete(rig.workflow_task().await, commands).await;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(rig.activity_task().await.token);
        }
        for token in tokens.iter().chain(&tokens) {
            let details = Some(payloads(2 * MIB - 1000));
            let request =
                Box::new(rpc::RecordActivityTaskHeartbeatRequest { details, ..Default::default() });
            let who = ActivityRef::Token(token.clone());
            rig.now("w", Input::Heartbeat { who, request }).await.expect("accepted");
        }
        rig.now("w", signal("w", "s")).await.expect("the shard goes on");
    });
}

/// A history of many batches under a long id leaves when its time is over.
#[test]
fn a_long_history_leaves() {
    run(async {
        let rig = Rig::new().await;
        let id = "w".repeat(1000);
        let started = rig.start(&id).await;
        let asked: Vec<_> = (0..900).map(|n| rig.ask(&id, signal(&id, &format!("s{n}")))).collect();
        for answer in asked {
            answer.await.expect("runs").expect("signaled");
        }
        for n in 0..1100 {
            rig.now(&id, signal(&id, &format!("t{n}"))).await.expect("signaled");
        }
        let execution = holdfast_engine::ids::ExecutionKey::workflow(rig.namespace.id, &id);
        let shard = execution.shard(2);
        let run_key = RunKey { shard, execution, run: started.run };
        let rows = |rig: &Rig| {
            let range = history::range(&run_key);
            let mut found = 0;
            let forward = holdfast_storage::Direction::Forward;
            rig.store
                .view()
                .scan(&range.start, &range.end, forward, &mut |key, _| {
                    assert_eq!(key[0], Table::History as u8);
                    found += 1;
                    ControlFlow::Continue(())
                })
                .expect("reads");
            found
        };
        assert!(rows(&rig) > 1000);
        // A signal that is on its way when the run leaves is not left behind.
        rig.log.set_gated(true);
        let last = rig.ask(&id, signal(&id, "last"));
        let gone = rig.ask(&id, Input::Delete { run: started.run });
        tokio::time::sleep(Duration::from_millis(5)).await;
        rig.log.set_gated(false);
        last.await.expect("runs").expect("signaled");
        gone.await.expect("runs").expect("deleted");
        assert_eq!(rows(&rig), 0);
        rig.start(&id).await;
    });
}
