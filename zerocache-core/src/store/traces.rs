//! What remains of entries that were deleted, expired or evicted.

use hashbrown::HashTable;

use super::{agenda::Agenda, chunks::Chunks};
use crate::{
    key::KeyHash,
    version::{Incarnation, Version},
};

/// Bytes charged for a trace: itself, its place in the table and in the order, with their slack.
///
/// Measured like the overhead of an entry: 43 to 46.
pub const TRACE_BYTES: u64 = 46;

/// The traces of one part of the store, oldest stamp first out.
///
/// Invariant: a stamp at or below `floor` may have lost its trace; a record that old is refused for an
/// unknown key. What a node stamps itself is above everything that it saw, so also above its floor.
#[derive(Debug)]
pub struct Traces {
    table: HashTable<u32>,
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
    /// Room for `count_max` traces, at least one.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            table: HashTable::new(),
            traces: Chunks::default(),
            by_stamp: Agenda::default(),
            count_max: count_max.max(1),
            floor: 0,
        }
    }

    /// The version that this trace remembers.
    #[must_use]
    pub fn get(&self, key: KeyHash) -> Option<Version> {
        self.find(key).map(|place| self.traces[place].1)
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
        let traces = &self.traces;
        self.table.insert_unique(table_hash(key), place, |&place| table_hash(traces[place].0));
        self.by_stamp.note(place, version.stamp());
        if self.traces.len() > self.count_max {
            let least = self.least_stamp();
            self.drop_until(least);
        }
    }

    /// Forgets the trace of a key that has an entry again.
    pub fn forget(&mut self, key: KeyHash) {
        if let Some(place) = self.find(key) {
            self.remove(place);
        }
    }

    /// Raises the floor to `floor_ms` since the Unix epoch and drops what is at or below it.
    pub fn raise_floor(&mut self, floor_ms: u64) {
        self.drop_until(floor_ms << Version::COUNTER_BITS);
    }

    /// Changes the versions of all traces, and moves the floor by `by_ms`, be it down.
    pub fn redate(&mut self, redated: impl Fn(Version) -> Version, by_ms: i64) {
        let floor = Version::new(self.floor, Incarnation(0)).redated(by_ms).stamp();
        let fresh = Self { floor, ..Self::new(self.count_max) };
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

    /// How many traces are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// All traces, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (KeyHash, Version)> {
        (0..self.traces.len() as u32).map(|place| {
            let Trace(key, version) = self.traces[place];
            (key, version)
        })
    }

    fn find(&self, key: KeyHash) -> Option<u32> {
        let traces = &self.traces;
        self.table.find(table_hash(key), |&place| traces[place].0 == key).copied()
    }

    fn remove(&mut self, place: u32) {
        let hash = table_hash(self.traces[place].0);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == place) {
            entry.remove();
        }
        self.traces.swap_remove(place);
        let len = self.traces.len();
        if (place as usize) < len {
            let Trace(key, version) = self.traces[place];
            let moved = self.table.find_mut(table_hash(key), |&other| other as usize == len);
            if let Some(moved) = moved {
                *moved = place;
            }
            self.by_stamp.note(place, version.stamp());
        }
        self.by_stamp.truncate(len);
        if self.table.capacity() > 4 * len + 64 {
            let traces = &self.traces;
            self.table.shrink_to(2 * len, |&place| table_hash(traces[place].0));
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

    fn drop_until(&mut self, stamp: u64) {
        if stamp <= self.floor {
            return;
        }
        self.floor = stamp;
        while let Some(place) = self.find_until(stamp) {
            self.remove(place);
        }
    }

    /// Panics unless table, traces and order agree.
    #[cfg(test)]
    pub fn check(&self) {
        let len = self.traces.len();
        assert_eq!(self.table.len(), len);
        for place in 0..len as u32 {
            assert_eq!(self.find(self.traces[place].0), Some(place));
            assert!(self.traces[place].1.stamp() > self.floor);
        }
        self.by_stamp.check(len, |place| self.traces[place].1.stamp());
        assert!(len <= self.count_max);
    }
}

/// Key hashes are hashes already: 64 of their bits serve as they are.
fn table_hash(key: KeyHash) -> u64 {
    key.0 as u64
}
