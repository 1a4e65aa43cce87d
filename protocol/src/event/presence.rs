//! What a session is told of others while it views a conversation: who is online, and how far somebody has come.

use crate::ids::{Seq, UnixMillis, UserId};

/// Whether a user is online: has a session, or had one some seconds ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// Whether.
    pub online: bool,
    /// When the user was last online, where that is known and not now.
    pub last_seen: Option<UnixMillis>,
}

/// How far somebody has come in a conversation, as others are told: 0 where that is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The newest sequence that was read.
    pub read: Seq,
    /// The newest sequence that a device has acknowledged; at least `read`, where both are said.
    pub delivered: Seq,
}
