//! When this node last had everything that others knew, and which of two nodes has missed too much.
//!
//! Tombstones are kept for the retention. A node that was without another node's writes for longer may hold
//! values that were deleted long ago, and digests do not show what it lacks (contract section 3). Of two
//! nodes that were separated one is the source: both come to the same verdict, whichever compares first.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    time::Instant,
    version::Incarnation,
    wire::{Lineage, SYNC_AGES_MAX, SyncAge},
};

/// A node that lags by less than this, or by less than this more than its partner, is never outdated, in
/// milliseconds: six region rounds, more than a healthy node lags.
const LAG_MS_MIN: u64 = 15_000;

/// Older syncs are not reported, in milliseconds: two hours, twice the longest retention. Nothing is left of
/// nodes that are gone by then.
pub(super) const AGE_MS_MAX: u64 = 7_200_000;

/// Lineages that began within this time began at once, in milliseconds: their ages are reported with an
/// error of the transit time.
const LINEAGE_MS_MIN: u64 = 1_000;

/// The last sync with another node.
#[derive(Clone, Copy, Debug)]
struct LastSync {
    /// When this node last had everything that the other one knew.
    at: Instant,
    /// How long the other one had lived then, in milliseconds.
    lived_ms: u64,
}

/// The last syncs with all other nodes.
#[derive(Debug, Default)]
pub(super) struct SyncAges {
    syncs: BTreeMap<Incarnation, LastSync>,
}

/// A node, as it describes itself to its partner in a round.
#[derive(Clone, Debug)]
pub(super) struct Partner {
    /// Its incarnation.
    pub(super) id: Incarnation,
    /// For how long it has known versions that no other node knows, in milliseconds.
    pub(super) lived_ms: u64,
    /// The node from which its data descends.
    pub(super) lineage: Lineage,
    /// Its last syncs with others.
    pub(super) ages: Vec<SyncAge>,
}

impl Partner {
    /// The node itself and all others that it had something of, with its lag behind each, but not `other`.
    fn sources(&self, other: Incarnation) -> impl Iterator<Item = SyncAge> {
        let own = SyncAge { node: self.id, age_ms: 0, lived_ms: self.lived_ms };
        let others = self.ages.iter().copied();
        others.chain([own]).filter(move |age| age.node != other && age.age_ms <= AGE_MS_MAX)
    }

    /// The nodes of which it has more than `other`, which lacks what is older than `most_ms`. A node has
    /// nothing of another one that its ages do not name.
    fn is_ahead_of(&self, other: &Self, most_ms: u64) -> BTreeSet<Incarnation> {
        let syncs: BTreeMap<_, _> = other.ages.iter().map(|age| (age.node, age.age_ms)).collect();
        // A node that cannot name all others lacks nothing of those that it does not name.
        let unnamed_ms = if syncs.len() >= SYNC_AGES_MAX { 0 } else { u64::MAX };
        let is_behind = |age: &SyncAge| {
            // What it knows alone is no older than its life.
            let lag_ms = syncs.get(&age.node).copied().unwrap_or(unnamed_ms).min(age.lived_ms);
            // Not by the few milliseconds that responses take and clocks drift: a node that
            // talked to the partner meanwhile got what that one knew.
            lag_ms > most_ms && lag_ms > age.age_ms.saturating_add(LAG_MS_MIN)
        };
        self.sources(other.id).filter(is_behind).map(|age| age.node).collect()
    }

    /// Compares the node with another one: which of the two is the source of what is older than the window
    /// of their rounds.
    ///
    /// It is outdated if it has missed more than half of the retention of what the other one had. If that
    /// holds of both, the one of the older lineage is the source. Within one lineage it is the one that more
    /// nodes agree with, and of equally many the one that agrees with the lowest incarnation.
    pub(super) fn compare(&self, other: &Self, retention_ms: u64) -> Verdict {
        let most_ms = (retention_ms / 2).max(LAG_MS_MIN);
        let missed = other.is_ahead_of(self, most_ms);
        let has = self.is_ahead_of(other, most_ms);
        let lowest = |ids: &BTreeSet<Incarnation>| core::cmp::Reverse(ids.first().copied());
        let is_other_source = match self.lineage.origin == other.lineage.origin {
            true => (missed.len(), lowest(&missed)) > (has.len(), lowest(&has)),
            false => is_older(other.lineage, self.lineage),
        };
        match missed.is_empty() {
            true if has.is_empty() => Verdict::Equal,
            true => Verdict::Source(missed),
            false if has.is_empty() || is_other_source => Verdict::Outdated,
            false => Verdict::Source(missed),
        }
    }
}

/// How a node compares with its partner in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Their rounds reach everything that one of them lacks.
    Equal,
    /// The partner is the source: this node drops what the partner does not know, and copies the rest.
    Outdated,
    /// This node is the source, although it may have missed what these nodes know. Of that only what the rounds
    /// reach counts.
    Source(BTreeSet<Incarnation>),
}

