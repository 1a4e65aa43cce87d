//! What viewers were told of the members of what they view: how far these have read and have been given, and who is there.
//!
//! [`Told`] follows one viewer while a run goes on: positions go forward only, also from one connection to the next, because
//! a receipt is made from what is on disk. [`judge`] holds where it ended against what the members did.
//!
//! ```text
//!   max(newest ok of a `read`, newest message of one's own) <= read, as told <= the same, or the record of joining
//!   read <= delivered where both are told,  delivered <= head
//! ```

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Evidence, Kind, Violations};
use crate::plan::{RoomIndex, UserIndex};

/// Members of all that one user views. 16 bytes each, so that a viewer stays small: 2 KiB.
pub(crate) const TOLD_MAX: usize = 128;
/// Who was away for less was within grace (10 s): a session ends and begins for the node a little sooner or later than for its client.
pub(crate) const AWAY_NOTICED: Duration = Duration::from_secs(9);

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

/// What the users of one process did that others are told of, and what they were told of others coming and going.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Attendance {
    pub(crate) reads: Vec<ReadUpTo>,
    /// How long each was away at most, in milliseconds; only who was away at all.
    pub(crate) away_ms: Vec<(UserIndex, u64)>,
    /// Viewers, and who they were told went.
    pub(crate) gone: Vec<(UserIndex, UserIndex)>,
    /// Viewers, and who a `view` after the run did not show as online, and where.
    pub(crate) unseen: Vec<(UserIndex, RoomIndex, UserIndex)>,
}

impl Attendance {
    pub(crate) fn merge(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.away_ms.extend(other.away_ms);
        self.gone.extend(other.gone);
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
    let away: HashMap<_, _> = attendance.away_ms.iter().copied().collect();
    for (viewer, user) in &attendance.gone {
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
        let gone = |evidence: &mut Evidence| evidence.attendance.gone.push((ME, PEER));
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
}
