//! The user side: sessions of the users whose home is this shard, and what each is given.
//!
//! Every session is live or catching up, per log. Live ones are given what is delivered; the others are fed from the
//! log, a page at a time, only while their outbox is empty. A second away, a month away and a reader that cannot keep up
//! are the same state.

mod acked;
mod answers;
mod approach;
mod commands;
mod follow;
mod frames;
mod heads;
mod listing;
mod outbox;
mod presence;
mod rates;
mod searching;
mod session;
mod sightings;
mod slow;
mod survey;
mod travel;
mod viewing;
mod writing;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use protocol::command::Connect;
use protocol::event::{CloseCode, ErrorCode, ErrorReply, ServerFrame};
use protocol::ids::{RequestId, UnixMillis, UserId};
use protocol::limits::COMMANDS_IN_FLIGHT_MAX;
use protocol::upgrade::Form;
use slab::Slab;
use smallvec::SmallVec;

use crate::cursor::{self, Starts};
use crate::index::{IndexAnswer, IndexAsk};
use crate::mail::{Request, SessionId};
use crate::places::{Places, ShardId};
use approach::Approaches;
use presence::PresenceBoard;
use rates::Present;
use searching::AskOut;
use session::{Greeting, Listed, LogState, Phase, Session, Survey};
use sightings::Asks;
use slow::SlowReaders;
use writing::Writing;

pub use approach::ApproachLimits;
pub use outbox::{Chunk, OUTBOX_BYTES_MAX, Outbox, SEND_BYTES_MAX};
pub use rates::{Rate, is_stored};
pub use searching::ASKS_MAX;
pub use slow::SLOW_NAMED_MAX;
pub use travel::{Standing, Traveller, TravellingLog, TravellingSurvey, TravellingView};

/// Sessions of one user at the same time: phones, tablets, a few browsers.
pub const SESSIONS_PER_USER_MAX: usize = 8;

/// How long a user is held to be online without a session, in milliseconds: who changes the network, or comes back after a restart of
/// the node, has not been away.
pub const PRESENCE_GRACE_MILLIS: u64 = 10_000;

/// By how much it may be wrong after a crash when a user was last seen, in milliseconds: users who stay are written down once in less than that, so
/// an hour makes some 50 records a second of 100,000, and who asks is seldom helped by less.
pub const LAST_SEEN_ERROR_MILLIS: u64 = 3_600_000;

/// Commands under way from one shard to another.
pub const COMMAND_CREDITS: u32 = 1024;

/// Page requests under way from one shard to another.
pub const PAGE_CREDITS: u32 = 1024;

const _: () = {
    // One session never holds more than a sixteenth of a pair's credits.
    assert!(COMMANDS_IN_FLIGHT_MAX * 16 <= COMMAND_CREDITS as usize);
    assert!(COMMANDS_IN_FLIGHT_MAX * 16 <= PAGE_CREDITS as usize);
};

/// What the sessions of one shard may hold: less only where a test wants to see it full.
#[derive(Clone, Copy, Debug)]
pub struct UserLimits {
    /// Bytes in the outbox of a session beyond which it is fed from the log.
    pub outbox_bytes_max: usize,
    /// Commands under way to the owner of a log.
    pub command_credits: u32,
    /// Page requests under way to the owner of a log.
    pub page_credits: u32,
    /// How long a user is held to be online without a session, in milliseconds.
    pub presence_grace_millis: u64,
    /// By how much it may be wrong after a crash when a user was last seen, in milliseconds.
    pub last_seen_error_millis: u64,
    /// Commands of one session.
    pub session_commands: Rate,
    /// Commands that store something, of all sessions of a user together.
    pub user_messages: Rate,
    /// How many others a user may approach.
    pub approaches: ApproachLimits,
    /// Whether there is an index to search in.
    pub searches: bool,
    /// Searches that it works on at a time.
    pub index_asks_max: u32,
}

