//! Of which conversation the newest records of a log are, by their positions: what a device acknowledges was stored a moment ago, and need not
//! be read again to say of what it is. Rebuilt from the log before serving, as far as the ids of `recent` are.

use std::collections::VecDeque;

use protocol::ids::{ConversationId, Seq};

/// Positions of which is known what stands there: a device says every 30 s what it has, so what it speaks of is as old as that, or a
/// little more. Enough for 8,000 records a second; 8 MB.
const LATELY_MAX: usize = 1 << 18;

/// Of which conversation the newest records are that inboxes are told of.
#[derive(Default)]
pub(super) struct Lately {
    /// Position of the first.
    first: u64,
    /// One for each position from there on: nothing where there is another kind of record.
    records: VecDeque<Option<(ConversationId, Seq)>>,
}

impl Lately {
    /// The record at a position: beyond all that are known, but for those that a start reads from a cold segment, in which they are in the order of
    /// their conversations.
    pub(super) fn note(&mut self, position: u64, conversation: ConversationId, seq: Seq) {
        let end = self.first + self.records.len() as u64;
        if self.records.is_empty() || position.saturating_sub(end) as usize >= LATELY_MAX {
            self.records.clear();
            self.first = position;
        } else if position < self.first {
            let missing = (self.first - position) as usize;
            if self.records.len() + missing > LATELY_MAX {
                return;
            }
            (0..missing).for_each(|_| self.records.push_front(None));
            self.first = position;
        }
        let place = (position - self.first) as usize;
        // Before it grows beyond that: a queue of one more would take twice the memory.
        let too_many = (place + 1).saturating_sub(LATELY_MAX).min(self.records.len());
        self.records.drain(..too_many);
        self.first += too_many as u64;
        let place = place - too_many;
        if place >= self.records.len() {
            self.records.resize(place + 1, None);
        }
        self.records[place] = Some((conversation, seq));
    }

    /// The first position that is known, if any is.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.records.is_empty()).then_some(self.first)
    }

    pub(super) fn get(&self, position: u64) -> Option<(ConversationId, Seq)> {
        let place = position.checked_sub(self.first)?;
        *self.records.get(place as usize)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_positions_are_known_and_what_lies_between_is_not() {
        let mut lately = Lately::default();
        let of = |position: u64| (ConversationId([position as u8; 16]), Seq(position));
        let note = |lately: &mut Lately, position| lately.note(position, of(position).0, of(position).1);
        assert_eq!(lately.get(0), None);
        [1_001, 1_005, 1_000].into_iter().for_each(|position| note(&mut lately, position));
        for position in 998..1_008 {
            let is_known = [1_000, 1_001, 1_005].contains(&position);
            assert_eq!(lately.get(position), is_known.then(|| of(position)), "{position}");
        }
        // The oldest make room,
        let last = 1_000 + LATELY_MAX as u64;
        note(&mut lately, last);
        assert_eq!([1_000, 1_001, last].map(|position| lately.get(position).is_some()), [false, true, true]);
        assert_eq!(lately.records.len(), LATELY_MAX);
        // all of them, where what comes is far beyond them.
        let far = last + 10 * LATELY_MAX as u64;
        note(&mut lately, far);
        assert_eq!((lately.get(last), lately.get(far), lately.records.len()), (None, Some(of(far)), 1));
    }
}
