//! T4: once the faults are over, no task that may go out is kept from a poller that waits for it,
//! nor passed over for younger ones.
//!
//! The bound follows from the server, whose matching has no clock of its own: a poll meets the
//! oldest work of its queue when it comes, a task a waiting poll when its entry is applied, and a
//! task that yields to older work elsewhere does so for 100 ms. So where both wait for [`WITHIN`],
//! which is what due timers are given (T2), somebody was not woken. Work of equal priority goes
//! out oldest first: no task may be passed by one that is [`YOUNGER`], nor by one of a lower priority
//! once it has waited so long. Where a shard has no leader
//! for a while, or more to do than it can, everybody waits, and a task may wait so much longer: as
//! long as the slowest call of that time.
//!
//! A judge need not know who led the shard: a task was neglected when, while it waited, *every*
//! node had a poll of its queue waiting for the whole bound or handed out a younger task. Polls
//! that nobody answered say nothing, for they may have been lost on their way. Of a queue whose polls
//! ask for a rate a task may wait for its token beside a poll, but not while none goes out.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use holdfast_engine::validate::priority_level;
use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::enums::{TaskQueueKind, TimeoutType};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::taskqueue::TaskQueue;

use super::t2::SETTLING;
use super::{CLOCK_BOUND, Evidence, Findings, RunHistory};
use crate::record::{Kind, Moment, Operation, Poll};
use crate::work::wire::{closes, event_time, nanos};

/// How long a task and a poll may wait for one another, in nanoseconds.
const WITHIN: u64 = 3_000_000_000;

/// How much later a task was scheduled that must not go first, in nanoseconds.
const YOUNGER: u64 = 5_000_000_000;

/// How late a timeout may be that still is the one of the first attempt, in nanoseconds: less than
/// the shortest time that an attempt before it takes.
const FIRST: u64 = 400_000_000;

/// A task that waited: by the server's own stamps, nanoseconds since the epoch.
struct Wait<'a> {
    id: &'a str,
    run: &'a str,
    what: String,
    queue: &'a str,
    is_workflow: bool,
    since: u64,
    until: u64,
    end: &'static str,
    /// 1 to 5.
    priority: u8,
}

