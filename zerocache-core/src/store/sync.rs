//! Access to the whole content of a store for repair, the copy at start, and snapshots.

use alloc::{collections::BTreeSet, vec::Vec};

use bytes::Bytes;

use super::{
    ApplyOutcome, Broken, Store,
    backend::{Backend, Lock, Pages},
    digests::second_of,
    slot::{Class, SlotRef},
    tombstones::DROPPED_MAX,
    totals::age,
};
use crate::{
    entry::{Change, Record},
    key::{Key, KeyHash, SHARDS},
    purge::TargetId,
    time::Now,
    version::{Incarnation, Version},
};

/// The hash of a key, and the known version of the key.
pub type KeyVersion = (KeyHash, Version);

/// The content of a store about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredItem {
    /// A value.
    Value(Record),
    /// The last version of a key that was deleted, expired or evicted.
    Tombstone(KeyHash, Version),
}

impl StoredItem {
    /// Returns the hash of its key, and its version.
    #[must_use]
    pub fn key_version(&self) -> KeyVersion {
        match self {
            Self::Value(record) => (record.key.hash(), record.version),
            Self::Tombstone(key, version) => (*key, *version),
        }
    }

    /// Returns whether it is a value.
    #[must_use]
    pub const fn is_value(&self) -> bool {
        matches!(self, Self::Value(_))
    }
}

/// The progress of a scan over a shard, from the last slot to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanCursor {
    /// The number of entries left.
    entries: usize,
    /// The number of tombstones left.
    tombstones: usize,
}

impl ScanCursor {
    /// The cursor of a scan that has not begun.
    pub const START: Self = Self { entries: usize::MAX, tombstones: usize::MAX };
    /// The cursor of a complete scan.
    pub const END: Self = Self { entries: 0, tombstones: 0 };
}

/// Takes the next indices off `left`, at most `most` of the `len` that there are. Returns their number and
/// the first of them.
pub(super) fn advance(left: &mut usize, len: usize, most: usize) -> (usize, usize) {
    let end = (*left).min(len);
    let count = end.min(most);
    *left = end - count;
    (count, *left)
}

impl<B: Backend> Store<B> {
    /// Returns the first second of versions about which this store knows everything: none of its tombstones
    /// was dropped.
    pub fn first_complete_second(&self, now: Now) -> u64 {
        let floor_ms = self.floor_ms(now);
        let first = |index| {
            self.change(index, |shard| {
                shard.raise_tombstone_floor(floor_ms, 0);
                shard.first_complete_second()
            })
        };
        (0..SHARDS).map(first).max().unwrap_or(0)
    }

    /// Returns one digest per second from `from` to `to`, each over all shards.
    #[must_use]
    pub fn digests_by_second(&self, from: u64, to: u64) -> Vec<u64> {
        let seconds = to.checked_sub(from).map_or(0, |more| more + 1);
        let mut digests = alloc::vec![0; usize::try_from(seconds).unwrap_or(0)];
        for index in 0..SHARDS {
            self.shard(index).with(|shard| shard.digests().add_to(from, &mut digests));
        }
        digests
    }

    /// Returns one digest per shard for each of these seconds: all shards of the first second, then all
    /// shards of the next one, and so on.
    #[must_use]
    pub fn digests_by_shard(&self, seconds: &[u64]) -> Vec<u64> {
        let mut digests = alloc::vec![0; seconds.len() * SHARDS];
        for index in 0..SHARDS {
            self.shard(index).with(|shard| {
                for (of_second, second) in digests.chunks_exact_mut(SHARDS).zip(seconds) {
                    of_second[index] = shard.digests().get(*second);
                }
            });
        }
        digests
    }

    /// Appends the known versions of a shard within `seconds` (ascending) to `into`. Inspects at most `most`
    /// entries and tombstones from `cursor` on, advances it, and returns how many were inspected.
    ///
    /// A key that is known throughout the scan is never left out, whatever changes between the calls: the
    /// last slot takes the index of a removed one, and the scan runs from the last slot to the first. A key
    /// whose entry becomes a tombstone during the scan may appear twice.
    pub fn scan_versions(
        &self,
        index: usize,
        seconds: &[u64],
        cursor: &mut ScanCursor,
        most: usize,
        into: &mut Vec<KeyVersion>,
    ) -> usize {
        let is_wanted = |version: Version| seconds.binary_search(&second_of(version)).is_ok();
        self.shard(index).with(|shard| {
            let (entries, first) = advance(&mut cursor.entries, shard.entry_count(), most);
            let slots = (first..first + entries).map(|index| shard.slot(index as u32));
            let wanted = slots.filter(|slot| is_wanted(slot.version));
            into.extend(wanted.map(|slot| (slot.hash(), slot.version)));
            if cursor.entries > 0 {
                return entries;
            }
            let most = most - entries;
            let (tombstones, first) =
                advance(&mut cursor.tombstones, shard.tombstone_count(), most);
            let known =
                (first..first + tombstones).filter_map(|index| shard.tombstone(index as u32));
            into.extend(known.filter(|(_, version)| is_wanted(*version)));
            entries + tombstones
        })
    }

