//! The second half of DeleteNamespace: what is left of a deleted namespace is taken out of every
//! shard, and then the namespace out of the registry.
//!
//! The node that leads group 0 does it, from what the tables say, so that whoever leads next goes
//! on. Runs leave by [`Input::Delete`], each an entry of its own shard like any other.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_engine::Input;
use holdfast_engine::ids::NamespaceId;
use holdfast_engine::namespace::Command;
use holdfast_proto::enums::NamespaceState;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::meta::stopped;
use crate::node::{Node, WeakNode};
use crate::registry::RegistryWatch;
use crate::shard::SubmitError;

/// Runs that are looked up at once.
const BATCH: usize = 256;

/// How long a namespace must have been found empty before it is forgotten: longer than a start
/// takes that was let in before the namespace was deleted.
const SETTLE: Duration = Duration::from_secs(10);

/// How long to wait before another try where a shard has no leader here.
const AGAIN: Duration = Duration::from_secs(1);

/// Since when each deleted namespace was found empty.
type Empty = BTreeMap<NamespaceId, Instant>;

/// Runs until the node stops. Sleeps without a timer while no namespace is deleted.
pub(crate) async fn run(
    node: WeakNode,
    mut registry: RegistryWatch,
    mut leadership: watch::Receiver<Option<u64>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut empty = Empty::new();
    loop {
        let doomed = match *leadership.borrow_and_update() {
            Some(_) => doomed(&mut registry),
            None => Vec::new(),
        };
        empty.retain(|id, _| doomed.contains(id));
        let mut wait = None;
        for id in doomed {
            let Some(node) = node.upgrade() else { return };
            let again = match reap(&node, id, &mut empty).await {
                Ok(again) => again,
                Err(why) => {
                    tracing::debug!(namespace = %id, %why, "a deleted namespace has to wait");
                    Some(AGAIN)
                }
            };
            wait = wait.into_iter().chain(again).min();
        }
        let sleep = async {
            match wait {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = registry.changed() => {}
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep => {}
        }
    }
}

fn doomed(registry: &mut RegistryWatch) -> Vec<NamespaceId> {
    let registry = registry.newest();
    let all = registry.by_name("");
    all.filter(|record| record.state() == NamespaceState::Deleted)
        .map(|record| record.namespace_id())
        .collect()
}

/// Takes some runs away, or the namespace when there are none left; gives when to look again.
async fn reap(
    node: &Node,
    id: NamespaceId,
    empty: &mut Empty,
) -> Result<Option<Duration>, SubmitError> {
    let runs = node.some_runs(id, BATCH).await?;
    if runs.is_empty() {
        let since = *empty.entry(id).or_insert_with(Instant::now);
        if since.elapsed() < SETTLE {
            return Ok(Some(SETTLE - since.elapsed()));
        }
        node.command(Command::Forget { id }).await?;
        tracing::info!(namespace = %id, "a deleted namespace is gone");
        return Ok(None);
    }
    empty.remove(&id);
    let view = node.namespace_left(&id);
    for (workflow_id, run) in runs {
        node.submit(view.clone(), &workflow_id, Input::Delete { run }, 0).await?;
    }
    Ok(Some(Duration::ZERO))
}
