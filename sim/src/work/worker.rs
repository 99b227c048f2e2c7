//! A scripted worker: polls its queue and its sticky queue on every node, replays what it gets,
//! answers what the program says. It is as forgetful, slow and mortal as the seed wants.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_api::service::workflow::workflow_service_server::WorkflowService;
use holdfast_proto::enums::WorkflowTaskFailedCause;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;
use holdfast_proto::taskqueue::{StickyExecutionAttributes, TaskQueue};
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::types::NodeId;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::attempts;
use super::calls::{Failed, Patience, insist, one_call};
use super::machine::Machine;
use super::order::Order;
use super::reads::weigh;
use super::wire::{NAMESPACE, execution, millis, queue, sticky, time};
use super::{Eager, Shared, asked, gifts, lock};
use crate::record::{Got, Kind, Moment, Outcome, Poll, Saw, Told};
use crate::rng::Rng;

/// Runs that a worker keeps in its cache.
const CACHED: usize = 200;

/// Attempts of a workflow task from which on a worker does what it should: later ones get minutes.
const SETTLES: i32 = 3;

/// The queue whose workers ask for a rate, where the scenario has one.
const LIMITED: &str = "q0";

/// In the names of the heartbeats of workflow tasks.
pub(crate) const HEARTBEAT: &str = "-beat";

/// First tasks of eager starts that wait for a worker; more are lost with their client.
const EAGER: usize = 8;

/// So many tasks in a second are no limit to a simulation.
const UNLIMITED: u32 = 1_000;

/// How long an answer is tried.
const ANSWER: Patience =
    Patience { each: Duration::from_secs(3), total: Duration::from_secs(6), repeat: true };

/// One worker process.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
    pub(crate) queue: String,
    number: u32,
    /// How often it died. Each life has a sticky queue of its own.
    deaths: AtomicU64,
    cache: Mutex<BTreeMap<String, Machine>>,
    serial: AtomicU64,
}

/// Spawns the pollers of one worker.
pub(crate) fn spawn(shared: &Arc<Shared>, number: u32, tasks: &mut JoinSet<()>) {
    let plan = &shared.scenario.workload;
    let worker = Arc::new(Worker {
        shared: shared.clone(),
        name: format!("w{number}").into(),
        queue: format!("q{}", number % plan.queues.min(plan.workers).max(1)),
        number,
        deaths: AtomicU64::new(0),
        cache: Mutex::default(),
        serial: AtomicU64::new(0),
    });
    let (give, taken) = mpsc::channel(EAGER);
    lock(&shared.eager).push((worker.queue.clone(), give));
    tasks.spawn(eager(worker.clone(), taken));
    for node in shared.doors.nodes() {
        for own in [false, true] {
            tasks.spawn(poll(worker.clone(), node, own));
        }
        tasks.spawn(attempts::poll(worker.clone(), node));
    }
}

/// How long a poll is given: not the same for all, so that they do not come back at once.
pub(crate) fn poll_time(rng: &mut Rng) -> Duration {
    rng.millis(12_000..22_000)
}

