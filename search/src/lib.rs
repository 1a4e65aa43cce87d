//! An index of words in a directory of its own: which messages have them, newest first.
//!
//! It is told words and gives places. What a word is, who may see what, and what a message says now is somebody else's to know: no text is
//! in it, and what it names is looked at in the log before anybody is shown it. It is derived: when it is damaged, its owner removes the
//! directory and tells it everything again.
//!
//! Deliberately absent: the log, users' rights, threads of its own beyond those that the engine below starts while it writes.
//! **Invariant**: a commit is all or nothing and carries its owner's mark, so index and mark are never of different moments.

#![forbid(unsafe_code)]

mod asking;
mod index;
mod schema;

pub use asking::{Asked, Candidates, Reader, Scope};
pub use index::{Check, Document, Index, IndexError, Opened};

/// A message, as it stands in the order of hits: the same whichever form of it the index knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// When it was stored, milliseconds since 1970.
    pub at: u64,
    /// Where.
    pub conversation: [u8; 16],
    /// Its place there.
    pub seq: u64,
}
