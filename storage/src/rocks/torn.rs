//! Torn tails: what a power loss leaves of the last write to one of RocksDB's record files.
//!
//! A write that was not synced when the power went may be there in part: its beginning, some of its
//! sectors, zeroes where the rest should be. RocksDB forgives a file that ends inside its last
//! record and refuses one whose last record has its full length but not its contents. Both are
//! legal after a power loss, so when RocksDB refuses a folder, the second is made the first: the
//! file is cut where the torn record begins, and RocksDB looks once more. A refused start leaves
//! table files behind that nothing refers to, and changes nothing that a second one reads.
//!
//! It is cut only when the bad record can be a torn last write: no later record begins behind it
//! (one write is in flight at a time), and zeroes stand where it should go on. Anything else is
//! damage, and stays refused. One kind of it RocksDB passes over in silence, so that is looked for
//! before each start: zeroes where a record should begin, and something behind them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::StorageError;

/// Records never cross a block; one that would is written in fragments.
const BLOCK: usize = 32 << 10;
/// Checksum (4), length (2), type (1).
const HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;
/// The end of a torn record is zeroes, or at least one whole sector of it.
const SECTOR: usize = 512;
const ZEROES: usize = 8;

/// Opens a RocksDB folder with `open`: a second time when it was damaged by no more than a torn
/// tail, which is cut off.
pub(super) fn open<T>(
    folder: &Path,
    open: impl Fn() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    if passed_over(folder)?.is_some() {
        cut(folder)?;
        if let Some(file) = passed_over(folder)? {
            let file = file.display();
            return Err(StorageError::Corrupt(format!("zeroes in the middle of {file}")));
        }
    }
    match open() {
        Err(StorageError::Corrupt(_)) if cut(folder)? => open(),
        other => other,
    }
}

/// The first record file of the folder with something that RocksDB would not see.
fn passed_over(folder: &Path) -> Result<Option<PathBuf>, StorageError> {
    let mut files: Vec<PathBuf> = wals(folder).into_iter().map(|(_, path)| path).collect();
    files.extend(manifest(folder));
    for path in files {
        let found = File::open(&path).and_then(hides);
        if found.map_err(|why| super::failed("reading a record file", &why))? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether there is anything behind zeroes where a record should begin. RocksDB takes those for
/// room that was never used and leaves out the rest of their block without a word. Looks at the
/// headers only, block by block: what they say of their records is RocksDB's to check.
fn hides(mut file: impl Read) -> io::Result<bool> {
    let mut block = Vec::with_capacity(BLOCK);
    let mut unused = false;
    loop {
        block.clear();
        if file.by_ref().take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            return Ok(false);
        }
        let mut at = 0;
        while let Some(&[_, _, _, _, low, high, kind]) = block.get(at..at + HEADER)
            && !unused
        {
            unused = [low, high, kind] == [0; 3];
            at += if unused { 0 } else { HEADER + usize::from(u16::from_le_bytes([low, high])) };
        }
        if unused && block[at..].iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
    }
}

/// Cuts the torn tail of the newest write-ahead file and of the current manifest of a RocksDB
/// folder, and says whether one of them had one.
fn cut(folder: &Path) -> Result<bool, StorageError> {
    let mut torn = false;
    let newest = wals(folder).into_iter().max().map(|(_, path)| path);
    for file in newest.into_iter().chain(manifest(folder)) {
        let bytes = fs::read(&file).map_err(|why| super::failed("reading a record file", &why))?;
        let Some(at) = torn_at(&bytes) else { continue };
        tracing::warn!(
            file = %file.display(),
            at,
            bytes = bytes.len() - at,
            "the last write was torn by a power loss and is cut off; it was never synced"
        );
        let shorten = |file: File| file.set_len(at as u64).and_then(|()| file.sync_all());
        OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(shorten)
            .map_err(|why| super::failed("cutting a torn tail", &why))?;
        torn = true;
    }
    Ok(torn)
}

/// The write-ahead files that are not empty, with their numbers.
fn wals(folder: &Path) -> Vec<(u64, PathBuf)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let numbered = files.filter_map(|path| {
        let wal = path.extension()? == "log";
        let number: u64 = path.file_stem()?.to_str()?.parse().ok()?;
        let filled = fs::metadata(&path).ok()?.len() > 0;
        (wal && filled).then_some((number, path))
    });
    numbered.collect()
}

