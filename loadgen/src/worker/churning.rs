//! Who joins and leaves while messages flow: on a schedule of its own, open-loop as that of the messages.
//!
//! Who made a group takes members out of it and back in, and its guest as well; most changes are of groups on the line between 99 and 100 members,
//! which cross to fan-out on read and back; and now and then somebody leaves by itself ([`super::moves`]). Who is in a group is known by what its maker was told. A change that was asked for and not
//! answered when a connection ends is asked for again under its name: the log says whether it happened before.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use anyhow::Context;
use protocol::{
    command::{Command, HistoryRange, Members},
    event::{ErrorCode, MemberEvent},
    ids::{ConversationId, Seq},
    limits::HISTORY_ITEMS_MAX,
};

use super::{
    State, Worker,
    alarm::Alarm,
    desk::Desk,
    in_flight::{Asked, Pending},
    moves::{Line, Move, Turn, across, pick},
    user::{Presence, User},
};
use crate::{
    clock::Moment,
    link::{GroupName, NewestChange},
    plan::{Plan, RoomIndex, RoomKind, UserIndex},
    random::Random,
    verify::{Limited, MembershipBook, Outsider, PromisedChange, Unchanged, command_id},
};

/// Groups and users that are looked at until one is found that can change now.
const TRIES: usize = 16;

/// Who is out of a group that a user of this worker made.
#[derive(Default)]
struct Roster {
    out: Vec<UserIndex>,
    /// By which sequence somebody has moved last. A leave that is asked for again after a reconnect is answered with the sequence that it has,
    /// which may be told after that of a later join.
    moved: HashMap<UserIndex, u64>,
    /// A change is under way.
    is_changing: bool,
}

impl Roster {
    /// A change at `seq`, told in whichever order.
    fn note(&mut self, seq: u64, added: &[UserIndex], removed: &[UserIndex]) {
        let mut moves_now = |user: &UserIndex| {
            let moved = self.moved.entry(*user).or_default();
            let is_news = *moved < seq;
            *moved = seq.max(*moved);
            is_news
        };
        for user in added {
            if moves_now(user) {
                self.out.retain(|out| out != user);
            }
        }
        for user in removed {
            if moves_now(user) && !self.out.contains(user) {
                self.out.push(*user);
            }
        }
    }
}

/// Changes of groups, and what came of them.
#[derive(Default)]
pub(super) struct Churning {
    /// Those that users of this worker made, by size.
    rooms: Vec<Vec<RoomIndex>>,
    /// Of those, the ones on the line of large groups.
    line: Vec<RoomIndex>,
    rosters: HashMap<RoomIndex, Roster>,
    pub(super) book: MembershipBook,
    newest: HashMap<(UserIndex, RoomIndex), u64>,
}

impl Churning {
    /// Who joined or left last, as far as was promised here.
    pub(super) fn newest(&self) -> Vec<NewestChange> {
        self.newest.iter().map(|((user, room), seq)| (*user, *room, *seq)).collect()
    }

    fn note(&mut self, room: RoomIndex, seq: u64, added: &[UserIndex], removed: &[UserIndex]) {
        if let Some(roster) = self.rosters.get_mut(&room) {
            roster.note(seq, added, removed);
        }
    }

    /// Who made a group was told that these are not in it: they went, and the record of that is still to come.
    fn note_out(&mut self, room: RoomIndex, users: &[UserIndex]) {
        if let Some(roster) = self.rosters.get_mut(&room) {
            let news: Vec<_> = users.iter().filter(|user| !roster.out.contains(user)).collect();
            roster.out.extend(news);
        }
    }

    /// Or that these are in it.
    fn note_in(&mut self, room: RoomIndex, users: &[UserIndex]) {
        if let Some(roster) = self.rosters.get_mut(&room) {
            roster.out.retain(|user| !users.contains(user));
        }
    }

    /// Who is out of a group that a user of this worker made.
    pub(super) fn out(&self, room: RoomIndex) -> &[UserIndex] {
        self.rosters.get(&room).map_or(&[], |roster| &roster.out)
    }

    /// Whether a change of a group is under way, or it is none of this worker's.
    pub(super) fn is_changing(&self, room: RoomIndex) -> bool {
        self.rosters.get(&room).is_none_or(|roster| roster.is_changing)
    }

