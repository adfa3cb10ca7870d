//! Time as the core sees it: numbers that the caller read from a clock.

use core::time::Duration;

/// A time on the monotonic clock of one process, in milliseconds since an arbitrary origin.
///
/// Instants of different processes are never compared. A lifetime travels as its remaining milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Creates the instant `ms` milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Returns the milliseconds since the origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the instant `ms` milliseconds later (saturating).
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Returns the instant `ms` milliseconds earlier (saturating).
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Returns the instant `ms` milliseconds earlier, if it is not before the origin.
    #[must_use]
    pub fn checked_minus_ms(self, ms: u64) -> Option<Self> {
        self.0.checked_sub(ms).map(Self)
    }

    /// Returns the milliseconds since `earlier`; 0 if `earlier` is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the duration since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.since_ms(earlier))
    }
}

/// The current time on two clocks: monotonic for lifetimes and timeouts, wall for versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock. It includes the time during which the process was suspended.
    pub mono: Instant,
    /// The wall clock of this node, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

impl Now {
    /// Creates the current time from both clocks.
    #[must_use]
    pub const fn new(mono_ms: u64, wall_ms: u64) -> Self {
        Self { mono: Instant::from_millis(mono_ms), wall_ms }
    }
}
