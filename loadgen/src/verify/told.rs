//! What viewers were told of the members of what they view: how far these have read and have been given, and who is there.
//!
//! [`Told`] follows one viewer while a run goes on: positions go forward only, also from one connection to the next, because
//! a receipt is made from what is on disk. [`judge`] holds where it ended against what the members did.
//!
//! ```text
//!   max(newest ok of a `read`, newest message of one's own) <= read, as told <= the same, or the record of joining
//!   read <= delivered where both are told,  delivered <= head
//! ```
//!
//! Who comes and goes is told by each log that has a viewed conversation with that member, once: so it is told as often as they share viewed
//! conversations at most, and at least once of who was away for long enough while somebody viewed.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Evidence, Kind, Violations};
use crate::{
    clock::Moment,
    plan::{RoomIndex, UserIndex},
};

/// Members of all that one user views. 16 bytes each, so that a viewer stays small: 2 KiB.
pub(crate) const TOLD_MAX: usize = 128;
/// Who was away for less was within grace (10 s): a session ends and begins for the node a little sooner or later than for its client.
pub(crate) const AWAY_NOTICED: Duration = Duration::from_secs(9);
/// Who was away for longer was told to have gone: grace, and as long as a busy node may take to say so. Of who is back before it has said so it
/// says the newest, which is that nothing has changed.
pub(crate) const AWAY_TOLD: Duration = Duration::from_secs(15);

/// Who hears nothing of the node for so long, or is stopped, cannot say that it was told late: of who has come back by then it tells the newest.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

/// How far a member has come, as one viewer knows; 0 is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldMember {
    pub(crate) member: UserIndex,
    /// By receipts, by answers to `view`, and by messages of its own.
    pub(crate) read: u32,
    /// By receipts and answers alone: what these say goes forward by itself.
    said: u32,
    pub(crate) delivered: u32,
}

/// What is wrong with a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// One of the positions was further already.
    Back { read: u32, delivered: u32 },
    /// Less was delivered than read.
    BelowRead,
    /// Of somebody who is not in the conversation.
    NoMember,
}

/// One conversation of one viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) members: Box<[ToldMember]>,
}

impl Told {
    pub(crate) fn new(members: impl Iterator<Item = UserIndex>) -> Self {
        let members = members.map(|member| ToldMember { member, read: 0, said: 0, delivered: 0 });
        Self { members: members.collect() }
    }

    /// A receipt, or a line of an answer to `view`. After a mistake what was told last counts, so that one mistake is told once.
    pub(crate) fn handle_receipt(
        &mut self,
        member: UserIndex,
        read: u64,
        delivered: u64,
    ) -> Result<(), Wrong> {
        let Some(told) = self.members.iter_mut().find(|told| told.member == member) else {
            return Err(Wrong::NoMember);
        };
        let (read, delivered) = (narrow(read), narrow(delivered));
        let before = *told;
        if read > 0 {
            told.said = read;
            told.read = told.read.max(read);
        }
        if delivered > 0 {
            told.delivered = delivered;
        }
        let is_back = |now: u32, before: u32| now > 0 && now < before;
        if is_back(read, before.said) || is_back(delivered, before.delivered) {
            told.read = if is_back(read, before.said) { read } else { told.read };
            return Err(Wrong::Back { read: before.said, delivered: before.delivered });
        }
        if read > 0 && delivered > 0 && delivered < read { Err(Wrong::BelowRead) } else { Ok(()) }
    }

    /// A message says that its sender has read up to it.
    pub(crate) fn handle_message(&mut self, sender: UserIndex, seq: u64) {
        if let Some(told) = self.members.iter_mut().find(|told| told.member == sender) {
            told.read = told.read.max(narrow(seq));
        }
    }

    /// How far a member is known to have read.
    pub(crate) fn read(&self, member: UserIndex) -> u64 {
        self.members.iter().find(|told| told.member == member).map_or(0, |told| told.read.into())
    }
}

