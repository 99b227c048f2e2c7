//! What a disk may hold after the power went: a model of the files below one folder, replayed from
//! the journal that `powerloss/shim.c` writes.
//!
//! The model, per file: what was written and then synced (`fsync`, `fdatasync`, or a write through
//! `O_DSYNC`) stays. What was written and not synced stays or goes by the [`Tear`] of the cut. Per
//! name: making, renaming, linking and removing are safe once the folder that holds the name was
//! synced after them; of those that were not, a prefix stays. A synced file whose name was lost is
//! lost; a removed name that was not synced comes back. `sync_file_range`, `close` and the passing
//! of time promise nothing.
//!
//! Stricter than ext4, where a file's sync takes the names before it along, and a rename after a
//! write waits for the write. Not modelled: damage to what was synced, sectors that tear inside
//! (a sector of 512 bytes is old or new), writes of a synced range that tear, permissions and
//! times, symbolic links, moved folders, and everything the shim calls `UNMODELLED`, which fails
//! the replay. Raw system calls and stdio pass the shim by; [`Disk::differs`] finds such files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fallible;
use crate::rng::Rng;

const MAGIC: u32 = 0x314c_5048;
const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// No file of a test is larger: the journal is wrong.
const LARGEST: usize = 1 << 40;

/// What happens to the writes of a file that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tear {
    /// None of them is there.
    None,
    /// The first few are there, the last of these in part, and there the file ends.
    Prefix,
    /// The same, but the file is as long as if that last write were whole, with zeros for the rest.
    Zeros,
    /// Pages are there or not, each for itself; what is missing reads as it did before, or as zeros.
    Pages,
    /// All of them are there.
    All,
}

impl Tear {
    /// What a tear leaves, in words.
    pub fn what_stays(self) -> &'static str {
        match self {
            Self::None => "nothing stays",
            Self::Prefix => "a torn beginning stays",
            Self::Zeros => "a torn beginning stays, then zeros",
            Self::Pages => "some pages stay",
            Self::All => "all stays",
        }
    }
}

/// Every tear.
pub const TEARS: [Tear; 5] = [Tear::None, Tear::Prefix, Tear::Zeros, Tear::Pages, Tear::All];

/// Compiles the shim into `folder` and returns the library.
pub fn build_shim(folder: &Path) -> Fallible<PathBuf> {
    fs::create_dir_all(folder)?;
    let source = folder.join("shim.c");
    let (library, unfinished) =
        (folder.join("shim.so"), folder.join(format!("shim.{}", std::process::id())));
    let text = include_str!("../powerloss/shim.c");
    if library.exists() && fs::read_to_string(&source).is_ok_and(|built| built == text) {
        return Ok(library);
    }
    fs::write(&source, text)?;
    let flags = ["-shared", "-fPIC", "-O2", "-w", "-U_FORTIFY_SOURCE", "-pthread", "-o"];
    let built = Command::new("cc").args(flags).arg(&unfinished).arg(&source).status();
    if !built.map_err(|error| format!("cc, to build the shim: {error}"))?.success() {
        return Err("cc could not build the shim".into());
    }
    // Whole or not at all, for those who build it at the same time.
    fs::rename(unfinished, &library)?;
    Ok(library)
}

/// The variables that put a program under the shim.
pub fn watch(library: &Path, root: &Path, journal: &Path) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("LD_PRELOAD", library.to_owned()),
        ("HOLDFAST_POWERLOSS_ROOT", root.to_owned()),
        ("HOLDFAST_POWERLOSS_JOURNAL", journal.to_owned()),
    ]
}

#[derive(Clone, Debug)]
enum Data {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
    Grow(usize),
}

impl Data {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::Truncate(size) => content.resize(*size, 0),
            Self::Grow(size) => content.resize(content.len().max(*size), 0),
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

#[derive(Clone, Debug, Default)]
struct Inode {
    safe: Vec<u8>,
    /// What was done since, oldest first, and how much was done before that.
    open: Vec<Data>,
    closed: u64,
}

impl Inode {
    fn make_safe(&mut self, until: u64) {
        let count = usize::try_from(until.saturating_sub(self.closed)).unwrap_or(usize::MAX);
        for data in self.open.drain(..count.min(self.open.len())) {
            data.apply(&mut self.safe);
            self.closed += 1;
        }
    }

