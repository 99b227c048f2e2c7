//! What may change an execution, and what comes back.

use holdfast_proto::common::WorkflowExecution;
use holdfast_proto::enums::{TaskQueueKind, WorkflowExecutionStatus, WorkflowTaskFailedCause};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::workflowservice as rpc;

use crate::ids::{EventId, Hlc, RunId, Uuid};
use crate::live::Overlay;
use crate::reject::Rejection;
use crate::token::TaskToken;

/// Anything that may change an execution, or must be ordered with what does. Requests have passed
/// [`crate::validate`] at the door.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// StartWorkflowExecution.
    Start(Box<rpc::StartWorkflowExecutionRequest>),
    /// SignalWithStartWorkflowExecution.
    SignalWithStart(Box<rpc::SignalWithStartWorkflowExecutionRequest>),
    /// SignalWorkflowExecution.
    Signal(Box<rpc::SignalWorkflowExecutionRequest>),
    /// RequestCancelWorkflowExecution.
    RequestCancel(Box<rpc::RequestCancelWorkflowExecutionRequest>),
    /// TerminateWorkflowExecution.
    Terminate(Box<rpc::TerminateWorkflowExecutionRequest>),
    /// DescribeWorkflowExecution.
    Describe {
        /// The run, or the current one.
        run: Option<RunId>,
    },
    /// What a history read must know before it reads rows.
    History {
        /// The run, or the current one.
        run: Option<RunId>,
        /// What will be shown of it.
        of: HistoryOf,
    },
    /// Hands the scheduled workflow task to a poller, if it is still that task.
    GrantWorkflowTask {
        /// The run.
        run: RunId,
        /// The scheduled event.
        scheduled: EventId,
        /// The stamp of the backlog row.
        stamp: u32,
        /// Who gets it.
        poller: Poller,
    },
    /// Hands an activity attempt to a poller, if it is still that attempt.
    GrantActivity {
        /// The run.
        run: RunId,
        /// The event that scheduled the activity.
        scheduled: EventId,
        /// The stamp of the backlog row.
        stamp: u32,
        /// Who gets it.
        poller: Poller,
    },
    /// Takes a grant back whose poller went away before it was handed over. Possible only while
    /// the start is not durable; afterwards nothing happens and the task times out.
    Revoke {
        /// The run.
        run: RunId,
        /// The start id of the grant.
        start_id: Uuid,
    },
    /// Makes the grants of a run durable.
    FlushStarts {
        /// The run.
        run: RunId,
    },
    /// RespondWorkflowTaskCompleted.
    WorkflowTaskCompleted {
        /// The opened token.
        token: TaskToken,
        /// The request.
        request: Box<rpc::RespondWorkflowTaskCompletedRequest>,
    },
    /// The second half of a refused completion: its draft was discarded, this writes the failure.
    WorkflowTaskRefused {
        /// The opened token.
        token: TaskToken,
        /// Who answered.
        identity: String,
        /// Why it was refused.
        refusal: Box<Refusal>,
        /// What the leader knew when the completion arrived: the discarded draft took it along, and
        /// without it starts of the last 20 ms would be handed out again.
        overlay: Box<Overlay>,
    },
    /// The second half of a decision that would have taken the state of a run over its limit: its
    /// draft was discarded, this ends the run.
    Overgrown {
        /// The run.
        run: RunId,
    },
    /// RespondWorkflowTaskFailed.
    WorkflowTaskFailed {
        /// The opened token.
        token: TaskToken,
        /// The request.
        request: Box<rpc::RespondWorkflowTaskFailedRequest>,
    },
    /// RespondActivityTaskCompleted and its ById form.
    ActivityCompleted {
        /// Which activity.
        who: ActivityRef,
        /// The request; ById requests are brought into this form.
        request: Box<rpc::RespondActivityTaskCompletedRequest>,
    },
    /// RespondActivityTaskFailed and its ById form.
    ActivityFailed {
        /// Which activity.
        who: ActivityRef,
        /// The request.
        request: Box<rpc::RespondActivityTaskFailedRequest>,
    },
    /// RespondActivityTaskCanceled and its ById form.
    ActivityCanceled {
        /// Which activity.
        who: ActivityRef,
        /// The request.
        request: Box<rpc::RespondActivityTaskCanceledRequest>,
    },
    /// RecordActivityTaskHeartbeat and its ById form.
    Heartbeat {
        /// Which activity.
        who: ActivityRef,
        /// The request.
        request: Box<rpc::RecordActivityTaskHeartbeatRequest>,
    },
    /// ResetStickyTaskQueue.
    ResetSticky {
        /// The run, or the current one.
        run: Option<RunId>,
    },
    /// The sticky worker of a waiting workflow task is gone: offer the task on the normal queue.
    StickyUnavailable {
        /// The run.
        run: RunId,
        /// The scheduled event.
        scheduled: EventId,
        /// The stamp of the backlog row.
        stamp: u32,
    },
    /// The deadline row of a run is due.
    Due {
        /// The run.
        run: RunId,
    },
    /// Retention is over, or DeleteWorkflowExecution: the run leaves.
    Delete {
        /// The run.
        run: RunId,
    },
}

