//! The page of a soak: its rounds, one beside the other, over the hours.

use super::{
    P99_MAX_MS,
    crowd::MIB,
    page::{Line, OverTime, beside_the_bare_machine, frame, table},
    soak::{SoakReport, SoakRound},
};

type Value = fn(&SoakRound) -> Option<f64>;

pub(super) fn page(report: &SoakReport) -> String {
    let intro =
        format!("{} rounds, each with users of its own and a verdict of its own.", report.rounds.len());
    let body = [charts(report), rounds(report), beside_the_bare_machine(report.multiples.as_ref())].concat();
    frame(report.verdict, &intro, &report.reasons, &body, &report.origin)
}

fn charts(report: &SoakReport) -> String {
    let line = |name, value: Value| {
        let rounds = report.rounds.iter();
        Line { name, values: rounds.map(|round| (round.at_seconds / 60.0, value(round))).collect() }
    };
    let chart = |title, unit, limit: Option<f64>, lines: &[Line<'_>]| {
        let (units, is_logarithmic) = ((unit, " min"), limit.is_some());
        OverTime { title, units, is_logarithmic, limit, spans: &[], lines }.draw()
    };
    let times = [
        line("ack p99", |round| Some(round.ack_p99_ms)),
        line("delivery p50", |round| Some(round.delivery_p50_ms)),
        line("delivery p99", |round| Some(round.delivery_p99_ms)),
    ];
    [
        chart("Latency of each round", " ms", Some(P99_MAX_MS), &times),
        chart(
            "Memory of the node behind each round",
            " MiB",
            None,
            &[line("node", |round| Some(round.node_bytes? as f64 / MIB))],
        ),
        chart("The node's cores for a message", " us", None, &[line("node", |round| round.cpu_micros)]),
    ]
    .concat()
}

fn rounds(report: &SoakReport) -> String {
    let rows = report.rounds.iter().enumerate().map(|(number, round)| {
        let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        vec![
            (number + 1).to_string(),
            format!("{:.1}", round.at_seconds / 60.0),
            round.verdict.to_string(),
            round.acked.to_string(),
            round.delivered.to_string(),
            known(Some(round.delivery_p50_ms)),
            known(Some(round.delivery_p99_ms)),
            known(Some(round.lag_p99_ms)),
            known(round.node_bytes.map(|bytes| bytes as f64 / MIB)),
            known(round.cpu_micros),
        ]
    });
    let columns = [
        "round",
        "at min",
        "verdict",
        "acknowledged",
        "delivered",
        "p50 ms",
        "p99 ms",
        "generator late ms",
        "node MiB",
        "us a message",
    ];
    table("Rounds", &columns, rows)
}
