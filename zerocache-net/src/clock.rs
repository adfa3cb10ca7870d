//! The clocks of a process; no other code reads them.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod coarse;
#[cfg(any(test, feature = "test-clock"))]
pub mod testing;

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use zerocache_core::time::{Instant, Now};

/// The wall clock and the monotonic clock at the first reading of the process.
///
/// Wall time is counted from here by the monotonic clock, so that a step of the wall clock affects neither
/// versions nor lifetimes.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    mono: Duration,
    wall: Duration,
}

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

/// Returns the present: milliseconds since the first reading of the process, and since the Unix epoch.
#[must_use]
pub fn now() -> Now {
    at(anchor(), monotonic())
}

/// Returns the monotonic part of [`now`].
#[must_use]
pub fn mono() -> Instant {
    now().mono
}

/// Returns [`now`] as of the kernel's last tick, at most 10 ms ago, at half the cost: precise enough for
/// lifetimes.
///
/// It is never ahead of [`now`] and includes suspended time like it. On systems without such a clock it is
/// [`now`].
#[must_use]
#[inline]
pub fn coarse_now() -> Now {
    #[cfg(any(test, feature = "test-clock"))]
    if let Some(mono) = testing::monotonic() {
        return at(anchor(), mono);
    }
    system_coarse()
}

/// Returns the monotonic part of [`coarse_now`].
#[must_use]
#[inline]
pub fn coarse() -> Instant {
    coarse_now().mono
}

/// Returns the time since the first reading of the process, with nanoseconds, for measurements.
#[must_use]
pub fn elapsed() -> Duration {
    monotonic().saturating_sub(anchor().mono)
}

/// Returns the instant at which [`elapsed`] had this value.
#[must_use]
pub fn instant(elapsed: Duration) -> Instant {
    Instant::from_millis(millis(elapsed))
}

/// Returns the time at which the monotonic clock reads `mono`.
fn at(anchor: Anchor, mono: Duration) -> Now {
    let passed = mono.saturating_sub(anchor.mono);
    Now::new(millis(passed), millis(anchor.wall + passed))
}

fn anchor() -> Anchor {
    *ANCHOR.get_or_init(|| Anchor { mono: system_monotonic(), wall: wall() })
}

#[cfg(not(any(test, feature = "test-clock")))]
use self::system_monotonic as monotonic;

#[cfg(any(test, feature = "test-clock"))]
fn monotonic() -> Duration {
    testing::monotonic().unwrap_or_else(system_monotonic)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use self::coarse::boottime as system_monotonic;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn system_coarse() -> Now {
    coarse::now(|boottime| at(anchor(), boottime))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn system_monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn system_coarse() -> Now {
    at(anchor(), system_monotonic())
}

fn wall() -> Duration {
    system_wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns what the wall clock of the system reads at present. Unlike [`now`] it follows when the clock is set:
/// for the dates of certificates.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock")]
pub fn system_wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_and_monotonic_time_advance_together() {
        let first = now();
        assert!(first.wall_ms > 1_700_000_000_000, "{first:?}");
        let mut later = now();
        while later.mono == first.mono {
            std::thread::yield_now();
            later = now();
        }
        // Both are truncated to milliseconds, so that they may differ by one.
        let (mono, wall) = (later.mono.since_ms(first.mono), later.wall_ms - first.wall_ms);
        assert!(mono.abs_diff(wall) <= 1, "{mono} ms against {wall} ms");
    }

    #[test]
    fn coarse_reading_lags_by_at_most_a_tick() {
        let first = coarse_now();
        let (mut ticks, mut last, mut least_lag_ms) = (0, first, u64::MAX);
        while ticks < 5 {
            let (before, coarse, after) = (now(), coarse_now(), now());
            assert!(coarse.mono <= after.mono, "{coarse:?} is ahead of {after:?}");
            assert!(coarse.mono >= last.mono, "{coarse:?} comes before {last:?}");
            // The least lag, because a machine that was suspended ticks late.
            least_lag_ms = least_lag_ms.min(before.mono.since_ms(coarse.mono));
            ticks += u32::from(coarse.mono > last.mono);
            last = coarse;
        }
        assert!(least_lag_ms <= 10, "the coarse clock is {least_lag_ms} ms behind");
        assert!(last.wall_ms > first.wall_ms);
        assert!(coarse() >= last.mono);
    }
}
