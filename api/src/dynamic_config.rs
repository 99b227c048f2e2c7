//! The switches of `--dynamic-config-value KEY=JSON`, under the names that Temporal gave them.
//!
//! SDK test suites and launchers set many. All that are known stand in one table; those that say
//! only "be as you are" or steer what is not built yet are accepted without effect. A key that
//! nobody knows is worth a warning and no more.

use std::time::Duration;

use holdfast_engine::Limits;
use holdfast_engine::matching::{MatchingLimits, Rate};
use holdfast_raft::entry::EXECUTION_ID_BYTES;
use serde_json::Value;

/// What dynamic config can change.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Temporal's limits.
    pub limits: Limits,
    /// `history.longPollExpirationInterval`: how long a read of history waits for news.
    pub history_wait: Duration,
    /// `matching.longPollExpirationInterval`: how long a poll waits for a task.
    pub poll_wait: Duration,
    /// `limit.historyMaxPageSize`: batches in a page of history.
    pub history_page_max: usize,
    /// `frontend.pageBytes` (ours): bytes of an answer that holds events, be it a page of history or
    /// a task; 4 MiB, the most that a client of gRPC takes by default. An answer with a single event
    /// is as large as that event.
    pub page_bytes: usize,
    /// What matching may hold, and how fast it hands out.
    pub matching: MatchingLimits,
    /// `frontend.visibilityMaxPageSize`: executions in a page of a list.
    pub list_page_max: usize,
    /// `frontend.handshakeTimeout` (ours): how long a peer may take to finish HTTP/2's greeting.
    pub handshake: Duration,
    /// `frontend.metadataSize` (ours): bytes of metadata that a call may have, as HTTP/2 counts.
    /// More is RESOURCE_EXHAUSTED; more than 16 MiB is HTTP's 431, after which the connection lives
    /// on (in the reference it ends).
    pub metadata_bytes: usize,
    /// `frontend.shutdownDrainDuration`: how long calls in flight may take once the server stops.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            limits: Limits::default(),
            history_wait: Duration::from_secs(20),
            poll_wait: Duration::from_secs(60),
            history_page_max: 256,
            page_bytes: 4 << 20,
            list_page_max: 1000,
            matching: MatchingLimits::default(),
            // That of gRPC for Go.
            handshake: Duration::from_secs(120),
            metadata_bytes: 1 << 20,
            drain: Duration::from_secs(10),
        }
    }
}

/// What a known key does.
#[derive(Clone, Copy)]
enum Effect {
    /// A number that is not negative.
    Count(fn(&mut Settings, u64)),
    /// Any number: so many a second.
    PerSecond(fn(&mut Settings, Rate)),
    /// A duration: a text such as "1.5s", or seconds. At most 292 years, the longest there is in Go.
    Time(fn(&mut Settings, Duration)),
    /// None: it asks for what is always so, or for what is not built.
    None,
}

