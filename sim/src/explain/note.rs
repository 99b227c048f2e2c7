//! What nodes and the world do, noted as it happens, for whoever explains a run. Entries are kept as
//! bytes: only those that matter are read.

use std::sync::Arc;
use std::time::Duration;

use holdfast_raft::types::NodeId;
use holdfast_storage::{GroupId, LogEntry};

use crate::record::OpId;

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// When, from the beginning of the run on.
    pub(crate) at: Duration,
    /// What.
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Faults, and lives of nodes.
    World { nodes: Vec<NodeId>, text: String },
    /// A node was elected.
    Leads { node: NodeId, group: GroupId, term: u64 },
    /// A node appends to its log; nothing of it is on its disk yet.
    Appends { node: NodeId, group: GroupId, entries: Vec<LogEntry> },
    /// The log of a node is on its disk up to here.
    Synced { node: NodeId, group: GroupId, index: u64 },
    /// A node has written what entries say into its tables, up to here.
    Applied { node: NodeId, group: GroupId, index: u64 },
    /// The log of a node ends here from now on; what was behind is gone from it. After a power loss
    /// the rest is what its disk kept.
    Ends { node: NodeId, group: GroupId, after: Option<u64>, lost_power: bool, why: &'static str },
    /// Somebody begins an operation.
    Asks(OpId),
    /// Somebody knows how an operation ended, or was handed something.
    Knows(OpId),
    /// Somebody tried one call on one node.
    Tried { who: String, id: Arc<str>, node: NodeId, call: &'static str, how: Try },
    /// The run was judged. What comes after that concerns A8 only.
    Judged,
    /// A rule was seen broken on the way.
    Broken { rule: &'static str, key: String, text: String },
}

/// How a call on one node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Try {
    /// With an answer, good or bad.
    Answered,
    /// Without effect: another node or another time.
    Useless,
    /// Nobody knows.
    Doubtful,
}