/// The answered polls of a queue, workflow tasks or not, on a node.
type Polls<'a> = BTreeMap<(u64, &'a str, bool), Vec<&'a Poll>>;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let Some(calm) = evidence.calm.map(|calm| calm.at.saturating_add(SETTLING)) else { return };
    let mut polls = Polls::new();
    for poll in &evidence.polls {
        if poll.got.as_ref().is_some_and(|got| evidence.own_time.contains(&got.run)) {
            continue;
        }
        let key = (poll.node, poll.queue.as_str(), poll.is_workflow);
        polls.entry(key).or_default().push(poll);
    }
    let nodes: Vec<u64> = evidence.nodes.iter().map(|node| node.node).collect();
    let mut waits = handed(evidence);
    for run in evidence.runs.values() {
        workflow_tasks(run, &mut waits);
        activities(run, evidence, &mut waits);
    }
    // What keeps its own time says nothing of when it waited.
    for wait in waits.iter().filter(|wait| !evidence.own_time.contains(wait.run)) {
        // True time in which the task certainly waited.
        let epoch = evidence.calm_epoch();
        let local = |stamp: u64| stamp.saturating_sub(epoch);
        let from = local(wait.since).saturating_add(CLOCK_BOUND).max(calm);
        let to = local(wait.until).saturating_sub(CLOCK_BOUND);
        if to < from.saturating_add(WITHIN) || nodes.is_empty() {
            continue;
        }
        let seen = Seen { epoch, from, to, slow: slowest(evidence, from, to) };
        let neglect = |node: &u64| {
            let of_queue = polls.get(&(*node, wait.queue, wait.is_workflow))?;
            of_queue.iter().find_map(|poll| {
                neglected(&seen, poll, of_queue).or_else(|| passed(evidence, &seen, wait, poll))
            })
        };
        let Some(why) = nodes.iter().map(neglect).collect::<Option<Vec<_>>>() else { continue };
        let text = format!(
            "{} of run {} waited in queue {} from {:.3} s to {:.3} s, when it {}: {}",
            wait.what,
            wait.run,
            wait.queue,
            seconds(local(wait.since)),
            seconds(local(wait.until)),
            wait.end,
            why.join("; ")
        );
        findings.add(wait.id, text);
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The time in which a task waited, from the beginning of the record on, in nanoseconds.
struct Seen {
    epoch: u64,
    from: u64,
    to: u64,
    /// How long the slowest call took.
    slow: u64,
}

/// How long the slowest call took that was under way in a time; one that nobody answered yet, until
/// the end of that time. Reads that wait for news and lists, which most nodes refuse, say nothing.
pub(super) fn slowest(evidence: &Evidence, from: u64, to: u64) -> u64 {
    let prompt = |operation: &&Operation| {
        matches!(
            operation.asked.kind,
            Kind::Start
                | Kind::Signal
                | Kind::SignalWithStart
                | Kind::Cancel
                | Kind::Terminate
                | Kind::Describe
                | Kind::CompleteTask
                | Kind::FailTask
                | Kind::CompleteActivity
                | Kind::FailActivity
                | Kind::CancelActivity
        )
    };
    let calls = evidence.operations.iter().filter(prompt);
    let then = calls.filter(|call| call.invoked.at <= to && call.returned.at >= from);
    let took = |call: &Operation| {
        let is_open = call.returned == Moment::NEVER;
        let end = if is_open { to } else { call.returned.at };
        end.saturating_sub(call.invoked.at)
    };
    then.map(took).max().unwrap_or(0)
}

/// How a poll shows that its node did not care for a task that waited.
fn neglected(seen: &Seen, poll: &Poll, others: &[&Poll]) -> Option<String> {
    let (began, ended) = (poll.invoked.at.max(seen.from), poll.returned.at.min(seen.to));
    let idle = || {
        let went = |other: &&Poll| {
            let at = other.got.as_ref().map(|got| got.began.saturating_sub(seen.epoch));
            at.is_some_and(|at| {
                at.saturating_add(CLOCK_BOUND) >= began && at <= ended + CLOCK_BOUND
            })
        };
        poll.rate.is_none() || !others.iter().any(went)
    };
    if began.saturating_add(WITHIN).saturating_add(seen.slow) <= ended && idle() {
        let (who, node) = (&poll.who, poll.node);
        let (began, ended) = (poll.invoked.seconds(), poll.returned.seconds());
        return Some(format!("{who} polled node {node} from {began:.3} s to {ended:.3} s"));
    }
    None
}

/// How a poll shows that its node gave away what has to wait for a task that waited.
fn passed(evidence: &Evidence, seen: &Seen, wait: &Wait<'_>, poll: &Poll) -> Option<String> {
    let got = poll.got.as_ref()?;
    let went = got.began.saturating_sub(seen.epoch);
    let while_it_waited = went >= seen.from && went.saturating_add(CLOCK_BOUND) <= seen.to;
    // A later attempt whose run got news meanwhile goes out as a new task, scheduled when it is
    // handed out: how long it waited is not said.
    let is_renewed = got.scheduled == got.began;
    let before = wait.since.saturating_add(YOUNGER).saturating_add(seen.slow);
    let priority = got.priority.unwrap_or_else(|| of_run(evidence, &got.run));
    let passed = match priority.cmp(&wait.priority) {
        // More urgent.
        Ordering::Less => false,
        Ordering::Equal => before <= got.scheduled && !is_renewed,
        Ordering::Greater => before <= got.began,
    };
    if while_it_waited && passed {
        return Some(format!(
            "node {} gave {} of run {}, scheduled at {:.3} s, to {} at {:.3} s",
            poll.node,
            got.what,
            got.run,
            seconds(got.scheduled.saturating_sub(seen.epoch)),
            poll.who,
            poll.returned.seconds()
        ));
    }
    None
}

/// Tasks that a poll was given in the end, every attempt of them.
fn handed(evidence: &Evidence) -> Vec<Wait<'_>> {
    let mut waits = Vec::new();
    for poll in &evidence.polls {
        let Some(got) = &poll.got else { continue };
        // A sticky worker may be found gone; what waited for it is on the usual queue since then,
        // under its old time.
        if poll.is_workflow && moved(evidence, &got.run, got.scheduled, &poll.queue) {
            continue;
        }
        waits.push(Wait {
            id: &got.id,
            run: &got.run,
            what: got.what.clone(),
            queue: &poll.queue,
            is_workflow: poll.is_workflow,
            since: got.scheduled,
            until: got.began,
            end: "was handed out",
            priority: got.priority.unwrap_or_else(|| of_run(evidence, &got.run)),
        });
    }
    waits
}

