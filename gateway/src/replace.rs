//! Files that are put in place whole: what stands under a name is what was there before, or what was written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::segments::sync_directory;

/// Puts what `write` writes in place of the file at `path`, for its owner alone: under the same name with `.new`, synced, renamed, and the
/// directory synced. What `write` gives, and the file. What could not be written is removed at once: a full disk has the last of its room there.
///
/// # Errors
/// The first of `write` or of the disk: then what stood there before still does, or the new one, if only the last sync failed.
pub fn replace<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<(T, File)> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let written = write_whole(new, write).and_then(|written| fs::rename(new, path).map(|()| written));
    if written.is_err() {
        // Best effort: the next attempt truncates it anyway.
        let _ = fs::remove_file(new);
    }
    let written = written?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    sync_directory(directory.unwrap_or(Path::new(".")))?;
    Ok(written)
}

fn write_whole<T>(new: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<(T, File)> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).read(true).write(true).mode(0o600).open(new)?;
    let written = write(&mut file)?;
    file.sync_all()?;
    Ok((written, file))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_could_not_be_written_leaves_what_was_there_and_takes_no_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        replace(&path, |file| file.write_all(b"before")).expect("room");
        let failed = replace(&path, |file| {
            file.write_all(b"half of ")?;
            Err::<(), _>(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!(fs::read(&path).expect("it is there"), b"before");
        let there = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(there, 1, "only the file");
    }
}
