//! How fast a session and its user may ask for things.
//!
//! A meter is a token bucket in eight bytes (the virtual scheduling form of ITU-T I.371, annex A): the moment at which all that was used
//! will have been earned again. It is read and moved by the clock of the turn, so a command costs a comparison. What a user has stored is
//! kept beside its sessions: nobody gets a new allowance by coming back.

use hashbrown::HashMap;
use protocol::command::Command;
use protocol::event::{CloseCode, ErrorCode, ErrorReply, ServerFrame};
use protocol::ids::{RequestId, UserId};
use smallvec::SmallVec;

use super::UserSide;
use crate::mail::SessionId;

/// Seconds of a rate that may be used at once, by who was quiet before: a client that comes back asks for many things.
const BURST_SECONDS: u64 = 4;

const SECOND_MICROS: u64 = 1_000_000;

const HOUR_MICROS: u64 = 3_600 * SECOND_MICROS;

/// So many things in a time, and so many at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Microseconds in which one is earned; 0 is no limit.
    interval: u64,
    /// Microseconds of which what is earned may be used at once.
    burst: u64,
}

impl Rate {
    /// As many as somebody likes.
    pub const UNLIMITED: Self = Self { interval: 0, burst: 0 };

    /// At most a million a second, and at once what is earned in four; 0 is no limit.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self::of(count, SECOND_MICROS, BURST_SECONDS * SECOND_MICROS)
    }

    /// At most a million an hour, and as many at once; 0 is no limit.
    #[must_use]
    pub const fn per_hour(count: u32) -> Self {
        Self::of(count, HOUR_MICROS, HOUR_MICROS)
    }

    /// So many a second, and no more at once than in a tenth of one.
    pub(super) const fn evenly(count: u32) -> Self {
        Self::of(count, SECOND_MICROS, SECOND_MICROS / 10)
    }

    const fn of(count: u32, time: u64, burst: u64) -> Self {
        if count == 0 {
            return Self::UNLIMITED;
        }
        Self { interval: time / if count > 1_000_000 { 1_000_000 } else { count as u64 }, burst }
    }

    /// Uses one, where all that was used before will have been earned again at `earned_at`, in microseconds of
    /// [`crate::mail::Clock::micros`]: when that is with this one.
    ///
    /// # Errors
    /// In how many microseconds there will be one.
    pub fn take(self, earned_at: u64, micros: u64) -> Result<u64, u64> {
        let after = self.charge(earned_at, micros, 1);
        if self == Self::UNLIMITED {
            return Ok(earned_at);
        }
        match (after - micros).saturating_sub(self.burst) {
            0 => Ok(after),
            early => Err(early),
        }
    }

    /// Uses so many, also what has not been earned: when all of it will have been.
    #[must_use]
    pub(super) fn charge(self, earned_at: u64, micros: u64, count: u64) -> u64 {
        earned_at.max(micros) + self.interval * count
    }

    /// Of what was used by [`Rate::charge`] so many were not.
    #[must_use]
    pub(super) fn give_back(self, earned_at: u64, count: u64) -> u64 {
        earned_at.saturating_sub(self.interval * count)
    }
}

/// Whether a command writes something to a log by itself, and so counts among the messages of its user. How far somebody has read does not: it is
/// written with what others have.
#[must_use]
pub const fn is_stored(command: &Command) -> bool {
    match command {
        Command::Block { .. }
        | Command::Create(_)
        | Command::Delete { .. }
        | Command::Edit(_)
        | Command::Invisible { .. }
        | Command::Leave { .. }
        | Command::Members(_)
        | Command::Mute { .. }
        | Command::PushToken { .. }
        | Command::React(_)
        | Command::Retention { .. }
        | Command::Send(_)
        | Command::Title { .. } => true,
        Command::Ack { .. }
        | Command::Connect(_)
        | Command::Conversations { .. }
        | Command::History { .. }
        | Command::ListMembers { .. }
        | Command::Ping { .. }
        | Command::Read { .. }
        | Command::Refresh { .. }
        | Command::Search(_)
        | Command::Typing { .. }
        | Command::Unview { .. }
        | Command::View { .. } => false,
    }
}

/// What was used of a rate.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Meter {
    /// When all of it will have been earned again, in microseconds of [`crate::mail::Clock::micros`].
    earned_at: u64,
}

impl Meter {
    /// Uses one, or says in how many microseconds there will be one.
    fn take(&mut self, rate: Rate, micros: u64) -> Result<(), u64> {
        self.earned_at = rate.take(self.earned_at, micros)?;
        Ok(())
    }
}

/// Users who have gone with something that they have yet to earn again, which takes four seconds: 3 MB. Whoever goes beyond that is forgotten.
const ABSENT_MAX: usize = 32_768;

/// How long what was found full is not looked through again, in microseconds.
const LOOK_EVERY: u64 = SECOND_MICROS;

/// A user with a session here.
#[derive(Default)]
pub(super) struct Present {
    /// Its sessions, by their slots.
    pub(super) slots: SmallVec<[u32; 1]>,
    /// What all of them together have stored.
    stored: Meter,
}

