//! A histogram of whole numbers, ten to a hundred million, with two digits at best.
//!
//! Decimal on purpose: up to 10 every number has a bucket; above, each decade `(10^k, 10^(k+1)]` is cut
//! into 18 equal parts, so that 1, 2 and 5 of every decade are exactly the end of a bucket. A printed
//! bound such as `le="0.2"` is therefore exact, and 200 ms can be alerted on.
//!
//! Invariant: a value `v` is in the bucket whose bounds give `low < v <= high`, as Prometheus reads `le`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers with a bucket of their own: 0 and 1 share the first.
const SINGLE: usize = 10;
/// Buckets of one decade, each half the decade's first number wide.
const PER_DECADE: usize = 18;
/// Decades above the single ones: up to 10^8, which is 100 s in microseconds.
const DECADES: usize = 7;
/// The last one takes everything above.
const BUCKETS: usize = SINGLE + PER_DECADE * DECADES + 1;

/// A distribution with one writer.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one value: microseconds, bytes or records, as the histogram's owner says.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts `count` equal values, such as all messages that one sync made durable.
    #[inline]
    pub fn record_many(&self, value: u64, count: u64) {
        let bucket = &self.buckets[bucket_of(value)];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed).wrapping_add(value.wrapping_mul(count));
        self.sum.store(sum, Ordering::Relaxed);
    }
}

/// Several histograms added up, at one moment.
pub(super) struct Snapshot {
    buckets: [u64; BUCKETS],
    /// Of all values.
    pub(super) sum: u64,
}

impl Snapshot {
    /// Adds up.
    pub(super) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut snapshot = Self { buckets: [0; BUCKETS], sum: 0 };
        for histogram in histograms {
            for (total, bucket) in snapshot.buckets.iter_mut().zip(&histogram.buckets) {
                *total += bucket.load(Ordering::Relaxed);
            }
            snapshot.sum = snapshot.sum.wrapping_add(histogram.sum.load(Ordering::Relaxed));
        }
        snapshot
    }

    /// How many values there are.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How many values are at most `bound`, which must be the end of a bucket.
    pub(super) fn count_to(&self, bound: u64) -> u64 {
        debug_assert_ne!(bucket_of(bound), bucket_of(bound + 1), "{bound} ends no bucket");
        self.buckets[..=bucket_of(bound)].iter().sum()
    }
}

fn bucket_of(value: u64) -> usize {
    if value <= SINGLE as u64 {
        return (value as usize).saturating_sub(1);
    }
    // Bounds are inclusive above, so everything is counted from one less.
    let below = value - 1;
    let decade = below.ilog10();
    let first = 10u64.pow(decade);
    let part = ((below - first) / (first / 2)) as usize;
    (SINGLE + PER_DECADE * (decade as usize - 1) + part).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_ends_at_or_above_them() {
        assert_eq!([0, 1, 2, 10].map(bucket_of), [0, 0, 1, 9]);
        assert_eq!([11, 15, 16, 20, 21, 100, 101].map(bucket_of), [10, 10, 11, 11, 12, 27, 28]);
        assert_eq!(
            [100_000_000, 100_000_001, u64::MAX].map(bucket_of),
            [BUCKETS - 2, BUCKETS - 1, BUCKETS - 1]
        );
    }

    #[test]
    fn one_two_and_five_of_every_decade_are_exact_bounds() {
        for decade in 0..8 {
            for digit in [1, 2, 5] {
                let bound = digit * 10u64.pow(decade);
                let histogram = Histogram::default();
                histogram.record(bound);
                histogram.record(bound + 1);
                let snapshot = Snapshot::of([&histogram].into_iter());
                assert_eq!((snapshot.count_to(bound), snapshot.count()), (1, 2), "at {bound}");
                assert_eq!(snapshot.sum, 2 * bound + 1);
            }
        }
    }

    #[test]
    fn buckets_never_go_back_as_values_grow() {
        let mut previous = 0;
        for value in 0..2_000_000u64 {
            let bucket = bucket_of(value);
            assert!(bucket == previous || bucket == previous + 1, "at {value}: {previous} then {bucket}");
            previous = bucket;
        }
    }
}
