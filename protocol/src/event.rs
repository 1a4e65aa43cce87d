//! What a server sends: replies, events, errors, and the reasons for which a connection ends.
//!
//! One enum for both directions, so that what a server encodes and what a client decodes is one type.
//! Stored messages are not encoded from here on a server: they leave as the bytes they are stored in
//! (`record`), made once for everybody.

use std::fmt;

use crate::{
    command::{MessageKind, Retention, Role},
    ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId},
    limits,
};

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

/// How far somebody has come in a conversation, as others are told: 0 where that is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The newest sequence that was read.
    pub read: Seq,
    /// The newest sequence that a device has acknowledged; at least `read`, where both are said.
    pub delivered: Seq,
}

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

/// The fields of `error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// The command refused; absent when its id could not be read.
    pub id: Option<RequestId>,
    /// What kind of refusal.
    pub code: ErrorCode,
    /// For people; names fields, never repeats content. At most 256 bytes.
    pub message: String,
    /// Try again after this many milliseconds, with the same message id.
    pub retry_after_ms: Option<u64>,
}

/// One item of a history page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageItem {
    /// An edit, a deletion or a reaction.
    Amended(AmendedEvent),
    /// Sequences that cannot be served.
    Gap(Gap),
    /// A change of members, title or retention.
    Member(MemberEvent),
    /// A message.
    Message(MessageEvent),
}

/// The fields of `message`: as it was sent, or as it is now where it was amended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageEvent {
    /// Where.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// Its sender's name for it.
    pub message_id: MessageId,
    /// Who.
    pub sender: UserId,
    /// What.
    pub kind: MessageKind,
    /// The text or caption; empty when `deleted`.
    pub text: String,
    /// When it was stored.
    pub at: UnixMillis,
    /// Reference to stored media.
    pub media: Option<String>,
    /// The message it answers.
    pub reply_to: Option<Seq>,
    /// Users it mentions.
    pub mentions: Vec<UserId>,
    /// When `text` was last changed.
    pub edited_at: Option<UnixMillis>,
    /// It was taken back: of its content only `kind` is left.
    pub deleted: bool,
    /// By emoji, in the order of their first use.
    pub reactions: Vec<Reaction>,
}

/// All users of one emoji on one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// 1..=64 bytes without control characters.
    pub emoji: String,
    /// Who, in the order in which they did.
    pub users: Vec<UserId>,
}

/// The fields of `amended`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmendedEvent {
    /// Where.
    pub conversation: ConversationId,
    /// Its own place there.
    pub seq: Seq,
    /// The name of the command that made it.
    pub message_id: MessageId,
    /// When it was stored.
    pub at: UnixMillis,
    /// Who did it.
    pub by: UserId,
    /// The message that was amended.
    pub target: Seq,
    /// What that message is now.
    pub form: AmendedForm,
}

/// What an `amended` says of its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AmendedForm {
    /// It was taken back (`deleted`).
    Deleted,
    /// Nothing: whoever is told may not see it.
    Hidden,
    /// It is there.
    Shown {
        /// The text or caption (`text`).
        text: String,
        /// When that was last changed.
        edited_at: Option<UnixMillis>,
        /// All of them, by emoji, in the order of their first use.
        reactions: Vec<Reaction>,
    },
}

/// The fields of `member`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEvent {
    /// Where.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
    /// The name of the command that made it.
    pub message_id: MessageId,
    /// When it was stored.
    pub at: UnixMillis,
    /// Who did it.
    pub by: UserId,
    /// Who joined.
    pub added: Vec<UserId>,
    /// Who left or was taken out.
    pub removed: Vec<UserId>,
    /// New roles.
    pub roles: Vec<(UserId, Role)>,
    /// The new title.
    pub title: Option<String>,
    /// How much of the conversation is kept from here on, where that was set.
    pub retention: Option<Retention>,
}

/// One member in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEntry {
    /// Who.
    pub user: UserId,
    /// In which role.
    pub role: Role,
    /// The first sequence this member may read.
    pub visible_from: Seq,
}

/// One conversation in `heads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub conversation: ConversationId,
    /// The first sequence that was not sent here, where known.
    pub from: Option<Seq>,
    /// The newest sequence; the next live one is the one after it.
    pub head: Seq,
    /// The user's own read position.
    pub read: Seq,
    /// Messages above it.
    pub unread: u64,
}

/// One conversation in the list of a user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedConversation {
    /// Which.
    pub conversation: ConversationId,
    /// What it is, and how it is called.
    pub kind: ListedKind,
    /// Members, at most 500.
    pub members_count: u32,
    /// The newest sequence.
    pub head: Seq,
    /// The user's own read position.
    pub read: Seq,
    /// Messages beyond it, up to `head`.
    pub unread: u64,
    /// Until when the user has muted it, while that has not passed.
    pub muted_until: Option<UnixMillis>,
    /// The user blocks the other one of this direct conversation.
    pub blocked: bool,
    /// How much of it is kept.
    pub retention: Retention,
    /// What stands at `head`, as `history` shows it; absent where that cannot be shown.
    pub last: Option<PageItem>,
}

/// What a listed conversation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedKind {
    /// Of two users.
    Direct {
        /// The other one.
        peer: UserId,
    },
    /// Of many.
    Group {
        /// At most 256 bytes.
        title: String,
    },
}

impl ListedKind {
    pub(crate) const DIRECT: &str = "direct";
    pub(crate) const GROUP: &str = "group";

    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Direct { .. } => Self::DIRECT,
            Self::Group { .. } => Self::GROUP,
        }
    }
}

/// How a list of conversations ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListEnd {
    /// There are older ones.
    pub more: bool,
    /// Where those begin: for the next `conversations`. Given with `more`.
    pub after: Option<String>,
    /// Some could not be read now.
    pub partial: bool,
}

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

