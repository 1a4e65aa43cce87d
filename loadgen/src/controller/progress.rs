//! How a run goes, while it goes: one line that is rewritten on a terminal, plain lines otherwise.

use std::io::{IsTerminal, Write, stderr};

use super::board::Second;

/// Plain lines are for logs: not every second.
const PLAIN_EVERY_SECONDS: u64 = 5;

pub(crate) struct Progress {
    is_terminal: bool,
    /// Workers whose tick of the newest second is still to come would make it flicker.
    workers: u32,
    ticks: u32,
}

impl Progress {
    pub(super) fn new(workers: u32) -> Self {
        Self { is_terminal: stderr().is_terminal(), workers, ticks: 0 }
    }

    /// A step of the run.
    pub(super) fn say(&self, text: &str) {
        let mut output = stderr().lock();
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        let _ = writeln!(output, "{clear}loadgen: {text}");
    }

    pub(super) fn show(&mut self, number: u64, second: &Second) {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(self.workers) {
            return;
        }
        if !self.is_terminal && !(number + 1).is_multiple_of(PLAIN_EVERY_SECONDS) {
            return;
        }
        let tick = &second.tick;
        let at = |percentile| second.delivery.percentile_ms(percentile).unwrap_or_default();
        let line = format!(
            "{:>4} s  sent {:>6}/s  acked {:>6}/s  delivered {:>6}/s  p50 {:.1} ms  p99 {:.1} ms  \
             connected {}  errors {}",
            number + 1,
            tick.sent,
            tick.acked,
            tick.delivered,
            at(50.0),
            at(99.0),
            tick.connected,
            tick.errors
        );
        let mut output = stderr().lock();
        let _ = if self.is_terminal {
            write!(output, "\r\x1b[K{line}").and_then(|()| output.flush())
        } else {
            writeln!(output, "{line}")
        };
    }
}
