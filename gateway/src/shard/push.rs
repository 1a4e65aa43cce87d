//! Users to be called: from the owner of a conversation, which says whom, by the owner of the user's settings, which says how, to the file.
//!
//! A call whose tokens are being asked for, or that waits for the file, counts here; at the limit no more are taken from the
//! conversations, which stay due. Asking another shard takes no credit and a place that is kept for it, so no mailbox is ever full for it.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::command::PushToken;
use protocol::ids::DeviceId;
use router::conversation::{PushDue, Unjudged};
use router::mail::{PUSH_LOOKUPS, Request};
use router::{Places, ShardId};
use slab::Slab;

use super::logs::OwnedLog;
use super::{Action, Shard};
use crate::mailbox::Forward;
use crate::pushes::call::{PushBatch, PushCall, Pushed};

/// Calls of one shard that wait for tokens or for the file: 40 MB, where all users have 16 tokens of the longest.
const CALLS_MAX: usize = 1_024;

/// How long calls gather before the file is written once more, in microseconds: ten syncs a second beside those of the logs.
const GATHER_MICROS: u64 = 100_000;

/// How long marks may lag where nobody has to be called, in microseconds: a start looks at so much in vain.
const MARKS_MICROS: u64 = 5_000_000;

/// How long before a file that takes nothing is tried again, and settings that could not be read are, in microseconds.
const RETRY_MICROS: u64 = 1_000_000;

/// Calls that wait for settings to be read once more, so that those whose settings can be read go on. At the limit the next one is given up.
const RETRIES_MAX: usize = 1_024;

/// How often it is said that users were not called, at most, in microseconds.
const SAY_MICROS: u64 = 60_000_000;

/// How often settings are asked for: after half a minute they are damaged, or their log is not served.
const TRIES_MAX: u8 = 30;

/// Of which devices a user is called, and by what.
type Tokens = Vec<(DeviceId, PushToken)>;

/// A call on its way.
struct Candidate {
    log: u16,
    due: PushDue,
    target: ShardId,
    tries: u8,
}

/// The calls of a shard.
pub(super) struct Pushing {
    is_on: bool,
    /// Asked for, by the number that the answer says; and how many at each shard.
    asked: Slab<Candidate>,
    asked_of: Vec<usize>,
    waiting: VecDeque<Candidate>,
    /// To be asked for again, and when.
    retries: VecDeque<(u64, Candidate)>,
    answered: Vec<(Candidate, Option<Tokens>)>,
    calls: Vec<PushCall>,
    under_way: Option<Arc<PushBatch>>,
    /// It was refused: when it is offered again.
    offer_at: Option<u64>,
    /// No batch before.
    not_before: u64,
    /// No batch of marks alone before.
    marks_not_before: u64,
    /// The marks that were handed over last, and whether they are on the disk.
    marks: Vec<(u16, u64)>,
    is_kept: bool,
    /// Users who were not called, as no device of theirs has a token or the conversation is muted;
    silent: u64,
    /// and as their settings could not be read.
    unknown: u64,
    /// How many of those were said to the operator, and when that may be done again.
    unknown_said: u64,
    say_at: u64,
}

impl Pushing {
    pub(super) fn new(is_on: bool, shards: u16) -> Self {
        Self {
            is_on,
            asked: Slab::new(),
            asked_of: vec![0; usize::from(shards)],
            waiting: VecDeque::new(),
            retries: VecDeque::new(),
            answered: Vec::new(),
            calls: Vec::new(),
            under_way: None,
            offer_at: None,
            not_before: 0,
            marks_not_before: 0,
            marks: Vec::new(),
            is_kept: true,
            silent: 0,
            unknown: 0,
            unknown_said: 0,
            say_at: 0,
        }
    }

    /// Whether another shard has yet to answer.
    pub(super) fn asks(&self) -> bool {
        !self.asked.is_empty()
    }

    fn has_room(&self) -> bool {
        let asking = self.asked.len() + self.waiting.len() + self.answered.len();
        asking + self.calls.len() < CALLS_MAX
    }

    /// The owner of a user's settings has answered.
    pub(super) fn handle_tokens(&mut self, call: u32, tokens: Option<Tokens>) {
        let candidate = self.asked.remove(call as usize);
        self.asked_of[candidate.target.index()] -= 1;
        self.answered.push((candidate, tokens));
    }

