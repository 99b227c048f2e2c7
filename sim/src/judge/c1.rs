//! C1: histories keep what callers gave: inputs, memos, search attributes, headers, results, details
//! and failures. Whoever reads a history on the way, forward, in reverse or inside of a task, holds
//! it against the same ([`gifts`]), and so whoever is shown a pending activity.

use super::{Evidence, Findings};
use crate::work::gifts;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        if let Some(why) = gifts::changed(&run.events) {
            findings.add(&run.id, format!("run {}: {why}", run.run));
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::history::history_event::Attributes as Event;

    use super::super::testing::{World, fires, quiet};
    use super::*;

    fn world() -> World {
        let mut world = World::default();
        world.run("w", "r1").given("c1-1").signaled("c1-2").task("w0-t1").terminated("c2-3");
        for event in &mut world.evidence.runs.get_mut("r1").expect("a run").events {
            match &mut event.attributes {
                Some(Event::WorkflowExecutionSignaledEventAttributes(a)) => {
                    a.identity = "c1-2".to_owned();
                    a.input = Some(gifts::values("c1-2", "c1-2", "signal"));
                    a.header = Some(gifts::header("c1-2"));
                }
                Some(Event::WorkflowExecutionTerminatedEventAttributes(a)) => {
                    a.details = Some(gifts::values("planned", "c2-3", "details"));
                }
                _ => {}
            }
        }
        world
    }

    /// The world with one event changed.
    fn with(at: usize, change: fn(&mut Event)) -> World {
        let mut world = world();
        let run = world.evidence.runs.get_mut("r1").expect("a run");
        change(run.events[at].attributes.as_mut().expect("attributes"));
        world
    }

    #[test]
    fn a_start_keeps_what_was_given() {
        quiet(check, &world());
        let without_memo = with(0, |event| {
            let Event::WorkflowExecutionStartedEventAttributes(a) = event else { panic!() };
            a.memo = None;
        });
        fires(check, &without_memo, "the memo of event 1 (WorkflowExecutionStarted) is not as");
        let of_another = with(0, |event| {
            let Event::WorkflowExecutionStartedEventAttributes(a) = event else { panic!() };
            a.search_attributes = Some(gifts::attributes("c7-1"));
        });
        fires(check, &of_another, "the search attributes of event 1");
    }

    #[test]
    fn a_signal_keeps_its_input_and_header() {
        let without_header = with(1, |event| {
            let Event::WorkflowExecutionSignaledEventAttributes(a) = event else { panic!() };
            a.header = None;
        });
        fires(check, &without_header, "the header of event 2");
        let of_another = with(1, |event| {
            let Event::WorkflowExecutionSignaledEventAttributes(a) = event else { panic!() };
            a.input = Some(gifts::values("c1-2", "c1-3", "signal"));
        });
        fires(check, &of_another, "the input of event 2");
    }

    #[test]
    fn a_termination_keeps_its_details() {
        let without = with(5, |event| {
            let Event::WorkflowExecutionTerminatedEventAttributes(a) = event else { panic!() };
            a.details = None;
        });
        fires(check, &without, "the details of event 6");
    }
}
