//! Reads as clients make them, and what they check at once: pages without holes, events that do
//! not change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_api::service::workflow::workflow_service_server::WorkflowService;
use holdfast_proto::enums::{EventType, HistoryEventFilterType};
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::history::{History, HistoryEvent};
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Request};

use super::attempts::parse_beat;
use super::calls::{Answer, Patience, insist};
use super::wire::{NAMESPACE, closes, execution, text_of};
use super::{Shared, asked, gifts, lock};
use crate::record::{Kind, Moment, Outcome, Told};
use crate::rng::Rng;

/// How long a long poll is given. The server ends it a second earlier.
const LONG: Duration = Duration::from_secs(11);

/// A page that takes so long was waited for.
const WAITED: Duration = Duration::from_millis(500);

/// Pages of a history that are read at most. Each has an event at least, and no history of the
/// simulator gets near so many: a token that leads on from there leads nowhere.
const READ_PAGES: u32 = 5000;

/// Pages that a watcher reads at most.
const WATCHED_PAGES: u32 = 100;

/// The status of a run that is open.
const RUNNING: i32 = 1;

/// One reader's question: whose, about what, and how large its pages are.
pub(crate) struct Ask<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) who: &'a Arc<str>,
    pub(crate) id: &'a Arc<str>,
    /// Empty for the current run.
    pub(crate) run: String,
    pub(crate) page: i32,
    /// Reads as SDKs do, who are shown a later attempt of a workflow task behind the last event.
    pub(crate) as_sdk: bool,
}

/// The run that a history is of.
pub(crate) fn run_of(events: &[HistoryEvent]) -> Option<&str> {
    match events.first()?.attributes.as_ref()? {
        Event::WorkflowExecutionStartedEventAttributes(a) => Some(&a.original_execution_run_id),
        _ => None,
    }
}

/// Whether the current run of an id is open; `None` when nobody could say.
pub(crate) async fn is_open(shared: &Shared, who: &Arc<str>, id: &Arc<str>) -> Option<bool> {
    let ask = Ask { shared, who, id, run: String::new(), page: 0, as_sdk: false };
    match describe(&ask, "drain").await {
        Outcome::Ok(Told::Shown { closed, .. }) => closed.map(|closed| !closed),
        Outcome::Refused { code: Code::NotFound, .. } => Some(false),
        _ => None,
    }
}

/// DescribeWorkflowExecution.
pub(crate) async fn describe(ask: &Ask<'_>, request: &str) -> Outcome {
    let op = ask.begin(Kind::Describe, request);
    let asked = ask.shared.record.moment();
    let outcome = match ask.described().await.result {
        Ok(shown) => {
            ask.check_pending(&shown, asked);
            let info = shown.workflow_execution_info.unwrap_or_default();
            let run = info.execution.map_or_else(String::new, |it| it.run_id);
            let (from, to) = (info.history_length, info.history_length);
            let closed = Some(info.status != RUNNING);
            Outcome::Ok(Told::Shown { run, from, to, closed })
        }
        Err(failed) => failed.outcome(),
    };
    ask.end(op, Kind::Describe, outcome)
}

