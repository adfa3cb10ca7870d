//! What is due when: key hashes in buckets of one second.

use alloc::collections::{BTreeMap, VecDeque};

use hashbrown::HashSet;

use super::order::BuildPassThrough;
use crate::key::KeyHash;

/// How many hints of the current second are looked at for one that is due already.
///
/// It makes small stores exact to the millisecond and bounds the work in large ones.
const SCAN_MAX: usize = 32;

/// What a hint turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Its time has come.
    Due,
    /// It is right, but for later.
    Later,
    /// What it spoke of is no longer so.
    Gone,
}

/// Key hashes by the second in which they fall due.
///
/// A bucket is a hint: an entry may have been replaced since. Whoever takes a bucket checks each
/// hash, and [`Schedule::is_bloated`] tells when so many are out of date that a rebuild pays.
#[derive(Debug, Default)]
pub struct Schedule {
    buckets: BTreeMap<u64, VecDeque<KeyHash>>,
    hints: usize,
}

impl Schedule {
    /// Notes that `key` falls due in `second`.
    pub fn add(&mut self, second: u64, key: KeyHash) {
        self.buckets.entry(second).or_default().push_back(key);
        self.hints += 1;
    }

    /// The earliest second with a hint.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.buckets.keys().next().copied()
    }

    /// Takes one hint that is due before `second` ends, the one noted first in the earliest second.
    pub fn take_until(&mut self, second: u64) -> Option<(u64, KeyHash)> {
        let mut first = self.buckets.first_entry()?;
        let due = *first.key();
        if due > second {
            return None;
        }
        let key = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        self.hints -= usize::from(key.is_some());
        key.map(|key| (due, key))
    }

    /// Takes one hint that `judge(second, key)` calls due, dropping those that it calls gone.
    ///
    /// Looks at all hints before `second`, and at [`SCAN_MAX`] of `second` itself.
    pub fn take_due(
        &mut self,
        second: u64,
        mut judge: impl FnMut(u64, KeyHash) -> Hint,
    ) -> Option<KeyHash> {
        while let Some((due, key)) = second.checked_sub(1).and_then(|s| self.take_until(s)) {
            if judge(due, key) == Hint::Due {
                return Some(key);
            }
        }
        let keys = self.buckets.get_mut(&second)?;
        let mut found = None;
        for index in (0..keys.len().min(SCAN_MAX)).rev() {
            match judge(second, keys[index]) {
                Hint::Later => continue,
                Hint::Due => found = Some(keys[index]),
                Hint::Gone => {}
            }
            keys.swap_remove_front(index);
            self.hints -= 1;
            if found.is_some() {
                break;
            }
        }
        if keys.is_empty() {
            self.buckets.remove(&second);
        }
        found
    }

    /// How many hints are held, those out of date included.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.hints
    }

    /// Keeps only the hints of which `current(second, key)` holds, each once.
    pub fn rebuild(&mut self, mut current: impl FnMut(u64, KeyHash) -> bool) {
        self.buckets.retain(|second, keys| {
            let mut seen = HashSet::<KeyHash, BuildPassThrough>::default();
            keys.retain(|key| current(*second, *key) && seen.insert(*key));
            keys.shrink_to_fit();
            !keys.is_empty()
        });
        self.hints = self.buckets.values().map(VecDeque::len).sum();
    }

    /// Whether hints out of date outnumber the `live` ones so far that a rebuild pays.
    #[must_use]
    pub fn is_bloated(&self, live: usize) -> bool {
        self.hints > 2 * live + 64
    }
}
