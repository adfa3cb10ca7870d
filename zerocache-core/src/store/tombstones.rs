//! What remains of entries that were deleted, expired or evicted.

use hashbrown::HashTable;

use super::{chunks::Chunks, expiry_index::ExpiryIndex, table_hasher::TableHasher};
use crate::{
    key::KeyHash,
    version::{Incarnation, Version},
};

/// Bytes charged for a tombstone: itself, its index in the table and in the order, with their slack.
///
/// Measured like the overhead of an entry: 43 to 46.
pub const TOMBSTONE_BYTES: u64 = 46;

/// Most old tombstones that go for one that comes: more than one, so that none pile up, and few, so that no
/// write pays for all that grew old at once.
pub const DROPPED_MAX: usize = 4;

/// The tombstones of one part of the store, oldest stamp first out.
///
/// Invariant: a tombstone with a stamp at or below `floor` is as good as gone, and takes memory until it is
/// dropped; a record that old is refused for an unknown key. What a node stamps itself is above everything
/// that it saw, so also above its floor.
#[derive(Debug)]
pub struct Tombstones {
    table: HashTable<u32>,
    hasher: TableHasher,
    tombstones: Chunks<Tombstone>,
    by_stamp: ExpiryIndex,
    count_max: usize,
    floor: u64,
}

/// A key that is gone, and the version that it had.
#[derive(Clone, Copy, Debug)]
struct Tombstone(KeyHash, Version);

impl Default for Tombstone {
    /// A index that no tombstone has.
    fn default() -> Self {
        Self(KeyHash(0), Version::new(0, Incarnation(0)))
    }
}

impl Tombstones {
    /// Room for `count_max` tombstones, at least one, in a table that indices keys by this secret.
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

    /// The version that this tombstone remembers.
    #[must_use]
    pub fn get(&self, key: KeyHash) -> Option<Version> {
        let version = self.tombstones[self.find(key)?].1;
        (version.stamp() > self.floor).then_some(version)
    }

    /// Remembers that `key` had `version`, unless it is too old to matter.
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

    /// Forgets the tombstone of a key that has an entry again.
    pub fn remove(&mut self, key: KeyHash) {
        if let Some(index) = self.find(key) {
            self.remove_at(index);
        }
    }

    /// Raises the floor to `floor_ms` since the Unix epoch.
    pub fn raise_floor(&mut self, floor_ms: u64) {
        self.floor = self.floor.max(floor_ms << Version::COUNTER_BITS);
    }

    /// Drops at most `most` tombstones at or below the floor; returns how many.
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

    /// Changes the versions of all tombstones, and moves the floor by `by_ms`, be it down.
    pub fn restamp(&mut self, restamped: impl Fn(Version) -> Version, by_ms: i64) {
        let floor = Version::new(self.floor, Incarnation(0)).restamped(by_ms).stamp();
        let fresh = Self { floor, ..Self::new(self.count_max, self.hasher) };
        let before = core::mem::replace(self, fresh);
        for (key, version) in before.iter() {
            self.insert(key, restamped(version));
        }
    }

    /// The stamp at or below which absence means nothing.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many tombstones take memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tombstones.len()
    }

    /// The tombstone at a index, unless it is as good as gone.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<(KeyHash, Version)> {
        let Tombstone(key, version) = self.tombstones[index];
        (version.stamp() > self.floor).then_some((key, version))
    }

    /// All tombstones, in no order.
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
        if self.table.capacity() > 4 * len + 64 {
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

    /// Most tombstones that the table cannot tell apart without looking at their keys.
    #[cfg(test)]
    pub fn longest_chain(&self) -> usize {
        let mut hashes: alloc::vec::Vec<_> =
            self.iter().map(|(key, _)| self.hasher.hash(key)).collect();
        hashes.sort_unstable();
        hashes.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0)
    }

    /// Panics unless table, tombstones and order agree.
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
