//! What a client looks at, and what it is told of that: who of the others is online, who is typing.

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::Command;
use protocol::event::Presence;
use protocol::ids::{ConversationId, RequestId, Seq, UserId};

use crate::Rng;
use crate::oracle::Oracle;

/// Everything of one client. What it looks at ends with its connection.
#[derive(Default)]
pub(crate) struct Viewing {
    /// Where anybody looks at anything.
    pub(crate) dice: Option<Rng>,
    asked: BTreeMap<RequestId, ConversationId>,
    views: BTreeSet<ConversationId>,
    /// Asked for on this connection at any time: what is on its way when a view ends still comes.
    ever: BTreeSet<ConversationId>,
    online: BTreeMap<UserId, bool>,
    /// How far others have read: it never goes back, over all connections.
    read: BTreeMap<(ConversationId, UserId), Seq>,
    receipts: u64,
    told: u64,
    told_gone: u64,
}

impl Viewing {
    /// What to do, if anything.
    pub(crate) fn act(&mut self, seen: &BTreeMap<ConversationId, u64>) -> Option<Command> {
        let rng = self.dice.as_mut()?;
        if seen.is_empty() || !rng.one_in(4) {
            return None;
        }
        let conversations: Vec<ConversationId> = seen.keys().copied().collect();
        let conversation = *rng.pick(&conversations);
        Some(match rng.below(14) {
            0 => {
                self.end(conversation);
                Command::Unview { conversation }
            }
            10.. => {
                // Not always the newest, so that it could go back.
                let newest = seen[&conversation].max(1);
                Command::Read { conversation, seq: Seq(rng.between(newest.div_ceil(2), newest + 1)) }
            }
            1..=3 => Command::Typing { conversation, on: rng.one_in(2) },
            _ => Command::View { conversation },
        })
    }

    pub(crate) fn asked(&mut self, id: RequestId, conversation: ConversationId) {
        self.asked.insert(id, conversation);
        self.ever.insert(conversation);
    }

    /// A connection begins, with nothing to look at.
    pub(crate) fn begin(&mut self) {
        let (dice, read) = (self.dice.take(), std::mem::take(&mut self.read));
        let Self { told, told_gone, receipts, .. } = *self;
        *self = Self { dice, read, told, told_gone, receipts, ..Self::default() };
    }

    fn end(&mut self, conversation: ConversationId) {
        self.views.remove(&conversation);
        // What was asked for is ended by what comes behind it.
        self.asked.retain(|_, asked| *asked != conversation);
    }

    /// It is no member any more: nothing of it is told.
    pub(crate) fn left(&mut self, conversation: ConversationId) {
        self.end(conversation);
    }

    pub(crate) fn refused(&mut self, id: Option<RequestId>) {
        id.and_then(|id| self.asked.remove(&id));
    }

    pub(crate) fn viewed(
        &mut self,
        id: RequestId,
        presence: Vec<Presence>,
        read: Vec<(UserId, Seq)>,
        oracle: &mut Oracle,
    ) {
        if let Some(conversation) = self.asked.remove(&id) {
            self.views.insert(conversation);
            read.into_iter().for_each(|(user, seq)| self.told_read(conversation, user, seq, oracle));
        }
        self.online.extend(presence.into_iter().map(|one| (one.user, one.online)));
    }

    /// `members_only`: nobody is told of presence who looks at nothing, nor of itself.
    pub(crate) fn told(&mut self, me: &UserId, presence: Presence) {
        assert!(
            !self.ever.is_empty(),
            "members_only: {me} was told of {} and looks at nothing",
            presence.user
        );
        assert_ne!(*me, presence.user, "presence: told of itself");
        self.told += 1;
        self.told_gone += u64::from(!presence.online);
        self.online.insert(presence.user, presence.online);
    }

    pub(crate) fn told_typing(&mut self, me: &UserId, conversation: ConversationId, user: &UserId) {
        assert!(self.ever.contains(&conversation), "members_only: {me} was told who types in {conversation}");
        assert_ne!(me, user, "presence: told of itself");
    }

    pub(crate) fn told_read(
        &mut self,
        conversation: ConversationId,
        user: UserId,
        read: Seq,
        oracle: &mut Oracle,
    ) {
        oracle.reads.told_read(conversation, &user, read);
        self.receipts += 1;
        let before = self.read.insert((conversation, user), read);
        // What a message of one's own has moved is forgotten with it.
        let is_forgotten = |before: Seq| oracle.may_be_erased((conversation, before.0));
        assert!(
            before.is_none_or(|before| before <= read || is_forgotten(before)),
            "receipt: it goes back from {before:?} to {read}"
        );
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = &ConversationId> {
        self.views.iter()
    }

    pub(crate) fn known(&self, user: &UserId) -> Option<bool> {
        self.online.get(user).copied()
    }

    /// Times that it was told who came or went, and of those, who went.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.told, self.told_gone)
    }

    /// Times that it was told who has read.
    pub(crate) fn receipts(&self) -> u64 {
        self.receipts
    }
}
