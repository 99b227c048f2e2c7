//! What every call passes before its service is looked for: that it is a call of gRPC at all, the
//! size of its metadata, its deadline, and how a call is refused that no service knows.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use crate::errors::transport_status;

/// What HTTP/2 adds to the size of each header (RFC 9113, 6.5.2).
const HEADER_OVERHEAD: usize = 32;

/// Answers one call.
pub(crate) fn answer(
    routes: &mut Routes,
    request: http::Request<Body>,
    metadata_bytes: usize,
) -> impl Future<Output = http::Response<Body>> + Send + 'static {
    let admitted = grpc(&request).and_then(|()| admit(request.headers(), metadata_bytes));
    let path = request.uri().path().to_owned();
    let answer = admitted.map(|allowed| (allowed, routes.call(request)));
    async move {
        let response = match answer {
            Err(refused) => refused.into_http(),
            Ok((None, response)) => response.await.unwrap_or_else(|never| match never {}),
            Ok((Some(allowed), response)) => match tokio::time::timeout(allowed, response).await {
                Ok(answered) => answered.unwrap_or_else(|never| match never {}),
                Err(_elapsed) => overdue().into_http(),
            },
        };
        transport_status(named(response, &path))
    }
}

/// A call that is refused before anything else is known of it. What is no call of gRPC is told so
/// by HTTP's status, too, as gRPC for Go does it.
#[derive(Debug)]
struct Refused {
    http: StatusCode,
    status: Status,
}

impl Refused {
    fn into_http(self) -> http::Response<Body> {
        let mut response = self.status.into_http();
        *response.status_mut() = self.http;
        response
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        Refused { http: StatusCode::OK, status }
    }
}

/// Whether a request is a call of gRPC. A page in a browser can send others, without asking.
fn grpc(request: &http::Request<Body>) -> Result<(), Refused> {
    if request.method() != Method::POST {
        let method = request.method().as_str();
        let text = format!("a call has the method POST, not {method:?}");
        return Err(Refused {
            http: StatusCode::METHOD_NOT_ALLOWED,
            status: Status::internal(text),
        });
    }
    let kind = request.headers().get(CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    let (name, rest) = kind.split_at_checked(GRPC.len()).unwrap_or((kind, &[]));
    if name.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+' | b';', ..]) {
        return Ok(());
    }
    let kind = String::from_utf8_lossy(kind);
    let text = format!("invalid gRPC request content-type {kind:?}");
    let status = Status::invalid_argument(text);
    Err(Refused { http: StatusCode::UNSUPPORTED_MEDIA_TYPE, status })
}

/// How the content type of a call begins.
const GRPC: &[u8] = b"application/grpc";

/// How much time the call has, if it says so.
fn admit(headers: &HeaderMap, metadata_bytes: usize) -> Result<Option<Duration>, Refused> {
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD
    };
    let size: usize = headers.iter().map(size).sum();
    if size > metadata_bytes {
        let text = format!("received metadata larger than max ({size} vs. {metadata_bytes})");
        return Err(Status::resource_exhausted(text).into());
    }
    let Some(text) = headers.get("grpc-timeout") else { return Ok(None) };
    let text = String::from_utf8_lossy(text.as_bytes());
    match read_timeout(&text) {
        Ok(Duration::ZERO) => Err(overdue().into()),
        Ok(allowed) => Ok(Some(allowed)),
        // A call that was to end some time must not wait for ever.
        Err(why) => {
            let status = Status::internal(format!("malformed grpc-timeout: {why}"));
            Err(Refused { http: StatusCode::BAD_REQUEST, status })
        }
    }
}

/// The caller's time is over before the answer was there.
fn overdue() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// A duration as `grpc-timeout` gives it.
pub(crate) fn timeout(text: &str) -> Option<Duration> {
    read_timeout(text).ok()
}

/// One to eight digits and a unit. The error says, as gRPC for Go does, what is wrong.
fn read_timeout(text: &str) -> Result<Duration, String> {
    if text.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if text.len() > 9 {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let split = text.split_at_checked(text.len() - 1);
    let of_unit: fn(u64) -> Duration = match split.map(|(_, unit)| unit) {
        Some("H") => |n| Duration::from_secs(n * 3600),
        Some("M") => |n| Duration::from_secs(n * 60),
        Some("S") => Duration::from_secs,
        Some("m") => Duration::from_millis,
        Some("u") => Duration::from_micros,
        Some("n") => Duration::from_nanos,
        _ => return Err(format!("transport: timeout unit is not recognized: {text:?}")),
    };
    let digits = split.map_or("", |(digits, _)| digits);
    let count = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let count =
        count.ok_or_else(|| format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"));
    Ok(of_unit(count?))
}

/// Says what is not known, when a call is refused for that and nothing is said.
fn named(mut response: http::Response<Body>, path: &str) -> http::Response<Body> {
    let headers = response.headers_mut();
    let unknown = headers.get(Status::GRPC_STATUS).is_some_and(|code| code == "12");
    if !unknown || headers.contains_key(Status::GRPC_MESSAGE) {
        return response;
    }
    let text = match path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) => {
            let known = crate::grpc::SERVICES.contains(&service);
            if known {
                format!("unknown method {method} for service {service}")
            } else {
                format!("unknown service {service}")
            }
        }
    };
    // A path has no byte that a message may not have.
    let _unchanged = Status::unimplemented(text).add_header(headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_in_every_unit() {
        for (text, millis) in [("70S", 70_000), ("1500m", 1500), ("2M", 120_000), ("1H", 3_600_000)]
        {
            assert_eq!(timeout(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(timeout("5u"), Some(Duration::from_micros(5)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "7", "-1S", "+1S", "1x", "123456789n", "1\u{b5}"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_deadline_that_cannot_be_read_is_no_lack_of_one() {
        for (text, why) in [
            ("S", "transport: timeout string is too short: \"S\""),
            ("123456789n", "transport: timeout string is too long: \"123456789n\""),
            ("10", "transport: timeout unit is not recognized: \"10\""),
            ("-1S", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(text));
            let refused = admit(&headers, 1000).expect_err(text);
            assert_eq!(refused.http, StatusCode::BAD_REQUEST);
            assert_eq!(refused.status.code(), tonic::Code::Internal);
            assert_eq!(refused.status.message(), format!("malformed grpc-timeout: {why}"));
        }
    }

    #[test]
    fn what_is_no_call_is_told_so() {
        let asked = |method: &str, kind: &str| {
            let request = http::Request::builder().method(method).header(CONTENT_TYPE, kind);
            let refused = grpc(&request.body(Body::empty()).expect("a request"));
            refused.map_err(|refused| (refused.http.as_u16(), refused.status.code()))
        };
        for kind in ["", "+proto", ";charset=utf-8", "+json"] {
            assert_eq!(asked("POST", &format!("application/grpc{kind}")), Ok(()), "{kind}");
        }
        assert_eq!(asked("POST", "Application/GRPC"), Ok(()));
        for kind in
            ["", "application/json", "text/plain", "application/grpc-web", "application/grp"]
        {
            let no = Err((415, tonic::Code::InvalidArgument));
            assert_eq!(asked("POST", kind), no, "{kind}");
        }
        assert_eq!(asked("GET", "application/grpc"), Err((405, tonic::Code::Internal)));
    }
}
