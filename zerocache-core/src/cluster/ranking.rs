//! The ranking of other regions: nearest first.

use alloc::{borrow::ToOwned, collections::BTreeMap, string::String, vec::Vec};

/// A region overtakes the one before it only if its latency is lower by this many percent. Without this
/// hysteresis two regions of about the same distance would swap with every sample.
const HYSTERESIS_PERCENT: u64 = 20;

/// Regions by latency, with hysteresis; the name decides between equals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    order: Vec<String>,
}

impl Ranking {
    /// Updates the ranking with the latest latencies in microseconds; `None` where nothing was measured yet.
    /// Regions that are not in `measured` leave the ranking.
    pub fn update(&mut self, measured: &BTreeMap<String, Option<u64>>) {
        self.order.retain(|region| measured.contains_key(region));
        for region in measured.keys() {
            if !self.order.contains(region) {
                self.insert(region, measured);
            }
        }
        let micros = |region: &String| measured.get(region).copied().flatten().unwrap_or(u64::MAX);
        // Insertion sort, stable where the difference is within the hysteresis.
        for end in 1..self.order.len() {
            for at in (1..=end).rev() {
                let (before, here) = (micros(&self.order[at - 1]), micros(&self.order[at]));
                if !clearly_nearer(here, before) {
                    break;
                }
                self.order.swap(at - 1, at);
            }
        }
    }

    /// Returns the regions, nearest first.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        &self.order
    }

    fn insert(&mut self, region: &str, measured: &BTreeMap<String, Option<u64>>) {
        let rank = |region: &str| {
            (measured.get(region).copied().flatten().unwrap_or(u64::MAX), region.to_owned())
        };
        let new = rank(region);
        let at = self.order.iter().position(|other| rank(other) > new).unwrap_or(self.order.len());
        self.order.insert(at, region.to_owned());
    }
}

fn clearly_nearer(here: u64, before: u64) -> bool {
    u128::from(here) * 100 < u128::from(before) * u128::from(100 - HYSTERESIS_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(all: &[(&str, u64)]) -> BTreeMap<String, Option<u64>> {
        all.iter()
            .map(|(region, micros)| ((*region).into(), Some(*micros).filter(|m| *m > 0)))
            .collect()
    }

    #[test]
    fn nearest_region_is_first_and_names_break_ties() {
        let mut ranking = Ranking::default();
        ranking.update(&measured(&[("tokyo", 90), ("oslo", 10), ("lima", 10), ("new", 0)]));
        assert_eq!(ranking.regions(), ["lima", "oslo", "tokyo", "new"]);
    }

    #[test]
    fn only_large_differences_change_the_order() {
        let mut ranking = Ranking::default();
        ranking.update(&measured(&[("a", 100), ("b", 110)]));
        ranking.update(&measured(&[("a", 110), ("b", 100)]));
        assert_eq!(ranking.regions(), ["a", "b"]);
        ranking.update(&measured(&[("a", 110), ("b", 80)]));
        assert_eq!(ranking.regions(), ["b", "a"]);
        ranking.update(&measured(&[("a", 110)]));
        assert_eq!(ranking.regions(), ["a"]);
    }
}
