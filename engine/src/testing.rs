//! A world of one workflow id for tests: inputs in, text out, and three laws checked after every
//! decision.
//!
//! 1. Fold is live: the changes, refolded from their encoded bytes, from the beginning and from a
//!    checkpoint anywhere between, give the very state that the leader decided on.
//! 2. Rows follow: applying the difference of each decision gives exactly the rows that the state
//!    implies.
//! 3. Everything has a size: the state of an open run is within its limit, and what a decision
//!    makes of all runs, checkpoints included, fits [`DECISION_BYTES`].
//!
//! Beside them: event ids without a hole, task ids rising, event times not falling (those of
//! activity starts aside), and nothing in the overlay of a closed run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::command::Command;
use holdfast_proto::command::command::Attributes as CommandAttributes;
use holdfast_proto::common::{WorkflowExecution, WorkflowType};
use holdfast_proto::enums::{CommandType, EventType, NamespaceState, TaskQueueKind};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes;
use holdfast_proto::taskqueue::TaskQueue;
use holdfast_proto::workflowservice as rpc;
use prost::Message;

use crate::change::Change;
use crate::env::{Env, IdSource};
use crate::id_record::{self, IdRecord, RecordLive};
use crate::ids::{ExecutionKey, Hlc, RunId, Uuid};
use crate::input::{Halt, Input, Poller, Reply, Target, WorkflowTaskGrant};
use crate::limits::Limits;
use crate::live::{Draft, Live};
use crate::namespace::NamespaceView;
use crate::reject::Rejection;
use crate::rows::{self, BacklogRow, Dirty};
use crate::token::TaskToken;
use crate::workflow::{self, State, own_time};

/// When every world begins; times are printed as the distance from here.
pub(crate) const EPOCH: Hlc = Hlc(1_700_000_000_000_000_000);

/// What the log takes of one decision: changes, a checkpoint of each run, rows.
const DECISION_BYTES: usize = 16 << 20;

/// A run as the shard would hold it: live, and as bytes.
#[derive(Clone)]
pub(crate) struct Stored {
    /// The run on its leader.
    pub(crate) live: Live,
    /// Every change since its beginning, encoded.
    pub(crate) log: Vec<(u16, Bytes)>,
}

/// One workflow id with its runs.
#[derive(Clone)]
pub(crate) struct World {
    /// The id.
    pub(crate) key: ExecutionKey,
    /// Its namespace: retention of one hour.
    pub(crate) namespace: NamespaceView,
    /// The limits; tests lower them.
    pub(crate) limits: Limits,
    /// The clock; moved by [`World::wait`] and, a few nanoseconds, by each decision.
    pub(crate) now: Hlc,
    /// The record of the id.
    pub(crate) record: IdRecord,
    pub(crate) record_log: Vec<(u16, Bytes)>,
    /// All runs, by id.
    pub(crate) runs: BTreeMap<RunId, Stored>,
    /// In the order of their beginning.
    pub(crate) order: Vec<RunId>,
    /// What the last decision changed and answered, as text.
    pub(crate) said: String,
    /// All that was asked and said since the last [`World::expect`].
    pub(crate) log: String,
    /// The build that polling workers tell.
    pub(crate) build_id: String,
    decisions: u64,
}

impl World {
    /// A world in which nothing happened yet.
    pub(crate) fn new() -> World {
        let namespace = NamespaceView {
            id: Uuid([7; 16]),
            name: "default".to_owned(),
            state: NamespaceState::Registered,
            retention: Duration::from_secs(3600),
            search_attributes: BTreeMap::new(),
        };
        World {
            key: ExecutionKey::workflow(namespace.id, "wf"),
            namespace,
            limits: Limits::default(),
            now: EPOCH,
            record: IdRecord::default(),
            record_log: Vec::new(),
            runs: BTreeMap::new(),
            order: Vec::new(),
            said: String::new(),
            log: String::new(),
            build_id: String::new(),
            decisions: 0,
        }
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, seconds: f64) {
        self.now = self.now.after(Duration::from_secs_f64(seconds));
    }

    /// The leader changes: what was not durable is gone.
    pub(crate) fn crash(&mut self) {
        for stored in self.runs.values_mut() {
            stored.live = Live::loaded(stored.live.run, stored.live.state.clone());
        }
    }

    /// A fresh id, as the shell would make one.
    pub(crate) fn uuid(&mut self) -> Uuid {
        self.decisions += 1;
        Uuid::v4(u128::from(self.decisions) << 64)
    }

