//! The two laws of `testing` under random inputs.

use proptest::prelude::*;

use super::{cancel, complete_run, fail_task, marker, terminate, timer};
use crate::input::{Input, Reply};
use crate::testing::{World, completion};
use crate::token::TaskToken;

#[derive(Clone, Debug)]
enum Step {
    Start(u8),
    Signal(u8),
    Cancel,
    Terminate,
    Poll,
    OldPoll(u8),
    Flush,
    Revoke(u8),
    Complete { task: u8, commands: Vec<u8>, force: bool, inline: bool, sticky: bool },
    Fail(u8),
    Wait(u16),
    Due,
    Crash,
    PollActivity,
    Activity { which: u8, how: u8 },
    StickyGone,
    ResetSticky,
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..4).prop_map(Step::Start),
        3 => any::<u8>().prop_map(|n| Step::Signal(n % 20)),
        1 => Just(Step::Cancel),
        1 => Just(Step::Terminate),
        6 => Just(Step::Poll),
        1 => any::<u8>().prop_map(Step::OldPoll),
        2 => Just(Step::Flush),
        1 => any::<u8>().prop_map(Step::Revoke),
        6 => (0u8..3, prop::collection::vec(0u8..9, 0..4), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(task, commands, force, inline, sticky)| Step::Complete { task, commands, force, inline, sticky }),
        2 => (0u8..3).prop_map(Step::Fail),
        2 => (0u16..20_000).prop_map(Step::Wait),
        3 => Just(Step::Due),
        1 => Just(Step::Crash),
        3 => Just(Step::PollActivity),
        3 => (any::<u8>(), 0u8..4).prop_map(|(which, how)| Step::Activity { which, how }),
        1 => Just(Step::StickyGone),
        1 => Just(Step::ResetSticky),
        1 => Just(Step::Delete),
    ]
}

/// The workers' side: tokens handed out, newest last, and offers seen.
#[derive(Default)]
struct Outside {
    tokens: Vec<TaskToken>,
    offers: Vec<crate::rows::BacklogRow>,
    activities: Vec<TaskToken>,
}

impl Outside {
    fn token(&self, back: u8) -> Option<TaskToken> {
        self.tokens.iter().rev().nth(usize::from(back)).cloned()
    }
}

fn take(w: &mut World, out: &mut Outside, step: Step) {
    match step {
        Step::Start(policy) => {
            let mut request = w.start_request();
            request.workflow_id_conflict_policy = i32::from(policy);
            request.workflow_run_timeout = Some(holdfast_proto::duration(100_000_000_000));
            request.request_eager_execution = policy == 3;
            w.say(Input::Start(Box::new(request)));
        }
        Step::Signal(n) => drop(w.signal("s", &format!("r{n}"))),
        Step::Cancel => drop(cancel(w, "c")),
        Step::Terminate => drop(terminate(w, "t")),
        Step::Poll => poll(w, out),
        Step::OldPoll(n) => {
            if let Some(row) = out.offers.get(usize::from(n)).cloned() {
                w.poll_as(&row, "other");
            }
        }
        Step::Complete { task, commands, force, inline, sticky } => {
            let Some(token) = out.token(task) else { return };
            let mut request = completion(commands.iter().map(|n| one(*n)).collect());
            request.force_create_new_workflow_task = force;
            request.return_new_workflow_task = inline;
            request.sticky_attributes = sticky.then(sticky_attributes);
            let input = Input::WorkflowTaskCompleted { token, request: Box::new(request) };
            if let Ok(Reply::Completed { next: Some(next), .. }) = w.decide(input) {
                out.tokens.push(next.token);
            }
        }
        Step::Fail(n) => {
            if let Some(token) = out.token(n) {
                fail_task(w, &token);
            }
        }
        Step::Wait(millis) => w.wait(f64::from(millis) / 1000.0),
        Step::Crash => w.crash(),
        Step::PollActivity => poll_activity(w, out),
        Step::Activity { which, how } => answer_activity(w, out, which, how),
        other => simple(w, out, other),
    }
}

