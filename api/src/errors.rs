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
/// gives it, because SDKs look at it.
pub fn transport_status<B>(mut response: http::Response<B>) -> http::Response<B> {
    let headers = response.headers_mut();
    let code = headers.get("grpc-status").map(HeaderValue::as_bytes);
    let text = headers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
    let known = TRANSPORT.iter().find(|known| {
        code == Some(known.code.as_bytes())
            && text.starts_with(known.begins.as_bytes())
            && contains(text, known.has.as_bytes())
    });
    if let Some(Known { go, said, .. }) = known {
        headers.insert("grpc-status", HeaderValue::from_static(go));
        headers.insert("grpc-message", HeaderValue::from_static(said));
    }
    response
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    (0..=text.len()).any(|at| text[at..].starts_with(part))
}

/// A status of tonic's transport and what gRPC for Go makes of the same bytes. Texts are
/// percent-encoded, as they travel.
struct Known {
    code: &'static str,
    begins: &'static str,
    /// What the text has somewhere.
    has: &'static str,
    go: &'static str,
    said: &'static str,
}

/// The first that fits counts. That the limit is 4 MiB is [`crate::server`]'s.
const TRANSPORT: [Known; 7] = [
    Known {
        code: "11",
        begins: "Error,%20decoded%20message%20length%20too%20large",
        has: "",
        go: "8",
        said: "grpc: received message larger than max (4194304)",
    },
    Known { code: "13", begins: "Missing%20request%20message", has: "", go: "2", said: "EOF" },
    Known { code: "13", begins: "Unexpected%20EOF", has: "", go: "2", said: "unexpected EOF" },
    decoding("invalid%20string%20value", NOT_UTF8),
    decoding("not%20UTF-8", NOT_UTF8),
    decoding(
        "nest%20too",
        "grpc: error unmarshalling request: proto:%C2%A0exceeded maximum recursion depth",
    ),
    decoding(
        "",
        "grpc: error unmarshalling request: proto:%C2%A0cannot parse invalid wire-format data",
    ),
];

const NOT_UTF8: &str = "grpc: error unmarshalling request: string field contains invalid UTF-8";

/// A message that can't be decoded.
const fn decoding(has: &'static str, said: &'static str) -> Known {
    Known { code: "13", begins: "failed%20to%20decode%20Protobuf%20message", has, go: "13", said }
}

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
    fn the_transports_own_statuses_are_those_of_grpc_for_go() {
        let text = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let response: http::Response<()> = Status::out_of_range(text).into_http();
        let code = transport_status(response).headers().get("grpc-status").cloned();
        assert_eq!(code, Some(HeaderValue::from_static("8")));
        for (tonic, code, message) in [
            ("Missing request message.", "2", "EOF"),
            ("Unexpected EOF decoding stream.", "2", "unexpected EOF"),
            (
                "failed to decode Protobuf message: A.b: invalid string value: data is not",
                "13",
                NOT_UTF8,
            ),
            ("failed to decode Protobuf message: A.b: a string is not UTF-8", "13", NOT_UTF8),
            ("something else", "13", "something%20else"),
        ] {
            let response: http::Response<()> = Status::internal(tonic).into_http();
            let response = transport_status(response);
            let header = |name: &str| response.headers().get(name).map(HeaderValue::as_bytes);
            assert_eq!(header("grpc-status"), Some(code.as_bytes()), "{tonic}");
            assert_eq!(header("grpc-message"), Some(message.as_bytes()), "{tonic}");
        }
        let other: http::Response<()> = Status::out_of_range("something else").into_http();
        let code = transport_status(other).headers().get("grpc-status").cloned();
        assert_eq!(code, Some(HeaderValue::from_static("11")));
    }
}
