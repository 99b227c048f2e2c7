//! The deadlines of a shard in memory: the near end of the deadline table.
//!
//! One row per run, its earliest need. Only a bounded number of rows is held; what lies beyond
//! the horizon stays in the table until the wheel runs low, so that a restart reads a page and
//! not a table.

use std::collections::BTreeSet;

use holdfast_engine::ids::{ExecutionKey, Hlc, RunId};

/// A run and when it needs attention.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Deadline {
    /// When.
    pub(crate) at: Hlc,
    /// The execution.
    pub(crate) key: ExecutionKey,
    /// The run.
    pub(crate) run: RunId,
}

/// The near deadlines of one shard.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// How many it holds at most.
    most: usize,
    held: BTreeSet<Deadline>,
    /// The last row read from the table; rows after it are not held. `None`: all are held.
    horizon: Option<Deadline>,
}

impl Wheel {
    /// An empty wheel that holds `most`, and one at least: it would read for ever otherwise.
    pub(crate) fn new(most: usize) -> Wheel {
        Wheel { most: most.max(1), held: BTreeSet::new(), horizon: None }
    }

    /// How many rows it holds at most, which is what one read of the table is to give.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Adds the rows that follow the horizon, at first those from the start of the table; `more`
    /// when the table has others.
    pub(crate) fn refill(&mut self, rows: Vec<Deadline>, more: bool) {
        self.horizon = if more { rows.last().cloned() } else { None };
        self.held.extend(rows);
    }

    /// A row was written.
    pub(crate) fn insert(&mut self, deadline: Deadline) {
        if self.horizon.as_ref().is_some_and(|horizon| deadline > *horizon) {
            return;
        }
        self.held.insert(deadline);
        if self.held.len() > self.most {
            self.held.pop_last();
            self.horizon = self.held.last().cloned();
        }
    }

    /// A row was deleted.
    pub(crate) fn remove(&mut self, deadline: &Deadline) {
        self.held.remove(deadline);
    }

    /// Takes the first deadline that is due.
    pub(crate) fn pop_due(&mut self, now: Hlc) -> Option<Deadline> {
        if self.held.first()?.at > now {
            return None;
        }
        self.held.pop_first()
    }

    /// When to look again, at the latest.
    pub(crate) fn next(&self) -> Option<Hlc> {
        self.held.first().or(self.horizon.as_ref()).map(|deadline| deadline.at)
    }

    /// Where to read on from, when the wheel holds nothing but the table does.
    pub(crate) fn wants(&self) -> Option<&Deadline> {
        if self.held.is_empty() { self.horizon.as_ref() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::Uuid;

    use super::*;

    fn at(n: u64) -> Deadline {
        let key = ExecutionKey::workflow(Uuid([1; 16]), &format!("w{n}"));
        Deadline { at: Hlc(n), key, run: Uuid([2; 16]) }
    }

    fn wheel(rows: Vec<Deadline>, more: bool) -> Wheel {
        let mut wheel = Wheel::new(9);
        wheel.refill(rows, more);
        wheel
    }

    #[test]
    fn due_ones_come_in_order_and_not_early() {
        let mut wheel = wheel(vec![at(5), at(3)], false);
        wheel.insert(at(4));
        wheel.remove(&at(3));
        assert_eq!(wheel.pop_due(Hlc(3)), None);
        assert_eq!(wheel.next(), Some(Hlc(4)));
        assert_eq!(wheel.pop_due(Hlc(9)), Some(at(4)));
        assert_eq!(wheel.pop_due(Hlc(9)), Some(at(5)));
        assert_eq!(wheel.pop_due(Hlc(9)), None);
        assert_eq!(wheel.wants(), None);
    }

    #[test]
    fn what_lies_beyond_the_horizon_is_read_again_and_not_lost() {
        let mut wheel = wheel(vec![at(1), at(2)], true);
        wheel.insert(at(7));
        assert_eq!(wheel.pop_due(Hlc(9)), Some(at(1)));
        assert_eq!(wheel.wants(), None);
        assert_eq!(wheel.pop_due(Hlc(9)), Some(at(2)));
        assert_eq!(wheel.wants(), Some(&at(2)));
        assert_eq!(wheel.next(), Some(Hlc(2)), "the table must be read at once");
        wheel.refill(vec![at(7)], false);
        assert_eq!(wheel.pop_due(Hlc(9)), Some(at(7)));
    }

    #[test]
    fn the_wheel_is_bounded() {
        let mut wheel = wheel(Vec::new(), false);
        for n in (0..19).rev() {
            wheel.insert(at(n));
        }
        assert_eq!(wheel.held.len(), 9);
        let mut last = 0;
        while let Some(due) = wheel.pop_due(Hlc(u64::MAX)) {
            last = due.at.0;
        }
        assert_eq!(wheel.wants().map(|horizon| horizon.at.0), Some(last));
    }
}
