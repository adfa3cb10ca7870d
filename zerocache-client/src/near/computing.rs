//! Changes of keys whose values are being computed: they decide which computed values may be kept although no node
//! can be asked to store them.

use std::{
    collections::HashMap,
    sync::atomic::Ordering::{AcqRel, Acquire, Release},
};

use super::sync::{AtomicU64, Mutex};

/// The keys whose values are being computed, by their hashes.
pub(super) struct Computing {
    /// The number of permits, so that a change costs a load while there are none.
    permits: AtomicU64,
    keys: Mutex<HashMap<u64, Changes>>,
    /// Purges of this process and of others.
    purges: AtomicU64,
}

#[derive(Default)]
struct Changes {
    permits: u32,
    count: u32,
}

/// How often a key has changed, and how many purges there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangeCount {
    pub(super) of_key: u32,
    pub(super) purges: u64,
}

impl Default for Computing {
    fn default() -> Self {
        let (permits, purges) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { permits, keys: Mutex::new(HashMap::new()), purges }
    }
}

impl Computing {
    /// Begins to count the changes of a key, until as many calls of [`end`](Self::end).
    pub(super) fn begin(&self, hash: u64) -> ChangeCount {
        let mut keys = self.keys.lock();
        self.permits.fetch_add(1, Release);
        let changes = keys.entry(hash).or_default();
        changes.permits += 1;
        ChangeCount { of_key: changes.count, purges: self.purges.load(Acquire) }
    }

    pub(super) fn end(&self, hash: u64) {
        let mut keys = self.keys.lock();
        self.permits.fetch_sub(1, Release);
        if let Some(changes) = keys.get_mut(&hash) {
            changes.permits -= 1;
            if changes.permits == 0 {
                keys.remove(&hash);
            }
        }
    }

    /// Counts a change of a key.
    pub(super) fn note(&self, hash: u64) {
        if self.permits.load(Acquire) > 0
            && let Some(changes) = self.keys.lock().get_mut(&hash)
        {
            changes.count = changes.count.wrapping_add(1);
        }
    }

    /// Counts a purge, whose keys are not known.
    pub(super) fn note_purge(&self) {
        self.purges.fetch_add(1, AcqRel);
    }

    /// Returns how often a key has changed by now.
    pub(super) fn count(&self, hash: u64) -> ChangeCount {
        let of_key = self.keys.lock().get(&hash).map_or(0, |changes| changes.count);
        ChangeCount { of_key, purges: self.purges.load(Acquire) }
    }
}
