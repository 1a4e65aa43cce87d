//! Revocations on disk: `revocations.json` in the data directory, a list as `store/kept_list.rs` keeps it.
//!
//! ```text
//! {"user":"alice","issued_before":1800000000}
//! {"jti":"4f0c…","until":1800003600}
//! {"issued_before":1790000000}
//! ```
//!
//! A file that cannot be understood stops the start, because without it whoever was revoked comes in again; no file means that
//! nothing was ever revoked.

use std::io;
use std::path::Path;

use crate::auth::{Entry, JTI_BYTES_MAX, Revocation};
use crate::store::kept_list::{KeptList, Kind, line};

/// Name of the file.
pub const REVOCATIONS_FILE: &str = "revocations.json";

/// Users and tokens revoked at the same time; one more entry is for everyone's. Each shard holds a copy of some 100 bytes
/// an entry, and all are written each time. Whoever has more to revoke revokes everything up to a time.
pub const ENTRIES_MAX: usize = 10_000;

/// In the longest list each byte of a `jti` may be escaped, and the rest of an entry is four names and two times.
static KIND: Kind = Kind {
    file: REVOCATIONS_FILE,
    list: "revocations",
    file_bytes_max: 8 << 20,
    entries_max: ENTRIES_MAX + 1,
    without: "without it revoked tokens would be taken again: restore it from a backup or mend it by hand; it may be removed only if \
              no revocation in it matters any more",
};

const _: () = assert!((ENTRIES_MAX + 1) * (2 * JTI_BYTES_MAX + 128) < KIND.file_bytes_max as usize);

/// Where revocations are kept.
#[derive(Clone, Debug)]
pub struct RevocationsFile(KeptList);

impl RevocationsFile {
    /// The file of a data directory that exists.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(KeptList::of(&KIND, directory))
    }

    /// All revocations in the file, none without a file; on the disk, also those that a process left behind which was killed.
    ///
    /// # Errors
    /// In words for an operator: the file and what to do about it.
    pub fn read(&self) -> anyhow::Result<Vec<Revocation>> {
        self.0.sync()?;
        self.0.read(|entry: Entry, _| entry.check().map_err(|reason| reason.to_string()))
    }

    /// Writes all revocations; they are durable when it returns.
    ///
    /// # Errors
    /// Those of the disk. What stood there before still does, or all of these stand there.
    pub fn write(&self, revocations: &[Revocation]) -> io::Result<()> {
        let lines: io::Result<Vec<String>> =
            revocations.iter().map(|revocation| line(&revocation.entry())).collect();
        let mut lines = lines?;
        // An order of their own would differ from run to run.
        lines.sort_unstable();
        self.0.write(&lines)
    }
}
