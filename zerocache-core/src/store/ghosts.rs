//! Ghosts: keys that were evicted unread a short while ago.
//!
//! A key that is stored again while it has a ghost was wanted after all, only less often than the entries in its
//! queue were replaced. It goes to the read entries at once.
//!
//! Tombstones do not serve as ghosts: how many there are depends on the sizes of values and on deletes, and the
//! oldest stamp goes first, not the oldest eviction. A cell takes four bytes.

use alloc::{vec, vec::Vec};

/// As many entries as there are in the store are evicted unread in this many generations.
pub const GENERATIONS: u64 = 32;

/// The oldest generation of a ghost: two thirds of the entries were evicted since. Longer lists admit more of what
/// is read once in a while, at the cost of what is read often.
pub const AGE_MAX: u32 = 21;

/// Cells per bucket: one cache line.
const BUCKET: usize = 16;

/// The fewest cells, so that small shards do not forget by chance.
const CELLS_MIN: usize = 64;

/// The bits of a cell that identify the key. The others are its generation.
const IDENTITY: u32 = !0xff;

/// Generations have this many numbers, from 1 on, so that an empty cell is none of them.
const NUMBERS: u32 = 255;

/// Old ghosts are removed after so many generations, before their numbers come again.
const CLEANED_AFTER: u32 = 100;

/// The ghosts of one shard.
///
/// A full bucket forgets its oldest ghost. Two keys with the same 24 bits share a ghost: about two of a thousand
/// in a shard of 50,000 entries.
#[derive(Debug, Default)]
pub struct Ghosts {
    cells: Vec<u32>,
    /// The generation in which old ghosts were removed.
    cleaned: u32,
}

impl Ghosts {
    /// Adds the ghost of a key with these table bits to a shard that has so many entries.
    pub fn insert(&mut self, bits: u32, generation: u32, entries: usize) {
        let wanted = cells_for(entries);
        // Their places depend on the number of cells. A shard that has a store full of larger or smaller entries
        // than before forgets its ghosts once.
        if wanted > self.cells.len() + self.cells.len() / 2 || wanted < self.cells.len() / 2 {
            *self = Self { cells: vec![0; wanted], cleaned: generation };
        }
        self.clean(generation);
        let number = number(generation);
        if let Some(oldest) = self.bucket(bits).iter_mut().max_by_key(|cell| age(**cell, number)) {
            *oldest = bits & IDENTITY | number;
        }
    }

    /// Removes the ghost of a key with these table bits. Returns whether it had one that is young enough.
    pub fn take(&mut self, bits: u32, generation: u32) -> bool {
        self.clean(generation);
        self.remove(bits).is_some_and(|ghost| age(ghost, number(generation)) <= AGE_MAX)
    }

    /// Removes the ghost of a key with these table bits, and returns its cell.
    pub fn remove(&mut self, bits: u32) -> Option<u32> {
        let is_it = |cell: &&mut u32| **cell != 0 && **cell & IDENTITY == bits & IDENTITY;
        self.bucket(bits).iter_mut().find(is_it).map(core::mem::take)
    }

    /// Frees memory that a shard with so many entries does not need.
    pub fn shrink(&mut self, entries: usize) {
        if self.cells.len() > CELLS_MIN && self.cells.len() / 4 > cells_for(entries) {
            self.cells = Vec::new();
        }
    }

    /// Removes old ghosts now and then.
    fn clean(&mut self, generation: u32) {
        let passed = generation.wrapping_sub(self.cleaned);
        if passed <= CLEANED_AFTER {
            return;
        }
        self.cleaned = generation;
        // After a long pause the numbers may have come again.
        let is_clear = passed >= NUMBERS - AGE_MAX;
        let number = number(generation);
        let is_old = |cell: &&mut u32| is_clear || age(**cell, number) > AGE_MAX;
        self.cells.iter_mut().filter(is_old).for_each(|cell| *cell = 0);
    }

