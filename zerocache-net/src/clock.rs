//! The one place where a process reads its clocks.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod coarse;
#[cfg(test)]
pub(crate) mod paused;

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use zerocache_core::time::{Instant, Now};

/// The wall clock and the monotonic clock at the moment when the process first asked.
///
/// Wall time is counted from here on the monotonic clock, so that a step of the wall clock changes
/// nothing: neither versions nor lifetimes.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    mono: Duration,
    wall: Duration,
}

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

/// The present moment: milliseconds since the process first asked, and since the Unix epoch.
#[must_use]
pub fn now() -> Now {
    at(anchor(), monotonic())
}

/// The monotonic part of [`now`].
#[must_use]
pub fn mono() -> Instant {
    now().mono
}

/// [`now`] as of the kernel's last tick, at most 10 ms ago: half the cost, for a moment with which
/// lifetimes are compared.
///
/// It never runs ahead of [`now`] and counts suspended time like it. Where the system has no such
/// clock it is [`now`].
#[must_use]
#[inline]
pub fn coarse_now() -> Now {
    #[cfg(test)]
    if let Some(mono) = paused::monotonic() {
        return at(anchor(), mono);
    }
    system_coarse()
}

/// The monotonic part of [`coarse_now`].
#[must_use]
#[inline]
pub fn coarse() -> Instant {
    coarse_now().mono
}

/// Time since the process first asked, with nanoseconds, for measuring.
#[must_use]
pub fn elapsed() -> Duration {
    monotonic().saturating_sub(anchor().mono)
}

/// The moment at which [`elapsed`] was this.
#[must_use]
pub fn instant(elapsed: Duration) -> Instant {
    Instant::from_millis(millis(elapsed))
}

/// The moment that the monotonic clock calls `mono`.
fn at(anchor: Anchor, mono: Duration) -> Now {
    let passed = mono.saturating_sub(anchor.mono);
    Now::new(millis(passed), millis(anchor.wall + passed))
}

fn anchor() -> Anchor {
    *ANCHOR.get_or_init(|| Anchor { mono: system_monotonic(), wall: wall() })
}

#[cfg(not(test))]
use self::system_monotonic as monotonic;

#[cfg(test)]
fn monotonic() -> Duration {
    paused::monotonic().unwrap_or_else(system_monotonic)
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

#[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock")]
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readings_advance_together() {
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
    fn the_coarse_reading_is_behind_by_a_tick_at_most_and_goes_on() {
        let first = coarse_now();
        let (mut ticks, mut last, mut least_lag_ms) = (0, first, u64::MAX);
        while ticks < 5 {
            let (before, coarse, after) = (now(), coarse_now(), now());
            assert!(coarse.mono <= after.mono, "{coarse:?} is ahead of {after:?}");
            assert!(coarse.mono >= last.mono, "{coarse:?} comes before {last:?}");
            // The least, because a machine that stood still ticks late.
            least_lag_ms = least_lag_ms.min(before.mono.since_ms(coarse.mono));
            ticks += u32::from(coarse.mono > last.mono);
            last = coarse;
        }
        assert!(least_lag_ms <= 10, "the coarse clock is {least_lag_ms} ms behind");
        assert!(last.wall_ms > first.wall_ms);
        assert!(coarse() >= last.mono);
    }
}
