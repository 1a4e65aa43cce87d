//! The time by which what is too old goes from the disk: what is gone is gone, and a clock may be wrong.
//!
//! It follows the system's clock, but forward no faster than the machine's own, which only counts; and begins where the log ends. What a clock that
//! stands ahead of that says is believed when it has said so for a day: until then somebody may mend it, and nothing was lost. What is shown goes by
//! the system's clock, as does everything else.
//!
//! Deliberately absent: a file. After a start by the same wrong clock the log ends at the time that it said, and nothing tells it from a right one.
//! **Invariant**: it is never ahead of the system's clock.

use std::collections::VecDeque;

use router::mail::Clock;

/// How long a clock that has jumped has to stand before it is believed, in microseconds.
const BELIEVED_MICROS: u64 = 24 * 60 * 60 * 1_000_000;

/// It runs faster than the machine's clock by one part in so many, so that it stays beside one that is being adjusted: twice the 500 in a million that
/// the kernel lets one be.
const SLEW: u64 = 1_000;

/// What the clock is ahead by beyond its known jumps is one more when it is more than this, in microseconds: two clocks are not read in one moment.
const ONE_JUMP_MICROS: u64 = 60 * 1_000_000;

/// Jumps that are told apart; the last of more has the time of the newest. A machine that sleeps makes one each time.
const JUMPS_MAX: usize = 32;

/// How far the clock is ahead when that is said, in microseconds: a start after an hour at rest needs no line.
const SAID_MICROS: u64 = 60 * 60 * 1_000_000;

/// The time of a log, in milliseconds since 1970.
pub(super) struct Aging {
    /// In microseconds, of which none is lost however often it is asked.
    unix_micros: u64,
    /// The machine's clock then; `None` before the first time.
    micros: Option<u64>,
    /// What the system's clock is ahead by, oldest first. Together never more than it is.
    jumps: VecDeque<Jump>,
    is_said: bool,
}

/// What the system's clock is ahead by since one moment.
struct Jump {
    /// By the machine's clock.
    since: u64,
    micros: u64,
    is_said: bool,
}

/// What an operator has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doubt {
    /// The system's clock is so far ahead, in milliseconds, and is not believed yet.
    Begins(u64),
    /// It was set back, or is believed from now on.
    Ends,
}

impl Aging {
    /// Of a log whose newest record was of this time when it was opened; 0: it is new, and has nothing to lose.
    pub(super) fn new(newest_ms: u64) -> Self {
        let unix_micros = if newest_ms == 0 { u64::MAX } else { newest_ms.saturating_mul(1_000) };
        Self { unix_micros, micros: None, jumps: VecDeque::new(), is_said: false }
    }

    /// The time by now.
    pub(super) fn at(&mut self, clock: Clock) -> u64 {
        let elapsed = clock.micros.saturating_sub(self.micros.unwrap_or(clock.micros));
        self.micros = Some(clock.micros);
        let said = clock.unix.0.saturating_mul(1_000);
        let counted = self.unix_micros.saturating_add(elapsed + elapsed / SLEW);
        self.note_jumps(clock.micros, said.saturating_sub(counted));
        let is_believed = |jump: &Jump| clock.micros.saturating_sub(jump.since) >= BELIEVED_MICROS;
        let mut believed = 0;
        while self.jumps.front().is_some_and(is_believed) {
            believed += self.jumps.pop_front().map_or(0, |jump| jump.micros);
        }
        self.unix_micros = said.min(counted.saturating_add(believed));
        self.unix_ms()
    }

    /// Each jump has its day: one that is mended goes, with the newest first, and those before it stay as old as they are.
    fn note_jumps(&mut self, now: u64, ahead: u64) {
        let mut known: u64 = self.jumps.iter().map(|jump| jump.micros).sum();
        while known > ahead {
            let newest = self.jumps.back_mut().expect("something is known");
            let less = newest.micros.min(known - ahead);
            (newest.micros, known) = (newest.micros - less, known - less);
            if newest.micros == 0 {
                self.jumps.pop_back();
            }
        }
        let micros = ahead - known;
        if micros == 0 || (micros <= ONE_JUMP_MICROS && !self.jumps.is_empty()) {
            return;
        }
        if self.jumps.len() < JUMPS_MAX {
            self.jumps.push_back(Jump { since: now, micros, is_said: false });
        } else if let Some(newest) = self.jumps.back_mut() {
            (newest.since, newest.micros) = (now, newest.micros + micros);
        }
    }

    /// The same as it was last.
    pub(super) fn unix_ms(&self) -> u64 {
        self.unix_micros / 1_000
    }

