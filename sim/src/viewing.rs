//! What a client looks at, and what it is told of that: who of the others is online, who is typing.
//!
//! `viewers_only`: who is told that somebody comes or goes looked, when that became so, at something in which both were, or its `unview` had
//! not been answered; and is told the same no more often, by each process that goes on with its connection, than there are logs that say it,
//! and times that one has joined something since.

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::Command;
use protocol::event::{Presence, Reached};
use protocol::ids::{ConversationId, RequestId, Seq, UserId};
use router::places::direct_conversation;

use crate::Rng;
use crate::hiding::Hidden;
use crate::node::PRESENCE_GRACE_MILLIS;
use crate::oracle::{Oracle, Truth};
use crate::seen::{Gone, SETTLED_MS};

/// How long it takes at most until a log knows that a view has ended, and what it had told by then has come, in milliseconds: two mails.
const UNVIEWED_MS: u64 = 100;

/// What was looked at on a connection.
#[derive(Default)]
struct Look {
    /// When it was last known to have ended, in milliseconds since 1970; `None`: it goes on.
    ended: Option<u64>,
    /// The newest `unview`, until it is answered.
    unview: Option<RequestId>,
}

/// Everything of one client. What it looks at ends with its connection.
#[derive(Default)]
pub(crate) struct Viewing {
    /// Where anybody looks at anything.
    pub(crate) dice: Option<Rng>,
    /// With who was invisible, and who was not here, when it was asked.
    asked: BTreeMap<RequestId, (ConversationId, Hidden, Gone)>,
    views: BTreeSet<ConversationId>,
    /// Asked for on this connection at any time: what is on its way when a view ends still comes.
    ever: BTreeMap<ConversationId, Look>,
    /// When what is to begin and to end a view was said, in milliseconds since 1970, until that is answered.
    said: BTreeMap<RequestId, u64>,
    /// The run of the node that the first of these was asked of.
    run: Option<u32>,
    /// Times that it was told on this connection that somebody has gone, by when that one was seen.
    departures: BTreeMap<(UserId, Option<u64>), usize>,
    /// Processes that have gone on with this connection: each may say all of it once more.
    taken_over: usize,
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

    /// What to look at where nobody says anything any more: something, if it looks at nothing.
    pub(crate) fn next_at_rest(&mut self, seen: &BTreeMap<ConversationId, u64>) -> Option<ConversationId> {
        let looks = !self.views.is_empty() || !self.asked.is_empty();
        let conversations: Vec<ConversationId> = seen.keys().copied().collect();
        let rng = self.dice.as_mut().filter(|_| !looks && !conversations.is_empty())?;
        Some(*rng.pick(&conversations))
    }

    pub(crate) fn asked(&mut self, id: RequestId, conversation: ConversationId, oracle: &Oracle) {
        self.asked.insert(id, (conversation, oracle.invisibles.all(), oracle.seen.gone()));
        self.run.get_or_insert(oracle.seen.run);
        self.said.insert(id, oracle.invisibles.now_ms);
        self.ever.insert(conversation, Look::default());
    }

    /// It ends a view.
    pub(crate) fn unviewed(&mut self, id: RequestId, conversation: ConversationId, oracle: &Oracle) {
        self.said.insert(id, oracle.invisibles.now_ms);
        if let Some(look) = self.ever.get_mut(&conversation) {
            look.unview = Some(id);
        }
    }

    /// Whether something was the answer to the end of a view.
    pub(crate) fn ended(&mut self, id: RequestId, oracle: &Oracle) -> bool {
        let is_one = self.said.contains_key(&id);
        self.answered(id);
        if let Some(look) = self.ever.values_mut().find(|look| look.unview == Some(id)) {
            (look.unview, look.ended) = (None, Some(oracle.invisibles.now_ms));
        }
        is_one
    }

    /// What was told before something was asked has come before its answer: of what had surely ended by then nothing comes any more.
    fn answered(&mut self, id: RequestId) {
        let Some(said) = self.said.remove(&id) else { return };
        self.ever.retain(|_, look| look.ended.is_none_or(|ended| said <= ended + UNVIEWED_MS));
    }

    /// Another process goes on with the connection.
    pub(crate) fn note_taken_over(&mut self) {
        self.taken_over += 1;
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
        if let Some(id) = id {
            self.answered(id);
            self.asked.remove(&id);
        }
    }

    pub(crate) fn viewed(
        &mut self,
        id: RequestId,
        presence: Vec<Presence>,
        receipts: Vec<(UserId, Reached)>,
        oracle: &mut Oracle,
    ) {
        self.answered(id);
        if let Some((conversation, hidden, gone)) = self.asked.remove(&id) {
            presence.iter().for_each(|one| oracle.invisibles.check_viewed(one, &hidden));
            presence.iter().for_each(|one| _ = self.became_so(one, oracle));
            let visible = presence.iter().filter(|one| !oracle.invisibles.may_hide(&one.user));
            visible.for_each(|one| oracle.seen.check_viewed(one, &gone));
            self.views.insert(conversation);
            receipts
                .into_iter()
                .for_each(|(user, reached)| self.told_reached(conversation, user, reached, oracle));
        }
        self.online.extend(presence.into_iter().map(|one| (one.user.clone(), one)));
    }

