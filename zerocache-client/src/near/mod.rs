//! Entries kept in this process, near to their callers.
//!
//! One [`Near`] per process and cluster, shared by all its clients and functions, bounded in bytes. It
//! keeps and serves only while a node tells what is written (the feed, in `client/feed.rs`): rows of
//! the feed remove what is older, and are remembered for a while, so that an older value that a
//! lagging node gives afterwards is not kept. Whatever could have been missed empties it at once: each
//! entry carries the epoch in which its read began, and only entries of the present one are served.

mod floors;
mod front;
mod held;
mod registry;
mod settings;
mod stats;
#[cfg(test)]
mod tests;

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
use self::{
    floors::{Floors, REMEMBERED_MS},
    front::Marks,
    stats::Counts,
};
pub(crate) use self::{
    held::{Fill, Held},
    registry::shared,
    settings::NearSettings,
};

/// For how long after a request that a node answered its word counts as up to date, in milliseconds.
/// A node answers at least once in a second.
pub(crate) const WORD_MS: u64 = 3_000;

/// Room that a shard of the storage should have at least, in bytes: many small ones would hold no
/// large value.
const SHARD_BYTES_MIN: u64 = 4 << 20;

/// A value may take this part of a shard at most, so that one value does not turn a shard over.
const ENTRY_SHARE: u64 = 8;

/// What entries weigh on average, by which the storage reckons how many keys to remember that it let
/// go.
const ENTRY_BYTES_USUAL: u64 = 512;

/// The next epoch of any near cache of this process: an entry of one never has the epoch of another.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(0);

/// What the feed calls a key.
#[inline]
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    KeyHash::of(key).short()
}

fn next_epoch() -> u64 {
    NEXT_EPOCH.fetch_add(1, Relaxed)
}

/// Weighs entries in bytes.
#[derive(Clone)]
struct Weigh;

impl Weighter<u64, Arc<Held>> for Weigh {
    fn weight(&self, _: &u64, held: &Arc<Held>) -> u64 {
        held.weight()
    }
}

type Storage = Cache<u64, Arc<Held>, Weigh, DefaultHashBuilder, DefaultLifecycle<u64, Arc<Held>>>;

/// The right to keep what a read or write that begins now brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    epoch: u64,
    /// When it began, in milliseconds of the monotonic clock: its value is at least that old.
    at: Instant,
}

/// The right to say what a node tells. When it is dropped nobody tells of changes any more, and nothing
/// is kept or served.
pub(crate) struct Claim(Arc<Near>);

impl Claim {
    /// A node that was `asked` at that moment told of these changes, as hashes and stamps; others were
    /// `lost` before them.
    pub(crate) fn told(&self, asked: Instant, lost: bool, rows: &[(u64, u64)], now: Instant) {
        if lost {
            self.0.empty();
        }
        for &(hash, stamp) in rows {
            self.0.outdate(hash, stamp, now);
        }
        // Its word counts from the moment at which it was asked, and once all of it is heeded.
        self.0.valid_until_ms.store(asked.plus_ms(WORD_MS).as_millis(), Release);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.valid_until_ms.store(0, Release);
        self.0.empty();
        self.0.claimed.store(false, Release);
    }
}

/// The near cache of a process for one cluster.
///
/// A key is known by its 64-bit hash alone, so that the feed finds it; whoever reads compares the
/// whole key. Of two keys with one hash the later stays.
pub(crate) struct Near {
    storage: Storage,
    floors: Floors,
    /// Whether what threads have at hand is still what is held.
    marks: Marks,
    /// Changes whenever it is emptied; entries of another one are not served.
    epoch: AtomicU64,
    /// Until when the node's word counts, in milliseconds of the monotonic clock; 0 while nothing is
    /// followed.
    valid_until_ms: AtomicU64,
    /// Some client follows a node.
    claimed: AtomicBool,
    counts: Counts,
}

