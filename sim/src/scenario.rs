//! What a run is made of: a short TOML file for people, or drawn from the seed for a swarm.
//!
//! Every field has a default, so a file says only what is special about it. Times are whole numbers
//! with their unit in the name; chances are millionths (`ppm`); weights are relative to each other.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::rng::Rng;

/// A scenario. `Default` is the one that speed is measured with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// Voters: 1, 3 or 5.
    pub nodes: u32,
    /// Shards, 1 to 64.
    pub shards: u32,
    /// Simulated seconds with faults: the safety phase.
    pub seconds: u32,
    /// Simulated seconds that clients go on once the faults have stopped.
    pub calm_seconds: u32,
    /// Simulated seconds that everything may take to finish after that.
    pub liveness_seconds: u32,
    /// Who calls, and how often.
    pub workload: WorkloadPlan,
    /// What breaks, and how often.
    pub faults: FaultPlan,
    /// The network when nothing is broken.
    pub net: NetPlan,
    /// The disks when nothing is broken.
    pub disk: DiskPlan,
    /// The clocks when nothing is broken.
    pub clocks: ClockPlan,
    /// Limits of the nodes.
    pub sizes: Sizes,
    /// The seed that the file is about; without one the caller names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// These faults, in place of those that the seed and the weights give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Vec<Fault>>,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: "default".to_owned(),
            nodes: 3,
            shards: 4,
            seconds: 120,
            calm_seconds: 30,
            liveness_seconds: 300,
            workload: WorkloadPlan::default(),
            faults: FaultPlan::default(),
            net: NetPlan::default(),
            disk: DiskPlan::default(),
            clocks: ClockPlan::default(),
            sizes: Sizes::default(),
            seed: None,
            fault: None,
        }
    }
}

/// Who calls, and how often.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadPlan {
    /// Scripted workers; each polls every node.
    pub workers: u32,
    /// Clients.
    pub clients: u32,
    /// Operations that all clients together begin in a simulated second.
    pub operations_per_second: u32,
    /// Task queues.
    pub queues: u32,
    /// Workflow ids that clients race on.
    pub workflow_ids: u32,
    /// Tasks in a second that the polls for activities of the first queue ask for; 0 asks for
    /// nothing. A node limits what it hands out itself.
    pub activity_rate: u32,
    /// How often each kind of operation comes, by its name; kinds that are not named keep their
    /// default.
    pub weights: BTreeMap<String, u32>,
}

impl Default for WorkloadPlan {
    fn default() -> WorkloadPlan {
        WorkloadPlan {
            workers: 16,
            clients: 8,
            operations_per_second: 50,
            queues: 3,
            workflow_ids: 40,
            activity_rate: 0,
            weights: BTreeMap::new(),
        }
    }
}

/// What breaks, and how often. The weight of a kind is how often it comes, relative to the others;
/// 0 is never.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// Faults in a thousand simulated seconds.
    pub per_kilosecond: u32,
    /// The longest that a fault lasts, in milliseconds; most are much shorter.
    pub longest_ms: u64,
    /// A node dies where it stands, and starts again on what its disk kept.
    pub crash: u32,
    /// A node dies inside its next write to the tables, its next flush or its next sync.
    pub crash_in_write: u32,
    /// All nodes lose power at once.
    pub power_loss: u32,
    /// A node is stopped cleanly and started again.
    pub restart: u32,
    /// A node stands still, then goes on.
    pub pause: u32,
    /// One node is cut off from all others.
    pub isolate: u32,
    /// The nodes fall into two halves that do not hear each other.
    pub split: u32,
    /// One direction between two nodes is cut.
    pub one_way: u32,
    /// Two nodes do not hear each other, the others hear both.
    pub bridge: u32,
    /// The link of two nodes goes down and up many times.
    pub flap: u32,
    /// Links are cut one by one and healed in random order.
    pub swizzle: u32,
    /// Messages between two nodes take long.
    pub slow_link: u32,
    /// Messages of all nodes are lost and doubled.
    pub lossy: u32,
    /// Clients do not reach a node, or do not hear its answers.
    pub client_cut: u32,
    /// Each sync of a node takes long.
    pub slow_disk: u32,
    /// No sync of a node ends.
    pub hung_disk: u32,
    /// A sync of a node fails; the node must end.
    pub failed_sync: u32,
    /// No sync of a node can succeed until there is space again; each start fails.
    pub full_disk: u32,
    /// A bit of a node's log flips; the node must not start again. It stays down for good.
    pub bit_flip: u32,
    /// A node's wall clock jumps, the node restarts and believes it. At most a minority at once.
    pub clock_jump: u32,
    /// All machines sleep: when they wake, their wall clocks show what they missed and their boot
    /// clocks do not.
    pub slept: u32,
    /// The wall clocks of all nodes are set wrong, one after the other or while the nodes are down;
    /// in the end they are set right, under nodes that run.
    pub set_wrong: u32,
}