impl Default for UserLimits {
    fn default() -> Self {
        let (command_credits, page_credits) = (COMMAND_CREDITS, PAGE_CREDITS);
        let (outbox_bytes_max, presence_grace_millis) = (OUTBOX_BYTES_MAX, PRESENCE_GRACE_MILLIS);
        let (session_commands, user_messages) = (Rate::UNLIMITED, Rate::UNLIMITED);
        Self {
            outbox_bytes_max,
            command_credits,
            page_credits,
            presence_grace_millis,
            last_seen_error_millis: LAST_SEEN_ERROR_MILLIS,
            session_commands,
            user_messages,
            approaches: ApproachLimits::NONE,
            searches: false,
            index_asks_max: ASKS_MAX,
        }
    }
}

/// Counts for the metrics; they only grow.
#[derive(Clone, Copy, Default, Debug)]
pub struct UserCounters {
    /// Records put into an outbox because they were delivered live.
    pub deliveries: u64,
    /// Records put into an outbox because a session caught up.
    pub replays: u64,
    /// Times that a full outbox sent a session back to the log.
    pub outbox_full: u64,
    /// Times that a full mailbox sent a session back to the log.
    pub overruns: u64,
    /// Times that somebody was told who came, went, or is typing.
    pub presence: u64,
    /// Commands that found no credit.
    pub busy: u64,
    /// Error replies, by [`ErrorCode::ALL`].
    pub errors: [u64; ErrorCode::ALL.len()],
}

/// Latencies in microseconds since they were last taken; for the metrics.
#[derive(Default, Debug)]
pub struct Latencies {
    /// From a storing command to its `ok` in the outbox.
    pub acks: Vec<u64>,
    /// From a storing command to its record in a member's outbox.
    pub deliveries: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Credits {
    commands: u32,
    pages: u32,
}

/// Sessions that go ahead of one that has what is for many: so that one gets its turn as well.
const AHEAD_MAX: u32 = 4;

/// All sessions of one shard.
pub struct UserSide {
    places: Arc<Places>,
    starts: Arc<Starts>,
    shard: ShardId,
    limits: UserLimits,
    sessions: Slab<Session>,
    users: HashMap<UserId, Present, foldhash::fast::RandomState>,
    approaches: Approaches,
    generation: u32,
    random: u64,
    presence: PresenceBoard,
    asks_of_sightings: Asks,
    writing: Writing,
    slow: SlowReaders,
    credits: Vec<Credits>,
    /// Sessions that wait for a page credit, by whose.
    starved: Vec<VecDeque<SessionId>>,
    /// For the index, and those that it has not answered, given up or not: at most as many as may be asked at a time.
    asks: VecDeque<IndexAsk>,
    asks_out: Vec<AskOut>,
    /// What the index has answered while this side stood still: at most as many as may be asked at a time.
    late_answers: Vec<IndexAnswer>,
    mail: VecDeque<(ShardId, Request)>,
    /// Slots from here on have not asked again since a pause ended.
    waking: Option<usize>,
    /// Sessions with something to send.
    sendable: VecDeque<SessionId>,
    /// Those that have only what is for many, or pages: they are many at a time, and let the others go ahead.
    sendable_later: VecDeque<SessionId>,
    /// Sessions that went ahead of those since the last of them.
    went_ahead: u32,
    ended: VecDeque<Ended>,
    /// Taken and cleared by whoever keeps the histograms, once a turn.
    pub latencies: Latencies,
    /// What happened since the start.
    pub counters: UserCounters,
}

/// A session that was ended from this side.
pub struct Ended {
    /// The gateway's name for its connection.
    pub connection: u64,
    /// Whose it was.
    pub user: UserId,
    /// What is half sent.
    pub outbox: Outbox,
    /// Why, as the client is told,
    pub code: CloseCode,
    /// and in words.
    pub reason: &'static str,
}

/// A `connect` that is refused: the reply to send, and the close that follows it.
#[derive(Debug)]
pub struct ConnectRefusal {
    /// The frame with the `error` reply.
    pub frame: Bytes,
    /// Why the connection ends.
    pub close: CloseCode,
}

impl UserSide {
    /// The sessions of `shard`. `random` seeds the message ids that the server makes.
    #[must_use]
    pub fn new(
        places: Arc<Places>,
        starts: Arc<Starts>,
        shard: ShardId,
        limits: UserLimits,
        random: u64,
    ) -> Self {
        let of_one = Credits { commands: limits.command_credits, pages: limits.page_credits };
        let credits = vec![of_one; usize::from(places.shards)];
        let starved = vec![VecDeque::new(); usize::from(places.shards)];
        Self {
            presence: PresenceBoard::new(places.logs, limits.presence_grace_millis),
            asks_of_sightings: Asks::new(places.shards),
            writing: Writing::new(places.logs, limits.last_seen_error_millis),
            places,
            starts,
            shard,
            limits,
            sessions: Slab::new(),
            users: HashMap::default(),
            approaches: Approaches::new(limits.approaches),
            slow: SlowReaders::default(),
            generation: 0,
            random,
            credits,
            starved,
            asks: VecDeque::new(),
            asks_out: Vec::new(),
            late_answers: Vec::new(),
            mail: VecDeque::new(),
            waking: None,
            sendable: VecDeque::new(),
            sendable_later: VecDeque::new(),
            went_ahead: 0,
            ended: VecDeque::new(),
            latencies: Latencies::default(),
            counters: UserCounters::default(),
        }
    }

