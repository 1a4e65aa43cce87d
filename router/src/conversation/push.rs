//! Whom a message has not reached: who is to be called, by what they have registered elsewhere.
//!
//! The owner of a log looks at a conversation 3 s after a message of it became durable. Each member who has neither read nor
//! acknowledged it by then, on any device, is due to be called; what was said meanwhile is looked at 3 s later. Nobody is called twice for
//! one message, nor of one conversation within 10 s: what comes then waits.
//!
//! What is not known of a member makes a call too many. Of a large group nothing is known of what was delivered, so its members are called
//! unless they have read. A message costs one look at a map. Memory alone holds all this: a start forgets who was to be called.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use storage_log::Log;

use super::slots::Entrant;
use super::{ConversationSide, LOADED_MAX, Loaded};

/// How long a message waits for one of its reader's devices, in microseconds: as long as a radio takes that is not dead.
const WAIT_MICROS: u64 = 3_000_000;

/// How long a user who was called of a conversation is not called of it again, in microseconds.
const REST_MICROS: u64 = 10_000_000;

/// Conversations that are looked at, or rest, at a time, of one log: those of the last 13 s. The next one is passed over until its
/// next message, and [`ConversationSide::pushes_passed_over`] counts it.
const WAITING_MAX: usize = LOADED_MAX;

/// Calls that wait to be taken. While there are so many no conversation is looked at: those stay due, and one adds at most 500.
const DUE_MAX: usize = 1_024;

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
}

/// A conversation in which something was said.
struct Entry {
    /// Messages up to here have waited long enough when it is due.
    until: Seq,
    /// Up to here that was judged.
    judged: Seq,
    newest: Seq,
    /// When it is looked at; `None` while it is new, or is being looked at.
    due: Option<u64>,
    /// Nothing was said since it was looked at: it is kept for those who were called.
    rests: bool,
    called: Vec<Called>,
}

struct Called {
    user: UserId,
    /// The newest message then.
    seq: Seq,
    rests_until: u64,
}

/// What waits to be looked at, and whom to call.
#[derive(Default)]
pub(super) struct Pushes {
    is_on: bool,
    entries: HashMap<ConversationId, Entry, foldhash::fast::RandomState>,
    /// Those that are new since the last turn, which said the time.
    fresh: Vec<ConversationId>,
    due: BTreeSet<(u64, ConversationId)>,
    calls: VecDeque<PushDue>,
    passed_over: u64,
    micros: u64,
}

impl Pushes {
    /// A message became durable.
    pub(super) fn note_message(&mut self, conversation: ConversationId, seq: Seq) {
        if !self.is_on {
            return;
        }
        let is_full = self.entries.len() >= WAITING_MAX;
        match self.entries.get_mut(&conversation) {
            Some(entry) if entry.rests => {
                (entry.until, entry.newest, entry.rests) = (seq, seq, false);
                self.fresh.push(conversation);
            }
            Some(entry) => entry.newest = seq,
            None if is_full => self.passed_over += 1,
            None => {
                let (judged, due, rests, called) = (Seq(0), None, false, Vec::new());
                let entry = Entry { until: seq, judged, newest: seq, due, rests, called };
                self.entries.insert(conversation, entry);
                self.fresh.push(conversation);
            }
        }
    }

    /// It cannot be looked at now, for want of memory or of the disk: once more later.
    pub(super) fn retry(&mut self, conversation: ConversationId) {
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
        if at > self.micros || self.calls.len() >= DUE_MAX {
            return None;
        }
        self.due.pop_first();
        self.entries.get_mut(&conversation).expect("what is due is there").due = None;
        Some(conversation)
    }

    /// It was looked at: when it is again, or that it is not.
    fn settle(&mut self, conversation: ConversationId, mut entry: Entry) {
        entry.judged = entry.until;
        entry.called.retain(|called| called.rests_until > self.micros);
        let next = entry.called.iter().map(|called| called.rests_until).min();
        entry.rests = entry.newest == entry.until;
        let at = match next {
            _ if !entry.rests => self.micros + WAIT_MICROS,
            Some(at) => at,
            None => return,
        };
        entry.until = entry.newest;
        self.entries.insert(conversation, entry);
        self.schedule(conversation, at);
    }
}

impl Entry {
    /// Whether it is time to judge of a user who has everything up to `has`.
    fn judges(&self, user: &UserId, micros: u64) -> bool {
        match self.called.iter().find(|called| called.user == *user) {
            Some(called) => called.seq < self.until && called.rests_until <= micros,
            None => self.until > self.judged,
        }
    }
}

impl ConversationSide {
    /// From now on says whom the messages that come do not reach. Without it they cost nothing.
    pub fn begin_pushes(&mut self) {
        self.pushes.is_on = true;
    }

    /// Looks at the conversations whose time has come, at `micros` by the clock of the turns.
    pub fn judge_pushes(&mut self, micros: u64, now: UnixMillis, log: &mut Log) {
        self.pushes.micros = micros;
        for conversation in std::mem::take(&mut self.pushes.fresh) {
            self.pushes.schedule(conversation, micros + WAIT_MICROS);
        }
        while let Some(conversation) = self.pushes.poll_due() {
            self.enter(conversation, Entrant::Push, now, log);
            self.resume(now, log);
        }
    }

    /// The next user to call.
    pub fn poll_push(&mut self) -> Option<PushDue> {
        self.pushes.calls.pop_front()
    }

    /// Conversations that were passed over for want of room, since the start.
    #[must_use]
    pub fn pushes_passed_over(&self) -> u64 {
        self.pushes.passed_over
    }

    /// Looks at a conversation whose state and positions are in memory.
    pub(super) fn judge_push(&mut self, conversation: ConversationId) {
        let Some(mut entry) = self.pushes.entries.remove(&conversation) else { return };
        let micros = self.pushes.micros;
        let slot = &self.slots[&conversation];
        let (Loaded::Yes(state), Some(positions)) = (&slot.state, &slot.positions) else { return };
        let (_, messages) = positions.folded();
        let mut called = Vec::new();
        for member in state.members() {
            let user = &member.user;
            // Who was added later reads none of it, and who blocks the other one wants to hear nothing.
            let is_told = member.visible_from <= entry.until && !state.blocks(user);
            if !is_told || positions.reached(user) >= entry.until || !entry.judges(user, micros) {
                continue;
            }
            let count = messages.saturating_sub(positions.of(user).1);
            let (user, seq) = (user.clone(), entry.newest);
            called.push(Called { user: user.clone(), seq, rests_until: micros + REST_MICROS });
            self.pushes.calls.push_back(PushDue { user, conversation, seq, count });
        }
        entry.called.retain(|before| called.iter().all(|called| called.user != before.user));
        entry.called.append(&mut called);
        self.pushes.settle(conversation, entry);
    }
}