    pub(super) fn begin(&mut self, room: RoomIndex) {
        if let Some(roster) = self.rosters.get_mut(&room) {
            roster.is_changing = true;
        }
    }

    fn end(&mut self, room: RoomIndex) {
        if let Some(roster) = self.rosters.get_mut(&room) {
            roster.is_changing = false;
        }
    }
}

/// Asks for every change of this worker when it is due, until the schedule ends.
pub(super) async fn churn_on_time(worker: Rc<Worker>, start: Moment, mut alarm: Alarm) {
    let config = worker.with(|state| {
        state.desk.gather_rosters();
        state.desk.config.clone()
    });
    let end = start.after(std::time::Duration::from_secs(config.load.seconds().into()));
    let line = worker.with(|state| Line::of(&state.desk.plan));
    for number in 0_u64.. {
        let due = Moment(start.0 + number * 1_000_000_000 / u64::from(config.comings.churn));
        if due >= end {
            return;
        }
        let (turn, rank) = line.turn(number);
        let room = line.room(rank).filter(|_| turn == Turn::Line);
        let is_mine = match room {
            Some(room) => worker.with(|state| config.owns(state.desk.plan.room(room).maker())),
            None => rank % u64::from(config.workers) == u64::from(config.worker),
        };
        if is_mine {
            alarm.wait_until(due).await;
            worker.with(|state| state.change_one(due, turn, room));
        }
    }
}

impl State {
    /// One change of members, where any group can change now. A turn that cannot be taken is another group's.
    fn change_one(&mut self, due: Moment, turn: Turn, room: Option<RoomIndex>) {
        let found = match (turn, room) {
            (Turn::Leave, _) => self.find_leave(),
            (_, Some(room)) => self.find_on_line(room).or_else(|| self.find_any()),
            (_, None) => self.find_any(),
        };
        let Some((place, room, command)) = found else { return };
        self.desk.tally.counts.changes += 1;
        let user = &mut self.users[place];
        let message_id = user.message_id(&mut self.desk.random);
        user.offer(&mut self.desk, room, Some(due), message_id, command(message_id));
        self.dirty.push(place);
    }

    /// Somebody of this worker who leaves one of its groups.
    fn find_leave(&mut self) -> Option<Found> {
        let plan = self.desk.plan.clone();
        for _ in 0..TRIES {
            let place = self.desk.random.below(self.users.len() as u64) as usize;
            let user = &self.users[place];
            let can_leave = |room: &RoomIndex| {
                plan.is_changing(*room)
                    && plan.room(*room).maker() != user.index
                    && user.reader.is_in(*room)
                    && user.presence == Presence::Live
            };
            let rooms: Vec<_> = plan.rooms_of(user.index).into_iter().filter(can_leave).collect();
            if rooms.is_empty() {
                continue;
            }
            let room = rooms.get(self.desk.random.below(rooms.len() as u64) as usize).copied();
            if let Some((room, conversation)) = room.and_then(|room| Some((room, self.desk.rooms.id(room)?)))
            {
                let leave = move |message_id| Command::Leave { conversation, message_id: Some(message_id) };
                return Some((place, room, Box::new(leave)));
            }
        }
        None
    }

    /// A group on the line: `room`, or where that cannot change now the next one that can.
    fn find_on_line(&mut self, room: RoomIndex) -> Option<Found> {
        let own = self.desk.churning.line.clone();
        let first = own.iter().position(|other| *other == room)?;
        let mut rooms = own[first..].iter().chain(&own[..first]);
        rooms.find_map(|room| self.find_in(*room, across))
    }

    /// Any group that a user of this worker made.
    fn find_any(&mut self) -> Option<Found> {
        for _ in 0..TRIES.min(self.desk.churning.rosters.len()) {
            // Each size as often as the others, of which there may be many more.
            let Desk { churning, random, .. } = &mut self.desk;
            let rooms = &churning.rooms[random.below(churning.rooms.len() as u64) as usize];
            let room = rooms[random.below(rooms.len() as u64) as usize];
            if let Some(found) = self.find_in(room, pick) {
                return Some(found);
            }
        }
        None
    }

