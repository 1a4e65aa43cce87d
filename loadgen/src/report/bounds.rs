//! What idle users, a storm and slow readers can be asked to keep: figures of their reports by name, as on the command line.
//!
//! Invariant: what nobody has named decides nothing here; what was named and not measured is not kept.

use std::{collections::BTreeMap, fmt};

use anyhow::bail;
use serde::Serialize;

use super::limits::{RANKS, Rank};
use crate::latency::Summary;

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    AtLeast,
    Below,
}

/// Something that is measured, and can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// Of one that is known by its percentiles, without them.
    name: &'static str,
    side: Side,
    /// It has percentiles, each with a name of its own, in milliseconds.
    is_ranked: bool,
    /// It is of the node's process.
    is_of_node: bool,
}

impl Figure {
    const fn below(name: &'static str) -> Self {
        Self { name, side: Side::Below, is_ranked: false, is_of_node: false }
    }

    const fn at_least(name: &'static str) -> Self {
        Self { side: Side::AtLeast, ..Self::below(name) }
    }

    const fn of_node(name: &'static str) -> Self {
        Self { is_of_node: true, ..Self::below(name) }
    }

    const fn ranked(name: &'static str) -> Self {
        Self { is_ranked: true, ..Self::below(name) }
    }
}

/// RSS a connection; of the node behind the last round, what it has more than before the first; from ping to pong.
const IDLE: &[Figure] =
    &[Figure::of_node("rss_kib"), Figure::of_node("growth_percent"), Figure::ranked("pong")];
/// Users let in; from the order to come back until all have caught up; RSS at most, as a multiple of what it takes to hold all; of the others, in
/// each part.
const STORM: &[Figure] = &[
    Figure::at_least("connects_per_second"),
    Figure::below("return_seconds"),
    Figure::of_node("rss_times"),
    Figure::ranked("delivery"),
];
/// RSS of a reader that falls behind; p99 of the others in each part, as a multiple of that alone; the same in milliseconds.
const SLOW: &[Figure] =
    &[Figure::of_node("reader_kib"), Figure::below("delivery_times"), Figure::ranked("delivery")];

/// One that was named, and the number that it is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
    figure: Figure,
    rank: Option<(&'static str, Rank)>,
    number: f64,
}

impl Bound {
    /// `rss_kib=2`, of `loadgen idle`.
    pub(crate) fn of_idle(text: &str) -> Result<Self, String> {
        Self::of(IDLE, text)
    }

    /// `connects_per_second=8000`, of `loadgen storm`.
    pub(crate) fn of_storm(text: &str) -> Result<Self, String> {
        Self::of(STORM, text)
    }

    /// `reader_kib=64`, of `loadgen slow`.
    pub(crate) fn of_slow(text: &str) -> Result<Self, String> {
        Self::of(SLOW, text)
    }

    fn of(figures: &[Figure], text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once('=').ok_or("a limit is NAME=NUMBER, as in delivery.p99=50")?;
        let (base, rank) = match name.split_once('.') {
            Some((base, rank)) => (base, RANKS.into_iter().find(|(name, _)| *name == rank)),
            None => (name, None),
        };
        let is_it = |figure: &&Figure| {
            figure.name == base && figure.is_ranked == rank.is_some() && rank.is_some() == name.contains('.')
        };
        let figure = *figures.iter().find(is_it).ok_or_else(|| unknown(name, figures))?;
        let number = number.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
        let number = number.ok_or_else(|| format!("{name}: a limit is a number above 0"))?;
        Ok(Self { figure, rank, number })
    }

    fn name(&self) -> String {
        let Self { figure: Figure { name, .. }, rank, .. } = self;
        rank.map_or_else(|| (*name).to_owned(), |(rank, _)| format!("{name}.{rank}"))
    }

    fn is_kept_by(&self, measured: f64) -> bool {
        match self.figure.side {
            Side::AtLeast => measured >= self.number,
            Side::Below => measured < self.number,
        }
    }
}

fn unknown(name: &str, figures: &[Figure]) -> String {
    let ranks = RANKS.map(|(name, _)| name).join(", ");
    let names = figures.iter().map(|Figure { name, is_ranked, .. }| match is_ranked {
        true => format!("{name} with one of {ranks}, as in {name}.p99"),
        false => (*name).to_owned(),
    });
    format!("{name}: a limit is for {}", names.collect::<Vec<_>>().join(", or "))
}

/// A figure as it was measured, and where: of a round, or in a part; empty where there is only one.
pub(super) type Measured<T> = Vec<(String, T)>;

/// What was measured of a figure: numbers, or distributions where it has percentiles.
pub(super) enum Found {
    Numbers(Measured<f64>),
    Times(Measured<Summary>),
}

impl Found {
    /// One number, where it is known.
    pub(super) fn one(number: Option<f64>) -> Self {
        Self::Numbers(number.map(|number| (String::new(), number)).into_iter().collect())
    }
}

/// All that were named, by name; the last number of each counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Bounds(BTreeMap<String, Bound>);

impl Bounds {
    pub(crate) fn new(said: &[Bound]) -> Self {
        Self(said.iter().map(|bound| (bound.name(), *bound)).collect())
    }

