//! One life of a node: the real node and its services over the fakes of this world.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::dynamic_config::Settings;
use holdfast_api::grpc::Frontend;
use holdfast_engine::Limits;
use holdfast_engine::matching::MatchingLimits;
use holdfast_raft::flusher::{FlushOn, FlushPlan};
use holdfast_raft::host::{Host, SeededRng};
use holdfast_raft::node::{Node, NodeConfig};
use holdfast_raft::rt::TaskGroup;
use holdfast_raft::shard::{AdmissionLimits, ShardConfig};
use holdfast_raft::types::NodeId;
use tokio::sync::watch;

use crate::clock::NodeClock;
use crate::disk::{SimLog, SimStore};
use crate::scenario::{Scenario, Sizes};
use crate::world::{Shared, Up};

/// What a node is born with.
pub(crate) struct Birth {
    pub(crate) node: NodeId,
    pub(crate) number: u32,
    pub(crate) tasks: Arc<TaskGroup>,
    pub(crate) clock: Arc<NodeClock>,
    pub(crate) log: Arc<SimLog>,
    pub(crate) store: Arc<SimStore>,
    pub(crate) rng: u64,
}

/// Starts a node and says what became of it. Runs outside of the node's tasks.
pub(crate) async fn live(world: Arc<Shared>, birth: Birth, members: BTreeSet<NodeId>) {
    let Birth { node, number, tasks, clock, log, store, rng } = birth;
    let config = config(&world.scenario, node, members);
    let settings = settings(&world.scenario);
    let host = Host {
        clock,
        rng: Arc::new(SeededRng::new(rng)),
        store: store.clone(),
        log: log.clone(),
        links: world.net.node(node),
    };
    tasks.spawn(log.commit());
    match tasks.spawn(Node::start(host, config)).await {
        Ok(Ok(started)) => {
            let (draining, drain) = watch::channel(false);
            let frontend = Frontend::new(started.clone(), Arc::new(settings), drain);
            let draining = Arc::new(draining);
            let up = Up { tasks, frontend, node: started, store, draining };
            world.is_up(node, number, up);
        }
        Ok(Err(why)) => world.refused(node, number, &why.to_string()),
        Err(why) if why.is_panic() => world.refused(node, number, "it panicked"),
        // Killed while it started.
        Err(_) => {}
    }
}

fn config(scenario: &Scenario, node: NodeId, members: BTreeSet<NodeId>) -> NodeConfig {
    let sizes = &scenario.sizes;
    let admission = AdmissionLimits { inputs: sizes.inbox, ..AdmissionLimits::default() };
    NodeConfig {
        node_id: node,
        members,
        shards: scenario.shards,
        limits: limits(sizes),
        shard: ShardConfig {
            pipeline: sizes.pipeline,
            entry_drafts: sizes.entry_drafts,
            start_flush: Duration::from_millis(sizes.start_flush_ms),
            cache_bytes: sizes.cache_bytes,
            admission,
        },
        polls: MatchingLimits::default(),
        flush: FlushPlan {
            bytes: sizes.flush_bytes,
            every: Duration::from_millis(sizes.flush_every_ms),
            keep: sizes.log_keep,
            look: Duration::from_millis(sizes.flush_look_ms),
            on: FlushOn::Task(Duration::from_millis(scenario.disk.flush_ms)),
        },
    }
}

/// Those of the product, but for what the scenario makes small.
fn limits(sizes: &Sizes) -> Limits {
    Limits {
        history_events_max: sizes.history_events,
        history_bytes_max: sizes.history_bytes,
        buffered_events: sizes.buffered_events,
        buffered_bytes: sizes.buffered_bytes,
        signals: sizes.signals,
        ..Limits::default()
    }
}

fn settings(scenario: &Scenario) -> Settings {
    let sizes = &scenario.sizes;
    Settings {
        limits: limits(sizes),
        history_wait: Duration::from_millis(sizes.history_wait_ms),
        poll_wait: Duration::from_millis(sizes.poll_ms),
        history_page_max: sizes.history_page,
        list_page_max: sizes.list_page,
        matching: MatchingLimits::default(),
        // Of connections, which a simulation has none of.
        ..Settings::default()
    }
}
