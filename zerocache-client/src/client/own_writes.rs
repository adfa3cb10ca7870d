//! A client's last writes: the node that accepted each and the version it gave, so that the client reads
//! what it wrote and nothing older.

use lru::LruCache;
use zerocache_core::{
    key::KeyHash,
    time::Instant,
    version::{Incarnation, Version},
};

/// For this long after a write its node is asked first for the key, in milliseconds.
///
/// Contract section 5: by then the write has reached every node that can be reached.
pub(super) const REMEMBERED_MS: u64 = 2_000;

/// Most writes remembered; beyond it the oldest are forgotten.
const WRITES_MAX: usize = 16_384;

/// A key that is written often is moved to the end of the order after this long, in milliseconds, and
/// not each time: that costs more than all else.
const MOVED_MS: u64 = 1_000;

/// A client's last write of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnWrite {
    /// The node that accepted it.
    pub(super) node: Incarnation,
    /// The version that this node gave it.
    pub(super) version: Option<Version>,
    pub(super) is_delete: bool,
}

/// The last write of a key, and when it was.
#[derive(Clone, Copy, Debug)]
struct Noted {
    write: OwnWrite,
    at: Instant,
    /// When the key was put at the end of the order.
    moved: Instant,
}

/// The last writes of one client.
#[derive(Debug)]
pub(super) struct OwnWrites {
    /// Never read as a use, so that they stand in the order of their writes, as far as those are more
    /// than [`MOVED_MS`] apart.
    nodes: LruCache<KeyHash, Noted>,
}

impl Default for OwnWrites {
    fn default() -> Self {
        // A bounded one would take the memory of all writes at once.
        Self { nodes: LruCache::unbounded() }
    }
}

impl OwnWrites {
    /// A node accepted a write of `key` at `now`.
    pub(super) fn note(&mut self, key: KeyHash, write: OwnWrite, now: Instant) {
        if let Some(known) = self.nodes.peek_mut(&key) {
            // Answers of two nodes can come in another order than their versions.
            if write.version >= known.write.version {
                known.write = write;
            }
            known.at = now;
            if now.since_ms(known.moved) < MOVED_MS {
                return;
            }
        }
        self.nodes.put(key, Noted { write, at: now, moved: now });
        let is_old = |at: &Instant| now.since_ms(*at) >= REMEMBERED_MS;
        while let Some((_, Noted { at, .. })) = self.nodes.peek_lru()
            && (is_old(at) || self.nodes.len() > WRITES_MAX)
        {
            self.nodes.pop_lru();
        }
    }

    /// The last write of `key`, if that was a moment before `now`.
    pub(super) fn last(&self, key: KeyHash, now: Instant) -> Option<OwnWrite> {
        let Noted { write, at, .. } = self.nodes.peek(&key)?;
        (now.since_ms(*at) < REMEMBERED_MS).then_some(*write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(node: u64) -> OwnWrite {
        OwnWrite { node: Incarnation(node), version: None, is_delete: false }
    }

    fn node_of(writes: &OwnWrites, key: KeyHash, now: Instant) -> Option<Incarnation> {
        writes.last(key, now).map(|write| write.node)
    }

    #[test]
    fn remembers_for_two_seconds_and_within_bounds() {
        let (mut writes, at) = (OwnWrites::default(), Instant::from_millis);
        let key = |n: u128| KeyHash(n);
        writes.note(key(1), by(7), at(0));
        assert_eq!(node_of(&writes, key(1), at(1_999)), Some(Incarnation(7)));
        assert_eq!(node_of(&writes, key(1), at(2_000)), None);
        assert_eq!(node_of(&writes, key(2), at(0)), None);
        for n in 0..100_000 {
            writes.note(key(n), by(8), at(2_000));
        }
        assert_eq!(writes.nodes.len(), WRITES_MAX);
        assert_eq!(node_of(&writes, key(99_999), at(2_001)), Some(Incarnation(8)));
        writes.note(key(1), by(9), at(10_000));
        assert_eq!(writes.nodes.len(), 1);
    }

    #[test]
    fn a_key_that_is_written_all_the_time_is_remembered_and_holds_nothing_up() {
        let (mut writes, at) = (OwnWrites::default(), Instant::from_millis);
        let hot = KeyHash(0);
        for ms in 0..100_000 {
            writes.note(hot, by(7), at(ms));
            writes.note(KeyHash(u128::from(ms) + 1), by(8), at(ms));
            assert_eq!(node_of(&writes, hot, at(ms)), Some(Incarnation(7)));
        }
        let kept = writes.nodes.len() as u64;
        assert!(kept <= REMEMBERED_MS + MOVED_MS + 2, "{kept}");
    }

    #[test]
    fn of_two_writes_the_one_with_the_higher_version_is_the_last() {
        let (mut writes, key, now) = (OwnWrites::default(), KeyHash(1), Instant::from_millis(0));
        let stamped = |stamp: u64, node: u64| {
            let node = Incarnation(node);
            OwnWrite { node, version: Some(Version::new(stamp << 16, node)), is_delete: false }
        };
        writes.note(key, stamped(2, 7), now);
        writes.note(key, stamped(1, 8), now);
        assert_eq!(writes.last(key, now), Some(stamped(2, 7)));
        writes.note(key, stamped(3, 8), now);
        assert_eq!(writes.last(key, now), Some(stamped(3, 8)));
    }
}
