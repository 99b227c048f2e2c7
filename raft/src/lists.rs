//! Lists and counts: every shard's rows of a namespace, in one order, read from one view behind a
//! read index of each shard. Never silently partial: what can't be finished within the budget is
//! refused (A21).

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_engine::ids::{NamespaceId, RunId, Uuid};
use holdfast_engine::namespace::NamespaceView;
use holdfast_engine::rows::VisibilityRecord;
use holdfast_engine::visibility::filter::Query;
use holdfast_engine::visibility::plan::Plan;
use holdfast_engine::visibility::record::{ListPage, SortKey};
use holdfast_engine::visibility::request::{Listing, Tally};
use holdfast_engine::{Code, Rejection};
use holdfast_storage::tables::{self, ShardId, visibility};
use holdfast_storage::{Direction, StorageError, View};
use prost::Message;

use crate::node::Node;
use crate::shard::SubmitError;

/// Rows that one list or count may look at; one that needs more is refused.
pub const ROW_BUDGET: usize = 2_000_000;

/// The records of one page, and where the next one begins.
pub type Listed = (Vec<VisibilityRecord>, Option<ListPage>);

impl Node {
    /// One page of a list.
    pub fn list<'a>(
        &'a self,
        namespace: &'a Arc<NamespaceView>,
        listing: &'a Listing,
    ) -> BoxFuture<'a, Result<Listed, SubmitError>> {
        Box::pin(async move {
            let view = self.read_all().await?;
            let plan = Plan::of(&listing.query.filter);
            let mut found = Vec::new();
            let mut budget = ROW_BUDGET;
            for shard in self.shards_of(namespace.id, &plan) {
                let mut left = listing.size;
                let rows = rows(shard, namespace.id, &plan, listing.after);
                scan(view.as_ref(), &rows, &mut budget, &mut |record| {
                    if listing.query.matches(&record) {
                        found.push(record);
                        left -= 1;
                    }
                    left > 0
                })
                .await?;
            }
            Ok(listing.merge(found, namespace.id))
        })
    }

    /// A count, grouped if the query says so.
    pub fn count<'a>(
        &'a self,
        namespace: &'a Arc<NamespaceView>,
        query: &'a Query,
    ) -> BoxFuture<'a, Result<Tally, SubmitError>> {
        Box::pin(async move {
            let view = self.read_all().await?;
            let plan = Plan::of(&query.filter);
            let mut tally = Tally::default();
            let mut budget = ROW_BUDGET;
            for shard in self.shards_of(namespace.id, &plan) {
                let rows = rows(shard, namespace.id, &plan, None);
                scan(view.as_ref(), &rows, &mut budget, &mut |record| {
                    tally.add(query, &record);
                    true
                })
                .await?;
            }
            Ok(tally)
        })
    }

    /// Some runs of a namespace, open or closed; none only when there is none.
    pub(crate) async fn some_runs(
        &self,
        namespace: NamespaceId,
        most: usize,
    ) -> Result<Vec<(String, RunId)>, SubmitError> {
        let view = self.read_all().await?;
        let mut found = Vec::new();
        for shard in 0..self.shards() {
            let rows = rows(shard, namespace, &Plan::default(), None);
            scan(view.as_ref(), &rows, &mut most.clone(), &mut |record| {
                let run = Uuid::from_slice(&record.run).unwrap_or(Uuid::NIL);
                found.push((record.workflow_id, run));
                found.len() < most
            })
            .await?;
        }
        Ok(found)
    }

    /// The shards that may hold what a plan wants.
    fn shards_of(&self, namespace: NamespaceId, plan: &Plan) -> Range<ShardId> {
        if plan.empty {
            return 0..0;
        }
        match &plan.workflow_id {
            Some(id) => {
                let key = holdfast_engine::ids::ExecutionKey::workflow(namespace, id);
                let shard = key.shard(self.shards());
                shard..shard + 1
            }
            None => 0..self.shards(),
        }
    }
}

/// The rows of one shard that a plan may want, behind a place in the list.
fn rows(
    shard: ShardId,
    namespace: NamespaceId,
    plan: &Plan,
    after: Option<SortKey>,
) -> Range<Bytes> {
    let all = visibility::IndexKey::range(shard, namespace, visibility::ALL, &[]);
    let with = |suffix: &[u8]| Bytes::from([&all.start[..], suffix].concat());
    let (first, last) = plan.key_range();
    let start = match after {
        // Every key of that place, whatever the archetype behind it, is before this one.
        Some(SortKey(place)) => with(&[&place[..], &[0xff]].concat()).max(with(&[first])),
        None => with(&[first]),
    };
    start..with(&[last]).min(all.end.clone())
}

