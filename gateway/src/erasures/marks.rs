//! `erased.state` of a log: which of its segments were gone through for which erasures, so that a start need not begin anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use storage_log::{LogConfig, as_appended, decode_marks, encode_marks};

use crate::store::disk::replace;

/// Name of the file.
pub const MARKS_FILE: &str = "erased.state";

/// What the file says of the log in `directory`; nothing where it is missing, or not sound: then all is gone through again.
#[must_use]
pub fn read(directory: &Path, config: &LogConfig) -> BTreeMap<u64, u64> {
    let bytes = fs::read(directory.join(MARKS_FILE)).unwrap_or_default();
    decode_marks(&bytes, config).unwrap_or_default()
}

/// Notes that the segment at `base` was gone through. What was removed from the directory before is gone for good when it returns.
///
/// # Errors
/// Those of the disk.
pub fn note(directory: &Path, config: &LogConfig, base: u64, mark: u64) -> io::Result<()> {
    let mut marks = read(directory, config);
    marks.insert(as_appended(base), mark);
    replace(&directory.join(MARKS_FILE), |file| file.write_all(&encode_marks(&marks, config))).map(drop)
}
