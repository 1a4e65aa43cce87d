//! Prometheus text, version 0.0.4, of all shards.

use std::{fmt::Write as _, sync::Arc};

use protocol::event::ErrorCode;

use super::{
    CLOSE_CODES, Counter, Gauge, Histogram, PauseReason, RefusedReason, ShardMetrics, histogram::Snapshot,
    slow,
};

/// Appends one number with what it is.
pub(super) fn render_line(name: &str, help: &str, kind: &str, value: u64, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# HELP gatehouse_{name} {help}\n# TYPE gatehouse_{name} {kind}\ngatehouse_{name} {value}"
    );
}

/// Bounds of time histograms: 100 µs to 100 s. Each ends a bucket of the histogram, so counts are exact.
const TIME_BOUNDS: [(u64, &str); 19] = [
    (100, "0.0001"),
    (200, "0.0002"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_000, "0.002"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (20_000, "0.02"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (200_000, "0.2"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_000_000, "2"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (20_000_000, "20"),
    (50_000_000, "50"),
    (100_000_000, "100"),
];

/// Bounds of sizes, in bytes: a small record to a full batch.
const BYTE_BOUNDS: [(u64, &str); 11] = [
    (500, "500"),
    (1_000, "1000"),
    (2_000, "2000"),
    (5_000, "5000"),
    (10_000, "10000"),
    (20_000, "20000"),
    (50_000, "50000"),
    (100_000, "100000"),
    (200_000, "200000"),
    (500_000, "500000"),
    (1_000_000, "1000000"),
];

/// Bounds of counts.
const COUNT_BOUNDS: [(u64, &str); 10] = [
    (1, "1"),
    (2, "2"),
    (5, "5"),
    (10, "10"),
    (20, "20"),
    (50, "50"),
    (100, "100"),
    (200, "200"),
    (500, "500"),
    (1_000, "1000"),
];

type CounterRow = (&'static str, &'static str, fn(&ShardMetrics) -> &Counter);
type GaugeRow = (&'static str, &'static str, fn(&ShardMetrics) -> &Gauge);

/// Counters that are added up over all shards.
const COUNTERS: [CounterRow; 24] = [
    ("accepted_total", "Connections accepted.", |m| &m.accepted_total),
    ("moved_total", "Connections moved to their user's home shard.", |m| &m.moved_total),
    ("proxied_total", "Connections whose PROXY header said whose they are.", |m| &m.proxied_total),
    ("ip_rate_limited_total", "Commands answered rate_limited because of their address.", |m| {
        &m.ip_rate_limited_total
    }),
    ("messages_stored_total", "Messages that became durable.", |m| &m.messages_stored_total),
    ("deliveries_total", "Messages sent to a connection as they came.", |m| &m.deliveries_total),
    ("replays_total", "Messages sent to a connection from the log.", |m| &m.replays_total),
    ("outbox_full_total", "Readers too slow for their traffic, sent back to the log.", |m| {
        &m.outbox_full_total
    }),
    ("overruns_total", "Deliveries between shards that found no room.", |m| &m.overruns_total),
    ("presence_events_total", "Viewers told who came, went, or is typing.", |m| &m.presence_events_total),
    ("busy_total", "Commands answered busy because a mailbox had no credit.", |m| &m.busy_total),
    ("ring_enters_total", "System calls into the rings.", |m| &m.ring_enters_total),
    ("ring_cq_overflows_total", "Completion queues that overflowed.", |m| &m.ring_cq_overflows_total),
    ("ring_recv_starved_total", "Receives that found no buffer.", |m| &m.ring_recv_starved_total),
    ("log_batches_total", "Batches written to the logs.", |m| &m.log_batches_total),
    ("log_compactions_total", "Segments compacted.", |m| &m.log_compactions_total),
    ("log_freed_segments_total", "Segments not kept because the disk gives less than keep_mib.", |m| {
        &m.log_freed_segments_total
    }),
    ("log_damaged_records_total", "Stored records found damaged or unreadable.", |m| {
        &m.log_damaged_records_total
    }),
    ("index_rebuilds_total", "Index files found damaged and made again.", |m| &m.index_rebuilds_total),
    ("index_rebuild_failures_total", "Damaged index files that could not be made again.", |m| {
        &m.index_rebuild_failures_total
    }),
    ("log_bytes_total", "Bytes written to the logs.", |m| &m.log_bytes_total),
    ("push_passed_over_total", "Messages of which nobody was called, for want of room.", |m| {
        &m.push_passed_over_total
    }),
    (
        "push_silent_total",
        "Users not called, as they have no push token or have muted the conversation.",
        |m| &m.push_silent_total,
    ),
    ("push_unknown_total", "Users not called because their settings could not be read.", |m| {
        &m.push_unknown_total
    }),
];

/// Gauges that are added up over all shards.
const GAUGES: [GaugeRow; 5] = [
    ("handshakes", "Connections that have not shown a token yet.", |m| &m.handshakes),
    ("sessions", "Connections that showed a valid token.", |m| &m.sessions),
    ("mail_requests", "Requests waiting between shards.", |m| &m.mail_requests),
    ("mail_replies", "Replies and deliveries waiting between shards.", |m| &m.mail_replies),
    (
        "push_waiting",
        "Conversations of which somebody may have to be called, or was in the last 10 s.",
        |m| &m.push_waiting,
    ),
];

/// Appends everything that `shards` counted, in the order of the shards.
pub fn render(shards: &[Arc<ShardMetrics>], out: &mut String) {
    slow::render(shards, out);
    let mut page = Page { shards, out };
    page.head("connections", "Open sockets, by shard.", "gauge");
    page.by_shard("connections", |shard| shard.connections.value());
    page.head("turns_total", "Times around a shard's loop.", "counter");
    page.by_shard("turns_total", |shard| shard.turns_total.value());
    for (name, help, gauge) in GAUGES {
        page.head(name, help, "gauge");
        page.line(name, "", page.sum(|shard| gauge(shard).value()));
    }
    for (name, help, counter) in COUNTERS {
        page.head(name, help, "counter");
        page.line(name, "", page.sum(|shard| counter(shard).value()));
    }
    page.labelled();
    page.histogram("ack_seconds", "From a command that stores to its ok.", Unit::Micros, |m| &m.ack_seconds);
    page.histogram(
        "delivery_seconds",
        "From a command that stores to its delivery, by the receiving connection.",
        Unit::Micros,
        |m| &m.delivery_seconds,
    );
    page.histogram("sync_seconds", "From a batch's write to its sync.", Unit::Micros, |m| &m.sync_seconds);
    page.histogram("batch_bytes", "Size of a batch.", Unit::Bytes, |m| &m.batch_bytes);
    page.histogram("batch_records", "Records of a batch.", Unit::Count, |m| &m.batch_records);
}

#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Count,
    Micros,
}

impl Unit {
    fn bounds(self) -> &'static [(u64, &'static str)] {
        match self {
            Self::Bytes => &BYTE_BOUNDS,
            Self::Count => &COUNT_BOUNDS,
            Self::Micros => &TIME_BOUNDS,
        }
    }
}

