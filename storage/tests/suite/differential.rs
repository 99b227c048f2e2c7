//! The same random calls on every kind of storage: nobody can tell them apart.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_storage::Direction::{self, Backward, Forward};
use holdfast_storage::{Done, LogState, View};
use proptest::prelude::*;

use crate::bed::{Bed, entries, ignored, rows, set, synced, unset, words};

#[derive(Clone, Debug)]
pub(crate) enum StoreCall {
    Apply(Vec<(String, Option<u8>)>),
    Flush,
    Open(u8),
    Close(u8),
    Scan(Option<u8>, String, String, bool),
    Get(Option<u8>, String),
    Persisted(String),
    Crash,
    Reopen,
}

/// Few keys, in history's column family and around it.
fn key() -> impl Strategy<Value = String> {
    let first = prop_oneof![Just('\0'), Just('\u{1}'), Just('\u{2}'), Just('k')];
    (first, 0..4u8).prop_map(|(first, n)| format!("{first}{n}"))
}

fn store_call() -> impl Strategy<Value = StoreCall> {
    let view = || proptest::option::of(0..3u8);
    let batch = proptest::collection::vec((key(), proptest::option::of(0..9u8)), 0..6);
    prop_oneof![
        24 => batch.prop_map(StoreCall::Apply),
        6 => Just(StoreCall::Flush),
        6 => (0..3u8).prop_map(StoreCall::Open),
        3 => (0..3u8).prop_map(StoreCall::Close),
        12 => (view(), key(), key(), any::<bool>())
            .prop_map(|(view, a, b, back)| StoreCall::Scan(view, a, b, back)),
        9 => (view(), key()).prop_map(|(view, key)| StoreCall::Get(view, key)),
        9 => key().prop_map(StoreCall::Persisted),
        1 => Just(StoreCall::Crash),
        1 => Just(StoreCall::Reopen),
    ]
}

/// Most values are short; some go over a block of a file.
fn text(value: u8) -> String {
    value.to_string().repeat(if value < 250 { 1 } else { 1500 })
}

pub(crate) struct StoreUnderTest {
    pub(crate) bed: Bed,
    pub(crate) views: BTreeMap<u8, Box<dyn View>>,
}

impl StoreUnderTest {
    fn with_view<T>(&self, view: Option<u8>, read: impl FnOnce(&dyn View) -> T) -> T {
        match view.and_then(|view| self.views.get(&view)) {
            Some(view) => read(&**view),
            None => read(&*self.bed.store.view()),
        }
    }

    /// Makes the call and says what it gave.
    pub(crate) fn call(mut self, call: &StoreCall) -> (StoreUnderTest, String) {
        let store = &self.bed.store;
        let said = match call {
            StoreCall::Apply(batch) => {
                let op = |(key, value): &(String, Option<u8>)| match value {
                    Some(value) => set(key, &text(*value)),
                    None => unset(key),
                };
                store.apply(batch.iter().map(op).collect()).expect("applies");
                String::new()
            }
            StoreCall::Flush => {
                store.flush().expect("flushes");
                String::new()
            }
            StoreCall::Open(view) => {
                let opened = store.view();
                self.views.insert(*view, opened);
                String::new()
            }
            StoreCall::Close(view) => {
                self.views.remove(view);
                String::new()
            }
            StoreCall::Scan(view, from, to, back) => {
                let direction: Direction = if *back { Backward } else { Forward };
                self.with_view(*view, |view| rows(view, from, to, direction).join(" "))
            }
            StoreCall::Get(view, key) => {
                self.with_view(*view, |view| format!("{:?}", view.get(key.as_bytes())))
            }
            StoreCall::Persisted(key) => format!("{:?}", store.get_persisted(key.as_bytes())),
            StoreCall::Crash | StoreCall::Reopen => {
                self.views.clear();
                let end = matches!(call, StoreCall::Crash);
                self.bed = if end { self.bed.crash() } else { self.bed.reopen() };
                String::new()
            }
        };
        (self, said)
    }
}

#[derive(Clone, Debug)]
pub(crate) enum LogCall {
    Append { group: u32, count: u64, new_term: bool },
    Truncate { group: u32, back: u64 },
    TruncateAll { group: u32 },
    Purge { group: u32, back: u64 },
    PurgeBeyond { group: u32, more: u64 },
    Vote { group: u32, vote: u8 },
    Committed { group: u32, mark: u8 },
    Read { group: u32, from: u64, count: u64, bytes: usize },
    Settle,
    Crash,
    Reopen,
}

