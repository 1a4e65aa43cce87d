//! Credits: what may be under way to the owner of a log, and when a command that found none comes again.
//!
//! Where more is asked of an owner than it has time for, commands are refused and come again. If all came again after the same short time, their number
//! would grow until refusing took the time that answering needs: a node that is asked for a fifth too much would do a quarter of what it can. So
//! each is told a moment of its own, one behind the other, as far apart as answers are. What is refused a second is then no more than what is
//! answered and what is new, however long the overload lasts.
//!
//! How far apart answers are is measured in two ways, each of which is wrong at times, and the nearer one counts:
//!
//! ```text
//!  how long a command is under way / how many may be     too far behind a pause of the owner: all that waited for it took so long
//!  time in which something was under way / answers       too far where little is asked: more of it at once would go in one batch
//! ```

/// When to come again, at least: a pause of one turn is over by then.
const RETRY_MIN_MICROS: u64 = 50_000;

/// And at most: a client shows that it waits, and an overload that is over is not waited for any longer.
const RETRY_MAX_MICROS: u64 = 10_000_000;

/// Turns with answers after which what they took is believed for the most part.
const SMOOTHED_OVER: u64 = 4;

/// The answers of a turn count as this many times as late as answers were before, at most: a pause is no pace.
const LATER_MAX: u64 = 2;

/// Nobody answers faster than one in so many microseconds; without it a pace of nothing would double to nothing.
const PACE_MIN_MICROS: u64 = 1;

/// What [`Pace`] multiplies both its sums with, so that their parts do not get lost.
const PACE_SCALE: u64 = 1024;

/// What one shard may have under way to another.
#[derive(Clone, Copy)]
pub(super) struct Credits {
    /// Commands that may still be sent.
    pub(super) commands: u32,
    /// Page requests that may still be sent.
    pub(super) pages: u32,
    /// Commands that may be under way.
    commands_max: u32,
    /// How long a command was under way in the turns before this one, in microseconds.
    under_way_micros: u64,
    pace: Pace,
    /// Of those that this turn answers: when it is, how many, and all that they took together. In what order they come is nobody's matter.
    turn: (u64, u64, u64),
    /// From when on something is under way of which no answer has come: the last turn with answers, or when the first was sent after that.
    waiting_since: u64,
    /// The moment that the last refused command was given, in microseconds of the turn's clock.
    last_moment: u64,
}

/// How far apart answers were in the last turns, as two sums.
#[derive(Clone, Copy, Default)]
struct Pace {
    micros: u64,
    answers: u64,
}

impl Pace {
    /// `count` answers came in one turn, after `micros` in which at least one was waited for.
    fn add(&mut self, count: u64, micros: u64) {
        let counted = match self.answers {
            0 => micros,
            _ => micros.min(LATER_MAX * count * self.apart_micros().max(PACE_MIN_MICROS)),
        };
        let smoothed = |sum: u64, new: u64| sum * (SMOOTHED_OVER - 1) / SMOOTHED_OVER + new * PACE_SCALE;
        (self.micros, self.answers) = (smoothed(self.micros, counted), smoothed(self.answers, count));
    }

    /// 0 before there was an answer.
    const fn apart_micros(self) -> u64 {
        match self.micros.checked_div(self.answers) {
            Some(micros) => micros,
            None => 0,
        }
    }
}

impl Credits {
    pub(super) const fn new(commands: u32, pages: u32) -> Self {
        Self {
            commands,
            pages,
            commands_max: commands,
            under_way_micros: 0,
            pace: Pace { micros: 0, answers: 0 },
            turn: (0, 0, 0),
            waiting_since: 0,
            last_moment: 0,
        }
    }

    /// A command is sent: there is a credit.
    pub(super) fn take_command(&mut self, now_micros: u64) {
        if self.commands == self.commands_max {
            self.end_turn_before(now_micros);
            self.waiting_since = now_micros;
        }
        self.commands -= 1;
    }

    /// A command that was sent at `asked_micros` is answered.
    pub(super) fn return_command(&mut self, asked_micros: u64, now_micros: u64) {
        self.commands += 1;
        self.end_turn_before(now_micros);
        let (_, count, took) = &mut self.turn;
        *count += 1;
        *took += now_micros.saturating_sub(asked_micros);
    }

    fn end_turn_before(&mut self, now_micros: u64) {
        let (at, count, took) = self.turn;
        if at == now_micros {
            return;
        }
        self.turn = (now_micros, 0, 0);
        let Some(each) = took.checked_div(count) else { return };
        self.under_way_micros = match self.under_way_micros {
            0 => each,
            before => (before * (SMOOTHED_OVER - 1) + each) / SMOOTHED_OVER,
        };
        self.pace.add(count, at.saturating_sub(self.waiting_since));
        self.waiting_since = self.waiting_since.max(at);
    }

