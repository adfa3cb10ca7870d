//! The near cache: entries that are kept in this process.
//!
//! There is one [`Near`] per process and cluster, shared by all clients and functions, and bounded in bytes. Its
//! rules are those of [`NearRules`]; here are the entries, and what threads have of them.

mod computing;
mod entry;
mod outage;
mod registry;
#[cfg(test)]
mod schedules;
mod settings;
mod shelves;
mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod thread_cache;

use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

use zerocache_core::{
    client::{FillOutcome, FillPermit, NearRules},
    purge::TargetId,
    time::Instant,
    version::Version,
};

use self::shelves::Shelves;
pub use self::stats::NearStats;
pub(crate) use self::{
    entry::{Fill, NearEntry},
    outage::UnstoredPermit,
    registry::shared,
    settings::{NearSettings, OUTAGE_MAX},
};

/// The exclusive right to apply a node's feed. When it is dropped, the cache follows no node: it keeps nothing more,
/// and serves what it has only during an outage.
pub(crate) struct FeedClaim(Arc<Near>);

impl FeedClaim {
    /// The rules of the near cache, for changes.
    pub(crate) fn rules(&self) -> &NearRules<Shelves> {
        &self.0.rules
    }
}

impl Drop for FeedClaim {
    fn drop(&mut self) {
        self.0.rules.lose_node();
        self.0.claimed.store(false, Release);
    }
}

/// The near cache of a process for one cluster.
///
/// Keys are identified by their 64-bit hash, as in the feed; a read compares the whole key. Of two keys with the
/// same hash the later one is kept.
pub(crate) struct Near {
    rules: NearRules<Shelves>,
    /// A client follows a node.
    claimed: AtomicBool,
}

impl Near {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let rules = NearRules::new(Shelves::new(bytes_max));
        Self { rules, claimed: AtomicBool::new(false) }
    }

    /// Sets the maximum size in bytes.
    pub(crate) fn set_bytes_max(&self, bytes_max: u64) {
        self.rules.storage().set_bytes_max(bytes_max);
    }

    /// Returns the maximum size in bytes.
    #[cfg(test)]
    pub(crate) fn bytes_max(&self) -> u64 {
        self.rules.storage().bytes_max()
    }

    /// Runs `use_entry` with the entry of `key`, if it may be served at `now`: it was read in the current
    /// epoch, less than `age_max_ms` ago, and its fresh time is not over. `hash` is that of the key.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        (hash, key): (u64, &[u8]),
        age_max_ms: u64,
        now: Instant,
        use_entry: impl Fn(&NearEntry) -> R,
    ) -> Option<R> {
        if !self.rules.is_followed(now) {
            return None;
        }
        let serves = |entry: &NearEntry| {
            self.rules.is_servable(&entry.times, now, age_max_ms) && entry.key() == key
        };
        self.rules.storage().find(hash, serves, use_entry)
    }

    /// Begins a read or write, whose result may be inserted unless changes are missed meanwhile. Returns
    /// `None` while no node is followed.
    pub(crate) fn begin_fill(&self, now: Instant) -> Option<FillPermit> {
        self.rules.begin_fill(now)
    }

    /// Inserts the result of a read or write, unless the rules or the size of a shelf forbid that.
    pub(crate) fn insert(&self, permit: FillPermit, key: &[u8], fill: &Fill<'_>, now: Instant) {
        let times = self.rules.times(permit, fill.remaining_ms, fill.metadata);
        let Some(entry) = times.map(|times| NearEntry::new(times, key, fill)) else {
            return;
        };
        let storage = self.rules.storage();
        if storage.has_room_for(&entry) {
            let outcome = self.rules.insert_permitted(permit, Arc::new(entry), now);
            if outcome == FillOutcome::Outdated {
                storage.count_rejected();
            }
        }
    }

    /// Begins a write of `key` by this process: the previous value is not served any more.
    pub(crate) fn begin_write(&self, key: &[u8]) {
        self.rules.begin_write(key);
    }

    /// Ends a write of `key` by this process, with its version if that is known. Older values are neither
    /// served nor kept from now on.
    pub(crate) fn end_write(&self, key: &[u8], version: Option<Version>, now: Instant) {
        self.rules.end_write(key, version, now);
    }

    /// Begins a purge by this process: entries of the target are not served any more.
    pub(crate) fn begin_purge(&self, target: TargetId) {
        self.rules.begin_purge(target);
    }

    /// Ends a purge by this process, with the stamp up to which it ended entries if that is known.
    pub(crate) fn end_purge(&self, target: TargetId, stamp: Option<u64>, now: Instant) {
        self.rules.end_purge(target, stamp, now);
    }

    /// Returns the right to apply a node's feed, if no one else has it.
    pub(crate) fn claim(self: &Arc<Self>) -> Option<FeedClaim> {
        let taken = self.claimed.swap(true, Acquire);
        (!taken).then(|| FeedClaim(Arc::clone(self)))
    }

    /// Returns the counters, without hits and misses, which the clients count.
    pub(crate) fn stats(&self) -> NearStats {
        self.rules.storage().stats()
    }
}
