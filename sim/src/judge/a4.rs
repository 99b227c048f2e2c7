//! A4: an acknowledged cancel or termination is recorded once. A cancel of what is closed, or was
//! asked to stop before, is acknowledged and changes nothing.

use super::evidence::{Mark, mark, once_each};
use super::timeline::{Span, Timeline};
use super::{Evidence, Findings};
use crate::record::{Kind, Operation};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    once_each(evidence, &[Kind::Terminate], Mark::Terminate, |_| true, findings);
    let needless = |operation: &Operation| {
        let timeline = evidence.timelines.get(&operation.asked.id);
        timeline.is_some_and(|timeline| was_needless(evidence, timeline, operation))
    };
    let must = |operation: &Operation| !needless(operation);
    once_each(evidence, &[Kind::Cancel], Mark::Cancel, must, findings);
}

/// Whether some run could, at some moment of the operation, answer it without a change.
fn was_needless(evidence: &Evidence, timeline: &Timeline, operation: &Operation) -> bool {
    let named = operation.asked.run.as_str();
    timeline.spans.iter().enumerate().any(|(at, span)| {
        let next = timeline.spans.get(at + 1).and_then(|next| timeline.slots.get(next.first));
        let current = next.is_none_or(|slot| slot.high.moment >= operation.invoked);
        let meant = if named.is_empty() { current } else { span.run == named };
        meant && could_ignore(evidence, timeline, span, operation)
    })
}

fn could_ignore(
    evidence: &Evidence,
    timeline: &Timeline,
    span: &Span,
    operation: &Operation,
) -> bool {
    let Some(run) = evidence.runs.get(&span.run) else { return false };
    // A request may wait in a buffer and stand late in history: it counts from when it was sent.
    let asked_before = run.events.iter().filter_map(mark).any(|(mark, request)| {
        mark == Mark::Cancel
            && evidence
                .operations
                .iter()
                .any(|other| other.asked.request == request && other.invoked <= operation.returned)
    });
    let end = span.closed.then(|| timeline.slots.get(span.end - 1)).flatten();
    asked_before || end.is_some_and(|slot| slot.low.moment <= operation.returned)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_cancel_needs_its_event_unless_there_was_nothing_to_do() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").cancel_requested("k1");
        world.ok(Kind::Cancel, "w", "k1");
        world.ok(Kind::Cancel, "w", "k2");
        quiet(check, &world);

        let mut lost = World::default();
        lost.run("w", "r1").started("s1");
        lost.ok(Kind::Cancel, "w", "k1");
        fires(check, &lost, "no history has it");
    }

    #[test]
    fn a_cancel_before_the_one_in_history_was_not_needless() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").cancel_requested("k2");
        world.ok(Kind::Cancel, "w", "k1");
        world.ok(Kind::Cancel, "w", "k2");
        fires(check, &world, "(k1)");
    }

    #[test]
    fn a_lost_termination_is_found() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").terminated("x1");
        world.ok(Kind::Terminate, "w", "x1");
        quiet(check, &world);
        world.ok(Kind::Terminate, "w", "x2");
        fires(check, &world, "no history has it");
    }
}
