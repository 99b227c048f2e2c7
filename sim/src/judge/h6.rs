//! H6: each workflow task goes from scheduled to started to one end, each once.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::history::history_event::Attributes as Event;

use super::{Evidence, Findings, RunHistory};
use crate::work::wire::ended_task;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        if let Err(why) = check_run(run) {
            findings.add(&run.id, format!("run {}: {why}", run.run));
        }
    }
}

fn check_run(run: &RunHistory) -> Result<(), String> {
    let mut scheduled = BTreeSet::new();
    // By what scheduled the task: what started it.
    let mut started: BTreeMap<i64, i64> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for event in &run.events {
        let id = event.event_id;
        match &event.attributes {
            Some(Event::WorkflowTaskScheduledEventAttributes(_)) => {
                scheduled.insert(id);
            }
            Some(Event::WorkflowTaskStartedEventAttributes(a)) => {
                let of = a.scheduled_event_id;
                if !scheduled.contains(&of) || started.insert(of, id).is_some() {
                    return Err(format!("event {id} starts task {of}, which does not wait"));
                }
            }
            _ => {}
        }
        let Some((of, by)) = ended_task(event) else { continue };
        let right = scheduled.contains(&of) && started.get(&of).copied().unwrap_or(0) == by;
        if !right || !ended.insert(of) {
            return Err(format!("event {id} ends task {of}, which is not in progress"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn a_task_ends_once() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").task("t1").task("t2");
        quiet(check, &world);
        let mut twice = World::default();
        twice.run("w", "r1").started("s1").task("t1").task_completed(2, 3, "t2");
        fires(check, &twice, "event 5 ends task 2, which is not in progress");
    }
}
