//! Who talks with whom: users, direct conversations and groups, as a pure function of a few numbers.
//!
//! Every process of a run computes the same plan, so none has to be told what another one does, and none has to keep it: a million users
//! and their rooms take no memory. Names carry the tag of the run, so two runs against one node never meet.
//!
//! Rooms are numbered: four direct conversations of each user, then two groups of each block, size by size, then the halls of a crowd.
//!
//! Where members change, each group has a guest beside its members: a user who is not in it to begin with, so that a group of 99 becomes one
//! of 100.
//!
//! Invariant: the members of a room are distinct, and its first member is the one who makes it.

mod groups;
mod guests;
mod mix;
mod room;

use protocol::{
    command::HistoryPolicy,
    ids::UserId,
    limits::{SMALL_GROUP_MEMBERS_MAX, VIEWS_MAX},
};
use serde::{Deserialize, Serialize};

use groups::Groups;
pub(crate) use mix::{Attention, Comings, Mix, THINK_MILLIS_MAX, Think};
use mix::{GROUP_SIZES_MAX, GroupShare};
use room::Stride;
pub(crate) use room::{Room, RoomKind};

use crate::random::Random;

/// A user of the plan, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct UserIndex(pub(crate) u32);

/// A conversation of the plan, from 0; the node's name for it is learned when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RoomIndex(pub(crate) u32);

/// How far apart the two users of a direct conversation are, in a circle of all users: everybody has
/// eight contacts, most of them on other cores than itself.
const CONTACT_DISTANCES: [u32; 4] = [1, 2, 3, 5];
/// Fewest users: the circle must not meet itself.
pub(crate) const USERS_MIN: u32 = 12;
/// Most users: what the names and ports of one machine allow, and more than one is tried with.
pub(crate) const USERS_MAX: u32 = 1_000_000;

/// Rooms of each user of a crowd.
const HALLS_EACH: u32 = 5;
/// Users of a crowd in one room, beside the one who writes: one message makes many fall behind, so that a backlog takes
/// the node less time to store than to feed.
const HALL_CROWD: u32 = 49;
/// From one hall of a user to the next, the others in it are not quite the same.
const HALL_SHIFT: u32 = 10;
/// Direct conversations that each user makes.
const DIRECT_EACH: u32 = CONTACT_DISTANCES.len() as u32;

/// All of it.
pub(crate) struct Plan {
    tag: String,
    mix: Mix,
    /// Users that chat: the first ones.
    established: u32,
    /// Users that only read: the others.
    crowd: u32,
    /// By size.
    groups: [Groups; GROUP_SIZES_MAX],
    /// Members of groups change.
    changes: bool,
}

impl Plan {
    /// The last `crowd` of all `users` only read; the others are at least [`USERS_MIN`]. Groups exist when there are enough
    /// of those for one.
    pub(crate) fn with_crowd(tag: &str, users: u32, crowd: u32, mix: Mix) -> Self {
        let established = users - crowd;
        let mut first = established * DIRECT_EACH;
        let groups = mix.groups.map(|GroupShare { members, weight }| {
            let groups = Groups::new(members, weight, established, first);
            first += groups.count();
            groups
        });
        Self { tag: tag.to_owned(), mix, established, crowd, groups, changes: false }
    }

    /// The same, with groups whose members change.
    pub(crate) fn with_changes(self, changes: bool) -> Self {
        Self { changes, ..self }
    }

    /// `users` is at least [`USERS_MIN`]; groups exist when there are enough users for one.
    pub(crate) fn new(tag: &str, users: u32, mix: Mix) -> Self {
        Self::with_crowd(tag, users, 0, mix)
    }

    const fn direct_count(&self) -> u32 {
        self.established * DIRECT_EACH
    }

    fn group_count(&self) -> u32 {
        self.groups.iter().map(Groups::count).sum()
    }

    /// Halls that differ by one shift.
    const fn halls_each_shift(&self) -> u32 {
        self.crowd.div_ceil(HALL_CROWD)
    }

    /// All of them.
    pub(crate) const fn users_count(&self) -> u32 {
        self.established + self.crowd
    }

