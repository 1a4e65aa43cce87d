//! Who was in what and when, by the log, held against what everybody was given, shown and refused.
//!
//! ```text
//!   join ......... leave      join ......  head
//!   |<- told all of it ->|    |<- all ->|          nothing before the first, between the two, or behind a last leave
//! ```
//! Both records that bound a stay are told to who joins and leaves. A history shows, while one is in it, what stands from the join on, or
//! everything, as the group was made; once one has left it shows nothing. Times are those of one machine: an answer that came before the
//! change was asked for that would allow it is wrong.

use std::collections::{HashMap, HashSet};

use protocol::limits::{MEMBERS_MAX, SMALL_GROUP_MEMBERS_MAX};
use serde::{Deserialize, Serialize};

use super::{CommandId, Evidence, Kind, LogItem, Violations, command_id};
use crate::{
    clock::Moment,
    plan::{RoomIndex, UserIndex},
};

/// Large groups that one user may be in: the node counts them by log, so nobody with fewer conversations can be in as many.
const LARGE_GROUPS_MAX: usize = 256;

/// The sequences between a join and a leave, with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stay {
    pub(crate) from: u64,
    /// `None` where it has not ended.
    pub(crate) until: Option<u64>,
}

impl Stay {
    fn end(self) -> u64 {
        self.until.unwrap_or(u64::MAX)
    }
}

/// A change of members as it stands in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoggedChange {
    pub(crate) seq: u64,
    pub(crate) added: Vec<UserIndex>,
    pub(crate) removed: Vec<UserIndex>,
}

/// The changes of one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoggedChanges {
    /// Who joins may read nothing from before.
    pub(crate) from_join: bool,
    /// Ascending, the first of them made it.
    pub(crate) changes: Vec<LoggedChange>,
}

/// A change of members that the node has promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PromisedChange {
    pub(crate) room: RoomIndex,
    pub(crate) seq: u64,
    pub(crate) command: CommandId,
    pub(crate) added: Vec<UserIndex>,
    pub(crate) removed: Vec<UserIndex>,
    /// When it was first written to a socket,
    pub(crate) asked_at: Moment,
    /// and when the promise came.
    pub(crate) done_at: Moment,
}

/// Somebody was refused something for not being in a conversation, or somebody else because this one was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outsider {
    pub(crate) user: UserIndex,
    pub(crate) room: RoomIndex,
    /// When what was refused was written to the socket that the refusal came from,
    pub(crate) asked_at: Moment,
    /// and when that was.
    pub(crate) at: Moment,
}

/// A change was refused because there would be too many of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limited {
    /// Who asked for it, where, and when it was refused.
    pub(crate) asker: Outsider,
    /// How many were to join.
    pub(crate) added: usize,
}

/// A change was answered without a place, as one that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unchanged {
    /// Who asked for it, where, and when it was answered.
    pub(crate) asker: Outsider,
    pub(crate) command: CommandId,
    /// Who is in already, if that is right,
    pub(crate) added: Vec<UserIndex>,
    /// and who was to leave, which changes something always.
    pub(crate) removed: Vec<UserIndex>,
}

/// Somebody was refused to have read a sequence, as from before its joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EarlyRead {
    pub(crate) user: UserIndex,
    pub(crate) room: RoomIndex,
    pub(crate) seq: u64,
    /// When it was refused.
    pub(crate) at: Moment,
}

/// A page of a history that somebody was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownPage {
    pub(crate) user: UserIndex,
    pub(crate) room: RoomIndex,
    /// The first sequence that was asked for,
    pub(crate) asked: u64,
    /// the first one that was shown,
    pub(crate) first: u64,
    /// the lowest whose content was shown, by itself or by an amendment of it,
    pub(crate) lowest: u64,
    /// and the last one.
    pub(crate) last: u64,
    pub(crate) at: Moment,
    /// By which sequence who asked knew to have left.
    pub(crate) left: Option<u64>,
}