use Effect::{Count, None as Accepted, PerSecond, Time};

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn events(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Every known key, in lower case: keys are compared without case.
const KEYS: &[(&str, Effect)] = &[
    // Limits.
    ("limit.blobsize.error", Count(|s, n| s.limits.blob_bytes = size(n))),
    ("limit.blobsize.warn", Accepted),
    ("limit.memosize.error", Count(|s, n| s.limits.memo_bytes = size(n))),
    ("limit.memosize.warn", Accepted),
    // Entries of the log take no longer ones (and nor do Temporal's databases).
    ("limit.maxidlength", Count(|s, n| s.limits.id_bytes = size(n).min(EXECUTION_ID_BYTES))),
    ("limit.workerbuildidsize", Count(|s, n| s.limits.build_id_bytes = size(n))),
    ("limit.historysize.suggestcontinueasnew", Count(|s, n| s.limits.history_bytes_suggest = n)),
    ("limit.historysize.warn", Accepted),
    ("limit.historysize.error", Count(|s, n| s.limits.history_bytes_max = n)),
    (
        "limit.historycount.suggestcontinueasnew",
        Count(|s, n| s.limits.history_events_suggest = events(n)),
    ),
    ("limit.historycount.warn", Accepted),
    ("limit.historycount.error", Count(|s, n| s.limits.history_events_max = events(n))),
    ("limit.mutablestatesize.error", Count(|s, n| s.limits.state_bytes = n)),
    ("limit.mutablestatesize.warn", Accepted),
    ("limit.numpendingactivities.error", Count(|s, n| s.limits.pending_activities = size(n))),
    ("limit.historymaxpagesize", Count(|s, n| s.history_page_max = size(n).max(1))),
    ("history.maximumsignalsperexecution", Count(|s, n| s.limits.signals = n)),
    ("history.maximumbufferedeventsbatch", Count(|s, n| s.limits.buffered_events = size(n))),
    ("history.maximumbufferedeventssizeinbytes", Count(|s, n| s.limits.buffered_bytes = size(n))),
    ("history.requestidsattached", Count(|s, n| s.limits.attached_requests = size(n).max(1))),
    ("history.requestidsremembered", Count(|s, n| s.limits.requests_remembered = size(n).max(1))),
    ("frontend.visibilitymaxpagesize", Count(|s, n| s.list_page_max = size(n).max(1))),
    // Temporal has one for each partition of a queue; a queue here has no partitions.
    (
        "admin.matchingnamespacetaskqueuetopartitiondispatchrate",
        PerSecond(|s, rate| s.matching.tasks_per_second = rate),
    ),
    ("system.transactionsizelimit", Count(|s, n| s.limits.transaction_bytes = size(n))),
    ("frontend.pagebytes", Count(|s, n| s.page_bytes = size(n))),
    ("frontend.metadatasize", Count(|s, n| s.metadata_bytes = size(n))),
    // Times.
    ("frontend.handshaketimeout", Time(|s, d| s.handshake = d)),
    ("frontend.shutdowndrainduration", Time(|s, d| s.drain = d)),
    ("history.defaultworkflowtasktimeout", Time(|s, d| s.limits.workflow_task_timeout = d)),
    ("history.maxworkflowtasktimeout", Time(|s, d| s.limits.workflow_task_timeout_max = d)),
    ("history.workflowtaskretrymaxinterval", Time(|s, d| s.limits.workflow_task_retry_max = d)),
    ("history.workflowtaskheartbeattimeout", Time(|s, d| s.limits.workflow_task_heartbeat = d)),
    ("history.requestidretention", Time(|s, d| s.limits.request_window = d)),
    ("history.longpollexpirationinterval", Time(|s, d| s.history_wait = d)),
    ("matching.longpollexpirationinterval", Time(|s, d| s.poll_wait = d)),
    // What the suites set: always so here, or not built yet.
    ("activity.enablecallbacks", Accepted),
    ("activity.enablestandalone", Accepted),
    ("activity.longpolltimeout", Accepted),
    ("activity.startdelayenabled", Accepted),
    ("callback.allowedaddresses", Accepted),
    ("component.callbacks.allowedaddresses", Accepted),
    ("component.nexusoperations.callback.endpoint.template", Accepted),
    ("component.nexusoperations.recordcancelrequestcompletionevents", Accepted),
    ("component.nexusoperations.usesystemcallbackurl", Accepted),
    ("frontend.activityapisenabled", Accepted),
    ("frontend.enablebatchoperationsforstandaloneactivities", Accepted),
    ("frontend.enablecancelworkerpollsonshutdown", Accepted),
    ("frontend.enableexecutemultioperation", Accepted),
    ("frontend.enableserverversioncheck", Accepted),
    ("frontend.enableupdateworkflowexecution", Accepted),
    ("frontend.enableupdateworkflowexecutionasyncaccepted", Accepted),
    ("frontend.enableversioningdataapis", Accepted),
    ("frontend.enableversioningruleapis", Accepted),
    ("frontend.enableversioningworkflowapis", Accepted),
    ("frontend.listworkersenabled", Accepted),
    ("frontend.namespacerps.visibility", Accepted),
    ("frontend.workercommandsenabled", Accepted),
    ("frontend.workerheartbeatsenabled", Accepted),
    ("frontend.workerversioningdataapis", Accepted),
    ("frontend.workerversioningruleapis", Accepted),
    ("frontend.workerversioningworkflowapis", Accepted),
    ("frontend.workflowpauseenabled", Accepted),
    ("history.enablechasm", Accepted),
    ("history.enablechasmcallbacks", Accepted),
    ("history.enablechasmsignalbacklinks", Accepted),
    ("history.enablerequestidreflinks", Accepted),
    ("history.enablesignalwithstartfromworkflow", Accepted),
    ("history.enablestandaloneactivityoperatorcommands", Accepted),
    ("history.enabletransitionhistory", Accepted),
    ("history.enableupdatecallbacks", Accepted),
    ("history.enableworkflowtaskcompletionpagination", Accepted),
    ("history.maxbufferedquerycount", Accepted),
    ("history.workflowidreuseminimalinterval", Accepted),
    ("matching.numtaskqueuereadpartitions", Accepted),
    ("matching.numtaskqueuewritepartitions", Accepted),
    ("matching.rps", Accepted),
    ("matching.taskqueueinfobybuildidttl", Accepted),
    ("matching.usenewmatcher", Accepted),
    ("matching.wv.versiondrainagestatusrefreshinterval", Accepted),
    ("matching.wv.versiondrainagestatusvisibilitygraceperiod", Accepted),
    ("nexusoperation.enablestandalone", Accepted),
    ("system.enableactivityeagerexecution", Accepted),
    ("system.enablecancelactivityworkercommand", Accepted),
    ("system.enabledeployments", Accepted),
    ("system.enabledeploymentversions", Accepted),
    ("system.enableeagerworkflowstart", Accepted),
    ("system.forcenexusendpointrefreshonread", Accepted),
    ("system.forcesearchattributescacherefreshonread", Accepted),
    ("system.refreshnexusendpointsminwait", Accepted),
    ("worker.buildidscavengerenabled", Accepted),
    ("worker.removablebuildiddurationsincedefault", Accepted),
];

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It took effect.
    Set,
    /// The key is known and changes nothing.
    Ignored,
    /// Nobody knows the key.
    Unknown,
}