impl Default for FaultPlan {
    fn default() -> FaultPlan {
        FaultPlan {
            per_kilosecond: 1000,
            longest_ms: 10_000,
            crash: 10,
            crash_in_write: 6,
            power_loss: 1,
            restart: 3,
            pause: 4,
            isolate: 5,
            split: 3,
            one_way: 4,
            bridge: 3,
            flap: 2,
            swizzle: 2,
            slow_link: 3,
            lossy: 3,
            client_cut: 4,
            slow_disk: 3,
            hung_disk: 2,
            failed_sync: 3,
            full_disk: 1,
            bit_flip: 0,
            clock_jump: 2,
            slept: 1,
            set_wrong: 1,
        }
    }
}

/// The network when nothing is broken.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetPlan {
    /// The shortest way of a message, in microseconds. Timers go by the millisecond, so the world
    /// rounds up.
    pub delay_min_us: u64,
    /// The usual longest way of a message, in microseconds; one in a hundred takes ten times that.
    pub delay_max_us: u64,
    /// Messages lost.
    pub loss_ppm: u32,
    /// Messages that arrive twice.
    pub duplicate_ppm: u32,
}

impl Default for NetPlan {
    fn default() -> NetPlan {
        NetPlan { delay_min_us: 0, delay_max_us: 2_000, loss_ppm: 100, duplicate_ppm: 100 }
    }
}

/// The disks when nothing is broken.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskPlan {
    /// The shortest sync, in microseconds.
    pub sync_min_us: u64,
    /// The usual longest sync, in microseconds; one in a hundred takes twenty times that.
    pub sync_max_us: u64,
    /// How long a flush of the tables takes, in milliseconds; what is applied meanwhile waits for
    /// the next one.
    pub flush_ms: u64,
}

impl Default for DiskPlan {
    fn default() -> DiskPlan {
        DiskPlan { sync_min_us: 0, sync_max_us: 4_000, flush_ms: 30 }
    }
}

impl DiskPlan {
    /// One sync in a hundred takes so many times as long as it usually would.
    pub const RARELY: u64 = 20;

    /// The longest that a sync takes when nothing is broken.
    pub fn slowest_sync(&self) -> Duration {
        Duration::from_micros(self.sync_max_us.saturating_mul(DiskPlan::RARELY))
    }
}

/// The clocks when nothing is broken.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockPlan {
    /// How far a node's wall clock is off the truth, at most, in milliseconds, either way.
    pub skew_ms: u64,
    /// How wrong the rate of a node's own clock is, at most, in millionths, either way.
    pub drift_ppm: u64,
}

impl Default for ClockPlan {
    fn default() -> ClockPlan {
        ClockPlan { skew_ms: 100, drift_ppm: 200 }
    }
}

