//! Counters of the near cache.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of a near cache. Hits and misses are counted by its clients.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) inserts: AtomicU64,
    pub(super) outdated: AtomicU64,
    pub(super) invalidated: AtomicU64,
    pub(super) emptied: AtomicU64,
}

/// What has become of the near cache; from
/// [`ZerocacheClient::near_stats`](crate::ZerocacheClient::near_stats).
///
/// Hits and misses are those of one client, all else is of the near cache that the clients of a cluster
/// share in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearStats {
    /// Reads and memoized calls that it answered.
    pub hits: u64,
    /// Those that asked it in vain.
    pub misses: u64,
    /// Entries that it took.
    pub inserts: u64,
    /// Entries that it did not take, because something newer was known of their keys.
    pub outdated: u64,
    /// Entries that were removed because their keys were written.
    pub invalidated: u64,
    /// How often it was emptied, because changes could have been missed.
    pub emptied: u64,
    /// Entries that it holds now.
    pub entries: u64,
    /// Bytes that these take with all that belongs to them.
    pub bytes: u64,
}

impl Counts {
    pub(super) fn snapshot(&self) -> NearStats {
        NearStats {
            inserts: self.inserts.load(Relaxed),
            outdated: self.outdated.load(Relaxed),
            invalidated: self.invalidated.load(Relaxed),
            emptied: self.emptied.load(Relaxed),
            ..NearStats::default()
        }
    }
}
