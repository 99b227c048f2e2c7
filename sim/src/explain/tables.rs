//! What the tables of each node say of the runs of a workflow when everything is over.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_engine::ids::RunId;
use holdfast_proto::history::HistoryEvent;
use holdfast_raft::types::NodeId;
use holdfast_storage::tables::history::{Batch, HistoryKey};
use holdfast_storage::tables::meta::{Applied, AppliedKey};
use holdfast_storage::tables::{Key, Table};
use holdfast_storage::{Direction, GroupId, Store};
use prost::Message;

use super::words;

/// How many events a run is shown with: the last ones.
const SHOWN: usize = 4;

/// The tables of a node, as far as they are told of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// Term and index of the last applied entry, by group.
    applied: BTreeMap<GroupId, (u64, u64)>,
    /// The events of each run: how many, and the last of them.
    runs: BTreeMap<RunId, (usize, Vec<Bytes>)>,
}

impl Tables {
    /// Reads the tables of a node that is up.
    pub(crate) fn read(store: &dyn Store, shards: u32) -> Tables {
        let (view, mut tables) = (store.view(), Tables::default());
        for shard in 0..shards {
            let group = shard + 1;
            let row = view.get(&AppliedKey { group }.encode()).ok().flatten();
            let applied = row.and_then(|row| Applied::from_value(row).ok()?.last);
            tables.applied.extend(applied.map(|applied| (group, applied)));
            let range = Table::History.range(shard);
            // What can't be read is a finding of the judges; here it is what is not there.
            let _ = view.scan(&range.start, &range.end, Direction::Forward, &mut |key, value| {
                let value = Bytes::copy_from_slice(value);
                if let (Ok(key), Ok(batch)) = (HistoryKey::decode(key), Batch::from_value(value)) {
                    tables.add(key.run.run, batch);
                }
                ControlFlow::Continue(())
            });
        }
        tables
    }

    fn add(&mut self, run: RunId, batch: Batch) {
        let (count, last) = self.runs.entry(run).or_default();
        *count += batch.events.len();
        last.extend(batch.events);
        last.drain(..last.len().saturating_sub(SHOWN));
    }

    fn say_applied(&self, group: GroupId) -> String {
        match self.applied.get(&group) {
            Some((term, index)) => format!("applied up to entry {index} of term {term}"),
            None => "applied nothing".to_owned(),
        }
    }

    fn say_run(&self, run: RunId) -> String {
        let Some((count, last)) = self.runs.get(&run) else {
            return "does not exist".to_owned();
        };
        let last = last.iter().map(|event| match HistoryEvent::decode(event.as_ref()) {
            Ok(event) => words::event(&event),
            Err(why) => why.to_string(),
        });
        let last: Vec<String> = last.collect();
        format!("has {count} events, the last are {}", last.join(", "))
    }
}

/// One line for each run and each different thing that nodes say of it.
pub(super) fn say(
    tables: &[(NodeId, Option<Tables>)],
    group: GroupId,
    runs: &[RunId],
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut all = |before: &str, say: &dyn Fn(&Tables) -> String| {
        let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (node, tables) in tables {
            let text = tables.as_ref().map_or_else(|| "is down".to_owned(), say);
            said.entry(text).or_default().push(node.to_string());
        }
        for (what, nodes) in said {
            let plural = if nodes.len() == 1 { "" } else { "s" };
            lines.push(format!("node{plural} {}: {before}{what}", nodes.join(", ")));
        }
    };
    all("", &|tables| tables.say_applied(group));
    for run in runs {
        all(&format!("run {run} "), &|tables| tables.say_run(*run));
    }
    lines
}