impl Ask<'_> {
    /// What describe shows of pending activities: the newest heartbeat that was acknowledged before
    /// it was `asked`, or a newer one, and the last failure as a worker gave it.
    fn check_pending(&self, shown: &rpc::DescribeWorkflowExecutionResponse, asked: Moment) {
        let execution = shown.workflow_execution_info.as_ref().and_then(|it| it.execution.as_ref());
        let run = execution.map_or("", |it| it.run_id.as_str());
        for pending in &shown.pending_activities {
            let activity = &pending.activity_id;
            let known = lock(&self.shared.beats).get(&(run.to_owned(), activity.clone())).copied();
            let known = known.filter(|(_, at)| *at < asked).map(|(beat, _)| beat);
            let details = text_of(pending.heartbeat_details.as_ref());
            let told = parse_beat(activity, &details);
            let odd = !details.is_empty() && told.is_none();
            if odd || known.is_some_and(|known| told.is_none_or(|told| told < known)) {
                let text = format!(
                    "{} was shown the heartbeat {details:?} of {activity} in run {run}, acknowledged \
                     was {known:?}",
                    self.who
                );
                self.shared.found("C1", self.id, text);
            }
            if !gifts::is_as_given(pending.last_failure.as_ref()) {
                let text = format!(
                    "{} was shown a last failure of {activity} in run {run} that nobody gave",
                    self.who
                );
                self.shared.found("C1", self.id, text);
            }
        }
    }

    fn begin(&self, kind: Kind, request: &str) -> crate::record::OpId {
        let mut asked = asked(kind, self.who, self.id, request);
        asked.run.clone_from(&self.run);
        self.shared.begin(asked)
    }

    fn end(&self, op: crate::record::OpId, kind: Kind, outcome: Outcome) -> Outcome {
        let what = format!("{} {} {}", self.who, kind.name(), self.id);
        self.shared.end(op, &what, outcome.clone(), false);
        outcome
    }

    /// Ends a read of all pages and gives the events. Where the pages do not end, it tells nothing.
    fn end_read(
        &self,
        op: crate::record::OpId,
        kind: Kind,
        pages: Pages,
    ) -> Option<Vec<HistoryEvent>> {
        if !pages.token.is_empty() {
            let (who, what) = (self.who, kind.name());
            let text = format!("{who} got {READ_PAGES} pages by {what}, and a token for more");
            self.shared.found("V2", self.id, text);
            self.end(op, kind, Outcome::Ok(Told::Done));
            return None;
        }
        self.end(op, kind, Outcome::Ok(self.told(&pages.events)));
        Some(pages.events)
    }

    /// What describe says, on no record.
    pub(crate) async fn described(&self) -> Answer<rpc::DescribeWorkflowExecutionResponse> {
        let query = rpc::DescribeWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            execution: Some(execution(self.id, &self.run)),
        };
        let patience = Patience::USUAL;
        insist(self.shared, self.who, self.id, patience, query, |front, request| async move {
            front.describe_workflow_execution(request).await
        })
        .await
    }

    /// One page of history.
    async fn page(
        &self,
        token: Bytes,
        wait: bool,
        filter: HistoryEventFilterType,
    ) -> Answer<rpc::GetWorkflowExecutionHistoryResponse> {
        let query = rpc::GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.to_owned(),
            execution: Some(execution(self.id, &self.run)),
            maximum_page_size: self.page,
            next_page_token: token,
            wait_new_event: wait,
            history_event_filter_type: filter as i32,
            ..rpc::GetWorkflowExecutionHistoryRequest::default()
        };
        let each = if wait { LONG } else { Patience::USUAL.each };
        let patience = Patience { each, ..Patience::USUAL };
        let as_sdk = self.as_sdk;
        let answer = insist(
            self.shared,
            self.who,
            self.id,
            patience,
            query,
            move |front, request| async move {
                front.get_workflow_execution_history(signed(request, as_sdk)).await
            },
        )
        .await;
        if let Ok(page) = &answer.result {
            weigh(self.shared, self.who, self.id, page.encoded_len(), page.history.as_ref());
        }
        answer
    }

    /// Checks a whole history against what anybody saw before, and gives what it tells.
    fn told(&self, events: &[HistoryEvent]) -> Told {
        let run = run_of(events).unwrap_or_default().to_owned();
        if run.is_empty() || events.first().is_some_and(|event| event.event_id != 1) {
            let text = format!("{} was shown a history without a start", self.who);
            self.shared.found("H1", self.id, text);
        }
        if let Err(why) = lock(&self.shared.seen).take(&run, events) {
            let text = format!("{} read run {run}: {why}", self.who);
            self.shared.found("H1", self.id, text);
        }
        if let Some(why) = gifts::changed(events) {
            let text = format!("{} read run {run}: {why}", self.who);
            self.shared.found("C1", self.id, text);
        }
        let length = events.len() as i64;
        let closed = Some(events.last().is_some_and(closes));
        Told::Shown { run, from: length, to: length, closed }
    }
}

/// The request of a read, by a person or an SDK.
fn signed<Q>(mut request: Request<Q>, as_sdk: bool) -> Request<Q> {
    if as_sdk {
        request.metadata_mut().remove("client-name");
    }
    request
}

/// Puts a page behind those before it. What stood at their end and was not written is gone when the
/// next page goes on in its place.
fn join(events: &mut Vec<HistoryEvent>, page: Vec<HistoryEvent>) {
    let goes_on =
        |last: &HistoryEvent| page.first().is_none_or(|first| first.event_id == last.event_id + 1);
    if !events.last().is_none_or(goes_on) {
        events.truncate(written(events));
    }
    events.extend(page);
}

