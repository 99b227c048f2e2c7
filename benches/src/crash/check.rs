//! What must hold at the end: every workflow completed, every acknowledgement in its history
//! exactly once, every history gapless.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;
use tokio::task::JoinSet;

use super::ledger::Account;
use super::play::{GO, KIND};
use super::world::World;
use crate::client::text_of;
use crate::{history, say};

const READERS: usize = 16;

/// Reads every history; prints the counts and returns what is broken.
pub(crate) async fn all(world: &Arc<World>) -> Vec<String> {
    let accounts: Vec<(String, Account)> =
        world.ledger().accounts.iter().map(|(id, account)| (id.clone(), account.clone())).collect();
    let count = accounts.len();
    let mut shares = vec![Vec::new(); READERS];
    for (index, account) in accounts.into_iter().enumerate() {
        shares[index % READERS].push(account);
    }
    let mut readers = JoinSet::new();
    for (reader, share) in shares.into_iter().enumerate() {
        let client = world.client(reader);
        readers.spawn(async move {
            let (mut broken, mut events) = (Vec::new(), 0);
            for (id, account) in share {
                match client.history(&id).await {
                    Ok(history) => {
                        events += history.len();
                        let found = faults(&history, &id, &account);
                        broken.extend(found.into_iter().map(|fault| format!("{id}: {fault}")));
                    }
                    Err(refusal) => broken.push(format!("{id}: no history: {refusal}")),
                }
            }
            (broken, events)
        });
    }
    let (mut broken, mut events) = (Vec::new(), 0);
    while let Some(share) = readers.join_next().await {
        match share {
            Ok((found, read)) => {
                broken.extend(found);
                events += read;
            }
            Err(panic) => broken.push(format!("a reader failed: {panic}")),
        }
    }
    let query = format!("WorkflowType = '{KIND}' AND ExecutionStatus = 'Completed'");
    match world.client(0).count(&query).await {
        Ok(counted) if counted == count as i64 => {}
        Ok(counted) => broken.push(format!("{counted} of {count} workflows are counted")),
        Err(refusal) => broken.push(format!("count: {refusal}")),
    }
    say(world.summary());
    say(format!("{count} histories with {events} events read"));
    broken
}

/// Where a history is not what was acknowledged.
fn faults(events: &[HistoryEvent], id: &str, account: &Account) -> Vec<String> {
    let mut found = history::faults(events);
    let mut seen = Seen::default();
    events.iter().for_each(|event| seen.take(event));
    if seen.run != account.run || seen.input != id {
        found.push(format!(
            "acknowledged as run {}, is {} of {}",
            account.run, seen.run, seen.input
        ));
    }
    match events.last().and_then(|event| event.attributes.as_ref()) {
        Some(Event::WorkflowExecutionCompletedEventAttributes(it))
            if text_of(it.result.as_ref()) == (seen.signals.len() + 1).to_string() => {}
        _ => found.push("not completed with its result".to_owned()),
    }
    once("signal", &seen.signals, &mut found);
    once("workflow task answer", &seen.answers, &mut found);
    for text in account.signals.iter().filter(|text| !seen.signals.contains_key(*text)) {
        found.push(format!("the acknowledged signal {text} is lost"));
    }
    for text in seen.signals.keys().filter(|text| !account.signals.contains(*text)) {
        found.push(format!("the signal {text} was never acknowledged"));
    }
    for answer in account.answers.iter().filter(|answer| !seen.answers.contains_key(*answer)) {
        found.push(format!("the acknowledged workflow task of {answer} is lost"));
    }
    for (activity, result) in &account.activities {
        match seen.results.get(activity) {
            Some(there) if there == result => {}
            there => found.push(format!("{activity} was accepted as {result}, is {there:?}")),
        }
    }
    for cause in seen.signals.keys().map(String::as_str).chain(["first"]) {
        let (activity, timer) = (format!("a-{cause}"), format!("t-{cause}"));
        if !seen.results.get(&activity).is_some_and(|result| result.starts_with(&activity)) {
            found.push(format!("{activity} did not complete with its result"));
        }
        if seen.fired.get(&timer) != Some(&1) {
            found.push(format!("{timer} fired {} times", seen.fired.get(&timer).unwrap_or(&0)));
        }
    }
    found
}

fn once(what: &str, counts: &BTreeMap<String, usize>, found: &mut Vec<String>) {
    for (text, count) in counts.iter().filter(|(_, count)| **count > 1) {
        found.push(format!("the {what} {text} is there {count} times"));
    }
}

/// What a history holds of what is acknowledged.
#[derive(Default)]
struct Seen {
    run: String,
    input: String,
    signals: BTreeMap<String, usize>,
    answers: BTreeMap<String, usize>,
    fired: BTreeMap<String, usize>,
    results: BTreeMap<String, String>,
    scheduled: BTreeMap<i64, String>,
}

impl Seen {
    fn take(&mut self, event: &HistoryEvent) {
        match &event.attributes {
            Some(Event::WorkflowExecutionStartedEventAttributes(it)) => {
                self.run = it.original_execution_run_id.clone();
                self.input = text_of(it.input.as_ref());
            }
            Some(Event::WorkflowExecutionSignaledEventAttributes(it)) if it.signal_name == GO => {
                *self.signals.entry(text_of(it.input.as_ref())).or_default() += 1;
            }
            Some(Event::WorkflowTaskCompletedEventAttributes(it)) => {
                *self.answers.entry(it.identity.clone()).or_default() += 1;
            }
            Some(Event::TimerFiredEventAttributes(it)) => {
                *self.fired.entry(it.timer_id.clone()).or_default() += 1;
            }
            Some(Event::ActivityTaskScheduledEventAttributes(it)) => {
                self.scheduled.insert(event.event_id, it.activity_id.clone());
            }
            Some(Event::ActivityTaskCompletedEventAttributes(it)) => {
                let activity = self.scheduled.get(&it.scheduled_event_id).cloned();
                self.results.insert(activity.unwrap_or_default(), text_of(it.result.as_ref()));
            }
            _ => {}
        }
    }
}
