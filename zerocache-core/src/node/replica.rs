//! The node's replica of the data: the store, the clock that versions it, and the observers of its changes.
//!
//! Every record and tombstone that the node takes in passes through here, so that followers of the
//! feed and callers that wait for a lease miss no change.

use alloc::{sync::Arc, vec::Vec};

use super::{RefusalCounts, feed::Feed, leases::Leases};
use crate::{
    clock::{HybridClock, LEAD_MS_MAX},
    entry::{Change, Record},
    key::KeyHash,
    purge::{PurgeTarget, TargetId, purged_by},
    store::{ApplyOutcome, Backend, Store, StoredItem},
    time::Now,
    version::{Incarnation, Version},
    wire::Receipt,
};

/// The store, its clock and its observers.
pub(super) struct Replica<B: Backend> {
    pub(super) store: Arc<Store<B>>,
    pub(super) clock: HybridClock,
    pub(super) feed: Feed,
    pub(super) leases: Leases,
}

impl<B: Backend> Replica<B> {
    pub(super) fn new(
        own: Incarnation,
        store: Arc<Store<B>>,
        changes_every_ms: u64,
        now: Now,
    ) -> Self {
        let (clock, feed) = (HybridClock::new(own), Feed::new(now, changes_every_ms));
        Self { store, clock, feed, leases: Leases::default() }
    }

    /// Merges a record.
    pub(super) fn apply(&mut self, now: Now, record: &Record) -> ApplyOutcome {
        let before = self.targets(|| record.key.hash());
        let outcome = self.store.apply(record, now);
        let is_delete = record.change == Change::Delete;
        match outcome {
            ApplyOutcome::Applied | ApplyOutcome::Purged if self.is_observed() => {
                self.notify(record, is_delete, (outcome, before));
            }
            // The delete came after the lease was granted, whatever its version.
            ApplyOutcome::Superseded(_) if is_delete => {
                self.leases.note(record.key.hash(), record.version, is_delete);
            }
            _ => {}
        }
        outcome
    }

    /// Merges a record of a peer, whose version moves this node's clock.
    pub(super) fn receive(&mut self, now: Now, record: &Record) -> Receipt {
        if self.clock.observe(record.version, now.wall_ms).is_err() {
            return Receipt::Refused;
        }
        match self.apply(now, record) {
            ApplyOutcome::Applied | ApplyOutcome::Duplicate | ApplyOutcome::Purged => {
                Receipt::Holds(record.version)
            }
            ApplyOutcome::Superseded(version) => Receipt::Holds(version),
            ApplyOutcome::TooOld => Receipt::Refused,
        }
    }

    /// Merges the version of a peer's write whose value others keep; `record` has all of it but the value.
    pub(super) fn receive_version(&mut self, now: Now, record: &Record) -> Receipt {
        if self.clock.observe(record.version, now.wall_ms).is_err() {
            return Receipt::Refused;
        }
        let before = self.targets(|| record.key.hash());
        match self.store.apply_version(record.key.hash(), record.version, now) {
            outcome @ ApplyOutcome::Applied => {
                if self.is_observed() {
                    self.notify(record, false, (outcome, before));
                }
                Receipt::Holds(record.version)
            }
            ApplyOutcome::Duplicate | ApplyOutcome::Purged => Receipt::Holds(record.version),
            ApplyOutcome::Superseded(version) => Receipt::Holds(version),
            ApplyOutcome::TooOld => Receipt::Refused,
        }
    }

    /// Merges a tombstone of a peer. Returns false if it was refused: its version is too far ahead, or too
    /// old to be judged.
    pub(super) fn receive_tombstone(&mut self, now: Now, key: KeyHash, version: Version) -> bool {
        if self.clock.observe(version, now.wall_ms).is_err() {
            return false;
        }
        let before = self.targets(|| key);
        let outcome = self.store.apply_tombstone(key, version, now);
        if outcome == ApplyOutcome::Applied && self.is_observed() {
            self.notify_change((key, version), (false, false), before);
        }
        outcome != ApplyOutcome::TooOld
    }

    /// Imports an item that another node, or an earlier life of this one, has held for a while. Returns
    /// false if its version is too far ahead.
    pub(super) fn import(&mut self, now: Now, item: StoredItem) -> bool {
        self.import_by(now, item, Store::import)
    }

    /// The same for an entry that is read much.
    pub(super) fn keep(&mut self, now: Now, record: Record) -> bool {
        self.import_by(now, StoredItem::Value(record), Store::keep)
    }

