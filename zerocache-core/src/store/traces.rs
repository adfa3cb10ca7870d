//! What remains of entries that were deleted, expired or evicted.

use hashbrown::HashMap;

use super::{agenda::Agenda, order::BuildPassThrough};
use crate::{key::KeyHash, version::Version};

/// Bytes charged for a trace: its place in the table and in the order, with their slack.
pub const TRACE_BYTES: u64 = 96;

/// The traces of one part of the store, oldest stamp first out.
///
/// Invariant: a stamp at or below `floor` may have lost its trace; a record that old is refused for an
/// unknown key. What a node stamps itself is above everything that it saw, so also above its floor.
#[derive(Debug)]
pub struct Traces {
    versions: HashMap<KeyHash, Version, BuildPassThrough>,
    by_stamp: Agenda,
    count_max: usize,
    floor: u64,
}

impl Traces {
    /// Room for `count_max` traces, at least one.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            versions: HashMap::default(),
            by_stamp: Agenda::default(),
            count_max: count_max.max(1),
            floor: 0,
        }
    }

    /// The version that this trace remembers.
    #[must_use]
    pub fn get(&self, key: KeyHash) -> Option<Version> {
        self.versions.get(&key).copied()
    }

    /// Remembers that `key` had `version`, unless it is too old to matter.
    pub fn leave(&mut self, key: KeyHash, version: Version) {
        if version.stamp() <= self.floor {
            return;
        }
        self.forget(key);
        self.versions.insert(key, version);
        self.by_stamp.add(version.stamp(), key);
        if self.versions.len() > self.count_max
            && let Some(stamp) = self.by_stamp.first()
        {
            self.drop_until(stamp);
        }
    }

    /// Forgets the trace of a key that has an entry again.
    pub fn forget(&mut self, key: KeyHash) {
        if let Some(version) = self.versions.remove(&key) {
            self.by_stamp.remove(version.stamp(), key);
        }
    }

    /// Raises the floor to `floor_ms` since the Unix epoch and drops what is at or below it.
    pub fn raise_floor(&mut self, floor_ms: u64) {
        self.drop_until(floor_ms << Version::COUNTER_BITS);
    }

    /// The stamp at or below which absence means nothing.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many traces are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    fn drop_until(&mut self, stamp: u64) {
        if stamp <= self.floor {
            return;
        }
        self.floor = stamp;
        while let Some((_, key)) = self.by_stamp.pop_until(stamp) {
            self.versions.remove(&key);
        }
    }
}
