//! The client-visible model (3.2): every answer is explained by one order of events that respects
//! real time. The timelines bound each event by what callers knew; here is said where the bounds
//! leave no room, and which answers no state explains.

use super::timeline::{Slot, Timeline};
use super::{Evidence, Findings};
use crate::record::{Kind, Operation, Outcome};
use crate::work::wire::event_name;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (id, timeline) in &evidence.timelines {
        for (by, what) in &timeline.ghosts {
            if let Some(operation) = evidence.operations.get(*by) {
                let text = format!("{}; at the end there is no {what}", operation.describe());
                findings.add(id, text);
            }
        }
        // One contradiction makes the slots behind it contradict, too: the first is the cause.
        let broken = timeline.slots.iter().find(|slot| slot.low.moment > slot.high.moment);
        if let Some(slot) = broken {
            findings.add(id, contradiction(evidence, slot));
        }
    }
    for operation in &evidence.operations {
        if let Some(timeline) = evidence.timelines.get(&operation.asked.id) {
            unexplained(timeline, operation, findings);
        }
    }
}

fn contradiction(evidence: &Evidence, slot: &Slot) -> String {
    let told = |by: Option<usize>| {
        let operation = by.and_then(|by| evidence.operations.get(by));
        operation.map_or_else(|| "nobody".to_owned(), Operation::describe)
    };
    let run = evidence.runs.get(&slot.run);
    let name = run.and_then(|run| run.events.get(slot.at)).map_or_else(String::new, event_name);
    format!(
        "event {} ({name}) of run {} can't have happened before one knew: [{}], and must have happened before another knew: [{}]",
        slot.at + 1,
        slot.run,
        told(slot.low.by),
        told(slot.high.by)
    )
}

/// "already completed" of a call on the current run needs a moment at which no run was open.
fn unexplained(timeline: &Timeline, operation: &Operation, findings: &mut Findings) {
    let Outcome::Refused { code: tonic::Code::NotFound, text } = &operation.outcome else { return };
    let asked = &operation.asked;
    let on_current = asked.run.is_empty()
        && matches!(asked.kind, Kind::Signal | Kind::Terminate | Kind::Cancel)
        && text.contains("already completed");
    if !on_current || operation.unsure {
        return;
    }
    let gap = timeline.spans.iter().enumerate().any(|(at, span)| {
        let next = timeline.spans.get(at + 1).and_then(|next| timeline.slots.get(next.first));
        let end = timeline.slots.get(span.end.saturating_sub(1));
        span.closed
            && end.is_some_and(|slot| slot.low.moment <= operation.returned)
            && next.is_none_or(|slot| slot.high.moment >= operation.invoked)
    });
    if !gap {
        let text = format!("{}; a run was open all the time", operation.describe());
        findings.add(&asked.id, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_read_shows_what_was_acknowledged_before_it() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").signaled("g1");
        world.start("w", "s1", "r1", true);
        world.ok(Kind::Signal, "w", "g1");
        world.read("w", "r1", 2);
        quiet(check, &world);
        world.read("w", "r1", 1);
        fires(check, &world, "event 2 (WorkflowExecutionSignaled) of run r1 can't have happened");
    }

    #[test]
    fn a_read_shows_nothing_that_was_asked_for_after_it() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").signaled("g1");
        world.start("w", "s1", "r1", true);
        world.read("w", "r1", 2);
        world.unknown(Kind::Signal, "w", "g1");
        fires(check, &world, "event 2");
    }

    #[test]
    fn a_list_shows_what_was_acknowledged_before_it() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").terminated("x1");
        world.run("w", "r2").started("s2");
        world.start("w", "s1", "r1", true);
        world.listed("w", &[("r1", 1)]);
        world.ok(Kind::Terminate, "w", "x1");
        world.start("w", "s2", "r2", true);
        world.listed("w", &[("r2", 1), ("r1", 5)]);
        quiet(check, &world);

        let mut open = world.clone();
        open.listed("w", &[("r2", 1), ("r1", 1)]);
        fires(check, &open, "event 2 (WorkflowExecutionTerminated) of run r1 can't have happened");

        world.listed("w", &[("r1", 5)]);
        fires(check, &world, "event 1 (WorkflowExecutionStarted) of run r2 can't have happened");
    }

    #[test]
    fn acknowledged_writes_stand_in_the_order_of_real_time() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").signaled("g2").signaled("g1");
        world.start("w", "s1", "r1", true);
        world.ok(Kind::Signal, "w", "g1");
        world.ok(Kind::Signal, "w", "g2");
        fires(check, &world, "can't have happened");
    }

    #[test]
    fn what_waits_for_a_workflow_task_to_end_is_not_in_history_yet() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").signaled("g1");
        world.start("w", "s1", "r1", true);
        world.ok(Kind::Signal, "w", "g1");
        world.read("w", "r1", 3);
        world.ok(Kind::CompleteTask, "w", "t1");
        world.read("w", "r1", 5);
        quiet(check, &world);
        world.read("w", "r1", 3);
        fires(check, &world, "event 4 (WorkflowTaskCompleted) of run r1 can't have happened");

        let mut waits = World::default();
        waits.run("w", "r1").started("s1").task_scheduled().signaled("g1");
        waits.start("w", "s1", "r1", true);
        waits.ok(Kind::Signal, "w", "g1");
        waits.read("w", "r1", 2);
        fires(check, &waits, "event 3 (WorkflowExecutionSignaled)");
    }

    #[test]
    fn refusals_are_explained() {
        let code = tonic::Code::NotFound;
        let closed = "workflow execution already completed";
        let mut world = World::default();
        world.run("w", "r1").started("s1").terminated("x1");
        world.start("w", "s1", "r1", true);
        world.ok(Kind::Terminate, "w", "x1");
        world.refused(Kind::Signal, "w", "g1", code, closed);
        quiet(check, &world);

        let mut open = World::default();
        open.run("w", "r1").started("s1");
        open.start("w", "s1", "r1", true);
        open.refused(Kind::Signal, "w", "g1", code, closed);
        fires(check, &open, "a run was open all the time");

        let mut never = World::default();
        never.run("w", "r1").started("s1");
        never.start("w", "s1", "r1", true);
        never.refused(Kind::Signal, "w", "g1", code, "workflow not found for ID: w");
        fires(check, &never, "event 1 (WorkflowExecutionStarted)");
    }

    #[test]
    fn a_start_is_refused_only_because_of_a_run_that_is_there() {
        let code = tonic::Code::AlreadyExists;
        let text = "Workflow execution is already running. WorkflowId: w, RunId: r1.";
        let mut world = World::default();
        world.run("w", "r1").started("s1").terminated("x1");
        world.start("w", "s1", "r1", true);
        world.refused(Kind::Start, "w", "s2", code, text);
        world.ok(Kind::Terminate, "w", "x1");
        quiet(check, &world);
        world.refused(Kind::Start, "w", "s3", code, text);
        fires(check, &world, "event 2 (WorkflowExecutionTerminated)");

        let mut ghost = World::default();
        ghost.refused(Kind::Start, "w", "s2", code, text);
        fires(check, &ghost, "at the end there is no run r1");
    }
}