/// Whether the workflow task that was scheduled at a time was scheduled on another queue.
fn moved(evidence: &Evidence, run: &str, at: u64, queue: &str) -> bool {
    let events = evidence.runs.get(run).map_or(&[][..], |run| &run.events);
    events
        .iter()
        .filter(|event| event_time(event) == at)
        .any(|event| scheduled_on(event).is_some_and(|on| on.name != queue))
}

/// The queue of a workflow task that is scheduled.
fn scheduled_on(event: &HistoryEvent) -> Option<&TaskQueue> {
    match &event.attributes {
        Some(Event::WorkflowTaskScheduledEventAttributes(a)) => a.task_queue.as_ref(),
        _ => None,
    }
}

/// Workflow tasks that nobody was ever given: they timed out while they waited for their sticky
/// worker, or their run closed. Later attempts are not in history until they end.
fn workflow_tasks<'a>(run: &'a RunHistory, waits: &mut Vec<Wait<'a>>) {
    let mut waiting: Option<(&HistoryEvent, &TaskQueue)> = None;
    for event in &run.events {
        if let Some(queue) = scheduled_on(event) {
            waiting = Some((event, queue));
            continue;
        }
        let end = match &event.attributes {
            Some(Event::WorkflowTaskTimedOutEventAttributes(a)) => {
                let waited = a.timeout_type() == TimeoutType::ScheduleToStart;
                if waited { Some("timed out") } else { None }
            }
            Some(
                Event::WorkflowTaskStartedEventAttributes(_)
                | Event::WorkflowTaskFailedEventAttributes(_),
            ) => None,
            _ if closes(event) => Some("ended with its run"),
            _ => continue,
        };
        let Some((scheduled, queue)) = waiting.take() else { continue };
        // That it was moved to the usual queue is not in history.
        let stayed = end == Some("timed out") || queue.kind() != TaskQueueKind::Sticky;
        if let Some(end) = end.filter(|_| stayed) {
            waits.push(Wait {
                id: &run.id,
                run: &run.run,
                what: format!("workflow task {}", scheduled.event_id),
                queue: &queue.name,
                is_workflow: true,
                since: event_time(scheduled),
                until: event_time(event),
                end,
                priority: priority_of(run),
            });
        }
    }
}

/// Activities whose first attempt nobody was given before it timed out. (Of one that ends with its
/// run, or is cancelled, history does not say whether somebody had it.)
fn activities<'a>(run: &'a RunHistory, evidence: &Evidence, waits: &mut Vec<Wait<'a>>) {
    for event in &run.events {
        let Some(Event::ActivityTaskTimedOutEventAttributes(a)) = &event.attributes else {
            continue;
        };
        let Some(scheduled) = run.event(a.scheduled_event_id) else { continue };
        let Some(Event::ActivityTaskScheduledEventAttributes(of)) = &scheduled.attributes else {
            continue;
        };
        let Some(queue) = &of.task_queue else { continue };
        let failure = a.failure.as_ref().and_then(|failure| failure.decode().ok()?.failure_info);
        let waited = matches!(
            &failure,
            Some(FailureInfo::TimeoutFailureInfo(info))
                if info.timeout_type() == TimeoutType::ScheduleToStart
        );
        let (since, until) = (event_time(scheduled), event_time(event));
        let due = since.saturating_add(nanos(of.schedule_to_start_timeout.as_ref()));
        if !waited || until > due.saturating_add(FIRST) || was_given(evidence, run, &of.activity_id)
        {
            continue;
        }
        waits.push(Wait {
            id: &run.id,
            run: &run.run,
            what: format!("activity {}", of.activity_id),
            queue: &queue.name,
            is_workflow: false,
            since,
            until,
            end: "timed out",
            priority: match &of.priority {
                Some(own) if own.priority_key > 0 => priority_level(Some(own)),
                _ => priority_of(run),
            },
        });
    }
}

