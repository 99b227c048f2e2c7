//! What every call passes before its handler looks at it: the namespace, the task token, the
//! caller's deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_engine::namespace::{NamespaceView, SYSTEM_NAMESPACE};
use holdfast_engine::token::TaskToken;
use holdfast_engine::validate::Door;
use holdfast_engine::{Code, IdSource, Rejection};
use holdfast_raft::seal::Purpose;
use prost::Message;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::Frontend;
use crate::errors::{refused, status};
use crate::transport::timeout;

/// What a namespace must be for a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// Registered: the call creates something.
    Registered,
    /// Registered or deprecated.
    Alive,
}

/// Reserved before the caller's deadline, so that the answer arrives in time.
const MARGIN: Duration = Duration::from_secs(1);

/// A poll needs at least so much time.
const POLL_MIN: Duration = Duration::from_secs(2);

impl Frontend {
    /// The namespace of a request.
    pub(super) async fn namespace(
        &self,
        name: &str,
        needs: Needs,
    ) -> Result<Arc<NamespaceView>, Status> {
        if name.is_empty() {
            return Err(refused(Rejection::invalid("Namespace is empty.")));
        }
        if name.len() > self.settings.limits.id_bytes {
            return Err(refused(Rejection::invalid("Namespace length exceeds limit.")));
        }
        let namespace = self.node.namespace(name).await.map_err(status)?;
        admit(&namespace, needs)?;
        Ok(namespace)
    }

    /// The namespace and the body of a task token. A namespace that the request names besides
    /// must be that of the token.
    pub(super) async fn token(
        &self,
        sealed: &[u8],
        name: &str,
    ) -> Result<(Arc<NamespaceView>, TaskToken), Status> {
        if sealed.is_empty() {
            return Err(refused(Rejection::invalid("Task token not set on request.")));
        }
        let token = self
            .node
            .open(Purpose::Task, sealed)
            .and_then(|body| TaskToken::decode(body).ok())
            .ok_or_else(|| refused(Rejection::invalid("Error deserializing task token.")))?;
        let namespace = self.node.namespace_by_id(token.namespace_id()).await.map_err(status)?;
        if !name.is_empty() && name != namespace.name {
            // One that does not exist is NOT_FOUND; the reference's own does exist there.
            if name != SYSTEM_NAMESPACE {
                self.namespace(name, Needs::Alive).await?;
            }
            let text = "Operation requested with a token from a different namespace.";
            return Err(refused(Rejection::invalid(text)));
        }
        admit(&namespace, Needs::Alive)?;
        Ok((namespace, token))
    }

    /// Seals a message into a token.
    pub(super) fn seal(&self, purpose: Purpose, body: &impl Message) -> Bytes {
        self.node.seal(purpose, &body.encode_to_vec())
    }

    /// Runs the checks that a request of `namespace` must pass.
    pub(super) fn check<T>(
        &self,
        namespace: &NamespaceView,
        check: impl FnOnce(&Door<'_>) -> Result<T, Rejection>,
    ) -> Result<T, Status> {
        let ids = IdSource::new(self.node.random());
        let door = Door { namespace, limits: &self.settings.limits, ids: &ids };
        check(&door).map_err(refused)
    }

    /// Resolves once the server stops.
    pub(super) async fn drained(&self) {
        let mut draining = self.draining.clone();
        // An error means that the sender is gone, and with it the server.
        let _gone = draining.wait_for(|draining| *draining).await;
    }
}

fn admit(namespace: &NamespaceView, needs: Needs) -> Result<(), Status> {
    let admitted = match needs {
        Needs::Registered => namespace.admit_start(),
        Needs::Alive => namespace.admit_use(),
    };
    admitted.map_err(refused)
}

/// A reply of a kind that its input can't have: a broken rule of ours.
pub(super) fn unexpected(what: &str) -> Status {
    refused(Rejection::new(Code::Internal, format!("{what} got the reply of another input")))
}

/// How much time the caller gives the call, if it says so.
pub(super) fn allowance(headers: &MetadataMap) -> Option<Duration> {
    timeout(headers.get("grpc-timeout")?.to_str().ok()?)
}

/// Until when a poll may wait. Polls without a deadline, or with too short a one, are refused.
pub(super) fn poll_until(headers: &MetadataMap, longest: Duration) -> Result<Instant, Status> {
    let Some(allowed) = allowance(headers) else {
        return Err(refused(Rejection::invalid("Context timeout is not set.")));
    };
    if allowed < POLL_MIN {
        let text = "Context timeout is too short.";
        return Err(refused(Rejection::new(Code::FailedPrecondition, text)));
    }
    Ok(Instant::now() + (allowed - MARGIN).min(longest))
}

/// Until when a read may wait for news: `longest`, or a little before the caller's deadline.
pub(super) fn wait_until(headers: &MetadataMap, longest: Duration) -> Instant {
    let wait = allowance(headers)
        .map_or(longest, |allowed| allowed.saturating_sub(MARGIN).max(allowed / 2).min(longest));
    Instant::now() + wait
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    fn headers(timeout: &'static str) -> MetadataMap {
        let mut headers = MetadataMap::new();
        headers.insert("grpc-timeout", MetadataValue::from_static(timeout));
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_ends_before_its_caller_gives_up() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let until = |text| poll_until(&headers(text), minute).map(|at| at - now);
        assert_eq!(until("4S").ok(), Some(Duration::from_secs(3)));
        assert_eq!(until("2M").ok(), Some(minute));
        assert_eq!(until("1S").map_err(|e| e.code()), Err(tonic::Code::FailedPrecondition));
        let none = poll_until(&MetadataMap::new(), minute).map_err(|e| e.code());
        assert_eq!(none, Err(tonic::Code::InvalidArgument));
    }
}
