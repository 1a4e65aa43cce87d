//! What is asked for to be read: a part of a conversation, or the messages with some words.

use crate::ids::{ConversationId, Seq};

/// Which part of a conversation a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryRange {
    /// Items above this sequence (0: from the first), ascending.
    After(Seq),
    /// The newest items below this sequence.
    Before(Seq),
    /// The newest items.
    Latest,
}

/// The fields of `search`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Words, all of which a hit has: 1..=256 bytes without control characters.
    pub query: String,
    /// Only there; else in all conversations of the user.
    pub conversation: Option<ConversationId>,
    /// Where the page before ended, as it said; the first one without.
    pub before: Option<String>,
    /// Hits, 1..=50.
    pub limit: u32,
}
