//! Gathers the evidence at the end of a run: through the doors what any user may see, and behind
//! them the tables of every node that is up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_api::service::workflow::workflow_service_server::WorkflowService;
use holdfast_proto::workflow::WorkflowExecutionInfo;
use holdfast_proto::workflowservice as rpc;
use tokio::time::sleep;

use super::c2::{Contents, Sought};
use super::evidence::{Evidence, RunHistory, Shown, Step};
use super::tables;
use super::{Findings, NodeRows, Violation};
use crate::doors::Doors;
use crate::scenario::Scenario;
use crate::work::{Reader, Workload, wire};

/// How often it is looked whether all nodes have caught up; then they are judged as they are.
const LOOKS: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often a history is asked for: a group may have no leader for a while.
const READS: u32 = 8;

/// Executions on a page of the last list.
const PAGE: i32 = 500;

/// Pages of it that are read at most. A server may put one execution on a page, and no run of the
/// simulator has near so many.
const PAGES: u32 = 20_000;

pub(super) async fn collect(
    workload: &Workload,
    doors: &Doors,
    scenario: &Scenario,
    findings: &mut Findings,
) -> Evidence {
    let reader = workload.reader("judge");
    let slowest_sync = scenario.disk.slowest_sync().as_nanos();
    let slowest_sync = u64::try_from(slowest_sync).unwrap_or(u64::MAX);
    let mut evidence = Evidence { calm: workload.calm(), slowest_sync, ..Evidence::default() };
    caught_up(doors, scenario.shards).await;
    evidence.nodes = rows(doors, scenario.shards, findings);
    evidence.lengths = workload.lengths();
    evidence.beats = workload.beats();
    let (mut dumb, mut contents) = (BTreeSet::new(), BTreeMap::new());
    for (run, id) in runs(&evidence, workload) {
        // Where a shard is gone for good every question takes its time, and one answer says it all.
        if dumb.contains(&id) {
            continue;
        }
        match reader.history(&id, &run, if dumb.is_empty() { READS } else { 1 }).await {
            Some(events) => {
                let id: Arc<str> = id.as_str().into();
                let read = RunHistory { id, run: run.clone(), events };
                evidence.runs.insert(run.clone(), read);
            }
            None => {
                findings.add(&id, format!("run {run} can't be read at the end"));
                dumb.insert(id);
                continue;
            }
        }
        if let Some(info) = reader.describe(&id, &run).await {
            contents.insert(run.clone(), Contents::of(&info));
            evidence.described.insert(run, shown(&info));
        }
    }
    evidence.contents.push(("describe", contents));
    lists(&reader, &mut evidence, findings).await;
    evidence.counted = count(&reader).await;
    evidence.operations = workload.record().operations();
    evidence.polls = workload.record().polls();
    evidence.epoch = doors.true_time().0.saturating_sub(workload.record().moment().at);
    evidence.reigns = doors.0.coverage().reigns().to_vec();
    evidence.own_time = doors.0.coverage().own_time().clone();
    let began = doors.elapsed().as_nanos().saturating_sub(workload.record().moment().at.into());
    evidence.steps = steps(doors, u64::try_from(began).unwrap_or(0));
    evidence.settle();
    evidence
}

/// The steps that all clocks made, by the time of a record that began so long after the run.
fn steps(doors: &Doors, began: u64) -> Vec<Step> {
    let step = |step: crate::world::Step| Step {
        at: u64::try_from(step.at.as_nanos()).unwrap_or(u64::MAX).saturating_sub(began),
        by: step.by,
    };
    doors.0.steps().into_iter().map(step).collect()
}

