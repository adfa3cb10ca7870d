//! Which reads are measured: about one in [`READS_PER_SAMPLE`], at random, so that reads that repeat in a fixed
//! order are measured all alike.

use std::cell::Cell;

/// The average number of reads for each one that is measured; a power of 2.
pub(crate) const READS_PER_SAMPLE: u32 = 16;

thread_local! {
    /// Reads of this thread until one is measured, and the state of the random numbers.
    static SAMPLER: Cell<Sampler> = const { Cell::new(Sampler::new()) };
}

#[derive(Clone, Copy, Debug)]
struct Sampler {
    countdown: u32,
    random: u32,
}

impl Sampler {
    const fn new() -> Self {
        Self { countdown: READS_PER_SAMPLE, random: 0x9e37_79b9 }
    }

    /// Counts a read that is measured. Returns a random number.
    fn restart(&mut self) -> u32 {
        // Xorshift of 32 bits.
        let mut random = self.random;
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        self.random = random;
        // 1 to twice the average, less one: the average is right.
        self.countdown = 1 + (random >> 8) % (2 * READS_PER_SAMPLE - 1);
        random
    }
}

/// A read that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadSample {
    random: u32,
}

impl ReadSample {
    /// The reads that one sample stands for if all samples are used.
    pub(crate) const WEIGHT: u64 = READS_PER_SAMPLE as u64;
    /// The reads that one sample stands for if only rare ones are used.
    pub(crate) const RARE_WEIGHT: u64 = 4 * Self::WEIGHT;

    /// Whether this is one of the rare samples, a quarter of all.
    pub(crate) const fn is_rare(self) -> bool {
        self.random.is_multiple_of(4)
    }
}

/// Counts a read of this thread. Returns a sample if it is to be measured.
#[inline]
pub(crate) fn count_read() -> Option<ReadSample> {
    SAMPLER.with(|sampler| {
        let mut state = sampler.get();
        state.countdown -= 1;
        let sample = (state.countdown == 0).then(
            #[cold]
            || ReadSample { random: state.restart() },
        );
        sampler.set(state);
        sample
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_in_sixteen_is_measured_and_one_in_64_is_rare() {
        const READS: u64 = 640_000;
        let samples: Vec<_> = (0..READS).filter_map(|_| count_read()).collect();
        let within = |count: u64, wanted: u64| count.abs_diff(wanted) < wanted / 50;
        assert!(within(samples.len() as u64 * ReadSample::WEIGHT, READS), "{}", samples.len());
        let rare = samples.iter().filter(|sample| sample.is_rare()).count() as u64;
        assert!(within(rare * ReadSample::RARE_WEIGHT, READS), "{rare}");
    }

    #[test]
    fn reads_in_a_fixed_order_are_measured_alike() {
        let mut counts = [0_u32; READS_PER_SAMPLE as usize];
        for read in 0..64_000 * counts.len() {
            let turn = read % counts.len();
            counts[turn] += u32::from(count_read().is_some());
        }
        assert!(
            counts.iter().all(|count| count.abs_diff(64_000 / READS_PER_SAMPLE) < 600),
            "{counts:?}"
        );
    }
}