    fn now(&self) -> Vec<u8> {
        let mut content = self.safe.clone();
        self.open.iter().for_each(|data| data.apply(&mut content));
        content
    }

    fn torn(&self, tear: Tear, rng: &mut Rng) -> Vec<u8> {
        let mut content = self.safe.clone();
        match tear {
            Tear::None => {}
            Tear::All => return self.now(),
            Tear::Prefix | Tear::Zeros => {
                let whole = rng.below(self.open.len() + 1);
                self.open[..whole].iter().for_each(|data| data.apply(&mut content));
                if let Some(Data::Write { at, bytes }) = self.open.get(whole) {
                    let kept = tear_inside(*at, bytes.len(), tear == Tear::Zeros, rng);
                    if kept > 0 {
                        put(&mut content, *at, &bytes[..kept]);
                    }
                    if tear == Tear::Zeros {
                        content.resize(content.len().max(at + bytes.len()), 0);
                    }
                }
            }
            Tear::Pages => {
                let now = self.now();
                content.resize(now.len(), 0);
                for from in (0..now.len()).step_by(PAGE).filter(|_| rng.one_in(2)) {
                    let to = now.len().min(from + PAGE);
                    content[from..to].copy_from_slice(&now[from..to]);
                }
            }
        }
        content
    }
}

/// How many bytes of a write arrive: any number, when the file may end there, or up to the end of
/// some sector, when it goes on.
fn tear_inside(at: usize, length: usize, goes_on: bool, rng: &mut Rng) -> usize {
    let kept = rng.below(length);
    if !goes_on && rng.one_in(2) {
        return kept;
    }
    let sector = (at + kept) / SECTOR * SECTOR;
    sector.saturating_sub(at)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File(usize),
}

type Names = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
enum Naming {
    Make(String, Entry),
    Rename(String, String),
    Link(String, String),
    Remove(String),
}

impl Naming {
    /// Does it to `names`; does nothing where what it needs is not there.
    fn apply(&self, names: &mut Names) {
        let room = |names: &Names, path: &str| {
            folder_of(path).is_none_or(|folder| names.get(folder) == Some(&Entry::Folder))
        };
        match self {
            Self::Make(path, entry) if room(names, path) => {
                names.insert(path.clone(), *entry);
            }
            Self::Rename(from, to) if room(names, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
                }
            }
            Self::Link(from, to) if room(names, to) => {
                if let Some(entry) = names.get(from).copied() {
                    names.insert(to.clone(), entry);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Make(..) | Self::Rename(..) | Self::Link(..) => {}
        }
    }

    /// Whether it is safe once `folder` is; a rename between two needs both.
    fn folders(&self) -> Vec<&str> {
        let of = |path| folder_of(path).unwrap_or("");
        match self {
            Self::Make(path, _) | Self::Remove(path) | Self::Link(_, path) => vec![of(path)],
            Self::Rename(from, to) if of(from) == of(to) => vec![of(to)],
            Self::Rename(from, to) => vec![of(from), of(to)],
        }
    }
}

/// The folder that holds a name; `None` for the root, which is always there.
fn folder_of(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(folder, _)| folder)
}

/// A sync that has begun: what lay before it, by inode or by folder.
enum Begun {
    File(usize, u64),
    Folder(String, usize),
    Everything,
}

/// A journal of the shim, to be followed record by record.
pub struct Journal {
    from: BufReader<File>,
}

impl Journal {
    /// From its beginning.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { from: BufReader::new(File::open(path)?) })
    }
}

/// What one record of a journal told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A file was written to, or its size was set (then there are no bytes).
    Written {
        /// Its name.
        path: String,
        /// What was written.
        bytes: Vec<u8>,
    },
    /// This name was made, moved, linked or removed.
    Named(String),
    /// A sync came to its end.
    Synced,
    /// Nothing that a disk would keep.
    Nothing,
}

