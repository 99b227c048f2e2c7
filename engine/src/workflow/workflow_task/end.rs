//! The ways a workflow task ends without a result: it fails, times out, or stands in the way.

use holdfast_proto::enums::{TimeoutType, WorkflowTaskFailedCause};
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{
    WorkflowTaskFailedEventAttributes, WorkflowTaskTimedOutEventAttributes,
};
use prost::Message;

use super::grant::waits;
use super::{
    Problem, SERVER_IDENTITY, StickySet, TaskUnstarted, schedule, schedule_now, task_deadline,
};
use crate::change::Change;
use crate::env::Env;
use crate::ids::{EventId, Hlc};
use crate::input::{Halt, Reply};
use crate::live::{Draft, Live};
use crate::workflow::{already_completed, make_starts_durable};

/// Ends the task in progress as failed and gives the attempt that follows. Only the first
/// attempt leaves an event. A sticky one is not counted: its successor goes to any worker.
pub fn fail(
    run: &mut Live,
    mut attributes: WorkflowTaskFailedEventAttributes,
    env: &Env<'_>,
) -> u32 {
    let Some(task) = run.state.workflow_task.clone() else { return 1 };
    let next = if run.state.sticky.is_some() { 1 } else { task.attempt + 1 };
    if task.attempt > 1 {
        let problem = Problem { cause: attributes.cause, timeout: 0 };
        run.push(Change::TaskUnstarted(TaskUnstarted { moved: false, problem: Some(problem) }));
    } else {
        attributes.scheduled_event_id = task.scheduled;
        attributes.started_event_id = task.started;
        run.event(env, Attributes::WorkflowTaskFailedEventAttributes(Box::new(attributes)));
    }
    next
}

/// Fails the task in progress, if there is one, because the server needs it out of the way.
pub fn force_out(run: &mut Live, env: &Env<'_>) -> u32 {
    if run.state.workflow_task.as_ref().is_none_or(|task| task.started == 0) {
        return 1;
    }
    let attributes = WorkflowTaskFailedEventAttributes {
        cause: WorkflowTaskFailedCause::ForceCloseCommand as i32,
        identity: SERVER_IDENTITY.to_owned(),
        ..WorkflowTaskFailedEventAttributes::default()
    };
    fail(run, attributes, env)
}

/// What follows a task that ended badly: what waited is written, and the next attempt scheduled.
/// After news it is a first attempt again, with events of its own.
pub fn retry(run: &mut Live, env: &Env<'_>, attempt: u32) {
    let attempt = if run.flush_buffer(env) > 0 { 1 } else { attempt };
    schedule(run, env, attempt);
}

/// Ends the task as timed out and schedules the next.
pub fn time_out(run: &mut Live, env: &Env<'_>, timeout: TimeoutType) {
    let Some(task) = run.state.workflow_task.clone() else { return };
    let counted = timeout == TimeoutType::StartToClose && run.state.sticky.is_none();
    let next = if counted { task.attempt + 1 } else { 1 };
    if task.attempt > 1 {
        let problem = Problem { cause: 0, timeout: timeout as i32 };
        run.push(Change::TaskUnstarted(TaskUnstarted { moved: false, problem: Some(problem) }));
    } else {
        run.event(
            env,
            Attributes::WorkflowTaskTimedOutEventAttributes(Box::new(
                WorkflowTaskTimedOutEventAttributes {
                    scheduled_event_id: task.scheduled,
                    started_event_id: task.started,
                    timeout_type: timeout as i32,
                },
            )),
        );
    }
    retry(run, env, next);
}

/// The end of a start delay, and timeouts of the task, that are due until then.
pub fn due(run: &mut Live, env: &Env<'_>, until: Hlc) {
    let first = run.state.first_task_at;
    if first != 0 && Hlc(first) <= until {
        schedule_now(run, env);
    }
    match &run.state.workflow_task {
        Some(task) if task_deadline(task).is_some_and(|at| at <= until) => {
            let started = task.started != 0;
            time_out(
                run,
                env,
                if started { TimeoutType::StartToClose } else { TimeoutType::ScheduleToStart },
            );
        }
        _ => {}
    }
}

/// Too much waits for a workflow task to end: it ends now.
pub fn enforce_buffer_limits(run: &mut Live, env: &Env<'_>) {
    let buffered = &run.state.buffered;
    let bytes = || buffered.iter().map(Message::encoded_len).sum::<usize>();
    if buffered.len() <= env.limits.buffered_events && bytes() <= env.limits.buffered_bytes {
        return;
    }
    end_for_the_buffer(run, env);
}

/// What is larger than the whole buffer would end the task in progress at once: it ends before,
/// so that the event is not logged twice.
pub fn make_room(run: &mut Live, env: &Env<'_>, bytes: usize) {
    if bytes > env.limits.buffered_bytes && run.task_in_progress() {
        end_for_the_buffer(run, env);
    }
}

fn end_for_the_buffer(run: &mut Live, env: &Env<'_>) {
    let next = force_out(run, env);
    run.flush_buffer(env);
    schedule(run, env, next);
}

/// ResetStickyTaskQueue.
pub fn reset_sticky(run: &mut Live) -> Result<Reply, Halt> {
    if !run.state.is_open() {
        return Err(already_completed().into());
    }
    if run.state.sticky.is_some() {
        run.push(Change::StickySet(StickySet::default()));
    }
    Ok(Reply::Done)
}

/// The worker with the cache is gone: the waiting task moves to the normal queue. The run stays
/// sticky until another worker starts the task.
pub fn sticky_unavailable(
    draft: &mut Draft,
    scheduled: EventId,
    stamp: u32,
    env: &Env<'_>,
) -> Reply {
    let Some(run) = draft.target() else { return Reply::Gone };
    let sticky = run.state.workflow_task.as_ref().is_some_and(|task| task.sticky);
    if !sticky || !waits(run, scheduled, stamp) {
        return Reply::Gone;
    }
    make_starts_durable(run, env);
    run.push(Change::TaskUnstarted(TaskUnstarted { moved: true, problem: None }));
    Reply::Done
}
