//! Changes: the unit of state change and of the log.
//!
//! On the wire a change is a tag (u16, big endian) and a prost message. The meaning of a tag never
//! changes; a new meaning is a new tag (A9). `apply` of each lives in its entity's file.

use bytes::Bytes;
use holdfast_proto::history::HistoryEvent;
use prost::{DecodeError, Message};

use crate::id_record::{CurrentRun, RequestSeen};
use crate::workflow::activity::{AttemptRetried, AttemptStarted, HeartbeatRearmed, Heartbeated};
use crate::workflow::own_time::Ahead;
use crate::workflow::workflow_task::{StickySet, TaskAttempt, TaskStarted, TaskUnstarted};

/// One change of one slot. `Event` and `Buffered` aside, all are private: history never shows them.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// A visible event, with its final id.
    Event(Box<HistoryEvent>),
    /// An event that waits for the workflow task in progress to end; its id is 0 until then.
    Buffered(Box<HistoryEvent>),
    /// The buffer empties: the next `count` events are the ones it held.
    BufferFlushed(BufferFlushed),
    /// A timer that had fired into the buffer was cancelled: the firing is taken back.
    BufferDropped(BufferDropped),
    /// A workflow task is scheduled without an event (attempt above 1).
    TaskAttempt(TaskAttempt),
    /// A workflow task is started without an event (attempt above 1).
    TaskStarted(TaskStarted),
    /// The workflow task ended without an event (attempt above 1), or moved to another queue.
    TaskUnstarted(TaskUnstarted),
    /// Stickiness is set or cleared.
    StickySet(StickySet),
    /// An attempt of an activity was handed to a worker.
    AttemptStarted(AttemptStarted),
    /// An attempt failed and another is due later.
    AttemptRetried(AttemptRetried),
    /// A heartbeat.
    Heartbeated(Heartbeated),
    /// The heartbeat deadline fired early and stands at a later time now.
    HeartbeatRearmed(HeartbeatRearmed),
    /// A request id was honoured (id record).
    RequestSeen(RequestSeen),
    /// The current run or its status changed (id record).
    CurrentRun(CurrentRun),
    /// The run is closed and leaves at a time (retention).
    RetentionSet(RetentionSet),
    /// The request id of the start; its event does not carry it.
    StartedBy(StartedBy),
    /// The clock was ahead and was set right: the run keeps its own time.
    Ahead(Ahead),
    /// The run is deleted. Its rows go with it.
    RunDeleted,
}

/// Body of [`Change::BufferFlushed`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BufferFlushed {
    /// How many of the following events come from the buffer.
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// Body of [`Change::BufferDropped`]; its meaning is `workflow::timer::buffer_dropped`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BufferDropped {
    /// The timer whose TIMER_FIRED leaves the buffer.
    #[prost(string, tag = "1")]
    pub timer_id: String,
}

/// Body of [`Change::RetentionSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RetentionSet {
    /// When the run is to be deleted.
    #[prost(uint64, tag = "1")]
    pub delete_at: u64,
}

/// Body of [`Change::StartedBy`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StartedBy {
    /// The request id of the start.
    #[prost(string, tag = "1")]
    pub request_id: String,
}

/// The tag of visible events; the only tag that replicas look at.
pub const EVENT_TAG: u16 = 1;

impl Change {
    /// Tag and name of every variant, for whoever counts what a log has seen.
    pub const NAMES: [(u16, &str); 18] = [
        (EVENT_TAG, "Event"),
        (2, "Buffered"),
        (3, "BufferFlushed"),
        (5, "BufferDropped"),
        (10, "TaskAttempt"),
        (11, "TaskStarted"),
        (12, "TaskUnstarted"),
        (13, "StickySet"),
        (20, "AttemptStarted"),
        (21, "AttemptRetried"),
        (22, "Heartbeated"),
        (23, "HeartbeatRearmed"),
        (30, "RequestSeen"),
        (31, "CurrentRun"),
        (40, "RunDeleted"),
        (41, "RetentionSet"),
        (42, "StartedBy"),
        (43, "Ahead"),
    ];

