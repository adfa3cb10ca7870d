//! The latency of recent requests: a histogram of fixed size in which old ones count ever less.

use core::time::Duration;

use super::buckets::{self, BUCKETS};

/// With fewer durations there is no percentile.
const TIMES_MIN: u32 = 64;

/// With more durations all counts are halved, so that the last few thousand decide.
const TIMES_MAX: u32 = 4_096;

/// The latencies of one node.
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
    /// Records the duration of a request.
    pub(super) fn record(&mut self, time: Duration) {
        if self.total >= TIMES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        self.counts[buckets::of(time)] += 1;
        self.total += 1;
    }

    /// The 95th percentile, rounded up to the end of its bucket; none before enough is known.
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
        Some(buckets::upper_end(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_percentile_is_near_the_true_one() {
        let mut times = Quantile::default();
        for n in 1..=63 {
            times.record(Duration::from_millis(n));
            assert_eq!(times.p95(), None);
        }
        for n in 0..937 {
            times.record(Duration::from_micros(1_000 + 100 * n));
        }
        let p95 = times.p95().unwrap();
        // The 95th percentile of what is almost 1 to 94.6 ms is near 90 ms.
        assert!((Duration::from_millis(85)..Duration::from_millis(115)).contains(&p95), "{p95:?}");
    }

    #[test]
    fn old_latencies_are_forgotten() {
        let mut times = Quantile::default();
        for _ in 0..100_000 {
            times.record(Duration::from_secs(1));
        }
        for _ in 0..30_000 {
            times.record(Duration::from_millis(1));
        }
        assert!(times.p95().unwrap() < Duration::from_millis(2));
        assert!(times.total <= TIMES_MAX);
    }
}