    fn import_by(
        &mut self,
        now: Now,
        item: StoredItem,
        store: impl FnOnce(&Store<B>, &Record, Now) -> ApplyOutcome,
    ) -> bool {
        let (key, version) = item.key_version();
        if self.clock.observe(version, now.wall_ms).is_err() {
            return false;
        }
        let is_known = self.store.version(key) == Some(version);
        let before = self.targets(|| key);
        let outcome = match &item {
            StoredItem::Value(record) => store(&self.store, record, now),
            StoredItem::Tombstone(key, version) => self.store.apply_tombstone(*key, *version, now),
        };
        if !matches!(outcome, ApplyOutcome::Applied | ApplyOutcome::Purged) || !self.is_observed() {
            return true;
        }
        match &item {
            // Followers have heard of the version; callers may wait for the value.
            _ if is_known => self.leases.note(key, version, false),
            StoredItem::Value(record) => self.notify(record, false, (outcome, before)),
            StoredItem::Tombstone(..) => self.notify_change((key, version), (false, false), before),
        }
        true
    }

    /// Removes a value without a tombstone, unless its version is higher than `version`. Returns whether
    /// there was one. Followers start over, because a removal has no version to report.
    pub(super) fn erase(&mut self, key: KeyHash, version: Version) -> bool {
        let is_erased = self.store.erase(key, version);
        if is_erased {
            self.feed.lose();
        }
        is_erased
    }

    /// Raises the clock above a version that a caller has seen. Returns false, and counts it, if no node
    /// with a correct clock can have assigned that version yet.
    pub(super) fn note_seen(
        &mut self,
        now: Now,
        version: Version,
        refused: &mut RefusalCounts,
    ) -> bool {
        let limit_ms = now.wall_ms.saturating_add(LEAD_MS_MAX);
        let is_plausible = version.wall_ms() <= limit_ms || version <= self.clock.last();
        let is_noted = is_plausible && self.clock.observe(version, now.wall_ms).is_ok();
        refused.future_versions += u64::from(!is_noted);
        is_noted
    }

    /// Whether anybody observes changes.
    fn is_observed(&self) -> bool {
        self.feed.is_on() || !self.leases.is_empty()
    }

    /// The targets to which the present entry of a key belongs, if somebody wants to know.
    fn targets(&self, key: impl FnOnce() -> KeyHash) -> Vec<TargetId> {
        let mut targets = Vec::new();
        if self.feed.is_detailed() {
            self.store.each_target(key(), |target| targets.push(target));
        }
        targets
    }

    /// Tells observers of a record that was merged, with the targets of the entry `before`.
    #[cold]
    fn notify(
        &mut self,
        record: &Record,
        is_delete: bool,
        (outcome, mut targets): (ApplyOutcome, Vec<TargetId>),
    ) {
        let key = record.key.as_bytes();
        match purged_by(record) {
            Some((target, version)) => {
                self.feed.note_purge(target, version);
                if self.feed.is_detailed()
                    && let Some((PurgeTarget::Function { namespace, .. }, _)) =
                        PurgeTarget::of_key(key)
                {
                    self.feed.note_target(PurgeTarget::Namespace(namespace).id());
                }
            }
            None => {
                if self.feed.is_detailed() {
                    let metadata = match &record.change {
                        Change::Put { metadata, .. } => &metadata[..],
                        Change::Delete => &[],
                    };
                    TargetId::each(key, metadata, |target| targets.push(target));
                }
                let has_value = !is_delete && outcome == ApplyOutcome::Applied;
                let change = (record.key.hash(), record.version);
                self.notify_change(change, (has_value, is_delete), targets);
            }
        }
    }

    /// Tells observers that a key has another version, of a value or not, and of a delete or not, in an entry that
    /// belongs or belonged to these targets.
    fn notify_change(
        &mut self,
        (key, version): (KeyHash, Version),
        (has_value, is_delete): (bool, bool),
        targets: Vec<TargetId>,
    ) {
        self.feed.note(key, version, has_value);
        self.note_targets(targets);
        self.leases.note(key, version, is_delete);
    }

    /// Says to what the entry of the last change belongs or belonged; to everything without saying so.
    fn note_targets(&mut self, mut targets: Vec<TargetId>) {
        targets.sort_unstable();
        targets.dedup();
        let named = targets.into_iter().filter(|target| *target != TargetId::EVERYTHING);
        named.for_each(|target| self.feed.note_target(target));
    }
}
