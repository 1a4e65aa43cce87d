//! Up to where everybody was called, of each log: `pushes.json` in the data directory, a list as `store/kept_list.rs` keeps it.
//!
//! ```text
//! {"log":0,"mark":48213}
//! ```
//!
//! It is derived from what was called, and a node can do without: then it begins with what comes, says so, and calls nobody of
//! what was said before. A backup does not hold it, so a restored directory calls nobody of a time long gone.

use std::io;
use std::path::Path;

use router::places::LOGS_MAX;
use serde::{Deserialize, Serialize};

use crate::store::kept_list::{KeptList, Kind, line};

static KIND: Kind = Kind {
    file: "pushes.json",
    list: "marks",
    file_bytes_max: 1 << 16,
    entries_max: LOGS_MAX as usize,
    without: "without it nobody is called of what was said before",
};

/// Of all messages of a log up to a position those have been called who had to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Number of the log.
    pub log: u16,
    /// The position.
    pub mark: u64,
}

/// Where marks are kept.
#[derive(Clone, Debug)]
pub struct MarksFile(KeptList);

impl MarksFile {
    /// The file of a data directory that exists.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(KeptList::of(&KIND, directory))
    }

    /// All marks; none where there is no file, or one that cannot be used, which is said.
    #[must_use]
    pub fn read(&self) -> Vec<Mark> {
        self.0.read(|mark: Mark, _| Ok(mark)).unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            Vec::new()
        })
    }

    /// Writes all marks; they are durable when it returns.
    ///
    /// # Errors
    /// Those of the disk. What stood there before still does, or all of these stand there.
    pub fn write(&self, marks: &[Mark]) -> io::Result<()> {
        let lines: io::Result<Vec<String>> = marks.iter().map(line).collect();
        self.0.write(&lines?)
    }
}

/// The mark of one log among these.
#[must_use]
pub fn of_log(marks: &[Mark], log: u16) -> Option<u64> {
    marks.iter().find(|mark| mark.log == log).map(|mark| mark.mark)
}