/// The priority of a run's workflow tasks, and of its activities that have none of their own.
fn priority_of(run: &RunHistory) -> u8 {
    match run.events.first().and_then(|event| event.attributes.as_ref()) {
        Some(Event::WorkflowExecutionStartedEventAttributes(a)) => {
            priority_level(a.priority.as_ref())
        }
        _ => priority_level(None),
    }
}

fn of_run(evidence: &Evidence, run: &str) -> u8 {
    evidence.runs.get(run).map_or_else(|| priority_level(None), priority_of)
}

/// Whether somebody had an attempt of an activity.
fn was_given(evidence: &Evidence, run: &RunHistory, activity: &str) -> bool {
    evidence.operations.iter().any(|operation| {
        let attempt = operation.asked.attempt.as_ref();
        operation.asked.run == run.run && attempt.is_some_and(|(id, _)| id == activity)
    })
}

#[cfg(test)]
mod tests {
    use super::super::NodeRows;
    use super::super::testing::{World, fires, quiet};
    use super::*;
    use crate::record::{Got, Outcome};

    const EPOCH: u64 = 1_000_000_000_000;

    fn ms(ms: u64) -> Moment {
        Moment { step: ms, at: ms * 1_000_000 }
    }

    fn stamp(ms: u64) -> u64 {
        EPOCH + ms * 1_000_000
    }

    /// Two nodes; the faults ended at the beginning, so the bounds hold from 15 s on.
    fn world() -> World {
        let mut world = World::default();
        world.calm();
        world.evidence.epoch = EPOCH;
        world.evidence.nodes = [1, 2].map(|node| NodeRows { node, ..NodeRows::default() }).into();
        world
    }

    /// A poll of activities, and when what it got was scheduled.
    fn poll(world: &mut World, node: u64, from: u64, to: u64, scheduled: Option<u64>) {
        let got = scheduled.map(|at| Got {
            id: "w".to_owned(),
            run: "r1".to_owned(),
            what: format!("attempt of {at}"),
            scheduled: stamp(at),
            began: stamp(to),
            priority: Some(3),
        });
        world.evidence.polls.push(Poll {
            who: "w1".into(),
            node,
            queue: "q".to_owned(),
            is_workflow: false,
            rate: None,
            invoked: ms(from),
            returned: ms(to),
            got,
        });
    }

    #[test]
    fn a_task_that_waits_beside_a_poll_is_found() {
        let mut prompt = world();
        poll(&mut prompt, 1, 20_000, 30_000, Some(29_900));
        poll(&mut prompt, 2, 20_000, 40_000, None);
        quiet(check, &prompt);

        let mut late = world();
        poll(&mut late, 1, 20_000, 30_000, Some(25_900));
        quiet(check, &late);
        poll(&mut late, 2, 20_000, 40_000, None);
        let text = "attempt of 25900 of run r1 waited in queue q from 25.900 s to 30.000 s, when \
                    it was handed out: w1 polled node 1 from 20.000 s to 30.000 s; w1 polled node 2";
        fires(check, &late, text);

        // Nobody was free for long enough.
        let mut busy = world();
        poll(&mut busy, 1, 28_000, 30_000, Some(20_000));
        poll(&mut busy, 2, 20_000, 40_000, None);
        quiet(check, &busy);
    }

