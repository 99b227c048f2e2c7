//! The walk at the door: is an encoded body what its type says, at every depth?
//!
//! A walk checks the wire format, that known fields have their wire type, that every string is
//! UTF-8, and that nesting stays within [`MAX_DEPTH`]. It is one pass over the keys and lengths of
//! the body (the content of `bytes` fields is stepped over), it never recurses, and it allocates
//! nothing unless messages nest more than 16 deep.
//!
//! The opaque bodies call it while they are decoded, so a request that decodes has been walked.
//! Unknown fields pass. Groups do not: no message of proto3 can hold one.

use std::fmt;

use prost::encoding::{WireType, decode_key, decode_varint};

/// The deepest nesting of messages that passes, the outermost included: that of Go's protobuf.
pub const MAX_DEPTH: usize = 10_000;

/// How many enclosing messages a walk remembers without allocating.
const INLINE: usize = 16;

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// The bytes are not in protobuf's wire format: cut short, or no valid key or number.
    Malformed,
    /// A known field does not have the wire type of its declaration.
    WireType,
    /// There is a group, which no message of Temporal has.
    Group,
    /// A string field is not UTF-8.
    Utf8,
    /// Messages nest deeper than [`MAX_DEPTH`].
    TooDeep,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WalkError::Malformed => "not in protobuf's wire format",
            WalkError::WireType => "a field has another wire type than declared",
            WalkError::Group => "groups are not supported",
            WalkError::Utf8 => "a string is not UTF-8",
            WalkError::TooDeep => "messages nest too deep",
        })
    }
}

impl std::error::Error for WalkError {}

/// Walks an encoded `temporal.api.common.v1.Payload`.
pub fn walk_payload(body: &[u8]) -> Result<(), WalkError> {
    PAYLOAD.walk(body)
}

/// Walks encoded `temporal.api.common.v1.Payloads`.
pub fn walk_payloads(body: &[u8]) -> Result<(), WalkError> {
    PAYLOADS.walk(body)
}

/// Walks an encoded `temporal.api.common.v1.Header`.
pub fn walk_header(body: &[u8]) -> Result<(), WalkError> {
    HEADER.walk(body)
}

/// Walks an encoded `temporal.api.common.v1.Memo`.
pub fn walk_memo(body: &[u8]) -> Result<(), WalkError> {
    MEMO.walk(body)
}

/// Walks an encoded `temporal.api.failure.v1.Failure`.
pub fn walk_failure(body: &[u8]) -> Result<(), WalkError> {
    FAILURE.walk(body)
}

/// What a declared field is, as far as a walk cares. There is no kind that no body has yet: the
/// build script refuses to make tables of it.
#[derive(Clone, Copy)]
enum Kind {
    /// Not declared: may be any well-formed field.
    Unknown,
    Varint,
    Bytes,
    Text,
    Message(Shape),
}

/// The type of a message: its row in the table `SHAPES`, which lists fields by tag.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shape(usize);

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

impl Shape {
    fn kind(self, tag: u32) -> Kind {
        SHAPES[self.0].get(tag as usize).copied().unwrap_or(Kind::Unknown)
    }

    /// Walks the fields of a message of this type. A body may come in parts: when each part is a
    /// run of whole fields and passes, so does their concatenation.
    pub(crate) fn walk(self, body: &[u8]) -> Result<(), WalkError> {
        let mut outer = Stack::default();
        let mut open = Frame { shape: self, end: body.len() };
        let mut at = 0;
        loop {
            while at == open.end {
                match outer.pop() {
                    Some(frame) => open = frame,
                    None => return Ok(()),
                }
            }
            let mut rest = &body[at..open.end];
            let (tag, wire) = decode_key(&mut rest).map_err(|_| WalkError::Malformed)?;
            let kind = open.shape.kind(tag);
            check_wire(kind, wire)?;
            let value = content(wire, &mut rest)?;
            at = open.end - rest.len();
            match kind {
                Kind::Text if std::str::from_utf8(value).is_err() => return Err(WalkError::Utf8),
                Kind::Message(shape) => {
                    if outer.len + 1 == MAX_DEPTH {
                        return Err(WalkError::TooDeep);
                    }
                    outer.push(open);
                    open = Frame { shape, end: at };
                    at -= value.len();
                }
                _ => {}
            }
        }
    }
}

