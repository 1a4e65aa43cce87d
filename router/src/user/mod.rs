//! The user side: sessions of the users whose home is this shard, and what each is given.
//!
//! Every session is live or catching up, per log. Live ones are given what is delivered; the others are fed from the
//! log, a page at a time, only while their outbox is empty. A second away, a month away and a reader that cannot keep up
//! are the same state.
//!
//! Where to look:
//!
//! * a session: `connecting`, `session`, `limits`, `rates`, `approach`, `travel`;
//! * what it asks, and the answers: `commands`, `answers`, `listing`, `searching`;
//! * what it is given of the logs: `follow`, `heads`, `survey`, `acked`, `slow`;
//! * what goes out: `frames`, `outbox`, `sending`;
//! * who is there, and who looks: `presence`, `viewing`, `sightings`, `writing`.

mod acked;
mod answers;
mod approach;
mod commands;
mod connecting;
mod credits;
mod follow;
mod frames;
mod heads;
mod limits;
mod listing;
mod outbox;
mod presence;
mod rates;
mod searching;
mod sending;
mod session;
mod sightings;
mod signals;
mod slow;
mod survey;
mod travel;
mod viewing;
mod writing;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use protocol::event::ErrorCode;
use protocol::ids::UserId;
use slab::Slab;

use crate::cursor::Starts;
use crate::index::{IndexAnswer, IndexAsk};
use crate::mail::{Request, SessionId};
use crate::places::{Places, ShardId};
use crate::turns::Turns;
use approach::Approaches;
use credits::Credits;
use presence::PresenceBoard;
use rates::{Absent, Present};
use searching::AskOut;
use session::Session;
use sightings::Asks;
use slow::SlowReaders;
use writing::Writing;

pub use approach::ApproachLimits;
pub use connecting::{ConnectRefusal, Ended, refusal};
pub use limits::{
    COMMAND_CREDITS, LAST_SEEN_ERROR_MILLIS, PAGE_CREDITS, PRESENCE_GRACE_MILLIS, SESSIONS_PER_USER_MAX,
    UserLimits,
};
pub use outbox::{Chunk, OUTBOX_BYTES_MAX, Outbox, SEND_BYTES_MAX};
pub use rates::{Rate, is_stored};
pub use searching::ASKS_MAX;
pub use slow::SLOW_NAMED_MAX;
pub use travel::{Standing, Traveller, TravellingLog, TravellingSurvey, TravellingView};

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

/// All sessions of one shard.
pub struct UserSide {
    places: Arc<Places>,
    starts: Arc<Starts>,
    shard: ShardId,
    limits: UserLimits,
    sessions: Slab<Session>,
    users: HashMap<UserId, Present, foldhash::fast::RandomState>,
    absent: Absent,
    approaches: Approaches,
    generation: u32,
    random: u64,
    presence: PresenceBoard,
    asks_of_sightings: Asks,
    writing: Writing,
    slow: SlowReaders,
    credits: Vec<Credits>,
    /// Sessions that wait for a page credit, by whose: those whose users ask for something before those that catch up.
    starved: Vec<Turns<SessionId>>,
    /// For the index, and those that it has not answered, given up or not: at most as many as may be asked at a time.
    asks: VecDeque<IndexAsk>,
    asks_out: Vec<AskOut>,
    /// What the index has answered while this side stood still: at most as many as may be asked at a time.
    late_answers: Vec<IndexAnswer>,
    mail: VecDeque<(ShardId, Request)>,
    /// Slots from here on have not asked again since a pause ended.
    waking: Option<usize>,
    /// Sessions with something to send: those that have only what is for many, or pages, are many at a time, and let the others go ahead.
    sendable: Turns<SessionId>,
    ended: VecDeque<Ended>,
    /// Taken and cleared by whoever keeps the histograms, once a turn.
    pub latencies: Latencies,
    /// What happened since the start.
    pub counters: UserCounters,
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
        let of_one = Credits::new(limits.command_credits, limits.page_credits);
        let credits = vec![of_one; usize::from(places.shards)];
        let starved = (0..places.shards).map(|_| Turns::default()).collect();
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
            absent: Absent::default(),
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
            sendable: Turns::default(),
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

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot as usize).filter(|session| session.generation == id.generation)
    }

    /// Whether there is a request that [`UserSide::poll_mail`] hands out, but for what that gathers itself.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        !self.mail.is_empty()
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
}

fn error_index(code: ErrorCode) -> usize {
    ErrorCode::ALL.iter().position(|known| *known == code).expect("all codes are listed")
}
