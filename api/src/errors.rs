//! Refusals as gRPC statuses. The only place where one becomes the other.

use bytes::Bytes;
use holdfast_engine::{Code, Rejection};
use holdfast_proto::enums::{ResourceExhaustedCause, ResourceExhaustedScope};
use holdfast_proto::errordetails::ResourceExhaustedFailure;
use holdfast_raft::shard::SubmitError;
use http::HeaderValue;
use prost::{Message, Name};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

/// The longest message a status carries, in bytes.
const MESSAGE_BYTES: usize = 4000;

/// What clients may know of a failure that is ours.
const MASKED: &str = "something went wrong, please retry";

/// The status of a call that the node did not carry out.
pub fn status(error: SubmitError) -> Status {
    match error {
        SubmitError::Rejected(rejection) => refused(rejection),
        SubmitError::Unavailable(reason) => Status::unavailable(reason),
    }
}

/// The status of a refusal: code, message and detail as Temporal gives them.
pub fn refused(rejection: Rejection) -> Status {
    let Rejection { code, message, detail } = rejection;
    if code == Code::Internal {
        tracing::error!(%message, "a call failed for a reason of ours");
        return Status::internal(MASKED);
    }
    let (code, message) = (tonic::Code::from_i32(code as i32), cut(message));
    let Some(detail) = detail else {
        return Status::new(code, message);
    };
    let mut headers = MetadataMap::new();
    if detail.type_name == ResourceExhaustedFailure::full_name() {
        exhausted_headers(&detail.body, &mut headers);
    }
    let full = holdfast_proto::Status {
        code: code as i32,
        message: message.clone(),
        details: vec![prost_types::Any {
            type_url: format!("type.googleapis.com/{}", detail.type_name),
            value: detail.body.into(),
        }],
    };
    let details = Bytes::from(full.encode_to_vec());
    Status::with_details_and_metadata(code, message, details, headers)
}

/// Cuts a message where a status must end, between two characters.
fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    message
}

/// Proxies that limit rates look at headers, not into details.
fn exhausted_headers(body: &[u8], headers: &mut MetadataMap) {
    let Ok(failure) = ResourceExhaustedFailure::decode(body) else { return };
    let cause = match failure.cause() {
        ResourceExhaustedCause::Unspecified => "Unspecified",
        ResourceExhaustedCause::RpsLimit => "RpsLimit",
        ResourceExhaustedCause::ConcurrentLimit => "ConcurrentLimit",
        ResourceExhaustedCause::SystemOverloaded => "SystemOverloaded",
        ResourceExhaustedCause::PersistenceLimit => "PersistenceLimit",
        ResourceExhaustedCause::BusyWorkflow => "BusyWorkflow",
        ResourceExhaustedCause::ApsLimit => "ApsLimit",
        ResourceExhaustedCause::PersistenceStorageLimit => "PersistenceStorageLimit",
        ResourceExhaustedCause::CircuitBreakerOpen => "CircuitBreakerOpen",
        ResourceExhaustedCause::OpsLimit => "OpsLimit",
        ResourceExhaustedCause::WorkerDeploymentLimits => "WorkerDeploymentLimits",
        ResourceExhaustedCause::BandwidthLimit => "BandwidthLimit",
    };
    let scope = match failure.scope() {
        ResourceExhaustedScope::Unspecified => "Unspecified",
        ResourceExhaustedScope::Namespace => "Namespace",
        ResourceExhaustedScope::System => "System",
    };
    headers.insert("x-resource-exhausted-cause", MetadataValue::from_static(cause));
    headers.insert("x-resource-exhausted-scope", MetadataValue::from_static(scope));
}

/// Brings a status that the transport gave before any handler ran into the form that gRPC for Go
/// gives it, because SDKs look at it: a message above the limit is RESOURCE_EXHAUSTED there.
pub fn transport_status<B>(mut response: http::Response<B>) -> http::Response<B> {
    let headers = response.headers_mut();
    let too_large = headers.get("grpc-status").is_some_and(|code| code == "11")
        && headers.get("grpc-message").is_some_and(|text| text.as_bytes().starts_with(TOO_LARGE));
    if too_large {
        headers.insert("grpc-status", HeaderValue::from_static("8"));
        headers.insert("grpc-message", HeaderValue::from_static(TOO_LARGE_ANSWER));
    }
    response
}

/// How tonic's message about the limit begins, percent-encoded as it travels.
const TOO_LARGE: &[u8] = b"Error,%20decoded%20message%20length%20too%20large";

/// What is said instead; it names the limit that [`crate::server`] sets.
const TOO_LARGE_ANSWER: &str = "grpc: received message larger than max (4194304)";

#[cfg(test)]
mod tests {
    use holdfast_proto::errordetails::NotFoundFailure;

    use super::*;

    #[test]
    fn a_detail_travels_with_its_type() {
        let status = refused(Rejection::not_found("gone").with(&NotFoundFailure::default()));
        assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "gone"));
        let full = holdfast_proto::Status::decode(status.details()).expect("decodes");
        assert_eq!((full.code, full.message.as_str()), (5, "gone"));
        assert_eq!(
            full.details[0].type_url,
            "type.googleapis.com/temporal.api.errordetails.v1.NotFoundFailure"
        );
        assert!(refused(Rejection::not_found("gone")).details().is_empty());
    }

    #[test]
    fn exhaustion_is_told_in_headers_too() {
        let mut failure = ResourceExhaustedFailure::default();
        failure.set_cause(ResourceExhaustedCause::BusyWorkflow);
        failure.set_scope(ResourceExhaustedScope::Namespace);
        let status = refused(Rejection::new(Code::ResourceExhausted, "busy").with(&failure));
        let header =
            |name: &str| status.metadata().get(name).map(|v| v.to_str().map(str::to_owned));
        assert!(matches!(header("x-resource-exhausted-cause"), Some(Ok(v)) if v == "BusyWorkflow"));
        assert!(matches!(header("x-resource-exhausted-scope"), Some(Ok(v)) if v == "Namespace"));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let status = refused(Rejection::invalid("\u{20ac}".repeat(2000)));
        assert_eq!(status.message().len(), 3999);
    }

    #[test]
    fn internals_stay_inside() {
        let status = refused(Rejection::new(Code::Internal, "secret"));
        assert_eq!((status.code(), status.message()), (tonic::Code::Internal, MASKED));
        assert_eq!(self::status(SubmitError::Unavailable("x")).code(), tonic::Code::Unavailable);
    }

    #[test]
    fn the_transports_limit_is_resource_exhausted() {
        let text = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let response: http::Response<()> = Status::out_of_range(text).into_http();
        let code = transport_status(response).headers().get("grpc-status").cloned();
        assert_eq!(code, Some(HeaderValue::from_static("8")));
        let other: http::Response<()> = Status::out_of_range("something else").into_http();
        let code = transport_status(other).headers().get("grpc-status").cloned();
        assert_eq!(code, Some(HeaderValue::from_static("11")));
    }
}
