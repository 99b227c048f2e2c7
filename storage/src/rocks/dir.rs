//! The data folder: what format it has, and that one process at a time uses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::StorageError;

/// The version of the folder's layout that this build writes and reads.
pub const FORMAT_VERSION: u32 = 2;

const TITLE: &str = "holdfast data folder";

/// What a data folder is, for its whole life: the content of its file `FORMAT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// How many shards its executions are spread over.
    pub shards: u32,
    /// Which node it is.
    pub node: u64,
}

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds its lock.
    #[error("the data folder {path} is in use by {holder}")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, as far as it says.
        holder: String,
    },
    /// It was written by another version, or for another number of shards or another node.
    #[error("the data folder {path} has another format: {why}")]
    Format {
        /// The folder.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// There is something in it, but no `FORMAT`.
    #[error("{path} is no data folder: it has no FORMAT but contains {found}")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The name of something in it.
        found: String,
    },
    /// The disk, or what is on it.
    #[error("the data folder can't be used")]
    Storage(#[from] StorageError),
}

/// The exclusive use of a folder, for as long as anything lives that holds it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Format {
    fn to_text(self) -> String {
        let Format { shards, node } = self;
        let body = format!("{TITLE}\nversion {FORMAT_VERSION}\nshards {shards}\nnode {node}\n");
        let sum = crc32fast::hash(body.as_bytes());
        format!("{body}crc32 {sum:08x}\n")
    }

    /// `Err` says what is wrong, for a person.
    fn from_text(text: &str) -> Result<Format, String> {
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err("its FORMAT is not Holdfast's".into());
        }
        let mut field = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(' ')).ok_or(format!("its FORMAT has no {name}"))
        };
        let version = field("version")?;
        if version != FORMAT_VERSION.to_string() {
            return Err(format!("version {version}, this is version {FORMAT_VERSION}"));
        }
        let number = |text: &str| text.parse::<u64>().map_err(|why| format!("FORMAT: {why}"));
        let shards = u32::try_from(number(field("shards")?)?).map_err(|why| why.to_string())?;
        let format = Format { shards, node: number(field("node")?)? };
        if format.shards == 0 {
            return Err("it has no shards".into());
        }
        if text != format.to_text() {
            return Err("its FORMAT does not carry its checksum".into());
        }
        Ok(format)
    }
}

/// Locks the folder, creates it when it is new, and says what it is.
pub(super) fn open(path: &Path, new: Format) -> Result<(Format, Arc<Lock>), OpenError> {
    create(path)?;
    let lock = lock(path)?;
    let file = path.join("FORMAT");
    if !exists(&file)? {
        refuse_foreign(path)?;
        for part in ["log", "tables"] {
            let part = path.join(part);
            fs::create_dir_all(&part).map_err(|why| io(&part, &why))?;
        }
        sync_dir(path)?;
        // Last, and whole or not at all: a folder with a FORMAT is complete.
        publish(path, &file, new.to_text().as_bytes())?;
    }
    let text = fs::read_to_string(&file).map_err(|why| io(&file, &why))?;
    let format = Format::from_text(&text)
        .map_err(|why| OpenError::Format { path: path.to_path_buf(), why })?;
    Ok((format, Arc::new(lock)))
}

/// A data folder whose process has ended; nobody else can open it while this lives.
#[derive(Debug)]
pub struct Abandoned(#[expect(dead_code, reason = "held, not looked at")] Lock);

/// Takes a complete data folder that no process uses; `None` when there is none at `path`, or when
/// it is in use.
pub fn abandoned(path: &Path) -> Option<Abandoned> {
    let complete = exists(&path.join("FORMAT")).ok()?;
    if complete { lock(path).ok().map(Abandoned) } else { None }
}

fn create(path: &Path) -> Result<(), StorageError> {
    let mut missing = Vec::new();
    for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        if exists(folder)? {
            break;
        }
        missing.push(folder);
    }
    fs::create_dir_all(path).map_err(|why| io(path, &why))?;
    // A new folder's name must outlive a power loss as its content does.
    for folder in missing {
        match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent)?,
            _ => sync_dir(Path::new("."))?,
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let name = path.join("LOCK");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = opened.map_err(|why| io(&name, &why))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
            let holder = if known { holder.trim().into() } else { "another process".into() };
            return Err(OpenError::Locked { path: path.to_path_buf(), holder });
        }
        Err(TryLockError::Error(why)) => return Err(io(&name, &why).into()),
    }
    let said = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "process {}", std::process::id()));
    said.map_err(|why| io(&name, &why))?;
    Ok(Lock { _file: file })
}