    /// Returns the values of a shard with versions before `second`, and the tombstones from the second `tombstones_from`
    /// on.
    #[must_use]
    pub fn versions_before(
        &self,
        index: usize,
        second: u64,
        tombstones_from: u64,
    ) -> Vec<KeyVersion> {
        let second = if self.is_broken(Broken::NewerErased) { u64::MAX } else { second };
        self.shard(index).with(|shard| {
            let values = shard.slots().map(|slot| (slot.hash(), slot.version));
            let is_known = |(_, version): &KeyVersion| second_of(*version) >= tombstones_from;
            let versions = values.chain(shard.tombstones().filter(is_known));
            versions.filter(|(_, version)| second_of(*version) < second).collect()
        })
    }

    /// Returns the value or tombstone of a key. A value that has expired or was purged is a tombstone.
    #[must_use]
    pub fn item(&self, hash: KeyHash, now: Now) -> Option<StoredItem> {
        self.item_for(hash, now, true)
    }

    /// Returns the same for a node that `keeps` the value of the key, or else its version alone: also of a value that is
    /// on disk. Of what nodes alone write every node keeps the values.
    #[must_use]
    pub fn item_for(&self, hash: KeyHash, now: Now, keeps: bool) -> Option<StoredItem> {
        self.shard(hash.shard()).with(|shard| match shard.entry(hash) {
            Some(slot) if !keeps && slot.class != Class::Reserved => {
                Some(StoredItem::Tombstone(hash, slot.version))
            }
            // On disk alone: nothing is said of it before it has been put back.
            Some(slot) if self.is_given(slot, now, Broken::PurgedRepaired) => {
                Some(StoredItem::Value(record(slot)?))
            }
            Some(slot) => Some(StoredItem::Tombstone(hash, slot.version)),
            None => shard.version(hash).map(|version| StoredItem::Tombstone(hash, version)),
        })
    }

    /// Calls `take` with each purge target that the entry of a key belongs to, if there is an entry.
    pub(crate) fn each_target(&self, hash: KeyHash, take: impl FnMut(TargetId)) {
        self.shard(hash.shard()).with(|shard| {
            if let Some(slot) = shard.entry(hash) {
                TargetId::each(slot.key(), slot.metadata(), take);
            }
        });
    }

    /// Merges a tombstone of a peer.
    pub fn apply_tombstone(&self, hash: KeyHash, version: Version, now: Now) -> ApplyOutcome {
        let floor_ms = self.floor_ms(now);
        let outcome = self.change(hash.shard(), |shard| {
            shard.raise_tombstone_floor(floor_ms, DROPPED_MAX);
            shard.apply_tombstone(hash, version)
        });
        self.make_room(now);
        outcome
    }

    /// Stores a copied entry so that it is evicted before all present ones. An entry older than the
    /// retention is accepted, too, and one of which the version alone is known, because it was evicted or another node
    /// told the version first. Without room for it, a tombstone remains.
    pub fn import(&self, record: &Record, now: Now) -> ApplyOutcome {
        self.take_in((record, self.totals.next_cold_tick()), true, now)
    }

    /// Stores a copied entry as one that was written now. Otherwise as [`import`](Self::import).
    pub fn keep(&self, record: &Record, now: Now) -> ApplyOutcome {
        self.take_in((record, self.totals.next_tick()), false, now)
    }

    fn take_in(&self, (record, tick): (&Record, u64), is_cold: bool, now: Now) -> ApplyOutcome {
        let hash = record.key.hash();
        let is_ended = self.purges.ends(record, now);
        let floor_ms = self.floor_ms(now);
        let outcome = self.change(hash.shard(), |shard| {
            shard.raise_tombstone_floor(floor_ms, DROPPED_MAX);
            shard.import((hash, record), now, (tick, is_cold), is_ended)
        });
        if outcome == ApplyOutcome::Applied {
            self.note_purge(record, now);
        }
        self.make_room(now);
        outcome
    }

