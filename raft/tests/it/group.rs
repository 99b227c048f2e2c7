//! One group: the rules of reigns, of terms and of durability, each with the race it is there for.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use holdfast_engine::ids::Hlc;
use holdfast_raft::entry::{Reign, ShardEntry};
use holdfast_raft::group::Group;
use holdfast_raft::links::LoopLinks;
use holdfast_raft::machine::Proposed;
use holdfast_storage::memory::{Fault, MemoryLog, MemoryStore};
use holdfast_storage::tables::meta::{RegistryKey, registry_to_value};
use holdfast_storage::tables::{self, Key};
use holdfast_storage::{Log, Store};

fn reign(term: u64, counter: u64) -> Reign {
    Reign { term, counter }
}

async fn sole(log: &Arc<MemoryLog>, store: &Arc<MemoryStore>) -> Node {
    let links = LoopLinks::new();
    Node::open(1, &[1].into(), &links, Arc::clone(log), Arc::clone(store)).await.expect("opens")
}

/// Why a group stopped; panics when it does not.
async fn why_stopped(group: &Group) -> String {
    let mut stopped = group.stopped();
    let wait = stopped.wait_for(Option::is_some);
    let why = tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it goes on");
    why.expect("open").clone().expect("some")
}

#[test]
fn a_sole_voter_serves_at_once_and_then_nothing_ticks() {
    run(1, async {
        let begun = tokio::time::Instant::now();
        let mut node = sole(&Arc::default(), &Arc::default()).await;
        let term = node.group.await_serving().await.expect("serves");
        assert!(begun.elapsed() < Duration::from_millis(5), "no election timeout");
        node.propose(term, &entry(reign(term, 1), 0, 0)).await;
        let end = node.ended.recv().await.expect("an end");
        assert!(matches!(end.how, Proposed::Accepted { .. }));
        assert_eq!((end.reign, end.seq), (reign(term, 1), 0));
        assert_eq!(verify(node.store.as_ref()), 1);
        node.group.read_index().await.expect("reads");
        node.group.barrier().await.expect("a barrier");
        let vote = node.log.syncs();
        pass(60_000).await;
        assert_eq!((node.serving(), node.log.syncs()), (Some(term), vote), "idle for a minute");
        node.group.stop().await;
        node.propose(term, &entry(reign(term, 1), 1, 1)).await;
        assert_eq!(node.ended.recv().await.map(|end| end.how), Some(Proposed::Unknown));
        assert!(node.group.await_serving().await.is_err());
    });
}

#[test]
fn nothing_is_applied_or_answered_before_the_sync() {
    run(2, async {
        let log = Arc::new(MemoryLog::gated());
        let store = Arc::new(MemoryStore::new());
        let open = tokio::spawn({
            let (log, store) = (Arc::clone(&log), Arc::clone(&store));
            async move { sole(&log, &store).await }
        });
        settle().await;
        while !open.is_finished() {
            assert_eq!(dump(store.as_ref()).len(), 0, "a vote or membership before its sync");
            log.release(1);
            settle().await;
        }
        let mut node = open.await.expect("opened");
        while node.serving().is_none() {
            assert!(log.pending() > 0, "it waits for a sync");
            log.release(1);
            settle().await;
        }
        let term = node.serving().expect("serving");
        assert_eq!(node.group.applied().borrow().term, term, "an entry of its own term");
        for n in 0..20 {
            node.propose(term, &entry(reign(term, 1), n, n)).await;
        }
        settle().await;
        assert_eq!((verify(node.store.as_ref()), node.drain().len()), (0, 0));
        let mut answered = 0;
        while answered < 20 {
            log.release(1);
            settle().await;
            answered += accepted(&node.drain()) as u64;
            assert_eq!(verify(node.store.as_ref()), answered, "answered what is applied");
        }
    });
}

#[test]
fn a_follower_applies_only_what_its_own_log_holds() {
    run(3, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, term) = cluster.leader().await;
        let slow = cluster.others(leader)[0];
        cluster.agree().await;
        cluster.node(slow).log.set_gated(true);
        for n in 0..10 {
            cluster.node(leader).propose(term, &entry(reign(term, 1), n, n)).await;
        }
        pass(300).await;
        assert_eq!(accepted(&cluster.node(leader).drain()), 10, "the two others are a quorum");
        let committed = cluster.node(slow).group.raft().watch_commit_progress().get();
        assert!(committed.is_some_and(|id| id.index >= 10), "it knows that they are committed");
        assert_eq!(verify(cluster.node(slow).store.as_ref()), 0, "its log may lose them still");
        cluster.node(slow).log.set_gated(false);
        cluster.agree().await;
        assert_eq!(verify(cluster.node(slow).store.as_ref()), 10);
    });
}

