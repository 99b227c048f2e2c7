//! Both reads of history: pages of whole batches, waits for news, the last event of a closed run.

use std::ops::Range;
use std::sync::Arc;

use holdfast_engine::Rejection;
use holdfast_engine::ids::{EventId, RunId, Uuid};
use holdfast_engine::input::{HistoryOf, HistoryView};
use holdfast_engine::namespace::NamespaceView;
use holdfast_engine::validate::{self, page_size};
use holdfast_proto::enums::HistoryEventFilterType;
use holdfast_proto::history::{History, HistoryEvent};
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::events::EventRange;
use holdfast_raft::seal::Purpose;
use holdfast_raft::shard::HistoryWait;
use holdfast_storage::Direction;
use prost::Message;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::Frontend;
use super::assemble::size_of_events;
use super::door::{Needs, unexpected, wait_until};
use crate::errors::{refused, status};

/// Where a read goes on. It holds a run and a position and nothing about where they are kept.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PageToken {
    /// The run, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) run: Vec<u8>,
    /// The event to go on with; backward: the event before which to go on.
    #[prost(int64, tag = "2")]
    pub(super) next: EventId,
    /// One more than the last event that this read shows; 0 for whatever there is by then.
    #[prost(int64, tag = "3")]
    pub(super) to: EventId,
    /// Of a read that goes backward.
    #[prost(bool, tag = "4")]
    pub(super) backward: bool,
}

/// Events read from rows.
pub(super) struct Page {
    /// In the order of the answer.
    pub(super) events: Vec<HistoryEvent>,
    /// Where the next page begins.
    pub(super) next: EventId,
}

impl Page {
    /// A page that goes on after its last event, or from `from` when it has none.
    pub(super) fn forward(batches: Vec<Vec<HistoryEvent>>, from: EventId) -> Page {
        let mut batches = batches.into_iter();
        // Most reads meet a single batch or few: the first one's memory is used for all.
        let mut events = batches.next().unwrap_or_default();
        batches.for_each(|batch| events.extend(batch));
        let next = events.last().map_or(from, |event| event.event_id + 1);
        Page { events, next }
    }

    /// A page that goes on before its first event.
    fn backward(batches: Vec<Vec<HistoryEvent>>) -> Page {
        let mut events: Vec<_> = batches.into_iter().flatten().collect();
        events.sort_unstable_by_key(|event| std::cmp::Reverse(event.event_id));
        let next = events.last().map_or(1, |event| event.event_id);
        Page { events, next }
    }
}

/// One read, its request taken apart.
struct Reading {
    namespace: Arc<NamespaceView>,
    workflow_id: String,
    run: Option<RunId>,
    token: Option<PageToken>,
    batches: usize,
}

impl Frontend {
    pub(super) async fn on_get_workflow_execution_history(
        &self,
        request: Request<rpc::GetWorkflowExecutionHistoryRequest>,
    ) -> Result<rpc::GetWorkflowExecutionHistoryResponse, Status> {
        let (headers, _, request) = request.into_parts();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        let named = validate::history(&request).map_err(refused)?;
        let wait = request.wait_new_event;
        let closing = request.history_event_filter_type() == HistoryEventFilterType::CloseEvent;
        let execution = request.execution.unwrap_or_default();
        let token = self.page_token(&request.next_page_token, false)?;
        let reading = Reading {
            namespace,
            run: pinned(named, token.as_ref())?,
            workflow_id: execution.workflow_id,
            token,
            batches: page_size(request.maximum_page_size, self.settings.history_page_max),
        };
        let until = wait_until(&headers, self.settings.history_wait);
        let (events, token) = if closing {
            self.close_event(&reading, wait, until).await?
        } else {
            self.page(&reading, wait, until, &headers).await?
        };
        Ok(rpc::GetWorkflowExecutionHistoryResponse {
            history: Some(History { events }),
            next_page_token: self.page_seal(token),
            ..rpc::GetWorkflowExecutionHistoryResponse::default()
        })
    }

    pub(super) async fn on_get_workflow_execution_history_reverse(
        &self,
        request: Request<rpc::GetWorkflowExecutionHistoryReverseRequest>,
    ) -> Result<rpc::GetWorkflowExecutionHistoryReverseResponse, Status> {
        let request = request.into_inner();
        let namespace = self.namespace(&request.namespace, Needs::Alive).await?;
        let named = validate::history_reverse(&request).map_err(refused)?;
        let execution = request.execution.unwrap_or_default();
        let token = self.page_token(&request.next_page_token, true)?;
        let reading = Reading {
            namespace,
            run: pinned(named, token.as_ref())?,
            workflow_id: execution.workflow_id,
            token,
            batches: page_size(request.maximum_page_size, self.settings.history_page_max),
        };
        let (of, wait) = (HistoryOf::Events, HistoryWait::None);
        let view = self.view(&reading, of, wait, Instant::now()).await?;
        let to = reading.token.as_ref().map_or(view.next_event, |token| token.next);
        let to = to.min(view.next_event);
        let rows = self.rows(&reading, &view, 1..to, Direction::Backward, self.room(0))?;
        let page = Page::backward(rows);
        let token = (page.next > 1).then(|| PageToken {
            run: view.run.0.to_vec(),
            next: page.next,
            to: 0,
            backward: true,
        });
        Ok(rpc::GetWorkflowExecutionHistoryReverseResponse {
            history: Some(History { events: page.events }),
            next_page_token: self.page_seal(token),
        })
    }