    pub(crate) fn rooms_count(&self) -> u32 {
        self.direct_count() + self.group_count() + self.halls_each_shift() * HALLS_EACH
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = RoomIndex> + use<> {
        (0..self.rooms_count()).map(RoomIndex)
    }

    /// A room of the plan.
    pub(crate) fn room(&self, room: RoomIndex) -> Room {
        if room.0 < self.direct_count() {
            return self.direct(room.0);
        }
        match self.groups_around(room) {
            Some((groups, place)) => groups.room(place),
            None => self.hall(room.0, room.0 - self.direct_count() - self.group_count()),
        }
    }

    fn direct(&self, number: u32) -> Room {
        let user = number / DIRECT_EACH;
        let from = user + CONTACT_DISTANCES[(number % DIRECT_EACH) as usize];
        let others = Stride { base: 0, circle: self.established, from, step: 1, count: 1 };
        Room { kind: RoomKind::Direct, maker: Some(UserIndex(user)), others }
    }

    /// The groups of the size that a room has, if it is one, and its number among them.
    fn groups_around(&self, room: RoomIndex) -> Option<(&Groups, u32)> {
        self.groups.iter().find_map(|groups| Some((groups, groups.place(room)?)))
    }

    fn hall(&self, room: u32, hall: u32) -> Room {
        let (shift, first) = (hall / self.halls_each_shift(), hall % self.halls_each_shift() * HALL_CROWD);
        let others = Stride {
            base: self.established,
            circle: self.crowd,
            from: first + shift * HALL_SHIFT,
            step: 1,
            count: HALL_CROWD.min(self.crowd - first),
        };
        Room { kind: RoomKind::Hall, maker: Some(UserIndex(room % self.established)), others }
    }

    pub(crate) fn name(&self, user: UserIndex) -> UserId {
        UserId::new(&format!("{}-{}", self.tag, user.0)).expect("a tag and a number are a short name")
    }

    /// The direct conversations of a user: those that it makes, and those that others make with it.
    fn direct_of(&self, user: UserIndex) -> impl Iterator<Item = RoomIndex> {
        let users = self.established;
        let own = (0..DIRECT_EACH).map(move |which| RoomIndex(user.0 * DIRECT_EACH + which));
        let with = (0..DIRECT_EACH).zip(CONTACT_DISTANCES).map(move |(which, distance)| {
            RoomIndex((user.0 + users - distance) % users * DIRECT_EACH + which)
        });
        own.chain(with).filter(move |_| user.0 < users)
    }

    fn groups_of(&self, user: UserIndex) -> impl Iterator<Item = RoomIndex> {
        self.groups.iter().flat_map(move |groups| groups.of(user))
    }

    /// The halls that a user of the crowd reads, or an established one writes.
    fn halls_of(&self, user: UserIndex) -> impl Iterator<Item = RoomIndex> {
        let (first, each) = (self.direct_count() + self.group_count(), self.halls_each_shift());
        let halls = if self.crowd == 0 { 0 } else { HALLS_EACH };
        let read = (0..halls).filter_map(move |shift| {
            let place = i64::from(user.0.checked_sub(self.established)?) - i64::from(shift * HALL_SHIFT);
            let place = place.rem_euclid(self.crowd.into()) as u32;
            Some(first + shift * each + place / HALL_CROWD)
        });
        let (users, rooms) = (self.established, self.rooms_count());
        let written = (first..rooms).filter(move |room| room % users == user.0);
        read.chain(written).map(RoomIndex)
    }

    /// The rooms of a user, those where it is a guest too, in the order of their numbers.
    pub(crate) fn rooms_of(&self, user: UserIndex) -> Vec<RoomIndex> {
        let mut rooms: Vec<_> = self
            .direct_of(user)
            .chain(self.groups_of(user))
            .chain(self.halls_of(user))
            .chain(self.guest_rooms_of(user))
            .collect();
        rooms.sort_unstable();
        rooms.shrink_to_fit();
        rooms
    }

    /// What a viewer views: its groups and then its contacts, as far as `members_max` members of all together go; none that is large,
    /// because of those it is not told what was delivered, and none whose members change, of which a view ends.
    pub(crate) fn views_of(&self, user: UserIndex, members_max: usize) -> Vec<RoomIndex> {
        let mut members = 0;
        let fits = |room: &RoomIndex| {
            let more = self.room(*room).members().len();
            let fits = more <= SMALL_GROUP_MEMBERS_MAX && members + more <= members_max;
            members += if fits { more } else { 0 };
            fits
        };
        let rooms = self.groups_of(user).chain(self.direct_of(user));
        rooms.filter(|room| !self.is_changing(*room)).filter(fits).take(VIEWS_MAX).collect()
    }

    /// The title of a group, by which its members recognise it.
    pub(crate) fn title(&self, room: RoomIndex) -> String {
        format!("{} room {}", self.tag, room.0)
    }

    /// The user of a name.
    pub(crate) fn user_of_name(&self, name: &UserId) -> Option<UserIndex> {
        let number = name.as_str().strip_prefix(&self.tag)?.strip_prefix('-')?;
        let is_as_written = number == "0" || number.starts_with(|first: char| matches!(first, '1'..='9'));
        let user = number.parse().ok().filter(|_| is_as_written)?;
        (user < self.established + self.crowd).then_some(UserIndex(user))
    }

    /// The group of a title.
    pub(crate) fn room_of_title(&self, title: &str) -> Option<RoomIndex> {
        let room = title.strip_prefix(&self.tag)?.strip_prefix(" room ")?.parse().ok()?;
        (room < self.rooms_count()).then_some(RoomIndex(room))
    }

    /// Where `sender` writes next, in a room that it is in. Users without a group write to a contact.
    pub(crate) fn pick_room(
        &self,
        sender: UserIndex,
        is_in: impl Fn(RoomIndex) -> bool,
        random: &mut Random,
    ) -> RoomIndex {
        let total = self.mix.direct_weight + self.mix.group_weight();
        let picked = random.below(total.into());
        let mut weight = u64::from(self.mix.direct_weight);
        let mut pick = |rooms: usize| random.below(rooms as u64) as usize;
        for groups in &self.groups {
            let is_picked = (weight..weight + u64::from(groups.weight)).contains(&picked);
            weight += u64::from(groups.weight);
            if !is_picked {
                continue;
            }
            // Where it is a guest now, as well.
            let guested = |room: &RoomIndex| self.guest(*room) == Some(sender) && is_in(*room);
            let rooms = || {
                let own = groups.of(sender).filter(|room| is_in(*room));
                own.chain(groups.guested_by(sender).filter(guested))
            };
            let count = rooms().count();
            if count > 0 {
                return rooms().nth(pick(count)).expect("one of them");
            }
        }
        self.direct_of(sender).nth(pick(2 * DIRECT_EACH as usize)).expect("who sends has eight contacts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_know_their_members_and_members_their_rooms() {
        let halves = Mix::of_groups(7);
        let sizes: Mix = "direct=1,group3=1,group7=2,group40=1".parse().expect("a mix");
        for (users, crowd, mix) in
            [(12, 0, Mix::default()), (101, 0, halves), (75, 1, halves), (133, 112, halves), (101, 0, sizes)]
        {
            let plan = Plan::with_crowd("t", users, crowd, mix);
            for user in (0..users).map(UserIndex) {
                let rooms: Vec<_> = plan
                    .rooms()
                    .filter(|room| plan.room(*room).members().any(|member| member == user))
                    .collect();
                assert_eq!(plan.rooms_of(user), rooms, "user {} of {users}, {crowd}", user.0);
                let said: Vec<_> = plan.rooms().filter(|room| plan.room(*room).contains(user)).collect();
                assert_eq!(said, rooms, "user {} of {users}, {crowd}", user.0);
            }
        }
    }

    #[test]
    fn everybody_of_a_crowd_is_in_five_halls_that_somebody_else_writes() {
        for (users, crowd) in [(13, 1), (62, 50), (1012, 1000)] {
            let plan = Plan::with_crowd("t", users, crowd, Mix::default());
            let established = users - crowd;
            for user in (established..users).map(UserIndex) {
                assert_eq!(plan.rooms_of(user).len(), HALLS_EACH as usize, "{users} users");
            }
            let halls = plan.rooms().map(|room| plan.room(room)).filter(|room| room.kind == RoomKind::Hall);
            for room in halls {
                assert!(room.maker().0 < established && room.members().len() > 1);
                assert!(room.others_than(room.maker()).all(|reader| reader.0 >= established));
            }
        }
    }

    #[test]
    fn rooms_have_distinct_members_and_pairs_are_unique() {
        for users in [USERS_MIN, 13, 100, 101] {
            let plan = Plan::new("t", users, Mix::default());
            let mut pairs = Vec::new();
            for room in plan.rooms().map(|room| plan.room(room)) {
                let mut members: Vec<_> = room.members().collect();
                members.sort_unstable();
                members.dedup();
                assert_eq!(members.len(), room.members().len(), "{users} users");
                if room.kind == RoomKind::Direct {
                    pairs.push(members);
                }
            }
            let count = pairs.len();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), count, "{users} users");
        }
    }