/// How many events of a history are written: an attempt above 1 at its end is not, and goes away when
/// something else comes.
fn written(events: &[HistoryEvent]) -> usize {
    let attempt = |event: &HistoryEvent| match &event.attributes {
        Some(Event::WorkflowTaskScheduledEventAttributes(a)) => a.attempt,
        _ => 0,
    };
    match events {
        [.., scheduled, started]
            if started.event_type() == EventType::WorkflowTaskStarted && attempt(scheduled) > 1 =>
        {
            events.len() - 2
        }
        [.., scheduled] if attempt(scheduled) > 1 => events.len() - 1,
        _ => events.len(),
    }
}

/// An answer that holds events is not larger than it may be, be it a page or a task, unless it
/// holds a single one. What a start of a task adds at the end is not counted among them.
pub(crate) fn weigh(
    shared: &Shared,
    who: &str,
    id: &Arc<str>,
    bytes: usize,
    history: Option<&History>,
) {
    let of_start = |event: &&HistoryEvent| {
        let kind = event.event_type();
        matches!(kind, EventType::WorkflowTaskScheduled | EventType::WorkflowTaskStarted)
    };
    let events = history.map_or(&[][..], |history| &history.events);
    let tail = events.iter().rev().take(2).take_while(of_start).count();
    let most = shared.scenario.sizes.page_bytes;
    if bytes > most && events.len() - tail > 1 {
        let text = format!("{who} got {} events in {bytes} bytes, more than {most}", events.len());
        shared.found("V2", id, text);
    }
}

/// The pages of a history, put together.
#[derive(Default)]
struct Pages {
    events: Vec<HistoryEvent>,
    /// Of the next page; empty after the last, and before the first.
    token: Bytes,
    count: u32,
}

impl Pages {
    /// Whether there is one more to ask for.
    fn go_on(&self) -> bool {
        self.count == 0 || (!self.token.is_empty() && self.count < READ_PAGES)
    }

    fn take(&mut self, history: Option<History>, token: Bytes) {
        self.events.extend(history.unwrap_or_default().events);
        self.token = token;
        self.count += 1;
    }
}

/// GetWorkflowExecutionHistory to the end. Gives the events of an acknowledged read.
pub(crate) async fn read(ask: &Ask<'_>, request: &str) -> Option<Vec<HistoryEvent>> {
    let op = ask.begin(Kind::Read, request);
    let mut pages = Pages::default();
    while pages.go_on() {
        let token = pages.token.clone();
        match ask.page(token, false, HistoryEventFilterType::AllEvent).await.result {
            Ok(page) => {
                let mut events = std::mem::take(&mut pages.events);
                join(&mut events, page.history.unwrap_or_default().events);
                pages.take(Some(History { events }), page.next_page_token);
            }
            Err(failed) => {
                ask.end(op, Kind::Read, failed.outcome());
                return None;
            }
        }
    }
    pages.events.truncate(written(&pages.events));
    ask.end_read(op, Kind::Read, pages)
}

/// GetWorkflowExecutionHistoryReverse to the start.
pub(crate) async fn read_back(ask: &Ask<'_>, request: &str) {
    let op = ask.begin(Kind::ReadBack, request);
    let mut pages = Pages::default();
    while pages.go_on() {
        let query = rpc::GetWorkflowExecutionHistoryReverseRequest {
            namespace: NAMESPACE.to_owned(),
            execution: Some(execution(ask.id, &ask.run)),
            maximum_page_size: ask.page,
            next_page_token: pages.token.clone(),
        };
        let patience = Patience::USUAL;
        let answer =
            insist(ask.shared, ask.who, ask.id, patience, query, |front, request| async move {
                front.get_workflow_execution_history_reverse(request).await
            })
            .await;
        match answer.result {
            Ok(page) => {
                weigh(ask.shared, ask.who, ask.id, page.encoded_len(), page.history.as_ref());
                pages.take(page.history, page.next_page_token);
            }
            Err(failed) => {
                ask.end(op, Kind::ReadBack, failed.outcome());
                return;
            }
        }
    }
    pages.events.reverse();
    ask.end_read(op, Kind::ReadBack, pages);
}

