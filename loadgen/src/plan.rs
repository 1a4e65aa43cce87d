//! Who talks with whom: users, direct conversations and groups, as a pure function of a few numbers.
//!
//! Every process of a run computes the same plan, so none has to be told what another one does. Names
//! carry the tag of the run, so two runs against one node never meet.
//!
//! Invariant: the members of a room are distinct, and its first member is the one who makes it.

use std::{fmt, str::FromStr};

use protocol::{
    ids::UserId,
    limits::{MEMBERS_MAX, SMALL_GROUP_MEMBERS_MAX, VIEWS_MAX},
};
use serde::{Deserialize, Serialize};

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

/// Which share of messages goes where, and how many amendments of earlier ones stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mix {
    pub(crate) direct_weight: u32,
    pub(crate) group_weight: u32,
    pub(crate) group_members: u32,
    pub(crate) amend_weight: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { direct_weight: 80, group_weight: 20, group_members: 10, amend_weight: 5 }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direct_weight, group_weight, group_members, amend_weight } = self;
        write!(f, "direct={direct_weight},group{group_members}={group_weight},amend={amend_weight}")
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Self { direct_weight: 0, group_weight: 0, amend_weight: 0, ..Self::default() };
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or("a part is NAME=WEIGHT, as in direct=80")?;
            let weight = weight.parse::<u16>().map_err(|_| "a weight is a number up to 65535")?;
            match name.strip_prefix("group") {
                None if name == "amend" => mix.amend_weight = weight.into(),
                None if name == "direct" => mix.direct_weight = weight.into(),
                Some(members) => {
                    mix.group_members =
                        members.parse().map_err(|_| "a group is named by its size: group10")?;
                    mix.group_weight = weight.into();
                }
                None => return Err("the parts are direct, groupN and amend".to_owned()),
            }
        }
        let sizes = 3..=MEMBERS_MAX as u32;
        if !sizes.contains(&mix.group_members) {
            return Err(format!("a group has 3 to {MEMBERS_MAX} members"));
        }
        if mix.direct_weight + mix.group_weight == 0 {
            return Err("direct and groupN are both 0".to_owned());
        }
        Ok(mix)
    }
}

impl Mix {
    /// Whether the next command amends a message instead of sending one.
    pub(crate) const fn picks_amendment(&self, random: &mut Random) -> bool {
        let Self { direct_weight, group_weight, amend_weight, .. } = *self;
        let total = direct_weight as u64 + group_weight as u64 + amend_weight as u64;
        amend_weight > 0 && random.below(total) < amend_weight as u64
    }
}

/// How much is looked at and read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attention {
    /// Of 100 deliveries, so many are answered with `read`.
    pub(crate) read_percent: u32,
    /// Users that view some of their conversations.
    pub(crate) viewers: u32,
}

impl Attention {
    /// Whether one of so many users views. They are spread evenly, so that each worker has some.
    pub(crate) fn is_viewer(&self, user: UserIndex, users: u32) -> bool {
        let before = |user: u64| user * self.viewers as u64 / users as u64;
        before(user.0 as u64) < before(user.0 as u64 + 1)
    }
}

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) kind: RoomKind,
    pub(crate) members: Vec<UserIndex>,
}

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

/// Rooms of each user of a crowd.
const HALLS_EACH: u32 = 5;
/// Users of a crowd in one room, beside the one who writes: one message makes many fall behind, so that a backlog takes
/// the node less time to store than to feed.
const HALL_CROWD: u32 = 49;
/// From one hall of a user to the next, the others in it are not quite the same.
const HALL_SHIFT: u32 = 10;

/// All of it.
pub(crate) struct Plan {
    tag: String,
    mix: Mix,
    pub(crate) rooms: Vec<Room>,
    users: Vec<RoomsOf>,
    names: Vec<UserId>,
}

#[derive(Clone, Default)]
struct RoomsOf {
    direct: Vec<RoomIndex>,
    groups: Vec<RoomIndex>,
    halls: Vec<RoomIndex>,
}

