//! The order of keys, which is the same for every contender.

use zerocache_tests::random::{Random, Zipf};

/// Draws indexes below a count, the lower ones more often when skewed.
pub enum Popularity {
    Uniform { count: usize },
    Skewed(Zipf),
}

impl Popularity {
    /// Zipf's law with the exponent `skew`; 0 is uniform.
    pub fn new(count: usize, skew: f64) -> Self {
        if skew == 0.0 { Self::Uniform { count } } else { Self::Skewed(Zipf::new(count, skew)) }
    }

    pub fn draw(&self, random: &mut Random) -> usize {
        match self {
            Self::Uniform { count } => random.below(*count),
            Self::Skewed(zipf) => zipf.draw(random),
        }
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