    /// Raises the retention floor to `second`: nothing is known about earlier seconds of versions.
    pub fn forget_before(&self, second: u64) {
        self.raise_retention_floor(second.saturating_mul(1_000).saturating_sub(1));
    }

    /// Raises the retention floor: nothing is known about versions up to `floor_ms`.
    pub(super) fn raise_retention_floor(&self, floor_ms: u64) {
        for index in 0..SHARDS {
            self.change(index, |shard| shard.raise_tombstone_floor(floor_ms, 0));
        }
    }

    /// Returns the highest version whose tombstone may have been dropped, in the shard of an unknown key.
    pub fn retention_floor(&self, hash: KeyHash) -> Version {
        self.shard(hash.shard()).with(|shard| shard.retention_floor())
    }

    /// Removes a value or tombstone of `version` or older, and leaves no tombstone. Returns whether there was one.
    pub fn erase(&self, hash: KeyHash, version: Version) -> bool {
        let any_version = self.is_broken(Broken::NewerErased);
        self.change(hash.shard(), |shard| {
            let is_known = shard.version(hash).is_some_and(|known| known <= version || any_version);
            is_known && shard.erase(hash)
        })
    }

    /// Returns who stamped the versions that were stamped at `wall_ms` or later, at most `most` of them.
    pub fn incarnations_from(&self, wall_ms: u64, most: usize) -> BTreeSet<Incarnation> {
        let mut found = BTreeSet::new();
        for index in 0..SHARDS {
            self.shard(index).with(|shard| {
                let values = shard.slots().map(|slot| slot.version);
                let versions = values.chain(shard.tombstones().map(|(_, version)| version));
                for version in versions.filter(|version| version.wall_ms() >= wall_ms) {
                    if found.len() < most {
                        found.insert(version.incarnation());
                    }
                }
            });
        }
        found
    }

    /// Corrects the stamps of a clock that was wrong by `by_ms`: all versions that are `wrong` move by that much, and the
    /// retention floor. Returns the number of corrected entries.
    pub fn restamp(&self, wrong: impl Fn(Version) -> bool, by_ms: i64) -> usize {
        self.purges.restamp(&wrong, by_ms);
        let restamp = |index| self.change(index, |shard| shard.restamp(&wrong, by_ms));
        let entries = (0..SHARDS).map(restamp).sum();
        if entries > 0 {
            self.keep_purges();
        }
        entries
    }

    /// Returns the whole content of a shard: its values, hottest first, as [`Store::import`] expects them,
    /// and its tombstones.
    #[must_use]
    pub fn export(&self, index: usize, now: Now) -> Vec<StoredItem> {
        self.export_if(index, now, |slot| !slot.is_on_disk())
    }

    /// Returns the same of those entries that are `wanted`, and all tombstones.
    pub(super) fn export_if(
        &self,
        index: usize,
        now: Now,
        wanted: impl Fn(&SlotRef<'_, B::Pages>) -> bool,
    ) -> Vec<StoredItem> {
        let tick = self.totals.tick();
        self.shard(index).with(|shard| {
            let mut slots: Vec<_> = shard.slots().filter(&wanted).collect();
            slots
                .sort_unstable_by_key(|slot| (slot.class == Class::Unread, age(tick, slot.tick())));
            let item = |slot: &SlotRef<'_, B::Pages>| match record(*slot)
                .filter(|_| self.is_served(*slot, now))
            {
                Some(record) => StoredItem::Value(record),
                None => StoredItem::Tombstone(slot.hash(), slot.version),
            };
            let tombstones =
                shard.tombstones().map(|(hash, version)| StoredItem::Tombstone(hash, version));
            slots.iter().map(item).chain(tombstones).collect()
        })
    }
}

/// Copies the entry of a slot into a record, unless its value is on disk alone.
pub(super) fn record<P: Pages>(slot: SlotRef<'_, P>) -> Option<Record> {
    if slot.is_on_disk() {
        return None;
    }
    let entry = slot.entry().to_entry();
    let key = Key::within(Bytes::copy_from_slice(slot.key()), usize::MAX).ok()?;
    let change =
        Change::Put { value: entry.value, metadata: entry.metadata, expires: entry.expires };
    Some(Record { key, version: entry.version, change })
}
