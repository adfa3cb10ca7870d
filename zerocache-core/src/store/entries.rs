//! The entries of one part: a table by hash, two queues, and an agenda of expiries over one slab.

use alloc::boxed::Box;

use hashbrown::HashTable;

use super::{
    agenda::Agenda,
    chunks::Chunks,
    lock::Pages,
    log::{Log, Spot},
    slot::{Block, Class, Fresh, NOWHERE, Seen, Sizes, Slot},
    table_key::{TableKey, spread},
};
use crate::{key::KeyHash, time::Instant, version::Version};

/// Entries, each at a place that may change whenever one is removed.
///
/// Invariant: each place is in the table once and in the queue of its class once; no two entries
/// have keys of one hash.
#[derive(Debug)]
pub struct Entries<P> {
    table: HashTable<u32>,
    table_key: TableKey,
    slots: Chunks<Slot>,
    log: Log<P>,
    sizes: Sizes,
    queues: [Queue; 2],
    due: Agenda,
}

/// The two ends of a doubly linked list through the slots.
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
    /// No entries, and a table that places keys by this secret.
    #[must_use]
    pub fn new(table_key: TableKey, sizes: Sizes) -> Self {
        Self {
            table: HashTable::new(),
            table_key,
            slots: Chunks::default(),
            log: Log::new(sizes.segment_bytes),
            sizes,
            queues: Default::default(),
            due: Agenda::default(),
        }
    }

    /// Where the entry with this key is.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let bits = self.table_key.bits(hash);
        let is_it = |&place: &u32| {
            let slot = &self.slots[place];
            slot.table_bits == bits && Seen::new(slot, &self.log).key() == key
        };
        self.table.find(spread(bits), is_it).copied()
    }

    /// Where the entry with a key of this hash is, which may be `key`.
    #[must_use]
    pub fn find_hash(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let bits = self.table_key.bits(hash);
        let is_it = |&place: &u32| {
            let slot = &self.slots[place];
            slot.table_bits == bits && {
                let seen = Seen::new(slot, &self.log);
                seen.key() == key || seen.hash() == hash
            }
        };
        self.table.find(spread(bits), is_it).copied()
    }

    /// The entry at a place.
    #[inline]
    #[must_use]
    pub fn slot(&self, place: u32) -> Seen<'_, P> {
        Seen::new(&self.slots[place], &self.log)
    }

    /// Notes a use of an entry that was read before.
    #[inline]
    pub fn note_use(&mut self, place: u32) {
        let slot = &mut self.slots[place];
        // Written only if it changes, so that the line of a hot entry stays shared.
        if !slot.is_used {
            slot.is_used = true;
        }
    }

    /// Puts an entry at the end of the queue of the read ones.
    pub fn promote(&mut self, place: u32, tick: u32) {
        self.unlink(place);
        self.link(place, Class::Read, tick);
    }

    /// Stores an entry as unread; none with a key of its hash may be held.
    pub fn insert(&mut self, hash: KeyHash, fresh: &Fresh<'_>, tick: u32) {
        let expires = fresh.expires;
        let place = self.add(hash, fresh);
        self.link(place, Class::Unread, tick);
        self.due.note(place, expires.as_millis());
    }

    /// Stores an entry as unread, before all others of its queue.
    pub fn insert_cold(&mut self, hash: KeyHash, fresh: &Fresh<'_>, tick: u32) {
        let expires = fresh.expires;
        let place = self.add(hash, fresh);
        let queue = &mut self.queues[Class::Unread as usize];
        let oldest = core::mem::replace(&mut queue.oldest, place);
        match oldest {
            NOWHERE => queue.newest = place,
            after => self.slots[after].older = place,
        }
        let slot = &mut self.slots[place];
        (slot.older, slot.newer) = (NOWHERE, oldest);
        (slot.class, slot.tick, slot.is_used) = (Class::Unread, tick, false);
        self.due.note(place, expires.as_millis());
    }

    /// Gives an entry a block, and a place in slab and table.
    fn add(&mut self, hash: KeyHash, fresh: &Fresh<'_>) -> u32 {
        let bits = self.table_key.bits(hash);
        let block = self.block(fresh, bits);
        let place = self.slots.push(Slot::new(fresh, block, bits));
        let slots = &self.slots;
        let hasher = |&place: &u32| spread(slots[place].table_bits);
        self.table.insert_unique(spread(bits), place, hasher);
        place
    }

    fn block(&mut self, fresh: &Fresh<'_>, bits: u32) -> Block {
        if !self.sizes.is_packed(fresh.payload_bytes()) {
            return Block::shared::<P>(fresh.contents());
        }
        Block::Packed(self.log.append(fresh.contents(), bits))
    }

    /// A block goes; some of what stands between gaps moves.
    fn release(&mut self, spot: Spot) {
        self.log.release(spot);
        let (table, slots) = (&self.table, &mut self.slots);
        self.log.close_gaps(spot.bytes(), |log, spot, bits| {
            let is_there =
                |place: &u32| matches!(slots[*place].block, Block::Packed(at) if at == spot);
            if let Some(place) = table.find(spread(bits), is_there).copied() {
                slots[place].block = Block::Packed(log.relocate(spot, bits));
            }
        });
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// All entries, in no order.
    pub fn slots(&self) -> impl Iterator<Item = Seen<'_, P>> {
        (0..self.slots.len() as u32).map(|place| self.slot(place))
    }

    /// Changes the versions of all entries.
    pub fn redate(&mut self, mut redated: impl FnMut(Version) -> Version) {
        for place in 0..self.slots.len() as u32 {
            let slot = &mut self.slots[place];
            slot.version = redated(slot.version);
        }
    }

    /// Puts an entry in the place of one with a key of the same hash, as unread.
    pub fn replace(&mut self, place: u32, fresh: &Fresh<'_>, tick: u32) {
        self.unlink(place);
        let slot = &mut self.slots[place];
        let bits = slot.table_bits;
        // A value is most often replaced by one of the same size.
        let block = match slot.block {
            Block::Packed(spot) if spot.bytes() == fresh.payload_bytes() => {
                self.log.overwrite(spot, fresh.contents());
                Block::Packed(spot)
            }
            Block::Packed(spot) => {
                // So that nobody takes what is left there for an entry, when gaps are closed.
                slot.block = Block::Shared(Box::default());
                self.release(spot);
                self.block(fresh, bits)
            }
            Block::Shared(_) => self.block(fresh, bits),
        };
        self.slots[place] = Slot::new(fresh, block, bits);
        self.link(place, Class::Unread, tick);
        self.due.note(place, fresh.expires.as_millis());
    }

    /// Takes an entry out; returns its class and weight.
    pub fn remove(&mut self, place: u32) -> (Class, u64) {
        self.unlink(place);
        let bits = self.slots[place].table_bits;
        if let Ok(entry) = self.table.find_entry(spread(bits), |&other| other == place) {
            entry.remove();
        }
        let slot = self.slots.swap_remove(place);
        let len = self.slots.len();
        if (place as usize) < len {
            self.relocate(len as u32, place);
        }
        self.due.truncate(len);
        if self.table.capacity() > 4 * len + 64 {
            let slots = &self.slots;
            self.table.shrink_to(2 * len, |&place| spread(slots[place].table_bits));
        }
        if let Block::Packed(spot) = slot.block {
            self.release(spot);
        }
        (slot.class, slot.weight())
    }

    /// Brings the expiry of an entry forward.
    pub fn shorten(&mut self, place: u32, expires: Instant) {
        let slot = &mut self.slots[place];
        if expires < slot.expires {
            slot.expires = expires;
            self.due.note(place, expires.as_millis());
        }
    }

    /// An entry that has expired at `now`. After `None`, [`Entries::first_due`] is later.
    pub fn find_due(&mut self, now: Instant) -> Option<u32> {
        let slots = &self.slots;
        self.due.find(now.as_millis(), slots.len(), |place| slots[place].expires.as_millis())
    }

    /// The moment before which no entry expires, in milliseconds.
    #[must_use]
    pub fn first_due(&self) -> u64 {
        self.due.bound()
    }

    /// Where the entry is that stands first in the queue of a class.
    #[must_use]
    pub fn oldest(&self, class: Class) -> Option<u32> {
        let place = self.queues[class as usize].oldest;
        (place != NOWHERE).then_some(place)
    }

    fn link(&mut self, place: u32, class: Class, tick: u32) {
        let queue = &mut self.queues[class as usize];
        let newest = core::mem::replace(&mut queue.newest, place);
        match newest {
            NOWHERE => queue.oldest = place,
            before => self.slots[before].newer = place,
        }
        let slot = &mut self.slots[place];
        (slot.older, slot.newer) = (newest, NOWHERE);
        (slot.class, slot.tick, slot.is_used) = (class, tick, false);
    }

    fn unlink(&mut self, place: u32) {
        let slot = &self.slots[place];
        let (older, newer, class) = (slot.older, slot.newer, slot.class);
        self.join(class, older, newer);
    }

    /// Makes `older` and `newer` neighbours, or ends of the queue.
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

    /// The entry at `from` is now at `to`: tells its neighbours, the table and the agenda.
    fn relocate(&mut self, from: u32, to: u32) {
        let slot = &self.slots[to];
        let (bits, class, expires) = (slot.table_bits, slot.class, slot.expires.as_millis());
        let (older, newer) = (slot.older, slot.newer);
        if let Some(place) = self.table.find_mut(spread(bits), |&place| place == from) {
            *place = to;
        }
        self.join(class, older, to);
        self.join(class, to, newer);
        self.due.note(to, expires);
    }

    /// Bytes of segments, and of what lies in them.
    #[cfg(test)]
    pub fn log_held(&self) -> (u64, u64) {
        self.log.held()
    }

    /// Most entries that the table cannot tell apart without looking at their keys.
    #[cfg(test)]
    pub fn longest_chain(&self) -> usize {
        let mut bits: alloc::vec::Vec<_> = self.slots().map(|slot| slot.table_bits).collect();
        bits.sort_unstable();
        bits.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0)
    }

    /// Panics unless table, queues and agenda agree; returns entries and bytes by class.
    #[cfg(test)]
    pub fn check(&self) -> ([u64; 2], [u64; 2]) {
        use alloc::collections::BTreeSet;
        let (mut entries, mut bytes) = ([0; 2], [0; 2]);
        for class in Class::ALL {
            let queue = &self.queues[class as usize];
            let (mut older, mut place) = (NOWHERE, queue.oldest);
            while place != NOWHERE {
                let slot = &self.slots[place];
                assert_eq!((slot.older, slot.class), (older, class));
                // Ticks wrap around.
                let ahead = |than: u32| slot.tick.wrapping_sub(than).wrapping_sub(1) < 1 << 31;
                assert!(older == NOWHERE || ahead(self.slots[older].tick));
                entries[class as usize] += 1;
                bytes[class as usize] += slot.weight();
                (older, place) = (place, slot.newer);
            }
            assert_eq!(queue.newest, older);
        }
        let len = self.slots.len();
        assert_eq!(entries.iter().sum::<u64>(), len as u64);
        assert_eq!(self.table.iter().copied().collect::<BTreeSet<_>>().len(), len);
        assert_eq!(self.table.len(), len);
        for place in 0..len as u32 {
            let slot = self.slot(place);
            assert_eq!(self.table_key.bits(slot.hash()), slot.table_bits);
            assert_eq!(self.find(slot.hash(), slot.key()), Some(place));
        }
        self.due.check(len, |place| self.slots[place].expires.as_millis());
        self.log.check((0..len as u32).filter_map(|place| match self.slots[place].block {
            Block::Packed(spot) => Some(spot),
            Block::Shared(_) => None,
        }));
        (entries, bytes)
    }
}
