//! What the user side asks of an index of words, and what it is answered: values. Whoever drives it has the index, or none.

use std::sync::Arc;

use protocol::ids::{ConversationId, Seq, UnixMillis};

use crate::mail::SessionId;

/// A message, as it stands in the order of hits. Nothing of it is of an edit: what a page has told would stand below where that page ended, for an
/// index that does not know of the edit any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HitPlace {
    /// When it was stored.
    pub at: UnixMillis,
    /// Where.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
}

/// What an index is asked for a session. Each is answered once, by [`IndexAnswer`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexAsk {
    /// For whom.
    pub session: SessionId,
    /// A message has to have all of these.
    pub words: Vec<String>,
    /// Where to look, and from which sequence on: nothing of what stands elsewhere may be told, not even that there is more.
    pub scope: Arc<[(ConversationId, Seq)]>,
    /// Only what stands below this.
    pub before: Option<HitPlace>,
    /// At most so many, the newest.
    pub candidates_max: usize,
}

/// What an index answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexAnswer {
    /// Whom.
    pub session: SessionId,
    /// Messages that have the words, newest first, as far as it knows. They may have been amended, or be gone: the log knows.
    pub candidates: Vec<HitPlace>,
    /// There are older ones.
    pub more: bool,
    /// The index is being made, or could not be read: there may be more than it knows.
    pub partial: bool,
}
