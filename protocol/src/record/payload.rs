//! The payload types, one per schema: flat structs of integers, bytes and lists of flat structs.
//!
//! A released struct is never edited: rkyv has no evolution, so a changed field would silently read old
//! bytes as something else. A new need is a new schema number, or a tagged entry in `ext`. Names are
//! bytes and not strings because rkyv's string has an inline form that writers in other languages get
//! wrong.
//!
//! Invariant: sizes and alignments are those asserted at the end; they are the format.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::{
    command::{Role, Send},
    ids::{ConversationId, MessageId, Seq, UnixMillis, UserId},
    record::{Portable, StreamKind},
};

/// Which type a payload is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Schema {
    /// [`MessageV1`], in a stream of messages.
    Message = 1,
    /// [`MembershipV1`], in a stream of messages.
    Membership = 2,
    /// [`ConversationStateV1`], in a stream of state.
    State = 3,
    /// [`AmendmentV1`], in a stream of messages; at the sequence of its target, the target in its folded form.
    Amendment = 4,
    /// [`PositionsV1`], in a stream of positions.
    Positions = 5,
    /// [`SettingsV1`], in a stream of settings.
    Settings = 6,
    /// [`SightingV1`], in a stream of sightings.
    Sighting = 7,
    /// [`TakenV1`], in a stream of sightings that is no user's.
    Taken = 8,
}

/// A message as it is stored.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageV1 {
    /// The sender's name for it.
    pub message_id: [u8; 16],
    /// A [`crate::command::MessageKind`].
    pub kind: u8,
    /// A user id.
    pub sender: Vec<u8>,
    /// UTF-8.
    pub text: Vec<u8>,
    /// UTF-8; empty for none.
    pub media: Vec<u8>,
    /// A sequence; 0 for none.
    pub reply_to: u64,
    /// User ids.
    pub mentions: Vec<NameV1>,
    /// See [`crate::command::Command::content_hash`].
    pub content_hash: u64,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

impl MessageV1 {
    /// What is stored for a `send` of `sender`.
    pub fn from_send(send: &Send, sender: &UserId, message_id: MessageId) -> Self {
        Self {
            message_id: message_id.0,
            kind: send.kind as u8,
            sender: sender.as_bytes().to_vec(),
            text: send.text.as_bytes().to_vec(),
            media: send.media.as_deref().unwrap_or_default().as_bytes().to_vec(),
            reply_to: send.reply_to.map_or(0, |seq| seq.0),
            mentions: send.mentions.iter().map(NameV1::new).collect(),
            content_hash: send.content_hash(),
            ext: Vec::new(),
        }
    }
}

/// An edit, a deletion or a reaction as it is stored; or, where its sequence is that of `target`, what is served in the
/// target's place: then `form` counts and the rest says how it came about.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct AmendmentV1 {
    /// The name of the command that made it.
    pub message_id: [u8; 16],
    /// The user id of who did it.
    pub by: Vec<u8>,
    /// An [`super::AmendmentKind`].
    pub change: u8,
    /// The sequence of the message that is amended.
    pub target: u64,
    /// See [`crate::command::Command::content_hash`].
    pub content_hash: u64,
    /// All of the target after this.
    pub form: FormV1,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// All of a message after some amendments. When `deleted`, only message id, kind, sender and `at` are left: the rest is
/// empty or 0.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct FormV1 {
    /// The message's, as all up to `mentions` are.
    pub message_id: [u8; 16],
    /// A [`crate::command::MessageKind`].
    pub kind: u8,
    /// A user id.
    pub sender: Vec<u8>,
    /// UTF-8.
    pub text: Vec<u8>,
    /// UTF-8; empty for none.
    pub media: Vec<u8>,
    /// A sequence; 0 for none.
    pub reply_to: u64,
    /// User ids.
    pub mentions: Vec<NameV1>,
    /// When the message was stored.
    pub at: u64,
    /// When `text` was last changed; 0 for never.
    pub edited_at: u64,
    /// 1 when the message was taken back.
    pub deleted: u8,
    /// In the order in which they were made, each (emoji, user) at most once.
    pub reactions: Vec<ReactionV1>,
    /// The message's; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// One reaction of one user inside a stored list.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ReactionV1 {
    /// UTF-8.
    pub emoji: Vec<u8>,
    /// A user id.
    pub user: Vec<u8>,
}

impl ReactionV1 {
    /// The reaction of `user` with `emoji`.
    pub fn new(user: &UserId, emoji: &str) -> Self {
        Self { emoji: emoji.as_bytes().to_vec(), user: user.as_bytes().to_vec() }
    }
}

