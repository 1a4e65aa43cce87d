//! Whoever calls the devices of users whom a message has not reached, in some worlds: what is taken, what is kept of it over a crash, and
//! whether everybody was called who had to be, and nobody else.
//!
//! `called_once_and_in_time`: a user is called of a conversation once in 10 s, of each message once unless the node has ended between; not
//! of what others were told to have reached the user before that; not while the conversation is muted, whoever is mentioned, nor by another's
//! token. At rest everybody has been called of the newest message that may not have been taken, who has a token and has muted nothing there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway::pushes::call::{PushBatch, PushCall, Pushed};
use gateway::shard::{Event, OwnedLog};
use protocol::command::{Command, PushToken};
use protocol::ids::{ConversationId, DeviceId, RequestId, UserId};
use router::conversation::Unjudged;

use crate::Rng;
use crate::oracle::Oracle;
use crate::world::{BUSY_MICROS, Item, World};

/// By when everybody was called, in microseconds after the last thing that was stored and the last start: 3 s until it is due, 10 s since
/// the call before and 3 s of what came meanwhile, and what the file and two shards take.
pub(crate) const CALLED_MICROS: u64 = 18_000_000;

/// How long one who was called is not called again, in milliseconds.
const REST_MILLIS: u64 = 10_000;

/// From the moment at which somebody is due to the one at which the call says it was, in milliseconds: settings may have to be read.
const LOOK_UP_MILLIS: u64 = 300;

/// What stands in the file, and beside it.
#[derive(Default)]
pub(crate) struct Calls {
    /// Whether anybody is called: in some worlds only.
    pub(crate) dice: Option<Rng>,
    /// As they are on the disk, by log; and those that are not yet.
    marks: BTreeMap<u16, u64>,
    newer: BTreeMap<u16, u64>,
    taken: Vec<(u32, PushCall)>,
    /// The newest call of each in this run: when, and of which message.
    newest: BTreeMap<(UserId, ConversationId), (u64, u64)>,
    run: u32,
}

impl Calls {
    /// Those of a world in which somebody is called, if there are dice.
    pub(crate) fn new(dice: Option<Rng>) -> Self {
        Self { dice, ..Self::default() }
    }

    pub(crate) fn count(&self) -> u64 {
        self.taken.len() as u64
    }

    /// A process begins: what was not on the disk is lost.
    pub(crate) fn begin_run(&mut self) {
        self.run += 1;
        self.newer.clear();
        self.newest.clear();
    }

    pub(crate) fn unjudged(&self, log: u16, now: u64) -> Unjudged {
        Unjudged::behind(self.marks.get(&log).copied(), now)
    }

    /// As a start does: a log without a mark begins at its end.
    pub(crate) fn begin(&mut self, owned: &mut OwnedLog, unjudged: Unjudged, end: u64) {
        if self.dice.is_some() {
            self.marks.entry(owned.number()).or_insert(end);
            owned.begin_pushes(unjudged);
        }
    }

    /// Takes a batch, as it is on the disk from now on; or not.
    fn take(&mut self, batch: &PushBatch, may_refuse: bool, oracle: &Oracle) -> Pushed {
        let dice = self.dice.as_mut().expect("only where somebody is called");
        if may_refuse && !batch.calls.is_empty() && dice.one_in(6) {
            return Pushed::Refused;
        }
        let is_kept = dice.one_in(2);
        batch.calls.iter().for_each(|call| self.check(call, oracle));
        self.taken.extend(batch.calls.iter().map(|call| (self.run, call.clone())));
        for (log, mark) in &batch.marks {
            assert!(self.marks[log] <= *mark, "a mark goes back");
            self.newer.insert(*log, *mark);
        }
        if !is_kept {
            return Pushed::Taken;
        }
        self.marks.append(&mut self.newer);
        Pushed::Kept
    }

    fn check(&mut self, call: &PushCall, oracle: &Oracle) {
        let (user, conversation, at) = (&call.user, call.conversation, call.at.0);
        let asked = |(device, token): &(DeviceId, PushToken)| *token == token_of(user, device);
        assert!(!call.tokens.is_empty() && call.tokens.iter().all(asked), "{user} is called by {call:?}");
        let before = self.newest.insert((user.clone(), conversation), (at, call.seq.0));
        let is_late = oracle.has_rotted;
        if let Some((before, seq)) = before {
            assert!(seq < call.seq.0, "called_once_and_in_time: twice of {seq}: {call:?}");
            let rested = at + LOOK_UP_MILLIS >= before + REST_MILLIS;
            assert!(rested || is_late, "called_once_and_in_time: at {before} and {call:?}");
        }
        let was_muted = oracle.mutes.is_muted(user, conversation, at, LOOK_UP_MILLIS);
        assert!(!was_muted || is_late, "called_once_and_in_time: muted: {call:?}");
        let reached = oracle.reads.reached_before(conversation, user, at.saturating_sub(LOOK_UP_MILLIS));
        let is_known = oracle.erasures.is_empty() && !is_late;
        assert!(reached < call.seq || !is_known, "called_once_and_in_time: {user} had {reached}: {call:?}");
    }