    fn take(&mut self, log: u16, due: PushDue, places: &Places) {
        let target = places.owner_of(places.settings_log_of(&due.user));
        self.waiting.push_back(Candidate { log, due, target, tries: 0 });
    }

    /// The next question to a shard that is not asked as many as it may be: one that waits for its disk keeps nobody else waiting.
    fn poll_request(&mut self, me: ShardId) -> Option<(ShardId, Request)> {
        let has_place = |candidate: &Candidate| self.asked_of[candidate.target.index()] < PUSH_LOOKUPS;
        let place = self.waiting.iter().position(has_place)?;
        let candidate = self.waiting.remove(place).expect("found");
        let target = candidate.target;
        self.asked_of[target.index()] += 1;
        let (user, conversation) = (candidate.due.user.clone(), candidate.due.conversation);
        let call = self.asked.insert(candidate) as u32;
        Some((target, Request::PushTokens { shard: me, call, user, conversation }))
    }

    fn wake(&mut self, micros: u64) {
        while self.retries.front().is_some_and(|(at, _)| *at <= micros) {
            self.waiting.extend(self.retries.pop_front().map(|(_, candidate)| candidate));
        }
    }

    /// The batch that was refused, when it is to be offered again.
    fn poll_refused(&mut self, micros: u64) -> Option<Arc<PushBatch>> {
        self.offer_at.take_if(|at| *at <= micros)?;
        self.under_way.clone()
    }

    /// Whether it is time for a batch; of marks alone only if they have moved.
    fn may_hand_over(&self, micros: u64) -> bool {
        let has_calls = !self.calls.is_empty() && micros >= self.not_before;
        self.under_way.is_none() && (has_calls || micros >= self.marks_not_before)
    }

    /// What is to be handed over then, if anything is: `marks` are those of all logs here.
    fn poll_batch(&mut self, marks: Vec<(u16, u64)>, micros: u64) -> Option<Arc<PushBatch>> {
        if self.calls.is_empty() && marks == self.marks && self.is_kept {
            self.marks_not_before = micros + MARKS_MICROS;
            return None;
        }
        self.marks.clone_from(&marks);
        let batch = Arc::new(PushBatch { calls: std::mem::take(&mut self.calls), marks });
        self.under_way = Some(batch.clone());
        Some(batch)
    }

    fn handle_pushed(&mut self, pushed: Pushed, micros: u64) {
        if pushed == Pushed::Refused {
            self.offer_at = Some(micros + RETRY_MICROS);
            return;
        }
        (self.under_way, self.is_kept) = (None, pushed == Pushed::Kept);
        self.not_before = micros + GATHER_MICROS;
        self.marks_not_before = micros + MARKS_MICROS;
    }

    /// How many were not called for want of their settings since that was said last, when it is time to say so.
    fn poll_unsaid(&mut self, micros: u64) -> Option<u64> {
        let users = self.unknown - self.unknown_said;
        if users == 0 || micros < self.say_at {
            return None;
        }
        (self.unknown_said, self.say_at) = (self.unknown, micros + SAY_MICROS);
        Some(users)
    }

    /// In how many microseconds there is something to do here.
    fn wait_micros(&self, micros: u64) -> Option<u64> {
        let batch = match (&self.under_way, self.offer_at) {
            (Some(_), at) => at,
            (None, _) => (!self.calls.is_empty()).then_some(self.not_before),
        };
        let retry = self.retries.front().map(|(at, _)| *at);
        batch.into_iter().chain(retry).min().map(|at| at.saturating_sub(micros))
    }
}

impl OwnedLog {
    /// From now on says whom messages do not reach, those included that a start found unjudged.
    pub fn begin_pushes(&mut self, unjudged: Unjudged) {
        self.side.begin_pushes(unjudged);
    }
}

impl Shard {
    /// Looks whom messages have not reached, and asks how to call them.
    pub(super) fn judge_pushes(&mut self) {
        if !self.pushing.is_on || self.paused || self.background_held {
            return;
        }
        let clock = self.clock;
        self.pushing.wake(clock.micros);
        for owned in self.logs.iter_mut().filter(|owned| owned.log.is_healthy()) {
            let log = owned.number();
            owned.side.judge_pushes(clock.micros, clock.unix, &mut owned.log);
            while self.pushing.has_room()
                && let Some(due) = owned.side.poll_push()
            {
                self.pushing.take(log, due, &self.places);
            }
        }
        while let Some((target, request)) = self.pushing.poll_request(self.id) {
            if target == self.id {
                self.handle_request(request);
            } else {
                self.mail.post(target, Forward::Request(request));
            }
        }
    }

