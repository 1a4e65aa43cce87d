//! What clients set, on any device and whatever crashes, held against what they are told of it at rest; and whom they block.
//!
//! `blocked_is_silent`: no message of two users of whom one blocks the other stands behind the record of the block, and before that of its
//! end.
//!
//! `settings_are_kept`: what was acknowledged stands until something that was asked for later does; what was never answered may have
//! happened or not. All devices of a user are told the same.

use std::collections::BTreeMap;

use protocol::command::Command;
use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, RequestId, UnixMillis, UserId};
use protocol::limits::MUTED_FOR_EVER;
use protocol::record::{ArchivedConversationStateV1, Ext};
use router::places::direct_conversation;

use crate::Rng;

type Place = (UserId, ConversationId);

/// What one client has asked for on its connection.
#[derive(Default)]
pub(crate) struct Setting {
    /// Where anybody sets anything.
    pub(crate) dice: Option<Rng>,
    asked: BTreeMap<RequestId, (ConversationId, usize)>,
    /// Blocks that were asked for: whether, and when.
    blocks: BTreeMap<RequestId, (ConversationId, bool, u64)>,
}

impl Setting {
    /// Mutes something of what is known, or takes that back, as the dice have it.
    pub(crate) fn act(
        &mut self,
        id: RequestId,
        user: &UserId,
        known: impl Iterator<Item = ConversationId>,
        now: UnixMillis,
        mutes: &mut Mutes,
    ) -> Option<Command> {
        let rng = self.dice.as_mut()?;
        if !rng.one_in(12) {
            return None;
        }
        let known: Vec<ConversationId> = known.collect();
        if known.is_empty() {
            return None;
        }
        let conversation = *rng.pick(&known);
        let until = match rng.below(4) {
            0 => UnixMillis(0),
            1 => UnixMillis(MUTED_FOR_EVER),
            2 => UnixMillis(now.0 + rng.below(2_000)),
            _ => UnixMillis(now.0 + 1_000_000_000 + rng.below(1_000)),
        };
        self.asked.insert(id, (conversation, mutes.asked((user.clone(), conversation), until)));
        Some(Command::Mute { conversation, until })
    }

    /// Whether to acknowledge what one was given, as the dice have it.
    pub(crate) fn acknowledges(&mut self) -> bool {
        self.dice.as_mut().is_some_and(|rng| rng.one_in(3))
    }

    /// A connection begins: what was asked for on the one before may have happened.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
        self.blocks.clear();
    }

    /// Blocks somebody, or ends that, as the dice have it; mostly the latter.
    pub(crate) fn block(
        &mut self,
        id: RequestId,
        me: &UserId,
        users: &[UserId],
        blocks: &Blocks,
    ) -> Option<Command> {
        let rng = self.dice.as_mut()?;
        if !rng.one_in(16) {
            return None;
        }
        let user = rng.pick(users).clone();
        if user == *me {
            return None;
        }
        let on = rng.one_in(3);
        self.blocks.insert(id, (direct_conversation(me, &user), on, blocks.now));
        let message_id = None;
        Some(Command::Block { user, on, message_id })
    }

    /// A block is done: then it is on the disk. Whether this was one.
    pub(crate) fn blocked(&mut self, id: RequestId, user: &UserId, blocks: &Blocks) -> bool {
        let asked = self.blocks.remove(&id);
        if let Some((conversation, on, at)) = asked {
            blocks.check_done(conversation, user, on, at);
        }
        asked.is_some()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.asked.is_empty() && self.blocks.is_empty()
    }

    /// A command is done: whether it was one of these.
    pub(crate) fn done(&mut self, id: RequestId, user: &UserId, mutes: &mut Mutes) -> bool {
        let asked = self.asked.remove(&id);
        if let Some((conversation, place)) = asked {
            mutes.done(&(user.clone(), conversation), place);
        }
        asked.is_some()
    }

    pub(crate) fn refused(
        &mut self,
        id: Option<RequestId>,
        code: ErrorCode,
        user: &UserId,
        mutes: &mut Mutes,
    ) {
        id.and_then(|id| self.blocks.remove(&id));
        let asked = id.and_then(|id| self.asked.remove(&id));
        if let Some((conversation, place)) = asked
            && !code.retryable()
        {
            mutes.refused(&(user.clone(), conversation), place);
        }
    }
}

/// One that was asked for.
struct Asked {
    until: UnixMillis,
    at: u64,
    done_at: Option<u64>,
    refused: bool,
    /// When it was asked for and done, in milliseconds since 1970.
    asked_ms: u64,
    done_ms: Option<u64>,
}

/// All that was asked for.
#[derive(Default)]
pub(crate) struct Mutes {
    of: BTreeMap<Place, Vec<Asked>>,
    /// Counts what was asked for and answered, and so is a clock.
    now: u64,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Times that one was told at rest that something is muted.
    pub(crate) told: u64,
}

impl Mutes {
    fn asked(&mut self, place: Place, until: UnixMillis) -> usize {
        self.now += 1;
        let asked = self.of.entry(place).or_default();
        let (asked_ms, done_ms) = (self.now_ms, None);
        asked.push(Asked { until, at: self.now, done_at: None, refused: false, asked_ms, done_ms });
        asked.len() - 1
    }

