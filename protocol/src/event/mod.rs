//! What a server sends: replies, events, errors, and the reasons for which a connection ends.
//!
//! One enum for both directions, so that what a server encodes and what a client decodes is one type.
//! Stored messages are not encoded from here on a server: they leave as the bytes they are stored in
//! (`record`), made once for everybody.
//!
//! [`ServerFrame`] names every frame; the fields of the larger ones stand beside it, by what they are about.

mod close;
mod conversations;
mod error;
mod found;
mod presence;
mod records;
mod welcome;

use crate::{
    command::Retention,
    ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId},
};

pub use close::CloseCode;
pub use conversations::{Head, ListEnd, ListedConversation, ListedKind, MemberEntry};
pub use error::{ErrorCode, ErrorReply, FrameFault, Refusal};
pub use found::{FoundEnd, Hit};
pub use presence::{Presence, Reached};
pub use records::{AmendedEvent, AmendedForm, Gap, MemberEvent, MessageEvent, PageItem, Reaction};
pub use welcome::{Welcome, WireLimits};

/// One frame from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFrame {
    /// An edit, a deletion or a reaction took a sequence.
    Amended(AmendedEvent),
    /// Reply to `conversations`.
    Conversations {
        /// The command answered.
        id: RequestId,
        /// Newest activity first.
        conversations: Vec<ListedConversation>,
        /// What follows.
        end: ListEnd,
    },
    /// The stream of missed messages has ended.
    CaughtUp {
        /// Where the client stands now.
        cursor: String,
        /// Some conversations are unavailable now.
        partial: bool,
    },
    /// Store this and give it back in `ack` and `connect`.
    Cursor {
        /// Opaque, 1..=512 bytes.
        cursor: String,
    },
    /// The node is going away.
    Drain {
        /// Reconnect after this many milliseconds.
        reconnect_in_ms: u64,
        /// For people.
        reason: String,
    },
    /// A refusal.
    Error(ErrorReply),
    /// Reply to `search`.
    Found {
        /// The command answered.
        id: RequestId,
        /// Newest first.
        hits: Vec<Hit>,
        /// What follows.
        end: FoundEnd,
    },
    /// Sequences that cannot be served.
    Gap(Gap),
    /// Conversations that moved without their messages being sent here.
    Heads {
        /// Which, and where they stand.
        conversations: Vec<Head>,
        /// Another `heads` follows.
        more: bool,
    },
    /// The user is invisible, or is not any more: to the user's own sessions.
    Invisible {
        /// Whether.
        on: bool,
    },
    /// A change of members, title or retention took a sequence.
    Member(MemberEvent),
    /// Reply to `members` with `list:true`.
    MembersPage {
        /// The command answered.
        id: RequestId,
        /// All members, at most 500.
        members: Vec<MemberEntry>,
        /// How much of the conversation is kept.
        retention: Retention,
    },
    /// A message took a sequence.
    Message(MessageEvent),
    /// Success of a command without a reply of its own.
    Ok(OkReply),
    /// Reply to `history`.
    Page {
        /// The command answered.
        id: RequestId,
        /// One item per sequence, ascending.
        messages: Vec<PageItem>,
        /// The conversation goes on beyond this page, in the direction asked for.
        more: bool,
    },
    /// Reply to `ping`.
    Pong {
        /// The command answered.
        id: RequestId,
        /// The server's clock.
        now: UnixMillis,
        /// Where the session stands.
        cursor: Option<String>,
    },
    /// A member of a conversation that is viewed came or went.
    Presence(Presence),
    /// A member of a conversation that is viewed is writing something, or not any more.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: UserId,
        /// Whether. On ends after 6 s, unless it is said again.
        on: bool,
    },
    /// Somebody has read a conversation up to a sequence, or has it on a device: one that is viewed, or one's own reading on another device.
    Receipt {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: UserId,
        /// How far.
        reached: Reached,
    },
    /// Reply to `view`.
    Viewed {
        /// The command answered.
        id: RequestId,
        /// All members, at most 500.
        presence: Vec<Presence>,
        /// How far those have come that have read or been given anything.
        receipts: Vec<(UserId, Reached)>,
    },
    /// Reply to `connect`.
    Welcome(Box<Welcome>),
}

/// The fields of `ok`. Which are given depends on the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OkReply {
    /// The command answered.
    pub id: RequestId,
    /// Where it took effect.
    pub conversation: Option<ConversationId>,
    /// The sequence it took.
    pub seq: Option<Seq>,
    /// The message id it was stored under.
    pub message_id: Option<MessageId>,
    /// When.
    pub at: Option<UnixMillis>,
}
