//! What goes between the two sides: values that cross threads, in order.
//!
//! A request takes a credit at its sender and every request has exactly one reply, so a reply always finds room.
//! [`Reply::Deliver`] and [`Reply::Overrun`] are nobody's reply; they share the queue with replies because the exact
//! switch to live depends on the one order.

mod presence;
mod unavailable;

use std::sync::Arc;

use bytes::Bytes;
use protocol::command::{Create, Edit, HistoryRange, Members, PushToken, React, Retention, Send};
use protocol::event::{ErrorCode, ListedConversation, Presence, Reached, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, MessageId, RequestId, Seq, UnixMillis, UserId};
use protocol::record::{ArchivedMembershipV1, Ext, Portable, Schema, Stored, StoredBody};
use storage_log::StreamId;

use crate::places::ShardId;

pub use presence::{Knows, SEEN_PER_MAIL, SIGHTINGS, Sighting, Signal, Standing};

/// Users whose push tokens one shard asks another for at a time: what a round between two shards carries beside everything else. A place is
/// kept for each of them, in both directions.
pub const PUSH_LOOKUPS: usize = 64;

/// One session of one shard; a reply to a session that has gone finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId {
    /// Slot at its home.
    pub slot: u32,
    /// Tells sessions of one slot apart.
    pub generation: u32,
}

/// The time of one turn, read once by whoever drives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// Wall clock, for what is stored and told.
    pub unix: UnixMillis,
    /// Microseconds since some fixed moment of this process, never backwards: for latencies and deadlines.
    pub micros: u64,
}

/// Who asked, and under which number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Home of the session: where the reply goes.
    pub shard: ShardId,
    /// The session.
    pub session: SessionId,
    /// The client's number for the command.
    pub id: RequestId,
    /// When it was asked, by [`Clock::micros`].
    pub asked_micros: u64,
}

/// What is asked for a session by nobody: its answer is no reply. No client can use the number.
pub(crate) const UNASKED: RequestId = RequestId(0);

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
    /// Whether a user may search a conversation, and from where on: who is in it may. Answered with [`Reply::MaySearch`].
    MaySearch {
        /// Who to answer.
        asker: Asker,
        /// Who searches.
        user: UserId,
        /// What.
        conversation: ConversationId,
    },
    /// Whether a user may mute a conversation: who is in it may. Answered with [`Reply::MayMute`].
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
    /// By which tokens a user is to be called of a conversation. It takes no credit: a shard has [`PUSH_LOOKUPS`] under way at another
    /// at most, each answered with [`Reply::PushTokens`].
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
    /// What is kept of a user's presence. It takes no credit: a shard has [`SIGHTINGS`] under way at another at most, each answered with
    /// [`Reply::Sighting`].
    Sighting {
        /// Who asks: the user's home.
        shard: ShardId,
        /// Of whom.
        user: UserId,
        /// Whether it is asked when the user was last seen, too.
        is_whole: bool,
    },
    /// When users were last seen, to be written. One such mail is under way from a shard to a log, answered with [`Reply::SeenTaken`].
    Seen {
        /// Which log.
        log: u16,
        /// The users' home.
        shard: ShardId,
        /// At most [`SEEN_PER_MAIL`]; of each the newest that is known there.
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
    /// What a user's home has to say of presence: one mail at a time, answered with [`Reply::SignalsTaken`].
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

/// A stored record as it leaves its log: `[portable part | payload]`, counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linked {
    /// Its position in the log; in its conversation, if it is a gap there.
    pub position: u64,
    /// Its conversation,
    pub conversation: ConversationId,
    /// and its sequence there, which the index knows also of what is damaged.
    pub seq: Seq,
    /// The bytes, or `None` when the disk no longer has them as they were: a gap.
    pub record: Option<Bytes>,
}

impl Linked {
    /// The change of members that it is, if it stands behind some records that are not linked: its reader is told of a head before it.
    pub(crate) fn standing_alone(&self) -> Option<(Portable, &ArchivedMembershipV1)> {
        let bytes = self.record.as_ref()?;
        let portable = Portable::parse(bytes).ok()?;
        if portable.schema != Schema::Membership as u16 {
            return None;
        }
        let StoredBody::Membership(event) = Stored::with_checked_sum(portable, bytes).ok()?.body else {
            return None;
        };
        Ext::new(&event.ext).unlinked_from().map(|_| (portable, event))
    }
}

/// Sequences of a conversation that are not kept any more: a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone {
    /// Which.
    pub conversation: ConversationId,
    /// The first of them,
    pub from: Seq,
    /// and the last.
    pub to: Seq,
}

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
        /// User, role number, first visible sequence.
        members: Vec<(UserId, protocol::command::Role, Seq)>,
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
        /// Who has begun a conversation by it, however its session has fared since.
        begun_by: Option<UserId>,
    },
    /// By which tokens a user is to be called.
    PushTokens {
        /// As asked.
        call: u32,
        /// None where the conversation is muted, or no device has one; `None` where that cannot be read now.
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
        /// What: presence or typing.
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
    /// When its sender asked, by [`Clock::micros`].
    pub asked_micros: u64,
}
