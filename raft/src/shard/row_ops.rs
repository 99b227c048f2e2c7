//! From the rows that a decision changed to the operations of its entry.

use bytes::Bytes;
use holdfast_engine::ids::{ExecutionKey, Hlc, NamespaceId, RunId};
use holdfast_engine::rows::{BacklogRow, RowDiff, VisibilityRecord};
use holdfast_storage::Op;
use holdfast_storage::tables::backlog::{BacklogKey, QueueKey, Task};
use holdfast_storage::tables::counter::{self, CounterKey};
use holdfast_storage::tables::deadline::DeadlineKey;
use holdfast_storage::tables::visibility::{self, IndexKey, Sort};
use holdfast_storage::tables::{ShardId, delete, put};
use prost::Message;

/// What a counter counts. The numbers are on disk and stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum CounterKind {
    /// Tasks in the backlog of a queue; `sub` is the task type's byte.
    Backlog = 1,
    /// Runs of a status; `name` is the status's number.
    Status = 2,
}

/// The queue that a backlog row stands in.
pub(crate) fn queue_of(shard: ShardId, namespace: NamespaceId, row: &BacklogRow) -> QueueKey {
    QueueKey { shard, namespace, queue: row.queue.clone(), task_type: row.task as u8 }
}

/// The key of a backlog row.
pub(crate) fn backlog_key(
    shard: ShardId,
    key: &ExecutionKey,
    run: RunId,
    row: &BacklogRow,
) -> BacklogKey {
    BacklogKey {
        queue: queue_of(shard, key.namespace, row),
        subqueue: String::new(),
        priority: row.priority,
        pass: 0,
        at: row.at,
        run,
        event: row.scheduled,
    }
}

/// Counters that one decision moves: by how much.
pub(crate) type Moves = Vec<(CounterKey, i64)>;

/// The operations for what `diff` says of one run, and the counters that move with them.
pub(crate) fn of_run(
    shard: ShardId,
    key: &ExecutionKey,
    run: RunId,
    diff: &RowDiff,
    ops: &mut Vec<Op>,
    moves: &mut Moves,
) {
    if let Some((old, new)) = diff.deadline {
        let row = |at: Hlc| DeadlineKey { shard, at, execution: key.clone(), run };
        ops.extend(old.map(|at| delete(&row(at))));
        ops.extend(new.map(|at| put(&row(at), DeadlineKey::value())));
    }
    for row in &diff.removed {
        ops.push(delete(&backlog_key(shard, key, run, row)));
        moves.push((backlog_counter(shard, key.namespace, row), -1));
    }
    for row in &diff.added {
        let task = Task {
            execution: key.clone(),
            attempt: row.attempt,
            stamp: row.stamp,
            expires_at: Hlc::ZERO,
        };
        ops.push(put(&backlog_key(shard, key, run, row), task.to_value()));
        moves.push((backlog_counter(shard, key.namespace, row), 1));
    }
    if let Some((old, new)) = &diff.visibility {
        of_visibility(shard, key, run, old.as_ref(), new.as_ref(), ops);
        moves.extend(old.iter().map(|r| (status_counter(shard, key.namespace, r.status), -1)));
        moves.extend(new.iter().map(|r| (status_counter(shard, key.namespace, r.status), 1)));
    }
}

fn of_visibility(
    shard: ShardId,
    key: &ExecutionKey,
    run: RunId,
    old: Option<&VisibilityRecord>,
    new: Option<&VisibilityRecord>,
    ops: &mut Vec<Op>,
) {
    let old = old.map(|record| index_key(shard, key, run, record));
    let new_key = new.map(|record| index_key(shard, key, run, record));
    if old != new_key {
        ops.extend(old.map(|key| delete(&key)));
    }
    if let (Some(key), Some(record)) = (new_key, new) {
        ops.push(put(&key, visibility::to_value(&record.encode_to_vec())));
    }
}

/// The place of a record among all of its namespace.
pub(crate) fn index_key(
    shard: ShardId,
    key: &ExecutionKey,
    run: RunId,
    record: &VisibilityRecord,
) -> IndexKey {
    IndexKey {
        shard,
        namespace: key.namespace,
        index: visibility::ALL,
        value: Vec::new(),
        sort: Sort {
            closed: (record.closed_at != 0).then_some(Hlc(record.closed_at)),
            started: Hlc(record.started_at),
            run,
        },
        archetype: key.archetype,
    }
}

fn backlog_counter(shard: ShardId, namespace: NamespaceId, row: &BacklogRow) -> CounterKey {
    CounterKey {
        shard,
        namespace,
        kind: CounterKind::Backlog as u8,
        name: row.queue.clone(),
        sub: vec![row.task as u8],
    }
}

/// The counter of runs with a status.
pub(crate) fn status_counter(shard: ShardId, namespace: NamespaceId, status: i32) -> CounterKey {
    CounterKey {
        shard,
        namespace,
        kind: CounterKind::Status as u8,
        name: status.to_string(),
        sub: Vec::new(),
    }
}

/// The row of a counter; a counter at zero has none.
pub(crate) fn counter_op(key: &CounterKey, count: i64) -> Op {
    if count == 0 { delete(key) } else { put(key, counter_value(count)) }
}

fn counter_value(count: i64) -> Bytes {
    counter::to_value(count)
}
