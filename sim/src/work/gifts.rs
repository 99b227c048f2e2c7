//! What callers give along with their calls and only get back: further arguments, memos, search
//! attributes, headers, results, details, failures. All of it follows from the name of the request,
//! so whoever is shown an event knows from the event alone what was given, and sees at once
//! whether it is still that ([`changed`]).

use bytes::Bytes;
use holdfast_proto::common::{Header, Memo, Payload, Payloads, SearchAttributes};
use holdfast_proto::decoded;
use holdfast_proto::failure::{ApplicationFailureInfo, Failure};
use holdfast_proto::history::HistoryEvent;
use holdfast_proto::history::history_event::Attributes as Event;
use xxhash_rust::xxh3::xxh3_64;

use super::wire::{event_name, plain, text_of};

/// The search attribute that callers give with a start.
pub const CALLER_ATTRIBUTE: &str = "SimCaller";

/// The key of what is given in a memo.
const MEMO_KEY: &str = "gift";

/// A value that nobody else gives. Short, since scenarios draw small limits: what is too large is
/// refused, which is about sizes and not about contents.
fn gift(request: &str, what: &str) -> Payload {
    let hash = xxh3_64(format!("{request} {what}").as_bytes());
    plain(&format!("{what} of {request} {hash:016x}"))
}

/// Values: one that programs read, and one behind it that is only handed on.
pub fn values(first: &str, request: &str, what: &str) -> Payloads {
    let payloads = vec![plain(first), gift(request, what)];
    Payloads::encode_from(&decoded::Payloads { payloads })
}

/// The header of a call.
pub fn header(request: &str) -> Header {
    let fields = [("trace".to_owned(), gift(request, "header"))].into();
    Header::encode_from(&decoded::Header { fields })
}

/// The memo of a start.
pub fn memo(request: &str) -> Memo {
    let fields = [(MEMO_KEY.to_owned(), gift(request, "memo"))].into();
    Memo::encode_from(&decoded::Memo { fields })
}

/// The search attributes of a start: which client it is from.
pub fn attributes(request: &str) -> SearchAttributes {
    let caller = request.split('-').next().unwrap_or_default();
    let value = Payload::json(&format!("\"{caller}\""));
    SearchAttributes { indexed_fields: [(CALLER_ATTRIBUTE.to_owned(), value)].into() }
}

/// A failure of a kind, with details and a cause; the cause says what the rest must be.
pub fn failure(request: &str, kind: &str, is_final: bool) -> Failure {
    let cause = decoded::Failure {
        message: format!("{request}|{kind}|{is_final}"),
        stack_trace: format!("where {request} failed"),
        ..decoded::Failure::default()
    };
    let info = ApplicationFailureInfo {
        r#type: kind.to_owned(),
        non_retryable: is_final,
        details: Some(values(kind, request, "details")),
        ..ApplicationFailureInfo::default()
    };
    Failure::encode_from(&decoded::Failure {
        message: "as planned".to_owned(),
        cause: Some(Failure::encode_from(&cause)),
        failure_info: Some(decoded::failure::FailureInfo::ApplicationFailureInfo(info)),
        ..decoded::Failure::default()
    })
}

