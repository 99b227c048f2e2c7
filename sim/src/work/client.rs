//! A client: begins operations at its pace, on few ids, so that policies, cancels and terminations
//! meet. Each operation runs beside the others and is tried as an SDK tries.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::grpc::Frontend;
use holdfast_api::service::workflow::workflow_service_server::WorkflowService;
use holdfast_proto::common::link::Variant;
use holdfast_proto::common::link::workflow_event::Reference;
use holdfast_proto::common::{Payloads, Priority, WorkflowType};
use holdfast_proto::workflow::OnConflictOptions;
use holdfast_proto::workflowservice as rpc;
use prost::Message;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use super::calls::{Patience, insist};
use super::reads::{self, Ask};
use super::wire::{self, NAMESPACE, WORKFLOW_TYPE, execution, millis, queue, text};
use super::{Shared, asked, gifts, lock};
use crate::record::{Asked, Kind, Moment, Outcome, Policies, Told};
use crate::rng::Rng;

/// Operations of one client at once; beyond that it waits.
const AT_ONCE: usize = 64;

/// Blobs are filled where no more bytes than this are allowed.
const LARGE: usize = 64 << 10;

/// What clients do, and how often, unless the scenario says otherwise.
pub(super) const MIX: [(Kind, u32); 12] = [
    (Kind::Start, 26),
    (Kind::Signal, 20),
    (Kind::SignalWithStart, 8),
    (Kind::Cancel, 5),
    (Kind::Terminate, 3),
    (Kind::Describe, 14),
    (Kind::Read, 10),
    (Kind::ReadBack, 2),
    (Kind::Watch, 4),
    (Kind::AwaitClose, 4),
    (Kind::List, 2),
    (Kind::Count, 2),
];

/// One client, for ever.
pub(crate) async fn run(shared: Arc<Shared>, number: u32) {
    let who: Arc<str> = format!("c{number}").into();
    let mut rng = shared.rng(&format!("client {number}"));
    let plan = &shared.scenario.workload;
    let weights = MIX.map(|(kind, usual)| *plan.weights.get(kind.name()).unwrap_or(&usual));
    let per_second = u64::from(plan.operations_per_second.max(1));
    // Twice the mean: the pauses are drawn evenly from zero on.
    let pause = 2_000_000 * u64::from(plan.clients.max(1)) / per_second;
    shared.when_ready().await;
    let mut running = JoinSet::new();
    let mut serial = 0;
    while !shared.is_stopping() {
        sleep(Duration::from_micros(rng.below(pause.max(1)))).await;
        while running.try_join_next().is_some() {}
        if running.len() >= AT_ONCE {
            running.join_next().await;
        }
        let Some((kind, _)) = rng.weighted(&weights).and_then(|at| MIX.get(at)) else { continue };
        serial += 1;
        let operation = Operation {
            shared: shared.clone(),
            who: who.clone(),
            id: format!("w-{}", rng.below(u64::from(plan.workflow_ids.max(1)))).into(),
            request: format!("{who}-{serial}"),
            rng: Rng::stream(rng.bits(), "operation"),
        };
        running.spawn(operation.run(*kind));
    }
    while running.join_next().await.is_some() {}
}

/// Whether a request id that one kind of call had means nothing to another. A signal-with-start
/// knows the ids of both signals and starts when it writes, but a start that was honoured says
/// nothing about whether its signal was.
fn strangers(before: Kind, now: Kind) -> bool {
    matches!(
        (before, now),
        (Kind::Start, Kind::Signal | Kind::SignalWithStart) | (Kind::Signal, Kind::Start)
    )
}

/// What the answer to a start tells. One that was attached to a run is known by its link, which
/// names the request.
fn started(answer: &rpc::StartWorkflowExecutionResponse) -> Told {
    let run = answer.run_id.clone();
    let link = answer.link.as_ref().and_then(|link| link.variant.as_ref());
    match link {
        Some(Variant::WorkflowEvent(event))
            if matches!(event.reference, Some(Reference::RequestIdRef(_))) =>
        {
            Told::Attached { run }
        }
        _ => Told::Started { run, started: answer.started },
    }
}

