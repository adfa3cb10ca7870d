//! Counters of the near cache.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of a near cache. Its clients count hits and misses.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) inserts: AtomicU64,
    pub(super) rejected_old: AtomicU64,
    pub(super) invalidated: AtomicU64,
    pub(super) cleared: AtomicU64,
}

/// Counters of the near cache; from [`ZerocacheClient::near_stats`](crate::ZerocacheClient::near_stats).
///
/// Hits and misses are those of one client; the other counters are those of the near cache that the clients of
/// a cluster share in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearStats {
    /// Reads and memoized calls that the near cache answered.
    pub hits: u64,
    /// Lookups without a usable entry.
    pub misses: u64,
    /// Entries inserted.
    pub inserts: u64,
    /// Entries rejected because a newer version of their key was known.
    pub rejected_old: u64,
    /// Entries removed because their key was written.
    pub invalidated: u64,
    /// Times that all entries were removed, or set aside for an outage, because changes could have been missed.
    pub cleared: u64,
    /// Current entries.
    pub entries: u64,
    /// Bytes of the current entries, including all overhead.
    pub bytes: u64,
}

impl Counts {
    pub(super) fn snapshot(&self) -> NearStats {
        NearStats {
            inserts: self.inserts.load(Relaxed),
            rejected_old: self.rejected_old.load(Relaxed),
            invalidated: self.invalidated.load(Relaxed),
            cleared: self.cleared.load(Relaxed),
            ..NearStats::default()
        }
    }
}
