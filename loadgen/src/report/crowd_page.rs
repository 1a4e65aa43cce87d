//! The page of a crowd, of a storm or of slow readers: what the others had to bear second by second, and what both ends took.

use super::{
    P99_MAX_MS, SecondReport,
    crowd::{CrowdReport, MIB, PhaseReport, StepReport},
    page::{Line, OverTime, beside_the_bare_machine, frame, table},
};

type Value = fn(&SecondReport) -> Option<f64>;

/// `intro` says what was asked.
pub(super) fn page(report: &CrowdReport, intro: &str) -> String {
    let body = [charts(report), steps(report), phases(report), counts(report), violations(report)].concat();
    let body = body + &beside_the_bare_machine(report.multiples.as_ref());
    frame(report.verdict, intro, &report.reasons, &body, &report.origin)
}

fn charts(report: &CrowdReport) -> String {
    let moving =
        report.phases.iter().filter(|phase| !phase.name.starts_with("calm") && phase.name != "alone");
    let spans = moving
        .map(|PhaseReport { name, seconds, .. }| (*seconds.start() as f64, *seconds.end() as f64, *name));
    let spans: Vec<_> = spans.collect();
    let line = |name, value: Value| {
        let values = report.timeline.iter().map(|second| (second.second as f64, value(second)));
        Line { name, values: values.collect() }
    };
    let chart = |title, unit, limit: Option<f64>, lines: &[Line<'_>]| {
        let (units, is_logarithmic) = ((unit, " s"), limit.is_some());
        OverTime { title, units, is_logarithmic, limit, spans: &spans, lines }.draw()
    };
    let times = [line("p50", |second| second.delivery_p50_ms), line("p99", |second| second.delivery_p99_ms)];
    let connected = [line("connected", |second| Some(second.connected as f64))];
    let cores = [
        line("node", |second| second.cost.node_cores),
        line("generator", |second| second.cost.generator_cores),
    ];
    let messages = [
        line("sent", |second| Some(second.sent as f64)),
        line("acknowledged", |second| Some(second.acked as f64)),
        line("delivered", |second| Some(second.delivered as f64)),
    ];
    let memory = [line("node", |second| Some(second.cost.node_bytes? as f64 / MIB))];
    [
        chart("Delivery latency of the others, second by second", " ms", Some(P99_MAX_MS), &times),
        chart("Connections of all", "", None, &connected),
        chart("Cores at work", "", None, &cores),
        chart("Memory of the node", " MiB", None, &memory),
        chart("Messages of the others a second", "", None, &messages),
    ]
    .concat()
}

fn steps(report: &CrowdReport) -> String {
    let rows = report.steps.iter().map(|step| {
        let StepReport { name, missing, took, each } = step;
        let seconds = |ms: f64| format!("{:.2} s", ms / 1000.0);
        let took = format!("{:.2} s", took.as_secs_f64());
        let rate = format!("{:.0}", step.per_second());
        let count = each.count.to_string();
        vec![
            (*name).to_owned(),
            count,
            missing.to_string(),
            took,
            rate,
            seconds(each.p50_ms),
            seconds(each.p99_ms),
        ]
    });
    table("Steps", &["", "users", "not done", "took", "a second", "half after", "99 % after"], rows)
}

fn phases(report: &CrowdReport) -> String {
    let rows = report.phases.iter().map(|phase| {
        let PhaseReport { name, took, delivery, lag, .. } = phase;
        let ms = |ms: f64| format!("{ms:.1} ms");
        let cores = phase.node_cores().map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"));
        let seconds = format!("{:.1} s", took.as_secs_f64());
        vec![
            (*name).to_owned(),
            seconds,
            ms(delivery.p50_ms),
            ms(delivery.p99_ms),
            ms(delivery.max_ms),
            ms(lag.p99_ms),
            cores,
        ]
    });
    let columns = ["", "took", "p50", "p99", "max", "generator late, p99", "node's cores"];
    table("What the others had to bear", &columns, rows)
}

fn counts(report: &CrowdReport) -> String {
    let counts = &report.counts;
    let rows = [
        ("Due", counts.due),
        ("Sent", counts.sent),
        ("Acknowledged", counts.acked),
        ("Never answered", counts.unanswered),
        ("Given up", counts.given_up),
        ("Delivered to others who chat", counts.delivered),
        ("Records received by all", counts.received),
        ("Of those, seen before", counts.replayed),
        ("Connections", counts.connections),
        ("Connections that failed", counts.dial_failures),
    ];
    let rows = rows.into_iter().map(|(name, count)| vec![name.to_owned(), count.to_string()]);
    let errors = report.errors.iter().map(|(name, count)| vec![format!("Error {name}"), count.to_string()]);
    let closes =
        report.closes.iter().map(|(code, count)| vec![format!("Closed with {code}"), count.to_string()]);
    table("Counts", &[], rows.chain(errors).chain(closes))
}

fn violations(report: &CrowdReport) -> String {
    let rows = report.violations.first.iter();
    let rows = rows.map(|violation| vec![violation.kind.to_string(), violation.detail.clone()]);
    let title = format!("Violations: {}", report.violations.total());
    table(&title, &[], rows)
}
