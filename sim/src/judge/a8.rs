//! A8: what is deleted stays deleted. The retention of every run is over, so each of them must go,
//! with all its rows on every node; and once it is gone, no call on any node may show it, and no
//! replica may have a row of it again, also when all of them restart on what their disks kept.
//!
//! Nobody calls DeleteWorkflowExecution, which is not served: retention is the only way to go, and
//! its acknowledgement is that no node has a row of the run.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use holdfast_engine::ids::Slot;
use holdfast_storage::tables::checkpoint::CheckpointKey;
use holdfast_storage::tables::counter;
use holdfast_storage::tables::journal::JournalKey;
use holdfast_storage::tables::{Key, Table};
use holdfast_storage::{Direction, StorageError, Store, View};

use super::{Findings, Violation};
use crate::record::{Moment, Operation, Told};

/// A call that showed a run which is gone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sighting {
    /// The node that answered.
    pub node: u64,
    /// What was asked for.
    pub call: &'static str,
    /// The workflow id; empty where the call is about all of them.
    pub id: String,
    /// What it showed.
    pub what: String,
}

/// What was seen of runs that should be gone.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Remains {
    /// Workflow ids that did not say whether they are closed, so that nothing was switched off.
    pub unready: Vec<String>,
    /// Rows that never went, by node and table; a node that was never up has none.
    pub stayed: BTreeMap<u64, BTreeMap<&'static str, u64>>,
    /// Nodes that were not up by the time.
    pub away: Vec<u64>,
    /// When the last node had lost the last row; `None` when that never was.
    pub gone: Option<Moment>,
    /// Nodes that did not apply again what they had applied when all was gone.
    pub behind: Vec<u64>,
    /// Workflow ids that nobody said anything of after that.
    pub unanswered: Vec<String>,
    /// Rows that were there again after that.
    pub back: BTreeMap<u64, BTreeMap<&'static str, u64>>,
    /// What calls showed after that.
    pub shown: Vec<Sighting>,
    /// What callers were told in the whole run: workers poll to its very end.
    pub operations: Vec<Operation>,
}

/// What A8 says of them.
pub fn afterwards(remains: &Remains) -> Vec<Violation> {
    let mut findings = Findings::default();
    findings.begin("A8");
    check(remains, &mut findings);
    findings.list
}

fn check(remains: &Remains, findings: &mut Findings) {
    for id in &remains.unready {
        let text = "nobody says that its runs are closed, so it is not seen whether they go";
        findings.add(id, text.to_owned());
    }
    for node in &remains.away {
        let text = "it is not up, and may still have rows of runs that should be gone";
        findings.add(&format!("node {node}"), text.to_owned());
    }
    for (node, tables) in &remains.stayed {
        let text = format!("rows of runs whose retention is over are left: {}", counts(tables));
        findings.add(&format!("node {node}"), text);
    }
    for node in &remains.behind {
        let text = "it has not caught up with what it had applied when all runs were gone";
        findings.add(&format!("node {node}"), text.to_owned());
    }
    for id in &remains.unanswered {
        let text = "no node answers for it after the last restart, and its runs may be back";
        findings.add(id, text.to_owned());
    }
    for (node, tables) in &remains.back {
        let text = format!("rows of runs that were gone are back: {}", counts(tables));
        findings.add(&format!("node {node}"), text);
    }
    for seen in &remains.shown {
        let Sighting { node, call, id, what } = seen;
        findings.add(id, format!("{call} on node {node} shows {what}, and every run is gone"));
    }
    let Some(gone) = remains.gone else { return };
    for operation in remains.operations.iter().filter(|operation| operation.invoked > gone) {
        if operation.told().is_some_and(shows_a_run) {
            let text =
                format!("{}; every run was gone at {:.6} s", operation.describe(), gone.seconds());
            findings.add(&operation.asked.id, text);
        }
    }
}

