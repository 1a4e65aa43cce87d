//! Revocations on disk: `revocations.json` in the data directory.
//!
//! ```text
//! {"version":1,"revocations":[
//! {"user":"alice","issued_before":1800000000},
//! {"jti":"4f0c…","until":1800003600},
//! {"issued_before":1790000000}
//! ]}
//! ```
//!
//! Written whole under another name, synced, renamed, and the directory synced: what stands there is the list before or
//! the list after. A file that cannot be understood stops the start, because without it whoever was revoked comes in
//! again; no file means that nothing was ever revoked.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::ENTRIES_MAX;
use crate::auth::{Entry, JTI_BYTES_MAX, Revocation};
use crate::segments::sync_directory;
use crate::store::write_new;

/// Name of the file.
pub const REVOCATIONS_FILE: &str = "revocations.json";

const VERSION: u64 = 1;

/// A larger file is not read. The longest list is below: each byte of a `jti` may be escaped, and the rest of an entry is
/// four names and two times.
const FILE_BYTES_MAX: u64 = 8 << 20;

const _: () = assert!((ENTRIES_MAX + 1) * (2 * JTI_BYTES_MAX + 128) < FILE_BYTES_MAX as usize);

/// What is known of a file before its version is.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    revocations: Vec<Entry>,
}

/// Where revocations are kept.
#[derive(Clone, Debug)]
pub struct RevocationsFile {
    directory: PathBuf,
}

impl RevocationsFile {
    /// The file of a data directory that exists.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(REVOCATIONS_FILE)
    }

    /// All revocations in the file, none without a file.
    ///
    /// # Errors
    /// In words for an operator: the file and what to do about it.
    pub fn read(&self) -> anyhow::Result<Vec<Revocation>> {
        let path = self.path();
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            file => file,
        };
        let text = file.and_then(|file| {
            // A process that was killed may have left it in the page cache only.
            file.sync_all()?;
            sync_directory(&self.directory)?;
            let mut text = String::new();
            file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
            Ok(text)
        });
        let text = text.map_err(anyhow::Error::from).and_then(|text| parse(&text));
        text.with_context(|| {
            format!(
                "{} cannot be used, and without it revoked tokens would be taken again: restore it from a backup or mend \
                 it by hand; it may be removed only if no revocation in it matters any more",
                path.display()
            )
        })
    }

    /// Writes all revocations; they are durable when it returns.
    ///
    /// # Errors
    /// Those of the disk. What stood there before still does, or all of these stand there.
    pub fn write(&self, revocations: &[Revocation]) -> io::Result<()> {
        let mut lines: Vec<String> = Vec::with_capacity(revocations.len());
        for revocation in revocations {
            lines.push(serde_json::to_string(&revocation.entry())?);
        }
        // An order of their own would differ from run to run.
        lines.sort_unstable();
        let text = format!("{{\"version\":{VERSION},\"revocations\":[\n{}\n]}}\n", lines.join(",\n"));
        let path = self.path();
        let new = path.with_extension("json.new");
        write_new(&new, &text)?;
        fs::rename(&new, &path)?;
        sync_directory(&self.directory)
    }
}

fn parse(text: &str) -> anyhow::Result<Vec<Revocation>> {
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("it is larger than {FILE_BYTES_MAX} bytes");
    }
    let Versioned { version } = serde_json::from_str(text)?;
    if version != VERSION {
        bail!("it has version {version} and this program knows {VERSION}: start the program that made it");
    }
    let Document { revocations, .. } = serde_json::from_str(text)?;
    if revocations.len() > ENTRIES_MAX + 1 {
        bail!("it holds {} revocations, more than {ENTRIES_MAX}", revocations.len());
    }
    let checked = revocations.into_iter().enumerate().map(|(place, entry)| {
        entry.check().map_err(|reason| anyhow!("revocation {} of it: {reason}", place + 1))
    });
    checked.collect()
}