/// How an input names its run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// This run.
    Run(RunId),
    /// The current run of the id, if there is one.
    Current,
}

/// Who polls a task queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poller {
    /// The worker's identity.
    pub identity: String,
    /// The queue it polled: sticky or normal.
    pub queue: String,
    /// The kind of that queue.
    pub kind: TaskQueueKind,
    /// The random id of the start that a grant to it begins.
    pub start_id: Uuid,
    /// The build of the worker, if it tells; STARTED names it.
    pub build_id: String,
}

/// How a worker names an activity.
#[derive(Clone, PartialEq, Debug)]
pub enum ActivityRef {
    /// By its task token.
    Token(TaskToken),
    /// By id, for completion from elsewhere.
    ById {
        /// The run, or the current one.
        run: Option<RunId>,
        /// The activity id.
        activity_id: String,
    },
}

/// Why a completion of a workflow task was refused.
#[derive(Clone, PartialEq, Debug)]
pub struct Refusal {
    /// The cause that goes into WORKFLOW_TASK_FAILED.
    pub cause: WorkflowTaskFailedCause,
    /// The message, without the cause in front.
    pub message: String,
    /// When set, the workflow is terminated with this reason instead (command payload too large).
    pub terminate: Option<String>,
    /// What the caller is told.
    pub answer: Box<Rejection>,
}

impl Refusal {
    /// A bad command: the workflow task fails with `cause`, and its history and the caller read
    /// `<cause>: <message>`, or the cause alone when there is no message.
    pub fn bad(cause: WorkflowTaskFailedCause, message: impl Into<String>) -> Refusal {
        let message = message.into();
        let answer = Box::new(Rejection::invalid(Refusal::text(cause, &message)));
        Refusal { cause, message, terminate: None, answer }
    }

    /// A payload of a command is too large: the task fails and the run is terminated.
    pub fn too_large(cause: WorkflowTaskFailedCause, message: impl Into<String>) -> Refusal {
        let refusal = Refusal::bad(cause, message);
        Refusal { terminate: Some(refusal.answer.message.clone()), ..refusal }
    }

    /// Cause and message as Temporal joins them.
    pub fn text(cause: WorkflowTaskFailedCause, message: &str) -> String {
        match message {
            "" => format!("{cause:?}"),
            message => format!("{cause:?}: {message}"),
        }
    }
}

