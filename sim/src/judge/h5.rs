//! H5: every history replays without error: each completed workflow task ordered exactly the events
//! that come of it (A6), each outcome is of something pending and the only one (A5, T6), one
//! workflow task is outstanding at a time (T3). And what a completed task was decided on is what its
//! worker was shown: nobody may complete a run over a signal that he never saw.

use std::collections::BTreeMap;

use holdfast_proto::history::history_event::Attributes as Event;

use super::{Evidence, Findings, RunHistory};
use crate::record::{Kind, Operation, Saw};
use crate::work::machine::Machine;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let answers: BTreeMap<&str, &Operation> = evidence
        .operations
        .iter()
        .filter(|operation| operation.asked.kind == Kind::CompleteTask)
        .map(|operation| (operation.asked.request.as_str(), operation))
        .collect();
    for run in evidence.runs.values() {
        shown(run, &answers, findings);
    }
    for run in evidence.runs.values() {
        let mut machine = Machine::default();
        let replayed = run
            .events
            .iter()
            .try_for_each(|event| machine.feed(event))
            .and_then(|()| if machine.is_closed() { machine.finish() } else { Ok(()) });
        if let Err(why) = replayed {
            findings.add(&run.id, format!("run {} does not replay: {why}", run.run));
        }
    }
}

/// Each completed task of a run had the events before it in the hands of who completed it.
fn shown(run: &RunHistory, answers: &BTreeMap<&str, &Operation>, findings: &mut Findings) {
    let mut before = Saw::NOTHING;
    for event in &run.events {
        let of = match &event.attributes {
            Some(Event::WorkflowTaskCompletedEventAttributes(a)) => {
                answers.get(a.identity.as_str())
            }
            _ => None,
        };
        if let Some(answer) = of
            && let Some(saw) = answer.asked.saw.filter(|saw| *saw != before)
        {
            let text = format!(
                "run {}: event {} comes of what a worker decided on {} events that are not the {} \
                 before it; {}",
                run.run,
                event.event_id,
                saw.started,
                before.started,
                answer.describe()
            );
            findings.add(&run.id, text);
        }
        before = before.next(event.event_id, event.event_type);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_worker_completes_what_it_was_shown() {
        let world = |seen: usize| {
            let mut world = World::default();
            world.run("w", "r1").started("s1").signaled("c1").task("t1");
            let events = &world.evidence.runs["r1"].events[..seen];
            let saw = events.iter().fold(Saw::NOTHING, |saw, e| saw.next(e.event_id, e.event_type));
            world.task_answered("w", "t1", saw);
            world
        };
        quiet(check, &world(4));
        fires(check, &world(3), "comes of what a worker decided on 3 events");
        let mut other = world(4);
        let run = other.evidence.runs.get_mut("r1").expect("a run");
        run.events[1].event_type = 1;
        fires(check, &other, "decided on 4 events that are not the 4 before it");
    }

    #[test]
    fn nothing_stands_between_a_task_and_what_it_ordered() {
        // The program of this input begins with something else than work.
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").signaled("c1");
        fires(check, &world, "it stands between a completed task and what that ordered");
    }

    #[test]
    fn what_nobody_ordered_does_not_replay() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1");
        quiet(check, &world);
        let mut odd = World::default();
        odd.run("w", "r1").started("s1").job("a9.9", 1, "a1");
        fires(check, &odd, "does not replay");
    }

    #[test]
    fn a_second_outstanding_task_does_not_replay() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task_scheduled().task_scheduled();
        fires(check, &world, "another workflow task is outstanding");
    }
}
