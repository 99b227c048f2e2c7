//! Every event that anybody was shown, as a fingerprint: what is shown once must not change, and
//! must not go away (H1, V2).

use std::collections::BTreeMap;

use holdfast_proto::history::HistoryEvent;

use super::wire::event_time;

/// The fingerprints of all runs; 0 stands for an event that nobody saw yet.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    runs: BTreeMap<String, Vec<u64>>,
}

/// Type and time tell two events of one place apart: no two events of a run are of one type and
/// one nanosecond unless they come of one entry, and then their order is fixed.
fn fingerprint(event: &HistoryEvent) -> u64 {
    let mixed = event_time(event) ^ ((event.event_type as u64) << 56);
    mixed | 1
}

impl Seen {
    /// Takes in durable events that somebody was shown. They must be without holes, from the
    /// first on. An error says what is not as it was.
    pub(crate) fn take(&mut self, run: &str, events: &[HistoryEvent]) -> Result<(), String> {
        let Some(first) = events.first() else { return Ok(()) };
        if !self.runs.contains_key(run) {
            self.runs.insert(run.to_owned(), Vec::new());
        }
        let Some(known) = self.runs.get_mut(run) else { return Ok(()) };
        for (id, event) in (first.event_id..).zip(events) {
            if event.event_id != id {
                return Err(format!("event {} is shown where {id} should be", event.event_id));
            }
            let at = usize::try_from(id - 1).unwrap_or(0);
            if known.len() <= at {
                known.resize(at + 1, 0);
            }
            let print = fingerprint(event);
            if known[at] != 0 && known[at] != print {
                return Err(format!(
                    "event {id} is {} now, and was another event before",
                    super::wire::event_name(event)
                ));
            }
            known[at] = print;
        }
        Ok(())
    }

    /// All runs that somebody saw, and how much of each.
    pub(crate) fn lengths(&self) -> BTreeMap<String, i64> {
        self.runs.iter().map(|(run, known)| (run.clone(), known.len() as i64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: i64, kind: i32, at: u64) -> HistoryEvent {
        HistoryEvent {
            event_id: id,
            event_type: kind,
            event_time: Some(holdfast_engine::ids::Hlc(at).timestamp()),
            ..HistoryEvent::default()
        }
    }

    #[test]
    fn a_longer_read_extends_and_a_changed_one_is_seen() {
        let mut seen = Seen::default();
        assert!(seen.take("r", &[event(1, 1, 5), event(2, 5, 5)]).is_ok());
        assert!(seen.take("r", &[event(2, 5, 5), event(3, 6, 7)]).is_ok());
        assert_eq!(seen.lengths(), [("r".to_owned(), 3)].into());
        assert!(seen.take("r", &[event(2, 5, 6)]).is_err(), "another time");
        assert!(seen.take("r", &[event(3, 7, 7)]).is_err(), "another type");
        assert!(seen.take("r", &[event(4, 7, 7), event(6, 7, 7)]).is_err(), "a hole");
    }
}
