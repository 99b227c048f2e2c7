//! A5: an attempt's outcome is accepted at most once, and after that the attempt is over: nobody
//! is handed it, or an earlier one, again. What it said in heartbeats outlasts it: the next attempt
//! gets it (workers check that), and so does whoever reads that there was none.

use std::collections::BTreeMap;

use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::failure::Failure;
use holdfast_proto::history::history_event::Attributes as Event;

use super::evidence::{Mark, once_each};
use super::{Evidence, Findings};
use crate::record::{Kind, Operation, Outcome};
use crate::work::parse_beat;
use crate::work::wire::text_of;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    once_each(evidence, &[Kind::CompleteActivity], Mark::ActivityCompleted, |_| true, findings);
    once_each(evidence, &[Kind::FailActivity], Mark::ActivityFailed, |_| false, findings);
    once_each(evidence, &[Kind::CancelActivity], Mark::ActivityCanceled, |_| true, findings);
    stale_hand_outs(evidence, findings);
    lost_details(evidence, findings);
}

/// An activity that timed out says what its last acknowledged heartbeat said, or a later one.
fn lost_details(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        for event in &run.events {
            let Some(Event::ActivityTaskTimedOutEventAttributes(a)) = &event.attributes else {
                continue;
            };
            let scheduled = run.event(a.scheduled_event_id);
            let scheduled = scheduled.and_then(|event| event.attributes.as_ref());
            let Some(Event::ActivityTaskScheduledEventAttributes(of)) = scheduled else { continue };
            let key = (run.run.clone(), of.activity_id.clone());
            let Some(known) = evidence.beats.get(&key) else { continue };
            let details = details(a.failure.as_ref());
            if parse_beat(&of.activity_id, &details).is_none_or(|told| told < *known) {
                let text = format!(
                    "activity {} of run {} timed out with the heartbeat {details:?}, acknowledged \
                     was number {} of attempt {}",
                    of.activity_id, run.run, known.1, known.0
                );
                findings.add(&run.id, text);
            }
        }
    }
}

/// The heartbeat that a timeout carries.
fn details(failure: Option<&Failure>) -> String {
    match failure.and_then(|failure| failure.decode().ok()?.failure_info) {
        Some(FailureInfo::TimeoutFailureInfo(info)) => {
            text_of(info.last_heartbeat_details.as_ref())
        }
        _ => String::new(),
    }
}

/// Run and activity of an operation on one.
fn activity(operation: &Operation) -> Option<((&str, &str), i32)> {
    let (activity, number) = operation.asked.attempt.as_ref()?;
    Some(((operation.asked.run.as_str(), activity.as_str()), *number))
}

/// A poll that began after an outcome of attempt n was acknowledged must not bring attempt n.
fn stale_hand_outs(evidence: &Evidence, findings: &mut Findings) {
    let ends = [Kind::CompleteActivity, Kind::FailActivity, Kind::CancelActivity];
    let mut over: BTreeMap<(&str, &str), Vec<(i32, &Operation)>> = BTreeMap::new();
    for operation in &evidence.operations {
        if ends.contains(&operation.asked.kind)
            && matches!(operation.outcome, Outcome::Ok(_))
            && let Some((key, number)) = activity(operation)
        {
            over.entry(key).or_default().push((number, operation));
        }
    }
    for (poll, _) in evidence.acknowledged(Kind::Attempt) {
        let Some((key, number)) = activity(poll) else { continue };
        let stale = over
            .get(&key)
            .into_iter()
            .flatten()
            .find(|(ended, operation)| number <= *ended && operation.returned < poll.invoked);
        if let Some((ended, operation)) = stale {
            let text = format!(
                "{} was handed attempt {number} of {} in run {} by a poll of {:.6} s; attempt {ended} was over: {}",
                poll.asked.who,
                key.1,
                key.0,
                poll.invoked.seconds(),
                operation.describe()
            );
            findings.add(&poll.asked.id, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn an_accepted_result_must_be_the_one_in_history() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").job("a0.0", 1, "a1");
        world.attempt("w", "r1", "a0.0", 1, 0);
        world.answered("w", "r1", "a0.0", 1, "a1");
        quiet(check, &world);
        world.answered("w", "r1", "a0.0", 1, "a2");
        fires(check, &world, "no history has it");
    }

    #[test]
    fn a_finished_attempt_is_not_handed_out_again() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").job("a0.0", 1, "a1");
        world.answered("w", "r1", "a0.0", 1, "a1");
        world.attempt("w", "r1", "a0.0", 2, 0);
        quiet(check, &world);
        world.attempt("w", "r1", "a0.0", 1, 0);
        fires(check, &world, "was handed attempt 1 of a0.0");
    }
}
