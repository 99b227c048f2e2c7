//! The log entry of a shard: what a leader decided, ready to be written by replicas that know no
//! domain rule (DESIGN 3.2, 3.3, 13).
//!
//! ```text
//! crc32 u32 | format u16 | reign.term u64 | reign.counter u64 | seq u64 | at u64 | drafts | control
//! ```
//!
//! Fixed fields are big-endian, counts and lengths are canonical LEB128. The CRC covers every byte
//! after it, so any single flipped byte is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_engine::ids::{Archetype, ChangeSeq, ExecutionKey, Hlc, Slot, Uuid};
use holdfast_storage::Op;

use crate::wire::{Reader, put_bytes, put_varint, varint_len};

/// The format that this build writes and the only one it reads.
pub const FORMAT: u16 = 1;

/// Bytes before the drafts.
const HEADER: usize = 38;

/// The most bytes that a workflow id may have; part of the format.
pub const EXECUTION_ID_BYTES: usize = 1000;

/// How large entries may become (A17). The shard loop closes an entry before the next decision would
/// take it over a size that is configured, [`EntryLimits::ENTRY_BYTES`] unless it is; an entry of one
/// decision may be larger than that.
pub struct EntryLimits;

impl EntryLimits {
    /// The most bytes that the drafts of one decision may encode to. Requests are bounded to 4 MiB
    /// (gRPC) and a run's state to 8 MiB (Temporal's limits); a decision may carry what a request
    /// brought twice, as event and as list row, and the state once, as checkpoint.
    pub const DECISION_BYTES: usize = 24 << 20;
    /// The most bytes of drafts that an entry of several decisions holds, by default.
    pub const ENTRY_BYTES: usize = 1 << 20;
    /// The most bytes any entry may encode to: one decision, its frame and the shard's own rows.
    pub const MAX_BYTES: usize = Self::DECISION_BYTES + (8 << 20);
}

/// Number of a leadership of a shard: greater than any before it (DESIGN 3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Reign {
    /// The Raft term of the leader that opened it.
    pub term: u64,
    /// How often that leader has opened one in this term; 1, 2, 3, ..
    pub counter: u64,
}

/// One entry of a shard's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardEntry {
    /// The leadership that decided it.
    pub reign: Reign,
    /// Its place in that reign: 0, 1, 2, ..
    pub seq: u64,
    /// The leader's time when it was closed: when what it holds was decided.
    pub at: Hlc,
    /// What it changes, one execution each; empty in group 0.
    pub drafts: Vec<EntryDraft>,
    /// Rows that belong to no execution: everything in group 0, and a shard's own rows.
    pub control: Vec<Op>,
}

/// The committed part of one draft.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryDraft {
    /// The execution.
    pub key: ExecutionKey,
    /// What folds: the id's record and the runs that changed, each at most once.
    pub parts: Vec<SlotPart>,
    /// The rows that follow from it, absolute.
    pub rows: Vec<Op>,
}

/// The changes of one slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotPart {
    /// Which slot.
    pub slot: Slot,
    /// The number of the last change before these.
    pub base: ChangeSeq,
    /// The changes, numbered `base + 1` and up.
    pub changes: Vec<WireChange>,
    /// The slot's whole state after these changes; replaces its journal.
    pub checkpoint: Option<Bytes>,
    /// The slot is gone: its journal, checkpoint, history and head are removed, whatever there is of
    /// them when this is applied. It has no changes then.
    pub drop: bool,
}

/// One change as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WireChange {
    /// What it means; the meaning of a tag never changes (A9). Never 0. Only
    /// [`WireChange::EVENT`] is known here.
    pub tag: u16,
    /// Its prost bytes.
    pub body: Bytes,
}

impl WireChange {
    /// The tag of a history event; the body is an encoded `HistoryEvent`.
    pub const EVENT: u16 = 1;
}

/// Why bytes are not an entry, or an entry can't become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It would exceed [`EntryLimits`].
    #[error("entry of {0} bytes is over the limit")]
    TooLarge(usize),
    /// The checksum does not match.
    #[error("entry checksum does not match")]
    Checksum,
    /// Written by a later version.
    #[error("entry format {0} is not known")]
    Format(u16),
    /// The checksum matches but the contents are not an entry.
    #[error("malformed entry: {0}")]
    Malformed(&'static str),
}

/// The application data of a Raft entry: an encoded [`ShardEntry`]. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryBytes(Bytes);

/// What can be read from an encoded entry without decoding it. Not checked: use it on bytes that
/// this process made, or to decide whether to look closer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// The reign.
    pub reign: Reign,
    /// The place in it.
    pub seq: u64,
    /// The leader's time when it was closed.
    pub at: Hlc,
}

