//! H4: the time of events never decreases. Except ACTIVITY_TASK_STARTED, which is written when the
//! activity ends and says when it began: it lies between schedule and end.

use std::collections::BTreeMap;

use holdfast_proto::history::history_event::Attributes as Event;

use super::{Evidence, Findings, RunHistory};
use crate::work::wire::{event_name, event_time};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        check_run(run, findings);
    }
}

fn check_run(run: &RunHistory, findings: &mut Findings) {
    let times: BTreeMap<i64, u64> =
        run.events.iter().map(|event| (event.event_id, event_time(event))).collect();
    let mut last = 0;
    for event in &run.events {
        let at = event_time(event);
        let (from, told) = match &event.attributes {
            Some(Event::ActivityTaskStartedEventAttributes(a)) => {
                (times.get(&a.scheduled_event_id).copied().unwrap_or(0), "what scheduled it")
            }
            _ => {
                let before = last;
                last = last.max(at);
                (before, "an event before it")
            }
        };
        if at < from || at == 0 {
            let text = format!(
                "run {}: event {} ({}) is {} us earlier than {told}",
                run.run,
                event.event_id,
                event_name(event),
                from.saturating_sub(at) / 1000
            );
            findings.add(&run.id, text);
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
        back.run("w", "r1").started("s1").task("t1").set_time(3, 1_000);
        fires(check, &back, "earlier than an event before it");
    }
}
