//! How long writes of other nodes take to this one.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use crate::{
    time::Now,
    version::{Incarnation, Version},
};

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
    regions: Vec<(String, DelayCounts)>,
    /// Those of regions beyond [`DELAY_REGIONS_MAX`], and of writers that this node does not know.
    others: DelayCounts,
}

/// The delays of a batch of records, whose writers are few.
pub(super) struct BatchDelays<'a, R> {
    delays: &'a mut Delays,
    now: Now,
    region_of: R,
    /// The writer of the last record, and the position of its region; none if that is among the others.
    last: Option<(Incarnation, Option<usize>)>,
}

impl Delays {
    /// Begins a batch that arrives at `now`. `region_of` returns the region of a writer, if it is known.
    pub(super) fn batch<R>(&mut self, now: Now, region_of: R) -> BatchDelays<'_, R> {
        BatchDelays { delays: self, now, region_of, last: None }
    }

    fn position(&mut self, region: &str) -> Option<usize> {
        let known = self.regions.iter().position(|(name, _)| name == region);
        known.or_else(|| {
            let next = self.regions.len();
            (next < DELAY_REGIONS_MAX).then(|| {
                self.regions.push((region.to_owned(), DelayCounts::default()));
                next
            })
        })
    }

    /// Returns the regions and their delays; none stands for those of other or unknown regions.
    pub(in crate::node) fn by_region(&self) -> impl Iterator<Item = (Option<&str>, &DelayCounts)> {
        let others = (self.others != DelayCounts::default()).then_some((None, &self.others));
        self.regions.iter().map(|(region, counts)| (Some(region.as_str()), counts)).chain(others)
    }
}

impl<'r, R: Fn(Incarnation) -> Option<&'r str>> BatchDelays<'_, R> {
    /// Counts a record of this version.
    pub(super) fn record(&mut self, version: Version) {
        let writer = version.incarnation();
        let position = match self.last {
            Some((last, position)) if last == writer => position,
            _ => (self.region_of)(writer).and_then(|region| self.delays.position(region)),
        };
        self.last = Some((writer, position));
        let counts = position.and_then(|position| self.delays.regions.get_mut(position));
        let counts = counts.map_or(&mut self.delays.others, |(_, counts)| counts);
        counts.add(self.now.wall_ms.saturating_sub(version.wall_ms()));
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    const NOW: Now = Now::new(0, 100_000);

    fn version(wall_ms: u64, writer: u64) -> Version {
        Version::new(wall_ms << Version::COUNTER_BITS, Incarnation(writer))
    }

    fn count(counts: &DelayCounts) -> u64 {
        counts.counts.iter().sum()
    }

    #[test]
    fn delay_is_counted_up_to_its_bound() {
        for (wall_ms, bucket) in [(100_005, 0), (100_000, 0), (99_999, 0), (99_997, 2), (1, 16)] {
            let mut delays = Delays::default();
            delays.batch(NOW, |_| Some("oslo")).record(version(wall_ms, 1));
            let (region, counts) = delays.by_region().next().expect("a region");
            assert_eq!((region, counts.counts[bucket]), (Some("oslo"), 1), "{wall_ms}");
            assert_eq!(counts.sum_ms, 100_000_u64.saturating_sub(wall_ms));
        }
    }

    #[test]
    fn records_of_one_batch_are_counted_by_the_regions_of_their_writers() {
        let mut delays = Delays::default();
        let region_of = |writer: Incarnation| match writer.0 {
            1 | 3 => Some("oslo"),
            2 => Some("rome"),
            _ => None,
        };
        let mut batch = delays.batch(NOW, region_of);
        for writer in [1, 1, 2, 9, 9, 3, 2, 1] {
            batch.record(version(99_000, writer));
        }
        let counts: Vec<_> = delays.by_region().map(|(name, all)| (name, count(all))).collect();
        assert_eq!(counts, [(Some("oslo"), 4), (Some("rome"), 2), (None, 2)]);
    }

    #[test]
    fn delays_are_counted_by_region_up_to_a_bound() {
        let mut delays = Delays::default();
        let names: Vec<_> = (0..1_000).map(|n| format!("r{n}")).collect();
        let region_of = |writer: Incarnation| names.get(writer.0 as usize).map(String::as_str);
        let mut batch = delays.batch(NOW, region_of);
        for writer in (0..1_000).chain([7, 1_000]) {
            batch.record(version(99_000, writer));
        }
        let all: Vec<_> = delays.by_region().collect();
        assert_eq!(all.len(), DELAY_REGIONS_MAX + 1);
        assert_eq!(all.iter().map(|(_, counts)| count(counts)).sum::<u64>(), 1_002);
        let (_, of_seven) = all.iter().find(|(region, _)| *region == Some("r7")).expect("r7");
        assert_eq!(count(of_seven), 2);
        assert!(all.last().is_some_and(|(region, _)| region.is_none()));
    }
}
