//! When users were last seen, on its way to the logs: of who has left once grace has passed, of who has come, and of who stays now and
//! again, so that a crash makes it wrong by no more than [`UserLimits::last_seen_error_millis`](super::UserLimits).
//!
//! What is due is written at a pace, and what waits is in memory meanwhile, which is what others are shown. Of who is invisible nothing is
//! written. Who stays is found by walking through the sessions, a part of them each turn; each remembers in two bytes when that was last
//! done, so an idle one costs no more for it.

use std::collections::VecDeque;

use protocol::ids::{UnixMillis, UserId};

use super::UserSide;
use super::presence::Hidden;
use super::rates::Rate;
use crate::mail::{Request, SEEN_PER_MAIL};

/// Sightings that a shard writes in a second, at most, of 128 bytes each: a hundredth of what a log takes. When 50,000 users of a shard leave at
/// once, theirs are written within a minute.
const SEEN_PER_SECOND: u32 = 1_000;

/// Sightings that wait for one log. Beyond it, it is behind, and no more are taken from those that are due.
const STAGED_MAX: usize = 4 * SEEN_PER_MAIL;

/// A time in which a sighting may be wrong has so many units, by which sessions remember when theirs was written.
const UNITS: u64 = 60;

/// All sessions are looked at within so many of them,
const PASS_UNITS: u64 = 10;

/// and those are due whose sighting is older than this, each by its own number of units, so that those who came together are not due together,
const DUE_UNITS_MIN: u16 = 20;

/// up to this.
const DUE_UNITS_MAX: u16 = 45;

/// Sessions looked at in one turn.
const LOOKS_PER_TURN: usize = 4_096;

/// How long a shard sleeps at most while something is due, in microseconds.
const NAP_MICROS: u64 = 50_000;

const _: () = {
    // One that was not due in one pass is in time in the next, and five units are left for the pace.
    assert!(DUE_UNITS_MAX as u64 + PASS_UNITS + 5 <= UNITS);
};

/// For one log.
#[derive(Default)]
struct Staged {
    seen: VecDeque<(UserId, UnixMillis)>,
    /// A mail is on its way.
    under_way: bool,
}

/// What is to be written.
pub(super) struct Writing {
    unit_micros: u64,
    /// When all that was written will have been earned again.
    earned_at: u64,
    /// Users who are here, and are to be written as seen now.
    here: VecDeque<UserId>,
    logs: Vec<Staged>,
    /// When the pass through the sessions began, and how many were looked at.
    pass_begun: u64,
    looked_at: usize,
    /// The process ends: who has left is written without waiting for grace, and not at a pace.
    is_ending: bool,
}

impl Writing {
    pub(super) fn new(logs: u16, error_millis: u64) -> Self {
        Self {
            unit_micros: (error_millis * 1_000 / UNITS).max(1),
            earned_at: 0,
            here: VecDeque::new(),
            logs: (0..logs).map(|_| Staged::default()).collect(),
            pass_begun: 0,
            looked_at: 0,
            is_ending: false,
        }
    }

    /// Logs that have not said yet that they took what they were told.
    pub(super) fn under_way(&self) -> u32 {
        self.logs.iter().filter(|log| log.under_way).count() as u32
    }

    fn is_behind(&self) -> bool {
        self.logs.iter().any(|log| log.seen.len() >= STAGED_MAX)
    }

    /// The unit that goes on.
    fn unit(&self, micros: u64) -> u16 {
        // It begins anew after 45 days, of which no session is looked at for the first time.
        (micros / self.unit_micros) as u16
    }

    /// Whether one may be written now, at the pace.
    fn may_write(&mut self, micros: u64) -> bool {
        if self.is_ending {
            return true;
        }
        let taken = Rate::evenly(SEEN_PER_SECOND).take(self.earned_at, micros);
        self.earned_at = taken.unwrap_or(self.earned_at);
        taken.is_ok()
    }
}

impl UserSide {
    /// The process ends, or is about to: who has left is written at once.
    pub(super) fn end_writing(&mut self) {
        self.writing.is_ending = true;
    }

    /// It does not, after all.
    pub(super) fn resume_writing(&mut self) {
        self.writing.is_ending = false;
    }

    /// Whether it is written of everybody who has left when that was, as far as the logs took it.
    #[must_use]
    pub fn has_written(&self) -> bool {
        let is_idle = |log: &Staged| log.seen.is_empty() && !log.under_way;
        let has_left = |hidden: &Hidden| matches!(hidden, Hidden::Left(_));
        self.presence.ends.is_empty()
            && self.writing.logs.iter().all(is_idle)
            && !self.presence.hidden.values().any(has_left)
    }

