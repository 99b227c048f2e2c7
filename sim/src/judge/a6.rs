//! A6: a workflow task completion is accepted once, and applies all its commands or none. That the
//! commands are all there is what the replay shows (H5).

use super::evidence::{Mark, once_each};
use super::{Evidence, Findings};
use crate::record::Kind;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    once_each(evidence, &[Kind::CompleteTask], Mark::TaskCompleted, |_| true, findings);
    once_each(evidence, &[Kind::FailTask], Mark::TaskFailed, |_| false, findings);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn an_acknowledged_completion_that_is_lost_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1");
        world.ok(Kind::CompleteTask, "w", "t1");
        quiet(check, &world);
        world.ok(Kind::CompleteTask, "w", "t2");
        fires(check, &world, "no history has it");
    }
}
