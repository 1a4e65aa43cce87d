//! How a run goes, while it goes: a view of the seconds on a terminal, plain lines otherwise.

use std::io::{IsTerminal, Write, stderr};

use super::{board::Second, live::Live};

/// Plain lines are for logs: not every second.
const PLAIN_EVERY_SECONDS: u64 = 5;

pub(crate) struct Progress {
    screen: Screen,
    /// Workers whose tick of the newest second is still to come would make it flicker.
    workers: u32,
    ticks: u32,
}

enum Screen {
    /// A terminal on which nothing was shown yet.
    Blank,
    Live(Box<Live>),
    Plain,
}

impl Progress {
    pub(super) fn new(workers: u32) -> Self {
        let screen = if stderr().is_terminal() { Screen::Blank } else { Screen::Plain };
        Self { screen, workers, ticks: 0 }
    }

    /// A step of the run.
    pub(super) fn say(&mut self, text: &str) {
        match &mut self.screen {
            Screen::Live(live) => live.say(&format!("loadgen: {text}")),
            Screen::Blank | Screen::Plain => {
                let _ = writeln!(stderr().lock(), "loadgen: {text}");
            }
        }
    }

    /// Takes away what is shown while a run goes: what follows stands in its place.
    pub(super) fn end(&mut self) {
        self.screen = Screen::Plain;
    }

    pub(super) fn show(&mut self, number: u64, second: &Second) {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(self.workers) {
            return;
        }
        if matches!(self.screen, Screen::Blank) {
            // A terminal that cannot be asked is written to as a file is.
            self.screen = Live::new().map_or(Screen::Plain, |live| Screen::Live(Box::new(live)));
        }
        match &mut self.screen {
            Screen::Live(live) => live.show(number, second),
            Screen::Plain if (number + 1).is_multiple_of(PLAIN_EVERY_SECONDS) => show_plain(number, second),
            Screen::Blank | Screen::Plain => {}
        }
    }
}

fn show_plain(number: u64, second: &Second) {
    let tick = &second.tick;
    let at = |percentile| second.delivery.percentile_ms(percentile).unwrap_or_default();
    let _ = writeln!(
        stderr().lock(),
        "{:>4} s  sent {:>6}/s  acked {:>6}/s  delivered {:>6}/s  p50 {:.1} ms  p99 {:.1} ms  connected {}  errors {}",
        number + 1,
        tick.sent,
        tick.acked,
        tick.delivered,
        at(50.0),
        at(99.0),
        tick.connected,
        tick.errors
    );
}
