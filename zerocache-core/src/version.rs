//! Versions, which order writes, and incarnations, which identify their writers.

use core::{fmt, str::FromStr};

/// The identity of a node process: 64 random bits drawn at its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Incarnation {
    /// Returns the incarnation that stamps versions after the node corrected its clock. Every node derives the
    /// same one.
    #[must_use]
    pub fn successor(self) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(&self.0.to_le_bytes()))
    }
}

impl FromStr for Incarnation {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        hex(text).map(Self)
    }
}

/// The version of a write: a hybrid logical clock stamp, then the writer's incarnation.
///
/// The order is total: stamps first, incarnations between equal stamps. The clock is the one of
/// Kulkarni et al., "Logical Physical Clocks" (2014), in 48 bits of milliseconds and 16 of counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    stamp: u64,
    incarnation: Incarnation,
}

/// What a value was computed from: the state of its key when the computation began.
///
/// The value is stored with a version from that moment. So it is superseded by a write, a delete or a purge that
/// came while it was computed, whichever of them a node receives first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// For how long it has been computed, at least, in milliseconds.
    pub age_ms: u64,
    /// The highest stamp of a version that a node had for the key before that; 0 if none is known. The value
    /// supersedes it.
    pub known: u64,
}

/// Where the version of a write comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionSource {
    /// The node that accepts the write: the write is later than all that this node knows.
    #[default]
    Accepted,
    /// A value that was computed: it is as old as what it was computed from.
    Computed(Basis),
    /// This version, of a lease or of an earlier purge.
    Given(Version),
    /// The value of this version again: directly above it, and below all that changed its key since.
    Above(Version),
}

impl From<Option<Version>> for VersionSource {
    fn from(given: Option<Version>) -> Self {
        given.map_or(Self::Accepted, Self::Given)
    }
}

/// A text that is not a version or an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a version; 16 hexadecimal digits, a dot and 16 more are expected")]
pub struct InvalidVersion;

/// The latest accepted wall clock time, in milliseconds since the Unix epoch: the year 6429. A stamp has room
/// for twice that, so that additions to it do not overflow.
pub const WALL_MS_MAX: u64 = (1 << 47) - 1;

impl Version {
    /// The number of bits of the stamp that count writes within a millisecond.
    pub const COUNTER_BITS: u32 = 16;

    /// Creates a version from a stamp and its writer.
    #[must_use]
    pub const fn new(stamp: u64, incarnation: Incarnation) -> Self {
        Self { stamp, incarnation }
    }

    /// Returns the stamp: milliseconds in the upper bits, a counter in the lower ones.
    #[must_use]
    pub const fn stamp(self) -> u64 {
        self.stamp
    }

    /// Returns the milliseconds of the stamp since the Unix epoch.
    #[must_use]
    pub const fn wall_ms(self) -> u64 {
        self.stamp >> Self::COUNTER_BITS
    }

    /// Returns the writer.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        self.incarnation
    }

    /// Returns a version directly above this one, for the same value that `node` stores again: with the same stamp, so
    /// that a change which was stamped after this one is higher than its successors too. Those of different nodes
    /// differ. `None` if there is no room above it.
    #[must_use]
    pub fn successor(self, node: Incarnation) -> Option<Self> {
        let incarnation = self.incarnation.0.checked_add(1 + (node.0 & 0xffff))?;
        Some(Self::new(self.stamp, Incarnation(incarnation)))
    }

    /// Returns the version that the write would have if the clock of its writer had been `by_ms` ahead.
    #[must_use]
    pub fn restamped(self, by_ms: i64) -> Self {
        let by = by_ms.saturating_mul(1 << Self::COUNTER_BITS);
        Self::new(self.stamp.saturating_add_signed(by), self.incarnation.successor())
    }

    /// Encodes the version as 16 bytes with the same order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.stamp) << 64 | u128::from(self.incarnation.0)).to_be_bytes()
    }

    /// Decodes a version from 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self::new((both >> 64) as u64, Incarnation(both as u64))
    }
}

impl Version {
    /// Formats the version as text: 16 hexadecimal digits, a dot and 16 more.
    #[must_use]
    pub fn to_text(self) -> [u8; 33] {
        let mut text = [b'.'; 33];
        let numbers = [(&self.stamp, 0), (&self.incarnation.0, 17)];
        for (number, from) in numbers {
            for (at, digit) in text[from..from + 16].iter_mut().enumerate() {
                *digit = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15];
            }
        }
        text
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.to_text()).unwrap_or_default())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let (stamp, incarnation) = text.split_once('.').ok_or(InvalidVersion)?;
        Ok(Self::new(hex(stamp)?, incarnation.parse()?))
    }
}

fn hex(text: &str) -> Result<u64, InvalidVersion> {
    if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(InvalidVersion);
    }
    u64::from_str_radix(text, 16).map_err(|_| InvalidVersion)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn versions_are_ordered_and_survive_round_trips() {
        let a = Version::new(1 << 16, Incarnation(9));
        let b = Version::new(1 << 16, Incarnation(10));
        let c = Version::new((1 << 16) + 1, Incarnation(1));
        assert!(a < b && b < c);
        for version in [a, b, c, Version::new(u64::MAX, Incarnation(u64::MAX))] {
            assert_eq!(version.to_string().parse(), Ok(version));
            let plain = alloc::format!("{:016x}.{:016x}", version.stamp, version.incarnation.0);
            assert_eq!(version.to_string(), plain);
            assert_eq!(Version::from_bytes(version.to_bytes()), version);
        }
        assert!(a.to_bytes() < b.to_bytes() && b.to_bytes() < c.to_bytes());
        assert_eq!("".parse::<Version>(), Err(InvalidVersion));
        assert_eq!("+000000000000001.0000000000000001".parse::<Version>(), Err(InvalidVersion));
    }
}