impl Near {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let cores = available_parallelism().map_or(4, usize::from) as u64;
        let shards = (bytes_max / SHARD_BYTES_MIN).clamp(1, cores * 4);
        let estimated = (bytes_max / ENTRY_BYTES_USUAL).max(1);
        let options = OptionsBuilder::new()
            // At most four for each core.
            .shards(shards as usize)
            .estimated_items_capacity(usize::try_from(estimated).unwrap_or(usize::MAX))
            .weight_capacity(bytes_max)
            .build();
        let storage = match options {
            Ok(options) => Cache::with_options(
                options,
                Weigh,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // All that is asked for is given above.
            Err(_) => Cache::with_weighter(1, bytes_max, Weigh),
        };
        Self {
            storage,
            floors: Floors::default(),
            marks: Marks::default(),
            epoch: AtomicU64::new(next_epoch()),
            valid_until_ms: AtomicU64::new(0),
            claimed: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// Lets it take this many bytes.
    pub(crate) fn allow(&self, bytes_max: u64) {
        self.storage.set_capacity(bytes_max);
    }

    /// How many bytes it may take.
    #[cfg(test)]
    pub(crate) fn bytes_max(&self) -> u64 {
        self.storage.capacity()
    }

    /// What `use_it` makes of the entry of `key`, if it may be served now: it was read in the present
    /// epoch, less than `age_max_ms` ago, and its fresh time is not over. `hash` is [`hash_of`] the key.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        (hash, key): (u64, &[u8]),
        age_max_ms: u64,
        now: Instant,
        use_it: impl Fn(&Held) -> R,
    ) -> Option<R> {
        if !self.is_followed(now) {
            return None;
        }
        let serves = |held: &Held| {
            held.epoch == self.epoch.load(Acquire)
                && held.is_near(now, age_max_ms)
                && held.key() == key
        };
        let mark = self.marks.of(hash);
        let at_hand = front::with(hash, mark, |held| serves(held).then(|| use_it(held)));
        if at_hand.is_some() {
            return at_hand;
        }
        let held = self.storage.get(&hash).filter(|held| serves(held))?;
        front::keep(hash, mark, &held);
        Some(use_it(&held))
    }

    /// Whether the word of a node counts, so that entries are kept and served.
    #[inline]
    pub(crate) fn is_followed(&self, now: Instant) -> bool {
        now.as_millis() < self.valid_until_ms.load(Acquire)
    }

    /// A read or write begins: what it brings may be kept if nothing happens meanwhile that empties
    /// the cache. None while nothing is followed.
    pub(crate) fn begin(&self, now: Instant) -> Option<Begun> {
        let epoch = self.epoch.load(Acquire);
        self.is_followed(now).then_some(Begun { epoch, at: now })
    }

    /// Keeps what was read or written, unless it is older than what is known of the key, has no fresh
    /// time left, or took so long that newer writes may be forgotten already.
    pub(crate) fn keep(&self, begun: Begun, key: &[u8], fill: &Fill<'_>, now: Instant) {
        if now.since_ms(begun.at) >= REMEMBERED_MS {
            return;
        }
        let hash = hash_of(key);
        let Some(held) = Held::new(begun.epoch, begun.at, key, fill) else { return };
        if held.weight() > self.storage.shard_capacity() / ENTRY_SHARE {
            return;
        }
        let floors = self.floors.lock(hash);
        if begun.epoch != self.epoch.load(Acquire) {
            return;
        }
        let known = self.storage.peek(&hash);
        let newer = |known: &Arc<Held>| {
            known.epoch == begun.epoch && known.version > fill.version && known.key() == key
        };
        let outdated = floors.of(hash, now) > fill.version.stamp();
        if outdated || known.as_ref().is_some_and(newer) {
            self.counts.outdated.fetch_add(1, Relaxed);
            return;
        }
        self.storage.insert(hash, Arc::new(held));
        self.marks.change(hash);
        self.counts.inserts.fetch_add(1, Relaxed);
    }

    /// A write of `key` through this process begins: nobody is served the old value any more.
    pub(crate) fn writing(&self, key: &[u8]) {
        if self.valid_until_ms.load(Acquire) > 0 {
            self.remove(hash_of(key));
        }
    }

    /// A write of `key` through this process has ended, with this version where one is known. What is
    /// older is neither served nor kept from here on.
    pub(crate) fn written(&self, key: &[u8], version: Option<Version>, now: Instant) {
        if self.valid_until_ms.load(Acquire) == 0 {
            return;
        }
        match version {
            Some(version) => self.outdate(hash_of(key), version.stamp(), now),
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

    /// The key with this hash was written with this stamp: what is older goes, and does not come back.
    pub(crate) fn outdate(&self, hash: u64, stamp: u64, now: Instant) {
        let mut floors = self.floors.lock(hash);
        floors.raise(hash, stamp, now);
        let removed = self.storage.remove_if(&hash, |held| held.version.stamp() < stamp);
        // A thread may have what the storage has let go.
        self.marks.change(hash);
        if removed.is_some() {
            self.counts.invalidated.fetch_add(1, Relaxed);
        }
    }

    /// Nothing that is held, or that is being read, counts any more.
    fn empty(&self) {
        self.epoch.store(next_epoch(), Release);
        if !self.storage.is_empty() {
            self.storage.clear();
            self.counts.emptied.fetch_add(1, Relaxed);
        }
    }

    /// The right to say what a node tells, for one at a time.
    pub(crate) fn claim(self: &Arc<Self>) -> Option<Claim> {
        let taken = self.claimed.swap(true, Acquire);
        (!taken).then(|| Claim(Arc::clone(self)))
    }

    /// What has become of it, without hits and misses, which its clients count.
    pub(crate) fn stats(&self) -> NearStats {
        let (entries, bytes) = (self.storage.len() as u64, self.storage.weight());
        NearStats { entries, bytes, ..self.counts.snapshot() }
    }
}