    /// The current run's id; the newest one's when there is none.
    pub(crate) fn current(&self) -> RunId {
        let current = self.record.current.as_ref().map(|current| current.run_id());
        current.or(self.order.last().copied()).unwrap_or(Uuid::NIL)
    }

    /// The current run.
    pub(crate) fn live(&self) -> &Live {
        &self.runs[&self.current()].live
    }

    /// Its state.
    pub(crate) fn state(&self) -> &State {
        &self.live().state
    }

    /// Decides, follows a discard, checks the laws; the answer, and the text in `said`.
    pub(crate) fn decide(&mut self, input: Input) -> Result<Reply, Rejection> {
        let asked = format!("> {} {}\n", time_text(self.now), input_text(&input));
        let decided = self.decide_whole(input);
        self.log.push_str(&asked);
        self.log.push_str(&self.said);
        decided
    }

    fn decide_whole(&mut self, input: Input) -> Result<Reply, Rejection> {
        self.said.clear();
        let before = self.clone();
        match self.decide_once(input) {
            Ok(reply) => {
                let _ = writeln!(self.said, "=> {}", answer(&reply));
                Ok(reply)
            }
            Err(Halt::Rejected(rejection)) => {
                let _ = writeln!(self.said, "=> {:?}: {}", rejection.code, rejection.message);
                Err(rejection)
            }
            Err(Halt::Discard(input)) => {
                let now = self.now;
                *self = World { now, ..before };
                self.crash();
                let decided = self.decide_whole(*input);
                self.said.insert_str(0, "discarded\n");
                decided
            }
        }
    }

    fn decide_once(&mut self, input: Input) -> Result<Reply, Halt> {
        self.decisions += 1;
        let target = workflow::target(&input);
        let mut draft = self.load(target);
        let time = own_time::of(&draft, target, self.now);
        let env = Env {
            now: time.now,
            ahead: time.ahead,
            ids: IdSource::new(self.decisions),
            namespace: &self.namespace,
            limits: &self.limits,
            stamped: std::cell::Cell::new(0),
        };
        let decided = workflow::decide(&mut draft, input, &env);
        self.now = Hlc(self.now.0 + env.stamped.get() + 1).max(env.clock());
        if !matches!(decided, Err(Halt::Discard(_))) {
            self.store(draft);
        }
        decided
    }

    fn load(&self, target: Target) -> Draft {
        let run = match target {
            Target::Run(run) => Some(run),
            Target::Current => self.record.current.as_ref().map(|current| current.run_id()),
        };
        let runs = run.and_then(|run| self.runs.get(&run)).map(|stored| stored.live.clone());
        let record = RecordLive { record: self.record.clone(), changes: Vec::new() };
        Draft { key: self.key.clone(), record, runs: runs.into_iter().collect() }
    }

    fn store(&mut self, draft: Draft) {
        let several = self.order.len() + draft.runs.len() > 1 && draft.runs.len() > 1;
        let known: Vec<RunId> = self.order.clone();
        let mut bytes = draft.record.record.encoded_len();
        for mut live in draft.runs {
            if !live.changes.is_empty() {
                bytes += decision_bytes(&live);
                let size = live.state.encoded_len() as u64;
                assert!(size <= live.size.bound(), "the bound of a state is one");
                let small = size <= self.limits.state_bytes;
                let looked_at = live.state.is_open() && known.contains(&live.run);
                assert!(small || !looked_at, "an open state is within its limit");
            }
            let changes = std::mem::take(&mut live.changes);
            let dirty = std::mem::take(&mut live.dirty);
            if !self.runs.contains_key(&live.run) {
                self.order.push(live.run);
            }
            if several && !changes.is_empty() {
                let number = self.order.iter().position(|run| *run == live.run).unwrap_or(0) + 1;
                let _ = writeln!(self.said, "run {number}");
            }
            let mut log = self.runs.remove(&live.run).map_or(Vec::new(), |stored| stored.log);
            for change in &changes {
                let _ = writeln!(self.said, "  {}", change_text(change));
                log.push(change.encode());
            }
            self.follow(&mut live, &dirty);
            check_fold(&live, &log, self.decisions);
            check_history(&log);
            self.runs.insert(live.run, Stored { live, log });
        }
        bytes += draft.record.changes.iter().map(Change::encoded_len).sum::<usize>();
        assert!(bytes <= DECISION_BYTES, "a decision of {bytes} bytes; {}", self.said);
        for change in &draft.record.changes {
            let _ = writeln!(self.said, "  record {}", change_text(change));
            self.record_log.push(change.encode());
        }
        self.record = draft.record.record;
        let mut folded = IdRecord::default();
        for (tag, body) in &self.record_log {
            id_record::apply(&mut folded, &decoded(*tag, body));
        }
        assert_eq!(folded, self.record, "the record refolds from its bytes");
    }

