//! What every call passes before its service is looked for: the size of its metadata, its
//! deadline, and how a call is refused that no service knows.

use std::time::Duration;

use http::HeaderMap;
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
    let admitted = admit(request.headers(), metadata_bytes);
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

/// How much time the call has, if it says so.
fn admit(headers: &HeaderMap, metadata_bytes: usize) -> Result<Option<Duration>, Status> {
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD
    };
    let size: usize = headers.iter().map(size).sum();
    if size > metadata_bytes {
        let text = format!("received metadata larger than max ({size} vs. {metadata_bytes})");
        return Err(Status::resource_exhausted(text));
    }
    let allowed = headers.get("grpc-timeout").and_then(|text| timeout(text.to_str().ok()?));
    if allowed == Some(Duration::ZERO) { Err(overdue()) } else { Ok(allowed) }
}

/// The caller's time is over before the answer was there.
fn overdue() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// A duration as `grpc-timeout` gives it.
pub(crate) fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(count.saturating_mul(60))),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
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
        for bad in ["", "S", "7", "-1S", "1x"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