/// Pauses after a poll that failed or came back at once: a paused clock stands while a task spins.
pub(crate) async fn rest(rng: &mut Rng, polled: Instant, failed: bool) {
    if failed {
        sleep(rng.millis(100..900)).await;
    } else if polled.elapsed() < Duration::from_millis(50) {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Takes the first tasks of eager starts.
async fn eager(worker: Arc<Worker>, mut taken: mpsc::Receiver<Eager>) {
    let mut rng = worker.shared.rng(&format!("{} eager", worker.name));
    while let Some((task, invoked)) = taken.recv().await {
        worker.tasks(task, invoked, &mut rng).await;
    }
}

/// Whether a task is one that its run's start gave away: nobody else gets it.
fn is_eager(task: &rpc::PollWorkflowTaskQueueResponse) -> bool {
    let first =
        task.history.as_ref().and_then(|history| history.events.first()?.attributes.as_ref());
    let given = matches!(
        first,
        Some(Event::WorkflowExecutionStartedEventAttributes(a)) if a.eager_execution_accepted
    );
    given && (task.attempt, task.started_event_id) == (1, 3)
}

/// One poller of workflow tasks.
async fn poll(worker: Arc<Worker>, node: NodeId, own: bool) {
    let shared = worker.shared.clone();
    let mut rng = shared.rng(&format!("{} node {node} sticky {own}", worker.name));
    shared.when_ready().await;
    sleep(rng.millis(0..500)).await;
    loop {
        let from: TaskQueue = match own {
            true => sticky(&worker.sticky(), &worker.queue),
            false => queue(&worker.queue),
        };
        let query = rpc::PollWorkflowTaskQueueRequest {
            namespace: NAMESPACE.to_owned(),
            task_queue: Some(from),
            identity: worker.name.to_string(),
            ..rpc::PollWorkflowTaskQueueRequest::default()
        };
        let (invoked, polled) = (shared.record.moment(), Instant::now());
        let time = poll_time(&mut rng);
        let on = query.task_queue.clone().unwrap_or_default().name;
        let answer =
            one_call(&shared, &worker.name, node, time, query, |front, request| async move {
                front.poll_workflow_task_queue(request).await
            })
            .await;
        if let Ok(task) = &answer {
            let got = (!task.task_token.is_empty()).then(|| got_task(task));
            worker.polled((node, on, true), None, invoked, got);
            if is_eager(task) {
                let who = task.workflow_execution.clone().unwrap_or_default();
                let text = format!(
                    "{} was handed the first task of run {} by a poll, which its start gave away",
                    worker.name, who.run_id
                );
                shared.found("A6", &who.workflow_id, text);
            }
            let id = task.workflow_execution.clone().unwrap_or_default().workflow_id.into();
            weigh(&shared, &worker.name, &id, task.encoded_len(), task.history.as_ref());
        }
        match answer {
            Ok(task) if task.task_token.is_empty() => rest(&mut rng, polled, false).await,
            Ok(task) => worker.tasks(task, invoked, &mut rng).await,
            Err(_) => rest(&mut rng, polled, true).await,
        }
    }
}

/// A task as the record of polls has it.
fn got_task(task: &rpc::PollWorkflowTaskQueueResponse) -> Got {
    let who = task.workflow_execution.clone().unwrap_or_default();
    Got {
        id: who.workflow_id,
        run: who.run_id,
        what: format!("workflow task {}, attempt {},", task.started_event_id - 1, task.attempt),
        scheduled: time(task.scheduled_time.as_ref()),
        began: time(task.started_time.as_ref()),
        priority: None,
    }
}

/// What a worker does with a task instead of answering it well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Dies,
    Slow,
    Fails,
    Twice,
}

impl Worker {
    /// The rate that its polls for activities ask for: all workers of a queue the same.
    pub(crate) fn rate(&self) -> Option<u32> {
        let rate = self.shared.scenario.workload.activity_rate;
        (rate > 0 && self.queue == LIMITED).then_some(rate)
    }

    /// The rate that its polls get: the slower of what they ask for and what nodes allow.
    fn allowed(&self, asked: Option<u32>) -> Option<u32> {
        let sizes = &self.shared.scenario.sizes;
        let of_node = (sizes.tasks_per_second < UNLIMITED).then_some(sizes.tasks_per_second);
        [asked, of_node].into_iter().flatten().min()
    }

    /// A name for one answer, unique in the run.
    pub(crate) fn answer_name(&self, what: &str) -> String {
        format!("{}-{what}{}", self.name, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// A node answered a poll of a queue, of workflow tasks or not.
    pub(crate) fn polled(
        &self,
        (node, queue, is_workflow): (NodeId, String, bool),
        rate: Option<u32>,
        invoked: Moment,
        got: Option<Got>,
    ) {
        let (who, returned) = (self.name.clone(), Moment::NEVER);
        let rate = self.allowed(rate);
        let poll = Poll { who, node, queue, is_workflow, rate, invoked, returned, got };
        self.shared.record.polled(poll);
    }

    fn sticky(&self) -> String {
        format!("sticky-{}.{}", self.number, self.deaths.load(Ordering::Relaxed))
    }

    /// The process ends and another one takes its place: it knows nothing, and nobody comes back for
    /// what waits in its sticky queue once the polls that are under way have ended.
    fn dies(&self) {
        self.deaths.fetch_add(1, Ordering::Relaxed);
        lock(&self.cache).clear();
    }

    /// A task, and those that come inside the answers to it.
    async fn tasks(
        &self,
        first: rpc::PollWorkflowTaskQueueResponse,
        invoked: Moment,
        rng: &mut Rng,
    ) {
        let (mut next, mut invoked) = (Some(first), invoked);
        // The worker may have more to do than it can in the time of the task, and says so.
        let mut beats = if rng.one_in(25) { 1 + rng.below(10) } else { 0 };
        while let Some(task) = next.take() {
            let began = self.shared.record.moment();
            if beats > 0 {
                sleep(rng.millis(50..800)).await;
            }
            next = self.task(task, invoked, beats > 0, rng).await;
            (invoked, beats) = (began, beats.saturating_sub(1));
        }
    }

    async fn task(
        &self,
        mut task: rpc::PollWorkflowTaskQueueResponse,
        invoked: Moment,
        beats: bool,
        rng: &mut Rng,
    ) -> Option<rpc::PollWorkflowTaskQueueResponse> {
        let who = task.workflow_execution.clone().unwrap_or_default();
        let (id, run): (Arc<str>, String) = (who.workflow_id.into(), who.run_id);
        let told = Told::Shown {
            run: run.clone(),
            // SCHEDULED and STARTED of the task itself may never be written.
            from: task.started_event_id - 2,
            to: 0,
            closed: Some(false),
        };
        self.shared.handed(asked(Kind::Task, &self.name, &id, ""), invoked, told);
        let mood = match rng.below(100) {
            _ if task.attempt >= SETTLES => Mood::Well,
            0..=1 => Mood::Dies,
            2..=3 => Mood::Slow,
            4 => Mood::Fails,
            5..=6 => Mood::Twice,
            _ => Mood::Well,
        };
        self.shared.trace.line(format_args!(
            "{} task {id}/{run} started {} attempt {}",
            self.name, task.started_event_id, task.attempt
        ));
        if mood == Mood::Dies {
            self.dies();
            return None;
        }
        if rng.one_in(30) {
            lock(&self.cache).remove(&run);
        }
        let machine = self.replay(&id, &run, &mut task).await;
        match mood {
            Mood::Fails => {
                self.fail(&id, &run, task).await;
                None
            }
            Mood::Slow => {
                sleep(rng.millis(200..5_000)).await;
                self.answer(&id, &run, task, machine?, (false, beats), rng).await
            }
            Mood::Twice => self.answer(&id, &run, task, machine?, (true, beats), rng).await,
            Mood::Well | Mood::Dies => {
                self.answer(&id, &run, task, machine?, (false, beats), rng).await
            }
        }
    }

    /// The program as of a task; `None` when the history can't be had or can't be right.
    async fn replay(
        &self,
        id: &Arc<str>,
        run: &str,
        task: &mut rpc::PollWorkflowTaskQueueResponse,
    ) -> Option<Machine> {
        let mut events = task.history.take().unwrap_or_default().events;
        let mut token = task.next_page_token.clone();
        let paged = !token.is_empty();
        while !token.is_empty() {
            let page = self.page(id, run, token).await?;
            events.extend(page.history.unwrap_or_default().events);
            token = page.next_page_token;
        }
        let first = events.first().map_or(0, |event| event.event_id);
        if paged && !ends_with_start(&events, task.started_event_id) {
            // A new leader forgot the start, which was not durable, between two pages.
            return None;
        }
        if let Some(why) = gifts::changed(&events) {
            let text = format!("{} got a task of run {run}: {why}", self.name);
            self.shared.found("C1", id, text);
        }
        if let Err(why) = self.check(run, task, &events) {
            self.shared.found("H1", id, format!("{} got a task of run {run}: {why}", self.name));
            return None;
        }
        let cached =
            lock(&self.cache).remove(run).filter(|it| first > 1 && it.next_event() == first);
        if let Some(mut machine) = cached {
            match feed(&mut machine, &events) {
                Ok(()) => return Some(machine),
                Err(why) => self.shared.trace.line(format_args!("{} cache: {why}", self.name)),
            }
        }
        if first > 1 {
            events = self.whole(id, run, first, events).await?;
        }
        let mut machine = Machine::default();
        if let Err(why) = feed(&mut machine, &events) {
            let text = format!("{} can't replay run {run}: {why}", self.name);
            self.shared.found("H5", id, text);
            return None;
        }
        Some(machine)
    }

    /// Reads what comes before the events of a sticky task.
    async fn whole(
        &self,
        id: &Arc<str>,
        run: &str,
        first: i64,
        tail: Vec<HistoryEvent>,
    ) -> Option<Vec<HistoryEvent>> {
        let mut events: Vec<HistoryEvent> = Vec::new();
        let mut token = bytes::Bytes::new();
        loop {
            let page = self.page(id, run, token).await?;
            events.extend(page.history.unwrap_or_default().events);
            token = page.next_page_token;
            if events.last().is_some_and(|event| event.event_id >= first - 1) || token.is_empty() {
                break;
            }
        }
        let known = events.len();
        events.retain(|event| event.event_id < first);
        if events.len() as i64 != first - 1 {
            let text = format!(
                "{} was handed run {run} from event {first} on, and a read shows {known} events",
                self.name
            );
            self.shared.found("V1", id, text);
            return None;
        }
        events.extend(tail);
        Some(events)
    }

    async fn page(
        &self,
        id: &Arc<str>,
        run: &str,
        token: bytes::Bytes,
    ) -> Option<rpc::GetWorkflowExecutionHistoryResponse> {
        let query = rpc::GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.to_owned(),
            execution: Some(execution(id, run)),
            next_page_token: token,
            ..rpc::GetWorkflowExecutionHistoryRequest::default()
        };
        insist(&self.shared, &self.name, id, ANSWER, query, |front, request| async move {
            front.get_workflow_execution_history(request).await
        })
        .await
        .result
        .ok()
    }

    /// What must hold of every task, whatever its program.
    fn check(
        &self,
        run: &str,
        task: &rpc::PollWorkflowTaskQueueResponse,
        events: &[HistoryEvent],
    ) -> Result<(), String> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err("it has no events".to_owned());
        };
        if !ends_with_start(events, task.started_event_id) {
            return Err(format!(
                "its last event is {} and not its start {}",
                last.event_id, task.started_event_id
            ));
        }
        if first.event_id != 1 && first.event_id != task.previous_started_event_id + 1 {
            return Err(format!(
                "its first event is {}, the task before started with {}",
                first.event_id, task.previous_started_event_id
            ));
        }
        let durable = |event: &&HistoryEvent| event.event_id <= task.started_event_id - 2;
        let count = events.iter().take_while(durable).count();
        lock(&self.shared.seen).take(run, events.get(..count).unwrap_or_default())
    }

    async fn answer(
        &self,
        id: &Arc<str>,
        run: &str,
        task: rpc::PollWorkflowTaskQueueResponse,
        mut machine: Machine,
        (twice, beats): (bool, bool),
        rng: &mut Rng,
    ) -> Option<rpc::PollWorkflowTaskQueueResponse> {
        let orders = match machine.decide() {
            Ok(orders) => orders,
            Err(why) => {
                self.shared.found("H6", id, format!("{} got {why} of run {run}", self.name));
                return None;
            }
        };
        let keeps = !rng.one_in(12);
        let forced = (beats || rng.one_in(12)) && !orders.iter().any(Order::closes);
        let query = rpc::RespondWorkflowTaskCompletedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: task.task_token,
            commands: orders.iter().map(|o| o.command(&self.queue, rng.one_in(4))).collect(),
            identity: String::new(),
            sticky_attributes: keeps.then(|| StickyExecutionAttributes {
                worker_task_queue: Some(sticky(&self.sticky(), &self.queue)),
                schedule_to_start_timeout: Some(millis(rng.within(500..5_000))),
            }),
            return_new_workflow_task: beats || rng.one_in(2),
            force_create_new_workflow_task: forced,
            ..rpc::RespondWorkflowTaskCompletedRequest::default()
        };
        let began = self.shared.record.moment();
        let of = (task.attempt, machine.saw());
        let answered = self.complete(id, run, query.clone(), of).await;
        if twice && answered.is_some() && self.complete(id, run, query, of).await.is_some() {
            let text = format!(
                "{} answered task {} of run {run} twice, and both answers were accepted",
                self.name, task.started_event_id
            );
            self.shared.found("A6", id, text);
        }
        let answered = answered?;
        if forced {
            self.shared.took("heartbeat of a workflow task");
        }
        if keeps && !orders.iter().any(Order::closes) {
            let mut cache = lock(&self.cache);
            if cache.len() >= CACHED {
                cache.pop_first();
            }
            cache.insert(run.to_owned(), machine);
        }
        for activity in answered.activity_tasks {
            attempts::take(self, activity, began, rng).await;
        }
        answered.workflow_task.filter(|task| !task.task_token.is_empty())
    }

    /// Sends one answer under a name of its own.
    async fn complete(
        &self,
        id: &Arc<str>,
        run: &str,
        mut query: rpc::RespondWorkflowTaskCompletedRequest,
        (attempt, saw): (i32, Saw),
    ) -> Option<rpc::RespondWorkflowTaskCompletedResponse> {
        let is_beat = query.force_create_new_workflow_task;
        query.identity = self.answer_name(if is_beat { &HEARTBEAT[1..] } else { "t" });
        let request = query.identity.clone();
        let mut asked = asked(Kind::CompleteTask, &self.name, id, &request);
        asked.run = run.to_owned();
        asked.attempt = Some((String::new(), attempt));
        asked.saw = Some(saw);
        let op = self.shared.begin(asked);
        let answer =
            insist(&self.shared, &self.name, id, ANSWER, query, |front, request| async move {
                front.respond_workflow_task_completed(request).await
            })
            .await;
        let what = format!("{request} complete-task {id}/{run}");
        match answer.result {
            Ok(answered) => {
                self.shared.end(op, &what, Outcome::Ok(Told::Done), answer.unsure);
                Some(answered)
            }
            Err(failed) => {
                if let Failed::Refused(why) = &failed
                    && why.message() == "workflow task heartbeat timeout"
                {
                    self.shared.took("workflow task ended for its heartbeats");
                }
                self.shared.end(op, &what, failed.outcome(), answer.unsure);
                None
            }
        }
    }

    async fn fail(&self, id: &Arc<str>, run: &str, task: rpc::PollWorkflowTaskQueueResponse) {
        let request = self.answer_name("f");
        let query = rpc::RespondWorkflowTaskFailedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: task.task_token,
            cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure as i32,
            failure: Some(gifts::failure(&request, "Planned", false)),
            identity: request.clone(),
            ..rpc::RespondWorkflowTaskFailedRequest::default()
        };
        let mut asked = asked(Kind::FailTask, &self.name, id, &request);
        asked.run = run.to_owned();
        asked.attempt = Some((String::new(), task.attempt));
        let op = self.shared.begin(asked);
        let answer =
            insist(&self.shared, &self.name, id, ANSWER, query, |front, request| async move {
                front.respond_workflow_task_failed(request).await
            })
            .await;
        let outcome = match answer.result {
            Ok(_) => Outcome::Ok(Told::Done),
            Err(failed) => failed.outcome(),
        };
        self.shared.end(op, &format!("{request} fail-task {id}/{run}"), outcome, answer.unsure);
    }
}

/// Whether the last event is the start of the task, under this id.
fn ends_with_start(events: &[HistoryEvent], id: i64) -> bool {
    events.last().is_some_and(|last| {
        let started = matches!(last.attributes, Some(Event::WorkflowTaskStartedEventAttributes(_)));
        started && last.event_id == id
    })
}

fn feed(machine: &mut Machine, events: &[HistoryEvent]) -> Result<(), String> {
    events.iter().try_for_each(|event| machine.feed(event))
}
