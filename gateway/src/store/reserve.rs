//! Room that a log keeps aside, so that a disk that is full to its last block can be freed.
//!
//! Of a segment that is expired something is left: who is a member of what, and the newest number of each conversation. That is written to a
//! file of its own before the segment goes, and a full disk has no block for it. So there is a file that holds blocks and no data, and the file
//! that frees the disk is that one under another name: nobody can come between. It is made before each segment, and again with the room
//! that a segment has left.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

/// Its name in the directory of a log.
pub const FILE_NAME: &str = "reserve";

/// Bytes of a block as `stat` counts them.
const STAT_BLOCK_BYTES: u64 = 512;

/// Makes it, unless it is there. It need not survive a crash: the next segment brings it back. Its length stays 0, so that whoever has taken it
/// meanwhile for the file of a segment finds no byte behind its end.
///
/// # Errors
/// Those of the disk, `ENOSPC` among them; nothing is left behind then.
pub fn keep(directory: &Path, bytes: u64) -> io::Result<()> {
    let path = directory.join(FILE_NAME);
    if fs::metadata(&path).is_ok_and(|file| file.blocks() * STAT_BLOCK_BYTES >= bytes) {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    let kept = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes);
    if kept.is_err() {
        // Best effort: the next attempt truncates it anyway.
        let _ = fs::remove_file(&path);
    }
    Ok(kept?)
}

/// Removes it, if it is there.
///
/// # Errors
/// Those of the disk.
pub fn forget(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(FILE_NAME)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Gives its blocks to the file at `new`. Whether there were any: then what is written there must not truncate it before.
///
/// # Errors
/// Those of the disk.
pub fn take(directory: &Path, new: &Path) -> io::Result<bool> {
    match fs::rename(directory.join(FILE_NAME), new) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        taken => taken.map(|()| true),
    }
}

/// Takes its blocks back from a file that came to nothing, and is gone then. What was written there is zeros.
pub fn give_back(directory: &Path, new: &Path, bytes: u64) {
    let returned = OpenOptions::new().write(true).open(new).and_then(|file| {
        fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 0, bytes)?;
        let length = file.metadata()?.len();
        file.set_len(length.min(bytes))?;
        fs::rename(new, directory.join(FILE_NAME))
    });
    if returned.is_err() {
        // Not every file system can; its room is anybody's for a moment then.
        let _ = fs::remove_file(new);
        let _ = keep(directory, bytes);
    }
}
