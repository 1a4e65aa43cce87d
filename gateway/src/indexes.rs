//! Index files of sealed segments: written beside them, opened at start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use storage_log::{
    INDEX_BLOCK_BYTES, IndexFooter, IndexJob, LogConfig, SealedSegment, index_file_name, read_index_tail,
};

use crate::segments::sync_directory;

/// Blocks written at a time.
const BLOCKS: usize = 64;

/// Writes an index file: under another name, synced, renamed, and its directory synced.
///
/// # Errors
/// Those of the disk.
pub fn write(directory: &Path, job: &IndexJob) -> io::Result<(SealedSegment, File)> {
    let path = directory.join(index_file_name(job.base()));
    let new = path.with_extension("idx.new");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).read(true).write(true).mode(0o600).open(&new)?;
    let mut out = BufWriter::with_capacity(BLOCKS * INDEX_BLOCK_BYTES, file);
    let sealed = job.write(|bytes| out.write_all(bytes))?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync_directory(directory)?;
    Ok((sealed, file))
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

/// Footer and tail of an index file; `None` when it is not whole, or not of this segment.
#[must_use]
pub fn read_tail(file: &File, base: u64, config: &LogConfig) -> Option<(IndexFooter, Vec<u8>)> {
    let bytes = file.metadata().ok()?.len();
    read_index_tail(bytes, base, config, &mut |at, into| file.read_exact_at(into, at).is_ok())
}
