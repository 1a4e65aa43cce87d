//! What the system keeps of files in memory, and how it is made to keep nothing: a crowd that comes back is then fed from the disk.

use std::{fs::File, io::Write as _, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use crate::host::cached_bytes;

/// What is written there is dropped (proc_sys_vm(5)).
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// The page cache, and names and inodes.
const ALL: &[u8] = b"3\n";

/// What was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Dropped {
    pub(crate) before_bytes: u64,
    /// What programs have mapped stays, and what is being written.
    pub(crate) after_bytes: u64,
}

/// The system's cache of this machine, which this process may drop.
pub(super) struct PageCache {
    file: File,
    pub(super) dropped: Option<Dropped>,
}

impl PageCache {
    /// Asks for permission: to find out half-way would cost the run.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn open() -> anyhow::Result<Self> {
        Self::at(Path::new(DROP_CACHES))
    }

    fn at(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).open(path).with_context(|| {
            format!("--drop-cache: {} cannot be written: be root, and in no container", path.display())
        })?;
        Ok(Self { file, dropped: None })
    }

    /// Has the system forget what it has read.
    pub(super) fn drop_all(&mut self) -> anyhow::Result<()> {
        // What is not on the disk yet could not be dropped.
        rustix::fs::sync();
        let before_bytes = cached_bytes()?;
        self.file.write_all(ALL).context("the page cache could not be dropped")?;
        self.dropped = Some(Dropped { before_bytes, after_bytes: cached_bytes()? });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn permission_is_asked_for_first_and_refused_in_words() {
        let path = std::env::temp_dir().join(format!("loadgen-drop-{}", std::process::id()));
        let refused = PageCache::at(&path).map(|_| ()).expect_err("it is not there");
        let words = format!("--drop-cache: {} cannot be written: be root", path.display());
        assert!(refused.to_string().starts_with(&words), "{refused:#}");
        fs::write(&path, "").expect("written");
        let mut cache = PageCache::at(&path).expect("it is ours");
        assert!(
            fs::read(&path).expect("written").is_empty() && cache.dropped.is_none(),
            "nothing happens before"
        );
        cache.drop_all().expect("it is ours");
        assert_eq!(fs::read(&path).expect("written"), b"3\n");
        assert!(cache.dropped.is_some_and(|dropped| dropped.before_bytes > 0));
        fs::remove_file(&path).expect("it is there");
    }
}
