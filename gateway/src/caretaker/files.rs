//! The files of a log as the caretaker reads them: through the page cache, and on past what the disk cannot read.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};
use storage_log::format::BLOCK_BYTES_MAX;
use storage_log::{IndexJob, LogFile, LogFiles, SealedSegment, segment_file_name};

use crate::store::disk::{is_blank_from, read_up_to};
use crate::store::indexes;

/// Sealed segments and their index files.
pub(super) struct Files {
    directory: PathBuf,
    /// The one that was read last.
    open: Option<(LogFile, File)>,
}

impl Files {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }

    /// Reads a segment, whatever the disk says: how many bytes.
    pub(super) fn read_segment(&mut self, base: u64, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.read(LogFile::Segment(base), offset, into)
    }

    /// Tells the page cache to let go of what was just read.
    pub(super) fn forget(&self, offset: u64, bytes: u64) {
        if let (Some((_, file)), Some(bytes)) = (&self.open, NonZeroU64::new(bytes)) {
            // Advice: where it is not taken, more stays in memory than needs to.
            let _ = fadvise(file, offset, Some(bytes), Advice::DontNeed);
        }
    }

    fn open(&mut self, file: LogFile) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            let opened = match file {
                LogFile::Index(base) => {
                    indexes::open_whichever(&self.directory, base)?.ok_or(ErrorKind::NotFound)?
                }
                LogFile::Segment(base) => match indexes::open_cold(&self.directory, base)? {
                    Some((cold, _)) => cold,
                    None => File::open(self.directory.join(segment_file_name(base)))?,
                },
                LogFile::Snapshot => return Err(ErrorKind::Unsupported.into()),
            };
            self.open = Some((file, opened));
        }
        Ok(&self.open.as_ref().expect("it was just opened").1)
    }
}

impl LogFiles for Files {
    type Error = io::Error;

    fn bytes(&mut self, file: LogFile) -> io::Result<Option<u64>> {
        match self.open(file) {
            Ok(file) => Ok(Some(file.metadata()?.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, name: LogFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.open(name)?;
        let is_segment = matches!(name, LogFile::Segment(_));
        if is_segment && is_blank_from(file, offset) {
            return Ok(0);
        }
        match read_up_to(file, into, offset) {
            Err(_) if is_segment => read_around(file, into, offset),
            read => read,
        }
    }

    fn write_index(&mut self, _job: &IndexJob) -> Option<SealedSegment> {
        None
    }
}

/// Reads block by block: zeros stand for those that the disk does not give, and are damage to whoever looks at them.
pub(super) fn read_around(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let length = into.len().min(usize::try_from(there).unwrap_or(usize::MAX));
    for (place, block) in into[..length].chunks_mut(BLOCK_BYTES_MAX).enumerate() {
        let at = offset + (place * BLOCK_BYTES_MAX) as u64;
        if file.read_exact_at(block, at).is_err() {
            block.fill(0);
        }
    }
    Ok(length)
}