impl EntryBytes {
    /// Wraps bytes as they came from a log or a peer, unchecked.
    pub fn from_wire(bytes: Bytes) -> EntryBytes {
        EntryBytes(bytes)
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// How many bytes they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing, which no entry ever is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the header, unchecked; `None` when it is too short for one.
    pub fn mark(&self) -> Option<Mark> {
        let mut read = Reader::new(self.0.clone());
        read.skip(6)?;
        let reign = Reign { term: read.u64()?, counter: read.u64()? };
        Some(Mark { reign, seq: read.u64()?, at: Hlc(read.u64()?) })
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = self.mark().unwrap_or_default();
        write!(f, "{}.{}#{} {}B", mark.reign.term, mark.reign.counter, mark.seq, self.0.len())
    }
}

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ShardEntry {
    /// An entry with nothing in it yet.
    pub fn new(reign: Reign, seq: u64, at: Hlc) -> ShardEntry {
        ShardEntry { reign, seq, at, drafts: Vec::new(), control: Vec::new() }
    }

    /// How many bytes [`ShardEntry::encode`] gives.
    pub fn encoded_len(&self) -> usize {
        HEADER
            + varint_len(self.drafts.len())
            + self.drafts.iter().map(EntryDraft::encoded_len).sum::<usize>()
            + ops_len(&self.control)
    }

    /// The bytes for the log. Refuses an entry over the limits.
    pub fn encode(&self) -> Result<EntryBytes, EntryError> {
        let len = self.encoded_len();
        if len > EntryLimits::MAX_BYTES {
            return Err(EntryError::TooLarge(len));
        }
        let mut out = BytesMut::with_capacity(len);
        out.put_u32(0);
        out.put_u16(FORMAT);
        out.put_u64(self.reign.term);
        out.put_u64(self.reign.counter);
        out.put_u64(self.seq);
        out.put_u64(self.at.0);
        put_varint(&mut out, self.drafts.len());
        for draft in &self.drafts {
            draft.encode(&mut out)?;
        }
        put_ops(&mut out, &self.control);
        let crc = crc32fast::hash(&out[4..]);
        out[..4].copy_from_slice(&crc.to_be_bytes());
        Ok(EntryBytes(out.freeze()))
    }

    /// Reads an entry. The parts share `bytes`: copy what is kept for long.
    pub fn decode(bytes: &EntryBytes) -> Result<ShardEntry, EntryError> {
        let bytes = bytes.bytes();
        if bytes.len() > EntryLimits::MAX_BYTES {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        let mut read = Reader::new(bytes.clone());
        let crc = read.u32().ok_or(EntryError::Malformed("too short"))?;
        if crc32fast::hash(&bytes[4..]) != crc {
            return Err(EntryError::Checksum);
        }
        let format = read.u16().ok_or(EntryError::Malformed("too short"))?;
        if format != FORMAT {
            return Err(EntryError::Format(format));
        }
        let entry = decode_body(&mut read).ok_or(EntryError::Malformed("cut short"))??;
        if read.left() > 0 {
            return Err(EntryError::Malformed("bytes after the end"));
        }
        Ok(entry)
    }
}

/// `None` when the bytes end too early or a length is not canonical.
fn decode_body(read: &mut Reader) -> Option<Result<ShardEntry, EntryError>> {
    let reign = Reign { term: read.u64()?, counter: read.u64()? };
    let mut entry = ShardEntry::new(reign, read.u64()?, Hlc(read.u64()?));
    for _ in 0..read.varint()? {
        match decode_draft(read)? {
            Ok(draft) => entry.drafts.push(draft),
            Err(why) => return Some(Err(EntryError::Malformed(why))),
        }
    }
    match decode_ops(read)? {
        Ok(ops) => entry.control = ops,
        Err(why) => return Some(Err(EntryError::Malformed(why))),
    }
    Some(Ok(entry))
}

impl EntryDraft {
    /// How many bytes this adds to an entry (besides its share of the draft count).
    pub fn encoded_len(&self) -> usize {
        let id = self.key.id.len();
        16 + 1
            + varint_len(id)
            + id
            + varint_len(self.parts.len())
            + self.parts.iter().map(SlotPart::encoded_len).sum::<usize>()
            + ops_len(&self.rows)
    }

    fn encode(&self, out: &mut BytesMut) -> Result<(), EntryError> {
        if self.key.id.len() > EXECUTION_ID_BYTES {
            return Err(EntryError::Malformed("id too long"));
        }
        out.put_slice(&self.key.namespace.0);
        out.put_u8(self.key.archetype as u8);
        put_bytes(out, self.key.id.as_bytes());
        put_varint(out, self.parts.len());
        for part in &self.parts {
            if part.changes.iter().any(|change| change.tag == 0) {
                return Err(EntryError::Malformed("a change with tag 0"));
            }
            part.encode(out);
        }
        put_ops(out, &self.rows);
        Ok(())
    }
}

fn decode_draft(read: &mut Reader) -> Option<Result<EntryDraft, &'static str>> {
    let namespace = Uuid(read.array16()?);
    let Some(archetype) = Archetype::from_byte(read.u8()?) else {
        return Some(Err("unknown archetype"));
    };
    let id = read.bytes()?;
    let id = match std::str::from_utf8(&id) {
        Ok(id) if id.len() <= EXECUTION_ID_BYTES => Arc::from(id),
        _ => return Some(Err("bad execution id")),
    };
    let mut parts: Vec<SlotPart> = Vec::new();
    let mut slots = BTreeSet::new();
    for _ in 0..read.varint()? {
        match decode_part(read)? {
            Ok(part) if slots.insert(part.slot) => parts.push(part),
            Ok(_) => return Some(Err("a slot twice in one draft")),
            Err(why) => return Some(Err(why)),
        }
    }
    let key = ExecutionKey { namespace, archetype, id };
    Some(decode_ops(read)?.map(|rows| EntryDraft { key, parts, rows }))
}

const HAS_CHECKPOINT: u8 = 1;
const IS_DROP: u8 = 2;

impl SlotPart {
    fn encoded_len(&self) -> usize {
        let changes: usize = self
            .changes
            .iter()
            .map(|change| varint_len(change.body.len() + 2) + change.body.len() + 2)
            .sum();
        let checkpoint = self.checkpoint.as_ref().map_or(0, |c| varint_len(c.len()) + c.len());
        16 + 8 + 1 + varint_len(self.changes.len()) + changes + checkpoint
    }

