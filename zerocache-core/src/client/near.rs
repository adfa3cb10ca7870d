//! The rules of a near cache: what a process keeps beside the nodes, and when it may serve that.
//!
//! A process keeps and serves entries only while it follows a node's feed of changes. A change removes older
//! entries of its key, and is remembered for a while, so that an older value that a lagging node returns
//! afterwards is not kept. Changes that could have been missed begin an epoch: a read or write gets a permit
//! with the epoch in which it began, and what it brings is kept and served only in that epoch.

use core::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use super::{
    ClientVariant,
    outage::StrandedEpochs,
    recent_writes::{RECENT_WRITE_MS, RecentWrites},
};
use crate::{
    key::KeyHash,
    metadata::{EntryKind, Metadata},
    purge::TargetId,
    time::Instant,
    version::{Incarnation, Version},
    wire::KeyChange,
};

/// The time for which the feed is valid after a request that the node answered, in milliseconds. A node answers
/// at least once per second.
pub const FEED_VALID_MS: u64 = 3_000;

/// Returns the hash by which the feed identifies a key.
#[inline]
#[must_use]
pub fn near_hash(key: &[u8]) -> u64 {
    KeyHash::of(key).short()
}

/// The permission to insert the result of a read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillPermit {
    epoch: u64,
    /// The begin of the read or write: its value is at least that old.
    started: Instant,
    /// The writes of this process without a known outcome that had ended by then.
    unknown: u64,
}

impl FillPermit {
    /// When the read or write began.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }
}

/// What decides when an entry may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NearTimes {
    epoch: u64,
    /// The begin of the read or write.
    started: Instant,
    /// The end of the fresh time without the refresh-ahead time.
    until: Instant,
}

impl NearTimes {
    /// The times of a value that was computed at `computed` and could not be stored: it is served during outages only.
    #[must_use]
    pub const fn unstored(epoch: u64, computed: Instant) -> Self {
        Self { epoch, started: computed, until: computed }
    }

    /// The epoch in which the entry is served.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the read or write began.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The end of the fresh time without the refresh-ahead time.
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// Whether the entry may be served in `epoch` at `now`, to a reader who wants nothing that is `age_max_ms`
    /// old.
    #[inline]
    #[must_use]
    pub fn is_servable(&self, epoch: u64, now: Instant, age_max_ms: u64) -> bool {
        self.epoch == epoch && now < self.until && now.since_ms(self.started) < age_max_ms
    }
}

/// An entry of a near cache.
pub trait NearItem {
    /// The key.
    fn key(&self) -> &[u8];
    /// The version.
    fn version(&self) -> Version;
    /// The writer's metadata, encoded.
    fn metadata(&self) -> &[u8];
    /// What decides when it may be served.
    fn times(&self) -> &NearTimes;
    /// Whether it was or is fresh at `at`, also if it was to be refreshed ahead of its end.
    fn is_fresh(&self, at: Instant) -> bool {
        at < self.times().until
    }
}

/// Where the entries of a near cache are. Of two keys with one hash the later entry is kept.
///
/// Several threads may use one storage. What a method has changed is seen by all of them when it returns.
pub trait NearStorage {
    /// An entry.
    type Item: Deref<Target: NearItem>;

    /// The present epoch: a number that no other near cache of the process has had.
    fn epoch(&self) -> u64;

    /// Begins another epoch, and drops all entries after that.
    fn begin_epoch(&self);

    /// The end of the feed's validity; the default while no node is followed.
    fn valid_until(&self) -> Instant;

    /// Sets the end of the feed's validity.
    fn set_valid_until(&self, until: Instant);

    /// Runs `act` with the recent writes of the keys with this hash, for one thread at a time.
    fn with_recent_writes<R>(&self, hash: u64, act: impl FnOnce(&mut RecentWrites) -> R) -> R;

    /// Runs `act` with the entry of this hash, if there is one.
    fn with_item<R>(&self, hash: u64, act: impl FnOnce(&Self::Item) -> R) -> Option<R>;

    /// Keeps an entry instead of the one of this hash, unless there is no room for it.
    fn insert(&self, hash: u64, item: Self::Item);

