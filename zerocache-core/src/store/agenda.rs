//! Keys in the order of a number: of the moment at which they expire, or of their stamp.

use alloc::collections::BTreeSet;

use crate::key::KeyHash;

/// Keys ordered by a number, each at most once for a number.
#[derive(Debug, Default)]
pub struct Agenda {
    entries: BTreeSet<(u64, KeyHash)>,
}

impl Agenda {
    /// Notes `key` under `at`.
    pub fn add(&mut self, at: u64, key: KeyHash) {
        self.entries.insert((at, key));
    }

    /// Takes `key` under `at` out.
    pub fn remove(&mut self, at: u64, key: KeyHash) {
        self.entries.remove(&(at, key));
    }

    /// The least number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes out the key with the least number, if that is at most `until`.
    pub fn pop_until(&mut self, until: u64) -> Option<(u64, KeyHash)> {
        if self.first()? > until {
            return None;
        }
        self.entries.pop_first()
    }
}
