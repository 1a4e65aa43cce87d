//! What is unread: the list of a user's conversations, against a recount of the logs.
//!
//! A position is what one has read or one's own newest message, or the record by which one joined: of a group the first, of a
//! direct conversation nothing.

use serde::{Deserialize, Serialize};

use super::{Evidence, Kind, Violations};
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
pub(super) fn judge(evidence: &Evidence, violations: &mut Violations) {
    for list in &evidence.lists {
        for room in &list.rooms {
            judge_room(*room, list, evidence, violations);
        }
        let strange = list.listed.iter().filter(|listed| !list.rooms.contains(&listed.room));
        for listed in strange {
            let detail = || format!("user {} was listed room {}", list.user.0, listed.room.0);
            violations.add(Kind::Recipient, detail);
        }
    }
}

fn judge_room(room: RoomIndex, list: &UserList, evidence: &Evidence, violations: &mut Violations) {
    let head = evidence.logs.get(&room).and_then(|log| log.last()).map_or(0, |(seq, _)| *seq);
    let listed: Vec<&ListedRoom> = list.listed.iter().filter(|listed| listed.room == room).collect();
    let expected = expected(room, head, list.user, evidence);
    let is_right = match &listed[..] {
        [] => head == 0,
        [listed] => **listed == expected,
        _ => false,
    };
    if !is_right {
        violations.add(Kind::Unread, || {
            format!("user {} was listed {listed:?} where {expected:?} is right", list.user.0)
        });
    }
}

fn expected(room: RoomIndex, head: u64, user: UserIndex, evidence: &Evidence) -> ListedRoom {
    let messages = evidence.senders.get(&room).map(Vec::as_slice).unwrap_or_default();
    let own = messages.iter().rev().find(|(_, sender)| *sender == user).map(|(seq, _)| *seq);
    let begins_with_join = head > 0 && messages.first().is_none_or(|(first, _)| *first > 1);
    let reads = evidence.attendance.reads.iter().filter(|(by, of, _)| *by == user && *of == room);
    let said = reads.map(|(.., seq)| *seq).max();
    let read = own.max(said).unwrap_or(u64::from(begins_with_join));
    let unread = messages.iter().filter(|(seq, _)| *seq > read).count() as u64;
    ListedRoom { room, head, read, unread }
}
