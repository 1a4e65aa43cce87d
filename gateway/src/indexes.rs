//! Index files of sealed segments: written beside them, read back at start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use storage_log::format::INDEX_FOOTER_BYTES;
use storage_log::{
    INDEX_BLOCK_BYTES, IndexFooter, IndexJob, LogConfig, Scan, SealedSegment, index_file_name,
};

use crate::segments::sync_directory;

/// Blocks read or written at a time.
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
    let length = file.metadata().ok()?.len();
    let mut footer = [0; INDEX_FOOTER_BYTES];
    file.read_exact_at(&mut footer, length.checked_sub(INDEX_FOOTER_BYTES as u64)?).ok()?;
    let footer = IndexFooter::parse(&footer, base, config).filter(|footer| footer.file_bytes() == length)?;
    let mut tail = vec![0; footer.tail_bytes()];
    let tail_at = length - (INDEX_FOOTER_BYTES + tail.len()) as u64;
    file.read_exact_at(&mut tail, tail_at).ok()?;
    Some((footer, tail))
}

/// Enters the open segment into `scan` from its index file, instead of reading it; with its blocks, unless a snapshot covers
/// them. Gives the file's footer; `None` when the file is damaged or cannot be read, and then the scan is of no use
/// any more.
pub fn enter(
    scan: &mut Scan,
    file: &File,
    base: u64,
    config: &LogConfig,
    with_blocks: bool,
) -> Option<IndexFooter> {
    let (footer, tail) = read_tail(file, base, config)?;
    scan.enter_index(&footer, &tail).then_some(())?;
    let count = if with_blocks { footer.blocks() } else { 0 };
    let mut buffer = vec![0; BLOCKS.min(count as usize) * INDEX_BLOCK_BYTES];
    for first in (0..count).step_by(BLOCKS) {
        let blocks = BLOCKS.min((count - first) as usize);
        let bytes = &mut buffer[..blocks * INDEX_BLOCK_BYTES];
        file.read_exact_at(bytes, u64::from(first) * INDEX_BLOCK_BYTES as u64).ok()?;
        for (number, block) in (first..).zip(bytes.chunks_exact(INDEX_BLOCK_BYTES)) {
            scan.enter_index_block(number, block).then_some(())?;
        }
    }
    Some(footer)
}
