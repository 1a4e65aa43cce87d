//! What is said of conversations as a whole: where they stand, what a user's list shows of each, and who is in one.

use super::PageItem;
use crate::{
    command::{Retention, Role},
    ids::{ConversationId, Seq, UnixMillis, UserId},
};

/// One conversation in `heads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub conversation: ConversationId,
    /// The newest sequence; the next live one is the one after it.
    pub head: Seq,
    /// The user's own read position, as far as `head`.
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
