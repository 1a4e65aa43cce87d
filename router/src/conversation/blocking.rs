//! Blocks: what keeps two users apart in their direct conversation.
//!
//! A block stands in the state of the conversation and takes no sequence. What is sent comes before it or after it in the log, as
//! everything there does: what comes after is refused. Nobody's groups are touched.

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, UnixMillis, UserId};
use protocol::record::Ext;
use storage_log::{Answer, Log};

use super::ConversationSide;
use super::state::{Conversation, ConversationKind, Refusal};
use super::storing::state_draft;
use crate::mail::Asker;

const YOU_BLOCK: Refusal = (ErrorCode::NotAllowed, "you block this user");
const BLOCKED: Refusal = (ErrorCode::NotAllowed, "this is not allowed here");

impl Conversation {
    /// Which of the two block the other, a bit each.
    fn blocking(&self) -> u8 {
        match self.kind {
            ConversationKind::Direct => Ext::new(&self.ext).blocks(),
            ConversationKind::Group => 0,
        }
    }

    fn bit_of(&self, user: &UserId) -> u8 {
        let place = self.members.iter().take(2).position(|member| member.user == *user);
        place.map_or(0, |place| 1 << place)
    }

    /// Whether a user blocks the other one.
    pub(super) fn blocks(&self, user: &UserId) -> bool {
        self.blocking() & self.bit_of(user) != 0
    }

    /// Whether one of the two blocks the other: nothing passes between them.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocking() != 0
    }

    /// Whether a user may say something here.
    pub(super) fn judge_blocks(&self, user: &UserId) -> Result<(), Refusal> {
        match self.is_blocked() {
            true if self.blocks(user) => Err(YOU_BLOCK),
            true => Err(BLOCKED),
            false => Ok(()),
        }
    }

    fn with_block(&self, user: &UserId, on: bool) -> Self {
        let bit = self.bit_of(user);
        let blocking = if on { self.blocking() | bit } else { self.blocking() & !bit };
        Self { ext: Ext::new(&self.ext).with_blocks(blocking), number: self.number + 1, ..self.clone() }
    }
}

/// Who blocks whom, where.
pub(super) struct Block {
    pub(super) user: UserId,
    pub(super) peer: UserId,
    pub(super) conversation: ConversationId,
    pub(super) on: bool,
}

impl ConversationSide {
    /// Stores a block, or that there is none any more; answered when it is durable.
    pub(super) fn block(&mut self, asker: Asker, block: &Block, now: UnixMillis, log: &mut Log) {
        let Block { user, peer, conversation, on } = block;
        let before = match self.loaded(*conversation) {
            Some(before) => before.clone(),
            None if *on => Conversation::direct(&self.places, user, peer),
            None => return self.done_when_durable(asker, 0, log),
        };
        if before.blocks(user) == *on {
            let position = self.slots[conversation].position;
            return self.done_when_durable(asker, position, log);
        }
        let after = before.with_block(user, *on);
        match log.append(&[state_draft(*conversation, &after, &after.body().payload())], now.0) {
            Answer::Stored(stored) => {
                match after.is_blocked() {
                    true => self.viewers.block(*conversation),
                    false => self.viewers.unblock_at(stored.last_position, *conversation),
                }
                self.know(*conversation, after);
                self.slots.get_mut(conversation).expect("entered").position = stored.last_position;
                self.done_when_durable(asker, stored.last_position, log);
            }
            Answer::Busy => self.refuse(asker, (ErrorCode::Busy, "the disk is behind")),
            Answer::Full => self.refuse(asker, (ErrorCode::StorageFull, "the disk is full")),
            Answer::Conflict { .. } => unreachable!("of what keeps the last no head is checked"),
            Answer::Unavailable => self.refuse(asker, (ErrorCode::Unavailable, "the log stopped: ask again")),
        }
    }
}
