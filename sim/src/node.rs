//! One life of a node: the real node and its services over the fakes of this world.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::dynamic_config::Settings;
use holdfast_api::grpc::Frontend;
use holdfast_engine::Limits;
use holdfast_engine::matching::{MatchingLimits, Rate};
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
            entry_bytes: sizes.entry_bytes,
            start_flush: Duration::from_millis(sizes.start_flush_ms),
            cache_bytes: sizes.cache_bytes,
            deadlines: sizes.deadlines,
            low_water_every: sizes.low_water_every,
            low_water_margin: Duration::from_millis(sizes.low_water_margin_ms),
            backlog: sizes.backlog,
            parked: sizes.parked,
            admission,
        },
        polls: matching(sizes),
        flush: FlushPlan {
            bytes: sizes.flush_bytes,
            every: Duration::from_millis(sizes.flush_every_ms),
            keep: sizes.log_keep,
            look: Duration::from_millis(sizes.flush_look_ms),
            on: FlushOn::Task(Duration::from_millis(scenario.disk.flush_ms)),
        },
    }
}

fn matching(sizes: &Sizes) -> MatchingLimits {
    MatchingLimits {
        pollers_per_queue: sizes.pollers_per_queue,
        pollers_per_namespace: sizes.pollers_per_namespace,
        pollers: sizes.pollers,
        hubs: sizes.hubs,
        history: sizes.poller_history,
        idle: Duration::from_millis(sizes.hub_idle_ms),
        tasks_per_second: Rate::per_second(f64::from(sizes.tasks_per_second)),
    }
}

fn limits(sizes: &Sizes) -> Limits {
    // All of them: a limit that is built later has its size too.
    Limits {
        blob_bytes: sizes.blob_bytes,
        blob_bytes_warn: sizes.blob_bytes_warn,
        memo_bytes: sizes.memo_bytes,
        id_bytes: sizes.id_bytes,
        build_id_bytes: sizes.build_id_bytes,
        history_bytes_suggest: sizes.history_bytes_suggest,
        history_events_suggest: sizes.history_events_suggest,
        history_bytes_max: sizes.history_bytes,
        history_events_max: sizes.history_events,
        state_bytes: sizes.state_bytes,
        pending_activities: sizes.pending_activities,
        signals: sizes.signals,
        buffered_events: sizes.buffered_events,
        buffered_bytes: sizes.buffered_bytes,
        attached_requests: sizes.attached_requests,
        requests_remembered: sizes.requests_remembered,
        request_window: Duration::from_millis(sizes.request_window_ms),
        search_attribute_keys: sizes.search_attribute_keys,
        search_attribute_value_bytes: sizes.search_attribute_value_bytes,
        search_attributes_bytes: sizes.search_attributes_bytes,
        links: sizes.links,
        link_bytes: sizes.link_bytes,
        workflow_task_timeout: Duration::from_millis(sizes.task_timeout_ms),
        workflow_task_timeout_max: Duration::from_millis(sizes.task_timeout_max_ms),
        workflow_task_retry_max: Duration::from_millis(sizes.task_retry_max_ms),
        workflow_task_heartbeat: Duration::from_millis(sizes.task_heartbeat_ms),
        activity_failure_bytes: sizes.activity_failure_bytes,
        transaction_bytes: sizes.transaction_bytes,
    }
}

fn settings(scenario: &Scenario) -> Settings {
    let sizes = &scenario.sizes;
    Settings {
        limits: limits(sizes),
        history_wait: Duration::from_millis(sizes.history_wait_ms),
        poll_wait: Duration::from_millis(sizes.poll_ms),
        history_page_max: sizes.history_page,
        page_bytes: sizes.page_bytes,
        list_page_max: sizes.list_page,
        matching: matching(sizes),
        // Of connections, which a simulation has none of.
        ..Settings::default()
    }
}