/// One operation.
struct Operation {
    shared: Arc<Shared>,
    who: Arc<str>,
    id: Arc<str>,
    request: String,
    rng: Rng,
}

impl Operation {
    async fn run(mut self, kind: Kind) {
        match kind {
            Kind::Start => self.start().await,
            Kind::Signal => self.signal().await,
            Kind::SignalWithStart => self.signal_with_start().await,
            Kind::Cancel => self.cancel().await,
            Kind::Terminate => self.terminate().await,
            reading => self.read(reading).await,
        }
    }

    async fn read(mut self, kind: Kind) {
        let (run, page) = (self.maybe_run(), reads::page_size(&mut self.rng));
        let as_sdk = self.request.bytes().last().is_some_and(|digit| digit % 2 == 0);
        let ask = Ask { shared: &self.shared, who: &self.who, id: &self.id, run, page, as_sdk };
        match kind {
            Kind::Describe => drop(reads::describe(&ask, &self.request).await),
            Kind::Read => drop(reads::read(&ask, &self.request).await),
            Kind::ReadBack => {
                // Whatever one way showed, the other shows, too.
                reads::read(&ask, &self.request).await;
                reads::read_back(&ask, &self.request).await;
            }
            Kind::Watch => reads::watch(&ask, &self.request).await,
            Kind::AwaitClose => reads::await_close(&ask, &self.request).await,
            Kind::List => reads::list(&ask, &self.request).await,
            Kind::Count => reads::count(&ask, &self.request).await,
            // Writes are not reads, and the rest is what workers do.
            Kind::Start
            | Kind::Signal
            | Kind::SignalWithStart
            | Kind::Cancel
            | Kind::Terminate
            | Kind::Task
            | Kind::CompleteTask
            | Kind::FailTask
            | Kind::Attempt
            | Kind::CompleteActivity
            | Kind::FailActivity
            | Kind::CancelActivity
            | Kind::Heartbeat => {}
        }
    }

    /// The run that was started last, or none for whatever is current.
    fn maybe_run(&mut self) -> String {
        if self.rng.one_in(3) {
            lock(&self.shared.newest).get(&self.id).cloned().unwrap_or_default()
        } else {
            String::new()
        }
    }

    fn policies(&mut self) -> Policies {
        let reuse = [1, 1, 1, 2, 3][self.rng.below(5) as usize];
        let conflict = [1, 1, 2, 2, 3][self.rng.below(5) as usize];
        // The two exclude each other.
        let conflict = if reuse == 3 && conflict == 3 { 1 } else { conflict };
        Policies { reuse, conflict }
    }

    /// The request id of a call: now and then one that another kind of call on this workflow had.
    fn request_id(&mut self, kind: Kind) -> String {
        if !self.rng.one_in(4) {
            return self.request.clone();
        }
        let mut spent = lock(&self.shared.spent);
        match spent.get(&self.id) {
            Some((before, _)) if strangers(*before, kind) => {}
            _ => return self.request.clone(),
        }
        // Lent once: a third call might be of a kind that one of the two knows.
        let lent = spent.remove(&self.id).map(|(_, request)| request);
        self.shared.took("request id of another kind of call");
        lent.unwrap_or_else(|| self.request.clone())
    }

    /// An acknowledged call: from here on another kind of call may have its request id.
    fn spend(&self, kind: Kind, request_id: &str) {
        if request_id == self.request {
            lock(&self.shared.spent).insert(self.id.clone(), (kind, self.request.clone()));
        }
    }

    fn queue(&mut self) -> String {
        let plan = &self.shared.scenario.workload;
        format!("q{}", self.rng.below(u64::from(plan.queues.min(plan.workers).max(1))))
    }

