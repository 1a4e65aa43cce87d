//! What a shard is asked about erasures, and what it says.

use router::conversation::Subject;

/// What a shard is asked.
#[derive(Clone, Debug)]
pub struct ErasureAsk {
    /// To be put in force: its mark, and of what.
    pub new: Option<(u64, Subject)>,
    /// What is left to do of these, of the logs that the shard owns.
    pub pending: Vec<LogLeft>,
}

/// What is left to do for one erasure in one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogLeft {
    /// Which log.
    pub log: u16,
    /// Which erasure.
    pub mark: u64,
    /// The position up to which it reaches there.
    pub to: u64,
    /// Segments that may hold something of it.
    pub segments: usize,
    /// Those of them that are damaged, and stay as they are until that is mended.
    pub damaged: usize,
}
