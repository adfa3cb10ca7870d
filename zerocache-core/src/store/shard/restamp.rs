//! The correction of versions that a wrong clock has stamped.

use super::Shard;
use crate::{
    store::{backend::Pages, digests::Digests},
    version::Version,
};

impl<P: Pages> Shard<P> {
    /// Corrects the versions that are `wrong` by `by_ms`, and moves the retention floor with them. Returns the number of
    /// corrected entries.
    pub fn restamp(&mut self, wrong: impl Fn(Version) -> bool, by_ms: i64) -> usize {
        self.give_up_records(&wrong);
        let restamped = |version: Version| match wrong(version) {
            true => version.restamped(by_ms),
            false => version,
        };
        let mut entries = 0;
        self.entries.restamp(|version| {
            entries += usize::from(wrong(version));
            restamped(version)
        });
        self.tombstones.restamp(restamped, by_ms);
        self.usage.tombstones = self.tombstones.len() as u64;
        self.digests = Digests::default();
        self.digests.forget_before(self.first_complete_second());
        let values = self.entries.slots().map(|slot| (slot.hash(), slot.version));
        for (hash, version) in values.chain(self.tombstones.iter()) {
            self.digests.add(hash, version);
        }
        entries
    }
}