    /// Makes the call of an operation, from its beginning in the record to its end.
    async fn call<Q, T, C, F>(
        &self,
        asked: Asked,
        patience: Patience,
        query: Q,
        call: C,
        told: impl FnOnce(T) -> Told + Send,
    ) -> Outcome
    where
        Q: Clone + Send + 'static,
        T: Send + 'static,
        C: Fn(Frontend, Request<Q>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let kind = asked.kind;
        let op = self.shared.begin(asked);
        let answer = insist(&self.shared, &self.who, &self.id, patience, query, call).await;
        let outcome = match answer.result {
            Ok(answer) => Outcome::Ok(told(answer)),
            Err(failed) => failed.outcome(),
        };
        if let Outcome::Ok(Told::Started { run, .. } | Told::Attached { run }) = &outcome {
            lock(&self.shared.newest).insert(self.id.clone(), run.clone());
        }
        let what = format!("{} {} {}", self.request, kind.name(), self.id);
        self.shared.end(op, &what, outcome.clone(), answer.unsure);
        outcome
    }

    async fn start(&mut self) {
        let policies = self.policies();
        let some = |rng: &mut Rng, range| rng.one_in(8).then(|| millis(rng.within(range)));
        let run_timeout = some(&mut self.rng, 2_000..15_000);
        let delay = some(&mut self.rng, 100..3_000);
        let request_id = self.request_id(Kind::Start);
        // An attached request is known by its id alone, as none that is lent.
        let attach = policies.conflict == 2 && request_id == self.request && self.rng.one_in(2);
        let query = rpc::StartWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: self.id.to_string(),
            workflow_type: Some(WorkflowType { name: WORKFLOW_TYPE.to_owned() }),
            task_queue: Some(queue(&self.queue())),
            input: Some(gifts::values(&self.rng.bits().to_string(), &self.request, "input")),
            memo: Some(gifts::memo(&self.request)),
            header: Some(gifts::header(&self.request)),
            search_attributes: Some(gifts::attributes(&self.request)),
            identity: self.request.clone(),
            request_id: request_id.clone(),
            workflow_id_reuse_policy: policies.reuse,
            workflow_id_conflict_policy: policies.conflict,
            workflow_task_timeout: Some(millis(self.rng.within(1_000..4_000))),
            workflow_run_timeout: run_timeout,
            workflow_start_delay: delay,
            request_eager_execution: delay.is_none() && self.rng.one_in(5),
            priority: self.priority(),
            on_conflict_options: attach
                .then(|| OnConflictOptions { attach_request_id: true, ..Default::default() }),
            ..rpc::StartWorkflowExecutionRequest::default()
        };
        let mut asked = asked(Kind::Start, &self.who, &self.id, &self.request);
        asked.policies = policies;
        let call =
            |front: Frontend, request| async move { front.start_workflow_execution(request).await };
        let (mut first, invoked, again) = (None, self.shared.record.moment(), query.clone());
        let told = |a: rpc::StartWorkflowExecutionResponse| {
            first = a.eager_workflow_task.clone();
            started(&a)
        };
        let outcome = self.call(asked, Patience::USUAL, query, call, told).await;
        if let Some(first) = first {
            self.give(first, invoked, &again);
        }
        match outcome {
            Outcome::Ok(Told::Attached { run }) => self.attach_again(again, &run).await,
            Outcome::Ok(_) => self.spend(Kind::Start, &request_id),
            _ => {}
        }
    }

    /// The first task of an eager start goes to a worker, unless its client ends before that.
    fn give(
        &mut self,
        first: rpc::PollWorkflowTaskQueueResponse,
        invoked: Moment,
        query: &rpc::StartWorkflowExecutionRequest,
    ) {
        self.shared.took("eager start");
        if self.rng.one_in(6) {
            return;
        }
        let queue = query.task_queue.as_ref().map_or("", |queue| queue.name.as_str());
        let workers = lock(&self.shared.eager);
        let of_queue: Vec<_> = workers.iter().filter(|(name, _)| name == queue).collect();
        let count = of_queue.len() as u64;
        if let Some((_, worker)) = of_queue.get(self.rng.below(count.max(1)) as usize) {
            // A worker that has too many lets it time out.
            let _lost = worker.try_send((first, invoked));
        }
    }

    /// A start that was attached to a run is, now and then, sent once more: it is told the same,
    /// whatever became of the run meanwhile.
    async fn attach_again(&mut self, query: rpc::StartWorkflowExecutionRequest, run: &str) {
        self.shared.took("start attached to a run");
        if !self.rng.one_in(2) {
            return;
        }
        sleep(self.rng.millis(0..8_000)).await;
        let call =
            |front: Frontend, request| async move { front.start_workflow_execution(request).await };
        let (shared, who) = (&self.shared, &self.who);
        let answer = insist(shared, who, &self.id, Patience::USUAL, query, call).await;
        let told = match answer.result {
            Ok(answer) => Outcome::Ok(started(&answer)),
            Err(failed) => failed.outcome(),
        };
        let same = Told::Attached { run: run.to_owned() };
        match &told {
            Outcome::Ok(told) if *told == same => shared.took("attached start again"),
            Outcome::Ok(_) | Outcome::Refused { .. } => {
                let text = format!(
                    "{who} asked again for start {} ({}), which was attached to run {run}, and was \
                     told {told:?}",
                    self.id, self.request
                );
                shared.found("A1", &self.id, text);
            }
            Outcome::Open | Outcome::Unknown | Outcome::NotSent => {}
        }
    }

    /// None for most; the others differ, so that some pass others in their queue.
    fn priority(&mut self) -> Option<Priority> {
        self.rng.one_in(2).then(|| {
            self.shared.took("start with a priority");
            wire::priority(self.rng.within(1..6) as i32)
        })
    }

    /// What a signal carries: now and then as much as is allowed, or a little more. Says whether it
    /// is too much.
    fn signal_input(&mut self) -> (Payloads, bool) {
        let limit = self.shared.scenario.sizes.blob_bytes;
        let plain = gifts::values(&self.request, &self.request, "signal");
        if limit > LARGE || !self.rng.one_in(8) {
            return (plain, false);
        }
        self.shared.took("large signal");
        let wanted = limit + self.rng.below(5) as usize - 2;
        let filled = |more: usize| text(&format!("{} {}", self.request, "x".repeat(more)));
        let more = wanted.saturating_sub(plain.encoded_len());
        let fit = (0..=more).rev().map(filled).find(|it| it.encoded_len() <= wanted);
        let input = fit.unwrap_or(plain);
        let over = input.encoded_len() > limit;
        (input, over)
    }

    /// What is too large is refused for that, and nothing else is.
    fn check_size(&self, over: bool, outcome: &Outcome) {
        let limit = self.shared.scenario.sizes.blob_bytes;
        let refused = match outcome {
            Outcome::Ok(_) => false,
            Outcome::Refused { text, .. } => text.contains("Blob data size"),
            Outcome::Open | Outcome::Unknown | Outcome::NotSent => return,
        };
        let wrong = match outcome {
            Outcome::Ok(_) => over,
            _ => refused && !over,
        };
        if wrong {
            let what = if over { "more" } else { "no more" };
            let text = format!(
                "{} signals {} ({}) with {what} than {limit} bytes and is told {outcome:?}",
                self.who, self.id, self.request
            );
            self.shared.found("T7", &self.id, text);
        }
    }

    async fn signal(&mut self) {
        let run = self.maybe_run();
        let request_id = self.request_id(Kind::Signal);
        let (input, over) = self.signal_input();
        let query = rpc::SignalWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_execution: Some(execution(&self.id, &run)),
            signal_name: "go".to_owned(),
            input: Some(input),
            header: Some(gifts::header(&self.request)),
            identity: self.request.clone(),
            request_id: request_id.clone(),
            ..rpc::SignalWorkflowExecutionRequest::default()
        };
        let mut asked = asked(Kind::Signal, &self.who, &self.id, &self.request);
        asked.run = run;
        let call = |front: Frontend, request| async move {
            front.signal_workflow_execution(request).await
        };
        let outcome = self.call(asked, Patience::USUAL, query, call, |_| Told::Done).await;
        self.check_size(over, &outcome);
        if matches!(outcome, Outcome::Ok(_)) {
            self.spend(Kind::Signal, &request_id);
        }
    }

    async fn signal_with_start(&mut self) {
        let policies = self.policies();
        let request_id = self.request_id(Kind::SignalWithStart);
        let query = rpc::SignalWithStartWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: self.id.to_string(),
            workflow_type: Some(WorkflowType { name: WORKFLOW_TYPE.to_owned() }),
            task_queue: Some(queue(&self.queue())),
            input: Some(gifts::values(&self.rng.bits().to_string(), &self.request, "input")),
            memo: Some(gifts::memo(&self.request)),
            header: Some(gifts::header(&self.request)),
            search_attributes: Some(gifts::attributes(&self.request)),
            identity: self.request.clone(),
            request_id: request_id.clone(),
            signal_name: "go".to_owned(),
            signal_input: Some(gifts::values(&self.request, &self.request, "signal")),
            workflow_id_reuse_policy: policies.reuse,
            workflow_id_conflict_policy: if policies.conflict == 1 { 2 } else { policies.conflict },
            workflow_task_timeout: Some(millis(self.rng.within(1_000..4_000))),
            priority: self.priority(),
            ..rpc::SignalWithStartWorkflowExecutionRequest::default()
        };
        let mut asked = asked(Kind::SignalWithStart, &self.who, &self.id, &self.request);
        asked.policies = policies;
        let told = |a: rpc::SignalWithStartWorkflowExecutionResponse| Told::Started {
            run: a.run_id,
            started: a.started,
        };
        let call = |front: Frontend, request| async move {
            front.signal_with_start_workflow_execution(request).await
        };
        let _outcome = self.call(asked, Patience::USUAL, query, call, told).await;
    }

    async fn cancel(&mut self) {
        let run = self.maybe_run();
        // Without a run a repeated request might hit the next one.
        let patience = if run.is_empty() { Patience::ONCE } else { Patience::USUAL };
        let query = rpc::RequestCancelWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_execution: Some(execution(&self.id, &run)),
            identity: self.request.clone(),
            request_id: self.request.clone(),
            ..rpc::RequestCancelWorkflowExecutionRequest::default()
        };
        let mut asked = asked(Kind::Cancel, &self.who, &self.id, &self.request);
        asked.run = run;
        let call = |front: Frontend, request| async move {
            front.request_cancel_workflow_execution(request).await
        };
        let _outcome = self.call(asked, patience, query, call, |_| Told::Done).await;
    }

    async fn terminate(&mut self) {
        let run = self.maybe_run();
        let patience = if run.is_empty() { Patience::ONCE } else { Patience::USUAL };
        let query = rpc::TerminateWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_execution: Some(execution(&self.id, &run)),
            identity: self.request.clone(),
            reason: "planned".to_owned(),
            details: Some(gifts::values("planned", &self.request, "details")),
            ..rpc::TerminateWorkflowExecutionRequest::default()
        };
        let mut asked = asked(Kind::Terminate, &self.who, &self.id, &self.request);
        asked.run = run;
        let call = |front: Frontend, request| async move {
            front.terminate_workflow_execution(request).await
        };
        let _outcome = self.call(asked, patience, query, call, |_| Told::Done).await;
    }
}
