//! A hundred thousand random calls, one after the other on storage that lives long, with crashes at
//! any point: in the middle of writes, of a sync, of a flush. RocksDB must say what memory says.
//!
//! A crash of RocksDB is a copy of its files in use, from which whatever was not synced is taken
//! away at random. Which of the unsynced calls survived is found out by making them in memory one
//! by one until both say the same: a number of calls that is not below that of the acknowledged
//! ones must do. (The shim of `benches/powerloss` does the rest: there every write is torn.)

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use holdfast_storage::{Done, Store};

use crate::bed::{Bed, ignored, wals};
use crate::differential::{LogCall, LogUnderTest, StoreCall, StoreUnderTest};

/// Of each kind.
const CALLS: usize = 50_000;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Not captured: the counts are to be seen.
fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{line}").expect("somebody reads");
}

// --- The store ---------------------------------------------------------------------------------

/// The first characters of the keys: history's column family, and both sides of it.
const TABLES: [char; 4] = ['\0', '\u{1}', '\u{2}', 'k'];
const KEYS: u64 = 24;

fn key(rng: &mut Rng) -> String {
    format!("{}{:02}", TABLES[rng.below(4) as usize], rng.below(KEYS))
}

fn store_call(rng: &mut Rng) -> StoreCall {
    let view = |rng: &mut Rng| (rng.one_in(2)).then(|| rng.below(4) as u8);
    match rng.below(100) {
        0..35 => {
            let value = |rng: &mut Rng| (!rng.one_in(3)).then(|| rng.number() as u8);
            let batch = (0..rng.below(8)).map(|_| (key(rng), value(rng)));
            StoreCall::Apply(batch.collect())
        }
        35 => StoreCall::Flush,
        36..44 => StoreCall::Open(rng.below(4) as u8),
        44..48 => StoreCall::Close(rng.below(4) as u8),
        48..68 => StoreCall::Scan(view(rng), key(rng), key(rng), rng.one_in(2)),
        68..86 => StoreCall::Get(view(rng), key(rng)),
        _ => StoreCall::Persisted(key(rng)),
    }
}

struct Stores {
    disk: StoreUnderTest,
    memory: StoreUnderTest,
}

impl Stores {
    fn make(self, call: &StoreCall) -> Stores {
        let (memory, expected) = self.memory.call(call);
        let (disk, said) = self.disk.call(call);
        assert_eq!(said, expected, "{call:?}");
        Stores { disk, memory }
    }

    /// Everything, through a view and from either end.
    fn compare(self) -> Stores {
        let all = |back| StoreCall::Scan(None, "\0".into(), "z".into(), back);
        self.make(&all(false)).make(&all(true))
    }

    /// Crashes while a flush runs: it is done or it is not, for both column families.
    fn crash_in_a_flush(self, counts: &mut Counts) -> Stores {
        let Stores { mut disk, mut memory } = self;
        disk.views.clear();
        memory.views.clear();
        let store = Arc::clone(&disk.bed.store);
        disk.bed = std::thread::scope(|scope| {
            scope.spawn(move || store.flush().expect("flushes"));
            disk.bed.crash()
        });
        match persisted(&*disk.bed.store) == persisted(&*memory.bed.store) {
            true => counts.lost += 1,
            false => memory.bed.store.flush().expect("flushes"),
        }
        memory.bed = memory.bed.crash();
        assert_eq!(persisted(&*disk.bed.store), persisted(&*memory.bed.store));
        Stores { disk, memory }.compare()
    }
}

/// Every key there can be, as a crash would leave it.
fn persisted(store: &dyn Store) -> Vec<Option<bytes::Bytes>> {
    let keys = TABLES.iter().flat_map(|table| (0..KEYS).map(move |n| format!("{table}{n:02}")));
    keys.map(|key| store.get_persisted(key.as_bytes()).expect("reads")).collect()
}

