//! Whom a message has not reached: who is to be called, by what they have registered elsewhere.
//!
//! The owner of a log looks at a conversation 3 s after a message of it became durable. Each member who has neither read nor
//! acknowledged it by then, on any device, is due to be called; what was said meanwhile is looked at 3 s later. Nobody is called twice for
//! one message, nor of one conversation within 10 s: what comes then waits.
//!
//! What is not known of a member makes a call too many. It counts up to where a device has acknowledged the log (`taken`): in a large group, what it was
//! given as what it was told by a head. A message costs one look at a map.
//!
//! Invariant: a message of which somebody may still have to be called is held, and the mark of the log stays below it. So a start that
//! looks at what stands behind the mark forgets nobody; it may call somebody again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashMap;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::record::StreamKind as Kind;
use storage_log::Log;

use super::positions::Positions;
use super::slots::Entrant;
use super::state::Conversation;
use super::taken::Taken;
use super::unjudged::{Unheard, Unjudged};
use super::{ConversationSide, LOADED_MAX, Loaded};

/// How long a message waits for one of its reader's devices, in microseconds: as long as a radio takes that is not dead.
const WAIT_MICROS: u64 = 3_000_000;

/// How long a user who was called of a conversation is not called of it again, in microseconds.
const REST_MICROS: u64 = 10_000_000;

/// Conversations that are looked at, or rest, at a time, of one log: those of the last 13 s. Messages of others wait until there is room.
const WAITING_MAX: usize = LOADED_MAX;

/// Messages that wait for that, 40 bytes each: those of 10 s, of 100,000 a second. The next one is passed over, and
/// [`ConversationSide::pushes_passed_over`] counts it: who is called of the next message of its conversation is called of this one too.
const LATER_MAX: usize = 1 << 20;

/// Calls that wait to be taken. While there are so many no conversation is looked at: those stay due, and one adds at most 500.
const DUE_MAX: usize = 1_024;

/// Conversations that are being looked at, whose state or positions are read for it: half of what the disk works on at a time. A start may
/// find a hundred thousand at once, and those who come back then are not to wait behind them.
const LOOKS_MAX: usize = 32;

/// Conversations judged in one turn, which those in memory are at once: a millisecond.
const JUDGED_PER_TURN: usize = 256;

/// Somebody is to be called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushDue {
    /// Whom.
    pub user: UserId,
    /// Of what.
    pub conversation: ConversationId,
    /// The newest message there.
    pub seq: Seq,
    /// Messages that the user has not read, as a list of conversations says it.
    pub count: u64,
    /// Position of the first message that it is for: held until [`ConversationSide::settle_push`].
    held: Option<u64>,
}

/// A conversation in which something was said.
struct Entry {
    /// Messages up to here have waited long enough when it is due.
    until: Seq,
    /// Up to here that was judged.
    judged: Seq,
    newest: Seq,
    /// Positions of those at `until`
    until_at: u64,
    /// and at `newest`.
    newest_at: u64,
    /// Position of the first message after `judged`, held while there is one,
    held: Option<u64>,
    /// and of the first after `until`.
    held_next: Option<u64>,
    /// When it is looked at; `None` while it is new, or is being looked at.
    due: Option<u64>,
    /// Nothing was said since it was looked at: it is kept for those who were called.
    rests: bool,
    /// Those at both positions stand in their readers' inboxes: the group was small.
    is_linked: bool,
    called: BTreeMap<UserId, Called>,
}

struct Called {
    /// The newest message then.
    seq: Seq,
    rests_until: u64,
    /// Position of the first message that has waited long enough since, and that the user is called of when it has rested.
    held: Option<u64>,
}

/// A message, or some of one conversation, of which somebody may have to be called.
struct Said {
    conversation: ConversationId,
    /// The newest of them,
    seq: Seq,
    /// its position,
    newest_at: u64,
    /// and that of the first.
    position: u64,
    /// They stand in their readers' inboxes.
    is_linked: bool,
}

/// What waits to be looked at, and whom to call.
#[derive(Default)]
pub(super) struct Pushes {
    is_on: bool,
    entries: HashMap<ConversationId, Entry, foldhash::fast::RandomState>,
    /// Those that are new since the last turn, which said the time.
    fresh: Vec<ConversationId>,
    due: BTreeSet<(u64, ConversationId)>,
    /// How many are being looked at.
    looks: usize,
    /// What has found no room.
    later: VecDeque<Said>,
    calls: VecDeque<PushDue>,
    held: Held,
    passed_over: u64,
    micros: u64,
}

/// Positions of messages of which somebody may still have to be called, and how often each is held.
#[derive(Default)]
struct Held(BTreeMap<u64, u32>);

impl Held {
    fn hold(&mut self, position: u64) -> Option<u64> {
        *self.0.entry(position).or_default() += 1;
        Some(position)
    }

