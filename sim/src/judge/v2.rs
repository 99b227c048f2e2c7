//! V2: long polls wake. Once the faults are over, a reader that waits is told of news, or of the
//! end, soon after somebody else knew. (That pages neither skip nor repeat is checked by readers.)

use super::t2::SETTLING;
use super::{Evidence, Findings};
use crate::record::{Kind, Told};

/// How much later than the first observer a waiting reader may hear, in nanoseconds.
const LATE: u64 = 3_000_000_000;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let Some(calm) = evidence.calm.map(|calm| calm.at.saturating_add(SETTLING)) else { return };
    for kind in [Kind::Watch, Kind::AwaitClose] {
        for (operation, told) in evidence.acknowledged(kind) {
            let Told::Shown { run, to, closed, .. } = told else { continue };
            if operation.invoked.at < calm {
                continue;
            }
            let Some(timeline) = evidence.timelines.get(&operation.asked.id) else { continue };
            let Some(span) = timeline.span(run) else { continue };
            // What it was not told of: the next event, or the end.
            let missed = match (kind, closed) {
                (Kind::Watch, _) if *to > 0 => span.first + usize::try_from(*to).unwrap_or(0),
                (_, Some(false)) if span.closed => span.end - 1,
                _ => continue,
            };
            let Some(slot) = timeline.slots.get(missed).filter(|_| missed < span.end) else {
                continue;
            };
            let known = slot.high.moment;
            if known.at.saturating_add(LATE) < operation.returned.at {
                let text = format!(
                    "{}; event {} was known at {:.6} s",
                    operation.describe(),
                    slot.at + 1,
                    known.seconds()
                );
                findings.add(&operation.asked.id, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    fn world(wait: u64) -> World {
        let mut world = World::default();
        world.run("w", "r1").started("s1").signaled("g1");
        world.start("w", "s1", "r1", true);
        world.calm();
        world.pass_ms(20_000);
        world.watch_while("w", "r1", 1, wait, |world| world.ok(Kind::Signal, "w", "g1"));
        world
    }

    #[test]
    fn a_long_poll_that_sleeps_through_the_news_is_found() {
        quiet(check, &world(2_000));
        fires(check, &world(5_000), "event 2 was known at");
    }
}