    /// In how many milliseconds a command comes again that found no credit.
    pub(super) fn refuse_command(&mut self, now_micros: u64) -> u64 {
        self.end_turn_before(now_micros);
        let by_waits = self.under_way_micros / u64::from(self.commands_max.max(1));
        let apart = by_waits.min(self.pace.apart_micros());
        let moment = self.last_moment.max(now_micros + RETRY_MIN_MICROS) + apart;
        self.last_moment = moment.min(now_micros + RETRY_MAX_MICROS);
        (self.last_moment - now_micros).div_ceil(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = 100;

    /// An owner that answers one command each 2 ms, of a hundred that are under way to it.
    struct Owner {
        credits: Credits,
        /// When each was asked that is not answered, oldest first.
        asked: std::collections::VecDeque<u64>,
        now: u64,
    }

    impl Owner {
        fn busy() -> Self {
            let mut owner = Self { credits: Credits::new(ALL, 0), asked: [].into(), now: 1_000_000 };
            (0..ALL).for_each(|_| owner.ask());
            (0..200).for_each(|_| owner.answer_after(2_000));
            owner
        }

        fn ask(&mut self) {
            self.credits.take_command(self.now);
            self.asked.push_back(self.now);
        }

        /// Answers the oldest so many microseconds later; another is asked for in its place.
        fn answer_after(&mut self, micros: u64) {
            self.now += micros;
            let asked = self.asked.pop_front().expect("a hundred are under way");
            self.credits.return_command(asked, self.now);
            self.ask();
        }

        fn refuse(&mut self, count: usize) -> Vec<u64> {
            (0..count).map(|_| self.credits.refuse_command(self.now + 1)).collect()
        }
    }

    /// How many milliseconds there are from the first of a hundred refused commands to the last.
    fn all_at(waits: &[u64]) -> u64 {
        waits[99] - waits[0]
    }

    #[test]
    fn refused_commands_come_again_one_by_one_as_fast_as_others_are_answered() {
        let waits = Owner::busy().refuse(100);
        assert!(waits.is_sorted() && waits[0] >= 50, "{waits:?}");
        assert!((190..=200).contains(&all_at(&waits)), "99 answers take 198 ms: {waits:?}");
    }

    /// All that waited for it took as long as the pause. Taken for the pace, the last of what was refused meanwhile would come seconds after
    /// the owner is at rest again.
    #[test]
    fn a_pause_of_the_owner_is_not_taken_for_its_pace() {
        let mut owner = Owner::busy();
        owner.answer_after(3_000_000);
        for answered in 1..50 {
            let waits = owner.refuse(100);
            assert!(all_at(&waits) <= 2 * 200, "behind {answered} answers: {waits:?}");
            owner.credits.last_moment = 0;
            owner.answer_after(2_000);
        }
    }

    #[test]
    fn an_owner_that_has_become_slow_is_believed() {
        let mut owner = Owner::busy();
        (0..100).for_each(|_| owner.answer_after(20_000));
        let waits = owner.refuse(100);
        assert!((1_900..=2_000).contains(&all_at(&waits)), "99 answers take 1,980 ms: {waits:?}");
    }

    /// Answers that come at once are not far apart because little is asked.
    #[test]
    fn time_in_which_nothing_is_asked_counts_for_nothing() {
        let mut owner = Owner { credits: Credits::new(ALL, 0), asked: [].into(), now: 1_000_000 };
        for _ in 0..50 {
            owner.now += 100_000;
            owner.ask();
            owner.now += 1_000;
            let asked = owner.asked.pop_front().expect("it was asked");
            owner.credits.return_command(asked, owner.now);
        }
        (0..ALL).for_each(|_| owner.ask());
        assert!(all_at(&owner.refuse(100)) <= 2, "a hundred at once are answered in a batch or two");
    }

    #[test]
    fn moments_that_have_passed_are_not_waited_for() {
        let mut owner = Owner::busy();
        assert!(owner.refuse(1_001)[1_000] > 2_000);
        assert_eq!(owner.credits.refuse_command(60_000_000), 52);
    }

    #[test]
    fn an_overload_that_lasts_asks_nobody_to_wait_for_more_than_ten_seconds() {
        let mut owner = Owner::busy();
        assert_eq!(owner.refuse(1_000_000).into_iter().max(), Some(10_000));
        // And it is not owed what was beyond that.
        assert_eq!(owner.credits.refuse_command(owner.now + 10_000_001), 52);
    }

    #[test]
    fn a_node_at_rest_answers_at_once_and_its_refused_burst_comes_again_soon() {
        let mut credits = Credits::new(1_024, 0);
        credits.take_command(700);
        credits.return_command(700, 1_000);
        assert_eq!((0..1_000).map(|_| credits.refuse_command(2_000)).max(), Some(50));
    }
}
