//! The kinds of fields that many requests and commands share.

use holdfast_proto::common::link::Variant;
use holdfast_proto::common::{Link, Payload, Priority};
use holdfast_proto::enums::TaskQueueKind;
use holdfast_proto::taskqueue::TaskQueue;
use prost::Message;
use prost_types::Duration;

use crate::limits::Limits;
use crate::reject::Rejection;

/// The longest duration that is recorded: a hundred years, in nanoseconds.
pub const MAX_DURATION: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// The priority of what has none.
pub const DEFAULT_PRIORITY: u8 = 3;
/// The last of the priorities; 1 is the first.
const LOWEST_PRIORITY: u8 = 5;

const FAIRNESS_KEY_BYTES: usize = 64;
const RESERVED_PREFIX: &str = "/_sys/";
const INTERNAL_PREFIX: &str = "temporal-sys-per-ns-";

/// A duration in nanoseconds, 0 when there is none, a hundred years at most; or what is wrong.
pub fn duration(value: Option<&Duration>) -> Result<u64, &'static str> {
    let Some(value) = value else { return Ok(0) };
    let nanos = holdfast_proto::duration_nanos(value).map_err(|_| "invalid duration")?;
    let nanos = u64::try_from(nanos).map_err(|_| "negative duration")?;
    Ok(nanos.min(MAX_DURATION))
}

/// `timeout`, at most `limit` where there is one (0 is none).
pub fn capped(timeout: u64, limit: u64) -> u64 {
    if limit == 0 { timeout } else { timeout.min(limit) }
}

/// The name of a task queue that is polled or that a command names.
pub fn task_queue<'a>(
    queue: Option<&'a TaskQueue>,
    missing: &str,
    limits: &Limits,
) -> Result<&'a str, Rejection> {
    let name = queue.map_or("", |queue| queue.name.as_str());
    if name.is_empty() {
        return Err(Rejection::invalid(missing));
    }
    if name.len() > limits.id_bytes {
        return Err(Rejection::invalid("taskQueue length exceeds limit"));
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Rejection::invalid(format!(
            "task queue name cannot start with reserved prefix {RESERVED_PREFIX}"
        )));
    }
    Ok(name)
}

/// The task queue of a start; it is a normal one.
pub(super) fn start_queue(queue: &mut Option<TaskQueue>, limits: &Limits) -> Result<(), Rejection> {
    let name = task_queue(queue.as_ref(), "missing task queue name", limits)?.to_owned();
    if name.starts_with(INTERNAL_PREFIX) {
        let message = format!("cannot use internal per-namespace task queue:{name}");
        return Err(Rejection::invalid(message));
    }
    if let Some(queue) = queue {
        queue.kind = TaskQueueKind::Normal as i32;
    }
    Ok(())
}

/// The priority of a start or of an activity.
pub fn priority(priority: Option<&Priority>) -> Result<(), Rejection> {
    let Some(priority) = priority else { return Ok(()) };
    if priority.priority_key < 0 {
        return Err(Rejection::invalid("priority key can't be negative"));
    }
    if priority.fairness_key.len() > FAIRNESS_KEY_BYTES {
        return Err(Rejection::invalid("fairness key length exceeds limit"));
    }
    if priority.fairness_weight < 0.0 {
        return Err(Rejection::invalid("must be greater than zero"));
    }
    Ok(())
}

/// The level of a task: 1 first, [`LOWEST_PRIORITY`] last. No key is the default level, and what
/// lies beyond the last level is the last, as in Temporal.
pub fn priority_level(priority: Option<&Priority>) -> u8 {
    match priority.map_or(0, |priority| priority.priority_key) {
        ..=0 => DEFAULT_PRIORITY,
        key => u8::try_from(key).unwrap_or(LOWEST_PRIORITY).min(LOWEST_PRIORITY),
    }
}

/// Links: how many, how large, and that they lead somewhere.
pub fn links(links: &[Link], limits: &Limits) -> Result<(), Rejection> {
    let (count, most) = (links.len(), limits.links);
    if count > most {
        return Err(Rejection::invalid(format!(
            "cannot attach more than {most} links per request, got {count}"
        )));
    }
    for link in links {
        let (size, most) = (link.encoded_len(), limits.link_bytes);
        if size > most {
            let message = format!("link exceeds allowed size of {most}, got {size}");
            return Err(Rejection::invalid(message));
        }
        let empty = match &link.variant {
            Some(Variant::WorkflowEvent(event)) => [
                ("namespace", &event.namespace),
                ("workflow ID", &event.workflow_id),
                ("run ID", &event.run_id),
            ]
            .into_iter()
            .find(|(_, value)| value.is_empty()),
            Some(_) => None,
            None => return Err(Rejection::invalid("unsupported link variant")),
        };
        if let Some((field, _)) = empty {
            let message = format!("workflow event link must not have an empty {field} field");
            return Err(Rejection::invalid(message));
        }
    }
    Ok(())
}

/// Whether a payload stands for "nothing", and so deletes a memo field or search attribute: it has
/// no data, or null or the empty list in JSON. Its encoding does not count, as in Temporal.
pub fn is_null(payload: &Payload) -> bool {
    payload.decode().is_ok_and(|payload| matches!(&payload.data[..], b"" | b"null" | b"[]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::decoded;

    #[test]
    fn nothing_is_told_by_the_data_alone() {
        let nothing = |encoding: &'static str, data: &'static str| {
            let metadata = [("encoding".to_owned(), encoding.into())].into();
            let payload = decoded::Payload { metadata, data: data.into(), ..Default::default() };
            is_null(&Payload::encode_from(&payload))
        };
        for encoding in ["json/plain", "binary/null", "binary/plain", ""] {
            assert!(
                ["", "null", "[]"].into_iter().all(|data| nothing(encoding, data)),
                "{encoding}"
            );
            assert!(!["0", "{}", "\"\"", "[1]"].into_iter().any(|data| nothing(encoding, data)));
        }
        assert!(is_null(&Payload::default()));
    }

    #[test]
    fn a_priority_beyond_the_last_level_is_the_last() {
        let level =
            |priority_key| priority_level(Some(&Priority { priority_key, ..Priority::default() }));
        let keys = [-1, 0, 1, 3, 5, 6, 255, 256, 300, i32::MAX];
        assert_eq!(keys.map(level), [3, 3, 1, 3, 5, 5, 5, 5, 5, 5]);
        assert_eq!(priority_level(None), DEFAULT_PRIORITY);
    }
}
