//! What a task token says. Sealed (versioned, MACed) outside the engine; SDKs never look inside.
//!
//! Nothing in it names a shard or a node (A30): routing is by execution key alone.

use crate::ids::{Hlc, NamespaceId, RunId, Uuid};

/// The body of a task token: enough to tell whether the task it was given for is still that task,
/// also for a leader that never heard of the grant (A7).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskToken {
    /// Namespace id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub namespace: Vec<u8>,
    /// Workflow id.
    #[prost(string, tag = "2")]
    pub workflow_id: String,
    /// Run id, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
    /// The event that scheduled the task (for an attempt above 1 of a workflow task: the id the
    /// event would have).
    #[prost(int64, tag = "4")]
    pub scheduled: i64,
    /// Workflow tasks: the id of the STARTED event, real or virtual. Activities: 0.
    #[prost(int64, tag = "5")]
    pub started: i64,
    /// The attempt, from 1.
    #[prost(uint32, tag = "6")]
    pub attempt: u32,
    /// Activities: the stamp of the pending activity.
    #[prost(uint32, tag = "7")]
    pub stamp: u32,
    /// The random id of the start, 16 bytes.
    #[prost(bytes = "vec", tag = "8")]
    pub start_id: Vec<u8>,
    /// The run's change number when the task was granted.
    #[prost(uint64, tag = "9")]
    pub base: u64,
    /// When it was granted.
    #[prost(uint64, tag = "10")]
    pub started_at: u64,
    /// Identity of the worker that polled, for a start that must be written later.
    #[prost(string, tag = "11")]
    pub identity: String,
    /// Activities: the activity id.
    #[prost(string, tag = "12")]
    pub activity_id: String,
    /// Build of the worker that polled, for the same.
    #[prost(string, tag = "13")]
    pub build_id: String,
}

impl TaskToken {
    /// The namespace; nil when the bytes are not an id.
    pub fn namespace_id(&self) -> NamespaceId {
        Uuid::from_slice(&self.namespace).unwrap_or(Uuid::NIL)
    }

    /// The run; nil when the bytes are not an id.
    pub fn run_id(&self) -> RunId {
        Uuid::from_slice(&self.run).unwrap_or(Uuid::NIL)
    }

    /// The random id of the start; nil when the bytes are not an id.
    pub fn start(&self) -> Uuid {
        Uuid::from_slice(&self.start_id).unwrap_or(Uuid::NIL)
    }

    /// When the task was granted.
    pub fn granted_at(&self) -> Hlc {
        Hlc(self.started_at)
    }
}
