//! What a judge asks at the end, through the same doors as everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::grpc::Frontend;
use holdfast_api::service::workflow::workflow_service_server::WorkflowService;
use holdfast_engine::ids::NamespaceId;
use holdfast_proto::common::WorkflowType;
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::workflow::WorkflowExecutionInfo;
use holdfast_proto::workflowservice as rpc;
use holdfast_raft::types::NodeId;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status};

use super::calls::{Patience, insist, one_call};
use super::reads::{self, Ask};
use super::wire::{NAMESPACE, WORKFLOW_TYPE, execution, millis, queue, text};
use super::{Shared, Workload, asked, lock};
use crate::doors::CallError;
use crate::judge::Sighting;
use crate::record::{Kind, Outcome, Told};

fn sighting(node: NodeId, call: &'static str, id: &str, what: String) -> Sighting {
    Sighting { node, call, id: id.to_owned(), what }
}

/// The workflow id of a probe.
pub(crate) fn probe_id(number: u32) -> String {
    format!("probe-{number}")
}

/// A caller at the end of a run.
pub struct Reader {
    shared: Arc<Shared>,
    who: Arc<str>,
}

impl Workload {
    /// A caller of this name.
    pub fn reader(&self, who: &str) -> Reader {
        Reader { shared: self.shared().clone(), who: who.into() }
    }

    /// How many events of each run somebody was shown.
    pub fn lengths(&self) -> BTreeMap<String, i64> {
        lock(&self.shared().seen).lengths()
    }

    /// Every run that somebody was told of, with its workflow id.
    pub fn known_runs(&self) -> BTreeMap<String, String> {
        let mut runs = BTreeMap::new();
        self.record().look(|operations| {
            for operation in operations {
                let id = operation.asked.id.to_string();
                match operation.told() {
                    Some(
                        Told::Started { run, .. }
                        | Told::Shown { run, .. }
                        | Told::Attempt { run, .. },
                    ) if !run.is_empty() => drop(runs.insert(run.clone(), id)),
                    Some(Told::Listed(rows)) => {
                        runs.extend(rows.iter().map(|(run, _)| (run.clone(), id.clone())));
                    }
                    _ => {}
                }
            }
        });
        runs
    }
}

impl Reader {
    fn ask<'a>(&'a self, id: &'a Arc<str>, run: &str) -> Ask<'a> {
        Ask {
            shared: &self.shared,
            who: &self.who,
            id,
            run: run.to_owned(),
            page: 0,
            as_sdk: false,
        }
    }

    /// All events of a run, asked for so often at most; `None` when nobody gives them.
    pub async fn history(&self, id: &str, run: &str, reads: u32) -> Option<Vec<HistoryEvent>> {
        let id: Arc<str> = id.into();
        for _ in 0..reads {
            let events = reads::read(&self.ask(&id, run), "").await;
            if events.is_some() {
                return events;
            }
        }
        None
    }

    /// What describe says of a run; `None` when nobody says anything.
    pub async fn describe(&self, id: &str, run: &str) -> Option<WorkflowExecutionInfo> {
        let answer = self.ask(&id.into(), run).described().await;
        answer.result.ok()?.workflow_execution_info
    }

    /// One try on each node; `None` when none of them answers well.
    pub async fn try_once<Q, T, C, F>(&self, query: Q, call: C) -> Option<T>
    where
        Q: Clone + Send + 'static,
        T: Send + 'static,
        C: Fn(Frontend, Request<Q>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        for node in self.shared.doors.nodes() {
            let (query, call) = (query.clone(), call.clone());
            let each = Patience::USUAL.each;
            let answer = one_call(&self.shared, &self.who, node, each, query, call).await;
            if let Ok(answer) = answer {
                return Some(answer);
            }
        }
        None
    }

    /// Asks one node for runs of an id that should be gone, by describe and by history; `None` when
    /// it does not lead the shard.
    pub async fn seek_on(&self, node: NodeId, id: &str, runs: &[String]) -> Option<Vec<Sighting>> {
        let mut answered = false;
        let mut seen = Vec::new();
        let runs = std::iter::once("").chain(runs.iter().map(String::as_str));
        for run in runs {
            let query = rpc::DescribeWorkflowExecutionRequest {
                namespace: NAMESPACE.to_owned(),
                execution: Some(execution(id, run)),
            };
            let described = self.on(node, query, |front, request| async move {
                front.describe_workflow_execution(request).await
            });
            let described = described.await;
            answered |= described.is_some();
            if let Some(Some(answer)) = described {
                let info = answer.workflow_execution_info.unwrap_or_default();
                let run = info.execution.map_or_else(String::new, |it| it.run_id);
                seen.push(sighting(node, "describe", id, format!("run {run}")));
            }
            let query = rpc::GetWorkflowExecutionHistoryRequest {
                namespace: NAMESPACE.to_owned(),
                execution: Some(execution(id, run)),
                ..rpc::GetWorkflowExecutionHistoryRequest::default()
            };
            let read = self.on(node, query, |front, request| async move {
                front.get_workflow_execution_history(request).await
            });
            if let Some(Some(answer)) = read.await {
                let count = answer.history.unwrap_or_default().events.len();
                let run = if run.is_empty() { "the current run" } else { run };
                seen.push(sighting(node, "read", id, format!("{count} events of {run}")));
            }
        }
        answered.then_some(seen)
    }

