//! How an SDK calls: one request, tried again until somebody answers it or patience ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::grpc::Frontend;
use holdfast_raft::types::NodeId;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status};

use super::Shared;
use crate::doors::CallError;
use crate::explain::note::{self, What};
use crate::record::Outcome;

/// What a node says that does not lead the shard: certainly not applied.
const NOT_HERE: &str = "shard has no leader here";

/// How long a call is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One try.
    pub(crate) each: Duration,
    /// All tries.
    pub(crate) total: Duration,
    /// Whether to try again after one whose outcome is unknown: only what carries a request id, or
    /// changes nothing.
    pub(crate) repeat: bool,
}

impl Patience {
    /// Of most calls.
    pub(crate) const USUAL: Patience =
        Patience { each: Duration::from_secs(5), total: Duration::from_secs(15), repeat: true };
    /// Of calls that must not be repeated once they may have had an effect.
    pub(crate) const ONCE: Patience = Patience { repeat: false, ..Patience::USUAL };
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) result: Result<T, Failed>,
    /// A try before the last may have had an effect.
    pub(crate) unsure: bool,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    Refused(Status),
    Unknown,
    NotSent,
}

impl Failed {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Failed::Refused(why) => {
                Outcome::Refused { code: why.code(), text: why.message().to_owned() }
            }
            Failed::Unknown => Outcome::Unknown,
            Failed::NotSent => Outcome::NotSent,
        }
    }
}

/// What one try means for the next.
enum Try<T> {
    Over(Result<T, Failed>),
    /// Without effect: another node may know more.
    Elsewhere,
    /// Without effect: later.
    Later,
    /// Perhaps with an effect.
    Doubtful,
}

/// Sends a request, to the node that answered last for this id first.
pub(crate) async fn insist<Q, T, C, F>(
    shared: &Shared,
    who: &str,
    id: &Arc<str>,
    patience: Patience,
    request: Q,
    call: C,
) -> Answer<T>
where
    Q: Clone + Send + 'static,
    T: Send + 'static,
    C: Fn(Frontend, Request<Q>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
{
    let nodes = shared.doors.nodes();
    let until = Instant::now() + patience.total;
    let home = shared.home(id).or(nodes.first().copied());
    let mut at = nodes.iter().position(|node| Some(*node) == home).unwrap_or(0);
    let (mut unsure, mut wait, mut misses) = (false, Duration::from_millis(40), 0);
    loop {
        let Some(node) = nodes.get(at % nodes.len().max(1)).copied() else {
            return Answer { result: Err(Failed::NotSent), unsure };
        };
        let tried = once(shared, who, node, patience.each, request.clone(), call.clone()).await;
        note(shared, who, id, node, std::any::type_name::<Q>(), &tried);
        match tried {
            Try::Over(result) => {
                if result.is_ok() {
                    shared.at_home(id, node);
                }
                return Answer { result, unsure };
            }
            Try::Doubtful if !patience.repeat => {
                return Answer { result: Err(Failed::Unknown), unsure: true };
            }
            Try::Doubtful => {
                unsure = true;
                at += 1;
                misses = nodes.len();
            }
            Try::Elsewhere => {
                at += 1;
                misses += 1;
            }
            Try::Later => misses = nodes.len(),
        }
        if Instant::now() >= until {
            let failed = if unsure { Failed::Unknown } else { Failed::NotSent };
            return Answer { result: Err(failed), unsure };
        }
        if misses >= nodes.len() {
            misses = 0;
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }
}

/// For whoever explains the run.
fn note<T>(
    shared: &Shared,
    who: &str,
    id: &Arc<str>,
    node: NodeId,
    call: &'static str,
    tried: &Try<T>,
) {
    let how = match tried {
        Try::Over(Ok(_) | Err(Failed::Refused(_))) => note::Try::Answered,
        Try::Over(Err(_)) | Try::Elsewhere | Try::Later => note::Try::Useless,
        Try::Doubtful => note::Try::Doubtful,
    };
    let what = || What::Tried { who: who.to_owned(), id: id.clone(), node, call, how };
    shared.trace.note(what);
}

async fn once<Q, T, C, F>(
    shared: &Shared,
    who: &str,
    node: NodeId,
    each: Duration,
    request: Q,
    call: C,
) -> Try<T>
where
    Q: Send + 'static,
    T: Send + 'static,
    C: Fn(Frontend, Request<Q>) -> F + Send + 'static,
    F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
{
    match one_call(shared, who, node, each, request, call).await {
        Ok(answer) => Try::Over(Ok(answer)),
        Err(CallError::NotSent) => Try::Elsewhere,
        Err(CallError::Unknown) => Try::Doubtful,
        Err(CallError::Status(why)) => match why.code() {
            Code::Unavailable if why.message() == NOT_HERE => Try::Elsewhere,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Try::Doubtful,
            Code::ResourceExhausted => Try::Later,
            _ => Try::Over(Err(Failed::Refused(why))),
        },
    }
}

/// One try on one node.
pub(crate) async fn one_call<Q, T, C, F>(
    shared: &Shared,
    who: &str,
    node: NodeId,
    timeout: Duration,
    request: Q,
    call: C,
) -> Result<T, CallError>
where
    Q: Send + 'static,
    T: Send + 'static,
    C: Fn(Frontend, Request<Q>) -> F + Send + 'static,
    F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
{
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    // Clients read as people do: what is not in history yet is not for them. Workers need it.
    if !who.starts_with('w') {
        let name = tonic::metadata::MetadataValue::from_static("temporal-cli");
        request.metadata_mut().insert("client-name", name);
    }
    shared.doors.call(who, node, timeout, move |front| call(front, request)).await
}