    /// Removes the entry of this hash if `condition` holds for it.
    fn remove_if(&self, hash: u64, condition: impl FnOnce(&Self::Item) -> bool);

    /// Removes all entries for which `condition` holds.
    fn remove_all(&self, condition: impl Fn(&Self::Item) -> bool);

    /// Runs `act` with the highest stamp of a purge. No purge is applied meanwhile.
    fn filling<R>(&self, act: impl FnOnce(u64) -> R) -> R;

    /// Raises the highest stamp of a purge, and runs `act` while nothing is filled in.
    fn purging(&self, stamp: u64, act: impl FnOnce());

    /// For how long readers may want an entry while no node answers, in milliseconds. A storage that sets nothing aside
    /// need not provide this, nor what follows.
    fn outage_ms(&self) -> u64 {
        0
    }

    /// Begins another epoch, and drops nothing.
    fn renew_epoch(&self) {
        self.begin_epoch();
    }

    /// The epochs whose entries are set aside. [`begin_epoch`](Self::begin_epoch) forgets them.
    fn stranded(&self) -> StrandedEpochs {
        StrandedEpochs::default()
    }

    /// Whether there are any.
    fn has_stranded(&self) -> bool {
        false
    }

    /// Changes the epochs whose entries are set aside, for one thread at a time.
    fn update_stranded(&self, _: impl FnOnce(&mut StrandedEpochs)) {}

    /// Notes a change of the key with this hash, whether there is an entry or not.
    fn note_change(&self, _: u64) {}

    /// Notes a purge.
    fn note_purge(&self) {}

    /// Forgets these epochs if there are no others, and drops all entries but those of the present epoch.
    fn drop_stranded(&self, _: &StrandedEpochs) {}
}

/// What became of an entry that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillOutcome {
    /// It is kept.
    Kept,
    /// A newer version of its key is known.
    Outdated,
    /// Changes that it lacks may have been missed or forgotten.
    Late,
}

/// The rules of a near cache over its storage.
#[derive(Debug, Default)]
pub struct NearRules<S> {
    storage: S,
    /// Writes and purges of this process whose outcome is not known.
    unknown: AtomicU64,
    #[cfg(feature = "variants")]
    variant: Option<ClientVariant>,
}

impl<S: NearStorage> NearRules<S> {
    /// The rules over an empty storage.
    #[must_use]
    pub const fn new(storage: S) -> Self {
        Self {
            storage,
            unknown: AtomicU64::new(0),
            #[cfg(feature = "variants")]
            variant: None,
        }
    }

    /// The storage.
    #[inline]
    #[must_use]
    pub const fn storage(&self) -> &S {
        &self.storage
    }

    /// Breaks a rule.
    #[cfg(feature = "variants")]
    pub fn break_rule(&mut self, variant: Option<ClientVariant>) {
        self.variant = variant;
    }

