//! The entries of one shard: a table by hash, two queues and an expiry index over one slab.

mod disk;

use hashbrown::HashTable;

use super::{
    backend::Pages,
    chunks::Chunks,
    disk::DiskCopy,
    expiry_index::ExpiryIndex,
    log::{BlockAddress, Log},
    sizes::Sizes,
    slot::{Block, Class, NOWHERE, NewEntry, RESTORED, Slot, SlotRef, USES_MAX},
    table_hasher::{TableHasher, is_worth_shrinking, spread},
};
use crate::{key::KeyHash, time::Instant, version::Version};

/// Entries in slots. The index of a slot may change whenever an entry is removed.
///
/// Invariant: each index is in the table once and in the queue of its class once. No two entries have keys
/// with the same hash.
#[derive(Debug)]
pub struct Entries<P> {
    table: HashTable<u32>,
    hasher: TableHasher,
    slots: Chunks<Slot>,
    log: Log<P>,
    sizes: Sizes,
    queues: [Queue; Class::COUNT],
    expiries: ExpiryIndex,
}

/// The ends of a doubly linked list through the slots.
#[derive(Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { oldest: NOWHERE, newest: NOWHERE }
    }
}

impl<P: Pages> Entries<P> {
    /// Creates an empty collection.
    #[must_use]
    pub fn new(hasher: TableHasher, sizes: Sizes) -> Self {
        Self {
            table: HashTable::new(),
            hasher,
            slots: Chunks::default(),
            log: Log::new(sizes.segment_bytes),
            sizes,
            queues: Default::default(),
            expiries: ExpiryIndex::default(),
        }
    }

