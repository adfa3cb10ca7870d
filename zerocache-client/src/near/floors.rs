//! The newest versions of keys that were written a moment ago.
//!
//! A value that was read before a write, or from a node that has not got the write yet, may arrive
//! after the news of the write. What is remembered here keeps it out. The memory is fixed: keys that
//! share a place share the newest stamp of both for as long as it is remembered, which keeps out too
//! much and never too little.

use parking_lot::{Mutex, MutexGuard};
use zerocache_core::time::Instant;

/// How long a write is remembered, in milliseconds: longer than a read takes, and than a write usually
/// takes to reach every node that can be reached.
pub(super) const REMEMBERED_MS: u64 = 5_000;

/// Parts with a lock of their own.
const PARTS: usize = 64;

/// Places of a part. With all parts 16,384, of 24 bytes each.
const PLACES: usize = 256;

/// Says that a place is shared.
const SHARED: Option<u64> = None;

#[derive(Clone, Copy)]
struct Floor {
    /// The key that it is about, or [`SHARED`].
    hash: Option<u64>,
    stamp: u64,
    at: Instant,
}

/// What is remembered.
pub(super) struct Floors(Box<[Mutex<Part>]>);

#[derive(Default)]
struct Part(Option<Box<[Floor]>>);

/// What is remembered of some keys, for as long as nobody else looks.
pub(super) struct Locked<'a>(MutexGuard<'a, Part>);

impl Default for Floors {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }
}

impl Floors {
    pub(super) fn lock(&self, hash: u64) -> Locked<'_> {
        // The modulus is below PARTS.
        Locked(self.0[(hash >> 32) as usize % PARTS].lock())
    }
}

fn place(hash: u64) -> usize {
    // The modulus is below PLACES.
    hash as usize % PLACES
}

impl Locked<'_> {
    /// The least stamp that a value of this key must have.
    pub(super) fn of(&self, hash: u64, now: Instant) -> u64 {
        let Some(floors) = &self.0.0 else { return 0 };
        let floor = &floors[place(hash)];
        let counts = floor.is_remembered(now) && floor.hash.is_none_or(|other| other == hash);
        if counts { floor.stamp } else { 0 }
    }

    /// This key was written with `stamp`.
    pub(super) fn raise(&mut self, hash: u64, stamp: u64, now: Instant) {
        let nothing = Floor { hash: SHARED, stamp: 0, at: Instant::default() };
        let floors = self.0.0.get_or_insert_with(|| vec![nothing; PLACES].into_boxed_slice());
        let floor = &mut floors[place(hash)];
        if !floor.is_remembered(now) {
            *floor = Floor { hash: Some(hash), stamp, at: now };
            return;
        }
        if floor.hash != Some(hash) {
            floor.hash = SHARED;
        }
        floor.stamp = floor.stamp.max(stamp);
        floor.at = now;
    }
}

impl Floor {
    fn is_remembered(&self, now: Instant) -> bool {
        self.stamp > 0 && now.since_ms(self.at) < REMEMBERED_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;
    /// Another key of the same place.
    const NEIGHBOUR: u64 = KEY + PLACES as u64;

    #[test]
    fn remembers_the_newest_stamp_for_a_while() {
        let (floors, at) = (Floors::default(), Instant::from_millis);
        let mut locked = floors.lock(KEY);
        assert_eq!(locked.of(KEY, at(0)), 0);
        locked.raise(KEY, 5, at(0));
        locked.raise(KEY, 3, at(1));
        assert_eq!((locked.of(KEY, at(2)), locked.of(NEIGHBOUR, at(2))), (5, 0));
        assert_eq!(locked.of(KEY, at(REMEMBERED_MS)), 5);
        assert_eq!(locked.of(KEY, at(REMEMBERED_MS + 1)), 0);
        locked.raise(KEY, 4, at(REMEMBERED_MS + 1));
        assert_eq!(locked.of(KEY, at(REMEMBERED_MS + 2)), 4);
    }

    #[test]
    fn keys_of_one_place_keep_out_too_much_rather_than_too_little() {
        let (floors, at) = (Floors::default(), Instant::from_millis);
        let mut locked = floors.lock(KEY);
        locked.raise(KEY, 9, at(0));
        locked.raise(NEIGHBOUR, 2, at(1));
        assert_eq!((locked.of(KEY, at(2)), locked.of(NEIGHBOUR, at(2))), (9, 9));
        assert_eq!(locked.of(NEIGHBOUR, at(REMEMBERED_MS + 1)), 0);
    }
}