#[test]
fn accepted_entries_survive_their_leader() {
    for seed in 0..5 {
        run(100 + seed, async {
            let mut cluster = Cluster::of_three().await;
            let mut written = 0;
            for _ in 0..4 {
                let (leader, term) = cluster.leader().await;
                let start = verify(cluster.node(leader).store.as_ref());
                assert!(start >= written, "an accepted entry is gone");
                for n in 0..10 {
                    let entry = entry(reign(term, 1), n, start + n);
                    cluster.node(leader).propose(term, &entry).await;
                }
                // Some of them answered, some not yet.
                let end = cluster.node(leader).ended.recv().await.expect("an end");
                assert!(matches!(end.how, Proposed::Accepted { .. }), "{end:?}");
                written = verify(cluster.node(leader).store.as_ref());
                let links = cluster.links.clone();
                let node = cluster.nodes.remove(&leader).expect("there");
                let (log, store) = node.crash(&links, 0);
                let (_, next) = cluster.leader().await;
                assert!(next > term);
                let node = Node::open(leader, &cluster.members, &links, log, store).await;
                cluster.nodes.insert(leader, node.expect("opens"));
            }
            let (leader, _) = cluster.leader().await;
            cluster.node(leader).group.barrier().await.expect("a barrier");
            cluster.agree().await;
            assert!(verify(cluster.node(leader).store.as_ref()) >= written);
        });
    }
}

/// A2: leadership goes A, B, A while A's shard loop still has entries queued from its first time.
#[test]
fn leadership_flips_with_queued_proposals() {
    run(4, async {
        let mut cluster = Cluster::of_three().await;
        let (a, first) = cluster.leader().await;
        let others = cluster.others(a);
        cluster.node(a).propose(first, &entry(reign(first, 1), 0, 0)).await;
        let end = cluster.node(a).ended.recv().await.expect("an end");
        assert_eq!((end.seq, accepted(&[end])), (0, 1));
        cluster.agree().await;

        cluster.links.isolate(a, others.clone());
        cluster.node(a).propose(first, &entry(reign(first, 1), 1, 1)).await;
        let (b, second) = loop {
            pass(50).await;
            let led = others.iter().find_map(|id| Some((*id, cluster.nodes[id].serving()?)));
            if let Some(led) = led {
                break led;
            }
        };
        cluster.node(b).propose(second, &entry(reign(second, 1), 0, 1)).await;
        pass(50).await;
        let ended = cluster.node(b).drain();
        assert_eq!(accepted(&ended), 1, "{ended:?}");
        cluster.links.heal();
        cluster.agree().await;
        pass(300).await;

        cluster.node(b).group.raft().trigger().transfer_leader(a).await.expect("asked");
        let third = cluster.node(a).group.await_serving().await.expect("leads again");
        assert!(third > second);
        let ended = cluster.node(a).drain();
        let hows: Vec<_> = ended.iter().map(|end| (end.seq, end.how)).collect();
        assert!(matches!(hows[..], [(1, Proposed::Unknown)]), "{hows:?}");

        // What was still queued: decided in the first term, on the state of then.
        let stale = entry(reign(first, 1), 2, 2);
        cluster.node(a).propose(first, &stale).await;
        let end = cluster.node(a).ended.recv().await.expect("an end");
        assert_eq!((end.seq, end.how), (2, Proposed::Refused));
        // And one that got past openraft, as if it had been merged with entries of the new term.
        let raft = cluster.node(a).group.raft().clone();
        raft.client_write(bytes(&stale)).await.expect("committed");
        raft.client_write(bytes(&entry(reign(first, 2), 0, 1))).await.expect("committed");
        let ended = cluster.node(a).drain();
        assert!(ended.iter().all(|end| matches!(end.how, Proposed::Skipped { .. })), "{ended:?}");
        assert_eq!((ended.len(), verify(cluster.node(a).store.as_ref())), (2, 2), "no-ops");

        cluster.node(a).propose(third, &entry(reign(third, 1), 0, 2)).await;
        let end = cluster.node(a).ended.recv().await.expect("an end");
        assert!(matches!(end.how, Proposed::Accepted { .. }), "the shard still serves");
        cluster.agree().await;
        assert_eq!(verify(cluster.node(b).store.as_ref()), 3);
    });
}

