//! Temporal's limits and their defaults (surface 5). One value per limit, passed in by the shell.

use std::time::Duration;

/// What a request, a run or a queue may hold. Bytes unless the name says otherwise.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// `limit.blobSize.error`: one payload field.
    pub blob_bytes: usize,
    /// `limit.blobSize.warn`: what a failure that is too large is cut down to.
    pub blob_bytes_warn: usize,
    /// `limit.memoSize.error`.
    pub memo_bytes: usize,
    /// `limit.maxIDLength`: every id-like string.
    pub id_bytes: usize,
    /// `limit.workerBuildIdSize`: the build id of a worker.
    pub build_id_bytes: usize,
    /// `limit.historySize.suggestContinueAsNew`.
    pub history_bytes_suggest: u64,
    /// `limit.historyCount.suggestContinueAsNew`.
    pub history_events_suggest: i64,
    /// `limit.historySize.error`: the run is terminated.
    pub history_bytes_max: u64,
    /// `limit.historyCount.error`: the run is terminated.
    pub history_events_max: i64,
    /// `limit.mutableStateSize.error`: what a run remembers; the run is terminated.
    pub state_bytes: u64,
    /// `limit.numPendingActivities.error`.
    pub pending_activities: usize,
    /// `history.maximumSignalsPerExecution`.
    pub signals: u64,
    /// `history.maximumBufferedEventsBatch`.
    pub buffered_events: usize,
    /// `history.maximumBufferedEventsSizeInBytes`.
    pub buffered_bytes: usize,
    /// `history.requestIDsAttached` (ours): request ids that starts attach to one run and that
    /// outlast it; the oldest gives way. At least 1. The run itself knows all of its own.
    pub attached_requests: usize,
    /// `history.requestIDsRemembered` (ours): request ids that a workflow id remembers across its
    /// runs; the oldest gives way. At least 1.
    pub requests_remembered: usize,
    /// `history.requestIDRetention` (ours): how long it remembers each. A caller who tries longer
    /// than this may be taken for another one once the run that it met has given way.
    pub request_window: Duration,
    /// Search attributes: number of keys.
    pub search_attribute_keys: usize,
    /// Search attributes: one value.
    pub search_attribute_value_bytes: usize,
    /// Search attributes: all values together.
    pub search_attributes_bytes: usize,
    /// Links of one request.
    pub links: usize,
    /// One link.
    pub link_bytes: usize,
    /// `history.defaultWorkflowTaskTimeout`.
    pub workflow_task_timeout: Duration,
    /// `history.maxWorkflowTaskTimeout`.
    pub workflow_task_timeout_max: Duration,
    /// `history.workflowTaskRetryMaxInterval`.
    pub workflow_task_retry_max: Duration,
    /// `history.workflowTaskHeartbeatTimeout`.
    pub workflow_task_heartbeat: Duration,
    /// `mutableStateActivityFailureSizeLimitError`: of a failure kept for describe, which is cut
    /// down to it.
    pub activity_failure_bytes: usize,
    /// `system.transactionSizeLimit`: one draft.
    pub transaction_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            blob_bytes: 2 << 20,
            blob_bytes_warn: 512 << 10,
            memo_bytes: 2 << 20,
            id_bytes: 1000,
            build_id_bytes: 255,
            history_bytes_suggest: 4 << 20,
            history_events_suggest: 4096,
            history_bytes_max: 50 << 20,
            history_events_max: 51_200,
            state_bytes: 8 << 20,
            pending_activities: 2000,
            signals: 10_000,
            buffered_events: 100,
            buffered_bytes: 2 << 20,
            attached_requests: 100,
            requests_remembered: 1000,
            request_window: Duration::from_secs(600),
            search_attribute_keys: 100,
            search_attribute_value_bytes: 2 << 10,
            search_attributes_bytes: 40 << 10,
            links: 10,
            link_bytes: 4000,
            workflow_task_timeout: Duration::from_secs(10),
            workflow_task_timeout_max: Duration::from_secs(120),
            workflow_task_retry_max: Duration::from_secs(600),
            workflow_task_heartbeat: Duration::from_secs(1800),
            activity_failure_bytes: 4 << 10,
            transaction_bytes: 4 << 20,
        }
    }
}