    #[inline]
    #[cfg_attr(
        not(feature = "variants"),
        expect(clippy::unused_self, reason = "nothing is broken")
    )]
    fn is_broken(&self, variant: ClientVariant) -> bool {
        #[cfg(feature = "variants")]
        return self.variant == Some(variant);
        #[cfg(not(feature = "variants"))]
        {
            let _ = variant;
            false
        }
    }

    /// Returns true if the feed is valid, so that entries are kept and served.
    #[inline]
    #[must_use]
    pub fn is_followed(&self, now: Instant) -> bool {
        now < self.storage.valid_until()
    }

    /// Whether an entry with these times may be served at `now`, while the cache is followed.
    #[inline]
    #[must_use]
    pub fn is_servable(&self, times: &NearTimes, now: Instant, age_max_ms: u64) -> bool {
        times.is_servable(self.storage.epoch(), now, age_max_ms)
    }

    /// Begins a read or write, whose result may be inserted unless changes are missed meanwhile. Returns
    /// `None` while no node is followed.
    pub fn begin_fill(&self, now: Instant) -> Option<FillPermit> {
        let epoch = self.storage.epoch();
        let unknown = self.unknown.load(SeqCst);
        self.is_followed(now).then_some(FillPermit { epoch, started: now, unknown })
    }

    /// The times of a result that has `remaining_ms` to live from the begin of its read or write on. Returns
    /// `None` for a result that is not served near: an error, or a value past its fresh time or within its
    /// refresh-ahead time, in which a call decides whether it refreshes.
    pub fn times(
        &self,
        permit: FillPermit,
        remaining_ms: u64,
        metadata: &Metadata,
    ) -> Option<NearTimes> {
        let FillPermit { epoch, started, .. } = permit;
        let is_unmarked = self.is_broken(ClientVariant::FillsUnmarked);
        let epoch = if is_unmarked { self.storage.epoch() } else { epoch };
        let near_ms = metadata.fresh_ms(remaining_ms).saturating_sub(metadata.refresh_ahead_ms);
        // A call whose use is to be reported reads from a node.
        let near_ms = near_ms.min(metadata.use_due_ms(remaining_ms).unwrap_or(u64::MAX));
        let is_served = near_ms > 0 && metadata.kind == EntryKind::Value;
        is_served.then(|| NearTimes { epoch, started, until: started.plus_ms(near_ms) })
    }

    /// Inserts the result of a read or write, unless it is older than a known version of the key, or took so
    /// long that a newer write may have been forgotten.
    pub fn insert(&self, item: S::Item, now: Instant) -> FillOutcome {
        self.fill(item, now, || true)
    }

    /// As [`insert`](Self::insert), for the result of the read or write with this permit. It is not kept either if
    /// a write of this process ended meanwhile without an outcome that is known: it may lack that.
    pub fn insert_permitted(&self, permit: FillPermit, item: S::Item, now: Instant) -> FillOutcome {
        self.fill(item, now, || permit.unknown == self.unknown.load(SeqCst))
    }

    fn fill(&self, item: S::Item, now: Instant, has_all: impl FnOnce() -> bool) -> FillOutcome {
        let NearTimes { epoch, started, .. } = *item.times();
        if now.since_ms(started) >= RECENT_WRITE_MS {
            return FillOutcome::Late;
        }
        self.storage.filling(|latest_purge| {
            if item.version().stamp() <= latest_purge && self.is_purged(&item, now) {
                return FillOutcome::Outdated;
            }
            let hash = near_hash(item.key());
            self.storage.with_recent_writes(hash, |recent_writes| {
                if epoch != self.storage.epoch() || !has_all() {
                    return FillOutcome::Late;
                }
                let is_newer = |known: &S::Item| {
                    known.times().epoch == epoch
                        && known.version() > item.version()
                        && known.key() == item.key()
                };
                let is_outdated = recent_writes.min_version(hash, now) > item.version()
                    && !self.is_broken(ClientVariant::RecentWritesForgotten);
                if is_outdated || self.storage.with_item(hash, is_newer) == Some(true) {
                    return FillOutcome::Outdated;
                }
                self.storage.insert(hash, item);
                FillOutcome::Kept
            })
        })
    }

    /// Whether a recent purge ended the entry.
    fn is_purged(&self, item: &S::Item, now: Instant) -> bool {
        let mut is_purged = false;
        TargetId::each(item.key(), item.metadata(), |target| {
            let min = |writes: &mut RecentWrites| writes.min_version(target.0, now);
            is_purged |= self.storage.with_recent_writes(target.0, min) >= item.version();
        });
        is_purged
    }

    /// Removes the entries of purged targets up to these stamps, and keeps them out.
    fn apply_purges(&self, purges: &[KeyChange], now: Instant) {
        let Some(latest) = purges.iter().map(|(_, stamp)| *stamp).max() else { return };
        self.storage.purging(latest, || {
            for (target, stamp) in purges {
                let below = Version::new(*stamp, Incarnation(u64::MAX));
                let record = |writes: &mut RecentWrites| writes.record(*target, below, now);
                self.storage.with_recent_writes(*target, record);
            }
            self.remove_purged(purges);
        });
    }

    fn remove_purged(&self, purges: &[KeyChange]) {
        self.storage.note_purge();
        self.storage.remove_all(|item| {
            let (mut is_purged, stamp) = (false, item.version().stamp());
            TargetId::each(item.key(), item.metadata(), |target| {
                is_purged |= purges.iter().any(|(id, below)| target.0 == *id && stamp <= *below);
            });
            is_purged
        });
    }

    /// Whether there may be entries.
    fn holds(&self) -> bool {
        self.storage.valid_until() > Instant::default() || self.storage.outage_ms() > 0
    }

    /// Begins a purge by this process: entries of the target are not served any more.
    pub fn begin_purge(&self, target: TargetId) {
        if self.holds() {
            self.remove_purged(&[(target.0, u64::MAX)]);
        }
    }

    /// Ends a purge by this process, with the stamp up to which it ended entries if that is known.
    pub fn end_purge(&self, target: TargetId, stamp: Option<u64>, now: Instant) {
        match stamp {
            // Also while no node is followed: one that is followed next does not report it any more.
            Some(stamp) => self.apply_purges(&[(target.0, stamp)], now),
            None => {
                self.unknown.fetch_add(1, SeqCst);
                self.storage.purging(0, || self.begin_purge(target));
            }
        }
    }

    /// Begins a write of `key` by this process: the previous value is not served any more.
    pub fn begin_write(&self, key: &[u8]) {
        if self.holds() {
            self.remove(near_hash(key));
        }
    }

    /// Ends a write of `key` by this process, with its version if that is known. Older values are neither
    /// served nor kept from now on.
    pub fn end_write(&self, key: &[u8], version: Option<Version>, now: Instant) {
        if !self.holds() {
            return;
        }
        let hash = near_hash(key);
        match version {
            _ if self.is_broken(ClientVariant::OwnNearWritesIgnored) => {}
            Some(version) => self.remove_older(hash, version, now),
            None => {
                self.unknown.fetch_add(1, SeqCst);
                // After fills that have looked at the time before.
                self.storage.with_recent_writes(hash, |_| self.remove(hash));
            }
        }
    }

    fn remove(&self, hash: u64) {
        self.storage.note_change(hash);
        if !self.is_broken(ClientVariant::OwnNearWritesIgnored) {
            self.storage.remove_if(hash, |_| true);
        }
    }

    /// Removes entries of the key with this hash that are older than `version`, and keeps them out.
    fn remove_older(&self, hash: u64, version: Version, now: Instant) {
        self.storage.with_recent_writes(hash, |recent_writes| {
            recent_writes.record(hash, version, now);
            self.storage.note_change(hash);
            self.storage.remove_if(hash, |item| item.version() < version);
        });
    }

    /// Applies changes from the response to a request that was sent at `asked`. With `lost`, earlier changes
    /// may be missing. Only one caller at a time may do this.
    pub fn apply_changes(
        &self,
        asked: Instant,
        lost: bool,
        (changes, purges): (&[KeyChange], &[KeyChange]),
        now: Instant,
    ) {
        if lost && !self.is_broken(ClientVariant::FeedGapsIgnored) {
            // What was set aside when another node failed is read again after this.
            if self.storage.valid_until() == Instant::default() && self.storage.has_stranded() {
                self.storage.renew_epoch();
            } else {
                self.storage.begin_epoch();
            }
        }
        if !self.is_broken(ClientVariant::FeedRowsIgnored) {
            for (hash, stamp) in changes {
                // What has the same stamp may be this write.
                self.remove_older(*hash, Version::new(*stamp, Incarnation(0)), now);
            }
            if !self.is_broken(ClientVariant::FeedPurgesIgnored) {
                self.apply_purges(purges, now);
            }
        }
        // The feed is valid from the time of the request on, after all changes are applied.
        self.storage.set_valid_until(asked.plus_ms(FEED_VALID_MS));
    }

    /// Ends the following of a node: nothing is kept or served until another one is followed.
    pub fn end_following(&self) {
        self.storage.set_valid_until(Instant::default());
        if !self.is_broken(ClientVariant::FeedGapsIgnored) {
            self.storage.begin_epoch();
        }
    }
}
