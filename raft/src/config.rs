//! The one place that configures openraft. Each value has its reason in `raft-sim-storage.md`.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

/// How often a leader is heard, in milliseconds.
pub const HEARTBEAT_MS: u64 = 100;
/// The shortest silence after which a follower campaigns.
pub const ELECTION_MIN_MS: u64 = 200;
/// The longest; also how long a leader's lease lasts.
pub const ELECTION_MAX_MS: u64 = 400;

/// openraft's settings for every group.
///
/// `enable_leader_restore` is off because a leader that lost its unsynced tail and comes back in
/// the same term would write other entries under ids that followers hold (section 3.2: replicas
/// diverged in 55 of 60 runs). Snapshots are never openraft's idea: purging follows the flushed
/// tables, which only the flusher knows.
pub fn raft_config(group: u32) -> Result<Arc<Config>, openraft::ConfigError> {
    let config = Config {
        cluster_name: format!("group-{group}"),
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 20_000,
        purge_batch_size: 256,
        max_payload_entries: 256,
        install_snapshot_timeout: 10_000,
        backoff: "20ms ..200ms".to_owned(),
        removed_leader_step_down: StepDownPolicy::After(ELECTION_MAX_MS),
        api_channel_size: Some(4096),
        state_machine_channel_size: Some(256),
        broadcast_submitted_on_append: None,
        allow_log_reversion: None,
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_cost_data_when_wrong() {
        let config = raft_config(3).expect("valid");
        assert_eq!(config.enable_leader_restore, Some(false), "or replicas diverge");
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never, "or purge overtakes the flush");
        assert_eq!(config.allow_log_reversion, None, "or a wiped disk rejoins");
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.heartbeat_interval, 100);
        assert_eq!((config.election_timeout_min, config.election_timeout_max), (200, 400));
        assert_eq!(config.removed_leader_step_down, StepDownPolicy::After(400));
        assert_eq!(config.max_in_snapshot_log_to_keep, 20_000);
        assert_eq!((config.purge_batch_size, config.max_payload_entries), (256, 256));
        assert_eq!(config.install_snapshot_timeout, 10_000);
        assert_eq!(config.backoff, "20ms ..200ms");
        assert_eq!(config.api_channel_size, Some(4096));
        assert_eq!(config.state_machine_channel_size, Some(256));
        assert_eq!(config.broadcast_submitted_on_append, None);
    }
}
