//! What chance has to do with lifetimes: when a value is computed anew ahead of its end, and how
//! much shorter than asked for it lives.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ttl::TTL_MIN;

/// A number of at least 0 and less than 1, each as likely as the others.
pub(crate) fn chance() -> f64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let drawn = SEED.hash_one(DRAWN.fetch_add(1, Ordering::Relaxed));
    // The upper 53 bits: as many as the fraction of the number has.
    (drawn >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether a caller who draws `chance` computes a value anew that is fresh for `fresh_ms` more,
/// where that begins `ahead_ms` before the end.
///
/// The probability rises with the fourth power of the time that has passed of those: almost nobody
/// begins early, and of many callers one is all but sure to come before the end.
pub(crate) fn is_due(fresh_ms: u64, ahead_ms: u64, chance: f64) -> bool {
    if fresh_ms >= ahead_ms {
        return false;
    }
    let passed = 1.0 - fresh_ms as f64 / ahead_ms as f64;
    chance < passed.powi(4)
}

/// A lifetime of which `chance` takes a part of at most `percent`; never below the shortest one.
pub(crate) fn shortened(lifetime: Duration, percent: u8, chance: f64) -> Duration {
    let off = lifetime.mul_f64(f64::from(percent.min(100)) / 100.0 * chance.clamp(0.0, 1.0));
    // A lifetime that is below the shortest already is not lengthened.
    lifetime.saturating_sub(off).max(TTL_MIN.min(lifetime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_spread_over_its_range() {
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let drawn = chance();
            assert!((0.0..1.0).contains(&drawn), "{drawn}");
            // It is below 1, so this is below 10.
            tenths[(drawn * 10.0) as usize] += 1;
        }
        // 1,000 expected in each, with a deviation of 30.
        assert!(tenths.iter().all(|count| (700..1_300).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_refresh_is_never_due_before_its_time_and_likelier_towards_the_end() {
        assert!(!is_due(30_000, 30_000, 0.0));
        assert!(!is_due(60_000, 30_000, 0.0));
        assert!(!is_due(5, 0, 0.0));
        // Half of the time has passed: one of sixteen.
        assert!(is_due(15_000, 30_000, 0.0624));
        assert!(!is_due(15_000, 30_000, 0.0626));
        // A tenth has passed: one of ten thousand.
        assert!(!is_due(27_000, 30_000, 0.000_11));
        assert!(is_due(0, 30_000, 0.999_999));
    }

    #[test]
    fn jitter_takes_off_at_most_its_part() {
        let minute = Duration::from_secs(60);
        assert_eq!(shortened(minute, 0, 0.9), minute);
        assert_eq!(shortened(minute, 10, 0.0), minute);
        assert_eq!(shortened(minute, 10, 1.0), Duration::from_secs(54));
        assert_eq!(shortened(minute, 50, 0.5), Duration::from_secs(45));
        assert_eq!(shortened(TTL_MIN, 50, 0.9), TTL_MIN);
        let short = Duration::from_millis(1_100);
        assert_eq!(shortened(short, 50, 1.0), TTL_MIN);
    }
}
