//! What the child does with a log and tables, step by step, and what they must say after each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_storage::memory::{MemoryLog, MemoryStore};
use holdfast_storage::tables::meta::{Applied, AppliedKey, SyncedKey};
use holdfast_storage::tables::{Key, KeyWriter, Table, put};
use holdfast_storage::{Direction, Done, GroupId, Log, LogEntry, Op, StorageError, Store, View};

use crate::rng::Rng;

/// How many groups there are: 0 and the shards.
pub(super) const GROUPS: u32 = 3;
/// How much of what was said is shown when it is wrong.
const SHOWN: usize = 300;

/// One call, or a wait for what was called before.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Entries for a group.
    Append(GroupId, Vec<LogEntry>),
    /// A vote of a group.
    Vote(GroupId, Bytes),
    /// The committed mark of a group.
    Committed(GroupId, Bytes),
    /// Away with the entries of a group behind an index.
    Truncate(GroupId, u64),
    /// Away with the entries of a group up to a (term, index).
    Purge(GroupId, (u64, u64)),
    /// Rows for the tables.
    Apply(Vec<Op>),
    /// The tables to disk.
    Flush,
    /// Until everything so far is acknowledged.
    Wait,
    /// A clean stop and a start.
    Reopen,
}

impl Step {
    /// Makes the call. `done` runs when it is acknowledged, which lazy calls are not.
    pub(super) fn make(
        &self,
        log: &dyn Log,
        store: &dyn Store,
        done: Done,
    ) -> Result<(), StorageError> {
        match self {
            Step::Append(group, entries) => log.append(*group, entries.clone(), done),
            Step::Vote(group, vote) => log.save_vote(*group, vote.clone(), done),
            Step::Committed(group, mark) => log.save_committed(*group, mark.clone()),
            Step::Truncate(group, index) => log.truncate_after(*group, Some(*index)),
            Step::Purge(group, upto) => log.purge(*group, *upto),
            Step::Apply(batch) => return store.apply(batch.clone()),
            Step::Flush => return store.flush(),
            Step::Wait | Step::Reopen => {}
        }
        Ok(())
    }

    /// Whether `done` runs.
    pub(super) fn is_told(&self) -> bool {
        matches!(self, Step::Append(..) | Step::Vote(..))
    }
}

/// The steps of a seed: the same ones, whoever asks.
pub(super) fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut writer = Writer {
        rng: Rng::new(seed),
        groups: (0..GROUPS).map(|_| Group::default()).collect(),
        steps: Vec::new(),
    };
    while writer.steps.len() < count {
        writer.next();
    }
    writer.steps.push(Step::Wait);
    writer.steps
}

/// What the script keeps to: nothing is applied before it is acknowledged or truncated once it is
/// applied, and nothing is purged that the tables have not flushed.
#[derive(Default)]
struct Group {
    term: u64,
    /// The term of each entry, from index 1 on.
    terms: Vec<u64>,
    applied: u64,
    flushed: u64,
    purged: u64,
}

impl Group {
    fn end(&self) -> u64 {
        self.terms.len() as u64
    }

    fn id(&self, index: u64) -> (u64, u64) {
        let term = index.checked_sub(1).and_then(|at| self.terms.get(at as usize));
        (term.copied().unwrap_or(0), index)
    }
}

struct Writer {
    rng: Rng,
    groups: Vec<Group>,
    steps: Vec<Step>,
}

impl Writer {
    fn next(&mut self) {
        let group = self.rng.below(self.groups.len()) as GroupId;
        let room = self.rng.below(1 << 20) as u64;
        let state = &mut self.groups[group as usize];
        match self.rng.below(40) {
            0..16 => self.append(group),
            16..19 => self.vote(group),
            19..21 => {
                let mark = Bytes::from(state.end().to_be_bytes().to_vec());
                self.steps.push(Step::Committed(group, mark));
            }
            21..24 => {
                let index = state.applied + room % (state.end() - state.applied + 1);
                state.terms.truncate(index as usize);
                self.steps.push(Step::Truncate(group, index));
                self.vote(group);
            }
            24..31 => self.apply(group),
            31..33 => {
                self.groups.iter_mut().for_each(|group| group.flushed = group.applied);
                self.steps.push(Step::Flush);
            }
            33..37 if state.flushed > state.purged => {
                let upto = state.purged + 1 + room % (state.flushed - state.purged);
                state.purged = upto;
                self.steps.push(Step::Purge(group, state.id(upto)));
            }
            37 => self.steps.extend([Step::Wait, Step::Reopen]),
            _ => self.steps.push(Step::Wait),
        }
    }

    fn append(&mut self, group: GroupId) {
        let count = 1 + self.rng.below(4);
        let state = &mut self.groups[group as usize];
        state.term = state.term.max(1);
        let first = state.end() + 1;
        let mut entries = Vec::new();
        for index in first..first + count as u64 {
            state.terms.push(state.term);
            let payload = payload(&mut self.rng);
            entries.push(LogEntry { index, term: state.term, payload });
        }
        self.steps.push(Step::Append(group, entries));
    }

    /// A vote for the next term, which entries of that term wait behind.
    fn vote(&mut self, group: GroupId) {
        let state = &mut self.groups[group as usize];
        state.term += 1;
        let vote = Bytes::from(state.term.to_be_bytes().to_vec());
        self.steps.push(Step::Vote(group, vote));
    }

