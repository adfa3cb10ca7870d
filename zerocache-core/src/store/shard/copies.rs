//! Copies of entries that other nodes, or earlier processes of this one, have held for a while.

use super::{Shard, disk::Departure};
use crate::{
    entry::{Change, Record},
    key::KeyHash,
    store::{
        backend::Pages,
        outcome::ApplyOutcome,
        slot::{Class, NewEntry, SlotRef},
    },
    time::Now,
};

impl<P: Pages> Shard<P> {
    /// Returns the entry with these bits of its table hash: that which was put at the end of its queue at a tick
    /// with these lower bits, if it was not moved since.
    #[must_use]
    pub fn slot_at(&self, table_bits: u32, tick: u32) -> Option<SlotRef<'_, P>> {
        self.entries.find_queued(table_bits, tick).map(|index| self.entries.slot(index))
    }

    /// Stores a copied entry, if `is_cold` at the cold end of the unread class, so that it is evicted before all present
    /// entries. An entry older than the retention is accepted, too, and one of which the version alone is known.
    pub fn import(
        &mut self,
        (hash, record): (KeyHash, &Record),
        now: Now,
        (tick, is_cold): (u64, bool),
        ended: bool,
    ) -> ApplyOutcome {
        let Change::Put { value, metadata, expires } = &record.change else {
            return self.apply_tombstone(hash, record.version);
        };
        let index = self.entries.find_hash(hash, record.key.as_bytes());
        match self.version_at(index, hash) {
            Some(known) if known > record.version => return ApplyOutcome::Superseded(known),
            Some(known) if known == record.version && index.is_some() => {
                return ApplyOutcome::Duplicate;
            }
            known => self.update_digests(hash, known, record.version),
        }
        let weight = self.sizes.weight_of(record.payload_bytes());
        if *expires <= now.mono || weight > self.weight_max || ended {
            self.replace_with_tombstone(hash, index, record.version);
            return if ended { ApplyOutcome::Purged } else { ApplyOutcome::Applied };
        }
        if let Some(index) = index {
            let version = self.slot(index).version;
            self.remove(index, Some((version, Departure::Ended)));
        }
        let key = record.key.as_bytes();
        let (version, expires) = (record.version, *expires);
        let entry = NewEntry { key, metadata, value, version, expires };
        self.counts.puts += 1;
        self.remove_tombstone(hash);
        let class = Class::of_new(key);
        match class {
            Class::Unread if is_cold => self.entries.insert_cold(hash, &entry, tick),
            _ => self.entries.insert(hash, &entry, class, tick),
        }
        self.usage.add(class, weight);
        ApplyOutcome::Applied
    }
}
