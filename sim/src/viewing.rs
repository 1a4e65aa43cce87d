//! What a client looks at, and what it is told of that: who of the others is online, who is typing.

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::Command;
use protocol::event::{Presence, Reached};
use protocol::ids::{ConversationId, RequestId, Seq, UserId};

use crate::Rng;
use crate::hiding::Hidden;
use crate::oracle::Oracle;
use crate::seen::Gone;

/// Everything of one client. What it looks at ends with its connection.
#[derive(Default)]
pub(crate) struct Viewing {
    /// Where anybody looks at anything.
    pub(crate) dice: Option<Rng>,
    /// With who was invisible, and who was not here, when it was asked.
    asked: BTreeMap<RequestId, (ConversationId, Hidden, Gone)>,
    views: BTreeSet<ConversationId>,
    /// Asked for on this connection at any time: what is on its way when a view ends still comes.
    ever: BTreeSet<ConversationId>,
    online: BTreeMap<UserId, Presence>,
    /// How far others have read: it never goes back, over all connections.
    read: BTreeMap<(ConversationId, UserId), Reached>,
    receipts: u64,
    /// Those that said that something was delivered and not read.
    delivered: u64,
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

    pub(crate) fn asked(&mut self, id: RequestId, conversation: ConversationId, oracle: &Oracle) {
        self.asked.insert(id, (conversation, oracle.invisibles.all(), oracle.seen.gone()));
        self.ever.insert(conversation);
    }

    /// A connection begins, with nothing to look at.
    pub(crate) fn begin(&mut self) {
        let (dice, read) = (self.dice.take(), std::mem::take(&mut self.read));
        let Self { told, told_gone, receipts, delivered, .. } = *self;
        *self = Self { dice, read, told, told_gone, receipts, delivered, ..Self::default() };
    }

    fn end(&mut self, conversation: ConversationId) {
        self.views.remove(&conversation);
        // What was asked for is ended by what comes behind it.
        self.asked.retain(|_, (asked, ..)| *asked != conversation);
    }

    /// It is no member any more: nothing of it is told.
    pub(crate) fn left(&mut self, conversation: ConversationId) {
        self.end(conversation);
    }

    pub(crate) fn refused(&mut self, id: Option<RequestId>) {
        let _ = id.and_then(|id| self.asked.remove(&id));
    }

    pub(crate) fn viewed(
        &mut self,
        id: RequestId,
        presence: Vec<Presence>,
        receipts: Vec<(UserId, Reached)>,
        oracle: &mut Oracle,
    ) {
        if let Some((conversation, hidden, gone)) = self.asked.remove(&id) {
            presence.iter().for_each(|one| oracle.invisibles.check_viewed(one, &hidden));
            let visible = presence.iter().filter(|one| !oracle.invisibles.may_hide(&one.user));
            visible.for_each(|one| oracle.seen.check_viewed(one, &gone));
            self.views.insert(conversation);
            receipts
                .into_iter()
                .for_each(|(user, reached)| self.told_reached(conversation, user, reached, oracle));
        }
        self.online.extend(presence.into_iter().map(|one| (one.user.clone(), one)));
    }

    /// `members_only`: nobody is told of presence who looks at nothing, nor of itself.
    pub(crate) fn told(&mut self, me: &UserId, presence: Presence, oracle: &Oracle) {
        assert!(
            !self.ever.is_empty(),
            "members_only: {me} was told of {} and looks at nothing",
            presence.user
        );
        assert_ne!(*me, presence.user, "presence: told of itself");
        oracle.invisibles.check_told(&presence);
        self.told += 1;
        self.told_gone += u64::from(!presence.online);
        self.online.insert(presence.user.clone(), presence);
    }

    pub(crate) fn told_typing(&mut self, me: &UserId, conversation: ConversationId, user: &UserId) {
        assert!(self.ever.contains(&conversation), "members_only: {me} was told who types in {conversation}");
        assert_ne!(me, user, "presence: told of itself");
    }

    /// A receipt goes forward only.
    pub(crate) fn told_reached(
        &mut self,
        conversation: ConversationId,
        user: UserId,
        reached: Reached,
        oracle: &mut Oracle,
    ) {
        let Reached { read, delivered } = reached;
        oracle.reads.told_read(conversation, &user, read);
        oracle.reads.told_delivered(conversation, &user, delivered);
        self.receipts += 1;
        self.delivered += u64::from(delivered > read);
        let known = self.read.entry((conversation, user)).or_default();
        // To one's own devices only what was read is told; what a message of one's own has moved is forgotten with it.
        let told_of_own = delivered == Seq(0);
        assert!(told_of_own || delivered >= read, "receipt: {reached:?}");
        for (before, now) in [(known.read, read), (known.delivered, delivered)] {
            let goes_on = before <= now || (told_of_own && now == Seq(0));
            let is_forgotten = oracle.may_be_erased((conversation, before.0));
            assert!(goes_on || is_forgotten, "receipt: it goes back from {before} to {now}");
        }
        *known = Reached { read, delivered: if told_of_own { known.delivered } else { delivered } };
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = &ConversationId> {
        self.views.iter()
    }

    pub(crate) fn known(&self, user: &UserId) -> Option<&Presence> {
        self.online.get(user)
    }

    /// Times that it was told who came or went, and of those, who went.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.told, self.told_gone)
    }

    /// Times that it was told who has read, and of those, that something was delivered and not read.
    pub(crate) fn receipts(&self) -> (u64, u64) {
        (self.receipts, self.delivered)
    }
}
