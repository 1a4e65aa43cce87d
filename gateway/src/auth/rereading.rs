//! Keys that change while a node runs: the file of a set is looked at now and then, and read again when it is another one.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{KeyError, Keys, Verifier};
use crate::config::Config;

/// How often it is looked whether the file is another one.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What tells one state of a file from the next: which file it is, its length, and when it changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        let changed = (file.ctime(), file.ctime_nsec());
        Some(Self { inode: file.ino(), bytes: file.len(), changed })
    }
}

/// The file of a set of keys, as it was when it was last read.
#[derive(Debug)]
pub struct Rereading {
    config: Config,
    path: PathBuf,
    read: Option<Stamp>,
}

impl Rereading {
    /// Of a set that is read right after this.
    pub(super) fn of(path: &Path, config: &Config) -> Self {
        Self { config: config.clone(), path: path.to_owned(), read: Stamp::of(path) }
    }

    /// The keys as the file has them now; `None` where it is still the one that was read, unless `anyway`.
    ///
    /// # Errors
    /// [`KeyError`], once for each state of the file: the keys of before stay in force.
    pub fn look(&mut self, anyway: bool) -> Option<Result<Verifier, KeyError>> {
        let stamp = Stamp::of(&self.path);
        if stamp == self.read && !anyway {
            return None;
        }
        self.read = stamp;
        Some(Keys::load(&self.config).map(|keys| keys.verifier))
    }

    /// A shard did not take them: they are read once more.
    pub fn again(&mut self) {
        self.read = None;
    }
}