    /// What lists and counts of one node show of runs that should be gone.
    pub async fn listed_on(&self, node: NodeId) -> Vec<Sighting> {
        let mut seen = Vec::new();
        let query = rpc::ListWorkflowExecutionsRequest {
            namespace: NAMESPACE.to_owned(),
            ..rpc::ListWorkflowExecutionsRequest::default()
        };
        let listed = self.on(node, query, |front, request| async move {
            front.list_workflow_executions(request).await
        });
        for info in listed.await.flatten().map(|page| page.executions).unwrap_or_default() {
            let it = info.execution.unwrap_or_default();
            seen.push(sighting(node, "list", &it.workflow_id, format!("run {}", it.run_id)));
        }
        let query = rpc::CountWorkflowExecutionsRequest {
            namespace: NAMESPACE.to_owned(),
            ..rpc::CountWorkflowExecutionsRequest::default()
        };
        let counted = self.on(node, query, |front, request| async move {
            front.count_workflow_executions(request).await
        });
        let count = counted.await.flatten().map_or(0, |answer| answer.count);
        if count != 0 {
            seen.push(sighting(node, "count", "", format!("{count} runs")));
        }
        seen
    }

    /// One try on one node: what it says, `Some(None)` for "not found"; `None` when it says nothing.
    async fn on<Q, T, C, F>(&self, node: NodeId, query: Q, call: C) -> Option<Option<T>>
    where
        Q: Send + 'static,
        T: Send + 'static,
        C: Fn(Frontend, Request<Q>) -> F + Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        match one_call(&self.shared, &self.who, node, Patience::USUAL.each, query, call).await {
            Ok(answer) => Some(Some(answer)),
            Err(CallError::Status(why)) if why.code() == Code::NotFound => Some(None),
            Err(CallError::Status(_) | CallError::NotSent | CallError::Unknown) => None,
        }
    }

    /// The nodes that are up and do not answer.
    pub async fn silent_nodes(&self) -> Vec<NodeId> {
        let mut silent = Vec::new();
        for node in self.shared.doors.nodes() {
            if self.shared.doors.store(node).is_none() {
                continue;
            }
            let mut answered = false;
            for _ in 0..5 {
                let query = rpc::DescribeNamespaceRequest {
                    namespace: NAMESPACE.to_owned(),
                    ..rpc::DescribeNamespaceRequest::default()
                };
                let each = Patience::USUAL.each;
                let call = |front: Frontend, request| async move {
                    front.describe_namespace(request).await
                };
                let answer = one_call(&self.shared, &self.who, node, each, query, call).await;
                if answer.is_ok() {
                    answered = true;
                    break;
                }
                sleep(Duration::from_millis(500)).await;
            }
            if !answered {
                silent.push(node);
            }
        }
        silent
    }

    /// The id of the namespace; `None` when nobody tells it.
    pub(crate) async fn namespace(&self) -> Option<NamespaceId> {
        let query = rpc::DescribeNamespaceRequest {
            namespace: NAMESPACE.to_owned(),
            ..rpc::DescribeNamespaceRequest::default()
        };
        let (id, patience) = ("".into(), Patience::USUAL);
        let answer =
            insist(&self.shared, &self.who, &id, patience, query, |front, request| async move {
                front.describe_namespace(request).await
            })
            .await;
        NamespaceId::parse(&answer.result.ok()?.namespace_info?.id)
    }

    /// Starts new workflows of these numbers and waits for their ends; gives those that do not come to it, and why.
    pub async fn probe(&self, numbers: &[u32], patience: Duration) -> Vec<(String, String)> {
        let until = Instant::now() + patience;
        let mut failed = Vec::new();
        let mut open: BTreeSet<Arc<str>> = BTreeSet::new();
        for number in numbers {
            let id: Arc<str> = probe_id(*number).into();
            match self.start(&id, *number).await {
                Outcome::Ok(_) => drop(open.insert(id)),
                other => failed.push((id.to_string(), format!("is not started: {other:?}"))),
            }
        }
        while !open.is_empty() && Instant::now() < until {
            for id in open.clone() {
                if reads::is_open(&self.shared, &self.who, &id).await == Some(false) {
                    open.remove(&id);
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
        let late = open.into_iter().map(|id| (id.to_string(), "does not end".to_owned()));
        failed.extend(late);
        failed
    }

    async fn start(&self, id: &Arc<str>, number: u32) -> Outcome {
        let plan = &self.shared.scenario.workload;
        let on = format!("q{}", number % plan.queues.min(plan.workers).max(1));
        let request = format!("{}-{id}", self.who);
        let query = rpc::StartWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: id.to_string(),
            workflow_type: Some(WorkflowType { name: WORKFLOW_TYPE.to_owned() }),
            task_queue: Some(queue(&on)),
            input: Some(text(&number.to_string())),
            identity: request.clone(),
            request_id: request.clone(),
            workflow_task_timeout: Some(millis(2_000)),
            ..rpc::StartWorkflowExecutionRequest::default()
        };
        let op = self.shared.begin(asked(Kind::Start, &self.who, id, &request));
        let answer = insist(
            &self.shared,
            &self.who,
            id,
            Patience::USUAL,
            query,
            |front, request| async move { front.start_workflow_execution(request).await },
        )
        .await;
        let outcome = match answer.result {
            Ok(a) => Outcome::Ok(Told::Started { run: a.run_id, started: a.started }),
            Err(failed) => failed.outcome(),
        };
        let what = format!("{request} start {id}");
        self.shared.end(op, &what, outcome.clone(), answer.unsure);
        outcome
    }
}
