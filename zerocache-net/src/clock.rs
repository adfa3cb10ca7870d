//! The one place where a process reads its clocks.

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
    let anchor = anchor();
    let passed = monotonic().saturating_sub(anchor.mono);
    Now::new(millis(passed), millis(anchor.wall + passed))
}

/// The monotonic part of [`now`].
#[must_use]
pub fn mono() -> Instant {
    now().mono
}

/// Time since the process first asked, with nanoseconds, for measuring.
#[must_use]
pub fn elapsed() -> Duration {
    monotonic().saturating_sub(anchor().mono)
}

fn anchor() -> Anchor {
    *ANCHOR.get_or_init(|| Anchor { mono: monotonic(), wall: wall() })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that goes on while the machine is suspended, where the system has one.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
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
}
