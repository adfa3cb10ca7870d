//! What the node takes in, and those who want to know: who waits for a value, and who follows.

use super::Node;
use crate::{
    entry::{Change, Record},
    key::KeyHash,
    store::{ApplyOutcome, Backend, StoredItem},
    time::Now,
    version::Version,
};

impl<B: Backend> Node<B> {
    /// Merges a record.
    pub(super) fn apply(&mut self, now: Now, record: &Record) -> ApplyOutcome {
        let applied = self.store.apply(record, now);
        let is_delete = record.change == Change::Delete;
        match applied {
            ApplyOutcome::Applied if self.is_observed() => {
                self.observed(record.key.hash(), record.version, is_delete);
            }
            // It came after the leave was given, whatever its stamp.
            ApplyOutcome::Superseded(_) if is_delete => {
                self.leases.note(record.key.hash(), record.version, is_delete);
            }
            _ => {}
        }
        applied
    }

    /// Merges the version of a key of which a peer has no value.
    pub(super) fn apply_tombstone(
        &mut self,
        now: Now,
        key: KeyHash,
        version: Version,
    ) -> ApplyOutcome {
        let applied = self.store.apply_tombstone(key, version, now);
        if applied == ApplyOutcome::Applied && self.is_observed() {
            self.observed(key, version, false);
        }
        applied
    }

    /// Takes over what somebody else, or an earlier life, has had for a while; false if it is stamped too far
    /// ahead.
    pub(super) fn adopt(&mut self, now: Now, known: StoredItem) -> bool {
        let (key, version) = match &known {
            StoredItem::Value(record) => (record.key.hash(), record.version),
            StoredItem::Tombstone(key, version) => (*key, *version),
        };
        if self.clock.observe(version, now.wall_ms).is_err() {
            return false;
        }
        let applied = match known {
            StoredItem::Value(record) => self.store.import(&record, now),
            StoredItem::Tombstone(key, version) => self.store.apply_tombstone(key, version, now),
        };
        if applied == ApplyOutcome::Applied && self.is_observed() {
            self.observed(key, version, false);
        }
        true
    }

    /// Forgets a value that has no newer version than `version`; whether there was one. Nobody can be told
    /// of a version that it has now.
    pub(super) fn erase(&mut self, key: KeyHash, version: Version) -> bool {
        let gone = self.store.erase(key, version);
        if gone {
            self.feed.lose();
        }
        gone
    }

    /// Whether anybody wants to know what changes.
    fn is_observed(&self) -> bool {
        self.feed.is_on() || !self.leases.is_empty()
    }

    #[cold]
    fn observed(&mut self, key: KeyHash, version: Version, is_delete: bool) {
        self.feed.note(key, version);
        self.leases.note(key, version, is_delete);
    }
}
