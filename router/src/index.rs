//! What the user side asks of an index of words, and what it is answered: values. Whoever drives it has the index, or none.

use std::sync::Arc;

use protocol::ids::{ConversationId, Seq, UnixMillis};

use crate::mail::SessionId;

/// Where a message stands in the order of hits: unique, and the same as long as the message is not edited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HitPlace {
    /// When it was stored.
    pub at: UnixMillis,
    /// Position in its log of the record that made it what it is.
    pub position: u64,
    /// Number of that log.
    pub log: u16,
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

/// A message that an index says has the words. It may have been amended, or be gone: the log knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Where.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// Its place in the order of hits.
    pub place: HitPlace,
}

/// What an index answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexAnswer {
    /// Whom.
    pub session: SessionId,
    /// Newest first.
    pub candidates: Vec<Candidate>,
    /// There are older ones.
    pub more: bool,
    /// The index is being made, or could not be read: there may be more than it knows.
    pub partial: bool,
}
