//! Smoothed round-trip times.

/// A smoothed round-trip time in microseconds: each sample moves it by an eighth, as in RFC 6298.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    micros: Option<u64>,
}

impl Latency {
    /// Adds a sample.
    pub fn sample(&mut self, micros: u64) {
        self.micros = Some(match self.micros {
            None => micros,
            Some(old) => old - old / 8 + micros / 8,
        });
    }

    /// Returns the smoothed time; `None` before the first sample.
    #[must_use]
    pub const fn micros(self) -> Option<u64> {
        self.micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_follows_samples_slowly() {
        let mut latency = Latency::default();
        assert_eq!(latency.micros(), None);
        latency.sample(800);
        latency.sample(1_600);
        assert_eq!(latency.micros(), Some(900));
        for _ in 0..100 {
            latency.sample(1_600);
        }
        assert!(latency.micros().unwrap().abs_diff(1_600) < 16);
    }
}
