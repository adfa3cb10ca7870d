//! The newest versions of recently written keys.
//!
//! A value that was read before a write, or from a node that does not have the write yet, may arrive after the
//! change was applied. The versions here keep it out. The memory is bounded: if too many keys of one set are
//! written within the time, the oldest of them share the newest stamp among them, which keeps out too much and
//! never too little.

use alloc::{boxed::Box, vec};

use crate::time::Instant;

/// How long a write is remembered, in milliseconds: longer than a read takes, and longer than a write usually
/// takes to reach every reachable node.
pub const RECENT_WRITE_MS: u64 = 5_000;

/// Sets, of 208 bytes each.
const SETS: usize = 256;

/// Keys that a set remembers separately.
const WAYS: usize = 8;

/// A recent write.
#[derive(Clone, Copy, Debug, Default)]
struct RecentWrite {
    hash: u64,
    /// 0 for an unused slot.
    stamp: u64,
    at: Instant,
}

/// The recent writes of keys with one index.
#[derive(Clone, Copy, Debug, Default)]
struct Set {
    writes: [RecentWrite; WAYS],
    /// The newest stamp of writes that did not fit, and the time of the last of them.
    shared_stamp: u64,
    shared_at: Instant,
}

/// The recent writes of 2,048 keys, which is 400 writes per second, in 52 KiB that are allocated with the first
/// write. A near cache has one of these, or several among which the keys are divided by the upper half of their
/// hashes.
#[derive(Debug, Default)]
pub struct RecentWrites(Option<Box<[Set]>>);

fn set_of(hash: u64) -> usize {
    // The modulus is below SETS.
    hash as usize % SETS
}

fn is_recent(stamp: u64, at: Instant, now: Instant) -> bool {
    stamp > 0 && now.since_ms(at) < RECENT_WRITE_MS
}

impl RecentWrites {
    /// Returns the lowest stamp that a value of this key may have.
    #[must_use]
    pub fn min_stamp(&self, hash: u64, now: Instant) -> u64 {
        let Some(sets) = &self.0 else { return 0 };
        let Set { writes, shared_stamp, shared_at } = &sets[set_of(hash)];
        let is_own =
            |write: &&RecentWrite| write.hash == hash && is_recent(write.stamp, write.at, now);
        let own = writes.iter().find(is_own);
        let shared = if is_recent(*shared_stamp, *shared_at, now) { *shared_stamp } else { 0 };
        own.map_or(0, |write| write.stamp).max(shared)
    }

    /// Records a write of the key with `stamp`.
    pub fn record(&mut self, hash: u64, stamp: u64, now: Instant) {
        let sets = self.0.get_or_insert_with(|| vec![Set::default(); SETS].into_boxed_slice());
        let set = &mut sets[set_of(hash)];
        let same = set.writes.iter().position(|write| write.stamp > 0 && write.hash == hash);
        // Unused and forgotten slots come before all others.
        let age = |write: &RecentWrite| (is_recent(write.stamp, write.at, now), write.at);
        let oldest = (0..WAYS).min_by_key(|n| age(&set.writes[*n])).unwrap_or(0);
        let write = &mut set.writes[same.unwrap_or(oldest)];
        let known = is_recent(write.stamp, write.at, now).then_some(*write);
        *write = RecentWrite { hash, stamp, at: now };
        match known {
            Some(known) if same.is_some() => write.stamp = stamp.max(known.stamp),
            Some(RecentWrite { stamp, at, .. }) => {
                let shared = is_recent(set.shared_stamp, set.shared_at, now);
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
    fn newest_stamp_is_remembered_for_a_while() {
        let (mut locked, at) = (RecentWrites::default(), Instant::from_millis);
        assert_eq!(locked.min_stamp(KEY, at(0)), 0);
        locked.record(KEY, 5, at(0));
        locked.record(KEY, 3, at(1));
        assert_eq!((locked.min_stamp(KEY, at(2)), locked.min_stamp(NEIGHBOUR, at(2))), (5, 0));
        assert_eq!(locked.min_stamp(KEY, at(RECENT_WRITE_MS)), 5);
        assert_eq!(locked.min_stamp(KEY, at(RECENT_WRITE_MS + 1)), 0);
        locked.record(KEY, 4, at(RECENT_WRITE_MS + 1));
        assert_eq!(locked.min_stamp(KEY, at(RECENT_WRITE_MS + 2)), 4);
    }

    #[test]
    fn full_set_keeps_out_too_much_rather_than_too_little() {
        let (mut locked, at) = (RecentWrites::default(), Instant::from_millis);
        let key = |n: u64| KEY + n * SETS as u64;
        for n in 0..WAYS as u64 {
            locked.record(key(n), 100 - n, at(n));
        }
        let now = at(WAYS as u64);
        assert!((0..WAYS as u64).all(|n| locked.min_stamp(key(n), now) == 100 - n), "each its own");
        assert_eq!(locked.min_stamp(key(99), now), 0);
        // One more key: the oldest shares its stamp with all.
        locked.record(key(50), 5, now);
        assert_eq!(
            (
                locked.min_stamp(KEY, now),
                locked.min_stamp(key(50), now),
                locked.min_stamp(key(99), now)
            ),
            (100, 100, 100)
        );
        // For as long as it would have been remembered separately.
        let over = at(RECENT_WRITE_MS);
        assert_eq!(
            (
                locked.min_stamp(key(99), over),
                locked.min_stamp(key(50), over),
                locked.min_stamp(key(7), over)
            ),
            (0, 5, 93)
        );
    }
}