    /// Whether somebody has named it: then it takes the place of what is asked for anyway.
    pub(super) fn names(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// To find out after a run that its limits could not be measured would cost the run.
    ///
    /// # Errors
    /// In words: which cannot.
    pub(crate) fn check(&self, process: Option<u32>) -> anyhow::Result<()> {
        match self.0.values().find(|bound| bound.figure.is_of_node && process.is_none()) {
            Some(bound) => bail!("--limit {}: the node is measured by its --pid", bound.name()),
            None => Ok(()),
        }
    }

    /// What is not as it was asked. `measured` is told the name of a figure, without its percentile.
    pub(super) fn missed(&self, measured: impl Fn(&str) -> Found) -> Vec<String> {
        let mut missed = Vec::new();
        for (name, bound) in &self.0 {
            let found = match (measured(bound.figure.name), bound.rank) {
                (Found::Numbers(numbers), None) => numbers,
                (Found::Times(times), Some((_, rank))) => {
                    let times = times.into_iter().filter(|(_, summary)| summary.count > 0);
                    times.map(|(place, summary)| (place, rank.of(&summary))).collect()
                }
                _ => unreachable!("a figure has percentiles or none"),
            };
            if found.is_empty() {
                missed.push(format!("{name}: nothing was measured"));
            }
            let unit = if bound.rank.is_some() { " ms" } else { "" };
            let side = if bound.figure.side == Side::Below { "below" } else { "at least" };
            missed.extend(found.into_iter().filter(|(_, number)| !bound.is_kept_by(*number)).map(
                |(place, number)| {
                    format!("{name} {number:.2}{unit}{place}, {side} {}{unit} is asked", bound.number)
                },
            ));
        }
        missed
    }
}

impl Serialize for Bounds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, bound)| (name, bound.number)))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parse = fn(&str) -> Result<Bound, String>;

    fn bounds(of: Parse, said: &[&str]) -> Bounds {
        Bounds::new(&said.iter().map(|text| of(text).expect(text)).collect::<Vec<_>>())
    }

    #[test]
    fn each_command_has_names_of_its_own() {
        let idle = ["rss_kib=2", "growth_percent=5.5", "pong.p50=1", "pong.p99.9=7", "pong.max=9"];
        let storm = ["connects_per_second=8000", "return_seconds=60", "rss_times=1.5", "delivery.p99=50"];
        let slow = ["reader_kib=64", "delivery_times=3", "delivery.max=200"];
        let of: [Parse; 3] = [Bound::of_idle, Bound::of_storm, Bound::of_slow];
        for (place, names) in [&idle[..], &storm, &slow].into_iter().enumerate() {
            for name in names {
                assert_eq!(of[place](name).expect(name).to_string(), *name);
            }
        }
        for wrong in
            ["rss_kib", "rss_kib=", "rss_kib=0", "rss_kib=-1", "rss_kib=NaN", "rss_kib=inf", "pong=5"]
        {
            assert!(Bound::of_idle(wrong).is_err(), "{wrong}");
        }
        for wrong in ["rss_kib.p99=5", "rss_kib.=5", "pong.=5", "pong.p98=5", "reader_kib=64", "=5", ".p99=5"]
        {
            assert!(Bound::of_idle(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            Bound::of_slow("rss_kib=5"),
            Err("rss_kib: a limit is for reader_kib, or delivery_times, or delivery with one of p50, p90, p99, \
                 p99.9, max, as in delivery.p99"
                .to_owned())
        );
    }

    #[test]
    fn what_is_not_as_asked_is_told_with_where_it_was() {
        let bounds = bounds(Bound::of_storm, &["connects_per_second=100", "delivery.p99=50", "rss_times=2"]);
        let missed = |connects, times: f64, p99_ms| {
            bounds.missed(|name| match name {
                "connects_per_second" => Found::one(Some(connects)),
                "rss_times" => Found::one(Some(times)),
                _ => Found::Times(vec![
                    (" in `drop`".to_owned(), Summary { count: 1, p99_ms: 49.0, ..Summary::default() }),
                    (" in `close`".to_owned(), Summary { count: 1, p99_ms, ..Summary::default() }),
                ]),
            })
        };
        assert_eq!(missed(100.0, 1.99, 49.99), [""; 0]);
        assert_eq!(
            missed(99.5, 2.0, 50.0),
            [
                "connects_per_second 99.50, at least 100 is asked",
                "delivery.p99 50.00 ms in `close`, below 50 ms is asked",
                "rss_times 2.00, below 2 is asked"
            ]
        );
    }

    #[test]
    fn what_was_named_and_not_measured_is_not_kept_and_the_last_number_counts() {
        let bounds = bounds(Bound::of_idle, &["rss_kib=1", "pong.p99=5", "rss_kib=3"]);
        let missed = bounds.missed(|name| match name {
            "rss_kib" => Found::one(None),
            _ => Found::Times(vec![(String::new(), Summary::default())]),
        });
        assert_eq!(missed, ["pong.p99: nothing was measured", "rss_kib: nothing was measured"]);
        let asked = serde_json::to_value(&bounds).expect("JSON");
        assert_eq!(asked, serde_json::json!({"pong.p99": 5.0, "rss_kib": 3.0}));
        let refused = bounds.check(None).expect_err("it cannot be measured").to_string();
        assert_eq!(refused, "--limit rss_kib: the node is measured by its --pid");
        assert!(bounds.check(Some(1)).is_ok());
        assert!(Bounds::default().missed(|_| Found::one(None)).is_empty());
    }
}
