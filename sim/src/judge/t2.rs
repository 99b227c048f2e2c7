//! T2: once the faults are over, due timers fire promptly.
//!
//! A leader fires nothing while it has no reign. One can end without a fault: where syncs take longer
//! than a lease lasts, the answers to heartbeats wait for them, and openraft refuses proposals. The
//! next one opens with an entry that is synced too.

use std::collections::BTreeMap;

use holdfast_proto::history::history_event::Attributes as Event;

use super::{Evidence, Findings};
use crate::work::wire::{ended_task, event_time, nanos};

/// What a cluster is given to find its leaders again after the last fault, in nanoseconds.
pub(super) const SETTLING: u64 = 15_000_000_000;
/// How late a timer may fire then, in nanoseconds.
const LATE: u64 = 3_000_000_000;
/// What of it is for everything but the slowest syncs of two entries: on disks so slow that it would
/// be less, a timer may fire later.
const BUT_FOR_SYNCS: u64 = 1_000_000_000;

/// How late what is due may happen once the faults are over, in nanoseconds.
pub(super) fn bound(evidence: &Evidence) -> u64 {
    LATE.max(evidence.slowest_sync.saturating_mul(2).saturating_add(BUT_FOR_SYNCS))
}

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let Some(calm) = evidence.calm.map(|calm| calm.at.saturating_add(SETTLING)) else { return };
    let bound = bound(evidence);
    for run in evidence.runs.values() {
        let Some(timeline) = evidence.timelines.get(&run.id) else { continue };
        let mut started = BTreeMap::new();
        // What fires while a worker holds the workflow task is written when that ends.
        let mut freed = 0;
        for (at, event) in run.events.iter().enumerate() {
            match &event.attributes {
                Some(Event::TimerStartedEventAttributes(a)) => {
                    let length = nanos(a.start_to_fire_timeout.as_ref());
                    started.insert(event.event_id, (at, event_time(event) + length));
                }
                Some(Event::TimerFiredEventAttributes(a)) => {
                    let Some((from, due)) = started.get(&a.started_event_id).copied() else {
                        continue;
                    };
                    let asked = timeline.slot(&run.run, from).map_or(0, |slot| slot.low.moment.at);
                    let late = event_time(event).saturating_sub(due.max(freed));
                    if asked >= calm && late > bound {
                        let text = format!(
                            "run {}: timer {} fired {} ms late, long after the faults",
                            run.run,
                            a.timer_id,
                            late / 1_000_000
                        );
                        findings.add(&run.id, text);
                    }
                }
                _ if ended_task(event).is_some() => freed = event_time(event),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;
    use crate::record::Kind;

    fn world(length: u64, after: u64) -> World {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").timer("t0", length, after);
        world.calm();
        world.pass_ms(20_000);
        world.ok(Kind::CompleteTask, "w", "t1");
        world
    }

    #[test]
    fn a_timer_that_fires_late_in_the_calm_is_found() {
        quiet(check, &world(100, 3_000));
        fires(check, &world(100, 4_000), "timer t0 fired 3900 ms late");
    }

    #[test]
    fn a_disk_may_be_so_slow_that_three_seconds_are_not_enough() {
        let on_disk = |slowest_ms: u64, after| {
            let mut world = world(100, after);
            world.evidence.slowest_sync = slowest_ms * 1_000_000;
            world
        };
        fires(check, &on_disk(1_000, 3_200), "timer t0 fired 3100 ms late");
        quiet(check, &on_disk(3_200, 7_400));
        fires(check, &on_disk(3_200, 7_600), "timer t0 fired 7500 ms late");
    }
}
