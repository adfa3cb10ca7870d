//! Rendezvous hashing (highest random weight): chooses one of several nodes for a key. All callers that know
//! the same nodes choose the same one. When a node joins or leaves, only its own keys move.

use crate::{key::KeyHash, version::Incarnation};

/// Returns the weight of a node for a key. The node with the highest weight is chosen.
#[must_use]
pub fn weight(key: KeyHash, node: Incarnation) -> u64 {
    let mut seed = [0; 24];
    seed[..16].copy_from_slice(&key.0.to_le_bytes());
    seed[16..].copy_from_slice(&node.0.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&seed)
}
