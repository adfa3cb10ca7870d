//! The least of many numbers that stand elsewhere: moments of expiry, or stamps.

use alloc::vec::Vec;

/// Places, or groups of places, that share one bound.
const FAN_OUT: usize = 16;

/// A lower bound for each group of 16 places, for each 16 of these groups, and so on.
///
/// Invariant: a bound is at most every number below it. It may be less: a number that goes leaves the
/// bounds as they are, and the next search that finds nothing there puts them right. So an addition
/// costs a comparison or two, a removal nothing, and all of it half a byte for each place.
#[derive(Debug, Default)]
pub struct ExpiryIndex {
    levels: Vec<Vec<u64>>,
}

impl ExpiryIndex {
    /// `place` now has `number`, which may be lower or higher than before.
    pub fn set(&mut self, place: u32, number: u64) {
        let mut index = place as usize / FAN_OUT;
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

    /// Forgets the places from `len` on.
    pub fn truncate(&mut self, len: usize) {
        let mut groups = len;
        for bounds in &mut self.levels {
            groups = groups.div_ceil(FAN_OUT);
            bounds.truncate(groups);
        }
    }

    /// At most the least number; `u64::MAX` only if there is none.
    #[must_use]
    pub fn bound(&self) -> u64 {
        self.levels.last().and_then(|bounds| bounds.first()).copied().unwrap_or(u64::MAX)
    }

    /// A place whose number is at most `until`, among `len` places with the numbers that `number`
    /// tells. After `None`, [`ExpiryIndex::bound`] is above `until`.
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
            for place in first..len.min(first + FAN_OUT) {
                let here = number(place as u32);
                if here <= until {
                    return Some(place as u32);
                }
                least = least.min(here);
            }
        } else {
            for below in first..self.levels[level - 1].len().min(first + FAN_OUT) {
                if self.levels[level - 1][below] <= until
                    && let Some(place) = self.search(level - 1, below, until, len, number)
                {
                    return Some(place);
                }
                least = least.min(self.levels[level - 1][below]);
            }
        }
        self.levels[level][index] = least;
        None
    }

    /// A level above the others; its bounds are those of all below.
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

        /// Whatever comes, changes and goes: every number up to a limit is found, and nothing else.
        #[test]
        fn finds_all_that_is_due(
            steps in prop::collection::vec((0..3u8, 0..5_000usize, 0..1_000u64), 1..1_500),
        ) {
            let (mut index, mut numbers) = (ExpiryIndex::default(), vec![]);
            for (what, at, number) in steps {
                let place = at % numbers.len().max(1);
                match what {
                    0 if !numbers.is_empty() => {
                        numbers[place] = number;
                        index.set(place as u32, number);
                    }
                    1 if !numbers.is_empty() && number > 600 => {
                        numbers.swap_remove(place);
                        if place < numbers.len() {
                            index.set(place as u32, numbers[place]);
                        }
                        index.truncate(numbers.len());
                    }
                    _ => {
                        numbers.push(number);
                        index.set(numbers.len() as u32 - 1, number);
                    }
                }
                index.check(numbers.len(), |place| numbers[place as usize]);
            }
            for until in (0..1_000).step_by(37) {
                let mut due: Vec<u64> = vec![];
                while let Some(place) =
                    index.find(until, numbers.len(), |place| numbers[place as usize])
                {
                    due.push(core::mem::replace(&mut numbers[place as usize], u64::MAX));
                }
                prop_assert!(due.iter().all(|&number| number <= until));
                prop_assert!(numbers.iter().all(|&number| number > until));
                prop_assert!(index.bound() > until);
            }
        }
    }
}
