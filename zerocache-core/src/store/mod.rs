//! The TLRU store: time-aware, bounded by entries and by bytes, split into 64 shards.
//!
//! Invariants:
//!
//! - The entries and bytes held never exceed the capacity after a call returns. With concurrent writers
//!   they exceed it by at most what these writers are adding.
//! - An expired value is never returned.
//! - The known version of a key never decreases while the key's tombstone is kept.
//!
//! Expiry and eviction leave a tombstone, as a delete does: the key's hash and last version.
//!
//! When space is needed, expired entries are dropped first, then entries that were never read, oldest
//! first. Entries that were read are evicted only when the unread ones hold no more than a twentieth of the
//! budget, which lets new entries live long enough to be read. Read entries stand in a queue in the order of
//! their first read; an entry that was read again since moves to the end instead, up to three times for as
//! many reads. A key that is stored again soon after it was evicted unread counts as read. So a scan or a loop
//! over more keys than fit displaces none that is read often. [`EvictionPolicy::Lru`] is the exact order of
//! the last use instead.
//!
//! A hit takes one lock and writes nothing that other shards read. Only the first hit of an entry moves it
//! between the two queues. Shared counters are written when entries are added, moved or removed.

mod backend;
mod chunks;
mod copy;
mod digests;
mod disk;
#[cfg(test)]
mod disk_tests;
mod entries;
mod eviction;
mod expiry_index;
mod ghosts;
mod listing;
mod log;
#[cfg(test)]
mod model;
mod outcome;
mod prefetch;
#[cfg(test)]
mod purge_tests;
mod purges;
mod shard;
mod sizes;
mod slot;
mod stats;
mod sync;
#[cfg(test)]
mod sync_tests;
mod table_hasher;
#[cfg(test)]
mod tests;
mod tombstones;
mod totals;
mod variant;
mod witness;

use alloc::boxed::Box;

#[cfg(feature = "variants")]
pub use self::variant::StoreVariant;
pub(crate) use self::variant::StoreVariant as Broken;
pub use self::{
    backend::{Backend, Lock, Pages, SingleThread},
    copy::{CopyCursor, CopyPage, CopyRange, PageScan},
    disk::{
        DISK_HEAD_BYTES_MAX, DiskCopy, DiskCounts, DiskJob, DiskPlace, DiskTerms, DiskVerdict,
        EntryOnDisk, LeavingEntry,
    },
    eviction::{EvictionPolicy, UnknownPolicy},
    listing::{InvalidCursor, KeyCursor, KeyInfo, KeyPage, KeyPageLimits},
    outcome::{ApplyOutcome, Lookup},
    sizes::ENTRY_OVERHEAD_BYTES,
    slot::EntryRef,
    stats::{Counts, Stats},
    sync::{KeyVersion, ScanCursor, StoredItem},
    tombstones::TOMBSTONE_BYTES,
    witness::HeldValue,
};
use self::{
    disk::Disk,
    eviction::QueueTime,
    purges::Purges,
    shard::{Probe, Shard},
    sizes::Sizes,
    slot::SlotRef,
    table_hasher::TableHasher,
    tombstones::DROPPED_MAX,
    totals::Totals,
    variant::Breakage,
};
use crate::{
    entry::{Entry, Record},
    key::{Key, KeyHash, SHARDS},
    time::Now,
    version::Version,
};

/// How long a tombstone is kept if there is room: one hour, in milliseconds.
pub const RETENTION_MS: u64 = 3_600_000;

/// Tombstones may take at most this fraction of the byte budget (1/16).
const TOMBSTONE_BUDGET_FRACTION: u64 = 16;

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The most entries; `u64::MAX` for no bound.
    pub entries_max: u64,
    /// The most bytes: entries with their overhead, and tombstones.
    pub bytes_max: u64,
}

/// The store of a node, used through a shared reference.
pub struct Store<B: Backend> {
    shards: Box<[ShardCell<B>]>,
    capacity: Capacity,
    retention_ms: u64,
    totals: Totals,
    purges: Purges<B>,
    policy: EvictionPolicy,
    disk: Option<Disk<B>>,
    breakage: Breakage,
}

/// A shard on cache lines of its own, to avoid false sharing between neighbours.
#[repr(align(128))]
struct ShardCell<B: Backend>(B::Lock<Shard<B::Pages>>);

