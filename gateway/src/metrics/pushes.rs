//! What is counted of push calls as they are written: by the one thread that does it.

use super::{Counter, Gauge, render::render_line};

/// How many, how well, and into what.
#[derive(Debug, Default)]
pub struct PushMetrics {
    /// Calls on the disk.
    pub calls_total: Counter,
    /// Times that a batch of them could not be written.
    pub failures_total: Counter,
    /// 1 while they cannot.
    pub failing: Gauge,
    /// Bytes of the file that they are written into.
    pub file_bytes: Gauge,
}

impl PushMetrics {
    /// Appends everything, as Prometheus text.
    pub fn render(&self, out: &mut String) {
        let lines = [
            ("push_calls_total", "Push calls written.", "counter", self.calls_total.value()),
            (
                "push_failures_total",
                "Times that push calls could not be written; they are written later.",
                "counter",
                self.failures_total.value(),
            ),
            ("push_failing", "1 while push calls cannot be written.", "gauge", self.failing.value()),
            (
                "push_file_bytes",
                "Bytes of the file of push calls, when it was last written.",
                "gauge",
                self.file_bytes.value(),
            ),
        ];
        for (name, help, kind, value) in lines {
            render_line(name, help, kind, value, out);
        }
    }
}
