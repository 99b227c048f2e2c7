//! The workflows, and those who start, signal and work on them.
//!
//! A workflow runs an activity and a timer at its start and for every signal `go`, and completes on
//! the signal `finish`, once all of these are done. It is played from its history alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::command::Command;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Code;

use super::world::World;
use crate::client::{Start, text, text_of};
use crate::rng::Rng;
use crate::script;

pub(crate) const KIND: &str = "Crash";
pub(crate) const GO: &str = "go";
const FINISH: &str = "finish";
const QUEUE: &str = "crash";

const POLLERS: usize = 24;
const STARTERS: usize = 16;
const SIGNALERS: usize = 8;
/// Signals that the workers may lag behind.
const AHEAD: usize = 200;
/// Short, so that a task whose worker the kill cut off comes back soon.
const ATTEMPT: Duration = Duration::from_secs(3);
const TASK: Duration = Duration::from_secs(5);

/// Starts all players; they play until this is dropped.
pub(crate) fn all(world: &Arc<World>) -> JoinSet<()> {
    let mut players = JoinSet::new();
    for player in 0..STARTERS {
        players.spawn(start(world.clone(), player));
    }
    for player in 0..SIGNALERS {
        players.spawn(signal(world.clone(), player));
    }
    for player in 0..POLLERS {
        players.spawn(work_on_workflows(world.clone(), player));
        players.spawn(work_on_activities(world.clone(), player));
    }
    players
}

/// Starts workflows: as many as are to be open at once, and then one now and then.
async fn start(world: Arc<World>, player: usize) {
    let client = world.client(player);
    let mut rng = world.rng();
    for index in (player..).step_by(STARTERS) {
        if index >= world.workflows {
            sleep(Duration::from_millis(50 + rng.below(400) as u64)).await;
        }
        if world.finishing() {
            return;
        }
        let start = Start {
            id: format!("crash-{index}"),
            kind: KIND.to_owned(),
            queue: QUEUE.to_owned(),
            input: text(&format!("crash-{index}")),
            request_id: format!("start-{index}"),
            task_timeout: Some(TASK),
        };
        match world.insist(|| client.start(start.clone())).await {
            Ok(run) => world.acknowledge(|ledger| ledger.started(&start.id, run)),
            Err(refusal) => world.unexpected(&format!("start of {}", start.id), &refusal),
        }
    }
}