    /// Requests that the owners of logs have not answered yet, and questions to the index. Who stands still does not wait for that: a search is
    /// asked again where it goes on, and the index may take seconds.
    #[must_use]
    pub fn requests_under_way(&self) -> u32 {
        let asks_under_way = if self.asks_of_sightings.is_paused() { 0 } else { self.asks_waited_for() };
        let all = self.limits.command_credits + self.limits.page_credits;
        let credits = self.credits.iter().map(|credits| all - credits.commands - credits.pages);
        credits.sum::<u32>()
            + self.signals_under_way()
            + self.asks_of_sightings.under_way()
            + self.writing.under_way()
            + asks_under_way
    }

    /// Bytes that the fullest outbox holds, queued and in flight.
    #[must_use]
    pub fn largest_outbox(&self) -> usize {
        self.sessions.iter().map(|(_, session)| session.outbox.held_bytes()).max().unwrap_or(0)
    }

    /// Sessions that are fed from a log, or are about to be.
    #[must_use]
    pub fn behind_count(&self) -> usize {
        self.sessions.iter().filter(|(_, session)| !session.is_live()).count()
    }

    /// Sessions now.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.sessions.len()
    }

    /// Starts a session for a verified user. `connection` names the connection in [`UserSide::poll_sendable`].
    ///
    /// # Errors
    /// [`ConnectRefusal`] when the user has too many sessions.
    pub fn connect(
        &mut self,
        connection: u64,
        user: UserId,
        form: Form,
        id: RequestId,
        connect: Connect,
        now: UnixMillis,
    ) -> Result<SessionId, ConnectRefusal> {
        self.replace(&user, &connect);
        if self.users.get(&user).is_some_and(|present| present.slots.len() >= SESSIONS_PER_USER_MAX) {
            self.counters.errors[error_index(ErrorCode::Limit)] += 1;
            let frame = refusal(form, id, ErrorCode::Limit, "this user has 8 sessions");
            return Err(ConnectRefusal { frame, close: CloseCode::POLICY });
        }
        let (session, starts_live) = self.new_session(connection, user.clone(), form, id, connect);
        let greeting = session.greeting;
        self.generation = self.generation.wrapping_add(1);
        let slot = self.sessions.insert(session) as u32;
        let present = self.users.entry(user.clone()).or_default();
        present.slots.push(slot);
        if present.slots.len() == 1 {
            self.note_come(&user);
        }
        let session = SessionId { slot, generation: self.generation };
        self.sessions[slot as usize].generation = self.generation;
        if !starts_live && let Some(greeting) = greeting {
            self.welcome(session, greeting, now);
        }
        self.ask_pages(session);
        Ok(session)
    }

