//! What follows when the clock is set back: no row waits for a time that was only shown by mistake.
//!
//! A run that was decided on under the wrong clock has rows in the future of the right one. Its next
//! decision moves them ([`holdfast_engine::workflow::own_time`]); here one comes for those that would
//! wait for nothing else. Each row of the shard that lies in the future is looked at once, some in a
//! turn. A shard whose last entries were decided in the future of its new leader's clock is looked at
//! as a whole as well, as often as it gets one: the log keeps the latest time, not what was done
//! about it.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use holdfast_engine::Input;
use holdfast_engine::ids::{ExecutionKey, Hlc, RunId};
use holdfast_storage::tables::backlog::{BacklogKey, Task};
use holdfast_storage::tables::deadline::{self, DeadlineKey};
use holdfast_storage::tables::{Key, KeyWriter, Table};
use holdfast_storage::{Direction, StorageError};

use super::serve::left;
use super::{Leading, Serving};
use crate::links::CLOCK_BOUND;

/// Rows looked at in one turn.
const PAGE: usize = 64;

/// How far the rows of a shard have been looked at.
#[derive(Debug)]
pub(super) struct Review {
    /// Not before this entry of the reign is applied: it was decided before the clock was set.
    after: u64,
    table: Table,
    from: Bytes,
}

/// Between two looks at a clock that is not settled.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until this node may say what time it is: its clock has made no step that is not settled, and
/// a majority agrees with it. Otherwise two leaders in a row, of whom one has taken a step over and the
/// other has not, would make hours of it for a run that keeps its own time. `false` when the node
/// ceases to serve first.
pub(super) async fn time_is_known(leading: &Leading, term: u64) -> bool {
    let mut leadership = leading.group.leadership();
    while !leading.host.clock.is_settled() || !leading.group.clocks_agree() {
        tokio::select! {
            biased;
            () = left(&mut leadership, term) => return false,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    true
}

impl Serving {
    /// Whether this node may go on to say what time it is; where not, see [`time_is_known`].
    pub(super) fn knows_the_time(&mut self, leading: &Leading) -> bool {
        if !self.host.clock.is_settled() {
            return false;
        }
        let steps = self.host.clock.standing().borrow().steps;
        if steps != self.steps && leading.group.clocks_agree() {
            self.steps = steps;
        }
        steps == self.steps
    }

    /// The time; where it is earlier than it was, the rows of the future are to be looked at.
    pub(super) fn look_at_the_clock(&mut self) -> Hlc {
        let now = self.host.clock.now();
        if now.after(CLOCK_BOUND) < self.looked {
            let decided = !self.batch.drafts.is_empty() || !self.sealed.is_empty();
            let after = if decided { self.open_entry() } else { self.proposed };
            let from = deadline::end_of(self.shard, now);
            tracing::info!(shard = self.shard, "the clock was set back: what waits is looked at");
            self.review = Some(Review { after, table: Table::Deadline, from });
        }
        self.looked = now;
        now
    }

    /// Looks at some more rows; whether there are others to look at now.
    pub(super) fn go_on_reviewing(&mut self, now: Hlc) -> Result<bool, StorageError> {
        let Some(review) = &self.review else { return Ok(false) };
        if self.applied < review.after || self.is_full() {
            return Ok(false);
        }
        let (rows, next) = self.page(review.table, &review.from, now)?;
        let after = review.after;
        self.review = match (next, review.table) {
            (Some(from), table) => Some(Review { after, table, from }),
            (None, Table::Deadline) => {
                let from = KeyWriter::new(Table::Backlog, self.shard).range().start;
                Some(Review { after, table: Table::Backlog, from })
            }
            (None, _) => None,
        };
        for (key, run) in rows {
            self.internal(&key, Input::Due { run })?;
        }
        Ok(self.review.is_some())
    }

    /// The runs of the next rows that lie in the future, and from where to read on.
    fn page(&self, table: Table, from: &[u8], now: Hlc) -> Result<Page, StorageError> {
        let end = KeyWriter::new(table, self.shard).range().end;
        let (mut runs, mut seen, mut last) = (Vec::new(), 0, None);
        let mut failed = None;
        let view = self.host.store.view();
        view.scan(from, &end, Direction::Forward, &mut |key, value| {
            match run_of(table, key, value) {
                Ok((at, key, run)) if at > now => runs.push((key, run)),
                Ok(_) => {}
                Err(why) => failed = Some(why),
            }
            seen += 1;
            if failed.is_none() && seen < PAGE {
                return ControlFlow::Continue(());
            }
            last = Some(holdfast_storage::tables::after(key));
            ControlFlow::Break(())
        })?;
        failed.map_or(Ok((runs, last)), Err)
    }
}

/// The runs of some rows, and from where to read on.
type Page = (Vec<(ExecutionKey, RunId)>, Option<Bytes>);

/// When a row of the deadline table or of the backlog is due, and whose it is.
fn run_of(
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<(Hlc, ExecutionKey, RunId), StorageError> {
    if table == Table::Deadline {
        let row = DeadlineKey::decode(key)?;
        return Ok((row.at, row.execution, row.run));
    }
    let row = BacklogKey::decode(key)?;
    let task = Task::from_value(row.queue.namespace, Bytes::copy_from_slice(value))?;
    Ok((row.at, task.execution, row.run))
}
