//! R13: replicas that applied the same entries have the same rows. And L4: once everything is calm,
//! all nodes that are up have applied the same entries.
//!
//! H2 follows, as far as it applies (hash chains are not built): a digest is over key and value of
//! every row that replicas share. A batch of history is one row, its key names the batch's first
//! event, so equal digests at an equal index are equal batch boundaries; and by L4 no replica that
//! is up stays behind the index at which it is compared.

use std::collections::BTreeMap;

use super::{Evidence, Findings};

/// A group, and the term and index that were applied last.
type Place = (u32, Option<(u64, u64)>);

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    // By group and what was applied: the digest and who has it.
    let mut known: BTreeMap<Place, (u64, u64)> = BTreeMap::new();
    let mut newest: BTreeMap<u32, (Option<(u64, u64)>, u64)> = BTreeMap::new();
    for node in &evidence.nodes {
        for (group, rows) in &node.groups {
            let place = (*group, rows.applied);
            let (digest, first) = *known.entry(place).or_insert((rows.digest, node.node));
            if digest != rows.digest {
                let text = format!(
                    "group {group} at {:?}: the rows of node {} differ from those of node {first}",
                    rows.applied, node.node
                );
                findings.add(&format!("group {group}"), text);
            }
            let (applied, of) = *newest.entry(*group).or_insert((rows.applied, node.node));
            if applied != rows.applied {
                let text = format!(
                    "L4: group {group}: node {} has applied {:?}, node {of} {applied:?}, and nothing happens any more",
                    node.node, rows.applied
                );
                findings.add(&format!("group {group}"), text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::super::{GroupRows, NodeRows};
    use super::*;

    fn node(node: u64, applied: u64, digest: u64) -> NodeRows {
        let rows = GroupRows { applied: Some((1, applied)), digest, ..GroupRows::default() };
        NodeRows { node, groups: [(1, rows)].into(), ..NodeRows::default() }
    }

    #[test]
    fn replicas_must_agree() {
        let mut world = World::default();
        world.evidence.nodes = vec![node(1, 9, 7), node(2, 9, 7)];
        quiet(check, &world);
        world.evidence.nodes.push(node(3, 9, 8));
        fires(check, &world, "the rows of node 3 differ from those of node 1");
        world.evidence.nodes = vec![node(1, 9, 7), node(2, 8, 6)];
        fires(check, &world, "L4: group 1: node 2 has applied");
    }
}
