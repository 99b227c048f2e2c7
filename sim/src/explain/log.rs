//! The way of entries through the logs of a group: who has them, on whose disks they are, who has
//! applied them, and how they are lost.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_raft::types::NodeId;
use holdfast_storage::LogEntry;

use super::words;
use crate::coverage::shard_entry;

/// What an entry means to the workflow, if anything.
#[derive(Debug)]
struct Entry {
    /// Nodes that have it, and whether it is on their disks.
    on: BTreeMap<NodeId, bool>,
    applied: BTreeSet<NodeId>,
    /// It was said that a majority has it.
    safe: bool,
    /// No replica applies it: it was decided by a leader of another term.
    void: bool,
}

/// The log of the group that the workflow lives in, as far as it concerns the workflow.
#[derive(Debug)]
pub(super) struct GroupLog {
    id: String,
    majority: usize,
    /// By index and term.
    entries: BTreeMap<(u64, u64), Entry>,
}

/// What an appended entry says of a workflow: one text per slot. `None` when it is not about it.
pub(super) fn about(entry: &LogEntry, id: &str) -> Option<(Vec<String>, bool)> {
    let decided = shard_entry(entry)?;
    let drafts = decided.drafts.iter().filter(|draft| &*draft.key.id == id);
    let parts = words::parts(drafts.flat_map(|draft| &draft.parts));
    (!parts.is_empty()).then_some((parts, decided.reign.term != entry.term))
}

fn list(nodes: impl Iterator<Item = NodeId>) -> String {
    let nodes: Vec<String> = nodes.map(|node| node.to_string()).collect();
    match nodes.as_slice() {
        [] => "no node".to_owned(),
        [one] => format!("node {one}"),
        [some @ .., last] => format!("nodes {} and {last}", some.join(", ")),
    }
}

impl Entry {
    fn disks(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.on.iter().filter(|(_, synced)| **synced).map(|(node, _)| *node)
    }
}

impl GroupLog {
    pub(super) fn new(id: &str, nodes: usize) -> GroupLog {
        GroupLog { id: id.to_owned(), majority: nodes / 2 + 1, entries: BTreeMap::new() }
    }