/// Whether a lineage is older than another one.
pub(super) fn is_older(lineage: Lineage, than: Lineage) -> bool {
    match lineage.age_ms.abs_diff(than.age_ms) <= LINEAGE_MS_MIN {
        true => lineage.origin < than.origin,
        false => lineage.age_ms > than.age_ms,
    }
}

impl SyncAges {
    /// Whether the node has synced with none.
    pub(super) fn is_empty(&self) -> bool {
        self.syncs.is_empty()
    }

    /// When this node last had everything that `id` knew.
    pub(super) fn last_sync(&self, id: Incarnation) -> Option<Instant> {
        self.syncs.get(&id).map(|sync| sync.at)
    }

    /// The ages as they are reported to others, the latest first if there are too many.
    pub(super) fn report(&self, now: Instant) -> Vec<SyncAge> {
        let recent = self.syncs.iter().filter(|(_, sync)| now.since_ms(sync.at) <= AGE_MS_MAX);
        let mut ages: Vec<_> = recent
            .map(|(node, sync)| {
                let age_ms = now.since_ms(sync.at);
                SyncAge { node: *node, age_ms, lived_ms: sync.lived_ms.saturating_add(age_ms) }
            })
            .collect();
        if ages.len() > SYNC_AGES_MAX {
            ages.sort_unstable_by_key(|age| age.age_ms);
            ages.truncate(SYNC_AGES_MAX);
        }
        ages
    }

    /// Notes that at `at` this node had everything that the partner knew, so also what the partner had of
    /// others. Of nodes that this one overruled as the source, only what its rounds reach counts.
    pub(super) fn merge(
        &mut self,
        own: Incarnation,
        (partner, verdict): (&Partner, &Verdict),
        at: Instant,
    ) {
        self.syncs.retain(|_, sync| at.since_ms(sync.at) <= AGE_MS_MAX);
        for age in partner.sources(own) {
            let is_overruled =
                matches!(verdict, Verdict::Source(missed) if missed.contains(&age.node));
            let most_ms = if is_overruled { LAG_MS_MIN } else { u64::MAX };
            let lived_ms = age.lived_ms.saturating_sub(age.age_ms).min(most_ms);
            self.note(age.node, at.minus_ms(age.age_ms), lived_ms);
        }
    }

    /// Takes over the ages of an earlier process of this node, itself included, as reported `away_ms` before
    /// `now`.
    pub(super) fn restore(&mut self, ages: &[SyncAge], away_ms: u64, now: Instant) {
        for age in ages.iter().take(SYNC_AGES_MAX) {
            let age_ms = age.age_ms.saturating_add(away_ms);
            let lived_ms = age.lived_ms.saturating_sub(age.age_ms);
            self.note(age.node, now.minus_ms(age_ms), lived_ms);
        }
    }