    fn bucket(&mut self, bits: u32) -> &mut [u32] {
        let buckets = (self.cells.len() / BUCKET) as u64;
        let from = ((u64::from(bits & IDENTITY) * buckets) >> 32) as usize * BUCKET;
        self.cells.get_mut(from..from + BUCKET).unwrap_or_default()
    }
}

const fn number(generation: u32) -> u32 {
    generation % NUMBERS + 1
}

/// Returns how many generations before that of `number` the ghost in a cell was added; of an empty cell the most.
const fn age(cell: u32, number: u32) -> u32 {
    match cell & !IDENTITY {
        0 => u32::MAX,
        added if added <= number => number - added,
        added => number + NUMBERS - added,
    }
}

/// Returns the number of cells for a shard with so many entries: a few more than there are young ghosts.
fn cells_for(entries: usize) -> usize {
    (entries - entries / 4).next_multiple_of(BUCKET).max(CELLS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distinct table bits, spread like hashes.
    fn bits(n: u32) -> u32 {
        n.wrapping_mul(0x9e37_79b1)
    }

    #[test]
    fn ghost_is_taken_once_and_while_it_is_young() {
        let mut ghosts = Ghosts::default();
        assert!(!ghosts.take(bits(1), 0), "nothing was evicted");
        (1..=3).for_each(|key| ghosts.insert(bits(key), 0, 10));
        assert!(ghosts.take(bits(1), AGE_MAX));
        assert!(!ghosts.take(bits(1), AGE_MAX), "it was taken");
        assert!(ghosts.remove(bits(2)).is_some() && !ghosts.take(bits(2), 0), "it was removed");
        assert!(!ghosts.take(bits(3), AGE_MAX + 1), "too old");
    }

    #[test]
    fn old_ghosts_do_not_look_young_when_numbers_come_again() {
        for pause in [1, 20, 90, 150, 300] {
            let mut ghosts = Ghosts::default();
            ghosts.insert(bits(1), 0, 10);
            let mut later = (1..20).map(|n| n * pause);
            for generation in later.clone() {
                ghosts.take(bits(2), generation);
            }
            let last = later.next_back().unwrap_or_default();
            let young = (last..last + NUMBERS).step_by(pause as usize);
            for generation in young {
                ghosts.take(bits(2), generation);
            }
            assert!(!ghosts.take(bits(1), NUMBERS.max(last + 1)), "after pauses of {pause}");
        }
        let mut ghosts = Ghosts::default();
        ghosts.insert(bits(1), NUMBERS - 2, 10);
        assert!(ghosts.take(bits(1), NUMBERS + 1), "numbers begin again");
    }

    #[test]
    fn ghosts_of_two_thirds_of_the_entries_are_found() {
        let (mut ghosts, entries) = (Ghosts::default(), 6_400);
        let evictions = 10 * entries;
        let generation = |n: u32| n * GENERATIONS as u32 / entries;
        (0..evictions).for_each(|n| ghosts.insert(bits(n), generation(n), entries as usize));
        let now = generation(evictions - 1);
        let young = (0..evictions).filter(|n| ghosts.take(bits(*n), now)).count();
        assert!((3_900..=4_500).contains(&young), "{young} of {entries}");
    }

    #[test]
    fn memory_follows_the_number_of_entries() {
        let mut ghosts = Ghosts::default();
        ghosts.insert(bits(1), 0, 10_000);
        assert!((7_500..8_000).contains(&ghosts.cells.len()), "{}", ghosts.cells.len());
        ghosts.insert(bits(2), 0, 11_000);
        assert!(ghosts.take(bits(1), 0), "a small change does not matter");
        ghosts.insert(bits(3), 0, 1_000);
        assert!((750..800).contains(&ghosts.cells.len()), "{}", ghosts.cells.len());
        ghosts.shrink(10);
        assert!(ghosts.cells.is_empty());
    }
}
