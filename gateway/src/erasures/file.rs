//! Erasures on disk: `erasures.json` in the data directory.
//!
//! ```text
//! {"version":1,"erasures":[
//! {"asked_at":1800000000000,"user":"alice","logs":[{"log":0,"to":812},{"log":1,"to":77}],"done_at":1800000004211},
//! {"asked_at":1800000090000,"conversation":"43d9…","below":100,"logs":[{"log":1,"to":93}]}
//! ]}
//! ```
//!
//! Written whole under another name, synced, renamed, and the directory synced: what stands there is the list before or the list
//! after. A file that cannot be understood stops the start, because without it what was erased would be shown again; no file means
//! that nothing was ever erased.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::ERASURES_MAX;
use super::entry::{Entry, Erasure};
use crate::segments::sync_directory;
use crate::store::{LOGS_MAX, write_new};

/// Name of the file.
pub const ERASURES_FILE: &str = "erasures.json";

const VERSION: u64 = 1;

/// A larger file is not read. The longest list is below: names and numbers, and the reach in each log.
const FILE_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(ERASURES_MAX * (512 + 48 * LOGS_MAX as usize) < FILE_BYTES_MAX as usize);

/// What is known of a file before its version is.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    erasures: Vec<Entry>,
}

/// Where erasures are kept.
#[derive(Clone, Debug)]
pub struct ErasuresFile {
    directory: PathBuf,
}

impl ErasuresFile {
    /// The file of a data directory that exists.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(ERASURES_FILE)
    }

    /// All erasures in the file, oldest first; none without a file.
    ///
    /// # Errors
    /// In words for an operator: the file and what to do about it.
    pub fn read(&self) -> anyhow::Result<Vec<Erasure>> {
        let path = self.path();
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            file => file,
        };
        let text = file.and_then(|file| {
            let mut text = String::new();
            file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
            Ok(text)
        });
        let erasures = text.map_err(anyhow::Error::from).and_then(|text| parse(&text));
        erasures.with_context(|| {
            format!(
                "{} cannot be used, and without it what was erased would be shown again: restore it from a backup or mend \
                 it by hand; it may be removed only if all that it names is gone from this directory",
                path.display()
            )
        })
    }

    /// Brings what stands there to the disk: a process that was killed may have left it in the page cache only.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> io::Result<()> {
        match File::open(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            file => file?.sync_all().and_then(|()| sync_directory(&self.directory)),
        }
    }

    /// Writes all erasures; they are durable when it returns.
    ///
    /// # Errors
    /// Those of the disk. What stood there before still does, or all of these stand there.
    pub fn write(&self, erasures: &[Erasure]) -> io::Result<()> {
        let mut lines: Vec<String> = Vec::with_capacity(erasures.len());
        for erasure in erasures {
            lines.push(serde_json::to_string(&erasure.entry())?);
        }
        let text = format!("{{\"version\":{VERSION},\"erasures\":[\n{}\n]}}\n", lines.join(",\n"));
        let path = self.path();
        let new = path.with_extension("json.new");
        write_new(&new, &text)?;
        fs::rename(&new, &path)?;
        sync_directory(&self.directory)
    }
}

fn parse(text: &str) -> anyhow::Result<Vec<Erasure>> {
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("it is larger than {FILE_BYTES_MAX} bytes");
    }
    let Versioned { version } = serde_json::from_str(text)?;
    if version != VERSION {
        bail!("it has version {version} and this program knows {VERSION}: start the program that made it");
    }
    let Document { erasures, .. } = serde_json::from_str(text)?;
    if erasures.len() > ERASURES_MAX {
        bail!("it holds {} erasures, more than {ERASURES_MAX}", erasures.len());
    }
    let mut read: Vec<Erasure> = Vec::with_capacity(erasures.len());
    for (place, entry) in erasures.into_iter().enumerate() {
        let said = |reason: String| anyhow!("erasure {} of it: {reason}", place + 1);
        let erasure = entry.check().map_err(said)?;
        if read.last().is_some_and(|before| before.asked_at >= erasure.asked_at) {
            return Err(said("`asked_at` is not later than that of the one before".to_owned()));
        }
        read.push(erasure);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_what_is_not_known_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = ErasuresFile::of(directory.path());
        assert_eq!(file.read().expect("nothing was erased"), []);
        let text = r#"{"version":1,"erasures":[
{"asked_at":5,"user":"alice","logs":[{"log":0,"to":812},{"log":1,"to":77}],"done_at":9},
{"asked_at":6,"conversation":"43d9a8ed-1145-8f40-bbab-cd5f630625db","below":100,"logs":[]},
{"asked_at":7,"conversation":"43d9a8ed-1145-8f40-bbab-cd5f630625db","logs":[{"log":1,"to":93}]}
]}
"#;
        let read = parse(text).expect("it is sound");
        file.write(&read).expect("it is written");
        assert_eq!(fs::read_to_string(file.path()).expect("it was written"), text);
        assert_eq!(file.read().expect("it is sound"), read);
        for (from, to) in [
            (r#""version":1"#, r#""version":2"#),
            (r#""asked_at":6"#, r#""asked_at":5"#),
            (r#""user":"alice""#, r#""user":"alice","of":1"#),
            (r#""user":"alice""#, r#""user":null"#),
            (r#""user":"alice","#, ""),
            (r#""below":100"#, r#""below":1"#),
            (r#""to":812"#, r#""to":812,"from":1"#),
            ("cd5f630625db", "cd5f630625"),
            ("]}\n", ""),
        ] {
            assert!(parse(&text.replacen(from, to, 1)).is_err(), "{from} as {to}");
        }
    }
}
