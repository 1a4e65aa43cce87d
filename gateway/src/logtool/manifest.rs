//! The manifest of a backup: `backup.json`, which names every file of it, and is written last.
//!
//! A backup is what its manifest says; files that it does not name are none of it. Every name in it is checked before it is used:
//! a manifest never leads out of its directory, whatever it says.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use storage_log::format::SEGMENT_BYTES;

use super::data::segment_of;
use crate::erasures::ERASURES_FILE;
use crate::revocations::REVOCATIONS_FILE;
use crate::store::disk::replace;

/// Name of the file.
pub(super) const MANIFEST_FILE: &str = crate::store::BACKUP_FILE;

/// Name of the store's file, here and in a data directory.
pub(super) const STORE_FILE: &str = "store.toml";

const VERSION: u16 = 1;

/// Bytes of all files of a backup: more than any file system holds, so that no sum of them overflows.
const BYTES_MAX: u64 = 1 << 60;

/// What a backup is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u16,
    /// The installation, 32 hex digits.
    pub(super) store: String,
    /// Length of a segment.
    pub(super) segment_bytes: u64,
    /// When it was begun, milliseconds since 1970.
    pub(super) begun_at: u64,
    pub(super) files: Vec<Entry>,
}

/// One file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is in a data directory.
    pub path: String,
    /// Its name in the backup.
    pub file: String,
    /// Of a segment, up to where it was read; zeros follow.
    pub bytes: u64,
    /// BLAKE3 of these bytes, 64 hex digits.
    pub(super) blake3: String,
}

impl Manifest {
    pub(super) fn new(store: &[u8; 16], segment_bytes: u64, begun_at: u64) -> Self {
        let store = store.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { version: VERSION, store, segment_bytes, begun_at, files: Vec::new() }
    }

    /// The manifest of the backup in `directory`; `None` where there is none.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(MANIFEST_FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Self::parse(&text)
            .map(Some)
            .with_context(|| format!("{} is no backup that can be used", path.display()))
    }

    /// What a manifest says. Every name in it is one that a backup gives, and no two stand for the same file.
    ///
    /// # Errors
    /// In words for an operator.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let manifest: Self = serde_json::from_str(text).context("it cannot be understood")?;
        ensure!(
            manifest.version == VERSION,
            "it has version {}, this program knows {VERSION}",
            manifest.version
        );
        ensure!(
            manifest.segment_bytes <= SEGMENT_BYTES,
            "its segments have {} bytes, and no store has any beyond {SEGMENT_BYTES}",
            manifest.segment_bytes
        );
        let (mut paths, mut bytes) = (BTreeSet::new(), 0_u64);
        for entry in &manifest.files {
            let Entry { path, file, .. } = entry;
            ensure!(
                entry.is_sound(manifest.segment_bytes),
                "it names {file:?} as {path:?}, which no backup has"
            );
            ensure!(paths.insert(path), "it names two files as {path:?}");
            bytes = bytes.saturating_add(entry.bytes);
        }
        if bytes > BYTES_MAX {
            bail!("its files have {bytes} bytes together, which no disk holds");
        }
        Ok(manifest)
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &[Entry] {
        &self.files
    }

    /// As [`Manifest::parse`] understands it.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Puts it into `directory`: from then on the backup is this.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let text = self.to_text().map_err(io::Error::other)?;
        replace(&directory.join(MANIFEST_FILE), |file| file.write_all(text.as_bytes())).map(drop)
    }

    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.path == path)
    }
}

impl Entry {
    /// Whether both names are some that a backup gives.
    fn is_sound(&self, segment_bytes: u64) -> bool {
        let is_of_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some((log, segment)) = self.segment() {
            let number = log.strip_prefix("log-").filter(|number| is_of_digits(number));
            let part = self.file.strip_prefix(&self.path).is_some_and(|rest| {
                rest.is_empty()
                    || rest
                        .strip_prefix('.')
                        .and_then(|part| part.strip_suffix(".part"))
                        .is_some_and(is_of_digits)
            });
            return number.is_some()
                && segment_of(segment).is_some_and(|(_, is_cold)| is_cold || self.bytes <= segment_bytes)
                && part;
        }
        let is_list = |begin: &str| {
            let digits = self.file.strip_prefix(begin).and_then(|rest| rest.strip_suffix(".json"));
            digits.is_some_and(is_of_digits)
        };
        match self.path.as_str() {
            STORE_FILE => self.file == STORE_FILE,
            REVOCATIONS_FILE => is_list("revocations-"),
            ERASURES_FILE => is_list("erasures-"),
            _ => false,
        }
    }

    /// The directory of its log and the name of its file, if it is a segment.
    pub(super) fn segment(&self) -> Option<(&str, &str)> {
        self.path.split_once('/')
    }

    /// Whether it is a segment that takes batches, or took them, and has its whole length.
    pub(super) fn is_appended(&self) -> bool {
        let segment = self.segment().and_then(|(_, name)| segment_of(name));
        segment.is_some_and(|(_, is_cold)| !is_cold)
    }

    /// Whether the file in the backup at `directory` holds what it should; `false` also when it is not there.
    pub(super) fn is_whole(&self, directory: &Path) -> anyhow::Result<bool> {
        let path = directory.join(&self.file);
        let mut hasher = blake3::Hasher::new();
        let hashed = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hasher));
        match hashed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            hashed => {
                let bytes = hashed.with_context(|| format!("cannot read {}", path.display()))?;
                Ok(bytes == self.bytes && hasher.finalize().to_hex().as_str() == self.blake3)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, file: &str) -> Entry {
        let (path, file) = (path.to_owned(), file.to_owned());
        Entry { path, file, bytes: 4096, blake3: "0".repeat(64) }
    }

    #[test]
    fn no_flipped_bit_of_a_manifest_names_another_file_or_leads_out_of_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut manifest = Manifest::new(&[7; 16], 16 << 20, 1_800_000_000_000);
        manifest.files = vec![
            entry(STORE_FILE, STORE_FILE),
            entry(REVOCATIONS_FILE, "revocations-5.json"),
            entry("log-0/seg-0000000000000000.log", "log-0/seg-0000000000000000.log.1000.part"),
        ];
        manifest.write(directory.path()).expect("written");
        let path = directory.path().join(MANIFEST_FILE);
        let sound = fs::read(&path).expect("written");
        let mut believed = 0;
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut bytes = sound.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).expect("written");
                let Ok(Some(read)) = Manifest::read(directory.path()) else { continue };
                believed += 1;
                for entry in &read.files {
                    assert!(entry.is_sound(read.segment_bytes), "byte {at} bit {bit}");
                    // Where a name still is one of a backup, it is that of no file with this hash, or of none at all.
                    let is_known = manifest.files.iter().any(|known| known.path == entry.path);
                    assert!(
                        is_known || !entry.is_whole(directory.path()).expect("it looks"),
                        "byte {at} bit {bit}"
                    );
                }
            }
        }
        assert!(believed > 0, "a hash may say anything, and is held against the file");
    }
}
