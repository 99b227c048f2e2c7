//! A1: an acknowledged start exists; the same request id gives the same run, and one run. One that was
//! attached to a run stands in its history once. (That it is told so again, whatever became of the
//! run, is checked by the client that asks again.)

use super::evidence::{Mark, once_each};
use super::{Evidence, Findings};
use crate::record::{Kind, Told};

const KINDS: [Kind; 2] = [Kind::Start, Kind::SignalWithStart];

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let made = |told: Option<&Told>| matches!(told, Some(Told::Started { started: true, .. }));
    let must = |operation: &crate::record::Operation| made(operation.told());
    once_each(evidence, &KINDS, Mark::Start, must, findings);
    let attached = |operation: &crate::record::Operation| {
        matches!(operation.told(), Some(Told::Attached { .. }))
    };
    once_each(evidence, &[Kind::Start], Mark::Attached, attached, findings);
    let index = &evidence.index;
    for (operation, told) in evidence.acknowledged(Kind::Start) {
        let Told::Attached { run } = told else { continue };
        let places = index.get(&(Mark::Attached, operation.asked.request.clone()));
        for (other, _) in places.into_iter().flatten().filter(|(other, _)| other != run) {
            let text = format!("{}; it was attached to run {other}", operation.describe());
            findings.add(&operation.asked.id, text);
        }
    }
    for kind in KINDS {
        for (operation, told) in evidence.acknowledged(kind) {
            let Told::Started { run, started: true } = told else { continue };
            let places = index.get(&(Mark::Start, operation.asked.request.clone()));
            for (other, _) in places.into_iter().flatten().filter(|(other, _)| other != run) {
                let text = format!("{}; its request made run {other}", operation.describe());
                findings.add(&operation.asked.id, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_start_that_is_gone_or_doubled_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1");
        world.start("w", "s1", "r1", true);
        quiet(check, &world);
        world.start("w", "s2", "r2", true);
        fires(check, &world, "no history has it");

        let mut twice = World::default();
        twice.run("w", "r1").started("s1").terminated("x");
        twice.run("w", "r2").started("s1");
        twice.start("w", "s1", "r2", true);
        fires(check, &twice, "event 1 of run r1 and event 1 of run r2");
        fires(check, &twice, "its request made run r1");
    }

    #[test]
    fn an_attached_start_that_is_lost_or_elsewhere_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").attached("s2");
        world.run("w", "r2").started("s3");
        world.attached("w", "s2", "r1");
        quiet(check, &world);
        let mut elsewhere = world.clone();
        elsewhere.attached("w", "s2", "r2");
        fires(check, &elsewhere, "it was attached to run r1");
        world.attached("w", "s4", "r2");
        fires(check, &world, "no history has it");
    }
}
