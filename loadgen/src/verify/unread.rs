//! What is unread: the list of a user's conversations, against a recount of the logs.
//!
//! A position is what one has read or one's own newest message, or the record by which one joined: of a group the first, of a
//! direct conversation nothing. Where members change it is the newest join, and who has left last has nothing listed.

use serde::{Deserialize, Serialize};

use super::{Evidence, Kind, Members, Violations};
use crate::plan::{RoomIndex, UserIndex};

/// What the node says of one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedRoom {
    pub(crate) room: RoomIndex,
    pub(crate) head: u64,
    pub(crate) read: u64,
    pub(crate) unread: u64,
}

/// All that one user is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserList {
    pub(crate) user: UserIndex,
    /// By the plan.
    pub(crate) rooms: Vec<RoomIndex>,
    /// By the node.
    pub(crate) listed: Vec<ListedRoom>,
}

/// Adds what is not as a recount says.
pub(super) fn judge(evidence: &Evidence, members: &Members<'_>, violations: &mut Violations) {
    for list in &evidence.lists {
        for room in &list.rooms {
            judge_room(*room, list, evidence, members, violations);
        }
        let strange = list.listed.iter().filter(|listed| !list.rooms.contains(&listed.room));
        for listed in strange {
            let detail = || format!("user {} was listed room {}", list.user.0, listed.room.0);
            violations.add(Kind::Recipient, detail);
        }
    }
}

fn judge_room(
    room: RoomIndex,
    list: &UserList,
    evidence: &Evidence,
    members: &Members<'_>,
    violations: &mut Violations,
) {
    let listed: Vec<&ListedRoom> = list.listed.iter().filter(|listed| listed.room == room).collect();
    let expected = expected(room, list.user, evidence, members);
    let is_right = match &listed[..] {
        [] => expected.is_none(),
        [listed] => expected == Some(**listed),
        _ => false,
    };
    if !is_right {
        violations.add(Kind::Unread, || {
            format!("user {} was listed {listed:?} where {expected:?} is right", list.user.0)
        });
    }
}

/// `None` where nothing is to be listed.
fn expected(
    room: RoomIndex,
    user: UserIndex,
    evidence: &Evidence,
    members: &Members<'_>,
) -> Option<ListedRoom> {
    let head = evidence.logs.get(&room).and_then(|log| log.last()).map(|(seq, _)| *seq)?;
    let messages = evidence.senders.get(&room).map(Vec::as_slice).unwrap_or_default();
    let joined = match members.is_changing(room) {
        true => members.joined(room, user)?,
        false => u64::from(messages.first().is_none_or(|(first, _)| *first > 1)),
    };
    let own = messages.iter().rev().find(|(_, sender)| *sender == user).map(|(seq, _)| *seq);
    let reads = evidence.attendance.reads.iter().filter(|(by, of, _)| *by == user && *of == room);
    let said = reads.map(|(.., seq)| *seq).max();
    let read = own.max(said).unwrap_or(0).max(joined);
    let unread = messages.iter().filter(|(seq, _)| *seq > read).count() as u64;
    Some(ListedRoom { room, head, read, unread })
}
