//! The page of a run.

use std::fmt::Write;

use super::{
    LAG_P99_MAX_MS, OutageReport, Report, SecondReport,
    page::{beside_the_bare_machine, escape, figure, frame},
    svg::{Axis, Chart},
};
use crate::{controller::Cost, latency::Summary};

type Count = fn(&SecondReport) -> u64;
type Percentile = fn(&SecondReport) -> Option<f64>;
type Cores = fn(&Cost) -> Option<f64>;

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut body = String::new();
    let settings = &report.settings;
    let intro = format!(
        "{} users in {} rooms, {}, {} to {} bytes each ({}).",
        settings.users,
        settings.rooms,
        settings.load,
        settings.load.payload_bytes.0,
        settings.load.payload_bytes.1,
        settings.mix
    );
    write_latencies(&mut body, report);
    body.push_str(&distribution(report));
    body.push_str(&throughput(report));
    body.push_str(&latency_over_time(report));
    body.push_str(&cores(report));
    body.push_str(&connections(report));
    body.push_str(&beside_the_bare_machine(report.multiples.as_ref()));
    write_counts(&mut body, report);
    write_violations(&mut body, report);
    frame(report.verdict, &intro, &report.reasons, &body, &report.origin)
}

fn write_latencies(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Latency, from when a message was due (ms)</h2><table><tr><th></th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>max</th><th>count</th></tr>",
    );
    let mut row = |name: &str, summary: &Summary| {
        let Summary { count, p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms } = summary;
        let _ = write!(
            page,
            "<tr><td>{name}</td><td>{p50_ms:.2}</td><td>{p90_ms:.2}</td><td>{p99_ms:.2}</td>\
             <td>{p99_9_ms:.2}</td><td>{max_ms:.2}</td><td>{count}</td></tr>"
        );
    };
    row("Acknowledged", &report.ack.outside);
    row("Delivered", &report.delivery.outside);
    row("Generator late", &report.lag.outside);
    if report.change.outside.count > 0 {
        row("Change of members acknowledged", &report.change.outside);
    }
    if report.read.outside.count > 0 {
        row("Read, from a delivery to its ok", &report.read.outside);
    }
    if report.search.outside.count > 0 {
        row("Search, from its question to its answer", &report.search.outside);
    }
    if report.found.outside.count > 0 {
        row("Found, from the ok of what is searched for", &report.found.outside);
    }
    if report.whole.outside.count > 0 {
        row("Back after an absence, until all was read", &report.whole.outside);
    }
    if report.back.count > 0 {
        row("Back online after a lost connection", &report.back);
    }
    if report.outage.is_some() {
        row("Acknowledged, outage", &report.ack.outage);
        row("Delivered, outage", &report.delivery.outage);
        row("Generator late, outage", &report.lag.outage);
    }
    let _ = write!(
        page,
        "</table><p class=\"soft\">Asked outside the outage: {}, and a generator that is at most {LAG_P99_MAX_MS} ms late at p99.</p>",
        report.settings.limits
    );
}

/// Latency by percentile; every further nine is as wide as the one before.
fn distribution(report: &Report) -> String {
    let nines = |percentile: f64| -((100.0 - percentile) / 100.0).log10();
    let lines = [
        ("one", "acknowledged", &report.ack_distribution),
        ("two", "delivered", &report.delivery_distribution),
    ];
    let all = || lines.iter().flat_map(|(_, _, points)| points.iter());
    let x = Axis::linear(all().map(|(percentile, _)| nines(*percentile)));
    let limit_ms = report.settings.limits.delivery_p99_ms();
    let y = Axis::logarithmic(all().map(|(_, ms)| *ms).chain([limit_ms]));
    let mut chart = Chart::new("Latency by percentile", x, y);
    chart.y_ticks(" ms");
    let names = ["min", "90%", "99%", "99.9%", "99.99%", "99.999%"];
    let ticks: Vec<_> = names.iter().zip(0_u32..).map(|(name, at)| (at.into(), (*name).to_owned())).collect();
    chart.x_ticks(&ticks);
    chart.limit(limit_ms, "what p99 must stay below");
    for (class, name, points) in lines {
        let points = points.iter().map(|(percentile, ms)| {
            (nines(*percentile), Some(*ms), format!("{percentile:.3}% {name} within {ms:.2} ms"))
        });
        chart.line(class, &points.collect::<Vec<_>>());
    }
    let key = [("one", "acknowledged"), ("two", "delivered to another user")];
    figure("Distribution outside the outage", &key, chart)
}

fn throughput(report: &Report) -> String {
    let of = |value: Count| report.timeline.iter().map(move |second| value(second) as f64);
    let y = Axis::linear(
        of(|second| second.delivered).chain(of(|second| second.sent)).chain(of(|second| second.acked)),
    );
    let mut chart = over_time("Messages in each second", report, y);
    chart.y_ticks("");
    let lines: [(&str, &str, Count); 3] = [
        ("three", "delivered", |second| second.delivered),
        ("one", "sent", |second| second.sent),
        ("two", "acknowledged", |second| second.acked),
    ];
    for (class, name, value) in lines {
        let points = report.timeline.iter().map(|second| {
            let count = value(second);
            (second.second as f64, Some(count as f64), format!("second {}: {count} {name}", second.second))
        });
        chart.line(class, &points.collect::<Vec<_>>());
    }
    let key = [("one", "sent"), ("two", "acknowledged"), ("three", "delivered to other users")];
    figure("Messages a second", &key, chart)
}