/// Limits of the nodes. The defaults are those of the product, but for the flushes, which come more
/// often so that a short run has some.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sizes {
    /// Entries of a shard on their way at once.
    pub pipeline: usize,
    /// Drafts in one entry.
    pub entry_drafts: usize,
    /// How long a start may stay a grant, in milliseconds.
    pub start_flush_ms: u64,
    /// Bytes of executions that a node holds in memory, over all shards.
    pub cache_bytes: usize,
    /// Bytes of rows that a flush waits for.
    pub flush_bytes: u64,
    /// How old unflushed rows become, in milliseconds.
    pub flush_every_ms: u64,
    /// How often a node looks whether a flush is due, in milliseconds.
    pub flush_look_ms: u64,
    /// Entries that the log keeps below what the tables hold.
    pub log_keep: u64,
    /// How long a poll waits for a task, in milliseconds.
    pub poll_ms: u64,
    /// How long a read of history waits for news, in milliseconds.
    pub history_wait_ms: u64,
    /// Batches in a page of history.
    pub history_page: usize,
    /// Bytes of an answer that holds events, a single event aside.
    pub page_bytes: usize,
    /// Executions in a page of a list.
    pub list_page: usize,
    /// Inputs that wait in a shard's inbox.
    pub inbox: usize,
    /// Events that a history may have; a run with more is terminated.
    pub history_events: i64,
    /// Bytes that a history may have; a run with more is terminated.
    pub history_bytes: u64,
    /// Events that wait for a workflow task to end; with more it is ended for them.
    pub buffered_events: usize,
    /// Bytes of events that wait for a workflow task to end; with more it is ended for them.
    pub buffered_bytes: usize,
    /// Signals that a run takes; more are refused.
    pub signals: u64,
    /// Bytes of drafts in an entry of several decisions.
    pub entry_bytes: usize,
    /// Deadlines that a shard holds in memory.
    pub deadlines: usize,
    /// Deadlines that fire before the low-water key of their table moves.
    pub low_water_every: u64,
    /// How far that key stays behind the clock, in milliseconds.
    pub low_water_margin_ms: u64,
    /// Tasks of a queue and priority that a shard holds in memory.
    pub backlog: usize,
    /// Long polls that a shard parks; more are refused.
    pub parked: usize,
    /// Polls of one queue that wait on a node; more are refused, as in the next two.
    pub pollers_per_queue: usize,
    /// Polls of one namespace and type.
    pub pollers_per_namespace: usize,
    /// Polls of a node.
    pub pollers: usize,
    /// Queues that a node has hubs for.
    pub hubs: usize,
    /// Identities of pollers that a queue remembers.
    pub poller_history: usize,
    /// How long a hub without use is kept, in milliseconds.
    pub hub_idle_ms: u64,
    /// Tasks of any queue that a node hands out in a second.
    pub tasks_per_second: u32,
    /// Bytes of one payload field; a call with more is refused.
    pub blob_bytes: usize,
    /// Bytes that a failure is cut down to which is larger than `blob_bytes`.
    pub blob_bytes_warn: usize,
    /// Bytes of a memo.
    pub memo_bytes: usize,
    /// Bytes of an id; the simulator's own are shorter than 60.
    pub id_bytes: usize,
    /// Bytes of a worker's build id.
    pub build_id_bytes: usize,
    /// Bytes of history from which on a worker is told to continue as new.
    pub history_bytes_suggest: u64,
    /// Events from which on a worker is told so.
    pub history_events_suggest: i64,
    /// Bytes that a run remembers; one with more is terminated.
    pub state_bytes: u64,
    /// Bytes that one workflow task may add to a history; the run of one that adds more ends.
    pub transaction_bytes: usize,
    /// Activities of a run that wait or run at once; at least 3, which is what programs ask for.
    pub pending_activities: usize,
    /// Request ids attached to one run that outlast it.
    pub attached_requests: usize,
    /// Request ids that a workflow id remembers across runs.
    pub requests_remembered: usize,
    /// How long it remembers them, in milliseconds.
    pub request_window_ms: u64,
    /// Search attributes of a request.
    pub search_attribute_keys: usize,
    /// Bytes of one of them.
    pub search_attribute_value_bytes: usize,
    /// Bytes of all of them.
    pub search_attributes_bytes: usize,
    /// Links of a request.
    pub links: usize,
    /// Bytes of a link.
    pub link_bytes: usize,
    /// What a workflow task has that asks for no timeout, in milliseconds.
    pub task_timeout_ms: u64,
    /// The longest timeout of a workflow task, in milliseconds.
    pub task_timeout_max_ms: u64,
    /// The longest wait between attempts of a workflow task, in milliseconds.
    pub task_retry_max_ms: u64,
    /// How long a workflow task may be kept alive by heartbeats, in milliseconds.
    pub task_heartbeat_ms: u64,
    /// Bytes of a failure that a run keeps of an attempt.
    pub activity_failure_bytes: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            pipeline: 2,
            entry_drafts: 512,
            start_flush_ms: 20,
            cache_bytes: 64 << 20,
            flush_bytes: 16 << 20,
            flush_every_ms: 5_000,
            flush_look_ms: 250,
            log_keep: 20_000,
            poll_ms: 20_000,
            history_wait_ms: 20_000,
            history_page: 256,
            page_bytes: 4 << 20,
            list_page: 1000,
            inbox: 16_384,
            history_events: 51_200,
            history_bytes: 50 << 20,
            buffered_events: 100,
            buffered_bytes: 2 << 20,
            signals: 10_000,
            entry_bytes: 1 << 20,
            deadlines: 20_000,
            low_water_every: 1000,
            low_water_margin_ms: 60_000,
            backlog: 10_000,
            parked: 20_000,
            pollers_per_queue: 1000,
            pollers_per_namespace: 1200,
            pollers: 20_000,
            hubs: 50_000,
            poller_history: 100,
            hub_idle_ms: 300_000,
            tasks_per_second: 100_000,
            blob_bytes: 2 << 20,
            blob_bytes_warn: 512 << 10,
            memo_bytes: 2 << 20,
            id_bytes: 1000,
            build_id_bytes: 255,
            history_bytes_suggest: 4 << 20,
            history_events_suggest: 4096,
            state_bytes: 8 << 20,
            transaction_bytes: 4 << 20,
            pending_activities: 2000,
            attached_requests: 100,
            requests_remembered: 1000,
            request_window_ms: 600_000,
            search_attribute_keys: 100,
            search_attribute_value_bytes: 2 << 10,
            search_attributes_bytes: 40 << 10,
            links: 10,
            link_bytes: 4000,
            task_timeout_ms: 10_000,
            task_timeout_max_ms: 120_000,
            task_retry_max_ms: 600_000,
            task_heartbeat_ms: 1_800_000,
            activity_failure_bytes: 4 << 10,
        }
    }
}