/// A change of members, roles, title or, in `ext`, retention as it is stored.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipV1 {
    /// The name of the command that made it.
    pub message_id: [u8; 16],
    /// The user id of who did it.
    pub by: Vec<u8>,
    /// Who joined.
    pub added: Vec<MemberV1>,
    /// Who left or was taken out.
    pub removed: Vec<NameV1>,
    /// New roles; `visible_from` is 0 here.
    pub roles: Vec<MemberV1>,
    /// 1 when `title` is a new title.
    pub title_set: u8,
    /// UTF-8.
    pub title: Vec<u8>,
    /// 1 for the record that made the conversation.
    pub created: u8,
    /// See [`crate::command::Command::content_hash`].
    pub content_hash: u64,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// All of a conversation's state, in each of its records.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationStateV1 {
    /// 1 direct, 2 group.
    pub kind: u8,
    /// A [`crate::command::HistoryPolicy`].
    pub history: u8,
    /// UTF-8; empty for direct conversations.
    pub title: Vec<u8>,
    /// A user id.
    pub creator: Vec<u8>,
    /// In the order of their last join.
    pub members: Vec<MemberV1>,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// How far the members of a conversation have read it: all of them in each record. Never leaves the node as it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionsV1 {
    /// What the conversation's own records say up to this sequence is in here: who has sent what, and who has joined.
    pub folded_to: u64,
    /// Messages in the conversation up to and including that one.
    pub message_count: u64,
    /// Of those who have read, sent or joined.
    pub positions: Vec<PositionV1>,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// How far one member has read.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionV1 {
    /// A user id.
    pub user: Vec<u8>,
    /// The newest sequence that was read: it was said so, or it is a message of this member, or the one by which it joined.
    pub read: u64,
    /// Messages in the conversation up to and including that one.
    pub message_count: u64,
    /// How far others are told that it has read: as `read`, but for joining. 0 while that is nothing.
    pub receipt: u64,
    /// The newest sequence that a device has stored; 0 while nothing says that.
    pub delivered: u64,
}

/// What a user has set, on all devices: all of it in each record. Never leaves the node as it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsV1 {
    /// At most [`crate::limits::MUTES_MAX`], each conversation once.
    pub mutes: Vec<MuteV1>,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// A conversation that a user has muted.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct MuteV1 {
    /// Which.
    pub conversation: [u8; 16],
    /// Until when, in milliseconds since 1970.
    pub until: u64,
}

/// When a user was last seen. Never leaves the node as it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SightingV1 {
    /// In milliseconds since 1970.
    pub at: u64,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// What devices of some users have acknowledged of the log that this stands in. Never leaves the node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenV1 {
    /// Each once, in the order of their inboxes.
    pub users: Vec<TakenUserV1>,
    /// Tagged additions; unknown tags are kept.
    pub ext: Vec<u8>,
}

/// What one user's devices have acknowledged of a log: positions behind one up to another.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenUserV1 {
    /// Id of the user's stream.
    pub inbox: [u8; 16],
    /// What stands in the inbox behind this,
    pub after: u64,
    /// and up to this.
    pub to: u64,
    /// Behind this, of large groups too; `to`, where that is not known.
    pub whole_after: u64,
}

/// A member inside a stored list.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberV1 {
    /// A user id.
    pub user: Vec<u8>,
    /// A [`Role`].
    pub role: u8,
    /// The first sequence this member may read.
    pub visible_from: u64,
}

impl MemberV1 {
    /// A member with its role and the first sequence it may read.
    pub fn new(user: &UserId, role: Role, visible_from: Seq) -> Self {
        Self { user: user.as_bytes().to_vec(), role: role as u8, visible_from: visible_from.0 }
    }
}

/// A user id inside a stored list.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct NameV1 {
    /// A user id.
    pub name: Vec<u8>,
}

impl NameV1 {
    /// The id of `user`.
    pub fn new(user: &UserId) -> Self {
        Self { name: user.as_bytes().to_vec() }
    }
}

/// A payload that is not yet bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Schema 4.
    Amendment(AmendmentV1),
    /// Schema 2.
    Membership(MembershipV1),
    /// Schema 1.
    Message(MessageV1),
    /// Schema 5.
    Positions(PositionsV1),
    /// Schema 6.
    Settings(SettingsV1),
    /// Schema 7.
    Sighting(SightingV1),
    /// Schema 3.
    State(ConversationStateV1),
    /// Schema 8.
    Taken(TakenV1),
}

