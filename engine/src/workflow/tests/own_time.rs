//! Clocks that were ahead and were set right: what an id knows of time (DESIGN 8).

use std::time::Duration;

use super::complete_run;
use crate::ids::Hlc;
use crate::input::Input;
use crate::testing::{EPOCH, time_text};
use crate::workflow::rig::{Rig, SECOND, activity, seconds, start_timer};

const DAY: u64 = 86_400 * SECOND;

/// What the clock shows so many seconds after the beginning, `wrong` nanoseconds ahead.
fn clock(rig: &mut Rig, seconds: u64, wrong: u64) {
    rig.world.now = Hlc(EPOCH.0 + seconds * SECOND + wrong);
}

/// The seconds after the beginning at which the run needs attention, by the clock.
fn deadline(rig: &Rig) -> Option<u64> {
    rig.run().rows.deadline.map(|at| (at.0 - EPOCH.0) / SECOND)
}

fn times(rig: &Rig) -> Vec<Hlc> {
    let all = rig.world.order.iter().flat_map(|run| {
        let log = rig.world.runs[run].log.clone();
        crate::testing::events(&log)
    });
    all.map(|event| event.event_time.as_ref().map_or(Hlc::ZERO, Hlc::from_timestamp)).collect()
}

#[test]
fn times_never_go_back_within_an_id() {
    let mut rig = Rig::start();
    clock(&mut rig, 1, DAY);
    rig.signal();
    clock(&mut rig, 2, 0);
    rig.signal();
    rig.turn(vec![complete_run()]).expect("completes");
    // The run after it begins where that one ended, and is as far ahead.
    clock(&mut rig, 3, 0);
    rig.world.crash();
    rig.world.start();
    rig.signal();
    let times = times(&rig);
    assert!(times.is_sorted(), "{:?}", times.iter().map(|at| time_text(*at)).collect::<Vec<_>>());
    assert!(rig.state().ahead > DAY - 10 * SECOND, "{}", rig.state().ahead);
    // Days later nobody knows.
    rig.world.say(Input::Delete { run: rig.world.order[0] });
    rig.turn(vec![complete_run()]).expect("completes");
    rig.world.now = EPOCH.after(Duration::from_secs(2 * 86_400));
    let now = rig.world.now;
    rig.world.start();
    assert_eq!(rig.state().info.started_at, now.0, "the clock has caught up");
    assert_eq!(rig.state().ahead, 0);
}

#[test]
fn what_waited_in_the_buffer_is_not_later_than_what_follows() {
    let mut rig = Rig::start();
    rig.world.poll();
    rig.world.flush();
    clock(&mut rig, 1, DAY);
    rig.signal();
    // Whoever leads next knows of that time by the buffer alone.
    clock(&mut rig, 2, 0);
    rig.world.crash();
    rig.terminate();
    rig.world.start();
    let times = times(&rig);
    assert!(times.is_sorted(), "{:?}", times.iter().map(|at| time_text(*at)).collect::<Vec<_>>());
}

