//! The bodies that users fill, kept as the bytes they came in.
//!
//! The server hands a payload, a memo, a header or a failure on; it does not read them. Decoding
//! and encoding them again would cost time, and would drop every field that is newer than our
//! descriptors. So in every message their place is taken by the newtypes of this module.
//!
//! - What the sender wrote is what the receiver gets: fields in their order, unknown ones included.
//!   (Only a key or length that the sender wrote with needless leading zeros becomes shorter.)
//! - A body that exists has been walked ([`crate::walk`]), whether it was decoded as part of a
//!   message or came through `from_encoded`.
//! - A decoded body owns its bytes; it never keeps the frame alive that it arrived in.
//! - Equality is that of the bytes: equal bodies mean the same, unequal ones may, too.
//!
//! A rule that must look inside calls `decode` and gets the structured twin of
//! [`crate::decoded`], one level deep.

use std::fmt;
use std::mem;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
};
use prost::{DecodeError, Message, Name};

use crate::decoded;
use crate::walk::{self, WalkError};

/// The field of a failure that holds its cause.
const CAUSE_TAG: u32 = 4;

/// Declares an opaque body: its name, its proto package and its row in the walk's tables.
macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident, $package:literal, $shape:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bytes);

        impl $name {
            /// Takes an encoded body over, as it is, once it has been walked. The body keeps alive
            /// whatever buffer `encoded` is a part of.
            pub fn from_encoded(encoded: Bytes) -> Result<Self, WalkError> {
                walk::$shape.walk(&encoded)?;
                Ok(Self(encoded))
            }

            /// The body as it travels.
            pub fn encoded(&self) -> &Bytes {
                &self.0
            }

            /// Whether the body has no field at all.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// Opens the body, one level deep. Fields that our descriptors do not know are left
            /// out. Never fails, in fact: what does not decode did not pass the walk.
            pub fn decode(&self) -> Result<decoded::$name, DecodeError> {
                <decoded::$name as Message>::decode(self.0.clone())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }

        impl Message for $name {
            fn encode_raw(&self, buf: &mut impl BufMut) {
                buf.put_slice(&self.0);
            }

            // Repeated occurrences of a message merge, and concatenation is protobuf's merge.
            fn merge_field(
                &mut self,
                tag: u32,
                wire: WireType,
                buf: &mut impl Buf,
                _: DecodeContext,
            ) -> Result<(), DecodeError> {
                let mut body = owned(mem::take(&mut self.0));
                let start = body.len();
                append_field(tag, wire, buf, &mut body).and_then(|()| {
                    walk::$shape.walk(&body[start..]).map_err(refused)
                })?;
                self.0 = body.freeze();
                Ok(())
            }

            fn encoded_len(&self) -> usize {
                self.0.len()
            }

            fn clear(&mut self) {
                self.0.clear();
            }
        }

        impl Name for $name {
            const NAME: &'static str = stringify!($name);
            const PACKAGE: &'static str = $package;

            fn type_url() -> String {
                concat!("type.googleapis.com/", $package, ".", stringify!($name)).to_owned()
            }
        }
    };
}

opaque! {
    /// One value of a user, with metadata on how it is encoded.
    Payload, "temporal.api.common.v1", PAYLOAD
}
opaque! {
    /// A list of values: arguments, results, details.
    Payloads, "temporal.api.common.v1", PAYLOADS
}
opaque! {
    /// Values that travel with a call for the sake of interceptors.
    Header, "temporal.api.common.v1", HEADER
}
opaque! {
    /// Values shown with an execution and not indexed.
    Memo, "temporal.api.common.v1", MEMO
}
opaque! {
    /// What went wrong, with its chain of causes.
    Failure, "temporal.api.failure.v1", FAILURE
}

impl Payload {
    /// The body of this payload.
    pub fn encode_from(payload: &decoded::Payload) -> Self {
        Self(payload.encode_to_vec().into())
    }

    /// A payload of JSON text, as every SDK's default converter writes and reads it: `encoding`
    /// is `json/plain`. The text is taken as it is.
    pub fn json(text: &str) -> Self {
        let encoding = ("encoding".to_owned(), Bytes::from_static(b"json/plain"));
        Self::encode_from(&decoded::Payload {
            metadata: [encoding].into(),
            data: Bytes::copy_from_slice(text.as_bytes()),
            ..decoded::Payload::default()
        })
    }
}

impl Payloads {
    /// The body of these payloads.
    pub fn encode_from(payloads: &decoded::Payloads) -> Self {
        Self(payloads.encode_to_vec().into())
    }
}

impl Header {
    /// The body of this header.
    pub fn encode_from(header: &decoded::Header) -> Self {
        Self(header.encode_to_vec().into())
    }
}

impl Memo {
    /// The body of this memo.
    pub fn encode_from(memo: &decoded::Memo) -> Self {
        Self(memo.encode_to_vec().into())
    }
}

impl Failure {
    /// The failure, opened without its cause, and the cause as it is. Unlike with
    /// [`Failure::decode`] the cause is not walked again, so that following a chain of causes
    /// costs no more than its length, however deep it goes.
    pub fn split(&self) -> Result<(decoded::Failure, Option<Failure>), DecodeError> {
        let mut own = BytesMut::new();
        let mut causes: Vec<Bytes> = Vec::new();
        let mut rest = &self.0[..];
        while !rest.is_empty() {
            let field = rest;
            let (tag, wire) = decode_key(&mut rest)?;
            let value = walk::content(wire, &mut rest).map_err(refused)?;
            if tag == CAUSE_TAG {
                causes.push(self.0.slice_ref(value));
            } else {
                own.put_slice(&field[..field.len() - rest.len()]);
            }
        }
        // Repeated occurrences of a message merge, and concatenation is protobuf's merge.
        let cause = match causes.len() {
            0 => None,
            1 => causes.pop().map(Failure),
            _ => Some(Failure(causes.concat().into())),
        };
        Ok((<decoded::Failure as Message>::decode(own.freeze())?, cause))
    }

    /// The body of this failure. A cause that would take it past [`walk::MAX_DEPTH`] is left out,
    /// for the body could never be read back.
    pub fn encode_from(failure: &decoded::Failure) -> Self {
        let body = Bytes::from(failure.encode_to_vec());
        match walk::FAILURE.walk(&body) {
            Ok(()) => Self(body),
            Err(_) => {
                Self(decoded::Failure { cause: None, ..failure.clone() }.encode_to_vec().into())
            }
        }
    }
}

/// The bytes for appending: in place when nobody else holds them.
fn owned(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

/// Moves one field, whose key has been read, from `buf` to the end of `body`.
fn append_field(
    tag: u32,
    wire: WireType,
    buf: &mut impl Buf,
    body: &mut BytesMut,
) -> Result<(), DecodeError> {
    let length = match wire {
        WireType::Varint => {
            let value = decode_varint(buf)?;
            encode_key(tag, wire, body);
            encode_varint(value, body);
            return Ok(());
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => decode_varint(buf)?,
        WireType::StartGroup | WireType::EndGroup => return Err(refused(WalkError::Group)),
    };
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= buf.remaining())
    else {
        return Err(refused(WalkError::Malformed));
    };
    // Room for the longest key and length, so that a body of one large field is allocated once.
    body.reserve(length + 15);
    encode_key(tag, wire, body);
    if wire == WireType::LengthDelimited {
        encode_varint(length as u64, body);
    }
    body.put(buf.take(length));
    Ok(())
}

#[expect(deprecated, reason = "prost has no other way for a hand-written message to refuse bytes")]
fn refused(error: WalkError) -> DecodeError {
    DecodeError::new(error.to_string())
}