    /// Who comes or goes in a group, by who made it, where that is there and no other change is under way.
    fn find_in(&mut self, room: RoomIndex, choose: Choose) -> Option<Found> {
        let Self { desk, users, .. } = self;
        let maker = desk.config.place_of(desk.plan.room(room).maker());
        let conversation = desk.rooms.id(room)?;
        if users[maker].is_away() || desk.churning.is_changing(room) {
            return None;
        }
        let chosen = choose(&desk.plan, room, desk.churning.out(room), &mut desk.random)?;
        let (add, remove) = match chosen {
            Move::Join(user) => (vec![desk.plan.name(user)], Vec::new()),
            Move::Leave(user) => (Vec::new(), vec![desk.plan.name(user)]),
        };
        desk.churning.begin(room);
        let members = move |message_id| {
            let message_id = Some(message_id);
            Command::Members(Members { conversation, add, remove, roles: Vec::new(), message_id })
        };
        Some((maker, room, Box::new(members)))
    }
}

/// How a change of a group is chosen, by who is out of it.
type Choose = fn(&Plan, RoomIndex, &[UserIndex], &mut Random) -> Option<Move>;
/// The place of a user, a room of its, and what it does there.
type Found = (usize, RoomIndex, Named);
/// A change that waits for its name.
type Named = Box<dyn FnOnce(protocol::ids::MessageId) -> Command>;

impl Desk {
    /// The groups that users of this worker made, and who is out of them to begin with.
    pub(super) fn gather_rosters(&mut self) {
        let mut by_size: BTreeMap<usize, Vec<RoomIndex>> = BTreeMap::new();
        for room in self.own_rooms(&[RoomKind::Group]) {
            let out = self.plan.guest(room).into_iter().collect();
            self.churning.rosters.insert(room, Roster { out, ..Roster::default() });
            by_size.entry(self.plan.room(room).members().len()).or_default().push(room);
        }
        self.churning.rooms = by_size.into_values().collect();
        let line = Line::of(&self.plan);
        self.churning.line = line.rooms().filter(|room| self.churning.rosters.contains_key(room)).collect();
    }

    /// The node's names of the groups that users of this worker made and whose members change.
    pub(super) fn own_group_names(&self) -> Vec<GroupName> {
        let groups =
            self.own_rooms(&[RoomKind::Group]).into_iter().filter(|room| self.plan.is_changing(*room));
        groups.filter_map(|room| Some((room, self.rooms.id(room)?.to_string()))).collect()
    }

    /// The names of those that any users made: a record of a join names its conversation and nothing else.
    pub(super) fn learn_groups(&mut self, groups: &[GroupName]) -> anyhow::Result<()> {
        for (room, name) in groups {
            self.learn(*room, name.parse().context("a group has a name that is none")?);
        }
        Ok(())
    }

    /// A change was promised: it stands at `seq`.
    pub(super) fn handle_changed(&mut self, by: UserIndex, pending: &Pending, seq: u64, now: Moment) {
        let Some((added, removed)) = self.change_of(by, &pending.command) else { return };
        let room = pending.room;
        let due = self.end_change(pending, now);
        for user in added.iter().chain(&removed) {
            let newest = self.churning.newest.entry((*user, room)).or_default();
            *newest = seq.max(*newest);
        }
        self.churning.note(room, seq, &added, &removed);
        let (command, asked_at) = (command_id(pending.message_id), pending.sent_at.unwrap_or(due));
        self.churning.book.promised.push(PromisedChange {
            room,
            seq,
            command,
            added,
            removed,
            asked_at,
            done_at: now,
        });
    }

    /// A command was answered as one that changes nothing. Whether it is a change of members, which may be so; then it is held against the log at
    /// the end.
    pub(super) fn is_unchanged(&mut self, asker: Outsider, pending: &Pending) -> bool {
        let Some((added, removed)) = self.change_of(asker.user, &pending.command) else { return false };
        self.end_change(pending, asker.at);
        self.churning.note_in(pending.room, &added);
        let command = command_id(pending.message_id);
        self.churning.book.unchanged.push(Unchanged { asker, command, added, removed });
        true
    }

    /// A change was answered with `ok`. When it was due.
    fn end_change(&mut self, pending: &Pending, now: Moment) -> Moment {
        let due = pending.due.unwrap_or(now);
        self.tally.counts.changes_acked += 1;
        self.tally.change.record(now.since(due), self.outage.touches(due, now));
        self.churning.end_if(pending);
        due
    }

