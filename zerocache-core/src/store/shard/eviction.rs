//! The steps of eviction in a shard.

use super::{Shard, disk::Departure};
use crate::store::{
    backend::Pages,
    eviction::EvictionPolicy,
    slot::{Class, SlotRef},
    variant::StoreVariant,
};

impl<P: Pages> Shard<P> {
    /// Sets the order of eviction. The shard must be empty.
    pub const fn set_policy(&mut self, policy: EvictionPolicy) {
        self.policy = policy;
    }

    /// Moves the oldest read entry to the end of its queue if it was used, at a use less. Returns whether it was.
    pub fn spare_oldest(&mut self, tick: impl FnOnce() -> u64) -> bool {
        self.entries.oldest(Class::Read).is_some_and(|index| self.entries.spare(index, tick))
    }

    /// Returns the oldest entry of a class.
    #[must_use]
    pub fn oldest(&self, class: Class) -> Option<(u32, SlotRef<'_, P>)> {
        self.entries.oldest(class).map(|index| (index, self.entries.slot(index)))
    }

    /// Evicts an entry. `generation` is that of its ghost if it leaves one.
    pub fn evict(&mut self, index: u32, generation: Option<u32>) {
        self.counts.evicted += 1;
        let slot = self.entries.slot(index);
        let (hash, version, bits) = (slot.hash(), slot.version, slot.table_bits);
        self.remove(index, Some((version, Departure::Ended)));
        if let Some(generation) = generation {
            self.ghosts.insert(bits, generation, self.entries.len());
        }
        if self.breakage.is(StoreVariant::EvictionsForgotten) {
            self.digests.subtract(hash, version);
        } else {
            self.add_tombstone(hash, version);
        }
    }
}