    fn release(&mut self, held: Option<u64>) {
        let Some(position) = held else { return };
        let count = self.0.get_mut(&position).expect("it is held");
        *count -= 1;
        if *count == 0 {
            self.0.remove(&position);
        }
    }
}

impl Pushes {
    /// A message became durable.
    pub(super) fn note_message(
        &mut self,
        conversation: ConversationId,
        seq: Seq,
        position: u64,
        is_linked: bool,
    ) {
        self.note(Said { conversation, seq, newest_at: position, position, is_linked });
    }

    fn note(&mut self, said: Said) {
        if !self.is_on {
            return;
        }
        let has_room = self.later.is_empty() && self.entries.len() < WAITING_MAX;
        if has_room || self.entries.contains_key(&said.conversation) {
            self.add(said);
        } else if self.later.len() < LATER_MAX {
            self.later.push_back(said);
        } else {
            self.passed_over += 1;
        }
    }

    fn add(&mut self, Said { conversation, seq, newest_at, position, is_linked }: Said) {
        match self.entries.get_mut(&conversation) {
            // It has waited while newer ones had room.
            Some(entry) if seq <= entry.newest => {}
            // One that is being looked at, for want of what has to be read, is looked at as it was.
            Some(entry) if entry.rests && entry.due.is_some() => {
                (entry.until, entry.newest, entry.rests) = (seq, seq, false);
                (entry.until_at, entry.newest_at) = (newest_at, newest_at);
                entry.is_linked = is_linked;
                entry.held = self.held.hold(position);
                self.fresh.push(conversation);
            }
            Some(entry) => {
                if entry.held_next.is_none() {
                    entry.held_next = self.held.hold(position);
                }
                (entry.newest, entry.newest_at) = (seq, newest_at);
                entry.is_linked &= is_linked;
            }
            None => {
                let (judged, due, rests, called) = (Seq(0), None, false, BTreeMap::new());
                let (held, held_next) = (self.held.hold(position), None);
                let (until, newest, until_at) = (seq, seq, newest_at);
                let entry = Entry {
                    until,
                    judged,
                    newest,
                    until_at,
                    newest_at,
                    held,
                    held_next,
                    due,
                    rests,
                    is_linked,
                    called,
                };
                self.entries.insert(conversation, entry);
                self.fresh.push(conversation);
            }
        }
    }

    /// Takes what found no room, as far as there is some.
    fn take_later(&mut self) {
        while self.entries.len() < WAITING_MAX
            && let Some(said) = self.later.pop_front()
        {
            self.add(said);
        }
    }

    /// Position of the first message of which somebody may still have to be called.
    fn first_held(&self) -> Option<u64> {
        let held = self.held.0.first_key_value().map(|(position, _)| *position);
        held.into_iter().chain(self.later.front().map(|said| said.position)).min()
    }

    /// It cannot be looked at now, for want of memory or of the disk: once more later.
    pub(super) fn retry(&mut self, conversation: ConversationId) {
        self.looks -= 1;
        self.schedule(conversation, self.micros + WAIT_MICROS);
    }

    fn schedule(&mut self, conversation: ConversationId, at: u64) {
        let Some(entry) = self.entries.get_mut(&conversation) else { return };
        if let Some(before) = entry.due.replace(at) {
            self.due.remove(&(before, conversation));
        }
        self.due.insert((at, conversation));
    }

    /// The next one that is due, while there is room for what it comes to.
    fn poll_due(&mut self) -> Option<ConversationId> {
        let (at, conversation) = *self.due.first()?;
        if at > self.micros || self.calls.len() >= DUE_MAX || self.looks >= LOOKS_MAX {
            return None;
        }
        self.due.pop_first();
        self.looks += 1;
        self.entries.get_mut(&conversation).expect("what is due is there").due = None;
        Some(conversation)
    }