/// Signals any workflow, until it is time to let them finish; then all of its share.
async fn signal(world: Arc<World>, player: usize) {
    let client = world.client(player);
    let mut rng = world.rng();
    let mut count = 0;
    while !world.finishing() {
        let (known, lag) = {
            let ledger = world.ledger();
            (ledger.starts, ledger.signals.saturating_sub(ledger.activities))
        };
        if known < world.workflows || lag > AHEAD {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        count += 1;
        let (id, go) =
            (format!("crash-{}", rng.below(world.workflows)), format!("{player}.{count}"));
        let request = format!("{GO}-{go}");
        let sent = world.insist(|| client.signal(&id, GO, text(&go), &request)).await;
        match sent {
            Ok(()) => world.acknowledge(|ledger| ledger.signaled(&id, go)),
            Err(refusal) => world.unexpected(&format!("signal of {id}"), &refusal),
        }
    }
    let mut finished = BTreeSet::new();
    loop {
        let all: Vec<String> = world.ledger().accounts.keys().cloned().collect();
        for id in all.into_iter().skip(player).step_by(SIGNALERS) {
            if finished.insert(id.clone()) {
                let request = format!("{FINISH}-{id}");
                let sent = world.insist(|| client.signal(&id, FINISH, text(""), &request)).await;
                if let Err(refusal) = sent
                    && refusal.code() != Code::NotFound
                {
                    world.unexpected(&format!("last signal of {id}"), &refusal);
                }
            }
        }
        // A start that is still on its way.
        sleep(Duration::from_millis(100)).await;
    }
}

async fn work_on_workflows(world: Arc<World>, player: usize) {
    let client = world.client(player);
    let mut count = 0;
    loop {
        let task = match world.insist(|| client.poll_workflow(QUEUE)).await {
            Ok(Some(task)) => task,
            Ok(None) => continue,
            Err(refusal) => {
                world.unexpected("poll for a workflow task", &refusal);
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let id = task.workflow_execution.map_or_else(String::new, |it| it.workflow_id);
        let mut events = task.history.unwrap_or_default().events;
        if !task.next_page_token.is_empty() {
            let last = task.started_event_id;
            let Ok(all) = world.insist(|| client.history(&id)).await else { continue };
            events = all;
            events.retain(|event| event.event_id <= last);
        }
        count += 1;
        let (commands, completes) = decide(&events);
        let answer = format!("worker {player}.{count}");
        let token = task.task_token;
        let call = || client.answer_workflow(token.clone(), commands.clone(), &answer);
        match world.insist(call).await {
            Ok(()) => {
                world.acknowledge(|ledger| ledger.answered(&id, answer));
                if completes {
                    world.closes(id);
                }
            }
            // It timed out, or counted and only the answer was lost.
            Err(refusal) if refusal.code() == Code::NotFound => {}
            // A signal arrived meanwhile: there is a new task for it.
            Err(refusal)
                if refusal.code() == Code::InvalidArgument
                    && refusal.message().contains("UnhandledCommand") => {}
            Err(refusal) => world.unexpected(&format!("workflow task of {id}"), &refusal),
        }
    }
}

/// What a workflow does next, by its history, and whether that closes it.
fn decide(history: &[HistoryEvent]) -> (Vec<Command>, bool) {
    let mut wanted = vec!["first".to_owned()];
    let mut begun = BTreeSet::new();
    let (mut finish, mut pending) = (false, 0_i64);
    for event in history {
        match &event.attributes {
            Some(Event::WorkflowExecutionSignaledEventAttributes(it)) => {
                if it.signal_name == GO {
                    wanted.push(text_of(it.input.as_ref()));
                }
                finish |= it.signal_name == FINISH;
            }
            Some(Event::ActivityTaskScheduledEventAttributes(it)) => {
                begun.insert(it.activity_id.clone());
                pending += 1;
            }
            Some(Event::TimerStartedEventAttributes(it)) => {
                begun.insert(it.timer_id.clone());
                pending += 1;
            }
            Some(
                Event::ActivityTaskCompletedEventAttributes(_)
                | Event::TimerFiredEventAttributes(_),
            ) => pending -= 1,
            _ => {}
        }
    }
    let mut commands = Vec::new();
    for cause in &wanted {
        if !begun.contains(&format!("a-{cause}")) {
            commands.push(script::schedule(&format!("a-{cause}"), QUEUE, text(cause), ATTEMPT));
        }
        if !begun.contains(&format!("t-{cause}")) {
            commands.push(script::timer(&format!("t-{cause}"), delay(cause)));
        }
    }
    let completes = finish && pending == 0 && commands.is_empty();
    if completes {
        commands.push(script::complete(text(&wanted.len().to_string())));
    }
    (commands, completes)
}

/// How long the timer of a cause runs: always the same for the same cause.
fn delay(cause: &str) -> Duration {
    let seed = cause.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte));
    Duration::from_millis(50 + Rng::new(seed).below(3_000) as u64)
}

/// Completes most activities, fails some attempts, and drops some as a worker that died.
async fn work_on_activities(world: Arc<World>, player: usize) {
    let client = world.client(player);
    let mut rng = world.rng();
    loop {
        let task = match world.insist(|| client.poll_activity(QUEUE)).await {
            Ok(Some(task)) => task,
            Ok(None) => continue,
            Err(refusal) => {
                world.unexpected("poll for an activity task", &refusal);
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let id = task.workflow_execution.map_or_else(String::new, |it| it.workflow_id);
        let (token, activity) = (task.task_token, task.activity_id);
        if rng.one_in(50) {
            continue;
        }
        let outcome = if rng.one_in(12) {
            world.insist(|| client.fail_activity(token.clone(), "as planned")).await
        } else {
            let result = format!("{activity} {} {:x}", task.attempt, rng.number());
            let call = || client.answer_activity(token.clone(), text(&result));
            let outcome = world.insist(call).await;
            if outcome.is_ok() {
                world.acknowledge(|ledger| ledger.completed(&id, activity.clone(), result));
            }
            outcome
        };
        match outcome {
            // It timed out, or counted and only the answer was lost.
            Err(refusal) if refusal.code() == Code::NotFound => {}
            Err(refusal) => world.unexpected(&format!("{activity} of {id}"), &refusal),
            Ok(()) => {}
        }
    }
}