    fn encode(&self, out: &mut BytesMut) {
        let checkpoint = if self.checkpoint.is_some() { HAS_CHECKPOINT } else { 0 };
        let drop = if self.drop { IS_DROP } else { 0 };
        out.put_slice(&self.slot.bytes());
        out.put_u64(self.base);
        out.put_u8(checkpoint | drop);
        put_varint(out, self.changes.len());
        for change in &self.changes {
            put_varint(out, change.body.len() + 2);
            out.put_u16(change.tag);
            out.put_slice(&change.body);
        }
        if let Some(checkpoint) = &self.checkpoint {
            put_bytes(out, checkpoint);
        }
    }
}

fn decode_part(read: &mut Reader) -> Option<Result<SlotPart, &'static str>> {
    let slot = Slot::from_bytes(read.array16()?);
    let base = read.u64()?;
    let flags = read.u8()?;
    if flags & !(HAS_CHECKPOINT | IS_DROP) != 0 {
        return Some(Err("unknown slot flags"));
    }
    let mut changes = Vec::new();
    for _ in 0..read.varint()? {
        let change = read.bytes()?;
        let Some((tag, _)) = change.split_first_chunk::<2>() else {
            return Some(Err("a change without a tag"));
        };
        let tag = u16::from_be_bytes(*tag);
        if tag == 0 {
            return Some(Err("a change with tag 0"));
        }
        changes.push(WireChange { tag, body: change.slice(2..) });
    }
    let checkpoint = if flags & HAS_CHECKPOINT != 0 { Some(read.bytes()?) } else { None };
    let drop = flags & IS_DROP != 0;
    if drop && (!changes.is_empty() || checkpoint.is_some()) {
        return Some(Err("a dropped slot with changes"));
    }
    Some(Ok(SlotPart { slot, base, changes, checkpoint, drop }))
}

const OP_PUT: u8 = 0;
const OP_DELETE: u8 = 1;

fn ops_len(ops: &[Op]) -> usize {
    let each = |op: &Op| match op {
        Op::Put { key, value } => {
            1 + varint_len(key.len()) + key.len() + varint_len(value.len()) + value.len()
        }
        Op::Delete { key } => 1 + varint_len(key.len()) + key.len(),
    };
    varint_len(ops.len()) + ops.iter().map(each).sum::<usize>()
}

fn put_ops(out: &mut BytesMut, ops: &[Op]) {
    put_varint(out, ops.len());
    for op in ops {
        match op {
            Op::Put { key, value } => {
                out.put_u8(OP_PUT);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Op::Delete { key } => {
                out.put_u8(OP_DELETE);
                put_bytes(out, key);
            }
        }
    }
}

fn decode_ops(read: &mut Reader) -> Option<Result<Vec<Op>, &'static str>> {
    let mut ops = Vec::new();
    for _ in 0..read.varint()? {
        match read.u8()? {
            OP_PUT => ops.push(Op::Put { key: read.bytes()?, value: read.bytes()? }),
            OP_DELETE => ops.push(Op::Delete { key: read.bytes()? }),
            _ => return Some(Err("unknown row operation")),
        }
    }
    Some(Ok(ops))
}
