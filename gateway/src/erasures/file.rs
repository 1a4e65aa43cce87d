//! Erasures on disk: `erasures.json` in the data directory, a list as `store/kept_list.rs` keeps it.
//!
//! ```text
//! {"asked_at":1800000000000,"user":"alice","logs":[{"log":0,"to":812},{"log":1,"to":77}],"done_at":1800000004211}
//! {"asked_at":1800000090000,"conversation":"43d9…","below":100,"logs":[{"log":1,"to":93}]}
//! ```
//!
//! A file that cannot be understood stops the start, because without it what was erased would be shown again; no file means that
//! nothing was ever erased.

use std::io;
use std::path::Path;

use router::places::LOGS_MAX;

use super::entry::{Entry, Erasure};
use crate::store::kept_list::{KeptList, Kind, line};

/// Name of the file.
pub const ERASURES_FILE: &str = "erasures.json";

/// Erasures that are kept. Each shard holds a copy of some 100 bytes of each, and all are written each time. At the limit those that
/// are done are forgotten, the oldest first: what they erased is gone.
pub const ERASURES_MAX: usize = 10_000;

/// The longest list is names and numbers, and the reach in each log.
static KIND: Kind = Kind {
    file: ERASURES_FILE,
    list: "erasures",
    file_bytes_max: 64 << 20,
    entries_max: ERASURES_MAX,
    without: "without it what was erased would be shown again: restore it from a backup or mend it by hand; it may be removed only \
              if all that it names is gone from this directory",
};

const _: () = assert!(ERASURES_MAX * (512 + 48 * LOGS_MAX as usize) < KIND.file_bytes_max as usize);

/// Where erasures are kept.
#[derive(Clone, Debug)]
pub struct ErasuresFile(KeptList);

impl ErasuresFile {
    /// The file of a data directory that exists.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(KeptList::of(&KIND, directory))
    }

    /// All erasures in the file, oldest first; none without a file.
    ///
    /// # Errors
    /// In words for an operator: the file and what to do about it.
    pub fn read(&self) -> anyhow::Result<Vec<Erasure>> {
        self.0.read(|entry: Entry, before: &[Erasure]| {
            let erasure = entry.check()?;
            if before.last().is_some_and(|before| before.asked_at >= erasure.asked_at) {
                return Err("`asked_at` is not later than that of the one before".to_owned());
            }
            Ok(erasure)
        })
    }

    /// Brings what stands there to the disk: a process that was killed may have left it in the page cache only.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    /// Writes all erasures; they are durable when it returns.
    ///
    /// # Errors
    /// Those of the disk. What stood there before still does, or all of these stand there.
    pub fn write(&self, erasures: &[Erasure]) -> io::Result<()> {
        let lines: io::Result<Vec<String>> = erasures.iter().map(|erasure| line(&erasure.entry())).collect();
        self.0.write(&lines?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_reads_back_and_what_is_not_known_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = ErasuresFile::of(directory.path());
        assert_eq!(file.read().expect("nothing was erased"), []);
        let path = directory.path().join(ERASURES_FILE);
        let text = r#"{"version":1,"erasures":[
{"asked_at":5,"user":"alice","logs":[{"log":0,"to":812},{"log":1,"to":77}],"done_at":9},
{"asked_at":6,"conversation":"43d9a8ed-1145-8f40-bbab-cd5f630625db","below":100,"logs":[]},
{"asked_at":7,"conversation":"43d9a8ed-1145-8f40-bbab-cd5f630625db","logs":[{"log":1,"to":93}]}
]}
"#;
        fs::write(&path, text).expect("written");
        let read = file.read().expect("it is sound");
        file.write(&read).expect("it is written");
        let written = fs::read_to_string(&path).expect("it was written");
        let list = written.rsplit_once("],\"sum\":").map(|(list, _)| list);
        assert_eq!(list, text.rsplit_once("]}\n").map(|(list, _)| list));
        assert_eq!(file.read().expect("it is sound"), read);
        for (from, to) in [
            (r#""asked_at":6"#, r#""asked_at":5"#),
            (r#""user":"alice""#, r#""user":"alice","of":1"#),
            (r#""user":"alice""#, r#""user":null"#),
            (r#""user":"alice","#, ""),
            (r#""below":100"#, r#""below":1"#),
            (r#""to":812"#, r#""to":812,"from":1"#),
            ("cd5f630625db", "cd5f630625"),
        ] {
            fs::write(&path, text.replacen(from, to, 1)).expect("written");
            assert!(file.read().is_err(), "{from} as {to}");
        }
    }
}