    /// A page of all events. With `wait`, a read that has a token and has seen everything waits
    /// for news, and the token never ends while the run is open.
    async fn page(
        &self,
        reading: &Reading,
        wait: bool,
        until: Instant,
        headers: &MetadataMap,
    ) -> Result<(Vec<HistoryEvent>, Option<PageToken>), Status> {
        let from = reading.token.as_ref().map_or(1, |token| token.next);
        let waiting = match &reading.token {
            Some(token) if wait && token.to == 0 => HistoryWait::Event(from),
            _ => HistoryWait::None,
        };
        let mut view = self.view(reading, HistoryOf::Events, waiting, until).await?;
        let end = match reading.token.as_ref().map_or(0, |token| token.to) {
            0 => view.transient.last().map_or(view.next_event, |event| event.event_id + 1),
            pinned => pinned,
        };
        let to = end.min(view.next_event);
        let bytes = self.room(size_of_events(&view.transient));
        let rows = self.rows(reading, &view, from..to, Direction::Forward, bytes)?;
        let Page { mut events, next } = Page::forward(rows, from);
        let run = view.run.0.to_vec();
        if next < to {
            return Ok((events, Some(PageToken { run, next, to: end, backward: false })));
        }
        // What is not written is shown behind what is, and again with the next news: a wait in vain
        // shows nothing.
        if !events.is_empty() && shows_transient(headers) {
            view.transient.retain(|event| (next..end).contains(&event.event_id));
            events.append(&mut view.transient);
        }
        // Also when it closed behind the end that this read began with: the reader waits for that.
        let goes_on = wait && (!view.closed || next < view.next_event);
        let token = goes_on.then_some(PageToken { run, next, to: 0, backward: false });
        Ok((events, token))
    }

    /// The last event of a run, once it is closed. Without `wait` an open run answers at once.
    async fn close_event(
        &self,
        reading: &Reading,
        wait: bool,
        until: Instant,
    ) -> Result<(Vec<HistoryEvent>, Option<PageToken>), Status> {
        let waiting = if wait { HistoryWait::Close } else { HistoryWait::None };
        let view = self.view(reading, HistoryOf::Close, waiting, until).await?;
        if !view.closed {
            let run = view.run.0.to_vec();
            let token = PageToken { run, next: view.next_event, to: 0, backward: false };
            return Ok((Vec::new(), wait.then_some(token)));
        }
        let last = Reading { batches: 1, ..reading.of(view.run) };
        let events = view.last_batch..view.next_event;
        let rows = self.rows(&last, &view, events, Direction::Backward, self.room(0))?;
        let event = rows.into_iter().flatten().max_by_key(|event| event.event_id);
        Ok((event.into_iter().collect(), None))
    }

    /// What may be read now, or once what is waited for has happened.
    async fn view(
        &self,
        reading: &Reading,
        of: HistoryOf,
        wait: HistoryWait,
        until: Instant,
    ) -> Result<HistoryView, Status> {
        let ask = |wait, until| {
            self.node.history(
                reading.namespace.clone(),
                &reading.workflow_id,
                reading.run,
                of,
                wait,
                until,
            )
        };
        if wait == HistoryWait::None {
            return ask(wait, until).await.map_err(status);
        }
        tokio::select! {
            biased;
            view = ask(wait, until) => view.map_err(status),
            () = self.drained() => ask(HistoryWait::None, until).await.map_err(status),
        }
    }

    fn rows(
        &self,
        reading: &Reading,
        view: &HistoryView,
        events: Range<EventId>,
        direction: Direction,
        bytes: usize,
    ) -> Result<Vec<Vec<HistoryEvent>>, Status> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let Range { start: from, end: to } = events;
        let range = EventRange { from, to, batches: reading.batches, bytes, direction };
        let rows = self
            .node
            .events(reading.namespace.id, &reading.workflow_id, view.run, range)
            .map_err(status)?;
        // Or a page would go on where it began, without end.
        if rows.iter().all(Vec::is_empty) { Err(unexpected("a read of events")) } else { Ok(rows) }
    }

    fn page_token(&self, sealed: &[u8], backward: bool) -> Result<Option<PageToken>, Status> {
        if sealed.is_empty() {
            return Ok(None);
        }
        self.node
            .open(Purpose::HistoryPage, sealed)
            .and_then(|body| PageToken::decode(body).ok())
            .filter(|token| token.backward == backward)
            .map(Some)
            .ok_or_else(|| refused(Rejection::invalid("Invalid NextPageToken.")))
    }

    fn page_seal(&self, token: Option<PageToken>) -> bytes::Bytes {
        token.map(|token| self.seal(Purpose::HistoryPage, &token)).unwrap_or_default()
    }
}

impl Reading {
    /// The same read of a run that is known by now.
    fn of(&self, run: RunId) -> Reading {
        Reading {
            namespace: self.namespace.clone(),
            workflow_id: self.workflow_id.clone(),
            run: Some(run),
            token: None,
            batches: self.batches,
        }
    }
}

/// The run of a read: that of its token, which a run that the request names must agree with.
fn pinned(named: Option<RunId>, token: Option<&PageToken>) -> Result<Option<RunId>, Status> {
    let Some(token) = token else { return Ok(named) };
    let run = Uuid::from_slice(&token.run);
    if named.is_some() && named != run {
        let text = "RunId in the request does not match the NextPageToken.";
        return Err(refused(Rejection::invalid(text)));
    }
    Ok(run)
}

/// Events of an attempt that is not written are shown to SDKs, which may replay them, and not to
/// people.
fn shows_transient(headers: &MetadataMap) -> bool {
    let client = headers.get("client-name").and_then(|name| name.to_str().ok());
    !matches!(client, Some("temporal-cli" | "temporal-ui"))
}
