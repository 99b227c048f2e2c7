//! L3: at the end every node answers, and new workflows on every shard run to their end.

use std::time::Duration;

use super::Findings;
use crate::work::Workload;

/// Workflows that are started to see whether everything works; enough to meet every shard.
const PROBES: u32 = 24;

/// How long all of them may take together.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn check(workload: &Workload, findings: &mut Findings) {
    let prober = workload.reader("prober");
    for node in prober.silent_nodes().await {
        findings.add(&format!("node {node}"), "it does not answer at the end".to_owned());
    }
    for (id, why) in prober.probe(PROBES, PATIENCE).await {
        findings.add(&id, format!("a workflow that was started at the end {why}"));
    }
}