impl Body {
    /// The schema number of the payload.
    pub const fn schema(&self) -> Schema {
        match self {
            Self::Amendment(_) => Schema::Amendment,
            Self::Membership(_) => Schema::Membership,
            Self::Message(_) => Schema::Message,
            Self::Positions(_) => Schema::Positions,
            Self::Settings(_) => Schema::Settings,
            Self::Sighting(_) => Schema::Sighting,
            Self::State(_) => Schema::State,
            Self::Taken(_) => Schema::Taken,
        }
    }

    /// The kind of stream it belongs into.
    pub const fn stream_kind(&self) -> StreamKind {
        match self {
            Self::Amendment(_) | Self::Membership(_) | Self::Message(_) => StreamKind::Messages,
            Self::Positions(_) => StreamKind::Positions,
            Self::Settings(_) => StreamKind::Settings,
            Self::Sighting(_) | Self::Taken(_) => StreamKind::Sightings,
            Self::State(_) => StreamKind::State,
        }
    }

    /// The payload's bytes: a function of the value alone.
    pub fn payload(&self) -> Vec<u8> {
        let bytes = match self {
            Self::Amendment(body) => rkyv::to_bytes::<rancor::Error>(body),
            Self::Membership(body) => rkyv::to_bytes::<rancor::Error>(body),
            Self::Message(body) => rkyv::to_bytes::<rancor::Error>(body),
            Self::Sighting(body) => rkyv::to_bytes::<rancor::Error>(body),
            Self::Settings(body) => rkyv::to_bytes::<rancor::Error>(body),
            Self::Positions(body) => rkyv::to_bytes::<rancor::Error>(body),
            Self::State(body) => rkyv::to_bytes::<rancor::Error>(body),
            Self::Taken(body) => rkyv::to_bytes::<rancor::Error>(body),
        };
        bytes.expect("flat types far below 2 GiB always serialise").into_vec()
    }

    /// The whole record as it stands in a log and on the wire, padding included.
    pub fn record(
        &self,
        conversation: ConversationId,
        seq: Seq,
        at: UnixMillis,
        message_count: u64,
    ) -> Vec<u8> {
        let payload = self.payload();
        let mut portable = Portable {
            kind: self.stream_kind(),
            payload_bytes: 0,
            schema: self.schema() as u16,
            flags: 0,
            conversation,
            seq,
            at,
            message_count,
            payload_sum: 0,
        };
        portable.seal(&payload);
        let mut record = Vec::with_capacity(portable.padded_bytes());
        record.extend_from_slice(&portable.encode());
        record.extend_from_slice(&payload);
        record.resize(portable.padded_bytes(), 0);
        record
    }
}

// Golden: a list is a 4-byte offset and a 4-byte length, nothing is padded, nothing needs alignment.
const _: () = {
    assert!(size_of::<ArchivedNameV1>() == 8 && align_of::<ArchivedNameV1>() == 1);
    assert!(size_of::<ArchivedMemberV1>() == 17 && align_of::<ArchivedMemberV1>() == 1);
    assert!(size_of::<ArchivedMessageV1>() == 73 && align_of::<ArchivedMessageV1>() == 1);
    assert!(size_of::<ArchivedReactionV1>() == 16 && align_of::<ArchivedReactionV1>() == 1);
    assert!(size_of::<ArchivedFormV1>() == 90 && align_of::<ArchivedFormV1>() == 1);
    assert!(size_of::<ArchivedAmendmentV1>() == 139 && align_of::<ArchivedAmendmentV1>() == 1);
    assert!(size_of::<ArchivedMembershipV1>() == 74 && align_of::<ArchivedMembershipV1>() == 1);
    assert!(size_of::<ArchivedPositionV1>() == 40 && align_of::<ArchivedPositionV1>() == 1);
    assert!(size_of::<ArchivedMuteV1>() == 24 && align_of::<ArchivedMuteV1>() == 1);
    assert!(size_of::<ArchivedSettingsV1>() == 16 && align_of::<ArchivedSettingsV1>() == 1);
    assert!(size_of::<ArchivedSightingV1>() == 16 && align_of::<ArchivedSightingV1>() == 1);
    assert!(size_of::<ArchivedTakenUserV1>() == 40 && align_of::<ArchivedTakenUserV1>() == 1);
    assert!(size_of::<ArchivedTakenV1>() == 16 && align_of::<ArchivedTakenV1>() == 1);
    assert!(size_of::<ArchivedPositionsV1>() == 32 && align_of::<ArchivedPositionsV1>() == 1);
    assert!(size_of::<ArchivedConversationStateV1>() == 34 && align_of::<ArchivedConversationStateV1>() == 1);
};
