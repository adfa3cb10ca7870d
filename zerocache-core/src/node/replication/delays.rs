//! How long writes of other nodes take to this one.

use alloc::{borrow::ToOwned, collections::BTreeMap, string::String};

use crate::{time::Now, version::Version};

/// Upper bounds of the buckets of [`DelayCounts`], in milliseconds: 1 ms, twice as much each, to 33 s.
pub const DELAYS_MS: [u64; 16] = {
    let mut bounds = [1; 16];
    let mut index = 1;
    while index < bounds.len() {
        bounds[index] = bounds[index - 1] * 2;
        index += 1;
    }
    bounds
};

/// Most regions whose delays are counted apart.
pub const DELAY_REGIONS_MAX: usize = 64;

/// Records by the time from the write to the arrival here.
///
/// The time is the difference between two clocks, that of the writer and that of this node, both as far as
/// nodes have compared and corrected them. A record that seems to arrive before it was written counts as 0 ms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelayCounts {
    /// Records up to each bound of [`DELAYS_MS`] and beyond the bound before; those beyond all are last.
    pub counts: [u64; DELAYS_MS.len() + 1],
    /// The sum of all delays, in milliseconds.
    pub sum_ms: u64,
}

impl DelayCounts {
    fn add(&mut self, delay_ms: u64) {
        self.counts[DELAYS_MS.partition_point(|bound| *bound < delay_ms)] += 1;
        self.sum_ms = self.sum_ms.saturating_add(delay_ms);
    }
}

/// The delays of all regions from which records came.
#[derive(Debug, Default)]
pub(in crate::node) struct Delays {
    regions: BTreeMap<String, DelayCounts>,
    /// Those of regions beyond [`DELAY_REGIONS_MAX`], and of writers that this node does not know.
    others: DelayCounts,
}

impl Delays {
    /// Counts a record of a writer in `region` that arrives at `now`.
    pub(super) fn record(&mut self, now: Now, version: Version, region: Option<&str>) {
        let delay_ms = now.wall_ms.saturating_sub(version.wall_ms());
        let is_full = self.regions.len() >= DELAY_REGIONS_MAX;
        let counts = match region {
            Some(region) if self.regions.contains_key(region) => self.regions.get_mut(region),
            Some(region) if !is_full => Some(self.regions.entry(region.to_owned()).or_default()),
            _ => None,
        };
        counts.unwrap_or(&mut self.others).add(delay_ms);
    }

    /// Returns the regions and their delays; none stands for those of other or unknown regions.
    pub(in crate::node) fn by_region(&self) -> impl Iterator<Item = (Option<&str>, &DelayCounts)> {
        let others = (self.others != DelayCounts::default()).then_some((None, &self.others));
        self.regions.iter().map(|(region, counts)| (Some(region.as_str()), counts)).chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{time::Now, version::Incarnation};

    #[test]
    fn delays_are_counted_by_region_up_to_a_bound() {
        let mut delays = Delays::default();
        let version = |wall_ms: u64| Version::new(wall_ms << Version::COUNTER_BITS, Incarnation(1));
        let now = Now::new(0, 100_000);
        for (wall_ms, bucket) in [(100_005, 0), (100_000, 0), (99_999, 0), (99_997, 2), (1, 16)] {
            let mut delays = Delays::default();
            delays.record(now, version(wall_ms), Some("oslo"));
            let (region, counts) = delays.by_region().next().expect("a region");
            assert_eq!((region, counts.counts[bucket]), (Some("oslo"), 1), "{wall_ms}");
            assert_eq!(counts.sum_ms, 100_000_u64.saturating_sub(wall_ms));
        }
        for n in 0..1_000 {
            delays.record(now, version(99_000), Some(&alloc::format!("r{n}")));
        }
        delays.record(now, version(99_000), Some("r7"));
        delays.record(now, version(99_000), None);
        let all: alloc::vec::Vec<_> = delays.by_region().collect();
        assert_eq!(all.len(), DELAY_REGIONS_MAX + 1);
        let count = |counts: &DelayCounts| counts.counts.iter().sum::<u64>();
        assert_eq!(all.iter().map(|(_, counts)| count(counts)).sum::<u64>(), 1_002);
        let (_, of_seven) = all.iter().find(|(region, _)| *region == Some("r7")).expect("r7");
        assert_eq!(count(of_seven), 2);
        assert!(all.last().is_some_and(|(region, _)| region.is_none()));
    }
}
