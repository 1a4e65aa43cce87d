//! A report beside what the bare machine can do: its figures as multiples, which can be compared with those of another machine.

use std::{fmt, fs, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{cli::FloorFlag, latency::Summary};

/// Where a floor is looked for that nobody has named.
pub(crate) const USUAL_FLOOR: &str = "floor.json";

const NO_FLOOR: &str =
    "floor      of this machine is not known: `floor --save floor.json` measures it in ten seconds";

/// What is wanted of the JSON of a run.
#[derive(Deserialize)]
struct Run {
    counts: Counted,
    ack: Times,
    delivery: Times,
    node_cpu_seconds: Option<f64>,
}

#[derive(Deserialize)]
struct Counted {
    acked: u64,
    delivered: u64,
}

#[derive(Deserialize)]
struct Times {
    outside: Percentiles,
}

/// Two points of a distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Percentiles {
    p50_ms: f64,
    p99_ms: f64,
}

impl From<Summary> for Percentiles {
    fn from(Summary { p50_ms, p99_ms, .. }: Summary) -> Self {
        Self { p50_ms, p99_ms }
    }
}

/// What `floor --save` has measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// A receive and a send on a bare ring, of a core.
    echo_cpu_nanos: f64,
    /// A send more.
    send_cpu_nanos: f64,
    /// A write of 4 KiB that is on the disk.
    sync_p50_ms: f64,
    sync_p99_ms: f64,
}

impl Floor {
    /// That of a file, or of the usual one if it is there.
    ///
    /// # Errors
    /// When the file is none, and when one was named that is not there.
    pub(crate) fn find(flag: &FloorFlag) -> anyhow::Result<Option<Self>> {
        let usual = Path::new(USUAL_FLOOR);
        match &flag.floor {
            Some(path) => Self::read(path).map(Some),
            None if usual.exists() => Self::read(usual).map(Some),
            None => Ok(None),
        }
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        read(path, "what `floor --save` writes")
    }
}

/// What was measured, and as a multiple of what.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Multiple {
    name: String,
    unit: &'static str,
    measured: f64,
    bare: f64,
    times: f64,
}

/// The figures of a report beside those of the bare machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Multiples(Vec<Multiple>);

impl Multiples {
    /// Adds a latency: storing is all that a bare machine has to wait for.
    pub(crate) fn latency(&mut self, name: &str, measured: impl Into<Percentiles>, floor: &Floor) {
        let measured = measured.into();
        self.add(format!("{name} p50"), "ms", measured.p50_ms, floor.sync_p50_ms);
        self.add(format!("{name} p99"), "ms", measured.p99_ms, floor.sync_p99_ms);
    }

    /// Adds what the node took of the cores for messages that were acknowledged and delivered.
    pub(super) fn processor(&mut self, seconds: f64, acked: u64, delivered: u64, floor: &Floor) {
        if acked > 0 {
            let each = |nanos: f64| nanos / 1e3 / acked as f64;
            let bare = floor.echo_cpu_nanos * acked as f64 + floor.send_cpu_nanos * delivered as f64;
            self.add("CPU a message".to_owned(), "us", each(seconds * 1e9), each(bare));
        }
    }

    /// Adds what the node took of the cores for records that it stored, and that all clients received, as what one of the latter took.
    pub(crate) fn records(
        &mut self,
        name: &str,
        seconds: f64,
        (stored, received): (u64, u64),
        floor: &Floor,
    ) {
        let each = |nanos: f64| nanos / 1e3 / received as f64;
        let bare = floor.echo_cpu_nanos * stored as f64 + floor.send_cpu_nanos * received as f64;
        self.add(name.to_owned(), "us", each(seconds * 1e9), each(bare));
    }

    /// Adds what a server took of the cores for a message that came and went out so many times.
    pub(crate) fn exchange(&mut self, name: &str, micros: f64, sends: u32, floor: &Floor) {
        let more = floor.send_cpu_nanos * f64::from(sends.saturating_sub(1));
        self.add(name.to_owned(), "us", micros, (floor.echo_cpu_nanos + more) / 1e3);
    }

    /// Of several rounds, figure by figure.
    pub(crate) fn median<'a>(rounds: impl Iterator<Item = &'a Self>) -> Self {
        let mut all: Vec<(&Multiple, Vec<[f64; 3]>)> = Vec::new();
        for one in rounds.flat_map(|round| &round.0) {
            let values = [one.measured, one.bare, one.times];
            match all.iter_mut().find(|(first, _)| first.name == one.name) {
                Some((_, rounds)) => rounds.push(values),
                None => all.push((one, vec![values])),
            }
        }
        let median = |rounds: &[[f64; 3]], place: usize| {
            let mut values: Vec<f64> = rounds.iter().map(|values| values[place]).collect();
            values.sort_by(f64::total_cmp);
            f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
        };
        let all = all.into_iter().map(|(Multiple { name, unit, .. }, rounds)| {
            let [measured, bare, times] = [0, 1, 2].map(|place| median(&rounds, place));
            Multiple { name: name.clone(), unit, measured, bare, times }
        });
        Self(all.collect())
    }

    /// Adds what the node took of the cores for a ping and its pong.
    pub(super) fn heartbeat(&mut self, micros: f64, floor: &Floor) {
        self.add("heartbeat CPU".to_owned(), "us", micros, floor.echo_cpu_nanos / 1e3);
    }

    fn add(&mut self, name: String, unit: &'static str, measured: f64, bare: f64) {
        self.0.push(Multiple { name, unit, measured, bare, times: measured / bare });
    }

    /// The rows of a page: name, measured, bare, times.
    pub(super) fn rows(&self) -> impl Iterator<Item = [String; 4]> + '_ {
        self.0.iter().map(|Multiple { name, unit, measured, bare, times }| {
            [
                name.clone(),
                format!("{measured:.2} {unit}"),
                format!("{bare:.2} {unit}"),
                format!("{times:.2}"),
            ]
        })
    }
}