    fn note(&mut self, id: Incarnation, at: Instant, lived_ms: u64) {
        let sync = self.syncs.entry(id).or_insert(LastSync { at, lived_ms });
        if sync.at <= at {
            // What counts of a node gets no older than by the time that passes.
            let lived_ms = lived_ms.min(sync.lived_ms.saturating_add(at.since_ms(sync.at)));
            *sync = LastSync { at, lived_ms };
        }
        if self.syncs.len() > SYNC_AGES_MAX
            && let Some(oldest) = self.syncs.iter().min_by_key(|(_, sync)| sync.at)
        {
            let oldest = *oldest.0;
            self.syncs.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const OWN: Incarnation = Incarnation(1);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn ages(ages: &[(u64, u64, u64)]) -> Vec<SyncAge> {
        let age = |&(of, ms, lived_ms): &(u64, u64, u64)| SyncAge {
            node: Incarnation(of),
            age_ms: ms,
            lived_ms,
        };
        ages.iter().map(age).collect()
    }

    /// A node of the line that began with node 1 ten hours ago.
    fn node(id: u64, lived_ms: u64, had: &[(u64, u64, u64)]) -> Partner {
        let lineage = Lineage { origin: Incarnation(1), age_ms: 10 * HOUR_MS };
        Partner { id: Incarnation(id), lived_ms, lineage, ages: ages(had) }
    }

    /// A node of a line of its own that began so long ago.
    fn alone(id: u64, lived_ms: u64) -> Partner {
        let lineage = Lineage { origin: Incarnation(id), age_ms: lived_ms };
        Partner { lineage, ..node(id, lived_ms, &[]) }
    }

    const OLD: u64 = 10 * HOUR_MS;

    fn is_outdated(one: &Partner, other: &Partner) -> bool {
        one.compare(other, HOUR_MS) == Verdict::Outdated
    }

    #[test]
    fn node_away_for_more_than_half_the_retention_is_outdated() {
        let other = node(2, OLD, &[(3, 700, OLD), (1, 100, OLD)]);
        let own = |ms| node(1, OLD, &[(2, ms, OLD), (3, ms, OLD)]);
        assert!(!is_outdated(&own(HOUR_MS / 2), &other));
        assert!(is_outdated(&own(HOUR_MS / 2 + 1), &other));
        // Both were without node 3: no reason to believe one more than the other.
        let ill = node(2, OLD, &[(3, HOUR_MS + 800, OLD), (1, 0, OLD)]);
        let own = |ms| node(1, OLD, &[(2, 0, OLD), (3, ms, OLD)]);
        assert!(!is_outdated(&own(HOUR_MS), &ill));
        let hardly_better = node(2, OLD, &[(3, HOUR_MS - 5, OLD), (1, 0, OLD)]);
        assert!(!is_outdated(&own(HOUR_MS), &hardly_better));
        assert!(is_outdated(&own(HOUR_MS), &node(2, OLD, &[(3, 5, OLD), (1, 0, OLD)])));
    }

    #[test]
    fn newcomer_is_outdated_and_makes_no_other_node_outdated() {
        let newcomer = node(9, 2_000, &[(8, 100, 3_000), (1, 5, OLD)]);
        assert!(!is_outdated(&node(1, OLD, &[]), &newcomer));
        // Who has started alone lacks what was before, old as it may be.
        assert!(is_outdated(&alone(9, 2_000), &alone(1, 2 * HOUR_MS)));
        assert!(!is_outdated(&alone(1, 2 * HOUR_MS), &alone(9, 2_000)));
        assert!(!is_outdated(&alone(9, 2_000), &alone(1, 14_000)));
        // The source has missed nothing, but knows that the other one has.
        let verdict = alone(1, 2 * HOUR_MS).compare(&alone(9, 2_000), HOUR_MS);
        assert_eq!(verdict, Verdict::Source(BTreeSet::new()));
    }

    #[test]
    fn one_of_two_separated_nodes_is_outdated_in_either_order() {
        // Two halves that started alone: the line that is older is the source, however many are in it.
        let (mut first, mut second) = (alone(5, 3 * HOUR_MS), alone(6, 2 * HOUR_MS));
        second.ages = ages(&[(7, 10, 2 * HOUR_MS), (8, 10, HOUR_MS)]);
        let both = |a: &Partner, b: &Partner| (is_outdated(a, b), is_outdated(b, a));
        assert_eq!(both(&first, &second), (false, true));
        first.lineage.age_ms = second.lineage.age_ms + 3;
        assert_eq!(both(&first, &second), (false, true));
        // The outdated one took everything: nothing that it alone knows is old.
        let taken = Partner { lived_ms: 500, lineage: first.lineage, ages: vec![], ..second };
        assert_eq!(both(&first, &taken), (false, true));
        let taken = Partner { ages: ages(&[(5, 500, 3 * HOUR_MS)]), ..taken };
        assert_eq!(both(&first, &taken), (false, false));
        // The source had its round first: the other one still has to take everything.
        let merged = Partner { ages: ages(&[(6, 5, 2 * HOUR_MS), (7, 15, 2 * HOUR_MS)]), ..first };
        assert_eq!(both(&merged, &alone(6, 2 * HOUR_MS)), (false, true));
        // One lineage, cut in two: more nodes are right.
        let cut = node(2, OLD, &[(3, 2 * HOUR_MS - 1, OLD), (4, 2 * HOUR_MS - 1, OLD)]);
        let rest = node(3, OLD, &[(4, 50, OLD), (2, 2 * HOUR_MS - 1, OLD)]);
        assert_eq!(both(&cut, &rest), (true, false));
        let pair = node(2, OLD, &[(5, 3, OLD), (3, 2 * HOUR_MS - 1, OLD)]);
        assert_eq!(both(&pair, &rest), (false, true));
    }

    #[test]
    fn merged_ages_are_reported() {
        let mut first = SyncAges::default();
        let partner = node(2, 5_000, &[(3, 40, 9_000), (1, 7, 7)]);
        first.merge(OWN, (&partner, &Verdict::Equal), at(1_000));
        let reported = first.report(at(1_500));
        assert_eq!(reported, ages(&[(2, 500, 5_500), (3, 540, 9_500)]));
    }

    #[test]
    fn ages_that_a_source_overruled_make_no_other_node_outdated() {
        let mut had = SyncAges::default();
        let second = node(6, OLD, &[(7, 10, OLD)]);
        let verdict = Verdict::Source([Incarnation(6), Incarnation(7)].into());
        had.merge(OWN, (&second, &verdict), at(OLD));
        // Nor after a further round, before the other one has taken everything.
        had.merge(OWN, (&second, &Verdict::Equal), at(OLD + 1_000));
        let source = Partner { ages: had.report(at(OLD + 1_000)), ..node(1, OLD, &[]) };
        assert!(!is_outdated(&node(2, OLD, &[(1, 1_000, OLD)]), &source));
    }
}
