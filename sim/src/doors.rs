//! The way from outside to the nodes: what clients, workers and judges hold. It lives outside of
//! every node, so crashes do not touch it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::grpc::Frontend;
use holdfast_engine::ids::Hlc;
use holdfast_raft::types::NodeId;
use holdfast_storage::Store;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::net::{OUTSIDE, Way};
use crate::world::{Shared, Up};

/// A client's or worker's way to the nodes; cheap to clone.
#[derive(Clone)]
pub struct Doors(pub(crate) Arc<Shared>);

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The request never reached a node: it had no effect and never will. A real client could not
    /// always know; the simulator does, and a judge that is told more finds more.
    NotSent,
    /// It may or may not have had an effect, now or later: it took too long, its answer was lost,
    /// or the node died.
    Unknown,
    /// The node answered with a status.
    Status(tonic::Status),
}

impl Doors {
    /// All nodes, up or down, in a stable order.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.0.node_ids()
    }

    /// One call on one node, with `timeout` from here to the answer. The request may be delayed or
    /// lost on the way; the handler runs in the node's task group, so the node may crash under it;
    /// the answer may be delayed or lost. When the caller gives up, or this future is dropped, the
    /// handler is dropped too, as a server does when a stream is reset, unless the way there is cut.
    /// `from` names the caller in traces.
    pub async fn call<T, F, Fut>(
        &self,
        from: &str,
        to: NodeId,
        timeout: Duration,
        f: F,
    ) -> Result<T, CallError>
    where
        F: FnOnce(Frontend) -> Fut + Send + 'static,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send + 'static,
        T: Send + 'static,
    {
        let _ = from;
        let deadline = Instant::now() + timeout;
        let up = self.reach(to, deadline).await?;
        let Up { tasks, frontend, .. } = up;
        let task = tasks.spawn(async move { f(frontend).await });
        let guard = Hangup { doors: self, to, task: Some(task.abort_handle()) };
        let answer = finish(task, guard, deadline).await?;
        // The answer leaves a paused node when it goes on.
        let held = timeout_at(deadline, self.0.running(to)).await;
        if held.is_err() {
            return Err(CallError::Unknown);
        }
        match timeout_at(deadline, self.0.net.travel(to, OUTSIDE)).await {
            Ok(Way::Through) => answer.map(tonic::Response::into_inner).map_err(CallError::Status),
            Ok(Way::Refused) => Err(CallError::Unknown),
            Ok(Way::Lost) | Err(_) => {
                sleep_until(deadline).await;
                Err(CallError::Unknown)
            }
        }
    }

    /// Brings a request to a node.
    async fn reach(&self, to: NodeId, deadline: Instant) -> Result<Up, CallError> {
        match timeout_at(deadline, self.0.net.travel(OUTSIDE, to)).await {
            Ok(Way::Through) => {}
            Ok(Way::Refused) => return Err(CallError::NotSent),
            Ok(Way::Lost) | Err(_) => {
                sleep_until(deadline).await;
                return Err(CallError::NotSent);
            }
        }
        if timeout_at(deadline, self.0.running(to)).await.is_err() {
            return Err(CallError::NotSent);
        }
        self.0.up(to).ok_or(CallError::NotSent)
    }

    /// This node's tables while it is up, for checks that compare replicas.
    pub fn store(&self, node: NodeId) -> Option<Arc<dyn Store>> {
        self.0.up(node).map(|up| up.store as Arc<dyn Store>)
    }

    /// True elapsed simulated time since the run began: what a judge calls real time.
    pub fn elapsed(&self) -> Duration {
        self.0.time.elapsed()
    }

    /// True wall time in nanoseconds since the epoch, free of any node's skew.
    pub fn true_time(&self) -> Hlc {
        self.0.time.now()
    }
}

/// Waits for a handler; `Unknown` when the node died under it or the time is over.
async fn finish<T>(
    task: JoinHandle<T>,
    mut guard: Hangup<'_>,
    deadline: Instant,
) -> Result<T, CallError> {
    match timeout_at(deadline, task).await {
        Ok(Ok(answer)) => {
            guard.task = None;
            Ok(answer)
        }
        // The connection breaks when the process dies.
        Ok(Err(_)) => {
            guard.task = None;
            Err(CallError::Unknown)
        }
        Err(_) => Err(CallError::Unknown),
    }
}

/// Drops a handler whose caller went away.
struct Hangup<'a> {
    doors: &'a Doors,
    to: NodeId,
    task: Option<AbortHandle>,
}

impl Drop for Hangup<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take()
            && !self.doors.0.net.is_cut(OUTSIDE, self.to)
        {
            task.abort();
        }
    }
}
