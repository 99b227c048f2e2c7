//! Parts of keys that sort as bytes the way they sort as values.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_engine::ids::{
    Archetype, ChangeSeq, EventId, ExecutionKey, Hlc, NamespaceId, RunId, Slot, Uuid,
};

use super::{ShardId, Table};
use crate::{Op, StorageError};

/// The key of one table.
pub trait Key: Sized {
    /// The table.
    const TABLE: Table;

    /// The shard the row belongs to.
    fn shard(&self) -> ShardId;

    /// Writes the parts behind the shard.
    fn write(&self, out: &mut KeyWriter);

    /// Reads the parts behind the shard.
    fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<Self, StorageError>;

    /// The whole key.
    fn encode(&self) -> Bytes {
        let mut out = KeyWriter::new(Self::TABLE, self.shard());
        self.write(&mut out);
        out.finish()
    }

    /// The reverse of [`Key::encode`]; refuses anything that `encode` would not give.
    fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut input = KeyReader { rest: bytes, table: Self::TABLE };
        if input.u8()? != Self::TABLE as u8 {
            return Err(input.bad("another table's byte"));
        }
        let shard = input.u32()?;
        let key = Self::read(shard, &mut input)?;
        match input.rest {
            [] => Ok(key),
            _ => Err(input.bad("bytes behind the end")),
        }
    }
}

/// A row to write.
pub fn put(key: &impl Key, value: Bytes) -> Op {
    Op::Put { key: key.encode(), value }
}

/// A row to remove.
pub fn delete(key: &impl Key) -> Op {
    Op::Delete { key: key.encode() }
}

/// The first key behind every key that starts with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|&b| b != 0xff).map_or(0, |at| at + 1);
    let mut end = prefix[..kept].to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        // No key starts with 0xff: tables are small numbers.
        None => end.push(0xff),
    }
    Bytes::from(end)
}

/// The first key behind `key`.
pub fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

/// Builds a key, or a prefix of keys.
#[derive(Clone, Debug)]
pub struct KeyWriter {
    bytes: Vec<u8>,
}

impl KeyWriter {
    /// A key of this table and shard, without parts yet.
    pub fn new(table: Table, shard: ShardId) -> KeyWriter {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(table as u8);
        bytes.extend_from_slice(&shard.to_be_bytes());
        KeyWriter { bytes }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes in falling order.
    pub fn descending(&mut self, value: u64) -> &mut Self {
        self.u64(!value)
    }

    /// A time.
    pub fn hlc(&mut self, at: Hlc) -> &mut Self {
        self.u64(at.0)
    }

    /// An event id. They start at 1; what is below 0 is a bug upstream and sorts as 0.
    pub fn event(&mut self, event: EventId) -> &mut Self {
        debug_assert!(event >= 0, "event id {event}");
        self.u64(u64::try_from(event).unwrap_or(0))
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, id: Uuid) -> &mut Self {
        self.bytes.extend_from_slice(&id.0);
        self
    }

    /// Bytes of any length: a zero becomes 00 ff, and 00 01 ends them, so that a shorter one
    /// sorts before what it starts.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        for &byte in value {
            self.bytes.push(byte);
            if byte == 0 {
                self.bytes.push(0xff);
            }
        }
        self.bytes.extend_from_slice(&[0, 1]);
        self
    }

    /// A string, as [`KeyWriter::bytes`].
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Namespace, archetype and id of an execution.
    pub fn execution(&mut self, key: &ExecutionKey) -> &mut Self {
        self.uuid(key.namespace).u8(key.archetype as u8).string(&key.id)
    }

    /// The key.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }

    /// Every key that starts with what was written so far.
    pub fn range(self) -> Range<Bytes> {
        let end = prefix_end(&self.bytes);
        Bytes::from(self.bytes)..end
    }
}

/// Takes a key apart.
#[derive(Debug)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
    table: Table,
}

