//! Every RocksDB option, with its reason. Measurements: `raft-sim-storage.md` section 8.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions,
    ReadTier, WriteOptions,
};

const MIB: usize = 1 << 20;

/// What the log may hold in memory and on disk.
#[derive(Clone, Debug)]
pub struct LogLimits {
    /// Payload bytes per group that are kept for reads, once they are on disk.
    pub tail_bytes: usize,
    /// Entries per group that are kept for reads, once they are on disk.
    pub tail_entries: usize,
    /// Bytes that may wait for the disk, of all groups. A caller that finds more waits until the
    /// sync under way is over.
    pub pending_bytes: usize,
    /// How much RocksDB gathers in memory before it writes a table file. Entries that are purged
    /// while they are there are never written twice.
    pub write_buffer_bytes: usize,
    /// How much write-ahead log may exist before RocksDB flushes to drop the oldest file.
    pub wal_bytes: u64,
}

impl Default for LogLimits {
    fn default() -> LogLimits {
        LogLimits {
            tail_bytes: MIB,
            tail_entries: 1000,
            pending_bytes: 64 * MIB,
            write_buffer_bytes: 16 * MIB,
            wal_bytes: 256 << 20,
        }
    }
}

/// What the tables may hold in memory.
#[derive(Clone, Debug)]
pub struct TablesLimits {
    /// The block cache, shared by both column families, indexes and filters included.
    pub cache_bytes: usize,
    /// Unflushed rows of one column family at which RocksDB flushes by itself.
    pub write_buffer_bytes: usize,
    /// Unflushed rows of both together at which it does.
    pub total_write_buffer_bytes: usize,
    /// Files held open.
    pub open_files: i32,
}

impl Default for TablesLimits {
    fn default() -> TablesLimits {
        TablesLimits {
            cache_bytes: 16 * MIB,
            write_buffer_bytes: 8 * MIB,
            total_write_buffer_bytes: 32 * MIB,
            open_files: 256,
        }
    }
}

/// What both instances share.
fn common() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_max_background_jobs(2);
    options.set_compression_type(DBCompressionType::Lz4);
    // RocksDB's own diary: two small files of warnings, no periodic statistics, which would wake
    // an idle process and write to an idle disk.
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 * MIB);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// The log instance.
pub(super) fn log(limits: &LogLimits) -> Options {
    let mut options = common();
    // A torn tail is what a power loss leaves; damage before it refuses to open. Recycled files
    // would force the mode that ends the log at the first bad record without a word (A5).
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_recycle_log_file_num(0);
    // The insert into memory overlaps the next write of the file.
    options.set_enable_pipelined_write(true);
    options.set_write_buffer_size(limits.write_buffer_bytes);
    options.set_max_write_buffer_number(3);
    options.set_max_total_wal_size(limits.wal_bytes);
    options.set_max_open_files(64);
    // Reads are rare (lagging followers, start) and in order: a cache for the blocks of one of
    // them, no filters.
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(MIB));
    options.set_block_based_table_factory(&blocks);
    options
}

/// The instance of the tables.
pub(super) fn tables(limits: &TablesLimits) -> Options {
    let mut options = common();
    options.create_missing_column_families(true);
    // What is on disk is one cut over both column families: a prefix of the batches (A22).
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(limits.total_write_buffer_bytes);
    options.set_max_open_files(limits.open_files);
    options
}

/// The column family of all tables but history: small rows, read by key or from a low-water key.
pub(super) fn rows(limits: &TablesLimits, cache: &Cache) -> Options {
    let mut blocks = blocks(cache);
    blocks.set_bloom_filter(10.0, false);
    family(limits, &blocks)
}

/// The column family of history: much larger, written once, read in ranges. Apart from the rest,
/// so that compactions of the churning rows leave it alone.
pub(super) fn history(limits: &TablesLimits, cache: &Cache) -> Options {
    let mut blocks = blocks(cache);
    blocks.set_block_size(16 << 10);
    family(limits, &blocks)
}

fn blocks(cache: &Cache) -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    // Indexes and filters count against the cache, or memory grows with the data.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks
}

fn family(limits: &TablesLimits, blocks: &BlockBasedOptions) -> Options {
    let mut options = common();
    options.set_write_buffer_size(limits.write_buffer_bytes);
    options.set_max_write_buffer_number(4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_block_based_table_factory(blocks);
    options
}

/// A write of the log: durable when it returns.
pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// A write of the tables: in memory. The log is what makes it durable.
pub(super) fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// A read of what is in files; without a write-ahead log that is what a crash leaves.
pub(super) fn persisted() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(ReadTier::Persisted);
    options
}

/// A walk over `from .. to`.
pub(super) fn between(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}
