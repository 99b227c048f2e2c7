//! The side of a worker that runs activities: what an attempt does follows from its input and its
//! number, but workers die, are slow and repeat themselves on top of that.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::service::workflow::workflow_service_server::WorkflowService;
use holdfast_engine::validate::priority_level;
use holdfast_proto::common::Payloads;
use holdfast_proto::taskqueue::TaskQueueMetadata;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::types::NodeId;
use tokio::time::{Instant, sleep};

use super::calls::{Answer, Failed, Patience, insist, one_call};
use super::program::{End, Job};
use super::wire::{NAMESPACE, queue, text, text_of, time};
use super::worker::{Worker, poll_time, rest};
use super::{gifts, lock};
use crate::record::{Asked, Got, Kind, Moment, Outcome, Policies, Told};
use crate::rng::Rng;

/// How long an answer is tried.
const ANSWER: Patience =
    Patience { each: Duration::from_secs(3), total: Duration::from_secs(8), repeat: true };

/// One poller of activity tasks.
pub(crate) async fn poll(worker: Arc<Worker>, node: NodeId) {
    let shared = worker.shared.clone();
    let mut rng = shared.rng(&format!("{} node {node} activities", worker.name));
    shared.when_ready().await;
    sleep(rng.millis(0..500)).await;
    loop {
        let query = rpc::PollActivityTaskQueueRequest {
            namespace: NAMESPACE.to_owned(),
            task_queue: Some(queue(&worker.queue)),
            identity: worker.name.to_string(),
            task_queue_metadata: worker
                .rate()
                .map(|rate| TaskQueueMetadata { max_tasks_per_second: Some(f64::from(rate)) }),
            ..rpc::PollActivityTaskQueueRequest::default()
        };
        let (invoked, polled) = (shared.record.moment(), Instant::now());
        let time = poll_time(&mut rng);
        let answer =
            one_call(&shared, &worker.name, node, time, query, |front, request| async move {
                front.poll_activity_task_queue(request).await
            })
            .await;
        if let Ok(task) = &answer {
            let got = (!task.task_token.is_empty()).then(|| got_attempt(task));
            worker.polled((node, worker.queue.clone(), false), worker.rate(), invoked, got);
        }
        match answer {
            Ok(task) if task.task_token.is_empty() => rest(&mut rng, polled, false).await,
            Ok(task) => take(&worker, task, invoked, &mut rng).await,
            Err(_) => rest(&mut rng, polled, true).await,
        }
    }
}

/// An attempt as the record of polls has it. One that is tried again waits from when it is due on.
fn got_attempt(task: &rpc::PollActivityTaskQueueResponse) -> Got {
    let who = task.workflow_execution.clone().unwrap_or_default();
    Got {
        id: who.workflow_id,
        run: who.run_id,
        what: format!("attempt {} of activity {}", task.attempt, task.activity_id),
        scheduled: time(task.current_attempt_scheduled_time.as_ref()),
        began: time(task.started_time.as_ref()),
        priority: Some(priority_level(task.priority.as_ref())),
    }
}

/// One attempt in the hands of a worker.
struct Attempt<'a> {
    worker: &'a Worker,
    id: Arc<str>,
    run: String,
    activity: String,
    number: i32,
    token: bytes::Bytes,
    /// Heartbeats so far.
    beats: u32,
}

/// How the worker's own work on it ended.
enum Worked {
    Done,
    /// Asked to stop.
    Stop,
    /// Nobody wants the answer any more, or the worker is gone.
    Gone,
}

/// Runs one attempt to its end.
pub(crate) async fn take(
    worker: &Worker,
    task: rpc::PollActivityTaskQueueResponse,
    invoked: Moment,
    rng: &mut Rng,
) {
    let who = task.workflow_execution.clone().unwrap_or_default();
    let mut attempt = Attempt {
        worker,
        id: who.workflow_id.into(),
        run: who.run_id,
        activity: task.activity_id.clone(),
        number: task.attempt,
        token: task.task_token.clone(),
        beats: 0,
    };
    attempt.handed(&task, invoked);
    let Ok(seed) = text_of(task.input.as_ref()).parse() else {
        let text = format!("{} got an activity without its input", worker.name);
        worker.shared.found("H5", &attempt.id, text);
        return;
    };
    let conduct = Job::generate(seed).conduct(task.attempt);
    if rng.one_in(60) {
        return; // the worker dies
    }
    let stays_silent = rng.one_in(50);
    let beat_ms = if stays_silent { 0 } else { conduct.beat_ms };
    let worked = attempt.work(conduct.millis, beat_ms).await;
    match (worked, conduct.end) {
        (Worked::Gone, _) | (Worked::Done, End::Vanish) => {}
        (Worked::Stop, _) => attempt.canceled().await,
        (Worked::Done, end @ End::Fail(..)) => attempt.failed(&end, rng.one_in(2)).await,
        (Worked::Done, End::Succeed) => {
            let by_id = rng.one_in(12);
            let accepted = attempt.completed(by_id).await;
            if accepted && rng.one_in(20) && attempt.completed(false).await {
                let text = format!(
                    "{} completed attempt {} of {} in run {} twice, and both were accepted",
                    worker.name, attempt.number, attempt.activity, attempt.run
                );
                worker.shared.found("A5", &attempt.id, text);
            }
        }
    }
}

