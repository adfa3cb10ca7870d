//! An index of the least of many numbers that are stored elsewhere: expiry times, or stamps of tombstones.

use alloc::vec::Vec;

/// Slots, or groups of slots, that share one bound.
const FAN_OUT: usize = 16;

/// A tree of lower bounds: one for each group of 16 slots, one for each 16 of these groups, and so on.
///
/// Invariant: a bound is at most every number below it. It may be less, because removing a number leaves
/// the bounds as they are; the next search that finds nothing there corrects them. An insertion costs a
/// comparison or two, a removal nothing, and the whole tree half a byte per slot.
#[derive(Debug, Default)]
pub struct ExpiryIndex {
    levels: Vec<Vec<u64>>,
}

impl ExpiryIndex {
    /// Sets the number of a slot. It may be lower or higher than before.
    pub fn set(&mut self, slot: u32, number: u64) {
        let mut index = slot as usize / FAN_OUT;
        for level in 0.. {
            if level == self.levels.len() {
                self.add_level();
            }
            let bounds = &mut self.levels[level];
            let is_new = bounds.len() <= index;
            if is_new {
                bounds.resize(index + 1, u64::MAX);
            }
            if !is_new && bounds[index] <= number {
                return;
            }
            bounds[index] = number;
            if bounds.len() == 1 && level + 1 == self.levels.len() {
                return;
            }
            index /= FAN_OUT;
        }
    }

    /// Removes the slots from `len` on.
    pub fn truncate(&mut self, len: usize) {
        let mut groups = len;
        for bounds in &mut self.levels {
            groups = groups.div_ceil(FAN_OUT);
            bounds.truncate(groups);
        }
    }

    /// Returns a lower bound of all numbers; `u64::MAX` only if there are none.
    #[must_use]
    pub fn bound(&self) -> u64 {
        self.levels.last().and_then(|bounds| bounds.first()).copied().unwrap_or(u64::MAX)
    }

    /// Returns a slot whose number is at most `until`. There are `len` slots, and `number` returns the number
    /// of each. After `None`, [`ExpiryIndex::bound`] is above `until`.
    pub fn find(
        &mut self,
        until: u64,
        len: usize,
        number: impl Fn(u32) -> u64 + Copy,
    ) -> Option<u32> {
        if self.bound() > until {
            return None;
        }
        self.search(self.levels.len() - 1, 0, until, len, number)
    }

    fn search(
        &mut self,
        level: usize,
        index: usize,
        until: u64,
        len: usize,
        number: impl Fn(u32) -> u64 + Copy,
    ) -> Option<u32> {
        let mut least = u64::MAX;
        let first = index * FAN_OUT;
        if level == 0 {
            for slot in first..len.min(first + FAN_OUT) {
                let here = number(slot as u32);
                if here <= until {
                    return Some(slot as u32);
                }
                least = least.min(here);
            }
        } else {
            for below in first..self.levels[level - 1].len().min(first + FAN_OUT) {
                if self.levels[level - 1][below] <= until
                    && let Some(slot) = self.search(level - 1, below, until, len, number)
                {
                    return Some(slot);
                }
                least = least.min(self.levels[level - 1][below]);
            }
        }
        self.levels[level][index] = least;
        None
    }

    /// Adds a level above the others.
    fn add_level(&mut self) {
        let bounds = match self.levels.last() {
            Some(below) => below
                .chunks(FAN_OUT)
                .map(|group| group.iter().copied().min().unwrap_or(u64::MAX))
                .collect(),
            None => Vec::new(),
        };
        self.levels.push(bounds);
    }

    /// Panics unless every bound is at most what it bounds.
    #[cfg(test)]
    pub fn check(&self, len: usize, number: impl Fn(u32) -> u64) {
        let mut below: Vec<u64> = (0..len as u32).map(number).collect();
        for bounds in &self.levels {
            let groups: Vec<u64> = below
                .chunks(FAN_OUT)
                .map(|group| group.iter().copied().min().unwrap_or(u64::MAX))
                .collect();
            assert!(bounds.len() >= groups.len(), "{} groups of {}", bounds.len(), groups.len());
            assert!(bounds.iter().zip(&groups).all(|(bound, least)| bound <= least));
            below.clone_from(bounds);
        }
        assert!(below.len() <= 1 || len == 0, "the top level has {} bounds", below.len());
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// After any insertions, changes and removals, exactly the numbers up to a limit are found.
        #[test]
        fn finds_exactly_the_numbers_up_to_a_limit(
            steps in prop::collection::vec((0..3u8, 0..5_000usize, 0..1_000u64), 1..1_500),
        ) {
            let (mut index, mut numbers) = (ExpiryIndex::default(), vec![]);
            for (step, at, number) in steps {
                let slot = at % numbers.len().max(1);
                match step {
                    0 if !numbers.is_empty() => {
                        numbers[slot] = number;
                        index.set(slot as u32, number);
                    }
                    1 if !numbers.is_empty() && number > 600 => {
                        numbers.swap_remove(slot);
                        if slot < numbers.len() {
                            index.set(slot as u32, numbers[slot]);
                        }
                        index.truncate(numbers.len());
                    }
                    _ => {
                        numbers.push(number);
                        index.set(numbers.len() as u32 - 1, number);
                    }
                }
                index.check(numbers.len(), |slot| numbers[slot as usize]);
            }
            for until in (0..1_000).step_by(37) {
                let mut due: Vec<u64> = vec![];
                while let Some(slot) =
                    index.find(until, numbers.len(), |slot| numbers[slot as usize])
                {
                    due.push(core::mem::replace(&mut numbers[slot as usize], u64::MAX));
                }
                prop_assert!(due.iter().all(|&number| number <= until));
                prop_assert!(numbers.iter().all(|&number| number > until));
                prop_assert!(index.bound() > until);
            }
        }
    }
}
