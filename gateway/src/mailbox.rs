//! Mailboxes between shards: bounded, first in first out, and without a way to deadlock.
//!
//! Per ordered pair of shards there are two rings. *Requests* holds what takes a credit, so it always has room.
//! *Replies* holds replies and deliveries together, in order; as many of its places as there are credits are kept for
//! replies, so a reply always has room too. Only a delivery can find none: then it is dropped, and none is enqueued
//! behind it before a note has gone ahead that says whose sessions have to read the log instead. No shard ever waits
//! for another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use protocol::command::Connect;
use protocol::ids::{RequestId, UserId};
use protocol::session::Session;
use router::ShardId;
use router::mail::{PUSH_LOOKUPS, Reply, Request, SIGHTINGS};
use router::places::LOGS_MAX;
use router::user::{COMMAND_CREDITS, PAGE_CREDITS};

use crate::auth::Verified;
use crate::shard::Peer;

/// Connections on their way from one shard to another.
pub const MOVE_CREDITS: u32 = 256;

/// Places for deliveries in one ring of replies, of two shards: 40 ms of a busy pair. Beyond it the log feeds the readers.
const DELIVER_PLACES: usize = 8192;

/// And however many shards there are.
const DELIVER_PLACES_MIN: usize = 1024;

/// Places for deliveries from one shard to another. A shard is given as much by many as by one, so each pair needs less:
/// or the memory of all pairs would grow with the square of the shards.
#[must_use]
pub fn deliver_places(shards: u16) -> usize {
    let others = usize::from(shards).saturating_sub(1).max(1);
    (DELIVER_PLACES / others).max(DELIVER_PLACES_MIN)
}

/// Users that a note names; with more, everybody at that shard reads the log. That is each session's page of this log from an owner which is
/// behind already, so it is for when most of a shard missed something: of some ten thousand users, not of a thousand.
const NOTED_USERS_MAX: usize = 4096;

/// Everything about a connection but its descriptor.
pub struct Move {
    /// Names the move.
    pub migration: u64,
    /// Codec and phase.
    pub codec: Session,
    /// Whose it is, and until when.
    pub verified: Verified,
    /// The number of the `connect`.
    pub id: RequestId,
    /// The `connect`.
    pub connect: Connect,
    /// What was pipelined behind it.
    pub leftover: Vec<u8>,
    /// Who is at the other end, where that is kept.
    pub peer: Option<Peer>,
}

/// What goes with a credit.
pub enum Forward {
    /// A router's request.
    Request(Request),
    /// A connection whose descriptor follows, or has arrived already.
    Move(Box<Move>),
    /// That descriptor will not come.
    CancelMove(u64),
}

/// What comes back.
pub enum Back {
    /// A router's reply or delivery.
    Reply(Reply),
    /// A move has ended, one way or the other: its credit is free.
    Moved,
}

struct Lane {
    requests: ArrayQueue<Forward>,
    replies: ArrayQueue<Back>,
}

const REPLY_CREDITS: usize = (COMMAND_CREDITS + PAGE_CREDITS + MOVE_CREDITS) as usize;

impl Lane {
    fn new(deliver_places: usize) -> Self {
        // A move may be followed by its cancellation before either is read.
        // Of each log one mail of signals is under way, one of sightings, and one answer to each; and as many look-ups of push tokens
        // and of sightings as there may be.
        let logs = usize::from(LOGS_MAX);
        let requests = REPLY_CREDITS + MOVE_CREDITS as usize + 2 * logs + PUSH_LOOKUPS + SIGHTINGS;
        let replies = REPLY_CREDITS + deliver_places + 3 * logs + PUSH_LOOKUPS + SIGHTINGS;
        Self { requests: ArrayQueue::new(requests), replies: ArrayQueue::new(replies) }
    }
}

