//! What is erased: content that goes from wherever it stands, and the segments that have yet to be written anew for it.
//!
//! An erasure is known by its **mark**, a number that grows from one to the next, and reaches up to a position: what was appended
//! later is not concerned. Which records it concerns is not known here: whoever has a segment written anew gives a [`Judge`] that
//! knows of all erasures up to a mark, and the segment then has that mark. So how far an erasure is follows from the segments, whenever it is asked.
//!
//! Invariant: the content of a segment only ever becomes less, so a mark that it once had it keeps.

use crate::log::Log;
use crate::record::Record;

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// Its content goes; its place, its links and its number, time and count stay.
    Erase,
    /// It leaves its home stream, of which nothing before it is kept either, and stays for its links; the newest record of a stream
    /// stays there.
    Leave,
    /// Both.
    EraseAndLeave,
}

/// Knows what becomes of each record of a log.
pub type Judge<'j> = dyn Fn(&Record<'_>) -> Verdict + 'j;

impl Verdict {
    pub(super) fn erases(self) -> bool {
        matches!(self, Self::Erase | Self::EraseAndLeave)
    }

    pub(super) fn leaves_home(self) -> bool {
        matches!(self, Self::Leave | Self::EraseAndLeave)
    }
}

/// Segments that an erasure has yet to go through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ErasureLeft {
    /// All of them.
    pub segments: usize,
    /// Those that are damaged, and stay as they are until that is mended.
    pub unsound: usize,
}

/// What segments have to be gone through: each erasure that is not covered by a later one that reaches as far.
#[derive(Default)]
pub(super) struct Erasing {
    /// The furthest last; marks fall.
    reaches: Vec<Reach>,
}

#[derive(Clone, Copy)]
struct Reach {
    mark: u64,
    to: u64,
}

impl Erasing {
    fn add(&mut self, mark: u64, to: u64) {
        if mark > self.mark_wanted(to) {
            self.reaches.retain(|reach| reach.to > to || reach.mark > mark);
            let place = self.reaches.partition_point(|reach| reach.to < to);
            self.reaches.insert(place, Reach { mark, to });
        }
    }

    /// The mark that a segment has to have whose first record is at this position; 0 is none.
    pub(super) fn mark_wanted(&self, first_position: u64) -> u64 {
        let place = self.reaches.partition_point(|reach| reach.to < first_position);
        self.reaches.get(place).map_or(0, |reach| reach.mark)
    }

    /// The newest; 0 is none.
    pub(super) fn newest_mark(&self) -> u64 {
        self.reaches.first().map_or(0, |reach| reach.mark)
    }
}

impl Log {
    /// An erasure reaches up to the position `to`: segments with records up to there are gone through. The one that takes appends is
    /// left for the next when all before it are, and the next is there.
    pub fn erase(&mut self, mark: u64, to: u64) {
        self.schedule.erasing.add(mark, to);
    }

    /// Position of the newest record, durable or not.
    #[must_use]
    pub fn newest_position(&self) -> u64 {
        self.next_position - 1
    }

    /// What an erasure with this mark and reach has yet to go through.
    #[must_use]
    pub fn erasure_left(&self, mark: u64, to: u64) -> ErasureLeft {
        let concerned = self.index.all_sealed().iter().take_while(|sealed| sealed.first_position <= to);
        let left = concerned.filter(|sealed| sealed.erased < mark);
        let (mut segments, mut unsound) = (self.index.open_up_to(to), 0);
        for sealed in left {
            segments += 1;
            unsound += usize::from(self.schedule.is_left_alone(sealed.base));
        }
        ErasureLeft { segments, unsound }
    }

    /// The sealed segment at `base`, of whatever generation, was gone through for all erasures up to a mark.
    pub fn restore_mark(&mut self, base: u64, mark: u64) {
        self.index.note_erased(base, mark);
    }

    /// Whether the segment that takes appends holds something that is to be gone through, and can be left.
    pub(crate) fn wants_to_leave(&self) -> bool {
        self.schedule.may_leave && self.schedule.erasing.mark_wanted(self.index.first_open_position()) > 0
    }

    /// Appends go to another segment from now on.
    pub(crate) fn note_left(&mut self) {
        self.schedule.may_leave = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_wants_the_newest_of_the_erasures_that_reach_it() {
        let mut erasing = Erasing::default();
        assert_eq!((erasing.mark_wanted(1), erasing.newest_mark()), (0, 0));
        // Marks and reaches, in the order in which they are told: at a start not that of their marks.
        for (mark, to) in [(5, 50), (7, 20), (6, 20), (4, 80), (3, 60), (9, 30)] {
            erasing.add(mark, to);
        }
        for (first, wanted) in [(1, 9), (20, 9), (30, 9), (31, 5), (50, 5), (51, 4), (80, 4), (81, 0)] {
            assert_eq!(erasing.mark_wanted(first), wanted, "from {first}");
        }
        assert_eq!((erasing.newest_mark(), erasing.reaches.len()), (9, 3));
        erasing.add(10, 80);
        assert_eq!((erasing.mark_wanted(80), erasing.reaches.len()), (10, 1));
    }
}
