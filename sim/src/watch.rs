//! What the disks show of the nodes' logs: to whoever counts changes, and to whoever explains a run.
//! Nodes notice nothing of it, and a run is the same with it and without.

use bytes::Bytes;
use holdfast_raft::types::{NodeId, read_vote};
use holdfast_storage::tables::Key;
use holdfast_storage::tables::meta::{Applied, AppliedKey};
use holdfast_storage::{Done, GroupId, LogEntry, Op};

use crate::explain::note::What;
use crate::world::Shared;

impl Shared {
    /// A node appends to its log. Gives what to call once that is synced.
    pub(crate) fn appends(
        &self,
        node: NodeId,
        group: GroupId,
        entries: &[LogEntry],
        done: Done,
    ) -> Done {
        self.coverage().appended(group, entries, self.time.now());
        if !self.trace.takes_notes() {
            return done;
        }
        self.trace.note(|| What::Appends { node, group, entries: entries.to_vec() });
        let Some(index) = entries.last().map(|last| last.index) else { return done };
        let trace = self.trace.clone();
        Box::new(move |result| {
            if result.is_ok() {
                trace.note(|| What::Synced { node, group, index });
            }
            done(result);
        })
    }

    /// A node saves its vote; one that is committed to the node itself makes it the leader.
    pub(crate) fn votes(&self, node: NodeId, group: GroupId, vote: &Bytes) {
        if !self.trace.takes_notes() {
            return;
        }
        if let Some(vote) = read_vote(vote.clone())
            && vote.committed
            && vote.leader_id.voted_for == node
        {
            let term = vote.leader_id.term;
            self.trace.note(|| What::Leads { node, group, term });
        }
    }

    /// A node drops the end of its log, because a leader has other entries there.
    pub(crate) fn truncates(&self, node: NodeId, group: GroupId, after: Option<u64>) {
        let why = "a leader has other entries there";
        self.trace.note(|| What::Ends { node, group, after, lost_power: false, why });
    }

    /// A node has written a batch to its tables.
    pub(crate) fn applied(&self, node: NodeId, batch: &[Op]) {
        for op in batch {
            let Op::Put { key, value } = op else { continue };
            let Ok(key) = AppliedKey::decode(key) else { continue };
            let applied = Applied::from_value(value.clone()).ok().and_then(|it| it.last);
            if let Some((_, index)) = applied {
                self.trace.note(|| What::Applied { node, group: key.group, index });
            }
        }
    }

    /// What the logs of a node still hold after a power loss, if anybody wants to know.
    pub(crate) fn logs_end(&self, node: NodeId, ends: Vec<(GroupId, Option<u64>)>) {
        for (group, after) in ends {
            let why = "it was not synced when the node ended";
            self.trace.note(|| What::Ends { node, group, after, lost_power: true, why });
        }
    }
}
