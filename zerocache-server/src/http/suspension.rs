//! Detects that the process was suspended.
//!
//! A process that was stopped, or whose machine slept, finds requests in its socket buffers whose
//! callers have given up and whose lifetimes are older than stated. HTTP does not carry the time of
//! sending, so every request that may have been queued meanwhile is refused unread (contract
//! section 2).

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zerocache_net::clock;

/// A gap longer than this between two checks of the clock is a suspension, in milliseconds.
const GAP_MS_MAX: u64 = 2_000;

/// After a suspension, requests count as queued for this long, in milliseconds.
const REFUSE_MS: u64 = 250;

/// The interval of checks when nothing else happens, in milliseconds.
pub(super) const CHECK_EVERY_MS: u64 = 200;

/// A process is suspended as a whole, so all listeners share one detector.
static DETECTOR: Mutex<SuspensionDetector> = Mutex::new(SuspensionDetector::new());

/// The time of the last check in milliseconds, and in the lowest bit its result: the fast path of
/// frequent checks. Both are one number, so that they belong together; a late store only causes
/// another check.
static LAST_CHECK: AtomicU64 = AtomicU64::new(u64::MAX);

/// Checks the clock. Returns whether a request that is read now may have been queued while the
/// process was suspended.
pub(super) fn may_have_been_queued() -> bool {
    let now_ms = clock::coarse().as_millis();
    // Within one tick of the coarse clock nothing can have changed.
    let last = LAST_CHECK.load(Ordering::Relaxed);
    if last >> 1 == now_ms {
        return last & 1 == 1;
    }
    let refuses = DETECTOR.lock().check(now_ms);
    LAST_CHECK.store(now_ms << 1 | u64::from(refuses), Ordering::Relaxed);
    refuses
}

/// Checks the clock. Returns the number of suspensions so far.
pub fn count() -> u64 {
    let mut detector = DETECTOR.lock();
    detector.check(clock::coarse().as_millis());
    detector.suspensions
}

/// Compares each check with the one before: the first check after a suspension sees the gap.
#[derive(Debug)]
struct SuspensionDetector {
    last_ms: Option<u64>,
    refuse_until_ms: u64,
    suspensions: u64,
}

impl SuspensionDetector {
    const fn new() -> Self {
        Self { last_ms: None, refuse_until_ms: 0, suspensions: 0 }
    }

    fn check(&mut self, now_ms: u64) -> bool {
        let last_ms = self.last_ms.unwrap_or(now_ms);
        self.last_ms = Some(now_ms.max(last_ms));
        let suspended_ms = now_ms.saturating_sub(last_ms);
        if suspended_ms > GAP_MS_MAX {
            tracing::warn!(
                suspended_ms,
                "process was suspended: rejecting requests queued meanwhile"
            );
            self.refuse_until_ms = now_ms + REFUSE_MS;
            self.suspensions += 1;
        }
        now_ms < self.refuse_until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_refused_for_a_while_after_a_gap_only() {
        let mut detector = SuspensionDetector::new();
        assert!(!detector.check(50_000));
        assert!(!detector.check(50_200));
        assert!(!detector.check(52_200));
        assert!(detector.check(54_201));
        assert!(detector.check(54_450));
        assert!(!detector.check(54_451));
        assert_eq!(detector.suspensions, 1);
    }
}
