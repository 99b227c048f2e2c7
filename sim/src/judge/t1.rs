//! T1: nothing fires before its time: not by the stamps of the leader's own clock, and not by true
//! time less the clock bound, between what its request's sender and its first observer knew; where all
//! wall clocks made a step in between, by what they showed, which is the only truth that nodes have.

use std::collections::BTreeMap;

use holdfast_proto::history::history_event::Attributes as Event;

use super::{CLOCK_BOUND, Evidence, Findings, RunHistory, Timeline};
use crate::work::wire::{event_time, nanos};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        if let Some(timeline) = evidence.timelines.get(&run.id) {
            timers(evidence, run, timeline, findings);
        }
        start_delay(run, findings);
    }
}

fn timers(evidence: &Evidence, run: &RunHistory, timeline: &Timeline, findings: &mut Findings) {
    // By the event that started it: place, and how long.
    let mut started: BTreeMap<i64, (usize, u64)> = BTreeMap::new();
    for (at, event) in run.events.iter().enumerate() {
        match &event.attributes {
            Some(Event::TimerStartedEventAttributes(a)) => {
                started.insert(event.event_id, (at, nanos(a.start_to_fire_timeout.as_ref())));
            }
            Some(Event::TimerFiredEventAttributes(a)) => {
                let Some((from, length)) = started.get(&a.started_event_id).copied() else {
                    continue;
                };
                let stamped = run.events.get(from).map_or(0, event_time) + length;
                if event_time(event) < stamped {
                    let early = (stamped - event_time(event)) / 1000;
                    let text = format!(
                        "run {}: timer {} fired {early} us early by its own stamps",
                        run.run, a.timer_id
                    );
                    findings.add(&run.id, text);
                }
                let place = (from, at, length);
                early_in_truth(evidence, run, timeline, place, &a.timer_id, findings);
            }
            _ => {}
        }
    }
}

/// The timer can't have been started before its command was sent; somebody saw it fired.
fn early_in_truth(
    evidence: &Evidence,
    run: &RunHistory,
    timeline: &Timeline,
    (from, at, length): (usize, usize, u64),
    timer: &str,
    findings: &mut Findings,
) {
    let (Some(start), Some(fired)) = (timeline.slot(&run.run, from), timeline.slot(&run.run, at))
    else {
        return;
    };
    let (asked, seen) = (start.low.moment, fired.high.moment);
    let slack = evidence.gained(asked.at, seen.at).saturating_add(CLOCK_BOUND);
    if seen.at.saturating_add(slack) < asked.at.saturating_add(length) {
        let text = format!(
            "run {}: timer {timer} of {} ms can't have been started before {:.6} s and was seen fired at {:.6} s",
            run.run,
            length / 1_000_000,
            asked.seconds(),
            seen.seconds()
        );
        findings.add(&run.id, text);
    }
}

/// Nothing but a signal-with-start or a cancel ends a start delay before its time.
fn start_delay(run: &RunHistory, findings: &mut Findings) {
    let Some(first) = run.events.first() else { return };
    let Some(Event::WorkflowExecutionStartedEventAttributes(a)) = &first.attributes else { return };
    let delay = nanos(a.first_workflow_task_backoff.as_ref());
    for event in &run.events {
        match &event.attributes {
            Some(
                Event::WorkflowExecutionCancelRequestedEventAttributes(_)
                | Event::WorkflowExecutionSignaledEventAttributes(_),
            ) => return,
            Some(Event::WorkflowTaskScheduledEventAttributes(_)) => {
                if event_time(event) < event_time(first) + delay {
                    let text =
                        format!("run {}: its first task came before its delay ended", run.run);
                    findings.add(&run.id, text);
                }
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Step;
    use super::super::testing::{World, fires, quiet};
    use super::*;
    use crate::record::Kind;

    #[test]
    fn a_timer_that_fires_early_by_its_stamps_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").timer("t0", 100, 100);
        quiet(check, &world);
        let mut early = World::default();
        early.run("w", "r1").started("s1").task("t1").timer("t0", 100, 90);
        fires(check, &early, "timer t0 fired 10000 us early by its own stamps");
    }

    #[test]
    fn a_timer_that_fires_early_in_truth_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").timer("t0", 2_000, 2_000);
        world.start("w", "s1", "r1", true);
        world.ok(Kind::CompleteTask, "w", "t1");
        world.pass_ms(1_600);
        world.read("w", "r1", 6);
        quiet(check, &world);
        let mut early = World::default();
        early.run("w", "r1").started("s1").task("t1").timer("t0", 2_000, 2_000);
        early.start("w", "s1", "r1", true);
        early.ok(Kind::CompleteTask, "w", "t1");
        early.pass_ms(1_300);
        early.read("w", "r1", 7);
        fires(check, &early, "was seen fired at");
        // Not when all wall clocks say that it is late enough; nor if they did so before.
        for (at, by, right) in [(1_000, 600, true), (1_000, 100, false), (1_000, -600, false)] {
            let mut stepped = early.clone();
            stepped.evidence.steps = vec![Step { at: at * 1_000_000, by: by * 1_000_000 }];
            match right {
                true => quiet(check, &stepped),
                false => fires(check, &stepped, "was seen fired at"),
            }
        }
    }
}
