//! The clocks of a simulated process: none of them is the true time.
//!
//! The monotonic clock has an origin of its own and runs a little fast or slow. The wall clock is
//! read once, at the start of the process, as the server does; from then on it is the monotonic
//! clock's.

use zerocache_core::time::{Instant, Now};

/// Milliseconds since the Unix epoch at which every simulation begins.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// A second in microseconds, the unit of the simulator's own time.
pub const SECOND_US: u64 = 1_000_000;

/// The clocks of one process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_us: u64,
    origin_ms: u64,
    wall_ms: u64,
    drift_ppm: i64,
}

impl Clock {
    /// The clocks of a process that starts at the true time `started_us`, with a monotonic clock
    /// that shows `origin_ms` then and gains `drift_ppm` millionths, on a machine whose wall clock
    /// is `skew_ms` ahead.
    #[must_use]
    pub fn new(started_us: u64, origin_ms: u64, drift_ppm: i64, skew_ms: i64) -> Self {
        let true_ms = EPOCH_MS + started_us / 1_000;
        let wall_ms = true_ms.saturating_add_signed(skew_ms);
        Self { started_us, origin_ms, wall_ms, drift_ppm }
    }

    /// Returns the reading of the process's clocks at the true time `us`.
    #[must_use]
    pub fn now(&self, us: u64) -> Now {
        let elapsed_ms = self.elapsed_us(us) / 1_000;
        Now::new(self.origin_ms + elapsed_ms, self.wall_ms + elapsed_ms)
    }

    /// The monotonic reading at the true time `us`.
    #[must_use]
    pub fn mono(&self, us: u64) -> Instant {
        self.now(us).mono
    }

    /// The first true time in microseconds at which the monotonic clock shows `at`.
    #[must_use]
    pub fn true_us(&self, at: Instant) -> u64 {
        let wanted_us = at.as_millis().saturating_sub(self.origin_ms).saturating_mul(1_000);
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let elapsed = (u128::from(wanted_us) * 1_000_000).div_ceil(rate);
        self.started_us.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX / 2))
    }

    fn elapsed_us(&self, us: u64) -> u64 {
        let elapsed = us.saturating_sub(self.started_us);
        let gained = (i128::from(elapsed) * i128::from(self.drift_ppm) / 1_000_000) as i64;
        elapsed.saturating_add_signed(gained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_is_met_at_the_first_time_that_reaches_it() {
        for drift_ppm in [-200, -7, 0, 13, 200] {
            let clock = Clock::new(5_000_000, 77_000, drift_ppm, -3);
            for ms in [77_000, 77_001, 78_333, 500_000, 4_000_000] {
                let at = Instant::from_millis(ms);
                let us = clock.true_us(at);
                assert!(clock.mono(us) >= at, "{drift_ppm} {ms}");
                assert!(us <= 5_000_000 || clock.mono(us - 2) < at, "{drift_ppm} {ms}");
            }
        }
    }

    #[test]
    fn clocks_drift_apart_and_differ() {
        let (fast, slow) = (Clock::new(0, 0, 200, 50), Clock::new(0, 9, -200, 0));
        let hour = 3_600 * SECOND_US;
        assert_eq!(fast.mono(hour).as_millis(), 3_600_720);
        assert_eq!(slow.now(hour), Now::new(3_599_289, EPOCH_MS + 3_599_280));
        assert_eq!(fast.now(0).wall_ms, EPOCH_MS + 50);
    }
}
