//! Buckets of durations for histograms, accurate to a quarter.

use core::time::Duration;

/// Buckets for each doubling, as a power of two: the end of a bucket is at most a quarter above its
/// begin.
const STEP_BITS: u32 = 2;
const STEPS: u64 = 1 << STEP_BITS;

/// Durations below this are one bucket, in nanoseconds, as a power of two.
const SHORTEST_BITS: u32 = 10;
const SHORTEST_NS: u64 = 1 << SHORTEST_BITS;

/// Doublings above that: up to about 34 s.
const DOUBLINGS: u64 = 25;

/// Longer durations count as this long, in nanoseconds.
const LONGEST_NS: u64 = (SHORTEST_NS << DOUBLINGS) - 1;

/// The number of buckets.
pub const BUCKETS: usize = (STEPS * DOUBLINGS) as usize + 1;

/// The bucket of a duration, below [`BUCKETS`].
#[must_use]
pub fn of(time: Duration) -> usize {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(LONGEST_NS);
    if ns < SHORTEST_NS {
        return 0;
    }
    let doubling = (ns >> SHORTEST_BITS).ilog2();
    // The bits behind the highest one tell the part of the doubling in which it lies.
    let step = (ns >> (SHORTEST_BITS - STEP_BITS + doubling)) % STEPS;
    // Below BUCKETS, as the time is at most the longest.
    (u64::from(doubling) * STEPS + step + 1) as usize
}

/// The end of a bucket: every duration in it is shorter.
#[must_use]
pub fn upper_end(bucket: usize) -> Duration {
    let Some(at) = (bucket as u64).checked_sub(1) else { return Duration::from_nanos(SHORTEST_NS) };
    let base_ns = SHORTEST_NS << (at / STEPS);
    Duration::from_nanos(base_ns + base_ns * (at % STEPS + 1) / STEPS)
}

/// The middle of a bucket. No duration in it is further away than an eighth.
#[must_use]
pub fn middle(bucket: usize) -> Duration {
    let begin = bucket.checked_sub(1).map_or(Duration::ZERO, upper_end);
    (begin + upper_end(bucket)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_below_the_end_of_its_bucket_by_a_quarter_at_most() {
        let times = (0..100_000).map(Duration::from_nanos);
        let times = times.chain((0..100_000).map(Duration::from_micros));
        for time in times.chain([1 << 20, 33_000_000].map(Duration::from_micros)) {
            let end = upper_end(of(time));
            assert!(time < end, "{time:?} {end:?}");
            let most = time + time / 4 + Duration::from_nanos(SHORTEST_NS);
            assert!(end <= most, "{time:?} {end:?}");
            let off = middle(of(time)).abs_diff(time);
            assert!(off <= time / 8 + Duration::from_nanos(SHORTEST_NS / 2), "{time:?} {off:?}");
        }
        assert_eq!(of(Duration::MAX), BUCKETS - 1);
    }
}
