//! Tombstones: the last versions of keys that were deleted, expired or evicted.

use hashbrown::HashTable;

use super::{
    chunks::Chunks,
    expiry_index::ExpiryIndex,
    table_hasher::{TableHasher, is_worth_shrinking},
};
use crate::{
    key::KeyHash,
    version::{Incarnation, Version},
};

/// Bytes charged for a tombstone, with its slots in the table and in the expiry index, and their slack.
///
/// Measured like the overhead of an entry: 43 to 46 bytes.
pub const TOMBSTONE_BYTES: u64 = 46;

/// The most old tombstones that a write drops: more than one, so that none pile up, and few, so that no
/// write pays for all that became old at the same time.
pub const DROPPED_MAX: usize = 4;

/// The tombstones of one shard. The oldest stamp is dropped first.
///
/// Invariant: a tombstone with a stamp at or below `floor` counts as absent, although it takes memory until
/// it is dropped. A record that old is rejected for an unknown key. A node stamps its own writes above
/// everything that it saw, and so above its floor.
#[derive(Debug)]
pub struct Tombstones {
    table: HashTable<u32>,
    hasher: TableHasher,
    tombstones: Chunks<Tombstone>,
    by_stamp: ExpiryIndex,
    count_max: usize,
    floor: u64,
}

/// The hash of a key without a value, and its last version.
#[derive(Clone, Copy, Debug)]
struct Tombstone(KeyHash, Version);

impl Default for Tombstone {
    /// The content of unused slots.
    fn default() -> Self {
        Self(KeyHash(0), Version::new(0, Incarnation(0)))
    }
}

impl Tombstones {
    /// Creates an empty table with room for `count_max` tombstones, at least one.
    #[must_use]
    pub fn new(count_max: usize, hasher: TableHasher) -> Self {
        Self {
            table: HashTable::new(),
            hasher,
            tombstones: Chunks::default(),
            by_stamp: ExpiryIndex::default(),
            count_max: count_max.max(1),
            floor: 0,
        }
    }

    /// Returns the version of the tombstone of a key.
    #[must_use]
    pub fn get(&self, key: KeyHash) -> Option<Version> {
        let version = self.tombstones[self.find(key)?].1;
        (version.stamp() > self.floor).then_some(version)
    }

    /// Inserts or updates a tombstone, unless `version` is at or below the floor.
    pub fn insert(&mut self, key: KeyHash, version: Version) {
        if version.stamp() <= self.floor {
            return;
        }
        if let Some(index) = self.find(key) {
            self.tombstones[index].1 = version;
            self.by_stamp.set(index, version.stamp());
            return;
        }
        let index = self.tombstones.push(Tombstone(key, version));
        let (tombstones, hasher) = (&self.tombstones, self.hasher);
        let hash = |&index: &u32| hasher.hash(tombstones[index].0);
        self.table.insert_unique(hasher.hash(key), index, hash);
        self.by_stamp.set(index, version.stamp());
        if self.tombstones.len() > self.count_max {
            self.floor = self.floor.max(self.least_stamp());
            self.drop_old(DROPPED_MAX);
        }
    }

    /// Removes the tombstone of a key.
    pub fn remove(&mut self, key: KeyHash) {
        if let Some(index) = self.find(key) {
            self.remove_at(index);
        }
    }

    /// Raises the floor to `floor_ms` since the Unix epoch.
    pub fn raise_floor(&mut self, floor_ms: u64) {
        self.floor = self.floor.max(floor_ms << Version::COUNTER_BITS);
    }

    /// Drops at most `most` tombstones at or below the floor. Returns how many.
    pub fn drop_old(&mut self, most: usize) -> usize {
        let mut dropped = 0;
        while dropped < most
            && let Some(index) = self.find_until(self.floor)
        {
            self.remove_at(index);
            dropped += 1;
        }
        dropped
    }

    /// Changes the versions of all tombstones, and moves the floor by `by_ms`, which may be negative.
    pub fn restamp(&mut self, restamped: impl Fn(Version) -> Version, by_ms: i64) {
        let floor = Version::new(self.floor, Incarnation(0)).restamped(by_ms).stamp();
        let fresh = Self { floor, ..Self::new(self.count_max, self.hasher) };
        let before = core::mem::replace(self, fresh);
        for (key, version) in before.iter() {
            self.insert(key, restamped(version));
        }
    }

    /// Returns the stamp at or below which the absence of a tombstone means nothing.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns the number of tombstones in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tombstones.len()
    }

    /// Returns a tombstone by index, unless it is at or below the floor.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<(KeyHash, Version)> {
        let Tombstone(key, version) = self.tombstones[index];
        (version.stamp() > self.floor).then_some((key, version))
    }

    /// Iterates over the tombstones above the floor, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (KeyHash, Version)> {
        (0..self.tombstones.len() as u32).filter_map(|index| self.at(index))
    }

    fn find(&self, key: KeyHash) -> Option<u32> {
        let tombstones = &self.tombstones;
        self.table.find(self.hasher.hash(key), |&index| tombstones[index].0 == key).copied()
    }

    fn remove_at(&mut self, index: u32) {
        let hash = self.hasher.hash(self.tombstones[index].0);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        self.tombstones.swap_remove(index);
        let len = self.tombstones.len();
        if (index as usize) < len {
            let Tombstone(key, version) = self.tombstones[index];
            let moved = self.table.find_mut(self.hasher.hash(key), |&other| other as usize == len);
            if let Some(moved) = moved {
                *moved = index;
            }
            self.by_stamp.set(index, version.stamp());
        }
        self.by_stamp.truncate(len);
        if is_worth_shrinking(self.table.capacity(), len) {
            let (tombstones, hasher) = (&self.tombstones, self.hasher);
            self.table.shrink_to(2 * len, |&index| hasher.hash(tombstones[index].0));
        }
    }

    fn least_stamp(&mut self) -> u64 {
        loop {
            let bound = self.by_stamp.bound();
            if self.find_until(bound).is_some() || bound == u64::MAX {
                return bound;
            }
        }
    }

    fn find_until(&mut self, stamp: u64) -> Option<u32> {
        let tombstones = &self.tombstones;
        self.by_stamp.find(stamp, tombstones.len(), |index| tombstones[index].1.stamp())
    }

    /// Returns the most tombstones with the same table hash.
    #[cfg(test)]
    pub fn longest_chain(&self) -> usize {
        let mut hashes: alloc::vec::Vec<_> =
            self.iter().map(|(key, _)| self.hasher.hash(key)).collect();
        hashes.sort_unstable();
        hashes.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0)
    }

    /// Panics unless table, tombstones and expiry index agree.
    #[cfg(test)]
    pub fn check(&self) {
        let len = self.tombstones.len();
        assert_eq!(self.table.len(), len);
        for index in 0..len as u32 {
            assert_eq!(self.find(self.tombstones[index].0), Some(index));
        }
        self.by_stamp.check(len, |index| self.tombstones[index].1.stamp());
        assert!(len <= self.count_max);
    }
}
