//! What a client looks at, and what it is told of that: who of the others is online, who is typing.

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::Command;
use protocol::event::Presence;
use protocol::ids::{ConversationId, RequestId, UserId};

use crate::Rng;

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
    told: u64,
    told_gone: u64,
}

impl Viewing {
    /// What to do, if anything.
    pub(crate) fn act(&mut self, conversations: &[ConversationId]) -> Option<Command> {
        let rng = self.dice.as_mut()?;
        if conversations.is_empty() || !rng.one_in(4) {
            return None;
        }
        let conversation = *rng.pick(conversations);
        Some(match rng.below(10) {
            0 => {
                self.end(conversation);
                Command::Unview { conversation }
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
        let dice = self.dice.take();
        *self = Self { dice, told: self.told, told_gone: self.told_gone, ..Self::default() };
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

    pub(crate) fn viewed(&mut self, id: RequestId, presence: Vec<Presence>) {
        if let Some(conversation) = self.asked.remove(&id) {
            self.views.insert(conversation);
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
}
