//! What is counted of search: written by its two threads, each its own.

use std::fmt::Write as _;

use super::{Counter, Gauge, render::render_line};

/// How much there is, how far it is, and how often it is asked.
#[derive(Debug, Default)]
pub struct SearchMetrics {
    /// Messages in the index.
    pub documents: Gauge,
    /// Bytes of the logs that are durable and not read for the index.
    pub lag_bytes: Gauge,
    /// Records that were read for it.
    pub records_total: Counter,
    /// Bytes that were read for it.
    pub read_bytes_total: Counter,
    /// Commits.
    pub commits_total: Counter,
    /// Times that the index was removed to be made again.
    pub rebuilds_total: Counter,
    /// Times that something could not be read or written.
    pub failures_total: Counter,
    /// What shards have asked.
    pub queries_total: Counter,
    /// How long that took, in microseconds.
    pub query_micros_total: Counter,
}

impl SearchMetrics {
    /// Appends everything, as Prometheus text.
    pub fn render(&self, out: &mut String) {
        let lines = [
            ("search_documents", "Messages in the index of words.", "gauge", self.documents.value()),
            (
                "search_lag_bytes",
                "Durable bytes of the logs that are not read for the index of words yet.",
                "gauge",
                self.lag_bytes.value(),
            ),
            (
                "search_records_total",
                "Records read for the index of words.",
                "counter",
                self.records_total.value(),
            ),
            (
                "search_read_bytes_total",
                "Bytes of the logs read for the index of words.",
                "counter",
                self.read_bytes_total.value(),
            ),
            (
                "search_commits_total",
                "Times that the index of words was written and synced.",
                "counter",
                self.commits_total.value(),
            ),
            (
                "search_rebuilds_total",
                "Times that the index of words was removed, to be made again.",
                "counter",
                self.rebuilds_total.value(),
            ),
            (
                "search_failures_total",
                "Times that the index of words could not be read or written.",
                "counter",
                self.failures_total.value(),
            ),
        ];
        for (name, help, kind, value) in lines {
            render_line(name, help, kind, value, out);
        }
        let (queries, micros) = (self.queries_total.value(), self.query_micros_total.value());
        let _ = writeln!(
            out,
            "# HELP gatehouse_search_seconds How long the index of words took for a question.\n# TYPE gatehouse_search_seconds summary\n\
             gatehouse_search_seconds_sum {}.{:06}\ngatehouse_search_seconds_count {queries}",
            micros / 1_000_000,
            micros % 1_000_000
        );
    }
}
