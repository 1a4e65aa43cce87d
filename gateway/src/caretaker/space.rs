//! How full the file system of the data directory is, and what a node does about it.
//!
//! | used | what happens |
//! |---|---|
//! | 85 % | a warning, and a line in `/readyz` |
//! | 92 % | an error line; nothing more is copied into the quarantine, and the index of words stands still |
//! | 97 % | an error line; what is left goes to segments: when none can be made, sends are answered `storage_full`, and reading goes on |
//!
//! Where the operator has set `keep_mib`, the log then gives up its oldest segment (`storage-log/src/cold/schedule.rs`); else nothing is.
//!
//! `/readyz` stays 200 at each: clients that come can read, and are told when they cannot send.

use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// Bytes of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Those that a node may use, and those in use.
    pub total: u64,
    /// Those that a node may still use: what is kept for root is not among them.
    pub free: u64,
}

/// How far a file system has filled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Watermark {
    /// Below all marks.
    Fine,
    /// At 85 %: there is time.
    High,
    /// At 92 %: what can be left out is left out.
    Higher,
    /// At 97 %: the next segment may be the last.
    Last,
}

impl Space {
    /// Of the file system that holds `directory`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let found = statvfs(directory)?;
        let used = found.f_blocks.saturating_sub(found.f_bfree);
        let [used, free] = [used, found.f_bavail].map(|blocks| blocks.saturating_mul(found.f_frsize));
        Ok(Self { total: used + free, free })
    }

    /// Percent in use, rounded up as `df` does.
    #[must_use]
    pub fn used_percent(&self) -> u64 {
        let used = u128::from(self.total.saturating_sub(self.free));
        (used * 100).div_ceil(u128::from(self.total.max(1))) as u64
    }

    /// How far it has filled.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        match self.used_percent() {
            97.. => Watermark::Last,
            92.. => Watermark::Higher,
            85.. => Watermark::High,
            _ => Watermark::Fine,
        }
    }
}

impl Watermark {
    /// What it means, in words for an operator; `None` when there is nothing to say.
    #[must_use]
    pub const fn words(self) -> Option<&'static str> {
        match self {
            Self::Fine => None,
            Self::High => Some("free some space, or give it more, while there is time"),
            Self::Higher => Some(
                "free some space: damaged places are not copied any more, and messages are stored while the disk has room for \
                 the next segment of each log",
            ),
            Self::Last => Some(
                "free some space now: when no segment can be made any more, sends are answered storage_full, and \
                 reading goes on",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_where_they_are_said_to_be() {
        let at = |used: u64| Space { total: 1_000, free: 1_000 - used }.watermark();
        let marks = [(840, Watermark::Fine), (841, Watermark::High), (910, Watermark::High)];
        for (used, mark) in marks.into_iter().chain([
            (911, Watermark::Higher),
            (960, Watermark::Higher),
            (961, Watermark::Last),
            (1_000, Watermark::Last),
        ]) {
            assert_eq!(at(used), mark, "{used}");
        }
        assert_eq!(Space::default().watermark(), Watermark::Fine, "of nothing, nothing is used");
        assert!(Space::of(Path::new("/")).is_ok_and(|space| space.total > 0 && space.free <= space.total));
    }
}