/// The same with nothing written in between: reign and sequence of what was queued still follow,
/// and only its term tells that it was decided by another leadership.
#[test]
fn an_entry_of_an_older_term_is_skipped_even_when_it_follows() {
    run(13, async {
        let mut cluster = Cluster::of_three().await;
        let (a, first) = cluster.leader().await;
        cluster.node(a).propose(first, &entry(reign(first, 1), 0, 0)).await;
        cluster.node(a).ended.recv().await.expect("an end");
        let b = cluster.others(a)[0];
        let mut third = 0;
        for (from, to) in [(a, b), (b, a)] {
            cluster.node(from).group.raft().trigger().transfer_leader(to).await.expect("asked");
            third = cluster.node(to).group.await_serving().await.expect("leads");
        }
        assert!(third >= first + 2);
        let raft = cluster.node(a).group.raft().clone();
        raft.client_write(bytes(&entry(reign(first, 1), 1, 1))).await.expect("committed");
        let end = cluster.node(a).ended.recv().await.expect("an end");
        assert!(matches!(end.how, Proposed::Skipped { .. }), "{end:?}");
        cluster.node(a).propose(third, &entry(reign(third, 1), 0, 1)).await;
        let end = cluster.node(a).ended.recv().await.expect("an end");
        assert!(matches!(end.how, Proposed::Accepted { .. }), "{end:?}");
        cluster.agree().await;
    });
}

#[test]
fn a_vote_is_not_given_before_it_is_synced() {
    run(14, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, _) = cluster.leader().await;
        cluster.agree().await;
        let [voter, candidate] = cluster.others(leader)[..] else { panic!("three") };
        cluster.links.isolate(leader, [voter, candidate]);
        cluster.node(voter).log.set_gated(true);
        cluster.node(voter).group.raft().runtime_config().elect(false);
        pass(3_000).await;
        let raft = cluster.node(candidate).group.raft().clone();
        assert!(!raft.is_leader(), "elected by a vote that may be lost");
        cluster.node(voter).log.set_gated(false);
        cluster.node(candidate).group.await_serving().await.expect("elected");
    });
}

#[test]
fn what_could_not_be_written_is_not_answered_as_accepted() {
    run(15, async {
        let mut node = sole(&Arc::default(), &Arc::default()).await;
        let term = node.group.await_serving().await.expect("serves");
        node.store.fail_next(Fault::Apply);
        node.propose(term, &entry(reign(term, 1), 0, 0)).await;
        let end = node.ended.recv().await.expect("an end");
        assert_eq!(end.how, Proposed::Unknown);
        assert!(node.group.await_serving().await.is_err(), "a disk that fails serves no more");
        assert_eq!(node.group.applied().borrow().reign, Reign::default());
    });
}