/// What the users of one process were promised, refused and shown of groups whose members change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MembershipBook {
    pub(crate) promised: Vec<PromisedChange>,
    pub(crate) outsiders: Vec<Outsider>,
    pub(crate) limited: Vec<Limited>,
    pub(crate) unchanged: Vec<Unchanged>,
    pub(crate) early_reads: Vec<EarlyRead>,
    pub(crate) pages: Vec<ShownPage>,
}

impl MembershipBook {
    pub(crate) fn merge(&mut self, other: Self) {
        self.promised.extend(other.promised);
        self.outsiders.extend(other.outsiders);
        self.limited.extend(other.limited);
        self.unchanged.extend(other.unchanged);
        self.early_reads.extend(other.early_reads);
        self.pages.extend(other.pages);
    }
}

/// When one user was in one conversation, by what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldStays {
    pub(crate) user: UserIndex,
    pub(crate) room: RoomIndex,
    pub(crate) stays: Vec<Stay>,
}

/// Who was in which of the conversations whose members change, by their logs.
pub(crate) struct Members<'a> {
    logged: &'a HashMap<RoomIndex, LoggedChanges>,
    stays: HashMap<(RoomIndex, UserIndex), Vec<Stay>>,
}

impl<'a> Members<'a> {
    pub(crate) fn of(logged: &'a HashMap<RoomIndex, LoggedChanges>) -> Self {
        let mut stays: HashMap<(RoomIndex, UserIndex), Vec<Stay>> = HashMap::new();
        for (room, logged) in logged {
            for LoggedChange { seq, added, removed } in &logged.changes {
                for user in added {
                    stays.entry((*room, *user)).or_default().push(Stay { from: *seq, until: None });
                }
                for user in removed {
                    if let Some(last) = stays.get_mut(&(*room, *user)).and_then(|stays| stays.last_mut()) {
                        last.until.get_or_insert(*seq);
                    }
                }
            }
        }
        Self { logged, stays }
    }

    pub(crate) fn is_changing(&self, room: RoomIndex) -> bool {
        self.logged.contains_key(&room)
    }

    pub(crate) fn stays(&self, room: RoomIndex, user: UserIndex) -> &[Stay] {
        self.stays.get(&(room, user)).map_or(&[], Vec::as_slice)
    }

    /// Since when a user is in a room that has not left it.
    pub(crate) fn joined(&self, room: RoomIndex, user: UserIndex) -> Option<u64> {
        self.stays(room, user).last().filter(|stay| stay.until.is_none()).map(|stay| stay.from)
    }

    /// Whether `seq` was kept from a user at some time in which it was in the room.
    pub(super) fn was_hidden(&self, room: RoomIndex, user: UserIndex, seq: u64) -> bool {
        self.stays(room, user).iter().any(|stay| seq < self.visible_from(room, *stay))
    }

    fn visible_from(&self, room: RoomIndex, stay: Stay) -> u64 {
        let from_join = self.logged.get(&room).is_some_and(|logged| logged.from_join);
        if from_join { stay.from } else { 1 }
    }

    /// Who could say something at `seq`: behind the join and before the leave.
    fn could_write(&self, room: RoomIndex, user: UserIndex, seq: u64) -> bool {
        self.stays(room, user).iter().any(|stay| stay.from < seq && seq < stay.end())
    }

    /// The users of each room, each once.
    pub(crate) fn all(&self) -> impl Iterator<Item = (RoomIndex, UserIndex, &[Stay])> {
        self.stays.iter().map(|((room, user), stays)| (*room, *user, stays.as_slice()))
    }
}

/// How often groups went from fan-out on write to fan-out on read, which have more members than `small_max`, and back.
pub(crate) fn switches(logged: &HashMap<RoomIndex, LoggedChanges>, small_max: usize) -> u64 {
    let of_room = |logged: &LoggedChanges| {
        let (mut members, mut switches) = (HashSet::<UserIndex>::new(), 0);
        for LoggedChange { added, removed, .. } in &logged.changes {
            let (is_first, was_large) = (members.is_empty(), members.len() > small_max);
            members.extend(added);
            removed.iter().for_each(|user| _ = members.remove(user));
            switches += u64::from(!is_first && was_large != (members.len() > small_max));
        }
        switches
    };
    logged.values().map(of_room).sum()
}