/// The lanes between all shards of a node, and who of them sleeps.
pub struct Mesh {
    shards: usize,
    deliver_places: usize,
    /// `lanes[source * shards + target]`.
    lanes: Vec<Lane>,
    sleeping: Vec<CachePadded<AtomicBool>>,
    /// Shards of a node that drains which have nothing left to do for themselves.
    at_rest: Vec<AtomicBool>,
    /// Shards that have nothing under way behind their sessions.
    background_done: Vec<AtomicBool>,
    /// Shards that stand still with nothing under way.
    settled: Vec<AtomicBool>,
}

impl Mesh {
    /// The lanes of `shards` shards, with `deliver_places` places for deliveries in each: [`deliver_places`], unless a
    /// test wants to see it full.
    #[must_use]
    pub fn new(shards: u16, deliver_places: usize) -> Arc<Self> {
        let shards = usize::from(shards);
        let lanes = (0..shards * shards).map(|_| Lane::new(deliver_places)).collect();
        let sleeping = (0..shards).map(|_| CachePadded::new(AtomicBool::new(false))).collect();
        let flags = || (0..shards).map(|_| AtomicBool::new(false)).collect();
        let (at_rest, background_done, settled) = (flags(), flags(), flags());
        Arc::new(Self { shards, deliver_places, lanes, sleeping, at_rest, background_done, settled })
    }

    fn lane(&self, source: ShardId, target: ShardId) -> &Lane {
        &self.lanes[source.index() * self.shards + target.index()]
    }

    /// Says that `shard` is about to wait. Returns false when mail has come meanwhile: then it must not wait.
    #[must_use]
    pub fn fall_asleep(&self, shard: ShardId) -> bool {
        // SeqCst on both sides: either the sender sees the flag, or the sleeper sees the mail.
        self.sleeping[shard.index()].store(true, Ordering::SeqCst);
        let quiet = (0..self.shards).all(|source| {
            let lane = self.lane(ShardId(source as u16), shard);
            lane.requests.is_empty() && lane.replies.is_empty()
        });
        if !quiet {
            self.sleeping[shard.index()].store(false, Ordering::Relaxed);
        }
        quiet
    }

    /// Says that `shard` is awake.
    pub fn wake_up(&self, shard: ShardId) {
        self.sleeping[shard.index()].store(false, Ordering::Relaxed);
    }

    /// Says of a shard that is to stand still how far it is.
    pub fn report(&self, shard: ShardId, background_done: bool, settled: bool) {
        let all = [(&self.background_done, background_done), (&self.settled, settled)];
        for (flags, now) in all {
            let flag = &flags[shard.index()];
            // Said each turn: what stays is not written, or shards would take the line from each other.
            if flag.load(Ordering::Relaxed) != now {
                flag.store(now, Ordering::Release);
            }
        }
    }

    /// Whether nothing goes on behind the sessions of any shard.
    #[must_use]
    pub fn is_background_done(&self) -> bool {
        self.background_done.iter().all(|done| done.load(Ordering::Acquire))
    }

    /// Whether all shards have said that they stand still, and nothing is on its way between them. One may just have taken what was: it
    /// holds if it still does after each has had another turn.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let all = || self.settled.iter().all(|settled| settled.load(Ordering::Acquire));
        let empty = || self.lanes.iter().all(|lane| lane.requests.is_empty() && lane.replies.is_empty());
        all() && empty()
    }

    /// Whether `shard` sleeps and nobody has rung yet: then the caller rings.
    #[must_use]
    pub fn must_ring(&self, shard: ShardId) -> bool {
        self.sleeping[shard.index()].swap(false, Ordering::SeqCst)
    }
}

/// A note that waits for room: whose deliveries of one log were dropped.
struct Note {
    log: u16,
    /// In one order, so that what becomes of a seed is the same twice.
    users: Option<BTreeSet<UserId>>,
}

/// One shard's end of the mesh.
pub struct Mailboxes {
    mesh: Arc<Mesh>,
    me: ShardId,
    notes: Vec<Vec<Note>>,
    posted: Vec<bool>,
    /// Deliveries that found no room.
    pub dropped: u64,
}

