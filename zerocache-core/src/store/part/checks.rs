//! What tests look at.

use super::{Part, second_of};
use crate::store::lock::Pages;

impl<P: Pages> Part<P> {
    /// Bytes of segments, and of what lies in them.
    pub fn log_held(&self) -> (u64, u64) {
        self.entries.log_held()
    }

    /// Most entries, and most traces, that their tables cannot tell apart without looking at keys.
    pub fn longest_chains(&self) -> [usize; 2] {
        [self.entries.longest_chain(), self.traces.longest_chain()]
    }

    /// Panics unless everything in here agrees.
    pub fn check(&self) {
        assert_eq!(self.entries.check(), (self.held.entries, self.held.bytes));
        self.traces.check();
        let first = self.first_second();
        let known = self.entries.slots().map(|slot| (slot.hash(), slot.version));
        let known = known.chain(self.traces.iter());
        self.sums.check(known.filter(|(_, version)| second_of(*version) >= first));
        assert_eq!(self.traces.len() as u64, self.held.traces);
    }
}