impl Plan {
    /// The last `crowd` of all `users` only read; the others are at least [`USERS_MIN`]. Groups exist when there are enough
    /// of those for one.
    pub(crate) fn with_crowd(tag: &str, users: u32, crowd: u32, mix: Mix) -> Self {
        let established = users - crowd;
        let mut plan = Self::new(tag, established, mix);
        plan.users.resize(users as usize, RoomsOf::default());
        plan.names.extend((established..users).map(|user| name(tag, user)));
        for shift in (0..HALLS_EACH).map(|hall| hall * HALL_SHIFT) {
            for first in (0..crowd).step_by(HALL_CROWD as usize) {
                let writer = UserIndex(plan.rooms.len() as u32 % established);
                let places = first..crowd.min(first + HALL_CROWD);
                let readers = places.map(|place| UserIndex(established + (place + shift) % crowd));
                plan.add(RoomKind::Hall, std::iter::once(writer).chain(readers).collect());
            }
        }
        plan
    }

    /// `users` is at least [`USERS_MIN`]; groups exist when there are enough users for one.
    pub(crate) fn new(tag: &str, users: u32, mix: Mix) -> Self {
        let mut plan = Self {
            tag: tag.to_owned(),
            mix,
            rooms: Vec::new(),
            users: vec![RoomsOf::default(); users as usize],
            names: (0..users).map(|user| name(tag, user)).collect(),
        };
        for user in 0..users {
            for distance in CONTACT_DISTANCES {
                plan.add(RoomKind::Direct, vec![UserIndex(user), UserIndex((user + distance) % users)]);
            }
        }
        if mix.group_weight > 0 {
            let (size, blocks) = (mix.group_members, users / mix.group_members);
            for block in 0..blocks {
                let neighbours = (0..size).map(|place| UserIndex(block * size + place));
                plan.add(RoomKind::Group, neighbours.collect());
                let strangers = (0..size).map(|place| UserIndex(block + place * blocks));
                plan.add(RoomKind::Group, strangers.collect());
            }
        }
        plan
    }

    fn add(&mut self, kind: RoomKind, members: Vec<UserIndex>) {
        let index = RoomIndex(self.rooms.len() as u32);
        for member in &members {
            let of = &mut self.users[member.0 as usize];
            match kind {
                RoomKind::Direct => of.direct.push(index),
                RoomKind::Group => of.groups.push(index),
                RoomKind::Hall => of.halls.push(index),
            }
        }
        self.rooms.push(Room { kind, members });
    }

    pub(crate) fn name(&self, user: UserIndex) -> &UserId {
        &self.names[user.0 as usize]
    }

    pub(crate) fn room(&self, room: RoomIndex) -> &Room {
        &self.rooms[room.0 as usize]
    }

    /// The rooms of a user, in the order of their numbers.
    pub(crate) fn rooms_of(&self, user: UserIndex) -> Vec<RoomIndex> {
        let of = &self.users[user.0 as usize];
        of.direct.iter().chain(&of.groups).chain(&of.halls).copied().collect()
    }

    /// What a viewer views: its groups and then its contacts, as far as `members_max` members of all together go; none that is large,
    /// because of those it is not told what was delivered.
    pub(crate) fn views_of(&self, user: UserIndex, members_max: usize) -> Vec<RoomIndex> {
        let of = &self.users[user.0 as usize];
        let mut members = 0;
        let fits = |room: &&RoomIndex| {
            let more = self.room(**room).members.len();
            let fits = more <= SMALL_GROUP_MEMBERS_MAX && members + more <= members_max;
            members += if fits { more } else { 0 };
            fits
        };
        of.groups.iter().chain(&of.direct).filter(fits).take(VIEWS_MAX).copied().collect()
    }

    /// The title of a group, by which its members recognise it.
    pub(crate) fn title(&self, room: RoomIndex) -> String {
        format!("{} room {}", self.tag, room.0)
    }

