//! A follower whose log is gone gets the rows themselves; the flusher that makes that happen.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use holdfast_raft::entry::Reign;
use holdfast_raft::flusher::{FlushOn, FlushPlan, Flusher};
use holdfast_raft::links::LoopLinks;
use holdfast_raft::machine::Proposed;
use holdfast_storage::memory::{Fault, MemoryLog, MemoryStore};
use holdfast_storage::{Log, Op, Store};

fn plan(keep: u64) -> FlushPlan {
    FlushPlan { keep, on: FlushOn::Task(Duration::ZERO), ..FlushPlan::default() }
}

#[test]
fn a_follower_behind_the_purged_log_gets_the_rows() {
    run(50, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, term) = cluster.leader().await;
        cluster.agree().await;
        let away = cluster.others(leader)[0];
        let links = cluster.links.clone();
        let node = cluster.nodes.remove(&away).expect("there");
        let (log, store) = node.crash(&links, 0);
        // Something that must not survive the install.
        let stray = bytes::Bytes::from_static(&[9, 0, 0, 0, 0, b'x']);
        let op = Op::Put { key: stray.clone(), value: stray.clone() };
        store.apply(vec![op]).expect("applies");
        store.flush().expect("flushes");

        let reign = Reign { term, counter: 1 };
        for n in 0..23 {
            cluster.node(leader).propose(term, &entry(reign, n, n)).await;
            cluster.node(leader).ended.recv().await.expect("an end");
        }
        let group = cluster.node(leader).group.clone();
        cluster.node(leader).store.flush().expect("flushes");
        group.purge(0).await.expect("purges");
        pass(200).await;
        // The rows that are sent are newer than the snapshot that openraft announces.
        for n in 23..30 {
            cluster.node(leader).propose(term, &entry(reign, n, n)).await;
            cluster.node(leader).ended.recv().await.expect("an end");
        }
        let purged = cluster.node(leader).log.state(GROUP).expect("reads").purged;
        assert!(purged.is_some_and(|(_, index)| index >= 23), "{purged:?}");

        let node = Node::open(away, &cluster.members, &links, log, store).await.expect("opens");
        cluster.nodes.insert(away, node);
        cluster.agree().await;
        let node = cluster.node(away);
        assert_eq!(verify(node.store.as_ref()), 30);
        assert_eq!(node.store.view().get(&stray).expect("reads"), None);
        assert!(node.log.state(GROUP).expect("reads").purged.is_some(), "not by replay");
        // What was installed is durable, and it follows from there.
        for n in 30..35 {
            cluster.node(leader).propose(term, &entry(reign, n, n)).await;
        }
        pass(200).await;
        cluster.agree().await;
        let node = cluster.nodes.remove(&away).expect("there");
        let (log, store) = node.crash(&links, 0);
        assert!(verify(store.as_ref()) >= 30);
        let node = Node::open(away, &cluster.members, &links, log, store).await.expect("opens");
        cluster.nodes.insert(away, node);
        cluster.agree().await;
        assert_eq!(verify(cluster.node(away).store.as_ref()), 35);
    });
}

/// The same while it runs: what it remembers of its slots is of before.
#[test]
fn a_running_follower_that_fell_behind_gets_the_rows() {
    run(54, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, term) = cluster.leader().await;
        let reign = Reign { term, counter: 1 };
        let away = cluster.others(leader)[0];
        for n in 0..30 {
            if n == 4 {
                cluster.agree().await;
                let others = cluster.others(away);
                cluster.links.isolate(away, others);
            }
            cluster.node(leader).propose(term, &entry(reign, n, n)).await;
            let end = cluster.node(leader).ended.recv().await.expect("an end");
            assert!(matches!(end.how, Proposed::Accepted { .. }));
        }
        cluster.node(leader).store.flush().expect("flushes");
        cluster.node(leader).group.purge(0).await.expect("purges");
        pass(300).await;
        cluster.links.heal();
        cluster.agree().await;
        assert!(cluster.node(away).log.state(GROUP).expect("reads").purged.is_some());
        for n in 30..33 {
            cluster.node(leader).propose(term, &entry(reign, n, n)).await;
            cluster.node(leader).ended.recv().await.expect("an end");
        }
        cluster.agree().await;
        assert_eq!(verify(cluster.node(away).store.as_ref()), 33);
    });
}

