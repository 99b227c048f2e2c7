//! The end of every run of the simulator: all machines are switched off for longer than closed runs
//! are kept, and on again. Then every run must go, on every node, with all its rows.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::tables::Table;
use holdfast_storage::{Direction, Store};

use crate::work::RETENTION;
use crate::world::Shared;

/// How long the runs may take to go.
const LIMIT: Duration = Duration::from_secs(120);

/// How much longer than the retention the machines are off.
const LONGER: Duration = Duration::from_secs(3600);

/// What nothing may be left in.
const EMPTY: [Table; 4] = [Table::History, Table::Backlog, Table::Deadline, Table::VisibilityIndex];

/// Switches everything off and on, and waits until the runs are gone.
pub(crate) async fn retire(world: &Arc<Shared>) {
    world.trace.line(format_args!("switched off and on"));
    let by = (RETENTION + LONGER).as_millis();
    for node in world.node_ids() {
        world.jump(node, i64::try_from(by).unwrap_or(i64::MAX), true);
    }
    let until = tokio::time::Instant::now() + LIMIT;
    for node in world.node_ids().into_iter().filter(|node| !world.is_lost(*node)) {
        loop {
            let rows = world.up(node).map(|up| left(up.store.as_ref(), world.scenario.shards));
            if rows == Some(0) {
                break;
            }
            if tokio::time::Instant::now() >= until {
                let rows = rows.map_or("nobody knows how many".to_owned(), |rows| rows.to_string());
                let text = format!("{rows} rows of runs are left that should be gone");
                world.violation("retention", &format!("node {node}"), text);
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// How many rows are left that belong to runs.
fn left(store: &dyn Store, shards: u32) -> u64 {
    let (view, mut rows) = (store.view(), 0);
    for table in EMPTY {
        for range in (0..shards).map(|shard| table.range(shard)) {
            let counted = view.scan(&range.start, &range.end, Direction::Forward, &mut |_, _| {
                rows += 1;
                ControlFlow::Continue(())
            });
            // What can't be read is not gone.
            rows += u64::from(counted.is_err());
        }
    }
    rows
}
