//! The file that calls are written into: lines, appended and synced. Whoever reads them takes the file away by a rename and finds the next
//! one under the name.
//!
//! What was written is taken only if the file still has the name after the sync: so whoever has renamed it may read it at once to its end,
//! and what the node was just writing there comes again in the next file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::metrics::PushMetrics;
use crate::store::disk::sync_directory;

/// A file that has this many bytes takes no more: about a million calls, an hour of a busy node. Whoever is to read it has been away for so
/// long, and a disk that chat may share is not filled for it.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How often a batch is written anew because the file was taken away meanwhile: whoever takes it more often than that is not reading it.
const TRIES_MAX: usize = 3;

pub(super) struct Sink {
    path: PathBuf,
    open: Option<Open>,
    metrics: Arc<PushMetrics>,
}

/// The file as it was last known.
struct Open {
    file: File,
    inode: (u64, u64),
    bytes: u64,
}

impl Sink {
    pub(super) fn new(path: PathBuf, metrics: Arc<PushMetrics>) -> Self {
        Self { path, open: None, metrics }
    }

    /// Appends whole lines; they are durable under the name when it returns.
    ///
    /// # Errors
    /// Those of the disk, and [`ErrorKind::QuotaExceeded`] for a file that is full: nothing of it counts as taken.
    pub(super) fn take(&mut self, lines: &str) -> io::Result<()> {
        for _ in 0..TRIES_MAX {
            let mut open = self.opened()?;
            open.append(lines)?;
            self.metrics.file_bytes.set(open.bytes);
            if inode_of(&self.path)? == Some(open.inode) {
                self.open = Some(open);
                return Ok(());
            }
        }
        Err(io::Error::other("the file is taken away faster than it can be written"))
    }

    /// The file that has the name now.
    fn opened(&mut self) -> io::Result<Open> {
        let named = inode_of(&self.path)?;
        match self.open.take().filter(|open| named == Some(open.inode)) {
            // Whoever reads it may have made it shorter.
            Some(open) => Ok(Open { bytes: open.file.metadata()?.len(), ..open }),
            None => Open::at(&self.path),
        }
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        // Whoever has the tokens can call the devices.
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
        }
        sync_directory(&directory_of(path)?)?;
        let mut open = Self { file, inode: (facts.dev(), facts.ino()), bytes: facts.len() };
        open.end_line()?;
        Ok(open)
    }

    /// A line that was being written when a process was killed ends here, so that it spoils no other.
    fn end_line(&mut self) -> io::Result<()> {
        let mut last = [0];
        if self.bytes > 0 {
            self.file.read_exact_at(&mut last, self.bytes - 1)?;
        }
        if self.bytes > 0 && last != *b"\n" {
            self.file.write_all(b"\n")?;
            self.bytes += 1;
        }
        Ok(())
    }

    /// What could not be written or synced is taken back: the same lines are written anew later, and synced then, never the sync alone.
    fn append(&mut self, lines: &str) -> io::Result<()> {
        if self.bytes + lines.len() as u64 > FILE_BYTES_MAX {
            let words = "it has 256 MiB, and nobody has taken it away";
            return Err(io::Error::new(ErrorKind::QuotaExceeded, words));
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.bytes += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // If not even that can be done, a part of a line stands there, and whoever opens the file next ends it.
                let _ = self.file.set_len(self.bytes);
                Err(error)
            }
        }
    }
}

/// Where the file itself stands, which may have been made just now: the name may be a symbolic link from elsewhere.
fn directory_of(path: &Path) -> io::Result<PathBuf> {
    let mut directory = fs::canonicalize(path)?;
    directory.pop();
    Ok(directory)
}

fn inode_of(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(facts) => Ok(Some((facts.dev(), facts.ino()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_name_is_a_link_the_directory_of_the_file_is_synced() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("a path");
        fs::create_dir(root.join("here")).expect("made");
        fs::create_dir(root.join("there")).expect("made");
        let (link, file) = (root.join("here/calls"), root.join("there/calls"));
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let mut sink = Sink::new(link.clone(), Arc::default());
        sink.take("{}\n").expect("taken");
        assert_eq!(fs::read_to_string(&file).expect("there"), "{}\n");
        assert_eq!(directory_of(&link).expect("found"), root.join("there"));
        assert_eq!(directory_of(&file).expect("found"), root.join("there"));
    }
}
