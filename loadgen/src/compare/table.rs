//! What came of a comparison: each server's rounds, and how many times the others the first one is.

use std::{fmt, fs, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use super::{CompareFlags, Round};
use crate::report::{Floor, Multiples, Origin, write_floor};

/// One server's line.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    place: String,
    keeps: &'static str,
    stores: bool,
    sends: u32,
    rounds: Vec<Round>,
}

impl Line {
    /// A round beside the bare machine. Who stores nothing waits for no disk.
    fn beside(&self, label: &str, round: &Round, floor: &Floor) -> Multiples {
        let mut multiples = Multiples::default();
        if self.stores {
            multiples.latency(label, round.through, floor);
        }
        if let Some(micros) = round.cpu_micros {
            multiples.exchange(&format!("{label} CPU"), micros, self.sends, floor);
        }
        multiples
    }
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    #[serde(flatten)]
    origin: Origin,
    pairs: u32,
    payload: usize,
    seconds: u32,
    lines: Vec<Line>,
    /// Of what the bare machine can do, the medians of the rounds, where both are known.
    multiples: Option<Multiples>,
    #[serde(skip)]
    floor: Option<Floor>,
}

/// Median, least and most.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), least, most })
    }
}

/// A figure of a round.
type Figure = fn(&Round) -> Option<f64>;

const FIGURES: [(&str, Figure); 4] = [
    ("messages/s", |round| Some(round.per_second)),
    ("p50 ms", |round| Some(round.through.p50_ms)),
    ("p99 ms", |round| Some(round.through.p99_ms)),
    ("CPU us each", |round| round.cpu_micros),
];

impl Table {
    pub(super) fn new(flags: &CompareFlags, floor: Option<Floor>) -> Self {
        let line = |contender: &super::Contender| Line {
            name: contender.name(),
            place: contender.place.clone(),
            keeps: contender.keeps(),
            stores: contender.stores(),
            sends: contender.sends(),
            rounds: Vec::new(),
        };
        Self {
            origin: Origin::this(),
            pairs: flags.pairs,
            payload: flags.payload,
            seconds: flags.seconds,
            lines: flags.contenders.iter().map(line).collect(),
            multiples: None,
            floor,
        }
    }

    pub(super) fn add(&mut self, place: usize, round: Round) {
        self.lines[place].rounds.push(round);
        self.multiples = self.floor.as_ref().map(|floor| self.beside(floor));
    }

    /// Everybody beside the bare machine.
    fn beside(&self, floor: &Floor) -> Multiples {
        let rounds = self.lines.iter().enumerate().flat_map(|(place, line)| {
            let is_alone = self.lines.iter().filter(|other| other.name == line.name).count() == 1;
            let label = if is_alone { line.name.to_owned() } else { format!("{} {}", line.name, place + 1) };
            line.rounds.iter().map(move |round| line.beside(&label, round, floor))
        });
        Multiples::median(rounds.collect::<Vec<_>>().iter())
    }

    /// As JSON.
    pub(super) fn write(&self, json: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = json else { return Ok(()) };
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(path, text).with_context(|| format!("{} could not be written", path.display()))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} pairs, one message of {} bytes under way in each, rounds of {} s in turn; median (least to most)",
            self.pairs, self.payload, self.seconds
        )?;
        write!(f, "\n{:<24}", "")?;
        FIGURES.iter().try_for_each(|(name, _)| write!(f, "{name:>28}"))?;
        writeln!(f)?;
        for line in &self.lines {
            write!(f, "{:<24}", format!("{} {}", line.name, line.place))?;
            for (_, figure) in FIGURES {
                let text = Spread::of(line.rounds.iter().filter_map(figure)).map(absolute);
                write!(f, "{:>28}", text.unwrap_or_else(|| "-".to_owned()))?;
            }
            writeln!(f, "   {}", line.keeps)?;
        }
        let Some((first, others)) = self.lines.split_first() else { return Ok(()) };
        writeln!(f)?;
        for other in others {
            write!(f, "{:<24}", format!("{} / {}", first.name, other.name))?;
            for (_, figure) in FIGURES {
                // Round by round: what disturbs the machine disturbs both.
                let pairs = first.rounds.iter().zip(&other.rounds);
                let ratios = pairs.filter_map(|(ours, theirs)| Some((figure(ours)?, figure(theirs)?)));
                // Too little was measured of one that took nothing.
                let ratios = ratios.filter(|(_, theirs)| *theirs > 0.0).map(|(ours, theirs)| ours / theirs);
                let text = Spread::of(ratios).map(ratio);
                write!(f, "{:>28}", text.unwrap_or_else(|| "-".to_owned()))?;
            }
            let unlike = if first.stores == other.stores { "" } else { "   only one of them stores" };
            writeln!(f, "{unlike}")?;
        }
        writeln!(f)?;
        write_floor(f, self.multiples.as_ref())
    }
}

fn absolute(Spread { median, least, most }: Spread) -> String {
    let digits = match median {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

fn ratio(Spread { median, least, most }: Spread) -> String {
    format!("{median:.2} ({least:.2} to {most:.2})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_between_its_ends() {
        let spread = Spread::of([3.0, 1.0, 10.0].into_iter()).expect("three");
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 10.0));
        let spread = Spread::of([4.0, 2.0].into_iter()).expect("two");
        assert_eq!(spread.median, 3.0);
        assert!(Spread::of(std::iter::empty()).is_none());
        assert_eq!(absolute(Spread { median: 1234.5, least: 1000.0, most: 2000.0 }), "1234 (1000 to 2000)");
    }
}