/// `raft-sim-storage.md` finding 2: a leader whose lease ran out refuses single proposals, and
/// accepts later ones in the same term.
#[test]
fn a_hole_in_a_reign_ends_it() {
    run(5, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, term) = cluster.leader().await;
        for id in cluster.others(leader) {
            cluster.node(id).group.raft().runtime_config().elect(false);
        }
        let others = cluster.others(leader);
        cluster.links.isolate(leader, others);
        let mut n = 0;
        for _ in 0..70 {
            cluster.node(leader).propose(term, &entry(reign(term, 1), n, n)).await;
            pass(10).await;
            n += 1;
        }
        cluster.links.heal();
        for _ in 0..70 {
            cluster.node(leader).propose(term, &entry(reign(term, 1), n, n)).await;
            pass(10).await;
            n += 1;
        }
        assert_eq!(cluster.node(leader).serving(), Some(term), "one leader throughout");
        pass(300).await;
        let ended = cluster.node(leader).drain();
        assert_eq!(ended.len() as u64, n, "every proposal ends once");
        let count = |kind: fn(&Proposed) -> bool| ended.iter().filter(|end| kind(&end.how)).count();
        let refused = count(|how| matches!(how, Proposed::Refused));
        let skipped = count(|how| matches!(how, Proposed::Skipped { .. }));
        let good = accepted(&ended) as u64;
        assert!(good > 0 && refused > 0 && skipped > 0, "{good} {refused} {skipped}");
        let applied = ended.iter().filter(|end| matches!(end.how, Proposed::Accepted { .. }));
        assert!(applied.map(|end| end.seq).eq(0..good), "a prefix without a hole");

        // The next reign goes on from what was accepted.
        cluster.node(leader).group.barrier().await.expect("a barrier");
        assert_eq!(verify(cluster.node(leader).store.as_ref()), good);
        cluster.node(leader).propose(term, &entry(reign(term, 2), 0, good)).await;
        let end = cluster.node(leader).ended.recv().await.expect("an end");
        assert!(matches!(end.how, Proposed::Accepted { .. }));
        // Entries of the closed reign that are still on their way change nothing.
        for seq in [0, good] {
            cluster.node(leader).propose(term, &entry(reign(term, 1), seq, good + 1)).await;
            let end = cluster.node(leader).ended.recv().await.expect("an end");
            assert!(matches!(end.how, Proposed::Skipped { .. }), "{end:?}");
        }
        cluster.agree().await;
    });
}

#[test]
fn a_wrong_base_stops_the_group_and_says_why() {
    run(6, async {
        let (log, store) = (Arc::default(), Arc::default());
        let mut node = sole(&log, &store).await;
        let term = node.group.await_serving().await.expect("serves");
        node.propose(term, &entry(reign(term, 1), 0, 0)).await;
        node.propose(term, &entry(reign(term, 1), 1, 1)).await;
        node.propose(term, &entry(reign(term, 1), 2, 7)).await;
        node.propose(term, &entry(reign(term, 1), 3, 2)).await;
        let why = why_stopped(&node.group).await;
        assert!(why.contains("base 21, but the last change is 6"), "{why:?}");
        settle().await;
        let hows: Vec<_> = node.drain().into_iter().map(|end| end.how).collect();
        assert!(
            matches!(
                hows[..],
                [
                    Proposed::Accepted { .. },
                    Proposed::Accepted { .. },
                    Proposed::Unknown,
                    Proposed::Unknown
                ]
            ),
            "{hows:?}"
        );
        assert_eq!(verify(node.store.as_ref()), 2, "what came before it is there");
        assert_eq!(node.serving(), None);
        assert!(node.group.read_index().await.is_err());

        // It stays stopped over a restart, with the same words; the disk is not touched.
        node.tasks.kill();
        let again = Node::open(1, &[1].into(), &LoopLinks::new(), log, store).await;
        let why = again.err().expect("refused");
        assert!(why.contains("base 21, but the last change is 6"), "{why}");
    });
}

#[test]
fn rows_of_another_group_stop_the_group() {
    run(7, async {
        let node = sole(&Arc::default(), &Arc::default()).await;
        let term = node.group.await_serving().await.expect("serves");
        let mut bad = entry(reign(term, 1), 0, 0);
        let key = bytes::Bytes::from_static(&[9, 0, 0, 0, 1, 0]);
        bad.control.push(holdfast_storage::Op::Delete { key });
        node.propose(term, &bad).await;
        let why = why_stopped(&node.group).await;
        assert!(why.contains("not this group's"));
        assert_eq!(verify(node.store.as_ref()), 0, "all or nothing");
    });
}

#[test]
fn a_clock_far_ahead_commits_nothing() {
    run(8, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, term) = cluster.leader().await;
        let mut early = entry(reign(term, 1), 0, 0);
        early.at = early.at.after(Duration::from_secs(1));
        cluster.node(leader).clock.set(early.at);
        cluster.node(leader).propose(term, &early).await;
        pass(2_000).await;
        assert_eq!(accepted(&cluster.node(leader).drain()), 0);
        for node in cluster.nodes.values() {
            assert_eq!(verify(node.store.as_ref()), 0);
        }
    });
}