/// A conversation in a run has fewer sequences than that; a position beyond stays one that is too far.
fn narrow(seq: u64) -> u32 {
    u32::try_from(seq).unwrap_or(u32::MAX)
}

/// By what a viewer knew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// What was told while the run went on.
    Events,
    /// A `view` after it.
    Recount,
}

/// What one viewer knew of one conversation at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldRoom {
    pub(crate) viewer: UserIndex,
    pub(crate) room: RoomIndex,
    pub(crate) source: Source,
    pub(crate) members: Vec<ToldMember>,
}

/// How far a user has an `ok` for having read.
pub(crate) type ReadUpTo = (UserIndex, RoomIndex, u64);

/// A user of whom a viewer was told again what it knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repeated {
    pub(crate) viewer: UserIndex,
    pub(crate) user: UserIndex,
    pub(crate) online: bool,
    pub(crate) times: u8,
    /// Viewed conversations that both are in.
    pub(crate) rooms: u8,
}

/// A conversation that somebody viewed, on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watched {
    pub(crate) viewer: UserIndex,
    pub(crate) room: RoomIndex,
    pub(crate) since: Moment,
    pub(crate) until: Moment,
}

/// What the users of one process did that others are told of, and what they were told of others coming and going.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Attendance {
    pub(crate) reads: Vec<ReadUpTo>,
    /// How long each was away at most, in milliseconds; only who was away at all.
    pub(crate) away_ms: Vec<(UserIndex, u64)>,
    /// Viewers, who they were told went, and when they were.
    pub(crate) gone: Vec<(UserIndex, UserIndex, Moment)>,
    /// There were more of those than are kept: who is not among them may have been told.
    pub(crate) is_cut: bool,
    /// The same said of somebody more often than there are logs that can.
    pub(crate) repeated: Vec<Repeated>,
    /// Who had no session for [`AWAY_TOLD`] or longer, from when until when.
    pub(crate) absences: Vec<(UserIndex, Moment, Moment)>,
    /// What was viewed without a break for as long.
    pub(crate) watched: Vec<Watched>,
    /// When nobody of a process heard anything of the node, for [`SILENCE`] or longer.
    pub(crate) silences: Vec<(Moment, Moment)>,
    /// Viewers, and who a `view` after the run did not show as online, and where.
    pub(crate) unseen: Vec<(UserIndex, RoomIndex, UserIndex)>,
}

impl Attendance {
    pub(crate) fn merge(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.away_ms.extend(other.away_ms);
        self.gone.extend(other.gone);
        self.is_cut |= other.is_cut;
        self.repeated.extend(other.repeated);
        self.absences.extend(other.absences);
        self.watched.extend(other.watched);
        self.silences.extend(other.silences);
        self.unseen.extend(other.unseen);
    }
}

/// Adds what was told and is not so.
pub(super) fn judge(evidence: &Evidence, violations: &mut Violations) {
    let attendance = &evidence.attendance;
    let reads = attendance.reads.iter().map(|(user, room, seq)| ((*user, *room), *seq));
    let reads: HashMap<_, _> = reads.collect();
    let mut own: HashMap<(UserIndex, RoomIndex), u64> = HashMap::new();
    for (room, messages) in &evidence.senders {
        // Ascending: the newest stays.
        own.extend(messages.iter().map(|(seq, sender)| ((*sender, *room), *seq)));
    }
    for told in &evidence.told {
        let head = evidence.logs.get(&told.room).and_then(|log| log.last()).map_or(0, |(seq, _)| *seq);
        for member in &told.members {
            let of = (member.member, told.room);
            let done = reads.get(&of).max(own.get(&of)).copied().unwrap_or(0);
            judge_member(told, member, done, head, violations);
        }
    }
    judge_departures(evidence, violations);
    if !evidence.is_upgraded {
        for Repeated { viewer, user, online, times, rooms } in &attendance.repeated {
            let what = if *online { "came" } else { "went" };
            violations.add(Kind::Presence, || {
                format!(
                    "user {} was told {times} times that user {} {what}, and views {rooms} conversations with it",
                    viewer.0, user.0
                )
            });
        }
    }
    let away: HashMap<_, _> = attendance.away_ms.iter().copied().collect();
    for (viewer, user, _) in &attendance.gone {
        let away_ms = away.get(user).copied().unwrap_or(0);
        if Duration::from_millis(away_ms) < AWAY_NOTICED {
            violations.add(Kind::Presence, || {
                format!("user {} was told that user {} went, who was away for {away_ms} ms", viewer.0, user.0)
            });
        }
    }
    for (viewer, room, user) in &attendance.unseen {
        if evidence.present.contains(user) {
            violations.add(Kind::Presence, || {
                format!(
                    "user {} views room {} and is not shown that user {} is online",
                    viewer.0, room.0, user.0
                )
            });
        }
    }
}

