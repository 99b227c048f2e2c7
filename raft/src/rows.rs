//! The rows that replicas derive by themselves: history, journal and checkpoint of each slot, and
//! the state of the group. Keys and values are the storage crate's.

use std::ops::{ControlFlow, Range};

use bytes::{Bytes, BytesMut};
use holdfast_engine::ids::{ChangeSeq, EventId, ExecutionKey, Hlc, Slot};
use holdfast_storage::tables::checkpoint::{Checkpoint, CheckpointKey};
use holdfast_storage::tables::history::{Batch, HistoryKey};
use holdfast_storage::tables::journal::{self, Item, JournalKey};
use holdfast_storage::tables::meta::{self, AppliedKey};
use holdfast_storage::tables::{Key, RunKey, ShardId, SlotKey, Table};
use holdfast_storage::{Direction, GroupId, Op, StorageError, Store, View, tables};

use crate::entry::{Reign, WireChange};
use crate::types::{
    LogId, StoredMembership, log_id, put_log_id, put_membership, read_membership,
    read_optional_log_id, term_of,
};
use crate::wire::Reader;

/// What the tables say about a group besides its rows: one value, so that it is read from one cut.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupState {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The newest membership applied.
    pub membership: StoredMembership,
    /// The newest reign an entry of which was accepted.
    pub reign: Reign,
    /// The only sequence number that this reign may go on with.
    pub next_seq: u64,
    /// The latest time of an accepted entry. Nothing goes on from it: it says whether the clock was set
    /// back.
    pub at: Hlc,
}

impl GroupState {
    /// As a row.
    pub fn row(&self, group: GroupId) -> Op {
        let mut membership = BytesMut::new();
        put_log_id(&mut membership, self.membership.log_id().as_ref());
        put_membership(&mut membership, self.membership.membership());
        let value = meta::Applied {
            last: self.applied.map(|id| (term_of(&id), id.index)),
            membership: membership.freeze(),
            reign: (self.reign.term, self.reign.counter),
            next_seq: self.next_seq,
            hlc: self.at,
        };
        tables::put(&AppliedKey { group }, value.to_value())
    }

    /// As a view shows it.
    pub fn read(view: &dyn View, group: GroupId) -> Result<GroupState, StorageError> {
        GroupState::from_row(view.get(&AppliedKey { group }.encode())?, group)
    }

    /// As a crash at this moment would leave it.
    pub fn persisted(store: &dyn Store, group: GroupId) -> Result<GroupState, StorageError> {
        GroupState::from_row(store.get_persisted(&AppliedKey { group }.encode())?, group)
    }

    /// From the row's value; the default when there is none.
    pub fn from_row(value: Option<Bytes>, group: GroupId) -> Result<GroupState, StorageError> {
        let Some(value) = value else { return Ok(GroupState::default()) };
        let stored = meta::Applied::from_value(value)?;
        let membership = decode_membership(stored.membership).ok_or_else(|| {
            StorageError::Corrupt(format!("group {group}: its membership does not decode"))
        })?;
        Ok(GroupState {
            applied: stored.last.map(|(term, index)| log_id(term, index)),
            membership,
            reign: Reign { term: stored.reign.0, counter: stored.reign.1 },
            next_seq: stored.next_seq,
            at: stored.hlc,
        })
    }
}

fn decode_membership(bytes: Bytes) -> Option<StoredMembership> {
    let mut read = Reader::new(bytes);
    let by = read_optional_log_id(&mut read)?;
    let members = read_membership(&mut read)?;
    (read.left() == 0).then(|| StoredMembership::new(by, members))
}

/// The shard that a group holds: shard `n` is group `n + 1`, and group 0 holds none.
pub fn shard_of(group: GroupId) -> Option<ShardId> {
    group.checked_sub(1)
}

/// Every range of keys that a snapshot of `group` carries.
pub fn ranges(group: GroupId) -> Vec<Range<Bytes>> {
    let own = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
    let shard = shard_of(group);
    let mut all: Vec<_> = own.filter_map(|table| Some(table.range(shard?))).collect();
    all.push(meta::replicated(group));
    all
}

/// Whether an entry of `group` may write the row `key`: one of the group's own, but not the state
/// that says how far it is.
pub fn may_write(key: &[u8], group: GroupId) -> bool {
    let own = |range: Range<Bytes>| range.start[..] <= *key && *key < range.end[..];
    let meta = key.first() == Some(&(Table::Meta as u8));
    match shard_of(group) {
        _ if meta => own(meta::replicated(group)) && *key != AppliedKey { group }.encode()[..],
        Some(shard) => key.get(1..5) == Some(&shard.to_be_bytes()[..]),
        None => false,
    }
}

/// The name of a slot in the tables.
pub fn slot_key(shard: ShardId, execution: &ExecutionKey, slot: Slot) -> SlotKey {
    SlotKey { shard, execution: execution.clone(), slot }
}

/// The number of a slot's last change, as a view shows it: the end of its last journal row, else
/// its checkpoint's, else 0. No row is kept just to know this.
pub fn head(view: &dyn View, slot: &SlotKey) -> Result<ChangeSeq, StorageError> {
    let range = journal::range(slot);
    let mut found = None;
    view.scan(&range.start, &range.end, Direction::Backward, &mut |key, value| {
        found = Some(row_end(key, value));
        ControlFlow::Break(())
    })?;
    if let Some(end) = found {
        return end;
    }
    let row = view.get(&CheckpointKey { slot: slot.clone() }.encode())?;
    row.map_or(Ok(0), |value| Ok(Checkpoint::from_value(value)?.seq))
}

