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

use serde::{Deserialize, Serialize};

use crate::store::kept_list::{KeptList, Kind, line};
use crate::store::{LOGS_MAX, OpenLog};

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

/// Fits the marks to the logs as they were read back: one that has none, or that is shorter than its mark, begins at its end. Written
/// before anybody is served, so that from now on nobody is forgotten; where that cannot be, chat goes on without.
#[must_use]
pub fn settle(directory: &Path, opened: &mut [OpenLog]) -> Vec<Mark> {
    let file = MarksFile::of(directory);
    let mut marks = file.read();
    let before = marks.clone();
    for open in opened {
        let (log, end) = (open.log.number(), open.log.durable().position());
        let mark = of_log(&marks, log).filter(|mark| *mark <= end);
        open.unjudged.pass(mark);
        if mark.is_none() {
            tracing::info!(log, "no mark of push calls: users are called of what comes from now on");
            marks.retain(|mark| mark.log != log);
            marks.push(Mark { log, mark: end });
        }
        let conversations = open.unjudged.conversations();
        if conversations > 0 {
            tracing::info!(log, conversations, "conversations in which nobody may have been called yet");
        }
    }
    if marks != before
        && let Err(error) = file.write(&marks)
    {
        tracing::error!(
            %error,
            "the marks of push calls could not be written: until they can, a crash forgets who was to be called; make room in the data \
             directory"
        );
    }
    marks
}