/// Whoever viewed a conversation while one of its members was away for long was told that it went.
fn judge_departures(evidence: &Evidence, violations: &mut Violations) {
    let attendance = &evidence.attendance;
    if attendance.is_cut {
        return;
    }
    let (mut absences, mut watched, mut gone) = (HashMap::new(), HashMap::new(), HashMap::new());
    let is_silent = |from: Moment, until: Moment| {
        attendance.silences.iter().any(|(since, heard)| *since < until && *heard > from)
    };
    for (user, from, until) in
        attendance.absences.iter().filter(|(_, from, _)| !is_silent(*from, from.after(AWAY_TOLD)))
    {
        absences.entry(*user).or_insert_with(Vec::new).push((*from, *until));
    }
    for Watched { viewer, room, since, until } in &attendance.watched {
        watched.entry((*viewer, *room)).or_insert_with(Vec::new).push((*since, *until));
    }
    for (viewer, user, at) in &attendance.gone {
        gone.entry((*viewer, *user)).or_insert_with(Vec::new).push(*at);
    }
    // Two may share several conversations.
    let mut judged = HashSet::new();
    for told in evidence.told.iter().filter(|told| told.source == Source::Events) {
        let Some(watched) = watched.get(&(told.viewer, told.room)) else { continue };
        for member in told.members.iter().map(|told| told.member).filter(|member| *member != told.viewer) {
            for (from, until) in absences.get(&member).into_iter().flatten() {
                let due = from.after(AWAY_TOLD);
                if !watched.iter().any(|(since, until)| since <= from && *until >= due)
                    || !judged.insert((told.viewer, member, *from))
                {
                    continue;
                }
                let mut told_at = gone.get(&(told.viewer, member)).into_iter().flatten();
                if !told_at.any(|at| at >= from && *at <= due.max(*until)) {
                    violations.add(Kind::Presence, || {
                        let seconds = until.since(*from).as_secs();
                        let (viewer, room) = (told.viewer.0, told.room.0);
                        format!(
                            "user {viewer} viewed room {room} and was not told that user {} went, who was away for {seconds} s",
                            member.0
                        )
                    });
                }
            }
        }
    }
}

