//! Which node accepted a client's last writes, so that the client reads what it wrote.

use lru::LruCache;
use zerocache_core::{key::KeyHash, time::Instant, version::Incarnation};

/// For this long after a write its node is asked first for the key, in milliseconds.
///
/// Contract section 5: by then the write has reached every node that can be reached.
pub(super) const REMEMBERED_MS: u64 = 2_000;

/// Most writes remembered; beyond it the oldest are forgotten.
const WRITES_MAX: usize = 16_384;

/// The last writes of one client.
#[derive(Debug)]
pub(super) struct OwnWrites {
    /// Never read as a use, so that they stand in the order of their first writes.
    nodes: LruCache<KeyHash, (Incarnation, Instant)>,
}

impl Default for OwnWrites {
    fn default() -> Self {
        // A bounded one would take the memory of all writes at once.
        Self { nodes: LruCache::unbounded() }
    }
}

impl OwnWrites {
    /// `node` accepted a write of `key` at `now`.
    pub(super) fn note(&mut self, key: KeyHash, node: Incarnation, now: Instant) {
        // A key that is written again keeps its place in the order: moving it costs more than all else.
        if let Some(known) = self.nodes.peek_mut(&key) {
            *known = (node, now);
            return;
        }
        self.nodes.put(key, (node, now));
        let is_old = |at: &Instant| now.since_ms(*at) >= REMEMBERED_MS;
        while let Some((_, (_, at))) = self.nodes.peek_lru()
            && (is_old(at) || self.nodes.len() > WRITES_MAX)
        {
            self.nodes.pop_lru();
        }
    }

    /// The node to ask first for `key`.
    pub(super) fn node(&self, key: KeyHash, now: Instant) -> Option<Incarnation> {
        let (node, at) = self.nodes.peek(&key)?;
        (now.since_ms(*at) < REMEMBERED_MS).then_some(*node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_two_seconds_and_within_bounds() {
        let (mut writes, at) = (OwnWrites::default(), Instant::from_millis);
        let key = |n: u128| KeyHash(n);
        writes.note(key(1), Incarnation(7), at(0));
        assert_eq!(writes.node(key(1), at(1_999)), Some(Incarnation(7)));
        assert_eq!(writes.node(key(1), at(2_000)), None);
        assert_eq!(writes.node(key(2), at(0)), None);
        for n in 0..100_000 {
            writes.note(key(n), Incarnation(8), at(2_000));
        }
        assert_eq!(writes.nodes.len(), WRITES_MAX);
        assert_eq!(writes.node(key(99_999), at(2_001)), Some(Incarnation(8)));
        writes.note(key(1), Incarnation(9), at(10_000));
        assert_eq!(writes.nodes.len(), 1);
    }
}
