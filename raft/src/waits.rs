//! Long polls on history: parked on the leader, woken by apply, answered when leadership goes.

use std::collections::BTreeMap;

use holdfast_engine::ids::RunId;
use tokio::sync::oneshot;

/// The parked long polls of a shard, by run.
#[derive(Debug)]
pub(crate) struct Waits {
    /// How many it parks at most.
    most: usize,
    parked: BTreeMap<RunId, Vec<oneshot::Sender<()>>>,
    count: usize,
}

impl Waits {
    /// None yet; at most `most`.
    pub(crate) fn new(most: usize) -> Waits {
        Waits { most, parked: BTreeMap::new(), count: 0 }
    }

    /// Parks a poll until the run changes. `None` when too many are parked.
    pub(crate) fn park(&mut self, run: RunId) -> Option<oneshot::Receiver<()>> {
        if self.count >= self.most {
            self.sweep();
            if self.count >= self.most {
                return None;
            }
        }
        let (wake, woken) = oneshot::channel();
        let parked = self.parked.entry(run).or_default();
        let before = parked.len();
        parked.retain(|waiting| !waiting.is_closed());
        self.count -= before - parked.len();
        parked.push(wake);
        self.count += 1;
        Some(woken)
    }

    /// History of `run` was written: everyone looks again.
    pub(crate) fn wake(&mut self, run: RunId) {
        for waiting in self.parked.remove(&run).unwrap_or_default() {
            self.count = self.count.saturating_sub(1);
            // A poll that went away needs no answer.
            let _ = waiting.send(());
        }
    }

    /// Leadership is lost or the node stops: everyone looks again, elsewhere.
    pub(crate) fn wake_all(&mut self) {
        self.parked.clear();
        self.count = 0;
    }

    /// How many polls are parked, those that went away included.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Forgets polls that went away.
    fn sweep(&mut self) {
        self.parked.retain(|_, waiting| {
            waiting.retain(|w| !w.is_closed());
            !waiting.is_empty()
        });
        self.count = self.parked.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use holdfast_engine::ids::Uuid;

    use super::*;

    #[test]
    fn a_change_wakes_its_run_only() {
        let (one, two) = (Uuid([1; 16]), Uuid([2; 16]));
        let mut waits = Waits::new(2);
        let mut first = waits.park(one).expect("room");
        let mut second = waits.park(two).expect("room");
        waits.wake(one);
        assert_eq!(first.try_recv(), Ok(()));
        assert!(matches!(second.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        waits.wake_all();
        assert!(matches!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }

    #[test]
    fn whoever_went_away_is_not_counted() {
        let mut waits = Waits::new(16);
        for _ in 0..3 {
            drop(waits.park(Uuid::NIL));
        }
        assert_eq!(waits.count(), 1, "the last, as nobody looked since");
        waits.wake(Uuid::NIL);
        assert_eq!(waits.count(), 0);
    }

    #[test]
    fn parked_polls_are_bounded_and_gone_ones_make_room() {
        let mut waits = Waits::new(20);
        let mut held: Vec<_> = (0..20).map(|n| waits.park(Uuid::v4(n)).expect("room")).collect();
        assert!(waits.park(Uuid::NIL).is_none());
        held.pop();
        assert!(waits.park(Uuid::NIL).is_some());
    }
}