/// GetWorkflowExecutionHistory that waits for news: reads on until a page had to be waited for, or
/// brought nothing. Whether a page is a wait or the rest of what is there only its token knows, so
/// all of it is one operation.
pub(crate) async fn watch(ask: &Ask<'_>, request: &str) {
    let op = ask.begin(Kind::Watch, request);
    let mut events: Vec<HistoryEvent> = Vec::new();
    let mut token = Bytes::new();
    let mut is_whole = false;
    for _ in 0..WATCHED_PAGES {
        let asked = Instant::now();
        let answer = ask.page(token, true, HistoryEventFilterType::AllEvent).await;
        let page = match answer.result {
            Ok(page) => page,
            Err(failed) => {
                ask.end(op, Kind::Watch, failed.outcome());
                return;
            }
        };
        let news = page.history.unwrap_or_default().events;
        let waited = asked.elapsed() >= WAITED;
        token = page.next_page_token;
        // Nothing new, or nothing more to come.
        is_whole = news.is_empty() || token.is_empty();
        join(&mut events, news);
        if waited || is_whole {
            break;
        }
    }
    events.truncate(written(&events));
    let mut told = ask.told(&events);
    if let Told::Shown { to, closed, .. } = &mut told
        && !is_whole
    {
        (*to, *closed) = (0, None);
    }
    ask.end(op, Kind::Watch, Outcome::Ok(told));
}

/// GetWorkflowExecutionHistory that waits for the end, for as long as one call may take.
pub(crate) async fn await_close(ask: &Ask<'_>, request: &str) {
    let op = ask.begin(Kind::AwaitClose, request);
    let answer = ask.page(Bytes::new(), true, HistoryEventFilterType::CloseEvent).await;
    let outcome = match answer.result {
        Ok(page) => match page.history.unwrap_or_default().events.as_slice() {
            [] => Outcome::Ok(Told::Shown {
                run: ask.run.clone(),
                from: 0,
                to: 0,
                closed: Some(false),
            }),
            [event] if closes(event) => {
                let (from, to) = (event.event_id, event.event_id);
                Outcome::Ok(Told::Shown { run: ask.run.clone(), from, to, closed: Some(true) })
            }
            events => {
                let text =
                    format!("{} waited for the end and got {} events", ask.who, events.len());
                ask.shared.found("V2", ask.id, text);
                Outcome::Ok(Told::Done)
            }
        },
        Err(failed) => failed.outcome(),
    };
    ask.end(op, Kind::AwaitClose, outcome);
}

/// Lists need every shard led by one node: little patience.
const LISTS: Patience =
    Patience { each: Duration::from_secs(5), total: Duration::from_millis(1), repeat: true };

/// Pages of a list that are read at most. Each has a row at least, and no id so many runs.
const LISTED_PAGES: u32 = 5000;

/// ListWorkflowExecutions of one id, page by page. Open runs come first and closed ones by their
/// ends, the last first: what closes meanwhile goes to where nobody has looked yet, or was shown
/// already. So the pages together show every run whose start was acknowledged before, and no run
/// twice in one status, whoever leads and whatever happens between two pages.
pub(crate) async fn list(ask: &Ask<'_>, request: &str) {
    let op = ask.begin(Kind::List, request);
    let (mut rows, mut token) = (Vec::new(), Bytes::new());
    let mut whole = false;
    for _ in 0..LISTED_PAGES {
        let query = rpc::ListWorkflowExecutionsRequest {
            namespace: NAMESPACE.to_owned(),
            query: format!("WorkflowId = '{}'", ask.id),
            page_size: ask.page,
            next_page_token: token,
        };
        let answer =
            insist(ask.shared, ask.who, ask.id, LISTS, query, |front, request| async move {
                front.list_workflow_executions(request).await
            })
            .await;
        match answer.result {
            Ok(page) => {
                rows.extend(page.executions.into_iter().map(|info| {
                    (info.execution.map_or_else(String::new, |it| it.run_id), info.status)
                }));
                token = page.next_page_token;
            }
            Err(failed) => {
                ask.end(op, Kind::List, failed.outcome());
                return;
            }
        }
        whole = token.is_empty();
        if whole {
            break;
        }
    }
    if let Some((run, status)) = repeated(&rows) {
        let text = format!("{} was shown run {run} twice, with status {status}", ask.who);
        ask.shared.found("V2", ask.id, text);
    }
    if !whole {
        let text = format!("{} got {LISTED_PAGES} pages by list, and a token for more", ask.who);
        ask.shared.found("V2", ask.id, text);
    }
    // Only a whole list is held to account.
    let told = if whole { Told::Listed(rows) } else { Told::Done };
    ask.end(op, Kind::List, Outcome::Ok(told));
}

