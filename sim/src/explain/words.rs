//! Changes, events and answers in words.

use std::collections::BTreeMap;

use holdfast_engine::Change;
use holdfast_engine::ids::Slot;
use holdfast_proto::enums::WorkflowExecutionStatus;
use holdfast_proto::history::HistoryEvent;
use holdfast_raft::entry::SlotPart;

use crate::judge::request_of;
use crate::record::{Outcome, Told};
use crate::work::wire::event_name;

/// An event: its id, its type, and the request that it comes of.
pub(super) fn event(event: &HistoryEvent) -> String {
    let id = if event.event_id > 0 { format!("{} ", event.event_id) } else { String::new() };
    let request = request_of(event).map_or_else(String::new, |request| format!(" by {request}"));
    format!("{id}{}{request}", event_name(event))
}

/// What one entry does to the slots of a workflow, one text for each of them.
pub(super) fn parts<'a>(parts: impl Iterator<Item = &'a SlotPart>) -> Vec<String> {
    let mut texts: Vec<(Slot, Vec<String>)> = Vec::new();
    for part in parts {
        if texts.last().is_none_or(|(slot, _)| *slot != part.slot) {
            texts.push((part.slot, Vec::new()));
        }
        let Some((_, changes)) = texts.last_mut() else { continue };
        if part.drop {
            changes.push("deleted with all its rows".to_owned());
        }
        changes.extend(part.changes.iter().map(|wire| {
            match Change::decode(wire.tag, &wire.body) {
                Ok(decoded) => change(&decoded),
                Err(why) => format!("a change that can't be read: {why}"),
            }
        }));
    }
    let each = texts.into_iter().map(|(slot, changes)| {
        let whose = match slot {
            Slot::Id => "the id".to_owned(),
            Slot::Run(run) => format!("run {run}"),
        };
        format!("{whose}: {}", changes.join(", "))
    });
    each.collect()
}

fn change(change: &Change) -> String {
    match change {
        Change::Event(it) => event(it),
        Change::Buffered(it) => format!("{} waits for the workflow task to end", event(it)),
        Change::BufferFlushed(b) => format!("{} events that waited follow", b.count),
        Change::BufferDropped(b) => format!("the firing of timer {} is taken back", b.timer_id),
        Change::TaskAttempt(b) => format!("workflow task, attempt {}", b.attempt),
        Change::TaskStarted(b) => format!("workflow task started by {}", b.identity),
        Change::TaskUnstarted(_) => "workflow task given back".to_owned(),
        Change::StickySet(b) if b.queue.is_empty() => "not sticky".to_owned(),
        Change::StickySet(b) => format!("sticky to {}", b.queue),
        Change::AttemptStarted(b) => {
            format!("attempt of activity {} started by {}", b.scheduled, b.identity)
        }
        Change::AttemptRetried(b) => format!("activity {} is to be tried again", b.scheduled),
        Change::Heartbeated(b) => format!("heartbeat of activity {}", b.scheduled),
        Change::HeartbeatRearmed(b) => format!("activity {} may be silent longer", b.scheduled),
        Change::RequestSeen(b) => format!("request {} honoured", b.id),
        Change::CurrentRun(b) if b.run.is_empty() => "no run is current".to_owned(),
        Change::CurrentRun(b) => format!("run {} is current, {}", b.run_id(), status(b.status)),
        Change::RetentionSet(_) => "to be deleted later".to_owned(),
        Change::Ahead(b) => format!("keeps its own time, {} ms ahead", b.by / 1_000_000),
        Change::StartedBy(b) => format!("started by request {}", b.request_id),
        Change::RunDeleted => "deleted".to_owned(),
    }
}

fn status(status: i32) -> String {
    let known = WorkflowExecutionStatus::try_from(status);
    known.map_or_else(|_| status.to_string(), |known| format!("{known:?}"))
}

/// What an answer tells.
pub(super) fn outcome(outcome: &Outcome, unsure: bool) -> String {
    let told = match outcome {
        Outcome::Open => "was never told how it ended".to_owned(),
        Outcome::Ok(told) => answer(told),
        Outcome::Refused { code, text } => format!("refused, {code:?}: {text}"),
        Outcome::Unknown => "gives up and does not know whether it happened".to_owned(),
        Outcome::NotSent => "gives up; nobody took the request".to_owned(),
    };
    let doubt = if unsure { " (an earlier try may have happened)" } else { "" };
    format!("{told}{doubt}")
}

fn answer(told: &Told) -> String {
    match told {
        Told::Done => "done".to_owned(),
        Told::Started { run, started: true } => format!("run {run} started"),
        Told::Started { run, started: false } => format!("run {run} was there already"),
        Told::Attached { run } => format!("request attached to run {run}"),
        Told::Shown { run, from, to, closed } => {
            let closed = match closed {
                Some(true) => ", closed",
                Some(false) => ", open",
                None => "",
            };
            match to {
                0 => format!("run {run} has {from} events or more{closed}"),
                to if to == from => format!("run {run} has {to} events{closed}"),
                to => format!("run {run} has {from} to {to} events{closed}"),
            }
        }
        Told::Listed(rows) => {
            let each = rows.iter().map(|(run, of)| format!("run {run} {}", status(*of)));
            format!("{} runs: {}", rows.len(), each.collect::<Vec<_>>().join(", "))
        }
        Told::Counted(count) => format!("{count} runs"),
        Told::Attempt { run, maximum, .. } => {
            let most = if *maximum > 0 { format!("{maximum}") } else { "any number".to_owned() };
            format!("an activity of run {run}, {most} of attempts")
        }
        Told::Beat(true) => "stop".to_owned(),
        Told::Beat(false) => "go on".to_owned(),
    }
}

/// Long names of runs, and what stands for them.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// Adds a run in the order in which they came.
    pub(super) fn add(&mut self, run: &str) {
        let number = self.0.len() + 1;
        self.0.entry(run.to_owned()).or_insert_with(|| format!("R{number}"));
    }

    /// A text with short names.
    pub(super) fn short(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (long, short) in &self.0 {
            if text.contains(long) {
                text = text.replace(long, short);
            }
        }
        text.replace("run R", "R")
    }

    /// What stands for what, by short name.
    pub(super) fn legend(&self) -> Vec<(&str, &str)> {
        let mut legend: Vec<_> =
            self.0.iter().map(|(long, short)| (short.as_str(), long.as_str())).collect();
        legend.sort_by_key(|(short, _)| (short.len(), *short));
        legend
    }
}