    /// Applies some entries in one batch, with rows in both column families.
    fn apply(&mut self, group: GroupId) {
        let state = &mut self.groups[group as usize];
        let waiting = state.end() - state.applied;
        if waiting == 0 {
            return;
        }
        state.applied += 1 + self.rng.below(waiting as usize) as u64;
        let applied = Applied { last: Some(state.id(state.applied)), ..Applied::default() };
        let mut batch = vec![put(&AppliedKey { group }, applied.to_value())];
        for table in [Table::History, Table::Journal, Table::Deadline] {
            let mut key = KeyWriter::new(table, group);
            key.u8(self.rng.below(12) as u8);
            let key = key.finish();
            batch.push(match self.rng.one_in(4) {
                true => Op::Delete { key },
                false => Op::Put { key, value: payload(&mut self.rng) },
            });
        }
        self.steps.extend([Step::Wait, Step::Apply(batch)]);
    }
}

/// Mostly small; some go over a sector, a page, a block of RocksDB's files.
fn payload(rng: &mut Rng) -> Bytes {
    let size = match rng.below(24) {
        0 => 0,
        1..15 => rng.below(200),
        15..20 => 400 + rng.below(300),
        20..23 => 3500 + rng.below(2000),
        _ => 30_000 + rng.below(10_000),
    };
    rng.bytes(size)
}

/// What a log and tables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) log: String,
    pub(super) tables: String,
    /// Where the two contradict each other.
    pub(super) faults: Vec<String>,
}

impl Said {
    /// Reads everything.
    pub(super) fn read(log: &dyn Log, store: &dyn Store) -> Result<Said, StorageError> {
        let view = store.view();
        let mut said = Said { log: String::new(), tables: rows(&*view)?, faults: Vec::new() };
        for group in 0..GROUPS {
            let state = log.state(group)?;
            let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| digest(&bytes));
            let (vote, committed) = (bytes(state.vote), bytes(state.committed));
            let (purged, last) = (state.purged, state.last);
            let _infallible = write!(
                said.log,
                "group {group}: vote {vote:?}, committed {committed:?}, purged {purged:?}:"
            );
            for entry in log.read(group, 0, u64::MAX, usize::MAX)? {
                let LogEntry { term, index, payload } = entry;
                let _infallible = write!(said.log, " {term}.{index}-{:x}", digest(&payload));
            }
            said.log.push('\n');
            let row = view.get(&AppliedKey { group }.encode())?;
            let applied = row.map(Applied::from_value).transpose()?.and_then(|row| row.last);
            let applied = applied.map_or(0, |last| last.1);
            let (purged, end) = (purged.map_or(0, |id| id.1), last.or(purged).map_or(0, |id| id.1));
            if purged > applied || applied > end {
                said.faults.push(format!(
                    "group {group}: purged up to {purged}, applied up to {applied}, log up to {end}"
                ));
            }
        }
        Ok(said)
    }
}

/// All rows but the marks that a flush writes by itself.
fn rows(view: &dyn View) -> Result<String, StorageError> {
    let marks: Vec<Bytes> = (0..GROUPS).map(|group| SyncedKey { group }.encode()).collect();
    let mut out = String::new();
    view.scan(&[0], &[0xff], Direction::Forward, &mut |key, value| {
        if !marks.iter().any(|mark| mark == key) {
            for byte in key {
                let _infallible = write!(out, "{byte:02x}");
            }
            let _infallible = write!(out, "={:x} ", digest(value));
        }
        ControlFlow::Continue(())
    })?;
    Ok(out)
}

pub(super) fn digest(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// After how many steps a log, and tables, say what: a call that changes nothing leaves the same
/// words behind.
pub(super) struct Model {
    log: BTreeMap<String, Vec<usize>>,
    tables: BTreeMap<String, Vec<usize>>,
}

impl Model {
    /// What storage in memory says, which the differential test holds against RocksDB.
    pub(super) fn new(steps: &[Step]) -> Result<Model, StorageError> {
        let (log, store) = (MemoryLog::new(), MemoryStore::new());
        let mut model = Model { log: BTreeMap::new(), tables: BTreeMap::new() };
        for after in 0..=steps.len() {
            if let Some(step) = after.checked_sub(1).and_then(|at| steps.get(at)) {
                step.make(&log, &store, Box::new(|_| {}))?;
            }
            let said = Said::read(&log, &store)?;
            if !said.faults.is_empty() {
                return Err(StorageError::Corrupt(format!("the script: {:?}", said.faults)));
            }
            model.log.entry(said.log).or_default().push(after);
            model.tables.entry(said.tables).or_default().push(after);
        }
        Ok(model)
    }

    /// Where `said` is not what some step between those that must and those that may be there
    /// leaves behind.
    pub(super) fn differs(&self, said: &Said, bounds: &Bounds) -> Vec<String> {
        let mut found = said.faults.clone();
        for (what, known, text, least) in [
            ("log", &self.log, &said.log, bounds.log),
            ("tables", &self.tables, &said.tables, bounds.tables),
        ] {
            let steps = known.get(text).map_or(&[][..], Vec::as_slice);
            if !steps.iter().any(|step| (least..=bounds.begun).contains(step)) {
                let text: String = text.chars().take(SHOWN).collect();
                found.push(format!(
                    "{what}: as after steps {steps:?}, not after one of {least} to {}: {text}",
                    bounds.begun
                ));
            }
        }
        found
    }
}

/// How many steps had begun, and how many of them must have come to stay, by what was said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) begun: usize,
    pub(super) log: usize,
    pub(super) tables: usize,
}