impl KeyReader<'_> {
    /// The error for a part that is not what it should be.
    pub fn bad(&self, what: &str) -> StorageError {
        StorageError::Corrupt(format!("key of table {:?}: {what}", self.table))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(self.bad("too short")),
        }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, StorageError> {
        Ok(u8::from_be_bytes(self.take()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, StorageError> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, StorageError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, StorageError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    /// Eight bytes in falling order.
    pub fn descending(&mut self) -> Result<u64, StorageError> {
        Ok(!self.u64()?)
    }

    /// A time.
    pub fn hlc(&mut self) -> Result<Hlc, StorageError> {
        Ok(Hlc(self.u64()?))
    }

    /// An event id.
    pub fn event(&mut self) -> Result<EventId, StorageError> {
        let value = self.u64()?;
        EventId::try_from(value).map_err(|_| self.bad("event id out of range"))
    }

    /// A change number.
    pub fn seq(&mut self) -> Result<ChangeSeq, StorageError> {
        self.u64()
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, StorageError> {
        Ok(Uuid(self.take()?))
    }

    /// Bytes of any length.
    pub fn bytes(&mut self) -> Result<Vec<u8>, StorageError> {
        let mut out = Vec::with_capacity(self.rest.len());
        loop {
            match *self.rest {
                [0, 1, ref rest @ ..] => {
                    self.rest = rest;
                    return Ok(out);
                }
                [0, 0xff, ref rest @ ..] => {
                    out.push(0);
                    self.rest = rest;
                }
                [0, ..] | [] => return Err(self.bad("a string without an end")),
                [byte, ref rest @ ..] => {
                    out.push(byte);
                    self.rest = rest;
                }
            }
        }
    }

    /// A string.
    pub fn string(&mut self) -> Result<String, StorageError> {
        String::from_utf8(self.bytes()?).map_err(|_| self.bad("a string that is not UTF-8"))
    }

    /// The kind of an execution.
    pub fn archetype(&mut self) -> Result<Archetype, StorageError> {
        let byte = self.u8()?;
        Archetype::from_byte(byte).ok_or_else(|| self.bad("unknown archetype"))
    }

    /// Namespace, archetype and id of an execution.
    pub fn execution(&mut self) -> Result<ExecutionKey, StorageError> {
        let namespace: NamespaceId = self.uuid()?;
        let archetype = self.archetype()?;
        Ok(ExecutionKey { namespace, archetype, id: Arc::from(self.string()?) })
    }
}

/// Names one run, and where it lives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RunKey {
    /// The shard of the execution.
    pub shard: ShardId,
    /// The execution.
    pub execution: ExecutionKey,
    /// The run.
    pub run: RunId,
}

/// Names one slot (a run, or the record of the id), and where it lives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SlotKey {
    /// The shard of the execution.
    pub shard: ShardId,
    /// The execution.
    pub execution: ExecutionKey,
    /// The slot.
    pub slot: Slot,
}

impl RunKey {
    pub(super) fn write(&self, out: &mut KeyWriter) {
        out.execution(&self.execution).uuid(self.run);
    }

    pub(super) fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<RunKey, StorageError> {
        Ok(RunKey { shard, execution: input.execution()?, run: input.uuid()? })
    }
}

impl SlotKey {
    pub(super) fn write(&self, out: &mut KeyWriter) {
        out.execution(&self.execution).uuid(Uuid(self.slot.bytes()));
    }

    pub(super) fn read(shard: ShardId, input: &mut KeyReader<'_>) -> Result<SlotKey, StorageError> {
        let execution = input.execution()?;
        Ok(SlotKey { shard, execution, slot: Slot::from_bytes(input.uuid()?.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(prefix_end(&[1, 2]), &[1, 3][..]);
        assert_eq!(prefix_end(&[1, 0xff, 0xff]), &[2][..]);
        assert_eq!(prefix_end(&[0xff]), &[0xff][..]);
        let range = Table::Backlog.range(u32::MAX);
        assert_eq!(range.start, &[5, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(range.end, &[6][..]);
    }

    #[test]
    fn tables_have_one_byte_each() {
        let mut bytes = Table::ALL.map(|table| table as u8).to_vec();
        bytes.dedup();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 7, 8, 9, 10]);
    }

    #[test]
    fn garbage_is_refused() {
        let table = Table::Counter;
        let read = |rest: &'static [u8]| KeyReader { rest, table }.string();
        assert!(read(b"a\0\x01").is_ok());
        for bad in [&b"a"[..], b"a\0", b"a\0\x02", b"\xff\0\x01"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
