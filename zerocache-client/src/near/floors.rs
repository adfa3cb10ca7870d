//! The newest versions of keys that were written a moment ago.
//!
//! A value that was read before a write, or from a node that has not got the write yet, may arrive
//! after the news of the write. What is remembered here keeps it out. The memory is fixed: where too many
//! keys of one set were written at once, the oldest of them share the newest stamp of all that did for as
//! long as that is remembered, which keeps out too much and never too little.

use parking_lot::{Mutex, MutexGuard};
use zerocache_core::time::Instant;

/// How long a write is remembered, in milliseconds: longer than a read takes, and than a write usually
/// takes to reach every node that can be reached.
pub(super) const REMEMBERED_MS: u64 = 5_000;

/// Parts with a lock of their own.
const PARTS: usize = 64;

/// Sets of a part. With all parts 16,384, of 208 bytes each: 3.3 MiB, which are taken as writes are told.
const SETS: usize = 256;

/// Keys that a set remembers one by one. All sets together remember 131,072: 26,000 writes a second.
const KEYS: usize = 8;

/// A write that is remembered.
#[derive(Clone, Copy, Default)]
struct Floor {
    hash: u64,
    /// 0 where nothing is remembered.
    stamp: u64,
    at: Instant,
}

/// The writes of keys that lie together.
#[derive(Clone, Copy, Default)]
struct Set {
    keys: [Floor; KEYS],
    /// The newest stamp of those for which there was no room, and when the last of them was written.
    shared_stamp: u64,
    shared_at: Instant,
}

/// What is remembered.
pub(super) struct Floors(Box<[Mutex<Part>]>);

#[derive(Default)]
struct Part(Option<Box<[Set]>>);

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
    // The modulus is below SETS.
    hash as usize % SETS
}

fn is_remembered(stamp: u64, at: Instant, now: Instant) -> bool {
    stamp > 0 && now.since_ms(at) < REMEMBERED_MS
}

impl Locked<'_> {
    /// The least stamp that a value of this key must have.
    pub(super) fn of(&self, hash: u64, now: Instant) -> u64 {
        let Some(sets) = &self.0.0 else { return 0 };
        let Set { keys, shared_stamp, shared_at } = &sets[place(hash)];
        let is_own =
            |floor: &&Floor| floor.hash == hash && is_remembered(floor.stamp, floor.at, now);
        let own = keys.iter().find(is_own);
        let shared = if is_remembered(*shared_stamp, *shared_at, now) { *shared_stamp } else { 0 };
        own.map_or(0, |floor| floor.stamp).max(shared)
    }

    /// This key was written with `stamp`.
    pub(super) fn raise(&mut self, hash: u64, stamp: u64, now: Instant) {
        let sets = self.0.0.get_or_insert_with(|| vec![Set::default(); SETS].into_boxed_slice());
        let set = &mut sets[place(hash)];
        let same = set.keys.iter().position(|floor| floor.stamp > 0 && floor.hash == hash);
        // Where nothing is remembered before all others.
        let age = |floor: &Floor| (is_remembered(floor.stamp, floor.at, now), floor.at);
        let oldest = (0..KEYS).min_by_key(|n| age(&set.keys[*n])).unwrap_or(0);
        let floor = &mut set.keys[same.unwrap_or(oldest)];
        let known = is_remembered(floor.stamp, floor.at, now).then_some(*floor);
        *floor = Floor { hash, stamp, at: now };
        match known {
            Some(known) if same.is_some() => floor.stamp = stamp.max(known.stamp),
            Some(Floor { stamp, at, .. }) => {
                let shared = is_remembered(set.shared_stamp, set.shared_at, now);
                set.shared_stamp = if shared { set.shared_stamp.max(stamp) } else { stamp };
                set.shared_at = set.shared_at.max(at);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;
    /// Another key of the same set.
    const NEIGHBOUR: u64 = KEY + SETS as u64;

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
    fn keys_of_one_set_keep_out_too_much_rather_than_too_little() {
        let (floors, at) = (Floors::default(), Instant::from_millis);
        let mut locked = floors.lock(KEY);
        let key = |n: u64| KEY + n * SETS as u64;
        for n in 0..KEYS as u64 {
            locked.raise(key(n), 100 - n, at(n));
        }
        let now = at(KEYS as u64);
        assert!((0..KEYS as u64).all(|n| locked.of(key(n), now) == 100 - n), "each its own");
        assert_eq!(locked.of(key(99), now), 0);
        // One more: the oldest shares what it had, with all.
        locked.raise(key(50), 5, now);
        assert_eq!(
            (locked.of(KEY, now), locked.of(key(50), now), locked.of(key(99), now)),
            (100, 100, 100)
        );
        // For as long as it would have been remembered by itself.
        let over = at(REMEMBERED_MS);
        assert_eq!(
            (locked.of(key(99), over), locked.of(key(50), over), locked.of(key(7), over)),
            (0, 5, 93)
        );
    }

    #[test]
    fn many_writes_of_others_keep_little_out() {
        // 10,000 a second.
        let (floors, at) = (Floors::default(), Instant::from_millis);
        let hash = |n: u64| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        for n in 0..50_000 {
            floors.lock(hash(n)).raise(hash(n), 1_000, at(n / 10));
        }
        let others = (50_000..60_000).map(hash);
        let kept_out = others.filter(|hash| floors.lock(*hash).of(*hash, at(5_000)) > 0).count();
        assert!(kept_out < 200, "{kept_out} of 10000");
        // All of the last five seconds.
        let written = (10..50_000).map(hash);
        assert!({ written }.all(|hash| floors.lock(hash).of(hash, at(5_000)) == 1_000));
    }
}
