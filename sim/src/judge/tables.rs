//! What the tables of a node say at the end, read row by row behind the back of the node.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_engine::ids::Uuid;
use holdfast_engine::rows::VisibilityRecord;
use holdfast_storage::tables::backlog::BacklogKey;
use holdfast_storage::tables::counter::{self, CounterKey};
use holdfast_storage::tables::deadline::DeadlineKey;
use holdfast_storage::tables::meta::{self, Applied, AppliedKey};
use holdfast_storage::tables::visibility::{self, IndexKey};
use holdfast_storage::tables::{Key, Table};
use holdfast_storage::{Direction, StorageError, Store, View};
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::evidence::Shown;

/// What a counter counts: tasks of a queue. (The other kind counts runs of a status.)
const BACKLOG_COUNTER: u8 = 1;

/// The rows of a node.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NodeRows {
    /// The node.
    pub node: u64,
    /// It has applied as much as any other, and what it says of runs is to be right.
    pub is_newest: bool,
    /// By group; a group above 0 is the shard of one less.
    pub groups: BTreeMap<u32, GroupRows>,
    /// What its lists are made of, by run id.
    pub visibility: BTreeMap<String, Shown>,
}

/// The rows of a group.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct GroupRows {
    /// (term, index) of the last applied entry.
    pub applied: Option<(u64, u64)>,
    /// Over every row that replicas share.
    pub digest: u64,
    /// Tasks that wait, for people.
    pub backlog: Vec<String>,
    /// Run id and time of each deadline.
    pub deadlines: Vec<(String, u64)>,
    /// Counters of waiting tasks that are not zero.
    pub counters: Vec<(String, i64)>,
    /// Runs by the number of their status, as the counters say. One at zero has no row.
    pub statuses: BTreeMap<String, i64>,
    /// Runs by the number of their status, as the rows of lists say.
    pub listed: BTreeMap<String, i64>,
}

/// How far each group of a node has applied.
pub(crate) fn applied(
    store: &Arc<dyn Store>,
    shards: u32,
) -> Result<Vec<Option<(u64, u64)>>, StorageError> {
    let view = store.view();
    (0..=shards).map(|group| applied_of(view.as_ref(), group)).collect()
}

fn applied_of(view: &dyn View, group: u32) -> Result<Option<(u64, u64)>, StorageError> {
    match view.get(&AppliedKey { group }.encode())? {
        Some(value) => Ok(Applied::from_value(value)?.last),
        None => Ok(None),
    }
}

/// Reads everything.
pub(super) fn read(
    node: u64,
    store: &Arc<dyn Store>,
    shards: u32,
) -> Result<NodeRows, StorageError> {
    let view = store.view();
    let mut rows = NodeRows { node, ..NodeRows::default() };
    for group in 0..=shards {
        let mut of_group =
            GroupRows { applied: applied_of(view.as_ref(), group)?, ..GroupRows::default() };
        let mut digest = Xxh3::new();
        hash(view.as_ref(), &meta::replicated(group), &mut digest)?;
        if let Some(shard) = group.checked_sub(1) {
            for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
                hash(view.as_ref(), &table.range(shard), &mut digest)?;
            }
            leftovers(view.as_ref(), shard, &mut of_group)?;
            records(view.as_ref(), shard, &mut of_group.listed, &mut rows.visibility)?;
        }
        of_group.digest = digest.digest();
        rows.groups.insert(group, of_group);
    }
    Ok(rows)
}

type Visitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StorageError>;

fn each(view: &dyn View, range: &Range<Bytes>, visit: Visitor<'_>) -> Result<(), StorageError> {
    let mut failed = None;
    view.scan(&range.start, &range.end, Direction::Forward, &mut |key, value| match visit(
        key, value,
    ) {
        Ok(()) => ControlFlow::Continue(()),
        Err(why) => {
            failed = Some(why);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

fn hash(view: &dyn View, range: &Range<Bytes>, digest: &mut Xxh3) -> Result<(), StorageError> {
    each(view, range, &mut |key, value| {
        digest.update(&(key.len() as u64).to_be_bytes());
        digest.update(key);
        digest.update(&(value.len() as u64).to_be_bytes());
        digest.update(value);
        Ok(())
    })
}

fn leftovers(view: &dyn View, shard: u32, rows: &mut GroupRows) -> Result<(), StorageError> {
    each(view, &Table::Backlog.range(shard), &mut |key, _| {
        let key = BacklogKey::decode(key)?;
        let kind = if key.queue.task_type == 1 { "workflow" } else { "activity" };
        let text = format!("{kind} task {} of run {} in {}", key.event, key.run, key.queue.queue);
        rows.backlog.push(text);
        Ok(())
    })?;
    each(view, &Table::Deadline.range(shard), &mut |key, _| {
        let key = DeadlineKey::decode(key)?;
        rows.deadlines.push((key.run.to_string(), key.at.0));
        Ok(())
    })?;
    each(view, &Table::Counter.range(shard), &mut |key, value| {
        let key = CounterKey::decode(key)?;
        let count = counter::from_value(Bytes::copy_from_slice(value))?;
        if key.kind != BACKLOG_COUNTER {
            *rows.statuses.entry(key.name).or_default() += count;
        } else if count != 0 {
            rows.counters.push((format!("of {} {:?}", key.name, key.sub), count));
        }
        Ok(())
    })
}

fn records(
    view: &dyn View,
    shard: u32,
    listed: &mut BTreeMap<String, i64>,
    shown: &mut BTreeMap<String, Shown>,
) -> Result<(), StorageError> {
    each(view, &Table::VisibilityIndex.range(shard), &mut |key, value| {
        if IndexKey::decode(key)?.index != visibility::ALL {
            return Ok(());
        }
        let bytes = visibility::from_value(Bytes::copy_from_slice(value))?;
        let record = VisibilityRecord::decode(bytes)
            .map_err(|why| StorageError::Corrupt(format!("visibility record: {why}")))?;
        let run = Uuid::from_slice(&record.run).unwrap_or(Uuid::NIL).to_string();
        let row = Shown {
            id: record.workflow_id,
            status: record.status,
            started: record.started_at,
            closed: record.closed_at,
            length: record.history_length,
        };
        *listed.entry(row.status.to_string()).or_default() += 1;
        shown.insert(run, row);
        Ok(())
    })
}
