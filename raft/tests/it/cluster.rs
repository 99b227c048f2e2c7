//! Whole nodes: what concerns several of them, and loops that must wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{host, pass, run};
use crate::rig::{EPOCH, execution, machine_clock, signal, start};
use holdfast_engine::ids::Hlc;
use holdfast_engine::namespace::registration;
use holdfast_engine::{Input, Reply};
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::flusher::FlushOn;
use holdfast_raft::host::{Clock, Host, MachineClock, Standing};
use holdfast_raft::links::LoopLinks;
use holdfast_raft::node::{Node, NodeConfig};
use holdfast_raft::rt::TaskGroup;
use holdfast_raft::seal::Purpose;
use holdfast_raft::shard::SubmitError;
use holdfast_raft::types::NodeId;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const NODES: [NodeId; 3] = [1, 2, 3];

fn config(node_id: NodeId) -> NodeConfig {
    let mut config = NodeConfig { node_id, members: NODES.into(), ..NodeConfig::sole(2) };
    config.flush.on = FlushOn::Task(Duration::ZERO);
    config
}

/// Counts how often somebody looks at it: each turn of a shard's loop does.
struct Watched {
    clock: MachineClock,
    /// The wall clock of its machine, less the time since it was started.
    wall: Arc<AtomicU64>,
    looks: AtomicU64,
}

impl Watched {
    fn new(wall: u64) -> Watched {
        let wall = Arc::new(AtomicU64::new(wall));
        Watched { clock: machine_clock(wall.clone()), wall, looks: AtomicU64::new(0) }
    }

    /// The wall clock of its machine makes a step.
    fn step(&self, by: i64) {
        let wall = self.wall.load(Ordering::Relaxed);
        self.wall.store(wall.saturating_add_signed(by), Ordering::Relaxed);
    }
}

impl Clock for Watched {
    fn now(&self) -> Hlc {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        assert!(looks < 1_000_000, "a loop that never waits");
        self.clock.now()
    }

    fn steady(&self) -> Hlc {
        self.clock.steady()
    }

    fn wall(&self) -> Hlc {
        self.clock.wall()
    }

    fn take_over(&self) {
        self.clock.take_over();
    }

    fn doubt(&self, odd: bool) {
        self.clock.doubt(odd);
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.clock.standing()
    }
}

/// Three nodes that are up.
struct Three {
    links: LoopLinks,
    nodes: BTreeMap<NodeId, Node>,
    tasks: BTreeMap<NodeId, Arc<TaskGroup>>,
    clocks: BTreeMap<NodeId, Arc<Watched>>,
}

impl Three {
    async fn start() -> Three {
        Three::with_first_ahead(0).await
    }

