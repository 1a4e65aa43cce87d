//! The page of idle users: who is online, how fast the node answers, and what that takes, second by second.

use super::{
    crowd::MIB,
    idle::{IdleReport, IdleRound, IdleSecond, KIB},
    page::{Line, OverTime, beside_the_bare_machine, frame, table},
};
use crate::link::IdleCounts;

type Value = fn(&IdleSecond) -> Option<f64>;

pub(super) fn page(report: &IdleReport) -> String {
    let intro = format!(
        "{} users come, {} a second, stay for {} s with a ping each 30 s, and leave, {} times.",
        report.connections,
        report.rate,
        report.seconds,
        report.rounds.len()
    );
    let body = [charts(report), rounds(report), beside_the_bare_machine(report.multiples.as_ref())].concat();
    frame(report.verdict, &intro, &report.reasons, &body, &report.origin)
}

fn charts(report: &IdleReport) -> String {
    // Every second round is shaded.
    let shaded = report.rounds.iter().skip(1).step_by(2);
    let spans = shaded.filter_map(|round| {
        let (first, last) = (round.timeline.first()?, round.timeline.last()?);
        Some((first.at_seconds, last.at_seconds, "another round"))
    });
    let spans: Vec<_> = spans.collect();
    let line = |name, value: Value| {
        let seconds = report.rounds.iter().flat_map(|round| &round.timeline);
        Line { name, values: seconds.map(|second| (second.at_seconds, value(second))).collect() }
    };
    let chart = |title, unit, is_logarithmic, lines: &[Line<'_>]| {
        OverTime { title, units: (unit, " s"), is_logarithmic, limit: None, spans: &spans, lines }.draw()
    };
    let pongs = [line("p50", |second| second.pong_p50_ms), line("p99", |second| second.pong_p99_ms)];
    let cores = [
        line("node", |second| second.cost.node_cores),
        line("generator", |second| second.cost.generator_cores),
    ];
    [
        chart("Connections", "", false, &[line("online", |second| Some(second.online as f64))]),
        chart("From ping to pong, second by second", " ms", true, &pongs),
        chart("Cores at work", "", false, &cores),
        chart(
            "Memory of the node",
            " MiB",
            false,
            &[line("node", |second| Some(second.cost.node_bytes? as f64 / MIB))],
        ),
    ]
    .concat()
}

fn rounds(report: &IdleReport) -> String {
    let rows = report.rounds.iter().enumerate().map(|(number, round)| {
        let IdleCounts { welcomed, refused, lost, pings, pongs, unanswered, .. } = round.counts;
        let known = |bytes: Option<f64>, unit: f64| {
            bytes.map_or_else(|| "-".to_owned(), |all| format!("{:.2}", all / unit))
        };
        let resident = |reading: Option<crate::host::Reading>| {
            known(reading.map(|reading| reading.resident_bytes as f64), MIB)
        };
        let IdleRound { before, kept, after, pong, .. } = round;
        let counts = [welcomed, refused, lost, pings, pongs, unanswered].map(|count| count.to_string());
        let rest = [
            format!("{:.2}", pong.p99_ms),
            known(round.bytes_each(), KIB),
            resident(*before),
            resident(*kept),
            resident(*after),
        ];
        [vec![(number + 1).to_string()], counts.to_vec(), rest.to_vec()].concat()
    });
    let columns = [
        "round",
        "let in",
        "refused",
        "lost",
        "pings",
        "pongs",
        "unanswered",
        "pong p99 ms",
        "KiB a connection",
        "MiB before",
        "with all",
        "after",
    ];
    table("Rounds", &columns, rows)
}