    fn follow(&mut self, live: &mut Live, dirty: &Dirty) {
        let diff = rows::diff(&mut live.rows, &live.state, dirty);
        assert_eq!(live.rows, rows::all(&live.state), "rows follow from the state; {}", self.said);
        for row in diff.removed {
            let _ = writeln!(self.said, "  row - {}", row_text(&row));
        }
        for row in diff.added {
            let _ = writeln!(self.said, "  row + {}", row_text(&row));
        }
        if let Some((_, new)) = diff.deadline {
            let _ = writeln!(self.said, "  deadline {}", new.map_or("none".to_owned(), time_text));
        }
        if live.state.closed_at != 0 {
            assert!(live.overlay.grants.is_empty(), "a closed run has nothing granted");
        }
    }

    /// Decides and gives the text.
    pub(crate) fn say(&mut self, input: Input) -> String {
        let _ = self.decide(input);
        self.said.clone()
    }

    /// The events of a run, one line each.
    pub(crate) fn history_of(&self, run: RunId) -> String {
        let events = events(&self.runs[&run].log);
        events.iter().map(|event| format!("{}\n", event_text(event))).collect()
    }

    /// The events of the current run, one line each.
    pub(crate) fn history(&self) -> String {
        self.history_of(self.current())
    }

    /// The events of a run.
    pub(crate) fn events_of(&self, run: RunId) -> Vec<HistoryEvent> {
        events(&self.runs[&run].log)
    }

    /// The events of the current run.
    pub(crate) fn events(&self) -> Vec<HistoryEvent> {
        self.events_of(self.current())
    }

    /// The transcript so far is `text`, which begins with a line break. Forgets it.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let log = std::mem::take(&mut self.log);
        assert!(log == text.trim_start_matches('\n'), "the transcript is\n<<<\n{log}>>>");
    }

    /// Forgets the transcript so far.
    pub(crate) fn forget(&mut self) {
        self.log.clear();
    }

    // Inputs, short.

    /// A start request with nothing optional set.
    pub(crate) fn start_request(&mut self) -> rpc::StartWorkflowExecutionRequest {
        rpc::StartWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            workflow_id: "wf".to_owned(),
            workflow_type: Some(WorkflowType { name: "type".to_owned() }),
            task_queue: Some(TaskQueue { name: "queue".to_owned(), ..TaskQueue::default() }),
            identity: "client".to_owned(),
            request_id: format!("start-{}", self.order.len() + 1),
            ..rpc::StartWorkflowExecutionRequest::default()
        }
    }

    /// Starts the workflow.
    pub(crate) fn start(&mut self) -> String {
        let request = self.start_request();
        self.say(Input::Start(Box::new(request)))
    }

    /// Signals the current run.
    pub(crate) fn signal(&mut self, name: &str, request_id: &str) -> String {
        self.say(Input::Signal(Box::new(rpc::SignalWorkflowExecutionRequest {
            workflow_execution: Some(self.execution()),
            signal_name: name.to_owned(),
            identity: "client".to_owned(),
            request_id: request_id.to_owned(),
            ..rpc::SignalWorkflowExecutionRequest::default()
        })))
    }

    /// The id without a run.
    pub(crate) fn execution(&self) -> WorkflowExecution {
        WorkflowExecution { workflow_id: "wf".to_owned(), run_id: String::new() }
    }

    /// Polls the queue that the workflow task waits on.
    pub(crate) fn poll(&mut self) -> WorkflowTaskGrant {
        let row = self.live().rows.workflow_task.clone().expect("a workflow task waits");
        match self.poll_as(&row, "worker") {
            Some(Reply::WorkflowTask(grant)) => *grant,
            other => panic!("no workflow task: {other:?}"),
        }
    }

    /// Polls with an offer that may be old; `None` when there is nothing behind it.
    pub(crate) fn poll_as(&mut self, row: &BacklogRow, identity: &str) -> Option<Reply> {
        let (run, scheduled, stamp) = (self.current(), row.scheduled, row.stamp);
        let poller = Poller {
            identity: identity.to_owned(),
            queue: row.queue.clone(),
            kind: if row.sticky { TaskQueueKind::Sticky } else { TaskQueueKind::Normal },
            start_id: self.uuid(),
            build_id: self.build_id.clone(),
        };
        let input = match row.task {
            crate::live::TaskType::Workflow => {
                Input::GrantWorkflowTask { run, scheduled, stamp, poller }
            }
            crate::live::TaskType::Activity => {
                Input::GrantActivity { run, scheduled, stamp, poller }
            }
        };
        self.decide(input).ok().filter(|reply| *reply != Reply::Gone)
    }

    /// Completes a workflow task.
    pub(crate) fn complete(&mut self, token: &TaskToken, commands: Vec<Command>) -> String {
        let request = completion(commands);
        self.complete_with(token, request)
    }

    /// Completes a workflow task with a request of the test's own.
    pub(crate) fn complete_with(
        &mut self,
        token: &TaskToken,
        request: rpc::RespondWorkflowTaskCompletedRequest,
    ) -> String {
        self.say(Input::WorkflowTaskCompleted { token: token.clone(), request: Box::new(request) })
    }

    /// Polls and completes at once.
    pub(crate) fn turn(&mut self, commands: Vec<Command>) -> String {
        let task = self.poll();
        self.complete(&task.token, commands)
    }

    /// Makes grants of the current run durable, as the shard does within 20 ms.
    pub(crate) fn flush(&mut self) -> String {
        let run = self.current();
        self.say(Input::FlushStarts { run })
    }

    /// Waits for the deadline of the current run and lets it come due.
    pub(crate) fn due(&mut self) -> String {
        let run = self.current();
        let at = self.live().rows.deadline.expect("the run has a deadline");
        self.now = self.now.max(at);
        self.say(Input::Due { run })
    }
}

