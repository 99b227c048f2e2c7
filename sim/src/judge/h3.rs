//! H1 and H3 at the end: ids are 1 to n; one start event, the first; at most one close event, the
//! last. And nothing that anybody was shown has gone (H1).

use holdfast_proto::enums::EventType;

use super::{Evidence, Findings};
use crate::work::wire::{closes, event_name};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        for (at, event) in run.events.iter().enumerate() {
            let mut add = |why: &str| {
                let name = event_name(event);
                let text = format!("run {}: event {} ({name}) {why}", run.run, event.event_id);
                findings.add(&run.id, text);
            };
            if event.event_id != at as i64 + 1 {
                add(&format!("stands at place {}", at + 1));
            }
            let starts = event.event_type == EventType::WorkflowExecutionStarted as i32;
            if starts != (at == 0) {
                add(if starts { "is a second start" } else { "is where the start should be" });
            }
            if closes(event) && at + 1 != run.events.len() {
                add("closes the run and is not the last");
            }
        }
    }
    for (run, seen) in &evidence.lengths {
        let now = evidence.runs.get(run).map_or(0, |run| run.events.len() as i64);
        if now < *seen {
            let id = evidence.runs.get(run).map_or("", |run| &run.id);
            findings.add(id, format!("run {run} has {now} events, and somebody was shown {seen}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn the_form_of_a_history_is_checked() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").terminated("x");
        quiet(check, &world);

        let mut hole = World::default();
        hole.run("w", "r1").started("s1").task("t1").drop_event(1);
        fires(check, &hole, "stands at place 2");
        let mut late = World::default();
        late.run("w", "r1").started("s1").terminated("x").signaled("g");
        fires(check, &late, "is not the last");
        let mut twice = World::default();
        twice.run("w", "r1").started("s1").started("s1");
        fires(check, &twice, "second start");
        world.evidence.lengths.insert("r1".to_owned(), 9);
        fires(check, &world, "somebody was shown 9");
    }
}
