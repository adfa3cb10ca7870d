//! The last writes of a client: the node that accepted each and the version it gave, so that the client
//! reads what it wrote and nothing older.

use alloc::collections::VecDeque;
use core::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use crate::{
    key::KeyHash,
    time::Instant,
    version::{Incarnation, Version},
};

/// For this long after a write its node is asked first for the key, and nothing older is taken, in
/// milliseconds.
///
/// Contract section 5: by then the write has reached every node that can be reached.
pub const OWN_WRITE_MS: u64 = 2_000;

/// Most writes remembered; beyond it the oldest are forgotten.
const WRITES_MAX: usize = 16_384;

/// A key that is written often is queued again after this long, in milliseconds, and not each time: that
/// would cost more than all else.
const REQUEUE_MS: u64 = 1_000;

/// A client's last write of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnWrite {
    /// The node that accepted it.
    pub node: Incarnation,
    /// The version that this node gave it.
    pub version: Option<Version>,
    /// Whether it is a delete.
    pub is_delete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    write: OwnWrite,
    at: Instant,
    /// When the key was queued last.
    queued: Instant,
}

/// Takes a part of a key's hash, which is a hash already.
#[derive(Debug, Default)]
struct PartOfHash(u64);

impl Hasher for PartOfHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// The last writes of one client.
#[derive(Debug, Default)]
pub(super) struct OwnWrites {
    writes: HashMap<KeyHash, Remembered, BuildHasherDefault<PartOfHash>>,
    /// The keys in the order of their writes, as far as those are more than [`REQUEUE_MS`] apart. A key that
    /// was queued again is skipped at its earlier places.
    queue: VecDeque<(KeyHash, Instant)>,
    last: Option<Instant>,
}

impl OwnWrites {
    /// Records that a node accepted a write of `key` at `now`.
    pub(super) fn record(&mut self, key: KeyHash, write: OwnWrite, now: Instant) {
        self.last = Some(now);
        if let Some(known) = self.writes.get_mut(&key) {
            // Answers of two nodes can come in another order than their versions.
            if write.version >= known.write.version || now.since_ms(known.at) >= OWN_WRITE_MS {
                known.write = write;
            }
            known.at = now;
            if now.since_ms(known.queued) < REQUEUE_MS {
                return;
            }
            known.queued = now;
        } else {
            self.writes.insert(key, Remembered { write, at: now, queued: now });
        }
        self.queue.push_back((key, now));
        self.forget(now);
    }

    /// The last write of `key`, if it was a moment before `now`.
    pub(super) fn last(&self, key: KeyHash, now: Instant) -> Option<OwnWrite> {
        let is_recent = |at: Instant| now.since_ms(at) < OWN_WRITE_MS;
        self.last.filter(|at| is_recent(*at))?;
        self.writes.get(&key).filter(|known| is_recent(known.at)).map(|known| known.write)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((key, queued)) = self.queue.front().copied() {
            let is_full = self.queue.len() > WRITES_MAX;
            match self.writes.get(&key) {
                Some(known) if known.queued == queued => {
                    if !is_full && now.since_ms(known.at) < OWN_WRITE_MS {
                        return;
                    }
                    self.writes.remove(&key);
                }
                _ => {}
            }
            self.queue.pop_front();
        }
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
    fn writes_are_remembered_for_two_seconds_and_within_bounds() {
        let (mut writes, at) = (OwnWrites::default(), Instant::from_millis);
        let key = |n: u128| KeyHash(n);
        writes.record(key(1), by(7), at(0));
        assert_eq!(node_of(&writes, key(1), at(1_999)), Some(Incarnation(7)));
        assert_eq!(node_of(&writes, key(1), at(2_000)), None);
        assert_eq!(node_of(&writes, key(2), at(0)), None);
        for n in 0..100_000 {
            writes.record(key(n), by(8), at(2_000));
        }
        assert_eq!((writes.writes.len(), writes.queue.len()), (WRITES_MAX, WRITES_MAX));
        assert_eq!(node_of(&writes, key(99_999), at(2_001)), Some(Incarnation(8)));
        writes.record(key(1), by(9), at(10_000));
        assert_eq!((writes.writes.len(), writes.queue.len()), (1, 1));
    }

    #[test]
    fn a_key_that_is_written_all_the_time_keeps_no_other_one() {
        let (mut writes, at) = (OwnWrites::default(), Instant::from_millis);
        let hot = KeyHash(0);
        for ms in 0..100_000 {
            writes.record(hot, by(7), at(ms));
            writes.record(KeyHash(u128::from(ms) + 1), by(8), at(ms));
            assert_eq!(node_of(&writes, hot, at(ms)), Some(Incarnation(7)));
        }
        let kept = writes.queue.len() as u64;
        assert!(kept <= OWN_WRITE_MS + REQUEUE_MS + 2, "{kept}");
        assert!(writes.writes.len() <= writes.queue.len());
    }

    #[test]
    fn of_two_writes_the_one_with_the_higher_version_is_the_last() {
        let (mut writes, key, now) = (OwnWrites::default(), KeyHash(1), Instant::from_millis(0));
        let stamped = |stamp: u64, node: u64| {
            let node = Incarnation(node);
            OwnWrite { node, version: Some(Version::new(stamp << 16, node)), is_delete: false }
        };
        writes.record(key, stamped(2, 7), now);
        writes.record(key, stamped(1, 8), now);
        assert_eq!(writes.last(key, now), Some(stamped(2, 7)));
        writes.record(key, stamped(3, 8), now);
        assert_eq!(writes.last(key, now), Some(stamped(3, 8)));
        let later = now.plus_ms(OWN_WRITE_MS);
        writes.record(key, stamped(1, 7), later);
        assert_eq!(writes.last(key, later), Some(stamped(1, 7)));
    }
}
