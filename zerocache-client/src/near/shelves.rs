//! The storage of a near cache: entries by hash, within a bound in bytes, and what the threads took from it.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{
            self,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::available_parallelism,
};

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use zerocache_core::{
    client::{NearItem, NearStorage, RecentWrites, StrandedEpochs},
    time::Instant,
};

use super::{
    NearStats,
    computing::Computing,
    entry::NearEntry,
    stats::Counts,
    sync::{AtomicU64, Mutex, RwLock},
    thread_cache::{self, Marks},
};

/// The minimum size of a shard of the storage, in bytes: many small shards would hold no large value.
const SHARD_BYTES_MIN: u64 = 4 << 20;

/// The maximum of an entry is this part of a shard, so that one value does not evict a whole shard.
const ENTRY_SHARE: u64 = 8;

/// The expected average weight of entries, by which the storage sizes its list of evicted keys.
const ENTRY_BYTES_AVERAGE: u64 = 512;

/// Shards of the recent writes, each with a lock of its own: 131,072 keys in all, which is 26,000 writes per
/// second.
const WRITE_SHARDS: usize = 64;

/// The next epoch of any near cache of this process: an entry of one never has the epoch of another.
static NEXT_EPOCH: atomic::AtomicU64 = atomic::AtomicU64::new(0);

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

/// The entries of a near cache.
pub(crate) struct Shelves {
    storage: Storage,
    recent_writes: Box<[Mutex<RecentWrites>]>,
    /// The validity of the threads' own caches.
    marks: Marks,
    /// Changes when the cache is cleared; entries of another epoch are not served.
    epoch: AtomicU64,
    /// The end of the feed's validity, in milliseconds of the monotonic clock; 0 while no node is followed.
    valid_until_ms: AtomicU64,
    /// The highest stamp of a purge. Locked by fills, and exclusively by purges.
    latest_purge: RwLock<u64>,
    /// For how long calls want entries while no node answers, in milliseconds.
    outage_ms: AtomicU64,
    stranded: RwLock<StrandedEpochs>,
    /// Whether there are any: 1 or 0.
    has_stranded: AtomicU64,
    computing: Computing,
    counts: Counts,
}

