//! The boot clock of Linux, and a cheaper reading of it as of the kernel's last tick.
//!
//! There is no coarse boot clock, so this is the coarse monotonic one plus the time for which the
//! machine was suspended. That time changes only in a suspend, and a suspend moves the wall clock
//! against the monotonic one, as a step of the wall clock does. So the difference of the coarse wall
//! and monotonic clocks, which is otherwise constant to the nanosecond, tells when to look again.

use std::{cell::Cell, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};
use zerocache_core::time::Now;

/// Most time between two readings that count as one moment.
const SAME_MOMENT: Duration = Duration::from_micros(100);

/// For which difference of the clocks which suspended time was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    difference: i64,
    suspended: Duration,
}

thread_local! {
    // Of each thread, so that both values always belong together without a lock.
    static MEASURED: Cell<Option<Measured>> = const { Cell::new(None) };
    static LAST: Cell<Option<(Timespec, Now)>> = const { Cell::new(None) };
}

/// The moment of the kernel's last tick. `at` makes it of the coarse boot clock, at the first reading
/// after a tick; until the next tick it is at hand.
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

/// Time since the machine started, with the time during which it was suspended.
pub(super) fn boottime() -> Duration {
    read(ClockId::Boottime)
}

/// [`boottime`] as of the kernel's last tick.
fn coarse_boottime() -> Duration {
    let mono = clock_gettime(ClockId::MonotonicCoarse);
    let difference = nanos_between(mono, clock_gettime(ClockId::RealtimeCoarse));
    match MEASURED.get() {
        Some(measured) if measured.difference == difference => duration(mono) + measured.suspended,
        _ => measure(),
    }
}

/// Measures the suspended time. The precise reading when something came between.
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
    let is_one_moment = last.saturating_sub(first) <= SAME_MOMENT && coarse().1 == difference;
    // The lesser of what it can be: the coarse reading is never ahead of the precise one.
    let suspended = boottime.saturating_sub(last);
    MEASURED.set(is_one_moment.then_some(Measured { difference, suspended }));
    // Not the precise reading, behind which the next one would be.
    if is_one_moment { duration(mono) + suspended } else { boottime }
}

fn read(clock: ClockId) -> Duration {
    duration(clock_gettime(clock))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Wraps around after 292 years, which does not matter to whoever compares for equality.
fn nanos_between(earlier: Timespec, later: Timespec) -> i64 {
    let [earlier, later] = [earlier, later].map(|time| duration(time).as_nanos() as i64);
    later.wrapping_sub(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads until a reading was not disturbed by a tick between its two clocks.
    fn measured() -> Measured {
        loop {
            coarse_boottime();
            if let Some(measured) = MEASURED.get() {
                return measured;
            }
        }
    }

    #[test]
    fn a_suspend_or_a_step_of_the_wall_clock_is_measured_anew() {
        let true_one = measured();
        // As if the machine had been suspended for an hour since: the wall clock went on.
        let hour = Duration::from_secs(3_600);
        let difference = true_one.difference - hour.as_nanos() as i64;
        MEASURED.set(Some(Measured { difference, suspended: hour * 1_000 }));
        let read = coarse_boottime();
        assert!(read <= boottime(), "{read:?} is what was remembered");
        let again = measured();
        assert_eq!(again.difference, true_one.difference);
        assert!(again.suspended.abs_diff(true_one.suspended) <= SAME_MOMENT * 2);
    }

    #[test]
    fn each_thread_measures_for_itself() {
        let here = measured();
        let there = std::thread::spawn(measured).join().unwrap();
        assert!(here.suspended.abs_diff(there.suspended) <= SAME_MOMENT * 2);
    }
}