/// A completion by the worker of [`World::poll`].
pub(crate) fn completion(commands: Vec<Command>) -> rpc::RespondWorkflowTaskCompletedRequest {
    rpc::RespondWorkflowTaskCompletedRequest {
        identity: "worker".to_owned(),
        commands,
        ..rpc::RespondWorkflowTaskCompletedRequest::default()
    }
}

/// A command of the type that goes with its attributes.
pub(crate) fn command(kind: CommandType, attributes: CommandAttributes) -> Command {
    Command { command_type: kind as i32, attributes: Some(attributes), ..Command::default() }
}

/// What a decision makes of one run: its changes, a checkpoint, and rows at their largest.
fn decision_bytes(live: &Live) -> usize {
    let changes: usize = live.changes.iter().map(Change::encoded_len).sum();
    let rows = rows::all(&live.state);
    let tasks = rows.workflow_task.iter().chain(rows.activities.values());
    let tasks: usize = tasks.map(|row| row.queue.len() + 100).sum();
    let visible = rows.visibility.map_or(0, |record| record.encoded_len());
    changes + live.state.encoded_len() + tasks + visible
}

fn decoded(tag: u16, body: &[u8]) -> Change {
    Change::decode(tag, body).expect("what was written can be read")
}

fn fold(mut state: State, log: &[(u16, Bytes)]) -> State {
    let mut dirty = Dirty::default();
    for (tag, body) in log {
        workflow::apply(&mut state, &decoded(*tag, body), &mut dirty);
    }
    state
}

fn check_fold(live: &Live, log: &[(u16, Bytes)], seed: u64) {
    assert_eq!(fold(State::default(), log), live.state, "the run refolds from its bytes");
    let split = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % (log.len() + 1);
    let checkpoint = fold(State::default(), &log[..split]).encode_to_vec();
    let checkpoint = State::decode(checkpoint.as_slice()).expect("a checkpoint can be read");
    assert_eq!(fold(checkpoint, &log[split..]), live.state, "and from a checkpoint at {split}");
    let last = State::decode(live.state.encode_to_vec().as_slice()).expect("so can this one");
    assert_eq!(last, live.state, "a checkpoint holds all of the state");
}

pub(crate) fn events(log: &[(u16, Bytes)]) -> Vec<HistoryEvent> {
    let events = log.iter().filter(|(tag, _)| *tag == crate::change::EVENT_TAG);
    events.map(|(_, body)| HistoryEvent::decode(body.clone()).expect("an event")).collect()
}

