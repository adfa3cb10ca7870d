//! The entries of one part: a table by hash, two queues, and an agenda of expiries over one slab.

use alloc::boxed::Box;

use hashbrown::HashTable;

use super::{
    agenda::Agenda,
    chunks::Chunks,
    slot::{Class, NOWHERE, Slot, hash_bits, table_hash},
};
use crate::{key::KeyHash, time::Instant, version::Version};

/// Entries, each at a place that may change whenever one is removed.
///
/// Invariant: each place is in the table once and in the queue of its class once; no two entries
/// have keys of one hash.
#[derive(Debug, Default)]
pub struct Entries {
    table: HashTable<u32>,
    slots: Chunks<Slot>,
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

impl Entries {
    /// Where the entry with this key is.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let bits = hash_bits(hash);
        let is_it = |&place: &u32| {
            let slot = &self.slots[place];
            slot.hash_bits == bits && slot.key() == key
        };
        self.table.find(table_hash(bits), is_it).copied()
    }

    /// Where the entry with a key of this hash is, which may be `key`.
    #[must_use]
    pub fn find_hash(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let bits = hash_bits(hash);
        let is_it = |&place: &u32| {
            let slot = &self.slots[place];
            slot.hash_bits == bits && (slot.key() == key || slot.hash() == hash)
        };
        self.table.find(table_hash(bits), is_it).copied()
    }

    /// The entry at a place.
    #[inline]
    #[must_use]
    pub fn slot(&self, place: u32) -> &Slot {
        &self.slots[place]
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
    pub fn insert(&mut self, slot: Slot, tick: u32) {
        let (bits, expires) = (slot.hash_bits, slot.expires);
        let place = self.slots.push(slot);
        let slots = &self.slots;
        let hasher = |&place: &u32| table_hash(slots[place].hash_bits);
        self.table.insert_unique(table_hash(bits), place, hasher);
        self.link(place, Class::Unread, tick);
        self.due.note(place, expires.as_millis());
    }

    /// Stores an entry as unread, before all others of its queue.
    pub fn insert_cold(&mut self, slot: Slot, tick: u32) {
        let (bits, expires) = (slot.hash_bits, slot.expires);
        let place = self.slots.push(slot);
        let slots = &self.slots;
        self.table
            .insert_unique(table_hash(bits), place, |&place| table_hash(slots[place].hash_bits));
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

    /// All entries, in no order.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        (0..self.slots.len() as u32).map(|place| &self.slots[place])
    }

    /// Changes the versions of all entries.
    pub fn redate(&mut self, mut redated: impl FnMut(Version) -> Version) {
        for place in 0..self.slots.len() as u32 {
            let slot = &mut self.slots[place];
            slot.version = redated(slot.version);
        }
    }

    /// The class and weight of the slot at `place`, which is about to be replaced, and its allocation,
    /// to be used again.
    pub fn give_way(&mut self, place: u32) -> ((Class, u64), Option<Box<[u8]>>) {
        let slot = &mut self.slots[place];
        ((slot.class, slot.weight()), slot.take_allocation())
    }

    /// Puts an entry in the place of one with a key of the same hash, as unread.
    pub fn replace(&mut self, place: u32, slot: Slot, tick: u32) {
        let expires = slot.expires;
        self.unlink(place);
        self.slots[place] = slot;
        self.link(place, Class::Unread, tick);
        self.due.note(place, expires.as_millis());
    }

    /// Takes an entry out.
    pub fn remove(&mut self, place: u32) -> Slot {
        self.unlink(place);
        let bits = self.slots[place].hash_bits;
        if let Ok(entry) = self.table.find_entry(table_hash(bits), |&other| other == place) {
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
            self.table.shrink_to(2 * len, |&place| table_hash(slots[place].hash_bits));
        }
        slot
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
        let (bits, class, expires) = (slot.hash_bits, slot.class, slot.expires.as_millis());
        let (older, newer) = (slot.older, slot.newer);
        if let Some(place) = self.table.find_mut(table_hash(bits), |&place| place == from) {
            *place = to;
        }
        self.join(class, older, to);
        self.join(class, to, newer);
        self.due.note(to, expires);
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
            let slot = &self.slots[place];
            assert_eq!(hash_bits(slot.hash()), slot.hash_bits);
            assert_eq!(self.find(slot.hash(), slot.key()), Some(place));
        }
        self.due.check(len, |place| self.slots[place].expires.as_millis());
        (entries, bytes)
    }
}