/// An entry that was appended under a wrong clock and not agreed on before it was set right: no
/// leader could ever commit anything behind it if the others waited for the time that it carries.
#[test]
fn what_a_clock_stamped_before_it_was_set_right_keeps_nobody_waiting() {
    run(8, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, term) = cluster.leader().await;
        let mut early = entry(reign(term, 1), 0, 0);
        early.at = early.at.after(Duration::from_secs(86_400));
        cluster.node(leader).propose(term, &early).await;
        pass(2_000).await;
        assert_eq!(accepted(&cluster.node(leader).drain()), 1);
    });
}

#[test]
fn a_restarted_voter_keeps_out_of_elections_for_one_lease() {
    run(9, async {
        let mut cluster = Cluster::of_three().await;
        let (leader, _) = cluster.leader().await;
        cluster.agree().await;
        let [restarted, other] = cluster.others(leader)[..] else { panic!("three") };
        let links = cluster.links.clone();
        let node = cluster.nodes.remove(&restarted).expect("there");
        let (log, store) = node.crash(&links, 0);
        links.isolate(leader, [restarted, other]);
        // The third has been silent for long, the second forgot its promise: they would elect.
        let node =
            Node::open(restarted, &cluster.members, &links, log, store).await.expect("opens");
        cluster.nodes.insert(restarted, node);
        let vote =
            |cluster: &Cluster| cluster.nodes[&restarted].log.state(GROUP).expect("reads").vote;
        let before = vote(&cluster);
        let raft = cluster.node(other).group.raft().clone();
        raft.trigger().elect(false).await.expect("asked");
        pass(395).await;
        assert!(cluster.nodes[&other].serving().is_none(), "one lease has not passed");
        assert_eq!(vote(&cluster), before, "nor does it stand itself");
        cluster.nodes.remove(&leader);
        cluster.leader().await;
    });
}

/// A run is deleted and started again under the same id, within one batch and across batches.
#[test]
fn a_dropped_slot_starts_over() {
    run(10, async {
        let mut node = sole(&Arc::default(), &Arc::default()).await;
        let term = node.group.await_serving().await.expect("serves");
        let mut seq = 0;
        for rounds in 0..4 {
            for n in 0..7 {
                node.propose(term, &entry(reign(term, 1), seq, n)).await;
                seq += 1;
            }
            if rounds % 2 == 0 {
                settle().await;
                assert_eq!(*node.group.stopped().borrow(), None);
                assert_eq!(verify(node.store.as_ref()), 7, "round {rounds}");
            }
            let mut gone = entry(reign(term, 1), seq, 7);
            let part = &mut gone.drafts[0].parts[0];
            (part.changes, part.checkpoint, part.drop) = (Vec::new(), None, true);
            gone.drafts[0].rows = history_deletes(14);
            node.propose(term, &gone).await;
            seq += 1;
        }
        settle().await;
        assert!(node.drain().iter().all(|end| matches!(end.how, Proposed::Accepted { .. })));
        assert_eq!(*node.group.stopped().borrow(), None);
        assert_eq!(verify(node.store.as_ref()), 0, "no journal, checkpoint, history or row");
        assert_eq!(node.rows().len(), 1, "only how far the group is");
    });
}

/// Group 0 has no executions: its entries are rows.
#[test]
fn the_meta_group_writes_rows() {
    run(12, async {
        let links = LoopLinks::new();
        let (log, store) = (Arc::default(), Arc::default());
        let host = host(1, &links, &log, &store);
        let (group, mut ended) = Group::open(&host, 0, 1, &[1].into()).await.expect("opens");
        let term = group.await_serving().await.expect("serves");
        let key = RegistryKey { group: 0, kind: 1, key: b"default".to_vec() };
        let mut good = ShardEntry::new(reign(term, 1), 0, Hlc(5));
        good.control.push(tables::put(&key, registry_to_value(b"thing")));
        group.propose(term, bytes(&good)).await;
        let end = ended.recv().await.expect("an end");
        assert!(matches!(end.how, Proposed::Accepted { .. }));
        let row = store.view().get(&key.encode()).expect("reads");
        assert_eq!(row, Some(registry_to_value(b"thing")));
        assert_eq!(group.applied().borrow().at, Hlc(5));

        group.propose(term, bytes(&entry(reign(term, 1), 1, 0))).await;
        let why = why_stopped(&group).await;
        assert!(why.contains("group 0 holds no executions"));
    });
}
