//! The reply to `connect`: whose session it is, where it starts from, and what this server accepts.
//!
//! A client goes by the limits that it is told and not by those it was built with; it ignores those that it does not know.

use crate::{
    ids::{RequestId, UnixMillis, UserId},
    limits,
};

/// The fields of `welcome`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The command answered.
    pub id: RequestId,
    /// Whose session this is.
    pub user: UserId,
    /// Names the session in logs and support requests.
    pub session: String,
    /// Names installation and generation; when it changed, drop what was cached.
    pub store: String,
    /// Where to start from; absent when the client gave positions.
    pub cursor: Option<String>,
    /// The server's clock, from which message ids take their time.
    pub now: UnixMillis,
    /// How often a quiet client pings, in milliseconds.
    pub heartbeat_ms: u64,
    /// What this server accepts.
    pub limits: WireLimits,
    /// What this server can do beyond the minimum.
    pub features: Vec<String>,
    /// The cursor could not be honoured: ask for the state afresh.
    pub reset: bool,
}

/// The limits a client needs to know. At most those of [`crate::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// One frame, in bytes.
    pub frame_bytes: u32,
    /// `text` of one message, in bytes.
    pub text_bytes: u32,
    /// One page, in bytes.
    pub page_bytes: u32,
    /// `limit` of `history`.
    pub history_items: u32,
    /// Members of a group.
    pub members: u32,
    /// A title, in bytes.
    pub title_bytes: u32,
    /// Commands waiting for a reply.
    pub commands_in_flight: u32,
    /// Positions in `connect`.
    pub positions: u32,
    /// Mentions of one message.
    pub mentions: u32,
    /// `limit` of `conversations`.
    pub conversations: u32,
}

impl WireLimits {
    /// Names and values in the order of the wire.
    pub const fn named(&self) -> [(&'static str, u32); 10] {
        [
            ("frame_bytes", self.frame_bytes),
            ("text_bytes", self.text_bytes),
            ("page_bytes", self.page_bytes),
            ("history_items", self.history_items),
            ("members", self.members),
            ("title_bytes", self.title_bytes),
            ("commands_in_flight", self.commands_in_flight),
            ("positions", self.positions),
            ("mentions", self.mentions),
            ("conversations", self.conversations),
        ]
    }

    /// The field of a name; `None` for limits this client does not know.
    pub(crate) fn slot(&mut self, name: &str) -> Option<&mut u32> {
        Some(match name {
            "frame_bytes" => &mut self.frame_bytes,
            "text_bytes" => &mut self.text_bytes,
            "page_bytes" => &mut self.page_bytes,
            "history_items" => &mut self.history_items,
            "members" => &mut self.members,
            "title_bytes" => &mut self.title_bytes,
            "commands_in_flight" => &mut self.commands_in_flight,
            "positions" => &mut self.positions,
            "mentions" => &mut self.mentions,
            "conversations" => &mut self.conversations,
            _ => return None,
        })
    }
}

impl Default for WireLimits {
    /// Those of this version.
    fn default() -> Self {
        Self {
            frame_bytes: limits::FRAME_BYTES_MAX as u32,
            text_bytes: limits::TEXT_BYTES_MAX as u32,
            page_bytes: limits::PAGE_BYTES_MAX as u32,
            history_items: limits::HISTORY_ITEMS_MAX,
            members: limits::MEMBERS_MAX as u32,
            title_bytes: limits::TITLE_BYTES_MAX as u32,
            commands_in_flight: limits::COMMANDS_IN_FLIGHT_MAX as u32,
            positions: limits::POSITIONS_MAX as u32,
            mentions: limits::MENTIONS_MAX as u32,
            conversations: limits::CONVERSATIONS_MAX,
        }
    }
}
