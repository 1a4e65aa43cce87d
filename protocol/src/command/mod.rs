//! What a client may ask, as owned values that can cross threads.
//!
//! A [`Request`] that came out of a decoder was checked for everything that can be judged without
//! state: shapes, lengths, ranges, which fields go together. Who may do what is the router's business.
//!
//! Invariant: a decoded request keeps every bound of [`crate::limits`].
//!
//! [`Command`] names every operation; the fields of the larger ones stand beside it, by what they are about.

mod connect;
mod content_hash;
mod conversation;
mod history;
mod message;

use crate::ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId};
use content_hash::ContentHash;

pub use connect::{Connect, PushToken, Token};
pub use conversation::{Create, HistoryPolicy, Members, Retention, Role};
pub use history::{HistoryRange, Search};
pub use message::{Edit, MessageKind, React, Send, Target};

/// One command and the number its reply repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `None` for [`Command::Ack`] and [`Command::Typing`], which have no reply, and only for them.
    pub id: Option<RequestId>,
    /// What is asked.
    pub command: Command,
}

/// Everything this version understands; other operations are answered with `unknown_op`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// "Stored on this device up to here."
    Ack {
        /// The newest cursor the client has stored.
        cursor: String,
    },
    /// Nothing is to pass between the user and another one in their direct conversation, or that again.
    Block {
        /// The other one.
        user: UserId,
        /// Whether.
        on: bool,
        /// As with other commands; said twice it does nothing more, with one or without.
        message_id: Option<MessageId>,
    },
    /// The first command of every session.
    Connect(Connect),
    /// One page of the user's conversations, newest activity first.
    Conversations {
        /// Where the page before ended, as it said; the first one without.
        after: Option<String>,
        /// Items, 1..=50.
        limit: u32,
    },
    /// Makes a group; its creator becomes the owner.
    Create(Create),
    /// Takes a message back: its content is not served any more.
    Delete {
        /// Which conversation.
        conversation: ConversationId,
        /// The message, from 1.
        seq: Seq,
        /// Makes the command happen once.
        message_id: Option<MessageId>,
    },
    /// Gives a message another text.
    Edit(Edit),
    /// One page of a conversation.
    History {
        /// Which conversation.
        conversation: ConversationId,
        /// From where, in which direction.
        range: HistoryRange,
        /// Items, 1..=200.
        limit: u32,
    },
    /// The user is shown to others as offline, or as is again.
    Invisible {
        /// Whether.
        on: bool,
    },
    /// Leaves a group.
    Leave {
        /// Which group.
        conversation: ConversationId,
        /// Makes the command happen once.
        message_id: Option<MessageId>,
    },
    /// Lists the members of a conversation (`members` with `list:true`).
    ListMembers {
        /// Which conversation.
        conversation: ConversationId,
    },
    /// Changes who belongs to a group and in which role.
    Members(Members),
    /// The user is not to be called by what comes in a conversation, on any device.
    Mute {
        /// Which conversation.
        conversation: ConversationId,
        /// Until when; 0 or what has passed takes it back, [`crate::limits::MUTED_FOR_EVER`] does not end.
        until: UnixMillis,
    },
    /// Heartbeat.
    Ping {
        /// As in [`Command::Ack`].
        cursor: Option<String>,
    },
    /// How a push reaches this device from now on.
    PushToken {
        /// What the device's push service gave it, 1..=2048 bytes without control characters; `None`: none reaches it any more.
        token: Option<PushToken>,
    },
    /// Adds a reaction to a message, or takes it back.
    React(React),
    /// "Read up to here", told to the others who view the conversation.
    Read {
        /// Which conversation.
        conversation: ConversationId,
        /// The newest message that was read, from 1. Never goes back.
        seq: Seq,
    },
    /// Replaces the token of a live session.
    Refresh {
        /// The new token, of the same user.
        token: Token,
    },
    /// How much of a conversation is kept, from now on.
    Retention {
        /// Which conversation.
        conversation: ConversationId,
        /// How much; neither `days` nor `last`: all that is there.
        retention: Retention,
        /// Makes the command happen once.
        message_id: Option<MessageId>,
    },
    /// Looks for words in the user's own conversations.
    Search(Search),
    /// Sends a message.
    Send(Send),
    /// Renames a group.
    Title {
        /// Which group.
        conversation: ConversationId,
        /// 1..=256 bytes without control characters.
        title: String,
        /// Makes the command happen once.
        message_id: Option<MessageId>,
    },
    /// "I am writing something", or not any more: told to who views the conversation, kept nowhere.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Whether. On lasts 6 s, unless it is said again.
        on: bool,
    },
    /// Ends [`Command::View`].
    Unview {
        /// Which conversation.
        conversation: ConversationId,
    },
    /// A session looks at a conversation: it is told who of its members is online and who is typing.
    View {
        /// Which conversation.
        conversation: ConversationId,
    },
}

