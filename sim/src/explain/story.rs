//! Everything that concerns one workflow, in order; and what is left out when it is too much.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_engine::ids::RunId;
use holdfast_raft::types::NodeId;
use holdfast_storage::GroupId;

use super::log::GroupLog;
use super::note::{Note, Try, What};
use super::words;
use super::{Account, Home};
use crate::judge::leaves_marks;
use crate::record::{Kind, OpId, Operation};

/// How long before the first word about a workflow its story begins.
const BEFORE: Duration = Duration::from_secs(2);

/// How little a line says. With its distance to the failure it decides what is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Weight {
    /// What the failure itself names.
    Failure,
    /// Leaders, losses, entries and those who caused them.
    Main,
    /// Faults, reads, heartbeats, other runs.
    Aside,
}

impl Weight {
    /// What a distance in time counts.
    fn factor(self) -> u128 {
        match self {
            Weight::Failure => 0,
            Weight::Main => 1,
            Weight::Aside => 6,
        }
    }
}

struct Line {
    at: Duration,
    who: String,
    text: String,
    weight: Weight,
}

/// A story.
pub(super) struct Story<'a> {
    account: &'a Account,
    id: Option<&'a str>,
    group: Option<GroupId>,
    /// What the failure says.
    focus: &'a str,
    log: GroupLog,
    lines: Vec<Line>,
    /// The node that answered a caller last.
    answered: BTreeMap<&'a str, NodeId>,
    /// What each caller was told last by each kind of read.
    shown: BTreeMap<(&'a str, Kind), String>,
    leads: Option<(NodeId, u64)>,
    /// The runs of the workflow that the failure does not name, if it names one.
    others: Vec<String>,
}

