//! Tasks as workers get them: a grant of the engine, completed with what is read from rows.

use holdfast_engine::input::{ActivityGrant, WorkflowTaskGrant};
use holdfast_engine::namespace::NamespaceView;
use holdfast_proto::common::{WorkflowExecution, WorkflowType};
use holdfast_proto::enums::TaskQueueKind;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::history::{History, HistoryEvent};
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::events::{EventRange, size_in_answer};
use holdfast_raft::seal::Purpose;
use holdfast_storage::Direction;
use prost::Message;
use tonic::Status;

use super::Frontend;
use super::door::unexpected;
use super::history::{Page, PageToken};
use crate::errors::status;

/// Kept free for what a page gets beside its events once they are known: the token of the next one
/// (a run, three numbers and a seal) and the lengths of the messages around them.
const MARGIN: usize = 512;

impl Frontend {
    /// How many bytes of events an answer may hold, with `beside` bytes of anything else in it.
    pub(super) fn room(&self, beside: usize) -> usize {
        self.settings.page_bytes.saturating_sub(beside.saturating_add(MARGIN))
    }

    /// A workflow task with the first page of its history, in an answer that holds `beside` bytes
    /// of anything else.
    pub(super) fn workflow_task(
        &self,
        namespace: &NamespaceView,
        grant: WorkflowTaskGrant,
        beside: usize,
    ) -> Result<rpc::PollWorkflowTaskQueueResponse, Status> {
        let token = &grant.token;
        let run = token.run_id();
        let mut task = rpc::PollWorkflowTaskQueueResponse {
            workflow_execution: Some(WorkflowExecution {
                workflow_id: token.workflow_id.clone(),
                run_id: run.to_string(),
            }),
            workflow_type: Some(WorkflowType { name: grant.workflow_type }),
            previous_started_event_id: grant.previous_started,
            started_event_id: token.started,
            attempt: i32::try_from(token.attempt).unwrap_or(i32::MAX),
            workflow_execution_task_queue: Some(TaskQueue {
                name: grant.task_queue,
                kind: TaskQueueKind::Normal.into(),
                ..TaskQueue::default()
            }),
            scheduled_time: Some(grant.scheduled_at.timestamp()),
            started_time: Some(token.granted_at().timestamp()),
            task_token: self.seal(Purpose::Task, token),
            ..rpc::PollWorkflowTaskQueueResponse::default()
        };
        let range = EventRange {
            from: grant.first_event,
            to: grant.next_event,
            batches: self.settings.history_page_max,
            bytes: self.room(beside + task.encoded_len() + size_of_events(&grant.tail)),
            direction: Direction::Forward,
        };
        let rows =
            self.node.events(namespace.id, &token.workflow_id, run, range).map_err(status)?;
        let mut page = Page::forward(rows, grant.first_event);
        if page.next < grant.next_event {
            let more = PageToken {
                run: run.0.to_vec(),
                next: page.next,
                to: token.started + 1,
                ..PageToken::default()
            };
            task.next_page_token = self.seal(Purpose::HistoryPage, &more);
        } else {
            page.events.extend(grant.tail);
        }
        task.history = Some(History { events: page.events });
        Ok(task)
    }

    /// An activity task with its input.
    pub(super) fn activity_task(
        &self,
        namespace: &NamespaceView,
        grant: ActivityGrant,
    ) -> Result<rpc::PollActivityTaskQueueResponse, Status> {
        let token = &grant.token;
        let range = EventRange {
            from: grant.scheduled,
            to: grant.scheduled + 1,
            batches: 1,
            bytes: 0,
            direction: Direction::Forward,
        };
        let rows = self
            .node
            .events(namespace.id, &token.workflow_id, token.run_id(), range)
            .map_err(status)?;
        let scheduled = rows.into_iter().flatten().find(|event| event.event_id == grant.scheduled);
        let Some(HistoryEvent {
            attributes: Some(Attributes::ActivityTaskScheduledEventAttributes(attributes)),
            ..
        }) = scheduled
        else {
            return Err(unexpected("a read of the event that scheduled an activity"));
        };
        let mut response = *grant.response;
        response.header = attributes.header;
        response.input = attributes.input;
        response.workflow_namespace.clone_from(&namespace.name);
        response.task_token = self.seal(Purpose::Task, token);
        Ok(response)
    }
}

/// How many bytes events take in an answer.
pub(super) fn size_of_events(events: &[HistoryEvent]) -> usize {
    events.iter().map(|event| size_in_answer(event.encoded_len())).sum()
}
