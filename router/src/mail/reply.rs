//! From the owner of a log to a user's home: answers, and what nobody asked for.
//!
//! The order in which they leave their log is the order in which they come: a session is live from the page on that says so, because
//! what is delivered later comes behind that page.

use std::sync::Arc;

use bytes::Bytes;
use protocol::command::{PushToken, Retention, Role};
use protocol::event::{ErrorCode, Presence, Reached, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, MessageId, Seq, UnixMillis, UserId};

use super::{
    Asker, Gone, Linked, ListedItem, Membership, MovedHead, ReadState, SessionId, Sighting, Surveyed,
};

/// From the owner of a log to a user's home.
#[derive(Clone, Debug)]
pub enum Reply {
    /// What may be shown of messages that may answer a search.
    Candidates {
        /// The session.
        session: SessionId,
        /// Which log.
        log: u16,
        /// In the order of the request: `None` for one that is no hit for this user any more. Those that are not there any more at the
        /// end have not fitted.
        records: Vec<Option<Bytes>>,
        /// Some could not be read.
        partial: bool,
    },
    /// A page of catching up.
    CaughtUp {
        /// The session.
        session: SessionId,
        /// Which log.
        log: u16,
        /// Oldest first.
        records: Vec<Linked>,
        /// The user's large groups whose newest record stands behind where the session asked from, and not behind `end`: after the
        /// records, and before any cursor beyond them.
        heads: Vec<MovedHead>,
        /// How far the user has read those, and what else a head is told of with these records; where it is not known, nothing.
        reads: Vec<ReadState>,
        /// Everything of the user up to and including this position is in this page or before it.
        end: u64,
        /// `end` was the durable head when this was put in the queue: live from here on.
        at_head: bool,
        /// This log cannot be read now: there may be more than is said here.
        partial: bool,
    },
    /// A record for members at that shard, live.
    Deliver(Deliver),
    /// Instead of a page of catching up: what follows the session's position is not kept any more.
    Forgotten {
        /// The session.
        session: SessionId,
    },
    /// One page of feeding a conversation.
    Fed {
        /// The session.
        session: SessionId,
        /// Which log.
        log: u16,
        /// Which conversation.
        conversation: ConversationId,
        /// What is missing before the records.
        gone: Option<Gone>,
        /// Oldest first.
        records: Vec<Linked>,
        /// Go on after this sequence, if there is more.
        more_after: Option<Seq>,
    },
    /// A user is invisible from now on, or is not any more, durably.
    Hidden {
        /// Who asked.
        asker: Asker,
        /// Who.
        user: UserId,
        /// Since when; `None`: not any more.
        since: Option<UnixMillis>,
    },
    /// A page of history.
    History {
        /// Who asked.
        asker: Asker,
        /// What is missing before the records.
        gone: Option<Gone>,
        /// Ascending.
        records: Vec<Linked>,
        /// Which end is kept if the page has to be cut: the newest records, or else the oldest.
        newest_first: bool,
        /// The conversation goes on in the direction asked for.
        more: bool,
    },
    /// What is shown of conversations in a list.
    Listed {
        /// The session.
        session: SessionId,
        /// Which log.
        log: u16,
        /// In the order of the request: `None` for one that cannot be shown. Those that are not there any more at the end have not
        /// fitted.
        items: Vec<Option<ListedItem>>,
        /// Some could not be read.
        partial: bool,
    },
    /// The members of a conversation.
    Members {
        /// Who asked.
        asker: Asker,
        /// User, role, first visible sequence.
        members: Vec<(UserId, Role, Seq)>,
        /// How much of it is kept.
        retention: Retention,
    },
    /// The user is in the conversation: it may be muted.
    MayMute {
        /// Who asked.
        asker: Asker,
        /// Who mutes.
        user: UserId,
        /// What.
        conversation: ConversationId,
        /// Until when.
        until: UnixMillis,
    },
    /// The user is in the conversation: it may be searched.
    MaySearch {
        /// Who asked.
        asker: Asker,
        /// From here on.
        visible_from: Seq,
    },
    /// A part of what a user is in.
    Memberships {
        /// The session.
        session: SessionId,
        /// Which log.
        log: u16,
        /// In the order of the memberships; a later one of a conversation replaces an earlier one.
        found: Vec<Membership>,
        /// Go on after this position, if there is more.
        more_after: Option<u64>,
        /// Some could not be read.
        partial: bool,
    },
    /// Delivers were dropped for want of room: these users' sessions catch up from the log.
    Overrun {
        /// Which log.
        log: u16,
        /// Who; `None` for everybody at that shard.
        users: Option<Vec<UserId>>,
    },
    /// A command was refused, or its outcome is unknown.
    Refused {
        /// Who asked.
        asker: Asker,
        /// Whether it was a page that was asked for.
        is_page: bool,
        /// Why.
        code: ErrorCode,
        /// In words, without content.
        message: &'static str,
        /// When to try again.
        retry_after_ms: Option<u64>,
    },
    /// A command took effect, durably.
    Stored {
        /// Who asked.
        asker: Asker,
        /// Where.
        conversation: ConversationId,
        /// Under which sequence.
        seq: Seq,
        /// Under which id.
        message_id: MessageId,
        /// When.
        at: UnixMillis,
        /// It is no repetition of one that was stored before.
        is_new: bool,
        /// Who has begun a conversation by it, however its session has fared since.
        begun_by: Option<UserId>,
    },
    /// By which tokens a user is to be called.
    PushTokens {
        /// As asked.
        call: u32,
        /// Empty where the conversation is muted or no device has one; `None` where that cannot be read now.
        tokens: Option<Vec<(DeviceId, PushToken)>>,
    },
    /// How far a user has read conversations; of those that are not here that is not known.
    Reads {
        /// The session.
        session: SessionId,
        /// Which log.
        log: u16,
        /// In the order of the request.
        states: Vec<ReadState>,
    },
    /// What a user has set, as it is on disk.
    Settings {
        /// The session.
        session: SessionId,
        /// What is muted, and until when; some of that may have passed. `None` where it cannot be read.
        mutes: Option<Vec<(ConversationId, UnixMillis)>>,
    },
    /// The sightings before are on their way to the disk, or were given up because it takes nothing.
    SeenTaken {
        /// Of which log.
        log: u16,
        /// Some were given up.
        are_lost: bool,
    },
    /// What is kept of a user's presence.
    Sighting {
        /// Of whom.
        user: UserId,
        /// `None` where it cannot be read now.
        found: Option<Sighting>,
    },
    /// The signals before have been read.
    SignalsTaken {
        /// Of which log.
        log: u16,
    },
    /// A command took effect of which there is no more to say.
    Done {
        /// Who asked.
        asker: Asker,
    },
    /// News for all sessions of a user of that shard, likewise.
    TellUser {
        /// Whom.
        user: UserId,
        /// What: how far that user has read.
        event: Arc<ServerFrame>,
    },
    /// News for sessions at that shard: nobody's reply, sent where there is room.
    Tell {
        /// Whom.
        sessions: Vec<SessionId>,
        /// What: presence, typing or a receipt.
        event: Arc<ServerFrame>,
    },
    /// A session views a conversation.
    Viewed {
        /// Who asked.
        asker: Asker,
        /// Which one.
        conversation: ConversationId,
        /// Of the members that are known.
        presence: Arc<[Presence]>,
        /// How far members have come, where they have read or been given anything.
        receipts: Arc<[(UserId, Reached)]>,
    },
    /// From now on say how these users of that shard stand, and of those nothing more: nobody's reply, sent where there is room.
    Watch {
        /// To which log.
        log: u16,
        /// Whom,
        watched: Vec<UserId>,
        /// and whom not any more.
        unwatched: Vec<UserId>,
    },
    /// A part of a survey.
    Surveyed {
        /// The session.
        session: SessionId,
        /// Which log.
        log: u16,
        /// In the order of the memberships; a later entry for a conversation replaces an earlier one.
        conversations: Vec<Surveyed>,
        /// Go on after this position, if there is more.
        more_after: Option<u64>,
        /// The durable head when this was put in the queue.
        position: u64,
        /// Some memberships could not be read: there may be more conversations than are said here.
        partial: bool,
    },
}

impl Reply {
    /// What it takes to hand it on, in users to whom it is delivered or records that are shown: for whoever makes turns short.
    #[must_use]
    pub fn work(&self) -> usize {
        match self {
            Self::CaughtUp { records, .. } | Self::Fed { records, .. } | Self::History { records, .. } => {
                records.len()
            }
            Self::Deliver(deliver) => deliver.users.len(),
            Self::Listed { items, .. } => items.len(),
            Self::Tell { sessions, .. } => sessions.len(),
            _ => 0,
        }
    }
}

/// A record on its way to members of one shard.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// Which log.
    pub log: u16,
    /// Its position there.
    pub position: u64,
    /// `[portable part | payload]`, shared by all shards.
    pub record: Bytes,
    /// Members at that shard, shared by all messages under one membership.
    pub users: Arc<[UserId]>,
    /// When its sender asked, by [`super::Clock::micros`].
    pub asked_micros: u64,
}