    /// The session as it begins, and whether it begins at the head.
    fn new_session(
        &self,
        connection: u64,
        user: UserId,
        form: Form,
        id: RequestId,
        connect: Connect,
    ) -> (Session, bool) {
        let logs = usize::from(self.places.logs);
        let given =
            connect.cursor.as_ref().map(|text| cursor::decode(&self.places, &self.starts, &user, text));
        let reset = matches!(given, Some(Err(_)));
        let survey = connect.positions.map(|known| {
            Box::new(Survey { known, next: SmallVec::from_elem(Some(0), logs), ..Survey::default() })
        });
        let states = match (&given, &survey) {
            (Some(Ok(cursor)), _) => {
                cursor.positions.iter().map(|position| LogState::at(*position, Phase::Behind)).collect()
            }
            (_, Some(_)) => SmallVec::from_elem(LogState::at(0, Phase::Surveyed), logs),
            _ => SmallVec::from_elem(LogState::at(0, Phase::Unplaced), logs),
        };
        let starts_live = !matches!(given, Some(Ok(_))) && survey.is_none();
        let session = Session {
            commands: 1,
            greeting: Some(Greeting { id, reset }),
            catching_up: !starts_live,
            survey,
            ..Session::at_rest(connection, user, connect.device, form, states)
        };
        (session, starts_live)
    }

    /// The newest session of a device wins.
    fn replace(&mut self, user: &UserId, connect: &Connect) {
        let older = self.users.get(user).and_then(|present| {
            present.slots.iter().copied().find(|slot| self.sessions[*slot as usize].device == connect.device)
        });
        if let Some(slot) = older {
            let session = SessionId { slot, generation: self.sessions[slot as usize].generation };
            self.end(session, CloseCode::REPLACED, "a newer session of this device");
        }
    }

    /// Ends a session from this side.
    fn end(&mut self, session: SessionId, code: CloseCode, reason: &'static str) {
        let of = self.session(session).map(|session| (session.connection, session.user.clone()));
        if let Some((connection, user)) = of {
            let outbox = self.disconnect(session);
            self.ended.push_back(Ended { connection, user, outbox, code, reason });
        }
    }

