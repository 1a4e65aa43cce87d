//! Segment files: how they are made, opened and read at start.
//!
//! A segment that takes batches is written and read past the page cache (`O_DIRECT`), where the file system has that: an
//! error of the disk then shows at the write that it belongs to, and what is read is what the disk has. A sealed one is
//! read through the page cache. Which of the two a directory can do is found out by doing it, once at start.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::FileBuffer;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use storage_log::format::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use storage_log::{
    Geometry, SegmentHeader, WriteBatch, index_file_name, is_cold, segment_file_name, segment_of_file_name,
};

use super::disk::{cold_file_name, log_directory, sync_directory};
use super::{indexes, reserve};

/// How the segment that takes batches is written and read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Through the page cache: the file system has nothing else.
    Buffered,
    /// Past it.
    Direct,
}

impl Access {
    /// What `directory` can do with blocks of `block_bytes`, and why not more.
    #[must_use]
    pub fn of(directory: &Path, block_bytes: usize) -> (Self, Option<io::Error>) {
        match try_direct(directory, block_bytes) {
            Ok(()) => (Self::Direct, None),
            Err(error) => (Self::Buffered, Some(error)),
        }
    }
}

/// The block of a store that is made in `directory`: the smallest that can be written past the page cache there.
#[must_use]
pub fn block_of(directory: &Path) -> usize {
    let takes = |block: &usize| try_direct(directory, *block).is_ok();
    [BLOCK_BYTES_MIN, BLOCK_BYTES_MAX].into_iter().find(takes).unwrap_or(BLOCK_BYTES_MIN)
}

/// Writes one block past the page cache, at a place that is aligned to nothing larger.
pub(super) fn try_direct(directory: &Path, block_bytes: usize) -> io::Result<()> {
    let path = directory.join("direct.new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600).custom_flags(DIRECT);
    let block = FileBuffer::aligned(block_bytes, BLOCK_BYTES_MAX);
    let written = options.open(&path).and_then(|file| file.write_all_at(block.bytes(), block_bytes as u64));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        // The block was taken for what it is, and only has no place: a full disk is no other disk.
        _ if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::StorageFull) => Ok(()),
        _ => written,
    }
}

/// `O_DIRECT`, as `custom_flags` takes it.
pub const DIRECT: i32 = OFlags::DIRECT.bits().cast_signed();

/// One segment file, open in each way that it is used.
pub struct SegmentFile {
    /// Through the page cache.
    pub buffered: File,
    /// Past it, while the segment takes batches or will; none where that cannot be had.
    pub direct: Option<File>,
    /// Its index, once it is sealed: a file of its own, or the cold segment itself.
    pub index: Option<File>,
    /// Its base, with its generation.
    pub in_log: u64,
}

impl SegmentFile {
    fn open(path: &Path, access: Access, base: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let buffered = options.open(path)?;
        let direct = match access {
            Access::Buffered => None,
            Access::Direct => Some(options.custom_flags(DIRECT).open(path)?),
        };
        Ok(Self { buffered, direct, index: None, in_log: base })
    }

    /// What batches are written through, and read until the segment is sealed.
    #[must_use]
    pub fn active(&self) -> &File {
        self.direct.as_ref().unwrap_or(&self.buffered)
    }

    /// Writes a batch and syncs.
    ///
    /// # Errors
    /// Those of the disk. Nothing is known then of what is on it.
    pub fn write(&self, batch: &WriteBatch) -> io::Result<()> {
        let file = self.active();
        file.write_all_at(batch.buffer.bytes(), batch.offset)?;
        file.sync_data()
    }
}

/// Makes segments, away from the data plane: creating, reserving and syncing a file all block.
#[derive(Clone)]
pub struct SegmentMaker {
    /// Of the store.
    pub directory: PathBuf,
    /// Its id.
    pub store: [u8; 16],
    /// How its logs are cut.
    pub geometry: Geometry,
    /// How its files are opened.
    pub access: Access,
}

