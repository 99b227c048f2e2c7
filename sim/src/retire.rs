//! The end of every run of the simulator: all machines are switched off for longer than closed runs
//! are kept, and on again. Then every run must go, on every node, with all its rows; and it must
//! stay away when the nodes start once more on what their disks kept (A8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use holdfast_raft::types::NodeId;
use holdfast_storage::Store;
use tokio::time::{Instant, sleep};

use crate::judge::{Remains, afterwards, applied, rows_of_runs};
use crate::work::{RETENTION, Workload};
use crate::world::Shared;

/// How long the runs may take to go, and the nodes to come up and to catch up after that.
const LIMIT: Duration = Duration::from_secs(120);

/// How much longer than the retention the machines are off.
const LONGER: Duration = Duration::from_secs(3600);

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

/// How long every node is asked for every run, until somebody answered for each id: every shard has
/// a leader long before that.
const ROUNDS: Duration = Duration::from_secs(30);

/// How long it is asked whether every run is closed: one id after the other, so many take a while.
const ASKED: Duration = Duration::from_secs(120);

/// Switches everything off and on, waits until the runs are gone, and looks whether they stay away.
/// `is_known`: L3 has said already that something does not answer or does not end.
pub(crate) async fn retire(world: &Arc<Shared>, load: &Workload, is_known: bool) {
    // What was started last may still be open, which L3 says; it stays, and rightly so.
    let open = load.drained(ASKED).await;
    if !open.is_empty() {
        if !is_known {
            let unready = open.iter().map(ToString::to_string).collect();
            report(world, &Remains { unready, ..Remains::default() });
        }
        return;
    }
    world.trace.line(format_args!("switched off and on"));
    let by = (RETENTION + LONGER).as_millis();
    for node in world.node_ids() {
        world.jump(node, i64::try_from(by).unwrap_or(i64::MAX), true);
    }
    let mut remains = Remains::default();
    go(world, load, &mut remains).await;
    if remains.gone.is_some() {
        stay_away(world, load, &mut remains).await;
    }
    remains.operations = load.record().operations();
    report(world, &remains);
}

fn report(world: &Shared, remains: &Remains) {
    for found in afterwards(remains) {
        world.violation(found.rule, &found.key, found.text);
    }
}

/// Nodes that should be up.
fn nodes(world: &Shared) -> Vec<NodeId> {
    world.node_ids().into_iter().filter(|node| !world.is_lost(*node)).collect()
}

/// The rows of runs that a node still has; `None` while it is not up.
fn left(world: &Shared, node: NodeId) -> Option<BTreeMap<&'static str, u64>> {
    world.up(node).map(|up| rows_of_runs(up.store.as_ref(), world.scenario.shards))
}

/// Waits until every run is gone everywhere.
async fn go(world: &Shared, load: &Workload, remains: &mut Remains) {
    let until = Instant::now() + LIMIT;
    for node in nodes(world) {
        loop {
            let rows = left(world, node);
            if rows.as_ref().is_some_and(BTreeMap::is_empty) {
                break;
            }
            if Instant::now() >= until {
                match rows {
                    Some(rows) => drop(remains.stayed.insert(node, rows)),
                    None => remains.away.push(node),
                }
                break;
            }
            sleep(EVERY).await;
        }
    }
    if remains.stayed.is_empty() && remains.away.is_empty() {
        remains.gone = Some(load.record().moment());
    }
}

/// Term and index that each group of a node has applied.
type Reached = Option<Vec<Option<(u64, u64)>>>;

fn reached(world: &Shared, node: NodeId) -> Reached {
    let store: Arc<dyn Store> = world.up(node)?.store;
    applied(&store, world.scenario.shards).ok()
}

/// Whether some group is not where it was.
fn is_behind(now: Reached, before: Option<&Vec<Option<(u64, u64)>>>) -> bool {
    let (Some(now), Some(before)) = (now, before) else { return true };
    now.iter().zip(before).any(|(now, before)| now < before)
}

/// All nodes lose what is not on disk and start again. While they catch up their tables may be of
/// before the end, but nobody may show that; and once they have caught up it must be gone again.
async fn stay_away(world: &Shared, load: &Workload, remains: &mut Remains) {
    let nodes = nodes(world);
    let goals: Vec<_> = nodes.iter().map(|node| reached(world, *node)).collect();
    for node in &nodes {
        world.crash(*node, "it loses power once all runs are gone");
    }
    let until = Instant::now() + LIMIT;
    while nodes.iter().any(|node| world.up(*node).is_none()) && Instant::now() < until {
        sleep(Duration::from_millis(10)).await;
    }
    look(world, load, &nodes, remains).await;
    let until = Instant::now() + LIMIT;
    for (node, goal) in nodes.iter().zip(&goals) {
        let behind = || is_behind(reached(world, *node), goal.as_ref());
        while behind() && Instant::now() < until {
            sleep(EVERY).await;
        }
        match left(world, *node) {
            None => remains.away.push(*node),
            // Its tables are of before the end, and so are rows of runs in them.
            Some(_) if behind() => remains.behind.push(*node),
            Some(rows) if rows.is_empty() => {}
            Some(rows) => drop(remains.back.insert(*node, rows)),
        }
    }
}

/// Asks every node for every run, again and again until somebody answered for each workflow id:
/// where no node leads a shard yet, nobody says anything.
async fn look(world: &Shared, load: &Workload, nodes: &[NodeId], remains: &mut Remains) {
    let reader = load.reader("afterwards");
    let mut open = BTreeMap::<String, Vec<String>>::new();
    for (run, id) in load.known_runs() {
        open.entry(id).or_default().push(run);
    }
    let until = Instant::now() + ROUNDS;
    let mut shown = Vec::new();
    loop {
        let mut answered = BTreeSet::new();
        for node in nodes {
            shown.extend(reader.listed_on(*node).await);
            let asked = open.iter().map(|(id, runs)| reader.seek_on(*node, id, runs));
            for (id, told) in open.keys().zip(join_all(asked).await) {
                if let Some(seen) = told {
                    answered.insert(id.clone());
                    shown.extend(seen);
                }
            }
        }
        open.retain(|id, _| !answered.contains(id));
        if open.is_empty() || Instant::now() >= until {
            break;
        }
        sleep(EVERY).await;
    }
    let (seen, unanswered) = (shown.len(), open.len());
    world.trace.line(format_args!("all runs are gone: {seen} shown, {unanswered} ids unanswered"));
    remains.shown = shown;
    remains.unanswered = open.into_keys().collect();
}