/// How often what happened.
#[derive(Default)]
struct Counts {
    calls: usize,
    crashes: usize,
    restarts: usize,
    /// Unsynced calls that a crash took away, and unfinished flushes.
    lost: usize,
    /// Crashes that took away a part of a file.
    cut: usize,
}

impl Counts {
    fn say(&self, what: &str) {
        let Counts { calls, crashes, restarts, lost, cut } = self;
        say(&format!(
            "{what}: {calls} calls, {crashes} crashes ({lost} unsynced calls or flushes lost, {cut} files cut), \
             {restarts} restarts, 0 differences"
        ));
    }
}

#[test]
fn stores_agree_for_long() {
    let mut rng = Rng(7);
    let under_test = |bed| StoreUnderTest { bed, views: BTreeMap::new() };
    let mut stores = Stores { disk: under_test(Bed::rocks()), memory: under_test(Bed::memory()) };
    let mut counts = Counts::default();
    while counts.calls < CALLS {
        stores = match rng.below(1200) {
            turn @ 0..3 => {
                counts.crashes += 1;
                match turn {
                    0 => stores.crash_in_a_flush(&mut counts),
                    _ => stores.make(&StoreCall::Crash).compare(),
                }
            }
            3 => {
                counts.restarts += 1;
                stores.make(&StoreCall::Reopen).compare()
            }
            4..16 => stores.compare(),
            _ => {
                counts.calls += 1;
                stores.make(&store_call(&mut rng))
            }
        };
    }
    stores.compare();
    counts.say("stores");
}

// --- The log -----------------------------------------------------------------------------------

/// A call that changes something.
fn log_write(rng: &mut Rng) -> LogCall {
    let group = rng.below(2) as u32;
    match rng.below(50) {
        0..32 => LogCall::Append { group, count: rng.below(6), new_term: rng.one_in(8) },
        32..38 => LogCall::Truncate { group, back: rng.below(9) },
        38 => LogCall::TruncateAll { group },
        39..43 => LogCall::Purge { group, back: rng.below(150) },
        43 => LogCall::PurgeBeyond { group, more: 1 + rng.below(3) },
        44..47 => LogCall::Vote { group, vote: rng.number() as u8 },
        _ => LogCall::Committed { group, mark: rng.number() as u8 },
    }
}

/// What is known of the disk from the last callback: how many of the calls it covers, and how long
/// the files were that hold them.
#[derive(Default)]
struct Synced {
    calls: usize,
    sizes: BTreeMap<String, u64>,
}

/// Callbacks that note what they say. They run on the thread that writes, so nothing is written
/// between a sync and its note.
struct Watch {
    folder: PathBuf,
    synced: Arc<Mutex<Synced>>,
}

impl Watch {
    /// Everything is synced now.
    fn new(folder: &Path) -> Watch {
        let sizes = wals(folder);
        let synced = Arc::new(Mutex::new(Synced { calls: 0, sizes }));
        Watch { folder: folder.to_owned(), synced }
    }

    /// The callback of the call that is the `n`th from now.
    fn done(&self, n: usize) -> Done {
        let (folder, synced) = (self.folder.clone(), Arc::clone(&self.synced));
        Box::new(move |result| {
            result.expect("syncs");
            *synced.lock().expect("no panic") = Synced { calls: n, sizes: wals(&folder) };
        })
    }

    fn synced(&self) -> Synced {
        std::mem::take(&mut *self.synced.lock().expect("no panic"))
    }
}

/// Takes from the newest file of the write-ahead log what was not synced, or some of it: the file
/// ends there, or goes on in zeroes from the beginning of a sector. Says whether it took anything.
fn lose(folder: &Path, safe: &BTreeMap<String, u64>, rng: &mut Rng) -> bool {
    let Some((name, size)) = wals(folder).into_iter().max() else { return false };
    let from = safe.get(&name).copied().unwrap_or(0);
    let mut keep = from + rng.below(size + 1 - from);
    let zeroes = rng.one_in(2);
    if zeroes {
        keep = from.max(keep / 512 * 512);
    }
    let file = OpenOptions::new().write(true).open(folder.join(&name)).expect("opens");
    file.set_len(keep).expect("cuts");
    if zeroes {
        file.set_len(size).expect("fills");
    }
    keep < size
}