impl Command {
    /// The name of the operation on the wire.
    pub const fn op(&self) -> &'static str {
        match self {
            Self::Ack { .. } => "ack",
            Self::Block { .. } => "block",
            Self::Connect(_) => "connect",
            Self::Conversations { .. } => "conversations",
            Self::Create(_) => "create",
            Self::Delete { .. } => "delete",
            Self::Edit(_) => "edit",
            Self::History { .. } => "history",
            Self::Invisible { .. } => "invisible",
            Self::Leave { .. } => "leave",
            Self::ListMembers { .. } | Self::Members(_) => "members",
            Self::Mute { .. } => "mute",
            Self::Ping { .. } => "ping",
            Self::PushToken { .. } => "push_token",
            Self::React(_) => "react",
            Self::Read { .. } => "read",
            Self::Refresh { .. } => "refresh",
            Self::Retention { .. } => "retention",
            Self::Search(_) => "search",
            Self::Send(_) => "send",
            Self::Title { .. } => "title",
            Self::Typing { .. } => "typing",
            Self::Unview { .. } => "unview",
            Self::View { .. } => "view",
        }
    }

    /// Whether it has a number and exactly one reply.
    pub const fn has_reply(&self) -> bool {
        !matches!(self, Self::Ack { .. } | Self::Typing { .. })
    }

    /// The id under which a storing command happens once; `None` when absent or when nothing is stored.
    pub const fn message_id(&self) -> Option<MessageId> {
        match self {
            Self::Create(create) => create.message_id,
            Self::Block { message_id, .. }
            | Self::Delete { message_id, .. }
            | Self::Leave { message_id, .. }
            | Self::Retention { message_id, .. }
            | Self::Title { message_id, .. } => *message_id,
            Self::Edit(edit) => edit.message_id,
            Self::Members(members) => members.message_id,
            Self::React(react) => react.message_id,
            Self::Send(send) => send.message_id,
            Self::Ack { .. }
            | Self::Connect(_)
            | Self::Conversations { .. }
            | Self::History { .. }
            | Self::Invisible { .. }
            | Self::ListMembers { .. }
            | Self::Mute { .. }
            | Self::Ping { .. }
            | Self::PushToken { .. }
            | Self::Read { .. }
            | Self::Refresh { .. }
            | Self::Search(_)
            | Self::Typing { .. }
            | Self::Unview { .. }
            | Self::View { .. } => None,
        }
    }

    /// XXH3-64 of the client's own fields, by which a repetition is told from a different command under
    /// the same message id. Stored, so it never changes. The message id and the conversation (which may be
    /// named in two ways) do not take part. 0 for commands that store nothing.
    pub fn content_hash(&self) -> u64 {
        match self {
            Self::Block { user, on, .. } => {
                ContentHash::new("block").bytes(user.as_bytes()).number(u64::from(*on)).finish()
            }
            Self::Create(create) => create.content_hash(),
            Self::Delete { seq, .. } => ContentHash::new("delete").number(seq.0).finish(),
            Self::Edit(edit) => edit.content_hash(),
            Self::Leave { .. } => ContentHash::new("leave").finish(),
            Self::Members(members) => members.content_hash(),
            Self::React(react) => react.content_hash(),
            Self::Retention { retention, .. } => {
                let (days, last) = (retention.days.unwrap_or(0), retention.last.unwrap_or(0));
                ContentHash::new("retention").number(days.into()).number(last.into()).finish()
            }
            Self::Send(send) => send.content_hash(),
            Self::Title { title, .. } => ContentHash::new("title").bytes(title.as_bytes()).finish(),
            Self::Ack { .. }
            | Self::Connect(_)
            | Self::Conversations { .. }
            | Self::History { .. }
            | Self::Invisible { .. }
            | Self::ListMembers { .. }
            | Self::Mute { .. }
            | Self::Ping { .. }
            | Self::PushToken { .. }
            | Self::Read { .. }
            | Self::Refresh { .. }
            | Self::Search(_)
            | Self::Typing { .. }
            | Self::Unview { .. }
            | Self::View { .. } => 0,
        }
    }
}
