//! What takes a sequence in a conversation, as readers are shown it: messages, what amends them, changes of members; and what stands
//! in the place of those that cannot be served.
//!
//! Live, while catching up and in `history` it is the same. A server makes its bytes from the stored record
//! ([`crate::record`]); these are what a client reads, and what tests compare.

use crate::{
    command::{MessageKind, Retention, Role},
    ids::{ConversationId, MessageId, Seq, UnixMillis, UserId},
};

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
