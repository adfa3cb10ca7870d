//! Histograms that requests fill, and their contents at one moment.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use zerocache_core::node::{DELAYS_MS, DelayCounts};

/// The most buckets of a histogram, the last one without an upper bound.
const BUCKETS_MAX: usize = 17;

/// Upper bounds of the buckets of durations, in microseconds: 50 µs, twice as much each, to 1.6 s.
pub(super) const DURATIONS_US: [u64; 16] = {
    let mut bounds = [50; 16];
    let mut index = 1;
    while index < bounds.len() {
        bounds[index] = bounds[index - 1] * 2;
        index += 1;
    }
    bounds
};

/// Upper bounds of the buckets of sizes, in bytes: 64 bytes, four times as much each, to 16 MiB.
pub(super) const SIZES: [u64; 10] =
    [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

/// Counts of values between fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl Histogram {
    pub(super) const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() < BUCKETS_MAX);
        Self { bounds, counts: [const { AtomicU64::new(0) }; BUCKETS_MAX], sum: AtomicU64::new(0) }
    }

    /// Counts `value`, which stands for `weight` values.
    pub(crate) fn record(&self, value: u64, weight: u64) {
        self.add(self.bucket(value), weight, value.saturating_mul(weight));
    }

    /// Counts values. Those that follow one another in a bucket cost as much as one.
    pub(crate) fn record_all(&self, values: impl Iterator<Item = u64>) {
        let mut run = (0, 0, 0_u64);
        for value in values {
            let (bucket, count, sum) = run;
            let of_value = self.bucket(value);
            run = if of_value == bucket {
                (bucket, count + 1, sum.saturating_add(value))
            } else {
                self.add(bucket, count, sum);
                (of_value, 1, value)
            };
        }
        let (bucket, count, sum) = run;
        self.add(bucket, count, sum);
    }

    fn bucket(&self, value: u64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }

    /// Adds so many values of a bucket, and their sum.
    fn add(&self, bucket: usize, count: u64, sum: u64) {
        if count > 0 {
            self.counts[bucket].fetch_add(count, Ordering::Relaxed);
            self.sum.fetch_add(sum, Ordering::Relaxed);
        }
    }

    /// Returns the current counts.
    #[must_use]
    pub fn get(&self) -> Distribution {
        let counts = &self.counts[..=self.bounds.len()];
        Distribution {
            bounds: self.bounds,
            counts: counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// The contents of a histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bounds of the buckets but for the last one, which has none.
    pub bounds: &'static [u64],
    /// Values in each bucket, one more than there are bounds.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
}

impl From<&DelayCounts> for Distribution {
    fn from(delays: &DelayCounts) -> Self {
        Self { bounds: &DELAYS_MS, counts: delays.counts.to_vec(), sum: delays.sum_ms }
    }
}

impl Distribution {
    /// Returns the number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the upper bound of the bucket in which the value lies that `percent` of all values do not
    /// exceed, or the highest bound if that bucket has none. None without a value.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let count = self.count();
        let rank = (count * percent).div_ceil(100).max(1);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        self.bounds.get(bucket).or(self.bounds.last()).copied()
    }

    /// Returns the values that `before` does not have.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let counts = self.counts.iter().zip(&before.counts);
        Self {
            bounds: self.bounds,
            counts: counts.map(|(now, before)| now.saturating_sub(*before)).collect(),
            sum: self.sum.saturating_sub(before.sum),
        }
    }
}

/// As in `/v1/stats`: of the buckets, those that are not empty.
impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let buckets: Vec<_> = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(index, count)| (self.bounds.get(index).copied(), *count))
            .collect();
        let mut fields = serializer.serialize_struct("Distribution", 5)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum", &self.sum)?;
        fields.serialize_field("p50", &self.percentile(50))?;
        fields.serialize_field("p99", &self.percentile(99))?;
        fields.serialize_field("buckets", &buckets)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_and_with_the_bound() {
        let histogram = Histogram::new(&SIZES);
        let values = [0, 64, 65, 256, 16 << 20, (16 << 20) + 1];
        for value in values {
            histogram.record(value, 1);
        }
        let together = Histogram::new(&SIZES);
        together.record_all([].into_iter());
        together.record_all(values.into_iter());
        assert_eq!(together.get(), histogram.get());
        let mut counts = [0; SIZES.len() + 1];
        (counts[0], counts[1], counts[9], counts[10]) = (2, 2, 1, 1);
        let now = histogram.get();
        assert_eq!(now.counts, counts);
        assert_eq!((now.count(), now.sum), (6, (32 << 20) + 386));
        assert_eq!(DURATIONS_US[15], 1_638_400);
    }

    #[test]
    fn percentiles_are_the_bounds_of_their_buckets() {
        let histogram = Histogram::new(&DURATIONS_US);
        assert_eq!(histogram.get().percentile(50), None);
        histogram.record(10, 64);
        let before = histogram.get();
        assert_eq!((before.percentile(50), before.percentile(99)), (Some(50), Some(50)));
        histogram.record(300, 30);
        histogram.record(9_000_000, 6);
        let now = histogram.get();
        assert_eq!(now.percentile(50), Some(50));
        assert_eq!(now.percentile(90), Some(400));
        // Beyond all bounds.
        assert_eq!(now.percentile(99), Some(1_638_400));
        assert_eq!(now.since(&before).percentile(50), Some(400));
        assert_eq!(now.since(&before).count(), 36);
    }

    #[test]
    fn only_full_buckets_are_in_the_json() {
        let histogram = Histogram::new(&SIZES);
        histogram.record(100, 3);
        histogram.record(1 << 30, 1);
        let json = serde_json::to_value(histogram.get()).expect("JSON");
        let wanted = serde_json::json!({
            "count": 4, "sum": 300 + (1 << 30), "p50": 256, "p99": 16 << 20,
            "buckets": [[256, 3], [null, 1]],
        });
        assert_eq!(json, wanted);
    }
}
