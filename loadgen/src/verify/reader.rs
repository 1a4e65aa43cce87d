//! What one user has seen of each of its conversations, over all its connections.
//!
//! ```text
//!   0 .. saved .. at .. seen        saved <= at, saved <= seen
//! ```
//! A connection goes on from where the cursor it gave stands (`saved`) and must then be dense. What lies
//! at or below `seen` is a replay.

use serde::{Deserialize, Serialize};

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
    /// The next one, seen on an earlier connection.
    Replayed,
    /// Beyond the next one: `expected` to it are missing.
    Skipped { expected: u64 },
}

/// One user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    stands: Vec<Stand>,
}

impl Reader {
    /// A member of `rooms`, all of them still empty.
    pub(crate) fn new(rooms: &[RoomIndex]) -> Self {
        let stands = rooms.iter().map(|room| Stand { room: *room, at: 0, seen: 0, saved: 0 });
        Self { stands: stands.collect() }
    }

    /// A sequence arrived. After a mistake the reader goes on from there, so that one mistake is told once.
    pub(crate) fn handle_item(&mut self, room: RoomIndex, seq: u64) -> Receipt {
        let Some(stand) = self.stands.iter_mut().find(|stand| stand.room == room) else {
            return Receipt::NoMember;
        };
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
    }

    /// A new connection begins, with the newest cursor.
    pub(crate) fn reopen(&mut self) {
        for stand in &mut self.stands {
            stand.at = stand.saved;
        }
    }

    pub(crate) fn stands(&self) -> &[Stand] {
        &self.stands
    }
}
