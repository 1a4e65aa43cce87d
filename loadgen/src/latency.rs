//! Latencies: an HDR histogram in microseconds, and the form in which it crosses a pipe.
//!
//! Invariant: merging loses nothing, because all histograms have the same buckets.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Ten minutes: longer than any run waits for anything.
const MICROS_MAX: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The values and counts of a histogram, in microseconds.
pub(crate) type Buckets = Vec<(u64, u64)>;

/// Latencies of one kind.
#[derive(Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MICROS_MAX, SIGNIFICANT_DIGITS);
        Self(histogram.expect("the bounds are constants that fit each other"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record((latency.as_micros() as u64).max(1));
    }

    pub(crate) fn merge(&mut self, buckets: &[(u64, u64)]) {
        for (micros, count) in buckets {
            self.0.saturating_record_n(*micros, *count);
        }
    }

    pub(crate) fn buckets(&self) -> Buckets {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// What was recorded, leaving nothing behind.
    pub(crate) fn take_buckets(&mut self) -> Buckets {
        let buckets = self.buckets();
        self.0.reset();
        buckets
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds; `None` when nothing was recorded.
    pub(crate) fn percentile_ms(&self, percentile: f64) -> Option<f64> {
        (self.count() > 0).then(|| self.0.value_at_percentile(percentile) as f64 / 1000.0)
    }

    pub(crate) fn summary(&self) -> Summary {
        let at = |percentile| self.percentile_ms(percentile).unwrap_or_default();
        Summary {
            count: self.count(),
            p50_ms: at(50.0),
            p90_ms: at(90.0),
            p99_ms: at(99.0),
            p99_9_ms: at(99.9),
            max_ms: at(100.0),
        }
    }
}

/// The percentiles people ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p99_9_ms: f64,
    pub(crate) max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_over_the_pipe_loses_nothing() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        for micros in (1..100_000).step_by(7) {
            one.record(Duration::from_micros(micros));
        }
        other.merge(&one.buckets());
        assert_eq!(one.summary(), other.summary());
        assert_eq!(one.take_buckets(), other.buckets());
        assert_eq!(one.percentile_ms(50.0), None);
    }
}
