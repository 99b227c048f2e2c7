//! Reading and writing length-prefixed bytes: what the hand-written formats here have in common.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Reads fields off the front of some bytes. Every method gives `None` when they end too early.
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader(bytes)
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        (self.0.len() >= count).then(|| self.0.advance(count))
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    pub(crate) fn array16(&mut self) -> Option<[u8; 16]> {
        let array = *self.0.first_chunk::<16>()?;
        self.0.advance(16);
        Some(array)
    }

    /// A length or count as canonical LEB128 of at most 32 bits.
    pub(crate) fn varint(&mut self) -> Option<usize> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let canonical = byte != 0 || shift == 0;
                return (canonical && value <= u64::from(u32::MAX)).then_some(value as usize);
            }
        }
        None
    }

    /// A length and that many bytes, shared with the source.
    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        let len = self.varint()?;
        (self.0.len() >= len).then(|| self.0.split_to(len))
    }
}

/// Writes what [`Reader::varint`] reads.
pub(crate) fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// How many bytes [`put_varint`] writes.
pub(crate) fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Writes what [`Reader::bytes`] reads.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len());
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_are_canonical() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u32::MAX as usize] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            assert_eq!(Reader::new(out.freeze()).varint(), Some(value));
        }
        for bad in [&[0x80, 0x00][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80; 6], &[0x80], &[]] {
            assert_eq!(Reader::new(Bytes::copy_from_slice(bad)).varint(), None, "{bad:?}");
        }
    }
}
