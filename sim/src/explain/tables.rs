//! What the tables of each node say of the runs of a workflow when everything is over.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use holdfast_engine::ids::{ExecutionKey, RunId};
use holdfast_proto::history::HistoryEvent;
use holdfast_raft::types::NodeId;
use holdfast_storage::tables::meta::{Applied, AppliedKey};
use holdfast_storage::tables::{Key, RunKey, history};
use holdfast_storage::{StorageError, View};
use prost::Message;

use super::words;

/// How many events a run is shown with: the last ones.
const SHOWN: usize = 4;

/// One line for each run and each different thing that nodes say of it.
pub(super) fn say(
    tables: &[(NodeId, Option<Box<dyn View>>)],
    shard: u32,
    key: &ExecutionKey,
    runs: &[RunId],
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut reached: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    for (node, view) in tables {
        let applied = match view {
            Some(view) => applied(view.as_ref(), shard + 1),
            None => "is down".to_owned(),
        };
        reached.entry(applied).or_default().push(*node);
    }
    for (what, nodes) in reached {
        lines.push(format!("{}: {what}", names(&nodes)));
    }
    for run in runs {
        let place = RunKey { shard, execution: key.clone(), run: *run };
        let mut said: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        for (node, view) in tables {
            let Some(view) = view else { continue };
            let text = of_run(view.as_ref(), &place).unwrap_or_else(|why| why.to_string());
            said.entry(text).or_default().push(*node);
        }
        for (what, nodes) in said {
            lines.push(format!("{}: run {run} {what}", names(&nodes)));
        }
    }
    lines
}

fn names(nodes: &[NodeId]) -> String {
    let each: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    format!("node{} {}", if each.len() == 1 { "" } else { "s" }, each.join(", "))
}

fn applied(view: &dyn View, group: u32) -> String {
    let row = view.get(&AppliedKey { group }.encode());
    match row.map(|row| row.and_then(|row| Applied::from_value(row).ok()?.last)) {
        Ok(Some((term, index))) => format!("applied up to entry {index} of term {term}"),
        Ok(None) => "applied nothing".to_owned(),
        Err(why) => why.to_string(),
    }
}

fn of_run(view: &dyn View, run: &RunKey) -> Result<String, StorageError> {
    let mut events = Vec::new();
    history::read(view, run, 1, &mut |_, bytes| {
        events.push(match HistoryEvent::decode(bytes) {
            Ok(event) => words::event(&event),
            Err(why) => why.to_string(),
        });
        ControlFlow::Continue(())
    })?;
    if events.is_empty() {
        return Ok("does not exist".to_owned());
    }
    let last = events.get(events.len().saturating_sub(SHOWN)..).unwrap_or_default();
    Ok(format!("has {} events, the last are {}", events.len(), last.join(", ")))
}