/// Adds what the log does not allow, and what it allows and was not told.
pub(super) fn judge(evidence: &Evidence, members: &Members<'_>, violations: &mut Violations) {
    for told in &evidence.stays {
        let log = evidence.logs.get(&told.room).map(Vec::as_slice).unwrap_or_default();
        judge_stays(told, log, members, violations);
    }
    let book = &evidence.membership;
    let asked: HashMap<(RoomIndex, u64), &PromisedChange> =
        book.promised.iter().map(|change| ((change.room, change.seq), change)).collect();
    for (room, logged) in members.logged {
        judge_writers(*room, evidence, members, violations);
        for change in logged.changes.iter().skip(1) {
            judge_change(*room, change, asked.get(&(*room, change.seq)).copied(), members, violations);
        }
    }
    judge_promises(evidence, members, violations);
    let asked_at = |room: RoomIndex, seq: u64| asked.get(&(room, seq)).map(|change| change.asked_at);
    for outsider in &book.outsiders {
        judge_outsider(*outsider, members, &asked, violations);
    }
    // Nobody of a run with fewer conversations can be in as many large groups.
    let has_many_rooms = evidence.logs.len() + evidence.logs_unread >= LARGE_GROUPS_MAX;
    for limited in &book.limited {
        judge_limited(*limited, has_many_rooms, members, &asked, violations);
    }
    for unchanged in &book.unchanged {
        judge_unchanged(unchanged, evidence, members, &asked, violations);
    }
    for page in &book.pages {
        judge_page(page, members, asked_at, violations);
    }
    for early in &book.early_reads {
        judge_early_read(*early, members, asked_at, violations);
    }
}

/// What a user was told of is what it was in.
fn judge_stays(told: &ToldStays, log: &[LogItem], members: &Members<'_>, violations: &mut Violations) {
    let ToldStays { user, room, stays } = told;
    let head = log.last().map_or(0, |(seq, _)| *seq);
    let whole = |stay: &Stay| Stay { until: Some(stay.until.unwrap_or(head)), ..*stay };
    let allowed: Vec<Stay> = members.stays(*room, *user).iter().map(whole).collect();
    let mut add = |kind, seq: u64, what: &str| {
        violations.add(kind, || {
            format!(
                "user {} {what} {seq} of room {}: it saw {stays:?} and was in it {allowed:?}",
                user.0, room.0
            )
        });
    };
    if let Some(seq) = first_outside(stays, &allowed) {
        add(Kind::Membership, seq, "was given");
    }
    if let Some(seq) = first_outside(&allowed, stays) {
        add(Kind::Hole, seq, "was not given");
    }
}

/// The first sequence of some stays that is in none of the others.
fn first_outside(stays: &[Stay], others: &[Stay]) -> Option<u64> {
    stays.iter().find_map(|stay| {
        let mut seq = stay.from;
        while seq <= stay.end() {
            let around = others.iter().find(|other| other.from <= seq && seq <= other.end());
            let Some(around) = around else { return Some(seq) };
            seq = around.end().saturating_add(1);
            if around.end() == u64::MAX {
                break;
            }
        }
        None
    })
}

/// Who wrote was in it.
fn judge_writers(room: RoomIndex, evidence: &Evidence, members: &Members<'_>, violations: &mut Violations) {
    let messages = evidence.senders.get(&room).into_iter().flatten().copied();
    let amendments = evidence.shown.get(&room).into_iter().flat_map(|shown| &shown.amendments);
    for (seq, user) in messages.chain(amendments.map(|amendment| (amendment.seq, amendment.by))) {
        if !members.could_write(room, user, seq) {
            violations.add(Kind::Membership, || {
                format!("{seq} of room {} is by user {}, who was not in it", room.0, user.0)
            });
        }
    }
}