impl Shelves {
    pub(super) fn new(bytes_max: u64) -> Self {
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
            recent_writes: (0..WRITE_SHARDS).map(|_| Mutex::new(RecentWrites::default())).collect(),
            marks: Marks::default(),
            epoch: AtomicU64::new(next_epoch()),
            valid_until_ms: AtomicU64::new(0),
            latest_purge: RwLock::new(0),
            outage_ms: AtomicU64::new(0),
            stranded: RwLock::new(StrandedEpochs::default()),
            has_stranded: AtomicU64::new(0),
            computing: Computing::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn set_bytes_max(&self, bytes_max: u64) {
        self.storage.set_capacity(bytes_max);
    }

    #[cfg(test)]
    pub(super) fn bytes_max(&self) -> u64 {
        self.storage.capacity()
    }

    /// Runs `use_entry` with the entry of this hash, if it `serves`.
    #[inline]
    pub(super) fn find<R>(
        &self,
        hash: u64,
        serves: impl Fn(&NearEntry) -> bool,
        use_entry: impl Fn(&NearEntry) -> R,
    ) -> Option<R> {
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

    /// Whether an entry is small enough.
    pub(super) fn has_room_for(&self, entry: &NearEntry) -> bool {
        entry.weight() <= self.storage.shard_capacity() / ENTRY_SHARE
    }

    /// Counts an entry that was rejected because a newer version is known.
    pub(super) fn count_rejected(&self) {
        self.counts.rejected_old.fetch_add(1, Relaxed);
    }

    pub(super) fn stats(&self) -> NearStats {
        let (entries, bytes) = (self.storage.len() as u64, self.storage.weight());
        NearStats { entries, bytes, ..self.counts.snapshot() }
    }

    /// Notes that a call wants entries for so long while no node answers.
    pub(super) fn want_outage(&self, outage_ms: u64) {
        if outage_ms > self.outage_ms.load(Relaxed) {
            self.outage_ms.fetch_max(outage_ms, Release);
        }
    }

    /// The changes of keys whose values are being computed.
    pub(super) fn computing(&self) -> &Computing {
        &self.computing
    }

    /// Runs `act` with all entries.
    pub(super) fn each(&self, mut act: impl FnMut(&NearEntry)) {
        self.storage.iter().for_each(|(_, entry)| act(&entry));
    }

    /// Evicts the entry of this hash, of which no thread hears.
    #[cfg(test)]
    pub(super) fn evict(&self, hash: u64) {
        self.storage.remove(&hash);
    }
}

impl NearStorage for Shelves {
    type Item = Arc<NearEntry>;

    #[inline]
    fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    fn begin_epoch(&self) {
        self.epoch.store(next_epoch(), Release);
        self.update_stranded(|stranded| *stranded = StrandedEpochs::default());
        if !self.storage.is_empty() {
            self.storage.clear();
            self.counts.cleared.fetch_add(1, Relaxed);
        }
    }

    #[inline]
    fn valid_until(&self) -> Instant {
        Instant::from_millis(self.valid_until_ms.load(Acquire))
    }

    fn set_valid_until(&self, until: Instant) {
        self.valid_until_ms.store(until.as_millis(), Release);
    }

    fn with_recent_writes<R>(&self, hash: u64, act: impl FnOnce(&mut RecentWrites) -> R) -> R {
        // The modulus is below WRITE_SHARDS.
        act(&mut self.recent_writes[(hash >> 32) as usize % WRITE_SHARDS].lock())
    }

    fn with_item<R>(&self, hash: u64, act: impl FnOnce(&Self::Item) -> R) -> Option<R> {
        self.storage.peek(&hash).map(|entry| act(&entry))
    }

    fn insert(&self, hash: u64, entry: Self::Item) {
        self.storage.insert(hash, entry);
        self.marks.change(hash);
        self.counts.inserts.fetch_add(1, Relaxed);
    }

    fn remove_if(&self, hash: u64, condition: impl FnOnce(&Self::Item) -> bool) {
        let removed = self.storage.remove_if(&hash, condition);
        // A thread may still have an entry that the storage has evicted.
        self.marks.change(hash);
        if removed.is_some() {
            self.counts.invalidated.fetch_add(1, Relaxed);
        }
    }

    fn remove_all(&self, condition: impl Fn(&Self::Item) -> bool) {
        let removed = Cell::new(0);
        self.storage.retain(|_, entry| {
            let is_removed = condition(entry);
            removed.set(removed.get() + u64::from(is_removed));
            !is_removed
        });
        self.marks.change_all();
        self.counts.invalidated.fetch_add(removed.get(), Relaxed);
    }

    fn filling<R>(&self, act: impl FnOnce(u64) -> R) -> R {
        act(*self.latest_purge.read())
    }

    fn purging(&self, stamp: u64, act: impl FnOnce()) {
        let mut latest = self.latest_purge.write();
        *latest = stamp.max(*latest);
        act();
    }

    fn outage_ms(&self) -> u64 {
        self.outage_ms.load(Acquire)
    }

    fn renew_epoch(&self) {
        self.epoch.store(next_epoch(), Release);
        if !self.storage.is_empty() {
            self.counts.cleared.fetch_add(1, Relaxed);
        }
    }

    fn stranded(&self) -> StrandedEpochs {
        *self.stranded.read()
    }

    fn update_stranded(&self, act: impl FnOnce(&mut StrandedEpochs)) {
        let mut stranded = self.stranded.write();
        act(&mut stranded);
        self.has_stranded.store(u64::from(!stranded.is_empty()), Release);
    }

    #[inline]
    fn has_stranded(&self) -> bool {
        self.has_stranded.load(Acquire) > 0
    }

    fn note_change(&self, hash: u64) {
        self.computing.note(hash);
    }

    fn note_purge(&self) {
        self.computing.note_purge();
    }

    fn drop_stranded(&self, known: &StrandedEpochs) {
        let mut present = None;
        self.update_stranded(|stranded| {
            if stranded.is_same_as(known) {
                *stranded = StrandedEpochs::default();
                // An epoch that ends later is added first.
                present = Some(self.epoch());
            }
        });
        if let Some(epoch) = present {
            self.storage.retain(|_, entry| entry.times().epoch() == epoch);
        }
    }
}
