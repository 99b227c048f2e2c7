//! A request id belongs to one kind of call: what each kind makes of an id that another one had.
//!
//! A case is a line of calls, what they answered, and the events of each run. Calls are `start`,
//! `attach` (a start that uses an existing run and is attached to it), `with` (signal-with-start),
//! `signal`, `cancel`, each with a request id, and `end`. Behind the id, `!` terminates an existing
//! run, a number names a run.

use holdfast_proto::common::{WorkflowExecution, WorkflowType};
use holdfast_proto::enums::WorkflowIdConflictPolicy as Conflict;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflow::OnConflictOptions;
use holdfast_proto::workflowservice as rpc;

use super::{cancel, terminate};
use crate::ids::RunId;
use crate::input::{Input, Reply};
use crate::testing::World;

fn call(w: &mut World, call: &str) -> Input {
    let words: Vec<&str> = call.split(' ').collect();
    let (id, more) = (words[1].to_owned(), words.get(2).copied().unwrap_or_default());
    let conflict = |other: Conflict| match more {
        "!" => Conflict::TerminateExisting as i32,
        _ => other as i32,
    };
    match words[0] {
        "signal" => {
            let run = more.parse::<usize>().ok().map(|number| w.order[number - 1].to_string());
            Input::Signal(Box::new(rpc::SignalWorkflowExecutionRequest {
                workflow_execution: Some(WorkflowExecution {
                    run_id: run.unwrap_or_default(),
                    ..w.execution()
                }),
                signal_name: "s".to_owned(),
                request_id: id,
                ..Default::default()
            }))
        }
        "with" => Input::SignalWithStart(Box::new(rpc::SignalWithStartWorkflowExecutionRequest {
            workflow_id: "wf".to_owned(),
            workflow_type: Some(WorkflowType { name: "type".to_owned() }),
            task_queue: Some(TaskQueue { name: "queue".to_owned(), ..TaskQueue::default() }),
            request_id: id,
            signal_name: "w".to_owned(),
            workflow_id_conflict_policy: conflict(Conflict::UseExisting),
            ..Default::default()
        })),
        kind => {
            let attach = kind == "attach";
            let other = if attach { Conflict::UseExisting } else { Conflict::Fail };
            Input::Start(Box::new(rpc::StartWorkflowExecutionRequest {
                request_id: id,
                workflow_id_conflict_policy: conflict(other),
                on_conflict_options: attach
                    .then(|| OnConflictOptions { attach_request_id: true, ..Default::default() }),
                ..w.start_request()
            }))
        }
    }
}

fn number(w: &World, run: RunId) -> usize {
    w.order.iter().position(|known| *known == run).expect("a run of this id") + 1
}

fn said(w: &World, answer: &Result<Reply, crate::reject::Rejection>) -> String {
    match answer {
        Ok(Reply::Started(s)) => {
            let met = match (s.started, s.attached) {
                (true, _) => " started",
                (false, true) => " attached",
                (false, false) => "",
            };
            format!("run {}{met}", number(w, s.run))
        }
        Ok(Reply::Signaled(execution)) => {
            let run = w.order.iter().position(|run| run.to_string() == execution.run_id);
            format!("run {}", run.expect("a run of this id") + 1)
        }
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => format!("{:?}", refusal.code),
    }
}

fn short(event: &HistoryEvent) -> String {
    let text = crate::testing::event_text(event);
    let words =
        text.split(' ').skip(1).filter(|word| matches!(*word, "s" | "w") || word.contains('_'));
    words.map(|word| word.trim_start_matches("WORKFLOW_").trim_start_matches("EXECUTION_")).fold(
        String::new(),
        |all, word| {
            if all.is_empty() { word.to_owned() } else { format!("{all}({word})") }
        },
    )
}

