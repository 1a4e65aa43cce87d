//! What is counted of keys that are read or fetched again: written by the control plane's thread alone.

use super::{Counter, Gauge, render::render_line};

/// How often, how well, and how many there are.
#[derive(Debug, Default)]
pub struct KeyMetrics {
    /// Times that a set of keys was read or fetched again.
    pub fetches_total: Counter,
    /// Times that it could not be used: the keys of before stayed in force.
    pub failures_total: Counter,
    /// Keys in force, of a set.
    pub keys: Gauge,
    /// When a set was last read or fetched that can be used, in seconds since 1970.
    pub fetched_seconds: Gauge,
}

impl KeyMetrics {
    /// Appends everything, as Prometheus text.
    pub fn render(&self, out: &mut String) {
        let lines = [
            (
                "jwks_fetches_total",
                "Times that a set of keys was fetched, or its file read again.",
                "counter",
                self.fetches_total.value(),
            ),
            (
                "jwks_fetch_failures_total",
                "Times that a set of keys could not be fetched, read or used; those of before stayed.",
                "counter",
                self.failures_total.value(),
            ),
            ("jwks_keys", "Keys of the set that is in force.", "gauge", self.keys.value()),
            (
                "jwks_fetched_timestamp_seconds",
                "When a set was last fetched or read that can be used; 0 is not since the start.",
                "gauge",
                self.fetched_seconds.value(),
            ),
        ];
        for (name, help, kind, value) in lines {
            render_line(name, help, kind, value, out);
        }
    }
}
