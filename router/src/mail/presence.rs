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

/// What a user's home tells the owner of a log, kept nowhere.
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
    /// A device has stored what stands in its user's inbox after a position, up to another.
    Acked {
        /// Whose.
        user: UserId,
        /// What it had before.
        after: u64,
        /// What it has.
        to: u64,
        /// Behind this it was given or told of everything, of large groups too; `to`, where that is not known.
        whole_after: u64,
        /// It comes with that, and may have said so when it was here last: no record is read for it.
        has_come: bool,
    },
    /// A session views a conversation no longer.
    Unviewed {
        /// Which.
        conversation: ConversationId,
        /// The session.
        session: SessionId,
    },
}
