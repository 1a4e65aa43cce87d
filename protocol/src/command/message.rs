//! Commands about messages: sending one, giving it another text, reacting to it.

use super::content_hash::ContentHash;
use crate::ids::{ConversationId, MessageId, Seq, UserId};

/// The fields of `send`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub target: Target,
    /// What the text and the media are.
    pub kind: MessageKind,
    /// At most 16 KiB; not empty for [`MessageKind::Text`].
    pub text: String,
    /// Reference to stored media, 1..=256 bytes. Given exactly when `kind` is not text.
    pub media: Option<String>,
    /// The message this one answers, from 1.
    pub reply_to: Option<Seq>,
    /// At most 50, in the client's order.
    pub mentions: Vec<UserId>,
    /// Makes the command happen once.
    pub message_id: Option<MessageId>,
}

impl Send {
    /// See [`super::Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        let mut hash = ContentHash::new("send");
        hash.number(u64::from(self.kind as u8))
            .bytes(self.text.as_bytes())
            .bytes(self.media.as_deref().unwrap_or_default().as_bytes())
            .number(self.reply_to.map_or(0, |seq| seq.0))
            .users(&self.mentions);
        hash.finish()
    }
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A conversation by its id (`conversation`).
    Conversation(ConversationId),
    /// The direct conversation with this user (`to`).
    User(UserId),
}

/// What a message is. The numbers are those of records and of the binary form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// Text alone.
    Text = 1,
    /// An image, with `text` as its caption.
    Image = 2,
    /// A file, with `text` as its caption.
    File = 3,
}

impl MessageKind {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::File => "file",
        }
    }

    /// The kind of a name in JSON.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Text, Self::Image, Self::File].into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of a number in a record.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Text),
            2 => Some(Self::Image),
            3 => Some(Self::File),
            _ => None,
        }
    }
}

/// The fields of `edit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which conversation.
    pub conversation: ConversationId,
    /// The message, from 1.
    pub seq: Seq,
    /// The new text, at most 16 KiB. Whether it may be empty is the message's kind to say, as in [`Send`]:
    /// see [`crate::record::FormV1::takes_text`].
    pub text: String,
    /// Makes the command happen once.
    pub message_id: Option<MessageId>,
}

impl Edit {
    /// See [`super::Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        ContentHash::new("edit").number(self.seq.0).bytes(self.text.as_bytes()).finish()
    }
}

/// The fields of `react`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct React {
    /// Which conversation.
    pub conversation: ConversationId,
    /// The message, from 1.
    pub seq: Seq,
    /// 1..=64 bytes without control characters, compared as they are.
    pub emoji: String,
    /// Whether the sender's reaction with this emoji is there afterwards.
    pub on: bool,
    /// Makes the command happen once.
    pub message_id: Option<MessageId>,
}

impl React {
    /// See [`super::Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        let mut hash = ContentHash::new("react");
        hash.number(self.seq.0).bytes(self.emoji.as_bytes()).number(u64::from(self.on));
        hash.finish()
    }
}
