//! A run as it is seen on a terminal while it goes: for each figure its newest value, and how it has been.
//!
//! It takes a few lines below what was said before, and leaves the terminal as it is: nothing is asked of the keyboard, so Ctrl-C ends the
//! program as ever.

use std::{collections::VecDeque, fmt, io};

use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    layout::{Constraint, Layout, Position, Rect},
    style::{Style, Stylize as _},
    text::Line,
    widgets::{Paragraph, Sparkline},
};

use super::board::Second;

/// Seconds that are kept: more than a terminal is wide.
const SECONDS_MAX: usize = 512;
/// Columns of names and of values.
const NAME_COLUMNS: u16 = 14;
const VALUE_COLUMNS: u16 = 12;

/// A figure, and how a second's is found. What is not known in a second is nothing.
struct Figure {
    name: &'static str,
    unit: &'static str,
    decimals: usize,
    of: fn(&Second) -> Option<f64>,
}

const FIGURES: [Figure; 9] = [
    Figure { name: "sent", unit: "/s", decimals: 0, of: |second| Some(second.tick.sent as f64) },
    Figure { name: "acknowledged", unit: "/s", decimals: 0, of: |second| Some(second.tick.acked as f64) },
    Figure { name: "delivered", unit: "/s", decimals: 0, of: |second| Some(second.tick.delivered as f64) },
    Figure {
        name: "delivery p50",
        unit: "ms",
        decimals: 1,
        of: |second| second.delivery.percentile_ms(50.0),
    },
    Figure {
        name: "delivery p99",
        unit: "ms",
        decimals: 1,
        of: |second| second.delivery.percentile_ms(99.0),
    },
    Figure { name: "node", unit: "cores", decimals: 2, of: |second| second.cost.node_cores },
    Figure { name: "generator", unit: "cores", decimals: 2, of: |second| second.cost.generator_cores },
    Figure { name: "connected", unit: "", decimals: 0, of: |second| Some(second.tick.connected as f64) },
    Figure { name: "errors", unit: "", decimals: 0, of: |second| Some(second.tick.errors as f64) },
];

/// A line for each figure, and one above for the time.
const LINES: u16 = FIGURES.len() as u16 + 1;

/// What is drawn of a second.
type Values = [Option<f64>; FIGURES.len()];

/// The seconds of a run, the newest last.
#[derive(Default)]
struct View {
    seconds: VecDeque<(u64, Values)>,
}

impl View {
    /// A second may come again, with what other workers have seen of it.
    fn note(&mut self, number: u64, second: &Second) {
        let values = FIGURES.each_ref().map(|figure| (figure.of)(second));
        match self.seconds.iter_mut().rfind(|(known, _)| *known == number) {
            Some((_, known)) => *known = values,
            None => self.seconds.push_back((number, values)),
        }
        if self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_front();
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let rows = Layout::vertical([Constraint::Length(1); LINES as usize]).split(area);
        let newest = self.seconds.back();
        let time = newest.map_or(0, |(number, _)| number + 1);
        frame.render_widget(Line::from(format!("{time} s")).bold(), rows[0]);
        for (place, figure) in FIGURES.iter().enumerate() {
            let value = newest.and_then(|(_, values)| values[place]);
            self.draw_figure(frame, rows[place + 1], (place, figure), value);
        }
        // A cursor that is not put somewhere is hidden, and would stay so if the program were killed.
        frame.set_cursor_position(Position::new(area.x, area.bottom().saturating_sub(1)));
    }