    /// Finds out whom to call of a conversation, of whose messages so many are `gone`. `has_taken` says who has acknowledged what stands at one of two
    /// positions.
    fn judge(
        &mut self,
        conversation: ConversationId,
        entry: &mut Entry,
        (state, positions): (&Conversation, &Positions),
        gone: u64,
        has_taken: impl Fn(&UserId, [u64; 2]) -> bool,
    ) {
        let (_, messages) = positions.folded();
        let has_it = |user: &UserId, entry: &Entry| {
            let is_given = || has_taken(user, [entry.until_at, entry.newest_at]);
            positions.reached(user) >= entry.until || is_given()
        };
        for member in state.members() {
            let user = &member.user;
            // Who was added later reads none of it, and who blocks the other one wants to hear nothing.
            let is_told = member.visible_from <= entry.until && !state.blocks(user);
            let count = messages.saturating_sub(positions.of(user).1.max(gone));
            // What is not kept any more is missing to nobody.
            let may_miss = is_told && count > 0;
            let is_new = entry.until > entry.judged;
            // Looked at last: it is a keyed hash of the member's name.
            let is_missing = may_miss && (is_new || entry.called.contains_key(user)) && !has_it(user, entry);
            let held = match entry.called.get_mut(user) {
                Some(called) if !is_missing || called.seq >= entry.until => {
                    self.held.release(called.held.take());
                    continue;
                }
                Some(called) if called.rests_until > self.micros => {
                    if let (None, Some(position)) = (called.held, entry.held) {
                        called.held = self.held.hold(position);
                    }
                    continue;
                }
                Some(Called { held: held @ Some(_), .. }) => held.take(),
                None if !is_missing => continue,
                Some(_) | None => entry.held.and_then(|position| self.held.hold(position)),
            };
            let (user, seq) = (user.clone(), entry.newest);
            let called = Called { seq, rests_until: self.micros + REST_MICROS, held: None };
            entry.called.insert(user.clone(), called);
            self.calls.push_back(PushDue { user, conversation, seq, count, held });
        }
    }

    /// It was looked at: when it is again, or that it is not.
    fn settle(&mut self, conversation: ConversationId, mut entry: Entry) {
        entry.judged = entry.until;
        self.held.release(entry.held.take());
        let (micros, held) = (self.micros, &mut self.held);
        entry.called.retain(|_, called| {
            let rests = called.rests_until > micros;
            if !rests {
                // Of one who is no member any more.
                held.release(called.held.take());
            }
            rests
        });
        let next = entry.called.values().map(|called| called.rests_until).min();
        entry.rests = entry.newest == entry.until;
        let at = match next {
            _ if !entry.rests => micros + WAIT_MICROS,
            Some(at) => at,
            None => return,
        };
        (entry.until, entry.until_at) = (entry.newest, entry.newest_at);
        entry.held = entry.held_next.take();
        self.entries.insert(conversation, entry);
        self.schedule(conversation, at);
    }

    /// Nobody is in it any more: nothing is held for it.
    fn forget(&mut self, entry: Entry) {
        let Entry { held, held_next, called, .. } = entry;
        for held in [held, held_next].into_iter().chain(called.into_values().map(|called| called.held)) {
            self.held.release(held);
        }
    }
}

impl ConversationSide {
    /// From now on says whom messages do not reach: those that come, and those that a start has found unjudged. Without it they cost
    /// nothing.
    pub fn begin_pushes(&mut self, unjudged: Unjudged) {
        self.pushes.is_on = true;
        for (conversation, said) in unjudged.into_messages() {
            let Unheard { first, last, newest, is_linked } = said;
            self.pushes.note(Said { conversation, seq: newest, newest_at: last, position: first, is_linked });
        }
    }

    /// Looks at the conversations whose time has come, at `micros` by the clock of the turns.
    pub fn judge_pushes(&mut self, micros: u64, now: UnixMillis, log: &mut Log) {
        let now = self.latest(now);
        // It is known by the time of the first call what is not kept, also where nobody has asked for anything by then.
        self.begin_enlisting(log);
        self.pushes.micros = micros;
        self.pushes.take_later();
        for conversation in std::mem::take(&mut self.pushes.fresh) {
            self.pushes.schedule(conversation, micros + WAIT_MICROS);
        }
        for _ in 0..JUDGED_PER_TURN {
            let Some(conversation) = self.pushes.poll_due() else { break };
            self.enter(conversation, Entrant::Push, now, log);
            self.resume(now, log);
        }
    }

    /// In how many microseconds there is somebody to call, or a conversation to look at.
    #[must_use]
    pub fn push_in_micros(&self, micros: u64) -> Option<u64> {
        if !self.pushes.calls.is_empty() {
            return Some(0);
        }
        // What was read says that there is room for another look.
        let next = self.pushes.due.first().filter(|_| self.pushes.looks < LOOKS_MAX);
        next.map(|(at, _)| at.saturating_sub(micros))
    }

    /// The next user to call. [`ConversationSide::settle_push`] says when that is done.
    pub fn poll_push(&mut self) -> Option<PushDue> {
        self.pushes.calls.pop_front()
    }

    /// A user was called, for certain, or is not to be.
    pub fn settle_push(&mut self, due: &PushDue) {
        self.pushes.held.release(due.held);
    }

    /// Of all messages up to this position those have been called who had to be.
    #[must_use]
    pub fn push_mark(&self, log: &Log) -> u64 {
        self.pushes.first_held().map_or(log.durable().position(), |first| first - 1)
    }

    /// Conversations that are looked at or rest.
    #[must_use]
    pub fn pushes_waiting(&self) -> usize {
        self.pushes.entries.len()
    }

    /// Messages that were passed over for want of room, since the start.
    #[must_use]
    pub fn pushes_passed_over(&self) -> u64 {
        self.pushes.passed_over
    }

