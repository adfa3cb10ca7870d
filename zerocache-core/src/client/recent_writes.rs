//! The newest versions of recently written keys.
//!
//! A value that was read before a write, or from a node that does not have the write yet, may arrive after the
//! change was applied. The versions here keep it out. The memory is bounded: if too many keys of one set are
//! written within the time, the oldest of them share the newest stamp among them, which keeps out too much and
//! never too little.

use alloc::{boxed::Box, vec};

use crate::{
    time::Instant,
    version::{Incarnation, Version},
};

/// How long a write is remembered, in milliseconds: longer than a read takes, and longer than a write usually
/// takes to reach every reachable node.
pub const RECENT_WRITE_MS: u64 = 5_000;

/// Sets, of 280 bytes each.
const SETS: usize = 256;

/// Keys that a set remembers separately.
const WAYS: usize = 8;

/// The version below all others, of no write.
const NONE: Version = Version::new(0, Incarnation(0));

/// A recent write.
#[derive(Clone, Copy, Debug)]
struct RecentWrite {
    hash: u64,
    /// [`NONE`] for an unused slot.
    version: Version,
    at: Instant,
}

impl Default for RecentWrite {
    fn default() -> Self {
        Self { hash: 0, version: NONE, at: Instant::default() }
    }
}

/// The recent writes of keys with one index.
#[derive(Clone, Copy, Debug, Default)]
struct Set {
    writes: [RecentWrite; WAYS],
    /// The newest version of writes that did not fit, and the time of the last of them.
    shared: RecentWrite,
}

/// The recent writes of 2,048 keys, which is 400 writes per second, in 70 KiB that are allocated with the first
/// write. A near cache has one of these, or several among which the keys are divided by the upper half of their
/// hashes.
#[derive(Debug, Default)]
pub struct RecentWrites(Option<Box<[Set]>>);

fn set_of(hash: u64) -> usize {
    // The modulus is below SETS.
    hash as usize % SETS
}

impl RecentWrite {
    fn is_recent(&self, now: Instant) -> bool {
        self.version > NONE && now.since_ms(self.at) < RECENT_WRITE_MS
    }

    /// The version if the write is recent, and [`NONE`] otherwise.
    fn recent(&self, now: Instant) -> Version {
        if self.is_recent(now) { self.version } else { NONE }
    }
}

impl RecentWrites {
    /// Returns the lowest version that a value of this key may have.
    #[must_use]
    pub fn min_version(&self, hash: u64, now: Instant) -> Version {
        let Some(sets) = &self.0 else { return NONE };
        let Set { writes, shared } = &sets[set_of(hash)];
        let own = writes.iter().find(|write| write.version > NONE && write.hash == hash);
        own.map_or(NONE, |write| write.recent(now)).max(shared.recent(now))
    }

    /// Records a write of the key with `version`.
    pub fn record(&mut self, hash: u64, version: Version, now: Instant) {
        let sets = self.0.get_or_insert_with(|| vec![Set::default(); SETS].into_boxed_slice());
        let Set { writes, shared } = &mut sets[set_of(hash)];
        let same = writes.iter().position(|write| write.version > NONE && write.hash == hash);
        // Unused and forgotten slots come before all others.
        let oldest =
            (0..WAYS).min_by_key(|n| (writes[*n].is_recent(now), writes[*n].at)).unwrap_or(0);
        let write = &mut writes[same.unwrap_or(oldest)];
        let known = *write;
        *write = RecentWrite { hash, version, at: now };
        if same.is_some() {
            write.version = version.max(known.recent(now));
        } else if known.is_recent(now) {
            shared.version = known.version.max(shared.recent(now));
            shared.at = shared.at.max(known.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;
    /// Another key of the same set.
    const NEIGHBOUR: u64 = KEY + SETS as u64;

    impl RecentWrites {
        fn min_stamp(&self, hash: u64, now: Instant) -> u64 {
            self.min_version(hash, now).stamp()
        }

        fn record_stamp(&mut self, hash: u64, stamp: u64, now: Instant) {
            self.record(hash, Version::new(stamp, Incarnation(1)), now);
        }
    }

    #[test]
    fn newest_stamp_is_remembered_for_a_while() {
        let (mut writes, at) = (RecentWrites::default(), Instant::from_millis);
        assert_eq!(writes.min_stamp(KEY, at(0)), 0);
        writes.record_stamp(KEY, 5, at(0));
        writes.record_stamp(KEY, 3, at(1));
        assert_eq!((writes.min_stamp(KEY, at(2)), writes.min_stamp(NEIGHBOUR, at(2))), (5, 0));
        assert_eq!(writes.min_stamp(KEY, at(RECENT_WRITE_MS)), 5);
        assert_eq!(writes.min_stamp(KEY, at(RECENT_WRITE_MS + 1)), 0);
        writes.record_stamp(KEY, 4, at(RECENT_WRITE_MS + 1));
        assert_eq!(writes.min_stamp(KEY, at(RECENT_WRITE_MS + 2)), 4);
    }

    #[test]
    fn full_set_keeps_out_too_much_rather_than_too_little() {
        let (mut writes, at) = (RecentWrites::default(), Instant::from_millis);
        let key = |n: u64| KEY + n * SETS as u64;
        for n in 0..WAYS as u64 {
            writes.record_stamp(key(n), 100 - n, at(n));
        }
        let now = at(WAYS as u64);
        assert!((0..WAYS as u64).all(|n| writes.min_stamp(key(n), now) == 100 - n), "each its own");
        assert_eq!(writes.min_stamp(key(99), now), 0);
        // One more key: the oldest shares its stamp with all.
        writes.record_stamp(key(50), 5, now);
        assert_eq!(
            (
                writes.min_stamp(KEY, now),
                writes.min_stamp(key(50), now),
                writes.min_stamp(key(99), now)
            ),
            (100, 100, 100)
        );
        // For as long as it would have been remembered separately.
        let over = at(RECENT_WRITE_MS);
        assert_eq!(
            (
                writes.min_stamp(key(99), over),
                writes.min_stamp(key(50), over),
                writes.min_stamp(key(7), over)
            ),
            (0, 5, 93)
        );
    }

    #[test]
    fn writes_with_one_stamp_are_told_apart() {
        let (mut writes, now) = (RecentWrites::default(), Instant::from_millis(0));
        let version = |node: u64| Version::new(5, Incarnation(node));
        writes.record(KEY, version(2), now);
        writes.record(KEY, version(1), now);
        assert_eq!(writes.min_version(KEY, now), version(2));
    }
}
