//! What one user has seen of each of its conversations, over all its connections.
//!
//! ```text
//!   0 .. saved .. at .. seen        saved <= at, saved <= seen
//! ```
//! A connection goes on from where the cursor it gave stands (`saved`) and must then be dense. What lies
//! at or below `seen` is a replay.
//!
//! Where members change, what a reader sees is dense from the record by which it joins to the one by which it leaves, both of which it is
//! told, and there is nothing in between two such stays. That these are those of the log is judged when that has been read.

use serde::{Deserialize, Serialize};

use super::Stay;
use crate::plan::RoomIndex;

/// Where a reader stands in one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stand {
    pub(crate) room: RoomIndex,
    /// The last sequence of this connection.
    pub(crate) at: u64,
    /// The highest sequence of all connections.
    pub(crate) seen: u64,
    /// The last sequence before the newest cursor.
    pub(crate) saved: u64,
}

/// What a sequence was to this reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// At or below the last one of this connection: `expected` was next.
    Back { expected: u64 },
    /// The next one, never seen before.
    New,
    /// The reader is no member.
    NoMember,
    /// It is no member at the time.
    Outside,
    /// The next one, seen on an earlier connection.
    Replayed,
    /// Beyond the next one: `expected` to it are missing.
    Skipped { expected: u64 },
}

/// A conversation that one has left at least once, or is a guest of.
#[derive(Clone, Debug)]
struct Membership {
    room: RoomIndex,
    is_in: bool,
    /// As it was before the newest cursor.
    saved_is_in: bool,
    /// When it was in it, the newest last.
    stays: Vec<Stay>,
}

/// One user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    stands: Vec<Stand>,
    /// Who never leaves anything has none.
    memberships: Vec<Membership>,
}

impl Reader {
    /// Of `rooms`, all of them still empty; a member of each but those that it is a guest of.
    pub(crate) fn new(rooms: &[RoomIndex], is_guest: impl Fn(RoomIndex) -> bool) -> Self {
        let stands = rooms.iter().map(|room| Stand { room: *room, at: 0, seen: 0, saved: 0 });
        let guested = rooms.iter().filter(|room| is_guest(**room));
        let outside = |room: &RoomIndex| Membership {
            room: *room,
            is_in: false,
            saved_is_in: false,
            stays: Vec::new(),
        };
        Self { stands: stands.collect(), memberships: guested.map(outside).collect() }
    }

    /// A record arrives by which this reader joins.
    pub(crate) fn handle_join(&mut self, room: RoomIndex, seq: u64) {
        let Some(stand) = self.stands.iter_mut().find(|stand| stand.room == room) else { return };
        let Some(membership) = self.memberships.iter_mut().find(|one| one.room == room) else { return };
        if membership.is_in {
            return;
        }
        membership.is_in = true;
        // What was in between was for others.
        stand.at = seq.saturating_sub(1);
        if seq > stand.seen {
            membership.stays.push(Stay { from: seq, until: None });
        }
    }

    /// A record has arrived by which this reader left.
    pub(crate) fn handle_leave(&mut self, room: RoomIndex, seq: u64) {
        if !self.memberships.iter().any(|one| one.room == room) {
            let stays = vec![Stay { from: 1, until: None }];
            self.memberships.push(Membership { room, is_in: true, saved_is_in: true, stays });
        }
        let Some(membership) = self.memberships.iter_mut().find(|one| one.room == room) else { return };
        membership.is_in = false;
        // Told again it changes nothing.
        if let Some(stay) = membership.stays.last_mut().filter(|stay| stay.from <= seq) {
            stay.until.get_or_insert(seq);
        }
    }

    /// Whether it is in a room, as far as it has been told.
    pub(crate) fn is_in(&self, room: RoomIndex) -> bool {
        self.memberships.iter().find(|one| one.room == room).is_none_or(|one| one.is_in)
    }

    /// Since when it was in a room at `seq`.
    pub(crate) fn joined(&self, room: RoomIndex, seq: u64) -> u64 {
        let membership = self.memberships.iter().find(|one| one.room == room);
        let stays = membership.into_iter().flat_map(|one| &one.stays);
        stays.filter(|stay| stay.from <= seq).map(|stay| stay.from).max().unwrap_or(1)
    }

    /// When it was in a room by what it was told, up to the last sequence that it was told.
    pub(crate) fn stays(&self, room: RoomIndex) -> Vec<Stay> {
        let Some(stand) = self.stands.iter().find(|stand| stand.room == room) else { return Vec::new() };
        let mut stays = match self.memberships.iter().find(|one| one.room == room) {
            Some(membership) => membership.stays.clone(),
            None => vec![Stay { from: 1, until: None }],
        };
        if let Some(last) = stays.last_mut() {
            last.until.get_or_insert(stand.at);
        }
        stays
    }

    /// A sequence arrived. After a mistake the reader goes on from there, so that one mistake is told once.
    pub(crate) fn handle_item(&mut self, room: RoomIndex, seq: u64) -> Receipt {
        let is_in = self.is_in(room);
        let Some(stand) = self.stands.iter_mut().find(|stand| stand.room == room) else {
            return Receipt::NoMember;
        };
        if !is_in {
            return Receipt::Outside;
        }
        let expected = stand.at + 1;
        let is_new = seq > stand.seen;
        stand.at = seq;
        stand.seen = stand.seen.max(seq);
        match seq {
            _ if seq > expected => Receipt::Skipped { expected },
            _ if seq < expected => Receipt::Back { expected },
            _ if is_new => Receipt::New,
            _ => Receipt::Replayed,
        }
    }

    /// The node said that the sequences up to `seq` do not come.
    pub(crate) fn handle_passed_over(&mut self, room: RoomIndex, seq: u64) {
        if let Some(stand) = self.stands.iter_mut().find(|stand| stand.room == room) {
            stand.at = stand.at.max(seq);
            stand.seen = stand.seen.max(seq);
        }
    }

    /// A cursor arrived, which stands for everything before it.
    pub(crate) fn save(&mut self) {
        for stand in &mut self.stands {
            stand.saved = stand.at;
        }
        for membership in &mut self.memberships {
            membership.saved_is_in = membership.is_in;
        }
    }

    /// A new connection begins, with the newest cursor.
    pub(crate) fn reopen(&mut self) {
        for stand in &mut self.stands {
            stand.at = stand.saved;
        }
        for membership in &mut self.memberships {
            membership.is_in = membership.saved_is_in;
        }
    }

    pub(crate) fn stands(&self) -> &[Stand] {
        &self.stands
    }
}