/// The files below one folder, now and as far as they are safe.
#[derive(Default)]
pub struct Disk {
    inodes: Vec<Inode>,
    safe: Names,
    now: Names,
    /// What was done to names since `safe`, and which folders' syncs each of them still waits for.
    naming: Vec<(Naming, Vec<String>)>,
    by_number: BTreeMap<u64, usize>,
    folders: BTreeMap<u64, String>,
    begun: BTreeMap<u64, Begun>,
    /// How the names of those files end whose syncs are not to count.
    unsynced: Option<&'static str>,
    syncs: u64,
}

impl Disk {
    /// An empty folder. The syncs of files whose names end in `unsynced` will count for nothing.
    pub fn new(unsynced: Option<&'static str>) -> Self {
        Self { unsynced, ..Self::default() }
    }

    /// The folder as it is, all of it safe.
    pub fn load(root: &Path, unsynced: Option<&'static str>) -> io::Result<Self> {
        let mut disk = Self::new(unsynced);
        for (path, content) in contents(root)? {
            let entry = match content {
                None => Entry::Folder,
                Some((number, safe)) => {
                    disk.by_number.insert(number, disk.inodes.len());
                    disk.inodes.push(Inode { safe, ..Inode::default() });
                    Entry::File(disk.inodes.len() - 1)
                }
            };
            disk.safe.insert(path, entry);
        }
        disk.now = disk.safe.clone();
        Ok(disk)
    }

    /// Follows the journal to its end, or to where it is cut off. Says how many syncs it saw.
    pub fn replay(&mut self, journal: &Path) -> Fallible<u64> {
        let mut journal = Journal::open(journal)?;
        while let Some(record) = Record::read(&mut journal.from)? {
            self.follow(record)?;
        }
        Ok(self.syncs)
    }

    /// Follows the journal by one record and says what it told; `None` at the end.
    pub fn step(&mut self, journal: &mut Journal) -> Fallible<Option<Event>> {
        let Some(record) = Record::read(&mut journal.from)? else { return Ok(None) };
        let event = match record.kind {
            3 => Event::Written { path: self.path(record.inode)?, bytes: record.first.clone() },
            4 | 5 => Event::Written { path: self.path(record.inode)?, bytes: Vec::new() },
            7 => Event::Synced,
            2 | 8..=12 => Event::Named(record.first()?),
            _ => Event::Nothing,
        };
        self.follow(record)?;
        Ok(Some(event))
    }

    /// A name of an open file; of one that has none any more, nothing.
    fn path(&self, number: u64) -> Fallible<String> {
        let entry = Entry::File(self.inode(number)?);
        let named = self.now.iter().find(|(_, found)| **found == entry);
        Ok(named.map(|(path, _)| path.clone()).unwrap_or_default())
    }

    fn follow(&mut self, record: Record) -> Fallible<()> {
        match record.kind {
            1 => self.open(record.inode, &record.first()?),
            2 => {
                let path = record.first()?;
                self.inodes.push(Inode::default());
                self.name(Naming::Make(path.clone(), Entry::File(self.inodes.len() - 1)));
                self.open(record.inode, &path)
            }
            3 => self
                .data(record.inode, Data::Write { at: record.at()?, bytes: record.first.clone() }),
            4 => self.data(record.inode, Data::Truncate(record.at()?)),
            5 => self.data(record.inode, Data::Grow(record.at()?)),
            6 => self.begin_sync(record.inode, record.at),
            7 => {
                self.end_sync(record.at);
                Ok(())
            }
            8 => self.named(Naming::Rename(record.first()?, record.second()?)),
            9 | 10 => self.named(Naming::Remove(record.first()?)),
            11 => self.named(Naming::Make(record.first()?, Entry::Folder)),
            12 => self.named(Naming::Link(record.first()?, record.second()?)),
            13 => Err(format!("not modelled: {} {}", record.first()?, record.second()?).into()),
            kind => Err(format!("the journal has a record of kind {kind}").into()),
        }
    }

