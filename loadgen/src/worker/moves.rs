//! Which change of members comes next, as pure arithmetic: whose turn it is, and who then joins or leaves.
//!
//! ```text
//!   0 line   1 line   2 leave   3 line   4 line   5 any   6 line ...       without a group on the line: 0, 1, 3, 4, 5 any
//! ```
//! A group on the line is one of 99 or 100 members: one that comes or goes carries it across, from fan-out on write to fan-out on read or back.
//! Their turns go round all of them, each size as often as the others. What leaves and other changes undo, the next turn mends first: two
//! of three changes cross.

use protocol::limits::{MEMBERS_MAX, SMALL_GROUP_MEMBERS_MAX};

use crate::{
    plan::{Plan, RoomIndex, RoomKind, UserIndex},
    random::Random,
};

/// Of so many changes of a group that has a guest one is about the guest.
const CHANGES_PER_GUEST: u64 = 2;
/// Of so many members one may be out at a time, besides the guest, and one of any group.
const MEMBERS_PER_ABSENCE: usize = 100;

/// What a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Of any group, by who made it.
    Any,
    /// Somebody leaves by itself.
    Leave,
    /// Of a group on the line, by who made it.
    Line,
}

/// One of six leaves by itself, and four are for the line.
const ROUND: [Turn; 6] = [Turn::Line, Turn::Line, Turn::Leave, Turn::Line, Turn::Line, Turn::Any];

/// The groups on the line: of each size, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<Vec<RoomIndex>>);

impl Line {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut sizes: Vec<(usize, Vec<RoomIndex>)> = Vec::new();
        for room in plan.rooms().filter(|room| Self::has(plan, *room)) {
            let members = plan.room(room).members().len();
            match sizes.iter_mut().find(|(size, _)| *size == members) {
                Some((_, rooms)) => rooms.push(room),
                None => sizes.push((members, vec![room])),
            }
        }
        Self(sizes.into_iter().map(|(_, rooms)| rooms).collect())
    }

    /// Whether one member more or less, of those that a group begins with and its guest, carries it across.
    fn has(plan: &Plan, room: RoomIndex) -> bool {
        plan.room(room).kind == RoomKind::Group
            && plan.room(room).members().len() <= SMALL_GROUP_MEMBERS_MAX + 1
            && plan.members_max(room) > SMALL_GROUP_MEMBERS_MAX
    }

    /// All of them.
    pub(super) fn rooms(&self) -> impl Iterator<Item = RoomIndex> {
        self.0.iter().flatten().copied()
    }

    /// Whose the `rank`th turn of the line is; of no line it is nobody's.
    pub(super) fn room(&self, rank: u64) -> Option<RoomIndex> {
        let sizes = self.0.len() as u64;
        let rooms = self.0.get(rank.checked_rem(sizes)? as usize)?;
        rooms.get((rank / sizes % rooms.len() as u64) as usize).copied()
    }

    /// What the `number`th change of all is, and how many like it were before.
    pub(super) fn turn(&self, number: u64) -> (Turn, u64) {
        let (rounds, place) = (number / ROUND.len() as u64, (number % ROUND.len() as u64) as usize);
        let kind = |turn: &Turn| match turn {
            Turn::Line if self.0.is_empty() => Turn::Any,
            turn => *turn,
        };
        let turn = kind(&ROUND[place]);
        let like_it = |turns: &[Turn]| turns.iter().filter(|other| kind(other) == turn).count() as u64;
        (turn, rounds * like_it(&ROUND) + like_it(&ROUND[..place]))
    }
}

/// Who comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Join(UserIndex),
    Leave(UserIndex),
}

/// Who is to join or to leave a group on the line of which some are out, so that it crosses, or comes nearer to it.
pub(super) fn across(plan: &Plan, room: RoomIndex, out: &[UserIndex], random: &mut Random) -> Option<Move> {
    if plan.members_max(room) - out.len() <= SMALL_GROUP_MEMBERS_MAX {
        let place = random.below(out.len().max(1) as u64) as usize;
        return out.get(place).map(|user| Move::Join(*user));
    }
    let guest = plan.guest(room).filter(|guest| !out.contains(guest));
    if let Some(guest) = guest.filter(|_| random.below(CHANGES_PER_GUEST) == 0) {
        return Some(Move::Leave(guest));
    }
    somebody(plan, room, out, random)
}

/// Who is to join or to leave any group of which some are out.
pub(super) fn pick(plan: &Plan, room: RoomIndex, out: &[UserIndex], random: &mut Random) -> Option<Move> {
    let (guest, members) = (plan.guest(room), plan.room(room).members().len());
    let has_room = plan.members_max(room) - out.len() < MEMBERS_MAX;
    if let Some(guest) = guest.filter(|_| random.below(CHANGES_PER_GUEST) == 0) {
        return match out.contains(&guest) {
            true => has_room.then_some(Move::Join(guest)),
            false => Some(Move::Leave(guest)),
        };
    }
    let back: Vec<UserIndex> = out.iter().copied().filter(|user| Some(*user) != guest).collect();
    let out_max = 1 + members / MEMBERS_PER_ABSENCE;
    if !back.is_empty() && (back.len() >= out_max || random.below(2) == 0) {
        let user = back[random.below(back.len() as u64) as usize];
        return has_room.then_some(Move::Join(user));
    }
    somebody(plan, room, out, random)
}