    /// Ends a session and gives back what is half sent. What it asked for is still answered, to nobody.
    pub fn disconnect(&mut self, session: SessionId) -> Outbox {
        if self.session(session).is_none() {
            return Outbox::default();
        }
        let ended = self.sessions.remove(session.slot as usize);
        if let Some(Present { slots, .. }) = self.users.get_mut(&ended.user) {
            let is_first = slots.first() == Some(&session.slot);
            slots.retain(|slot| *slot != session.slot);
            match slots.first() {
                None => {
                    self.users.remove(&ended.user);
                    self.note_gone(&ended.user, ended.written);
                }
                Some(first) if is_first => self.sessions[*first as usize].written = ended.written,
                Some(_) => {}
            }
        }
        for view in ended.viewing.into_iter().flat_map(|viewing| viewing.views) {
            self.end_view(session, view.conversation);
        }
        ended.outbox.into_half_sent()
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot as usize).filter(|session| session.generation == id.generation)
    }

    /// Who a session belongs to.
    #[must_use]
    pub fn user_of(&self, id: SessionId) -> Option<&UserId> {
        let session = self.sessions.get(id.slot as usize)?;
        (session.generation == id.generation).then_some(&session.user)
    }

    /// The connections of a user's sessions, as [`UserSide::connect`] was told them.
    pub fn connections_of(&self, user: &UserId) -> impl Iterator<Item = u64> + '_ {
        let slots = self.users.get(user).into_iter().flat_map(|present| &present.slots);
        slots.map(|slot| self.sessions[*slot as usize].connection)
    }

    /// The next request for the owner of a log.
    pub fn poll_mail(&mut self) -> Option<(ShardId, Request)> {
        if self.mail.is_empty() {
            self.send_signals();
            self.ask_sightings();
            self.write_sightings();
        }
        self.mail.pop_front()
    }

    /// The next connection that is to be closed because its session was ended.
    pub fn poll_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// The next connection that has something to send. Each comes once, until [`UserSide::take_send`] is called for it.
    ///
    /// What is for few goes ahead of what is for many: one message to a large conversation, or a page for each of a crowd,
    /// is thousands of sends, and nobody is to wait for all of them.
    pub fn poll_sendable(&mut self) -> Option<(SessionId, u64)> {
        loop {
            let is_their_turn = self.went_ahead >= AHEAD_MAX || self.sendable.is_empty();
            let later = if is_their_turn { self.sendable_later.pop_front() } else { None };
            let (id, listed) = match later {
                Some(id) => (id, Listed::Later),
                None => (self.sendable.pop_front()?, Listed::Soon),
            };
            self.went_ahead = if listed == Listed::Later { 0 } else { self.went_ahead + 1 };
            if let Some(session) = self.session(id)
                && session.listed == listed
            {
                session.listed = Listed::No;
                return Some((id, session.connection));
            }
        }
    }

    /// Whether [`UserSide::poll_sendable`] may have more.
    #[must_use]
    pub fn has_sendable(&self) -> bool {
        !self.sendable.is_empty() || !self.sendable_later.is_empty()
    }

    /// The next send of a session, control bytes first; `None` while one is in flight or there is nothing.
    pub fn take_send(&mut self, id: SessionId, control: &mut Vec<u8>) -> Option<Bytes> {
        let session = self.session(id)?;
        let chunk = session.outbox.take_send(control)?;
        session.commands -= chunk.replies;
        Some(chunk.bytes)
    }

    /// A send has ended after `sent` of its bytes.
    pub fn handle_sent(&mut self, id: SessionId, bytes: Bytes, sent: usize) {
        let Some(session) = self.session(id) else {
            return;
        };
        session.outbox.handle_sent(bytes, sent);
        if session.outbox.is_sendable() {
            self.list(id);
        } else if session.outbox.is_empty() {
            self.push_late(id);
            self.ask_pages(id);
        }
    }

    /// Bytes that wait for a session, queued and in flight.
    #[must_use]
    pub fn held_bytes(&self, id: SessionId) -> usize {
        self.sessions.get(id.slot as usize).map_or(0, |session| session.outbox.held_bytes())
    }

    /// Whether the next byte sent to a session must be the middle of a frame.
    #[must_use]
    pub fn is_mid_frame(&self, id: SessionId) -> bool {
        self.sessions.get(id.slot as usize).is_some_and(|session| session.outbox.is_mid_frame())
    }

    /// Tells a session that the node is going away.
    pub fn drain(&mut self, id: SessionId, reconnect_in_ms: u64) {
        self.push_event(
            id,
            &ServerFrame::Drain { reconnect_in_ms, reason: "the node is restarting".to_owned() },
        );
    }

    /// A session has something to send.
    fn list(&mut self, id: SessionId) {
        if let Some(session) = self.session(id)
            && session.listed != Listed::Soon
        {
            session.listed = Listed::Soon;
            self.sendable.push_back(id);
        }
    }

    /// The same of what is for many, or is a page.
    fn list_later(&mut self, id: SessionId) {
        if let Some(session) = self.session(id)
            && session.listed == Listed::No
        {
            session.listed = Listed::Later;
            self.sendable_later.push_back(id);
        }
    }

    fn push_event(&mut self, id: SessionId, event: &ServerFrame) {
        self.push_frame(id, event, false);
    }

    fn push_reply(&mut self, id: SessionId, reply: &ServerFrame) {
        if let ServerFrame::Error(error) = reply {
            self.counters.errors[error_index(error.code)] += 1;
        }
        self.push_frame(id, reply, true);
    }

    fn push_frame(&mut self, id: SessionId, frame: &ServerFrame, is_reply: bool) {
        let Some(session) = self.session(id) else {
            return;
        };
        let frame = frames::server_frame(session.form, frame);
        session.outbox.push(frame, is_reply);
        self.list(id);
    }
}

/// The frame of an `error` reply to a connection that has no session.
#[must_use]
pub fn refusal(form: Form, id: RequestId, code: ErrorCode, message: &str) -> Bytes {
    let error = ErrorReply { id: Some(id), code, message: message.to_owned(), retry_after_ms: None };
    frames::server_frame(form, &ServerFrame::Error(error))
}

fn error_index(code: ErrorCode) -> usize {
    ErrorCode::ALL.iter().position(|known| *known == code).expect("all codes are listed")
}
