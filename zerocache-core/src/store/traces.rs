//! What remains of entries that were deleted, expired or evicted.

use hashbrown::HashMap;

use super::{order::BuildPassThrough, schedule::Schedule};
use crate::{key::KeyHash, version::Version};

/// Bytes charged for a trace: table slot and schedule hint with their slack.
pub const TRACE_BYTES: u64 = 96;

/// The traces of one part of the store, oldest version first out.
///
/// Invariant: a stamp at or below `floor` may have lost its trace; a record that old is refused for an
/// unknown key. What a node stamps itself is above everything that it saw, so also above its floor.
#[derive(Debug)]
pub struct Traces {
    versions: HashMap<KeyHash, Version, BuildPassThrough>,
    schedule: Schedule,
    count_max: usize,
    floor: u64,
}

impl Traces {
    /// Room for `count_max` traces.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            versions: HashMap::default(),
            schedule: Schedule::default(),
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
        self.versions.insert(key, version);
        self.schedule.add(version.wall_ms() / 1_000, key);
        while self.versions.len() > self.count_max {
            let Some((second, oldest)) = self.schedule.take_until(u64::MAX) else {
                break;
            };
            if let Some(version) = self.is_current(second, oldest) {
                self.versions.remove(&oldest);
                self.floor = self.floor.max(version.stamp());
            }
        }
        self.tidy();
    }

    /// Forgets the trace of a key that has an entry again.
    pub fn forget(&mut self, key: KeyHash) {
        if self.versions.remove(&key).is_some() {
            self.tidy();
        }
    }

    /// Raises the floor to `floor_ms` since the Unix epoch and drops what is at or below it.
    pub fn raise_floor(&mut self, floor_ms: u64) {
        let floor = floor_ms << Version::COUNTER_BITS;
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        // A bucket that the floor cuts in two stays until the floor has passed all of it.
        let Some(second) = (floor_ms / 1_000).checked_sub(1) else {
            return;
        };
        while let Some((second, key)) = self.schedule.take_until(second) {
            if self.is_current(second, key).is_some() {
                self.versions.remove(&key);
            }
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
        self.versions.len()
    }

    fn is_current(&self, second: u64, key: KeyHash) -> Option<Version> {
        self.get(key).filter(|version| version.wall_ms() / 1_000 == second)
    }

    fn tidy(&mut self) {
        if self.schedule.is_bloated(self.versions.len()) {
            let versions = &self.versions;
            self.schedule.rebuild(|second, key| {
                versions.get(&key).is_some_and(|version| version.wall_ms() / 1_000 == second)
            });
        }
    }
}