/// Whether an answer needs a run that exists.
fn shows_a_run(told: &Told) -> bool {
    match told {
        Told::Shown { run, .. } => !run.is_empty(),
        Told::Attempt { .. } | Told::Beat(_) => true,
        Told::Listed(rows) => !rows.is_empty(),
        Told::Counted(count) => *count != 0,
        // A start makes a new run, and "done" may be said of none.
        Told::Started { .. } | Told::Attached { .. } | Told::Done => false,
    }
}

fn counts(tables: &BTreeMap<&'static str, u64>) -> String {
    let each = tables.iter().map(|(table, rows)| format!("{rows} of {table}"));
    each.collect::<Vec<_>>().join(", ")
}

/// How many rows a node has of any run, by table; nothing when all are gone. The record of a
/// workflow id outlives its runs: it knows their requests.
pub fn rows_of_runs(store: &dyn Store, shards: u32) -> BTreeMap<&'static str, u64> {
    let view = store.view();
    let any = |_: &[u8], _: &[u8]| Ok(true);
    let journal = |key: &[u8], _: &[u8]| Ok(JournalKey::decode(key)?.slot.slot != Slot::Id);
    let checkpoint = |key: &[u8], _: &[u8]| Ok(CheckpointKey::decode(key)?.slot.slot != Slot::Id);
    let count = |_: &[u8], row: &[u8]| Ok(counter::from_value(Bytes::copy_from_slice(row))? != 0);
    let tables: [(&'static str, Table, IsOfRun<'_>); 8] = [
        ("history", Table::History, &any),
        ("journal", Table::Journal, &journal),
        ("checkpoints", Table::Checkpoint, &checkpoint),
        ("deadlines", Table::Deadline, &any),
        ("backlog", Table::Backlog, &any),
        ("visibility", Table::Visibility, &any),
        ("lists", Table::VisibilityIndex, &any),
        ("counters", Table::Counter, &count),
    ];
    let mut left = BTreeMap::new();
    for (name, table, is_of_run) in tables {
        let of_shard = |shard| rows(view.as_ref(), &table.range(shard), is_of_run);
        let rows: u64 = (0..shards).map(of_shard).sum();
        if rows > 0 {
            left.insert(name, rows);
        }
    }
    left
}

type IsOfRun<'a> = &'a dyn Fn(&[u8], &[u8]) -> Result<bool, StorageError>;