    fn draw_figure(
        &self,
        frame: &mut Frame<'_>,
        row: Rect,
        (place, figure): (usize, &Figure),
        value: Option<f64>,
    ) {
        let columns = [
            Constraint::Length(NAME_COLUMNS),
            Constraint::Length(VALUE_COLUMNS),
            Constraint::Length(2),
            Constraint::Fill(1),
        ];
        let [name, number, _, past] = Layout::horizontal(columns).areas(row);
        frame.render_widget(Line::from(figure.name).dim(), name);
        let text = value.map_or("-".to_owned(), |value| figure.text(value));
        frame.render_widget(Paragraph::new(text).right_aligned(), number);
        // In thousandths: a bar knows whole numbers alone.
        let newest = self.seconds.iter().rev().take(usize::from(past.width)).rev();
        let bars: Vec<Option<u64>> =
            newest.map(|(_, values)| values[place].map(|value| (value * 1e3) as u64)).collect();
        frame.render_widget(Sparkline::default().data(bars), past);
    }
}

impl Figure {
    fn text(&self, value: f64) -> String {
        let Self { unit, decimals, .. } = self;
        match *unit {
            "" | "/s" => format!("{value:.decimals$}{unit}"),
            unit => format!("{value:.decimals$} {unit}"),
        }
    }
}

/// The lines on a terminal. Dropping it takes them away.
pub(super) struct Live {
    terminal: Terminal<CrosstermBackend<io::Stderr>>,
    view: View,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    /// Below what stands on the terminal of standard error.
    ///
    /// # Errors
    /// Where the terminal does not say where its cursor is.
    pub(super) fn new() -> io::Result<Self> {
        let options = TerminalOptions { viewport: Viewport::Inline(LINES) };
        let terminal = Terminal::with_options(CrosstermBackend::new(io::stderr()), options)?;
        Ok(Self { terminal, view: View::default() })
    }

    /// A line above.
    pub(super) fn say(&mut self, text: &str) {
        // What a terminal does not take is not worth the run.
        let _ = self.terminal.insert_before(1, |buffer| {
            let Rect { x, y, width, .. } = buffer.area;
            buffer.set_stringn(x, y, text, width.into(), Style::new());
        });
        self.draw();
    }

    /// What a second has been.
    pub(super) fn show(&mut self, number: u64, second: &Second) {
        self.view.note(number, second);
        self.draw();
    }

    fn draw(&mut self) {
        let view = &self.view;
        let _ = self.terminal.draw(|frame| view.draw(frame));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.terminal.clear();
        let _ = self.terminal.show_cursor();
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::{controller::Cost, link::Tick};

    fn second(delivered: u64, node_cores: Option<f64>) -> Second {
        let tick = Tick { connected: 12, sent: 100, acked: 99, delivered, errors: 0, ..Tick::default() };
        Second { tick, cost: Cost { node_cores, ..Cost::default() }, ..Second::default() }
    }

    #[test]
    fn each_figure_has_its_newest_value_and_its_past() {
        let mut view = View::default();
        view.note(0, &second(50, Some(0.5)));
        view.note(1, &second(10, Some(0.1)));
        // Another worker's part of it.
        view.note(1, &second(100, Some(0.25)));
        let mut terminal = Terminal::new(TestBackend::new(40, LINES)).expect("a buffer");
        terminal.draw(|frame| view.draw(frame)).expect("a buffer takes all");
        let lines = [
            "2 s                                     ",
            "sent                 100/s  ██          ",
            "acknowledged          99/s  ██          ",
            "delivered            100/s  ▄█          ",
            "delivery p50             -              ",
            "delivery p99             -              ",
            "node            0.25 cores  █▄          ",
            "generator                -              ",
            "connected               12  ██          ",
            "errors                   0              ",
        ];
        let shown: Vec<String> = (0..LINES)
            .map(|row| (0..40).map(|column| terminal.backend().buffer()[(column, row)].symbol()).collect())
            .collect();
        assert_eq!(shown, lines);
    }

    #[test]
    fn a_long_run_is_not_kept_whole() {
        let mut view = View::default();
        (0..2 * SECONDS_MAX as u64).for_each(|number| view.note(number, &second(1, None)));
        assert_eq!(view.seconds.len(), SECONDS_MAX);
        assert_eq!(view.seconds.back().map(|(number, _)| *number), Some(2 * SECONDS_MAX as u64 - 1));
    }
}
