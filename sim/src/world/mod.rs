//! The world: what happens when, and what is true at the end.
//!
//! One thing after the other is taken from the queue (`queue`) and changes the world: a shard's turn, a write that ends, a client that
//! acts, the end of a process (`process`). What a run came to is judged at the end (`outcome`), and with it what is true of
//! each client then (`ends`).

mod ends;
mod outcome;
mod process;
mod queue;
mod upgrading;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use gateway::auth::{DenyList, Keys};
use gateway::shard::{Event, Shard};
use protocol::command::Token;
use protocol::ids::{ConversationId, UnixMillis, UserId};
use protocol::limits::{COMMANDS_IN_FLIGHT_MAX, FRAME_BYTES_MAX};
use router::conversation::Erased;
use router::mail::Clock;
use router::places::direct_conversation;
use router::{Places, ShardId, UserSide};
use storage_log::{Compacted, CompactionJob, WriteBatch};

use crate::Rng;
use crate::calling::{CALLED_MICROS, Calls};
use crate::client::{Client, Pass, Times};
use crate::dice::{
    AMENDING, CALLING, DEAFNESS, ERASING, FILLING, KEEPING, REVOKING, STAYING, calls, clients_of, give_dice,
    keeps, small_group_members_max,
};
use crate::disk::{Disk, geometry};
use crate::keeping;
use crate::net::Net;
use crate::node::{Bounds, Node};
use crate::oracle::Oracle;
use crate::searching::Searches;
pub(crate) use queue::Item;
use queue::Queued;

pub use outcome::Outcome;
use upgrading::Upgrade;
pub use upgrading::UpgradeCounts;

/// 2026-01-01, in milliseconds since 1970.
const BEGUN_MS: u64 = 1_767_225_600_000;

/// How long clients do as they like, in microseconds; then everything has to come to rest.
pub(crate) const BUSY_MICROS: u64 = 2_500_000;

/// From when on what was said before it was calm has come everywhere, in microseconds.
const CALM_MICROS: u64 = BUSY_MICROS + 2_000_000;

/// When an operator's order is given again that nobody could take, in microseconds.
const ORDER_MICROS: u64 = 1_000;

/// One write in so many fails.
const WRITES_PER_FAILURE: u64 = 600;

/// By when it must have, in microseconds: also where an index file is made again, fails, or rots once more, for each of which a
/// session that catches up waits a minute.
const REST_MICROS: u64 = 240_000_000;

/// By when what became durable has reached every client that reads, in microseconds: shards mail each other within a few milliseconds.
const MAIL_MICROS: u64 = 100_000;

/// What an outbox may hold beyond its limit: one page as it is rendered, and the replies to all commands of a session.
const OUTBOX_SLACK_BYTES: usize = FRAME_BYTES_MAX + 64 * COMMANDS_IN_FLIGHT_MAX * 16;

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) order: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    pub(crate) places: Arc<Places>,
    pub(crate) keys: Keys,
    /// What was revoked, as it stands on the disk.
    pub(crate) denied: DenyList,
    /// When and whom: in some worlds only.
    pub(crate) revoking: Option<Rng>,
    /// When and whose messages, likewise.
    pub(crate) erasing: Option<Rng>,
    /// Who stays away when the node has ended, likewise,
    pub(crate) staying: Option<Rng>,
    /// and until when.
    pub(crate) away: BTreeMap<UserId, u64>,
    /// When a new binary takes over, likewise,
    upgrading: Option<Rng>,
    /// how far that is, and how often it was tried.
    upgrade: Option<Upgrade>,
    pub(crate) upgrades: UpgradeCounts,
    /// Whether the disk has room for a segment: in some worlds only.
    pub(crate) filling: Option<Rng>,
    pub(crate) full: u32,
    bounds: Bounds,
    pub(crate) calls: Calls,
    pub(crate) disk: Disk,
    pub(crate) net: Net,
    pub(crate) node: Option<Node>,
    /// Starts so far: what belongs to an earlier one is void.
    pub(crate) run: u32,
    pub(crate) arrived: Vec<Vec<Event>>,
    /// When the next turn of each shard is.
    turns: Vec<Option<u64>>,
    pub(crate) users: Vec<UserId>,
    pub(crate) clients: Vec<Client>,
    pub(crate) oracle: Oracle,
    /// Since when a drain goes on: nobody connects.
    pub(crate) draining_since: Option<u64>,
    pub(crate) drains: u32,
    pub(crate) crashes: u32,
    pub(crate) failures: u32,
    pub(crate) overruns: u64,
    pub(crate) outbox_full: u64,
    pub(crate) busy: u64,
    /// Who stops reading and saying anything, and when.
    pub(crate) deaf: Option<(usize, u64)>,
    pub(crate) moved: u64,
    pub(crate) replaced: u32,
    pub(crate) index_reads: u32,
    compactions: u32,
    pub(crate) rebuilds: u32,
    /// When something last became durable,
    stored_at: u64,
    /// and when a process last began.
    begun_at: u64,
    /// How much was told at rest of what was delivered.
    pub(crate) delivered_owed: u64,
    pub(crate) expired: u64,
    pub(crate) revoked: u64,
    pub(crate) digest: u64,
}