    fn done(&mut self, place: &Place, number: usize) {
        self.now += 1;
        let asked = &mut self.of.get_mut(place).expect("it was asked for")[number];
        (asked.done_at, asked.done_ms) = (Some(self.now), Some(self.now_ms));
    }

    /// Whether a conversation was muted at a time for certain, and for so long before that.
    pub(crate) fn is_muted(&self, user: &UserId, conversation: ConversationId, at: u64, before: u64) -> bool {
        let asked = self.of.get(&(user.clone(), conversation)).map_or(&[][..], Vec::as_slice);
        let mut asked = asked.iter().filter(|one| !one.refused && one.asked_ms <= at).rev();
        // What was asked for while another was not done may have come before it.
        let last = asked.next();
        let mut is_alone =
            |last: &Asked| asked.all(|one| one.done_ms.is_some_and(|done| done <= last.asked_ms));
        last.is_some_and(|last| {
            let is_done = last.done_ms.is_some_and(|done| done + before <= at);
            is_done && last.until.0 > at && is_alone(last)
        })
    }

    /// Whether a conversation may ever have been muted.
    pub(crate) fn may_mute(&self, user: &UserId, conversation: ConversationId) -> bool {
        self.of.contains_key(&(user.clone(), conversation))
    }

    fn refused(&mut self, place: &Place, number: usize) {
        self.of.get_mut(place).expect("it was asked for")[number].refused = true;
    }

    /// At rest: what one is told is what may be.
    pub(crate) fn check(
        &mut self,
        user: &UserId,
        conversation: ConversationId,
        told: Option<UnixMillis>,
        now: UnixMillis,
    ) {
        self.told += u64::from(told.is_some());
        let asked = self.of.get(&(user.clone(), conversation)).map_or(&[][..], Vec::as_slice);
        // What was done is past when something else is that was asked for later.
        let newest = asked.iter().filter(|one| one.done_at.is_some()).map(|one| one.at).max();
        let stands =
            |one: &&Asked| !one.refused && one.done_at.is_none_or(|done| newest.is_none_or(|at| at <= done));
        let mut may_be = asked.iter().filter(stands).map(|one| Some(one.until).filter(|until| *until > now));
        let is_one = (newest.is_none() && told.is_none()) || may_be.any(|until| until == told);
        assert!(is_one, "settings_are_kept: {user} was told {told:?} of {conversation}");
    }
}

/// Who blocks whom, as the log has it.
#[derive(Default)]
pub(crate) struct Blocks {
    /// By direct conversation: when it became so, and who of the two blocks the other.
    of: BTreeMap<ConversationId, Vec<(u64, Vec<UserId>)>>,
    /// Counts the states that became durable, and so is a clock.
    now: u64,
    /// Times that somebody began to block somebody.
    pub(crate) begun: u64,
}

impl Blocks {
    /// A state is durable.
    pub(crate) fn enter(&mut self, conversation: ConversationId, state: &ArchivedConversationStateV1) {
        let blocks = Ext::new(&state.ext).blocks();
        let members = state.members.iter().zip(0..8).filter(|(_, place)| blocks >> place & 1 != 0);
        let name = |bytes: &[u8]| UserId::new(std::str::from_utf8(bytes).expect("UTF-8")).expect("a user");
        let blocking: Vec<UserId> = members.map(|(member, _)| name(&member.user)).collect();
        let states = self.of.entry(conversation).or_default();
        if states.last().is_some_and(|(_, before)| *before == blocking) {
            return;
        }
        self.begun += u64::from(!blocking.is_empty());
        self.now += 1;
        states.push((self.now, blocking));
    }

    pub(crate) fn who(&self, conversation: ConversationId) -> &[UserId] {
        self.of.get(&conversation).and_then(|states| states.last()).map_or(&[], |(_, blocking)| blocking)
    }

    /// Whether one of the two has ever blocked the other.
    pub(crate) fn was_one(&self, conversation: ConversationId) -> bool {
        self.of
            .get(&conversation)
            .is_some_and(|states| states.iter().any(|(_, blocking)| !blocking.is_empty()))
    }

    /// `blocked_is_silent`: a message becomes durable.
    pub(crate) fn check_message(&self, conversation: ConversationId) {
        let blocking = self.who(conversation);
        assert!(blocking.is_empty(), "blocked_is_silent: {blocking:?} blocks in {conversation}");
    }

    /// `acked_is_durable`: it was so at some time since it was asked for.
    fn check_done(&self, conversation: ConversationId, user: &UserId, on: bool, asked_at: u64) {
        let states = self.of.get(&conversation).map_or(&[][..], Vec::as_slice);
        let before = states.iter().rev().find(|(at, _)| *at <= asked_at);
        let since = states.iter().filter(|(at, _)| *at > asked_at);
        let nobody = (0, Vec::new());
        let mut all = since.chain([before.unwrap_or(&nobody)]);
        assert!(
            all.any(|(_, blocking)| blocking.contains(user) == on),
            "acked_is_durable: {user} was told that it blocks in {conversation}: {on}"
        );
    }
}
