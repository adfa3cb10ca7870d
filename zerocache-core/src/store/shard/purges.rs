//! What purges do in a shard.

use core::ops::Range;

use super::Shard;
use crate::{
    store::{
        backend::Pages,
        purges::Verdict,
        slot::{Class, SlotRef},
    },
    time::Instant,
    version::Version,
};

impl<P: Pages> Shard<P> {
    /// Drops an entry that a purge ended.
    pub fn purge(&mut self, index: u32) {
        self.counts.purged += 1;
        self.drop_entry(index);
    }

    /// Drops the entries of the slots in `range` that `judge` finds dead, and shortens lifetimes as it says.
    pub fn sweep_purged(
        &mut self,
        range: Range<u32>,
        now: Instant,
        judge: impl Fn(SlotRef<'_, P>) -> Verdict,
    ) {
        // From the last one on: the last slot takes the index of a removed one.
        for index in range.rev() {
            match judge(self.entries.slot(index)) {
                Verdict::Alive => {}
                verdict if verdict.is_dead(now) => self.purge(index),
                Verdict::Until(at) => self.entries.shorten(index, at),
                Verdict::Dead => {}
            }
        }
    }

    /// Returns the key of the oldest entry of a class.
    #[must_use]
    pub fn oldest_key(&self, class: Class) -> Option<&[u8]> {
        self.entries.oldest(class).map(|index| self.entries.slot(index).key())
    }

    /// Drops the oldest entry of a class. Returns its version.
    pub fn drop_oldest(&mut self, class: Class) -> Option<Version> {
        let index = self.entries.oldest(class)?;
        let version = self.entries.slot(index).version;
        self.drop_entry(index);
        Some(version)
    }
}
