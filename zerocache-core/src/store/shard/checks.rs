//! Consistency checks for tests.

use super::{Shard, second_of};
use crate::store::backend::Pages;

impl<P: Pages> Shard<P> {
    /// Returns the bytes of log segments, and of the blocks in them.
    pub fn log_bytes(&self) -> (u64, u64) {
        self.entries.log_bytes()
    }

    /// Returns the most entries, and the most tombstones, with the same table hash.
    pub fn longest_chains(&self) -> [usize; 2] {
        [self.entries.longest_chain(), self.tombstones.longest_chain()]
    }

    /// Panics unless all structures of the shard agree.
    pub fn check(&self) {
        assert_eq!(self.entries.check(), (self.usage.entries, self.usage.bytes));
        self.tombstones.check();
        let first = self.first_complete_second();
        let values = self.entries.slots().map(|slot| (slot.hash(), slot.version));
        let known = values.chain(self.tombstones.iter());
        self.digests.check(known.filter(|(_, version)| second_of(*version) >= first));
        assert_eq!(self.tombstones.len() as u64, self.usage.tombstones);
    }
}