    /// Returns the index of the entry with this key.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let bits = self.hasher.bits(hash);
        let matches = |&index: &u32| {
            let slot = &self.slots[index];
            slot.table_bits == bits && SlotRef::new(slot, &self.log).key() == key
        };
        self.table.find(spread(bits), matches).copied()
    }

    /// Tells the processor that the slot of a key is read soon.
    pub fn prefetch_slot(&self, hash: KeyHash) {
        // The table offers one slot, rarely two; whether it is the right one is only known when it is loaded.
        let visit = |&index: &u32| {
            let (slots, at) = self.slots.chunk_of(index);
            P::prefetch(slots, at);
            false
        };
        let _none = self.table.find(spread(self.hasher.bits(hash)), visit);
    }

    /// Tells the processor that the block of a key is read soon. Waits for its slot, unless that has arrived.
    pub fn prefetch_block(&self, hash: KeyHash) {
        let bits = self.hasher.bits(hash);
        let found = self.table.find(spread(bits), |&index| self.slots[index].table_bits == bits);
        if let Some(&index) = found
            && let Some(address) = self.slots[index].block.packed()
        {
            self.log.prefetch(address);
        }
    }

    /// Returns the index of the entry whose key has this hash. A key equal to `key` is not hashed again.
    #[must_use]
    pub fn find_hash(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let bits = self.hasher.bits(hash);
        let matches = |&index: &u32| {
            let slot = &self.slots[index];
            slot.table_bits == bits && {
                let found = SlotRef::new(slot, &self.log);
                found.key() == key || found.hash() == hash
            }
        };
        self.table.find(spread(bits), matches).copied()
    }

    /// Returns the index of the entry with these table bits: that which was put at the end of its queue at a tick
    /// with these lower bits, if it was not moved since.
    #[must_use]
    pub fn find_queued(&self, table_bits: u32, tick: u32) -> Option<u32> {
        let has_bits = |index: u32| self.slots[index].table_bits == table_bits;
        let is_at = |&index: &u32| has_bits(index) && self.slots[index].tick() as u32 == tick;
        let at = self.table.find(spread(table_bits), is_at);
        at.or_else(|| self.table.find(spread(table_bits), |&index| has_bits(index))).copied()
    }

    /// Returns the entry in a slot.
    #[inline]
    #[must_use]
    pub fn slot(&self, index: u32) -> SlotRef<'_, P> {
        SlotRef::new(&self.slots[index], &self.log)
    }

    /// Counts a use of an entry.
    #[inline]
    pub fn mark_used(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        // Written only if it changes, so that the cache line of a hot entry stays shared.
        if slot.uses < USES_MAX {
            slot.uses += 1;
        } else if slot.uses == RESTORED {
            // The use for which it came back.
            slot.uses = 0;
        }
    }

    /// Moves an entry to the end of the queue of a class, without uses.
    pub fn requeue(&mut self, index: u32, class: Class, tick: u64) {
        self.unlink(index);
        self.link(index, class, tick);
    }

    /// Takes a use off an entry that has some, and moves it to the end of its queue. Returns whether it had one.
    pub fn spare(&mut self, index: u32, tick: impl FnOnce() -> u64) -> bool {
        let Slot { class, uses, .. } = self.slots[index];
        let Some(left) = uses.checked_sub(1).filter(|left| *left < USES_MAX) else { return false };
        self.requeue(index, class, tick());
        self.slots[index].uses = left;
        true
    }

    /// Inserts an entry into a class. There must be no entry whose key has this hash.
    pub fn insert(&mut self, hash: KeyHash, entry: &NewEntry<'_>, class: Class, tick: u64) {
        let index = self.add(hash, entry);
        self.link(index, class, tick);
    }

    /// Inserts an unread entry before all others of its queue. The key must not be reserved.
    pub fn insert_cold(&mut self, hash: KeyHash, entry: &NewEntry<'_>, tick: u64) {
        let index = self.add(hash, entry);
        let queue = &mut self.queues[Class::Unread as usize];
        let oldest = core::mem::replace(&mut queue.oldest, index);
        match oldest {
            NOWHERE => queue.newest = index,
            after => self.slots[after].older = index,
        }
        let slot = &mut self.slots[index];
        (slot.older, slot.newer) = (NOWHERE, oldest);
        (slot.class, slot.uses) = (Class::Unread, 0);
        slot.set_tick(tick);
    }

    /// Adds an entry to log, slab, table and expiry index.
    fn add(&mut self, hash: KeyHash, entry: &NewEntry<'_>) -> u32 {
        let bits = self.hasher.bits(hash);
        let block = self.block(entry, None, bits);
        self.add_slot(Slot::new(entry, block, bits))
    }

    fn add_slot(&mut self, slot: Slot) -> u32 {
        let (bits, expires) = (slot.table_bits, slot.expires);
        let index = self.slots.push(slot);
        self.expiries.set(index, expires.as_millis());
        let slots = &self.slots;
        let hasher = |&index: &u32| spread(slots[index].table_bits);
        self.table.insert_unique(spread(bits), index, hasher);
        index
    }

    /// Creates the block of an entry, of which there may be a copy on disk.
    fn block(&mut self, entry: &NewEntry<'_>, copy: Option<DiskCopy>, bits: u32) -> Block {
        if !self.sizes.is_packed(entry.payload_bytes()) {
            return Block::shared::<P>(entry.contents(), copy);
        }
        let [key, metadata, value] = entry.contents();
        match copy {
            None => Block::Packed(self.log.append([key, metadata, value], bits)),
            Some(copy) => {
                Block::Copied(self.log.append([key, metadata, value, &copy.encode()], bits))
            }
        }
    }

    /// Takes the block off a slot, and removes it from the log.
    fn clear_block(&mut self, index: u32) {
        // Cleared first, so that compaction does not take the old block for a live one.
        let empty = Block::Packed(BlockAddress::NOWHERE);
        let block = core::mem::replace(&mut self.slots[index].block, empty);
        if let Some(address) = block.packed() {
            self.release(address);
        }
    }

    /// Removes a block from the log, and compacts the log if gaps take too much memory.
    fn release(&mut self, address: BlockAddress) {
        self.log.release(address);
        let (table, slots) = (&self.table, &mut self.slots);
        self.log.compact(address.bytes(), |log, address, bits| {
            let is_live = |index: &u32| slots[*index].block.packed() == Some(address);
            if let Some(index) = table.find(spread(bits), is_live).copied() {
                let moved = log.relocate(address, bits);
                slots[index].block = slots[index].block.moved_to(moved);
            }
        });
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Iterates over all entries, in no order.
    pub fn slots(&self) -> impl Iterator<Item = SlotRef<'_, P>> {
        (0..self.slots.len() as u32).map(|index| self.slot(index))
    }

    /// Changes the versions of all entries.
    pub fn restamp(&mut self, mut restamped: impl FnMut(Version) -> Version) {
        for index in 0..self.slots.len() as u32 {
            let slot = &mut self.slots[index];
            slot.version = restamped(slot.version);
        }
    }

    /// Replaces an entry with an unread one whose key has the same hash.
    pub fn replace(&mut self, index: u32, entry: &NewEntry<'_>, tick: u64) {
        self.unlink(index);
        let slot = &mut self.slots[index];
        let bits = slot.table_bits;
        // Most values are replaced by one of the same size.
        let block = match slot.block {
            Block::Packed(address) if address.bytes() == entry.payload_bytes() => {
                self.log.overwrite(address, entry.contents());
                Block::Packed(address)
            }
            _ => {
                self.clear_block(index);
                self.block(entry, None, bits)
            }
        };
        self.slots[index] = Slot::new(entry, block, bits);
        self.link(index, Class::of_new(entry.key), tick);
        self.expiries.set(index, entry.expires.as_millis());
    }

    /// Removes an entry. Returns its class and weight.
    pub fn remove(&mut self, index: u32) -> (Class, u64) {
        self.unlink(index);
        let bits = self.slots[index].table_bits;
        if let Ok(entry) = self.table.find_entry(spread(bits), |&other| other == index) {
            entry.remove();
        }
        let slot = self.slots.swap_remove(index);
        let len = self.slots.len();
        if (index as usize) < len {
            self.relocate(len as u32, index);
        }
        self.expiries.truncate(len);
        if is_worth_shrinking(self.table.capacity(), len) {
            let slots = &self.slots;
            self.table.shrink_to(2 * len, |&index| spread(slots[index].table_bits));
        }
        if let Some(address) = slot.block.packed() {
            self.release(address);
        }
        (slot.class, slot.weight())
    }

    /// Sets the expiry of an entry if it is earlier than the present one.
    pub fn shorten(&mut self, index: u32, expires: Instant) {
        let slot = &mut self.slots[index];
        if expires < slot.expires {
            slot.expires = expires;
            self.expiries.set(index, expires.as_millis());
        }
    }

    /// Returns the index of an entry that is expired at `now`. After `None`, [`Entries::first_expiry`] is later.
    pub fn find_expired(&mut self, now: Instant) -> Option<u32> {
        let slots = &self.slots;
        self.expiries.find(now.as_millis(), slots.len(), |index| slots[index].expires.as_millis())
    }

    /// Returns a time before which no entry expires, in milliseconds.
    #[must_use]
    pub fn first_expiry(&self) -> u64 {
        self.expiries.bound()
    }

    /// Returns the index of the oldest entry in the queue of a class.
    #[must_use]
    pub fn oldest(&self, class: Class) -> Option<u32> {
        let index = self.queues[class as usize].oldest;
        (index != NOWHERE).then_some(index)
    }

    fn link(&mut self, index: u32, class: Class, tick: u64) {
        let queue = &mut self.queues[class as usize];
        let newest = core::mem::replace(&mut queue.newest, index);
        match newest {
            NOWHERE => queue.oldest = index,
            before => self.slots[before].newer = index,
        }
        let slot = &mut self.slots[index];
        (slot.older, slot.newer) = (newest, NOWHERE);
        (slot.class, slot.uses) = (class, 0);
        slot.set_tick(tick);
    }

    fn unlink(&mut self, index: u32) {
        let slot = &self.slots[index];
        let (older, newer, class) = (slot.older, slot.newer, slot.class);
        self.join(class, older, newer);
    }

    /// Makes `older` and `newer` neighbours in a queue, or its ends.
    fn join(&mut self, class: Class, older: u32, newer: u32) {
        let queue = &mut self.queues[class as usize];
        match older {
            NOWHERE => queue.oldest = newer,
            older => self.slots[older].newer = newer,
        }
        match newer {
            NOWHERE => queue.newest = older,
            newer => self.slots[newer].older = older,
        }
    }

    /// Updates neighbours, table and expiry index after the entry at `from` has moved to `to`.
    fn relocate(&mut self, from: u32, to: u32) {
        let slot = &self.slots[to];
        let (bits, class, expires) = (slot.table_bits, slot.class, slot.expires.as_millis());
        let (older, newer) = (slot.older, slot.newer);
        if let Some(index) = self.table.find_mut(spread(bits), |&index| index == from) {
            *index = to;
        }
        self.join(class, older, to);
        self.join(class, to, newer);
        self.expiries.set(to, expires);
    }

    /// Returns the bytes of log segments, and of the blocks in them.
    #[cfg(test)]
    pub fn log_bytes(&self) -> (u64, u64) {
        self.log.bytes_held()
    }

    /// Returns the most entries with the same table bits.
    #[cfg(test)]
    pub fn longest_chain(&self) -> usize {
        let mut bits: alloc::vec::Vec<_> = self.slots().map(|slot| slot.table_bits).collect();
        bits.sort_unstable();
        bits.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0)
    }

    /// Panics unless table, queues, expiry index and log agree. Returns entries and bytes by class.
    #[cfg(test)]
    pub fn check(&self) -> ([u64; Class::COUNT], [u64; Class::COUNT]) {
        use super::{slot::TICK_BITS, totals::age};
        use alloc::collections::BTreeSet;
        let (mut entries, mut bytes) = ([0; Class::COUNT], [0; Class::COUNT]);
        for class in Class::ALL {
            let queue = &self.queues[class as usize];
            let (mut older, mut index) = (NOWHERE, queue.oldest);
            while index != NOWHERE {
                let slot = &self.slots[index];
                assert_eq!((slot.older, slot.class), (older, class));
                // Ticks wrap around.
                let ahead = |than: u64| age(slot.tick(), than + 1) < 1 << (TICK_BITS - 1);
                assert!(older == NOWHERE || ahead(self.slots[older].tick()));
                entries[class as usize] += 1;
                bytes[class as usize] += slot.weight();
                (older, index) = (index, slot.newer);
            }
            assert_eq!(queue.newest, older);
        }
        let len = self.slots.len();
        assert_eq!(entries.iter().sum::<u64>(), len as u64);
        assert_eq!(self.table.iter().copied().collect::<BTreeSet<_>>().len(), len);
        assert_eq!(self.table.len(), len);
        for index in 0..len as u32 {
            let slot = self.slot(index);
            assert_eq!(self.hasher.bits(slot.hash()), slot.table_bits);
            assert_eq!(self.find(slot.hash(), slot.key()), Some(index));
        }
        self.expiries.check(len, |index| self.slots[index].expires.as_millis());
        self.log.check((0..len as u32).filter_map(|index| self.slots[index].block.packed()));
        (entries, bytes)
    }
}
