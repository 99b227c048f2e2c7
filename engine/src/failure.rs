//! Failures that the server makes or cuts down. What users send stays opaque bytes.

use holdfast_proto::common::Payloads;
use holdfast_proto::decoded;
use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::enums::TimeoutType;
use holdfast_proto::failure::{
    ApplicationFailureInfo, Failure, ServerFailureInfo, TimeoutFailureInfo,
};

/// The message of a failure that stands for one that was too large.
pub const TOO_LARGE: &str = "Failure exceeds size limit.";

/// What a text, a cause and the mark of a server failure cost beside their bytes when a failure is
/// cut down.
const OVERHEAD: usize = 4;

/// What the mark of an application failure costs.
const APPLICATION_OVERHEAD: usize = 8;

/// How many causes of a failure that is cut down are kept at most.
pub const CAUSES_KEPT: usize = 20;

/// A failure of the server's own.
pub fn server(message: &str, non_retryable: bool) -> Failure {
    wrapped(message, non_retryable, None)
}

/// A server failure around what is left of `failure` at `max` bytes (surface 3.2 and 5).
pub fn too_large(failure: &Failure, non_retryable: bool, max: usize) -> Failure {
    wrapped(TOO_LARGE, non_retryable, Some(truncated(failure, max)))
}

fn wrapped(message: &str, non_retryable: bool, cause: Option<Failure>) -> Failure {
    Failure::encode_from(&decoded::Failure {
        message: message.to_owned(),
        cause,
        failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo { non_retryable })),
        ..decoded::Failure::default()
    })
}

/// The failure of something that took too long.
pub fn timeout(
    message: String,
    timeout_type: TimeoutType,
    last_heartbeat_details: Option<Payloads>,
    cause: Option<Failure>,
) -> Failure {
    let info = TimeoutFailureInfo { timeout_type: timeout_type as i32, last_heartbeat_details };
    Failure::encode_from(&decoded::Failure {
        message,
        source: "Server".to_owned(),
        cause,
        failure_info: Some(FailureInfo::TimeoutFailureInfo(info)),
        ..decoded::Failure::default()
    })
}

/// The texts of a failure, whether it may be tried again, and its causes as far as `max` bytes and
/// [`CAUSES_KEPT`] levels carry them, to the byte as the reference counts. Details and encoded
/// attributes are left out: half a payload is worth nothing. A chain of causes may be as deep as a
/// request can nest: it is followed in a loop.
pub fn truncated(failure: &Failure, max: usize) -> Failure {
    let mut levels = Vec::new();
    let (mut next, mut left) = (Some(failure.clone()), max);
    while let Some(Ok((full, cause))) = next.as_ref().map(Failure::split) {
        levels.push(level(full, &mut left));
        next = cause.filter(|_| left > OVERHEAD && levels.len() <= CAUSES_KEPT);
        left = left.saturating_sub(OVERHEAD);
    }
    let chain = levels.into_iter().rev().fold(None, |cause, level| {
        Some(Failure::encode_from(&decoded::Failure { cause, ..level }))
    });
    chain.unwrap_or_default()
}

/// What is left of one failure of a chain; what it costs is taken off `left`.
fn level(full: decoded::Failure, left: &mut usize) -> decoded::Failure {
    let cut = |text: &str, left: &mut usize| {
        let text = prefix(text, *left);
        let overhead = if text.is_empty() { 0 } else { OVERHEAD };
        *left = left.saturating_sub(text.len() + overhead);
        text.to_owned()
    };
    let failure_info = match &full.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            let r#type = cut(&info.r#type, left);
            *left = left.saturating_sub(APPLICATION_OVERHEAD);
            let non_retryable = info.non_retryable;
            Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
                r#type,
                non_retryable,
                ..ApplicationFailureInfo::default()
            }))
        }
        Some(FailureInfo::ServerFailureInfo(info)) => {
            *left = left.saturating_sub(OVERHEAD);
            Some(FailureInfo::ServerFailureInfo(*info))
        }
        _ => None,
    };
    decoded::Failure {
        source: cut(&full.source, left),
        message: cut(&full.message, left),
        stack_trace: cut(&full.stack_trace, left),
        failure_info,
        ..decoded::Failure::default()
    }
}

/// As much of `text` as fits `max` bytes without cutting a character.
fn prefix(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(message: &str, cause: Option<Failure>) -> Failure {
        let info = ApplicationFailureInfo { r#type: "Kind".to_owned(), ..Default::default() };
        Failure::encode_from(&decoded::Failure {
            message: message.to_owned(),
            source: "kit".to_owned(),
            cause,
            failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
            ..decoded::Failure::default()
        })
    }

    #[test]
    fn a_huge_failure_is_cut_as_the_reference_cuts_it() {
        // Golden activity/failure_too_large.
        let huge = application(&"x".repeat((2 << 20) + 1), None);
        let cut = too_large(&huge, true, 512 << 10).decode().expect("decodes");
        assert_eq!(cut.message, TOO_LARGE);
        let cause = cut.cause.expect("kept").decode().expect("decodes");
        assert_eq!((cause.message.len(), cause.source.as_str()), (524_265, "kit"));
    }

    #[test]
    fn cutting_keeps_characters_whole_and_causes_that_fit() {
        let inner = application("inner", None);
        let small = application("ä".repeat(3).as_str(), Some(inner.clone()));
        let cut = truncated(&small, 2048).decode().expect("decodes");
        assert_eq!(cut.cause, Some(truncated(&inner, 2048)));
        // The type, what it and an application failure cost, the source, and one letter and a half.
        let cut = truncated(&small, (4 + 4 + 8) + (3 + 4) + 3).decode().expect("decodes");
        assert_eq!((cut.message.as_str(), cut.cause), ("ä", None));
    }

    #[test]
    fn a_chain_as_deep_as_requests_may_nest_is_cut_on_a_small_stack() {
        let levels = 9_990;
        let mut body = Vec::new();
        for _ in 0..levels {
            let mut outer = vec![0x22]; // field 4, the cause
            prost::encoding::encode_varint(body.len() as u64, &mut outer);
            outer.append(&mut body);
            outer.extend([0x0a, 0x01, b'x']);
            body = outer;
        }
        let deep = Failure::from_encoded(body.into()).expect("within the depth that passes");
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let cut = small.spawn(move || truncated(&deep, 1 << 20)).expect("starts");
        let mut next = Some(cut.join().expect("no overflow"));
        let mut kept = 0;
        while let Some(failure) = next {
            let (own, cause) = failure.split().expect("decodes");
            assert_eq!(own.message, "x");
            (next, kept) = (cause, kept + 1);
        }
        assert_eq!(kept, 1 + CAUSES_KEPT);
    }
}
