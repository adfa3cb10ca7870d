//! The near cache: entries that are kept in this process.
//!
//! There is one [`Near`] per process and cluster, shared by all clients and functions, and bounded in bytes. It
//! keeps and serves entries only while it follows a node's feed of changes (`client/feed.rs`). A change removes
//! older entries of its key, and is remembered for a while, so that an older value that a lagging node returns
//! afterwards is not kept. Changes that could have been missed clear the cache at once: each entry carries the
//! epoch in which its read began, and only entries of the current epoch are served.

mod entry;
mod recent_writes;
mod registry;
mod settings;
mod stats;
#[cfg(test)]
mod tests;
mod thread_cache;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::available_parallelism,
};

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use zerocache_core::{key::KeyHash, time::Instant, version::Version};

pub use self::stats::NearStats;
pub(crate) use self::{
    entry::{Fill, NearEntry},
    registry::shared,
    settings::NearSettings,
};
use self::{
    recent_writes::{RECENT_WRITE_MS, RecentWrites},
    stats::Counts,
    thread_cache::Marks,
};

/// The time for which the feed is valid after a request that the node answered, in milliseconds. A node answers
/// at least once per second.
pub(crate) const FEED_VALID_MS: u64 = 3_000;

/// The minimum size of a shard of the storage, in bytes: many small shards would hold no large value.
const SHARD_BYTES_MIN: u64 = 4 << 20;

/// The maximum of an entry is this part of a shard, so that one value does not evict a whole shard.
const ENTRY_SHARE: u64 = 8;

/// The expected average weight of entries, by which the storage sizes its list of evicted keys.
const ENTRY_BYTES_AVERAGE: u64 = 512;

/// The next epoch of any near cache of this process: an entry of one never has the epoch of another.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(0);

/// Returns the hash by which the feed identifies a key.
#[inline]
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    KeyHash::of(key).short()
}

fn next_epoch() -> u64 {
    NEXT_EPOCH.fetch_add(1, Relaxed)
}

/// The weight of entries: bytes.
#[derive(Clone)]
struct WeightInBytes;

impl Weighter<u64, Arc<NearEntry>> for WeightInBytes {
    fn weight(&self, _: &u64, entry: &Arc<NearEntry>) -> u64 {
        entry.weight()
    }
}

type Storage = Cache<
    u64,
    Arc<NearEntry>,
    WeightInBytes,
    DefaultHashBuilder,
    DefaultLifecycle<u64, Arc<NearEntry>>,
>;

/// The permission to insert the result of a read or write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FillPermit {
    epoch: u64,
    /// The begin of the read or write: its value is at least that old.
    started: Instant,
}

/// The exclusive right to apply a node's feed. When it is dropped, the cache follows no node, and keeps and
/// serves nothing.
pub(crate) struct FeedClaim(Arc<Near>);

impl FeedClaim {
    /// Applies changes, as hashes and stamps, from the response to a request that was sent at `asked`. With
    /// `lost`, earlier changes may be missing.
    pub(crate) fn apply_changes(
        &self,
        asked: Instant,
        lost: bool,
        changes: &[(u64, u64)],
        now: Instant,
    ) {
        if lost {
            self.0.clear();
        }
        for &(hash, stamp) in changes {
            self.0.remove_older(hash, stamp, now);
        }
        // The feed is valid from the time of the request on, after all changes are applied.
        self.0.valid_until_ms.store(asked.plus_ms(FEED_VALID_MS).as_millis(), Release);
    }
}

impl Drop for FeedClaim {
    fn drop(&mut self) {
        self.0.valid_until_ms.store(0, Release);
        self.0.clear();
        self.0.claimed.store(false, Release);
    }
}

/// The near cache of a process for one cluster.
///
/// Keys are identified by their 64-bit hash, as in the feed; a read compares the whole key. Of two keys with the
/// same hash the later one is kept.
pub(crate) struct Near {
    storage: Storage,
    recent_writes: RecentWrites,
    /// The validity of the threads' own caches.
    marks: Marks,
    /// Changes when the cache is cleared; entries of another epoch are not served.
    epoch: AtomicU64,
    /// The end of the feed's validity, in milliseconds of the monotonic clock; 0 while no node is followed.
    valid_until_ms: AtomicU64,
    /// A client follows a node.
    claimed: AtomicBool,
    counts: Counts,
}

