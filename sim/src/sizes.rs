//! Limits of the nodes that are drawn at random: small ones, so that rare paths are common. What no
//! run could live with is not drawn; `scenario.rs` says what each is.

use crate::rng::Rng;
use crate::scenario::{Sizes, WorkloadPlan};

/// Draws a number with a chance of one in `n`; keeps what is there otherwise.
macro_rules! now_and_then {
    ($rng:ident, $n:literal, $($field:ident).+ = $range:expr) => {
        if $rng.one_in($n) {
            $($field).+ = $rng.within($range) as _;
        }
    };
}

impl Sizes {
    pub(crate) fn randomised(rng: &mut Rng) -> Sizes {
        let mut sizes = Sizes::default();
        now_and_then!(rng, 2, sizes.pipeline = 1..7);
        now_and_then!(rng, 2, sizes.entry_drafts = 1..9);
        now_and_then!(rng, 2, sizes.start_flush_ms = 0..60);
        now_and_then!(rng, 2, sizes.cache_bytes = 0..64 << 10);
        now_and_then!(rng, 2, sizes.flush_bytes = 1..256 << 10);
        now_and_then!(rng, 2, sizes.flush_every_ms = 200..10_200);
        now_and_then!(rng, 3, sizes.flush_look_ms = 5..250);
        // More than a pipeline: the unsynced end of a log must not outlast what a leader purges.
        now_and_then!(rng, 2, sizes.log_keep = 8..208);
        now_and_then!(rng, 2, sizes.history_page = 1..5);
        now_and_then!(rng, 2, sizes.list_page = 1..11);
        now_and_then!(rng, 2, sizes.page_bytes = 1024..5120);
        sizes.small_limits(rng);
        sizes.small_requests(rng);
        sizes.small_shards(rng);
        sizes
    }

    /// Limits of runs that some runs reach: most of them end within a hundred events.
    fn small_limits(&mut self, rng: &mut Rng) {
        now_and_then!(rng, 4, self.history_events = 15..50);
        now_and_then!(rng, 5, self.history_bytes = 1_500..8_000);
        now_and_then!(rng, 2, self.buffered_events = 1..4);
        now_and_then!(rng, 4, self.buffered_bytes = 50..550);
        now_and_then!(rng, 4, self.signals = 2..10);
        now_and_then!(rng, 2, self.history_events_suggest = 3..30);
        now_and_then!(rng, 2, self.history_bytes_suggest = 300..3_000);
        now_and_then!(rng, 6, self.state_bytes = 2_000..6_000);
        now_and_then!(rng, 6, self.transaction_bytes = 400..1_600);
        // Three are what a program has at most.
        now_and_then!(rng, 2, self.pending_activities = 3..6);
        now_and_then!(rng, 2, self.task_retry_max_ms = 1_000..20_000);
        now_and_then!(rng, 2, self.task_timeout_max_ms = 1_000..4_000);
        now_and_then!(rng, 2, self.task_heartbeat_ms = 200..5_000);
    }

    /// Limits of requests that none, or hardly any, of the simulator is over, but for blobs.
    fn small_requests(&mut self, rng: &mut Rng) {
        now_and_then!(rng, 2, self.blob_bytes = 300..5_000);
        self.blob_bytes_warn = self.blob_bytes_warn.min(self.blob_bytes / 2);
        now_and_then!(rng, 3, self.memo_bytes = 200..1_000);
        now_and_then!(rng, 3, self.id_bytes = 60..200);
        now_and_then!(rng, 3, self.build_id_bytes = 0..20);
        now_and_then!(rng, 3, self.search_attribute_keys = 1..3);
        now_and_then!(rng, 3, self.search_attribute_value_bytes = 20..100);
        now_and_then!(rng, 3, self.search_attributes_bytes = 60..300);
        now_and_then!(rng, 3, self.links = 0..2);
        now_and_then!(rng, 3, self.link_bytes = 0..200);
        now_and_then!(rng, 3, self.activity_failure_bytes = 20..200);
    }

    /// What shards hold in memory.
    fn small_shards(&mut self, rng: &mut Rng) {
        now_and_then!(rng, 2, self.entry_bytes = 200..6_000);
        now_and_then!(rng, 2, self.deadlines = 1..20);
        now_and_then!(rng, 2, self.low_water_every = 1..50);
        now_and_then!(rng, 2, self.low_water_margin_ms = 0..5_000);
        now_and_then!(rng, 2, self.backlog = 1..8);
        now_and_then!(rng, 3, self.parked = 1..10);
    }

    /// What depends on how many call: with room for polls and memories that callers rely on.
    pub(crate) fn small_memories(&mut self, plan: &WorkloadPlan, rng: &mut Rng) {
        let (workers, queues) = (u64::from(plan.workers), u64::from(plan.queues));
        now_and_then!(rng, 3, self.pollers_per_queue = 2..10);
        now_and_then!(rng, 3, self.pollers_per_namespace = 2 * workers..4 * workers);
        now_and_then!(rng, 3, self.pollers = 4 * workers..8 * workers);
        let hubs = 2 * (workers + queues);
        now_and_then!(rng, 3, self.hubs = hubs..2 * hubs);
        now_and_then!(rng, 3, self.poller_history = 1..5);
        now_and_then!(rng, 3, self.hub_idle_ms = 500..20_000);
        now_and_then!(rng, 6, self.tasks_per_second = 10..60);
        // A caller tries for twenty seconds, and what a paused node holds may be as old again: so
        // long, and of so many calls on one id, request ids must be remembered.
        now_and_then!(rng, 2, self.request_window_ms = 60_000..120_000);
        let calls = u64::from(plan.operations_per_second) * 60;
        let per_id = 20 + 2 * calls / u64::from(plan.workflow_ids.max(1));
        now_and_then!(rng, 2, self.requests_remembered = per_id..2 * per_id);
        now_and_then!(rng, 2, self.attached_requests = per_id..2 * per_id);
    }
}
