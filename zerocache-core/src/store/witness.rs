//! What a store of a node needs that keeps the values of some keys, and of the others the versions alone.

use alloc::vec::Vec;

use super::{
    ApplyOutcome, Store,
    backend::{Backend, Lock},
    sync::advance,
    tombstones::DROPPED_MAX,
};
use crate::{key::KeyHash, purge::is_reserved, time::Now, version::Version};

/// A value that a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldValue {
    /// The hash of its key.
    pub key: KeyHash,
    /// Its version.
    pub version: Version,
    /// The bytes that it takes.
    pub bytes: u64,
}

impl<B: Backend> Store<B> {
    /// Merges the version of a write whose value others keep. An older value of the key is dropped.
    pub fn apply_version(&self, hash: KeyHash, version: Version, now: Now) -> ApplyOutcome {
        let floor_ms = self.floor_ms(now);
        let outcome = self.change(hash.shard(), |shard| {
            shard.raise_tombstone_floor(floor_ms, DROPPED_MAX);
            shard.apply_version(hash, version)
        });
        self.make_room(now);
        outcome
    }

    /// Returns whether a value of a key is held, whether it is served or not.
    #[must_use]
    pub fn has_value(&self, hash: KeyHash) -> bool {
        self.shard(hash.shard()).with(|shard| shard.entry(hash).is_some())
    }

    /// Returns the version of the value of a key, if one is held, and its size; none for what every node keeps.
    #[must_use]
    pub fn held_value(&self, hash: KeyHash, now: Now) -> Option<HeldValue> {
        self.shard(hash.shard()).with(|shard| {
            let slot = shard.entry(hash)?;
            let is_listed = !is_reserved(slot.key()) && self.is_served(slot, now);
            let bytes = slot.weight().max(slot.value_bytes() as u64);
            is_listed.then(|| HeldValue { key: hash, version: slot.version, bytes })
        })
    }

    /// Appends the values that a shard holds and serves to `into`, but for what every node keeps. Inspects at most
    /// `most` of the `left` entries from the last one on, and takes them off `left`. A value that is held
    /// throughout is never left out.
    pub fn held_values(
        &self,
        index: usize,
        left: &mut usize,
        most: usize,
        now: Now,
        into: &mut Vec<HeldValue>,
    ) {
        self.shard(index).with(|shard| {
            let (count, first) = advance(left, shard.entry_count(), most);
            let slots = (first..first + count).map(|index| shard.slot(index as u32));
            let listed =
                slots.filter(|slot| !is_reserved(slot.key()) && self.is_served(*slot, now));
            into.extend(listed.map(|slot| HeldValue {
                key: slot.hash(),
                version: slot.version,
                bytes: slot.weight().max(slot.value_bytes() as u64),
            }));
        });
    }

    /// Drops the value of a key and keeps its version, unless another version is held by now. Returns whether it
    /// was dropped.
    pub fn displace(&self, hash: KeyHash, version: Version) -> bool {
        self.change(hash.shard(), |shard| shard.displace(hash, version))
    }
}
