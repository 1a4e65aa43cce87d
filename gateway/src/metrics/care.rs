//! What the caretaker counts: written by its thread alone.

use std::fmt::Write as _;

use super::{Counter, Gauge, render::render_line};
use crate::caretaker::space::Space;

/// What was looked through, and what was found.
#[derive(Debug)]
pub struct CareMetrics {
    /// Bytes of segments and index files read by the scrubber.
    pub scrub_bytes_total: Counter,
    /// Records found damaged by the scrubber, each once a start; a range whose records cannot be counted is one.
    pub scrub_damaged_records_total: Counter,
    /// Index files found damaged or missing by the scrubber.
    pub scrub_damaged_indexes_total: Counter,
    /// Damaged places copied.
    pub quarantined_total: Counter,
    /// Bytes of all copies.
    pub quarantine_bytes: Gauge,
    /// Bytes that a node may use of the disk of the data directory, those in use included.
    pub data_bytes: Gauge,
    /// Those of them that are free.
    pub data_free_bytes: Gauge,
    /// In how many of a hundred periods of the last ten seconds a control group did not let the node run.
    pub held_back_percent: Gauge,
    /// 1 from where that is many until it is few.
    pub is_held_back: Gauge,
    /// When a pass over each log last ended, in seconds since 1970.
    pub last_pass_seconds: Box<[Gauge]>,
}

impl CareMetrics {
    /// Of a node with so many logs.
    #[must_use]
    pub fn new(logs: u16) -> Self {
        Self {
            scrub_bytes_total: Counter::default(),
            scrub_damaged_records_total: Counter::default(),
            scrub_damaged_indexes_total: Counter::default(),
            quarantined_total: Counter::default(),
            quarantine_bytes: Gauge::default(),
            data_bytes: Gauge::default(),
            data_free_bytes: Gauge::default(),
            held_back_percent: Gauge::default(),
            is_held_back: Gauge::default(),
            last_pass_seconds: (0..logs).map(|_| Gauge::default()).collect(),
        }
    }

    /// How full the disk of the data directory is, on a line; empty when there is room.
    #[must_use]
    pub fn full_disk(&self) -> String {
        let space = Space { total: self.data_bytes.value(), free: self.data_free_bytes.value() };
        let line =
            |words| format!("the disk of the data directory is {} % full: {words}\n", space.used_percent());
        space.watermark().words().map_or_else(String::new, line)
    }

    /// That the node has too little of the cores, on a line; empty when it has what it needs, or nothing bounds it.
    #[must_use]
    pub fn held_back(&self) -> String {
        let percent = self.held_back_percent.value();
        if self.is_held_back.value() == 0 {
            return String::new();
        }
        format!(
            "degraded: a control group did not let the node run in {percent} of 100 periods (CPUQuota): everything is late\n"
        )
    }

    /// Appends everything, as Prometheus text.
    pub fn render(&self, out: &mut String) {
        let mut line = |name: &str, help: &str, kind: &str, value: u64| {
            render_line(name, help, kind, value, out);
        };
        let counter = "counter";
        line(
            "scrub_bytes_total",
            "Bytes looked through by the scrubber.",
            counter,
            self.scrub_bytes_total.value(),
        );
        let (records, indexes) = (&self.scrub_damaged_records_total, &self.scrub_damaged_indexes_total);
        line(
            "scrub_damaged_records_total",
            "Records found damaged by the scrubber.",
            counter,
            records.value(),
        );
        line(
            "scrub_damaged_indexes_total",
            "Index files found damaged by the scrubber.",
            counter,
            indexes.value(),
        );
        line("quarantined_total", "Damaged places copied.", counter, self.quarantined_total.value());
        line(
            "quarantine_bytes",
            "Bytes of all copies of damaged places.",
            "gauge",
            self.quarantine_bytes.value(),
        );
        let (bytes, free) = (self.data_bytes.value(), self.data_free_bytes.value());
        line("data_bytes", "Bytes of the disk of the data directory that a node may use.", "gauge", bytes);
        line("data_free_bytes", "Bytes of the disk of the data directory that are free.", "gauge", free);
        let held_back = "Periods in a hundred, of the last ten seconds, in which a control group did not let the node run.";
        line("cpu_held_back_percent", held_back, "gauge", self.held_back_percent.value());
        let name = "gatehouse_scrub_last_pass_timestamp_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} When the scrubber last came to the end of a log; 0 is never.\n# TYPE {name} gauge"
        );
        for (log, ended) in self.last_pass_seconds.iter().enumerate() {
            let _ = writeln!(out, "{name}{{log=\"{log}\"}} {}", ended.value());
        }
    }
}