/// The manifest that CURRENT names.
fn manifest(folder: &Path) -> Option<PathBuf> {
    let name = fs::read_to_string(folder.join("CURRENT")).ok()?;
    let path = folder.join(name.trim_end());
    path.is_file().then_some(path)
}

/// Where the torn last record of a file begins; `None` when it has none, or when what is wrong
/// with it is not a torn write.
fn torn_at(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Where the record began whose fragments are being read.
    let mut began = 0;
    loop {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
        }
        if at + HEADER > bytes.len() {
            return None;
        }
        match record(bytes, at) {
            Some((kind, length)) => {
                if matches!(kind, FULL | FIRST) {
                    began = at;
                }
                at += HEADER + length;
                if matches!(kind, FULL | LAST) {
                    began = at;
                }
            }
            None => break,
        }
    }
    let torn = !another_begins(bytes, at) && goes_on_in_zeroes(bytes, at);
    torn.then_some(began)
}

/// Type and length of the sound record at `at`.
fn record(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let head = bytes.get(at..at + HEADER)?;
    let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
    let kind = head[6];
    if kind == 0 || HEADER + length > BLOCK - at % BLOCK {
        return None;
    }
    let body = bytes.get(at + HEADER - 1..at + HEADER + length)?;
    let sum = crc32c::crc32c(body);
    // Stored masked, so that the checksum of bytes that hold a checksum is no fixed point.
    let masked = sum.rotate_right(15).wrapping_add(0xa282_ead8);
    (head[..4] == masked.to_le_bytes()).then_some((kind, length))
}

/// Whether a sound record begins anywhere behind `at`: then what is at `at` was not the last.
fn another_begins(bytes: &[u8], at: usize) -> bool {
    (at + 1..bytes.len().saturating_sub(HEADER)).any(|at| {
        matches!(bytes[at + HEADER - 1], FULL | FIRST)
            && BLOCK - at % BLOCK >= HEADER
            && record(bytes, at).is_some()
    })
}