    /// Hands over whom to call and how, and up to where everybody was called.
    pub(super) fn poll_pushes(&mut self) {
        if !self.pushing.is_on {
            return;
        }
        for (candidate, tokens) in std::mem::take(&mut self.pushing.answered) {
            self.settle_push(candidate, tokens);
        }
        self.count_pushes();
        if let Some(users) = self.pushing.poll_unsaid(self.clock.micros) {
            tracing::warn!(
                shard = self.id.0,
                users,
                "users were not called: their settings could not be read for half a minute, or 1,024 others waited for theirs"
            );
        }
        if self.paused || self.background_held {
            return;
        }
        let micros = self.clock.micros;
        let mut batch = self.pushing.poll_refused(micros);
        if self.pushing.may_hand_over(micros) {
            // A call that is in the batch is held no more: its mark counts when the batch is taken.
            let marks = self.logs.iter().filter(|owned| owned.log.is_healthy());
            let marks = marks.map(|owned| (owned.number(), owned.side.push_mark(&owned.log))).collect();
            batch = self.pushing.poll_batch(marks, micros);
        }
        self.actions.extend(batch.map(Action::Push));
    }

    fn settle_push(&mut self, mut candidate: Candidate, tokens: Option<Tokens>) {
        let at = self.clock.unix;
        match tokens {
            None if candidate.tries < TRIES_MAX && self.pushing.retries.len() < RETRIES_MAX => {
                candidate.tries += 1;
                let again = self.clock.micros + RETRY_MICROS;
                return self.pushing.retries.push_back((again, candidate));
            }
            None => self.pushing.unknown += 1,
            Some(tokens) if tokens.is_empty() => self.pushing.silent += 1,
            Some(tokens) => {
                let PushDue { user, conversation, seq, count, .. } = candidate.due.clone();
                self.pushing.calls.push(PushCall { at, user, tokens, conversation, seq, count });
            }
        }
        let owned = self.logs.iter_mut().find(|owned| owned.number() == candidate.log);
        owned.expect("a shard keeps its logs").side.settle_push(&candidate.due);
    }

    pub(super) fn handle_pushed(&mut self, pushed: Pushed) {
        self.pushing.handle_pushed(pushed, self.clock.micros);
    }

    /// In how many microseconds somebody may have to be called.
    pub(super) fn push_in_micros(&self) -> Option<u64> {
        if !self.pushing.is_on || self.background_held {
            return None;
        }
        let micros = self.clock.micros;
        let logs = self.logs.iter().filter(|owned| owned.log.is_healthy() && self.pushing.has_room());
        let due = logs.filter_map(|owned| owned.side.push_in_micros(micros));
        due.chain(self.pushing.wait_micros(micros)).min()
    }

    fn count_pushes(&self) {
        let waiting: usize = self.logs.iter().map(|owned| owned.side.pushes_waiting()).sum();
        self.metrics.push_waiting.set(waiting as u64);
        let passed_over = self.logs.iter().map(|owned| owned.side.pushes_passed_over()).sum();
        self.metrics.push_passed_over_total.set_total(passed_over);
        self.metrics.push_silent_total.set_total(self.pushing.silent);
        self.metrics.push_unknown_total.set_total(self.pushing.unknown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_users_were_given_up_is_said_once_a_minute_with_how_many() {
        let mut pushing = Pushing::new(true, 1);
        assert_eq!(pushing.poll_unsaid(0), None);
        pushing.unknown = 1;
        assert_eq!(pushing.poll_unsaid(5), Some(1));
        pushing.unknown = 2_000;
        assert_eq!(pushing.poll_unsaid(4 + SAY_MICROS), None);
        assert_eq!(pushing.poll_unsaid(5 + SAY_MICROS), Some(1_999));
        assert_eq!(pushing.poll_unsaid(6 + 2 * SAY_MICROS), None);
    }
}
