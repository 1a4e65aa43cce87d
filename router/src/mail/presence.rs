//! What is said of who is there.

use protocol::ids::{ConversationId, UnixMillis, UserId};

use super::SessionId;

/// Users of whom one shard asks another at a time what is kept of their presence: a round between two shards answers so many, and the disk
/// reads no more at once for those who only come. A place is kept for each of them, in both directions.
pub const SIGHTINGS: usize = 64;

/// Users in one [`super::Request::Seen`].
pub const SEEN_PER_MAIL: usize = 256;

/// What is kept of a user's presence, where nobody has it in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sighting {
    /// Since when the user is invisible, if so.
    pub invisible_since: Option<UnixMillis>,
    /// When the user was last seen, if that was looked for and is known.
    pub last_seen: Option<UnixMillis>,
    /// It was looked for; or nobody is shown it, as the user is invisible.
    pub is_whole: bool,
}

impl Sighting {
    /// Of who is invisible.
    pub(crate) const fn hidden(since: UnixMillis) -> Self {
        Self { invisible_since: Some(since), last_seen: None, is_whole: true }
    }
}

/// How a user stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Not here.
    Offline {
        /// The last time the user was, if this node knows.
        last_seen: Option<UnixMillis>,
    },
    /// With a session, or gone for less than grace.
    Online,
    /// The node has just begun: whoever is not here may be on the way back.
    Unknown,
}

/// What a session that views a conversation has been told of its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knows {
    /// Nothing.
    Nothing,
    /// How they stood in another process, with which this one goes on.
    WhatWasBefore,
}

/// What a device was given of a log, and has stored: what is in its user's inbox after a position, up to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// Nothing is said of what stands up to here.
    pub after: u64,
    /// The device has what stands up to here.
    pub to: u64,
    /// Behind this it was given or told of everything, of large groups too; `to`, where that is not known.
    pub whole_after: u64,
}

impl Given {
    pub(crate) fn new(after: u64, to: u64, is_whole: bool) -> Self {
        Self { after, to, whole_after: if is_whole { after } else { to } }
    }

    /// With what was given since or elsewhere. Nobody was given what lies between what two devices were: of such the one that is further on counts.
    pub(crate) fn and(self, new: Self) -> Self {
        let (last, other) = if new.to >= self.to { (new, self) } else { (self, new) };
        if last.after > other.to {
            return last;
        }
        let adjoins = other.whole_after < other.to && last.whole_after <= other.to;
        let whole_after = if adjoins { last.whole_after.min(other.whole_after) } else { last.whole_after };
        Self { after: last.after.min(other.after), to: last.to, whole_after }
    }

    /// Without what stands behind a position.
    pub(crate) fn up_to(self, position: u64) -> Self {
        Self { to: self.to.min(position), whole_after: self.whole_after.min(position), ..self }
    }
}

/// What a user's home tells the owner of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Signal {
    /// A watched user came or went, or this is how one stands who is watched from now on.
    Stands {
        /// Who.
        user: UserId,
        /// How.
        standing: Standing,
        /// It stood so in another process, with which this one goes on.
        is_as_before: bool,
    },
    /// A user is writing something, or not any more.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Who. The session says so.
        user: UserId,
        /// Whether.
        on: bool,
    },
    /// A device has stored what it was given of the log.
    Acked {
        /// Whose.
        user: UserId,
        /// What.
        given: Given,
    },
    /// A session views a conversation no longer.
    Unviewed {
        /// Which.
        conversation: ConversationId,
        /// The session.
        session: SessionId,
    },
}
