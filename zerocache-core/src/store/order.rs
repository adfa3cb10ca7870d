//! Which entry goes first when space is needed.

use core::hash::{BuildHasherDefault, Hasher};

use lru::LruCache;

use super::slot::Slot;
use crate::key::KeyHash;

/// Whether an entry was read since it was stored here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Stored and never read here: goes first.
    Unread,
    /// Read at least once.
    Read,
}

impl Class {
    /// Both classes, in the order in which they go.
    pub const ALL: [Self; 2] = [Self::Unread, Self::Read];
}

/// An eviction order: holds the slots of one part of the store and names the next victim.
pub trait EvictionOrder: Default {
    /// Looks without counting it as a use.
    fn peek(&self, key: KeyHash) -> Option<&Slot>;
    /// Looks without counting it as a use, to change what stands beside the value.
    fn peek_mut(&mut self, key: KeyHash) -> Option<&mut Slot>;
    /// Counts a read at `tick` and returns the slot, with the class in which it was before.
    fn touch(&mut self, key: KeyHash, tick: u64) -> Option<(Class, &Slot)>;
    /// Stores a slot as unread at `tick`; the key must not be held.
    fn insert(&mut self, key: KeyHash, slot: Slot, tick: u64);
    /// Takes a slot out, and says in which class it was.
    fn remove(&mut self, key: KeyHash) -> Option<(Class, Slot)>;
    /// The tick of the victim of a class.
    fn coldest(&self, class: Class) -> Option<u64>;
    /// Takes out the victim of a class.
    fn evict(&mut self, class: Class) -> Option<(KeyHash, Slot)>;
}

/// Key hashes are hashes already: 64 of their bits serve as they are.
#[derive(Default)]
pub struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

/// The hasher of tables keyed by [`KeyHash`].
pub type BuildPassThrough = BuildHasherDefault<PassThrough>;

type Queue = LruCache<KeyHash, Slot, BuildPassThrough>;

/// Least recently used, in two queues: entries never read go before entries that were.
pub struct LruOrder {
    unread: Queue,
    read: Queue,
}

impl Default for LruOrder {
    fn default() -> Self {
        // Bounds are the store's business; `unbounded` allocates as it grows.
        let queue = || LruCache::unbounded_with_hasher(BuildPassThrough::default());
        Self { unread: queue(), read: queue() }
    }
}

impl LruOrder {
    fn queue(&self, class: Class) -> &Queue {
        match class {
            Class::Unread => &self.unread,
            Class::Read => &self.read,
        }
    }

    fn queue_mut(&mut self, class: Class) -> &mut Queue {
        match class {
            Class::Unread => &mut self.unread,
            Class::Read => &mut self.read,
        }
    }
}

impl EvictionOrder for LruOrder {
    fn peek(&self, key: KeyHash) -> Option<&Slot> {
        self.read.peek(&key).or_else(|| self.unread.peek(&key))
    }

    fn peek_mut(&mut self, key: KeyHash) -> Option<&mut Slot> {
        match self.read.peek_mut(&key) {
            Some(slot) => Some(slot),
            None => self.unread.peek_mut(&key),
        }
    }

    fn touch(&mut self, key: KeyHash, tick: u64) -> Option<(Class, &Slot)> {
        let before = if self.read.contains(&key) { Class::Read } else { Class::Unread };
        if before == Class::Unread {
            let slot = self.unread.pop(&key)?;
            self.read.push(key, slot);
        }
        let slot = self.read.get_mut(&key)?;
        slot.used = tick;
        Some((before, slot))
    }

    fn insert(&mut self, key: KeyHash, mut slot: Slot, tick: u64) {
        slot.used = tick;
        self.unread.push(key, slot);
    }

    fn remove(&mut self, key: KeyHash) -> Option<(Class, Slot)> {
        if let Some(slot) = self.read.pop(&key) {
            return Some((Class::Read, slot));
        }
        self.unread.pop(&key).map(|slot| (Class::Unread, slot))
    }

    fn coldest(&self, class: Class) -> Option<u64> {
        self.queue(class).peek_lru().map(|(_, slot)| slot.used)
    }

    fn evict(&mut self, class: Class) -> Option<(KeyHash, Slot)> {
        self.queue_mut(class).pop_lru()
    }
}
