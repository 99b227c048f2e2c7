//! What is shown of a run: describe, the visibility record, and what a reader of history may see.

use std::collections::BTreeMap;

use holdfast_proto::common::{Memo, Payload, SearchAttributes, WorkflowExecution, WorkflowType};
use holdfast_proto::decoded;
use holdfast_proto::enums::{PendingWorkflowTaskState, TimeoutType, WorkflowTaskFailedCause};
use holdfast_proto::workflow::{
    PendingWorkflowTaskInfo, RequestIdInfo, ResetPoints, WorkflowExecutionConfig,
    WorkflowExecutionExtendedInfo, WorkflowExecutionInfo,
};
use holdfast_proto::workflowservice::DescribeWorkflowExecutionResponse;
use prost_types::{Duration, Timestamp};
use serde_json::Value;

use crate::env::Env;
use crate::ids::{Hlc, Uuid};
use crate::input::{HistoryView, Reply};
use crate::live::Live;
use crate::rows::VisibilityRecord;
use crate::workflow::workflow_task::{PROBLEMS_REPORTED, Problem, normal_queue, transient_events};
use crate::workflow::{State, activity, request_of};

/// Go's zero time, which Temporal shows as the expiration of a run that has none.
const NEVER: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// How many request ids describe shows of what is written, beside that of the start.
const REQUESTS_SHOWN: usize = 1000;

/// DescribeWorkflowExecution. The grants of the run are durable by now, as everywhere where something
/// is shown of it: what one reader saw, nobody takes back.
pub fn describe(run: &Live, env: &Env<'_>) -> Reply {
    let state = &run.state;
    Reply::Described(Box::new(DescribeWorkflowExecutionResponse {
        execution_config: Some(config(state)),
        workflow_execution_info: Some(info(run)),
        pending_activities: activity::describe(state, env.now),
        pending_workflow_task: pending_task(state),
        workflow_extended_info: Some(extended(state)),
        ..DescribeWorkflowExecutionResponse::default()
    }))
}

/// What a history read must know before it reads rows: where they end, and what SDKs are shown behind
/// them. Every kind of read is made of this.
pub fn history(run: &Live, env: &Env<'_>) -> Reply {
    Reply::History(Box::new(HistoryView {
        run: run.run,
        next_event: run.state.next_event,
        last_batch: run.state.next_event - 1,
        closed: run.state.closed_at != 0,
        transient: transient_events(&run.state, env.limits),
    }))
}

fn some(nanos: u64) -> Option<Duration> {
    (nanos != 0).then(|| holdfast_proto::duration(nanos))
}

fn config(state: &State) -> WorkflowExecutionConfig {
    let info = &state.info;
    WorkflowExecutionConfig {
        task_queue: Some(normal_queue(&info.task_queue)),
        workflow_execution_timeout: some(info.execution_timeout),
        workflow_run_timeout: some(info.run_timeout),
        default_workflow_task_timeout: some(info.task_timeout),
        user_metadata: info.user_metadata.clone(),
    }
}

fn info(run: &Live) -> WorkflowExecutionInfo {
    let state = &run.state;
    let info = &state.info;
    let execution =
        WorkflowExecution { workflow_id: info.workflow_id.clone(), run_id: run.run.to_string() };
    let closed = state.closed_at != 0;
    let reset_points = ResetPoints { points: state.reset_points.clone() };
    WorkflowExecutionInfo {
        root_execution: Some(execution.clone()),
        execution: Some(execution),
        r#type: Some(WorkflowType { name: info.workflow_type.clone() }),
        start_time: Some(Hlc(info.started_at).timestamp()),
        close_time: Hlc(state.closed_at).optional_timestamp(),
        status: state.status,
        history_length: state.next_event - 1,
        execution_time: Some(Hlc(execution_at(state)).timestamp()),
        memo: memo(state),
        search_attributes: search_attributes(state),
        worker_deployment_name: state.worker_deployment.clone(),
        most_recent_worker_version_stamp: state.worker_version.clone(),
        auto_reset_points: (!state.reset_points.is_empty()).then_some(reset_points),
        task_queue: info.task_queue.clone(),
        state_transition_count: transitions(state),
        history_size_bytes: i64::try_from(state.history_bytes).unwrap_or(i64::MAX),
        execution_duration: closed
            .then(|| holdfast_proto::duration(state.closed_at.saturating_sub(execution_at(state)))),
        first_run_id: Uuid::from_slice(&info.first_run).unwrap_or(Uuid::NIL).to_string(),
        priority: info.priority.clone(),
        ..WorkflowExecutionInfo::default()
    }
}

/// When the run could first do anything: its start, or the end of its start delay.
fn execution_at(state: &State) -> u64 {
    state.info.started_at.saturating_add(state.info.first_task_backoff)
}