fn log_call() -> impl Strategy<Value = LogCall> {
    let group = || 0..2u32;
    prop_oneof![
        24 => (group(), 0..6u64, any::<bool>())
            .prop_map(|(group, count, new_term)| LogCall::Append { group, count, new_term }),
        6 => (group(), 0..6u64).prop_map(|(group, back)| LogCall::Truncate { group, back }),
        3 => group().prop_map(|group| LogCall::TruncateAll { group }),
        6 => (group(), 0..6u64).prop_map(|(group, back)| LogCall::Purge { group, back }),
        3 => (group(), 1..4u64).prop_map(|(group, more)| LogCall::PurgeBeyond { group, more }),
        3 => (group(), any::<u8>()).prop_map(|(group, vote)| LogCall::Vote { group, vote }),
        3 => (group(), any::<u8>()).prop_map(|(group, mark)| LogCall::Committed { group, mark }),
        12 => (group(), 0..30u64, 0..30u64, 0..40usize)
            .prop_map(|(group, from, count, bytes)| LogCall::Read { group, from, count, bytes }),
        6 => Just(LogCall::Settle),
        1 => Just(LogCall::Crash),
        1 => Just(LogCall::Reopen),
    ]
}

pub(crate) struct LogUnderTest {
    pub(crate) bed: Bed,
    /// Rises with each append of a new term, so that no two entries of an index are alike.
    pub(crate) term: u64,
}

impl LogUnderTest {
    /// (term, index) of the last entry, or of the last purged.
    pub(crate) fn end(&self, group: u32) -> (u64, u64) {
        let state = self.bed.log.state(group).expect("reads");
        state.last.or(state.purged).unwrap_or_default()
    }

    /// Makes the call, waits where the call says so, and says what it gave.
    pub(crate) fn call(self, call: &LogCall) -> (LogUnderTest, String) {
        match *call {
            LogCall::Vote { group, vote } => {
                synced(|done| self.bed.log.save_vote(group, Bytes::from(vec![vote]), done));
                (self, String::new())
            }
            _ => self.begin(call, ignored()),
        }
    }

    /// Makes the call. Where it is one that is told about its sync, `done` is.
    pub(crate) fn begin(mut self, call: &LogCall, done: Done) -> (LogUnderTest, String) {
        let log = &self.bed.log;
        match *call {
            LogCall::Append { group, count, new_term } => {
                let (term, end) = self.end(group);
                if new_term {
                    self.term += 1;
                }
                let term = if new_term { self.term } else { term.max(1) };
                log.append(group, entries(term, end + 1..=end + count), done);
            }
            LogCall::Truncate { group, back } => {
                log.truncate_after(group, Some(self.end(group).1.saturating_sub(back)));
            }
            LogCall::TruncateAll { group } => log.truncate_after(group, None),
            LogCall::Purge { group, back } => {
                let upto = self.end(group).1.saturating_sub(back);
                let term = log.read(group, upto, upto + 1, 99).expect("reads");
                if let [entry] = &term[..] {
                    log.purge(group, (entry.term, upto));
                }
            }
            LogCall::PurgeBeyond { group, more } => {
                self.term += 1;
                log.purge(group, (self.term, self.end(group).1 + more));
            }
            LogCall::Vote { group, vote } => log.save_vote(group, vec![vote].into(), done),
            LogCall::Committed { group, mark } => log.save_committed(group, vec![mark].into()),
            LogCall::Read { group, from, count, bytes } => {
                let found = log.read(group, from, from + count, bytes).expect("reads");
                return (self, format!("{found:?}"));
            }
            LogCall::Settle => self.bed.settle(),
            LogCall::Crash => {
                // What is lazy may or may not survive; here all of it is synced before.
                self.bed.settle();
                self.bed = self.bed.crash();
            }
            LogCall::Reopen => self.bed = self.bed.reopen(),
        }
        (self, String::new())
    }

    pub(crate) fn all(&self) -> Vec<(LogState, String)> {
        let log = &*self.bed.log;
        let group = |group| (log.state(group).expect("reads"), words(log, group));
        (0..2).map(group).collect()
    }

    pub(crate) fn synced(&self) -> Vec<Option<(u64, u64)>> {
        (0..2).map(|group| self.bed.log.synced(group)).collect()
    }
}

proptest! {
    // Each case opens several databases; calls that open one more are rare.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..Default::default() })]

    #[test]
    fn stores_agree(calls in proptest::collection::vec(store_call(), 1..60)) {
        let under_test = |bed| StoreUnderTest { bed, views: BTreeMap::new() };
        let (mut disk, mut memory) = (under_test(Bed::rocks()), under_test(Bed::memory()));
        for call in &calls {
            let (expected, said);
            (memory, expected) = memory.call(call);
            (disk, said) = disk.call(call);
            prop_assert_eq!(said, expected, "{:?}", call);
        }
    }

    #[test]
    fn logs_agree(calls in proptest::collection::vec(log_call(), 1..60), cold in any::<bool>()) {
        let bed = if cold { Bed::cold() } else { Bed::rocks() };
        let under_test = |bed| LogUnderTest { bed, term: 0 };
        let (mut disk, mut memory) = (under_test(bed), under_test(Bed::memory()));
        for call in &calls {
            let (expected, said);
            (memory, expected) = memory.call(call);
            (disk, said) = disk.call(call);
            prop_assert_eq!(said, expected, "{:?}", call);
            prop_assert_eq!(disk.all(), memory.all(), "{:?}", call);
        }
        disk.bed.settle();
        memory.bed.settle();
        prop_assert_eq!(disk.synced(), memory.synced());
    }
}
