//! What the front door refuses before it reaches an execution, with Temporal's codes and texts,
//! and what it fills in. Rules that need the state of a run are in the entities' files; deadlines
//! of polls, namespaces and tokens are the shell's.
//!
//! Fields that are not built yet are checked like the others, so that wrong ones get Temporal's
//! answer, and refused by name after that.

mod cron;
mod fields;
pub mod search_attributes;

#[cfg(test)]
mod tests;

use holdfast_proto::command::Command;
use holdfast_proto::common::{Memo, Payloads, WorkflowExecution};
use holdfast_proto::enums::{
    CommandType, WorkerVersioningMode, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use holdfast_proto::failure::Failure;
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use prost_types::Duration;

use crate::env::IdSource;
use crate::failure;
use crate::ids::{RunId, Uuid};
use crate::limits::Limits;
use crate::namespace::NamespaceView;
use crate::reject::Rejection;
use crate::retry;
use holdfast_proto::errordetails::NotFoundFailure;

pub use fields::{
    DEFAULT_PRIORITY, MAX_DURATION, capped, duration, is_null, links, priority, priority_level,
    task_queue,
};

/// The most executions on a page of a list.
pub const LIST_PAGE_MAX: usize = 1000;
/// The most transactions on a page of a history.
pub const HISTORY_PAGE_MAX: usize = 256;

/// What the door may know beside the request.
#[derive(Clone, Copy)]
pub struct Door<'a> {
    /// The namespace of the request.
    pub namespace: &'a NamespaceView,
    /// The limits.
    pub limits: &'a Limits,
    /// For request ids that the caller left out.
    pub ids: &'a IdSource,
}

/// The size that a page may have: what is asked for, within `most`.
pub fn page_size(asked: i32, most: usize) -> usize {
    usize::try_from(asked).ok().filter(|n| (1..=most).contains(n)).unwrap_or(most)
}

/// An execution that a request must name. Gives the run, or none for the current one.
pub fn execution(execution: Option<&WorkflowExecution>) -> Result<Option<RunId>, Rejection> {
    let Some(execution) = execution else {
        return Err(Rejection::invalid("Execution is not set on request."));
    };
    named_run(&execution.workflow_id, &execution.run_id)
}

fn named_run(workflow_id: &str, run_id: &str) -> Result<Option<RunId>, Rejection> {
    if workflow_id.is_empty() {
        return Err(Rejection::invalid("WorkflowId is not set on request."));
    }
    run(run_id)
}

fn run(text: &str) -> Result<Option<RunId>, Rejection> {
    match text {
        "" => Ok(None),
        text => match Uuid::parse(text) {
            Some(run) => Ok(Some(run)),
            None => Err(Rejection::invalid("Invalid RunId.")),
        },
    }
}

/// Describe, both histories and ResetStickyTaskQueue need nothing else.
pub fn describe(
    request: &rpc::DescribeWorkflowExecutionRequest,
) -> Result<Option<RunId>, Rejection> {
    execution(request.execution.as_ref())
}

/// GetWorkflowExecutionHistory.
pub fn history(
    request: &rpc::GetWorkflowExecutionHistoryRequest,
) -> Result<Option<RunId>, Rejection> {
    execution(request.execution.as_ref())
}

/// GetWorkflowExecutionHistoryReverse.
pub fn history_reverse(
    request: &rpc::GetWorkflowExecutionHistoryReverseRequest,
) -> Result<Option<RunId>, Rejection> {
    execution(request.execution.as_ref())
}

/// ResetStickyTaskQueue.
pub fn reset_sticky(
    request: &rpc::ResetStickyTaskQueueRequest,
) -> Result<Option<RunId>, Rejection> {
    execution(request.execution.as_ref())
}

/// An activity that a request names by id. Gives the run, or none for the current one. Without a
/// workflow id it would be a standalone activity, and there are none.
pub fn activity_by_id(
    workflow_id: &str,
    run_id: &str,
    activity_id: &str,
) -> Result<Option<RunId>, Rejection> {
    if activity_id.is_empty() {
        return Err(Rejection::invalid("ActivityId is not set on request."));
    }
    let run = run(run_id)?;
    if workflow_id.is_empty() {
        let message = format!("activity not found for ID: {activity_id}");
        return Err(Rejection::not_found(message).with(&NotFoundFailure::default()));
    }
    Ok(run)
}