/// Why a scenario is refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not TOML, or names what there is not.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A number that the world can't be built with.
    #[error("{0}")]
    Value(&'static str),
}

impl Scenario {
    /// Reads a scenario from TOML. With `only = true` among its faults, kinds that it does not name
    /// never come.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        let mut table: toml::Table = toml::from_str(text)?;
        let faults = table.get_mut("faults").and_then(toml::Value::as_table_mut);
        if let Some(faults) = faults
            && faults.remove("only") == Some(toml::Value::Boolean(true))
        {
            let kinds = toml::Table::try_from(FaultPlan::default()).unwrap_or_default();
            let rates = ["per_kilosecond", "longest_ms"];
            for kind in kinds.keys().filter(|kind| !rates.contains(&kind.as_str())) {
                faults.entry(kind).or_insert(toml::Value::Integer(0));
            }
        }
        let scenario: Scenario = table.try_into()?;
        scenario.check()?;
        Ok(scenario)
    }

    /// As TOML, every field.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// As TOML, without what is as it is by default.
    pub fn to_short_toml(&self) -> String {
        let tables = (toml::Table::try_from(self), toml::Table::try_from(Scenario::default()));
        let (Ok(mut own), Ok(usual)) = tables else { return self.to_toml() };
        special(&mut own, &usual);
        toml::to_string(&own).unwrap_or_default()
    }

    /// Whether a world can be built with it.
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        let bad = |what| Err(ScenarioError::Value(what));
        if !matches!(self.nodes, 1 | 3 | 5) {
            return bad("nodes is 1, 3 or 5");
        }
        if !(1..=64).contains(&self.shards) {
            return bad("shards is 1 to 64");
        }
        if self.net.delay_max_us < self.net.delay_min_us {
            return bad("net.delay_max_us is at least net.delay_min_us");
        }
        if self.disk.sync_max_us < self.disk.sync_min_us {
            return bad("disk.sync_max_us is at least disk.sync_min_us");
        }
        if self.sizes.pipeline == 0 || self.sizes.entry_drafts == 0 || self.sizes.inbox < 8 {
            return bad("sizes.pipeline and sizes.entry_drafts are at least 1, sizes.inbox 8");
        }
        for fault in self.fault.iter().flatten() {
            fault.check(self.nodes).map_err(ScenarioError::Value)?;
        }
        let mut ids: Vec<u32> = self.fault.iter().flatten().map(|fault| fault.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return bad("the ids of faults differ");
        }
        Ok(())
    }

    /// Nodes that may be wrong or away without taking the quorum along.
    pub fn minority(&self) -> u32 {
        self.nodes.saturating_sub(1) / 2
    }

    /// A scenario that follows from the seed: another number of nodes, small limits, another mix of
    /// faults, so that rare paths are common. It lasts 120 to 420 simulated seconds before the calm;
    /// most are quiet (timers, leases and elections come into their own), some are crowded.
    pub fn randomised(seed: u64) -> Scenario {
        let mut rng = Rng::stream(seed, "scenario");
        let mut scenario = Scenario {
            name: "randomised".to_owned(),
            nodes: [1, 3, 3, 3, 5][rng.below(5) as usize],
            shards: 1 + rng.below(4) as u32,
            seconds: 120 + rng.below(301) as u32,
            ..Scenario::default()
        };
        scenario.sizes = Sizes::randomised(&mut rng);
        scenario.faults = FaultPlan::randomised(&mut rng);
        scenario.workload = WorkloadPlan {
            workers: 4 + rng.below(16) as u32,
            clients: 2 + rng.below(10) as u32,
            operations_per_second: 3 + (rng.below(10) * rng.below(10)) as u32,
            queues: 1 + rng.below(4) as u32,
            workflow_ids: 5 + rng.below(60) as u32,
            activity_rate: 0,
            weights: BTreeMap::new(),
        };
        if rng.one_in(3) {
            scenario.net.loss_ppm = rng.below(20_000) as u32;
            scenario.net.duplicate_ppm = rng.below(20_000) as u32;
        }
        if rng.one_in(3) {
            scenario.net.delay_max_us = 1_000 + rng.below(40_000);
        }
        if rng.one_in(3) {
            scenario.disk.sync_max_us = rng.below(50_000);
        }
        if rng.one_in(3) {
            scenario.disk.flush_ms = rng.below(1_000);
        }
        if rng.one_in(3) {
            scenario.workload.activity_rate = 2 + rng.below(10) as u32;
        }
        scenario.sizes.small_memories(&scenario.workload, &mut rng);
        scenario
    }
}

