//! Who is no member of a group to begin with, and may become one.
//!
//! Invariant: the guest of a group is none of its members.

use super::{GROUPS_EACH, HistoryPolicy, Plan, RoomIndex, RoomKind, UserIndex};

impl Plan {
    /// Whether the members of a room change.
    pub(crate) fn is_changing(&self, room: RoomIndex) -> bool {
        self.changes && self.room(room).kind == RoomKind::Group
    }

    /// Who may become a member of a room besides those it begins with.
    pub(crate) fn guest(&self, room: RoomIndex) -> Option<UserIndex> {
        if !self.is_changing(room) {
            return None;
        }
        let (count, blocks) = (self.mix.group_members, self.blocks);
        let group = room.0 - self.direct_count();
        let next = (group / GROUPS_EACH + 1) % blocks;
        match blocks {
            1 => (count < self.established).then_some(UserIndex(count)),
            // The last one of the next neighbours, and the second one of the next strangers: who makes a group is none of these.
            _ if group.is_multiple_of(GROUPS_EACH) => Some(UserIndex(next * count + count - 1)),
            _ => Some(UserIndex(next + blocks)),
        }
    }

    /// The groups that a user is a guest of.
    pub(super) fn guest_rooms_of(&self, user: UserIndex) -> impl Iterator<Item = RoomIndex> {
        let (count, blocks) = (self.mix.group_members, self.blocks);
        let (of_neighbours, of_strangers) = match blocks {
            1 => (user.0 == count, user.0 == count),
            _ => {
                let is_in_a_block = user.0 < blocks * count;
                (is_in_a_block && user.0 % count == count - 1, is_in_a_block && user.0 / blocks == 1)
            }
        };
        let before = |block: u32| (block + blocks - 1) % blocks * GROUPS_EACH;
        let neighbours = of_neighbours.then(|| before(user.0 / count % blocks));
        let strangers = of_strangers.then(|| before(user.0 % blocks) + 1);
        let first = self.direct_count();
        let has_guests = self.changes && blocks > 0;
        let groups = neighbours.into_iter().chain(strangers).filter(move |_| has_guests);
        groups.map(move |group| RoomIndex(first + group))
    }

    /// Whether a user is ever in a room.
    pub(crate) fn may_contain(&self, room: RoomIndex, user: UserIndex) -> bool {
        self.room(room).contains(user) || self.guest(room) == Some(user)
    }

    /// Members of a room when it has most.
    pub(crate) fn members_max(&self, room: RoomIndex) -> usize {
        self.room(room).members().len() + usize::from(self.guest(room).is_some())
    }

    /// What who joins may read. Where members change, in the groups of strangers only what comes from then on.
    pub(crate) fn history(&self, room: RoomIndex) -> HistoryPolicy {
        let is_of_strangers = |group: u32| !group.is_multiple_of(GROUPS_EACH);
        match self.is_changing(room) && is_of_strangers(room.0 - self.direct_count()) {
            true => HistoryPolicy::Joined,
            false => HistoryPolicy::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Mix;

    #[test]
    fn guests_know_their_rooms_and_are_none_of_the_members() {
        for (users, group_members) in [(12, 10), (24, 10), (20, 3), (101, 7), (100, 99), (99, 99), (200, 99)]
        {
            let mix = Mix { group_members, ..Mix::default() };
            let plan = Plan::new("t", users, mix).with_changes(true);
            let mut guests = Vec::new();
            for room in plan.rooms() {
                let guest = plan.guest(room);
                assert!(guest.is_none_or(|guest| guest.0 < users && !plan.room(room).contains(guest)));
                guests.extend(guest.map(|guest| (guest, room)));
            }
            guests.sort_unstable();
            let users = (0..users).map(UserIndex);
            let said = users.flat_map(|user| {
                let rooms = plan.rooms_of(user);
                assert!(rooms.windows(2).all(|pair| pair[0] < pair[1]), "{group_members}");
                let is_guest = |room: &RoomIndex| !plan.room(*room).contains(user);
                rooms.into_iter().filter(is_guest).map(move |room| (user, room)).collect::<Vec<_>>()
            });
            assert_eq!(said.collect::<Vec<_>>(), guests, "{group_members}");
        }
    }

    #[test]
    fn a_group_has_a_guest_where_there_is_somebody_else() {
        let plan = |users| Plan::new("t", users, Mix::default()).with_changes(true);
        let guests = |plan: &Plan| plan.rooms().filter(|room| plan.guest(*room).is_some()).count();
        assert_eq!([10, 12, 20, 24].map(|users| guests(&plan(users.max(12)))), [2, 2, 4, 4]);
        assert_eq!(guests(&plan(24).with_changes(false)), 0);
    }
}