    fn named(&mut self, naming: Naming) -> Fallible<()> {
        if let Naming::Rename(from, _) = &naming
            && self.now.get(from) == Some(&Entry::Folder)
        {
            return Err(format!("not modelled: the folder {from} moved").into());
        }
        self.name(naming);
        Ok(())
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.now);
        let waits = naming.folders().into_iter().map(str::to_owned).collect();
        self.naming.push((naming, waits));
    }

    /// An inode's number is used again once its file is gone: the name says whose it is now.
    fn open(&mut self, number: u64, path: &str) -> Fallible<()> {
        match self.now.get(path) {
            _ if path.is_empty() => drop(self.folders.insert(number, String::new())),
            Some(Entry::Folder) => drop(self.folders.insert(number, path.to_owned())),
            Some(Entry::File(inode)) => {
                self.folders.remove(&number);
                self.by_number.insert(number, *inode);
            }
            None => return Err(format!("{path} was opened and never made").into()),
        }
        Ok(())
    }

    fn inode(&self, number: u64) -> Fallible<usize> {
        Ok(*self.by_number.get(&number).ok_or_else(|| format!("unknown inode {number}"))?)
    }

    fn data(&mut self, number: u64, data: Data) -> Fallible<()> {
        let inode = self.inode(number)?;
        self.inodes[inode].open.push(data);
        Ok(())
    }

    fn begin_sync(&mut self, number: u64, sync: u64) -> Fallible<()> {
        let begun = if number == 0 {
            Begun::Everything
        } else if let Some(folder) = self.folders.get(&number) {
            Begun::Folder(folder.clone(), self.naming.len())
        } else {
            let index = self.inode(number)?;
            let inode = &self.inodes[index];
            Begun::File(index, inode.closed + inode.open.len() as u64)
        };
        self.begun.insert(sync, begun);
        Ok(())
    }

    fn end_sync(&mut self, sync: u64) {
        self.syncs += 1;
        match self.begun.remove(&sync) {
            Some(Begun::File(inode, until)) if !self.is_ignored(inode) => {
                self.inodes[inode].make_safe(until);
            }
            Some(Begun::Folder(folder, until)) => {
                for (_, waits) in &mut self.naming[..until] {
                    waits.retain(|wait| *wait != folder);
                }
            }
            // A sync of everything that began somewhere is too vague to build on.
            Some(Begun::File(..) | Begun::Everything) | None => {}
        }
    }

    fn is_ignored(&self, inode: usize) -> bool {
        let mut names = self.now.iter().filter(|(_, entry)| **entry == Entry::File(inode));
        self.unsynced.is_some_and(|end| names.any(|(path, _)| path.ends_with(end)))
    }

    /// Where the folder as SIGKILL left it is not what the journal tells: a change that the shim did
    /// not see. RocksDB's own text logs are left out. One file may differ, by the call that was in
    /// the air.
    pub fn differs(&self, root: &Path) -> io::Result<Vec<String>> {
        let live = contents(root)?;
        let chatter =
            |path: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with("LOG"));
        let mut found: Vec<String> = live.keys().chain(self.now.keys()).cloned().collect();
        found.sort();
        found.dedup();
        found.retain(|path| {
            let same = match (live.get(path), self.now.get(path)) {
                (Some(None), Some(Entry::Folder)) => true,
                (Some(Some((_, bytes))), Some(Entry::File(inode))) => {
                    *bytes == self.inodes[*inode].now()
                }
                _ => false,
            };
            !same && !chatter(path)
        });
        Ok(if found.len() > 1 { found } else { Vec::new() })
    }

    /// What `tear` and the seed leave when the power goes now, and what was not safe.
    pub fn left(&self, tear: Tear, rng: &mut Rng) -> (Image, String) {
        let mut names = self.safe.clone();
        let unsafe_names = self.naming.iter().filter(|(_, waits)| !waits.is_empty()).count();
        let mut stay = match tear {
            Tear::None => 0,
            Tear::All => unsafe_names,
            Tear::Prefix | Tear::Zeros | Tear::Pages => rng.below(unsafe_names + 1),
        };
        for (naming, waits) in &self.naming {
            if waits.is_empty() || stay > 0 {
                naming.apply(&mut names);
                stay -= usize::from(!waits.is_empty());
            }
        }
        let mut lost = vec![format!("{unsafe_names} names")];
        let mut image = Image::new();
        for (path, entry) in names {
            let content = match entry {
                Entry::Folder => None,
                Entry::File(inode) => {
                    let inode = &self.inodes[inode];
                    let bytes: usize = inode.open.iter().map(size).sum();
                    if bytes > 0 {
                        lost.push(format!("{bytes} bytes of {path} after {}", inode.safe.len()));
                    }
                    Some(inode.torn(tear, rng))
                }
            };
            image.insert(path, content);
        }
        (image, lost.join(", "))
    }

    /// Cuts the power: replaces the folder by what `tear` and the seed leave of it. Says what was
    /// not safe.
    pub fn cut(&self, root: &Path, tear: Tear, rng: &mut Rng) -> io::Result<String> {
        let (image, lost) = self.left(tear, rng);
        write(&image, root)?;
        Ok(lost)
    }
}