/// The fields of `gap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub conversation: ConversationId,
    /// The first sequence that cannot be served.
    pub from: Seq,
    /// The last one, inclusive.
    pub to: Seq,
    /// Why, for people and for logs.
    pub reason: String,
}

/// Why a command was refused. The thousands tell whose matter it is: 1 the client's mistake, 2 the state
/// of the world, 3 our limit or our fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a command at all.
    BadFrame,
    /// An operation this version does not know.
    UnknownOp,
    /// A field is missing, unknown, of the wrong type or out of range.
    BadField,
    /// A length limit was passed.
    TooLarge,
    /// The token is not valid.
    BadToken,
    /// The token was valid once.
    ExpiredToken,
    /// No such thing, or none this user may know of.
    NotFound,
    /// Not in this conversation.
    NotAMember,
    /// A member, but not in the role for this.
    NotAllowed,
    /// The message id was used for other content.
    Conflict,
    /// A limit on what may exist: group full, too many conversations.
    Limit,
    /// Too fast.
    RateLimited,
    /// A queue is full.
    Busy,
    /// The disk is full.
    StorageFull,
    /// The outcome is unknown: send it again with the same message id.
    Unavailable,
}

impl ErrorCode {
    /// In the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::BadFrame,
        Self::UnknownOp,
        Self::BadField,
        Self::TooLarge,
        Self::BadToken,
        Self::ExpiredToken,
        Self::NotFound,
        Self::NotAMember,
        Self::NotAllowed,
        Self::Conflict,
        Self::Limit,
        Self::RateLimited,
        Self::Busy,
        Self::StorageFull,
        Self::Unavailable,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::BadFrame => 1001,
            Self::UnknownOp => 1002,
            Self::BadField => 1003,
            Self::TooLarge => 1004,
            Self::BadToken => 2001,
            Self::ExpiredToken => 2002,
            Self::NotFound => 2003,
            Self::NotAMember => 2004,
            Self::NotAllowed => 2005,
            Self::Conflict => 2006,
            Self::Limit => 2007,
            Self::RateLimited => 3001,
            Self::Busy => 3002,
            Self::StorageFull => 3003,
            Self::Unavailable => 3004,
        }
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::UnknownOp => "unknown_op",
            Self::BadField => "bad_field",
            Self::TooLarge => "too_large",
            Self::BadToken => "bad_token",
            Self::ExpiredToken => "expired_token",
            Self::NotFound => "not_found",
            Self::NotAMember => "not_a_member",
            Self::NotAllowed => "not_allowed",
            Self::Conflict => "conflict",
            Self::Limit => "limit",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the same command may succeed later.
    pub const fn retryable(self) -> bool {
        self.code() >= 3000
    }

    /// The code of a number on the wire.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }
}

/// A command that could not be decoded, ready to be answered.
///
/// With an `id` the answer is an `error` reply; without one nothing can be answered and the connection
/// ends with [`Refusal::close_code`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command's id, where it could be read.
    pub id: Option<RequestId>,
    /// What kind of mistake.
    pub code: ErrorCode,
    /// Names the field, never repeats content.
    pub message: String,
}

impl Refusal {
    /// How the connection ends when there is no id to answer to.
    pub const fn close_code(&self) -> CloseCode {
        match self.code {
            ErrorCode::TooLarge => CloseCode::TOO_BIG,
            _ => CloseCode::UNSUPPORTED,
        }
    }

    /// The reply, for a refusal that has an id.
    pub fn into_reply(self) -> ErrorReply {
        ErrorReply { id: self.id, code: self.code, message: self.message, retry_after_ms: None }
    }
}

/// Why a client could not read what a server sent. The client closes and reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFault {
    /// What was wrong; constant text.
    pub reason: &'static str,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for FrameFault {}

/// A close code (RFC 6455, section 7.4). Of ours, 4000..4100 mean "come back" and 4100..4200 "do not,
/// without a change".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// 1000: done.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the page or the process goes away.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the WebSocket protocol was broken.
    pub const PROTOCOL: Self = Self(1002);
    /// 1003: a frame that is no command.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1005: never sent; stands for a close frame without a code.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: never sent; stands for an end without a close frame.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1009: a message above the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// 1011: our fault.
    pub const INTERNAL: Self = Self(1011);
    /// 4000: the node is going away.
    pub const DRAIN: Self = Self(4000);
    /// 4001: nothing was taken from us for too long.
    pub const STALLED: Self = Self(4001);
    /// 4002: nothing was heard for too long.
    pub const IDLE: Self = Self(4002);
    /// 4003: a limit of the node or of the session.
    pub const OVERLOAD: Self = Self(4003);
    /// 4100: the token is not valid.
    pub const BAD_TOKEN: Self = Self(4100);
    /// 4101: the token has expired.
    pub const EXPIRED: Self = Self(4101);
    /// 4102: the user or token was revoked.
    pub const REVOKED: Self = Self(4102);
    /// 4103: against the node's policy.
    pub const POLICY: Self = Self(4103);
    /// 4104: a newer session of the same device took over.
    pub const REPLACED: Self = Self(4104);

    /// Whether a client should reconnect and resume. True for 40xx and for ends that say nothing about
    /// the client (1001, 1006, 1011, 1012, 1013).
    pub const fn resumable(self) -> bool {
        matches!(self.0, 4000..=4099 | 1001 | 1006 | 1011 | 1012 | 1013)
    }

    /// Whether the code may stand in a close frame: 1000..=1003, 1007..=1014, 3000..=4999
    /// (RFC 6455, section 7.4, and the IANA registry).
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
