//! H5: every history replays without error: each completed workflow task ordered exactly the events
//! that come of it (A6), each outcome is of something pending and the only one (A5, T6), one
//! workflow task is outstanding at a time (T3).

use super::{Evidence, Findings};
use crate::work::machine::Machine;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

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