impl SegmentMaker {
    /// Makes the segment of a log at `base`: header, full length, synced. And what is kept aside before it.
    ///
    /// # Errors
    /// Those of the disk, `ENOSPC` among them; nothing is left behind then.
    pub fn make(&self, log: u16, base: u64) -> io::Result<SegmentFile> {
        let directory = log_directory(&self.directory, log);
        let Geometry { block_bytes, segment_bytes, .. } = self.geometry;
        let header = SegmentHeader { store: self.store, log, base, block_bytes, segment_bytes };
        let path = directory.join(segment_file_name(base));
        let new = path.with_extension("new");
        let made = reserve::keep(&directory, self.geometry.reserve_bytes())
            .and_then(|()| make_file(&new, &header))
            .and_then(|()| SegmentFile::open(&new, self.access, base))
            .and_then(|file| fs::rename(&new, &path).map(|()| file))
            .and_then(|file| sync_directory(&directory).map(|()| file));
        if made.is_err() {
            // Best effort: the next attempt truncates it anyway.
            let _ = fs::remove_file(&new);
        }
        made
    }
}

fn make_file(path: &Path, header: &SegmentHeader) -> io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, header.segment_bytes)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_all()
}

/// All segments in order, synced before anything is read. Of a segment that was compacted the cold one counts, and what a node that was
/// stopped in that moment left of it is removed. Files of other names are left alone.
///
/// # Errors
/// Those of the disk.
pub fn open_segments(directory: &Path, access: Access) -> io::Result<Vec<(u64, SegmentFile)>> {
    let mut segments = BTreeMap::new();
    let (mut appended, mut cold) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else {
            continue;
        };
        appended.extend(segment_of_file_name(name));
        cold.extend(segment_of_file_name(&name.replace(".cold", ".log")).filter(|_| name.ends_with(".cold")));
    }
    for base in cold {
        segments.insert(base, open_cold_segment(directory, base)?);
    }
    // The name of a cold segment that was read need not be durable: what it was made from goes only behind its sync.
    sync_directory(directory)?;
    for base in appended {
        let path = directory.join(segment_file_name(base));
        match segments.get(&base) {
            Some(cold) if is_cold(cold.in_log) => remove_superseded(directory, base, cold.in_log)?,
            // What the cold one was made from is still there, and what is damaged can be made again.
            _ => {
                let mut file = SegmentFile::open(&path, access, base)?;
                file.index = indexes::open(directory, base)?;
                segments.insert(base, file);
            }
        }
    }
    for file in segments.values() {
        file.buffered.sync_all()?;
    }
    sync_directory(directory)?;
    Ok(segments.into_iter().collect())
}

/// Removes what the cold segment at `in_log` was made from. An index file that was written beside it since stays.
fn remove_superseded(directory: &Path, base: u64, in_log: u64) -> io::Result<()> {
    if indexes::open(directory, base)?.is_some_and(|file| !indexes::is_of(&file, in_log)) {
        fs::remove_file(directory.join(index_file_name(base)))?;
    }
    fs::remove_file(directory.join(segment_file_name(base)))
}

/// Opens a cold segment; one whose header is damaged has no generation, and is refused when it is read.
///
/// # Errors
/// Those of the disk.
pub fn open_cold_segment(directory: &Path, base: u64) -> io::Result<SegmentFile> {
    let buffered = File::open(directory.join(cold_file_name(base)))?;
    // Before its header is believed: a killed process may have left bytes in the page cache that are not on the disk.
    buffered.sync_all()?;
    let Some((_, in_log)) = indexes::open_cold(directory, base)? else {
        return Ok(SegmentFile { buffered, direct: None, index: None, in_log: base });
    };
    let index = indexes::open_whichever(directory, base)?;
    Ok(SegmentFile { buffered, direct: None, index, in_log })
}