    #[test]
    fn a_task_that_younger_ones_pass_is_found() {
        let mut passed = world();
        poll(&mut passed, 2, 20_000, 40_000, None);
        poll(&mut passed, 1, 29_000, 30_000, Some(20_000));
        poll(&mut passed, 1, 26_000, 27_000, Some(24_900));
        quiet(check, &passed);
        poll(&mut passed, 1, 27_000, 28_000, Some(25_100));
        fires(check, &passed, "node 1 gave attempt of 25100 of run r1, scheduled at 25.100 s");
    }

    #[test]
    fn a_task_that_is_renewed_as_it_goes_out_passes_nobody() {
        let mut renewed = world();
        poll(&mut renewed, 2, 20_000, 40_000, None);
        poll(&mut renewed, 1, 29_000, 30_000, Some(20_000));
        poll(&mut renewed, 1, 27_000, 28_000, Some(28_000));
        quiet(check, &renewed);
    }

    #[test]
    fn where_all_is_slow_tasks_may_wait_longer() {
        let mut slow = world();
        poll(&mut slow, 1, 20_000, 30_000, Some(24_000));
        poll(&mut slow, 2, 20_000, 40_000, None);
        fires(check, &slow, "attempt of 24000");
        slow.ok(Kind::Signal, "w", "g1");
        if let Some(call) = slow.evidence.operations.last_mut() {
            (call.invoked, call.returned) = (ms(26_000), ms(29_000));
            call.outcome = Outcome::Unknown;
        }
        quiet(check, &slow);
        // One that is never answered counts for as long as the task waited.
        if let Some(call) = slow.evidence.operations.last_mut() {
            (call.invoked, call.returned) = (ms(29_000), Moment::NEVER);
            call.outcome = Outcome::Open;
        }
        fires(check, &slow, "attempt of 24000");
        if let Some(call) = slow.evidence.operations.last_mut() {
            call.invoked = ms(26_000);
        }
        quiet(check, &slow);
    }

    #[test]
    fn nothing_is_said_of_the_time_with_faults() {
        let mut early = world();
        poll(&mut early, 1, 5_000, 17_000, Some(6_000));
        poll(&mut early, 2, 5_000, 17_000, None);
        quiet(check, &early);
    }

    #[test]
    fn a_workflow_task_that_nobody_was_given_is_found() {
        let world = |sticky| {
            let mut world = world();
            let run = world.run("w", "r1").started("s1").queued("q", sticky).terminated("x");
            run.set_time(2, 1_020_000).set_time(3, 1_030_000);
            for node in [1, 2] {
                poll(&mut world, node, 19_000, 35_000, None);
            }
            world.evidence.polls.iter_mut().for_each(|poll| poll.is_workflow = true);
            world
        };
        fires(check, &world(false), "workflow task 2 of run r1 waited in queue q from 20.000 s");
        quiet(check, &world(true));
    }

    #[test]
    fn an_activity_that_timed_out_before_its_start_is_found() {
        let mut world = world();
        let run = world.run("w", "r1").started("s1").job_expired("a0.0", "q", 6_000);
        run.set_time(2, 1_020_000).set_time(3, 1_026_000);
        for node in [1, 2] {
            poll(&mut world, node, 19_000, 35_000, None);
        }
        fires(check, &world, "activity a0.0 of run r1 waited in queue q from 20.000 s to 26.000 s");
        let mut had = world.clone();
        had.attempt("w", "r1", "a0.0", 1, 0);
        quiet(check, &had);
    }

    #[test]
    fn a_task_that_moved_from_a_sticky_queue_is_not_judged() {
        let mut world = world();
        world.run("w", "r1").started("s1").queued("sticky", true).set_time(2, 1_025_000);
        poll(&mut world, 1, 20_000, 31_000, Some(25_000));
        poll(&mut world, 2, 20_000, 40_000, None);
        fires(check, &world, "attempt of 25000");
        world.evidence.polls.iter_mut().for_each(|poll| poll.is_workflow = true);
        quiet(check, &world);
    }
}
