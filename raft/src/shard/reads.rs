//! Answers that need no entry, and when they may leave (DESIGN 3.1, 9).
//!
//! An answer that rests on an uncommitted draft waits for that draft's entry. One that rests on
//! applied state alone waits for a read index: a deposed leader that does not know it yet must
//! not answer, be it a describe, a refusal or a task for a worker. One round serves all that wait.

use tokio::sync::mpsc;

use super::{Held, Serving};
use crate::group::Group;
use crate::rt::Rt;

impl Serving {
    /// Holds an answer until entry `observed` is applied, or until the next read index.
    pub(super) fn hold(&mut self, held: Held, observed: u64) {
        if observed > self.proposed {
            let place = usize::try_from(observed - self.proposed - 1).unwrap_or(usize::MAX);
            self.sealed.get_mut(place).unwrap_or(&mut self.batch).held.push(held);
        } else if observed > self.applied {
            let entry = self.in_flight.iter_mut().find(|entry| entry.number == observed);
            match entry {
                Some(entry) => entry.held.push(held),
                None => self.reads.push(held),
            }
        } else {
            self.reads.push(held);
        }
    }

    /// Asks for a read index for the answers that wait for one; they come out with whether there was
    /// one.
    pub(super) fn begin_reads(&mut self, group: Group, out: mpsc::Sender<(Vec<Held>, bool)>) {
        let held = std::mem::take(&mut self.reads);
        Rt::spawn_task(async move {
            let ok = group.read_index().await.is_ok();
            let _ = out.send((held, ok)).await;
        });
    }
}
