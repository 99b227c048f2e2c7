//! The newest entries of a group in memory: those that are not written yet, and as many written
//! ones as the limits allow.

use std::collections::VecDeque;

use super::options::LogLimits;
use crate::LogEntry;

#[derive(Default)]
pub(super) struct Tail {
    /// Without a hole; each with the number of the batch that writes it.
    entries: VecDeque<(LogEntry, u64)>,
    bytes: usize,
}

impl Tail {
    pub(super) fn push(&mut self, entry: LogEntry, batch: u64) {
        self.bytes += entry.payload.len();
        self.entries.push_back((entry, batch));
    }

    /// The index of the oldest entry held.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.index)
    }

    pub(super) fn truncate_after(&mut self, index: Option<u64>) {
        while let Some((entry, _)) = self.entries.back()
            && index.is_none_or(|index| entry.index > index)
        {
            self.bytes -= entry.payload.len();
            self.entries.pop_back();
        }
    }

    pub(super) fn purge(&mut self, upto: u64) {
        while self.first().is_some_and(|first| first <= upto) {
            self.drop_first();
        }
    }

    /// Lets go of what is over the limits and on disk.
    pub(super) fn evict(&mut self, limits: &LogLimits, written: u64) {
        while (self.entries.len() > limits.tail_entries || self.bytes > limits.tail_bytes)
            && self.entries.front().is_some_and(|(_, batch)| *batch <= written)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((entry, _)) = self.entries.pop_front() {
            self.bytes -= entry.payload.len();
        }
    }

    /// The entries from `from` on; nothing when the oldest held is newer.
    pub(super) fn from(&self, from: u64) -> impl Iterator<Item = &LogEntry> {
        let skip = match self.first() {
            Some(first) if first <= from => usize::try_from(from - first).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        self.entries.iter().skip(skip).map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tail(entries: std::ops::Range<u64>) -> Tail {
        let mut tail = Tail::default();
        for index in entries {
            let payload = Bytes::from(vec![0; 10]);
            tail.push(LogEntry { index, term: 1, payload }, index);
        }
        tail
    }

    fn held(tail: &Tail, from: u64) -> Vec<u64> {
        tail.from(from).map(|entry| entry.index).collect()
    }

    #[test]
    fn the_limits_hold_but_not_for_what_is_unwritten() {
        let limits = |tail_entries, tail_bytes| LogLimits {
            tail_entries,
            tail_bytes,
            ..LogLimits::default()
        };
        let mut by_count = tail(5..15);
        by_count.evict(&limits(3, 1000), 8);
        assert_eq!(by_count.first(), Some(9), "9 is not written yet");
        by_count.evict(&limits(3, 1000), 99);
        assert_eq!(held(&by_count, 12), [12, 13, 14]);
        let mut by_bytes = tail(5..15);
        by_bytes.evict(&limits(1000, 25), 99);
        assert_eq!(held(&by_bytes, 13), [13, 14]);
        by_bytes.evict(&limits(0, 0), 99);
        assert_eq!((by_bytes.first(), by_bytes.bytes), (None, 0));
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut tail = tail(5..15);
        tail.purge(7);
        tail.truncate_after(Some(10));
        assert_eq!(held(&tail, 8), [8, 9, 10]);
        assert_eq!(held(&tail, 7), [0; 0], "7 is not here: ask the disk");
        assert_eq!(tail.bytes, 30);
        tail.truncate_after(None);
        assert_eq!((tail.first(), tail.bytes), (None, 0));
    }
}