/// Whether the write that goes on at `at` lacks its end or a sector of it: be it the last one, with
/// no more than its last few bytes, or the first, with the first few bytes of a checksum.
fn goes_on_in_zeroes(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at..];
    let tail = rest.iter().rev().take_while(|byte| **byte == 0).count();
    let (begun, sectors) = rest.split_at(rest.len().min(at.next_multiple_of(SECTOR) - at));
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    tail >= ZEROES.min(rest.len())
        || (!begun.is_empty() && zero(begun))
        || sectors.chunks(SECTOR).any(zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of records with these lengths, fragmented as RocksDB does.
    fn file(lengths: &[usize]) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        for (n, length) in lengths.iter().enumerate() {
            let payload: Vec<u8> = (0..*length).map(|i| (i + n) as u8 | 1).collect();
            let mut rest = payload.as_slice();
            let mut first = true;
            loop {
                let mut left = BLOCK - out.len() % BLOCK;
                if left < HEADER {
                    out.resize(out.len() + left, 0);
                    left = BLOCK;
                }
                let take = rest.len().min(left - HEADER);
                let last = take == rest.len();
                let kind = match (first, last) {
                    (true, true) => FULL,
                    (true, false) => FIRST,
                    (false, false) => 3,
                    (false, true) => LAST,
                };
                let body = [&[kind], &rest[..take]].concat();
                let masked = crc32c::crc32c(&body).rotate_right(15).wrapping_add(0xa282_ead8);
                out.extend_from_slice(&masked.to_le_bytes());
                out.extend_from_slice(&(take as u16).to_le_bytes());
                out.extend_from_slice(&body);
                rest = &rest[take..];
                first = false;
                if last {
                    break;
                }
            }
        }
        out
    }

    #[test]
    fn a_sound_file_is_left_alone() {
        for lengths in [&[][..], &[1], &[100, 40_000, 5], &[BLOCK - HEADER, 3], &[BLOCK - 10, 3]] {
            assert_eq!(torn_at(&file(lengths)), None, "{lengths:?}");
        }
    }

    #[test]
    fn a_last_record_with_zeroes_for_an_end_is_cut_at_its_beginning() {
        for last in [20, 900, 70_000] {
            let before = file(&[300, 33_000]).len();
            let whole = file(&[300, 33_000, last]);
            for keep in [0, 3, 7, 12, last / 2, last - 9] {
                let mut torn = whole.clone();
                torn[before + keep..].fill(0);
                assert_eq!(torn_at(&torn), Some(before), "{keep} of {last} bytes");
            }
        }
    }

    #[test]
    fn a_last_record_that_lacks_a_sector_is_cut() {
        let before = file(&[300]).len();
        let mut torn = file(&[300, 20_000]);
        let sector = 5000 / SECTOR * SECTOR + before;
        let sector = sector.next_multiple_of(SECTOR);
        torn[sector..sector + 4096].fill(0);
        assert_eq!(torn_at(&torn), Some(before));
    }

    #[test]
    fn a_last_record_that_lacks_the_few_bytes_in_its_last_sector_is_cut() {
        let before = file(&[300]).len();
        for over in 1..20 {
            let whole = file(&[300, 3 * SECTOR + over - before - HEADER]);
            assert_eq!(whole.len(), 3 * SECTOR + over);
            let mut torn = whole.clone();
            torn[3 * SECTOR..].fill(0);
            assert_eq!(torn_at(&torn), Some(before), "{over} bytes");
        }
    }

    #[test]
    fn a_last_record_that_lacks_the_few_bytes_before_a_block_is_cut() {
        let lengths = [BLOCK - HEADER - 13];
        let before = file(&lengths).len();
        assert_eq!(BLOCK - before % BLOCK, 13);
        let mut torn = file(&[lengths[0], 9000]);
        torn[before..before + 13].fill(0);
        assert_eq!(torn_at(&torn), Some(before));
    }

    #[test]
    fn a_last_record_that_lacks_a_part_of_its_header_is_cut() {
        const PAGE: usize = 4096;
        for missing in 1..20 {
            let before = PAGE - missing;
            let mut torn = file(&[before - HEADER, 9000]);
            torn[before..PAGE].fill(0);
            assert_eq!(torn_at(&torn), Some(before), "{missing} bytes");
        }
    }

    #[test]
    fn damage_before_the_tail_is_not_cut() {
        let mut bad = file(&[300, 20_000, 40]);
        let at = file(&[300]).len() + HEADER + 100;
        bad[at..at + 4096].fill(0);
        assert_eq!(torn_at(&bad), None);
    }

    #[test]
    fn what_rocksdb_would_pass_over_is_seen() {
        let whole = file(&[SECTOR - HEADER, 900, 40_000, 20]);
        assert!(!hides(&whole[..]).expect("reads"));
        // Zeroes to the end are room that was never used, as far as anyone can tell.
        for at in [0, SECTOR, whole.len() - 20 - HEADER, whole.len()] {
            let mut cut = whole.clone();
            cut[at..].fill(0);
            assert!(!hides(&cut[..]).expect("reads"), "{at}");
            cut[at..].copy_from_slice(&whole[at..]);
            cut[at.min(whole.len() - 20)..][..7].fill(0);
            let begins = at < whole.len();
            assert_eq!(hides(&cut[..]).expect("reads"), begins, "{at}");
        }
    }

    #[test]
    fn a_flipped_bit_in_the_last_record_is_not_cut() {
        let before = file(&[300]).len();
        for at in [0, 4, 5, 6, 7, 600, 1999] {
            let mut bad = file(&[300, 2000]);
            bad[before + at] ^= 0x10;
            assert_eq!(torn_at(&bad), None, "{at}");
        }
    }
}