impl<B: Backend> Store<B> {
    /// Creates an empty store whose table hashes are predictable, for use where all writers are trusted.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self::with_hasher(capacity, TableHasher::default())
    }

    /// Creates an empty store whose table hashes depend on `secrets`, two random numbers of this process.
    /// The secrets have no effect outside of the process.
    #[must_use]
    pub fn keyed(capacity: Capacity, secrets: [u64; 2]) -> Self {
        Self::with_hasher(capacity, TableHasher::new(secrets))
    }

    fn with_hasher(capacity: Capacity, hasher: TableHasher) -> Self {
        let each = TOMBSTONE_BUDGET_FRACTION * TOMBSTONE_BYTES * SHARDS as u64;
        let tombstones_max = usize::try_from(capacity.bytes_max / each).unwrap_or(usize::MAX);
        Self::with_tombstones(capacity, tombstones_max, hasher)
    }

    /// Creates an empty store with room for `tombstones_max` tombstones in each shard.
    fn with_tombstones(capacity: Capacity, tombstones_max: usize, hasher: TableHasher) -> Self {
        let shard = || Shard::new(capacity.bytes_max, tombstones_max, hasher);
        Self {
            shards: (0..SHARDS).map(|_| ShardCell(B::Lock::new(shard()))).collect(),
            capacity,
            retention_ms: RETENTION_MS,
            totals: Totals::default(),
            purges: Purges::default(),
            policy: EvictionPolicy::default(),
            disk: None,
            breakage: Breakage::default(),
        }
    }

    /// Sets the order of eviction.
    #[must_use]
    pub fn with_policy(mut self, policy: EvictionPolicy) -> Self {
        self.policy = policy;
        for index in 0..SHARDS {
            self.shard(index).with(|shard| shard.set_policy(policy));
        }
        self
    }

    /// Sets how long tombstones are kept at most, in milliseconds, instead of [`RETENTION_MS`].
    #[must_use]
    pub fn with_retention(mut self, retention_ms: u64) -> Self {
        self.retention_ms = retention_ms;
        self
    }

    /// Returns how long tombstones are kept at most, in milliseconds.
    #[must_use]
    pub const fn retention_ms_max(&self) -> u64 {
        self.retention_ms
    }

    /// Injects a bug, to test that the simulator detects it.
    #[cfg(feature = "variants")]
    #[must_use]
    pub fn broken(mut self, variant: Option<StoreVariant>) -> Self {
        self.breakage = Breakage::new(variant);
        self.purges.set_breakage(self.breakage);
        for index in 0..SHARDS {
            self.shard(index).with(|shard| shard.set_breakage(self.breakage));
        }
        self
    }

    /// Returns whether the node detects that it has missed too many writes. False only in a broken variant.
    pub(crate) fn detects_outdated(&self) -> bool {
        !self.is_broken(Broken::NeverOutdated)
    }

    /// Returns whether this bug is injected.
    #[inline]
    pub(crate) fn is_broken(&self, variant: Broken) -> bool {
        self.breakage.is(variant)
    }

    /// Reads a key in place. A hit counts as a use of the entry.
    ///
    /// `on_hit` runs under the lock of a shard and must not use the store.
    pub fn read<R>(
        &self,
        key: &[u8],
        now: Now,
        on_hit: impl FnOnce(EntryRef<'_>) -> R,
    ) -> Lookup<R> {
        let hash = KeyHash::of(key);
        let is_judged = !self.is_broken(Broken::PurgedServed);
        let purged_from =
            |slot: SlotRef<'_, B::Pages>| is_judged.then(|| self.purged_from(slot)).flatten();
        self.shard(hash.shard()).with(|shard| {
            match shard.probe((hash, key), now.mono, purged_from) {
                Probe::Hit(index) => Lookup::Hit(on_hit(shard.record_hit(index).entry())),
                Probe::MovingHit(index) => {
                    let tick = self.totals.next_tick();
                    let moving_hit = |shard: &mut Shard<_>| shard.record_moving_hit(index, tick);
                    self.change_locked(hash.shard(), shard, moving_hit);
                    Lookup::Hit(on_hit(shard.slot(index).entry()))
                }
                Probe::Expired(index) => {
                    let version = shard.slot(index).version;
                    shard.record_miss();
                    self.change_locked(hash.shard(), shard, |shard| shard.expire(index));
                    self.miss(Some(version))
                }
                Probe::Purged(index) => {
                    let version = shard.slot(index).version;
                    shard.record_miss();
                    self.change_locked(hash.shard(), shard, |shard| shard.purge(index));
                    self.miss(Some(version))
                }
                Probe::OnDisk => Lookup::OnDisk,
                Probe::Absent => {
                    shard.record_miss();
                    self.miss(shard.tombstone_of(hash))
                }
            }
        })
    }

    fn miss<R>(&self, version: Option<Version>) -> Lookup<R> {
        Lookup::Miss { known: version.map_or(0, Version::stamp).max(self.purges.last_stamp()) }
    }

    /// Reads a key. A hit counts as a use of the entry.
    pub fn get(&self, key: &Key, now: Now) -> Lookup {
        self.read(key.as_bytes(), now, |entry| entry.to_entry())
    }

    /// Reads a key without counting a read or a use.
    pub fn peek(&self, key: &Key, now: Now) -> Lookup {
        let hash = key.hash();
        self.shard(hash.shard()).with(|shard| {
            let slot = shard.peek(hash, key.as_bytes(), now.mono);
            if slot.is_some_and(|slot| slot.is_on_disk() && self.is_served(slot, now)) {
                return Lookup::OnDisk;
            }
            let entry: Option<Entry> = slot.filter(|slot| !slot.is_on_disk()).and_then(|slot| {
                let mut entry = slot.entry().to_entry();
                if let Some(end) = self.purged_from(slot) {
                    entry.expires = entry.expires.min(end);
                }
                (entry.expires > now.mono).then_some(entry)
            });
            entry.map_or_else(|| self.miss(shard.version(hash)), Lookup::Hit)
        })
    }

    /// Returns the known version of a key, of its value or its tombstone.
    pub fn version(&self, hash: KeyHash) -> Option<Version> {
        self.shard(hash.shard()).with(|shard| shard.version(hash))
    }

    /// Merges a record, then evicts until the bounds hold.
    ///
    /// Merging is idempotent and commutative: the same records in any order leave the same versions.
    pub fn apply(&self, record: &Record, now: Now) -> ApplyOutcome {
        let hash = record.key.hash();
        let is_ended = self.purges.ends(record, now);
        let outcome = self.change(hash.shard(), |shard| {
            shard.raise_tombstone_floor(self.floor_ms(now), DROPPED_MAX);
            // Drawn under the lock, so that a queue is in the order of its ticks.
            let (tick, generation) = (self.totals.next_tick(), self.totals.generation());
            shard.apply((hash, record), now, QueueTime { tick, generation }, is_ended)
        });
        // A purge that is repeated with its version may hold for longer.
        if matches!(outcome, ApplyOutcome::Applied | ApplyOutcome::Duplicate) {
            self.note_purge(record, now);
        }
        self.make_room(now);
        outcome
    }

    /// Drops expired entries and tombstones past the retention, at most `most`. Returns how many were
    /// dropped; fewer than `most` means all of them. A timer calls this, so that memory is returned without
    /// reads.
    pub fn sweep(&self, now: Now, most: usize) -> usize {
        let floor_ms = self.floor_ms(now);
        let mut dropped = 0;
        for index in 0..SHARDS {
            let left = most - dropped;
            dropped += self.change(index, |shard| shard.raise_tombstone_floor(floor_ms, left));
            while dropped < most && self.expire_in(index, now.mono) {
                dropped += 1;
            }
        }
        dropped
    }

    /// Returns the bounds.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Returns whether an entry with this many bytes of key, value and metadata fits into the store at all.
    #[must_use]
    pub fn fits(&self, payload_bytes: usize) -> bool {
        Sizes::of(self.capacity.bytes_max).weight_of(payload_bytes) <= self.capacity.bytes_max
            && self.capacity.entries_max > 0
    }

    /// Returns the approximate number of entries, in memory and on disk. Takes no lock.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.totals.entry_count() + self.totals.entries_of(slot::Class::Disk)
    }

    /// Returns sizes and counters. Takes every lock once, one after the other.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { purges: self.purges.len() as u64, ..Stats::default() };
        for index in 0..SHARDS {
            let (usage, counts) = self.shard(index).with(|shard| (shard.usage(), *shard.counts()));
            let [unread, read, _reserved, on_disk] = usage.entries;
            stats.entries += unread + read + on_disk;
            stats.bytes += usage.bytes.iter().sum::<u64>() + usage.tombstones * TOMBSTONE_BYTES;
            stats.tombstones += usage.tombstones;
            stats.counts.add(&counts);
        }
        stats
    }

    /// Returns how long tombstones are kept at the moment, in milliseconds: [`RETENTION_MS`], or less when
    /// they fill their share of the budget. The smallest retention of all shards.
    pub fn retention_ms(&self, now: Now) -> u64 {
        let floor = |index| self.shard(index).with(|shard| shard.retention_floor().wall_ms());
        let highest = (0..SHARDS).map(floor).max().unwrap_or(0);
        now.wall_ms.saturating_sub(highest).min(self.retention_ms)
    }

    /// Returns the time up to which tombstones are past the retention.
    fn floor_ms(&self, now: Now) -> u64 {
        now.wall_ms.saturating_sub(self.retention_ms)
    }

    fn shard(&self, index: usize) -> &B::Lock<Shard<B::Pages>> {
        &self.shards[index].0
    }

    /// Runs `f` under the lock of a shard, then updates the totals.
    fn change<R>(&self, index: usize, f: impl FnOnce(&mut Shard<B::Pages>) -> R) -> R {
        self.shard(index).with(|shard| self.change_locked(index, shard, f))
    }

    /// Runs `f` on a locked shard, then updates the totals.
    fn change_locked<R>(
        &self,
        index: usize,
        shard: &mut Shard<B::Pages>,
        f: impl FnOnce(&mut Shard<B::Pages>) -> R,
    ) -> R {
        let before = shard.usage();
        let result = f(shard);
        self.totals.update(index, before, shard);
        if shard.has_jobs() {
            self.queue_jobs(shard);
        }
        result
    }
}