struct Page<'a> {
    shards: &'a [Arc<ShardMetrics>],
    out: &'a mut String,
}

impl Page<'_> {
    fn sum(&self, value: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards.iter().map(|shard| value(shard)).sum()
    }

    // Writing to a String cannot fail, hence the ignored results below.

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.out, "# HELP gatehouse_{name} {help}\n# TYPE gatehouse_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.out, "gatehouse_{name}{labels} {value}");
    }

    fn by_shard(&mut self, name: &str, value: impl Fn(&ShardMetrics) -> u64) {
        for (index, shard) in self.shards.iter().enumerate() {
            let value = value(shard);
            let _ = writeln!(self.out, "gatehouse_{name}{{shard=\"{index}\"}} {value}");
        }
    }

    /// Every label is there from the start, at 0, so that a rate over it is right from its first count.
    fn labelled(&mut self) {
        self.head("refused_total", "Connections that ended before they showed a valid token.", "counter");
        for reason in RefusedReason::ALL {
            let total = self.sum(|shard| shard.refused_total(reason).value());
            self.line("refused_total", &format!("{{reason=\"{}\"}}", reason.name()), total);
        }
        self.head("accept_pauses_total", "Times that connections had to wait to be accepted.", "counter");
        for reason in PauseReason::ALL {
            let total = self.sum(|shard| shard.accept_pauses_total(reason).value());
            self.line("accept_pauses_total", &format!("{{reason=\"{}\"}}", reason.name()), total);
        }
        self.head("errors_total", "Error replies, by the code of the protocol.", "counter");
        for code in ErrorCode::ALL {
            let total = self.sum(|shard| shard.errors_total(code).value());
            let labels = format!("{{code=\"{}\",name=\"{}\"}}", code.code(), code.name());
            self.line("errors_total", &labels, total);
        }
        self.head("closes_total", "Connections that ended, by their close code.", "counter");
        for code in CLOSE_CODES {
            let total = self.sum(|shard| shard.closes_total(code).value());
            self.line("closes_total", &format!("{{code=\"{code}\"}}"), total);
        }
        let others = self.sum(|shard| shard.closes_total[CLOSE_CODES.len()].value());
        self.line("closes_total", "{code=\"other\"}", others);
    }

    fn histogram(&mut self, name: &str, help: &str, unit: Unit, histogram: fn(&ShardMetrics) -> &Histogram) {
        let snapshot = Snapshot::of(self.shards.iter().map(|shard| histogram(shard)));
        self.head(name, help, "histogram");
        for (bound, label) in unit.bounds() {
            let count = snapshot.count_to(*bound);
            let _ = writeln!(self.out, "gatehouse_{name}_bucket{{le=\"{label}\"}} {count}");
        }
        let (count, sum) = (snapshot.count(), snapshot.sum);
        let _ = writeln!(self.out, "gatehouse_{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = match unit {
            Unit::Micros => {
                writeln!(self.out, "gatehouse_{name}_sum {}.{:06}", sum / 1_000_000, sum % 1_000_000)
            }
            Unit::Bytes | Unit::Count => writeln!(self.out, "gatehouse_{name}_sum {sum}"),
        };
        let _ = writeln!(self.out, "gatehouse_{name}_count {count}");
    }
}
