//! Histograms of `/v1/stats`, as far as they grew between two answers.

use serde_json::Value as Json;

/// The growth of a histogram: upper bounds and counts of its buckets, in ascending order. The last bucket may
/// have no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Growth(Vec<(Option<u64>, u64)>);

impl Growth {
    /// Returns what `now` has more than `before`. None if one of them is no histogram.
    pub(crate) fn between(before: &Json, now: &Json) -> Option<Self> {
        let before = buckets(before)?;
        let counted = |bound| before.iter().find(|(known, _)| *known == bound).map_or(0, |b| b.1);
        let more =
            |(bound, count): (Option<u64>, u64)| (bound, count.saturating_sub(counted(bound)));
        Some(Self(buckets(now)?.into_iter().map(more).collect()))
    }

    /// Returns the bound of the bucket in which the value lies that `percent` of all do not exceed. None
    /// without a value, or beyond all bounds.
    pub(crate) fn percentile(&self, percent: u64) -> Option<u64> {
        let count: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = (count * percent).div_ceil(100).max(1);
        let mut below = 0;
        let (bound, _) = self.0.iter().find(|(_, count)| {
            below += count;
            below >= rank
        })?;
        *bound
    }
}

fn buckets(histogram: &Json) -> Option<Vec<(Option<u64>, u64)>> {
    let bucket = |bucket: &Json| Some((bucket[0].as_u64(), bucket[1].as_u64()?));
    histogram["buckets"].as_array()?.iter().map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let before = json!({"buckets": [[50, 1_000]]});
        let now = json!({"buckets": [[50, 1_064], [100, 30], [800, 5], [null, 1]]});
        let growth = Growth::between(&before, &now).expect("histograms");
        assert_eq!(growth.percentile(50), Some(50));
        assert_eq!(growth.percentile(90), Some(100));
        assert_eq!(growth.percentile(99), Some(800));
        assert_eq!(growth.percentile(100), None);
        let none = Growth::between(&now, &now).expect("histograms");
        assert_eq!(none.percentile(50), None);
        // A node of an earlier release has none.
        assert_eq!(Growth::between(&Json::Null, &now), None);
    }
}