    /// Node 1's clock is so far ahead of the others'. It founds the groups, and leads them first.
    async fn with_first_ahead(ms: i64) -> Three {
        let links = LoopLinks::new();
        let (mut starts, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        let (mut tasks, mut clocks) = (BTreeMap::new(), BTreeMap::new());
        for id in NODES {
            let group = TaskGroup::new();
            let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
            let off = if id == NODES[0] { ms * 1_000_000 } else { 0 };
            let clock = Arc::new(Watched::new(EPOCH.saturating_add_signed(off)));
            let host = Host { clock: clock.clone(), ..host(id, &links, &log, &store) };
            starts.insert(id, group.spawn(Node::start(host, config(id))));
            tasks.insert(id, group);
            clocks.insert(id, clock);
        }
        for (id, start) in starts {
            let start = tokio::time::timeout(Duration::from_secs(10), start).await;
            let start = start.unwrap_or_else(|_| panic!("node {id} does not start"));
            nodes.insert(id, start.expect("runs").expect("starts"));
        }
        let three = Three { links, nodes, tasks, clocks };
        if ms != 0 {
            // The groups change hands first.
            pass(3_000).await;
        }
        let register = registration("made", Duration::from_secs(86_400));
        let mut made = 0;
        for node in three.nodes.values() {
            made += usize::from(node.command(register.clone()).await.is_ok());
        }
        assert_eq!(made, 1, "one node leads group 0");
        pass(500).await;
        three
    }

    fn ask(&self, node: NodeId, id: &str, input: Input) -> JoinHandle<Result<Reply, SubmitError>> {
        let (on, id) = (self.nodes[&node].clone(), id.to_owned());
        self.tasks[&node].spawn(async move {
            let namespace = on.namespace("made").await.expect("followed");
            on.submit(namespace, &id, input, 100).await
        })
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

    async fn begin(&self, on: NodeId, id: &str) -> bool {
        self.begin_for(on, id, 3_600_000_000_000).await
    }

    async fn begin_for(&self, on: NodeId, id: &str, run_timeout: u64) -> bool {
        let namespace = self.nodes[&on].namespace("made").await.expect("followed");
        let Input::Start(mut request) = start(id, id) else { unreachable!() };
        request.workflow_run_timeout = Some(holdfast_proto::duration(run_timeout));
        self.nodes[&on].submit(namespace, id, Input::Start(request), 100).await.is_ok()
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        self.tasks.values().for_each(|tasks| tasks.kill());
    }
}

/// DESIGN 8, A8: what such a leader stamps is wrong, and so is what it says is due.
#[test]
fn a_node_whose_clock_is_far_from_the_others_does_not_lead() {
    for ms in [33_000, 300, -300] {
        run(52, async move {
            let three = Three::with_first_ahead(ms).await;
            for n in 0..20 {
                let id = format!("w-{n}");
                let leader = three.leader_of(&id).await;
                assert_ne!(leader, NODES[0], "{ms} ms ahead");
                assert!(three.begin(leader, &id).await, "{ms} ms ahead");
            }
        });
    }
}

const HOUR: i64 = 3_600_000_000_000;

impl Three {
    /// Whether the run of `id` has been timed out.
    async fn is_over(&self, id: &str) -> bool {
        let leader = self.leader_of(id).await;
        let told = self.ask(leader, id, Input::Describe { run: None }).await.expect("runs");
        match told.expect("described") {
            Reply::Described(told) => {
                let info = told.workflow_execution_info.expect("told");
                info.close_time.is_some()
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Machines that slept for an hour, together, or a majority of them that was set right: they go by
/// their wall clocks within a second or so, and what fell due happens (DESIGN 8). None of those that
/// slept together could tell by the time of the others; by their wall clocks they do.
#[test]
fn a_majority_that_wakes_goes_on_with_the_time_that_is() {
    for woke in [&NODES[..], &NODES[..2], &NODES[1..]] {
        run(55, async move {
            let three = Three::start().await;
            let leader = three.leader_of("w").await;
            assert!(three.begin_for(leader, "w", 1_800_000_000_000).await);
            woke.iter().for_each(|node| three.clocks[node].step(HOUR));
            pass(1_000).await;
            for node in woke {
                let ahead = three.clocks[node].now().ahead_of(Hlc(EPOCH));
                assert!(ahead > HOUR, "{woke:?}, node {node}: {ahead}");
            }
            pass(2_000).await;
            assert!(three.is_over("w").await, "{woke:?}");
            assert!(woke.contains(&three.leader_of("w").await));
        });
    }
}

/// One wall clock of three is set wrong: its node does not follow it, and leads nothing either.
#[test]
fn a_wall_clock_that_is_alone_moves_nothing() {
    for by in [HOUR, -HOUR] {
        run(56, async move {
            let three = Three::start().await;
            let wrong = three.leader_of("w").await;
            assert!(three.begin_for(wrong, "w", 1_800_000_000_000).await);
            three.clocks[&wrong].step(by);
            pass(3_000).await;
            let off = three.clocks[&wrong].now().ahead_of(three.clocks[&wrong].wall());
            assert!((off + by).abs() < 1_000_000, "it follows nothing: {off}");
            assert_ne!(three.leader_of("w").await, wrong);
            assert!(!three.is_over("w").await);
            three.clocks[&wrong].step(-by);
            pass(1_000).await;
            assert!(!three.clocks[&wrong].standing().borrow().odd, "it is trusted again");
        });
    }
}

/// Who does not lead group 0 has to start all the same: it follows, votes, and may lead others.
#[test]
fn every_node_of_three_starts_and_follows_group_0() {
    run(51, async {
        let three = Three::start().await;
        let token = three.nodes[&1].seal(Purpose::Task, b"x");
        for (id, node) in &three.nodes {
            assert!(node.namespace("made").await.is_ok(), "node {id}");
            assert!(node.open(Purpose::Task, &token).is_some(), "node {id}");
        }
    });
}

/// openraft refuses proposals of a leader whose lease is over and lets it be leader; the shard must
/// not open reign after reign in vain.
#[test]
fn a_leader_that_is_cut_off_waits() {
    run(52, async {
        let three = Arc::new(Three::start().await);
        let mut leader = 0;
        for id in NODES {
            if three.begin(id, "w").await {
                leader = id;
            }
        }
        assert_ne!(leader, 0, "somebody leads");
        three.links.isolate(leader, NODES.into_iter().filter(|id| *id != leader));
        for _ in 0..50 {
            let three = three.clone();
            tokio::spawn(async move { three.begin(leader, "w").await });
            pass(100).await;
        }
        let looks = three.clocks[&leader].looks.load(Ordering::Relaxed);
        assert!(looks < 20_000, "{looks} turns in five seconds of silence");
        three.links.heal();
        pass(2_000).await;
        let mut led = 0;
        for id in NODES {
            led += usize::from(three.begin(id, "w").await);
        }
        assert_eq!(led, 1, "it goes on");
    });
}

/// A leader whose followers hear it while it does not hear them: it goes on leading, its proposals
/// are refused while its lease is over, and what was proposed before is neither applied nor void.
/// No new reign may be decided on tables without that (A2, DESIGN 3.2).
#[test]
fn a_reign_waits_for_what_was_proposed_before_it() {
    run(53, async {
        let three = Arc::new(Three::start().await);
        let leader = three.leader_of("w").await;
        let others: Vec<NodeId> = NODES.into_iter().filter(|id| *id != leader).collect();
        let mut cuts = 0;
        while cuts < 20 && three.leader_of("w").await == leader {
            cuts += 1;
            for other in &others {
                three.links.cut(*other, leader);
            }
            let mut asked = vec![three.ask(leader, "w", start("w", &format!("a{cuts}")))];
            for step in 0..120 {
                if step == 60 + cuts {
                    three.links.heal();
                }
                pass(10).await;
                let input = signal("w", &format!("{cuts}.{step}"));
                asked.push(three.ask(leader, "w", input));
            }
            for answer in asked {
                drop(answer.await.expect("runs"));
            }
            pass(1000).await;
            let end = rpc::TerminateWorkflowExecutionRequest {
                workflow_execution: Some(execution("w")),
                ..Default::default()
            };
            let now = three.leader_of("w").await;
            let ended = three.ask(now, "w", Input::Terminate(Box::new(end))).await.expect("runs");
            assert!(ended.is_ok(), "cut {cuts}: {ended:?}");
        }
        assert!(cuts > 1, "{cuts}");
    });
}

/// With the pipeline full and the open entry too, a deadline that falls due has to wait for the
/// disk, and the shard with it.
#[test]
fn a_full_pipeline_waits_for_the_disk() {
    run(54, async {
        let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
        let clock = Arc::new(Watched::new(EPOCH));
        let links = LoopLinks::new();
        let host = Host { clock: clock.clone(), ..host(1, &links, &log, &store) };
        let mut config = NodeConfig::sole(1);
        config.flush.on = FlushOn::Task(Duration::ZERO);
        (config.shard.pipeline, config.shard.entry_drafts) = (1, 1);
        let tasks = TaskGroup::new();
        let node = tasks.scope(Node::start(host, config)).await.expect("starts");
        node.serving().await.expect("serves");
        let register = registration("made", Duration::from_secs(86_400));
        node.command(register).await.expect("registered");
        let three = Arc::new(Three {
            links,
            nodes: [(1, node)].into(),
            tasks: [(1, tasks)].into(),
            clocks: [(1, clock)].into(),
        });
        // Its run times out while the disk hangs.
        assert!(three.begin_for(1, "due", 1_000_000_000).await);
        log.set_gated(true);
        let begins: Vec<_> = (0..3)
            .map(|n| {
                let three = three.clone();
                tokio::spawn(async move { three.begin(1, &format!("w{n}")).await })
            })
            .collect();
        pass(3_000).await;
        let looks = three.clocks[&1].looks.load(Ordering::Relaxed);
        assert!(looks < 1_000, "{looks} turns while the disk hung");
        log.set_gated(false);
        for begin in begins {
            assert!(begin.await.expect("runs"), "it goes on");
        }
    });
}