    /// A node appends. Gives what is new about the workflow.
    pub(super) fn appends(&mut self, node: NodeId, entries: &[LogEntry]) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            if let Some(known) = self.entries.get_mut(&(index, term)) {
                known.on.insert(node, false);
                continue;
            }
            let Some((parts, void)) = about(entry, &self.id) else { continue };
            let on = [(node, false)].into();
            let new = Entry { on, applied: BTreeSet::new(), safe: false, void };
            self.entries.insert((index, term), new);
            let void = if void { " (void: decided in another term)" } else { "" };
            lines.push(format!("appends entry {index} of term {term}{void}: {}", parts.join("; ")));
        }
        lines
    }

    /// The log of a node is on its disk up to an index.
    pub(super) fn synced(&mut self, node: NodeId, upto: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for ((index, _), entry) in &mut self.entries {
            let Some(synced) = entry.on.get_mut(&node).filter(|_| *index <= upto) else { continue };
            let new = !std::mem::replace(synced, true);
            if new && !entry.safe && entry.disks().count() >= self.majority {
                entry.safe = true;
                let disks = list(entry.disks());
                lines.push(format!("entry {index} is on disk on {disks}: a majority"));
            }
        }
        lines
    }

    /// A node has applied up to an index. Gives what is new, and whether it is as it should be.
    pub(super) fn applied(&mut self, node: NodeId, upto: u64) -> Vec<(String, bool)> {
        let mut lines = Vec::new();
        for ((index, _), entry) in &mut self.entries {
            let here = *index <= upto && entry.on.contains_key(&node);
            if !here || !entry.applied.insert(node) || entry.void {
                continue;
            }
            // What disks kept through a power loss makes a majority without a word about it.
            if !entry.safe && entry.disks().count() < self.majority {
                let disks = list(entry.disks());
                let text = format!("applies entry {index}, WHICH IS ON DISK ON {disks} ONLY");
                lines.push((text, false));
            } else if entry.applied.len() == 1 {
                lines.push((format!("applies entry {index}: its answers may show it now"), true));
            }
        }
        lines
    }

    /// The log of a node ends at an index from now on, because it lost power or for another reason.
    pub(super) fn ends(
        &mut self,
        node: NodeId,
        after: Option<u64>,
        lost_power: bool,
        why: &str,
    ) -> Option<String> {
        let (mut lost, mut worst) = (Vec::new(), "");
        for ((index, _), entry) in &mut self.entries {
            if after.is_some_and(|after| *index <= after) {
                // What survived a power loss is on the disk.
                if let Some(synced) = entry.on.get_mut(&node).filter(|_| lost_power) {
                    *synced = true;
                }
            } else if entry.on.remove(&node).is_some() {
                lost.push(index.to_string());
                if !entry.applied.is_empty() && !entry.void {
                    worst = ", ALTHOUGH IT WAS APPLIED";
                }
                if entry.on.is_empty() {
                    worst = if worst.is_empty() {
                        "; no other node has it"
                    } else {
                        ", ALTHOUGH IT WAS APPLIED, and no other node has it"
                    };
                }
            }
        }
        let entries = if lost.len() == 1 { "entry" } else { "entries" };
        (!lost.is_empty()).then(|| format!("loses {entries} {}{worst}: {why}", lost.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::testing::entry;
    use holdfast_engine::Change;

    #[test]
    fn an_entry_is_followed_from_memory_to_loss() {
        let mut log = GroupLog::new("w", 3);
        let new = entry(7, &[Change::RunDeleted]);
        assert_eq!(
            log.appends(1, std::slice::from_ref(&new)),
            ["appends entry 7 of term 1: the id: deleted"]
        );
        assert!(log.appends(2, &[new]).is_empty(), "said already");
        assert!(log.synced(1, 7).is_empty());
        let early = "applies entry 7, WHICH IS ON DISK ON node 1 ONLY".to_owned();
        assert_eq!(log.applied(1, 7), [(early, false)]);
        assert_eq!(log.synced(2, 8), ["entry 7 is on disk on nodes 1 and 2: a majority"]);
        let lost = log.ends(2, Some(6), true, "a test");
        assert_eq!(lost.as_deref(), Some("loses entry 7, ALTHOUGH IT WAS APPLIED: a test"));
        assert_eq!(log.ends(2, None, true, "a test"), None, "nothing more");
    }

    /// How an entry is applied on node 1, which alone synced it, once the log of another node ends
    /// behind it.
    fn applied_after(lost_power: bool) -> Vec<(String, bool)> {
        let mut log = GroupLog::new("w", 3);
        let new = entry(7, &[Change::RunDeleted]);
        for node in [1, 2] {
            log.appends(node, std::slice::from_ref(&new));
        }
        log.synced(1, 7);
        assert_eq!(log.ends(2, Some(7), lost_power, "a test"), None, "nothing is lost");
        log.applied(1, 7)
    }

    #[test]
    fn what_disks_keep_through_a_power_loss_is_safe() {
        let well = "applies entry 7: its answers may show it now".to_owned();
        assert_eq!(applied_after(true), [(well.clone(), true)]);
        // Where a leader cuts the end off, the rest may still be in memory only.
        let early = "applies entry 7, WHICH IS ON DISK ON node 1 ONLY".to_owned();
        assert_eq!(applied_after(false), [(early, false)]);

        let mut alone = GroupLog::new("w", 1);
        alone.appends(1, &[entry(7, &[Change::RunDeleted])]);
        assert_eq!(alone.ends(1, Some(7), true, "a test"), None);
        assert_eq!(alone.applied(1, 7), [(well, true)]);
    }
}
