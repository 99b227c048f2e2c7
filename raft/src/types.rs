//! The types that openraft works with here, and their stored forms.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_storage::{LogEntry, StorageError};
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft::vote::{RaftLeaderId, RaftLeaderIdExt};
use openraft::{EntryPayload, Membership};

use crate::entry::EntryBytes;
use crate::rt::Rt;
use crate::wire::{Reader, put_bytes, put_varint};

/// Identifies a node of a cluster; never given to another, also when its disk is replaced.
pub type NodeId = u64;

/// How openraft is set up: one leader per term, entries as opaque bytes, no answer from apply
/// (answers are the shard loop's), addresses kept elsewhere. Written out because
/// `declare_raft_types!` takes no responder of our own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = EntryBytes;
    type R = ();
    type NodeId = NodeId;
    type Node = ();
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = EntryPayload<EntryBytes, NodeId, ()>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Rt;
    type Responder<T>
        = OnEnd<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// openraft's log id: (term, index).
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// openraft's vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// openraft's entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// openraft's membership with the log id that set it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// A log id from its parts.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: leader_id_std::LeaderId::<u64, u64>::new_committed(term, 0), index }
}

/// The term of a log id.
pub fn term_of(id: &LogId) -> u64 {
    *id.leader_id
}

/// Calls back once with how a proposal ended, also when openraft drops it without an answer.
pub struct OnEnd<T>(Option<Box<dyn FnOnce(Option<T>) + Send>>);

impl<T> OnEnd<T> {
    /// `call` gets the result, or `None` when there never will be one.
    pub fn new(call: impl FnOnce(Option<T>) + Send + 'static) -> OnEnd<T> {
        OnEnd(Some(Box::new(call)))
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for OnEnd<T> {
    fn on_complete(mut self, result: T) {
        if let Some(call) = self.0.take() {
            call(Some(result));
        }
    }
}

impl<T> Drop for OnEnd<T> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(None);
        }
    }
}