    /// The user of a name.
    pub(crate) fn user_of_name(&self, name: &UserId) -> Option<UserIndex> {
        let (_, number) = name.as_str().rsplit_once('-')?;
        let user = number.parse().ok()?;
        (self.names.get(user as usize) == Some(name)).then_some(UserIndex(user))
    }

    /// The group of a title.
    pub(crate) fn room_of_title(&self, title: &str) -> Option<RoomIndex> {
        let room = title.strip_prefix(&self.tag)?.strip_prefix(" room ")?.parse().ok()?;
        ((room as usize) < self.rooms.len()).then_some(RoomIndex(room))
    }

    /// Where `sender` writes next. Users without a group write to a contact.
    pub(crate) fn pick_room(&self, sender: UserIndex, random: &mut Random) -> RoomIndex {
        let of = &self.users[sender.0 as usize];
        let total = u64::from(self.mix.direct_weight + self.mix.group_weight);
        let is_group = random.below(total) >= u64::from(self.mix.direct_weight);
        let rooms = if is_group && !of.groups.is_empty() { &of.groups } else { &of.direct };
        rooms[random.below(rooms.len() as u64) as usize]
    }
}

fn name(tag: &str, user: u32) -> UserId {
    UserId::new(&format!("{tag}-{user}")).expect("a tag and a number are a short name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_of_a_crowd_is_in_five_halls_that_somebody_else_writes() {
        for (users, crowd) in [(13, 1), (62, 50), (1012, 1000)] {
            let plan = Plan::with_crowd("t", users, crowd, Mix::default());
            let established = users - crowd;
            for user in (established..users).map(UserIndex) {
                assert_eq!(plan.rooms_of(user).len(), HALLS_EACH as usize, "{users} users");
            }
            for room in plan.rooms.iter().filter(|room| room.kind == RoomKind::Hall) {
                let (writer, readers) = room.members.split_first().expect("a writer");
                assert!(writer.0 < established && !readers.is_empty());
                assert!(readers.iter().all(|reader| reader.0 >= established));
            }
        }
    }

    #[test]
    fn rooms_have_distinct_members_and_pairs_are_unique() {
        for users in [USERS_MIN, 13, 100, 101] {
            let plan = Plan::new("t", users, Mix::default());
            let mut pairs = Vec::new();
            for room in &plan.rooms {
                let mut members = room.members.clone();
                members.sort_unstable();
                members.dedup();
                assert_eq!(members.len(), room.members.len(), "{users} users");
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
            let attention = Attention { read_percent: 0, viewers };
            let count = (0..101).filter(|user| attention.is_viewer(UserIndex(*user), 101)).count();
            assert_eq!(count, viewers as usize);
        }
        let plan = Plan::new("t", 200, Mix { group_members: 60, ..Mix::default() });
        for user in (0..200).map(UserIndex) {
            let views = plan.views_of(user, 100);
            let members: usize = views.iter().map(|room| plan.room(*room).members.len()).sum();
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
        for stranger in ["t-20", "t-019", "other-1", "t-", "t"] {
            assert_eq!(user(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_share_of_the_commands_amends_and_none_where_that_is_not_asked_for() {
        let mut random = Random::from_system().expect("randomness");
        let mut share = |mix: Mix| (0..10_500).filter(|_| mix.picks_amendment(&mut random)).count();
        assert!((350..=650).contains(&share(Mix::default())), "one in 21");
        assert_eq!(share(Mix { amend_weight: 0, ..Mix::default() }), 0);
    }

    #[test]
    fn mixes_are_read_and_refused() {
        let mix = "direct=1,group3=2".parse();
        let expected = Mix { direct_weight: 1, group_weight: 2, group_members: 3, amend_weight: 0 };
        assert_eq!(mix, Ok(expected));
        assert_eq!("direct=1,group3=2,amend=9".parse(), Ok(Mix { amend_weight: 9, ..expected }));
        assert_eq!(Mix::default().to_string().parse(), Ok(Mix::default()));
        for bad in ["", "direct", "direct=x", "direct=0", "amend=1", "group2=1", "group501=1", "room=1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
