//! A2: an acknowledged signal is in history exactly once.

use super::evidence::{Mark, once_each};
use super::{Evidence, Findings};
use crate::record::Kind;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let kinds = [Kind::Signal, Kind::SignalWithStart];
    once_each(evidence, &kinds, Mark::Signal, |_| true, findings);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_signal_that_is_lost_or_doubled_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").signaled("g1");
        world.ok(Kind::Signal, "w", "g1");
        quiet(check, &world);
        world.ok(Kind::Signal, "w", "g2");
        fires(check, &world, "no history has it");

        // The same request id, another kind of call: each acknowledged call is written on its own.
        let mut kinds = World::default();
        kinds.run("w", "r1").started("s1").signaled("g1");
        kinds.start("w", "s1", "r1", true);
        kinds.ok(Kind::SignalWithStart, "w", "g1");
        quiet(check, &kinds);
        kinds.ok(Kind::SignalWithStart, "w", "s1");
        fires(check, &kinds, "signal-with-start w (s1)");

        let mut twice = World::default();
        twice.run("w", "r1").started("s1").signaled("g1").signaled("g1");
        twice.unknown(Kind::Signal, "w", "g1");
        fires(check, &twice, "event 2 of run r1 and event 3 of run r1");
    }
}
