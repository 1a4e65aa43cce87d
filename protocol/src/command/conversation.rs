//! Commands about a conversation as a whole: making a group, its members and their roles, what they may read, how much is kept.

use super::content_hash::ContentHash;
use crate::ids::{ConversationId, MessageId, UserId};

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
    /// See [`super::Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        let mut hash = ContentHash::new("create");
        hash.bytes(self.title.as_bytes()).number(u64::from(self.history as u8)).users(&self.members);
        hash.finish()
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
    /// See [`super::Command::content_hash`].
    pub fn content_hash(&self) -> u64 {
        let mut hash = ContentHash::new("members");
        hash.users(&self.add).users(&self.remove).number(self.roles.len() as u64);
        for (user, role) in &self.roles {
            hash.bytes(user.as_bytes()).number(u64::from(*role as u8));
        }
        hash.finish()
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

/// How much of a conversation is kept. Where both are given, what either does not keep is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What was stored in the last so many days of 24 hours, 1..=3650; `None`: however old it is.
    pub days: Option<u32>,
    /// The newest so many sequences, 1..=1,000,000; `None`: however many there are.
    pub last: Option<u32>,
}