fn row_end(key: &[u8], value: &[u8]) -> Result<ChangeSeq, StorageError> {
    let base = JournalKey::decode(key)?.base;
    let items = journal::from_value(Bytes::copy_from_slice(value))?;
    Ok(base + items.iter().map(Item::changes).sum::<u64>())
}

/// The checkpoint row of a slot: its state after change `seq`.
pub fn checkpoint_row(slot: &SlotKey, seq: ChangeSeq, state: &Bytes) -> Op {
    let value = Checkpoint { seq, state: state.clone() }.to_value();
    tables::put(&CheckpointKey { slot: slot.clone() }, value)
}

/// Removes the checkpoint of a slot.
pub fn delete_checkpoint(slot: &SlotKey) -> Op {
    tables::delete(&CheckpointKey { slot: slot.clone() })
}

/// The journal row of changes that follow number `base`.
pub fn journal_row(slot: &SlotKey, base: ChangeSeq, items: &[Item]) -> Op {
    tables::put(&JournalKey { slot: slot.clone(), base }, journal::to_value(items))
}

/// The history row of a batch of events.
pub fn history_row(run: RunKey, first: EventId, events: Vec<Bytes>) -> Op {
    tables::put(&HistoryKey { run, first }, Batch { events }.to_value())
}

/// Consecutive events and the id of the first.
pub type Events = Option<(EventId, Vec<Bytes>)>;

/// Parts changes into what the journal remembers and the events that history stores.
pub fn split_changes(changes: &[WireChange]) -> Result<(Vec<Item>, Events), String> {
    let mut items = Vec::new();
    let mut events: Events = None;
    for change in changes {
        if change.tag != WireChange::EVENT {
            items.push(Item::Change { tag: u32::from(change.tag), bytes: change.body.clone() });
            continue;
        }
        let id = event_id(&change.body).ok_or("a history event without an id")?;
        match &mut events {
            None => events = Some((id, vec![change.body.clone()])),
            Some((first, bodies)) if *first + bodies.len() as i64 == id => {
                bodies.push(change.body.clone());
            }
            Some((first, _)) => {
                return Err(format!("event {id} in a batch that begins at {first}"));
            }
        }
        match items.last_mut() {
            Some(Item::Events { last, .. }) => *last = id,
            _ => items.push(Item::Events { first: id, last: id }),
        }
    }
    Ok((items, events))
}

/// The id of an encoded `HistoryEvent`: its first field, number 1, a varint. Never below 1.
pub(crate) fn event_id(body: &[u8]) -> Option<EventId> {
    let (&tag, mut rest) = body.split_first()?;
    let id = (tag == 0x08).then(|| prost::encoding::decode_varint(&mut rest).ok()).flatten()?;
    i64::try_from(id).ok().filter(|id| *id >= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::Membership;

    #[test]
    fn the_state_of_a_group_round_trips() {
        let membership = Membership::new_with_defaults(vec![[1, 2, 3].into()], [4]);
        let full = GroupState {
            applied: Some(log_id(3, 9)),
            membership: StoredMembership::new(Some(log_id(1, 2)), membership),
            reign: Reign { term: 3, counter: 2 },
            next_seq: 7,
            at: Hlc(99),
        };
        for state in [GroupState::default(), full] {
            let Op::Put { key, value } = state.row(3) else { panic!("not a put") };
            assert!(!may_write(&key, 3), "no entry may move the state");
            assert_eq!(GroupState::from_row(Some(value), 3).ok(), Some(state));
        }
    }

    #[test]
    fn rows_of_other_groups_are_told_apart() {
        let key =
            |table: Table, owner: u32| [&[table as u8][..], &owner.to_be_bytes(), &[2]].concat();
        assert!(may_write(&key(Table::Backlog, 4), 5), "shard 4 is group 5");
        assert!(!may_write(&key(Table::Backlog, 5), 5));
        assert!(may_write(&key(Table::Meta, 5), 5));
        assert!(!may_write(&key(Table::Meta, 4), 5));
        assert!(may_write(&key(Table::Meta, 0), 0));
        assert!(!may_write(&key(Table::Backlog, 0), 0), "group 0 holds no shard");
        let own = [&[Table::Meta as u8][..], &5u32.to_be_bytes(), &[0x80]].concat();
        assert!(!may_write(&own, 5), "the node's own marks");
        assert!(!may_write(&[], 5));
    }

    fn change(tag: u16, body: &[u8]) -> WireChange {
        WireChange { tag, body: Bytes::copy_from_slice(body) }
    }

    #[test]
    fn changes_split_into_journal_and_history() {
        let changes =
            [change(1, &[8, 5, 1]), change(1, &[8, 6]), change(9, b"p"), change(1, &[8, 7])];
        let (items, events) = split_changes(&changes).expect("well formed");
        let private = Item::Change { tag: 9, bytes: Bytes::from_static(b"p") };
        let range = |first, last| Item::Events { first, last };
        assert_eq!(items, [range(5, 6), private, range(7, 7)]);
        assert_eq!(items.iter().map(Item::changes).sum::<u64>(), 4, "one number each");
        let (first, bodies) = events.expect("events");
        assert_eq!((first, bodies.len()), (5, 3));
    }

    #[test]
    fn events_that_do_not_follow_are_refused() {
        assert!(split_changes(&[change(1, &[8, 5]), change(1, &[8, 7])]).is_err());
        for body in [
            &[][..],
            &[8],
            &[8, 0],
            &[16, 5],
            &[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(split_changes(&[change(1, body)]).is_err(), "{body:?}");
        }
    }
}
