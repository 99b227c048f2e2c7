//! Requests to cancel a run. What becomes of one is the workflow's own decision.
//!
//! `RequestCancel -> CANCEL_REQUESTED (buffered while a workflow task is in progress) -> SCHEDULED`

use holdfast_proto::history::WorkflowExecutionCancelRequestedEventAttributes;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::workflowservice::RequestCancelWorkflowExecutionRequest;

use crate::env::Env;
use crate::event::new_event;
use crate::input::{Halt, Reply, Target};
use crate::live::Draft;
use crate::workflow::close::check_chain;
use crate::workflow::workflow_task::schedule_now;
use crate::workflow::{State, make_starts_durable, run};

/// RequestCancelWorkflowExecution. A second request, and one to a closed run, change nothing.
/// It ends a start delay: the workflow may have nothing left to wait for.
pub fn request(
    draft: &mut Draft,
    at: Target,
    request: RequestCancelWorkflowExecutionRequest,
    env: &Env<'_>,
) -> Result<Reply, Halt> {
    check_chain(draft, at, &request.first_execution_run_id)?;
    let run = run(draft, at)?;
    if !run.state.is_open() || run.state.cancel_requested {
        return Ok(Reply::Done);
    }
    make_starts_durable(run, env);
    let attributes = WorkflowExecutionCancelRequestedEventAttributes {
        cause: request.reason,
        identity: request.identity,
        ..WorkflowExecutionCancelRequestedEventAttributes::default()
    };
    let attributes =
        Attributes::WorkflowExecutionCancelRequestedEventAttributes(Box::new(attributes));
    let mut event = new_event(env, env.now, attributes);
    event.links = request.links;
    run.happened(event);
    schedule_now(run, env);
    Ok(Reply::Done)
}

// Changes.

/// CANCEL_REQUESTED.
pub fn requested(state: &mut State) {
    state.cancel_requested = true;
}
