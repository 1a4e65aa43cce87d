//! Snapshots of a log's index, so that a start reads one file and what came after it.
//!
//! `index.snap` is made by merging the one before with the index files that it does not cover, when those have grown to a fifth of
//! it: a start then reads at most 1.2 times its size and the open segment, and at most five bytes are written for each of an index
//! file. What they are is bounded by the ids that there are, so it is that much only where hardly any id is met twice in a segment.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use storage_log::format::INDEX_FOOTER_BYTES;
use storage_log::{Blocks, INDEX_BLOCK_BYTES, IndexFooter, LogConfig, SealedSegment, SnapshotFooter, merge};

use super::disk::{in_synced_pieces, replace};
use super::indexes::{self, FoundIndex};

/// Name of the snapshot of a log.
pub const SNAPSHOT_FILE_NAME: &str = "index.snap";

/// A snapshot is due when the index files that it does not cover have grown to this part of it. With a smaller one a start would read
/// hardly less, and more would be written than for the records themselves (`benches/README.md`).
const DUE_PARTS: u64 = 5;

/// Index files that are smaller than this part of a segment together are read at start: of the usual segment 4 MiB, a few milliseconds.
const DUE_PARTS_OF_SEGMENT: u64 = 64;

/// Blocks read at a time.
const BLOCKS: usize = 64;

/// Whether a snapshot was made, because one was due: now that the index file of the segment at `newest` is there.
///
/// # Errors
/// Those of the disk. What stood there before stays.
pub fn renew_if_due(directory: &Path, config: &LogConfig, newest: u64) -> io::Result<bool> {
    let before = read_footer(directory, config)?;
    let covered = before.as_ref().map_or(0, |(footer, _)| footer.segments);
    let (mut sealed, mut bytes) = (Vec::new(), 0);
    let bases = (u64::from(covered)..).map(|number| number * config.geometry.segment_bytes);
    for base in bases.take_while(|base| *base <= newest) {
        let Some((segment, footer, file)) = open_index(directory, config, base)? else {
            // It is missing or damaged: the next start makes it anew, and then comes another snapshot.
            return Ok(false);
        };
        bytes += file.metadata()?.len() - footer.blocks_at();
        sealed.push((segment, blocks_of(file, footer.blocks_at(), footer.blocks())));
    }
    let size = before.as_ref().map_or(0, |(footer, _)| footer.blocks as u64 * INDEX_BLOCK_BYTES as u64);
    if bytes < (size / DUE_PARTS).max(config.geometry.segment_bytes / DUE_PARTS_OF_SEGMENT) {
        return Ok(false);
    }
    renew(directory, config, before, sealed)
}

fn renew(
    directory: &Path,
    config: &LogConfig,
    before: Option<(SnapshotFooter, File)>,
    sealed: Vec<(SealedSegment, Blocks<'_, io::Error>)>,
) -> io::Result<bool> {
    let path = directory.join(SNAPSHOT_FILE_NAME);
    let before = before.map(|(footer, file)| (footer, blocks_of(file, 0, footer.blocks)));
    let made = replace(&path, |file| {
        let mut out = in_synced_pieces(file);
        merge(config, before, sealed, |bytes| out.write_all(bytes))?.ok_or(ErrorKind::InvalidData)?;
        out.flush()
    });
    match made {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            // One of them is damaged. If it is the snapshot, the next one is made of the index files alone.
            let _ = fs::remove_file(&path);
            Ok(false)
        }
        made => made.map(|_| true),
    }
}

/// The snapshot of a log, if there is one.
///
/// # Errors
/// Those of the disk.
pub fn open(directory: &Path) -> io::Result<Option<File>> {
    match File::open(directory.join(SNAPSHOT_FILE_NAME)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// The snapshot of a log, if there is one that belongs to it.
fn read_footer(directory: &Path, config: &LogConfig) -> io::Result<Option<(SnapshotFooter, File)>> {
    let Some(file) = open(directory)? else {
        return Ok(None);
    };
    let length = file.metadata()?.len();
    let mut footer = [0; INDEX_FOOTER_BYTES];
    let Some(at) = length.checked_sub(INDEX_FOOTER_BYTES as u64) else {
        return Ok(None);
    };
    file.read_exact_at(&mut footer, at)?;
    let footer = SnapshotFooter::parse(&footer, config);
    let whole = footer.filter(|footer| u64::from(footer.blocks) * INDEX_BLOCK_BYTES as u64 == at);
    Ok(whole.map(|footer| (footer, file)))
}

type OpenIndex = (SealedSegment, IndexFooter, File);

fn open_index(directory: &Path, config: &LogConfig, base: u64) -> io::Result<Option<OpenIndex>> {
    let Some(FoundIndex { footer, tail, file }) = indexes::find(directory, base, config)? else {
        return Ok(None);
    };
    Ok(footer.open(&tail).map(|sealed| (sealed, footer, file)))
}

/// `count` blocks of a file, from `at` on, some at a time.
fn blocks_of(file: File, at: u64, count: u32) -> Blocks<'static, io::Error> {
    let (mut buffer, mut next) = (Vec::new(), 0);
    Box::new(move || {
        if next == count {
            return Ok(None);
        }
        let place = next as usize % BLOCKS * INDEX_BLOCK_BYTES;
        if place == 0 {
            buffer.resize(BLOCKS.min((count - next) as usize) * INDEX_BLOCK_BYTES, 0);
            file.read_exact_at(&mut buffer, at + u64::from(next) * INDEX_BLOCK_BYTES as u64)?;
        }
        next += 1;
        Ok(Some(buffer[place..place + INDEX_BLOCK_BYTES].to_vec()))
    })
}
