//! The rate of a task queue, as its workers see it: several shards have tasks for one queue, and
//! there is one bucket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_engine::Reply;
use holdfast_engine::live::TaskType;
use holdfast_engine::matching::Rate;
use holdfast_raft::node::{Node, NodeConfig, Poll};
use holdfast_raft::shard::SubmitError;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::rig::*;

type Answer = Result<Option<Reply>, SubmitError>;

/// A poll for an activity that asks for a rate.
fn poll_at(rig: &Rig, rate: Option<f64>, for_ms: u64) -> Poll {
    Poll { rate: rate.map(Rate::per_second), ..rig.poll_of(TaskType::Activity, for_ms) }
}

fn spawn(rig: &Rig, rate: Option<f64>, for_ms: u64) -> JoinHandle<Answer> {
    let (node, poll): (Node, Poll) = (rig.node.clone(), poll_at(rig, rate, for_ms));
    rig.tasks.spawn(async move { node.poll(poll).await })
}

async fn of_config(config: NodeConfig) -> Rig {
    Rig::open_as(config, Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()), EPOCH).await
}

/// `count` activities wait, in workflows that are spread over both shards.
async fn backlog(rig: &Rig, count: usize) {
    for n in 0..count {
        rig.start(&format!("w{n}")).await;
        rig.complete(rig.workflow_task().await, vec![activity(0)]).await;
    }
    settle().await;
}

/// Polls `pollers` at a time until `count` tasks came; gives when they did, in ms from the first.
async fn drain(rig: &Rig, rate: Option<f64>, pollers: usize, count: usize) -> Vec<u64> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let mut workers = Vec::new();
    let began = Instant::now();
    for n in 0..pollers {
        let (node, poll) = (rig.node.clone(), poll_at(rig, rate, 600_000));
        let (times, share) = (times.clone(), count / pollers + usize::from(n < count % pollers));
        workers.push(rig.tasks.spawn(async move {
            for _ in 0..share {
                let answer = node.poll(poll.clone()).await;
                assert!(matches!(answer, Ok(Some(Reply::ActivityTask(_)))), "{answer:?}");
                times.lock().expect("whole").push(began.elapsed().as_millis() as u64);
            }
        }));
    }
    for worker in workers {
        worker.await.expect("runs");
    }
    let times = times.lock().expect("whole").clone();
    let first = times.first().copied().unwrap_or(0);
    times.into_iter().map(|at| at - first).collect()
}

/// Each time is `wanted`, or up to 10 ms late.
fn about(times: &[u64], wanted: &[u64]) {
    let near =
        times.iter().zip(wanted).all(|(at, want)| (0..=10).contains(&at.wrapping_sub(*want)));
    assert!(times.len() == wanted.len() && near, "{times:?}, not {wanted:?}");
}

#[test]
fn activities_of_all_shards_go_out_at_the_rate_that_the_poll_asks_for() {
    run(async {
        let rig = Rig::new().await;
        backlog(&rig, 12).await;
        let wanted = [0, 0, 0, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500];
        about(&drain(&rig, Some(2.0), 4, 12).await, &wanted);
    });
}

/// Tasks that come while a poller waits, which a shard hands over without the hub.
#[test]
fn a_direct_hand_over_takes_a_token_too() {
    run(async {
        let rig = Rig::new().await;
        for n in 0..5 {
            rig.start(&format!("w{n}")).await;
        }
        let mut tasks = Vec::new();
        for _ in 0..5 {
            tasks.push(rig.workflow_task().await);
        }
        let polls: Vec<_> = (0..5).map(|_| spawn(&rig, Some(1.0), 60_000)).collect();
        settle().await;
        let began = Instant::now();
        for task in tasks {
            rig.complete(task, vec![activity(0)]).await;
        }
        let mut times = Vec::new();
        for poll in polls {
            assert!(matches!(poll.await.expect("runs"), Ok(Some(_))));
            times.push(began.elapsed().as_millis() as u64);
        }
        about(&times, &[0, 0, 1000, 2000, 3000]);
    });
}

