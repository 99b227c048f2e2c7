//! Refusals and defaults of requests, each after the golden of the same name.

use holdfast_proto::common::link::Variant;
use holdfast_proto::common::link::WorkflowEvent;
use holdfast_proto::common::{
    Link, Memo, Payload, Priority, RetryPolicy, SearchAttributes, WorkerVersionCapabilities,
    WorkerVersionStamp, WorkflowType,
};
use holdfast_proto::decoded;
use holdfast_proto::deployment::{Deployment, WorkerDeploymentOptions};
use holdfast_proto::enums::{
    TaskQueueKind, WorkflowIdConflictPolicy as Conflict, WorkflowIdReusePolicy as Reuse,
};
use holdfast_proto::taskqueue::{StickyExecutionAttributes, TaskQueue};
use holdfast_proto::workflow::OnConflictOptions;

use super::*;
use crate::reject::Code;
use crate::workflow::rig::{SECOND, payloads, seconds};

type Start = rpc::StartWorkflowExecutionRequest;

fn with_door<T>(test: impl FnOnce(Door<'_>) -> T) -> T {
    let namespace = NamespaceView {
        id: Uuid([1; 16]),
        name: "default".into(),
        state: holdfast_proto::enums::NamespaceState::Registered,
        retention: std::time::Duration::from_secs(86_400),
        search_attributes: crate::visibility::Kind::ALL
            .into_iter()
            .map(|kind| (format!("Custom{kind}Field"), kind.value_type()))
            .collect(),
    };
    test(Door { namespace: &namespace, limits: &Limits::default(), ids: &IdSource::new(7) })
}

fn good() -> Start {
    Start {
        workflow_id: "wf".into(),
        workflow_type: Some(WorkflowType { name: "type".into() }),
        task_queue: Some(TaskQueue { name: "queue".into(), ..TaskQueue::default() }),
        ..Start::default()
    }
}

fn checked(change: impl FnOnce(&mut Start)) -> Result<Start, Rejection> {
    let mut request = good();
    change(&mut request);
    with_door(|door| door.start(&mut request))?;
    Ok(request)
}

fn refused(change: impl FnOnce(&mut Start)) -> String {
    let rejection = checked(change).expect_err("refused");
    assert_eq!(rejection.code, Code::InvalidArgument, "{rejection:?}");
    rejection.message
}

fn attribute(name: &str, json: &str) -> Option<SearchAttributes> {
    Some(SearchAttributes { indexed_fields: [(name.to_owned(), Payload::json(json))].into() })
}

const NEGATIVE: Option<Duration> = Some(Duration { seconds: -1, nanos: 0 });

#[test]
fn start_invalid_arguments() {
    let long = "x".repeat(1001);
    let queue = |name: &str| Some(TaskQueue { name: name.into(), ..TaskQueue::default() });
    assert_eq!(refused(|r| r.workflow_id.clear()), "WorkflowId is not set on request.");
    assert_eq!(
        refused(|r| r.workflow_id = long.clone()),
        "WorkflowId exceeds maximum allowed length (1001/1000)"
    );
    assert_eq!(refused(|r| r.workflow_type = None), "WorkflowType is not set on request.");
    assert_eq!(
        refused(|r| r.workflow_type = Some(WorkflowType { name: long.clone() })),
        "WorkflowType length exceeds limit."
    );
    assert_eq!(refused(|r| r.task_queue = queue("")), "missing task queue name");
    assert_eq!(refused(|r| r.task_queue = None), "missing task queue name");
    assert_eq!(refused(|r| r.task_queue = queue(&long)), "taskQueue length exceeds limit");
    assert_eq!(
        refused(|r| r.task_queue = queue("/_sys/mine")),
        "task queue name cannot start with reserved prefix /_sys/"
    );
    assert_eq!(
        refused(|r| r.task_queue = queue("temporal-sys-per-ns-tq")),
        "cannot use internal per-namespace task queue:temporal-sys-per-ns-tq"
    );
    assert_eq!(refused(|r| r.request_id = long.clone()), "RequestId length exceeds limit.");
}

#[test]
fn start_invalid_times_and_values() {
    let negative =
        |name: &str| format!("An invalid {name} is set on request. cause: negative duration");
    assert_eq!(
        refused(|r| r.workflow_execution_timeout = NEGATIVE),
        negative("WorkflowExecutionTimeoutSeconds")
    );
    assert_eq!(
        refused(|r| r.workflow_run_timeout = NEGATIVE),
        negative("WorkflowRunTimeoutSeconds")
    );
    assert_eq!(
        refused(|r| r.workflow_task_timeout = NEGATIVE),
        negative("WorkflowTaskTimeoutSeconds")
    );
    assert_eq!(
        refused(|r| r.workflow_start_delay = NEGATIVE),
        negative("WorkflowStartDelaySeconds")
    );
    let both = |r: &mut Start| {
        r.workflow_start_delay = seconds(1);
        r.cron_schedule = "* * * * *".into();
    };
    assert_eq!(refused(both), "CronSchedule and WorkflowStartDelay may not be used together.");
    assert_eq!(refused(|r| r.cron_schedule = "nonsense".into()), "invalid CronSchedule.");
    assert_eq!(
        refused(|r| r.search_attributes = attribute("Unheard", "1")),
        "Namespace default has no mapping defined for search attribute Unheard"
    );
    assert_eq!(
        refused(|r| r.search_attributes = attribute("CustomIntField", "\"seven\"")),
        "invalid value for search attribute CustomIntField of type Int: seven"
    );
    assert_eq!(
        refused(|r| r.search_attributes = attribute("ExecutionStatus", "\"Running\"")),
        "ExecutionStatus attribute can't be set in SearchAttributes"
    );
    assert_eq!(
        refused(|r| r.priority = Some(Priority { priority_key: -1, ..Default::default() })),
        "priority key can't be negative"
    );
    assert_eq!(
        refused(
            |r| r.priority = Some(Priority { fairness_key: "k".repeat(65), ..Default::default() })
        ),
        "fairness key length exceeds limit"
    );
    let weight = |fairness_weight| Priority { fairness_weight, ..Priority::default() };
    assert_eq!(refused(|r| r.priority = Some(weight(-0.5))), "must be greater than zero");
    assert!(fields::priority(Some(&weight(f32::NAN))).is_ok(), "as in Temporal");
    let options = OnConflictOptions { attach_completion_callbacks: true, ..Default::default() };
    assert_eq!(
        refused(|r| r.on_conflict_options = Some(options)),
        "attaching request ID is required for attaching completion callbacks"
    );
    assert_eq!(
        refused(|r| r.retry_policy =
            Some(RetryPolicy { backoff_coefficient: 0.5, ..Default::default() })),
        "BackoffCoefficient cannot be less than 1 on retry policy."
    );
}

#[test]
fn policies_and_their_defaults() {
    let set = |reuse: Reuse, conflict: Conflict| {
        move |r: &mut Start| {
            r.workflow_id_reuse_policy = reuse as i32;
            r.workflow_id_conflict_policy = conflict as i32;
        }
    };
    assert_eq!(
        refused(set(Reuse::TerminateIfRunning, Conflict::Fail)),
        "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING cannot be used together with a WorkflowIDConflictPolicy"
    );
    assert_eq!(
        refused(set(Reuse::RejectDuplicate, Conflict::TerminateExisting)),
        "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE cannot be used together with WorkflowIdConflictPolicy WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING"
    );
    for (reuse, conflict, becomes) in [
        (Reuse::Unspecified, Conflict::Unspecified, (Reuse::AllowDuplicate, Conflict::Fail)),
        (
            Reuse::TerminateIfRunning,
            Conflict::Unspecified,
            (Reuse::AllowDuplicate, Conflict::TerminateExisting),
        ),
        (
            Reuse::RejectDuplicate,
            Conflict::UseExisting,
            (Reuse::RejectDuplicate, Conflict::UseExisting),
        ),
    ] {
        let request = checked(set(reuse, conflict)).expect("accepted");
        assert_eq!(
            (request.workflow_id_reuse_policy(), request.workflow_id_conflict_policy()),
            becomes
        );
    }
}

#[test]
fn timeouts_defaulted_and_capped() {
    let become_of = |execution: Option<Duration>, run: Option<Duration>, task: Option<Duration>| {
        let request = checked(|r| {
            r.workflow_execution_timeout = execution;
            r.workflow_run_timeout = run;
            r.workflow_task_timeout = task;
        });
        let r = request.expect("accepted");
        [r.workflow_execution_timeout, r.workflow_run_timeout, r.workflow_task_timeout]
    };
    let part = |nanos: u64| Some(holdfast_proto::duration(nanos));
    assert_eq!(become_of(seconds(100), None, None), [seconds(100), seconds(100), seconds(10)]);
    assert_eq!(become_of(None, seconds(50), None), [None, seconds(50), seconds(10)]);
    assert_eq!(
        become_of(seconds(100), seconds(500), None),
        [seconds(100), seconds(100), seconds(10)]
    );
    assert_eq!(become_of(None, None, seconds(500)), [None, None, seconds(120)]);
    assert_eq!(become_of(None, seconds(5), seconds(60)), [None, seconds(5), seconds(5)]);
    assert_eq!(become_of(None, seconds(4), None), [None, seconds(4), seconds(4)]);
    let fractions = [part(100 * SECOND + SECOND / 4), part(SECOND / 2), part(SECOND / 4)];
    assert_eq!(become_of(fractions[0], fractions[1], fractions[2]), fractions);
    let ages = Some(Duration { seconds: 1000 * 365 * 24 * 3600, nanos: 0 });
    assert_eq!(become_of(ages, None, None)[0], part(MAX_DURATION));
}

#[test]
fn defaults_of_a_start() {
    let request = checked(|_| ()).expect("accepted");
    assert!(Uuid::parse(&request.request_id).is_some());
    assert_eq!(request.task_queue.expect("set").kind(), TaskQueueKind::Normal);
    assert_eq!(checked(|r| r.request_id = "mine".into()).expect("accepted").request_id, "mine");
    // Null attributes are none; the others get their type.
    let none =
        checked(|r| r.search_attributes = attribute("CustomIntField", "null")).expect("accepted");
    assert_eq!(none.search_attributes, None);
    // And so are null fields of the memo; one that has no other is none.
    let memo = |fields: &[(&str, &str)]| {
        let fields = fields.iter().map(|(name, json)| ((*name).to_owned(), Payload::json(json)));
        Some(Memo::encode_from(&decoded::Memo { fields: fields.collect() }))
    };
    for (sent, kept) in [
        (memo(&[]), None),
        (memo(&[("a", "null")]), None),
        (memo(&[("a", "null"), ("b", "1")]), memo(&[("b", "1")])),
        (memo(&[("b", "1")]), memo(&[("b", "1")])),
    ] {
        assert_eq!(checked(|r| r.memo = sent).expect("accepted").memo, kept);
    }
    let typed =
        checked(|r| r.search_attributes = attribute("CustomIntField", "7")).expect("accepted");
    let fields = typed.search_attributes.expect("set").indexed_fields;
    assert_eq!(&fields["CustomIntField"].decode().expect("decodes").metadata["type"][..], b"Int");
    for name in ["BuildIds", "BinaryChecksums", "TemporalChangeVersion", "TemporalPauseInfo"] {
        checked(|r| r.search_attributes = attribute(name, "[\"x\"]")).expect("accepted");
    }
    for name in ["TemporalWorkerDeployment", "TemporalExternalPayloadCount", "RootRunId"] {
        let text = refused(|r| r.search_attributes = attribute(name, "1"));
        assert_eq!(text, format!("{name} attribute can't be set in SearchAttributes"));
    }
    assert_eq!(
        refused(|r| r.search_attributes = attribute("Keyword01", "\"x\"")),
        "Namespace default has no mapping defined for search attribute Keyword01"
    );
}

#[test]
fn input_too_large() {
    let big = format!("\"{}\"", "x".repeat((2 << 20) + 1));
    assert_eq!(refused(|r| r.input = Some(payloads(&big))), "Blob data size exceeds limit.");
    let memo =
        Memo::encode_from(&decoded::Memo { fields: [("big".into(), Payload::json(&big))].into() });
    assert_eq!(refused(|r| r.memo = Some(memo)), "Memo size exceeds limit.");
    let long = format!("\"{}\"", "x".repeat(3000));
    let text = "search attribute CustomKeywordField value size 3002 exceeds size limit 2048";
    assert_eq!(refused(|r| r.search_attributes = attribute("CustomKeywordField", &long)), text);
    let fits = format!("\"{}\"", "x".repeat((2 << 20) - 100));
    checked(|r| r.input = Some(payloads(&fits))).expect("accepted");
    let many = SearchAttributes {
        indexed_fields: (0..101).map(|n| (format!("A{n}"), Payload::json("1"))).collect(),
    };
    assert_eq!(
        refused(|r| r.search_attributes = Some(many)),
        "number of search attributes 101 exceeds limit 100"
    );
}

fn link(workflow_id: &str) -> Link {
    let run_id = "6b0b5a3c-1b4e-4f57-8ad5-0a8cd2b7a111".to_owned();
    let event = WorkflowEvent {
        namespace: "default".into(),
        workflow_id: workflow_id.into(),
        run_id,
        reference: None,
    };
    Link { variant: Some(Variant::WorkflowEvent(event)) }
}

#[test]
fn start_links() {
    checked(|r| r.links = vec![link("caller")]).expect("accepted");
    assert_eq!(
        refused(|r| r.links = vec![link("caller"); 11]),
        "cannot attach more than 10 links per request, got 11"
    );
    let large = link(&"x".repeat(4000));
    let size = large.encoded_len();
    assert_eq!(
        refused(|r| r.links = vec![large]),
        format!("link exceeds allowed size of 4000, got {size}")
    );
    assert_eq!(
        refused(|r| r.links = vec![link("")]),
        "workflow event link must not have an empty workflow ID field"
    );
}

#[test]
fn what_is_not_built_is_refused_by_name_after_the_checks() {
    let unbuilt = |change: fn(&mut Start)| checked(change).expect_err("refused");
    for (change, field) in [
        ((|r| r.cron_schedule = "@daily".into()) as fn(&mut Start), "cron_schedule"),
        (|r| r.retry_policy = Some(RetryPolicy::default()), "retry_policy"),
        (|r| r.completion_callbacks = vec![Default::default()], "completion_callbacks"),
        (|r| r.versioning_override = Some(Default::default()), "versioning_override"),
        (|r| r.time_skipping_config = Some(Default::default()), "time_skipping_config"),
    ] {
        assert_eq!(unbuilt(change), Rejection::unbuilt(field));
    }
}

#[test]
fn signal_and_signal_with_start() {
    let execution = |id: &str, run: &str| {
        Some(WorkflowExecution { workflow_id: id.into(), run_id: run.into() })
    };
    let signal = |change: &dyn Fn(&mut rpc::SignalWorkflowExecutionRequest)| {
        let mut request = rpc::SignalWorkflowExecutionRequest {
            workflow_execution: execution("wf", ""),
            signal_name: "s".into(),
            ..Default::default()
        };
        change(&mut request);
        with_door(|door| door.signal(&mut request)).map(|()| request).map_err(|r| r.message)
    };
    let long = "x".repeat(1001);
    // The identity of who starts or signals has no limit of its own, as in Temporal.
    checked(|r| r.identity.clone_from(&long)).expect("accepted");
    signal(&|r| r.identity.clone_from(&long)).expect("accepted");
    assert!(Uuid::parse(&signal(&|_| ()).expect("accepted").request_id).is_some());
    for (answer, text) in [
        (
            signal(&|r| r.workflow_execution = execution("", "")),
            "WorkflowId is not set on request.",
        ),
        (signal(&|r| r.workflow_execution = execution("wf", "not-a-uuid")), "Invalid RunId."),
        (signal(&|r| r.signal_name.clear()), "SignalName is not set on request."),
        (signal(&|r| r.signal_name = long.clone()), "SignalName length exceeds limit."),
        (signal(&|r| r.request_id = long.clone()), "RequestId length exceeds limit."),
        (
            signal(&|r| r.input = Some(payloads(&"7".repeat(2 << 20)))),
            "Blob data size exceeds limit.",
        ),
    ] {
        assert_eq!(answer, Err(text.to_owned()));
    }

    let with_start = |change: &dyn Fn(&mut rpc::SignalWithStartWorkflowExecutionRequest)| {
        let Start { workflow_id, workflow_type, task_queue, .. } = good();
        let mut request = rpc::SignalWithStartWorkflowExecutionRequest {
            workflow_id,
            workflow_type,
            task_queue,
            signal_name: "s".into(),
            ..Default::default()
        };
        change(&mut request);
        with_door(|door| door.signal_with_start(&mut request))
            .map(|()| request)
            .map_err(|r| r.message)
    };
    with_start(&|r| r.identity.clone_from(&long)).expect("accepted");
    assert_eq!(
        with_start(&|_| ()).expect("accepted").workflow_id_conflict_policy(),
        Conflict::UseExisting
    );
    for (answer, text) in [
        (with_start(&|r| r.signal_name.clear()), "signal not set"),
        (with_start(&|r| r.workflow_id.clear()), "WorkflowId is not set on request."),
        (with_start(&|r| r.workflow_type = None), "workflow type not set"),
        (with_start(&|r| r.task_queue = None), "missing task queue name"),
        (
            with_start(&|r| r.workflow_id_conflict_policy = Conflict::Fail as i32),
            "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not supported for this operation.",
        ),
    ] {
        assert_eq!(answer, Err(text.to_owned()));
    }
}

#[test]
fn executions_and_activities_that_requests_name() {
    let named = |id: &str, run: &str| {
        execution(Some(&WorkflowExecution { workflow_id: id.into(), run_id: run.into() }))
            .map_err(|r| r.message)
    };
    assert_eq!(named("", ""), Err("WorkflowId is not set on request.".to_owned()));
    assert_eq!(named("wf", "not-a-uuid"), Err("Invalid RunId.".to_owned()));
    assert_eq!(named("wf", ""), Ok(None));
    let run = "6b0b5a3c-1b4e-4f57-8ad5-0a8cd2b7a111";
    assert_eq!(named("wf", run), Ok(Uuid::parse(run)));
    assert_eq!(execution(None), Err(Rejection::invalid("Execution is not set on request.")));
    assert_eq!(
        activity_by_id("wf", "", ""),
        Err(Rejection::invalid("ActivityId is not set on request."))
    );
    let standalone = activity_by_id("", "", "a").expect_err("refused");
    assert_eq!(
        (standalone.code, standalone.message.as_str()),
        (Code::NotFound, "activity not found for ID: a")
    );
    assert!(standalone.detail.is_some());
    // Neither length is checked: goldens cancel/not_found and terminate/not_found.
    let long = "x".repeat(1001);
    let cancel = rpc::RequestCancelWorkflowExecutionRequest {
        workflow_execution: Some(WorkflowExecution {
            workflow_id: "wf".into(),
            run_id: String::new(),
        }),
        request_id: long.clone(),
        ..Default::default()
    };
    assert_eq!(with_door(|door| door.request_cancel(&cancel)), Ok(()));
    let mut terminate = rpc::TerminateWorkflowExecutionRequest {
        workflow_execution: cancel.workflow_execution.clone(),
        ..Default::default()
    };
    assert_eq!(with_door(|door| door.terminate(&mut terminate)), Ok(()));
    assert_eq!(
        (terminate.reason.as_str(), terminate.identity.as_str()),
        ("terminated by user via frontend", "frontend-service")
    );
}

#[test]
fn polls_and_answers() {
    let long = "x".repeat(1001);
    let poll = |name: &str, identity: &str| {
        let request = rpc::PollWorkflowTaskQueueRequest {
            task_queue: Some(TaskQueue { name: name.into(), ..TaskQueue::default() }),
            identity: identity.into(),
            ..Default::default()
        };
        with_door(|door| door.poll_workflow_task(&request)).map_err(|r| r.message)
    };
    assert_eq!(poll("q", "w"), Ok(()));
    assert_eq!(poll("", "w"), Err("taskQueue is not set".to_owned()));
    assert_eq!(poll("q", &long), Err("Identity length exceeds limit.".to_owned()));
    let empty = rpc::PollActivityTaskQueueRequest::default();
    assert_eq!(
        with_door(|door| door.poll_activity_task(&empty)),
        Err(Rejection::invalid("taskQueue is not set"))
    );

    // Golden activity/fail_with_wrong_failure and failure_too_large.
    let timeout =
        failure::timeout("x".into(), holdfast_proto::enums::TimeoutType::Heartbeat, None, None);
    let mut wrong =
        rpc::RespondActivityTaskFailedRequest { failure: Some(timeout), ..Default::default() };
    let text = with_door(|door| door.activity_failed(&mut wrong)).expect_err("refused").message;
    assert_eq!(text, "Failure must have ApplicationFailureInfo.");
    let info = decoded::failure::FailureInfo::ApplicationFailureInfo(Default::default());
    let of = |message: String| {
        Some(Failure::encode_from(&decoded::Failure {
            message,
            failure_info: Some(info.clone()),
            ..Default::default()
        }))
    };
    let mut large = rpc::RespondActivityTaskFailedRequest {
        failure: of("x".repeat((2 << 20) + 1)),
        last_heartbeat_details: Some(payloads(&"7".repeat(2 << 20))),
        ..Default::default()
    };
    let told = with_door(|door| door.activity_failed(&mut large)).expect("accepted");
    assert_eq!((told.len(), large.last_heartbeat_details), (2, None));
    assert_eq!(large.failure.as_ref(), told.get(1));
    assert_eq!(told[1].decode().expect("decodes").message, failure::TOO_LARGE);
    let mut small =
        rpc::RespondActivityTaskFailedRequest { failure: of("x".into()), ..Default::default() };
    assert_eq!(with_door(|door| door.activity_failed(&mut small)), Ok(Vec::new()));
    assert_eq!(small.failure, of("x".into()));
    let mut task = rpc::RespondWorkflowTaskFailedRequest {
        failure: of("x".repeat((2 << 20) + 1)),
        ..Default::default()
    };
    with_door(|door| door.workflow_task_failed(&mut task)).expect("accepted");
    assert!(task.failure.expect("kept").encoded_len() < 600 << 10);
}

/// A field that is not built, and what sets it.
type Unbuilt<'a, R> = (&'a str, &'a dyn Fn(&mut R));

/// What a request is told that asks for something that is not built.
fn named(field: &str) -> Option<(Code, String)> {
    Some((Code::Unimplemented, format!("{field} is not implemented")))
}

#[test]
fn starts_name_what_is_not_built() {
    type Sws = rpc::SignalWithStartWorkflowExecutionRequest;
    let told = |why: Rejection| (why.code, why.message);
    let start = |change: &dyn Fn(&mut Start)| checked(change).err().map(told);
    let with_signal = |change: &dyn Fn(&mut Sws)| {
        let Start { workflow_id, workflow_type, task_queue, .. } = good();
        let signal_name = "s".to_owned();
        let mut request =
            Sws { workflow_id, workflow_type, task_queue, signal_name, ..Sws::default() };
        change(&mut request);
        with_door(|door| door.signal_with_start(&mut request)).err().map(told)
    };
    let versioned = Some(WorkerDeploymentOptions {
        worker_versioning_mode: WorkerVersioningMode::Versioned.into(),
        ..WorkerDeploymentOptions::default()
    });
    let of_start: [Unbuilt<'_, Start>; 8] = [
        ("cron_schedule", &|r| r.cron_schedule = "* * * * *".to_owned()),
        ("retry_policy", &|r| r.retry_policy = Some(RetryPolicy::default())),
        ("continued_failure", &|r| r.continued_failure = Some(Default::default())),
        ("last_completion_result", &|r| r.last_completion_result = Some(Payloads::default())),
        ("completion_callbacks", &|r| r.completion_callbacks.push(Default::default())),
        ("versioning_override", &|r| r.versioning_override = Some(Default::default())),
        ("eager_worker_deployment_options", &|r| {
            r.eager_worker_deployment_options = versioned.clone();
        }),
        ("time_skipping_config", &|r| r.time_skipping_config = Some(Default::default())),
    ];
    for (name, change) in of_start {
        assert_eq!(start(change), named(name));
    }
    let of_signal: [Unbuilt<'_, Sws>; 4] = [
        ("cron_schedule", &|r| r.cron_schedule = "* * * * *".to_owned()),
        ("retry_policy", &|r| r.retry_policy = Some(RetryPolicy::default())),
        ("versioning_override", &|r| r.versioning_override = Some(Default::default())),
        ("time_skipping_config", &|r| r.time_skipping_config = Some(Default::default())),
    ];
    for (name, change) in of_signal {
        assert_eq!(with_signal(change), named(name));
    }
    assert_eq!((start(&|_| ()), with_signal(&|_| ())), (None, None));
}

#[test]
fn polls_name_what_is_not_built() {
    let queue = || Some(TaskQueue { name: "q".to_owned(), ..TaskQueue::default() });
    let old = WorkerVersionCapabilities { use_versioning: true, ..Default::default() };
    let versioned = WorkerDeploymentOptions {
        worker_versioning_mode: WorkerVersioningMode::Versioned.into(),
        ..WorkerDeploymentOptions::default()
    };
    for (name, capabilities, options) in [
        ("worker_version_capabilities", Some(old), None),
        ("deployment_options", None, Some(versioned)),
    ] {
        let workflow = rpc::PollWorkflowTaskQueueRequest {
            task_queue: queue(),
            worker_version_capabilities: capabilities.clone(),
            deployment_options: options.clone(),
            ..Default::default()
        };
        let activity = rpc::PollActivityTaskQueueRequest {
            task_queue: queue(),
            worker_version_capabilities: capabilities,
            deployment_options: options,
            ..Default::default()
        };
        let told = |why: Rejection| (why.code, why.message);
        let workflow = with_door(|door| door.poll_workflow_task(&workflow)).err().map(told);
        let activity = with_door(|door| door.poll_activity_task(&activity)).err().map(told);
        assert_eq!((workflow, activity), (named(name), named(name)));
    }
}

/// A field of a completed workflow task that is not built is named, also where an answer without
/// it would be carried out.
#[test]
fn a_completed_workflow_task_names_what_is_not_built() {
    type Request = rpc::RespondWorkflowTaskCompletedRequest;
    let told = |change: &dyn Fn(&mut Request)| {
        let mut request = Request::default();
        change(&mut request);
        let refused = with_door(|door| door.workflow_task_completed(&request)).err();
        refused.map(|why| (why.code, why.message))
    };
    let options = |mode: WorkerVersioningMode| {
        Some(WorkerDeploymentOptions {
            worker_versioning_mode: mode.into(),
            ..WorkerDeploymentOptions::default()
        })
    };
    let deployment = |series: &str| {
        Some(Deployment { series_name: series.to_owned(), build_id: "b".to_owned() })
    };
    let unbuilt: [Unbuilt<'_, Request>; 6] = [
        ("messages", &|r| r.messages.push(holdfast_proto::protocol::Message::default())),
        ("deployment", &|r| r.deployment = deployment("s")),
        ("deployment_options", &|r| {
            r.deployment_options = options(WorkerVersioningMode::Versioned)
        }),
        ("page_number", &|r| r.page_number = 1),
        ("intermediate_page", &|r| r.intermediate_page = true),
        ("versioning_behavior", &|r| r.versioning_behavior = 1),
    ];
    for (name, change) in unbuilt {
        assert_eq!(told(change), named(name));
    }
    let fine: [&dyn Fn(&mut Request); 3] = [
        // As every Go worker has it.
        &|r| r.deployment = deployment(""),
        &|r| r.deployment_options = options(WorkerVersioningMode::Unversioned),
        // The command fails the task with its name.
        &|r| {
            r.messages.push(holdfast_proto::protocol::Message::default());
            let command_type = CommandType::ProtocolMessage.into();
            r.commands.push(Command { command_type, ..Command::default() });
        },
    ];
    for change in fine {
        assert_eq!(told(change), None);
    }
}

#[test]
fn page_sizes_are_capped_silently() {
    assert_eq!(
        [-1, 0, 7, 1000, 1001].map(|n| page_size(n, LIST_PAGE_MAX)),
        [1000, 1000, 7, 1000, 1000]
    );
}

#[test]
fn what_a_run_keeps_of_a_completion_is_sized() {
    type Completion = rpc::RespondWorkflowTaskCompletedRequest;
    let check = |change: &dyn Fn(&mut Completion)| {
        let mut request = Completion::default();
        change(&mut request);
        with_door(|door| door.workflow_task_completed(&request)).map_err(|r| r.message)
    };
    let build = |bytes: usize| {
        let build_id = "b".repeat(bytes);
        move |r: &mut Completion| {
            let stamp = WorkerVersionStamp { build_id: build_id.clone(), use_versioning: false };
            r.worker_version_stamp = Some(stamp);
        }
    };
    let refused = |text: &str| Err(text.to_owned());
    assert_eq!(check(&build(255)), Ok(()));
    assert_eq!(
        check(&build(256)),
        refused("Build ID exceeds configured limit.workerBuildIdSize, use a shorter build ID.")
    );
    assert_eq!(check(&|r| r.binary_checksum = "c".repeat(1000)), Ok(()));
    assert_eq!(
        check(&|r| r.binary_checksum = "c".repeat(1001)),
        refused("BinaryChecksum length exceeds limit.")
    );
    let deployment = |bytes: usize| {
        move |r: &mut Completion| {
            let deployment_name = "d".repeat(bytes);
            r.deployment_options =
                Some(WorkerDeploymentOptions { deployment_name, ..Default::default() });
        }
    };
    assert_eq!(check(&deployment(1000)), Ok(()));
    assert_eq!(check(&deployment(1001)), refused("Deployment name length exceeds limit."));
    let sticky = |r: &mut Completion| {
        let queue = TaskQueue { name: "q".repeat(1001), ..TaskQueue::default() };
        r.sticky_attributes = Some(StickyExecutionAttributes {
            worker_task_queue: Some(queue),
            schedule_to_start_timeout: None,
        });
    };
    assert_eq!(check(&sticky), refused("Sticky task queue length exceeds limit."));
}