/// A value that does not fit its key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ValueError {
    /// There is no `=`, or nothing before it.
    #[error("{0:?} is not KEY=JSON")]
    Shape(String),
    /// The value is not JSON.
    #[error("the value of {key} is not JSON: {reason}")]
    Json {
        /// The key.
        key: String,
        /// What the parser says.
        reason: String,
    },
    /// The value is of another type than the key takes.
    #[error("the value of {key} must be {wanted}")]
    Type {
        /// The key.
        key: String,
        /// What it takes.
        wanted: &'static str,
    },
}

/// Splits `KEY=JSON`.
pub fn parse(text: &str) -> Result<(String, Value), ValueError> {
    let shape = || ValueError::Shape(text.to_owned());
    let (key, value) = text.split_once('=').ok_or_else(shape)?;
    if key.is_empty() {
        return Err(shape());
    }
    let value = serde_json::from_str(value)
        .map_err(|e| ValueError::Json { key: key.to_owned(), reason: e.to_string() })?;
    Ok((key.to_owned(), value))
}

impl Settings {
    /// Sets one key.
    pub fn set(&mut self, key: &str, value: &Value) -> Result<Outcome, ValueError> {
        let lower = key.to_ascii_lowercase();
        let Some((_, effect)) = KEYS.iter().find(|(known, _)| *known == lower) else {
            return Ok(Outcome::Unknown);
        };
        let wrong = |wanted| ValueError::Type { key: key.to_owned(), wanted };
        match effect {
            Count(set) => {
                set(self, value.as_u64().ok_or_else(|| wrong("a number that is not negative"))?);
            }
            PerSecond(set) => {
                set(self, Rate::per_second(value.as_f64().ok_or_else(|| wrong("a number"))?));
            }
            Time(set) => set(self, time(value).ok_or_else(|| wrong("a duration such as \"3s\""))?),
            Accepted => return Ok(Outcome::Ignored),
        }
        Ok(Outcome::Set)
    }
}

/// Units of durations as Go writes them, and days; longest first where one ends in another.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("\u{b5}s", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
];

/// A duration as dynamic config knows it: seconds as a number or as its text, or a text such as
/// "1m30s".
fn time(value: &Value) -> Option<Duration> {
    let seconds = match value.as_str() {
        None => value.as_f64()?,
        Some(text) => seconds(text)?,
    };
    // What is longer is no time that a clock can reach, and not every sum with it is one.
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    (i64::try_from(time.as_nanos()).is_ok()).then_some(time)
}

fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    if rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        // Nothing at all is no number.
        return rest.parse().ok();
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the suites and launchers of the SDKs set (conformance notes, section 3).
    const SET_BY_SUITES: &str = "
        frontend.enableUpdateWorkflowExecution frontend.enableUpdateWorkflowExecutionAsyncAccepted
        frontend.enableExecuteMultiOperation frontend.enableServerVersionCheck
        system.enableEagerWorkflowStart system.enableActivityEagerExecution
        system.forceSearchAttributesCacheRefreshOnRead system.forceNexusEndpointRefreshOnRead
        system.refreshNexusEndpointsMinWait frontend.workerVersioningDataAPIs
        frontend.workerVersioningWorkflowAPIs frontend.workerVersioningRuleAPIs
        frontend.enableVersioningDataAPIs frontend.enableVersioningWorkflowAPIs
        frontend.enableVersioningRuleAPIs system.enableDeployments system.enableDeploymentVersions
        matching.wv.VersionDrainageStatusVisibilityGracePeriod
        matching.wv.VersionDrainageStatusRefreshInterval worker.buildIdScavengerEnabled
        worker.removableBuildIdDurationSinceDefault matching.useNewMatcher matching.rps
        frontend.namespaceRPS.visibility frontend.activityAPIsEnabled activity.enableStandalone
        activity.startDelayEnabled activity.enableCallbacks activity.longPollTimeout
        history.enableChasm history.enableTransitionHistory history.enableCHASMCallbacks
        history.enableCHASMSignalBacklinks history.enableRequestIdRefLinks
        history.enableUpdateCallbacks history.enableSignalWithStartFromWorkflow
        nexusoperation.enableStandalone
        component.nexusoperations.recordCancelRequestCompletionEvents
        component.nexusoperations.useSystemCallbackURL
        component.nexusoperations.callback.endpoint.template callback.allowedAddresses
        component.callbacks.allowedAddresses frontend.WorkerHeartbeatsEnabled
        frontend.ListWorkersEnabled frontend.enableCancelWorkerPollsOnShutdown
        frontend.workerCommandsEnabled system.enableCancelActivityWorkerCommand
        history.enableWorkflowTaskCompletionPagination system.transactionSizeLimit
        limit.historyCount.suggestContinueAsNew limit.blobSize.error limit.blobSize.warn
        limit.memoSize.error limit.memoSize.warn history.longPollExpirationInterval
        history.workflowIdReuseMinimalInterval history.MaxBufferedQueryCount
        history.enableStandaloneActivityOperatorCommands
        frontend.enableBatchOperationsForStandaloneActivities matching.TaskQueueInfoByBuildIdTTL";

    #[test]
    fn every_key_that_a_suite_sets_is_known() {
        for key in SET_BY_SUITES.split_whitespace() {
            let mut settings = Settings::default();
            let outcome = settings.set(key, &Value::from(1));
            assert!(matches!(outcome, Ok(Outcome::Set | Outcome::Ignored)), "{key}: {outcome:?}");
        }
    }

    #[test]
    fn the_table_is_in_lower_case_and_has_no_key_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for (key, _) in KEYS {
            assert_eq!(*key, key.to_ascii_lowercase());
            assert!(seen.insert(key), "{key} twice");
        }
    }

    #[test]
    fn values_take_effect() {
        let mut settings = Settings::default();
        for text in [
            "Limit.BlobSize.Error=1024",
            "limit.blobSize.error=2048",
            "history.longPollExpirationInterval=\"3s\"",
            "admin.matchingNamespaceTaskqueueToPartitionDispatchRate=0.5",
            "frontend.pageBytes=65536",
        ] {
            let (key, value) = parse(text).expect("well-formed");
            assert_eq!(settings.set(&key, &value), Ok(Outcome::Set), "{text}");
        }
        assert_eq!(settings.limits.blob_bytes, 2048, "the last wins");
        assert_eq!(settings.history_wait, Duration::from_secs(3));
        // A rate is no count.
        assert_eq!(settings.matching.tasks_per_second, Rate::per_second(0.5));
        assert_eq!(settings.page_bytes, 65_536);
        assert_eq!(settings.set("no.such.key", &Value::from(1)), Ok(Outcome::Unknown));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(parse("nothing"), Err(ValueError::Shape(_))));
        assert!(matches!(parse("=1"), Err(ValueError::Shape(_))));
        assert!(matches!(parse("a.b=never"), Err(ValueError::Json { .. })));
        let mut settings = Settings::default();
        let wrong = settings.set("limit.blobSize.error", &Value::from("big"));
        assert!(matches!(wrong, Err(ValueError::Type { .. })));
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("\"5000ms\"", 5000),
            ("\"1m30s\"", 90_000),
            ("\"1.5h\"", 5_400_000),
            ("2", 2000),
            ("\"0s\"", 0),
            ("\"5\"", 5000),
            ("\"2d\"", 172_800_000),
        ] {
            let value: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(time(&value), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["\"\"", "\" \"", "\".\"", "\"1.2.3s\"", "\"s\"", "\"-1s\"", "true", "-1", "null"]
        {
            let value: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(time(&value), Option::None, "{text}");
        }
    }

    #[test]
    fn a_duration_can_be_added_to_any_time() {
        for text in ["1e10", "\"10000000000s\"", "1e19", "1e300", "18446744073709551615"] {
            let value: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(time(&value), Option::None, "{text}");
        }
        let longest = time(&Value::from(9_200_000_000_u64)).expect("291 years");
        assert!(tokio::time::Instant::now().checked_add(longest + longest).is_some());
    }
}
