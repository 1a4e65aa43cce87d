//! What the index says of segments that an erasure goes through: see `cold/erasure.rs`.

use crate::record::StreamKind;

use super::{Index, Kinds, Role};

impl Kinds {
    /// Whether streams of a kind are linked ones: what is erased stays in these, and amends nothing any more.
    pub(crate) fn is_linked(&self, kind: StreamKind) -> bool {
        matches!(self.role(kind), Some(Role::Linked(_)))
    }
}

impl Index {
    /// Segments in memory that hold records up to a position.
    pub(crate) fn open_up_to(&self, position: u64) -> usize {
        self.open.iter().take_while(|open| open.postings.first_position <= position).count()
    }

    /// Whether every segment is sealed but the one that takes appends.
    pub(crate) fn only_one_is_open(&self) -> bool {
        self.open.len() == 1
    }

    /// Position of the first record of the segment that takes appends; one that no record has, if there is none yet.
    pub(crate) fn first_open_position(&self) -> u64 {
        self.open.back().map_or(u64::MAX, |open| open.postings.first_position)
    }

    /// A sealed segment was gone through for all erasures up to a mark.
    pub(crate) fn note_erased(&mut self, base: u64, mark: u64) {
        let number = self.number_of(base) as usize;
        if let Some(sealed) = number.checked_sub(1).and_then(|place| self.sealed.get_mut(place)) {
            sealed.erased = sealed.erased.max(mark);
        }
    }
}
