//! Backlog: tasks that wait for a poller, in the order in which they are handed out.
//!
//! (shard, namespace, queue, type, subqueue, priority, fairness pass, time, run, event) -> what
//! the hand-out needs. The key has all of its parts from day one (A16): a retry's time is when it
//! may start, so becoming due writes nothing.

use std::ops::Range;

use bytes::Bytes;
use holdfast_engine::ids::{Archetype, EventId, ExecutionKey, Hlc, NamespaceId, RunId};

use super::key::{Key, KeyReader, KeyWriter};
use super::{ShardId, Table, value};
use crate::StorageError;

/// A queue inside one shard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct QueueKey {
    /// The shard.
    pub shard: ShardId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The queue's name.
    pub queue: String,
    /// Workflow or activity, as Temporal numbers them.
    pub task_type: u8,
}

/// The place of one task.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BacklogKey {
    /// The queue.
    pub queue: QueueKey,
    /// The part of the queue, such as a version; empty for the default.
    pub subqueue: String,
    /// Lower goes first.
    pub priority: u8,
    /// Lower goes first.
    pub pass: u64,
    /// Not before this time; earlier goes first.
    pub at: Hlc,
    /// The run.
    pub run: RunId,
    /// The event that scheduled the task.
    pub event: EventId,
}

impl QueueKey {
    fn write(&self, out: &mut KeyWriter) {
        out.uuid(self.namespace).string(&self.queue).u8(self.task_type);
    }

    /// All tasks of the queue, in all subqueues.
    pub fn range(&self) -> Range<Bytes> {
        let mut out = KeyWriter::new(Table::Backlog, self.shard);
        self.write(&mut out);
        out.range()
    }

    /// All tasks of one subqueue.
    pub fn subqueue_range(&self, subqueue: &str) -> Range<Bytes> {
        let mut out = KeyWriter::new(Table::Backlog, self.shard);
        self.write(&mut out);
        out.string(subqueue);
        out.range()
    }
}

impl Key for BacklogKey {
    const TABLE: Table = Table::Backlog;

    fn shard(&self) -> ShardId {
        self.queue.shard
    }

    fn write(&self, out: &mut KeyWriter) {
        self.queue.write(out);
        out.string(&self.subqueue).u8(self.priority).u64(self.pass).hlc(self.at);
        out.uuid(self.run).event(self.event);
    }

    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError> {
        let namespace = input.uuid()?;
        let (queue, task_type) = (input.string()?, input.u8()?);
        Ok(BacklogKey {
            queue: QueueKey { shard, namespace, queue, task_type },
            subqueue: input.string()?,
            priority: input.u8()?,
            pass: input.u64()?,
            at: input.hlc()?,
            run: input.uuid()?,
            event: input.event()?,
        })
    }
}

/// What the hand-out of a task needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// The execution the task belongs to.
    pub execution: ExecutionKey,
    /// Which attempt.
    pub attempt: u32,
    /// Changes when the task's options do, so that an older hand-out is known.
    pub stamp: u32,
    /// When the task is no longer worth handing out; [`Hlc::ZERO`] for never.
    pub expires_at: Hlc,
}

/// The namespace is in the key.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredTask {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint32, tag = "2")]
    archetype: u32,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(uint32, tag = "4")]
    stamp: u32,
    #[prost(uint64, tag = "5")]
    expires_at: u64,
}

impl Task {
    /// The stored form, of a row whose key has the execution's namespace.
    pub fn to_value(&self) -> Bytes {
        value::encode(&StoredTask {
            id: self.execution.id.to_string(),
            archetype: self.execution.archetype as u32,
            attempt: self.attempt,
            stamp: self.stamp,
            expires_at: self.expires_at.0,
        })
    }

    /// The reverse; the namespace is the key's.
    pub fn from_value(namespace: NamespaceId, value: Bytes) -> Result<Task, StorageError> {
        let stored: StoredTask = value::decode("backlog", value)?;
        let archetype = u8::try_from(stored.archetype)
            .ok()
            .and_then(Archetype::from_byte)
            .ok_or_else(|| {
                StorageError::Corrupt(format!("value of backlog: archetype {}", stored.archetype))
            })?;
        Ok(Task {
            execution: ExecutionKey { namespace, archetype, id: stored.id.into() },
            attempt: stored.attempt,
            stamp: stored.stamp,
            expires_at: Hlc(stored.expires_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn key() -> impl Strategy<Value = BacklogKey> {
        let queue = (testing::shard(), testing::uuid(), testing::text(), 0..3u8).prop_map(
            |(shard, namespace, queue, task_type)| QueueKey { shard, namespace, queue, task_type },
        );
        let order = (testing::text(), 0..3u8, testing::number(), testing::hlc());
        (queue, order, testing::uuid(), testing::event()).prop_map(
            |(queue, (subqueue, priority, pass, at), run, event)| BacklogKey {
                queue,
                subqueue,
                priority,
                pass,
                at,
                run,
                event,
            },
        )
    }

    proptest! {
        #[test]
        fn keys(a in key(), b in key()) {
            testing::check(&a, &b);
            let same = a.queue == b.queue;
            prop_assert_eq!(a.queue.range().contains(&b.encode()), same);
            let range = a.queue.subqueue_range(&a.subqueue);
            prop_assert_eq!(range.contains(&b.encode()), same && a.subqueue == b.subqueue);
        }

        #[test]
        fn values(execution in testing::execution(), n in any::<(u32, u32, u64)>()) {
            let task = Task { execution, attempt: n.0, stamp: n.1, expires_at: Hlc(n.2) };
            let back = Task::from_value(task.execution.namespace, task.to_value());
            prop_assert_eq!(back.expect("decodes"), task);
        }
    }
}
