//! From a user's home to the owner of a log.
//!
//! Each is answered by exactly one [`super::Reply`], also where its session has gone: that gives the credit back. What takes no credit
//! says so, and by what it is bounded instead.

use protocol::command::HistoryRange;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use storage_log::StreamId;

use super::{Asker, Knows, SessionId, Setting, Signal, Store};
use crate::places::ShardId;

/// From a user's home to the owner of a log.
#[derive(Clone, Debug)]
pub enum Request {
    /// A command that stores.
    Store(Box<Store>),
    /// A user blocks the other one of a direct conversation, or does so no longer.
    Block {
        /// Who to answer.
        asker: Asker,
        /// Who blocks.
        user: UserId,
        /// Whom.
        peer: UserId,
        /// The direct conversation of the two.
        conversation: ConversationId,
        /// Whether.
        on: bool,
    },
    /// Messages that may answer a search: each as the user may see it now, or nothing.
    Candidates {
        /// The session that searches.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Which log.
        log: u16,
        /// Who searches.
        user: UserId,
        /// At most as many as one request names.
        places: Vec<(ConversationId, Seq)>,
        /// It waited for what was not durable when it came: what is not by now is left out.
        has_waited: bool,
    },
    /// Links of one user beyond a position: one page of catching up.
    CatchUp {
        /// The session that catches up.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Which log.
        log: u16,
        /// The user,
        user: UserId,
        /// and its inbox in that log.
        inbox: StreamId,
        /// Everything up to here was given. `None`: start at the head.
        after: Option<u64>,
    },
    /// A page of a conversation.
    History {
        /// Who to answer.
        asker: Asker,
        /// Who reads.
        user: UserId,
        /// What.
        conversation: ConversationId,
        /// From where.
        range: HistoryRange,
        /// Items at most.
        limit: u32,
    },
    /// The members of a conversation.
    ListMembers {
        /// Who to answer.
        asker: Asker,
        /// Who reads.
        user: UserId,
        /// What.
        conversation: ConversationId,
    },
    /// What is shown of conversations in a user's list.
    List {
        /// The session that asks.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Which log.
        log: u16,
        /// Whose list.
        user: UserId,
        /// At most as many as a page shows, those that come first first.
        conversations: Vec<ConversationId>,
        /// It waited for what was not durable when it came: what is not by now is left out.
        has_waited: bool,
    },
    /// Which conversations a user is in, and where each stands: a page of its memberships.
    Memberships {
        /// The session that asks.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Which log.
        log: u16,
        /// The user, to tell joins from leaves.
        user: UserId,
        /// The user's memberships in that log.
        memberships: StreamId,
        /// Go on after this position.
        after: u64,
    },
    /// Whether a user may search a conversation, and from where on: who is in it may. Answered with [`super::Reply::MaySearch`].
    MaySearch {
        /// Who to answer.
        asker: Asker,
        /// Who searches.
        user: UserId,
        /// What.
        conversation: ConversationId,
    },
    /// Whether a user may mute a conversation: who is in it may. Answered with [`super::Reply::MayMute`].
    Mute {
        /// Who to answer.
        asker: Asker,
        /// Who mutes.
        user: UserId,
        /// What.
        conversation: ConversationId,
        /// Until when.
        until: UnixMillis,
    },
    /// By which tokens a user is to be called of a conversation. It takes no credit: a shard has [`super::PUSH_LOOKUPS`] under way at
    /// another at most, each answered with [`super::Reply::PushTokens`].
    PushTokens {
        /// Who asks,
        shard: ShardId,
        /// and its number for the call.
        call: u32,
        /// Whom.
        user: UserId,
        /// Of what.
        conversation: ConversationId,
    },
    /// A member has read a conversation up to a sequence.
    Read {
        /// Who to answer.
        asker: Asker,
        /// Who has read.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// Up to here.
        seq: Seq,
    },
    /// How far a user has read conversations of which a session is to be told the heads.
    Reads {
        /// The session.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Which log.
        log: u16,
        /// Who.
        user: UserId,
        /// At most as many as one `heads` names.
        conversations: Vec<ConversationId>,
    },
    /// Sets something of a user: stored in its settings.
    Set {
        /// Who to answer.
        asker: Asker,
        /// Whose.
        user: UserId,
        /// What.
        setting: Setting,
    },
    /// What is kept of a user's presence. It takes no credit: a shard has [`super::SIGHTINGS`] under way at another at most, each
    /// answered with [`super::Reply::Sighting`].
    Sighting {
        /// Who asks: the user's home.
        shard: ShardId,
        /// Of whom.
        user: UserId,
        /// Whether it is asked when the user was last seen, too.
        is_whole: bool,
    },
    /// When users were last seen, to be written. One such mail is under way from a shard to a log, answered with
    /// [`super::Reply::SeenTaken`].
    Seen {
        /// Which log.
        log: u16,
        /// The users' home.
        shard: ShardId,
        /// At most [`super::SEEN_PER_MAIL`]; of each the newest that is known there.
        seen: Vec<(UserId, UnixMillis)>,
    },
    /// What a user has set.
    Settings {
        /// The session that asks.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Whose.
        user: UserId,
    },
    /// What a user's home has to say of presence, typing, ended views and acknowledgements: one mail at a time, answered with [`super::Reply::SignalsTaken`].
    Signals {
        /// Which log,
        log: u16,
        /// and whose users.
        shard: ShardId,
        /// At most some hundred.
        signals: Vec<Signal>,
    },
    /// A session views a conversation.
    View {
        /// Who to answer.
        asker: Asker,
        /// Who views.
        user: UserId,
        /// What.
        conversation: ConversationId,
        /// What it has been told of that.
        knows: Knows,
    },
    /// What a session that keeps a sequence per conversation has to be told of: the user's conversations in one log.
    Survey {
        /// The session that connects.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Which log.
        log: u16,
        /// The user, to tell joins from leaves.
        user: UserId,
        /// The user's memberships in that log.
        memberships: StreamId,
        /// Go on after this position.
        after: u64,
    },
    /// Records of one conversation beyond a sequence, up to a position: what [`Request::Survey`] found missing. Whoever
    /// asks knows from the survey that the user may read them.
    Feed {
        /// The session that connects.
        session: SessionId,
        /// Its home.
        shard: ShardId,
        /// Which log.
        log: u16,
        /// What.
        conversation: ConversationId,
        /// Known up to here.
        after: Seq,
        /// Nothing beyond this position of the log.
        until: u64,
        /// The first sequence that the user may see.
        visible_from: Seq,
    },
}

impl Request {
    /// Whether it counts as a page (its answer may be large) or as a command.
    #[must_use]
    pub fn is_page(&self) -> bool {
        !matches!(
            self,
            Self::Block { .. }
                | Self::Mute { .. }
                | Self::PushTokens { .. }
                | Self::Read { .. }
                | Self::Seen { .. }
                | Self::Set { .. }
                | Self::Sighting { .. }
                | Self::Store(_)
                | Self::Signals { .. }
        )
    }
}
