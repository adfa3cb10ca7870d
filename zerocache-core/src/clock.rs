//! The hybrid logical clock that stamps writes.

use crate::version::{Incarnation, Version};

/// How far ahead of the receiver's clock a stamp may be, in milliseconds.
///
/// Without this limit, one wrong clock would make the later writes of all other nodes lose for that long.
pub const AHEAD_MS_MAX: u64 = 60_000;

/// How far ahead of the wall clock stamps of other nodes may move the hybrid clock, in milliseconds.
///
/// Clocks of nodes in sync differ by a second at most. The remainder of [`AHEAD_MS_MAX`] is a reserve for
/// differences between clocks: peers accept the stamps of this node, whatever stamps it receives.
pub const LEAD_MS_MAX: u64 = 5_000;

/// Stamps of a clock are multiples of this. Those between are for values that are computed from a version, and
/// come above it and below every later stamp.
pub const STAMP_STEP: u64 = 16;

/// The stamp of a clock that is too far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stamped {ahead_ms} ms ahead of this node's clock; at most {AHEAD_MS_MAX} ms are accepted")]
pub struct TooFarAhead {
    /// How far ahead the stamp is, in milliseconds.
    pub ahead_ms: u64,
}

/// Stamps the writes of a node, each above everything that it stamped or saw before.
#[derive(Debug)]
pub struct HybridClock {
    incarnation: Incarnation,
    last: u64,
}

impl HybridClock {
    /// Creates a clock for the writes of one incarnation.
    #[must_use]
    pub const fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, last: 0 }
    }

    /// Returns the highest version stamped or seen.
    #[must_use]
    pub const fn last(&self) -> Version {
        Version::new(self.last, self.incarnation)
    }

    /// Corrects the clock as if it had been `by_ms` ahead so far. Stamps that repeat belong to another
    /// incarnation, so that no version is assigned twice.
    pub fn restamp(&mut self, by_ms: i64) {
        let last = self.last().restamped(by_ms);
        (self.last, self.incarnation) = (last.stamp(), last.incarnation());
    }

    /// Stamps a write made at `wall_ms`.
    ///
    /// If the wall clock stands still or goes back, the counter advances.
    pub fn stamp(&mut self, wall_ms: u64) -> Version {
        let physical = wall_ms << Version::COUNTER_BITS;
        self.last = physical.max(next(self.last));
        Version::new(self.last, self.incarnation)
    }

    /// Stamps a write made at `wall_ms` above `other`, whatever clock stamped that. If `other` is further
    /// ahead than it may move this clock, later stamps are not above it.
    pub fn stamp_above(&mut self, other: Version, wall_ms: u64) -> Version {
        let version = self.stamp(wall_ms);
        version.max(Version::new(next(other.stamp()), self.incarnation))
    }

    /// Records a version seen at `wall_ms`. Later stamps are above it, unless it is more than [`LEAD_MS_MAX`]
    /// ahead.
    ///
    /// # Errors
    /// [`TooFarAhead`] if the version is more than [`AHEAD_MS_MAX`] ahead.
    pub fn observe(&mut self, version: Version, wall_ms: u64) -> Result<(), TooFarAhead> {
        let ahead_ms = version.wall_ms().saturating_sub(wall_ms);
        if ahead_ms > AHEAD_MS_MAX {
            return Err(TooFarAhead { ahead_ms });
        }
        if ahead_ms <= LEAD_MS_MAX {
            self.last = self.last.max(version.stamp());
        }
        Ok(())
    }
}

/// Returns the first stamp of a clock above `stamp`.
fn next(stamp: u64) -> u64 {
    (stamp | (STAMP_STEP - 1)).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_increase_when_the_wall_clock_goes_back() {
        let mut clock = HybridClock::new(Incarnation(1));
        let mut last = clock.stamp(1_000);
        for wall_ms in [1_000, 1_000, 400, 0, 1_001, 999] {
            let next = clock.stamp(wall_ms);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    #[test]
    fn stamps_are_above_versions_seen() {
        let mut clock = HybridClock::new(Incarnation(1));
        let seen = Version::new(6_000 << 16, Incarnation(2));
        assert_eq!(clock.observe(seen, 1_000), Ok(()));
        assert!(clock.stamp(1_001) > seen);
    }

    #[test]
    fn version_far_ahead_does_not_move_the_clock_and_can_be_overwritten() {
        let mut clock = HybridClock::new(Incarnation(1));
        let ahead = Version::new(60_999 << 16, Incarnation(2));
        assert_eq!(clock.observe(ahead, 1_000), Ok(()));
        assert_eq!(clock.stamp(1_000).wall_ms(), 1_000);
        assert!(clock.stamp_above(ahead, 1_000) > ahead);
        assert_eq!(clock.stamp(1_000).wall_ms(), 1_000);
        let below = Version::new(900 << 16, Incarnation(2));
        assert_eq!(clock.stamp_above(below, 1_002).wall_ms(), 1_002);
    }

    #[test]
    fn no_version_is_stamped_twice() {
        let mut clock = HybridClock::new(Incarnation(1));
        let first = clock.stamp(90_000);
        clock.restamp(-80_000);
        assert!(clock.stamp(1_000) < first);
        let again = clock.stamp(90_000);
        assert_eq!(again.stamp(), first.stamp());
        assert_ne!(again, first);
        clock.restamp(i64::MIN);
        assert_eq!(clock.stamp(5).wall_ms(), 5);
    }

    #[test]
    fn version_of_the_year_2100_is_rejected() {
        let mut clock = HybridClock::new(Incarnation(1));
        let wild = Version::new(4_102_444_800_000 << 16, Incarnation(2));
        assert!(clock.observe(wild, 1_000).is_err());
        assert_eq!(clock.stamp(1_000).wall_ms(), 1_000);
    }
}
