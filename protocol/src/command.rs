//! What a client may ask, as owned values that can cross threads.
//!
//! A [`Request`] that came out of a decoder was checked for everything that can be judged without
//! state: shapes, lengths, ranges, which fields go together. Who may do what is the router's business.
//!
//! Invariant: a decoded request keeps every bound of [`crate::limits`].

use std::fmt;

use xxhash_rust::xxh3::Xxh3Default;

use crate::ids::{ConversationId, DeviceId, MessageId, RequestId, Seq, UnixMillis, UserId};

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

/// The fields of `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Absent when it came in the `Authorization` header of the upgrade.
    pub token: Option<Token>,
    /// Which device, tab or app instance this is.
    pub device: DeviceId,
    /// Where the client stopped, 1..=512 bytes. Never together with `positions`.
    pub cursor: Option<String>,
    /// The last sequence the client knows of each conversation (0: none), each conversation once,
    /// at most 500.
    pub positions: Option<Vec<(ConversationId, Seq)>>,
}

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
    /// See [`Command::content_hash`].
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

/// The fields of `search`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Words, all of which a hit has: 1..=256 bytes without control characters.
    pub query: String,
    /// Only there; else in all conversations of the user.
    pub conversation: Option<ConversationId>,
    /// Where the page before ended, as it said; the first one without.
    pub before: Option<String>,
    /// Hits, 1..=50.
    pub limit: u32,
}

/// The fields of `create`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// 1..=256 bytes without control characters.
    pub title: String,
    /// The others; at most 500, each once. The creator may be among them.
    pub members: Vec<UserId>,
    /// What later members may read.
    pub history: HistoryPolicy,
    /// Makes the command happen once; the group's id derives from it.
    pub message_id: Option<MessageId>,
}

impl Create {
    /// See [`Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        let mut hash = ContentHash::new("create");
        hash.bytes(self.title.as_bytes()).number(u64::from(self.history as u8)).users(&self.members);
        hash.finish()
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
    /// See [`Command::content_hash`].
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
    /// See [`Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        let mut hash = ContentHash::new("react");
        hash.number(self.seq.0).bytes(self.emoji.as_bytes()).number(u64::from(self.on));
        hash.finish()
    }
}

/// The fields of `members` without `list`. At least one of the three lists is not empty; no user stands
/// in one list twice, nor in both `add` and `remove`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Which group.
    pub conversation: ConversationId,
    /// Who joins.
    pub add: Vec<UserId>,
    /// Who is taken out.
    pub remove: Vec<UserId>,
    /// Who gets which role.
    pub roles: Vec<(UserId, Role)>,
    /// Makes the command happen once.
    pub message_id: Option<MessageId>,
}

impl Members {
    /// See [`Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        let mut hash = ContentHash::new("members");
        hash.users(&self.add).users(&self.remove).number(self.roles.len() as u64);
        for (user, role) in &self.roles {
            hash.bytes(user.as_bytes()).number(u64::from(*role as u8));
        }
        hash.finish()
    }
}

/// How much of a conversation is kept. Where both are given, what either does not keep is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What was stored in the last so many days of 24 hours, 1..=3650; `None`: however old it is.
    pub days: Option<u32>,
    /// The newest so many sequences, 1..=1,000,000; `None`: however many there are.
    pub last: Option<u32>,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A conversation by its id (`conversation`).
    Conversation(ConversationId),
    /// The direct conversation with this user (`to`).
    User(UserId),
}

/// Which part of a conversation a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryRange {
    /// Items above this sequence (0: from the first), ascending.
    After(Seq),
    /// The newest items below this sequence.
    Before(Seq),
    /// The newest items.
    Latest,
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

/// What a member may do. The numbers are those of records and of the binary form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// May do everything, and hands over before leaving.
    Owner = 1,
    /// May change members and title.
    Admin = 2,
    /// May read and send.
    Member = 3,
}

impl Role {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role of a name in JSON.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Owner, Self::Admin, Self::Member].into_iter().find(|role| role.name() == name)
    }

    /// The role of a number in a record.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Owner),
            2 => Some(Self::Admin),
            3 => Some(Self::Member),
            _ => None,
        }
    }
}

/// What a member may read of the time before it joined. The numbers are those of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum HistoryPolicy {
    /// Everything.
    All = 1,
    /// What came after the last join.
    Joined = 2,
}

impl HistoryPolicy {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Joined => "joined",
        }
    }

    /// The policy of a name in JSON.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::All, Self::Joined].into_iter().find(|policy| policy.name() == name)
    }

    /// The policy of a number in a record.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::All),
            2 => Some(Self::Joined),
            _ => None,
        }
    }
}

/// A bearer token, at most 8 KiB of visible ASCII. Never shown by `Debug`, so that it cannot reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` unless 1..=8192 bytes of visible ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=crate::limits::TOKEN_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The token itself, for the verifier and for the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(redacted, {} bytes)", self.0.len())
    }
}

/// What a push service calls a device by: a token, or a subscription as JSON. Whoever has it can call the device, so `Debug` never shows
/// it, and it cannot reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct PushToken(String);

impl PushToken {
    /// Takes it as it is. Its bounds are those of the command that brings it.
    pub const fn new(token: String) -> Self {
        Self(token)
    }

    /// The token itself, for the disk, the wire and the pusher.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushToken(redacted, {} bytes)", self.0.len())
    }
}

/// Length-prefixed fields into XXH3, so that no two different commands give the same input.
struct ContentHash(Xxh3Default);

impl ContentHash {
    fn new(op: &str) -> Self {
        let mut hash = Self(Xxh3Default::new());
        hash.bytes(op.as_bytes());
        hash
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    fn users(&mut self, users: &[UserId]) -> &mut Self {
        self.number(users.len() as u64);
        for user in users {
            self.bytes(user.as_bytes());
        }
        self
    }

    fn finish(&self) -> u64 {
        self.0.digest()
    }
}
