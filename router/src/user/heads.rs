//! `heads`: conversations that moved without their records being sent here.

use protocol::event::{Head, ServerFrame};
use protocol::ids::{ConversationId, Seq, UserId};

use super::UserSide;
use crate::mail::{Linked, MovedHead, ReadState, SessionId};

/// Conversations in one `heads`: a frame of a few KiB.
pub(super) const HEADS_PER_FRAME: usize = 100;

/// Whether other heads follow some.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    ByMore,
    ByNone,
}

impl UserSide {
    /// Names conversations, as many frames as it takes.
    pub(super) fn push_heads(&mut self, id: SessionId, heads: Vec<Head>) {
        self.push_heads_before(id, heads, Followed::ByNone);
    }

    /// The same, where more may follow.
    pub(super) fn push_heads_before(&mut self, id: SessionId, mut heads: Vec<Head>, followed: Followed) {
        heads.sort_unstable_by_key(|head| head.conversation);
        let frames = heads.len().div_ceil(HEADS_PER_FRAME);
        for (place, conversations) in heads.chunks(HEADS_PER_FRAME).enumerate() {
            let more = place + 1 < frames || followed == Followed::ByMore;
            self.push_event(id, &ServerFrame::Heads { conversations: conversations.to_vec(), more });
        }
    }
}

/// Of large groups that moved: but of those whose newest record came just now.
pub(super) fn of_moved(moved: &[MovedHead], records: &[Linked], reads: &[ReadState]) -> Vec<Head> {
    let has_come = |moved: &&MovedHead| {
        records.iter().any(|linked| linked.conversation == moved.conversation && linked.seq == moved.head)
    };
    let head = |moved: &MovedHead| head(moved.conversation, moved.head, moved.message_count, reads);
    moved.iter().filter(|moved| !has_come(moved)).map(head).collect()
}

/// What stands before a record that came by a link and is not linked itself: a large group's, up to the end of that, or to
/// where `user` left. Who joins by it begins with it.
pub(super) fn before(linked: &Linked, user: &UserId, reads: &[ReadState]) -> Option<Head> {
    let (portable, event) = linked.standing_alone()?;
    let joins = event.added.iter().any(|member| member.user.as_slice() == user.as_bytes());
    let last = Seq(portable.seq.0 - 1);
    (!joins).then(|| head(portable.conversation, last, portable.message_count, reads))
}

/// A head with what is unread up to it. Where it is not known how far its reader has read, nothing is read.
pub(super) fn head(conversation: ConversationId, head: Seq, message_count: u64, reads: &[ReadState]) -> Head {
    let state = reads.iter().find(|state| state.conversation == conversation);
    // What is counted while newer records are being written may be too low: what is known with the positions is not.
    let message_count =
        state.filter(|state| state.head == head).map_or(message_count, |state| state.message_count);
    let (read, read_count) = state.map_or((Seq(0), 0), |state| (state.read, state.read_count));
    // What ends before the newest record, as where a user left that has come back since and read on, was read to its end.
    Head { conversation, head, read: read.min(head), unread: message_count.saturating_sub(read_count) }
}
