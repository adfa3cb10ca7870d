//! The store and in-process caches behind one trait.

use std::{
    hint::black_box,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use zerocache_core::{
    store::{ApplyOutcome, Capacity},
    time::Now,
    version::Version,
};
use zerocache_net::clock;
use zerocache_server::storage::Storage;

use super::{Name, VALUE_BYTES, delete, put};

/// The lifetime of entries where the cache knows lifetimes.
const TTL: Duration = Duration::from_secs(3_600);

/// A cache to measure.
pub trait Cache: Sync {
    /// Whether the key is there; a hit gets at the value.
    fn get(&self, name: &Name) -> bool;
    /// Stores a value.
    fn put(&self, name: &Name);
    /// Removes a key.
    fn delete(&self, name: &Name);
}

/// All caches, each with room for `entries`.
pub fn all(entries: usize) -> Vec<(&'static str, Box<dyn Cache>)> {
    vec![
        ("store", Box::new(Ours::new(entries))),
        ("quick_cache", Box::new(Quick::new(entries))),
        ("moka", Box::new(moka(entries))),
        ("lru", Box::new(lru(entries))),
    ]
}

/// The store of a node, with the clock readings of a node.
pub struct Ours {
    store: Storage,
    writes: AtomicU64,
    stopped: Option<Now>,
}

impl Ours {
    /// A store with room for `entries`, whatever they weigh.
    pub fn new(entries: usize) -> Self {
        let capacity = Capacity { entries_max: entries as u64, bytes_max: 1 << 40 };
        Self { store: Storage::new(capacity), writes: AtomicU64::new(0), stopped: None }
    }

    /// A store for which time stands still: valgrind has no clock that the node could read.
    pub fn without_clock(entries: usize) -> Self {
        Self { stopped: Some(Now::new(0, 1_800_000_000_000)), ..Self::new(entries) }
    }

    /// The store itself.
    pub fn store(&self) -> &Storage {
        &self.store
    }

    fn stamp(&self, wall_ms: u64) -> u64 {
        (wall_ms << Version::COUNTER_BITS) + self.writes.fetch_add(1, Relaxed)
    }
}

impl Cache for Ours {
    fn get(&self, name: &Name) -> bool {
        let now = self.stopped.unwrap_or_else(clock::coarse_now);
        let found = self.store.read(name, now, |entry| {
            // As an answer is encoded: into a buffer that is there.
            let mut buffer = [0; VALUE_BYTES];
            buffer.copy_from_slice(entry.value);
            black_box(buffer);
        });
        found.is_hit()
    }

    fn put(&self, name: &Name) {
        let now = self.stopped.unwrap_or_else(clock::now);
        let expires = now.mono.plus_ms(TTL.as_millis() as u64);
        let applied = self.store.apply(&put(name, self.stamp(now.wall_ms), expires), now);
        debug_assert_eq!(applied, ApplyOutcome::Applied);
    }

    fn delete(&self, name: &Name) {
        let now = self.stopped.unwrap_or_else(clock::now);
        self.store.apply(&delete(name, self.stamp(now.wall_ms)), now);
    }
}

/// `quick_cache`: no lifetimes.
pub type Quick = quick_cache::sync::Cache<Name, Arc<[u8]>>;

impl Cache for Quick {
    fn get(&self, name: &Name) -> bool {
        black_box(self.get(name)).is_some()
    }

    fn put(&self, name: &Name) {
        self.insert(*name, Arc::new([7; VALUE_BYTES]));
    }

    fn delete(&self, name: &Name) {
        self.remove(name);
    }
}

type Moka = moka::sync::Cache<Name, Arc<[u8]>>;

fn moka(entries: usize) -> Moka {
    Moka::builder().max_capacity(entries as u64).time_to_live(TTL).build()
}

impl Cache for Moka {
    fn get(&self, name: &Name) -> bool {
        black_box(self.get(name)).is_some()
    }

    fn put(&self, name: &Name) {
        self.insert(*name, Arc::new([7; VALUE_BYTES]));
    }

    fn delete(&self, name: &Name) {
        self.invalidate(name);
    }
}

/// The `lru` crate behind one mutex: no lifetimes.
pub type Lru = Mutex<lru::LruCache<Name, Arc<[u8]>>>;

/// An LRU with room for `entries`.
pub fn lru(entries: usize) -> Lru {
    Mutex::new(lru::LruCache::new(NonZeroUsize::new(entries).expect("not zero")))
}

impl Cache for Lru {
    fn get(&self, name: &Name) -> bool {
        black_box(self.lock().get(name).cloned()).is_some()
    }

    fn put(&self, name: &Name) {
        self.lock().put(*name, Arc::new([7; VALUE_BYTES]));
    }

    fn delete(&self, name: &Name) {
        self.lock().pop(name);
    }
}
