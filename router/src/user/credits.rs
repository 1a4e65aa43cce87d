//! Credits: what may be under way to the owner of a log, and when a command that found none comes again.
//!
//! Where more is asked of an owner than it has time for, commands are refused and come again. If all came again after the same short time, their number
//! would grow until refusing took the time that answering needs: a node that is asked for a fifth too much would do a quarter of what it can. So
//! each is told a moment of its own, one behind the other, as far apart as answers are: that is how long a command is under way by how many are
//! (Little's law). What is refused a second is then no more than what is answered and what is new, until more wait than are answered in a second:
//! of those beyond that each comes once a second, where it came twenty times.

/// When to come again, at least: a pause of one turn is over by then.
const RETRY_MIN_MICROS: u64 = 50_000;

/// And at most: a client shows that it waits, and an overload that is over is not waited for any longer.
const RETRY_MAX_MICROS: u64 = 1_000_000;

/// Turns with answers after which how long one takes is believed for the most part.
const SMOOTHED_OVER: u64 = 4;

/// What one shard may have under way to another.
#[derive(Clone, Copy)]
pub(super) struct Credits {
    /// Commands that may still be sent.
    pub(super) commands: u32,
    /// Page requests that may still be sent.
    pub(super) pages: u32,
    /// How long a command was under way in the turns before this one, in microseconds.
    under_way_micros: u64,
    /// Of those that this turn answers: when it is, how many, and all that they took together. In what order they come is nobody's matter.
    turn: (u64, u64, u64),
    /// The moment that the last refused command was given, in microseconds of the turn's clock.
    last_moment: u64,
}

impl Credits {
    pub(super) const fn new(commands: u32, pages: u32) -> Self {
        Self { commands, pages, under_way_micros: 0, turn: (0, 0, 0), last_moment: 0 }
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
    }

    /// In how many milliseconds a command comes again that found no credit, where `all` commands may be under way.
    pub(super) fn refuse_command(&mut self, all: u32, now_micros: u64) -> u64 {
        self.end_turn_before(now_micros);
        let apart = self.under_way_micros / u64::from(all.max(1));
        let moment = self.last_moment.max(now_micros + RETRY_MIN_MICROS) + apart;
        self.last_moment = moment.min(now_micros + RETRY_MAX_MICROS);
        (self.last_moment - now_micros).div_ceil(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred under way, each for 200 ms: one is answered each 2 ms.
    fn busy() -> Credits {
        let mut credits = Credits::new(0, 0);
        (0..20).for_each(|turn| credits.return_command(turn, 200_000 + turn));
        credits
    }

    #[test]
    fn refused_commands_come_again_one_by_one_as_fast_as_others_are_answered() {
        let mut credits = busy();
        let waits: Vec<u64> = (0..100).map(|_| credits.refuse_command(100, 1_000_000)).collect();
        assert!(waits.is_sorted() && waits[0] >= 50, "{waits:?}");
        let all_at = waits[99] - waits[0];
        assert!((190..=200).contains(&all_at), "99 answers take 198 ms: {all_at}");
    }

    #[test]
    fn moments_that_have_passed_are_not_waited_for() {
        let mut credits = busy();
        (0..1_000).for_each(|_| _ = credits.refuse_command(100, 1_000_000));
        assert_eq!(credits.refuse_command(100, 1_000_000), 1_000);
        assert_eq!(credits.refuse_command(100, 60_000_000), 52);
    }

    #[test]
    fn an_overload_that_lasts_asks_nobody_to_wait_for_more_than_a_second() {
        let mut credits = busy();
        let longest = (0..1_000_000).map(|_| credits.refuse_command(100, 1_000_000)).max();
        assert_eq!(longest, Some(1_000));
        // And it is not owed what was beyond that.
        assert_eq!(credits.refuse_command(100, 2_000_000), 52);
    }

    #[test]
    fn a_node_at_rest_answers_at_once_and_its_refused_burst_comes_again_soon() {
        let mut credits = Credits::new(0, 0);
        credits.return_command(0, 300);
        assert_eq!((0..1_000).map(|_| credits.refuse_command(1_024, 1_000)).max(), Some(50));
    }
}
