//! Opens a data folder: the lock, the format, the log, the tables, and whether they fit together.

use std::path::Path;
use std::sync::Arc;

use super::committer::OnFatal;
use super::dir::{self, Format, OpenError};
use super::log::RocksLog;
use super::options::{LogLimits, TablesLimits};
use super::tables::RocksStore;
use super::torn;
use crate::GroupId;

/// How to open a data folder.
#[derive(Clone)]
pub struct Settings {
    /// What a new folder becomes.
    pub format: Format,
    /// Whether an existing folder must be of that format. Else it opens as what it is.
    pub exact: bool,
    /// The log's limits.
    pub log: LogLimits,
    /// The tables' limits.
    pub tables: TablesLimits,
    /// Called when the log can't be written any more; production aborts the process.
    pub on_fatal: OnFatal,
}

/// An open data folder. The lock is held until the log and the store are both gone.
pub struct Opened {
    /// The log.
    pub log: Arc<RocksLog>,
    /// The tables.
    pub store: Arc<RocksStore>,
    /// What the folder is.
    pub format: Format,
    /// The groups whose log ends below what it had synced by the last flush of the tables: synced
    /// writes are gone. A sole voter must refuse to serve; one of several goes dirty until it is
    /// refilled, and then says so with [`RocksStore::refilled`].
    pub lost: Vec<GroupId>,
}

impl Opened {
    /// Opens the folder, or creates it.
    pub fn open(path: &Path, settings: &Settings) -> Result<Opened, OpenError> {
        let (format, lock) = dir::open(path, settings.format)?;
        if settings.exact && format != settings.format {
            let wanted = settings.format;
            let why = format!(
                "it has {} shards and is node {}, not {} shards and node {}",
                format.shards, format.node, wanted.shards, wanted.node
            );
            return Err(OpenError::Format { path: path.to_path_buf(), why });
        }
        let (folder, tables) = (path.join("log"), path.join("tables"));
        let log = Arc::new(torn::open(&folder, || {
            let (limits, lock) = (settings.log.clone(), Some(Arc::clone(&lock)));
            RocksLog::open(&folder, limits, lock, Arc::clone(&settings.on_fatal))
        })?);
        let store = Arc::new(torn::open(&tables, || {
            let (log, lock) = (Arc::clone(&log), Arc::clone(&lock));
            RocksStore::open(&tables, &settings.tables, log, lock)
        })?);
        let lost = store.compare(0..=format.shards)?;
        for group in &lost {
            tracing::error!(group, "the log has lost writes that it had synced");
        }
        Ok(Opened { log, store, format, lost })
    }
}
