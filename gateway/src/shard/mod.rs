//! One shard of a node: connections, sessions, conversations and logs of one core, as a state machine without I/O.
//!
//! [`Shard::turn`] takes what happened ([`Event`]) and leaves what is to be done ([`Action`]). The driver does it with a
//! ring, the simulator with a dice. Everything that belongs to one user happens on one shard, in one thread, so there is
//! no lock and no shared map here.

mod admission;
mod aging;
mod background;
mod connection;
mod crowd;
mod drain;
mod echo;
mod erase;
mod exchange;
mod flush;
mod logs;
mod moving;
mod peer;
mod push;
mod revoke;
mod serve;
mod slow;
mod timers;
mod travel;

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::event::ErrorCode;
use protocol::upgrade::UpgradePolicy;
use router::cursor::Starts;
use router::mail::{Clock, Reply, Request};
use router::user::UserLimits;
use router::{Places, ShardId, UserSide};
use storage_log::CompactionPolicy;

use crate::auth::{DenyList, TokenCache, Verifier};
use crate::config::Network;
use crate::mailbox::{Back, Forward, Mailboxes};
use crate::metrics::ShardMetrics;
use crate::peers::Peers;
use crate::state::NodeState;
use crate::wheel::Wheel;
use admission::Admission;
use connection::Connections;
use crowd::Crowd;
use drain::Drain;
use moving::Moves;
use push::Pushing;
use revoke::Sweep;
use slow::SlowLines;

pub use connection::ConnectionId;
pub use exchange::{Action, Event, Listener, ReceiveEnd};
pub use logs::OwnedLog;
pub use peer::Peer;

/// How long a shard that stands still waits at most, in microseconds: the process that is to go on has the core.
const PAUSED_MICROS: u64 = 2_000;

/// Work that comes by mail in one turn: each mail, each link and member stored for it, each user and record that it is for; of requests, of replies,
/// and of requests of this shard's own users so much each. One is a place or two in tables that are larger than a cache, 1 to 2 us: 2 ms of each.
pub const WORK_PER_TURN: usize = 1_024;

/// What one shard may hold and how long it waits.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Connections served; a few more are accepted to be refused in words.
    pub connections_max: u32,
    /// Accepted connections without a session, at most: further ones wait in the listener's backlog.
    pub handshakes_max: u32,
    /// Connections accepted in a second, at most: further ones wait there too.
    pub connects_per_second_max: u32,
    /// Which web pages may connect.
    pub policy: UpgradePolicy,
    /// Connections from here begin with a PROXY header.
    pub proxies: Vec<Network>,
    /// Work that comes by mail in one turn: [`WORK_PER_TURN`], unless a test wants turns split.
    pub work_per_turn: usize,
    /// Over how many seconds the goodbyes of a drain are spread.
    pub drain_seconds: u64,
    /// What sessions may hold.
    pub users: UserLimits,
    /// When segments are written anew.
    pub compaction: CompactionPolicy,
    /// Whether anybody is called of what has not reached them.
    pub pushes: bool,
}

/// Everything that a shard is made from.
pub struct ShardParts {
    /// Which one.
    pub id: ShardId,
    /// The fixed facts.
    pub places: Arc<Places>,
    /// The starts of the node.
    pub starts: Arc<Starts>,
    /// Limits.
    pub config: ShardConfig,
    /// Its end of the mesh.
    pub mail: Mailboxes,
    /// Logs that it owns.
    pub logs: Vec<OwnedLog>,
    /// What addresses may do: the node's.
    pub peers: Arc<Peers>,
    /// Judges tokens.
    pub verifier: Verifier,
    /// Secret of its cache of tokens.
    pub cache_key: [u8; 32],
    /// Tokens revoked before the start.
    pub denied: DenyList,
    /// Where it counts.
    pub metrics: Arc<ShardMetrics>,
    /// Where it says that a log has failed.
    pub state: Arc<NodeState>,
    /// Seeds what needs to be unique or spread, not secret.
    pub random: u64,
}

/// One shard.
pub struct Shard {
    id: ShardId,
    places: Arc<Places>,
    starts: Arc<Starts>,
    config: ShardConfig,
    connections: Connections,
    peers: Arc<Peers>,
    users: UserSide,
    logs: Vec<OwnedLog>,
    mail: Mailboxes,
    wheel: Wheel,
    verifier: Verifier,
    tokens: TokenCache,
    denied: DenyList,
    /// Revocations whose sessions are being closed: as many as were sent, which are few.
    sweeps: VecDeque<Sweep>,
    moves: Moves,
    pushing: Pushing,
    admission: Admission,
    crowd: Crowd,
    metrics: Arc<ShardMetrics>,
    state: Arc<NodeState>,
    clock: Clock,
    drain: Option<Drain>,
    /// It stands still, so that another process can go on.
    paused: bool,
    /// Nothing is begun that goes on behind the sessions.
    background_held: bool,
    random: u64,
    /// Of users here for logs here, for which the last turn had no time. Bounded by their credits.
    own_requests: VecDeque<Request>,
    /// What was said of who reads slowly.
    slow: SlowLines,
    /// Bytes held for peers without a session.
    stranger_bytes: usize,
    /// Bytes held by the echo service.
    echo_bytes: usize,
    due: Vec<u32>,
    rings: Vec<ShardId>,
    actions: Vec<Action>,
}

