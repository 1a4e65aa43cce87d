//! The end of a run: the log, read by a fresh reader, against everything that was promised and seen.

use std::collections::{HashMap, HashSet};

use protocol::ids::MessageId;

use super::{
    Amendment, Attendance, Kind, LoggedChanges, Members, MembershipBook, Overtaken, RoomBook, Shown,
    ToldRoom, ToldStays, UserList, Violations, forms, membership, told, unread,
};
use crate::plan::{RoomIndex, UserIndex};

/// One item of a log.
pub(crate) type LogItem = (u64, MessageId);

/// What a run left behind, apart from what was wrong already while it went on.
#[derive(Default)]
pub(crate) struct Evidence {
    /// What each process saw and was promised.
    pub(crate) books: Vec<RoomBook>,
    /// Each conversation from sequence 1, as a fresh reader saw it.
    pub(crate) logs: HashMap<RoomIndex, Vec<LogItem>>,
    /// Conversations beside those.
    pub(crate) logs_unread: usize,
    /// For each member that was online and drained: who, where, and the last sequence it saw. Of conversations whose members do not
    /// change.
    pub(crate) ends: Vec<(String, RoomIndex, u64)>,
    /// The same of those whose members change: when each user was in it.
    pub(crate) stays: Vec<ToldStays>,
    /// Their changes, by the log.
    pub(crate) changes: HashMap<RoomIndex, LoggedChanges>,
    /// Their changes as they were promised, and who was refused and shown what.
    pub(crate) membership: MembershipBook,
    /// Sends that were refused for good.
    pub(crate) refused: Vec<MessageId>,
    /// Amendments that were acknowledged.
    pub(crate) amendments: Vec<Amendment>,
    /// Amendments whose target was not found.
    pub(crate) overtaken: Vec<Overtaken>,
    /// Of each conversation, the sequences of messages and who sent them, ascending.
    pub(crate) senders: HashMap<RoomIndex, Vec<(u64, UserIndex)>>,
    /// What some users were told that they are in.
    pub(crate) lists: Vec<UserList>,
    /// What each conversation shows of amendments.
    pub(crate) shown: HashMap<RoomIndex, Shown>,
    /// What viewers knew.
    pub(crate) told: Vec<ToldRoom>,
    /// Who read what, and was away, and what was told of that.
    pub(crate) attendance: Attendance,
    /// The node handed over to another process while viewers were connected: that may tell them again what they know.
    pub(crate) is_upgraded: bool,
    /// Who was online at the end.
    pub(crate) present: HashSet<UserIndex>,
}

/// Everything that does not fit.
pub(crate) fn judge(evidence: &Evidence) -> anyhow::Result<Violations> {
    let mut violations = Violations::default();
    let mut places: HashMap<MessageId, (RoomIndex, u64)> = HashMap::new();
    for (room, log) in &evidence.logs {
        judge_log(*room, log, &mut places, &mut violations);
    }
    for book in &evidence.books {
        judge_book(book, &evidence.logs, &places, &mut violations)?;
    }
    for (user, room, at) in &evidence.ends {
        let head = evidence.logs.get(room).map_or(0, |log| log.len() as u64);
        // The last ones are not where they belong; whether they were lost or did not come in time, nobody can say from here.
        let kind = if *at < head { Kind::NotGiven } else { Kind::Hole };
        if *at != head {
            let detail = || format!("{user} ended at {at} of room {}, whose log ends at {head}", room.0);
            violations.add(kind, detail);
        }
    }
    for message_id in &evidence.refused {
        if let Some((room, seq)) = places.get(message_id) {
            let detail = || format!("{message_id} was refused and is at {seq} of room {}", room.0);
            violations.add(Kind::Refused, detail);
        }
    }
    let members = Members::of(&evidence.changes);
    forms::judge(evidence, &members, &mut violations);
    membership::judge(evidence, &members, &mut violations);
    told::judge(evidence, &mut violations);
    unread::judge(evidence, &members, &mut violations);
    Ok(violations)
}

fn judge_log(
    room: RoomIndex,
    log: &[LogItem],
    places: &mut HashMap<MessageId, (RoomIndex, u64)>,
    violations: &mut Violations,
) {
    let mut expected = 1;
    for (seq, message_id) in log {
        if *seq > expected {
            let detail = || format!("the log of room {} has {seq} after {}", room.0, expected - 1);
            violations.add(Kind::Hole, detail);
        } else if *seq < expected {
            let detail = || format!("the log of room {} has {seq} where {expected} is next", room.0);
            violations.add(Kind::Order, detail);
        }
        expected = seq + 1;
        if let Some((first_room, first_seq)) = places.insert(*message_id, (room, *seq)) {
            violations.add(Kind::Doubled, || {
                let (first, second) = (first_room.0, room.0);
                format!(
                    "{message_id} is in the log at {first_seq} of room {first} and {seq} of room {second}"
                )
            });
        }
    }
}

fn judge_book(
    book: &RoomBook,
    logs: &HashMap<RoomIndex, Vec<LogItem>>,
    places: &HashMap<MessageId, (RoomIndex, u64)>,
    violations: &mut Violations,
) -> anyhow::Result<()> {
    let room = book.room;
    let acked: HashSet<u64> = book.acked.iter().copied().collect();
    let log: HashMap<u64, MessageId> =
        logs.get(&room).map(|log| log.iter().copied().collect()).unwrap_or_default();
    for (seq, message_id) in book.items()? {
        let promise = if acked.contains(&seq) { "acknowledged" } else { "delivered" };
        match (log.get(&seq), places.get(&message_id)) {
            (Some(stored), _) if *stored == message_id => {}
            (_, None) => violations.add(Kind::AckedLost, || {
                format!("{message_id} was {promise} at {seq} of room {} and is nowhere", room.0)
            }),
            (_, Some((stored_room, stored_seq))) => violations.add(Kind::Order, || {
                let (told, stored) = (room.0, stored_room.0);
                format!(
                    "{message_id} was {promise} at {seq} of room {told} and is at {stored_seq} of {stored}"
                )
            }),
        }
    }
    Ok(())
}