/// A storage failure as openraft wants to hear it.
pub(crate) fn io_error(error: StorageError) -> io::Error {
    match error {
        StorageError::Io(_) => io::Error::other(error),
        StorageError::Corrupt(_) => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

pub(crate) fn corrupt(what: impl Into<String>) -> io::Error {
    io_error(StorageError::Corrupt(what.into()))
}

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The stored form of an entry.
pub(crate) fn to_log_entry(entry: Entry) -> LogEntry {
    let id = entry.log_id;
    let payload = match entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        EntryPayload::Normal(data) => {
            let mut out = BytesMut::with_capacity(1 + data.len());
            out.put_u8(NORMAL);
            out.put_slice(data.bytes());
            out.freeze()
        }
        EntryPayload::Membership(membership) => {
            let mut out = BytesMut::new();
            out.put_u8(MEMBERSHIP);
            put_membership(&mut out, &membership);
            out.freeze()
        }
    };
    LogEntry { index: id.index, term: term_of(&id), payload }
}

/// The reverse of [`to_log_entry`].
pub(crate) fn from_log_entry(entry: LogEntry) -> io::Result<Entry> {
    let id = log_id(entry.term, entry.index);
    let bad = || corrupt(format!("log entry {} does not decode", entry.index));
    let mut read = Reader::new(entry.payload.clone());
    let payload = match read.u8().ok_or_else(bad)? {
        BLANK if read.left() == 0 => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(EntryBytes::from_wire(entry.payload.slice(1..))),
        MEMBERSHIP => EntryPayload::Membership(read_membership(&mut read).ok_or_else(bad)?),
        _ => return Err(bad()),
    };
    Ok(Entry::new(id, payload))
}

/// What a shard's leader put into a stored entry; `None` when the entry is Raft's own, or damaged.
pub fn application_data(entry: &LogEntry) -> Option<EntryBytes> {
    match from_log_entry(entry.clone()).ok()?.payload {
        EntryPayload::Normal(data) => Some(data),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

/// Voter sets, then all members.
pub(crate) fn put_membership(out: &mut BytesMut, membership: &Membership<u64, ()>) {
    let configs = membership.get_joint_config();
    put_varint(out, configs.len());
    for config in configs {
        put_ids(out, config.iter().copied().collect());
    }
    put_ids(out, membership.nodes().map(|(id, ())| *id).collect());
}

fn put_ids(out: &mut BytesMut, ids: Vec<u64>) {
    put_varint(out, ids.len());
    ids.into_iter().for_each(|id| out.put_u64(id));
}

pub(crate) fn read_membership(read: &mut Reader) -> Option<Membership<u64, ()>> {
    let mut configs = Vec::new();
    for _ in 0..read.varint()? {
        configs.push(read_ids(read)?);
    }
    let nodes: BTreeMap<u64, ()> = read_ids(read)?.into_iter().map(|id| (id, ())).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Some(Membership::default());
    }
    Membership::new(configs, nodes).ok()
}

fn read_ids(read: &mut Reader) -> Option<BTreeSet<u64>> {
    (0..read.varint()?).map(|_| read.u64()).collect()
}

/// The stored form of a vote.
pub(crate) fn vote_bytes(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    out.put_u64(vote.leader_id.term);
    out.put_u64(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
    out.freeze()
}

/// The reverse of [`vote_bytes`].
pub fn read_vote(bytes: Bytes) -> Option<Vote> {
    let mut read = Reader::new(bytes);
    let leader_id = leader_id_std::LeaderId { term: read.u64()?, voted_for: read.u64()? };
    let committed = match read.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    (read.left() == 0).then_some(Vote { leader_id, committed })
}

/// The stored form of an optional log id.
pub(crate) fn put_log_id(out: &mut BytesMut, id: Option<&LogId>) {
    let bytes = id.map_or_else(Bytes::new, log_id_bytes);
    put_bytes(out, &bytes);
}

/// The stored form of a log id.
pub(crate) fn log_id_bytes(id: &LogId) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_u64(term_of(id));
    out.put_u64(id.index);
    out.freeze()
}

/// The reverse of [`put_log_id`]; the outer `None` means malformed.
pub(crate) fn read_optional_log_id(read: &mut Reader) -> Option<Option<LogId>> {
    let bytes = read.bytes()?;
    if bytes.is_empty() { Some(None) } else { read_log_id(bytes).map(Some) }
}

/// The reverse of [`log_id_bytes`].
pub(crate) fn read_log_id(bytes: Bytes) -> Option<LogId> {
    let mut read = Reader::new(bytes);
    let id = log_id(read.u64()?, read.u64()?);
    (read.left() == 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(payload: EntryPayload<EntryBytes, u64, ()>) {
        let entry = Entry::new(log_id(7, 9), payload);
        let text = format!("{entry:?}");
        let stored = to_log_entry(entry);
        assert_eq!((stored.term, stored.index), (7, 9));
        let back = from_log_entry(stored).map(|entry| format!("{entry:?}"));
        assert_eq!(back.ok(), Some(text));
    }

    #[test]
    fn entries_round_trip() {
        round_trip(EntryPayload::Blank);
        round_trip(EntryPayload::Normal(EntryBytes::from_wire(Bytes::from_static(b"xyz"))));
        let joint = Membership::new_with_defaults(vec![[1, 2].into(), [2, 3].into()], [4]);
        round_trip(EntryPayload::Membership(joint));
        round_trip(EntryPayload::Membership(Membership::default()));
    }

    #[test]
    fn unknown_payloads_are_refused() {
        for payload in [&[][..], &[3], &[0, 0], &[2, 1, 9]] {
            let entry = LogEntry { index: 1, term: 1, payload: Bytes::copy_from_slice(payload) };
            assert!(from_log_entry(entry).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn votes_and_ids_round_trip() {
        for committed in [false, true] {
            let leader_id = leader_id_std::LeaderId { term: 3, voted_for: 5 };
            let vote = Vote { leader_id, committed };
            assert_eq!(read_vote(vote_bytes(&vote)), Some(vote));
        }
        assert_eq!(read_vote(Bytes::from_static(&[0; 16])), None);
        assert_eq!(read_vote(Bytes::from_static(&[2; 17])), None);
        assert_eq!(read_log_id(log_id_bytes(&log_id(4, 2))), Some(log_id(4, 2)));
    }

    #[test]
    fn a_dropped_proposal_says_so() {
        let (tx, rx) = std::sync::mpsc::channel();
        let send =
            |tx: std::sync::mpsc::Sender<_>| OnEnd::new(move |end| tx.send(end).expect("heard"));
        Responder::<TypeConfig, u8>::on_complete(send(tx.clone()), 4);
        drop(send(tx));
        assert_eq!(rx.iter().collect::<Vec<_>>(), [Some(4), None]);
    }
}