    /// In how many microseconds there is something to write.
    #[must_use]
    pub fn write_in_micros(&self) -> Option<u64> {
        let (board, writing) = (&self.presence, &self.writing);
        let next = if writing.here.is_empty() { board.end_in_micros() } else { Some(0) };
        next.map(|micros| micros.max(NAP_MICROS))
    }

    /// A user who is not invisible is here.
    pub(super) fn note_here(&mut self, user: &UserId) {
        self.writing.here.push_back(user.clone());
    }

    /// The sighting of a user who is here was written in this unit.
    pub(super) fn mark_written(&mut self, user: &UserId, unit: u16) {
        if let Some(slot) = self.users.get(user).and_then(|present| present.slots.first()) {
            self.sessions[*slot as usize].written = unit;
        }
    }

    pub(super) fn this_unit(&self) -> u16 {
        self.writing.unit(self.presence.clock.micros)
    }

    /// Who is back within grace, and was written in this unit, is written again where it may not be met in time.
    pub(super) fn note_back(&mut self, user: &UserId, written: u16) {
        self.mark_written(user, written);
        if self.this_unit().wrapping_sub(written) >= DUE_UNITS_MAX {
            self.note_here(user);
        }
    }

    /// Looks at as many sessions as the time says.
    pub(super) fn walk_sessions(&mut self, micros: u64) {
        let (slots, pass_micros) = (self.sessions.capacity(), self.writing.unit_micros * PASS_UNITS);
        let elapsed = micros.saturating_sub(self.writing.pass_begun).min(pass_micros);
        let upto = (slots as u64 * elapsed / pass_micros) as usize;
        let upto = upto.min(self.writing.looked_at + LOOKS_PER_TURN);
        for slot in self.writing.looked_at..upto {
            self.look_at(slot);
        }
        self.writing.looked_at = upto.max(self.writing.looked_at);
        if elapsed == pass_micros && self.writing.looked_at >= slots {
            (self.writing.pass_begun, self.writing.looked_at) = (micros, 0);
        }
    }

    fn look_at(&mut self, slot: usize) {
        let unit = self.this_unit();
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let due = DUE_UNITS_MIN + (slot % usize::from(DUE_UNITS_MAX - DUE_UNITS_MIN + 1)) as u16;
        if unit.wrapping_sub(session.written) < due || self.presence.hidden.contains_key(&session.user) {
            return;
        }
        if self.users.get(&session.user).is_some_and(|present| present.slots[0] as usize == slot) {
            session.written = unit;
            self.writing.here.push_back(session.user.clone());
        }
    }

    /// Mails what is due, as far as the pace lets it: one mail at a time to each log.
    pub(super) fn write_sightings(&mut self) {
        self.stage_ends();
        self.stage_here();
        let shard = self.shard;
        for (log, staged) in (0..).zip(&mut self.writing.logs) {
            if !staged.under_way && !staged.seen.is_empty() {
                let count = staged.seen.len().min(SEEN_PER_MAIL);
                let seen = staged.seen.drain(..count).collect();
                staged.under_way = true;
                self.mail.push_back((self.places.owner_of(log), Request::Seen { log, shard, seen }));
            }
        }
    }

    fn stage_ends(&mut self) {
        let micros = self.presence.clock.micros;
        while let Some(seen_at) = self.presence.next_end(self.writing.is_ending) {
            // Who has come back meanwhile is not to be written.
            if seen_at.is_some() && (self.writing.is_behind() || !self.writing.may_write(micros)) {
                return;
            }
            let user = self.presence.take_end();
            if let Some(at) = seen_at {
                self.stage(user, at);
            }
        }
    }

    fn stage_here(&mut self) {
        let clock = self.presence.clock;
        while let Some(user) = self.writing.here.front() {
            let is_here = self.users.contains_key(user) && !self.presence.hidden.contains_key(user);
            // Another process has those who stay, or nobody does.
            if self.writing.is_ending || (is_here && self.writing.is_behind()) {
                return;
            }
            if is_here && !self.writing.may_write(clock.micros) {
                return;
            }
            let user = self.writing.here.pop_front().expect("looked at");
            if is_here {
                self.mark_written(&user, self.writing.unit(clock.micros));
                self.stage(user, clock.unix);
            }
        }
    }

    fn stage(&mut self, user: UserId, at: UnixMillis) {
        let log = usize::from(self.places.settings_log_of(&user));
        self.writing.logs[log].seen.push_back((user, at));
    }

    /// The mail before has been taken, or the log took not all of it: the next may go.
    pub(super) fn handle_seen_taken(&mut self, log: u16, are_lost: bool) {
        self.writing.logs[usize::from(log)].under_way = false;
        if are_lost {
            self.presence.note_lost();
        }
    }
}
