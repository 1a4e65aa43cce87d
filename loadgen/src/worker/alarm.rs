//! A timer for what a run is measured by.
//!
//! The runtime's own timers count in whole milliseconds and round up twice: what is due waits one of them at p50, and two at p99. Latency
//! counts from when a message is due, so that wait would be told as the node's. A timerfd expires by the kernel's high-resolution clock
//! (timerfd_create(2)), and is read through the worker's ring as a socket is, so nothing else of the worker waits meanwhile.

use std::{fs, io, os::fd::OwnedFd};

use monoio::fs::File;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::Moment;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// One timer, of one task.
pub(super) struct Alarm {
    timer: OwnedFd,
    /// The same one, as the runtime reads it.
    expired: File,
}

impl Alarm {
    /// # Errors
    /// When this process may have no more files.
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let expired = File::from_std(fs::File::from(timer.try_clone()?))?;
        Ok(Self { timer, expired })
    }

    /// Waits until `moment`. What is over comes after one turn of the worker's loop, or a schedule that is behind would let no socket in.
    ///
    /// # Panics
    /// When the kernel refuses to set the timer or to read it, which it does only for arguments that are not made here.
    pub(super) async fn wait_until(&mut self, moment: Moment) {
        // A time of zero would stop the timer.
        let nanos = moment.0.max(1);
        let at =
            Timespec { tv_sec: (nanos / NANOS_PER_SECOND) as _, tv_nsec: (nanos % NANOS_PER_SECOND) as _ };
        let value = Itimerspec { it_interval: NEVER, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value).expect("a valid time");
        let (read, _) = self.expired.read_at(Box::new([0_u8; 8]), 0).await;
        read.expect("a timer that is set expires");
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc, time::Duration};

    use super::*;
    use crate::runtime::{Completions, start};

    const ENTRIES: u32 = 8;

    #[test]
    fn nothing_is_sent_before_it_is_due() {
        start(ENTRIES, Completions::Deferred).expect("a ring").block_on(async {
            let mut alarm = Alarm::new().expect("a timer");
            let begin = Moment::now();
            for micros in [0, 1, 300, 999, 1000, 1001, 2500] {
                let due = begin.after(Duration::from_micros(micros));
                alarm.wait_until(due).await;
                assert!(Moment::now() >= due, "due {micros} us after the start");
            }
        });
    }

    /// A worker that cannot keep its rate would read no socket any more, and its own lateness would be told as the node's silence.
    #[test]
    fn a_schedule_that_is_behind_lets_others_go_on() {
        start(ENTRIES, Completions::Deferred).expect("a ring").block_on(async {
            let mut alarm = Alarm::new().expect("a timer");
            let turns = Rc::new(Cell::new(0));
            let other = turns.clone();
            monoio::spawn(async move {
                let mut alarm = Alarm::new().expect("a timer");
                loop {
                    alarm.wait_until(Moment(0)).await;
                    other.set(other.get() + 1);
                }
            });
            for _ in 0..100 {
                alarm.wait_until(Moment(0)).await;
            }
            assert_ne!(turns.get(), 0);
        });
    }
}