fn check_history(log: &[(u16, Bytes)]) {
    let events = events(log);
    for (n, pair) in events.windows(2).enumerate() {
        let [a, b] = pair else { continue };
        assert_eq!((a.event_id, b.event_id), (n as i64 + 1, n as i64 + 2), "ids have no hole");
        assert!(a.task_id < b.task_id, "task ids rise: {a:?} {b:?}");
    }
    // A start of an activity is written with its close, and says when it was.
    let late = |e: &&HistoryEvent| e.event_type() != EventType::ActivityTaskStarted;
    let at = |e: &HistoryEvent| e.event_time.as_ref().map(Hlc::from_timestamp);
    let ordered: Vec<_> = events.iter().filter(late).collect();
    for pair in ordered.windows(2) {
        let [a, b] = pair else { continue };
        assert!(at(a) <= at(b), "times do not fall: {a:?} {b:?}");
    }
}

// Text.

fn input_text(input: &Input) -> String {
    match input {
        Input::Start(r) => format!("start by {}", r.request_id),
        Input::SignalWithStart(r) => {
            format!("signal {} with start by {}", r.signal_name, r.request_id)
        }
        Input::Signal(r) => format!("signal {} by {}", r.signal_name, r.request_id),
        Input::RequestCancel(r) => format!("request cancel by {}", r.request_id),
        Input::Terminate(r) => format!("terminate {:?}", r.reason),
        Input::Describe { .. } => "describe".to_owned(),
        Input::History { .. } => "history".to_owned(),
        Input::GrantWorkflowTask { scheduled, stamp, poller, .. } => {
            format!("{} polls task {scheduled} stamp {stamp} on {}", poller.identity, poller.queue)
        }
        Input::GrantActivity { scheduled, stamp, poller, .. } => format!(
            "{} polls activity {scheduled} stamp {stamp} on {}",
            poller.identity, poller.queue
        ),
        Input::Revoke { .. } => "revoke".to_owned(),
        Input::FlushStarts { .. } => "flush starts".to_owned(),
        Input::WorkflowTaskCompleted { token, request } => format!(
            "completed {} {} attempt {} with {} commands",
            token.scheduled,
            token.started,
            token.attempt,
            request.commands.len()
        ),
        Input::WorkflowTaskRefused { .. } => "refused".to_owned(),
        Input::Overgrown { .. } => "overgrown".to_owned(),
        Input::WorkflowTaskFailed { token, .. } => {
            format!("failed {} {} attempt {}", token.scheduled, token.started, token.attempt)
        }
        Input::ActivityCompleted { .. } => "activity completed".to_owned(),
        Input::ActivityFailed { .. } => "activity failed".to_owned(),
        Input::ActivityCanceled { .. } => "activity canceled".to_owned(),
        Input::Heartbeat { .. } => "heartbeat".to_owned(),
        Input::ResetSticky { .. } => "reset sticky".to_owned(),
        Input::StickyUnavailable { scheduled, stamp, .. } => {
            format!("sticky worker of {scheduled} stamp {stamp} is gone")
        }
        Input::Due { .. } => "due".to_owned(),
        Input::Delete { .. } => "delete".to_owned(),
    }
}