/// A row that stands in a list twice.
fn repeated(rows: &[(String, i32)]) -> Option<&(String, i32)> {
    let mut seen = BTreeSet::new();
    rows.iter().find(|row| !seen.insert(*row))
}

/// CountWorkflowExecutions of one id.
pub(crate) async fn count(ask: &Ask<'_>, request: &str) {
    let op = ask.begin(Kind::Count, request);
    let query = rpc::CountWorkflowExecutionsRequest {
        namespace: NAMESPACE.to_owned(),
        query: format!("WorkflowId = '{}'", ask.id),
    };
    let answer = insist(ask.shared, ask.who, ask.id, LISTS, query, |front, request| async move {
        front.count_workflow_executions(request).await
    })
    .await;
    let outcome = match answer.result {
        Ok(counted) => Outcome::Ok(Told::Counted(counted.count)),
        Err(failed) => failed.outcome(),
    };
    ask.end(op, Kind::Count, outcome);
}

/// A page size: mostly the server's own, sometimes tiny.
pub(crate) fn page_size(rng: &mut Rng) -> i32 {
    if rng.one_in(3) { 1 + rng.below(4) as i32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_without_an_end_are_given_up() {
        let read = |last: u32| {
            let mut pages = Pages::default();
            while pages.go_on() {
                let token = if pages.count + 1 == last { "" } else { "more" };
                let events = vec![HistoryEvent::default()];
                pages.take(Some(History { events }), Bytes::from_static(token.as_bytes()));
            }
            (pages.events.len(), pages.token.is_empty())
        };
        assert_eq!(read(1), (1, true));
        assert_eq!(read(3), (3, true));
        assert_eq!(read(u32::MAX), (READ_PAGES as usize, false));
    }

    #[test]
    fn a_later_attempt_at_the_end_is_not_written() {
        use holdfast_proto::history::WorkflowTaskScheduledEventAttributes as Scheduled;
        let scheduled = |attempt| {
            let a = Box::new(Scheduled { attempt, ..Scheduled::default() });
            let attributes = Some(Event::WorkflowTaskScheduledEventAttributes(a));
            HistoryEvent { attributes, ..HistoryEvent::default() }
        };
        let other =
            |kind: EventType| HistoryEvent { event_type: kind as i32, ..HistoryEvent::default() };
        let (started, news) =
            (other(EventType::WorkflowTaskStarted), other(EventType::WorkflowExecutionSignaled));
        assert_eq!(written(&[]), 0);
        assert_eq!(written(&[news.clone(), scheduled(1), started.clone()]), 3);
        assert_eq!(written(&[news.clone(), scheduled(2), started.clone()]), 1);
        assert_eq!(written(&[news.clone(), scheduled(2)]), 1);
        assert_eq!(written(&[scheduled(2), started, news]), 3, "it is written by now");
    }

    #[test]
    fn what_was_not_written_gives_way_to_the_next_page() {
        use holdfast_proto::history::WorkflowTaskScheduledEventAttributes as Scheduled;
        let event = |event_id| HistoryEvent { event_id, ..HistoryEvent::default() };
        let later = |event_id| {
            let a = Box::new(Scheduled { attempt: 2, ..Scheduled::default() });
            let attributes = Some(Event::WorkflowTaskScheduledEventAttributes(a));
            HistoryEvent { event_id, attributes, ..HistoryEvent::default() }
        };
        let joined = |page: Vec<HistoryEvent>| {
            let mut events = vec![event(1), later(2)];
            join(&mut events, page);
            events.into_iter().map(|event| event.event_id).collect::<Vec<_>>()
        };
        assert_eq!(joined(vec![event(2), event(3)]), [1, 2, 3]);
        assert_eq!(joined(vec![event(3)]), [1, 2, 3], "it was written");
        assert_eq!(joined(Vec::new()), [1, 2]);
    }

    #[test]
    fn a_row_is_repeated_only_in_one_status() {
        let row = |run: &str, status| (run.to_owned(), status);
        assert_eq!(repeated(&[row("r1", 1), row("r2", 2), row("r1", 2)]), None);
        assert_eq!(repeated(&[row("r1", 2), row("r2", 2), row("r1", 2)]), Some(&row("r1", 2)));
    }
}