/// A change in the log is one that somebody asked for, and does what was asked for. Who was added was perhaps in it already.
fn judge_change(
    room: RoomIndex,
    change: &LoggedChange,
    asked: Option<&PromisedChange>,
    members: &Members<'_>,
    violations: &mut Violations,
) {
    let is_as_asked = asked.is_some_and(|asked| {
        let is_added = |user: &UserIndex| change.added.contains(user);
        let was_in = |user: &UserIndex| members.could_write(room, *user, change.seq);
        change.added.iter().all(|user| asked.added.contains(user))
            && asked.added.iter().all(|user| is_added(user) || was_in(user))
            && change.removed == asked.removed
    });
    if !is_as_asked {
        violations.add(Kind::Membership, || {
            format!("room {} has {change:?}, and what was asked for is {asked:?}", room.0)
        });
    }
}

/// A promised change stands in the log where it was promised, as a change.
fn judge_promises(evidence: &Evidence, members: &Members<'_>, violations: &mut Violations) {
    for promised in &evidence.membership.promised {
        let PromisedChange { room, seq, command, .. } = promised;
        let logged = members.logged.get(room).map(|logged| logged.changes.as_slice()).unwrap_or_default();
        let is_change = logged.binary_search_by_key(seq, |change| change.seq).is_ok();
        let log = evidence.logs.get(room).map(Vec::as_slice).unwrap_or_default();
        let stored = log.binary_search_by_key(seq, |(seq, _)| *seq).ok().map(|place| log[place].1);
        if !is_change || stored.is_none_or(|stored| command_id(stored) != *command) {
            violations.add(Kind::AckedLost, || {
                format!("the change at {seq} of room {} is not in its log: {promised:?}", room.0)
            });
        }
    }
}

/// Who was out was so at some time between question and refusal. Somebody is in for certain from the answer to its join until its leave is asked
/// for; those whom a group was made with are in it before anything else is asked.
fn judge_outsider(
    outsider: Outsider,
    members: &Members<'_>,
    promised: &HashMap<(RoomIndex, u64), &PromisedChange>,
    violations: &mut Violations,
) {
    let Outsider { user, room, .. } = outsider;
    if let Some(stay) = members.stays(room, user).iter().find(|stay| was_in(**stay, outsider, promised)) {
        violations.add(Kind::Membership, || {
            let (user, room) = (user.0, room.0);
            format!("user {user} was refused as no member of room {room}, and was in it meanwhile: {stay:?}")
        });
    }
}

/// Whether a stay lasted from question to refusal for certain.
fn was_in(
    stay: Stay,
    Outsider { room, asked_at, at, .. }: Outsider,
    promised: &HashMap<(RoomIndex, u64), &PromisedChange>,
) -> bool {
    let joined = promised.get(&(room, stay.from)).map(|change| change.done_at);
    let joined = if stay.from == 1 { Some(Moment::default()) } else { joined };
    // That nobody asked for a change in the log is told otherwise: of when it was so nothing is certain.
    let left = |seq| promised.get(&(room, seq)).map_or_else(Moment::default, |change| change.asked_at);
    joined.is_some_and(|joined| joined <= asked_at) && stay.until.is_none_or(|seq| at < left(seq))
}

/// Whether a stay may have lasted at some time between the two.
fn may_have_been_in(
    stay: Stay,
    Outsider { room, asked_at, at, .. }: Outsider,
    promised: &HashMap<(RoomIndex, u64), &PromisedChange>,
) -> bool {
    let joined = promised.get(&(room, stay.from)).map_or_else(Moment::default, |change| change.asked_at);
    let left = |seq| promised.get(&(room, seq)).map_or(Moment(u64::MAX), |change| change.done_at);
    joined <= at && stay.until.is_none_or(|seq| asked_at <= left(seq))
}

/// What is refused as too much would have been: more members than a group may have, or one more large group, of which the node may have others
/// that nobody here knows. In one that is large already that is for who is in too many of them alone.
fn judge_limited(
    Limited { asker, added }: Limited,
    has_many_rooms: bool,
    members: &Members<'_>,
    promised: &HashMap<(RoomIndex, u64), &PromisedChange>,
    violations: &mut Violations,
) {
    let (mut least, mut most) = (0, added);
    for (_, _, stays) in members.all().filter(|(room, ..)| *room == asker.room) {
        least += usize::from(stays.iter().any(|stay| was_in(*stay, asker, promised)));
        most += usize::from(stays.iter().any(|stay| may_have_been_in(*stay, asker, promised)));
    }
    let may_be_full = most > MEMBERS_MAX;
    let may_be_of_too_many =
        most > SMALL_GROUP_MEMBERS_MAX && (least <= SMALL_GROUP_MEMBERS_MAX || has_many_rooms);
    if !may_be_full && !may_be_of_too_many {
        violations.add(Kind::Membership, || {
            let (user, room) = (asker.user.0, asker.room.0);
            format!("user {user} was refused a change of room {room} as too much, which would have had {most} members at most")
        });
    }
}