/// Takes out of a table what another one has too.
fn special(own: &mut toml::Table, usual: &toml::Table) {
    own.retain(|name, value| {
        if let (toml::Value::Table(inner), Some(toml::Value::Table(other))) =
            (&mut *value, usual.get(name))
        {
            special(inner, other);
            return !inner.is_empty();
        }
        usual.get(name) != Some(value)
    });
}

impl FaultPlan {
    /// No faults at all.
    pub fn none() -> FaultPlan {
        let mut plan = FaultPlan::default();
        for weight in plan.weights_mut() {
            *weight = 0;
        }
        plan.per_kilosecond = 0;
        plan
    }

    fn randomised(rng: &mut Rng) -> FaultPlan {
        let mut plan = FaultPlan { bit_flip: 1, ..FaultPlan::default() };
        // Some kinds are left out and some come often: a mix of everything hides what only a long
        // stretch of one kind shows.
        for weight in plan.weights_mut() {
            *weight = match rng.below(4) {
                0 => 0,
                1 => *weight * 4,
                _ => *weight,
            };
        }
        plan.per_kilosecond = [200, 500, 1000, 1000, 2000][rng.below(5) as usize];
        plan.longest_ms = [1_000, 5_000, 10_000, 20_000][rng.below(4) as usize];
        plan
    }