/// Rows looked at before others get a turn: shards and Raft run on the same threads.
const TURN: usize = 500;

async fn scan(
    view: &dyn View,
    rows: &Range<Bytes>,
    budget: &mut usize,
    visit: &mut (dyn FnMut(VisibilityRecord) -> bool + Send),
) -> Result<(), SubmitError> {
    let mut start = rows.start.clone();
    while start < rows.end {
        let left = TURN.min(*budget);
        let mut turn = Turn { last: None, left, over: false, spent: false, failed: None };
        let scanned = view.scan(&start, &rows.end, Direction::Forward, &mut |key, value| {
            turn.see(key, value, visit)
        });
        if let Some(why) = scanned.err().or(turn.failed) {
            tracing::error!(%why, "the visibility table can't be read");
            return Err(SubmitError::Unavailable("the visibility table can't be read"));
        }
        if turn.spent {
            let text = "the query looks at too many workflows; narrow it";
            return Err(Rejection::new(Code::ResourceExhausted, text).into());
        }
        *budget -= TURN.min(*budget) - turn.left;
        let Some(last) = turn.last.filter(|_| !turn.over) else { return Ok(()) };
        start = tables::after(&last);
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// One turn of a scan.
struct Turn {
    /// The last row that was looked at.
    last: Option<Bytes>,
    /// Rows that may still be looked at.
    left: usize,
    /// The visitor has enough.
    over: bool,
    /// There is a row that the budget does not allow to look at.
    spent: bool,
    failed: Option<StorageError>,
}

impl Turn {
    fn see(
        &mut self,
        key: &[u8],
        value: &[u8],
        visit: &mut (dyn FnMut(VisibilityRecord) -> bool + Send),
    ) -> ControlFlow<()> {
        if self.left == 0 {
            self.spent = true;
            return ControlFlow::Break(());
        }
        match record(value) {
            Ok(record) => self.over = !visit(record),
            Err(why) => self.failed = Some(why),
        }
        self.left -= 1;
        if self.over || self.failed.is_some() || self.left == 0 {
            self.last = Some(Bytes::copy_from_slice(key));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

fn record(value: &[u8]) -> Result<VisibilityRecord, StorageError> {
    let bytes = visibility::from_value(Bytes::copy_from_slice(value))?;
    VisibilityRecord::decode(bytes)
        .map_err(|why| StorageError::Corrupt(format!("visibility record: {why}")))
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::{Archetype, Hlc, Uuid};
    use holdfast_storage::tables::Key;
    use holdfast_storage::tables::visibility::{IndexKey, Sort};

    use super::*;

    fn key(closed: u64, started: u64, run: u8) -> (SortKey, Bytes) {
        let run = Uuid([run; 16]);
        let record = VisibilityRecord {
            closed_at: closed,
            started_at: started,
            run: run.0.to_vec(),
            ..VisibilityRecord::default()
        };
        let sort = Sort { closed: (closed > 0).then_some(Hlc(closed)), started: Hlc(started), run };
        let key = IndexKey {
            shard: 1,
            namespace: Uuid([9; 16]),
            index: visibility::ALL,
            value: Vec::new(),
            sort,
            archetype: Archetype::Workflow,
        };
        (SortKey::of(&record), key.encode())
    }

    #[test]
    fn a_page_begins_behind_the_last_row_of_the_one_before() {
        let plan = Plan::default();
        let keys: Vec<_> = [(0, 5, 1), (0, 5, 2), (0, 4, 1), (9, 3, 1), (8, 3, 1)]
            .into_iter()
            .map(|(closed, started, run)| key(closed, started, run))
            .collect();
        assert!(keys.is_sorted());
        for (at, (place, _)) in keys.iter().enumerate() {
            let range = rows(1, Uuid([9; 16]), &plan, Some(*place));
            let inside: Vec<_> =
                keys.iter().filter(|(_, k)| range.contains(k)).map(|(p, _)| *p).collect();
            let behind: Vec<_> = keys[at + 1..].iter().map(|(p, _)| *p).collect();
            assert_eq!(inside, behind);
        }
    }

    #[test]
    fn a_plan_for_open_runs_skips_closed_ones() {
        let plan = Plan { open: Some(true), ..Plan::default() };
        let range = rows(1, Uuid([9; 16]), &plan, None);
        assert!(range.contains(&key(0, 5, 1).1));
        assert!(!range.contains(&key(9, 5, 1).1));
    }
}