impl Near {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let cores = available_parallelism().map_or(4, usize::from) as u64;
        let shards = (bytes_max / SHARD_BYTES_MIN).clamp(1, cores * 4);
        let estimated = (bytes_max / ENTRY_BYTES_AVERAGE).max(1);
        let options = OptionsBuilder::new()
            // At most four for each core.
            .shards(shards as usize)
            .estimated_items_capacity(usize::try_from(estimated).unwrap_or(usize::MAX))
            .weight_capacity(bytes_max)
            .build();
        let storage = match options {
            Ok(options) => Cache::with_options(
                options,
                WeightInBytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // All required options are given above.
            Err(_) => Cache::with_weighter(1, bytes_max, WeightInBytes),
        };
        Self {
            storage,
            recent_writes: RecentWrites::default(),
            marks: Marks::default(),
            epoch: AtomicU64::new(next_epoch()),
            valid_until_ms: AtomicU64::new(0),
            claimed: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// Sets the maximum size in bytes.
    pub(crate) fn set_bytes_max(&self, bytes_max: u64) {
        self.storage.set_capacity(bytes_max);
    }

    /// Returns the maximum size in bytes.
    #[cfg(test)]
    pub(crate) fn bytes_max(&self) -> u64 {
        self.storage.capacity()
    }

    /// Runs `use_entry` with the entry of `key`, if it may be served at `now`: it was read in the current
    /// epoch, less than `age_max_ms` ago, and its fresh time is not over. `hash` is [`hash_of`] the key.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        (hash, key): (u64, &[u8]),
        age_max_ms: u64,
        now: Instant,
        use_entry: impl Fn(&NearEntry) -> R,
    ) -> Option<R> {
        if !self.is_followed(now) {
            return None;
        }
        let serves = |entry: &NearEntry| {
            entry.epoch == self.epoch.load(Acquire)
                && entry.is_near(now, age_max_ms)
                && entry.key() == key
        };
        let mark = self.marks.of(hash);
        let cached =
            thread_cache::with(hash, mark, |entry| serves(entry).then(|| use_entry(entry)));
        if cached.is_some() {
            return cached;
        }
        let entry = self.storage.get(&hash).filter(|entry| serves(entry))?;
        thread_cache::insert(hash, mark, &entry);
        Some(use_entry(&entry))
    }

    /// Returns true if the feed is valid, so that entries are kept and served.
    #[inline]
    pub(crate) fn is_followed(&self, now: Instant) -> bool {
        now.as_millis() < self.valid_until_ms.load(Acquire)
    }

    /// Begins a read or write, whose result may be inserted unless the cache is cleared meanwhile. Returns
    /// `None` while no node is followed.
    pub(crate) fn begin_fill(&self, now: Instant) -> Option<FillPermit> {
        let epoch = self.epoch.load(Acquire);
        self.is_followed(now).then_some(FillPermit { epoch, started: now })
    }

    /// Inserts the result of a read or write, unless it is older than a known version of the key, has no fresh
    /// time left, or took so long that a newer write may have been forgotten.
    pub(crate) fn insert(&self, permit: FillPermit, key: &[u8], fill: &Fill<'_>, now: Instant) {
        if now.since_ms(permit.started) >= RECENT_WRITE_MS {
            return;
        }
        let hash = hash_of(key);
        let Some(entry) = NearEntry::new(permit.epoch, permit.started, key, fill) else { return };
        if entry.weight() > self.storage.shard_capacity() / ENTRY_SHARE {
            return;
        }
        let recent_writes = self.recent_writes.lock(hash);
        if permit.epoch != self.epoch.load(Acquire) {
            return;
        }
        let known = self.storage.peek(&hash);
        let newer = |known: &Arc<NearEntry>| {
            known.epoch == permit.epoch && known.version > fill.version && known.key() == key
        };
        let outdated = recent_writes.min_stamp(hash, now) > fill.version.stamp();
        if outdated || known.as_ref().is_some_and(newer) {
            self.counts.rejected_old.fetch_add(1, Relaxed);
            return;
        }
        self.storage.insert(hash, Arc::new(entry));
        self.marks.change(hash);
        self.counts.inserts.fetch_add(1, Relaxed);
    }

    /// Begins a write of `key` by this process: the previous value is not served any more.
    pub(crate) fn begin_write(&self, key: &[u8]) {
        if self.valid_until_ms.load(Acquire) > 0 {
            self.remove(hash_of(key));
        }
    }

    /// Ends a write of `key` by this process, with its version if that is known. Older values are neither
    /// served nor kept from now on.
    pub(crate) fn end_write(&self, key: &[u8], version: Option<Version>, now: Instant) {
        if self.valid_until_ms.load(Acquire) == 0 {
            return;
        }
        match version {
            Some(version) => self.remove_older(hash_of(key), version.stamp(), now),
            None => self.remove(hash_of(key)),
        }
    }

    fn remove(&self, hash: u64) {
        let removed = self.storage.remove(&hash);
        self.marks.change(hash);
        if removed.is_some() {
            self.counts.invalidated.fetch_add(1, Relaxed);
        }
    }

    /// Removes entries of the key with this hash that are older than `stamp`, and keeps them out.
    pub(crate) fn remove_older(&self, hash: u64, stamp: u64, now: Instant) {
        let mut recent_writes = self.recent_writes.lock(hash);
        recent_writes.record(hash, stamp, now);
        let removed = self.storage.remove_if(&hash, |entry| entry.version.stamp() < stamp);
        // A thread may still have an entry that the storage has evicted.
        self.marks.change(hash);
        if removed.is_some() {
            self.counts.invalidated.fetch_add(1, Relaxed);
        }
    }

    /// Clears the cache; results of reads that have begun are not kept.
    fn clear(&self) {
        self.epoch.store(next_epoch(), Release);
        if !self.storage.is_empty() {
            self.storage.clear();
            self.counts.cleared.fetch_add(1, Relaxed);
        }
    }

    /// Returns the right to apply a node's feed, if no one else has it.
    pub(crate) fn claim(self: &Arc<Self>) -> Option<FeedClaim> {
        let taken = self.claimed.swap(true, Acquire);
        (!taken).then(|| FeedClaim(Arc::clone(self)))
    }

    /// Returns the counters, without hits and misses, which the clients count.
    pub(crate) fn stats(&self) -> NearStats {
        let (entries, bytes) = (self.storage.len() as u64, self.storage.weight());
        NearStats { entries, bytes, ..self.counts.snapshot() }
    }
}