struct Logs {
    disk: LogUnderTest,
    memory: LogUnderTest,
}

impl Logs {
    fn make(self, call: &LogCall) -> Logs {
        let (memory, expected) = self.memory.call(call);
        let (disk, said) = self.disk.call(call);
        assert_eq!(said, expected, "{call:?}");
        Logs { disk, memory }
    }

    fn compare(self) -> Logs {
        assert_eq!(self.disk.all(), self.memory.all());
        self
    }

    /// Both have synced all, and claim the same.
    fn settle(self) -> Logs {
        self.disk.bed.settle();
        self.memory.bed.settle();
        assert_eq!(self.disk.synced(), self.memory.synced());
        self
    }

    /// Makes some calls without waiting for any of them, and crashes.
    fn crash_in_writes(self, rng: &mut Rng, counts: &mut Counts) -> Logs {
        let Logs { mut disk, mut memory } = self.settle();
        let calls: Vec<LogCall> = (0..rng.below(40)).map(|_| log_write(rng)).collect();
        let folder = disk.bed.folder().expect("it is on disk").join("log");
        let watch = Watch::new(&folder);
        for (n, call) in (1..).zip(&calls) {
            disk = disk.begin(call, watch.done(n)).0;
        }
        // From here on every acknowledgement comes too late.
        let Synced { calls: acknowledged, sizes } = watch.synced();
        disk.bed = disk.bed.crash_losing(|left| {
            counts.cut += usize::from(lose(&left.join("log"), &sizes, rng));
        });
        let found = disk.all();
        let mut made = 0;
        while made < acknowledged || memory.all() != found {
            let lost =
                || format!("no prefix of {calls:?}, {acknowledged} of them synced: {found:?}");
            let call = calls.get(made).unwrap_or_else(|| panic!("{}", lost()));
            memory = memory.call(call).0;
            made += 1;
        }
        counts.calls += calls.len();
        counts.lost += calls.len() - made;
        memory.term = disk.term;
        memory.bed.settle();
        memory.bed = memory.bed.crash();
        Logs { disk, memory }.settle()
    }
}

fn logs_agree(bed: Bed, seed: u64, what: &str) {
    let mut rng = Rng(seed);
    let under_test = |bed| LogUnderTest { bed, term: 0 };
    let mut logs = Logs { disk: under_test(bed), memory: under_test(Bed::memory()) };
    let mut counts = Counts::default();
    while counts.calls < CALLS / 2 {
        logs = match rng.below(1500) {
            0..6 => {
                counts.crashes += 1;
                logs.crash_in_writes(&mut rng, &mut counts).compare()
            }
            6 => {
                counts.restarts += 1;
                logs.make(&LogCall::Reopen).compare().settle()
            }
            7..20 => logs.settle(),
            20..50 => logs.compare(),
            50..500 => {
                counts.calls += 1;
                let group = rng.below(2) as u32;
                let from = logs.memory.end(group).1.saturating_sub(rng.below(200));
                let (count, bytes) = (rng.below(60), rng.below(300) as usize);
                logs.make(&LogCall::Read { group, from, count, bytes })
            }
            _ => {
                counts.calls += 1;
                let call = log_write(&mut rng);
                let (memory, disk) = (logs.memory, logs.disk);
                let (memory, _) = memory.begin(&call, ignored());
                Logs { disk: disk.begin(&call, ignored()).0, memory }
            }
        };
    }
    logs.settle().compare();
    counts.say(what);
}

#[test]
fn logs_agree_for_long() {
    logs_agree(Bed::rocks(), 8, "logs");
}

#[test]
fn logs_with_hardly_any_memory_agree_for_long() {
    logs_agree(Bed::cold(), 9, "logs with hardly any memory");
}
