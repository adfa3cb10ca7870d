//! Choices that a seed reproduces.

/// A small seeded generator (SplitMix64, Steele and others 2014): equal seeds give equal choices.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.unit() * bound as f64) as usize).min(bound.saturating_sub(1))
    }
}

/// Draws ranks below a count by Zipf's law: the lower ones more often.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// The share of all draws that falls on this rank and those before it.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// The law with the exponent `skew` over `count` ranks, at least one.
    #[must_use]
    pub fn new(count: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=count.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-skew);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Self { cumulative }
    }

    /// A rank, from 0.
    pub fn draw(&self, random: &mut Random) -> usize {
        let unit = random.unit();
        let rank = self.cumulative.partition_point(|share| *share <= unit);
        rank.min(self.cumulative.len() - 1)
    }
}
