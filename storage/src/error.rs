//! How storage fails. Both kinds end what they hit: there is nothing to retry.

/// A failure of the disk or of what is on it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The operating system or RocksDB refused an operation. After a failed sync the page cache
    /// can't be trusted, so the process ends (DESIGN 7).
    #[error("storage failed: {0}")]
    Io(String),
    /// Bytes that do not carry their checksum, do not decode, or contradict each other.
    #[error("storage is damaged: {0}")]
    Corrupt(String),
}
