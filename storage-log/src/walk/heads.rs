//! The sequences that a walk has seen: whether a record is the next of its stream.
//!
//! Behind damage any stream may have lost records, so each may leave out sequences there, once. It never goes back.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::index::{Kinds, Role};
use crate::record::{Record, StreamId};

#[derive(Clone, Copy)]
struct Seen {
    seq: u64,
    /// Damaged places before it.
    jumps: u32,
}

/// Newest sequence by home stream: some 48 bytes for each conversation.
pub(crate) struct Heads {
    kinds: Kinds,
    streams: HashMap<StreamId, Seen, RandomState>,
    jumps: u32,
}

impl Heads {
    pub(crate) fn new(kinds: Kinds) -> Self {
        Self { kinds, streams: HashMap::default(), jumps: 0 }
    }

    /// Records are missing here.
    pub(crate) fn jump(&mut self) {
        self.jumps += 1;
    }

    /// Enters a record. Whether its kinds make sense and its sequence follows.
    pub(crate) fn enter(&mut self, record: &Record<'_>) -> bool {
        let links_are_links = record.links().all(|link| match self.kinds.role(link.stream.kind) {
            Some(Role::Linked(_)) => true,
            Some(Role::Amended) => record.amends(link).is_some(),
            Some(Role::Home | Role::Last(_) | Role::Runs) | None => false,
        });
        let follows = match self.kinds.role(record.stream().kind) {
            Some(Role::Home | Role::Runs) => self.follows(record),
            Some(Role::Last(_)) => true,
            Some(Role::Linked(_) | Role::Amended) | None => false,
        };
        links_are_links && follows
    }

    fn follows(&mut self, record: &Record<'_>) -> bool {
        let (seq, jumps) = (record.seq(), self.jumps);
        match self.streams.insert(record.stream(), Seen { seq, jumps }) {
            Some(before) if before.jumps == jumps => seq == before.seq + 1,
            Some(before) => seq > before.seq,
            None => seq == 1 || (jumps > 0 && seq > 0),
        }
    }
}
