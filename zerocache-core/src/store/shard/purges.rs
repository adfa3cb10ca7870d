//! What purges do in a shard.

use core::ops::Range;

use super::Shard;
use crate::{
    store::{
        backend::Pages,
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

    /// Drops the entries of the slots in `range` that `purged_from` says have ended, and shortens the lifetimes of
    /// others.
    pub fn sweep_purged(
        &mut self,
        range: Range<u32>,
        now: Instant,
        purged_from: impl Fn(SlotRef<'_, P>) -> Option<Instant>,
    ) {
        // From the last one on: the last slot takes the index of a removed one.
        for index in range.rev() {
            match purged_from(self.entries.slot(index)) {
                Some(end) if end <= now => self.purge(index),
                Some(end) => self.entries.shorten(index, end),
                None => {}
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
