//! Users who go away for a part of a run, miss messages, and come back with their cursor.
//!
//! ```text
//!  Present --its time--> Leaving --nothing unanswered--> Away --its time--> Back --caught up, and read what heads named--> Whole
//! ```
//! Who is away is asked to do nothing: its sends would wait for it, and their latency would be that of the absence. What it missed is given to
//! it when it is back, which is no delivery in time either: timed is how long it takes from when it sets out until all of it was read.

use std::{rc::Rc, time::Duration};

use monoio::time::sleep;

use super::{
    State, Worker,
    desk::Desk,
    user::{Presence, User},
};
use crate::{clock::Moment, random::Random};

/// How often it is looked whose time has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Of the schedule, in hundredths: when users leave, and when they come back. The node is killed in between.
const LEAVE_AT: (u64, u64) = (15, 35);
const BACK_AT: (u64, u64) = (60, 80);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Present,
    Leaving,
    Away,
    Back,
    Whole,
}

/// One user's.
pub(super) struct Absence {
    stage: Stage,
    leave_at: Moment,
    back_at: Moment,
}

impl Absence {
    fn within(start: Moment, length: Duration, random: &mut Random) -> Self {
        let mut at = |(from, until): (u64, u64)| {
            let steps = 1000;
            let share = from * steps + random.below((until - from) * steps);
            Moment(start.0 + (u128::from(share) * length.as_nanos() / u128::from(100 * steps)) as u64)
        };
        Self { stage: Stage::Present, leave_at: at(LEAVE_AT), back_at: at(BACK_AT) }
    }
}

/// Has users leave when it is their time, until all have. They come back by themselves.
pub(super) async fn come_and_go(worker: Rc<Worker>, start: Moment) {
    worker.with(|state| {
        let State { users, desk, .. } = state;
        let length = Duration::from_secs(desk.config.load.seconds().into());
        let comings = desk.config.comings;
        for user in users.iter_mut().filter(|user| comings.is_absent(user.index)) {
            user.absence = Some(Box::new(Absence::within(start, length, &mut desk.random)));
        }
    });
    while worker.with(|state| state.absent_ones_leave(Moment::now())) {
        sleep(LOOK_EVERY).await;
    }
}

impl State {
    /// Who is to leave does. Says whether somebody has still to.
    fn absent_ones_leave(&mut self, now: Moment) -> bool {
        let mut is_any_left = false;
        for user in &mut self.users {
            let Some(absence) = &mut user.absence else { continue };
            if absence.stage == Stage::Present && absence.leave_at <= now {
                absence.stage = Stage::Leaving;
                self.desk.tally.counts.absences += 1;
            }
            // In an outage nothing is answered before the node is back.
            if absence.stage == Stage::Leaving
                && (user.unanswered() == 0 || user.presence == Presence::Offline)
            {
                user.leave();
                self.dirty.push(user.place);
            }
            is_any_left |= !user.has_left();
        }
        is_any_left
    }
}

impl User {
    /// It goes, with a goodbye.
    pub(super) fn leave(&mut self) {
        if let Some(absence) = &mut self.absence {
            absence.stage = Stage::Away;
        }
        if let Some(link) = self.link.as_mut().filter(|link| link.codec.is_open()) {
            link.codec.close();
        }
    }

    /// It is asked to do nothing: it stays away for now, or for good.
    pub(super) fn is_away(&self) -> bool {
        let is_absent = |absence: &Absence| matches!(absence.stage, Stage::Leaving | Stage::Away);
        self.is_stopped() || self.absence.as_deref().is_some_and(is_absent)
    }

    /// It has been away, or is.
    fn has_left(&self) -> bool {
        let has_left = |absence: &Absence| !matches!(absence.stage, Stage::Present | Stage::Leaving);
        self.absence.as_deref().is_none_or(has_left)
    }

    /// Its connection ended, or ends, because it went.
    pub(super) fn has_gone(&self) -> bool {
        self.absence.as_deref().is_some_and(|absence| absence.stage == Stage::Away)
    }

    /// How long it stays away. When its time has come it sets out.
    pub(super) fn stays_away(&mut self, now: Moment) -> Option<Duration> {
        let absence = self.absence.as_mut().filter(|absence| absence.stage == Stage::Away)?;
        let rest = absence.back_at.since(now);
        if rest.is_zero() {
            absence.stage = Stage::Back;
            return None;
        }
        Some(rest)
    }

    /// What comes now was missed.
    pub(super) fn is_catching_up_after_absence(&self) -> bool {
        self.presence != Presence::Live
            && self.absence.as_deref().is_some_and(|absence| absence.stage == Stage::Back)
    }

    /// Who is back, caught up, and has read what heads named has read everything.
    pub(super) fn note_whole(&mut self, desk: &mut Desk, now: Moment) {
        if self.presence != Presence::Live || !self.openings.is_empty() {
            return;
        }
        let Some(absence) = self.absence.as_mut().filter(|absence| absence.stage == Stage::Back) else {
            return;
        };
        absence.stage = Stage::Whole;
        let back_at = absence.back_at;
        desk.tally.counts.returned += 1;
        desk.tally.whole.record(now.since(back_at), desk.outage.touches(back_at, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        link::{Forms, Reach},
        plan::USERS_MIN,
        worker::tests::config,
    };

    #[test]
    fn a_dial_that_failed_before_all_were_away_says_nothing_of_the_node() {
        let mut state = State::new(config(Forms::Binary, USERS_MIN, 10)).expect("it opens no file");
        state.desk.muster.tasks = USERS_MIN;
        assert_eq!(state.reach(), Reach::Undecided, "they are on their way");
        let (start, length) = (Moment(1000), Duration::from_nanos(100_000));
        state.desk.dials_fail_since = Some(start);
        assert_eq!(state.reach(), Reach::UnreachedSince(start));
        let mut random = Random::from_system().expect("randomness");
        for user in &mut state.users {
            user.absence = Some(Box::new(Absence::within(start, length, &mut random)));
            user.leave();
        }
        assert_eq!(state.reach(), Reach::Undecided);
        // Who comes back begins anew.
        assert_eq!(state.users[0].stays_away(start.after(length)), None);
        assert_eq!(state.reach(), Reach::Undecided);
        let since = start.after(length);
        state.desk.dials_fail_since = Some(since);
        assert_eq!(state.reach(), Reach::UnreachedSince(since));
    }

    #[test]
    fn who_goes_away_goes_before_the_middle_and_is_back_before_the_end() {
        let mut random = Random::from_system().expect("randomness");
        let (start, length) = (Moment(1000), Duration::from_nanos(100_000));
        for _ in 0..1000 {
            let absence = Absence::within(start, length, &mut random);
            assert!((16_000..36_000).contains(&absence.leave_at.0), "{}", absence.leave_at.0);
            assert!((61_000..81_000).contains(&absence.back_at.0), "{}", absence.back_at.0);
        }
    }
}