/// A folder: its names, and what each is: `None` for a folder, bytes for a file.
pub type Image = BTreeMap<String, Option<Vec<u8>>>;

/// Replaces a folder, if there is one, by an image.
pub fn write(image: &Image, root: &Path) -> io::Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::create_dir(root)?;
    for (path, content) in image {
        match content {
            None => fs::create_dir(root.join(path))?,
            Some(bytes) => fs::write(root.join(path), bytes)?,
        }
    }
    Ok(())
}

fn size(data: &Data) -> usize {
    match data {
        Data::Write { bytes, .. } => bytes.len(),
        Data::Truncate(_) | Data::Grow(_) => 0,
    }
}

/// Names, and what each is: `None` for a folder, inode number and bytes for a file.
type Contents = BTreeMap<String, Option<(u64, Vec<u8>)>>;

/// Every name below `root`.
fn contents(root: &Path) -> io::Result<Contents> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, name)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, below) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let below = if name.is_empty() { below } else { format!("{name}/{below}") };
            if path.is_dir() {
                found.insert(below.clone(), None);
                folders.push((path, below));
            } else {
                found.insert(below, Some((entry.metadata()?.ino(), fs::read(path)?)));
            }
        }
    }
    Ok(found)
}

struct Record {
    kind: u32,
    inode: u64,
    at: u64,
    first: Vec<u8>,
    second: Vec<u8>,
}

impl Record {
    /// The next record; `None` at the end, and for a record that the kill cut off.
    fn read(from: &mut impl Read) -> Fallible<Option<Self>> {
        let mut head = [0; 32];
        if !filled(from, &mut head)? {
            return Ok(None);
        }
        let word =
            |at: usize| -> Fallible<u32> { Ok(u32::from_le_bytes(head[at..at + 4].try_into()?)) };
        let long =
            |at: usize| -> Fallible<u64> { Ok(u64::from_le_bytes(head[at..at + 8].try_into()?)) };
        if word(0)? != MAGIC {
            return Err("the journal is not one of the shim's".into());
        }
        let (mut first, mut second) = (vec![0; word(24)? as usize], vec![0; word(28)? as usize]);
        if !filled(from, &mut first)? || !filled(from, &mut second)? {
            return Ok(None);
        }
        Ok(Some(Self { kind: word(4)?, inode: long(8)?, at: long(16)?, first, second }))
    }

    fn at(&self) -> Fallible<usize> {
        let at = usize::try_from(self.at)?;
        if at > LARGEST {
            return Err(format!("the journal has a file of {at} bytes").into());
        }
        Ok(at)
    }

    fn first(&self) -> Fallible<String> {
        Ok(String::from_utf8(self.first.clone())?)
    }

    fn second(&self) -> Fallible<String> {
        Ok(String::from_utf8(self.second.clone())?)
    }
}

fn filled(from: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(into) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}