    /// Somebody came or went: nobody is told of itself.
    pub(crate) fn told(&mut self, me: &UserId, presence: Presence, oracle: &Oracle) {
        assert_ne!(*me, presence.user, "presence: told of itself");
        oracle.invisibles.check_told(&presence);
        let from = self.became_so(&presence, oracle);
        self.check_looks(me, &presence.user, from, oracle);
        if !presence.online {
            self.check_repeated(&presence, from, oracle);
        }
        self.told += 1;
        self.told_gone += u64::from(!presence.online);
        self.online.insert(presence.user.clone(), presence);
    }

    /// `no_flap`: from when on what is told of one was so, at the earliest.
    fn became_so(&self, presence: &Presence, oracle: &Oracle) -> u64 {
        let Presence { user, online, .. } = presence;
        let (seen, now) = (&oracle.seen, oracle.invisibles.now_ms);
        let run = self.run.expect("members_only: it looked at nothing");
        let from = if *online {
            seen.here_from(user, run)
        } else if oracle.invisibles.may_hide(user) {
            let hidden = oracle.invisibles.gone_from(presence);
            let awaited = seen.awaited_until(user, run);
            let hidden = hidden.zip(awaited).map(|(hidden, awaited)| {
                if hidden + PRESENCE_GRACE_MILLIS < awaited { awaited } else { hidden }
            });
            let away = seen.away_from(user, run, now);
            hidden.filter(|from| *from <= now).into_iter().chain(away).min()
        } else {
            seen.gone_from(presence, run, now)
        };
        from.unwrap_or_else(|| panic!("no_flap: {presence:?} is told at {now} of run {run}"))
    }

    /// `viewers_only`: of a member only, to a member that looks.
    fn check_looks(&self, me: &UserId, user: &UserId, from: u64, oracle: &Oracle) {
        let looks = self.ever.iter().filter(|(conversation, look)| {
            look.ended.is_none_or(|ended| from <= ended + UNVIEWED_MS)
                && (direct_conversation(me, user) == **conversation
                    || [me, user].iter().all(|one| oracle.was_member(**conversation, one, from)))
        });
        assert!(looks.count() > 0, "viewers_only: {me} was told of {user}, as is from {from} on");
    }

    fn check_repeated(&mut self, presence: &Presence, from: u64, oracle: &Oracle) {
        let Presence { user, last_seen, .. } = presence;
        let log_of = |conversation: &ConversationId| {
            let place = oracle.positions.range((*conversation, 0)..=(*conversation, u64::MAX)).next();
            // One that was never seen to be written may be in a log of its own.
            place.map_or(Err(*conversation), |(_, (log, _))| Ok(*log))
        };
        let logs: BTreeSet<_> = self.ever.keys().map(log_of).collect();
        let has_joined = |truth: &&Truth| truth.added.contains(user) && from <= truth.at + SETTLED_MS;
        let joins = oracle.durable.values().filter(has_joined).count();
        let once = logs.len() + joins + oracle.blocks.begun as usize;
        // Each view that another process takes up may tell it again: who is in two of them is told of twice.
        let most = once + self.taken_over * once.max(self.ever.len());
        let told = self.departures.entry((user.clone(), last_seen.map(|seen| seen.0))).or_default();
        *told += 1;
        assert!(*told <= most, "viewers_only: {presence:?} was told {told} times, of {most}");
    }

    pub(crate) fn told_typing(&mut self, me: &UserId, conversation: ConversationId, user: &UserId) {
        assert!(
            self.ever.contains_key(&conversation),
            "members_only: {me} was told who types in {conversation}"
        );
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
            let is_kept = before.0 >= oracle.kept_from(conversation);
            let is_forgotten = !is_kept || oracle.may_be_erased((conversation, before.0));
            assert!(goes_on || is_forgotten, "receipt: it goes back from {before} to {now}");
        }
        *known = Reached { read, delivered: if told_of_own { known.delivered } else { delivered } };
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = &ConversationId> {
        self.views.iter()
    }

    /// How far it knows that another has been given a conversation.
    pub(crate) fn delivered_to(&self, conversation: ConversationId, user: &UserId) -> Seq {
        let reached = self.read.get(&(conversation, user.clone())).copied().unwrap_or_default();
        reached.delivered.max(reached.read)
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

impl Oracle {
    /// Whether a user was in a group at some time from this one on, in milliseconds since 1970.
    fn was_member(&self, conversation: ConversationId, user: &UserId, from: u64) -> bool {
        let mut truths = self.durable.range((conversation, 0)..=(conversation, u64::MAX));
        let newest = truths.rfind(|(_, truth)| truth.added.contains(user) || truth.removed.contains(user));
        newest.is_some_and(|(_, truth)| truth.added.contains(user) || from <= truth.at + SETTLED_MS)
    }
}