/// A stop stops the pollers that wait already; a poll that asks for nothing ends it for them.
#[test]
fn the_last_poll_decides_for_all() {
    run(async {
        let rig = Rig::new().await;
        let waiting = spawn(&rig, Some(100.0), 60_000);
        settle().await;
        let stop = spawn(&rig, Some(0.0), 2000);
        settle().await;
        backlog(&rig, 2).await;
        assert!(matches!(stop.await.expect("runs"), Ok(None)), "no task at rate 0");
        assert!(!waiting.is_finished());
        let (began, end) = (Instant::now(), spawn(&rig, None, 60_000));
        assert!(matches!(waiting.await.expect("runs"), Ok(Some(_))));
        assert!(matches!(end.await.expect("runs"), Ok(Some(_))));
        // As long as an empty bucket takes, as in Temporal.
        let took = began.elapsed();
        assert!((1000..1100).contains(&took.as_millis()), "{took:?}");
    });
}

/// A poll that went away with the token in its hands gives it to the next.
#[test]
fn what_comes_to_nothing_takes_no_token() {
    run(async {
        let rig = of_config(NodeConfig::sole(2)).await;
        backlog(&rig, 4).await;
        // Empties the bucket, but for what one task in a thousand seconds is.
        about(&drain(&rig, Some(0.001), 1, 1).await, &[0]);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        // Its barrier waits: granted, not handed over, and gone.
        rig.log.set_gated(true);
        let held: Vec<_> =
            (0..4).map(|n| rig.ask(&format!("w{n}"), signal(&format!("w{n}"), "s1"))).collect();
        settle().await;
        let gone = spawn(&rig, Some(0.001), 60_000);
        settle().await;
        assert!(!gone.is_finished());
        gone.abort();
        settle().await;
        rig.log.set_gated(false);
        rig.log.release_all();
        for signal in held {
            assert!(signal.await.expect("runs").is_ok());
        }
        let began = Instant::now();
        let next = spawn(&rig, Some(0.001), 60_000).await.expect("runs");
        assert!(matches!(next, Ok(Some(_))), "{next:?}");
        assert!(began.elapsed() < Duration::from_secs(1));
        // The token is gone now.
        assert!(matches!(spawn(&rig, Some(0.001), 60_000).await.expect("runs"), Ok(None)));
    });
}

/// A node that was started again knows no rate until a poll brings it.
#[test]
fn a_lost_bucket_is_made_again_by_the_next_poll() {
    run(async {
        let rig = Rig::new().await;
        backlog(&rig, 9).await;
        about(&drain(&rig, Some(2.0), 2, 4).await, &[0, 0, 0, 500]);
        let rig = rig.crash(usize::MAX).await;
        about(&drain(&rig, Some(2.0), 2, 5).await, &[0, 0, 0, 500, 1000]);
    });
}

/// The rate is of one queue and type: workflow tasks of the same name are not slowed down.
#[test]
fn workflow_tasks_have_a_bucket_of_their_own() {
    run(async {
        let rig = Rig::new().await;
        let stop = spawn(&rig, Some(0.0), 5000);
        settle().await;
        for n in 0..20 {
            rig.start(&format!("w{n}")).await;
        }
        let began = Instant::now();
        for _ in 0..20 {
            rig.workflow_task().await;
        }
        assert!(began.elapsed() < Duration::from_millis(500));
        assert!(matches!(stop.await.expect("runs"), Ok(None)));
    });
}

/// Workflow polls ask for no rate, so this is the one they have.
#[test]
fn a_configured_limit_holds_where_no_poll_asks_for_one() {
    run(async {
        let mut config = NodeConfig::sole(2);
        config.polls.tasks_per_second = Rate::per_second(4.0);
        let rig = of_config(config).await;
        for n in 0..8 {
            rig.start(&format!("w{n}")).await;
        }
        settle().await;
        let began = Instant::now();
        for _ in 0..8 {
            rig.workflow_task().await;
        }
        let took = began.elapsed().as_millis();
        assert!((750..=800).contains(&took), "five at once, then one each 250 ms: {took} ms");
    });
}
