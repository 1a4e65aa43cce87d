//! Zeros over the next segment, ahead of its batches, a piece at a time: whoever writes them says when, and does other things in between.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use ring::FileBuffer;
use rustix::fs::{SeekFrom, seek};
use storage_log::format::{BLOCK_BYTES_MAX, SEGMENT_HEADER_BYTES};
use storage_log::segment_file_name;

use super::disk::log_directory;
use super::segments::{Access, DIRECT, SegmentMaker, try_direct};

/// What is written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A segment that took no batch yet, and is being filled with zeros.
pub struct Zeros {
    file: File,
    piece: FileBuffer,
    /// What stands in front of it is zeroed.
    offset: u64,
    end: u64,
}

impl SegmentMaker {
    /// Opens a segment that took no batch yet, to write zeros over it. What is zeroed needs no more from the file system when batches are
    /// written over it: half the median of a sync, a quarter of its 99th percentile (`benches/README.md`).
    ///
    /// Not through the page cache: zeros would drive from it what readers want. That also where batches go through it because
    /// their blocks are too small for the disk: an ext4 that stops in the middle of a write into reserved blocks may say that what it
    /// has not written is synced (kernel 6.18: 3 of 60 times by `FS_IOC_SHUTDOWN`, 0 of 60 over zeros). `None` where the file system has
    /// nothing but the page cache, or all is zeroed.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn zeros(&self, log: u16, base: u64) -> io::Result<Option<Zeros>> {
        if self.access == Access::Buffered && try_direct(&self.directory, BLOCK_BYTES_MAX).is_err() {
            return Ok(None);
        }
        let path = log_directory(&self.directory, log).join(segment_file_name(base));
        let file = OpenOptions::new().read(true).write(true).custom_flags(DIRECT).open(&path)?;
        // What was zeroed before the last stop is no hole any more.
        let begin = SEGMENT_HEADER_BYTES as u64;
        let hole = seek(&file, SeekFrom::Hole(begin)).unwrap_or(begin);
        let (offset, end) = (hole - hole % BLOCK_BYTES_MAX as u64, self.geometry.segment_bytes);
        let piece = FileBuffer::aligned(PIECE_BYTES, BLOCK_BYTES_MAX);
        Ok((offset < end).then_some(Zeros { file, piece, offset, end }))
    }
}

impl Zeros {
    /// Writes the next piece, of a mebibyte at most. Whether another is left.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write_piece(&mut self) -> io::Result<bool> {
        let bytes = self.piece.bytes().len().min((self.end - self.offset) as usize);
        self.file.write_all_at(&self.piece.bytes()[..bytes], self.offset)?;
        self.offset += bytes as u64;
        Ok(self.offset < self.end)
    }

    /// What was written has to do. Syncs it.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_data()
    }
}