/// The calls of a line, one after the other: what was answered, and what each run holds then.
fn play(w: &mut World, calls: &str) -> String {
    let mut answers = Vec::new();
    for text in calls.split(", ") {
        answers.push(match text.split(' ').collect::<Vec<_>>()[..] {
            ["end"] => terminate(w, "").lines().last().expect("an answer")[3..].to_owned(),
            ["cancel", id] => cancel(w, id).lines().last().expect("an answer")[3..].to_owned(),
            ["wait", seconds] => {
                w.wait(seconds.parse().expect("seconds"));
                continue;
            }
            _ => {
                let input = call(w, text);
                let answer = w.decide(input);
                said(w, &answer)
            }
        });
    }
    let runs = w.order.clone();
    let runs = runs.into_iter().map(|run| {
        let events = w.events_of(run);
        events.iter().map(short).collect::<Vec<_>>().join(" ")
    });
    format!("{}\n{}\n", answers.join(", "), runs.collect::<Vec<_>>().join("\n"))
}

#[track_caller]
fn expect(calls: &str, expected: &str) {
    let played = play(&mut World::new(), calls);
    assert!(played == expected.trim_start_matches('\n'), "{calls}\n<<<\n{played}>>>");
}

/// Asked of the reference, which answers and writes the very same.
#[test]
fn a_kind_of_call_does_not_know_the_ids_of_another() {
    expect(
        "start R, with R, with R",
        "
run 1 started, run 1, run 1
STARTED TASK_SCHEDULED SIGNALED(w)
",
    );
    expect(
        "start R, signal R, signal R",
        "
run 1 started, run 1, run 1
STARTED TASK_SCHEDULED SIGNALED(s)
",
    );
    expect(
        "start R, with R !",
        "
run 1 started, run 2 started
STARTED TASK_SCHEDULED TERMINATED
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
    expect(
        "start R, end, start R, with R, with R",
        "
run 1 started, done, run 1 started, run 2 started, run 2
STARTED TASK_SCHEDULED TERMINATED
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
    expect(
        "start R, end, signal R",
        "
run 1 started, done, NotFound
STARTED TASK_SCHEDULED TERMINATED
",
    );
}

/// Asked of the reference, too.
#[test]
fn nor_do_attached_requests_signals_and_cancels() {
    expect(
        "start x, attach R, signal R, with R, with R",
        "
run 1 started, run 1 attached, run 1, run 1, run 1
STARTED TASK_SCHEDULED OPTIONS_UPDATED SIGNALED(s)
",
    );
    expect(
        "start x, attach R, with R !",
        "
run 1 started, run 1 attached, run 2 started
STARTED TASK_SCHEDULED OPTIONS_UPDATED TERMINATED
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
    expect(
        "start x, attach R, end, with R, with R",
        "
run 1 started, run 1 attached, done, run 2 started, run 2
STARTED TASK_SCHEDULED OPTIONS_UPDATED TERMINATED
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
    expect(
        "start x, signal R, start R, attach R, attach R",
        "
run 1 started, run 1, AlreadyExists, run 1 attached, run 1 attached
STARTED TASK_SCHEDULED SIGNALED(s) OPTIONS_UPDATED
",
    );
    expect(
        "start x, signal R, end, signal R, with R, signal R",
        "
run 1 started, run 1, done, run 1, run 2 started, run 1
STARTED TASK_SCHEDULED SIGNALED(s) TERMINATED
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
    expect(
        "start R, cancel R, cancel R, signal R, with R !",
        "
run 1 started, done, done, run 1, run 2 started
STARTED TASK_SCHEDULED CANCEL_REQUESTED SIGNALED(s) TERMINATED
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
}

/// So it is in the reference: a run holds one signal of a request, with a start or without.
#[test]
fn within_a_run_the_two_kinds_of_signals_are_one() {
    expect(
        "with R, signal R, start R, attach R",
        "
run 1 started, run 1, run 1 started, run 1 started
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
    expect(
        "start x, signal R, with R",
        "
run 1 started, run 1, run 1
STARTED TASK_SCHEDULED SIGNALED(s)
",
    );
    expect(
        "start x, with R, attach R, with R, attach R",
        "
run 1 started, run 1, run 1 attached, run 1, run 1 attached
STARTED TASK_SCHEDULED SIGNALED(w) OPTIONS_UPDATED
",
    );
}

/// A signal that names its run is meant for no other.
#[test]
fn signals_that_name_two_runs_are_two_signals() {
    expect(
        "start x, signal R 1, end, start y, signal R 2, signal R 1, signal R 2",
        "
run 1 started, run 1, done, run 2 started, run 2, run 1, run 2
STARTED TASK_SCHEDULED SIGNALED(s) TERMINATED
STARTED TASK_SCHEDULED SIGNALED(s)
",
    );
}

/// Here Temporal, which knows only the requests of the current run, does a thing twice (A13).
#[test]
fn the_same_call_again_is_known_across_runs() {
    expect(
        "start x, signal R, end, start y, signal R",
        "
run 1 started, run 1, done, run 2 started, run 1
STARTED TASK_SCHEDULED SIGNALED(s) TERMINATED
STARTED TASK_SCHEDULED
",
    );
    expect(
        "with R, end, with R, signal R, with R !",
        "
run 1 started, done, run 1, run 1, run 1
STARTED SIGNALED(w) TASK_SCHEDULED TERMINATED
",
    );
    expect(
        "start x, with R, end, with R, start R, with R",
        "
run 1 started, run 1, done, run 1, run 2 started, run 1
STARTED TASK_SCHEDULED SIGNALED(w) TERMINATED
STARTED TASK_SCHEDULED
",
    );
    expect(
        "start R, start S !, start R, with R, attach R",
        "
run 1 started, run 2 started, run 1 started, run 2, run 1 started
STARTED TASK_SCHEDULED TERMINATED
STARTED TASK_SCHEDULED SIGNALED(w)
",
    );
    // What was attached is not told that it made the run.
    expect(
        "start x, attach R, start S !, attach R, start R, signal R",
        "
run 1 started, run 1 attached, run 2 started, run 1 attached, run 1 attached, run 2
STARTED TASK_SCHEDULED OPTIONS_UPDATED TERMINATED
STARTED TASK_SCHEDULED SIGNALED(s)
",
    );
    // A run that a signal-with-start made was made by no start.
    expect(
        "with R, start S !, start R, with R, signal R",
        "
run 1 started, run 2 started, AlreadyExists, run 1, run 2
STARTED SIGNALED(w) TASK_SCHEDULED TERMINATED
STARTED TASK_SCHEDULED SIGNALED(s)
",
    );
}

#[test]
fn once_the_window_is_over_a_run_knows_its_own_requests() {
    expect(
        "with R, wait 601, with R, with R !, end, with R",
        "
run 1 started, run 1, run 1, done, run 1
STARTED SIGNALED(w) TASK_SCHEDULED TERMINATED
",
    );
    expect(
        "start x, with R, wait 601, with R, end, with R",
        "
run 1 started, run 1, run 1, done, run 2 started
STARTED TASK_SCHEDULED SIGNALED(w) TERMINATED
STARTED SIGNALED(w) TASK_SCHEDULED
",
    );
}

#[test]
fn a_request_that_waits_in_the_buffer_is_known() {
    let mut w = World::new();
    w.start();
    w.poll();
    play(&mut w, "with start-1, with start-1, signal R, with R");
    assert_eq!(w.state().buffered.len(), 2, "{}", w.log);
}

#[test]
fn what_a_workflow_id_remembers_is_as_much_as_is_configured() {
    let first_signal_again = |remembered, window| {
        let mut w = World::new();
        w.limits.requests_remembered = remembered;
        w.limits.request_window = std::time::Duration::from_secs(window);
        w.start();
        play(&mut w, "signal R, signal S, signal T, end");
        w.start();
        w.wait(5.0);
        play(&mut w, "signal R");
        (w.record.recent.len(), w.history().matches("SIGNALED").count())
    };
    // Three signals, and the start of the run that gave way.
    assert_eq!(first_signal_again(4, 9), (4, 0), "it went to the first run");
    assert_eq!(first_signal_again(3, 9), (3, 1), "the oldest gave way to the start");
    assert_eq!(first_signal_again(4, 4), (1, 1), "the window is over");
}

#[test]
fn attached_requests_outlast_their_run_as_far_as_is_configured() {
    let attached_again = |most| {
        let mut w = World::new();
        w.limits.attached_requests = most;
        w.start();
        play(&mut w, "attach R, attach S, attach S, end");
        w.start();
        play(&mut w, "attach R").lines().next().expect("an answer").to_owned()
    };
    assert_eq!(attached_again(2), "run 1 attached");
    assert_eq!(attached_again(1), "run 2 attached", "the oldest gave way");
}
