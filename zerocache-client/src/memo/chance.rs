//! Random choices about lifetimes: refreshing ahead of the expiry, and jitter.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ttl::TTL_MIN;

/// Returns a uniformly distributed random number from 0 to below 1.
pub(crate) fn unit_interval() -> f64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static DRAWS: AtomicU64 = AtomicU64::new(0);
    let random = SEED.hash_one(DRAWS.fetch_add(1, Ordering::Relaxed));
    // The upper 53 bits: as many as the fraction of the number has.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// Returns true if a caller that drew `random` refreshes a value that is fresh for another `fresh_ms`, where
/// refreshing begins `ahead_ms` before the expiry.
///
/// The probability rises with the fourth power of the time that has passed since refreshing began: a refresh
/// right at the begin is very unlikely, and among many callers one is almost certain before the expiry.
pub(crate) fn is_refresh_due(fresh_ms: u64, ahead_ms: u64, random: f64) -> bool {
    if fresh_ms >= ahead_ms {
        return false;
    }
    let passed = 1.0 - fresh_ms as f64 / ahead_ms as f64;
    random < passed.powi(4)
}

/// Shortens a lifetime by at most `percent`, in proportion to `random`; never below the shortest lifetime.
pub(crate) fn with_jitter(lifetime: Duration, percent: u8, random: f64) -> Duration {
    let off = lifetime.mul_f64(f64::from(percent.min(100)) / 100.0 * random.clamp(0.0, 1.0));
    // A lifetime that is below the shortest already is not lengthened.
    lifetime.saturating_sub(off).max(TTL_MIN.min(lifetime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_uniform() {
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let random = unit_interval();
            assert!((0.0..1.0).contains(&random), "{random}");
            // It is below 1, so this is below 10.
            tenths[(random * 10.0) as usize] += 1;
        }
        // 1,000 expected in each, with a deviation of 30.
        assert!(tenths.iter().all(|count| (700..1_300).contains(count)), "{tenths:?}");
    }

    #[test]
    fn refresh_becomes_likelier_towards_the_expiry_and_is_never_due_before_its_time() {
        assert!(!is_refresh_due(30_000, 30_000, 0.0));
        assert!(!is_refresh_due(60_000, 30_000, 0.0));
        assert!(!is_refresh_due(5, 0, 0.0));
        // Half of the time has passed: one of sixteen.
        assert!(is_refresh_due(15_000, 30_000, 0.0624));
        assert!(!is_refresh_due(15_000, 30_000, 0.0626));
        // A tenth has passed: one of ten thousand.
        assert!(!is_refresh_due(27_000, 30_000, 0.000_11));
        assert!(is_refresh_due(0, 30_000, 0.999_999));
    }

    #[test]
    fn jitter_shortens_by_at_most_its_percentage() {
        let minute = Duration::from_secs(60);
        assert_eq!(with_jitter(minute, 0, 0.9), minute);
        assert_eq!(with_jitter(minute, 10, 0.0), minute);
        assert_eq!(with_jitter(minute, 10, 1.0), Duration::from_secs(54));
        assert_eq!(with_jitter(minute, 50, 0.5), Duration::from_secs(45));
        assert_eq!(with_jitter(TTL_MIN, 50, 0.9), TTL_MIN);
        let short = Duration::from_millis(1_100);
        assert_eq!(with_jitter(short, 50, 1.0), TTL_MIN);
    }
}