fn latency_over_time(report: &Report) -> String {
    let values = report.timeline.iter().flat_map(|second| [second.delivery_p50_ms, second.delivery_p99_ms]);
    let limit_ms = report.settings.limits.delivery_p99_ms();
    let y = Axis::logarithmic(values.flatten().chain([limit_ms]));
    let mut chart = over_time("Delivery latency in each second", report, y);
    chart.y_ticks(" ms");
    chart.limit(limit_ms, "what p99 must stay below outside the outage");
    let lines: [(&str, &str, Percentile); 2] =
        [("one", "p50", |second| second.delivery_p50_ms), ("two", "p99", |second| second.delivery_p99_ms)];
    for (class, name, value) in lines {
        let points = report.timeline.iter().map(|second| {
            let ms = value(second);
            let title = format!("second {}: {name} {:.2} ms", second.second, ms.unwrap_or_default());
            (second.second as f64, ms, title)
        });
        chart.line(class, &points.collect::<Vec<_>>());
    }
    figure("Delivery latency, second by second", &[("one", "p50"), ("two", "p99")], chart)
}

/// What node and generator took of the cores.
fn cores(report: &Report) -> String {
    let lines: [(&str, &str, Cores); 2] =
        [("one", "node", |cost| cost.node_cores), ("two", "generator", |cost| cost.generator_cores)];
    let of = |value: Cores| report.timeline.iter().filter_map(move |second| value(&second.cost));
    let y = Axis::linear(lines.iter().flat_map(|(_, _, value)| of(*value)));
    let mut chart = over_time("Cores in each second", report, y);
    chart.y_ticks("");
    for (class, name, value) in lines {
        let points = report.timeline.iter().map(|second| {
            let cores = value(&second.cost);
            let title = format!("second {}: {name} {:.2} cores", second.second, cores.unwrap_or_default());
            (second.second as f64, cores, title)
        });
        chart.line(class, &points.collect::<Vec<_>>());
    }
    let key = [("one", "node, where it runs on this machine"), ("two", "generator")];
    figure("Cores at work", &key, chart)
}

fn connections(report: &Report) -> String {
    let y = Axis::linear(report.timeline.iter().map(|second| second.connected as f64));
    let mut chart = over_time("Connections in each second", report, y);
    chart.y_ticks("");
    let points = report.timeline.iter().map(|second| {
        let connected = second.connected;
        let title = format!("second {}: {connected} connected", second.second);
        (second.second as f64, Some(connected as f64), title)
    });
    chart.line("one", &points.collect::<Vec<_>>());
    figure("Connections", &[("one", "connected")], chart)
}

/// A chart over the seconds of the schedule, with the outage marked.
fn over_time(label: &str, report: &Report, y: Axis) -> Chart {
    let last = report.timeline.last().map_or(1.0, |second| second.second as f64);
    let mut chart = Chart::new(label, Axis::linear([last].into_iter()), y);
    if let Some(OutageReport { from_seconds, until_seconds }) = report.outage {
        let until = until_seconds.unwrap_or(last);
        let title = format!("the node was gone or users were not back: {from_seconds:.1} s to {until:.1} s");
        chart.band(from_seconds, until, &title);
    }
    chart.x_numbers(" s");
    chart
}

fn write_counts(page: &mut String, report: &Report) {
    let counts = &report.counts;
    let rows = [
        ("Due", counts.due),
        ("Sent", counts.sent),
        ("Acknowledged", counts.acked),
        ("Refused", counts.refused),
        ("Never answered", counts.unanswered),
        ("Reads that were never answered", counts.reads_unanswered),
        ("Given up", counts.given_up),
        ("Sent again after a reconnect", counts.resent),
        ("Sent again because the node was busy", counts.retried),
        ("Delivered to other users", counts.delivered),
        ("Received, all kinds", counts.received),
        ("Of those, seen before a reconnect", counts.replayed),
        ("Heads of large groups", counts.heads),
        ("Records read behind them", counts.opened),
        ("Changes of members", counts.changes),
        ("Of those, acknowledged", counts.changes_acked),
        ("Of those, refused because another came first", counts.changes_refused),
        ("Times that a group became large, or small again", report.switches),
        ("Refused to who was out of the group", counts.outside),
        ("Looks at what who joined or left may see", counts.looks),
        ("Users away for a part of the run", counts.absences),
        ("Of those, back and read everything", counts.returned),
        ("Messages that came to them when they were back", counts.missed),
        ("Reads said", counts.reads),
        ("Reads taken", counts.reads_taken),
        ("Conversations viewed, on each connection and at the end", counts.views),
        ("Receipts told to viewers", counts.receipts),
        ("Comings and goings told to viewers", counts.presences),
        ("Searches asked", counts.searches),
        ("Of those, not answered in time", counts.searches_unanswered),
        ("Messages and edits that were found", counts.found),
        ("Messages and edits undecided at the end", counts.searches_undecided),
        ("Conversations whose unread messages were counted", counts.listed),
        ("Connections", counts.connections),
    ];
    page.push_str("<h2>Counts</h2><table>");
    for (name, count) in rows {
        let _ = write!(page, "<tr><td>{name}</td><td>{count}</td></tr>");
    }
    for (name, count) in &report.errors {
        let _ = write!(page, "<tr><td>Error {}</td><td>{count}</td></tr>", escape(name));
    }
    page.push_str("</table>");
}

fn write_violations(page: &mut String, report: &Report) {
    if report.violations.first.is_empty() {
        page.push_str("<h2>Violations</h2><p>None.</p>");
        return;
    }
    let total = report.violations.total();
    let _ = write!(page, "<h2>Violations: {total}, the first of them</h2><ul>");
    for violation in &report.violations.first {
        let _ = write!(page, "<li>{}: {}</li>", violation.kind, escape(&violation.detail));
    }
    page.push_str("</ul>");
}
