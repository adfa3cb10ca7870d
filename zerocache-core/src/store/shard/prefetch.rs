//! Hints about reads of a shard that follow.

use super::{Pages, Shard};
use crate::key::KeyHash;

impl<P: Pages> Shard<P> {
    /// Tells the processor that the slot of a key is read soon.
    #[inline]
    pub fn prefetch_slot(&self, hash: KeyHash) {
        self.entries.prefetch_slot(hash);
    }

    /// Tells the processor that key and value of an entry are read soon.
    #[inline]
    pub fn prefetch_block(&self, hash: KeyHash) {
        self.entries.prefetch_block(hash);
    }
}
