//! What the owner of a log says of a conversation for one user: where it stands, how far it was read, what a list shows of it.

use bytes::Bytes;
use protocol::event::ListedConversation;
use protocol::ids::{ConversationId, Seq, UnixMillis};

/// A large group of a user, whose records are not sent to who comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MovedHead {
    /// Which.
    pub conversation: ConversationId,
    /// Its newest durable sequence.
    pub head: Seq,
    /// Messages in it.
    pub message_count: u64,
}

/// How far a user has read a conversation, and how much there is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadState {
    /// Which.
    pub conversation: ConversationId,
    /// Its newest durable sequence,
    pub head: Seq,
    /// and the messages up to and including that.
    pub message_count: u64,
    /// Everything up to here has been read,
    pub read: Seq,
    /// which is so many messages.
    pub read_count: u64,
}

/// What one record of a user's memberships says for the list of its conversations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// Which.
    pub conversation: ConversationId,
    /// The first sequence that the user may read from then on; `None`: the user left.
    pub visible_from: Option<Seq>,
    /// Where its newest record stands in the log.
    pub head_position: u64,
}

/// What one record of a user's memberships says about a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Surveyed {
    /// Position of that record.
    pub position: u64,
    /// Which.
    pub conversation: ConversationId,
    /// Its newest durable sequence.
    pub head: Seq,
    /// Messages in it.
    pub message_count: u64,
    /// The first sequence that the user may read from then on; `None`: the user left.
    pub visible_from: Option<Seq>,
}

/// One conversation of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedItem {
    /// What is known of it; without `last`.
    pub listed: ListedConversation,
    /// When its newest record was stored, if that can be read.
    pub at: Option<UnixMillis>,
    /// That record, if it can be shown.
    pub last: Option<Bytes>,
}