/// The two users of each direct conversation that there may be.
pub(crate) fn direct_of(users: &[UserId]) -> BTreeMap<ConversationId, [UserId; 2]> {
    let pairs = users
        .iter()
        .flat_map(|one| users.iter().filter(move |other| *other > one).map(move |other| (one, other)));
    pairs.map(|(one, other)| (direct_conversation(one, other), [one.clone(), other.clone()])).collect()
}

/// Runs one seed to its end.
///
/// # Panics
/// When an invariant does not hold; the message names it.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    world.start();
    while let Some(Reverse(Queued(at, _, item))) = world.queue.pop() {
        world.now = at;
        world.handle(item);
        if world.is_at_rest()
            && world.has_told_lists() & world.has_searched()
            && let Some(owed) = world.has_told_delivered()
        {
            world.delivered_owed = owed;
            break;
        }
        assert!(world.now < REST_MICROS, "the world does not come to rest: something waits for ever");
    }
    world.finish()
}

/// Where things live in the world of this seed.
fn places(seed: u64, logs: u16, shards: u16) -> Places {
    Places {
        small_group_members_max: small_group_members_max(seed),
        ..Places::new([5; 16], [6; 32], logs, shards)
    }
}

/// Knows how much is kept here, and how long a day is where that is set.
fn oracle(seed: u64, places: &mut Places) -> Oracle {
    let mut oracle = Oracle::new(Bounds::of_world(seed).keep_ms);
    if keeps(seed) {
        places.retention_day = keeping::day(&mut Rng::new(seed ^ KEEPING));
        oracle.keeping.day_ms = places.retention_day.as_millis() as u64;
    }
    oracle
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let shards = rng.between(1, 4) as u16;
        let logs = rng.between(1, 4) as u16;
        let geometry = geometry(&mut rng);
        let mut places = places(seed, logs, shards);
        let mut oracle = oracle(seed, &mut places);
        let places = Arc::new(places);
        let keys = Keys::from_secret(&[9; 32]).expect("a long secret");
        let user = |number| UserId::new(&format!("user-{number}")).expect("a user");
        let users: Vec<UserId> = (0..rng.between(2, 7)).map(user).collect();
        oracle.searches = Searches::new(seed, direct_of(&users));
        let bounds = Bounds::of_world(seed);
        // As with revoking; and in some worlds that forget.
        let amends = matches!(seed % 16, 3 | 5 | 8 | 11 | 13 | 15) || seed % 64 == 46;
        let amending = amends.then_some(seed ^ AMENDING);
        let mut clients = clients_of(&users, bounds.is_tight() || amends, amending, &mut rng);
        give_dice(seed, &mut clients);
        let deaf = matches!(seed % 16, 8 | 15).then(|| Rng::new(seed ^ DEAFNESS));
        let deaf = deaf.map(|mut rng| (rng.below(clients.len() as u64) as usize, rng.below(BUSY_MICROS)));
        Self {
            disk: Disk::new(places.store, logs, geometry),
            rng,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            places,
            keys,
            denied: DenyList::default(),
            // Dice of its own, so that it can be added without changing the others.
            revoking: matches!(seed % 8, 3 | 5).then(|| Rng::new(seed ^ REVOKING)),
            erasing: matches!(seed % 16, 5 | 8 | 13).then(|| Rng::new(seed ^ ERASING)),
            filling: matches!(seed % 16, 3 | 11 | 13).then(|| Rng::new(seed ^ FILLING)),
            staying: matches!(seed % 16, 5 | 15).then(|| Rng::new(seed ^ STAYING)),
            away: BTreeMap::new(),
            upgrading: upgrading::dice(seed),
            upgrade: None,
            upgrades: UpgradeCounts::default(),
            full: 0,
            calls: Calls::new(calls(seed).then(|| Rng::new(seed ^ CALLING))),
            net: Net::default(),
            node: None,
            run: 0,
            arrived: Vec::new(),
            turns: Vec::new(),
            users,
            clients,
            oracle,
            bounds,
            draining_since: None,
            drains: 0,
            crashes: 0,
            failures: 0,
            overruns: 0,
            outbox_full: 0,
            busy: 0,
            deaf,
            moved: 0,
            replaced: 0,
            index_reads: 0,
            compactions: 0,
            rebuilds: 0,
            stored_at: 0,
            begun_at: 0,
            delivered_owed: 0,
            expired: 0,
            revoked: 0,
            digest: 0,
        }
    }

    fn start(&mut self) {
        self.restart();
        for client in 0..self.clients.len() {
            let delay = self.rng.below(50_000);
            self.later(delay, Item::Act(client));
        }
        for _ in 0..self.rng.below(4) {
            let at = self.rng.below(BUSY_MICROS);
            let how = if self.rng.one_in(3) { Item::Drain } else { Item::Crash };
            self.later(at, how);
        }
        let times = self
            .revoking
            .as_mut()
            .map(|rng| (0..rng.between(1, 4)).map(|_| rng.below(BUSY_MICROS)).collect::<Vec<_>>());
        times.into_iter().flatten().for_each(|at| self.later(at, Item::Revoke(None)));
        self.begin_calling();
        self.begin_erasing();
        self.begin_upgrading();
    }

    pub(crate) fn unix(&self) -> UnixMillis {
        UnixMillis(BEGUN_MS + self.now / 1_000)
    }

    /// A token for a client, from now on.
    pub(crate) fn pass(&self, client: usize, seconds: u64) -> Pass {
        let issuer = self.keys.issuer.as_ref().expect("a secret signs");
        let token = issuer.issue(&self.clients[client].user, Duration::from_secs(seconds), self.unix());
        let token = Token::new(&token).expect("a token");
        let issued = self.unix().0 / 1_000;
        let times = Times { issued_at: issued as u32, expires_at: (issued + seconds) * 1_000 };
        Pass { token, times }
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.now >= BUSY_MICROS
    }

    fn is_at_rest(&self) -> bool {
        self.now > BUSY_MICROS + 3_000_000
            && self.now > self.stored_at + MAIL_MICROS
            && (self.calls.dice.is_none() || self.now > self.stored_at.max(self.begun_at) + CALLED_MICROS)
            && self.upgrade.is_none()
            && self.node.as_ref().is_some_and(|node| self.has_nothing_to_do(node))
            && self.listening().all(|(_, client)| client.is_settled())
            && self
                .net
                .pipes
                .iter()
                .all(|pipe| pipe.server_ended || pipe.to_client.is_empty() || self.is_deaf(pipe.client))
    }

    /// Every session but that of who does not read is live, and every credit is back.
    fn has_nothing_to_do(&self, node: &Node) -> bool {
        let users = || node.shards.iter().map(Shard::users);
        users().map(UserSide::behind_count).sum::<usize>() <= usize::from(self.deaf.is_some())
            && users().all(|users| users.requests_under_way() == 0)
    }

    pub(crate) fn is_deaf(&self, client: usize) -> bool {
        self.deaf.is_some_and(|(deaf, from)| deaf == client && from <= self.now)
    }

    /// All clients that read.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (usize, &Client)> {
        self.clients.iter().enumerate().filter(|(index, _)| !self.is_deaf(*index))
    }

    fn handle(&mut self, item: Item) {
        let now = self.unix().0;
        (self.oracle.reads.now, self.oracle.mutes.now_ms, self.oracle.tokens.now) = (now, now, now);
        (self.oracle.invisibles.now_ms, self.oracle.invisibles.is_calm) = (now, self.now > CALM_MICROS);
        match item {
            Item::Act(client) => self.act(client),
            Item::Crash => self.crash(),
            Item::Drain => self.drain(),
            Item::Event { run, shard, event } if run == self.run => {
                self.arrived[shard].push(event);
                // Several events may come in one turn.
                let delay = self.rng.below(30);
                self.ask_turn(shard, delay);
            }
            Item::Compact { run, log, shard, job, erased } if run == self.run => {
                self.compact(log, shard, &job, &erased);
            }
            Item::Pump { run, pipe } if run == self.run => self.pump(pipe),
            Item::Push { run, shard, batch } if run == self.run => self.end_push(shard, &batch),
            Item::ReadClient(client) => self.read_client(client),
            Item::Restart => self.restart(),
            Item::Erase | Item::Revoke(_) if self.stands_still() => self.later(ORDER_MICROS, item),
            Item::Erase => self.erase(),
            Item::Revoke(user) => self.revoke(user),
            Item::Upgrade => self.begin_upgrade(),
            Item::LookUpgrade { run } if run == self.run => self.look_upgrade(),
            Item::Turn { run, shard }
                if run == self.run && self.node.is_some() && self.turns[shard] == Some(self.now) =>
            {
                self.turn(shard);
            }
            Item::WriteDone { run, log, shard } if run == self.run => self.end_write(log, shard),
            Item::Compact { .. }
            | Item::Event { .. }
            | Item::LookUpgrade { .. }
            | Item::Pump { .. }
            | Item::Push { .. }
            | Item::Turn { .. }
            | Item::WriteDone { .. } => {}
        }
    }

    /// A cold segment takes the place of another: at once, and a little later its shard knows.
    fn compact(&mut self, log: u16, shard: usize, job: &CompactionJob, erased: &Erased) {
        let is_failed = self.rng.one_in(8);
        let compacted = if is_failed { Compacted::Failed } else { self.disk.compact(log, job, erased) };
        self.compactions += u32::from(matches!(compacted, Compacted::Made(_)));
        let delay = self.rng.between(10, 50_000);
        self.event(shard, delay, Event::Compacted { log, base: job.base, compacted });
    }

    /// A batch is synced, or once in a while it is not: then the log stops and the node is told to go.
    fn end_write(&mut self, log: u16, shard: usize) {
        let fails = !self.is_calm() && self.rng.one_in(WRITES_PER_FAILURE);
        let batch = if fails {
            self.failures += 1;
            self.later(100_000, Item::Drain);
            self.disk.fail_write(log, &mut self.rng)
        } else {
            let batch = self.disk.end_write(log);
            self.enter(log, &batch);
            batch
        };
        self.event(shard, 0, Event::Written { log, buffer: batch.buffer, synced: !fails });
    }

    /// Tells the oracle what a batch made durable.
    fn enter(&mut self, log: u16, batch: &WriteBatch) {
        let mut at = storage_log::format::BATCH_HEADER_BYTES;
        while let Ok(record) =
            storage_log::Record::parse(&batch.buffer.bytes()[at..], batch.segment + batch.offset + at as u64)
        {
            self.oracle.enter(log, &record);
            // Of who stays it is written again and again.
            if record.stream().kind.0 != protocol::record::StreamKind::Sightings as u8 {
                self.stored_at = self.now;
            }
            at += record.bytes_in_log();
        }
    }

    /// The next turn of a shard comes no later than this. There is one that it waits for, as a thread waits for its ring: a world in which every event
    /// brought turns of its own would hide who forgets to wake a shard, and what it forgets to wait for.
    pub(crate) fn ask_turn(&mut self, shard: usize, delay: u64) {
        let (run, at) = (self.run, self.now + delay);
        if self.turns[shard].is_none_or(|next| at < next) {
            self.turns[shard] = Some(at);
            self.later(delay, Item::Turn { run, shard });
        }
    }

    fn turn(&mut self, index: usize) {
        self.turns[index] = None;
        let clock = Clock { unix: self.unix(), micros: self.now };
        let node = self.node.as_mut().expect("the caller looked");
        let id = ShardId(index as u16);
        node.mesh.wake_up(id);
        let mut events = std::mem::take(&mut self.arrived[index]);
        let mut actions = Vec::new();
        node.shards[index].turn(clock, &mut events, &mut actions);
        for user in self.users.iter().filter(|user| self.places.home_of(user) == id) {
            let is_here = node.shards[index].users().connections_of(user).next().is_some();
            self.oracle.seen.note(user, is_here, clock.unix);
        }
        let held = node.shards[index].users().largest_outbox();
        let most = self.bounds.users.outbox_bytes_max + OUTBOX_SLACK_BYTES;
        assert!(held <= most, "bounded: an outbox holds {held} bytes of {most}");
        let wait = node.shards[index].wait_micros();
        let asleep = node.mesh.fall_asleep(id);
        for action in actions {
            self.execute(index, action);
        }
        let delay = if asleep { wait } else { self.rng.between(1, 60) };
        self.ask_turn(index, delay);
        self.end_drain_if_done();
    }
}
