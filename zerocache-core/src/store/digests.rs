//! Digests of the versions that a shard knows, by which two nodes find where they differ.
//!
//! A digest covers versions only, of values and tombstones alike: not lifetimes, recency, or which of the
//! two it is. An entry that one node evicted and another holds is therefore no difference.

use alloc::collections::VecDeque;

use crate::{key::KeyHash, version::Version, wire::WINDOW_SECONDS_MAX};

/// The most seconds between the first digest and the last. A retention has 3,600, and a version more than a
/// minute ahead is rejected. Without this bound, a forged stamp would determine the memory in use.
const SECONDS_MAX: u64 = WINDOW_SECONDS_MAX;

/// One digest per second of versions: the sum of the hashes of (key hash, version), modulo 2⁶⁴.
///
/// Invariant: each known version of second `from` or later is in the digest of its second once, as long as
/// all versions are within [`SECONDS_MAX`]. Each second from the first digest to the last takes 8 bytes.
#[derive(Debug, Default)]
pub struct Digests {
    /// The first second that may have a digest.
    from: u64,
    /// The second of the first digest.
    first: u64,
    digests: VecDeque<u64>,
}

/// Returns the second of a version since the Unix epoch.
#[must_use]
pub const fn second_of(version: Version) -> u64 {
    version.wall_ms() / 1_000
}

impl Digests {
    /// Adds a version.
    pub fn add(&mut self, key: KeyHash, version: Version) {
        if let Some(digest) = self.digest_mut(second_of(version)) {
            *digest = digest.wrapping_add(hash(key, version));
        }
    }

    /// Removes a version.
    pub fn subtract(&mut self, key: KeyHash, version: Version) {
        if let Some(digest) = self.digest_mut(second_of(version)) {
            *digest = digest.wrapping_sub(hash(key, version));
        }
    }

    /// Drops the digests of seconds before `from`.
    pub fn forget_before(&mut self, from: u64) {
        if from <= self.from {
            return;
        }
        self.from = from;
        let gone = from.saturating_sub(self.first).min(self.digests.len() as u64);
        self.digests.drain(..gone as usize);
        self.first = self.first.max(from);
        if self.digests.len() * 4 < self.digests.capacity() {
            self.digests.shrink_to(self.digests.len() * 2);
        }
    }

    /// Returns the digest of one second.
    #[must_use]
    pub fn get(&self, second: u64) -> u64 {
        let at = second.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.digests.get(at)).copied().unwrap_or(0)
    }

    /// Adds the digests of the seconds from `from` on to `into`, element by element.
    pub fn add_to(&self, from: u64, into: &mut [u64]) {
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let offset = usize::try_from(self.first.saturating_sub(from)).unwrap_or(usize::MAX);
        let into = into.get_mut(offset..).unwrap_or_default();
        for (into, digest) in into.iter_mut().zip(self.digests.iter().skip(skipped)) {
            *into = into.wrapping_add(*digest);
        }
    }

    fn digest_mut(&mut self, second: u64) -> Option<&mut u64> {
        if second < self.from {
            return None;
        }
        if self.digests.is_empty() {
            self.first = second;
        }
        let last = self.first.saturating_add(self.digests.len() as u64);
        if second.max(last) - second.min(self.first) > SECONDS_MAX {
            return None;
        }
        while second < self.first {
            self.digests.push_front(0);
            self.first -= 1;
        }
        let at = usize::try_from(second - self.first).ok()?;
        if at >= self.digests.len() {
            self.digests.resize(at + 1, 0);
        }
        self.digests.get_mut(at)
    }

    /// Panics unless the digests are those of the versions in `known`.
    #[cfg(test)]
    pub fn check(&self, known: impl Iterator<Item = (KeyHash, Version)>) {
        let mut fresh = Self { from: self.from, ..Self::default() };
        known.for_each(|(key, version)| fresh.add(key, version));
        for digests in [self, &fresh] {
            for at in 0..digests.digests.len() as u64 {
                let second = digests.first + at;
                assert_eq!(self.get(second), fresh.get(second), "second {second}");
            }
        }
    }
}

fn hash(key: KeyHash, version: Version) -> u64 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&key.0.to_le_bytes());
    bytes[16..].copy_from_slice(&version.to_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Incarnation;

    fn version(second: u64) -> Version {
        Version::new((second * 1_000) << Version::COUNTER_BITS, Incarnation(1))
    }

    #[test]
    fn memory_is_bounded_for_any_stamp() {
        let (mut digests, key) = (Digests::default(), KeyHash(7));
        let wild = [Version::new(u64::MAX, Incarnation(1)), version(0)];
        digests.forget_before(1_800_000_000 - 3_600);
        digests.add(key, version(1_800_000_000));
        wild.iter().for_each(|version| digests.add(key, *version));
        assert!(digests.digests.len() <= 4_096);
        wild.iter().for_each(|version| digests.subtract(key, *version));
        digests.check([(key, version(1_800_000_000))].into_iter());
        // Also without a first second.
        let mut digests = Digests::default();
        digests.add(key, version(1_800_000_000));
        digests.add(key, version(1));
        assert!(digests.digests.len() <= 4_096);
    }

    #[test]
    fn added_and_removed_versions_cancel_out() {
        let (mut digests, key) = (Digests::default(), KeyHash(7));
        for second in [100, 90, 103] {
            digests.add(key, version(second));
        }
        let mut into = [1; 20];
        digests.add_to(88, &mut into);
        let differing: alloc::vec::Vec<_> = (0..20).filter(|at| into[*at] != 1).collect();
        assert_eq!(differing, [2, 12, 15]);
        let mut into = [0; 2];
        digests.add_to(102, &mut into);
        assert_eq!(into, [0, digests.get(103)]);
        digests.forget_before(95);
        assert_eq!((digests.get(90), digests.get(94)), (0, 0));
        digests.add(key, version(94));
        digests.subtract(key, version(90));
        digests.check([(key, version(100)), (key, version(103))].into_iter());
        for second in [100, 103] {
            digests.subtract(key, version(second));
        }
        digests.check(core::iter::empty());
        digests.forget_before(1_000);
        digests.add(key, version(1_001));
        assert_ne!(digests.get(1_001), 0);
    }
}