    /// What is to be said of it, once for each jump that is long enough, and of shorter ones together.
    pub(super) fn poll_doubt(&mut self) -> Option<Doubt> {
        let ahead: u64 = self.jumps.iter().map(|jump| jump.micros).sum();
        let is_new = |jump: &Jump| !jump.is_said && jump.micros >= SAID_MICROS;
        if self.jumps.iter().any(is_new) || (ahead >= SAID_MICROS && !self.is_said) {
            self.jumps.iter_mut().for_each(|jump| jump.is_said = true);
            self.is_said = true;
            return Some(Doubt::Begins(ahead / 1_000));
        }
        let has_ended = self.is_said && !self.jumps.iter().any(|jump| jump.is_said);
        self.is_said &= !has_ended;
        has_ended.then_some(Doubt::Ends)
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::UnixMillis;

    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const NOW: u64 = 20_000 * DAY;
    /// What two days of [`SLEW`] come to.
    const SLEWED: u64 = 2 * DAY / SLEW;

    /// Asked each minute for so many hours of the machine's clock, while the system's is so far ahead; what was said last.
    fn pass(aging: &mut Aging, from_hour: u64, hours: u64, ahead: u64) -> u64 {
        let minutes = (from_hour * 60)..=((from_hour + hours) * 60);
        let at =
            |minute| Clock { unix: UnixMillis(NOW + minute * 60_000 + ahead), micros: minute * 60_000_000 };
        minutes.map(|minute| aging.at(at(minute))).last().expect("some minutes")
    }

    #[test]
    fn a_clock_that_jumps_for_some_hours_makes_nothing_too_old() {
        for ahead in [2 * HOUR, 365 * DAY] {
            let mut aging = Aging::new(NOW);
            assert_eq!(pass(&mut aging, 0, 5, 0), NOW + 5 * HOUR);
            assert_eq!(aging.poll_doubt(), None);
            let jumped = pass(&mut aging, 5, 23, ahead);
            assert!(jumped <= NOW + 28 * HOUR + 2 * 60_000, "{jumped}");
            let Some(Doubt::Begins(said)) = aging.poll_doubt() else { panic!("it is ahead") };
            assert!(said <= ahead && said + 2 * 60_000 >= ahead, "{said} of {ahead}");
            assert_eq!(aging.poll_doubt(), None, "it is said once");
            assert_eq!(pass(&mut aging, 28, 1, 0), NOW + 29 * HOUR, "it was mended");
            assert_eq!(aging.poll_doubt(), Some(Doubt::Ends));
            // One that goes on to say so is right.
            pass(&mut aging, 29, 23, ahead);
            assert_eq!(pass(&mut aging, 52, 2, ahead), NOW + 54 * HOUR + ahead);
            assert_eq!(aging.poll_doubt(), None);
        }
    }

    #[test]
    fn a_start_by_a_clock_that_is_ahead_makes_nothing_too_old() {
        let mut aging = Aging::new(NOW);
        let jumped = pass(&mut aging, 0, 23, 365 * DAY);
        assert!(jumped <= NOW + 23 * HOUR + 2 * 60_000, "{jumped}");
        assert!(matches!(aging.poll_doubt(), Some(Doubt::Begins(_))));
        assert_eq!(pass(&mut aging, 23, 2, 365 * DAY), NOW + 25 * HOUR + 365 * DAY);
        assert_eq!(aging.poll_doubt(), Some(Doubt::Ends));
    }

    /// A start after some hours at rest, a jump that is mended, and another one when the first would have been believed.
    #[test]
    fn each_jump_has_a_day_of_its_own() {
        let mut aging = Aging::new(NOW - 2 * HOUR);
        pass(&mut aging, 0, 1, 0);
        assert!(matches!(aging.poll_doubt(), Some(Doubt::Begins(_))), "of the rest");
        pass(&mut aging, 1, 1, 25 * DAY);
        let Some(Doubt::Begins(said)) = aging.poll_doubt() else {
            panic!("a jump is not in the shadow of a rest")
        };
        assert!(said > 25 * DAY, "{said}");
        pass(&mut aging, 2, 21, 0);
        assert_eq!(aging.poll_doubt(), None, "the rest is not believed yet");
        let jumped = pass(&mut aging, 23, 22, 25 * DAY);
        assert!(jumped <= NOW + 45 * HOUR + SLEWED, "{jumped}");
        assert!(jumped >= NOW + 44 * HOUR, "the rest is: {jumped}");
        assert!(matches!(aging.poll_doubt(), Some(Doubt::Begins(_))));
    }

    /// Its clock jumps each time that it wakes: what is kept is not kept for ever for that.
    #[test]
    fn a_machine_that_sleeps_each_night_is_two_nights_late() {
        let mut aging = Aging::new(NOW);
        let (mut awake, mut asleep) = (0, 0);
        for _ in 0..60 {
            let time = pass(&mut aging, awake, 16, asleep);
            let right = NOW + (awake + 16) * HOUR + asleep;
            assert!(time <= right && right - time <= 2 * 8 * HOUR, "{} late", right - time);
            (awake, asleep) = (awake + 16, asleep + 8 * HOUR);
        }
    }

    /// As each start is, which begins where the log ends.
    #[test]
    fn a_clock_that_was_a_little_ahead_and_jumps_has_a_day_from_then_on() {
        let mut aging = Aging::new(NOW - 2 * HOUR);
        pass(&mut aging, 0, 20, 0);
        let jumped = pass(&mut aging, 20, 23, 365 * DAY);
        assert!(jumped <= NOW + 43 * HOUR + SLEWED, "{jumped}");
        assert_eq!(pass(&mut aging, 43, 2, 365 * DAY), NOW + 45 * HOUR + 365 * DAY);
    }

    #[test]
    fn it_is_the_systems_clock_where_that_is_adjusted_or_set_back_or_the_log_is_new_or_of_later() {
        assert_eq!(pass(&mut Aging::new(0), 0, 1, 7 * DAY), NOW + HOUR + 7 * DAY);
        assert_eq!(pass(&mut Aging::new(NOW + DAY), 0, 1, 0), NOW + HOUR);
        let mut aging = Aging::new(NOW);
        for second in 0..100_000_u64 {
            // 500 in a million faster than the machine's.
            let unix = UnixMillis(NOW + second * 1_000 + second / 2);
            assert_eq!(aging.at(Clock { unix, micros: second * 1_000_000 }), unix.0);
        }
        assert_eq!(aging.poll_doubt(), None);
    }
}