impl Present {
    /// Without a session yet; it has stored as much.
    pub(super) fn having_stored(stored: Meter) -> Self {
        Self { stored, ..Self::default() }
    }
}

/// What users have stored whose last session has gone, until all of it has been earned again.
#[derive(Default)]
pub(super) struct Absent {
    stored: HashMap<UserId, Meter, foldhash::fast::RandomState>,
    looked_at: u64,
}

impl Absent {
    /// The last session of a user has gone.
    pub(super) fn keep(&mut self, user: &UserId, present: &Present, micros: u64) {
        if present.stored.earned_at <= micros {
            return;
        }
        if self.stored.len() >= ABSENT_MAX && micros >= self.looked_at + LOOK_EVERY {
            self.looked_at = micros;
            self.stored.retain(|_, meter| meter.earned_at > micros);
        }
        if self.stored.len() < ABSENT_MAX {
            self.stored.insert(user.clone(), present.stored);
        }
    }

    /// The first session of a user has come.
    pub(super) fn take(&mut self, user: &UserId) -> Meter {
        self.stored.remove(user).unwrap_or_default()
    }
}

impl UserSide {
    /// Whether a session may ask for something now. Where it may not, and gave a number, it is told when.
    pub(super) fn may_ask(&mut self, id: SessionId, number: Option<RequestId>, micros: u64) -> bool {
        let rate = self.limits.session_commands;
        let taken = self.session(id).map_or(Ok(()), |session| session.asked.take(rate, micros));
        if let (Err(early), Some(number)) = (taken, number) {
            self.hold_back(id, number, early, "more than this node takes of one session in so short a time");
        }
        taken.is_ok()
    }

    /// Whether the user of a session may store something now. Where it may not, the session is told when.
    pub(super) fn may_store(&mut self, id: SessionId, number: RequestId, micros: u64) -> bool {
        let (rate, generation) = (self.limits.user_messages, id.generation);
        let session = self.sessions.get(id.slot as usize).filter(|session| session.generation == generation);
        let present = session.and_then(|session| self.users.get_mut(&session.user));
        let taken = present.map_or(Ok(()), |present| present.stored.take(rate, micros));
        if let Err(early) = taken {
            self.hold_back(id, number, early, "more than this node takes of one user in so short a time");
        }
        taken.is_ok()
    }

    /// Refuses a command by a limit that is not known here: it comes too soon by `early` microseconds. Without a number nobody is told.
    ///
    /// # Errors
    /// The close code, when the session has more commands under way than it may have.
    pub fn refuse_for_now(
        &mut self,
        id: SessionId,
        number: Option<RequestId>,
        early: u64,
        message: &str,
    ) -> Result<(), CloseCode> {
        if let Some(number) = number {
            self.count_command(id)?;
            self.hold_back(id, number, early, message);
        }
        Ok(())
    }

    /// `early`: by so many microseconds.
    fn hold_back(&mut self, id: SessionId, number: RequestId, early: u64, message: &str) {
        let (retry_after_ms, message) = (Some(early.div_ceil(1_000)), message.to_owned());
        let error = ErrorReply { id: Some(number), code: ErrorCode::RateLimited, message, retry_after_ms };
        self.push_reply(id, &ServerFrame::Error(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_who_has_gone_is_bounded_and_forgotten_when_it_was_earned() {
        let name = |number: usize| UserId::new(&format!("user-{number}")).expect("a name");
        let having = |earned_at| Present::having_stored(Meter { earned_at });
        let mut absent = Absent::default();
        absent.keep(&name(0), &having(5), 5);
        assert!(absent.stored.is_empty(), "it has earned all of it");
        (0..ABSENT_MAX + 10).for_each(|user| absent.keep(&name(user), &having(4_000_000), 5));
        assert_eq!(absent.stored.len(), ABSENT_MAX);
        assert_eq!(absent.take(&name(1)).earned_at, 4_000_000);
        absent.keep(&name(ABSENT_MAX + 1), &having(9_000_000), 5_000_000);
        absent.keep(&name(ABSENT_MAX + 2), &having(9_000_000), 5_000_000);
        assert_eq!(absent.stored.len(), 2, "the others make room");
        assert_eq!(absent.take(&name(2)).earned_at, 0);
    }

    #[test]
    fn a_meter_gives_a_burst_and_then_its_rate_and_says_when() {
        let (rate, mut meter, mut now) = (Rate::per_second(10), Meter::default(), 5_000_000);
        assert_eq!((0..100).filter(|_| meter.take(rate, now).is_ok()).count(), 40);
        assert_eq!(meter.take(rate, now), Err(100_000));
        assert_eq!(meter.take(rate, now + 99_999), Err(1));
        let mut taken = 0;
        for _ in 0..10_000 {
            now += 1_000;
            taken += usize::from(meter.take(rate, now).is_ok());
        }
        assert_eq!(taken, 100, "ten seconds at ten a second");
        // Who was quiet for a day has no more than a burst.
        now += 86_400_000_000;
        assert_eq!((0..1_000).filter(|_| meter.take(rate, now).is_ok()).count(), 40);
        assert!((0..1_000_000).all(|_| meter.take(Rate::UNLIMITED, now).is_ok()));
    }
}