#[test]
fn numbers_rise_over_a_start_that_was_written_by_a_wrong_clock() {
    let mut rig = Rig::start();
    let task = rig.world.poll();
    // Its time is that of the hand-out, its number that of the writing.
    clock(&mut rig, 1, DAY);
    rig.world.flush();
    clock(&mut rig, 2, 0);
    rig.world.crash();
    rig.complete(&task, vec![complete_run()], false).expect("completes");
    let numbers: Vec<i64> = rig.history().iter().map(|event| event.task_id).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

#[test]
fn a_start_of_the_future_is_not_taken_up() {
    for (wrong, taken) in [(0, true), (DAY, false)] {
        let mut rig = Rig::start();
        clock(&mut rig, 1, wrong);
        let task = rig.world.poll();
        clock(&mut rig, 2, 0);
        rig.world.crash();
        let answer = rig.complete(&task, vec![complete_run()], false);
        assert_eq!(answer.is_ok(), taken, "{answer:?}");
        let numbers: Vec<i64> = rig.history().iter().map(|event| event.task_id).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

#[test]
fn another_id_has_right_times_at_once() {
    let mut rig = Rig::start();
    clock(&mut rig, 1, DAY);
    rig.signal();
    let mut other = Rig::start();
    clock(&mut other, 2, 0);
    other.signal();
    assert_eq!(times(&other).last(), Some(&Hlc(EPOCH.0 + 2 * SECOND)));
}

#[test]
fn what_began_by_the_wrong_clock_does_not_wait_for_the_right_one() {
    let mut rig = Rig::start();
    clock(&mut rig, 1, DAY);
    rig.turn(vec![start_timer("t", seconds(30))]).expect("completes");
    assert_eq!(deadline(&rig), Some(86_400 + 31));
    clock(&mut rig, 2, 0);
    let run = rig.world.current();
    // What the shard does with every run when its clock was set back.
    rig.world.say(Input::Due { run });
    assert_eq!(deadline(&rig), Some(31), "thirty seconds from now on");
    rig.pass(31 * SECOND);
    assert_eq!(rig.types(5), ["6 TimerFired", "7 WorkflowTaskScheduled"]);
    let (began, fired) = (times(&rig)[4], times(&rig)[5]);
    let length = fired.since(began).as_secs();
    assert_eq!(length, 30, "in its history it took as long as it should");
    let row = rig.run().rows.workflow_task.clone().expect("a task waits");
    assert!(row.at <= rig.world.now, "and may be handed out at once");
}

#[test]
fn what_began_before_the_clock_was_wrong_is_not_early() {
    let mut rig = Rig::start();
    rig.turn(vec![
        start_timer("month", seconds(30 * 86_400)),
        activity("a", |a| {
            a.start_to_close_timeout = seconds(600);
            a.schedule_to_close_timeout = seconds(2 * 86_400);
        }),
    ])
    .expect("completes");
    let task = rig.poll_activity().expect("a task");
    rig.world.flush();
    assert_eq!(deadline(&rig), Some(600));
    clock(&mut rig, 60, DAY);
    rig.heartbeat(&task, None).expect("accepted");
    rig.signal();
    clock(&mut rig, 61, 0);
    rig.signal();
    let ahead = rig.state().ahead;
    assert_eq!(ahead / SECOND, 86_399);
    assert_eq!(deadline(&rig), Some(600), "the activity, as before");
    let timer = rig.state().timers["month"].fires_at - ahead;
    assert_eq!((timer - EPOCH.0) / SECOND, 30 * 86_400, "and the timer");
    let activity = rig.state().activities.values().next().expect("one");
    let closes = activity.scheduled_at + activity.schedule_to_close - ahead;
    assert_eq!((closes - EPOCH.0) / SECOND, 2 * 86_400);
}

#[test]
fn clocks_that_are_apart_by_less_than_the_bound_are_not_wrong() {
    let mut rig = Rig::start();
    rig.world.now = Hlc(EPOCH.0 + SECOND);
    rig.turn(vec![start_timer("t", seconds(30))]).expect("completes");
    rig.world.crash();
    rig.world.now = Hlc(EPOCH.0 + SECOND - SECOND / 5 * 2);
    rig.signal();
    assert_eq!(rig.state().ahead, 0);
    assert_eq!(deadline(&rig), Some(31));
}

#[test]
fn each_kind_of_wait_goes_on() {
    let one = |command| {
        let mut rig = Rig::start();
        clock(&mut rig, 1, DAY);
        rig.turn(vec![command]).expect("completes");
        rig
    };
    let job = |with: fn(&mut holdfast_proto::command::ScheduleActivityTaskCommandAttributes)| {
        one(activity("a", |a| {
            a.start_to_close_timeout = seconds(40);
            with(a);
        }))
    };
    // Waits for a worker.
    let mut rig = job(|a| a.schedule_to_start_timeout = seconds(20));
    clock(&mut rig, 2, 0);
    let run = rig.world.current();
    rig.world.say(Input::Due { run });
    assert_eq!(deadline(&rig), Some(21));
    assert!(rig.run().rows.activities.values().all(|row| row.at <= rig.world.now));
    // Runs, and beats.
    let mut rig = job(|a| a.heartbeat_timeout = seconds(10));
    rig.poll_activity().expect("a task");
    rig.world.flush();
    clock(&mut rig, 2, 0);
    rig.signal();
    assert_eq!(deadline(&rig), Some(11));
    // Waits for its next attempt.
    let mut rig = job(|_| ());
    let task = rig.poll_activity().expect("a task");
    rig.fail_activity(&task, None).expect("accepted");
    clock(&mut rig, 2, 0);
    rig.signal();
    let row = rig.run().rows.activities.values().next().cloned().expect("a row");
    assert_eq!((row.at.0 - EPOCH.0).div_ceil(SECOND), 3, "a second, counted from now on");
    // A run that began by the wrong clock, and one that is closed.
    let mut rig = Rig::start_with(|r| r.workflow_run_timeout = seconds(100));
    assert_eq!(deadline(&rig), Some(100));
    rig.world.now = Hlc(EPOCH.0 - DAY);
    rig.signal();
    assert_eq!(rig.run().rows.deadline.map(|at| (at.0 - (EPOCH.0 - DAY)) / SECOND), Some(99));
    rig.terminate();
    let gone = rig.run().rows.deadline.map(|at| (at.0 - (EPOCH.0 - DAY)) / SECOND);
    assert_eq!(gone, Some(3600));
}
