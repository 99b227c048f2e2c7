//! T5: an activity with a limited number of attempts never has more, and each of them is handed out
//! once: its start is durable before anybody hears of it. Once the faults are over, that holds of
//! every attempt of a reign: only a leader takes grants with it, and it may lose its lease for a
//! moment wherever messages are lost and disks are slow by themselves.

use std::collections::BTreeMap;

use holdfast_proto::history::history_event::Attributes as Event;

use super::t2::SETTLING;
use super::{Evidence, Findings};
use crate::record::{Kind, Moment, Operation, Told};

/// A reign that took over between two hand-outs appends its first entry so long after the second at
/// most: a start is durable within moments, and waits for two entries before it.
const SHOWS: u64 = 5_000_000_000;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let mut handed: BTreeMap<(&str, &str, i32), &Operation> = BTreeMap::new();
    for (operation, told) in evidence.acknowledged(Kind::Attempt) {
        let Told::Attempt { run, maximum, .. } = told else { continue };
        let Some((activity, number)) = operation.asked.attempt.as_ref() else { continue };
        let calm = evidence.calm.map(|calm| calm.at.saturating_add(SETTLING));
        if *maximum == 0 && calm.is_none_or(|calm| operation.invoked.at < calm) {
            continue;
        }
        let before = handed.insert((run, activity, *number), operation);
        if let Some(before) = before
            && (*maximum > 0 || !took_over(evidence, before, operation))
        {
            let limit = if *maximum == 0 { "any".to_owned() } else { maximum.to_string() };
            let text = format!(
                "attempt {number} of {activity} in run {run}, of {limit} allowed, was handed out at {:.6} s to {} and at {:.6} s to {}",
                before.returned.seconds(),
                before.asked.who,
                operation.returned.seconds(),
                operation.asked.who
            );
            findings.add(&operation.asked.id, text);
        }
    }
    for run in evidence.runs.values() {
        let mut maximum = BTreeMap::new();
        for event in &run.events {
            match &event.attributes {
                Some(Event::ActivityTaskScheduledEventAttributes(a)) => {
                    let most = a.retry_policy.as_ref().map_or(0, |policy| policy.maximum_attempts);
                    maximum.insert(event.event_id, most);
                }
                Some(Event::ActivityTaskStartedEventAttributes(a)) => {
                    let most = maximum.get(&a.scheduled_event_id).copied().unwrap_or(0);
                    if most > 0 && a.attempt > most {
                        let text = format!(
                            "run {}: event {} starts attempt {} of {most} allowed",
                            run.run, event.event_id, a.attempt
                        );
                        findings.add(&run.id, text);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Whether another reign may have begun between two hand-outs, in any shard.
fn took_over(evidence: &Evidence, first: &Operation, second: &Operation) -> bool {
    let since = |moment: Moment| evidence.epoch.saturating_add(moment.at);
    let between = since(first.returned)..=since(second.returned).saturating_add(SHOWS);
    evidence.reigns.iter().any(|opened| between.contains(opened))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_counted_attempt_is_handed_out_once() {
        let mut world = World::default();
        world.attempt("w", "r1", "a0.0", 1, 0);
        world.attempt("w", "r1", "a0.0", 1, 0);
        world.attempt("w", "r1", "a0.1", 1, 3);
        world.attempt("w", "r1", "a0.1", 2, 3);
        quiet(check, &world);
        world.attempt("w", "r1", "a0.1", 2, 3);
        fires(check, &world, "attempt 2 of a0.1 in run r1, of 3 allowed");
    }

    #[test]
    fn nothing_is_handed_out_twice_in_the_calm() {
        let mut world = World::default();
        world.calm();
        world.attempt("w", "r1", "a0.0", 1, 0);
        world.pass_ms(20_000);
        world.attempt("w", "r1", "a0.0", 1, 0);
        quiet(check, &world);
        world.attempt("w", "r1", "a0.0", 1, 0);
        fires(check, &world, "attempt 1 of a0.0 in run r1, of any allowed");
        // A leader that took over knows nothing of what the one before it only granted.
        let taken_over = world.now() + SHOWS;
        world.evidence.reigns = vec![taken_over];
        quiet(check, &world);
        world.evidence.reigns = vec![taken_over + 1];
        fires(check, &world, "attempt 1 of a0.0 in run r1, of any allowed");
        world.evidence.reigns = vec![taken_over];
        world.attempt("w", "r1", "a0.1", 1, 3);
        world.attempt("w", "r1", "a0.1", 1, 3);
        fires(check, &world, "attempt 1 of a0.1 in run r1, of 3 allowed");
    }

    #[test]
    fn history_has_no_attempt_beyond_the_limit() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").counted_job("a0.0", 2, 2, "a1");
        quiet(check, &world);
        let mut more = World::default();
        more.run("w", "r1").started("s1").counted_job("a0.0", 3, 2, "a1");
        fires(check, &more, "starts attempt 3 of 2 allowed");
    }
}
