//! The order of keys, which is the same for every contender.

/// A small seeded generator (SplitMix64, Steele and others 2014): equal seeds give equal runs.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws indexes below a count, the lower ones more often when skewed.
pub struct Popularity {
    count: usize,
    /// The share of all draws that falls on this index and the ones before it; empty if uniform.
    cumulative: Vec<f64>,
}

impl Popularity {
    /// Zipf's law with the exponent `skew`; 0 is uniform.
    pub fn new(count: usize, skew: f64) -> Self {
        if skew == 0.0 {
            return Self { count, cumulative: Vec::new() };
        }
        let mut sum = 0.0;
        let weights = (1..=count).map(|rank| (rank as f64).powf(-skew));
        let mut cumulative: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Self { count, cumulative }
    }

    pub fn draw(&self, random: &mut Random) -> usize {
        let unit = random.unit();
        let index = if self.cumulative.is_empty() {
            (unit * self.count as f64) as usize
        } else {
            self.cumulative.partition_point(|share| *share <= unit)
        };
        index.min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(skew: f64) -> Vec<u32> {
        let (popularity, mut random) = (Popularity::new(100, skew), Random::new(1));
        let mut counts = vec![0; 100];
        for _ in 0..100_000 {
            counts[popularity.draw(&mut random)] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_drawn_equally_often() {
        assert!(counts(0.0).iter().all(|count| (800..1_200).contains(count)));
    }

    #[test]
    fn zipf_draws_the_first_key_with_its_probability() {
        // The sum of 1/rank over 100 ranks is 5.187.
        let counts = counts(1.0);
        assert!((18_000..20_600).contains(&counts[0]), "{}", counts[0]);
        assert!((9_000..10_300).contains(&counts[1]), "{}", counts[1]);
        assert!(counts[99] > 0);
    }

    #[test]
    fn equal_seeds_draw_equal_keys() {
        assert_eq!(counts(0.99), counts(0.99));
    }
}
