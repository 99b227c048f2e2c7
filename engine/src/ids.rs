//! Names of things: namespaces, runs, events, executions, and their times.
//!
//! All of these are plain values. Text forms are Temporal's (UUIDs in lower case with dashes).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The id of an event inside one run: 1, 2, 3, .. without a hole.
pub type EventId = i64;

/// The number of a change inside one slot (a run or an id record): 1, 2, 3, .. without a hole.
/// 0 means "nothing yet".
pub type ChangeSeq = u64;

/// A 16-byte UUID, the shape of namespace ids, run ids and start ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

/// Identifies a namespace for its whole life; names may be used again after a delete, ids never.
pub type NamespaceId = Uuid;

/// Identifies one run of a workflow id.
pub type RunId = Uuid;

impl Uuid {
    /// Sixteen zero bytes; never given to anything.
    pub const NIL: Uuid = Uuid([0; 16]);

    /// A version 4 UUID made of 128 random bits.
    pub fn v4(random: u128) -> Uuid {
        let mut bytes = random.to_be_bytes();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Uuid(bytes)
    }

    /// Reads the text form. Accepts what Temporal accepts: 32 hexadecimal digits with dashes
    /// after the 8th, 12th, 16th and 20th, in either case. Anything else gives `None`.
    pub fn parse(text: &str) -> Option<Uuid> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut out = [0u8; 16];
        let mut digits = 0;
        for (at, &c) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return None;
                }
                continue;
            }
            let digit = (c as char).to_digit(16)? as u8;
            out[digits / 2] = (out[digits / 2] << 4) | digit;
            digits += 1;
        }
        Some(Uuid(out))
    }

    /// From the sixteen bytes of a stored form; `None` when the length is wrong.
    pub fn from_slice(bytes: &[u8]) -> Option<Uuid> {
        bytes.try_into().ok().map(Uuid)
    }

    /// Whether this is [`Uuid::NIL`].
    pub fn is_nil(&self) -> bool {
        *self == Uuid::NIL
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What kind of execution an id belongs to. Ids of different kinds never meet (A27).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Archetype {
    /// A workflow execution.
    Workflow = 1,
}

impl Archetype {
    /// From its stored byte.
    pub fn from_byte(byte: u8) -> Option<Archetype> {
        match byte {
            1 => Some(Archetype::Workflow),
            _ => None,
        }
    }
}

/// The key of an execution: every run of one workflow id shares it, and it alone routes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExecutionKey {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The kind of execution.
    pub archetype: Archetype,
    /// The workflow id, at most 1000 bytes.
    pub id: Arc<str>,
}

impl ExecutionKey {
    /// The key of a workflow.
    pub fn workflow(namespace: NamespaceId, id: &str) -> ExecutionKey {
        ExecutionKey { namespace, archetype: Archetype::Workflow, id: Arc::from(id) }
    }

    /// The 32-bit routing hash: the low half of xxh3-64 over the namespace id, a zero byte and
    /// the id. Part of the format (DESIGN 13): it may never change.
    pub fn routing_hash(&self) -> u32 {
        let mut bytes = Vec::with_capacity(17 + self.id.len());
        bytes.extend_from_slice(&self.namespace.0);
        bytes.push(0);
        bytes.extend_from_slice(self.id.as_bytes());
        xxhash_rust::xxh3::xxh3_64(&bytes) as u32
    }

    /// Which of `shards` equal ranges of the hash this key falls into: 0 .. shards - 1.
    pub fn shard(&self, shards: u32) -> u32 {
        ((u64::from(self.routing_hash()) * u64::from(shards)) >> 32) as u32
    }
}

/// A part of an execution that folds on its own: the id's record, or one of its runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Slot {
    /// The [`crate::IdRecord`] of the workflow id.
    Id,
    /// One run.
    Run(RunId),
}

impl Slot {
    /// The sixteen bytes of its place in keys: the run id, or zeroes for the record.
    pub fn bytes(&self) -> [u8; 16] {
        match self {
            Slot::Id => Uuid::NIL.0,
            Slot::Run(run) => run.0,
        }
    }

    /// The reverse of [`Slot::bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Slot {
        match Uuid(bytes) {
            Uuid::NIL => Slot::Id,
            run => Slot::Run(run),
        }
    }
}

/// A time: nanoseconds since the Unix epoch, never going back within a workflow id. It is that of the
/// leader's clock, and where that gives no later one than the id had before, one nanosecond more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Before everything.
    pub const ZERO: Hlc = Hlc(0);

    /// This time and `duration` more, saturating.
    pub fn after(self, duration: Duration) -> Hlc {
        Hlc(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Hlc) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds from `other` to this, negative when this is before it; saturating.
    pub fn ahead_of(self, other: Hlc) -> i64 {
        let ahead = i128::from(self.0) - i128::from(other.0);
        i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
    }

    /// The protobuf form.
    pub fn timestamp(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: (self.0 / 1_000_000_000) as i64,
            nanos: (self.0 % 1_000_000_000) as i32,
        }
    }

    /// `None` for [`Hlc::ZERO`], which stands for "not set" in stored forms.
    pub fn optional_timestamp(self) -> Option<prost_types::Timestamp> {
        (self != Hlc::ZERO).then(|| self.timestamp())
    }

    /// From the protobuf form; times before 1970 become zero.
    pub fn from_timestamp(at: &prost_types::Timestamp) -> Hlc {
        let seconds = u64::try_from(at.seconds).unwrap_or(0);
        let nanos = u64::try_from(at.nanos).unwrap_or(0);
        Hlc(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_round_trips_and_refuses_garbage() {
        let id = Uuid::v4(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(Uuid::parse(&id.to_string()), Some(id));
        assert_eq!(Uuid::parse(&id.to_string().to_uppercase()), Some(id));
        for bad in
            ["", "x", "0123456789abcdef0123456789abcdef", "0123456g-89ab-4def-8123-456789abcdef"]
        {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_apart_by_a_signed_number() {
        assert_eq!(Hlc(7).ahead_of(Hlc(4)), 3);
        assert_eq!(Hlc(4).ahead_of(Hlc(7)), -3);
        assert_eq!(Hlc(u64::MAX).ahead_of(Hlc::ZERO), i64::MAX);
        assert_eq!(Hlc::ZERO.ahead_of(Hlc(u64::MAX)), i64::MIN);
    }

    #[test]
    fn routing_is_pinned() {
        // DESIGN 13: the hash is part of the format. These numbers may never change.
        let key = ExecutionKey::workflow(Uuid([7; 16]), "order-1");
        assert_eq!(key.routing_hash(), ROUTING_OF_ORDER_1);
        let mut counts = [0u32; 4];
        for n in 0..4000 {
            counts[ExecutionKey::workflow(Uuid([7; 16]), &format!("w{n}")).shard(4) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| c > 800), "{counts:?}");
    }

    const ROUTING_OF_ORDER_1: u32 = 580_220_255;
}
