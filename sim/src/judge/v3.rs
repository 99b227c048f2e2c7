//! V3: lists, counts and describe agree with the histories at the end, and so do the rows that
//! lists are made of, and the counters of runs by status with those rows.

use std::collections::BTreeMap;

use holdfast_proto::enums::{EventType, WorkflowExecutionStatus as Status};

use super::evidence::Shown;
use super::{Evidence, Findings, NodeRows, RunHistory};

/// What a history says of its run.
pub(super) fn shown_of(run: &RunHistory) -> Shown {
    let last = run.events.last().map(|event| event.event_type());
    let status = match last {
        Some(EventType::WorkflowExecutionCompleted) => Status::Completed,
        Some(EventType::WorkflowExecutionFailed) => Status::Failed,
        Some(EventType::WorkflowExecutionCanceled) => Status::Canceled,
        Some(EventType::WorkflowExecutionTerminated) => Status::Terminated,
        Some(EventType::WorkflowExecutionTimedOut) => Status::TimedOut,
        _ => Status::Running,
    };
    Shown {
        id: run.id.to_string(),
        status: status as i32,
        started: run.started(),
        closed: run.closed().unwrap_or(0),
        length: if run.closed().is_some() { run.events.len() as i64 } else { 0 },
    }
}

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    compare(evidence, "describe", &evidence.described, findings);
    if let Some(listed) = &evidence.listed {
        compare(evidence, "the list", listed, findings);
    }
    for node in &evidence.nodes {
        counters(node, findings);
        // Followers may be behind; R13 compares them.
        if node.is_newest {
            compare(
                evidence,
                &format!("visibility of node {}", node.node),
                &node.visibility,
                findings,
            );
        }
    }
    if let Some(counted) = evidence.counted
        && counted != evidence.runs.len() as i64
    {
        let runs = evidence.runs.len();
        findings.add("", format!("count says {counted}, there are {runs} runs"));
    }
}

/// The counters of a shard count its rows. Both are written in one batch, so that holds on every
/// node, however far it is behind.
fn counters(node: &NodeRows, findings: &mut Findings) {
    for (group, rows) in node.groups.iter().filter(|(_, rows)| rows.statuses != rows.listed) {
        let text = format!(
            "node {}: the counters of runs by status say {:?}, the rows of lists {:?}",
            node.node, rows.statuses, rows.listed
        );
        findings.add(&format!("group {group}"), text);
    }
}

fn compare(
    evidence: &Evidence,
    what: &str,
    shown: &BTreeMap<String, Shown>,
    findings: &mut Findings,
) {
    for (name, run) in &evidence.runs {
        let truth = shown_of(run);
        match shown.get(name) {
            None => findings.add(&run.id, format!("run {name} is not in {what}")),
            Some(said) => {
                // Lengths of open runs are not said everywhere.
                let length = if truth.closed == 0 { 0 } else { said.length };
                let said = Shown { length, ..said.clone() };
                if said != truth {
                    let text = format!("run {name}: {what} says {said:?}, its history {truth:?}");
                    findings.add(&run.id, text);
                }
            }
        }
    }
    for (name, said) in shown {
        if !evidence.runs.contains_key(name) {
            findings.add(&said.id, format!("{what} has run {name}, which does not exist"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::GroupRows;
    use super::super::testing::{World, fires, quiet};
    use super::*;

    fn world() -> World {
        let mut world = World::default();
        world.run("w", "r1").started("s1").terminated("x");
        world.run("w", "r2").started("s2");
        let shown: BTreeMap<_, _> =
            world.evidence.runs.iter().map(|(name, run)| (name.clone(), shown_of(run))).collect();
        world.evidence.described = shown.clone();
        world.evidence.listed = Some(shown);
        world.evidence.counted = Some(2);
        world
    }

    #[test]
    fn lists_must_agree_with_histories() {
        quiet(check, &world());
        let mut open = world();
        if let Some(listed) = &mut open.evidence.listed
            && let Some(shown) = listed.get_mut("r1")
        {
            shown.status = 1;
        }
        fires(check, &open, "run r1: the list says");
        let mut missing = world();
        missing.evidence.described.remove("r2");
        fires(check, &missing, "run r2 is not in describe");
        let mut more = world();
        more.evidence.listed.get_or_insert_default().insert("r9".to_owned(), Shown::default());
        fires(check, &more, "has run r9, which does not exist");
        let mut counted = world();
        counted.evidence.counted = Some(3);
        fires(check, &counted, "count says 3");
    }

    #[test]
    fn the_newest_node_must_agree_with_histories() {
        let with = |is_newest, status| {
            let mut world = world();
            let mut visibility = world.evidence.described.clone();
            visibility.entry("r1".to_owned()).or_default().status = status;
            world.evidence.nodes =
                vec![NodeRows { node: 2, is_newest, visibility, ..NodeRows::default() }];
            world
        };
        quiet(check, &with(true, Status::Terminated as i32));
        fires(check, &with(true, Status::Running as i32), "run r1: visibility of node 2 says");
        // One that is behind may say what was.
        quiet(check, &with(false, Status::Running as i32));
        let mut missing = with(true, Status::Terminated as i32);
        missing.evidence.nodes[0].visibility.clear();
        fires(check, &missing, "run r1 is not in visibility of node 2");
    }

    #[test]
    fn counters_must_agree_with_rows() {
        let listed = BTreeMap::from([("1".to_owned(), 1), ("5".to_owned(), 1)]);
        let with = |statuses: BTreeMap<String, i64>| {
            let rows = GroupRows { statuses, listed: listed.clone(), ..GroupRows::default() };
            let mut world = world();
            let node = NodeRows { node: 2, groups: [(1, rows)].into(), ..NodeRows::default() };
            world.evidence.nodes = vec![node];
            world
        };
        quiet(check, &with(listed.clone()));
        let drifted = BTreeMap::from([("1".to_owned(), 2), ("5".to_owned(), 1)]);
        fires(check, &with(drifted), "node 2: the counters of runs by status say");
    }
}
