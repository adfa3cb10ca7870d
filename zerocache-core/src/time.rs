//! Moments and durations as the core sees them: numbers that somebody else read from a clock.

use core::time::Duration;

/// A moment on one process's monotonic clock, in milliseconds since an origin of its choosing.
///
/// Moments of different processes are never compared; a lifetime travels as what remains of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment `ms` milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment moved `ms` milliseconds into the future (saturating).
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// This moment moved `ms` milliseconds into the past (saturating).
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 if `earlier` is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to this moment, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.since_ms(earlier))
    }
}

/// One moment read from two clocks: monotonic for lifetimes and timeouts, wall for versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic reading. It counts the time during which the process was suspended.
    pub mono: Instant,
    /// Milliseconds since the Unix epoch, as this node reckons them.
    pub wall_ms: u64,
}

impl Now {
    /// Both readings of one moment.
    #[must_use]
    pub const fn new(mono_ms: u64, wall_ms: u64) -> Self {
        Self { mono: Instant::from_millis(mono_ms), wall_ms }
    }
}
