//! One of the 64 shards of the store: the data behind one lock.

#[cfg(test)]
mod checks;
mod copies;
mod disk;
mod eviction;
mod prefetch;
mod purges;
mod restamp;
mod witness;

use alloc::vec::Vec;

use self::disk::Departure;
use super::{
    backend::Pages,
    digests::{Digests, second_of},
    disk::DiskJob,
    entries::Entries,
    eviction::{EvictionPolicy, QueueTime},
    ghosts::Ghosts,
    outcome::ApplyOutcome,
    sizes::Sizes,
    slot::{Class, NewEntry, RESTORED, SlotRef},
    stats::{Counts, Usage},
    table_hasher::TableHasher,
    tombstones::Tombstones,
    variant::{Breakage, StoreVariant},
};
use crate::{
    entry::{Change, Record},
    key::KeyHash,
    time::{Instant, Now},
    version::{Incarnation, Version},
};

/// The result of a reader's lookup. The numbers are indices of slots.
#[derive(Clone, Copy, Debug)]
pub enum Probe {
    /// An entry whose use is counted in place.
    Hit(u32),
    /// An entry that a hit moves: one that was never read, or any one if the order is that of the last use.
    MovingHit(u32),
    /// An entry that has expired.
    Expired(u32),
    /// An entry that a purge ended.
    Purged(u32),
    /// An entry whose value is on disk.
    OnDisk,
    /// No entry.
    Absent,
}

/// Entries and tombstones of one shard of the key space.
#[derive(Debug)]
pub struct Shard<P> {
    entries: Entries<P>,
    tombstones: Tombstones,
    ghosts: Ghosts,
    hasher: TableHasher,
    policy: EvictionPolicy,
    digests: Digests,
    usage: Usage,
    counts: Counts,
    sizes: Sizes,
    weight_max: u64,
    breakage: Breakage,
    has_disk: bool,
    /// Jobs for the disk.
    jobs: Vec<DiskJob>,
}

impl<P: Pages> Shard<P> {
    /// Creates an empty shard that stores no value heavier than `weight_max` and at most `tombstones_max`
    /// tombstones.
    #[must_use]
    pub fn new(weight_max: u64, tombstones_max: usize, hasher: TableHasher) -> Self {
        let sizes = Sizes::of(weight_max);
        Self {
            entries: Entries::new(hasher, sizes),
            sizes,
            tombstones: Tombstones::new(tombstones_max, hasher),
            ghosts: Ghosts::default(),
            hasher,
            policy: EvictionPolicy::default(),
            digests: Digests::default(),
            usage: Usage::default(),
            counts: Counts::default(),
            weight_max,
            breakage: Breakage::default(),
            has_disk: false,
            jobs: Vec::new(),
        }
    }

    /// Looks up `key` for a reader. `purged_from` says from when on purges keep an entry from being served. The
    /// caller records the result with [`Shard::record_hit`], [`Shard::record_moving_hit`] or [`Shard::record_miss`].
    #[inline]
    #[must_use]
    pub fn probe(
        &mut self,
        (hash, key): (KeyHash, &[u8]),
        now: Instant,
        purged_from: impl FnOnce(SlotRef<'_, P>) -> Option<Instant>,
    ) -> Probe {
        let Some(index) = self.entries.find(hash, key) else { return Probe::Absent };
        let slot = self.entries.slot(index);
        if slot.is_expired(now) {
            return Probe::Expired(index);
        }
        let class = slot.class;
        match purged_from(slot) {
            Some(end) if end <= now => return Probe::Purged(index),
            Some(end) => self.entries.shorten(index, end),
            None => {}
        }
        match class {
            Class::Read => Probe::Hit(index),
            // The read for which it came back does not move it.
            Class::Unread if self.entries.slot(index).uses == RESTORED => Probe::Hit(index),
            Class::Unread => Probe::MovingHit(index),
            Class::Reserved => Probe::Absent,
            Class::Disk if self.entries.slot(index).is_on_disk() => Probe::OnDisk,
            Class::Disk => Probe::Hit(index),
        }
    }

    /// Counts a hit and a use of an entry in place.
    #[inline]
    pub fn record_hit(&mut self, index: u32) -> SlotRef<'_, P> {
        self.counts.hits += 1;
        self.entries.mark_used(index);
        self.entries.slot(index)
    }

