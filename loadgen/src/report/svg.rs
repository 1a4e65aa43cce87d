//! Charts as SVG text: lines over a frame with ticks. Colours are classes, so that the page decides.
//!
//! Every point carries a title, which browsers show under the pointer and screen readers read.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;
/// Ticks of a linear axis, about.
const TICKS: f64 = 5.0;
/// Points that are drawn as dots; more would only be a thicker line.
const DOTS_MAX: usize = 120;

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Axis {
    Linear { first: f64, last: f64 },
    Logarithmic { first: f64, last: f64 },
}

impl Axis {
    /// From nothing to the largest of `values`.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Self {
        Self::Linear { first: 0.0, last: values.fold(1.0, f64::max) }
    }

    /// Whole powers of ten around all of `values`.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| *value > 0.0);
        let (least, most) = positive
            .fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| (value.min(least), value.max(most)));
        if least > most {
            return Self::Logarithmic { first: 1.0, last: 10.0 };
        }
        let first = 10_f64.powf(least.log10().floor());
        let last = 10_f64.powf(most.log10().ceil()).max(first * 10.0);
        Self::Logarithmic { first, last }
    }

    /// 0 at the first value, 1 at the last.
    fn place(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { first, last } => (value - first) / (last - first),
            Self::Logarithmic { first, last } => {
                (value.max(first).log10() - first.log10()) / (last.log10() - first.log10())
            }
        };
        share.clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { first, last } => {
                let rough = (last - first) / TICKS;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
                let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                let count = ((last - first) / step).floor() as u32;
                (0..=count).map(|number| first + f64::from(number) * step).collect()
            }
            Self::Logarithmic { first, last } => {
                let powers = first.log10().round() as i32..=last.log10().round() as i32;
                powers.map(|power| 10_f64.powi(power)).collect()
            }
        }
    }
}

/// A chart under construction.
pub(super) struct Chart {
    x: Axis,
    y: Axis,
    body: String,
}

impl Chart {
    /// An empty frame. `label` says what it shows, for those who cannot see it.
    pub(super) fn new(label: &str, x: Axis, y: Axis) -> Self {
        let body = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">"#);
        Self { x, y, body }
    }

    fn left(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn top(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// A span of the x axis that is different.
    pub(super) fn band(&mut self, from: f64, until: f64, title: &str) {
        let (left, right) = (self.left(from), self.left(until));
        let (width, height) = ((right - left).max(1.0), HEIGHT - TOP - BOTTOM);
        let _ = write!(
            self.body,
            r#"<rect class="band" x="{left:.1}" y="{TOP}" width="{width:.1}" height="{height:.1}"><title>{title}</title></rect>"#
        );
    }

    /// A value that must not be passed.
    pub(super) fn limit(&mut self, value: f64, title: &str) {
        let (top, right) = (self.top(value), WIDTH - RIGHT);
        let _ = write!(
            self.body,
            r#"<line class="limit" x1="{LEFT}" y1="{top:.1}" x2="{right}" y2="{top:.1}"><title>{title}</title></line>"#
        );
    }

    /// Ticks with their words along the y axis.
    pub(super) fn y_ticks(&mut self, unit: &str) {
        for value in self.y.ticks() {
            let (top, right, text) = (self.top(value), WIDTH - RIGHT, LEFT - 6.0);
            let _ = write!(
                self.body,
                r#"<line class="grid" x1="{LEFT}" y1="{top:.1}" x2="{right}" y2="{top:.1}"/><text x="{text}" y="{:.1}" text-anchor="end">{}{unit}</text>"#,
                top + 4.0,
                short(value)
            );
        }
    }

    /// Ticks along the x axis where and as the caller says; those beyond its ends are left out.
    pub(super) fn x_ticks(&mut self, ticks: &[(f64, String)]) {
        let (Axis::Linear { last, .. } | Axis::Logarithmic { last, .. }) = self.x;
        for (value, text) in ticks.iter().filter(|(value, _)| *value <= last) {
            let (left, bottom) = (self.left(*value), HEIGHT - BOTTOM + 16.0);
            let _ =
                write!(self.body, r#"<text x="{left:.1}" y="{bottom}" text-anchor="middle">{text}</text>"#);
        }
    }

    /// Round numbers along the x axis.
    pub(super) fn x_numbers(&mut self, unit: &str) {
        let ticks: Vec<_> =
            self.x.ticks().into_iter().map(|value| (value, format!("{}{unit}", short(value)))).collect();
        self.x_ticks(&ticks);
    }

    /// A line of points, each with its title. A point without a value interrupts it.
    pub(super) fn line(&mut self, class: &str, points: &[(f64, Option<f64>, String)]) {
        let mut path = String::new();
        let mut is_drawing = false;
        for (x, y, _) in points {
            let Some(y) = y else {
                is_drawing = false;
                continue;
            };
            let command = if is_drawing { 'L' } else { 'M' };
            is_drawing = true;
            let _ = write!(path, "{command}{:.1} {:.1}", self.left(*x), self.top(*y));
        }
        let _ = write!(self.body, r#"<path class="{class}" d="{path}"/>"#);
        let step = points.len().div_ceil(DOTS_MAX).max(1);
        for (x, y, title) in points.iter().step_by(step) {
            let Some(y) = y else { continue };
            let (left, top) = (self.left(*x), self.top(*y));
            let _ = write!(
                self.body,
                r#"<circle class="{class}" cx="{left:.1}" cy="{top:.1}" r="2.2"><title>{title}</title></circle>"#
            );
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.body.push_str("</svg>");
        self.body
    }
}

/// Few digits, no noise.
fn short(value: f64) -> String {
    if value >= 1000.0 && value % 100.0 == 0.0 {
        format!("{}k", value / 1000.0)
    } else {
        // What adding steps left behind goes away in rounding.
        format!("{}", (value * 1000.0).round() / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_and_tick_at_round_numbers() {
        let linear = Axis::linear([3.0, 47.0].into_iter());
        assert_eq!(linear.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!((linear.place(0.0), linear.place(47.0)), (0.0, 1.0));
        let logarithmic = Axis::logarithmic([0.0, 0.4, 90.0].into_iter());
        assert_eq!(logarithmic, Axis::Logarithmic { first: 0.1, last: 100.0 });
        assert!((logarithmic.place(1.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(Axis::logarithmic(std::iter::empty()), Axis::Logarithmic { first: 1.0, last: 10.0 });
    }

    #[test]
    fn a_missing_value_interrupts_the_line() {
        let mut chart = Chart::new("x", Axis::linear([2.0].into_iter()), Axis::linear([1.0].into_iter()));
        let points = [Some(1.0), None, Some(0.5)].into_iter().zip(0..3);
        let points: Vec<_> = points.map(|(y, x)| (f64::from(x), y, String::new())).collect();
        chart.line("one", &points);
        let svg = chart.finish();
        assert_eq!((svg.matches('M').count(), svg.matches("<circle").count()), (2, 2));
    }
}
