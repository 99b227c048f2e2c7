//! A7: what was refused, or never sent, was not applied. (What is unknown has no effect or one: a
//! second one is found by the rule of its kind.) And nothing is in history that nobody asked for.

use std::collections::BTreeSet;

use super::evidence::{Mark, mark, marks};
use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let index = &evidence.index;
    for operation in evidence.operations.iter().filter(|operation| operation.is_void()) {
        for mark in marks(operation.asked.kind) {
            let places = index.get(&(*mark, operation.asked.request.clone()));
            for (run, at) in places.into_iter().flatten() {
                let place = format!("event {} of run {run}", at + 1);
                findings
                    .add(&operation.asked.id, format!("{}; it is {place}", operation.describe()));
            }
        }
    }
    unasked(evidence, findings);
}

fn unasked(evidence: &Evidence, findings: &mut Findings) {
    let requests: BTreeSet<&str> =
        evidence.operations.iter().map(|operation| operation.asked.request.as_str()).collect();
    for run in evidence.runs.values() {
        for event in &run.events {
            let asked_for = match mark(event) {
                Some((
                    Mark::Start | Mark::Signal | Mark::Cancel | Mark::TaskCompleted,
                    request,
                )) => requests.contains(request),
                _ => true,
            };
            if !asked_for {
                let text = format!("nobody asked for event {} of run {}", event.event_id, run.run);
                findings.add(&run.id, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;
    use crate::record::Kind;

    #[test]
    fn a_refused_signal_that_is_there_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").signaled("g1");
        world.start("w", "s1", "r1", true);
        world.unknown(Kind::Signal, "w", "g1");
        quiet(check, &world);

        let mut refused = World::default();
        refused.run("w", "r1").started("s1").signaled("g1");
        refused.start("w", "s1", "r1", true);
        refused.refused(Kind::Signal, "w", "g1", tonic::Code::NotFound, "no");
        fires(check, &refused, "it is event 2 of run r1");
    }

    #[test]
    fn an_event_that_nobody_asked_for_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1");
        fires(check, &world, "nobody asked for event 1 of run r1");
    }
}
