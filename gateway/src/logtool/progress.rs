//! How far a long command is, on standard error: one line that is written over on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);

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
        let (done, total) = (self.bytes >> 20, self.total >> 20);
        let percent = self.bytes.saturating_mul(100).checked_div(self.total).unwrap_or(100).min(100);
        let line = format!("{}: {done} of {total} MiB, {percent} %", self.what);
        // Nobody who cannot be told is worth a failure.
        let _ =
            if self.is_terminal { write!(stderr(), "\r{line}\x1b[K") } else { writeln!(stderr(), "{line}") };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