/// What a decision answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// Nothing to say beside "done".
    Done,
    /// A start or signal-with-start.
    Started(Box<Started>),
    /// A signal; the id of the request for the link.
    Signaled(Box<WorkflowExecution>),
    /// A describe.
    Described(Box<rpc::DescribeWorkflowExecutionResponse>),
    /// What a history read may serve.
    History(Box<HistoryView>),
    /// A workflow task for a poller, also inline in a completion.
    WorkflowTask(Box<WorkflowTaskGrant>),
    /// An activity task for a poller.
    ActivityTask(Box<ActivityGrant>),
    /// A completion: the next workflow task, and activities started eagerly.
    Completed {
        /// The next workflow task, when it was asked for and there is one.
        next: Option<Box<WorkflowTaskGrant>>,
        /// Eagerly started activities.
        activities: Vec<ActivityGrant>,
    },
    /// A heartbeat.
    Heartbeat {
        /// The workflow asked for cancellation.
        cancel_requested: bool,
    },
    /// The task offered is not there any more: drop the row from the offer and go on.
    Gone,
}

/// How a decision ends without changes that count.
#[derive(Clone, PartialEq, Debug)]
pub enum Halt {
    /// The caller is refused; what was pushed (nothing, grants made durable, the end of a workflow
    /// task) stands and is written.
    Rejected(Rejection),
    /// The draft is discarded whole: drop the execution from the cache, load it again, and decide
    /// this input instead.
    Discard(Box<Input>),
}

impl From<Rejection> for Halt {
    fn from(rejection: Rejection) -> Halt {
        Halt::Rejected(rejection)
    }
}

/// The answer to a start.
#[derive(Clone, PartialEq, Debug)]
pub struct Started {
    /// The run that the id now stands for.
    pub run: RunId,
    /// The first run of its chain.
    pub first_run: RunId,
    /// Whether this request created it.
    pub started: bool,
    /// Its status.
    pub status: WorkflowExecutionStatus,
    /// The request id was attached to a run that existed: the link names the request id and
    /// WORKFLOW_EXECUTION_OPTIONS_UPDATED instead of the first event.
    pub attached: bool,
    /// The first workflow task, when eager execution was asked for and given.
    pub eager: Option<Box<WorkflowTaskGrant>>,
}

/// What a history read shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryOf {
    /// Events of a run, open or closed.
    Events,
    /// Nothing before the run is closed.
    Close,
}

/// What a reader of history may see.
#[derive(Clone, PartialEq, Debug)]
pub struct HistoryView {
    /// The run.
    pub run: RunId,
    /// One more than the last event.
    pub next_event: EventId,
    /// An event of the last batch written; batches are found by seeking back from it.
    pub last_batch: EventId,
    /// Whether the run is closed: its last event is the close event.
    pub closed: bool,
    /// SCHEDULED and STARTED of an attempt above 1; shown to SDK clients only.
    pub transient: Vec<HistoryEvent>,
}

/// A workflow task on its way to a worker. The shell reads the events from the history rows.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkflowTaskGrant {
    /// The token's body.
    pub token: TaskToken,
    /// The workflow type.
    pub workflow_type: String,
    /// The last STARTED event that was completed before; 0 when none was.
    pub previous_started: EventId,
    /// First event the worker needs: 1, or one after `previous_started` for a sticky worker.
    pub first_event: EventId,
    /// One more than the last event to be read from rows.
    pub next_event: EventId,
    /// Events after those: what is not written (yet), ending with STARTED.
    pub tail: Vec<HistoryEvent>,
    /// The normal task queue of the workflow.
    pub task_queue: String,
    /// When it was scheduled.
    pub scheduled_at: Hlc,
}

/// An activity task on its way to a worker. The shell reads input and header from the event that
/// scheduled it (A17).
#[derive(Clone, PartialEq, Debug)]
pub struct ActivityGrant {
    /// The token's body.
    pub token: TaskToken,
    /// Everything of the response but namespace name, token, header and input.
    pub response: Box<rpc::PollActivityTaskQueueResponse>,
    /// The event that holds header and input.
    pub scheduled: EventId,
}