    #[test]
    fn as_many_view_as_are_asked_for_and_no_more_than_they_can_hold() {
        for viewers in [0, 1, 7, 100, 101] {
            let attention = Attention { viewers, ..Attention::default() };
            let count = (0..101).filter(|user| attention.is_viewer(UserIndex(*user), 101)).count();
            assert_eq!(count, viewers as usize);
        }
        let plan = Plan::new("t", 200, Mix::of_groups(60));
        for user in (0..200).map(UserIndex) {
            let views = plan.views_of(user, 100);
            let members: usize = views.iter().map(|room| plan.room(*room).members().len()).sum();
            assert!(members <= 100 && (7..=VIEWS_MAX).contains(&views.len()), "{views:?}");
        }
    }

    #[test]
    fn titles_lead_back_to_rooms() {
        let plan = Plan::new("t", 20, Mix::default());
        assert_eq!(plan.room_of_title(&plan.title(RoomIndex(81))), Some(RoomIndex(81)));
        assert_eq!(plan.room_of_title("t room 9999"), None);
        assert_eq!(plan.room_of_title("other room 1"), None);
    }

    #[test]
    fn names_lead_back_to_users() {
        let plan = Plan::new("t", 20, Mix::default());
        let user = |name: &str| plan.user_of_name(&UserId::new(name).expect("a name"));
        assert_eq!(user(plan.name(UserIndex(19)).as_str()), Some(UserIndex(19)));
        for stranger in ["t-20", "t-019", "t-+1", "other-1", "t-", "t"] {
            assert_eq!(user(stranger), None, "{stranger}");
        }
    }
}
