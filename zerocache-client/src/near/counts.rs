//! What becomes of the near cache.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Parts of a [`Striped`] counter.
const STRIPES: usize = 8;

/// A number in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// A counter that many threads add to: each key has its part, so that threads that serve different keys
/// do not wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Striped([Padded; STRIPES]);

impl Striped {
    /// Adds one, for the key with this hash.
    pub(crate) fn count(&self, hash: u64) {
        // The modulus is below STRIPES.
        self.0[(hash >> 48) as usize % STRIPES].0.fetch_add(1, Relaxed);
    }

    /// The sum.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|part| part.0.load(Relaxed)).sum()
    }
}

/// The counters of a near cache. Hits and misses are counted by its clients.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) inserts: AtomicU64,
    pub(super) outdated: AtomicU64,
    pub(super) invalidated: AtomicU64,
    pub(super) emptied: AtomicU64,
}

/// The counts of a near cache at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NearCounts {
    pub(crate) inserts: u64,
    pub(crate) outdated: u64,
    pub(crate) invalidated: u64,
    pub(crate) emptied: u64,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Counts {
    pub(super) fn snapshot(&self, bytes: u64, entries: u64) -> NearCounts {
        NearCounts {
            inserts: self.inserts.load(Relaxed),
            outdated: self.outdated.load(Relaxed),
            invalidated: self.invalidated.load(Relaxed),
            emptied: self.emptied.load(Relaxed),
            bytes,
            entries,
        }
    }
}