/// openraft has nothing new to say then, and says nothing: nobody may wait for it.
#[test]
fn a_flush_without_news_ends() {
    run(53, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, _) = cluster.leader().await;
        cluster.agree().await;
        let away = cluster.others(leader)[0];
        let node = cluster.node(away);
        node.store.flush().expect("flushes");
        let durable = node.group.purge(0).await.expect("purges");
        let links = cluster.links.clone();
        let others = cluster.others(away);
        let (log, store) = cluster.nodes.remove(&away).expect("there").crash(&links, 0);
        links.isolate(away, others);
        let node = Node::open(away, &cluster.members, &links, log, store).await.expect("opens");
        let begun = tokio::time::Instant::now();
        assert_eq!(node.group.purge(0).await.expect("ends"), durable);
        assert_eq!(node.group.purge(0).await.expect("ends"), durable);
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}

async fn sole(links: &LoopLinks, log: Arc<MemoryLog>, store: Arc<MemoryStore>) -> (Node, u64) {
    let node = Node::open(1, &[1].into(), links, log, store).await.expect("opens");
    let term = node.group.await_serving().await.expect("serves");
    (node, term)
}

#[test]
fn the_flusher_flushes_what_was_written_and_purges_below_it() {
    run(51, async {
        let links = LoopLinks::new();
        let (mut node, term) = sole(&links, Arc::default(), Arc::default()).await;
        let plan = FlushPlan { bytes: 2_000, every: Duration::from_secs(5), ..plan(0) };
        let store = Arc::clone(&node.store) as Arc<dyn Store>;
        let fail = |why| panic!("{why}");
        let flusher = node
            .tasks
            .scope(async { Flusher::start(store, vec![node.group.clone()], plan, fail) })
            .await;
        let purged = |node: &Node| node.log.state(GROUP).expect("reads").purged;

        node.propose(term, &entry(Reign { term, counter: 1 }, 0, 0)).await;
        node.ended.recv().await.expect("an end");
        pass(4_000).await;
        assert_eq!(purged(&node), None, "little was written, not long ago");
        pass(2_000).await;
        assert!(purged(&node).is_some(), "something was written 5 s ago");
        assert_eq!(node.store.unflushed_bytes(), 0);

        for n in 1..20 {
            node.propose(term, &entry(Reign { term, counter: 1 }, n, n)).await;
            node.ended.recv().await.expect("an end");
        }
        assert!(node.store.unflushed_bytes() > 2_000);
        pass(300).await;
        assert_eq!(node.store.unflushed_bytes(), 0, "much was written");
        assert_eq!(node.log.state(GROUP).expect("reads").last, None, "a sole voter keeps no log");

        // A clean stop: nothing is left to replay.
        node.propose(term, &entry(Reign { term, counter: 1 }, 20, 20)).await;
        node.ended.recv().await.expect("an end");
        node.group.stop().await;
        flusher.stop().await.expect("flushes");
        let applied = node.group.applied().borrow().index;
        let (log, store) = node.crash(&links, 0);
        assert_eq!(verify(store.as_ref()), 21);
        assert_eq!(log.state(GROUP).expect("reads").last.map(|(_, index)| index), applied);
        let (mut node, term) = sole(&links, log, store).await;
        node.propose(term, &entry(Reign { term, counter: 1 }, 0, 21)).await;
        let end = node.ended.recv().await.expect("an end");
        assert!(matches!(end.how, Proposed::Accepted { .. }));
    });
}

#[test]
fn a_failed_flush_is_told_and_purges_nothing() {
    for on in [FlushOn::Task(Duration::ZERO), FlushOn::Thread] {
        run(52, async {
            let links = LoopLinks::new();
            let (node, _) = sole(&links, Arc::default(), Arc::default()).await;
            let told = Arc::new(Mutex::new(None));
            let (store, tell) = (Arc::clone(&node.store) as Arc<dyn Store>, Arc::clone(&told));
            let plan = FlushPlan { on, ..plan(0) };
            let failed = move |why| *tell.lock().expect("lock") = Some(why);
            let flusher = Flusher::start(store, vec![node.group.clone()], plan, failed);
            node.store.fail_next(Fault::Flush);
            assert!(flusher.flush().await.is_err());
            settle().await;
            assert!(told.lock().expect("lock").is_some());
            assert!(matches!(flusher.flush().await, Ok(false)), "it has ended");
            assert_eq!(node.log.state(GROUP).expect("reads").purged, None);
        });
    }
}