    fn weights_mut(&mut self) -> [&mut u32; 22] {
        [
            &mut self.crash,
            &mut self.crash_in_write,
            &mut self.power_loss,
            &mut self.restart,
            &mut self.pause,
            &mut self.isolate,
            &mut self.split,
            &mut self.one_way,
            &mut self.bridge,
            &mut self.flap,
            &mut self.swizzle,
            &mut self.slow_link,
            &mut self.lossy,
            &mut self.client_cut,
            &mut self.slow_disk,
            &mut self.hung_disk,
            &mut self.failed_sync,
            &mut self.full_disk,
            &mut self.bit_flip,
            &mut self.clock_jump,
            &mut self.slept,
            &mut self.set_wrong,
        ]
    }

    /// The weights in the order of [`crate::faults::KINDS`].
    pub fn weights(&self) -> [u32; 22] {
        let mut copy = self.clone();
        copy.weights_mut().map(|weight| *weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_only_what_is_special() {
        let text = "name = \"slow\"\nnodes = 5\n[faults]\ncrash = 0\n[sizes]\npipeline = 1\n";
        let scenario = Scenario::parse(text).expect("parses");
        assert_eq!((scenario.nodes, scenario.seconds, scenario.faults.crash), (5, 120, 0));
        assert_eq!(Scenario::parse(&scenario.to_toml()).expect("parses"), scenario);
    }

    #[test]
    fn a_list_of_faults_is_read_as_it_is_written() {
        let mut scenario = Scenario::randomised(5);
        scenario.fault = Some(crate::faults::schedule(5, &scenario));
        scenario.seed = Some(5);
        assert_eq!(Scenario::parse(&scenario.to_short_toml()).expect("parses"), scenario);
        assert_eq!(Scenario::default().to_short_toml(), "");
        let by_hand = "[[fault]]\nid = 1\nkind = \"crash\"\nat_ms = 5\nnodes = [2]\n";
        let scenario = Scenario::parse(by_hand).expect("parses");
        assert_eq!(scenario.fault.map(|list| list.len()), Some(1));
        for wrong in ["crash\"\nnodes = [9]", "bridge\"\nnodes = [2]", "crash\"\nnodes = []"] {
            let text = format!("[[fault]]\nid = 1\nat_ms = 5\nkind = \"{wrong}\n");
            assert!(Scenario::parse(&text).is_err(), "{text}");
        }
        assert!(Scenario::parse(&format!("{by_hand}{by_hand}")).is_err(), "one id twice");
    }

    #[test]
    fn what_there_is_not_is_refused() {
        for text in ["nodes = 2", "nods = 3", "[sizes]\npipeline = 0", "[faults]\nmeteor = 1"] {
            assert!(Scenario::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn random_scenarios_are_valid_and_differ() {
        let drawn: Vec<_> = (0..50).map(Scenario::randomised).collect();
        assert!(drawn.iter().all(|scenario| scenario.check().is_ok()));
        assert!([1, 3, 5].iter().all(|n| drawn.iter().any(|scenario| scenario.nodes == *n)));
        assert_eq!(drawn[3], Scenario::randomised(3));
        assert_ne!(drawn[3], drawn[4]);
    }
}
