//! The lifetime of an entry.

use core::time::Duration;

/// The lifetime of an entry: 1 s to 99,999,999 s, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

/// A lifetime outside 1 to 99,999,999 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ttl of {millis} ms is out of range; 1 to 99999999 seconds are allowed")]
pub struct InvalidTtl {
    /// The requested lifetime in milliseconds (saturated).
    pub millis: u64,
}

impl Ttl {
    /// The longest lifetime in seconds, about three years.
    pub const SECONDS_MAX: u64 = 99_999_999;
    /// The shortest lifetime: one second.
    pub const MIN: Self = Self(1_000);
    /// The longest lifetime.
    pub const MAX: Self = Self(Self::SECONDS_MAX * 1_000);
    /// The lifetime of HTTP writes that do not state one: one hour.
    pub const HTTP_DEFAULT: Self = Self(3_600_000);

    /// Creates a lifetime from whole seconds.
    ///
    /// # Errors
    /// If `seconds` is 0 or above 99,999,999.
    pub const fn from_secs(seconds: u64) -> Result<Self, InvalidTtl> {
        Self::from_millis(seconds.saturating_mul(1_000))
    }

    /// Creates a lifetime from milliseconds.
    ///
    /// # Errors
    /// If `millis` is below 1,000 or above 99,999,999,000.
    pub const fn from_millis(millis: u64) -> Result<Self, InvalidTtl> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 {
            return Err(InvalidTtl { millis });
        }
        Ok(Self(millis))
    }

    /// Creates the allowed lifetime nearest to `seconds`.
    #[must_use]
    pub fn clamped_secs(seconds: u64) -> Self {
        Self(seconds.clamp(1, Self::SECONDS_MAX) * 1_000)
    }

    /// Returns the lifetime in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = InvalidTtl;

    fn try_from(duration: Duration) -> Result<Self, InvalidTtl> {
        Self::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        assert!(Ttl::from_secs(0).is_err());
        assert_eq!(Ttl::from_secs(1), Ok(Ttl::MIN));
        assert_eq!(Ttl::from_secs(99_999_999), Ok(Ttl::MAX));
        assert!(Ttl::from_secs(100_000_000).is_err());
        assert!(Ttl::from_secs(u64::MAX).is_err());
        assert!(Ttl::try_from(Duration::from_millis(999)).is_err());
        assert_eq!(Ttl::clamped_secs(0), Ttl::MIN);
        assert_eq!(Ttl::clamped_secs(u64::MAX), Ttl::MAX);
    }
}