    /// The wire form.
    pub fn encode(&self) -> (u16, Bytes) {
        fn body(message: &impl Message) -> Bytes {
            Bytes::from(message.encode_to_vec())
        }
        match self {
            Change::Event(event) => (EVENT_TAG, body(event.as_ref())),
            Change::Buffered(event) => (2, body(event.as_ref())),
            Change::BufferFlushed(b) => (3, body(b)),
            Change::BufferDropped(b) => (5, body(b)),
            Change::TaskAttempt(b) => (10, body(b)),
            Change::TaskStarted(b) => (11, body(b)),
            Change::TaskUnstarted(b) => (12, body(b)),
            Change::StickySet(b) => (13, body(b)),
            Change::AttemptStarted(b) => (20, body(b)),
            Change::AttemptRetried(b) => (21, body(b)),
            Change::Heartbeated(b) => (22, body(b)),
            Change::HeartbeatRearmed(b) => (23, body(b)),
            Change::RequestSeen(b) => (30, body(b)),
            Change::CurrentRun(b) => (31, body(b)),
            Change::RetentionSet(b) => (41, body(b)),
            Change::StartedBy(b) => (42, body(b)),
            Change::Ahead(b) => (43, body(b)),
            Change::RunDeleted => (40, Bytes::new()),
        }
    }

    /// How many bytes the body of the wire form has.
    pub fn encoded_len(&self) -> usize {
        match self {
            Change::Event(event) | Change::Buffered(event) => event.encoded_len(),
            Change::BufferFlushed(b) => b.encoded_len(),
            Change::BufferDropped(b) => b.encoded_len(),
            Change::TaskAttempt(b) => b.encoded_len(),
            Change::TaskStarted(b) => b.encoded_len(),
            Change::TaskUnstarted(b) => b.encoded_len(),
            Change::StickySet(b) => b.encoded_len(),
            Change::AttemptStarted(b) => b.encoded_len(),
            Change::AttemptRetried(b) => b.encoded_len(),
            Change::Heartbeated(b) => b.encoded_len(),
            Change::HeartbeatRearmed(b) => b.encoded_len(),
            Change::RequestSeen(b) => b.encoded_len(),
            Change::CurrentRun(b) => b.encoded_len(),
            Change::RetentionSet(b) => b.encoded_len(),
            Change::StartedBy(b) => b.encoded_len(),
            Change::Ahead(b) => b.encoded_len(),
            Change::RunDeleted => 0,
        }
    }

    /// From the wire form. An unknown tag is an error: a node that does not know it must not lead.
    pub fn decode(tag: u16, body: &[u8]) -> Result<Change, DecodeError> {
        Ok(match tag {
            EVENT_TAG => Change::Event(Box::new(HistoryEvent::decode(body)?)),
            2 => Change::Buffered(Box::new(HistoryEvent::decode(body)?)),
            3 => Change::BufferFlushed(Message::decode(body)?),
            5 => Change::BufferDropped(Message::decode(body)?),
            10 => Change::TaskAttempt(Message::decode(body)?),
            11 => Change::TaskStarted(Message::decode(body)?),
            12 => Change::TaskUnstarted(Message::decode(body)?),
            13 => Change::StickySet(Message::decode(body)?),
            20 => Change::AttemptStarted(Message::decode(body)?),
            21 => Change::AttemptRetried(Message::decode(body)?),
            22 => Change::Heartbeated(Message::decode(body)?),
            23 => Change::HeartbeatRearmed(Message::decode(body)?),
            30 => Change::RequestSeen(Message::decode(body)?),
            31 => Change::CurrentRun(Message::decode(body)?),
            40 => Change::RunDeleted,
            41 => Change::RetentionSet(Message::decode(body)?),
            42 => Change::StartedBy(Message::decode(body)?),
            43 => Change::Ahead(Message::decode(body)?),
            unknown => return Err(unknown_tag(unknown)),
        })
    }
}

#[expect(deprecated, reason = "prost 0.14 offers no other public constructor")]
fn unknown_tag(tag: u16) -> DecodeError {
    DecodeError::new(format!("change tag {tag} is not known to this version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message without fields decodes from no bytes, so every tag that is known shows itself.
    #[test]
    fn the_names_are_those_of_all_variants() {
        let known = (0..=u16::MAX).filter_map(|tag| Some((tag, Change::decode(tag, &[]).ok()?)));
        let found: Vec<(u16, String)> = known
            .map(|(tag, change)| {
                assert_eq!(change.encode().0, tag, "{change:?}");
                let text = format!("{change:?}");
                (tag, text.split('(').next().unwrap_or_default().to_owned())
            })
            .collect();
        let named: Vec<_> = Change::NAMES.map(|(tag, name)| (tag, name.to_owned())).into();
        assert_eq!(found, named);
    }
}
