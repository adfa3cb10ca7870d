//! Random numbers from a seed: xoshiro256**, seeded by splitmix64. Both are in the public domain
//! (Blackman and Vigna), and their output never changes, so that a seed always means the same run.
//!
//! `zerocache-tests` has a generator of its own: the simulator enables the broken variants of the core,
//! with which nothing that it shares with tests of real processes may be built.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

/// The next number of the sequence in which `state` stands.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(core::array::from_fn(|_| splitmix(&mut state)))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `permille` of a thousand cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.below(1_000) < permille
    }

    /// A number from 0 on, small ones more often: about `mean` on average, at most eight times
    /// that.
    pub fn around(&mut self, mean: u64) -> u64 {
        // Halving by coin flips stands for an exponential distribution without floating point.
        let halvings = u64::from(self.number().trailing_zeros().min(7));
        self.between(mean * halvings / 2, mean * (halvings + 1) / 2 + mean / 2)
    }

    /// One of `all`, which is not empty.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.index(all.len())]
    }

    /// Brings `all` into any order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (1..all.len()).rev() {
            all.swap(end, self.index(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_seed_are_pinned() {
        let mut random = Random::new(1);
        let first: [u64; 3] = core::array::from_fn(|_| random.number());
        let pinned = [12966619160104079557, 9600361134598540522, 10590380919521690900];
        assert_eq!(first, pinned);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(2);
        let mut sum = 0;
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            assert!((3..=5).contains(&random.between(3, 5)));
            sum += random.around(1_000);
        }
        assert!((800_000..2_000_000).contains(&(sum / 10)), "{sum}");
        assert_eq!((random.below(0), random.below(1)), (0, 0));
    }
}
