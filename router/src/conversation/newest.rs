//! Where the newest records of a conversation stand in its log: by that an acknowledgement, which is a position of the log, becomes a sequence of
//! the conversation. Kept of conversations that somebody views.

use std::collections::VecDeque;

use protocol::ids::{Seq, UserId};

use crate::mail::Given;

/// Records of one conversation: a device says what it has when it has been given it, so it is rarely further behind, and of who has been away for
/// longer it is known how far that one had come when somebody looked last. Half a kibibyte.
const NEWEST_MAX: usize = 64;

/// As many are read at a time: most who look find that nobody is behind, or by a few.
const READ_AT_ONCE: usize = 16;

/// What an acknowledgement says of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivered {
    /// The newest of its records that the device has.
    UpTo(Seq),
    /// The device has none of those that are known, and may have earlier ones.
    Earlier,
    Nothing,
}

/// The newest durable records of a conversation, one behind the other.
pub(super) struct Newest {
    /// Sequence of the first of them, or of the next record if there is none.
    first: Seq,
    positions: VecDeque<u64>,
    /// Who was added by one of them, and its position: that one was given nothing of what stands before.
    joined: Vec<(UserId, u64)>,
    /// Those before the first are on their way.
    is_asked: bool,
    /// There are no more to be had.
    is_all: bool,
}

impl Newest {
    /// Of a conversation with this head, of whose records none are known.
    pub(super) fn before(head: Seq) -> Self {
        let (positions, joined) = (VecDeque::new(), Vec::new());
        Self { first: Seq(head.0 + 1), positions, joined, is_asked: false, is_all: head == Seq(0) }
    }

    /// A record became durable.
    pub(super) fn push(&mut self, seq: Seq, position: u64) {
        let next = self.first.0 + self.positions.len() as u64;
        if seq.0 < next {
            return;
        }
        if seq.0 > next {
            // Nobody passes over a record; what was known would be taken for what stands beside this one.
            (self.first, self.is_all) = (seq, false);
            self.positions.clear();
        }
        self.positions.push_back(position);
        if self.positions.len() > NEWEST_MAX {
            let gone = self.positions.pop_front();
            self.first.0 += 1;
            self.joined.retain(|(_, at)| Some(*at) > gone);
            self.is_all = true;
        }
    }

    /// Somebody was added by a record at this position.
    pub(super) fn note_joined(&mut self, user: UserId, position: u64) {
        self.joined.retain(|(known, at)| *known != user || *at > position);
        self.joined.push((user, position));
    }

    /// What stands before the last one says nothing.
    pub(super) fn begin_at_last(&mut self) {
        let last = self.positions.pop_back();
        self.first.0 += self.positions.len() as u64;
        (self.positions, self.is_all) = (last.into_iter().collect(), true);
    }

    /// Somebody is no member any more.
    pub(super) fn forget(&mut self, user: &UserId) {
        self.joined.retain(|(known, _)| known != user);
    }

    /// How much of the conversation a user's devices were given, of which it is known up to `known` already.
    pub(super) fn delivered(&self, user: &UserId, given: Given, known: Seq) -> Delivered {
        let count = self.positions.partition_point(|position| *position <= given.to);
        let Some(newest) = count.checked_sub(1) else {
            let has_earlier = known.0 + 1 < self.first.0 && !self.is_all;
            return if has_earlier { Delivered::Earlier } else { Delivered::Nothing };
        };
        let position = self.positions[newest];
        let joined = self.joined.iter().filter(|(who, _)| who == user).map(|(_, at)| *at).max();
        let was_given = given.after < position && joined.is_none_or(|joined| joined <= position);
        let seq = Seq(self.first.0 + newest as u64);
        if was_given && seq > known { Delivered::UpTo(seq) } else { Delivered::Nothing }
    }

    /// The sequence before which earlier ones are to be read, and how many; they are on their way then. `None`: they are already, or there
    /// are none.
    pub(super) fn ask_earlier(&mut self) -> Option<(Seq, usize)> {
        if self.is_asked || self.is_all {
            return None;
        }
        self.is_asked = true;
        Some((self.first, READ_AT_ONCE.min(NEWEST_MAX - self.positions.len())))
    }

    /// What was asked for cannot be had now.
    pub(super) fn forget_asked(&mut self) {
        self.is_asked = false;
    }

    /// What was asked for has come, the newest record first; of what stands before one that is missing nothing is known. `is_all`: the last is the first
    /// that counts.
    pub(super) fn take_earlier(&mut self, records: impl Iterator<Item = (Seq, u64)>, is_all: bool) {
        self.is_asked = false;
        let before = self.first;
        for (seq, position) in records {
            if seq.0 + 1 != self.first.0 || self.positions.len() == NEWEST_MAX {
                self.is_all = true;
                return;
            }
            self.first = seq;
            self.positions.push_front(position);
        }
        let is_full = self.positions.len() == NEWEST_MAX;
        self.is_all |= is_all || is_full || self.first == before || self.first <= Seq(1);
    }
}