/// Gives `reuse` and `conflict` their defaults, and the old TERMINATE_IF_RUNNING its new form.
fn policies(
    reuse: &mut i32,
    conflict: &mut i32,
    default: WorkflowIdConflictPolicy,
) -> Result<(), Rejection> {
    use WorkflowIdConflictPolicy::TerminateExisting;
    use WorkflowIdReusePolicy::{AllowDuplicate, RejectDuplicate, TerminateIfRunning, Unspecified};
    const NAME: &str = "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_";
    const UNSPECIFIED: i32 = WorkflowIdConflictPolicy::Unspecified as i32;
    if *reuse == TerminateIfRunning as i32 {
        if *conflict != UNSPECIFIED {
            return Err(Rejection::invalid(format!(
                "{NAME}TERMINATE_IF_RUNNING cannot be used together with a WorkflowIDConflictPolicy"
            )));
        }
        (*reuse, *conflict) = (AllowDuplicate as i32, TerminateExisting as i32);
    }
    if *reuse == RejectDuplicate as i32 && *conflict == TerminateExisting as i32 {
        return Err(Rejection::invalid(format!(
            "{NAME}REJECT_DUPLICATE cannot be used together with WorkflowIdConflictPolicy \
             WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING"
        )));
    }
    if *reuse == Unspecified as i32 {
        *reuse = AllowDuplicate as i32;
    }
    if *conflict == UNSPECIFIED {
        *conflict = default as i32;
    }
    Ok(())
}

/// Execution, run and task timeout depend on each other (golden timeouts_defaulted_and_capped).
fn run_timeouts(
    execution: &mut Option<Duration>,
    run: &mut Option<Duration>,
    task: &mut Option<Duration>,
    limits: &Limits,
) -> Result<(), Rejection> {
    let read = |name: &str, value: &Option<Duration>| {
        duration(value.as_ref()).map_err(|cause| {
            Rejection::invalid(format!("An invalid {name} is set on request. cause: {cause}"))
        })
    };
    let whole = read("WorkflowExecutionTimeoutSeconds", execution)?;
    let asked = read("WorkflowRunTimeoutSeconds", run)?;
    let of_task = read("WorkflowTaskTimeoutSeconds", task)?;
    // What was asked for stays as it was written where nothing has to change.
    let put = |slot: &mut Option<Duration>, old: u64, new: u64| {
        if old != new || duration(slot.as_ref()).is_ok_and(|_| old == MAX_DURATION) {
            *slot = Some(holdfast_proto::duration(new));
        }
    };
    put(execution, whole, whole);
    let of_run = if asked == 0 { whole } else { capped(asked, whole) };
    put(run, asked, of_run);
    let nanos = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let default = if of_task == 0 { nanos(limits.workflow_task_timeout) } else { of_task };
    let longest = nanos(limits.workflow_task_timeout_max);
    put(task, of_task, capped(capped(default, longest), of_run));
    Ok(())
}

/// The start delay, which excludes a cron schedule; then the schedule.
fn delay_and_cron(delay: Option<&Duration>, cron_schedule: &str) -> Result<(), Rejection> {
    let nanos = duration(delay).map_err(|cause| {
        let name = "WorkflowStartDelaySeconds";
        Rejection::invalid(format!("An invalid {name} is set on request. cause: {cause}"))
    })?;
    if nanos != 0 && !cron_schedule.is_empty() {
        let message = "CronSchedule and WorkflowStartDelay may not be used together.";
        return Err(Rejection::invalid(message));
    }
    if !cron_schedule.is_empty() && !cron::is_valid(cron_schedule) {
        return Err(Rejection::invalid("invalid CronSchedule."));
    }
    Ok(())
}

/// The names that are not built, if they are set.
fn unbuilt(fields: &[(&str, bool)]) -> Result<(), Rejection> {
    match fields.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(Rejection::unbuilt(name)),
        None => Ok(()),
    }
}