    /// At rest: nobody was called who must not be, and everybody who had to be.
    pub(crate) fn check_all(
        &self,
        oracle: &Oracle,
        users: &[UserId],
        audiences: &BTreeMap<(ConversationId, u64), BTreeSet<UserId>>,
    ) {
        if self.dice.is_none() {
            return;
        }
        for (_, call) in &self.taken {
            let place = (call.conversation, call.seq.0);
            let is_told = audiences.get(&place).is_some_and(|audience| audience.contains(&call.user));
            assert!(is_told && oracle.durable[&place].text.is_some(), "members_only: {call:?}");
            // Who has said what is erased is not known any more.
            let is_own = oracle.durable[&place].sender == call.user && !oracle.may_be_erased(place);
            assert!(!is_own, "called of what one has said: {call:?}");
        }
        let mut newest: BTreeMap<(ConversationId, &UserId), u64> = BTreeMap::new();
        for ((conversation, seq), truth) in &oracle.durable {
            for user in &truth.removed {
                newest.remove(&(*conversation, user));
            }
            // Of what is erased a start finds that it was there, and not that it was a message.
            let place = (*conversation, *seq);
            let is_message = truth.text.is_some() && !oracle.may_be_erased(place);
            // Nor is anybody called of what was not kept any more when it was looked at.
            let is_message = is_message && !oracle.is_in_front(place, oracle.reads.now);
            for user in users.iter().filter(|_| is_message) {
                if audiences[&(*conversation, *seq)].contains(user) && truth.sender != *user {
                    newest.insert((*conversation, user), *seq);
                }
            }
        }
        for ((conversation, user), seq) in newest {
            let at = oracle.durable[&(conversation, seq)].at;
            let has_token = oracle.tokens.has_since(user).is_some_and(|since| since <= at);
            let may_have = oracle.reads.may_have(conversation, user).0 >= seq;
            let is_silent = oracle.mutes.may_mute(user, conversation) || oracle.blocks.was_one(conversation);
            let is_called = self.taken.iter().any(|(_, call)| {
                call.user == *user && call.conversation == conversation && call.seq.0 >= seq
            });
            assert!(
                is_called || !has_token || may_have || is_silent || oracle.has_rotted,
                "called_once_and_in_time: {user} was never called of {seq} in {conversation}"
            );
        }
    }
}

impl World {
    /// The node ends while users are called, too.
    pub(crate) fn begin_calling(&mut self) {
        let dice = self.calls.dice.as_mut();
        let times: Vec<u64> = dice
            .map_or_else(Vec::new, |dice| (0..dice.below(4)).map(|_| dice.below(CALLED_MICROS)).collect());
        times.into_iter().for_each(|at| self.later(at, Item::Crash));
    }

    /// The batch is written, unless the process ends before; and perhaps it ends before it hears of that.
    pub(crate) fn push(&mut self, shard: usize, batch: Arc<PushBatch>) {
        let dice = self.calls.dice.as_mut().expect("only where somebody is called");
        let (run, delay) = (self.run, dice.between(100, 20_000));
        self.later(delay, Item::Push { run, shard, batch });
    }

    pub(crate) fn end_push(&mut self, shard: usize, batch: &PushBatch) {
        let may_refuse = self.now < 2 * BUSY_MICROS;
        let pushed = self.calls.take(batch, may_refuse, &self.oracle);
        let delay = self.calls.dice.as_mut().map_or(0, |dice| dice.between(10, 20_000));
        self.event(shard, delay, Event::Pushed(pushed));
    }
}

/// Each device has one token for ever.
fn token_of(user: &UserId, device: &DeviceId) -> PushToken {
    PushToken::new(format!("{user}'s {}", device.as_str()))
}

/// What one client has asked for on its connection.
#[derive(Default)]
pub(crate) struct Registering {
    /// Where anybody is called.
    pub(crate) dice: Option<Rng>,
    asked: Option<RequestId>,
}

impl Registering {
    /// Says its token, as the dice have it.
    pub(crate) fn act(&mut self, id: RequestId, user: &UserId, device: &DeviceId) -> Option<Command> {
        let is_time = self.dice.as_mut()?.one_in(6) && self.asked.is_none();
        is_time.then(|| {
            self.asked = Some(id);
            Command::PushToken { token: Some(token_of(user, device)) }
        })
    }

    pub(crate) fn begin(&mut self) {
        self.asked = None;
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.asked.is_none()
    }

    /// A command is done: whether it was this.
    pub(crate) fn done(&mut self, id: RequestId, user: &UserId, tokens: &mut Tokens) -> bool {
        let was_asked = self.asked.take_if(|asked| *asked == id).is_some();
        if was_asked {
            let now = tokens.now;
            tokens.since.entry(user.clone()).or_insert(now);
        }
        was_asked
    }

    pub(crate) fn refused(&mut self, id: Option<RequestId>) {
        self.asked.take_if(|asked| Some(*asked) == id);
    }
}

/// Who has a token.
#[derive(Default)]
pub(crate) struct Tokens {
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    since: BTreeMap<UserId, u64>,
}

impl Tokens {
    fn has_since(&self, user: &UserId) -> Option<u64> {
        self.since.get(user).copied()
    }
}