/// Whether a failure is as a caller gave it. Those that the server makes of a timeout or a cancel
/// are nobody's, and one that is larger than a limit allows is cut down to less than it said.
pub fn is_as_given(failure: Option<&Failure>) -> bool {
    let Some(opened) = failure.and_then(|failure| failure.decode().ok()) else { return true };
    let Some(decoded::failure::FailureInfo::ApplicationFailureInfo(info)) = opened.failure_info
    else {
        return true;
    };
    if opened.cause.is_none() && info.details.is_none() {
        return true;
    }
    let cause = opened.cause.and_then(|cause| cause.decode().ok()).unwrap_or_default();
    let mut parts = cause.message.split('|');
    let (Some(request), Some(kind), Some(last)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    failure == Some(&self::failure(request, kind, last == "true"))
}

/// The values of search attributes as they are indexed, by name.
pub fn indexed(attributes: Option<&SearchAttributes>) -> Vec<(String, Bytes)> {
    let fields = attributes.into_iter().flat_map(|all| &all.indexed_fields);
    let value = |payload: &Payload| payload.decode().map(|it| it.data).unwrap_or_default();
    let mut values: Vec<_> = fields.map(|(name, payload)| (name.clone(), value(payload))).collect();
    values.sort();
    values
}

/// Names like `c3-17` and `w2-a9` are of callers that give something. Judges and probes do not.
fn gives(request: &str) -> bool {
    let name = request.split('-').next().filter(|name| name.len() < request.len());
    let number = name.and_then(|name| name.strip_prefix(['c', 'w']));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Whether a name is that of an answer of this kind.
fn answers(request: &str, kind: char) -> bool {
    gives(request) && request.split('-').nth(1).is_some_and(|answer| answer.starts_with(kind))
}

/// Whether a signal of this name carries this: what every signal does, or, where it is about size,
/// its name and an `x` so many times.
fn is_of_signal(request: &str, input: Option<&Payloads>) -> bool {
    let text = text_of(input);
    let filled = text.strip_prefix(request).and_then(|rest| rest.strip_prefix(' '));
    let is_filled = filled.is_some_and(|rest| rest.bytes().all(|byte| byte == b'x'));
    input == Some(&values(request, request, "signal"))
        || (is_filled && input == Some(&super::wire::text(&text)))
}

/// What of an event is not as its caller gave it.
fn part_changed(event: &HistoryEvent) -> Option<&'static str> {
    let of = |is: bool, what| (!is).then_some(what);
    match event.attributes.as_ref()? {
        Event::WorkflowExecutionStartedEventAttributes(a) if gives(&a.identity) => {
            let (by, input) = (&a.identity, a.input.as_ref());
            let given = values(&text_of(input), by, "input");
            of(input == Some(&given), "input")
                .or_else(|| of(a.memo == Some(memo(by)), "memo"))
                .or_else(|| of(a.header == Some(header(by)), "header"))
                .or_else(|| {
                    let found = indexed(a.search_attributes.as_ref());
                    of(found == indexed(Some(&attributes(by))), "search attributes")
                })
        }
        Event::WorkflowExecutionSignaledEventAttributes(a) if gives(&a.identity) => {
            of(is_of_signal(&a.identity, a.input.as_ref()), "input")
                .or_else(|| of(a.header == Some(header(&a.identity)), "header"))
        }
        Event::WorkflowExecutionTerminatedEventAttributes(a) if gives(&a.identity) => {
            let given = values("planned", &a.identity, "details");
            of(a.details == Some(given), "details")
        }
        Event::WorkflowExecutionFailedEventAttributes(a) => {
            of(is_as_given(a.failure.as_ref()), "failure")
        }
        // The server fails tasks and cancels activities too, in the name of who completes a task.
        Event::WorkflowTaskFailedEventAttributes(a) if answers(&a.identity, 'f') => {
            let given = failure(&a.identity, "Planned", false);
            of(a.failure.as_ref() == Some(&given), "failure")
        }
        Event::ActivityTaskScheduledEventAttributes(a) => {
            let input = text_of(a.input.as_ref());
            // Those that a test made up have none.
            of(input.is_empty() || a.header == Some(header(&input)), "header")
        }
        Event::ActivityTaskStartedEventAttributes(a) => {
            of(is_as_given(a.last_failure.as_ref()), "last failure")
        }
        Event::ActivityTaskCompletedEventAttributes(a) if gives(&a.identity) => {
            let result = a.result.as_ref();
            of(result == Some(&values(&text_of(result), &a.identity, "result")), "result")
        }
        Event::ActivityTaskFailedEventAttributes(a) if gives(&a.identity) => {
            let given = a.failure.is_some() && is_as_given(a.failure.as_ref());
            of(given, "failure")
        }
        Event::ActivityTaskCanceledEventAttributes(a) if answers(&a.identity, 'k') => {
            let given = values("stopped", &a.identity, "details");
            of(a.details == Some(given), "details")
        }
        _ => None,
    }
}

/// Says of the first event that is not as its caller gave it what is wrong with it.
pub fn changed(events: &[HistoryEvent]) -> Option<String> {
    events.iter().find_map(|event| {
        let (part, name) = (part_changed(event)?, event_name(event));
        Some(format!("the {part} of event {} ({name}) is not as it was given", event.event_id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_they_were() {
        assert!(is_as_given(None));
        let given = failure("w1-x4", "Flaky", true);
        assert!(is_as_given(Some(&given)));
        let mut opened = given.decode().expect("decodes");
        opened.message.clear();
        assert!(!is_as_given(Some(&Failure::encode_from(&opened))), "another message");
        let mut opened = given.decode().expect("decodes");
        opened.cause = None;
        assert!(!is_as_given(Some(&Failure::encode_from(&opened))), "without its cause");
    }

    #[test]
    fn only_callers_with_a_number_give() {
        assert!(gives("c3-17") && gives("w2-a9"));
        assert!(answers("w2-k9", 'k') && !answers("w2-t9", 'k') && !answers("c3-17", 'k'));
        for other in ["", "s1", "c1", "judge-probe-1", "w-x-1"] {
            assert!(!gives(other), "{other}");
        }
    }
}