fn check_wire(kind: Kind, wire: WireType) -> Result<(), WalkError> {
    let fits = match (kind, wire) {
        (_, WireType::StartGroup | WireType::EndGroup) => return Err(WalkError::Group),
        (Kind::Unknown, _) => true,
        (Kind::Varint, wire) => wire == WireType::Varint,
        (Kind::Bytes | Kind::Text | Kind::Message(_), wire) => wire == WireType::LengthDelimited,
    };
    if fits { Ok(()) } else { Err(WalkError::WireType) }
}

/// Takes a field's value off `rest`; what is returned has content only for a length-delimited one.
pub(crate) fn content<'a>(wire: WireType, rest: &mut &'a [u8]) -> Result<&'a [u8], WalkError> {
    let varint = |rest: &mut &'a [u8]| decode_varint(rest).map_err(|_| WalkError::Malformed);
    let length = match wire {
        WireType::Varint => return varint(rest).map(|_| &[][..]),
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => varint(rest)?,
        WireType::StartGroup | WireType::EndGroup => return Err(WalkError::Group),
    };
    let length = usize::try_from(length).map_err(|_| WalkError::Malformed)?;
    let (value, after) = rest.split_at_checked(length).ok_or(WalkError::Malformed)?;
    *rest = after;
    Ok(value)
}

/// A message under way: what it is and where in the body it ends.
#[derive(Clone, Copy, Default)]
struct Frame {
    shape: Shape,
    end: usize,
}

/// The messages around the open one.
#[derive(Default)]
struct Stack {
    len: usize,
    inline: [Frame; INLINE],
    deeper: Vec<Frame>,
}

impl Stack {
    fn push(&mut self, frame: Frame) {
        match self.inline.get_mut(self.len) {
            Some(place) => *place = frame,
            None => self.deeper.push(frame),
        }
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Frame> {
        self.len = self.len.checked_sub(1)?;
        self.deeper.pop().or_else(|| self.inline.get(self.len).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_types_of_known_fields_are_checked() {
        assert_eq!(walk_payload(&[0x0a, 0x00]), Ok(()), "an empty map entry");
        assert_eq!(walk_payload(&[0x08, 0x01]), Err(WalkError::WireType));
        assert_eq!(walk_payload(&[0x15, 1, 2, 3, 4]), Err(WalkError::WireType));
        assert_eq!(walk_failure(&[0x4a, 0x02, 0x0a, 0x00]), Err(WalkError::WireType));
    }

    #[test]
    fn unknown_fields_need_only_be_well_formed() {
        assert_eq!(walk_payload(&[0xf8, 0x07, 0xff, 0x01]), Ok(()));
        assert_eq!(walk_payload(&[0xfa, 0x07, 0x01, 0xff]), Ok(()), "its type may be bytes");
        assert_eq!(walk_payload(&[0xf9, 0x07, 1, 2, 3]), Err(WalkError::Malformed));
        assert_eq!(walk_payload(&[0xfb, 0x07, 0xfc, 0x07]), Err(WalkError::Group));
        assert_eq!(walk_payload(&[0x00]), Err(WalkError::Malformed), "tag 0");
    }

    #[test]
    fn an_inner_message_may_not_end_beyond_the_outer_one() {
        // Payloads { Payload of 2 bytes { data of 1 byte, which would be the third } }
        assert_eq!(walk_payloads(&[0x0a, 0x02, 0x12, 0x01, 0x00]), Err(WalkError::Malformed));
        assert_eq!(walk_payloads(&[0x0a, 0x03, 0x12, 0x01, 0x00]), Ok(()));
    }

    #[test]
    fn siblings_at_any_depth_return_to_the_right_type() {
        // A cause deep enough to leave the inline part of the stack, then a bad string beside it
        // at every level in turn.
        let levels = 3 * INLINE;
        for bad in 0..levels {
            let mut body = Vec::new();
            for level in 0..levels {
                let mut outer = vec![0x22];
                prost::encoding::encode_varint(body.len() as u64, &mut outer);
                outer.append(&mut body);
                outer.extend([0x0a, 0x01, if level == bad { 0xff } else { b'x' }]);
                body = outer;
            }
            assert_eq!(walk_failure(&body), Err(WalkError::Utf8), "level {bad}");
        }
    }
}
