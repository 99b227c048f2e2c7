//! Explains a failing run: what happened to one workflow, in order, across callers and nodes, and
//! what the tables of each node say of it in the end. For readers who know neither the run nor the
//! code.
//!
//! `note` is what is written down on the way, `log` follows entries through the logs, `story` puts
//! everything in a line and leaves out what says least, `words` and `tables` are the language.

mod log;
pub(crate) mod note;
mod story;
mod tables;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_engine::ids::{RunId, Slot};
use holdfast_raft::types::NodeId;
use holdfast_storage::GroupId;

use crate::coverage::shard_entry;
use crate::doors::Doors;
use crate::record::Operation;
use crate::run::{Finding, Report};
use note::{Note, What};
use story::Story;
use tables::Tables;
use words::Names;

/// What is known of a run besides its report.
#[derive(Default)]
pub struct Account {
    pub(crate) notes: Vec<Note>,
    pub(crate) operations: Vec<Operation>,
    /// The tables of each node as they were judged; none for one that is down.
    pub(crate) tables: Vec<(NodeId, Option<Tables>)>,
}

/// Where a workflow lives.
struct Home {
    group: GroupId,
    /// Its runs, in the order in which they came up.
    runs: Vec<RunId>,
}

impl Account {
    /// Reads the tables of every node that is up.
    pub(crate) fn read_tables(doors: &Doors, shards: u32) -> Vec<(NodeId, Option<Tables>)> {
        let read = |node| doors.store(node).map(|store| Tables::read(store.as_ref(), shards));
        doors.nodes().into_iter().map(|node| (node, read(node))).collect()
    }

    fn knows(&self, id: &str) -> bool {
        self.operations.iter().any(|operation| &*operation.asked.id == id)
    }

    /// Looks for a workflow in the logs.
    fn home(&self, id: &str) -> Option<Home> {
        let mut home: Option<Home> = None;
        let mut seen = BTreeSet::new();
        for note in &self.notes {
            let What::Appends { group, entries, .. } = &note.what else { continue };
            for entry in entries {
                // Each entry comes once for each node.
                if home.as_ref().is_some_and(|home| home.group != *group)
                    || !seen.insert((*group, entry.index, entry.term))
                {
                    continue;
                }
                let Some(decided) = shard_entry(entry) else { continue };
                for draft in decided.drafts.into_iter().filter(|draft| &*draft.key.id == id) {
                    let home = home.get_or_insert_with(|| Home { group: *group, runs: Vec::new() });
                    for part in draft.parts {
                        if let Slot::Run(run) = part.slot
                            && !home.runs.contains(&run)
                        {
                            home.runs.push(run);
                        }
                    }
                }
            }
        }
        home
    }
}

/// The failure to tell of: the first about that workflow, or the first that is about any.
fn choose<'a>(report: &'a Report, account: &Account, id: Option<&str>) -> Option<&'a Finding> {
    let mut found = report.violations.iter();
    match id {
        Some(id) => found.find(|one| one.key == id),
        None => found.find(|one| account.knows(&one.key)).or(report.violations.first()),
    }
}

/// Tells of one failure, or of one workflow, in so many lines at most besides the frame.
pub fn explain(
    report: &Report,
    account: &Account,
    workflow: Option<&str>,
    lines: usize,
) -> Result<String, String> {
    let finding = choose(report, account, workflow);
    let id = workflow.or(finding.map(|one| one.key.as_str())).filter(|id| account.knows(id));
    if let (None, Some(id)) = (id, workflow) {
        return Err(format!("nobody asked for workflow {id}"));
    }
    if id.is_none() && finding.is_none() {
        return Err("that run breaks no rule; name a workflow to hear of".to_owned());
    }
    let home = id.and_then(|id| account.home(id));
    let mut names = Names::default();
    for run in home.iter().flat_map(|home| &home.runs) {
        names.add(&run.to_string());
    }
    let mut out = Vec::new();
    head(report, finding, id, home.as_ref(), &mut out);
    let focus = finding.map_or("", |one| one.text.as_str());
    let afterwards = finding.is_some_and(|one| one.rule == "A8");
    let story = Story::tell(account, id, home.as_ref(), focus, afterwards);
    out.extend(story.lines(lines));
    out.push(String::new());
    if let Some(home) = &home {
        let before = if afterwards { ", before all is switched off" } else { "" };
        out.push(format!("In the end{before}, the tables say:"));
        let runs = last_runs(home, focus);
        let said = tables::say(&account.tables, home.group, &runs);
        out.extend(said.into_iter().map(|line| format!("  {line}")));
        out.push(String::new());
    }
    match finding {
        Some(Finding { rule, text, .. }) => out.push(format!("Rule {rule} is broken: {text}")),
        None => out.push("No rule is broken for it.".to_owned()),
    }
    for other in report.violations.iter().filter(|one| Some(*one) != finding) {
        if id == Some(other.key.as_str()) {
            out.push(format!("Rule {} is broken: {}", other.rule, other.text));
        }
    }
    let text: String = out.iter().map(|line| names.short(line) + "\n").collect();
    let legend = names.legend().into_iter().filter(|(short, _)| mentions(&text, short));
    let legend: String = legend.map(|(short, long)| format!("{short} is run {long}\n")).collect();
    Ok(text + &legend)
}

/// Whether a text has a short name, and not only one that begins like it.
fn mentions(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name)
}

/// Whether a text names a request, and not only one that begins like it.
fn mentions_request(text: &str, request: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == request)
}

/// The runs that a failure names, or the last few.
fn last_runs(home: &Home, focus: &str) -> Vec<RunId> {
    let named = home.runs.iter().filter(|run| focus.contains(&run.to_string()));
    let named: Vec<RunId> = named.copied().collect();
    if !named.is_empty() {
        return named;
    }
    home.runs.get(home.runs.len().saturating_sub(3)..).unwrap_or_default().to_vec()
}

fn head(
    report: &Report,
    finding: Option<&Finding>,
    id: Option<&str>,
    home: Option<&Home>,
    out: &mut Vec<String>,
) {
    let Report { seed, scenario, nodes, .. } = report;
    out.push(format!("Seed {seed} of scenario {scenario:?} with {nodes} node(s)."));
    if let Some(Finding { rule, key, .. }) = finding {
        out.push(format!("Rule {rule} is broken for {key}; the end of this page says how."));
    }
    if let (Some(id), Some(home)) = (id, home) {
        let rest = match nodes {
            1 => "is on the disk of the only node".to_owned(),
            nodes => format!("is on the disks of {} of {nodes} nodes", nodes / 2 + 1),
        };
        out.push(format!(
            "Workflow {id} lives in shard {}. An entry that a node appends to its log is in memory; \
             it is safe when it {rest}, and is applied to the tables after that.",
            home.group - 1
        ));
    }
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    faults.extend(report.faults.iter().map(|(name, count)| (name.as_str(), *count)));
    let faults: Vec<String> =
        faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
    out.push(format!("Faults in the whole run: {faults}."));
    out.push(String::new());
    out.push("   seconds  who        what".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_that_a_failure_names_is_shown() {
        let runs: Vec<RunId> = (1..=5).map(RunId::v4).collect();
        let home = Home { group: 1, runs: runs.clone() };
        assert_eq!(last_runs(&home, "nothing of runs"), runs[2..]);
        let focus = format!("run {} and then run {}", runs[3], runs[0]);
        assert_eq!(last_runs(&home, &focus), [runs[0], runs[3]]);
    }
}
