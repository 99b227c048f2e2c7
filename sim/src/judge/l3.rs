//! L3: at the end every node answers, and new workflows on every shard run to their end.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_engine::ids::{ExecutionKey, NamespaceId};
use holdfast_raft::types::NodeId;

use super::Findings;
use crate::work::{Workload, probe_id};

/// Workflows that are started at least to see whether everything works. There are more where these
/// do not meet every shard.
const PROBES: u32 = 24;

/// How long all of them may take together.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn check(workload: &Workload, shards: u32, findings: &mut Findings) {
    let prober = workload.reader("prober");
    let silent = prober.silent_nodes().await;
    let Some(namespace) = prober.namespace().await else {
        report(&silent, &[], findings);
        findings.add("", "no node describes the namespace at the end".to_owned());
        return;
    };
    let failed = prober.probe(&probes(namespace, shards), PATIENCE).await;
    report(&silent, &failed, findings);
}

/// The numbers of the probes: the first few, and of the others those that meet a new shard.
fn probes(namespace: NamespaceId, shards: u32) -> Vec<u32> {
    let mut met = BTreeSet::new();
    let mut numbers = Vec::new();
    for number in 0.. {
        if number >= PROBES && met.len() >= shards as usize {
            break;
        }
        let shard = ExecutionKey::workflow(namespace, &probe_id(number)).shard(shards);
        if met.insert(shard) || number < PROBES {
            numbers.push(number);
        }
    }
    numbers
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
    fn probes_meet_every_shard() {
        for (namespace, shards) in (0..20).map(NamespaceId::v4).zip([1, 4, 24, 64].repeat(5)) {
            let probes = probes(namespace, shards);
            let shard_of = |n: &u32| ExecutionKey::workflow(namespace, &probe_id(*n)).shard(shards);
            let met: BTreeSet<u32> = probes.iter().map(shard_of).collect();
            assert_eq!(met, (0..shards).collect(), "{shards} shards");
            assert!(probes.len() <= (PROBES + shards) as usize);
        }
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
