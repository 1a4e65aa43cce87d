//! Who is no member of a group to begin with, and may become one.

use super::{Groups, HistoryPolicy, Plan, RoomIndex, RoomKind, UserIndex};

impl Plan {
    /// Whether the members of a room change.
    pub(crate) fn is_changing(&self, room: RoomIndex) -> bool {
        self.changes && self.room(room).kind == RoomKind::Group
    }

    /// Who may become a member of a room besides those it begins with.
    pub(crate) fn guest(&self, room: RoomIndex) -> Option<UserIndex> {
        let (groups, place) = self.groups_around(room).filter(|_| self.changes)?;
        groups.guest(place)
    }

    /// The groups that a user is a guest of.
    pub(super) fn guest_rooms_of(&self, user: UserIndex) -> impl Iterator<Item = RoomIndex> {
        self.groups.iter().filter(|_| self.changes).flat_map(move |groups| groups.guested_by(user))
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
        let changing = self.groups_around(room).filter(|_| self.changes);
        match changing.is_some_and(|(_, place)| !Groups::is_of_neighbours(place)) {
            true => HistoryPolicy::Joined,
            false => HistoryPolicy::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Mix;

    fn plan(users: u32, mix: &str) -> Plan {
        Plan::new("t", users, mix.parse().expect("a mix")).with_changes(true)
    }

    #[test]
    fn guests_know_their_rooms_and_are_none_of_the_members() {
        for (users, mix) in [
            (12, "group10=1"),
            (24, "group10=1"),
            (20, "group3=1"),
            (101, "group7=1"),
            (100, "group99=1"),
            (99, "group99=1"),
            (200, "group99=1"),
            (205, "group10=1,group99=1,group100=1,group500=1"),
        ] {
            let plan = plan(users, mix);
            let mut guests = Vec::new();
            for room in plan.rooms() {
                let guest = plan.guest(room);
                assert!(guest.is_none_or(|guest| guest.0 < users && !plan.room(room).contains(guest)));
                guests.extend(guest.map(|guest| (guest, room)));
            }
            guests.sort_unstable();
            let said = (0..users).map(UserIndex).flat_map(|user| {
                let rooms = plan.rooms_of(user);
                assert!(rooms.windows(2).all(|pair| pair[0] < pair[1]), "{mix}");
                let is_guest = |room: &RoomIndex| !plan.room(*room).contains(user);
                rooms.into_iter().filter(is_guest).map(move |room| (user, room)).collect::<Vec<_>>()
            });
            assert_eq!(said.collect::<Vec<_>>(), guests, "{users} users, {mix}");
        }
    }

    #[test]
    fn a_group_has_a_guest_where_there_is_somebody_else() {
        let guests = |plan: &Plan| plan.rooms().filter(|room| plan.guest(*room).is_some()).count();
        for (users, mix, count) in
            [(12, "group12=1", 0), (12, "group10=1", 2), (20, "group10=1", 4), (24, "group10=1,group24=1", 4)]
        {
            assert_eq!(guests(&plan(users, mix)), count, "{users} users, {mix}");
        }
        assert_eq!(guests(&Plan::new("t", 24, Mix::default())), 0);
    }
}
