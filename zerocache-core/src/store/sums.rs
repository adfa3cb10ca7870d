//! Sums over what a part knows, by which two nodes find out where they differ.
//!
//! What a node knows of a key is a version, be it of a value or of a trace: lifetime, recency and kind
//! are in no sum. So an entry that one node evicted and another holds is no difference.

use alloc::collections::VecDeque;

use crate::{key::KeyHash, version::Version, wire::WINDOW_SECONDS_MAX};

/// Most seconds from the first to the last that has a sum: a retention has 3,600, and no version is taken
/// that is a minute ahead. A stamp beyond it is none that a node of this time gave; without the bound it
/// would size the memory.
const SECONDS_MAX: u64 = WINDOW_SECONDS_MAX;

/// For each second of version the sum of the hashes of (key hash, version), modulo 2⁶⁴.
///
/// Invariant: whatever has a version of second `from` or later is in its sum once, nothing else is in
/// any, as long as all are within [`SECONDS_MAX`]. Seconds from the first to the last that is not empty take 8 bytes each.
#[derive(Debug, Default)]
pub struct Sums {
    /// Earlier seconds have no sums.
    from: u64,
    /// The second of the first sum.
    first: u64,
    sums: VecDeque<u64>,
}

/// The second of a version since the Unix epoch.
#[must_use]
pub const fn second_of(version: Version) -> u64 {
    version.wall_ms() / 1_000
}

impl Sums {
    /// A version of a key is known from now on.
    pub fn add(&mut self, key: KeyHash, version: Version) {
        if let Some(sum) = self.sum_mut(second_of(version)) {
            *sum = sum.wrapping_add(hash(key, version));
        }
    }

    /// A version of a key is not known any more.
    pub fn subtract(&mut self, key: KeyHash, version: Version) {
        if let Some(sum) = self.sum_mut(second_of(version)) {
            *sum = sum.wrapping_sub(hash(key, version));
        }
    }

    /// Forgets the seconds before `from`.
    pub fn forget_before(&mut self, from: u64) {
        if from <= self.from {
            return;
        }
        self.from = from;
        let gone = from.saturating_sub(self.first).min(self.sums.len() as u64);
        self.sums.drain(..gone as usize);
        self.first = self.first.max(from);
        if self.sums.len() * 4 < self.sums.capacity() {
            self.sums.shrink_to(self.sums.len() * 2);
        }
    }

    /// The sum of one second.
    #[must_use]
    pub fn get(&self, second: u64) -> u64 {
        let at = second.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.sums.get(at)).copied().unwrap_or(0)
    }

    /// Adds the sums of the seconds from `from` on to `into`.
    pub fn add_to(&self, from: u64, into: &mut [u64]) {
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let offset = usize::try_from(self.first.saturating_sub(from)).unwrap_or(usize::MAX);
        let into = into.get_mut(offset..).unwrap_or_default();
        for (into, sum) in into.iter_mut().zip(self.sums.iter().skip(skipped)) {
            *into = into.wrapping_add(*sum);
        }
    }

    fn sum_mut(&mut self, second: u64) -> Option<&mut u64> {
        if second < self.from {
            return None;
        }
        if self.sums.is_empty() {
            self.first = second;
        }
        let last = self.first.saturating_add(self.sums.len() as u64);
        if second.max(last) - second.min(self.first) > SECONDS_MAX {
            return None;
        }
        while second < self.first {
            self.sums.push_front(0);
            self.first -= 1;
        }
        let at = usize::try_from(second - self.first).ok()?;
        if at >= self.sums.len() {
            self.sums.resize(at + 1, 0);
        }
        self.sums.get_mut(at)
    }

    /// Panics unless the sums are those of `known`.
    #[cfg(test)]
    pub fn check(&self, known: impl Iterator<Item = (KeyHash, Version)>) {
        let mut fresh = Self { from: self.from, ..Self::default() };
        known.for_each(|(key, version)| fresh.add(key, version));
        for sums in [self, &fresh] {
            for at in 0..sums.sums.len() as u64 {
                let second = sums.first + at;
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
        let (mut sums, key) = (Sums::default(), KeyHash(7));
        let wild = [Version::new(u64::MAX, Incarnation(1)), version(0)];
        sums.forget_before(1_800_000_000 - 3_600);
        sums.add(key, version(1_800_000_000));
        wild.iter().for_each(|version| sums.add(key, *version));
        assert!(sums.sums.len() <= 4_096);
        wild.iter().for_each(|version| sums.subtract(key, *version));
        sums.check([(key, version(1_800_000_000))].into_iter());
        // What has no bound below is bounded as well.
        let mut sums = Sums::default();
        sums.add(key, version(1_800_000_000));
        sums.add(key, version(1));
        assert!(sums.sums.len() <= 4_096);
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing() {
        let (mut sums, key) = (Sums::default(), KeyHash(7));
        for second in [100, 90, 103] {
            sums.add(key, version(second));
        }
        let mut into = [1; 20];
        sums.add_to(88, &mut into);
        let differing: alloc::vec::Vec<_> = (0..20).filter(|at| into[*at] != 1).collect();
        assert_eq!(differing, [2, 12, 15]);
        let mut into = [0; 2];
        sums.add_to(102, &mut into);
        assert_eq!(into, [0, sums.get(103)]);
        sums.forget_before(95);
        assert_eq!((sums.get(90), sums.get(94)), (0, 0));
        sums.add(key, version(94));
        sums.subtract(key, version(90));
        sums.check([(key, version(100)), (key, version(103))].into_iter());
        for second in [100, 103] {
            sums.subtract(key, version(second));
        }
        sums.check(core::iter::empty());
        sums.forget_before(1_000);
        sums.add(key, version(1_001));
        assert_ne!(sums.get(1_001), 0);
    }
}
