//! The groups of one size: as many blocks as there are users for, two groups of each block, and a guest of each where members change.
//!
//! Invariant: the guest of a group is none of its members.

use super::{
    RoomIndex, UserIndex,
    room::{Room, RoomKind, Stride},
};

/// Groups of one block: neighbours, and strangers from all over the circle.
const GROUPS_EACH: u32 = 2;

/// All groups of one size. The first one of each block is of neighbours.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Groups {
    /// Of each.
    pub(super) members: u32,
    /// Which share of messages goes there.
    pub(super) weight: u32,
    /// As many users as a group has members.
    blocks: u32,
    /// The number of the first one.
    first: u32,
    users: u32,
}

impl Groups {
    /// Those of so many users, the first of them numbered `first`. There are some when there are enough users for one.
    pub(super) const fn new(members: u32, weight: u32, users: u32, first: u32) -> Self {
        let blocks = if weight > 0 { users / members } else { 0 };
        Self { members, weight, blocks, first, users }
    }

    pub(super) const fn count(&self) -> u32 {
        self.blocks * GROUPS_EACH
    }

    /// The number of a room among these, if it is one.
    pub(super) fn place(&self, room: RoomIndex) -> Option<u32> {
        room.0.checked_sub(self.first).filter(|place| *place < self.count())
    }

    /// The `place`th of these.
    pub(super) const fn room(&self, place: u32) -> Room {
        let Self { members: count, blocks, .. } = *self;
        let block = place / GROUPS_EACH;
        let others = if Self::is_of_neighbours(place) {
            Stride { base: block * count, circle: count, from: 0, step: 1, count }
        } else {
            Stride { base: 0, circle: blocks * count, from: block, step: blocks, count }
        };
        Room { kind: RoomKind::Group, maker: None, others }
    }

    pub(super) const fn is_of_neighbours(place: u32) -> bool {
        place.is_multiple_of(GROUPS_EACH)
    }

    const fn is_in_a_block(&self, user: UserIndex) -> bool {
        user.0 < self.blocks * self.members
    }

    /// Those that a user is in.
    pub(super) fn of(self, user: UserIndex) -> impl Iterator<Item = RoomIndex> {
        let blocks = self.blocks.max(1);
        let neighbours = user.0 / self.members.max(1) * GROUPS_EACH;
        let strangers = user.0 % blocks * GROUPS_EACH + 1;
        let groups = [neighbours, strangers].into_iter().filter(move |_| self.is_in_a_block(user));
        groups.map(move |place| RoomIndex(self.first + place))
    }

    /// Who may become a member of the `place`th of these besides those it begins with.
    pub(super) fn guest(&self, place: u32) -> Option<UserIndex> {
        let Self { members: count, blocks, .. } = *self;
        let next = (place / GROUPS_EACH + 1) % blocks;
        match blocks {
            1 => (count < self.users).then_some(UserIndex(count)),
            // The last one of the next neighbours, and the second one of the next strangers: who makes a group is none of these.
            _ if Self::is_of_neighbours(place) => Some(UserIndex(next * count + count - 1)),
            _ => Some(UserIndex(next + blocks)),
        }
    }

    /// Those that a user is a guest of.
    pub(super) fn guested_by(self, user: UserIndex) -> impl Iterator<Item = RoomIndex> {
        let (count, blocks) = (self.members.max(1), self.blocks.max(1));
        let (of_neighbours, of_strangers) = match self.blocks {
            0 => (false, false),
            1 => (user.0 == count, user.0 == count),
            _ => {
                let is_in_a_block = self.is_in_a_block(user);
                (is_in_a_block && user.0 % count == count - 1, is_in_a_block && user.0 / blocks == 1)
            }
        };
        let before = move |block: u32| (block + blocks - 1) % blocks * GROUPS_EACH;
        let neighbours = of_neighbours.then(|| before(user.0 / count % blocks));
        let strangers = of_strangers.then(|| before(user.0 % blocks) + 1);
        neighbours.into_iter().chain(strangers).map(move |place| RoomIndex(self.first + place))
    }
}
