//! Two queues of which one goes ahead of the other, within a bound: what is small, or somebody waits for, is not behind a crowd, and the
//! crowd gets its turn as well.

use std::collections::VecDeque;

/// Of what goes ahead, so many for each of what does not.
const AHEAD_MAX: u32 = 4;

/// In which of the two something waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Soon,
    Later,
}

/// Each in its order. Whoever has one bounds it.
pub(crate) struct Turns<T> {
    soon: VecDeque<T>,
    later: VecDeque<T>,
    /// Of `soon`, while some of `later` waited, since the last of those.
    went_ahead: u32,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { soon: VecDeque::new(), later: VecDeque::new(), went_ahead: 0 }
    }
}

impl<T> Turns<T> {
    pub(crate) fn push(&mut self, one: T, when: When) {
        match when {
            When::Soon => self.soon.push_back(one),
            When::Later => self.later.push_back(one),
        }
    }

    /// The next one, and where it waited.
    pub(crate) fn pop(&mut self) -> Option<(T, When)> {
        let is_their_turn = self.went_ahead >= AHEAD_MAX || self.soon.is_empty();
        if is_their_turn && let Some(one) = self.later.pop_front() {
            self.went_ahead = 0;
            return Some((one, When::Later));
        }
        self.went_ahead = if self.later.is_empty() { 0 } else { self.went_ahead + 1 };
        Some((self.soon.pop_front()?, When::Soon))
    }

    /// The first one like this goes ahead, if it did not.
    pub(crate) fn hurry(&mut self, is_it: impl Fn(&T) -> bool) {
        if let Some(place) = self.later.iter().position(is_it) {
            self.soon.extend(self.later.remove(place));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.soon.is_empty() && self.later.is_empty()
    }
}