impl Mailboxes {
    /// The end of `me`.
    #[must_use]
    pub fn new(mesh: Arc<Mesh>, me: ShardId) -> Self {
        let shards = mesh.shards;
        let notes = (0..shards).map(|_| Vec::new()).collect();
        Self { mesh, me, notes, posted: vec![false; shards], dropped: 0 }
    }

    /// Other shards.
    pub fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.me;
        (0..self.mesh.shards as u16).map(ShardId).filter(move |shard| *shard != me)
    }

    /// Sends what holds a credit.
    pub fn post(&mut self, target: ShardId, forward: Forward) {
        let pushed = self.mesh.lane(self.me, target).requests.push(forward);
        assert!(pushed.is_ok(), "a credit is a place");
        self.posted[target.index()] = true;
    }

    /// Sends a reply or a delivery. A delivery without room is dropped and noted.
    pub fn reply(&mut self, target: ShardId, back: Back) {
        self.post_notes(target);
        if let Back::Reply(Reply::Deliver(deliver)) = &back {
            let lane = self.mesh.lane(self.me, target);
            let full = lane.replies.len() >= self.mesh.deliver_places;
            if full || !self.notes[target.index()].is_empty() {
                self.dropped += 1;
                return note(&mut self.notes[target.index()], deliver.log, &deliver.users);
            }
        }
        let pushed = self.mesh.lane(self.me, target).replies.push(back);
        assert!(pushed.is_ok(), "places are kept for replies");
        self.posted[target.index()] = true;
    }

    /// Whether news that is nobody's reply has room: as a delivery has, and behind the notes.
    #[must_use]
    pub fn has_room(&self, target: ShardId) -> bool {
        let lane = self.mesh.lane(self.me, target);
        self.notes[target.index()].is_empty() && lane.replies.len() < self.mesh.deliver_places
    }

    /// Sends the notes that wait for `target`, once deliveries have room again.
    pub fn post_notes(&mut self, target: ShardId) {
        let notes = &mut self.notes[target.index()];
        let lane = self.mesh.lane(self.me, target);
        if notes.is_empty() || lane.replies.len() >= self.mesh.deliver_places {
            return;
        }
        for Note { log, users } in notes.drain(..) {
            let users = users.map(|users| users.into_iter().collect());
            let pushed = lane.replies.push(Back::Reply(Reply::Overrun { log, users }));
            assert!(pushed.is_ok(), "one place a log is kept for notes");
        }
        self.posted[target.index()] = true;
    }

    /// Whether notes wait for room somewhere: then look again soon.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        self.notes.iter().any(|notes| !notes.is_empty())
    }

    /// Says whether this shard has anything left to do for itself. Until that holds for all of them, each answers the
    /// others.
    pub fn set_at_rest(&self, at_rest: bool) {
        self.mesh.at_rest[self.me.index()].store(at_rest, Ordering::Release);
    }

    /// Whether no shard has anything left to do.
    #[must_use]
    pub fn all_at_rest(&self) -> bool {
        self.mesh.at_rest.iter().all(|at_rest| at_rest.load(Ordering::Acquire))
    }

    /// Whether something waits here to be taken.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.others().any(|source| {
            let lane = self.mesh.lane(source, self.me);
            !lane.requests.is_empty() || !lane.replies.is_empty()
        })
    }

    /// The next request from `source`.
    pub fn take_request(&self, source: ShardId) -> Option<Forward> {
        self.mesh.lane(source, self.me).requests.pop()
    }

    /// The next reply or delivery from `source`.
    pub fn take_reply(&self, source: ShardId) -> Option<Back> {
        self.mesh.lane(source, self.me).replies.pop()
    }

    /// Shards that were sent something in this turn and sleep.
    pub fn take_doorbells(&mut self, rings: &mut Vec<ShardId>) {
        for (target, posted) in self.posted.iter_mut().enumerate() {
            let target = ShardId(target as u16);
            if std::mem::take(posted) && self.mesh.must_ring(target) {
                rings.push(target);
            }
        }
    }
}

