//! One conversation: who is in it, as arithmetic.

use super::UserIndex;

/// How a conversation is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoomKind {
    /// By the first message.
    Direct,
    /// By `create`, and written to on schedule.
    Group,
    /// By `create`: its first member writes when it is told to, a crowd reads.
    Hall,
}

/// One conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) kind: RoomKind,
    /// Who makes it, where that is none of `others`.
    pub(super) maker: Option<UserIndex>,
    pub(super) others: Stride,
}

/// Every `step`th of `circle` users that begin at `base`, `count` of them, the first one at `from`. `circle` is a multiple of `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stride {
    pub(super) base: u32,
    pub(super) circle: u32,
    pub(super) from: u32,
    pub(super) step: u32,
    pub(super) count: u32,
}

impl Stride {
    const fn at(self, place: u32) -> UserIndex {
        UserIndex(self.base + (self.from + place * self.step) % self.circle)
    }

    fn contains(self, user: UserIndex) -> bool {
        let Some(place) = user.0.checked_sub(self.base).filter(|place| *place < self.circle) else {
            return false;
        };
        let distance = (place + self.circle - self.from % self.circle) % self.circle;
        distance.is_multiple_of(self.step) && distance / self.step < self.count
    }
}

impl Room {
    /// All of them, who makes it first.
    pub(crate) fn members(self) -> impl ExactSizeIterator<Item = UserIndex> {
        let shift = u32::from(self.maker.is_some());
        (0..shift + self.others.count).map(move |place| match self.maker {
            Some(maker) if place == 0 => maker,
            _ => self.others.at(place - shift),
        })
    }

    pub(crate) fn maker(self) -> UserIndex {
        self.maker.unwrap_or(self.others.at(0))
    }

    /// All but `user`.
    pub(crate) fn others_than(self, user: UserIndex) -> impl Iterator<Item = UserIndex> {
        self.members().filter(move |member| *member != user)
    }

    pub(crate) fn contains(self, user: UserIndex) -> bool {
        self.maker == Some(user) || self.others.contains(user)
    }
}