/// A time as its distance from the beginning of the world, to the millisecond.
pub(crate) fn time_text(at: Hlc) -> String {
    let millis = at.since(EPOCH).as_millis();
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

fn row_text(row: &BacklogRow) -> String {
    let sticky = if row.sticky { " sticky" } else { "" };
    format!(
        "{:?} {} of {} attempt {} stamp {} at {}{sticky}",
        row.task,
        row.queue,
        row.scheduled,
        row.attempt,
        row.stamp,
        time_text(row.at)
    )
}

/// An event in one line: id, type, and what tells it from others of its type.
pub(crate) fn event_text(event: &HistoryEvent) -> String {
    let kind = event.event_type().as_str_name().trim_start_matches("EVENT_TYPE_");
    let more = match &event.attributes {
        Some(Attributes::WorkflowTaskScheduledEventAttributes(a)) => {
            let queue = a.task_queue.clone().unwrap_or_default().name;
            let seconds = a.start_to_close_timeout.map_or(0, |d| d.seconds);
            format!(" {queue} attempt {} timeout {seconds}s", a.attempt)
        }
        Some(Attributes::WorkflowTaskStartedEventAttributes(a)) => {
            format!(" of {} by {}", a.scheduled_event_id, a.identity)
        }
        Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => {
            format!(" of {} {}", a.scheduled_event_id, a.started_event_id)
        }
        Some(Attributes::WorkflowTaskFailedEventAttributes(a)) => format!(
            " of {} {} {:?} by {}",
            a.scheduled_event_id,
            a.started_event_id,
            a.cause(),
            a.identity
        ),
        Some(Attributes::WorkflowTaskTimedOutEventAttributes(a)) => {
            format!(" of {} {} {:?}", a.scheduled_event_id, a.started_event_id, a.timeout_type())
        }
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) => {
            format!(" {}", a.signal_name)
        }
        Some(Attributes::WorkflowExecutionTerminatedEventAttributes(a)) => {
            format!(" {:?} by {}", a.reason, a.identity)
        }
        _ => String::new(),
    };
    format!("{} {kind}{more}", event.event_id)
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Event(event) => event_text(event),
        Change::Buffered(event) => {
            format!("buffered {}", event_text(event).trim_start_matches("0 "))
        }
        Change::BufferFlushed(b) => format!("buffer of {} flushed", b.count),
        Change::TaskAttempt(b) => format!(
            "task attempt {} as {} timeout {}s",
            b.attempt,
            b.scheduled,
            b.timeout / 1_000_000_000
        ),
        Change::TaskStarted(b) => format!("task started as {} by {}", b.started, b.identity),
        Change::TaskUnstarted(b) if b.moved => "task moved to the normal queue".to_owned(),
        Change::TaskUnstarted(_) => "task ended".to_owned(),
        Change::StickySet(b) if b.queue.is_empty() => "sticky cleared".to_owned(),
        Change::StickySet(b) => format!("sticky {}", b.queue),
        Change::AttemptStarted(b) => {
            format!("attempt of {} started by {}", b.scheduled, b.identity)
        }
        Change::AttemptRetried(b) => {
            format!("attempt of {} retried at {}", b.scheduled, time_text(Hlc(b.at)))
        }
        Change::Heartbeated(b) => format!("heartbeat of {}", b.scheduled),
        Change::HeartbeatRearmed(b) => {
            format!("heartbeat of {} due {}", b.scheduled, time_text(Hlc(b.due)))
        }
        Change::BufferDropped(b) => format!("firing of {} dropped from the buffer", b.timer_id),
        Change::RequestSeen(b) => format!("request {} seen", b.id),
        Change::CurrentRun(b) if b.run.is_empty() => "no current run".to_owned(),
        Change::CurrentRun(b) => format!(
            "current run {:?}",
            holdfast_proto::enums::WorkflowExecutionStatus::try_from(b.status).expect("a status")
        ),
        Change::RetentionSet(b) => format!("leaves at {}", time_text(Hlc(b.delete_at))),
        Change::Ahead(b) => format!("ahead of the clock by {} ms", b.by / 1_000_000),
        Change::StartedBy(b) => format!("started by request {}", b.request_id),
        Change::RunDeleted => "deleted".to_owned(),
    }
}

fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Done => "done".to_owned(),
        Reply::Started(s) if s.started => "started".to_owned(),
        Reply::Started(s) if s.attached => "existing run, request attached".to_owned(),
        Reply::Started(_) => "existing run".to_owned(),
        Reply::Signaled(_) => "signaled".to_owned(),
        Reply::Described(_) => "described".to_owned(),
        Reply::History(view) => {
            format!("history to {}, {} transient", view.next_event - 1, view.transient.len())
        }
        Reply::WorkflowTask(grant) => task_text(grant),
        Reply::ActivityTask(grant) => {
            format!("activity task {} attempt {}", grant.token.activity_id, grant.token.attempt)
        }
        Reply::Completed { next, activities } => {
            let next =
                next.as_ref().map_or(String::new(), |next| format!(", with {}", task_text(next)));
            let eager: String = activities
                .iter()
                .map(|a| format!(", with activity {}", a.token.activity_id))
                .collect();
            format!("completed{next}{eager}")
        }
        Reply::Heartbeat { cancel_requested } => format!("heartbeat, cancel {cancel_requested}"),
        Reply::Gone => "gone".to_owned(),
    }
}

fn task_text(grant: &WorkflowTaskGrant) -> String {
    let tail: String = grant.tail.iter().map(|event| format!(" [{}]", event_text(event))).collect();
    format!(
        "task {} {} attempt {} events {}..{}{tail} previous {}",
        grant.token.scheduled,
        grant.token.started,
        grant.token.attempt,
        grant.first_event,
        grant.next_event,
        grant.previous_started
    )
}
