//! Counts of discovery, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of discovery since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Proposals sent, repeated ones included.
    pub proposed: u64,
    /// Events that found the channel full.
    pub dropped: u64,
    /// mDNS records of another cluster.
    pub other_cluster: u64,
    /// mDNS records without region, port, usable address or cluster.
    pub malformed: u64,
    /// mDNS records that replaced another, and addresses of a name left out, at a limit.
    pub over_limit: u64,
    /// Lookups of a name that failed or took too long.
    pub lookups_failed: u64,
    /// Restarts of browsing.
    pub browse_restarts: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) proposed: Counter,
    pub(super) dropped: Counter,
    pub(super) other_cluster: Counter,
    pub(super) malformed: Counter,
    pub(super) over_limit: Counter,
    pub(super) lookups_failed: Counter,
    pub(super) browse_restarts: Counter,
}

impl Counters {
    pub(super) fn snapshot(&self) -> Counts {
        Counts {
            proposed: self.proposed.get(),
            dropped: self.dropped.get(),
            other_cluster: self.other_cluster.get(),
            malformed: self.malformed.get(),
            over_limit: self.over_limit.get(),
            lookups_failed: self.lookups_failed.get(),
            browse_restarts: self.browse_restarts.get(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