/// What changes nothing was so already, in one of the states that the group may have had between question and answer; and it is not stored.
fn judge_unchanged(
    unchanged: &Unchanged,
    evidence: &Evidence,
    members: &Members<'_>,
    promised: &HashMap<(RoomIndex, u64), &PromisedChange>,
    violations: &mut Violations,
) {
    let Unchanged { asker: Outsider { user, room, asked_at, at }, command, added, removed } = unchanged;
    let changes = members.logged.get(room).map(|logged| logged.changes.as_slice()).unwrap_or_default();
    let promise_of = |change: &LoggedChange| promised.get(&(*room, change.seq));
    let mut there = HashSet::<UserIndex>::new();
    let was_so = changes.iter().enumerate().any(|(place, change)| {
        there.extend(&change.added);
        change.removed.iter().for_each(|user| _ = there.remove(user));
        // Of a change whose promise is not known nothing is certain but its place.
        let had_begun = promise_of(change).is_none_or(|promise| promise.asked_at <= *at);
        let mut later = changes[place + 1..].iter().filter_map(promise_of);
        let had_ended = later.any(|promise| promise.done_at < *asked_at);
        had_begun && !had_ended && there.contains(user) && added.iter().all(|user| there.contains(user))
    });
    if !removed.is_empty() || !was_so {
        violations.add(Kind::Membership, || {
            format!(
                "user {} was told of room {} that what it asked for is so already: {unchanged:?}",
                user.0, room.0
            )
        });
    }
    let log = evidence.logs.get(room).map(Vec::as_slice).unwrap_or_default();
    if let Some((seq, id)) = log.iter().find(|(_, id)| command_id(*id) == *command) {
        violations.add(Kind::Membership, || {
            format!("{id} was answered as what changes nothing, and is at {seq} of room {}", room.0)
        });
    }
}

/// What was before the join is too early, where that had been asked for and who joins sees nothing from before.
fn judge_early_read(
    EarlyRead { user, room, seq, at }: EarlyRead,
    members: &Members<'_>,
    asked_at: impl Fn(RoomIndex, u64) -> Option<Moment>,
    violations: &mut Violations,
) {
    let is_hidden = |stay: &Stay| {
        let is_asked_for = asked_at(room, stay.from).is_none_or(|asked| asked <= at);
        seq < members.visible_from(room, *stay) && is_asked_for
    };
    if !members.stays(room, user).iter().any(is_hidden) {
        violations.add(Kind::Membership, || {
            format!("user {} was refused to have read {seq} of room {}, which it may see", user.0, room.0)
        });
    }
}

/// A page shows what one stay lets its reader see, after the join was asked for and before the leave.
fn judge_page(
    page: &ShownPage,
    members: &Members<'_>,
    asked_at: impl Fn(RoomIndex, u64) -> Option<Moment>,
    violations: &mut Violations,
) {
    let ShownPage { user, room, asked, first, lowest, last, at, left } = *page;
    let stays = members.stays(room, user);
    let is_allowed = stays.iter().any(|stay| {
        let is_asked_for = asked_at(room, stay.from).is_none_or(|asked| asked <= at);
        let visible_from = members.visible_from(room, *stay);
        is_asked_for
            && left.is_none_or(|left| stay.from > left)
            && visible_from <= lowest
            && last < stay.end()
            && first == asked.max(visible_from)
    });
    if !is_allowed {
        violations.add(Kind::Membership, || {
            format!("user {} asked room {} and was shown {page:?}, and was in it {stays:?}", user.0, room.0)
        });
    }
}

#[cfg(test)]
mod tests;
