//! Index files of sealed segments: written beside them, opened at start.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use storage_log::format::{INDEX_FOOTER_BYTES, SEGMENT_HEADER_BYTES, index_at};
use storage_log::{
    IndexFooter, IndexJob, LogConfig, SealedSegment, SegmentHeader, index_file_name, is_cold, read_index_tail,
};

use super::disk::{cold_file_name, in_synced_pieces, read_up_to, replace};

/// Writes an index file: under another name, synced, renamed, and its directory synced.
///
/// # Errors
/// Those of the disk.
pub fn write(directory: &Path, job: &IndexJob) -> io::Result<(SealedSegment, File)> {
    replace(&directory.join(index_file_name(job.base())), |file| {
        let mut out = in_synced_pieces(file);
        let sealed = job.write(|bytes| out.write_all(bytes))?;
        out.flush()?;
        Ok(sealed)
    })
}

/// The index file of the segment at `base`, if there is one.
///
/// # Errors
/// Those of the disk.
pub fn open(directory: &Path, base: u64) -> io::Result<Option<File>> {
    match File::open(directory.join(index_file_name(base))) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The index of a sealed segment: a file of its own, or in its cold segment.
pub struct FoundIndex {
    /// Its footer.
    pub footer: IndexFooter,
    /// What stands between blocks and footer.
    pub tail: Vec<u8>,
    /// Where it is.
    pub file: File,
}

/// The index of the segment at `base`, if there is one that is whole. A cold segment has its own, unless that was damaged and another
/// was written beside it.
///
/// # Errors
/// Those of the disk.
pub fn find(directory: &Path, base: u64, config: &LogConfig) -> io::Result<Option<FoundIndex>> {
    let cold = open_cold(directory, base)?;
    let in_log = cold.as_ref().map_or(base, |(_, base)| *base);
    let beside = open(directory, base)?;
    let whole = |file: File| {
        let (footer, tail) = read_tail(&file, in_log, config)?;
        Some(FoundIndex { footer, tail, file })
    };
    Ok(beside.and_then(whole).or_else(|| whole(cold?.0)))
}

/// The file that holds the index of the segment at `base`, sound or not.
///
/// # Errors
/// Those of the disk.
pub fn open_whichever(directory: &Path, base: u64) -> io::Result<Option<File>> {
    let beside = open(directory, base)?;
    Ok(match open_cold(directory, base)? {
        None => beside,
        Some((cold, in_log)) => Some(beside.filter(|file| is_of(file, in_log)).unwrap_or(cold)),
    })
}

/// The cold segment in place of the one at `base`, if there is one whose header is sound, and its base with its generation.
///
/// # Errors
/// Those of the disk.
pub fn open_cold(directory: &Path, base: u64) -> io::Result<Option<(File, u64)>> {
    let file = match File::open(directory.join(cold_file_name(base))) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let read = read_up_to(&file, &mut header, 0)?;
    let header = SegmentHeader::parse(&header[..read]).ok();
    Ok(header.filter(|header| is_cold(header.base)).map(|header| (file, header.base)))
}

/// Whether an index file says that it is of the segment at this base, and of this generation.
#[must_use]
pub fn is_of(file: &File, in_log: u64) -> bool {
    let mut footer = [0; INDEX_FOOTER_BYTES];
    let at = file.metadata().ok().and_then(|file| file.len().checked_sub(INDEX_FOOTER_BYTES as u64));
    let is_read = at.is_some_and(|at| file.read_exact_at(&mut footer, at).is_ok());
    is_read && footer[index_at::BASE] == in_log.to_le_bytes()
}

/// Footer and tail of an index file; `None` when it is not whole, or not of this segment.
#[must_use]
pub fn read_tail(file: &File, base: u64, config: &LogConfig) -> Option<(IndexFooter, Vec<u8>)> {
    let bytes = file.metadata().ok()?.len();
    read_index_tail(bytes, base, config, &mut |at, into| file.read_exact_at(into, at).is_ok())
}
