//! Which node accepted a client's last writes, so that the client reads what it wrote.

use std::collections::{HashMap, VecDeque};

use zerocache_core::{key::KeyHash, time::Instant, version::Incarnation};

/// For this long after a write its node is asked first for the key, in milliseconds.
///
/// Contract section 5: by then the write has reached every node that can be reached.
const REMEMBERED_MS: u64 = 2_000;

/// Most writes remembered; beyond it the oldest are forgotten.
const WRITES_MAX: usize = 16_384;

/// The last writes of one client.
#[derive(Debug, Default)]
pub(super) struct OwnWrites {
    nodes: HashMap<KeyHash, (Incarnation, Instant)>,
    order: VecDeque<(KeyHash, Instant)>,
}

impl OwnWrites {
    /// `node` accepted a write of `key` at `now`.
    pub(super) fn note(&mut self, key: KeyHash, node: Incarnation, now: Instant) {
        self.forget_old(now);
        self.nodes.insert(key, (node, now));
        self.order.push_back((key, now));
    }

    /// The node to ask first for `key`.
    pub(super) fn node(&self, key: KeyHash, now: Instant) -> Option<Incarnation> {
        let (node, at) = self.nodes.get(&key)?;
        (now.since_ms(*at) < REMEMBERED_MS).then_some(*node)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((key, at)) = self.order.front().copied() {
            if now.since_ms(at) < REMEMBERED_MS && self.order.len() < WRITES_MAX {
                return;
            }
            self.order.pop_front();
            if self.nodes.get(&key).is_some_and(|(_, noted)| *noted == at) {
                self.nodes.remove(&key);
            }
        }
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
        assert!(writes.nodes.len() <= WRITES_MAX && writes.order.len() <= WRITES_MAX);
        assert_eq!(writes.node(key(99_999), at(2_001)), Some(Incarnation(8)));
        writes.note(key(1), Incarnation(9), at(10_000));
        assert_eq!((writes.nodes.len(), writes.order.len()), (1, 1));
    }
}
