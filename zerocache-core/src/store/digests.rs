//! Digests over what a part knows, by which two nodes find out where they differ.
//!
//! What a node knows of a key is a version, be it of a value or of a trace: lifetime, recency and kind
//! are in no digest. So an entry that one node evicted and another holds is no difference.

use alloc::collections::VecDeque;

use crate::{key::KeyHash, version::Version, wire::WINDOW_SECONDS_MAX};

/// Most seconds from the first to the last that has a digest: a retention has 3,600, and no version is taken
/// that is a minute ahead. A stamp beyond it is none that a node of this time gave; without the bound it
/// would size the memory.
const SECONDS_MAX: u64 = WINDOW_SECONDS_MAX;

/// For each second of version the digest of the hashes of (key hash, version), modulo 2⁶⁴.
///
/// Invariant: whatever has a version of second `from` or later is in its digest once, nothing else is in
/// any, as long as all are within [`SECONDS_MAX`]. Seconds from the first to the last that is not empty take 8 bytes each.
#[derive(Debug, Default)]
pub struct Digests {
    /// Earlier seconds have no digests.
    from: u64,
    /// The second of the first digest.
    first: u64,
    digests: VecDeque<u64>,
}

/// The second of a version since the Unix epoch.
#[must_use]
pub const fn second_of(version: Version) -> u64 {
    version.wall_ms() / 1_000
}

impl Digests {
    /// A version of a key is known from now on.
    pub fn add(&mut self, key: KeyHash, version: Version) {
        if let Some(digest) = self.digest_mut(second_of(version)) {
            *digest = digest.wrapping_add(hash(key, version));
        }
    }

    /// A version of a key is not known any more.
    pub fn subtract(&mut self, key: KeyHash, version: Version) {
        if let Some(digest) = self.digest_mut(second_of(version)) {
            *digest = digest.wrapping_sub(hash(key, version));
        }
    }

    /// Forgets the seconds before `from`.
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

    /// The digest of one second.
    #[must_use]
    pub fn get(&self, second: u64) -> u64 {
        let at = second.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.digests.get(at)).copied().unwrap_or(0)
    }

    /// Adds the digests of the seconds from `from` on to `into`.
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

    /// Panics unless the digests are those of `known`.
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
    fn no_stamp_sizes_the_memory() {
        let (mut digests, key) = (Digests::default(), KeyHash(7));
        let wild = [Version::new(u64::MAX, Incarnation(1)), version(0)];
        digests.forget_before(1_800_000_000 - 3_600);
        digests.add(key, version(1_800_000_000));
        wild.iter().for_each(|version| digests.add(key, *version));
        assert!(digests.digests.len() <= 4_096);
        wild.iter().for_each(|version| digests.subtract(key, *version));
        digests.check([(key, version(1_800_000_000))].into_iter());
        // What has no bound below is bounded as well.
        let mut digests = Digests::default();
        digests.add(key, version(1_800_000_000));
        digests.add(key, version(1));
        assert!(digests.digests.len() <= 4_096);
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing() {
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
