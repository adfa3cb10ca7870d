//! What waited in sockets while the process stood still.
//!
//! A process that was stopped, or whose machine slept, finds requests in its buffers whose callers
//! have long given up and whose lifetimes are older than they say. HTTP does not tell when a request
//! was sent, so that all that could have waited is refused unread (contract section 2).

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zerocache_net::clock;

/// Standing still for longer than this, in milliseconds, is a pause.
const PAUSE_MS: u64 = 2_000;

/// For this long after a pause, in milliseconds, requests count as having waited through it.
const AFTER_MS: u64 = 250;

/// How often the watch looks at the clock when nothing else happens, in milliseconds.
pub(super) const BEAT_MS: u64 = 200;

/// A process stands still as a whole, so that all listeners in it share one watch.
static WATCH: Mutex<PauseWatch> = Mutex::new(PauseWatch::new());

/// When somebody last looked, in milliseconds, and in the lowest bit what it showed: for those who look
/// often. One number, so that both belong together; one that is stored late only leads to a new look.
static LAST_LOOK: AtomicU64 = AtomicU64::new(u64::MAX);

/// Looks at the clock; whether a request that is read now may have waited through a pause.
pub(super) fn may_have_waited() -> bool {
    let now_ms = clock::coarse().as_millis();
    // Within one tick of the coarse clock nothing can have changed.
    let last = LAST_LOOK.load(Ordering::Relaxed);
    if last >> 1 == now_ms {
        return last & 1 == 1;
    }
    let refuses = WATCH.lock().look(now_ms);
    LAST_LOOK.store(now_ms << 1 | u64::from(refuses), Ordering::Relaxed);
    refuses
}

/// Looks at the clock; how many pauses there were so far.
pub(super) fn count() -> u64 {
    let mut watch = WATCH.lock();
    watch.look(clock::coarse().as_millis());
    watch.pauses
}

/// Notices that the process stood still: whoever looks at the clock first sees the gap.
#[derive(Debug)]
struct PauseWatch {
    last_ms: Option<u64>,
    refuse_until_ms: u64,
    pauses: u64,
}

impl PauseWatch {
    const fn new() -> Self {
        Self { last_ms: None, refuse_until_ms: 0, pauses: 0 }
    }

    fn look(&mut self, now_ms: u64) -> bool {
        let last_ms = self.last_ms.unwrap_or(now_ms);
        self.last_ms = Some(now_ms.max(last_ms));
        let stood_still_ms = now_ms.saturating_sub(last_ms);
        if stood_still_ms > PAUSE_MS {
            tracing::warn!(stood_still_ms, "this process stood still; what waited is refused");
            self.refuse_until_ms = now_ms + AFTER_MS;
            self.pauses += 1;
        }
        now_ms < self.refuse_until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_for_a_while_after_a_gap_only() {
        let mut watch = PauseWatch::new();
        assert!(!watch.look(50_000));
        assert!(!watch.look(50_200));
        assert!(!watch.look(52_200));
        assert!(watch.look(54_201));
        assert!(watch.look(54_450));
        assert!(!watch.look(54_451));
        assert_eq!(watch.pauses, 1);
    }
}
