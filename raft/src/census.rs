//! What a node holds in memory for callers, and on top of its tables.

use crate::shard::Serving;

/// Counts of what a node holds for callers that wait and of what its tables do not have yet. Each
/// goes back to zero once nobody calls any more and what was decided is applied: one that stays is
/// a leak. Shards that the node does not lead count nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Polls of task queues, waiting or lent to a shard.
    pub polls: usize,
    /// Inputs that wait for their decision.
    pub inputs: usize,
    /// Drafts that are in no entry yet.
    pub drafts: usize,
    /// Entries that are proposed and not applied.
    pub entries: usize,
    /// Answers that are held until what they rest on is committed.
    pub answers: usize,
    /// Runs with a start that was handed out and is not durable.
    pub grants: usize,
    /// Executions in memory with changes that are not applied.
    pub pending: usize,
    /// Readers that wait for history.
    pub readers: usize,
}

impl Census {
    /// Every count with its name, as a metric would show it.
    pub fn counts(&self) -> [(&'static str, usize); 8] {
        let Census { polls, inputs, drafts, entries, answers, grants, pending, readers } = *self;
        [
            ("polls", polls),
            ("inputs", inputs),
            ("drafts", drafts),
            ("entries", entries),
            ("answers", answers),
            ("grants", grants),
            ("pending", pending),
            ("readers", readers),
        ]
    }

    /// Whether every count is zero.
    pub fn is_empty(&self) -> bool {
        *self == Census::default()
    }

    /// Adds the counts of another part of the node.
    pub(crate) fn add(&mut self, other: &Census) {
        let Census { polls, inputs, drafts, entries, answers, grants, pending, readers } = other;
        self.polls += polls;
        self.inputs += inputs;
        self.drafts += drafts;
        self.entries += entries;
        self.answers += answers;
        self.grants += grants;
        self.pending += pending;
        self.readers += readers;
    }
}

impl Serving {
    /// What this reign holds. Looks at every execution in memory: for now and then, not for each
    /// call.
    pub(crate) fn census(&self) -> Census {
        let waiting = self.sealed.iter().chain([&self.batch]);
        let answers = waiting.clone().map(|batch| batch.held.len()).sum::<usize>()
            + self.in_flight.iter().map(|entry| entry.held.len()).sum::<usize>()
            + self.reads.len();
        let (granted, pending) = self.cache.unsettled(self.applied);
        Census {
            drafts: waiting.map(|batch| batch.drafts.len()).sum(),
            entries: self.in_flight.len(),
            answers,
            grants: self.grants.len().max(granted),
            pending,
            readers: self.waits.count(),
            ..Census::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let mut all = Census::default();
        assert!(all.is_empty());
        all.add(&Census { polls: 1, readers: 2, ..Census::default() });
        all.add(&Census { readers: 3, grants: 4, ..Census::default() });
        let more: Vec<_> = all.counts().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(more, [("polls", 1), ("grants", 4), ("readers", 5)]);
        assert!(!all.is_empty());
    }
}
