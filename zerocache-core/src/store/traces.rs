//! What remains of entries that were deleted, expired or evicted.

use hashbrown::HashTable;

use super::{agenda::Agenda, chunks::Chunks, table_key::TableKey};
use crate::{
    key::KeyHash,
    version::{Incarnation, Version},
};

/// Bytes charged for a trace: itself, its place in the table and in the order, with their slack.
///
/// Measured like the overhead of an entry: 43 to 46.
pub const TRACE_BYTES: u64 = 46;

/// Most old traces that go for one that comes: more than one, so that none pile up, and few, so that no
/// write pays for all that grew old at once.
pub const DROPPED_MAX: usize = 4;

/// The traces of one part of the store, oldest stamp first out.
///
/// Invariant: a trace with a stamp at or below `floor` is as good as gone, and takes memory until it is
/// dropped; a record that old is refused for an unknown key. What a node stamps itself is above everything
/// that it saw, so also above its floor.
#[derive(Debug)]
pub struct Traces {
    table: HashTable<u32>,
    table_key: TableKey,
    traces: Chunks<Trace>,
    by_stamp: Agenda,
    count_max: usize,
    floor: u64,
}

/// A key that is gone, and the version that it had.
#[derive(Clone, Copy, Debug)]
struct Trace(KeyHash, Version);

impl Default for Trace {
    /// A place that no trace has.
    fn default() -> Self {
        Self(KeyHash(0), Version::new(0, Incarnation(0)))
    }
}

impl Traces {
    /// Room for `count_max` traces, at least one, in a table that places keys by this secret.
    #[must_use]
    pub fn new(count_max: usize, table_key: TableKey) -> Self {
        Self {
            table: HashTable::new(),
            table_key,
            traces: Chunks::default(),
            by_stamp: Agenda::default(),
            count_max: count_max.max(1),
            floor: 0,
        }
    }

    /// The version that this trace remembers.
    #[must_use]
    pub fn get(&self, key: KeyHash) -> Option<Version> {
        let version = self.traces[self.find(key)?].1;
        (version.stamp() > self.floor).then_some(version)
    }

    /// Remembers that `key` had `version`, unless it is too old to matter.
    pub fn leave(&mut self, key: KeyHash, version: Version) {
        if version.stamp() <= self.floor {
            return;
        }
        if let Some(place) = self.find(key) {
            self.traces[place].1 = version;
            self.by_stamp.note(place, version.stamp());
            return;
        }
        let place = self.traces.push(Trace(key, version));
        let (traces, table_key) = (&self.traces, self.table_key);
        let hasher = |&place: &u32| table_key.hash(traces[place].0);
        self.table.insert_unique(table_key.hash(key), place, hasher);
        self.by_stamp.note(place, version.stamp());
        if self.traces.len() > self.count_max {
            self.floor = self.floor.max(self.least_stamp());
            self.drop_old(DROPPED_MAX);
        }
    }

    /// Forgets the trace of a key that has an entry again.
    pub fn forget(&mut self, key: KeyHash) {
        if let Some(place) = self.find(key) {
            self.remove(place);
        }
    }

    /// Raises the floor to `floor_ms` since the Unix epoch.
    pub fn raise_floor(&mut self, floor_ms: u64) {
        self.floor = self.floor.max(floor_ms << Version::COUNTER_BITS);
    }

    /// Drops at most `most` traces at or below the floor; returns how many.
    pub fn drop_old(&mut self, most: usize) -> usize {
        let mut dropped = 0;
        while dropped < most
            && let Some(place) = self.find_until(self.floor)
        {
            self.remove(place);
            dropped += 1;
        }
        dropped
    }

    /// Changes the versions of all traces, and moves the floor by `by_ms`, be it down.
    pub fn redate(&mut self, redated: impl Fn(Version) -> Version, by_ms: i64) {
        let floor = Version::new(self.floor, Incarnation(0)).redated(by_ms).stamp();
        let fresh = Self { floor, ..Self::new(self.count_max, self.table_key) };
        let before = core::mem::replace(self, fresh);
        for (key, version) in before.iter() {
            self.leave(key, redated(version));
        }
    }

    /// The stamp at or below which absence means nothing.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many traces take memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// The trace at a place, unless it is as good as gone.
    #[must_use]
    pub fn at(&self, place: u32) -> Option<(KeyHash, Version)> {
        let Trace(key, version) = self.traces[place];
        (version.stamp() > self.floor).then_some((key, version))
    }

    /// All traces, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (KeyHash, Version)> {
        (0..self.traces.len() as u32).filter_map(|place| self.at(place))
    }

    fn find(&self, key: KeyHash) -> Option<u32> {
        let traces = &self.traces;
        self.table.find(self.table_key.hash(key), |&place| traces[place].0 == key).copied()
    }

    fn remove(&mut self, place: u32) {
        let hash = self.table_key.hash(self.traces[place].0);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == place) {
            entry.remove();
        }
        self.traces.swap_remove(place);
        let len = self.traces.len();
        if (place as usize) < len {
            let Trace(key, version) = self.traces[place];
            let moved =
                self.table.find_mut(self.table_key.hash(key), |&other| other as usize == len);
            if let Some(moved) = moved {
                *moved = place;
            }
            self.by_stamp.note(place, version.stamp());
        }
        self.by_stamp.truncate(len);
        if self.table.capacity() > 4 * len + 64 {
            let (traces, table_key) = (&self.traces, self.table_key);
            self.table.shrink_to(2 * len, |&place| table_key.hash(traces[place].0));
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
        let traces = &self.traces;
        self.by_stamp.find(stamp, traces.len(), |place| traces[place].1.stamp())
    }

    /// Most traces that the table cannot tell apart without looking at their keys.
    #[cfg(test)]
    pub fn longest_chain(&self) -> usize {
        let mut hashes: alloc::vec::Vec<_> =
            self.iter().map(|(key, _)| self.table_key.hash(key)).collect();
        hashes.sort_unstable();
        hashes.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0)
    }

    /// Panics unless table, traces and order agree.
    #[cfg(test)]
    pub fn check(&self) {
        let len = self.traces.len();
        assert_eq!(self.table.len(), len);
        for place in 0..len as u32 {
            assert_eq!(self.find(self.traces[place].0), Some(place));
        }
        self.by_stamp.check(len, |place| self.traces[place].1.stamp());
        assert!(len <= self.count_max);
    }
}
