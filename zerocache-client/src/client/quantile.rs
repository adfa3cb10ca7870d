//! How long requests take as a rule: a histogram of fixed size that forgets slowly.

use std::time::Duration;

use super::buckets::{self, BUCKETS};

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
        self.counts[buckets::of(time)] += 1;
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
        Some(buckets::upper_end(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
