//! Events of a run as readers get them: pages of whole batches, from either end, within a number of
//! bytes.

use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_engine::ids::EventId;
use holdfast_proto::history::HistoryEvent;
use holdfast_storage::tables::{Key, RunKey, history};
use holdfast_storage::{Direction, StorageError, View};
use prost::Message;

use crate::rows;

/// Which events a history read wants: whole batches as they were written, except where a page would
/// get too large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventRange {
    /// First event.
    pub from: EventId,
    /// One more than the last.
    pub to: EventId,
    /// Batches at most.
    pub batches: usize,
    /// Bytes at most that the events may take in an answer; one event is given however large it is,
    /// since a reader must get on.
    pub bytes: usize,
    /// From which end.
    pub direction: Direction,
}

/// The events of a page, by batches, in the order of the walk; within a batch they ascend.
pub(crate) fn read(
    view: &dyn View,
    run: &RunKey,
    range: EventRange,
) -> Result<Vec<Vec<HistoryEvent>>, StorageError> {
    let all = history::range(run);
    let first = history::HistoryKey { run: run.clone(), first: range.to };
    let end = first.encode().min(all.end);
    let start = history::start_at(view, run, range.from)?;
    let mut page = Page { range, batches: Vec::new(), bytes: 0 };
    let mut failed = None;
    view.scan(&start, &end, range.direction, &mut |_, value| match page.take(value) {
        Ok(flow) => flow,
        Err(why) => {
            failed = Some(why);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(page.batches), Err)
}

/// A page on its way.
struct Page {
    range: EventRange,
    batches: Vec<Vec<HistoryEvent>>,
    bytes: usize,
}

impl Page {
    /// Takes what it wants of a stored batch, and says whether it wants more.
    fn take(&mut self, value: &[u8]) -> Result<ControlFlow<()>, StorageError> {
        let mut wanted = history::Batch::from_value(Bytes::copy_from_slice(value))?.events;
        let backward = self.range.direction == Direction::Backward;
        if backward {
            wanted.reverse();
        }
        let mut events = Vec::with_capacity(wanted.len());
        let mut full = false;
        for bytes in wanted {
            let event = rows::event_id(&bytes)
                .ok_or_else(|| StorageError::Corrupt("history: an event without an id".into()))?;
            if !(self.range.from..self.range.to).contains(&event) {
                continue;
            }
            let size = size_in_answer(bytes.len());
            let is_first = self.batches.is_empty() && events.is_empty();
            full = !is_first && self.bytes.saturating_add(size) > self.range.bytes;
            if full {
                break;
            }
            self.bytes += size;
            events.push(
                HistoryEvent::decode(bytes)
                    .map_err(|why| StorageError::Corrupt(format!("history: {why}")))?,
            );
        }
        if backward {
            events.reverse();
        }
        if !events.is_empty() {
            self.batches.push(events);
        }
        full |= self.batches.len() >= self.range.batches;
        Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

/// How many bytes an event of so many adds to an answer: itself, its length, and the field it is.
pub fn size_in_answer(event: usize) -> usize {
    1 + prost::length_delimiter_len(event) + event
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::{ExecutionKey, Uuid};
    use holdfast_proto::history::History;
    use holdfast_proto::history::history_event::Attributes;
    use holdfast_storage::Store;
    use holdfast_storage::memory::MemoryStore;

    use super::*;

    fn run() -> RunKey {
        let execution = ExecutionKey::workflow(Uuid([7; 16]), "order-1");
        RunKey { shard: 3, execution, run: Uuid([9; 16]) }
    }

    /// An event of about so many bytes.
    fn event(event_id: EventId, bytes: usize) -> HistoryEvent {
        let signal = holdfast_proto::history::WorkflowExecutionSignaledEventAttributes {
            signal_name: "s".repeat(bytes),
            ..Default::default()
        };
        let attributes = Attributes::WorkflowExecutionSignaledEventAttributes(Box::new(signal));
        HistoryEvent { event_id, attributes: Some(attributes), ..HistoryEvent::default() }
    }

    /// A run whose batches hold events of these sizes.
    fn store(batches: &[&[usize]]) -> MemoryStore {
        let store = MemoryStore::new();
        let mut first = 1;
        for sizes in batches {
            let events = (first..).zip(*sizes).map(|(id, bytes)| event(id, *bytes));
            let events: Vec<_> = events.map(|event| Bytes::from(event.encode_to_vec())).collect();
            let next = first + events.len() as i64;
            store.apply(vec![rows::history_row(run(), first, events)]).expect("applies");
            first = next;
        }
        store
    }

    /// The ids on each page of a read of everything, read page by page as callers do.
    fn pages(
        store: &MemoryStore,
        direction: Direction,
        (batches, bytes): (usize, usize),
    ) -> Vec<Vec<EventId>> {
        let (mut from, mut to) = (1, 8);
        let mut pages = Vec::new();
        while from < to {
            let range = EventRange { from, to, batches, bytes, direction };
            let page = read(store.view().as_ref(), &run(), range).expect("reads");
            let events: Vec<_> = page.into_iter().flatten().collect();
            let ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
            let (first, last) = (ids.iter().min(), ids.iter().max());
            match direction {
                Direction::Forward => from = last.expect("a page has an event") + 1,
                Direction::Backward => to = *first.expect("a page has an event"),
            }
            let size = History { events }.encoded_len();
            assert!(size <= bytes || ids.len() == 1, "{size} bytes of {bytes}: {ids:?}");
            pages.push(ids);
        }
        pages
    }

    use Direction::{Backward, Forward};

    #[test]
    fn a_page_holds_no_more_bytes_than_it_may() {
        let single = store(&[[1_500].as_slice(); 7]);
        let four = (99, 4_000);
        let expected = [vec![1, 2], vec![3, 4], vec![5, 6], vec![7]];
        assert_eq!(pages(&single, Forward, four), expected);
        let expected = [vec![7, 6], vec![5, 4], vec![3, 2], vec![1]];
        assert_eq!(pages(&single, Backward, four), expected);
    }

    #[test]
    fn a_batch_that_is_larger_is_parted() {
        let store = store(&[&[1_500, 1_500, 1_500, 10], &[10, 10, 10]]);
        assert_eq!(pages(&store, Forward, (99, 4_000)), [vec![1, 2], vec![3, 4, 5, 6, 7]]);
        assert_eq!(pages(&store, Backward, (99, 4_000)), [vec![5, 6, 7, 2, 3, 4], vec![1]]);
        assert_eq!(pages(&store, Forward, (1, 4_000)), [vec![1, 2], vec![3, 4], vec![5, 6, 7]]);
        assert_eq!(pages(&store, Forward, (99, 9_000)), [vec![1, 2, 3, 4, 5, 6, 7]]);
    }

    #[test]
    fn an_event_that_is_larger_stands_alone() {
        let store = store(&[&[10, 5_000, 10], &[10, 5_000], &[5_000, 10]]);
        let forward = [vec![1], vec![2], vec![3, 4], vec![5], vec![6], vec![7]];
        assert_eq!(pages(&store, Forward, (99, 4_000)), forward);
        let backward = [vec![7], vec![6], vec![5], vec![4, 3], vec![2], vec![1]];
        assert_eq!(pages(&store, Backward, (99, 4_000)), backward);
        assert_eq!(pages(&store, Forward, (99, 0)).len(), 7, "one at least");
    }

    /// What is counted is what the answer has: a page is filled to the last byte.
    #[test]
    fn the_bytes_are_those_of_the_answer() {
        for size in [100, 115, 116, 117, 118, 119, 120, 16_370, 16_380] {
            let store = store(&[[size].as_slice(); 7]);
            let events = vec![event(1, size), event(2, size)];
            let both = History { events }.encoded_len();
            let first = |bytes| pages(&store, Forward, (99, bytes)).swap_remove(0).len();
            assert_eq!((first(both), first(both - 1)), (2, 1), "events of {size} bytes");
        }
    }

    #[test]
    fn pages_are_whole_batches() {
        let store = store(&[&[10, 10], &[10], &[10, 10, 10, 10]]);
        assert_eq!(pages(&store, Forward, (2, 9_000)), [vec![1, 2, 3], vec![4, 5, 6, 7]]);
        assert_eq!(pages(&store, Backward, (2, 9_000)), [vec![4, 5, 6, 7, 3], vec![1, 2]]);
    }
}