impl Door<'_> {
    fn too_long(&self, text: &str, name: &str) -> Result<(), Rejection> {
        if text.len() > self.limits.id_bytes {
            return Err(Rejection::invalid(format!("{name} length exceeds limit.")));
        }
        Ok(())
    }

    /// A workflow id that a start may use.
    fn workflow_id(&self, id: &str) -> Result<(), Rejection> {
        if id.is_empty() {
            return Err(Rejection::invalid("WorkflowId is not set on request."));
        }
        let (length, limit) = (id.len(), self.limits.id_bytes);
        if length > limit {
            return Err(Rejection::invalid(format!(
                "WorkflowId exceeds maximum allowed length ({length}/{limit})"
            )));
        }
        Ok(())
    }

    /// A request id: given one if there is none.
    fn request_id(&self, id: &mut String) -> Result<(), Rejection> {
        self.too_long(id, "RequestId")?;
        if id.is_empty() {
            *id = self.ids.uuid().to_string();
        }
        Ok(())
    }

    fn build_id(&self, build: &str) -> Result<(), Rejection> {
        if build.len() > self.limits.build_id_bytes {
            return Err(Rejection::invalid(
                "Build ID exceeds configured limit.workerBuildIdSize, use a shorter build ID.",
            ));
        }
        Ok(())
    }

    fn blob(&self, payloads: Option<&Payloads>) -> Result<(), Rejection> {
        if payloads.map_or(0, Message::encoded_len) > self.limits.blob_bytes {
            return Err(Rejection::invalid("Blob data size exceeds limit."));
        }
        Ok(())
    }

    /// The memo of a start: of a size that is taken, and without the fields that are nothing.
    fn memo(&self, slot: &mut Option<Memo>) -> Result<(), Rejection> {
        let Some(memo) = slot.as_ref() else { return Ok(()) };
        if memo.encoded_len() > self.limits.memo_bytes {
            return Err(Rejection::invalid("Memo size exceeds limit."));
        }
        // What cannot be decoded is refused elsewhere or shown as it came.
        let Ok(mut memo) = memo.decode() else { return Ok(()) };
        let fields = memo.fields.len();
        memo.fields.retain(|_, value| !is_null(value));
        if memo.fields.is_empty() {
            *slot = None;
        } else if memo.fields.len() < fields {
            *slot = Some(Memo::encode_from(&memo));
        }
        Ok(())
    }

    /// StartWorkflowExecution: checks it and fills in defaults.
    pub fn start(&self, r: &mut rpc::StartWorkflowExecutionRequest) -> Result<(), Rejection> {
        self.workflow_id(&r.workflow_id)?;
        if let Some(policy) = &mut r.retry_policy {
            retry::fill(policy);
            retry::check(policy)?;
        }
        delay_and_cron(r.workflow_start_delay.as_ref(), &r.cron_schedule)?;
        let workflow_type = r.workflow_type.as_ref().map_or("", |t| t.name.as_str());
        if workflow_type.is_empty() {
            return Err(Rejection::invalid("WorkflowType is not set on request."));
        }
        self.too_long(workflow_type, "WorkflowType")?;
        fields::start_queue(&mut r.task_queue, self.limits)?;
        run_timeouts(
            &mut r.workflow_execution_timeout,
            &mut r.workflow_run_timeout,
            &mut r.workflow_task_timeout,
            self.limits,
        )?;
        self.request_id(&mut r.request_id)?;
        let (reuse, conflict) =
            (&mut r.workflow_id_reuse_policy, &mut r.workflow_id_conflict_policy);
        policies(reuse, conflict, WorkflowIdConflictPolicy::Fail)?;
        if r.on_conflict_options
            .as_ref()
            .is_some_and(|o| o.attach_completion_callbacks && !o.attach_request_id)
        {
            let message = "attaching request ID is required for attaching completion callbacks";
            return Err(Rejection::invalid(message));
        }
        links(&r.links, self.limits)?;
        priority(r.priority.as_ref())?;
        self.blob(r.input.as_ref())?;
        self.memo(&mut r.memo)?;
        search_attributes::of_start(&mut r.search_attributes, self.namespace, self.limits)?;
        let versioned = r.eager_worker_deployment_options.as_ref().is_some_and(is_versioned);
        unbuilt(&[
            ("cron_schedule", !r.cron_schedule.is_empty()),
            ("retry_policy", r.retry_policy.is_some()),
            ("continued_failure", r.continued_failure.is_some()),
            ("last_completion_result", r.last_completion_result.is_some()),
            ("completion_callbacks", !r.completion_callbacks.is_empty()),
            ("versioning_override", r.versioning_override.is_some()),
            ("eager_worker_deployment_options", versioned),
            ("time_skipping_config", r.time_skipping_config.is_some()),
        ])
    }

    /// SignalWithStartWorkflowExecution: checks it and fills in defaults.
    pub fn signal_with_start(
        &self,
        r: &mut rpc::SignalWithStartWorkflowExecutionRequest,
    ) -> Result<(), Rejection> {
        self.workflow_id(&r.workflow_id)?;
        if r.signal_name.is_empty() {
            return Err(Rejection::invalid("signal not set"));
        }
        self.too_long(&r.signal_name, "SignalName")?;
        let workflow_type = r.workflow_type.as_ref().map_or("", |t| t.name.as_str());
        if workflow_type.is_empty() {
            return Err(Rejection::invalid("workflow type not set"));
        }
        self.too_long(workflow_type, "WorkflowType")?;
        fields::start_queue(&mut r.task_queue, self.limits)?;
        if let Some(policy) = &mut r.retry_policy {
            retry::fill(policy);
            retry::check(policy)?;
        }
        delay_and_cron(r.workflow_start_delay.as_ref(), &r.cron_schedule)?;
        run_timeouts(
            &mut r.workflow_execution_timeout,
            &mut r.workflow_run_timeout,
            &mut r.workflow_task_timeout,
            self.limits,
        )?;
        self.request_id(&mut r.request_id)?;
        if r.workflow_id_conflict_policy == WorkflowIdConflictPolicy::Fail as i32 {
            return Err(Rejection::invalid(
                "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not \
                 supported for this operation.",
            ));
        }
        let (reuse, conflict) =
            (&mut r.workflow_id_reuse_policy, &mut r.workflow_id_conflict_policy);
        policies(reuse, conflict, WorkflowIdConflictPolicy::UseExisting)?;
        links(&r.links, self.limits)?;
        priority(r.priority.as_ref())?;
        self.blob(r.input.as_ref())?;
        self.blob(r.signal_input.as_ref())?;
        self.memo(&mut r.memo)?;
        search_attributes::of_start(&mut r.search_attributes, self.namespace, self.limits)?;
        unbuilt(&[
            ("cron_schedule", !r.cron_schedule.is_empty()),
            ("retry_policy", r.retry_policy.is_some()),
            ("versioning_override", r.versioning_override.is_some()),
            ("time_skipping_config", r.time_skipping_config.is_some()),
        ])
    }

    /// SignalWorkflowExecution: checks it and gives it a request id.
    pub fn signal(&self, r: &mut rpc::SignalWorkflowExecutionRequest) -> Result<(), Rejection> {
        execution(r.workflow_execution.as_ref())?;
        if r.signal_name.is_empty() {
            return Err(Rejection::invalid("SignalName is not set on request."));
        }
        self.too_long(&r.signal_name, "SignalName")?;
        self.request_id(&mut r.request_id)?;
        links(&r.links, self.limits)?;
        self.blob(r.input.as_ref())
    }

    /// RequestCancelWorkflowExecution. The length of its request id is not checked, as in Temporal.
    pub fn request_cancel(
        &self,
        r: &rpc::RequestCancelWorkflowExecutionRequest,
    ) -> Result<(), Rejection> {
        execution(r.workflow_execution.as_ref())?;
        links(&r.links, self.limits)
    }

    /// TerminateWorkflowExecution: checks it and fills in reason and identity.
    pub fn terminate(
        &self,
        r: &mut rpc::TerminateWorkflowExecutionRequest,
    ) -> Result<(), Rejection> {
        execution(r.workflow_execution.as_ref())?;
        links(&r.links, self.limits)?;
        if r.reason.is_empty() {
            r.reason = "terminated by user via frontend".to_owned();
        }
        if r.identity.is_empty() {
            r.identity = "frontend-service".to_owned();
        }
        Ok(())
    }

    /// PollWorkflowTaskQueue.
    pub fn poll_workflow_task(
        &self,
        r: &rpc::PollWorkflowTaskQueueRequest,
    ) -> Result<(), Rejection> {
        self.too_long(&r.identity, "Identity")?;
        task_queue(r.task_queue.as_ref(), "taskQueue is not set", self.limits)?;
        self.build_id(r.worker_version_capabilities.as_ref().map_or("", |c| c.build_id.as_str()))?;
        let old = r.worker_version_capabilities.as_ref().is_some_and(|c| c.use_versioning);
        unbuilt(&[
            ("worker_version_capabilities", old),
            ("deployment_options", r.deployment_options.as_ref().is_some_and(is_versioned)),
        ])
    }

    /// PollActivityTaskQueue.
    pub fn poll_activity_task(
        &self,
        r: &rpc::PollActivityTaskQueueRequest,
    ) -> Result<(), Rejection> {
        self.too_long(&r.identity, "Identity")?;
        task_queue(r.task_queue.as_ref(), "taskQueue is not set", self.limits)?;
        self.build_id(r.worker_version_capabilities.as_ref().map_or("", |c| c.build_id.as_str()))?;
        let old = r.worker_version_capabilities.as_ref().is_some_and(|c| c.use_versioning);
        unbuilt(&[
            ("worker_version_capabilities", old),
            ("deployment_options", r.deployment_options.as_ref().is_some_and(is_versioned)),
        ])
    }

    /// RespondWorkflowTaskCompleted; its commands are checked one by one as they are carried out.
    pub fn workflow_task_completed(
        &self,
        r: &rpc::RespondWorkflowTaskCompletedRequest,
    ) -> Result<(), Rejection> {
        self.too_long(&r.identity, "Identity")?;
        self.build_id(r.worker_version_stamp.as_ref().map_or("", |v| v.build_id.as_str()))?;
        // The run keeps these, so they are names, of which Temporal sizes none.
        self.too_long(&r.binary_checksum, "BinaryChecksum")?;
        let deployment = r.deployment_options.as_ref().map_or("", |d| d.deployment_name.as_str());
        self.too_long(deployment, "Deployment name")?;
        let sticky = r.sticky_attributes.as_ref().and_then(|s| s.worker_task_queue.as_ref());
        self.too_long(sticky.map_or("", |queue| queue.name.as_str()), "Sticky task queue")?;
        // A message that a command carries out is told by the failure of that command. Go's workers
        // send a deployment without a series whether they are versioned or not.
        let carried = |c: &Command| c.command_type == CommandType::ProtocolMessage as i32;
        let messages = !r.messages.is_empty() && !r.commands.iter().any(carried);
        let series = r.deployment.as_ref().is_some_and(|d| !d.series_name.is_empty());
        unbuilt(&[
            ("messages", messages),
            ("deployment", series),
            ("deployment_options", r.deployment_options.as_ref().is_some_and(is_versioned)),
            ("page_number", r.page_number != 0),
            ("intermediate_page", r.intermediate_page),
            ("versioning_behavior", r.versioning_behavior != 0),
        ])
    }

    /// RespondWorkflowTaskFailed: checks it and cuts an oversized failure down.
    pub fn workflow_task_failed(
        &self,
        r: &mut rpc::RespondWorkflowTaskFailedRequest,
    ) -> Result<(), Rejection> {
        self.too_long(&r.identity, "Identity")?;
        self.cut(&mut r.failure);
        Ok(())
    }

    /// RespondActivityTaskCompleted and RespondActivityTaskCanceled; not a heartbeat, as in
    /// Temporal. A result or details that are too large are accepted here: they fail the activity.
    pub fn activity_identity(&self, identity: &str) -> Result<(), Rejection> {
        self.too_long(identity, "Identity")
    }

    /// RespondActivityTaskFailed: checks it and cuts down what is too large. Gives the failures
    /// that the response names for that.
    pub fn activity_failed(
        &self,
        r: &mut rpc::RespondActivityTaskFailedRequest,
    ) -> Result<Vec<Failure>, Rejection> {
        use holdfast_proto::decoded::failure::FailureInfo::ApplicationFailureInfo;
        self.too_long(&r.identity, "Identity")?;
        let info = r.failure.as_ref().and_then(|f| f.decode().ok()).map(|f| f.failure_info);
        if info.is_some_and(|info| !matches!(info, Some(ApplicationFailureInfo(_)))) {
            return Err(Rejection::invalid("Failure must have ApplicationFailureInfo."));
        }
        let mut told = Vec::new();
        if r.last_heartbeat_details.as_ref().map_or(0, Message::encoded_len)
            > self.limits.blob_bytes
        {
            told.push(failure::server("Heartbeat details exceed size limit.", true));
            r.last_heartbeat_details = None;
        }
        told.extend(self.cut(&mut r.failure));
        Ok(told)
    }

    /// Replaces a failure that is too large by a server failure around its beginning.
    fn cut(&self, slot: &mut Option<Failure>) -> Option<Failure> {
        let failure = slot.as_mut().filter(|f| f.encoded_len() > self.limits.blob_bytes)?;
        *failure = failure::too_large(failure, true, self.limits.blob_bytes_warn);
        Some(failure.clone())
    }
}

fn is_versioned(options: &holdfast_proto::deployment::WorkerDeploymentOptions) -> bool {
    options.worker_versioning_mode == WorkerVersioningMode::Versioned as i32
}
