//! Copies of what was found damaged, with its surroundings, for whoever wants to know what a disk did.
//!
//! A copy may hold what users wrote: it is for the owner of the data directory alone, as the logs are. Never read by a node.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use storage_log::segment_file_name;

use super::files::read_around;
use crate::store::disk::replace;
use crate::store::disk::{log_directory, sync_directory};

/// Bytes of all copies together: at the limit nothing more is copied, what is found is still counted and said.
pub const QUARANTINE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one copy, surroundings included: a large range is copied from its beginning.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// What is copied before and behind a range: the headers of batches and records around it.
const SURROUNDINGS_BYTES: u64 = 4096;

/// Where something is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedPlace {
    /// Of which log.
    pub log: u16,
    /// Base of its segment.
    pub base: u64,
    /// First byte in the segment.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// What became of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It was made.
    Copied,
    /// There is one of this place already.
    Known,
    /// No room is left for it.
    Full,
}

impl DamagedPlace {
    /// Name of its copy.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("log-{:02}-{:016x}.bin", self.log, self.base + self.offset)
    }
}

/// Copies what stands at a place into `quarantine/` in the data directory.
///
/// # Errors
/// Those of the disk.
pub fn keep(data: &Path, place: &DamagedPlace) -> io::Result<Kept> {
    let directory = directory(data)?;
    let path = directory.join(place.file_name());
    if path.exists() {
        return Ok(Kept::Known);
    }
    let start = place.offset.saturating_sub(SURROUNDINGS_BYTES);
    let bytes = (place.offset - start + place.bytes + SURROUNDINGS_BYTES).min(COPY_BYTES_MAX);
    if used_bytes(data) + bytes > QUARANTINE_BYTES_MAX {
        return Ok(Kept::Full);
    }
    let segment = File::open(log_directory(data, place.log).join(segment_file_name(place.base)))?;
    let mut copy = vec![0; bytes as usize];
    let read = read_around(&segment, &mut copy, start)?;
    replace(&path, |file| file.write_all(&copy[..read]))?;
    Ok(Kept::Copied)
}

/// Removes all copies.
///
/// # Errors
/// Those of the disk.
pub fn forget(data: &Path) -> io::Result<()> {
    let directory = data.join("quarantine");
    let copies = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        copies => copies?,
    };
    for copy in copies {
        fs::remove_file(copy?.path())?;
    }
    sync_directory(&directory)
}

/// Bytes of all copies.
#[must_use]
pub fn used_bytes(data: &Path) -> u64 {
    let files = fs::read_dir(data.join("quarantine")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

fn directory(data: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let directory = data.join("quarantine");
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Err(_) => Ok(directory),
        Ok(()) => sync_directory(data).map(|()| directory),
    }
}