impl fmt::Display for Multiples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let width = self.0.iter().map(|one| one.name.len() + 1).fold(20, usize::max);
        writeln!(f, "{:<width$}   measured        bare     times", "floor")?;
        for Multiple { name, unit, measured, bare, times } in &self.0 {
            writeln!(f, "{name:<width$}{measured:>8.2} {unit} {bare:>8.2} {unit} {times:>9.2}")?;
        }
        Ok(())
    }
}

/// What the figures are multiples of, for who reads them.
pub(super) const BARE: &str = "bare: a write of 4 KiB that is on the disk; of the cores, one receive, one send for the answer and one for each delivery";

/// The lines of a report for a terminal.
pub(crate) fn write_floor(f: &mut fmt::Formatter<'_>, multiples: Option<&Multiples>) -> fmt::Result {
    match multiples {
        Some(multiples) => write!(f, "{multiples}"),
        None => writeln!(f, "{NO_FLOOR}"),
    }
}

/// The figures of a run's JSON as multiples of those of a floor's.
///
/// # Errors
/// When one of the files is none.
pub(crate) fn compare(run: &Path, floor: &Path) -> anyhow::Result<String> {
    let run: Run = read(run, "what `loadgen run --json` writes")?;
    let floor = Floor::read(floor)?;
    Ok(format!("{}{BARE}\n", of_run(&run, &floor)))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path, what: &str) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("{}: could not be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: this is not {what}", path.display()))
}

fn of_run(run: &Run, floor: &Floor) -> Multiples {
    let mut multiples = Multiples::default();
    multiples.latency("ack", run.ack.outside, floor);
    multiples.latency("delivery", run.delivery.outside, floor);
    if let Some(seconds) = run.node_cpu_seconds {
        multiples.processor(seconds, run.counts.acked, run.counts.delivered, floor);
    }
    multiples
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Floor =
        Floor { echo_cpu_nanos: 4_000.0, send_cpu_nanos: 2_000.0, sync_p50_ms: 0.1, sync_p99_ms: 0.2 };

    #[test]
    fn a_run_is_so_many_times_the_bare_machine() {
        let percentiles = |p50_ms, p99_ms| Times { outside: Percentiles { p50_ms, p99_ms } };
        let run = Run {
            counts: Counted { acked: 1_000, delivered: 3_000 },
            ack: percentiles(1.0, 4.0),
            delivery: percentiles(2.0, 6.0),
            node_cpu_seconds: Some(0.02),
        };
        let text = of_run(&run, &FLOOR).to_string();
        let times: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        // Of the cores: 20 us, and 4 + 3 * 2.
        assert_eq!(times, ["times", "10.00", "20.00", "20.00", "30.00", "2.00"], "{text}");
        let unmeasured = of_run(&Run { node_cpu_seconds: None, ..run }, &FLOOR).to_string();
        assert!(!unmeasured.contains("CPU"), "{unmeasured}");
    }

    #[test]
    fn of_several_rounds_each_figure_has_its_median() {
        let round = |micros, ms| {
            let mut round = Multiples::default();
            round.latency("p", Percentiles { p50_ms: ms, p99_ms: ms }, &FLOOR);
            round.exchange("CPU", micros, 2, &FLOOR);
            round
        };
        let rounds = [round(12.0, 1.0), round(60.0, 3.0), round(24.0, 2.0)];
        let rows: Vec<_> = Multiples::median(rounds.iter()).rows().collect();
        let row = |row: [&str; 4]| row.map(str::to_owned);
        assert_eq!(
            rows,
            [
                row(["p p50", "2.00 ms", "0.10 ms", "20.00"]),
                row(["p p99", "2.00 ms", "0.20 ms", "10.00"]),
                row(["CPU", "24.00 us", "6.00 us", "4.00"]),
            ]
        );
        assert_eq!(
            Multiples::median(rounds[..2].iter()).rows().last(),
            Some(row(["CPU", "36.00 us", "6.00 us", "6.00"]))
        );
        assert_eq!(Multiples::median([].iter()), Multiples::default());
    }

    #[test]
    fn what_is_no_report_is_refused_in_words() {
        let file = std::env::temp_dir().join(format!("loadgen-compare-{}", std::process::id()));
        fs::write(&file, "{}").expect("a file");
        let refused = compare(&file, &file).expect_err("it is none").to_string();
        assert!(refused.ends_with("this is not what `loadgen run --json` writes"), "{refused}");
        fs::remove_file(&file).expect("it is there");
        assert!(compare(&file, &file).expect_err("it is gone").to_string().ends_with("could not be read"));
    }

    #[test]
    fn a_floor_that_was_named_has_to_be_there() {
        let file = std::env::temp_dir().join(format!("loadgen-floor-{}", std::process::id()));
        let flag = FloorFlag { floor: Some(file.clone()) };
        let missing = Floor::find(&flag).expect_err("it is not there").to_string();
        assert!(missing.ends_with("could not be read"), "{missing}");
        fs::write(&file, serde_json::to_string(&FLOOR).expect("numbers")).expect("a file");
        assert_eq!(Floor::find(&flag).expect("it is one"), Some(FLOOR));
        fs::write(&file, "{}").expect("a file");
        let refused = Floor::find(&flag).expect_err("it is none").to_string();
        assert!(refused.ends_with("this is not what `floor --save` writes"), "{refused}");
        fs::remove_file(&file).expect("it is there");
        assert_eq!(Floor::find(&FloorFlag::default()).expect("the usual one may be missing"), None);
    }
}
