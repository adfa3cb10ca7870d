//! The hybrid logical clock that stamps writes.

use crate::version::{Incarnation, Version};

/// How far ahead of the receiver's clock a stamp may be, in milliseconds.
///
/// Beyond it one wrong clock would make every later write of the others lose for that long.
pub const AHEAD_MS_MAX: u64 = 60_000;

/// How far ahead of this node's clock what others say may move it, in milliseconds.
///
/// Clocks of nodes in sync differ by a second at most. The rest of [`AHEAD_MS_MAX`] is left to the clocks of
/// the peers: they take what this node stamps, whatever anybody claims here.
pub const LEAD_MS_MAX: u64 = 5_000;

/// A stamp from a clock too far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stamped {ahead_ms} ms ahead of this node's clock; at most {AHEAD_MS_MAX} ms are accepted")]
pub struct TooFarAhead {
    /// How far ahead the stamp is.
    pub ahead_ms: u64,
}

/// Stamps this node's writes, each above everything that it stamped or saw before.
#[derive(Debug)]
pub struct HybridClock {
    incarnation: Incarnation,
    last: u64,
}

impl HybridClock {
    /// A clock for the writes of one incarnation.
    #[must_use]
    pub const fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, last: 0 }
    }

    /// The highest version given or seen.
    #[must_use]
    pub const fn last(&self) -> Version {
        Version::new(self.last, self.incarnation)
    }

    /// Goes on as if all stamps had been given by a clock that was `by_ms` ahead. Stamps that come again come
    /// from another writer, so that no version is given twice.
    pub fn restamp(&mut self, by_ms: i64) {
        let last = self.last().restamped(by_ms);
        (self.last, self.incarnation) = (last.stamp(), last.incarnation());
    }

    /// The version of a write made at `wall_ms`.
    ///
    /// A wall clock that stands still or goes back only makes the counter run on.
    pub fn stamp(&mut self, wall_ms: u64) -> Version {
        let physical = wall_ms << Version::COUNTER_BITS;
        self.last = physical.max(self.last.saturating_add(1));
        Version::new(self.last, self.incarnation)
    }

    /// The version of a write made at `wall_ms`, above another one whatever clock gave that. It may be
    /// further ahead than others may move this clock; then later ones are not above it.
    pub fn stamp_above(&mut self, other: Version, wall_ms: u64) -> Version {
        let version = self.stamp(wall_ms);
        version.max(Version::new(other.stamp().saturating_add(1), self.incarnation))
    }

    /// Takes note of a version seen at `wall_ms`, so that later stamps are above it, if it is not more than
    /// [`LEAD_MS_MAX`] ahead.
    ///
    /// # Errors
    /// [`TooFarAhead`] when the version is more than [`AHEAD_MS_MAX`] ahead.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_whatever_the_wall_clock_does() {
        let mut clock = HybridClock::new(Incarnation(1));
        let mut last = clock.stamp(1_000);
        for wall_ms in [1_000, 1_000, 400, 0, 1_001, 999] {
            let next = clock.stamp(wall_ms);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    #[test]
    fn later_writes_win_over_what_was_seen() {
        let mut clock = HybridClock::new(Incarnation(1));
        let seen = Version::new(6_000 << 16, Incarnation(2));
        assert_eq!(clock.observe(seen, 1_000), Ok(()));
        assert!(clock.stamp(1_001) > seen);
    }

    #[test]
    fn what_is_far_ahead_moves_nobody_and_can_be_written_over() {
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
    fn no_version_is_given_twice() {
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
    fn a_clock_in_2100_poisons_nothing() {
        let mut clock = HybridClock::new(Incarnation(1));
        let wild = Version::new(4_102_444_800_000 << 16, Incarnation(2));
        assert!(clock.observe(wild, 1_000).is_err());
        assert_eq!(clock.stamp(1_000).wall_ms(), 1_000);
    }
}
