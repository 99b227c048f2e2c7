//! openraft's log over [`holdfast_storage::Log`], one value per group.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream};
use holdfast_storage::{GroupId, Log, LogEntry, StorageError};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, RaftLogReader};
use tokio::sync::{oneshot, watch};

use crate::types::{
    Entry, LogId, TypeConfig, Vote, corrupt, from_log_entry, io_error, log_id, log_id_bytes,
    read_log_id, read_vote, term_of, to_log_entry, vote_bytes,
};

/// The most bytes of payload that one read takes into memory.
pub const READ_BYTES: usize = 1 << 20;

/// Says up to which index the tables are durable: the log may be purged to there and no further.
pub type PurgeFloor = Arc<dyn Fn() -> Result<Option<u64>, StorageError> + Send + Sync>;

/// The log of one group; also its reader.
#[derive(Clone)]
pub struct GroupLog {
    group: GroupId,
    log: Arc<dyn Log>,
    saved: Arc<Mutex<Saved>>,
    durable: Arc<Durable>,
    floor: PurgeFloor,
}

/// What openraft reads back as it was written, whether or not it is synced yet.
struct Saved {
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl GroupLog {
    /// Opens the log of a group. What it finds is durable: the log synced it when it opened.
    pub fn open(
        group: GroupId,
        log: Arc<dyn Log>,
        floor: PurgeFloor,
    ) -> Result<GroupLog, StorageError> {
        let state = log.state(group)?;
        let bad =
            |what| StorageError::Corrupt(format!("group {group}: the {what} does not decode"));
        let vote = state.vote.map(|v| read_vote(v).ok_or_else(|| bad("vote"))).transpose()?;
        let committed = state
            .committed
            .map(|c| read_log_id(c).ok_or_else(|| bad("committed mark")))
            .transpose()?;
        let saved = Arc::new(Mutex::new(Saved { vote, committed }));
        let durable = Arc::new(Durable::new(state.last.map(|(_, index)| index)));
        Ok(GroupLog { group, log, saved, durable, floor })
    }

    /// Up to which index this node's own log is durable. Goes back when entries are truncated.
    pub fn durable(&self) -> watch::Receiver<Option<u64>> {
        self.durable.index.subscribe()
    }

    fn saved<T>(&self, with: impl FnOnce(&mut Saved) -> T) -> T {
        with(&mut self.saved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One bounded read; refuses holes and entries that do not decode.
    fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let entries = self.log.read(self.group, from, to, READ_BYTES).map_err(io_error)?;
        if let Some(hole) = entries.windows(2).find(|pair| pair[1].index != pair[0].index + 1) {
            return Err(corrupt(format!(
                "group {}: no log entry after {}",
                self.group, hole[0].index
            )));
        }
        entries.into_iter().map(from_log_entry).collect()
    }
}

/// Tracks which of the appended entries are durable, across truncations.
struct Durable {
    index: watch::Sender<Option<u64>>,
    cuts: Mutex<Cuts>,
}

/// Truncations that appends still under way have not heard of.
#[derive(Default)]
struct Cuts {
    /// How many truncations there were.
    epoch: u64,
    /// Appends whose sync has not been reported.
    pending: usize,
    /// (epoch before it, highest index that stayed), while `pending > 0`.
    recent: Vec<(u64, Option<u64>)>,
}

impl Durable {
    fn new(index: Option<u64>) -> Durable {
        Durable { index: watch::Sender::new(index), cuts: Mutex::default() }
    }

    fn cuts(&self) -> std::sync::MutexGuard<'_, Cuts> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> u64 {
        let mut cuts = self.cuts();
        cuts.pending += 1;
        cuts.epoch
    }

    /// An append of entries up to `index`, begun in `epoch`, is synced or has failed.
    fn end(&self, epoch: u64, index: u64, synced: bool) {
        let mut cuts = self.cuts();
        let since = cuts.recent.iter().filter(|(before, _)| *before >= epoch);
        let stayed = since.map(|(_, keep)| *keep).chain([Some(index)]).min().flatten();
        cuts.pending -= 1;
        if cuts.pending == 0 {
            cuts.recent.clear();
        }
        if synced {
            self.index.send_if_modified(|durable| {
                let moved = stayed > *durable;
                *durable = stayed.max(*durable);
                moved
            });
        }
    }

    fn cut(&self, keep: Option<u64>) {
        let mut cuts = self.cuts();
        if cuts.pending > 0 {
            let epoch = cuts.epoch;
            cuts.recent.push((epoch, keep));
        }
        cuts.epoch += 1;
        self.index.send_modify(|durable| *durable = (*durable).min(keep));
    }
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (mut from, to) = bounds(&range);
        let mut all = Vec::new();
        while from < to {
            let some = self.read(from, to)?;
            let Some(last) = some.last() else { break };
            let first = some.first().map_or(from, |entry| entry.log_id.index);
            if !all.is_empty() && first != from {
                return Err(corrupt(format!("group {}: no log entry {from}", self.group)));
            }
            from = last.log_id.index + 1;
            all.extend(some);
        }
        Ok(all)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        let start = Chunks { log: self.clone(), from, to, chunk: Vec::new().into_iter() };
        Box::pin(stream::try_unfold(start, |mut at| async move {
            if at.chunk.len() == 0 && at.from < at.to {
                at.chunk = at.log.read(at.from, at.to)?.into_iter();
            }
            let Some(entry) = at.chunk.next() else { return Ok(None) };
            if entry.log_id.index != at.from {
                return Err(corrupt(format!("group {}: no log entry {}", at.log.group, at.from)));
            }
            at.from += 1;
            Ok(Some((entry, at)))
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.saved(|saved| saved.vote))
    }
}

/// A walk through the log in bounded steps.
struct Chunks {
    log: GroupLog,
    from: u64,
    to: u64,
    chunk: std::vec::IntoIter<Entry>,
}

/// A range as `from <= index < to`.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(&at) => at.saturating_add(1),
        Bound::Excluded(&at) => at,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log.state(self.group).map_err(io_error)?;
        let last_purged_log_id = state.purged.map(|(term, index)| log_id(term, index));
        let last = state.last.map(|(term, index)| log_id(term, index));
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> GroupLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, synced) = oneshot::channel();
        let tell = Box::new(move |result| drop(done.send(result)));
        self.log.save_vote(self.group, vote_bytes(vote), tell);
        match synced.await {
            Ok(result) => result.map_err(io_error)?,
            Err(_) => return Err(io::Error::other("the log stopped before the vote was synced")),
        }
        self.saved(|saved| saved.vote = Some(*vote));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(id) = committed {
            self.log.save_committed(self.group, log_id_bytes(&id));
            self.saved(|saved| saved.committed = Some(id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.saved(|saved| saved.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(to_log_entry).collect();
        let Some(last) = entries.last().map(|entry| entry.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let durable = Arc::clone(&self.durable);
        let epoch = durable.begin();
        let done = move |result: Result<(), StorageError>| {
            durable.end(epoch, last, result.is_ok());
            callback.io_completed(result.map_err(io_error));
        };
        self.log.append(self.group, entries, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let keep = last_log_id.map(|id| id.index);
        self.durable.cut(keep);
        self.log.truncate_after(self.group, keep);
        Ok(())
    }

    /// Refuses to remove what a crash now would need again: the flush watcher is the only purger,
    /// and openraft must never overtake it (A4).
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let floor = (self.floor)().map_err(io_error)?;
        if floor.is_none_or(|floor| upto.index > floor) {
            let group = self.group;
            return Err(io::Error::other(format!(
                "group {group}: refused to purge the log to {}, the tables are durable to {floor:?}",
                upto.index
            )));
        }
        self.log.purge(self.group, (term_of(&upto), upto.index));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_follows_syncs_and_truncations() {
        let durable = Durable::new(Some(10));
        let now = || *durable.index.borrow();
        let first = durable.begin(); // 11..=20
        let second = durable.begin(); // 21..=30
        durable.cut(Some(15));
        assert_eq!(now(), Some(10));
        let third = durable.begin(); // 16..=17, other contents
        durable.end(second, 30, true);
        assert_eq!(now(), Some(15), "the rest of that append is gone");
        durable.end(first, 20, true);
        assert_eq!(now(), Some(15));
        durable.end(third, 17, true);
        assert_eq!(now(), Some(17));
        durable.cut(Some(3));
        assert_eq!(now(), Some(3));
        durable.cut(None);
        assert_eq!(now(), None);
    }

    #[test]
    fn a_failed_sync_makes_nothing_durable() {
        let durable = Durable::new(None);
        let epoch = durable.begin();
        durable.end(epoch, 5, false);
        assert_eq!(*durable.index.borrow(), None);
    }
}
