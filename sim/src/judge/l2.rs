//! L2: at the end nothing is left to do: every run is closed, and no row speaks of a task, of a
//! time, or of a count that nobody will ever come back for.

use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for run in evidence.runs.values() {
        if run.closed().is_none() {
            let events = run.events.len();
            let last = run.events.last().map_or_else(String::new, crate::work::wire::event_name);
            let text = format!("run {} is still open: {events} events, the last {last}", run.run);
            findings.add(&run.id, text);
        }
    }
    for node in evidence.nodes.iter().filter(|node| node.is_newest) {
        for (group, rows) in &node.groups {
            let key = format!("group {group}");
            for task in &rows.backlog {
                findings.add(&key, format!("a task is left in the backlog: {task}"));
            }
            for (counter, count) in &rows.counters {
                findings.add(&key, format!("the counter {counter} stands at {count}"));
            }
            deadlines(evidence, &key, &rows.deadlines, findings);
        }
    }
}

/// A closed run has one deadline, its removal; nothing else has one.
fn deadlines(evidence: &Evidence, key: &str, rows: &[(String, u64)], findings: &mut Findings) {
    for (at, (run, due)) in rows.iter().enumerate() {
        if rows.iter().take(at).any(|(other, _)| other == run) {
            findings.add(key, format!("run {run} has a second deadline"));
        }
        match evidence.runs.get(run).map(super::RunHistory::closed) {
            None => {
                findings.add(key, format!("there is a deadline of run {run}, which is not there"))
            }
            Some(Some(closed)) if *due <= closed => {
                findings.add(key, format!("run {run} is closed and keeps an old deadline"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::super::{GroupRows, NodeRows};
    use super::*;

    fn world(rows: GroupRows) -> World {
        let mut world = World::default();
        world.run("w", "r1").started("s1").terminated("x");
        let groups = [(1, rows)].into();
        world.evidence.nodes =
            vec![NodeRows { node: 1, is_newest: true, groups, ..NodeRows::default() }];
        world
    }

    #[test]
    fn nothing_is_left_behind() {
        let removal = ("r1".to_owned(), u64::MAX);
        let rows = GroupRows { deadlines: vec![removal.clone()], ..GroupRows::default() };
        quiet(check, &world(rows.clone()));
        let twice = GroupRows { deadlines: vec![removal.clone(), removal], ..rows.clone() };
        fires(check, &world(twice), "a second deadline");
        let old = GroupRows { deadlines: vec![("r1".to_owned(), 5)], ..rows.clone() };
        fires(check, &world(old), "keeps an old deadline");
        let task = GroupRows { backlog: vec!["w".to_owned()], ..rows.clone() };
        fires(check, &world(task), "left in the backlog");
        let count = GroupRows { counters: vec![("q".to_owned(), 2)], ..rows };
        fires(check, &world(count), "stands at 2");
        let mut open = World::default();
        open.run("w", "r1").started("s1");
        fires(check, &open, "run r1 is still open");
    }
}
