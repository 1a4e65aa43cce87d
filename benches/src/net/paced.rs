//! An open loop: what is sent is sent when it is due, whatever has become of what was sent before.
//!
//! The client sleeps between two messages, so it wakes up late, and how late is part of the result. It has a core of its own,
//! where there is one: what shares the server's core would put off the server by what it takes itself.

use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Crowd, Party};

/// When an answer is taken, counted from its message. Before, it would have to be looked for; each is read once this way.
const TAKEN_AFTER: Duration = Duration::from_millis(20);

/// How long the last answers may take: a server that does not keep up at all is an error and no figure.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How often the last answers are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Messages of all parties together.
    pub a_second: f64,
    /// From the call until the first message.
    pub delay: Duration,
    /// From the first message until the last one.
    pub time: Duration,
}

/// How well the client kept to it.
#[derive(Clone, Default, Debug)]
pub struct Kept {
    /// Messages sent, and answered.
    pub count: u64,
    /// Those that were sent before the answer to the party's one before had come.
    pub behind: u64,
    /// How long after they were due they were sent.
    late: Vec<Duration>,
}

impl Kept {
    /// More of the same.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.behind += other.behind;
        self.late.extend_from_slice(&other.late);
    }

    /// How late it was, and how often the server was.
    #[must_use]
    pub fn in_words(&self) -> String {
        let [middle, most, all] = [50, 99, 100].map(|percent| self.late_micros(percent));
        let behind = self.behind;
        let late = format!("late by {middle:.0} us at p50, {most:.0} at p99, {all:.0} at most");
        format!("{late}; of {} messages {behind} were sent before the answer to the one before", self.count)
    }

    /// How late so many of a hundred were at most, in microseconds.
    #[must_use]
    pub fn late_micros(&self, percent: usize) -> f64 {
        let mut sorted = self.late.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).map_or(0.0, |late| late.as_secs_f64() * 1e6)
    }
}

impl<P: Party> Crowd<P> {
    /// Parties send one after the other, from the one behind the last one on; all is answered when this returns.
    ///
    /// # Errors
    /// When a connection fails, or an answer does not come.
    pub fn keep_pace(&mut self, pace: &Pace) -> io::Result<Kept> {
        let mut kept = Kept::default();
        let start = Instant::now() + pace.delay;
        let mut under_way = VecDeque::new();
        for number in 0..(pace.time.as_secs_f64() * pace.a_second) as u64 {
            let due = start + Duration::from_secs_f64(number as f64 / pace.a_second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.take_answers(&mut under_way)?;
            let place = self.next;
            self.next = (place + 1) % self.parties.len();
            let party = &mut self.parties[place];
            if party.is_waiting() && !party.read()? {
                kept.behind += 1;
            }
            party.send()?;
            let sent = Instant::now();
            kept.late.push(sent - due);
            under_way.push_back((place, sent));
        }
        kept.count = kept.late.len() as u64;
        thread::sleep((start + pace.time).saturating_duration_since(Instant::now()));
        let deadline = Instant::now() + DRAIN_MAX;
        for (place, _) in under_way {
            let party = &mut self.parties[place];
            while party.is_waiting() && !party.read()? {
                if Instant::now() > deadline {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "a message was not answered"));
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(kept)
    }

    /// Reads what was sent some time ago. Whose answer is not there yet is asked again when it is to send.
    fn take_answers(&mut self, under_way: &mut VecDeque<(usize, Instant)>) -> io::Result<()> {
        while let Some((place, sent)) = under_way.front()
            && sent.elapsed() >= TAKEN_AFTER
        {
            let party = &mut self.parties[*place];
            if party.is_waiting() {
                party.read()?;
            }
            under_way.pop_front();
        }
        Ok(())
    }
}