fn poll(w: &mut World, out: &mut Outside) {
    let Some(row) =
        w.runs.get(&w.current()).and_then(|stored| stored.live.rows.workflow_task.clone())
    else {
        return;
    };
    out.offers.push(row.clone());
    if let Some(Reply::WorkflowTask(grant)) = w.poll_as(&row, "worker") {
        let ids = grant.tail.iter().map(|event| event.event_id);
        assert!(
            ids.eq(grant.next_event..=grant.token.started),
            "history ends with STARTED: {}",
            w.said
        );
        out.tokens.push(grant.token);
    }
}

fn poll_activity(w: &mut World, out: &mut Outside) {
    let rows = w.runs.get(&w.current()).map(|stored| stored.live.rows.activities.clone());
    let Some(row) = rows.and_then(|rows| rows.into_values().next()) else { return };
    out.offers.push(row.clone());
    if let Some(Reply::ActivityTask(grant)) = w.poll_as(&row, "worker") {
        out.activities.push(grant.token);
    }
}

fn answer_activity(w: &mut World, out: &Outside, which: u8, how: u8) {
    let Some(token) = out.activities.iter().rev().nth(usize::from(which % 3)).cloned() else {
        return;
    };
    let who = crate::input::ActivityRef::Token(token);
    w.say(match how {
        0 => Input::ActivityCompleted { who, request: Box::default() },
        1 => Input::ActivityFailed { who, request: Box::default() },
        2 => Input::ActivityCanceled { who, request: Box::default() },
        _ => Input::Heartbeat { who, request: Box::default() },
    });
}

fn activity(id: &str, attempts: i32) -> holdfast_proto::command::Command {
    let policy =
        holdfast_proto::common::RetryPolicy { maximum_attempts: attempts, ..Default::default() };
    crate::workflow::rig::activity(id, |a| {
        a.start_to_close_timeout = Some(holdfast_proto::duration(3_000_000_000));
        a.heartbeat_timeout = Some(holdfast_proto::duration(1_000_000_000));
        a.retry_policy = Some(policy);
        a.request_eager_execution = attempts == 2;
    })
}

/// Inputs that name the current run and nothing else.
fn simple(w: &mut World, out: &mut Outside, step: Step) {
    let run = w.current();
    let row = w.runs.get(&run).and_then(|stored| stored.live.rows.workflow_task.clone());
    let input = match (step, row) {
        (Step::Flush, _) => Input::FlushStarts { run },
        (Step::Due, _) => Input::Due { run },
        (Step::Delete, _) => Input::Delete { run },
        (Step::ResetSticky, _) => Input::ResetSticky { run: None },
        (Step::Revoke(n), _) => match out.token(n % 3) {
            Some(token) => Input::Revoke { run, start_id: token.start() },
            None => return,
        },
        (_, Some(row)) => {
            Input::StickyUnavailable { run, scheduled: row.scheduled, stamp: row.stamp }
        }
        _ => return,
    };
    w.say(input);
}

fn one(n: u8) -> holdfast_proto::command::Command {
    match n {
        0 => complete_run(),
        1 | 2 => marker(),
        3 => timer("t", 1),
        4 => timer("u", 5),
        5 => activity("a", 0),
        6 => activity("b", 2),
        7 => crate::workflow::rig::cancel_activity(5),
        _ => timer("", 1),
    }
}

pub(super) fn sticky_attributes() -> holdfast_proto::taskqueue::StickyExecutionAttributes {
    holdfast_proto::taskqueue::StickyExecutionAttributes {
        worker_task_queue: Some(holdfast_proto::taskqueue::TaskQueue {
            name: "sticky".to_owned(),
            ..Default::default()
        }),
        schedule_to_start_timeout: Some(holdfast_proto::duration(5_000_000_000)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folds_and_rows_agree(steps in prop::collection::vec(step(), 1..80)) {
        let mut w = World::new();
        w.limits.buffered_events = 5;
        w.start();
        let mut out = Outside::default();
        for step in steps {
            take(&mut w, &mut out, step);
        }
        // At most one run of an id is open.
        let open = w.runs.values().filter(|stored| stored.live.state.is_open()).count();
        prop_assert!(open <= 1);
    }
}
