//! How far a long command is, on standard error: a bar that is written over on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Characters of the bar: with what stands around it, it fits a terminal of 80.
const BAR_CHARS: u64 = 24;

/// Of one piece of work.
pub(super) struct Progress {
    what: String,
    bytes: u64,
    total: u64,
    is_terminal: bool,
    said: Option<Instant>,
}

impl Progress {
    /// `what` is to be done with `total` bytes.
    pub(super) fn new(what: String, total: u64) -> Self {
        Self { what, bytes: 0, total, is_terminal: stderr().is_terminal(), said: None }
    }

    /// So many more are done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        let every = if self.is_terminal { ON_TERMINAL } else { ELSEWHERE };
        if self.said.is_none_or(|said| said.elapsed() >= every) {
            self.said = Some(Instant::now());
            self.say();
        }
    }

    fn say(&self) {
        let line = self.line();
        // Nobody who cannot be told is worth a failure.
        let _ =
            if self.is_terminal { write!(stderr(), "\r{line}\x1b[K") } else { writeln!(stderr(), "{line}") };
    }
}

impl Progress {
    fn line(&self) -> String {
        let (what, done, total) = (&self.what, self.bytes >> 20, self.total >> 20);
        let percent = self.bytes.saturating_mul(100).checked_div(self.total).unwrap_or(100).min(100);
        if !self.is_terminal {
            return format!("{what}: {done} of {total} MiB, {percent} %");
        }
        let full = (BAR_CHARS * percent / 100) as usize;
        let (full, empty) = ("#".repeat(full), ".".repeat(BAR_CHARS as usize - full));
        format!("{what} [{full}{empty}] {percent} %, {done} of {total} MiB")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_from_left_to_right_and_elsewhere_it_is_a_plain_line() {
        let at = |is_terminal, mib: u64, total: u64| {
            let what = "log 3: 400 segments".to_owned();
            Progress { what, bytes: mib << 20, total: total << 20, is_terminal, said: None }.line()
        };
        for (mib, total, line) in [
            (0, 102_400, "log 3: 400 segments [........................] 0 %, 0 of 102400 MiB"),
            (51_200, 102_400, "log 3: 400 segments [############............] 50 %, 51200 of 102400 MiB"),
            (102_399, 102_400, "log 3: 400 segments [#######################.] 99 %, 102399 of 102400 MiB"),
            (102_400, 102_400, "log 3: 400 segments [########################] 100 %, 102400 of 102400 MiB"),
            // What grows while it is read.
            (3, 2, "log 3: 400 segments [########################] 100 %, 3 of 2 MiB"),
            (0, 0, "log 3: 400 segments [########################] 100 %, 0 of 0 MiB"),
        ] {
            assert_eq!(at(true, mib, total), line);
            assert!(line.len() < 80, "{line}");
        }
        assert_eq!(at(false, 1, 4), "log 3: 400 segments: 1 of 4 MiB, 25 %");
    }
}
