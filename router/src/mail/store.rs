//! What is to be stored: a command with its sender, what it changes, and what a user sets.

use protocol::command::{Create, Edit, Members, PushToken, React, Retention, Send};
use protocol::ids::{ConversationId, DeviceId, MessageId, Seq, UnixMillis, UserId};

use super::Asker;

/// A command that stores something, with its sender.
#[derive(Clone, Debug)]
pub struct Store {
    /// Who to answer.
    pub asker: Asker,
    /// Who sends. The session says so, never the payload.
    pub user: UserId,
    /// Where it is stored.
    pub conversation: ConversationId,
    /// Stored once under this id.
    pub message_id: MessageId,
    /// Whether the client chose the id: then it is looked for before anything else.
    pub idempotent: bool,
    /// Hash of the client's own fields: the same id with other content is refused.
    pub content_hash: u64,
    /// What to do.
    pub change: Change,
    /// Whom its sender may approach with it.
    pub may: May,
}

/// What a user may do who has not approached too many others. It is judged behind what was stored before: a repetition is answered as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct May {
    /// Begin a conversation.
    pub begin: bool,
    /// Put people into a group.
    pub add: bool,
}

/// What a storing command does.
#[derive(Clone, Debug)]
pub enum Change {
    /// Makes a group.
    Create(Create),
    /// Takes a message back.
    Delete {
        /// The message.
        target: Seq,
    },
    /// Gives a message another text.
    Edit(Edit),
    /// The sender leaves.
    Leave,
    /// Members and roles.
    Members(Members),
    /// A reaction to a message, added or taken back.
    React(React),
    /// How much of the conversation is kept.
    Retention(Retention),
    /// A message; `peer` is set when it was addressed to a user, so that the conversation can be made.
    Send {
        /// The message.
        send: Send,
        /// The other user of a direct conversation.
        peer: Option<UserId>,
    },
    /// A new title.
    Title(String),
}

/// What a user sets, on all devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Setting {
    /// The user is shown to others as offline, or as is again.
    Invisible {
        /// Whether.
        on: bool,
    },
    /// A conversation is muted, or not any more.
    Mute {
        /// Which.
        conversation: ConversationId,
        /// Until when; what has passed is no mute.
        until: UnixMillis,
    },
    /// A push reaches a device by another token, or does not any more.
    PushToken {
        /// Which.
        device: DeviceId,
        /// By what.
        token: Option<PushToken>,
    },
}
