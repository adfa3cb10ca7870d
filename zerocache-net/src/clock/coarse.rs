//! The boot clock of Linux, and a cheaper reading of it as of the kernel's last tick.
//!
//! There is no coarse boot clock, so this is the coarse monotonic clock plus the time for which the machine was
//! suspended. That time changes only in a suspend, which moves the wall clock against the monotonic clock, as a
//! step of the wall clock does. The difference of the coarse wall and monotonic clocks is otherwise constant to
//! the nanosecond, so a change of it shows when to measure the suspended time again.

use std::{cell::Cell, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};
use zerocache_core::time::Now;

/// The most time between two readings that count as simultaneous.
const SIMULTANEOUS_MAX: Duration = Duration::from_micros(100);

/// The suspended time that was measured at a difference of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    difference: i64,
    suspended: Duration,
}

thread_local! {
    // Per thread, so that both values belong together without a lock.
    static MEASURED: Cell<Option<Measured>> = const { Cell::new(None) };
    static LAST: Cell<Option<(Timespec, Now)>> = const { Cell::new(None) };
}

/// Returns the time of the kernel's last tick. `at` converts the coarse boot clock at the first reading after a
/// tick; the result is cached until the next tick.
#[inline]
pub(super) fn now(at: impl FnOnce(Duration) -> Now) -> Now {
    let tick = clock_gettime(ClockId::MonotonicCoarse);
    match LAST.get() {
        Some((last, now)) if last == tick => now,
        _ => {
            let now = at(coarse_boottime());
            LAST.set(Some((tick, now)));
            now
        }
    }
}

/// Returns the time since the machine started, including suspended time.
pub(super) fn boottime() -> Duration {
    read(ClockId::Boottime)
}

/// Returns [`boottime`] as of the kernel's last tick.
fn coarse_boottime() -> Duration {
    let mono = clock_gettime(ClockId::MonotonicCoarse);
    let difference = nanos_between(mono, clock_gettime(ClockId::RealtimeCoarse));
    match MEASURED.get() {
        Some(measured) if measured.difference == difference => duration(mono) + measured.suspended,
        _ => measure(),
    }
}

/// Measures the suspended time. Returns the precise reading when the measurement was disturbed.
#[cold]
fn measure() -> Duration {
    let coarse = || {
        let mono = clock_gettime(ClockId::MonotonicCoarse);
        (mono, nanos_between(mono, clock_gettime(ClockId::RealtimeCoarse)))
    };
    let (mono, difference) = coarse();
    let first = read(ClockId::Monotonic);
    let boottime = boottime();
    let last = read(ClockId::Monotonic);
    let is_undisturbed = last.saturating_sub(first) <= SIMULTANEOUS_MAX && coarse().1 == difference;
    // The lower bound, so that the coarse reading is never ahead of the precise one.
    let suspended = boottime.saturating_sub(last);
    MEASURED.set(is_undisturbed.then_some(Measured { difference, suspended }));
    // Not the precise reading: the next coarse one would be behind it.
    if is_undisturbed { duration(mono) + suspended } else { boottime }
}

fn read(clock: ClockId) -> Duration {
    duration(clock_gettime(clock))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Wraps around after 292 years, which does not affect comparison for equality.
fn nanos_between(earlier: Timespec, later: Timespec) -> i64 {
    let [earlier, later] = [earlier, later].map(|time| duration(time).as_nanos() as i64);
    later.wrapping_sub(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads until no tick disturbs a measurement.
    fn measured() -> Measured {
        loop {
            coarse_boottime();
            if let Some(measured) = MEASURED.get() {
                return measured;
            }
        }
    }

    #[test]
    fn suspend_or_step_of_the_wall_clock_is_measured_again() {
        let expected = measured();
        // As if the machine had been suspended for an hour since: the wall clock advanced.
        let hour = Duration::from_secs(3_600);
        let difference = expected.difference - hour.as_nanos() as i64;
        MEASURED.set(Some(Measured { difference, suspended: hour * 1_000 }));
        let read = coarse_boottime();
        assert!(read <= boottime(), "{read:?} uses the cached suspended time");
        let again = measured();
        assert_eq!(again.difference, expected.difference);
        assert!(again.suspended.abs_diff(expected.suspended) <= SIMULTANEOUS_MAX * 2);
    }

    #[test]
    fn each_thread_has_its_own_measurement() {
        let here = measured();
        let there = std::thread::spawn(measured).join().unwrap();
        assert!(here.suspended.abs_diff(there.suspended) <= SIMULTANEOUS_MAX * 2);
    }
}
