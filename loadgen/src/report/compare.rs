//! A report beside what the bare machine can do: its figures as multiples, which can be compared with those of another machine.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context;
use serde::Deserialize;

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

#[derive(Clone, Copy, Deserialize)]
struct Percentiles {
    p50_ms: f64,
    p99_ms: f64,
}

/// What `floor --save` has measured.
#[derive(Deserialize)]
struct Floor {
    /// A receive and a send on a bare ring, of a core.
    echo_cpu_nanos: f64,
    /// A send more.
    send_cpu_nanos: f64,
    /// A write of 4 KiB that is on the disk.
    sync_p50_ms: f64,
    sync_p99_ms: f64,
}

/// The figures of a run's JSON as multiples of those of a floor's.
///
/// # Errors
/// When one of the files is none.
pub(crate) fn compare(run: &Path, floor: &Path) -> anyhow::Result<String> {
    let run: Run = read(run, "what `loadgen run --json` writes")?;
    let floor: Floor = read(floor, "what `floor --save` writes")?;
    Ok(text(&run, &floor))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path, what: &str) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("{}: could not be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: this is not {what}", path.display()))
}

fn text(run: &Run, floor: &Floor) -> String {
    let mut text = String::from("                measured       bare     times\n");
    let mut line = |name: &str, unit: &str, measured: f64, bare: f64| {
        // Writing to a text cannot fail.
        let _ =
            writeln!(text, "{name:<14}{measured:>8.2} {unit} {bare:>7.2} {unit} {:>9.2}", measured / bare);
    };
    for (name, Times { outside }) in [("ack", &run.ack), ("delivery", &run.delivery)] {
        line(&format!("{name} p50"), "ms", outside.p50_ms, floor.sync_p50_ms);
        line(&format!("{name} p99"), "ms", outside.p99_ms, floor.sync_p99_ms);
    }
    let Counted { acked, delivered } = run.counts;
    if let Some(seconds) = run.node_cpu_seconds.filter(|_| acked > 0) {
        let bare = floor.echo_cpu_nanos * acked as f64 + floor.send_cpu_nanos * delivered as f64;
        line("CPU a message", "us", seconds * 1e6 / acked as f64, bare / 1e3 / acked as f64);
    }
    text.push_str(
        "bare: a write of 4 KiB that is on the disk; of the cores, one receive, one send for the answer and one for each delivery\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_so_many_times_the_bare_machine() {
        let percentiles = |p50_ms, p99_ms| Times { outside: Percentiles { p50_ms, p99_ms } };
        let run = Run {
            counts: Counted { acked: 1_000, delivered: 3_000 },
            ack: percentiles(1.0, 4.0),
            delivery: percentiles(2.0, 6.0),
            node_cpu_seconds: Some(0.02),
        };
        let floor =
            Floor { echo_cpu_nanos: 4_000.0, send_cpu_nanos: 2_000.0, sync_p50_ms: 0.1, sync_p99_ms: 0.2 };
        let text = text(&run, &floor);
        let times: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        // Of the cores: 20 us, and 4 + 3 * 2.
        assert_eq!(times[..6], ["times", "10.00", "20.00", "20.00", "30.00", "2.00"], "{text}");
        let unmeasured = super::text(&Run { node_cpu_seconds: None, ..run }, &floor);
        assert!(!unmeasured.contains("CPU"), "{unmeasured}");
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
}
