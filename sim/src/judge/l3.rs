//! L3: at the end every node answers, and new workflows on every shard run to their end.

use std::time::Duration;

use holdfast_raft::types::NodeId;

use super::Findings;
use crate::work::Workload;

/// Workflows that are started to see whether everything works; enough to meet every shard.
const PROBES: u32 = 24;

/// How long all of them may take together.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn check(workload: &Workload, findings: &mut Findings) {
    let prober = workload.reader("prober");
    let silent = prober.silent_nodes().await;
    let failed = prober.probe(PROBES, PATIENCE).await;
    report(&silent, &failed, findings);
}

/// What the last calls came to: nodes that did not answer, probes that did not end and why.
fn report(silent: &[NodeId], failed: &[(String, String)], findings: &mut Findings) {
    for node in silent {
        findings.add(&format!("node {node}"), "it does not answer at the end".to_owned());
    }
    for (id, why) in failed {
        findings.add(id, format!("a workflow that was started at the end {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(silent: &[NodeId], failed: &[(&str, &str)]) -> Vec<(String, String)> {
        let failed: Vec<_> =
            failed.iter().map(|(id, why)| ((*id).to_owned(), (*why).to_owned())).collect();
        let mut findings = Findings::default();
        report(silent, &failed, &mut findings);
        findings.list.into_iter().map(|found| (found.key, found.text)).collect()
    }

    #[test]
    fn a_silent_node_and_a_probe_without_an_end_are_found() {
        assert_eq!(reported(&[], &[]), []);
        let silent = ("node 2".to_owned(), "it does not answer at the end".to_owned());
        assert_eq!(reported(&[2], &[]), [silent]);
        let open = "a workflow that was started at the end does not end".to_owned();
        assert_eq!(reported(&[], &[("probe-3", "does not end")]), [("probe-3".to_owned(), open)]);
    }
}