impl<'a> Story<'a> {
    pub(super) fn tell(
        account: &'a Account,
        id: Option<&'a str>,
        home: Option<&Home>,
        focus: &'a str,
        afterwards: bool,
    ) -> Story<'a> {
        let runs: Vec<String> =
            home.iter().flat_map(|home| &home.runs).map(RunId::to_string).collect();
        let (named, others): (Vec<_>, Vec<_>) =
            runs.into_iter().partition(|run| focus.contains(run.as_str()));
        let mut story = Story {
            account,
            id,
            group: home.map(|home| home.group),
            focus,
            log: GroupLog::new(id.unwrap_or_default(), account.tables.len()),
            lines: Vec::new(),
            answered: BTreeMap::new(),
            shown: BTreeMap::new(),
            leads: None,
            others: if named.is_empty() { Vec::new() } else { others },
        };
        // A time would not do: what comes after may begin in the same moment.
        let judged = |note: &&Note| matches!(note.what, What::Judged);
        for note in account.notes.iter().take_while(|note| afterwards || !judged(note)) {
            story.take(note.at, &note.what);
        }
        story.begin();
        story
    }

    fn add(&mut self, at: Duration, who: &str, weight: Weight, text: String) {
        let other =
            weight == Weight::Main && self.others.iter().any(|run| text.contains(run.as_str()));
        let weight = if other { Weight::Aside } else { weight };
        self.lines.push(Line { at, who: who.to_owned(), text, weight });
    }

    fn take(&mut self, at: Duration, what: &'a What) {
        let ours = |group: &GroupId| self.group == Some(*group);
        match what {
            What::World { nodes, text } => {
                let who = match nodes.as_slice() {
                    [node] => format!("node {node}"),
                    _ => "nodes".to_owned(),
                };
                let weight = if text.starts_with("fault") { Weight::Aside } else { Weight::Main };
                let text = text.strip_prefix(&format!("{who} ")).unwrap_or(text);
                self.add(at, &who, weight, text.to_owned());
            }
            What::Leads { node, group, term } if ours(group) => {
                if self.leads != Some((*node, *term)) {
                    self.leads = Some((*node, *term));
                    let text = format!("leads the shard from now on, in term {term}");
                    self.add(at, &format!("node {node}"), Weight::Main, text);
                }
            }
            What::Appends { node, group, entries } if ours(group) => {
                for text in self.log.appends(*node, entries) {
                    self.add(at, &format!("node {node}"), Weight::Main, text);
                }
            }
            What::Synced { node, group, index } if ours(group) => {
                for text in self.log.synced(*node, *index) {
                    self.add(at, "", Weight::Main, text);
                }
            }
            What::Applied { node, group, index } if ours(group) => {
                for (text, well) in self.log.applied(*node, *index) {
                    let weight = if well { Weight::Main } else { Weight::Failure };
                    self.add(at, &format!("node {node}"), weight, text);
                }
            }
            What::Ends { node, group, after, lost_power, why } if ours(group) => {
                if let Some(text) = self.log.ends(*node, *after, *lost_power, why) {
                    self.add(at, &format!("node {node}"), Weight::Main, text);
                }
            }
            What::Asks(op) => self.asks(at, *op),
            What::Knows(op) => self.knows(at, *op),
            What::Tried { who, id, node, call, how } if self.id == Some(id) => {
                self.tried(at, who, *node, call, *how);
            }
            What::Broken { rule, key, text } if self.id == Some(key) || self.id.is_none() => {
                let text = format!("rule {rule} is broken: {text}");
                self.add(at, "judge", Weight::Failure, text);
            }
            What::Leads { .. }
            | What::Appends { .. }
            | What::Synced { .. }
            | What::Applied { .. }
            | What::Ends { .. }
            | What::Judged
            | What::Tried { .. }
            | What::Broken { .. } => {}
        }
    }

    fn operation(&self, op: OpId) -> Option<&'a Operation> {
        let operation = self.account.operations.get(op)?;
        // Whoever looks at the end is no part of it.
        let caller = !matches!(&*operation.asked.who, "judge" | "drain");
        (caller && self.id == Some(&*operation.asked.id)).then_some(operation)
    }

    /// How much an operation matters: most when the failure names it.
    fn weight(&self, operation: &Operation) -> Weight {
        let request = &operation.asked.request;
        if !request.is_empty() && super::mentions_request(self.focus, request) {
            return Weight::Failure;
        }
        match operation.asked.kind {
            Kind::Task | Kind::Attempt => Weight::Main,
            kind if leaves_marks(kind) => Weight::Main,
            _ => Weight::Aside,
        }
    }

    fn asks(&mut self, at: Duration, op: OpId) {
        let Some(operation) = self.operation(op) else { return };
        let weight = self.weight(operation);
        // The answer to a read says enough.
        if weight == Weight::Aside {
            return;
        }
        let text = format!("asks for {}", what(operation));
        self.add(at, &operation.asked.who, weight, text);
    }

    fn knows(&mut self, at: Duration, op: OpId) {
        let Some(operation) = self.operation(op) else { return };
        let weight = self.weight(operation);
        let told = words::outcome(&operation.outcome, operation.unsure);
        let who: &'a str = &operation.asked.who;
        let before = self.shown.insert((who, operation.asked.kind), told.clone());
        if weight == Weight::Aside && before.as_ref() == Some(&told) {
            return;
        }
        let by = match (self.answered.remove(who), operation.asked.kind) {
            (_, Kind::Task | Kind::Attempt) => "is handed ".to_owned(),
            (Some(node), _) => format!("hears from node {node} of "),
            (None, _) => String::new(),
        };
        let text = format!("{by}{}: {told}", what(operation));
        self.add(at, who, weight, text);
    }

    fn tried(&mut self, at: Duration, who: &'a str, node: NodeId, call: &str, how: Try) {
        match how {
            Try::Answered => drop(self.answered.insert(who, node)),
            Try::Useless => {}
            Try::Doubtful => {
                let call = call.rsplit("::").next().unwrap_or(call).trim_end_matches("Request");
                let text = format!("hears nothing good from node {node} after {call}");
                self.add(at, who, Weight::Main, text);
            }
        }
    }

    /// Drops what was before anybody spoke of the workflow.
    fn begin(&mut self) {
        let first = self.lines.iter().find(|line| line.who.starts_with(['c', 'w']));
        let Some(from) = first.map(|line| line.at.saturating_sub(BEFORE)) else { return };
        if self.id.is_some() {
            self.lines.retain(|line| line.at >= from || line.text.starts_with("leads"));
        }
    }

    /// When the failure happened, as far as the lines show it.
    fn moments(&self) -> Vec<Duration> {
        let named = self.lines.iter().filter(|line| line.weight == Weight::Failure);
        let moments: Vec<Duration> = named.map(|line| line.at).collect();
        match self.lines.last() {
            Some(last) if moments.is_empty() => vec![last.at],
            _ => moments,
        }
    }

    /// At most so many lines: those that say more, and are nearer to the failure, stay.
    pub(super) fn lines(&self, most: usize) -> Vec<String> {
        let moments = self.moments();
        let cost = |line: &Line| {
            let near = moments.iter().map(|moment| line.at.abs_diff(*moment)).min();
            near.unwrap_or_default().as_millis().saturating_add(100) * line.weight.factor()
        };
        let mut order: Vec<usize> = (0..self.lines.len()).collect();
        order.sort_by_key(|at| (self.lines.get(*at).map(cost), *at));
        order.truncate(most);
        // Who led when the first of them happened is always worth a line.
        let first = order.iter().min().copied().unwrap_or(0);
        let before = self.lines.get(..first).unwrap_or_default();
        order.extend(before.iter().rposition(|line| line.text.starts_with("leads the shard")));
        order.sort_unstable();
        let (mut out, mut next) = (Vec::new(), 0);
        for at in order {
            gap(at - next, &mut out);
            next = at + 1;
            if let Some(Line { at, who, text, .. }) = self.lines.get(at) {
                out.push(format!("{:>10.3}  {who:<9}  {text}", at.as_secs_f64()));
            }
        }
        gap(self.lines.len() - next, &mut out);
        out
    }
}

fn gap(count: usize, out: &mut Vec<String>) {
    if count > 0 {
        out.push(format!("{:>10}  {:<9}  ({count} lines left out)", "...", ""));
    }
}

/// An operation in a few words: its kind, its request, its attempt.
fn what(operation: &Operation) -> String {
    let asked = &operation.asked;
    let mut text = asked.kind.name().to_owned();
    if let Some((activity, attempt)) = asked.attempt.as_ref().filter(|(it, _)| !it.is_empty()) {
        text.push_str(&format!(" of activity {activity}, attempt {attempt}"));
    }
    if !asked.run.is_empty() {
        text.push_str(&format!(" of run {}", asked.run));
    }
    if !asked.request.is_empty() {
        text.push_str(&format!(" ({})", asked.request));
    }
    text
}
