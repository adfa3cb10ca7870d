//! Which of several nodes is the one for a key, so that all who know the same nodes choose the same.
//!
//! Highest random weight: when a node comes or goes, only the keys move that it wins or won.

use crate::{key::KeyHash, version::Incarnation};

/// How much a node weighs for a key; the heaviest one is chosen.
#[must_use]
pub fn weight(key: KeyHash, node: Incarnation) -> u64 {
    let mut seed = [0; 24];
    seed[..16].copy_from_slice(&key.0.to_le_bytes());
    seed[16..].copy_from_slice(&node.0.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&seed)
}
