//! What became of a client's operations.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zerocache_core::{route::Tier, wire::Status};

/// Counts of one client's operations since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Reads answered with a value, by the tier of the node that answered: local, next local,
    /// nearest region, second nearest region.
    pub hits: [u64; 4],
    /// Reads that found no value that may be used.
    pub misses: u64,
    /// Of the hits, those with a value past its fresh time, which the caller allowed.
    pub stale_hits: u64,
    /// Of the misses, those for which there was a value past its fresh time.
    pub stale_misses: u64,
    /// Of the misses, those for which there was a value with metadata or a packing that cannot be
    /// read: damaged, or of a later release.
    pub unreadable: u64,
    /// Second requests of [hedged reads](crate::ClientBuilder::hedge).
    pub hedged: u64,
    /// Of these, those whose answer came first.
    pub hedge_wins: u64,
    /// Requests without an answer, by the tier of the node that was asked.
    pub errors: [u64; 4],
    /// Operations for which no node could be reached.
    pub unreachable: u64,
    /// Writes that were stored.
    pub stored: u64,
    /// Writes that lost to a newer one.
    pub superseded: u64,
    /// Writes that every node refused.
    pub refused: u64,
    /// Writes of which nobody knows whether they were stored.
    pub unknown: u64,
    /// Writes that failed because their value is larger than the node takes.
    pub too_large: u64,
    /// Of these, those that were not sent: the node had said in the last minute how much it takes.
    pub too_large_unsent: u64,
}

/// The counters behind [`ClientStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: [AtomicU64; 4],
    misses: AtomicU64,
    stale_hits: AtomicU64,
    stale_misses: AtomicU64,
    unreadable: AtomicU64,
    hedged: AtomicU64,
    hedge_wins: AtomicU64,
    errors: [AtomicU64; 4],
    unreachable: AtomicU64,
    writes: [AtomicU64; 4],
    too_large: AtomicU64,
    too_large_unsent: AtomicU64,
}

impl Counters {
    pub(super) fn hit(&self, tier: Tier) {
        self.hits[tier as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn miss(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    /// There was a value past its fresh time, and whether the caller took it.
    pub(super) fn stale(&self, tier: Tier, taken: bool) {
        if taken {
            self.hit(tier);
            self.stale_hits.fetch_add(1, Relaxed);
        } else {
            self.miss();
            self.stale_misses.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn hedged(&self) {
        self.hedged.fetch_add(1, Relaxed);
    }

    pub(super) fn hedge_won(&self) {
        self.hedge_wins.fetch_add(1, Relaxed);
    }

    /// There was a value that cannot be read.
    pub(super) fn unreadable(&self) {
        self.miss();
        self.unreadable.fetch_add(1, Relaxed);
    }

    pub(super) fn error(&self, tier: Tier) {
        self.errors[tier as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn unreachable(&self) {
        self.unreachable.fetch_add(1, Relaxed);
    }

    pub(super) fn written(&self, status: Status) {
        self.writes[status as usize].fetch_add(1, Relaxed);
    }

    /// A value is larger than the node takes, and whether it was sent to find that out.
    pub(super) fn too_large(&self, is_sent: bool) {
        self.too_large.fetch_add(1, Relaxed);
        self.too_large_unsent.fetch_add(u64::from(!is_sent), Relaxed);
    }

    pub(super) fn snapshot(&self) -> ClientStats {
        let all = |counters: &[AtomicU64; 4]| counters.each_ref().map(|c| c.load(Relaxed));
        let writes = |status: Status| self.writes[status as usize].load(Relaxed);
        ClientStats {
            hits: all(&self.hits),
            misses: self.misses.load(Relaxed),
            stale_hits: self.stale_hits.load(Relaxed),
            stale_misses: self.stale_misses.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            hedged: self.hedged.load(Relaxed),
            hedge_wins: self.hedge_wins.load(Relaxed),
            errors: all(&self.errors),
            unreachable: self.unreachable.load(Relaxed),
            stored: writes(Status::Stored),
            superseded: writes(Status::Superseded),
            refused: writes(Status::Refused),
            unknown: writes(Status::Unknown),
            too_large: self.too_large.load(Relaxed),
            too_large_unsent: self.too_large_unsent.load(Relaxed),
        }
    }
}
