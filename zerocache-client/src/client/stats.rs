//! Counters of a client's operations.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zerocache_core::{route::Tier, wire::Status};

/// Counts by the tier of the node that was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierCounts {
    /// The local node that is asked first.
    pub local: u64,
    /// The local node that is asked next.
    pub next_local: u64,
    /// Nodes of the nearest other region.
    pub nearest: u64,
    /// Nodes of the second nearest other region.
    pub second_nearest: u64,
}

impl TierCounts {
    /// The count of `tier`.
    #[must_use]
    pub fn get(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Local => self.local,
            Tier::NextLocal => self.next_local,
            Tier::Nearest => self.nearest,
            Tier::SecondNearest => self.second_nearest,
            // Tiers that this release does not have.
            _ => 0,
        }
    }

    /// The sum over all tiers.
    #[must_use]
    pub fn total(&self) -> u64 {
        Tier::ALL.into_iter().map(|tier| self.get(tier)).sum()
    }
}

/// Operations of one client since it was created; from
/// [`ZerocacheClient::stats`](crate::ZerocacheClient::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Reads answered with a value, by the tier of the node that answered.
    pub hits: TierCounts,
    /// Reads that found no usable value.
    pub misses: u64,
    /// Hits with a value past its fresh time, which the caller accepted.
    pub stale_hits: u64,
    /// Misses for which there was a value past its fresh time.
    pub stale_misses: u64,
    /// Misses for which there was a value whose metadata or compression cannot be read: damaged, or
    /// written by a later release.
    pub unreadable: u64,
    /// Second requests of [hedged reads](crate::ClientBuilder::hedge).
    pub hedged: u64,
    /// Second requests that were answered first.
    pub hedge_wins: u64,
    /// Requests without a response, by the tier of the node that was asked.
    pub errors: TierCounts,
    /// Operations for which no node could be reached.
    pub unreachable: u64,
    /// Operations that nodes denied.
    pub denied: u64,
    /// Writes that were stored.
    pub stored: u64,
    /// Writes that lost to a newer version.
    pub superseded: u64,
    /// Writes that every node refused.
    pub refused: u64,
    /// Writes with an unknown outcome: no node said whether it stored them.
    pub unknown: u64,
    /// Writes that were not made, because their condition did not hold.
    pub not_met: u64,
    /// Writes that failed because the value is larger than the node accepts.
    pub too_large: u64,
    /// Writes among `too_large` that were not sent, because the node had stated its limit within the last
    /// minute.
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
    denied: AtomicU64,
    writes: [AtomicU64; 4],
    not_met: AtomicU64,
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

    /// Counts a read that found a value past its fresh time.
    pub(super) fn stale(&self, tier: Tier, accepted: bool) {
        if accepted {
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

    /// Counts a read that found a value that cannot be read.
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

    pub(super) fn denied(&self) {
        self.denied.fetch_add(1, Relaxed);
    }

    pub(super) fn written(&self, status: Status) {
        self.writes[status as usize].fetch_add(1, Relaxed);
    }

    /// Counts a write whose condition did not hold.
    pub(super) fn not_met(&self) {
        self.not_met.fetch_add(1, Relaxed);
    }

    /// Counts a value that is larger than the node accepts.
    pub(super) fn too_large(&self, is_sent: bool) {
        self.too_large.fetch_add(1, Relaxed);
        self.too_large_unsent.fetch_add(u64::from(!is_sent), Relaxed);
    }

    pub(super) fn snapshot(&self) -> ClientStats {
        let by_tier = |counters: &[AtomicU64; 4]| {
            let [local, next_local, nearest, second_nearest] =
                counters.each_ref().map(|count| count.load(Relaxed));
            TierCounts { local, next_local, nearest, second_nearest }
        };
        let writes = |status: Status| self.writes[status as usize].load(Relaxed);
        ClientStats {
            hits: by_tier(&self.hits),
            misses: self.misses.load(Relaxed),
            stale_hits: self.stale_hits.load(Relaxed),
            stale_misses: self.stale_misses.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            hedged: self.hedged.load(Relaxed),
            hedge_wins: self.hedge_wins.load(Relaxed),
            errors: by_tier(&self.errors),
            unreachable: self.unreachable.load(Relaxed),
            denied: self.denied.load(Relaxed),
            stored: writes(Status::Stored),
            superseded: writes(Status::Superseded),
            refused: writes(Status::Refused),
            unknown: writes(Status::Unknown),
            not_met: self.not_met.load(Relaxed),
            too_large: self.too_large.load(Relaxed),
            too_large_unsent: self.too_large_unsent.load(Relaxed),
        }
    }
}