/// How often the run changed. Temporal counts transactions; a run here counts its changes.
fn transitions(state: &State) -> i64 {
    let seq = if state.closed_at == 0 { state.seq } else { state.closed_seq };
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn memo(state: &State) -> Option<Memo> {
    let fields = state.info.memo.clone();
    (!fields.is_empty()).then(|| Memo::encode_from(&decoded::Memo { fields }))
}

/// The user's attributes and the three that the server sets.
fn search_attributes(state: &State) -> Option<SearchAttributes> {
    let mut fields = state.info.search_attributes.clone();
    if !state.build_ids.is_empty() {
        fields.insert("BuildIds".to_owned(), keyword_list(&state.build_ids));
    }
    if let Some(problem) =
        state.problem.as_ref().filter(|_| state.task_problems >= PROBLEMS_REPORTED)
    {
        fields.insert("TemporalReportedProblems".to_owned(), keyword_list(&reported(problem)));
    }
    if !state.worker_deployment.is_empty() {
        let name = Value::from(state.worker_deployment.as_str());
        fields.insert("TemporalWorkerDeployment".to_owned(), payload("Keyword", &name));
    }
    (!fields.is_empty()).then_some(SearchAttributes { indexed_fields: fields })
}

fn reported(problem: &Problem) -> [String; 2] {
    let cause = WorkflowTaskFailedCause::try_from(problem.cause).unwrap_or_default();
    let timeout = TimeoutType::try_from(problem.timeout).unwrap_or_default();
    match timeout {
        TimeoutType::Unspecified => [
            "category=WorkflowTaskFailed".to_owned(),
            format!("cause=WorkflowTaskFailedCause{cause:?}"),
        ],
        _ => [
            "category=WorkflowTaskTimedOut".to_owned(),
            format!("cause=WorkflowTaskTimedOutCause{timeout:?}"),
        ],
    }
}

fn keyword_list(values: &[String]) -> Payload {
    payload("KeywordList", &Value::from(values.to_vec()))
}

/// The value of a search attribute.
fn payload(kind: &'static str, value: &Value) -> Payload {
    let metadata = [("encoding", "json/plain"), ("type", kind)];
    Payload::encode_from(&decoded::Payload {
        metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect(),
        data: value.to_string().into(),
        ..decoded::Payload::default()
    })
}

/// The task that waits or is held; a run that was terminated shows what waited then.
fn pending_task(state: &State) -> Option<PendingWorkflowTaskInfo> {
    let task = state.workflow_task.as_ref()?;
    let shown = match task.started {
        0 => PendingWorkflowTaskState::Scheduled,
        _ => PendingWorkflowTaskState::Started,
    };
    Some(PendingWorkflowTaskInfo {
        state: shown as i32,
        scheduled_time: Some(Hlc(task.scheduled_at).timestamp()),
        original_scheduled_time: Some(Hlc(task.original_scheduled_at).timestamp()),
        started_time: Hlc(task.started_at).optional_timestamp(),
        attempt: task.attempt as i32,
    })
}

fn extended(state: &State) -> WorkflowExecutionExtendedInfo {
    let run_expires = Hlc(state.info.run_expires_at).optional_timestamp();
    WorkflowExecutionExtendedInfo {
        execution_expiration_time: Hlc(state.info.execution_expires_at).optional_timestamp(),
        run_expiration_time: Some(run_expires.unwrap_or(NEVER)),
        cancel_requested: state.cancel_requested,
        original_start_time: Some(Hlc(state.info.started_at).timestamp()),
        request_id_infos: requests(state),
        ..WorkflowExecutionExtendedInfo::default()
    }
}

/// The request of the start, the newest ones, and those that wait in the buffer.
fn requests(state: &State) -> BTreeMap<String, RequestIdInfo> {
    let (start, others) = state.requests.split_at(state.requests.len().min(1));
    let newest = &others[others.len().saturating_sub(REQUESTS_SHOWN)..];
    let written = start.iter().chain(newest).map(|request| {
        let info = RequestIdInfo {
            event_type: request.event_type,
            event_id: request.event,
            buffered: false,
        };
        (request.id.clone(), info)
    });
    let waiting = state.buffered.iter().filter_map(|event| {
        let info = RequestIdInfo { event_type: event.event_type, event_id: 0, buffered: true };
        Some((request_of(event)?.to_owned(), info))
    });
    written.chain(waiting).collect()
}

/// What lists know of a run; none once it is deleted.
pub fn visibility_record(state: &State) -> Option<VisibilityRecord> {
    if !state.exists || state.deleted {
        return None;
    }
    let closed = state.closed_at != 0;
    let at_close = |number: i64| if closed { number } else { 0 };
    Some(VisibilityRecord {
        workflow_id: state.info.workflow_id.clone(),
        run: state.info.run.clone(),
        workflow_type: state.info.workflow_type.clone(),
        started_at: state.info.started_at,
        execution_at: execution_at(state),
        closed_at: state.closed_at,
        status: state.status,
        history_length: at_close(state.next_event - 1),
        history_bytes: at_close(i64::try_from(state.history_bytes).unwrap_or(i64::MAX)),
        transitions: at_close(transitions(state)),
        task_queue: state.info.task_queue.clone(),
        memo: memo(state),
        search_attributes: search_attributes(state),
        first_run: state.info.first_run.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::RequestEvent;

    #[test]
    fn a_keyword_list_is_json_whatever_the_build_is_called() {
        let odd = ["plain", "quote\" back\\slash", "bell\u{7}", "del\u{7f}\u{200b}ü"];
        let odd = odd.map(str::to_owned);
        let data = keyword_list(&odd).decode().expect("decodes").data;
        assert_eq!(serde_json::from_slice::<Vec<String>>(&data).expect("JSON"), odd);
        assert_eq!(&keyword_list(&odd[..1]).decode().expect("decodes").data[..], b"[\"plain\"]");
    }

    #[test]
    fn the_request_of_the_start_and_the_newest_are_shown() {
        let one = |n: i64| RequestEvent { id: format!("r{n}"), event_type: 26, event: n };
        let mut state = State { requests: (1..=3000).map(one).collect(), ..State::default() };
        let shown = requests(&state);
        assert_eq!(shown.len(), 1 + REQUESTS_SHOWN);
        assert!(shown.contains_key("r1") && shown.contains_key("r2001"));
        assert!(!shown.contains_key("r2000"), "an older one is known and not shown");
        state.requests.clear();
        assert!(requests(&state).is_empty());
    }
}
