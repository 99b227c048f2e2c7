//! Whole nodes as a cluster of three: what concerns several of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{host, pass, run};
use crate::rig::{execution, signal, start};
use holdfast_engine::namespace::{NamespaceView, registration};
use holdfast_engine::{Input, Reply};
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::flusher::FlushOn;
use holdfast_raft::links::LoopLinks;
use holdfast_raft::node::{Node, NodeConfig};
use holdfast_raft::rt::TaskGroup;
use holdfast_raft::shard::SubmitError;
use holdfast_raft::types::NodeId;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use tokio::task::JoinHandle;

const NODES: [NodeId; 3] = [1, 2, 3];

fn config(node_id: NodeId) -> NodeConfig {
    let mut config = NodeConfig { node_id, members: NODES.into(), ..NodeConfig::sole(2) };
    config.flush.on = FlushOn::Task;
    config
}

/// Who does not lead group 0 has to start all the same: it follows, votes, and may lead others.
#[test]
fn every_node_of_three_starts_and_follows_group_0() {
    run(51, async {
        let links = LoopLinks::new();
        let mut starts = BTreeMap::new();
        let mut groups = Vec::new();
        for id in NODES {
            let tasks = TaskGroup::new();
            let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
            let host = host(id, &links, &log, &store);
            starts.insert(id, tasks.spawn(Node::start(host, config(id))));
            groups.push(tasks);
        }
        let mut nodes = BTreeMap::new();
        for (id, start) in starts {
            let start = tokio::time::timeout(Duration::from_secs(10), start).await;
            let start = start.unwrap_or_else(|_| panic!("node {id} does not start"));
            nodes.insert(id, start.expect("runs").expect("starts"));
        }
        let register = registration("made", Duration::from_secs(86_400));
        let mut made = 0;
        for node in nodes.values() {
            made += usize::from(node.command(register.clone()).await.is_ok());
        }
        assert_eq!(made, 1, "one node leads group 0");
        pass(200).await;
        let token = nodes[&1].seal(holdfast_raft::seal::Purpose::Task, b"x");
        for (id, node) in &nodes {
            assert!(node.namespace("made").await.is_ok(), "node {id}");
            assert!(node.open(holdfast_raft::seal::Purpose::Task, &token).is_some(), "node {id}");
        }
        groups.iter().for_each(|tasks| tasks.kill());
    });
}

/// Three whole nodes with the namespace `default`.
struct Nodes {
    links: LoopLinks,
    nodes: BTreeMap<NodeId, Node>,
    tasks: Arc<TaskGroup>,
    namespace: Arc<NamespaceView>,
}

impl Nodes {
    async fn of_three() -> Nodes {
        let (links, tasks) = (LoopLinks::new(), TaskGroup::new());
        let mut starts = BTreeMap::new();
        for id in NODES {
            let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
            starts.insert(id, tasks.spawn(Node::start(host(id, &links, &log, &store), config(id))));
        }
        let mut nodes = BTreeMap::new();
        for (id, start) in starts {
            nodes.insert(id, start.await.expect("runs").expect("starts"));
        }
        for node in nodes.values() {
            drop(node.command(registration("default", Duration::from_secs(86_400))).await);
        }
        pass(500).await;
        let namespace = nodes[&1].namespace("default").await.expect("registered");
        Nodes { links, nodes, tasks, namespace }
    }

    fn ask(&self, node: NodeId, id: &str, input: Input) -> JoinHandle<Result<Reply, SubmitError>> {
        let (node, namespace) = (self.nodes[&node].clone(), self.namespace.clone());
        let id = id.to_owned();
        self.tasks.spawn(async move { node.submit(namespace, &id, input, 100).await })
    }

    /// The node that leads the shard of `id`.
    async fn leader_of(&self, id: &str) -> NodeId {
        for _ in 0..100 {
            for node in NODES {
                let answer = self.ask(node, id, Input::Describe { run: None }).await.expect("runs");
                if !matches!(answer, Err(SubmitError::Unavailable(_))) {
                    return node;
                }
            }
            pass(100).await;
        }
        panic!("nobody leads the shard of {id}");
    }
}

/// A leader whose followers hear it while it does not hear them: it goes on leading, its proposals
/// are refused while its lease is over, and what was proposed before is neither applied nor void.
/// No new reign may be decided on tables without that (A2, DESIGN 3.2).
#[test]
fn a_reign_waits_for_what_was_proposed_before_it() {
    run(52, async {
        let cluster = Nodes::of_three().await;
        let leader = cluster.leader_of("w").await;
        let others: Vec<NodeId> = NODES.into_iter().filter(|id| *id != leader).collect();
        for n in 0..20 {
            for other in &others {
                cluster.links.cut(*other, leader);
            }
            let id = "w";
            let mut asked = vec![cluster.ask(leader, id, start(id, &format!("a{n}")))];
            for step in 0..120 {
                if step == 60 + n {
                    cluster.links.heal();
                }
                pass(10).await;
                asked.push(cluster.ask(leader, id, signal(id, &format!("{n}.{step}"))));
            }
            for answer in asked {
                drop(answer.await.expect("runs"));
            }
            pass(1000).await;
            let now = cluster.leader_of(id).await;
            let end = rpc::TerminateWorkflowExecutionRequest {
                workflow_execution: Some(execution(id)),
                ..Default::default()
            };
            let ended = cluster.ask(now, id, Input::Terminate(Box::new(end))).await.expect("runs");
            assert!(ended.is_ok(), "round {n}: {ended:?}");
            if now != leader {
                return;
            }
        }
    });
}
