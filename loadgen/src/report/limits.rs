//! What times must stay below, and so decide with.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::Serialize;

use super::P99_MAX_MS;
use crate::latency::Summary;

/// What is measured, as it is called in the JSON report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Time {
    Ack,
    Delivery,
    Back,
    Change,
    Found,
    Read,
    Search,
    Whole,
}

/// Of all that were measured, the one that as many stay below as this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    P50,
    P90,
    P99,
    P99_9,
    Max,
}

impl Rank {
    pub(super) fn of(self, summary: &Summary) -> f64 {
        match self {
            Self::P50 => summary.p50_ms,
            Self::P90 => summary.p90_ms,
            Self::P99 => summary.p99_ms,
            Self::P99_9 => summary.p99_9_ms,
            Self::Max => summary.max_ms,
        }
    }
}

/// A limit's name, as in `delivery.p99`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    time: Time,
    rank: Rank,
}

const TIMES: [(&str, Time); 8] = [
    ("ack", Time::Ack),
    ("delivery", Time::Delivery),
    ("back", Time::Back),
    ("change", Time::Change),
    ("found", Time::Found),
    ("read", Time::Read),
    ("search", Time::Search),
    ("whole", Time::Whole),
];
pub(super) const RANKS: [(&str, Rank); 5] =
    [("p50", Rank::P50), ("p90", Rank::P90), ("p99", Rank::P99), ("p99.9", Rank::P99_9), ("max", Rank::Max)];

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = || {
            let (time, rank) = text.split_once('.')?;
            let (_, time) = TIMES.into_iter().find(|(name, _)| *name == time)?;
            let (_, rank) = RANKS.into_iter().find(|(name, _)| *name == rank)?;
            Some(Self { time, rank })
        };
        named().ok_or_else(|| {
            let times = TIMES.map(|(name, _)| name).join(", ");
            format!(
                "{text}: a limit is for one of {times}, and p50, p90, p99, p99.9 or max, as in delivery.p99"
            )
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = TIMES.into_iter().find(|(_, time)| *time == self.time);
        let rank = RANKS.into_iter().find(|(_, rank)| *rank == self.rank);
        write!(f, "{}.{}", time.map_or("", |(name, _)| name), rank.map_or("", |(name, _)| name))
    }
}

/// One limit, as on the command line: `delivery.p99=50`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    name: Name,
    below_ms: f64,
}

impl Limit {
    pub(crate) fn new(name: &str, below_ms: f64) -> Result<Self, String> {
        if !(below_ms > 0.0 && below_ms.is_finite()) {
            return Err(format!("{name}: a limit is a number of milliseconds above 0"));
        }
        Ok(Self { name: name.parse()?, below_ms })
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, below) = text.split_once('=').ok_or("a limit is NAME=MS, as in delivery.p99=50")?;
        Self::new(name, below.parse().map_err(|_| format!("{name}: not a number of milliseconds"))?)
    }
}

/// All of them, by name. Without any said, p99 of `ack` and `delivery`: [`P99_MAX_MS`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits(BTreeMap<Name, Below>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Below {
    ms: f64,
    /// Whoever names a limit wants to know: nothing measured is not below it.
    is_said: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let asked = [Time::Ack, Time::Delivery]
            .map(|time| (Name { time, rank: Rank::P99 }, Below { ms: P99_MAX_MS, is_said: false }));
        Self(asked.into())
    }
}

impl Limits {
    /// The usual ones, but for those that `said` gives.
    pub(crate) fn with(said: &[Limit]) -> Self {
        let mut limits = Self::default();
        let said = said.iter().map(|limit| (limit.name, Below { ms: limit.below_ms, is_said: true }));
        limits.0.extend(said);
        limits
    }

    /// What was not below its limit, outside the outage.
    pub(super) fn missed<'a>(&self, measured: impl Fn(Time) -> &'a Summary) -> Vec<String> {
        let missed = |(name, below): (&Name, &Below)| {
            let summary = measured(name.time);
            if summary.count == 0 {
                return below.is_said.then(|| format!("{name}: nothing was measured"));
            }
            let ms = name.rank.of(summary);
            (ms >= below.ms).then(|| format!("{name} {ms:.1} ms, below {} ms is asked", below.ms))
        };
        self.0.iter().filter_map(missed).collect()
    }

    /// What p99 of deliveries must stay below, for who draws it.
    pub(super) fn delivery_p99_ms(&self) -> f64 {
        self.0.get(&Name { time: Time::Delivery, rank: Rank::P99 }).map_or(P99_MAX_MS, |below| below.ms)
    }
}

impl Serialize for Limits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, below)| (name.to_string(), below.ms)))
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> =
            self.0.iter().map(|(name, below)| format!("{name} below {} ms", below.ms)).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(said: &[&str], p99_ms: f64, max_ms: f64) -> Vec<String> {
        let said: Vec<Limit> = said.iter().map(|limit| limit.parse().expect("a limit")).collect();
        let summary = Summary { count: 1, p99_ms, max_ms, ..Summary::default() };
        Limits::with(&said).missed(|_| &summary)
    }

    #[test]
    fn a_limit_that_was_said_takes_the_place_of_the_usual_one() {
        assert_eq!(missed(&[], 199.9, 1000.0), [""; 0]);
        assert_eq!(missed(&["ack.p99=10"], 50.0, 1000.0), ["ack.p99 50.0 ms, below 10 ms is asked"]);
        assert_eq!(missed(&["ack.p99=500", "delivery.p99=500"], 300.0, 1000.0), [""; 0]);
        assert_eq!(
            missed(&["delivery.max=900", "back.max=1000.5"], 1.0, 1000.0),
            ["delivery.max 1000.0 ms, below 900 ms is asked"]
        );
    }

    #[test]
    fn each_time_has_a_name_of_its_own() {
        let [slow, fast] = [100.0, 1.0].map(|p99_ms| Summary { count: 1, p99_ms, ..Summary::default() });
        for (name, time) in TIMES {
            let limits = Limits::with(&[format!("{name}.p99=50").parse().expect("a limit")]);
            let missed = limits.missed(|asked| if asked == time { &slow } else { &fast });
            assert_eq!(missed, [format!("{name}.p99 100.0 ms, below 50 ms is asked")]);
        }
    }

    #[test]
    fn a_limit_of_what_was_never_measured_is_not_kept_unless_nobody_named_it() {
        let nothing = Summary::default();
        assert_eq!(Limits::default().missed(|_| &nothing), [""; 0]);
        let limits = Limits::with(&["back.p99=10".parse().expect("a limit")]);
        assert_eq!(limits.missed(|_| &nothing), ["back.p99: nothing was measured"]);
    }

    #[test]
    fn what_is_no_limit_is_told() {
        for text in [
            "ack.p99",
            "ack=5",
            "ack.p98=5",
            "lag.p99=5",
            "ack.p99=",
            "ack.p99=-1",
            "ack.p99=NaN",
            "ack.p99=inf",
        ] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        assert_eq!(Limits::default().to_string(), "ack.p99 below 200 ms, delivery.p99 below 200 ms");
    }
}