impl Shard {
    /// A shard with nobody connected.
    #[must_use]
    pub fn new(parts: ShardParts) -> Self {
        let (places, starts) = (parts.places.clone(), parts.starts.clone());
        let admission = Admission::new(parts.config.handshakes_max, parts.config.connects_per_second_max);
        let users = UserSide::new(places, starts, parts.id, parts.config.users, parts.random | 1);
        for owned in &parts.logs {
            owned.tell_durable_end(&parts.state);
        }
        let pushing = Pushing::new(parts.config.pushes, parts.places.shards);
        let keeps_peers = parts.peers.limits_something() || !parts.config.proxies.is_empty();
        Self {
            id: parts.id,
            places: parts.places,
            starts: parts.starts,
            connections: Connections::new(parts.config.connections_max, keeps_peers),
            peers: parts.peers,
            config: parts.config,
            users,
            logs: parts.logs,
            mail: parts.mail,
            wheel: Wheel::new(),
            verifier: parts.verifier,
            tokens: TokenCache::new(parts.cache_key),
            denied: parts.denied,
            sweeps: VecDeque::new(),
            moves: Moves::new(parts.id),
            pushing,
            admission,
            crowd: Crowd::default(),
            metrics: parts.metrics,
            state: parts.state,
            clock: Clock::default(),
            drain: None,
            paused: false,
            background_held: false,
            random: parts.random | 1,
            own_requests: VecDeque::new(),
            slow: SlowLines::default(),
            stranger_bytes: 0,
            echo_bytes: 0,
            due: Vec::new(),
            rings: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// One turn. The order is the contract: all that arrived is handled before anything is written or sent, so a turn is
    /// one batch for each log, one pass over the readers and one system call. Of crowds it does a part: see `crowd.rs`.
    pub fn turn(&mut self, clock: Clock, events: &mut Vec<Event>, actions: &mut Vec<Action>) {
        self.clock = clock;
        self.users.begin_turn(clock);
        (self.crowd.sends, self.crowd.told) = (0, 0);
        for event in events.drain(..) {
            self.handle(event);
        }
        self.take_mail();
        if !self.paused {
            self.check_timers();
        }
        self.continue_crowd();
        self.continue_sweeps();
        if !self.paused {
            self.continue_drain();
            self.continue_admission();
        }
        self.judge_pushes();
        self.exchange_local();
        self.poll_pushes();
        self.poll_logs();
        self.poll_sends();
        self.post_notes();
        self.note_rest();
        self.count();
        self.name_slow_readers();
        actions.append(&mut self.actions);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { listener, socket, peer } => self.handle_accepted(listener, socket, peer),
            Event::NotAccepted => self.handle_not_accepted(),
            Event::Adopted { migration, socket } => self.handle_adopted(migration, socket),
            Event::Closed(connection) => self.handle_closed(connection),
            Event::Drain => self.begin_drain(),
            Event::Pause => self.begin_pause(),
            Event::Pushed(pushed) => self.handle_pushed(pushed),
            Event::Resume => self.resume(),
            Event::Erase(ask) => self.handle_erase(ask),
            Event::Found(answer) => self.users.handle_index(answer),
            Event::Read { log, job, place, bytes } => self.handle_read(log, job, place, bytes),
            Event::IndexWritten { log, sealed } => self.handle_indexed(log, sealed),
            Event::Compacted { log, base, compacted } => self.handle_compacted(log, base, compacted),
            Event::Released { log } => self.handle_released(log),
            Event::IndexDamaged { log, base } => self.handle_index_damaged(log, base),
            Event::IndexRebuilt { log, base, sealed } => self.handle_rebuilt(log, base, sealed),
            Event::Received { connection, buffer, armed } => self.take_received(connection, buffer, armed),
            Event::ReceiveEnded { connection, end } => self.take_receive_ended(connection, end),
            Event::Keys(verifier) => self.handle_keys(verifier),
            Event::Revoke(revocation) => self.handle_revoke(revocation),
            Event::SegmentPrepared { log, made } => self.handle_segment(log, made),
            Event::SegmentZeroed { log } => self.handle_zeroed(log),
            Event::Sent { connection, bytes, sent } => self.handle_sent(connection, bytes, sent),
            Event::ShutDown(connection) => self.handle_shut_down(connection),
            Event::SocketSent { connection, installed } => self.handle_socket_sent(connection, installed),
            Event::Written { log, buffer, synced } => self.handle_written(log, buffer, synced),
        }
    }

    /// Takes mail from every shard, whatever the outbound rings look like: an equal share of each ring, from another
    /// shard first each time, so that none waits behind a busy one. What is left keeps this shard from sleeping.
    fn take_mail(&mut self) {
        let sources: Vec<ShardId> = self.mail.others().collect();
        if sources.is_empty() {
            return;
        }
        let first = self.roll() as usize % sources.len();
        let share = (self.config.work_per_turn / sources.len()).max(1);
        for source in sources[first..].iter().chain(&sources[..first]) {
            self.take_requests(*source, share);
            self.take_replies(*source, share);
        }
    }

    fn take_requests(&mut self, source: ShardId, share: usize) {
        let mut work = 0;
        while work < share
            && let Some(forward) = self.mail.take_request(source)
        {
            work += 1;
            match forward {
                Forward::Request(request) => work += self.handle_request(request),
                Forward::Move(moved) => self.handle_move(source, moved),
                Forward::CancelMove(migration) => self.handle_move_cancelled(source, migration),
            }
        }
    }

    fn take_replies(&mut self, source: ShardId, share: usize) {
        let mut work = 0;
        while work < share
            && let Some(back) = self.mail.take_reply(source)
        {
            work += 1;
            match back {
                Back::Reply(reply) => {
                    work += reply.work();
                    self.handle_reply(source, reply);
                }
                Back::Moved => self.handle_moved(source),
            }
        }
    }

    fn handle_reply(&mut self, source: ShardId, reply: Reply) {
        match reply {
            Reply::PushTokens { call, tokens } => self.pushing.handle_tokens(call, tokens),
            reply => self.users.handle_reply(source, reply, self.clock),
        }
    }

    /// Requests and replies, until nothing is left that this shard can answer itself, or its turn has done enough. It ends: a page is asked
    /// for only by a session with an empty outbox.
    fn exchange_local(&mut self) {
        let mut work = 0;
        loop {
            // A reply may have ended a session: its connection has to know it before a send of that ends, or anything else comes by it.
            self.close_ended();
            let mut quiet = true;
            while let Some((target, request)) = self.users.poll_mail() {
                quiet = false;
                if target == self.id {
                    self.own_requests.push_back(request);
                } else {
                    self.mail.post(target, Forward::Request(request));
                }
            }
            while work < self.config.work_per_turn
                && let Some(request) = self.own_requests.pop_front()
            {
                quiet = false;
                work += 1 + self.handle_request(request);
            }
            while let Some(ask) = self.users.poll_ask() {
                self.actions.push(Action::Search(ask));
            }
            quiet &= !self.poll_outputs();
            if quiet {
                return;
            }
        }
    }

    fn post_notes(&mut self) {
        if self.mail.has_notes() {
            for target in self.mail.others() {
                self.mail.post_notes(target);
            }
        }
        self.mail.take_doorbells(&mut self.rings);
        self.actions.extend(self.rings.drain(..).map(Action::Doorbell));
    }

    /// Seconds of the wheel.
    fn second(&self) -> u64 {
        self.clock.micros / 1_000_000
    }

    /// A number that spreads things; nothing secret hangs on it.
    fn roll(&mut self) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// How long the driver may wait, in microseconds, if nothing happens.
    #[must_use]
    pub fn wait_micros(&self) -> u64 {
        // What is to be done for connections that came from another process waits for the first turn. Notes and news wait for room in a
        // ring that nobody rings for; a drain goes by tenths of a second.
        let wait = if self.paused {
            PAUSED_MICROS
        } else if !self.actions.is_empty()
            || self.users.has_mail()
            || !self.own_requests.is_empty()
            || !self.sweeps.is_empty()
            || self.crowd.is_waiting()
            || self.users.has_sendable()
            || self.users.is_waking()
            || (!self.background_held && self.logs.iter().any(OwnedLog::is_collecting))
        {
            0
        } else if self.mail.has_notes() || self.logs.iter().any(OwnedLog::has_news) {
            1_000
        } else if self.drain.is_some() {
            20_000
        } else {
            1_000_000 - self.clock.micros % 1_000_000
        };
        let next = self.admission.wait_micros().into_iter().chain(self.mark_in_micros());
        let next = next.chain(self.push_in_micros()).chain(self.users.write_in_micros());
        if self.paused { wait } else { next.fold(wait, u64::min) }
    }

    fn count(&mut self) {
        for micros in self.users.latencies.acks.drain(..) {
            self.metrics.ack_seconds.record(micros);
        }
        for micros in self.users.latencies.deliveries.drain(..) {
            self.metrics.delivery_seconds.record(micros);
        }
        let counters = self.users.counters;
        self.metrics.deliveries_total.set_total(counters.deliveries);
        self.metrics.replays_total.set_total(counters.replays);
        self.metrics.outbox_full_total.set_total(counters.outbox_full);
        self.metrics.overruns_total.set_total(counters.overruns);
        self.metrics.presence_events_total.set_total(counters.presence);
        self.metrics.busy_total.set_total(counters.busy);
        for (code, errors) in ErrorCode::ALL.into_iter().zip(counters.errors) {
            self.metrics.errors_total(code).set_total(errors);
        }
        let stored = self.logs.iter().map(OwnedLog::messages_stored).sum();
        self.metrics.messages_stored_total.set_total(stored);
        self.metrics.connections.set(self.connections.count() as u64);
        self.metrics.handshakes.set(u64::from(self.admission.handshakes()));
        self.metrics.sessions.set(self.users.sessions_count() as u64);
        self.metrics.turns_total.increment();
    }
}
