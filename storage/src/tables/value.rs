//! Values: a version byte, then prost or opaque bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::StorageError;

/// The only version so far, of every table.
pub(super) const VERSION: u8 = 1;

/// A message as a value.
pub(super) fn encode(message: &impl Message) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + message.encoded_len());
    out.put_u8(VERSION);
    message.encode_raw(&mut out);
    out.freeze()
}

/// The reverse of [`encode`]. Bytes inside the message share the value's buffer.
pub(super) fn decode<M: Message + Default>(
    table: &'static str,
    value: Bytes,
) -> Result<M, StorageError> {
    M::decode(unwrap(table, value)?)
        .map_err(|why| StorageError::Corrupt(format!("value of {table}: {why}")))
}

/// Opaque bytes as a value.
pub(super) fn wrap(bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + bytes.len());
    out.put_u8(VERSION);
    out.put_slice(bytes);
    out.freeze()
}

/// The reverse of [`wrap`].
pub(super) fn unwrap(table: &'static str, mut value: Bytes) -> Result<Bytes, StorageError> {
    match value.first() {
        Some(&VERSION) => {
            value.advance(1);
            Ok(value)
        }
        Some(other) => Err(StorageError::Corrupt(format!("value of {table}: version {other}"))),
        None => Err(StorageError::Corrupt(format!("value of {table}: empty"))),
    }
}
