//! H4: the time of events never decreases. (The start of an activity is written with what ended it,
//! and carries the time at which it was: it may be earlier than what was written meanwhile.) And the
//! numbers that the hybrid clock gives them grow: no two events of a run are of the same stamp.

use holdfast_proto::enums::EventType;

use super::{Evidence, Findings};
use crate::work::wire::{event_name, event_time};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        let (mut last, mut number) = (0, 0);
        for event in &run.events {
            let at = event_time(event);
            let late = event.event_type() == EventType::ActivityTaskStarted;
            if (at < last && !late) || at == 0 {
                let text = format!(
                    "run {}: event {} ({}) is {} us earlier than one before it",
                    run.run,
                    event.event_id,
                    event_name(event),
                    last.saturating_sub(at) / 1000
                );
                findings.add(&run.id, text);
            }
            if event.task_id != 0 && event.task_id <= number {
                let text = format!(
                    "run {}: event {} ({}) has the number {} of the clock, one before it {number}",
                    run.run,
                    event.event_id,
                    event_name(event),
                    event.task_id
                );
                findings.add(&run.id, text);
            }
            last = last.max(at);
            number = number.max(event.task_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").job("a0.0", 1, "a1");
        quiet(check, &world);
        let mut back = World::default();
        back.run("w", "r1").started("s1").task("t1").set_time(3, 0);
        fires(check, &back, "earlier than one before it");
    }

    #[test]
    fn the_hybrid_clock_does_not_stand() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").set_number(1, 7).set_number(3, 8);
        quiet(check, &world);
        let mut still = World::default();
        still.run("w", "r1").started("s1").task("t1").set_number(1, 7).set_number(3, 7);
        fires(check, &still, "has the number 7 of the clock, one before it 7");
    }
}
