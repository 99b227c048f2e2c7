//! Refusals as gRPC statuses. The only place where one becomes the other.

use bytes::Bytes;
use holdfast_engine::{Code, Rejection};
use holdfast_proto::enums::{ResourceExhaustedCause, ResourceExhaustedScope};
use holdfast_proto::errordetails::ResourceExhaustedFailure;
use holdfast_raft::shard::SubmitError;
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
/// gives it. SDKs look at it: by the texts about sizes a worker knows that its answer can never be
/// taken, and fails the task; any other text it takes for an overload, and tries again.
pub fn transport_status<B>(mut response: http::Response<B>) -> http::Response<B> {
    let headers = response.headers_mut();
    if !headers.contains_key(Status::GRPC_STATUS) {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else { return response };
    let known = TRANSPORT.iter().find(|known| {
        let text = status.message();
        status.code() == known.code && text.starts_with(known.begins) && text.contains(known.has)
    });
    let Some(known) = known else { return response };
    // What a message may not hold is not in these texts; if it were, the status stays as it is.
    let _unchanged = Status::new(known.go, said(known.said, status.message())).add_header(headers);
    response
}

/// The text, with every `#` replaced by the next number that `original` has.
fn said(text: &str, original: &str) -> String {
    let mut numbers = original.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let mut out = String::new();
    for (at, part) in text.split('#').enumerate() {
        if at > 0 {
            out.push_str(numbers.next().unwrap_or("?"));
        }
        out.push_str(part);
    }
    out
}

/// A status of tonic's transport and what gRPC for Go makes of the same bytes.
struct Known {
    code: tonic::Code,
    begins: &'static str,
    /// What the text has somewhere.
    has: &'static str,
    go: tonic::Code,
    /// Each `#` is a number of the original text.
    said: &'static str,
}

/// The first that fits counts.
const TRANSPORT: [Known; 15] = [
    // The length in a frame's head, which is that of the compressed message if it is one.
    known(
        tonic::Code::OutOfRange,
        "Error, decoded message length too large",
        tonic::Code::ResourceExhausted,
        "grpc: received message larger than max (# vs. #)",
    ),
    known(
        tonic::Code::ResourceExhausted,
        "Error decompressing: size limit",
        tonic::Code::ResourceExhausted,
        "grpc: received message after decompression larger than max #",
    ),
    known(tonic::Code::Internal, "Missing request message", tonic::Code::Unknown, "EOF"),
    known(tonic::Code::Internal, "Unexpected EOF", tonic::Code::Unknown, "unexpected EOF"),
    decoding("invalid string value", NOT_UTF8),
    decoding("not UTF-8", NOT_UTF8),
    decoding(
        "nest too",
        "grpc: error unmarshalling request: proto:\u{a0}exceeded maximum recursion depth",
    ),
    decoding(
        "",
        "grpc: error unmarshalling request: proto:\u{a0}cannot parse invalid wire-format data",
    ),
    unpacking("gzip header", "grpc: failed to decompress the message: gzip: invalid header"),
    unpacking("checksum", "grpc: failed to read decompressed data: gzip: invalid checksum"),
    unpacking("end of file", "grpc: failed to decompress the message: EOF"),
    unpacking("", "grpc: failed to read decompressed data: unexpected EOF"),
    known(
        tonic::Code::Internal,
        "protocol error: received message with compressed-flag but no",
        tonic::Code::Internal,
        "grpc: compressed flag set with identity or empty encoding",
    ),
    known(
        tonic::Code::Internal,
        "protocol error: received message with invalid compression flag",
        tonic::Code::Internal,
        "grpc: received unexpected payload format #",
    ),
    // The clock of the server was the first to see that the caller's time is over.
    known(
        tonic::Code::Cancelled,
        "Timeout expired",
        tonic::Code::DeadlineExceeded,
        "context deadline exceeded",
    ),
];

const NOT_UTF8: &str = "grpc: error unmarshalling request: string field contains invalid UTF-8";

/// A status that is known by how its text begins.
const fn known(
    code: tonic::Code,
    begins: &'static str,
    go: tonic::Code,
    said: &'static str,
) -> Known {
    Known { code, begins, has: "", go, said }
}

/// A message that can't be decoded.
const fn decoding(has: &'static str, said: &'static str) -> Known {
    let begins = "failed to decode Protobuf message";
    Known { code: tonic::Code::Internal, begins, has, go: tonic::Code::Internal, said }
}

/// A message that can't be decompressed.
const fn unpacking(has: &'static str, said: &'static str) -> Known {
    let begins = "Error decompressing: ";
    Known { code: tonic::Code::Internal, begins, has, go: tonic::Code::Internal, said }
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
        use tonic::Code;
        let made = |status: Status| {
            let response: http::Response<()> = transport_status(status.into_http());
            let status = Status::from_header_map(response.headers()).expect("a status");
            (status.code(), status.message().to_owned())
        };
        let text = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let text_of_go = "grpc: received message larger than max (9 vs. 4)".to_owned();
        assert_eq!(made(Status::out_of_range(text)), (Code::ResourceExhausted, text_of_go));
        let text = "Error decompressing: size limit, of 4 bytes, exceeded while decompressing";
        let text_of_go = "grpc: received message after decompression larger than max 4".to_owned();
        assert_eq!(made(Status::resource_exhausted(text)), (Code::ResourceExhausted, text_of_go));
        let over = (Code::DeadlineExceeded, "context deadline exceeded".to_owned());
        assert_eq!(made(Status::cancelled("Timeout expired")), over);
        for (tonic, code, message) in [
            ("Missing request message.", Code::Unknown, "EOF"),
            ("Unexpected EOF decoding stream.", Code::Unknown, "unexpected EOF"),
            (
                "failed to decode Protobuf message: A.b: invalid string value: data is not",
                Code::Internal,
                NOT_UTF8,
            ),
            (
                "failed to decode Protobuf message: A.b: a string is not UTF-8",
                Code::Internal,
                NOT_UTF8,
            ),
            ("something else", Code::Internal, "something else"),
        ] {
            assert_eq!(made(Status::internal(tonic)), (code, message.to_owned()), "{tonic}");
        }
        let other = (Code::OutOfRange, "something else".to_owned());
        assert_eq!(made(Status::out_of_range("something else")), other);
    }
}
