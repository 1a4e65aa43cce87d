//! What a process and a thread have taken of cores.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::time::Duration;

/// What the kernel counts the time of a process in, on every machine this runs on.
const TICK: Duration = Duration::from_millis(10);

/// How far two readings in ticks may be off: user and system time are each cut to a tick, in both.
const TICKS_OFF: Duration = TICK.saturating_mul(2);

/// What a process has taken, read in two ways that each miss something.
#[derive(Clone, Default, Debug)]
pub struct Taken {
    /// All of it, to a tick: its ended threads too (the kernel's workers come and go).
    ticks: Duration,
    /// That of the threads that are there, to the nanosecond.
    threads: BTreeMap<OsString, Duration>,
}

impl Taken {
    /// What the process `id` has taken until now: user and system time in `/proc/PID/stat` (proc(5)), fields 14 and 15, and
    /// the `schedstat` of its threads.
    ///
    /// # Errors
    /// When it has ended.
    pub fn of(id: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name before them may hold spaces and brackets.
        let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0));
        let ticks = TICK * ticks.sum();
        let mut threads = BTreeMap::new();
        for thread in fs::read_dir(format!("/proc/{id}/task"))? {
            let thread = thread?;
            // One that ends meanwhile is in the ticks.
            if let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) {
                threads.insert(thread.file_name(), cpu_of(&text));
            }
        }
        Ok(Self { ticks, threads })
    }

    /// What it took since `before`. To the nanosecond, unless threads that have ended took more than the ticks may be off by.
    #[must_use]
    pub fn since(&self, before: &Self) -> Duration {
        let of_thread = |(thread, taken): (&OsString, &Duration)| {
            taken.saturating_sub(before.threads.get(thread).copied().unwrap_or_default())
        };
        let threads: Duration = self.threads.iter().map(of_thread).sum();
        let ticks = self.ticks.saturating_sub(before.ticks);
        if ticks > threads + TICKS_OFF { ticks } else { threads }
    }
}

/// What the calling thread has taken of cores.
///
/// # Errors
/// When the kernel does not count it.
pub fn cpu_of_this_thread() -> io::Result<Duration> {
    fs::read_to_string("/proc/thread-self/schedstat").map(|text| cpu_of(&text))
}

/// The first number of a `schedstat`: nanoseconds on a core.
fn cpu_of(schedstat: &str) -> Duration {
    let nanos = schedstat.split_whitespace().next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_threads_took_shows_in_the_ticks() {
        let taken = |ticks, threads: &[(&str, u64)]| Taken {
            ticks: Duration::from_millis(ticks),
            threads: threads
                .iter()
                .map(|(id, millis)| ((*id).into(), Duration::from_millis(*millis)))
                .collect(),
        };
        let before = taken(100, &[("1", 70), ("2", 33)]);
        let check = |after: Taken, millis| assert_eq!(after.since(&before), Duration::from_millis(millis));
        // A new thread counts whole; the ticks are off by what was cut from them.
        check(taken(110, &[("1", 73), ("2", 33), ("3", 5)]), 8);
        check(taken(120, &[("1", 71), ("2", 33)]), 1);
        // Thread 2 went on for 50 ms before it ended.
        check(taken(150, &[("1", 73)]), 50);
    }
}
