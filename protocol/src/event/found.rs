//! What a search finds: hits, newest first, and where the next page begins.

use crate::ids::{ConversationId, Seq};

/// A message that has the words of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// Some of its text as it is now, with the first of the words: at most 200 bytes.
    pub snippet: String,
}

/// How the hits of a search end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundEnd {
    /// There may be older ones.
    pub more: bool,
    /// Where those begin: for the next `search` of the same words. Given with `more`.
    pub before: Option<String>,
    /// Some may be missing that a later search finds.
    pub partial: bool,
}