    /// Counts a hit of an unread entry, which moves it.
    pub fn record_moving_hit(&mut self, index: u32, tick: u64) {
        self.counts.hits += 1;
        let to = self.policy.class_of_used();
        let weight = self.entries.slot(index).weight();
        self.entries.requeue(index, to, tick);
        self.usage.remove(Class::Unread, weight);
        self.usage.add(to, weight);
    }

    /// Counts a miss.
    #[inline]
    pub fn record_miss(&mut self) {
        self.counts.misses += 1;
    }

    /// Returns the entry in a slot.
    #[inline]
    #[must_use]
    pub fn slot(&self, index: u32) -> SlotRef<'_, P> {
        self.entries.slot(index)
    }

    /// Looks up `key` without counting a read or a use.
    #[must_use]
    pub fn peek(&self, hash: KeyHash, key: &[u8], now: Instant) -> Option<SlotRef<'_, P>> {
        let slot = self.entries.slot(self.entries.find(hash, key)?);
        (!slot.is_expired(now) && slot.class != Class::Reserved).then_some(slot)
    }

    /// Returns the known version of a key, of its value or its tombstone.
    #[must_use]
    pub fn version(&self, hash: KeyHash) -> Option<Version> {
        self.version_at(self.entries.find_hash(hash, b""), hash)
    }

    /// Returns the version of a key that has no entry.
    #[must_use]
    pub fn tombstone_of(&self, hash: KeyHash) -> Option<Version> {
        self.tombstones.get(hash)
    }

    /// Merges a record. The higher version wins; at equal versions the earlier expiry does.
    ///
    /// A value that a purge `ended` leaves a tombstone, as one that has expired.
    pub fn apply(
        &mut self,
        (hash, record): (KeyHash, &Record),
        now: Now,
        time: QueueTime,
        ended: bool,
    ) -> ApplyOutcome {
        let index = self.entries.find_hash(hash, record.key.as_bytes());
        let known = self.version_at(index, hash);
        if let Some(outcome) = self.rejection(known, record.version) {
            if let (ApplyOutcome::Duplicate, Some(index), Change::Put { expires, .. }) =
                (outcome, index, &record.change)
            {
                self.entries.shorten(index, *expires);
            }
            return outcome;
        }
        // About three of a hundred milliseconds.
        if self.breakage.is(StoreVariant::WritesDropped)
            && record.version.wall_ms().is_multiple_of(32)
        {
            return ApplyOutcome::Applied;
        }
        self.update_digests(hash, known, record.version);
        match &record.change {
            Change::Put { .. } if ended => {
                self.counts.purged += 1;
                self.replace_with_tombstone(hash, index, record.version);
                return ApplyOutcome::Purged;
            }
            Change::Put { value, metadata, expires } if *expires > now.mono => {
                let key = record.key.as_bytes();
                if self.sizes.weight_of(record.payload_bytes()) > self.weight_max {
                    // A replica that cannot store a value still drops its older one.
                    self.counts.rejected_too_large += 1;
                    self.replace_with_tombstone(hash, index, record.version);
                } else {
                    let (version, expires) = (record.version, *expires);
                    let entry = NewEntry { key, metadata, value, version, expires };
                    self.put(hash, index, &entry, time);
                }
            }
            Change::Put { .. } => {
                self.counts.expired += 1;
                self.replace_with_tombstone(hash, index, record.version);
            }
            Change::Delete => {
                self.counts.deletes += 1;
                self.replace_with_tombstone(hash, index, record.version);
                self.note_delete(hash, record.version);
            }
        }
        ApplyOutcome::Applied
    }

    /// Merges a tombstone of a peer: a version without a value.
    pub fn apply_tombstone(&mut self, hash: KeyHash, version: Version) -> ApplyOutcome {
        let index = self.entries.find_hash(hash, b"");
        let known = self.version_at(index, hash);
        if let Some(outcome) = self.rejection(known, version) {
            return outcome;
        }
        self.update_digests(hash, known, version);
        self.counts.deletes += 1;
        self.replace_with_tombstone(hash, index, version);
        ApplyOutcome::Applied
    }

    /// Returns the outcome of a record of `version` if it changes nothing, and counts it.
    fn rejection(&mut self, known: Option<Version>, version: Version) -> Option<ApplyOutcome> {
        match known {
            Some(known) if known > version => {
                self.counts.rejected_old += 1;
                Some(ApplyOutcome::Superseded(known))
            }
            Some(known) if known == version => Some(ApplyOutcome::Duplicate),
            None if version.stamp() <= self.tombstones.floor() => {
                self.counts.rejected_old += 1;
                Some(ApplyOutcome::TooOld)
            }
            _ => None,
        }
    }

    /// Replaces the known version of a key in the digests.
    fn update_digests(&mut self, hash: KeyHash, before: Option<Version>, version: Version) {
        if let Some(before) = before {
            self.digests.subtract(hash, before);
        }
        self.digests.add(hash, version);
    }

    fn version_at(&self, index: Option<u32>, hash: KeyHash) -> Option<Version> {
        match index {
            Some(index) => Some(self.entries.slot(index).version),
            None => self.tombstones.get(hash),
        }
    }

    /// Drops one expired entry. Returns false if there is none.
    pub fn expire_one(&mut self, now: Instant) -> bool {
        match self.entries.find_expired(now) {
            Some(index) => {
                self.expire(index);
                true
            }
            None => false,
        }
    }

    /// Injects a bug.
    #[cfg(feature = "variants")]
    pub fn set_breakage(&mut self, breakage: Breakage) {
        self.breakage = breakage;
    }

    /// Raises the retention floor: tombstones at or below `floor_ms` count as absent, and records that old
    /// are rejected for unknown keys. Drops at most `most` of these tombstones and returns how many.
    pub fn raise_tombstone_floor(&mut self, floor_ms: u64, most: usize) -> usize {
        self.tombstones.raise_floor(floor_ms);
        let dropped = self.tombstones.drop_old(most);
        self.usage.tombstones = self.tombstones.len() as u64;
        self.digests.forget_before(self.first_complete_second());
        dropped
    }

    /// Returns the highest version whose tombstone may have been dropped. At or below it the absence of a
    /// key means nothing.
    #[must_use]
    pub fn retention_floor(&self) -> Version {
        Version::new(self.tombstones.floor(), Incarnation(u64::MAX))
    }

    /// Returns the first second of versions of which no tombstone was dropped.
    #[must_use]
    pub fn first_complete_second(&self) -> u64 {
        match self.tombstones.floor() {
            0 => 0,
            floor => second_of(Version::new(floor, Incarnation(0))) + 1,
        }
    }

    /// Returns the tick of the oldest entry of a class.
    #[must_use]
    pub fn oldest_tick(&self, class: Class) -> Option<u64> {
        self.entries.oldest(class).map(|index| self.entries.slot(index).tick())
    }

    /// Returns a time before which no entry expires, in milliseconds.
    #[must_use]
    pub fn first_expiry(&self) -> u64 {
        self.entries.first_expiry()
    }

    /// Returns the digests by which two nodes find where they differ.
    #[must_use]
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Returns the number of entries. Their slots have the indices below it.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of tombstones in memory. They have the indices below it.
    #[must_use]
    pub fn tombstone_count(&self) -> usize {
        self.tombstones.len()
    }

    /// Returns a tombstone by index, unless it is past the retention.
    #[must_use]
    pub fn tombstone(&self, index: u32) -> Option<(KeyHash, Version)> {
        self.tombstones.at(index)
    }

    /// Iterates over all entries, in no order.
    pub fn slots(&self) -> impl Iterator<Item = SlotRef<'_, P>> {
        self.entries.slots()
    }

    /// Iterates over all tombstones, in no order.
    pub fn tombstones(&self) -> impl Iterator<Item = (KeyHash, Version)> {
        self.tombstones.iter()
    }

    /// Returns the entry whose key has this hash. It may have expired.
    #[must_use]
    pub fn entry(&self, hash: KeyHash) -> Option<SlotRef<'_, P>> {
        self.entries.find_hash(hash, b"").map(|index| self.entries.slot(index))
    }

    /// Removes the entry or tombstone of a key and leaves no tombstone. Returns whether there was one.
    pub fn erase(&mut self, hash: KeyHash) -> bool {
        let index = self.entries.find_hash(hash, b"");
        let Some(known) = self.version_at(index, hash) else { return false };
        self.digests.subtract(hash, known);
        match index {
            Some(index) => self.remove(index, Some((known, Departure::Forgotten))),
            None => self.remove_tombstone(hash),
        }
        true
    }

    /// Returns the sizes.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }
    /// Returns the counters.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Stores an entry, in the slot of the present one if there is one.
    fn put(&mut self, hash: KeyHash, index: Option<u32>, entry: &NewEntry<'_>, time: QueueTime) {
        self.counts.puts += 1;
        let mut class = Class::of_new(entry.key);
        match index {
            Some(index) => {
                let slot = self.entries.slot(index);
                let (before, weight, version) = (slot.class, slot.weight(), slot.version);
                self.depart(index, version, Departure::Forgotten);
                self.release_usage(index, before, weight);
                self.entries.replace(index, entry, time.tick);
            }
            None => {
                self.remove_tombstone(hash);
                let bits = self.hasher.bits(hash);
                if self.ghosts.take(bits, time.generation) && class == Class::Unread {
                    class = Class::Read;
                }
                self.entries.insert(hash, entry, class, time.tick);
            }
        }
        let weight = self.sizes.weight_of(entry.payload_bytes());
        self.usage.add(class, weight);
    }

    fn replace_with_tombstone(&mut self, hash: KeyHash, index: Option<u32>, version: Version) {
        match index {
            Some(index) => self.remove(index, Some((version, Departure::Ended))),
            // What was deleted is not missed.
            None => {
                self.ghosts.remove(self.hasher.bits(hash));
            }
        }
        self.add_tombstone(hash, version);
    }

    /// Removes an entry. What is of it on disk does not come back if `erased` says up to which version, and why.
    fn remove(&mut self, index: u32, erased: Option<(Version, Departure)>) {
        if let Some((version, departure)) = erased {
            self.depart(index, version, departure);
        }
        let (class, weight) = (self.slot(index).class, self.slot(index).weight());
        self.release_usage(index, class, weight);
        self.entries.remove(index);
        self.ghosts.shrink(self.entries.len());
    }

    fn release_usage(&mut self, index: u32, class: Class, weight: u64) {
        self.usage.remove(class, weight);
        if class == Class::Disk && !self.entries.slot(index).is_on_disk() {
            self.usage.leaving -= weight;
        }
    }

    /// Drops an entry that has expired.
    pub fn expire(&mut self, index: u32) {
        self.counts.expired += 1;
        self.drop_entry(index);
    }

    fn drop_entry(&mut self, index: u32) {
        let (hash, version) = (self.slot(index).hash(), self.slot(index).version);
        self.remove(index, Some((version, Departure::Ended)));
        self.add_tombstone(hash, version);
    }

    fn add_tombstone(&mut self, hash: KeyHash, version: Version) {
        if self.breakage.is(StoreVariant::NoTombstones) {
            return self.digests.subtract(hash, version);
        }
        self.tombstones.insert(hash, version);
        self.usage.tombstones = self.tombstones.len() as u64;
        // Others may have been dropped to make room for it.
        self.digests.forget_before(self.first_complete_second());
    }

    fn remove_tombstone(&mut self, hash: KeyHash) {
        self.tombstones.remove(hash);
        self.usage.tombstones = self.tombstones.len() as u64;
    }
}
