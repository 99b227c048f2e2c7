//! H4: the time of events never decreases within a workflow id. (The start of an activity is written
//! with what ended it, and carries the time at which it was: it may be earlier than what was written
//! meanwhile.) The numbers that come with the times grow: no two events of a run have the same. And
//! once clocks are right, the times of later runs are, whatever was stamped before: only a run whose
//! id was there when clocks were set back keeps a time of its own.

use holdfast_proto::enums::EventType;

use super::t2::SETTLING;
use super::{Evidence, Findings, RunHistory};
use crate::work::wire::{event_name, event_time};

/// How far a time may be off once clocks are right: two clocks within the clock bound of each other,
/// one of them as far off as it is when nothing is broken; in nanoseconds.
const OFF: u64 = 1_500_000_000;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (id, runs) in evidence.by_id() {
        for pair in runs.windows(2) {
            if let [before, after] = pair
                && let Some(closed) = before.closed().filter(|closed| *closed > after.started())
            {
                let back = (closed - after.started()) / 1000;
                let text =
                    format!("run {} begins {back} us before run {} ends", after.run, before.run);
                findings.add(&id, text);
            }
        }
        for (place, run) in runs.iter().enumerate() {
            right(evidence, run, place == 0, findings);
        }
    }
    for run in evidence.runs.values() {
        let (mut last, mut number) = (0, 0);
        for event in &run.events {
            let at = event_time(event);
            let late = event.event_type() == EventType::ActivityTaskStarted;
            if (at < last && !late) || at == 0 {
                let text = format!(
                    "run {}: event {} ({}) is {} us earlier than one before it",
                    run.run,
                    event.event_id,
                    event_name(event),
                    last.saturating_sub(at) / 1000
                );
                findings.add(&run.id, text);
            }
            if event.task_id != 0 && event.task_id <= number {
                let text = format!(
                    "run {}: event {} ({}) has the number {} of the clock, one before it {number}",
                    run.run,
                    event.event_id,
                    event_name(event),
                    event.task_id
                );
                findings.add(&run.id, text);
            }
            last = last.max(at);
            number = number.max(event.task_id);
        }
    }
}

/// A run that was started in the calm has the time at which that was.
fn right(evidence: &Evidence, run: &RunHistory, is_first: bool, findings: &mut Findings) {
    let slot = evidence.timelines.get(&run.id).and_then(|timeline| timeline.slot(&run.run, 0));
    let Some((slot, calm)) = slot.zip(evidence.calm) else { return };
    let (asked, seen) = (slot.low.moment.at, slot.high.moment.at);
    if asked < calm.at.saturating_add(SETTLING) {
        return;
    }
    let began = run.started();
    let early = evidence.wall(asked).saturating_sub(OFF).saturating_sub(began);
    let late = began.saturating_sub(evidence.wall(seen).saturating_add(OFF));
    let own = evidence.own_time.contains(&run.run);
    let what = match (own && is_first, early, if own { 0 } else { late }) {
        (true, ..) => "keeps its own time, though its id was new".to_owned(),
        (_, 0, 0) => return,
        (_, 0, late) => format!("begins {} ms after it was seen", late / 1_000_000),
        (_, early, _) => format!("begins {} ms before it was asked for", early / 1_000_000),
    };
    findings.add(&run.id, format!("run {}, started long after the faults, {what}", run.run));
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
        back.run("w", "r1").started("s1").task("t1").set_time(3, 0);
        fires(check, &back, "earlier than one before it");
    }

    #[test]
    fn time_does_not_go_back_from_run_to_run() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").terminated("x");
        world.run("w", "r2").started("s2").task("t2");
        quiet(check, &world);
        world.run("w", "r2").set_time(1, 3);
        fires(check, &world, "run r2 begins");
    }

    #[test]
    fn later_runs_have_right_times() {
        const EPOCH: u64 = 1_000_000_000_000;
        let world = |at_ms: i64, own: bool| {
            let mut world = World::default();
            world.evidence.epoch = EPOCH;
            world.calm();
            world.pass_ms(20_000);
            let ms = (EPOCH / 1_000_000).saturating_add_signed(20_000 + at_ms);
            world.run("w", "r1").started("s1").set_time(1, ms);
            world.start("w", "s1", "r1", true);
            world.evidence.own_time.extend(own.then(|| "r1".to_owned()));
            world
        };
        quiet(check, &world(1_000, false));
        fires(check, &world(3_000, false), "after it was seen");
        fires(check, &world(-3_000, false), "before it was asked for");
        fires(check, &world(0, true), "though its id was new");
        let mut slept = world(3_600_000, false);
        let step = super::super::evidence::Step { at: 0, by: 3_600_000_000_000 };
        slept.evidence.steps.push(step);
        quiet(check, &slept);
        // One that goes on where the run before it ended may be ahead, and says so.
        let mut goes_on = world(3_000, true);
        goes_on.run("w", "r0").started("s0").task("t0").terminated("x");
        quiet(check, &goes_on);
    }

    #[test]
    fn numbers_do_not_stand() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").set_number(1, 7).set_number(3, 8);
        quiet(check, &world);
        let mut still = World::default();
        still.run("w", "r1").started("s1").task("t1").set_number(1, 7).set_number(3, 7);
        fires(check, &still, "has the number 7 of the clock, one before it 7");
    }
}