    /// Whether it is known what those have acknowledged before this start who may have to be called.
    fn knows_taken_by_all(&mut self, conversation: ConversationId, log: &mut Log) -> bool {
        let Some(entry) = self.pushes.entries.get(&conversation).filter(|_| !self.taken.is_read()) else {
            return true;
        };
        let until = entry.until;
        let slot = &self.slots[&conversation];
        let (Loaded::Yes(state), Some(positions)) = (&slot.state, &slot.positions) else { return true };
        let may_miss = state.members().iter().filter(|member| positions.reached(&member.user) < until);
        let inboxes: Vec<_> =
            may_miss.map(|member| self.places.user_stream(&member.user, Kind::Inbox).id).collect();
        inboxes.iter().for_each(|inbox| self.read_taken(inbox, log));
        inboxes.iter().all(|inbox| self.taken.is_known(Taken::part_of(inbox)))
    }

    /// Looks at a conversation whose state and positions are in memory.
    pub(super) fn judge_push(&mut self, conversation: ConversationId, log: &mut Log) {
        if !self.knows_taken_by_all(conversation, log) {
            return self.pushes.retry(conversation);
        }
        self.pushes.looks -= 1;
        let gone = self.begin_of(conversation, log).map_or(0, |begin| begin.messages);
        let Some(mut entry) = self.pushes.entries.remove(&conversation) else { return };
        let slot = &self.slots[&conversation];
        let (Loaded::Yes(state), Some(positions)) = (&slot.state, &slot.positions) else {
            return self.pushes.forget(entry);
        };
        let (places, taken, is_linked) = (&self.places, &self.taken, entry.is_linked);
        let has_taken = |user: &UserId, positions: [u64; 2]| {
            let given = taken.of(&places.user_stream(user, Kind::Inbox).id);
            given.is_some_and(|given| {
                let after = if is_linked { given.after } else { given.whole_after };
                positions.iter().any(|position| after < *position && *position <= given.to)
            })
        };
        self.pushes.judge(conversation, &mut entry, (state, positions), gone, has_taken);
        self.pushes.settle(conversation, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that comes while its conversation is being read, at the end of somebody's rest, is given its own time.
    #[test]
    fn what_comes_while_a_conversation_is_read_waits_its_three_seconds() {
        let (conversation, bob) = (ConversationId([1; 16]), UserId::new("bob").expect("a name"));
        let mut pushes = Pushes { is_on: true, ..Pushes::default() };
        pushes.note_message(conversation, Seq(1), 10, true);
        pushes.fresh.clear();
        pushes.schedule(conversation, 0);
        assert_eq!(pushes.poll_due(), Some(conversation));
        let mut entry = pushes.entries.remove(&conversation).expect("noted");
        entry.called.insert(bob, Called { seq: Seq(1), rests_until: REST_MICROS, held: None });
        pushes.settle(conversation, entry);
        pushes.micros = REST_MICROS;
        assert_eq!(pushes.poll_due(), Some(conversation));
        pushes.note_message(conversation, Seq(2), 11, true);
        let entry = pushes.entries.remove(&conversation).expect("it rests");
        assert_eq!((entry.until, entry.newest), (Seq(1), Seq(2)));
        pushes.settle(conversation, entry);
        let entry = &pushes.entries[&conversation];
        assert_eq!((entry.until, entry.due), (Seq(2), Some(REST_MICROS + WAIT_MICROS)));
        assert_eq!(pushes.first_held(), Some(11));
    }

    /// Conversations beyond those that may be looked at wait in memory, and hold the mark as the others do.
    #[test]
    fn what_finds_no_room_waits_for_it_and_is_held() {
        let conversation = |number: u64| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            ConversationId(id)
        };
        let mut pushes = Pushes { is_on: true, ..Pushes::default() };
        let (room, all) = (WAITING_MAX as u64, WAITING_MAX as u64 + 10);
        (0..all).for_each(|number| pushes.note_message(conversation(number), Seq(1), 100 + number, true));
        // One that is there already needs none.
        pushes.note_message(conversation(0), Seq(2), 100 + all, true);
        assert_eq!((pushes.entries.len(), pushes.later.len(), pushes.passed_over), (WAITING_MAX, 10, 0));
        assert_eq!(pushes.first_held(), Some(100));
        for number in 0..room {
            let entry = pushes.entries.remove(&conversation(number)).expect("it had room");
            pushes.forget(entry);
        }
        assert_eq!(pushes.first_held(), Some(100 + room));
        pushes.take_later();
        assert_eq!((pushes.entries.len(), pushes.later.len()), (10, 0));
        assert_eq!(pushes.first_held(), Some(100 + room));
        (0..10).for_each(|number| assert!(pushes.entries.contains_key(&conversation(room + number))));
    }
}
