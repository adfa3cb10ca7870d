//! How long requests take as a rule: a histogram of fixed size that forgets slowly.

use std::time::Duration;

/// Buckets for each doubling: what is told is at most a quarter too long.
const STEPS: u32 = 4;

/// Times below this are one bucket, in microseconds: timers are coarser by far.
const SHORTEST_US: u64 = 64;

/// Doublings above that: up to about 33 s.
const DOUBLINGS: u32 = 19;

/// What takes longer counts as this long, in microseconds.
const LONGEST_US: u64 = (SHORTEST_US << DOUBLINGS) - 1;

const BUCKETS: usize = (STEPS * DOUBLINGS) as usize + 1;

/// With fewer times nothing is told.
const TIMES_MIN: u32 = 64;

/// With more times all counts are halved, so that the last few thousand decide.
const TIMES_MAX: u32 = 4_096;

/// Times of requests to one node.
#[derive(Clone, Debug)]
pub(super) struct Quantile {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Default for Quantile {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Quantile {
    /// A request took this long.
    pub(super) fn note(&mut self, time: Duration) {
        if self.total >= TIMES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        self.counts[bucket(time)] += 1;
        self.total += 1;
    }

    /// The time below which 95 of 100 requests stay, a little rounded up; none before enough is known.
    pub(super) fn p95(&self) -> Option<Duration> {
        if self.total < TIMES_MIN {
            return None;
        }
        let beyond = self.total / 20;
        let mut above = 0;
        let at = self.counts.iter().rposition(|count| {
            above += u32::from(*count);
            above > beyond
        })?;
        Some(upper_end(at))
    }
}

fn bucket(time: Duration) -> usize {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(LONGEST_US);
    let units = us / SHORTEST_US;
    if units == 0 {
        return 0;
    }
    let doubling = units.ilog2();
    // The part of the doubling in which it lies, from what is above the power of two.
    let step = (us - (SHORTEST_US << doubling)) * u64::from(STEPS) / (SHORTEST_US << doubling);
    let at = u64::from(doubling * STEPS) + step + 1;
    usize::try_from(at).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
}

fn upper_end(bucket: usize) -> Duration {
    let (doubling, step) = match u32::try_from(bucket) {
        Ok(at @ 1..) => ((at - 1) / STEPS, (at - 1) % STEPS),
        _ => return Duration::from_micros(SHORTEST_US),
    };
    let base_us = SHORTEST_US << doubling;
    Duration::from_micros(base_us + base_us * u64::from(step + 1) / u64::from(STEPS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_below_the_end_of_its_bucket_and_not_far() {
        for us in (0..100_000).chain([1 << 20, 33_000_000]) {
            let time = Duration::from_micros(us);
            let end = upper_end(bucket(time));
            assert!(time < end, "{time:?} {end:?}");
            let most = Duration::from_micros(us + us / 4 + SHORTEST_US);
            assert!(end <= most, "{time:?} {end:?}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn five_of_a_hundred_are_beyond() {
        let mut times = Quantile::default();
        for n in 1..=63 {
            times.note(Duration::from_millis(n));
            assert_eq!(times.p95(), None);
        }
        for n in 0..937 {
            times.note(Duration::from_micros(1_000 + 100 * n));
        }
        let p95 = times.p95().unwrap();
        // The 95th percentile of what is almost 1 to 94.6 ms is near 90 ms.
        assert!((Duration::from_millis(85)..Duration::from_millis(115)).contains(&p95), "{p95:?}");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut times = Quantile::default();
        for _ in 0..100_000 {
            times.note(Duration::from_secs(1));
        }
        for _ in 0..30_000 {
            times.note(Duration::from_millis(1));
        }
        assert!(times.p95().unwrap() < Duration::from_millis(2));
        assert!(times.total <= TIMES_MAX);
    }
}