/// One of those that a group began with, but who made it, and none that is out.
fn somebody(plan: &Plan, room: RoomIndex, out: &[UserIndex], random: &mut Random) -> Option<Move> {
    let there = || plan.room(room).members().skip(1).filter(|user| !out.contains(user));
    let place = random.below(there().count().max(1) as u64) as usize;
    there().nth(place).map(Move::Leave)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn plan(users: u32, mix: &str) -> Plan {
        Plan::new("t", users, mix.parse().expect("a mix")).with_changes(true)
    }

    /// Of so many changes that each are done at once, how many carried each group across the line.
    fn crossings(plan: &Plan, line: &Line, changes: u64) -> HashMap<RoomIndex, u64> {
        let mut random = Random::from_system().expect("randomness");
        let groups: Vec<RoomIndex> = plan.rooms().filter(|room| plan.is_changing(*room)).collect();
        let guest = |room: &RoomIndex| (*room, plan.guest(*room).into_iter().collect());
        let mut outs: HashMap<RoomIndex, Vec<UserIndex>> = groups.iter().map(guest).collect();
        let mut crossed = HashMap::new();
        let is_large = |room, out: &[UserIndex]| plan.members_max(room) - out.len() > SMALL_GROUP_MEMBERS_MAX;
        for number in 0..changes {
            let (turn, rank) = line.turn(number);
            let any = groups[random.below(groups.len() as u64) as usize];
            let room = if turn == Turn::Line { line.room(rank).expect("there is one") } else { any };
            let out = outs.get_mut(&room).expect("a group");
            let found = match turn {
                Turn::Any => pick(plan, room, out, &mut random),
                Turn::Leave => somebody(plan, room, out, &mut random),
                Turn::Line => across(plan, room, out, &mut random),
            };
            let was_large = is_large(room, out);
            match found {
                Some(Move::Join(user)) => out.retain(|out| *out != user),
                Some(Move::Leave(user)) => out.push(user),
                // Of a small group only who made it is left.
                None => {}
            }
            *crossed.entry(room).or_default() += u64::from(was_large != is_large(room, out));
        }
        crossed
    }

    #[test]
    fn a_third_of_the_changes_cross_the_line_and_every_group_on_it_does() {
        const CHANGES: u64 = 600;
        // The last is of nothing but groups on the line, where the other changes undo most.
        for (users, mix) in [
            (400, "direct=40,group10=30,group99=20,group100=10"),
            (102, "direct=50,group3=25,group99=25"),
            (205, "group100=1"),
            (205, "group99=1,group100=1"),
        ] {
            let plan = plan(users, mix);
            let line = Line::of(&plan);
            let crossed = crossings(&plan, &line, CHANGES);
            let all: u64 = crossed.values().sum();
            assert!(all >= CHANGES / 3, "{all} of {CHANGES} in {mix}");
            let fair = CHANGES / 6 / line.rooms().count() as u64;
            for room in line.rooms() {
                let crossings = crossed.get(&room).copied().unwrap_or(0);
                assert!(crossings >= fair, "{crossings} of room {} in {mix}, {fair} is fair", room.0);
            }
        }
    }

    #[test]
    fn a_group_is_on_the_line_where_one_more_or_less_crosses_it() {
        let sizes = |users, mix| {
            let plan = plan(users, mix);
            let line = Line::of(&plan);
            let sizes = line.0.iter().map(|rooms| (plan.room(rooms[0]).members().len(), rooms.len()));
            sizes.collect::<Vec<_>>()
        };
        assert_eq!(sizes(400, "group98=1,group99=1,group100=1,group101=1"), [(99, 8), (100, 8)]);
        // Without anybody else there is no guest.
        assert_eq!(sizes(99, "group99=1"), []);
        assert_eq!(sizes(100, "group100=1"), [(100, 2)]);
    }

    #[test]
    fn turns_go_round_and_each_is_somebodys() {
        let line = Line(vec![vec![RoomIndex(1), RoomIndex(2)], vec![RoomIndex(9)]]);
        let rooms: Vec<_> = (0..4).filter_map(|rank| line.room(rank)).collect();
        assert_eq!(rooms, [1, 9, 2, 9].map(RoomIndex));
        let turns: Vec<_> = (0..9).map(|number| line.turn(number)).collect();
        let expected = [
            (Turn::Line, 0),
            (Turn::Line, 1),
            (Turn::Leave, 0),
            (Turn::Line, 2),
            (Turn::Line, 3),
            (Turn::Any, 0),
            (Turn::Line, 4),
            (Turn::Line, 5),
            (Turn::Leave, 1),
        ];
        assert_eq!(turns, expected);
        let none = Line::default();
        assert_eq!(none.room(0), None);
        let turns: Vec<_> = (4..9).map(|number| none.turn(number)).collect();
        let expected = [(Turn::Any, 3), (Turn::Any, 4), (Turn::Any, 5), (Turn::Any, 6), (Turn::Leave, 1)];
        assert_eq!(turns, expected);
    }
}