    /// A change was refused. Whether that is because another one came first; then it is held against the log at the end: who left was refused as
    /// no member, whom somebody took out was not there, and a group that was full was so.
    pub(super) fn is_outrun(&mut self, asker: Outsider, pending: &Pending, code: ErrorCode) -> bool {
        let Some((added, removed)) = self.change_of(asker.user, &pending.command) else { return false };
        self.churning.end_if(pending);
        let is_outrun = match code {
            ErrorCode::NotAMember => true,
            // Nobody is missing to who only adds, and too many there are for nobody who only takes out.
            ErrorCode::NotFound => !removed.is_empty(),
            ErrorCode::Limit => !added.is_empty(),
            _ => false,
        };
        if is_outrun {
            self.tally.counts.changes_refused += 1;
            match code {
                ErrorCode::NotAMember => self.churning.book.outsiders.push(asker),
                ErrorCode::NotFound => {
                    let strangers = removed.iter().map(|user| Outsider { user: *user, ..asker });
                    self.churning.book.outsiders.extend(strangers);
                    self.churning.note_out(pending.room, &removed);
                }
                _ => self.churning.book.limited.push(Limited { asker, added: added.len() }),
            }
        }
        is_outrun
    }

    /// Who joins and who leaves by a command.
    fn change_of(&self, by: UserIndex, command: &Command) -> Option<(Vec<UserIndex>, Vec<UserIndex>)> {
        let users = |names: &[protocol::ids::UserId]| {
            names.iter().filter_map(|name| self.plan.user_of_name(name)).collect::<Vec<_>>()
        };
        match command {
            Command::Members(members) => Some((users(&members.add), users(&members.remove))),
            Command::Leave { .. } => Some((Vec::new(), vec![by])),
            _ => None,
        }
    }

    /// Somebody was refused something as no member. Whether that may be so; then it is held against the log at the end.
    pub(super) fn is_outside(&mut self, outsider: Outsider, code: ErrorCode) -> bool {
        let is_outside = code == ErrorCode::NotAMember && self.plan.is_changing(outsider.room);
        if is_outside {
            self.tally.counts.outside += 1;
            self.churning.book.outsiders.push(outsider);
        }
        is_outside
    }
}

impl Churning {
    /// The change of a group by its maker has ended.
    pub(super) fn end_if(&mut self, pending: &Pending) {
        if matches!(pending.command, Command::Members(_)) {
            self.end(pending.room);
        }
    }
}

impl User {
    /// A change of members was told for the first time: its group's maker keeps count, and who joined or left looks what it sees by now.
    pub(super) fn handle_change(&mut self, desk: &mut Desk, room: RoomIndex, event: &MemberEvent) {
        if !desk.plan.is_changing(room) {
            return;
        }
        if desk.plan.room(room).maker() == self.index {
            let users = |names: &[protocol::ids::UserId]| {
                names.iter().filter_map(|name| desk.plan.user_of_name(name)).collect::<Vec<_>>()
            };
            let (added, removed) = (users(&event.added), users(&event.removed));
            desk.churning.note(room, event.seq.0, &added, &removed);
        }
        let name = desk.plan.name(self.index);
        let (conversation, seq) = (event.conversation, event.seq.0);
        if event.removed.contains(&name) {
            self.look(desk, room, conversation, Some(seq));
        } else if event.added.contains(&name) && seq > 1 {
            self.look(desk, room, conversation, None);
        }
    }

    /// Asks for the beginning of a conversation.
    fn look(&mut self, desk: &mut Desk, room: RoomIndex, conversation: ConversationId, left: Option<u64>) {
        let is_looking = self.in_flight.all().any(|asked| matches!(asked, Asked::Look { .. }));
        if is_looking || self.presence != Presence::Live || desk.watching.is_over {
            return;
        }
        desk.tally.counts.looks += 1;
        let (range, limit) = (HistoryRange::After(Seq(0)), HISTORY_ITEMS_MAX.min(LOOK_ITEMS));
        self.ask(Command::History { conversation, range, limit }, Asked::Look { room, left });
    }
}

/// Of a look: the beginning of what may be seen is what is wrong if anything is.
const LOOK_ITEMS: u32 = 20;