fn rows(view: &dyn View, range: &Range<Bytes>, is_of_run: IsOfRun<'_>) -> u64 {
    let mut rows = 0;
    let scanned = view.scan(&range.start, &range.end, Direction::Forward, &mut |key, value| {
        // What can't be read is not gone.
        rows += u64::from(is_of_run(key, value).unwrap_or(true));
        ControlFlow::Continue(())
    });
    rows + u64::from(scanned.is_err())
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::{ExecutionKey, Uuid};
    use holdfast_storage::Op;
    use holdfast_storage::memory::MemoryStore;
    use holdfast_storage::tables::SlotKey;
    use holdfast_storage::tables::counter::CounterKey;

    use super::super::testing::World;
    use super::*;

    fn said(remains: &Remains) -> Vec<String> {
        afterwards(remains)
            .into_iter()
            .map(|found| format!("{}: {}", found.key, found.text))
            .collect()
    }

    #[test]
    fn rows_that_stay_or_come_back_are_found() {
        assert_eq!(said(&Remains::default()), Vec::<String>::new());
        let rows = BTreeMap::from([(2, BTreeMap::from([("history", 3), ("journal", 1)]))]);
        let stayed = Remains { stayed: rows.clone(), ..Remains::default() };
        let text =
            "node 2: rows of runs whose retention is over are left: 3 of history, 1 of journal";
        assert_eq!(said(&stayed), [text]);
        let back = Remains { back: rows, ..Remains::default() };
        let text = "node 2: rows of runs that were gone are back: 3 of history, 1 of journal";
        assert_eq!(said(&back), [text]);
        let away = Remains { away: vec![3], ..Remains::default() };
        assert!(said(&away)[0].starts_with("node 3: it is not up"));
        let behind = Remains { behind: vec![3], ..Remains::default() };
        assert!(said(&behind)[0].starts_with("node 3: it has not caught up"));
    }

    #[test]
    fn ids_that_nobody_answers_for_are_found() {
        let ids = vec!["w".to_owned()];
        let unready = Remains { unready: ids.clone(), ..Remains::default() };
        assert!(said(&unready)[0].starts_with("w: nobody says that its runs are closed"));
        let unanswered = Remains { unanswered: ids, ..Remains::default() };
        assert!(said(&unanswered)[0].starts_with("w: no node answers for it"));
    }

    fn rows_of(puts: &[(Bytes, Bytes)]) -> Vec<(&'static str, u64)> {
        let store = MemoryStore::new();
        let put =
            |(key, value): &(Bytes, Bytes)| Op::Put { key: key.clone(), value: value.clone() };
        store.apply(puts.iter().map(put).collect()).expect("writes");
        rows_of_runs(&store, 4).into_iter().collect()
    }

    #[test]
    fn rows_of_runs_are_told_from_those_that_stay() {
        let (namespace, row) = (Uuid::v4(1), Bytes::from_static(b"row"));
        let slot = |shard, slot| SlotKey {
            shard,
            execution: ExecutionKey::workflow(namespace, "w"),
            slot,
        };
        let journal = |shard, of| JournalKey { slot: slot(shard, of), base: 0 }.encode();
        let checkpoint = |shard, of| CheckpointKey { slot: slot(shard, of) }.encode();
        let counter = |shard, name: &str| {
            let (name, sub) = (name.to_owned(), Vec::new());
            CounterKey { shard, namespace, kind: 1, name, sub }.encode()
        };
        let zero = counter::to_value(0);
        let stay = [
            (journal(0, Slot::Id), row.clone()),
            (checkpoint(1, Slot::Id), row.clone()),
            (counter(2, "q"), zero),
        ];
        assert_eq!(rows_of(&stay), []);

        let run = Slot::Run(Uuid::v4(2));
        let of_runs = [
            (journal(0, run), row.clone()),
            (journal(3, run), row.clone()),
            (checkpoint(1, run), row.clone()),
            (counter(2, "q"), counter::to_value(-1)),
            // What can't be read is not gone.
            (counter(2, "r"), row.clone()),
            (Table::History.range(1).start, row),
        ];
        let all = [stay.as_slice(), &of_runs].concat();
        let left = [("checkpoints", 1), ("counters", 2), ("history", 1), ("journal", 2)];
        assert_eq!(rows_of(&all), left);
    }

    #[test]
    fn a_call_that_shows_what_is_gone_is_found() {
        let (id, what) = ("w".to_owned(), "run r1".to_owned());
        let shown = vec![Sighting { node: 1, call: "describe", id, what }];
        let text = "w: describe on node 1 shows run r1, and every run is gone";
        assert_eq!(said(&Remains { shown, ..Remains::default() }), [text]);
    }

    #[test]
    fn a_worker_that_is_handed_what_is_gone_is_found() {
        let mut world = World::default();
        world.attempt("w", "r1", "a0.0", 1, 0);
        let gone = world.evidence.operations.last().map(|before| before.returned);
        world.listed("w", &[]);
        let quiet =
            Remains { gone, operations: world.evidence.operations.clone(), ..Remains::default() };
        assert_eq!(said(&quiet), Vec::<String>::new());
        world.attempt("w", "r1", "a0.0", 2, 0);
        let late = Remains { operations: world.evidence.operations, ..quiet };
        let found = said(&late);
        assert!(found.len() == 1 && found[0].contains("every run was gone at"), "{found:?}");
    }
}