fn note(notes: &mut Vec<Note>, log: u16, dropped: &[UserId]) {
    let place = notes.iter().position(|note| note.log == log).unwrap_or_else(|| {
        notes.push(Note { log, users: Some(BTreeSet::new()) });
        notes.len() - 1
    });
    let Some(users) = &mut notes[place].users else {
        return;
    };
    users.extend(dropped.iter().cloned());
    if users.len() > NOTED_USERS_MAX {
        notes[place].users = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use router::mail::Deliver;

    fn deliver(position: u64) -> Back {
        deliver_to(vec![UserId::new("bob").expect("a user")], position)
    }

    fn deliver_to(users: Vec<UserId>, position: u64) -> Back {
        let users = Arc::from(users);
        let record = Bytes::from_static(b"record");
        Back::Reply(Reply::Deliver(Deliver { log: 0, position, record, users, asked_micros: 0 }))
    }

    #[test]
    fn a_delivery_without_room_is_noted_ahead_of_the_next_and_replies_always_fit() {
        let mesh = Mesh::new(2, 64);
        let mut source = Mailboxes::new(mesh.clone(), ShardId(0));
        let target = Mailboxes::new(mesh, ShardId(1));
        for position in 0..64 + 10 {
            source.reply(ShardId(1), deliver(position));
        }
        assert_eq!(source.dropped, 10);
        (0..REPLY_CREDITS).for_each(|_| source.reply(ShardId(1), Back::Moved));
        for _ in 0..64 + REPLY_CREDITS {
            target.take_reply(ShardId(0)).expect("enqueued");
        }
        source.reply(ShardId(1), deliver(99_999));
        let Some(Back::Reply(Reply::Overrun { log: 0, users: Some(users) })) = target.take_reply(ShardId(0))
        else {
            panic!("the note goes first");
        };
        assert_eq!(users.len(), 1);
        let Some(Back::Reply(Reply::Deliver(next))) = target.take_reply(ShardId(0)) else {
            panic!("then the delivery");
        };
        assert_eq!(next.position, 99_999);
    }

    /// Who the note names of a delivery that found no room, to so many users twice.
    fn noted(count: usize) -> Option<usize> {
        let mesh = Mesh::new(2, 1);
        let mut source = Mailboxes::new(mesh.clone(), ShardId(0));
        let target = Mailboxes::new(mesh, ShardId(1));
        source.reply(ShardId(1), deliver(0));
        let users: Vec<_> = (0..count).map(|user| UserId::new(&user.to_string()).expect("a user")).collect();
        (1..=2).for_each(|position| source.reply(ShardId(1), deliver_to(users.clone(), position)));
        target.take_reply(ShardId(0)).expect("it had room");
        source.post_notes(ShardId(1));
        let Some(Back::Reply(Reply::Overrun { log: 0, users })) = target.take_reply(ShardId(0)) else {
            panic!("a note");
        };
        users.map(|users| users.len())
    }

    #[test]
    fn a_note_names_each_once_and_everybody_where_there_are_too_many() {
        assert_eq!(noted(NOTED_USERS_MAX), Some(NOTED_USERS_MAX));
        assert_eq!(noted(NOTED_USERS_MAX + 1), None);
    }

    #[test]
    fn nobody_falls_asleep_on_mail() {
        let mesh = Mesh::new(2, DELIVER_PLACES);
        let mut source = Mailboxes::new(mesh.clone(), ShardId(0));
        let mut rings = Vec::new();
        assert!(mesh.fall_asleep(ShardId(1)));
        source.reply(ShardId(1), Back::Moved);
        source.take_doorbells(&mut rings);
        assert_eq!(rings, [ShardId(1)], "it slept before");
        mesh.wake_up(ShardId(1));
        assert!(!mesh.fall_asleep(ShardId(1)), "mail came before");
    }
}