fn judge_member(told: &ToldRoom, member: &ToldMember, done: u64, head: u64, violations: &mut Violations) {
    let ToldMember { member, read, delivered, .. } = *member;
    // Who joins has read everything up to the record of it, of a group the first.
    let read_max = done.max(1);
    let (viewer, room, source) = (told.viewer.0, told.room.0, told.source);
    if u64::from(read) < done {
        violations.add(Kind::Receipt, || {
            format!(
                "user {viewer} knows by {source:?} that user {} read {read} of room {room} and not {done}",
                member.0
            )
        });
    }
    if u64::from(read) > read_max || u64::from(delivered) > head {
        violations.add(Kind::Receipt, || {
            format!(
                "user {viewer} was told that user {} read {read} and was given {delivered} of room {room}, \
                 which ends at {head}, and it read {done}",
                member.0
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ROOM: RoomIndex = RoomIndex(0);
    const ME: UserIndex = UserIndex(0);
    const PEER: UserIndex = UserIndex(1);

    #[test]
    fn positions_go_forward_only_each_by_itself() {
        let mut told = Told::new([ME, PEER].into_iter());
        assert_eq!(told.handle_receipt(PEER, 3, 5), Ok(()));
        // Of `read` alone, and of what was delivered alone.
        assert_eq!(told.handle_receipt(PEER, 4, 0), Ok(()));
        assert_eq!(told.handle_receipt(PEER, 0, 6), Ok(()));
        // A message of its own is told otherwise: a receipt from before it may come later.
        told.handle_message(PEER, 9);
        assert_eq!(told.handle_receipt(PEER, 5, 7), Ok(()));
        assert_eq!(told.read(PEER), 9);
        assert_eq!(told.handle_receipt(PEER, 4, 7), Err(Wrong::Back { read: 5, delivered: 7 }));
        assert_eq!(told.handle_receipt(PEER, 6, 6), Err(Wrong::Back { read: 4, delivered: 7 }));
        assert_eq!(told.handle_receipt(PEER, 8, 7), Err(Wrong::BelowRead));
        assert_eq!(told.handle_receipt(UserIndex(2), 1, 1), Err(Wrong::NoMember));
    }

    /// What is wrong where PEER read up to 3 of 5, wrote 2, was away for 1 s, and this was told to ME.
    fn kinds(read: u64, delivered: u64, change: impl Fn(&mut Evidence)) -> Vec<Kind> {
        let mut told = Told::new([PEER].into_iter());
        told.handle_receipt(PEER, read, delivered).expect("forward");
        let members = told.members.to_vec();
        let log = (1..=5).map(|seq| (seq, protocol::ids::MessageId([seq as u8; 16])));
        let mut evidence = Evidence {
            logs: HashMap::from([(ROOM, log.collect())]),
            senders: HashMap::from([(ROOM, vec![(1, ME), (2, PEER), (3, ME), (4, ME), (5, ME)])]),
            told: vec![ToldRoom { viewer: ME, room: ROOM, source: Source::Events, members }],
            present: HashSet::from([ME, PEER]),
            ..Evidence::default()
        };
        evidence.attendance.reads.push((PEER, ROOM, 3));
        evidence.attendance.away_ms.push((PEER, 1000));
        change(&mut evidence);
        let mut violations = Violations::default();
        judge(&evidence, &mut violations);
        violations.counts.into_keys().collect()
    }

    #[test]
    fn what_was_told_last_is_what_was_done_last() {
        let nothing = |_: &mut Evidence| {};
        assert!(kinds(3, 5, nothing).is_empty());
        assert_eq!(kinds(2, 5, nothing), [Kind::Receipt], "the last read was not told");
        assert_eq!(kinds(4, 5, nothing), [Kind::Receipt], "nobody read that");
        assert_eq!(kinds(3, 6, nothing), [Kind::Receipt], "there is no 6");
        let written = |evidence: &mut Evidence| evidence.senders.insert(ROOM, vec![(4, PEER)]);
        assert!(kinds(4, 5, |evidence| drop(written(evidence))).is_empty(), "a message reads up to itself");
    }

    #[test]
    fn nobody_goes_within_grace_and_everybody_who_is_there_is_shown() {
        let gone = |evidence: &mut Evidence| evidence.attendance.gone.push((ME, PEER, Moment(1)));
        assert_eq!(kinds(3, 5, gone), [Kind::Presence]);
        let long_gone = |evidence: &mut Evidence| {
            gone(evidence);
            evidence.attendance.away_ms = vec![(PEER, 11_000)];
        };
        assert!(kinds(3, 5, long_gone).is_empty());
        let unseen = |evidence: &mut Evidence| evidence.attendance.unseen.push((ME, ROOM, PEER));
        assert_eq!(kinds(3, 5, unseen), [Kind::Presence]);
        let away = |evidence: &mut Evidence| {
            unseen(evidence);
            evidence.present.remove(&PEER);
        };
        assert!(kinds(3, 5, away).is_empty());
    }

    const fn second(number: u64) -> Moment {
        Moment(number * 1_000_000_000)
    }

    /// PEER has no session from 100 s until 130 s, ME views meanwhile, and is told.
    fn departed(change: impl Fn(&mut Attendance)) -> Vec<Kind> {
        kinds(3, 5, |evidence| {
            let attendance = &mut evidence.attendance;
            attendance.away_ms = vec![(PEER, 30_000)];
            attendance.absences = vec![(PEER, second(100), second(130))];
            attendance.watched =
                vec![Watched { viewer: ME, room: ROOM, since: second(90), until: second(200) }];
            attendance.gone = vec![(ME, PEER, second(110))];
            change(attendance);
        })
    }

    #[test]
    fn a_departure_is_told_to_whoever_views_all_the_time() {
        assert!(departed(|_| {}).is_empty());
        assert_eq!(departed(|attendance| attendance.gone.clear()), [Kind::Presence]);
        // Of another one, from before, of somebody else, and too late.
        for wrong in
            [(ME, PEER, second(99)), (PEER, ME, second(110)), (ME, ME, second(110)), (ME, PEER, second(131))]
        {
            assert_eq!(departed(|attendance| attendance.gone = vec![wrong]), [Kind::Presence], "{wrong:?}");
        }
        // Told twice of two absences, and of one of them.
        let twice = |attendance: &mut Attendance| {
            attendance.absences.push((PEER, second(150), second(170)));
            attendance.gone.push((ME, PEER, second(160)));
        };
        assert!(departed(twice).is_empty());
        assert_eq!(
            departed(|attendance| {
                twice(attendance);
                attendance.gone.pop();
            }),
            [Kind::Presence]
        );
    }

    #[test]
    fn who_did_not_view_all_the_time_may_have_missed_a_departure() {
        let unseen = |since, until| {
            departed(|attendance| {
                attendance.gone.clear();
                attendance.watched = vec![Watched { viewer: ME, room: ROOM, since, until }];
            })
        };
        assert_eq!(unseen(second(100), second(115)), [Kind::Presence], "just long enough");
        assert!(unseen(second(101), second(200)).is_empty(), "it has been there for a second");
        assert!(unseen(second(0), second(114)).is_empty(), "it left before it was to be told");
        for (silence, kinds) in
            [((second(98), second(100)), vec![Kind::Presence]), ((second(113), second(400)), vec![])]
        {
            let silent = |attendance: &mut Attendance| {
                attendance.gone.clear();
                attendance.silences.push(silence);
            };
            assert_eq!(
                departed(silent),
                kinds,
                "a node that is stopped says the newest when it goes on: {silence:?}"
            );
        }
        let cut = |attendance: &mut Attendance| {
            attendance.gone.clear();
            attendance.is_cut = true;
        };
        assert!(departed(cut).is_empty(), "what is not kept may have been told");
    }

    #[test]
    fn nobody_is_told_twice_of_one_coming() {
        let repeated = Repeated { viewer: ME, user: PEER, online: true, times: 2, rooms: 1 };
        let twice = |evidence: &mut Evidence| evidence.attendance.repeated.push(repeated);
        assert_eq!(kinds(3, 5, twice), [Kind::Presence]);
        let upgraded = |evidence: &mut Evidence| {
            twice(evidence);
            evidence.is_upgraded = true;
        };
        assert!(
            kinds(3, 5, upgraded).is_empty(),
            "another process says once more what it cannot know to be known"
        );
    }
}