/// Without a FORMAT only what an interrupted creation leaves may be there.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(|why| io(path, &why))? {
        let entry = entry.map_err(|why| io(path, &why))?;
        let name = entry.file_name();
        let ours = match name.to_str() {
            Some("LOCK" | "FORMAT.new") => true,
            Some("log" | "tables") => {
                fs::read_dir(entry.path()).map_err(|why| io(&entry.path(), &why))?.next().is_none()
            }
            _ => false,
        };
        if !ours {
            let found = name.to_string_lossy().into_owned();
            return Err(OpenError::Foreign { path: path.to_path_buf(), found });
        }
    }
    Ok(())
}

fn publish(folder: &Path, file: &Path, content: &[u8]) -> Result<(), StorageError> {
    let draft = folder.join("FORMAT.new");
    let written = File::create(&draft).and_then(|mut out| {
        out.write_all(content)?;
        out.sync_all()
    });
    written.and_then(|()| fs::rename(&draft, file)).map_err(|why| io(file, &why))?;
    sync_dir(folder)
}

fn sync_dir(path: &Path) -> Result<(), StorageError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|why| io(path, &why))
}

fn exists(path: &Path) -> Result<bool, StorageError> {
    path.try_exists().map_err(|why| io(path, &why))
}

fn io(path: &Path, why: &io::Error) -> StorageError {
    super::failed(&path.display().to_string(), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { shards: 16, node: 7 };

    #[test]
    fn the_text_is_pinned() {
        let text = "holdfast data folder\nversion 2\nshards 16\nnode 7\ncrc32 3bbb84ea\n";
        assert_eq!(FORMAT.to_text(), text);
        assert_eq!(Format::from_text(text), Ok(FORMAT));
    }

    #[test]
    fn any_other_byte_is_refused() {
        let text = FORMAT.to_text();
        for at in 0..text.len() {
            for byte in [b'1', b' ', b'x'] {
                let mut other = text.clone().into_bytes();
                if other[at] != byte {
                    other[at] = byte;
                    let other = String::from_utf8(other).expect("ASCII");
                    assert!(Format::from_text(&other).is_err(), "{other}");
                }
            }
            assert!(Format::from_text(&text[..at]).is_err());
        }
    }

    #[test]
    fn an_interrupted_creation_is_taken_up() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("a/b");
        fs::create_dir_all(path.join("log")).expect("creates");
        fs::write(path.join("FORMAT.new"), "half").expect("writes");
        let (format, lock) = open(&path, FORMAT).expect("opens");
        assert_eq!(format, FORMAT);
        drop(lock);
        let (format, _lock) = open(&path, Format { shards: 1, node: 1 }).expect("opens");
        assert_eq!(format, FORMAT, "what it is, not what a new one would be");
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let temp = tempfile::tempdir().expect("a folder");
        fs::write(temp.path().join("thesis.txt"), "years of work").expect("writes");
        let refused = open(temp.path(), FORMAT).expect_err("refused").to_string();
        assert!(refused.contains("thesis.txt"), "{refused}");
        // Nor is a log whose FORMAT was lost taken for a new folder.
        let temp = tempfile::tempdir().expect("a folder");
        fs::create_dir(temp.path().join("log")).expect("creates");
        fs::write(temp.path().join("log/CURRENT"), "MANIFEST-000004").expect("writes");
        assert!(matches!(open(temp.path(), FORMAT), Err(OpenError::Foreign { .. })));
    }
}