/// Waits until every node that is up has applied the same.
async fn caught_up(doors: &Doors, shards: u32) {
    for _ in 0..LOOKS {
        let mut applied: Vec<_> = doors
            .nodes()
            .into_iter()
            .filter_map(|node| doors.store(node))
            .filter_map(|store| tables::applied(&store, shards).ok())
            .collect();
        applied.dedup();
        if applied.len() <= 1 {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn rows(doors: &Doors, shards: u32, findings: &mut Findings) -> Vec<NodeRows> {
    let mut all = Vec::new();
    for node in doors.nodes() {
        let Some(store) = doors.store(node) else { continue };
        match tables::read(node, &store, shards) {
            Ok(rows) => all.push(rows),
            Err(why) => {
                findings.add(&format!("node {node}"), format!("its tables can't be read: {why}"));
            }
        }
    }
    let reach = |rows: &NodeRows| -> u64 {
        rows.groups.values().filter_map(|group| group.applied).map(|(_, index)| index).sum()
    };
    let most = all.iter().map(reach).max().unwrap_or(0);
    if let Some(newest) = all.iter_mut().find(|rows| reach(rows) == most) {
        newest.is_newest = true;
    }
    all
}

/// Every run that anybody knows of, with its workflow id.
fn runs(evidence: &Evidence, workload: &Workload) -> BTreeMap<String, String> {
    let mut runs = workload.known_runs();
    for node in &evidence.nodes {
        let of_node = node.visibility.iter().map(|(run, shown)| (run.clone(), shown.id.clone()));
        runs.extend(of_node);
    }
    runs
}

fn shown(info: &WorkflowExecutionInfo) -> Shown {
    Shown {
        id: info.execution.as_ref().map_or_else(String::new, |it| it.workflow_id.clone()),
        status: info.status,
        started: wire::time(info.start_time.as_ref()),
        closed: wire::time(info.close_time.as_ref()),
        length: info.history_length,
    }
}

/// The runs that lists show, without a question and with each of those that there are.
async fn lists(reader: &Reader, evidence: &mut Evidence, findings: &mut Findings) {
    let Some(all) = list(reader, "", findings).await else { return };
    let shown = |(run, info): (&String, &WorkflowExecutionInfo)| (run.clone(), shown(info));
    evidence.listed = Some(all.iter().map(shown).collect());
    let of = |(run, info): (&String, &WorkflowExecutionInfo)| (run.clone(), Contents::of(info));
    evidence.contents.push(("the list", all.iter().map(of).collect()));
    for sought in Sought::all() {
        if let Some(found) = list(reader, &sought.query(), findings).await {
            evidence.sought.push((sought, found.into_keys().collect()));
        }
    }
}

/// Every run that a query finds; `None` when no node can list, because none leads every shard.
async fn list(
    reader: &Reader,
    query: &str,
    findings: &mut Findings,
) -> Option<BTreeMap<String, WorkflowExecutionInfo>> {
    let mut listed = BTreeMap::new();
    let mut token = Bytes::new();
    for _ in 0..PAGES {
        let request = rpc::ListWorkflowExecutionsRequest {
            namespace: wire::NAMESPACE.to_owned(),
            query: query.to_owned(),
            page_size: PAGE,
            next_page_token: token,
        };
        let page = reader
            .try_once(request, |front, request| async move {
                front.list_workflow_executions(request).await
            })
            .await?;
        for info in page.executions {
            let run = info.execution.as_ref().map_or_else(String::new, |it| it.run_id.clone());
            listed.insert(run, info);
        }
        token = page.next_page_token;
        if token.is_empty() {
            return Some(listed);
        }
    }
    let text = format!("the list at the end has {PAGES} pages, and a token for more");
    findings.list.push(Violation { rule: "V2", key: String::new(), text });
    None
}

async fn count(reader: &Reader) -> Option<i64> {
    let query = rpc::CountWorkflowExecutionsRequest {
        namespace: wire::NAMESPACE.to_owned(),
        ..rpc::CountWorkflowExecutionsRequest::default()
    };
    let counted = reader.try_once(query, |front, request| async move {
        front.count_workflow_executions(request).await
    });
    Some(counted.await?.count)
}