impl Attempt<'_> {
    fn asked(&self, kind: Kind, request: &str) -> Asked {
        Asked {
            kind,
            who: self.worker.name.clone(),
            id: self.id.clone(),
            run: self.run.clone(),
            request: request.to_owned(),
            policies: Policies::default(),
            attempt: Some((self.activity.clone(), self.number)),
            saw: None,
        }
    }

    /// What the newest heartbeat says.
    fn details(&self) -> Payloads {
        text(&format!("{}#{}.{}", self.activity, self.number, self.beats))
    }

    fn key(&self) -> (String, String) {
        (self.run.clone(), self.activity.clone())
    }

    /// Writes the hand-over down and checks what came with it.
    fn handed(&self, task: &rpc::PollActivityTaskQueueResponse, invoked: Moment) {
        let shared = &self.worker.shared;
        let maximum = task.retry_policy.as_ref().map_or(0, |policy| policy.maximum_attempts);
        let due = time(task.current_attempt_scheduled_time.as_ref());
        let began = time(task.started_time.as_ref());
        let told = Told::Attempt { run: self.run.clone(), maximum, due, began };
        shared.handed(self.asked(Kind::Attempt, ""), invoked, told);
        shared.trace.line(format_args!(
            "{} attempt {}/{} {} #{}",
            self.worker.name, self.id, self.run, self.activity, self.number
        ));
        if self.number < 1 || (maximum > 0 && self.number > maximum) {
            let text = format!(
                "{} was handed attempt {} of {} in run {}; {maximum} are allowed",
                self.worker.name, self.number, self.activity, self.run
            );
            shared.found("T5", &self.id, text);
        }
        if task.header != Some(gifts::header(&text_of(task.input.as_ref()))) {
            let (name, activity) = (&self.worker.name, &self.activity);
            let text = format!("{name} was handed {activity} without the header it was given");
            shared.found("C1", &self.id, text);
        }
        self.check_details(&text_of(task.heartbeat_details.as_ref()));
        if task.priority.as_ref().is_some_and(|it| !matches!(it.priority_key, 0 | 3)) {
            shared.took("attempt with a priority");
        }
    }

    /// The details of the last acknowledged heartbeat of an earlier attempt come along.
    fn check_details(&self, details: &str) {
        let shared = &self.worker.shared;
        let known = lock(&shared.beats).get(&self.key()).map(|(beat, _)| *beat);
        let told = parse_beat(&self.activity, details);
        if told.is_some_and(|told| told.0 < self.number) {
            shared.took("attempt with an earlier heartbeat");
        }
        let wrong = match (known, told) {
            _ if !details.is_empty() && told.is_none() => true,
            (Some(known), told) if known.0 < self.number => told.is_none_or(|told| told < known),
            (Some(_) | None, _) => false,
        };
        if wrong {
            let text = format!(
                "attempt {} of {} in run {} came with the heartbeat {details:?}, acknowledged was {known:?}",
                self.number, self.activity, self.run
            );
            shared.found("A5", &self.id, text);
        }
    }

    /// Passes the time, with heartbeats.
    async fn work(&mut self, millis: u64, beat_ms: u64) -> Worked {
        let until = Instant::now() + Duration::from_millis(millis);
        let beats = (beat_ms > 0).then(|| Duration::from_millis(beat_ms));
        while let Some(next) = beats.map(|beat| Instant::now() + beat).filter(|at| *at < until) {
            tokio::time::sleep_until(next).await;
            match self.beat().await {
                Some(Ok(false)) => {}
                Some(Ok(true)) => return Worked::Stop,
                Some(Err(())) => return Worked::Gone,
                None => {}
            }
        }
        tokio::time::sleep_until(until).await;
        Worked::Done
    }

    /// One heartbeat: whether to stop, `Err` when the attempt is over, `None` when nobody answered.
    async fn beat(&mut self) -> Option<Result<bool, ()>> {
        self.beats += 1;
        let shared = &self.worker.shared;
        let query = rpc::RecordActivityTaskHeartbeatRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: self.token.clone(),
            details: Some(self.details()),
            identity: self.worker.name.to_string(),
            ..rpc::RecordActivityTaskHeartbeatRequest::default()
        };
        let request = self.worker.answer_name("h");
        let op = shared.begin(self.asked(Kind::Heartbeat, &request));
        let patience = Patience { total: Duration::from_millis(300), ..ANSWER };
        let who = &self.worker.name;
        let answer = insist(shared, who, &self.id, patience, query, |front, request| async move {
            front.record_activity_task_heartbeat(request).await
        })
        .await;
        let beaten = match &answer.result {
            Ok(told) => Some(Ok(told.cancel_requested)),
            Err(Failed::Refused(_)) => Some(Err(())),
            Err(Failed::Unknown | Failed::NotSent) => None,
        };
        if let Some(Ok(_)) = beaten {
            let beat = ((self.number, self.beats), shared.record.moment());
            lock(&shared.beats).insert(self.key(), beat);
        }
        let stop = beaten == Some(Ok(true));
        self.end(op, Kind::Heartbeat, &request, answer, Told::Beat(stop));
        beaten
    }

    fn end<T>(&self, op: usize, kind: Kind, request: &str, answer: Answer<T>, told: Told) -> bool {
        let what = format!("{request} {} {}/{} {}", kind.name(), self.id, self.run, self.activity);
        let outcome = match answer.result {
            Ok(_) => Outcome::Ok(told),
            Err(failed) => failed.outcome(),
        };
        let accepted = matches!(outcome, Outcome::Ok(_));
        self.worker.shared.end(op, &what, outcome, answer.unsure);
        accepted
    }

    async fn completed(&self, by_id: bool) -> bool {
        let shared = &self.worker.shared;
        let request = self.worker.answer_name("a");
        let result = format!("{}#{}", self.activity, self.number);
        let result = gifts::values(&result, &request, "result");
        let op = shared.begin(self.asked(Kind::CompleteActivity, &request));
        let who = &self.worker.name;
        if by_id {
            let query = rpc::RespondActivityTaskCompletedByIdRequest {
                namespace: NAMESPACE.to_owned(),
                workflow_id: self.id.to_string(),
                run_id: self.run.clone(),
                activity_id: self.activity.clone(),
                result: Some(result),
                identity: request.clone(),
                ..rpc::RespondActivityTaskCompletedByIdRequest::default()
            };
            let answer =
                insist(shared, who, &self.id, ANSWER, query, |front, request| async move {
                    front.respond_activity_task_completed_by_id(request).await
                })
                .await;
            return self.end(op, Kind::CompleteActivity, &request, answer, Told::Done);
        }
        let query = rpc::RespondActivityTaskCompletedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: self.token.clone(),
            result: Some(result),
            identity: request.clone(),
            ..rpc::RespondActivityTaskCompletedRequest::default()
        };
        let answer = insist(shared, who, &self.id, ANSWER, query, |front, request| async move {
            front.respond_activity_task_completed(request).await
        })
        .await;
        self.end(op, Kind::CompleteActivity, &request, answer, Told::Done)
    }

    /// Fails; now and then with details that no heartbeat said before.
    async fn failed(&mut self, end: &End, with_details: bool) {
        self.beats += u32::from(with_details);
        let shared = &self.worker.shared;
        let request = self.worker.answer_name("x");
        let op = shared.begin(self.asked(Kind::FailActivity, &request));
        let query = rpc::RespondActivityTaskFailedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: self.token.clone(),
            failure: end.failure(&request),
            last_heartbeat_details: with_details.then(|| self.details()),
            identity: request.clone(),
            ..rpc::RespondActivityTaskFailedRequest::default()
        };
        let who = &self.worker.name;
        let answer = insist(shared, who, &self.id, ANSWER, query, |front, request| async move {
            front.respond_activity_task_failed(request).await
        })
        .await;
        if self.end(op, Kind::FailActivity, &request, answer, Told::Done) && with_details {
            let beat = ((self.number, self.beats), shared.record.moment());
            lock(&shared.beats).insert(self.key(), beat);
            shared.took("failure with last heartbeat");
        }
    }

    async fn canceled(&self) {
        let shared = &self.worker.shared;
        let request = self.worker.answer_name("k");
        let op = shared.begin(self.asked(Kind::CancelActivity, &request));
        let query = rpc::RespondActivityTaskCanceledRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: self.token.clone(),
            details: Some(gifts::values("stopped", &request, "details")),
            identity: request.clone(),
            ..rpc::RespondActivityTaskCanceledRequest::default()
        };
        let who = &self.worker.name;
        let answer = insist(shared, who, &self.id, ANSWER, query, |front, request| async move {
            front.respond_activity_task_canceled(request).await
        })
        .await;
        self.end(op, Kind::CancelActivity, &request, answer, Told::Done);
    }
}

/// Takes the details of a heartbeat apart: attempt and number.
pub(crate) fn parse_beat(activity: &str, details: &str) -> Option<(i32, u32)> {
    let rest = details.strip_prefix(activity)?.strip_prefix('#')?;
    let (attempt, number) = rest.split_once('.')?;
    Some((attempt.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_name_attempt_and_number() {
        assert_eq!(parse_beat("a0.1", "a0.1#3.12"), Some((3, 12)));
        for other in ["", "a0.1", "a0.2#3.12", "a0.1#3", "a0.1#x.1"] {
            assert_eq!(parse_beat("a0.1", other), None, "{other}");
        }
    }
}
