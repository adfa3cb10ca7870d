//! How long ago this node last had everything that others knew; who has missed too much.
//!
//! Traces are kept for the retention. Who was without another node's writes for longer may hold values
//! that were deleted long ago, and cannot tell; and what it lacks, sums do not show (contract section 3).
//! Of two that were without each other one is the source: both come to the same, whoever looks first.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    time::Instant,
    version::Incarnation,
    wire::{Lineage, SYNC_AGES_MAX, SyncAge},
};

/// Who lags by less than this, or by less than this more than its partner, is never outdated, in
/// milliseconds: six turns of the rounds between regions, more than a healthy node lags.
const LAG_MS_MIN: u64 = 15_000;

/// What somebody had longer ago, in milliseconds, is no longer told: two hours, twice the longest
/// retention. Of nodes that are gone nothing is left then.
const AGE_MS_MAX: u64 = 7_200_000;

/// Lines that began within this time, in milliseconds, began at once: which one is older is told with the
/// error of a journey.
const LINE_MS_MIN: u64 = 1_000;

/// What is known of another node.
#[derive(Clone, Copy, Debug)]
struct Had {
    /// When this node last had everything that the other one knew.
    at: Instant,
    /// For how long the other one had lived then, in milliseconds.
    lived_ms: u64,
}

/// What a node had of others, and when.
#[derive(Debug, Default)]
pub(in crate::node) struct Ages {
    had: BTreeMap<Incarnation, Had>,
}

/// A node, as it describes itself to its partner in a round.
#[derive(Clone, Debug)]
pub(in crate::node) struct Partner {
    /// Who it is.
    pub(in crate::node) id: Incarnation,
    /// For how long it has known what nobody else does, in milliseconds.
    pub(in crate::node) lived_ms: u64,
    /// From whom it has what it knows.
    pub(in crate::node) line: Lineage,
    /// What it had of others.
    pub(in crate::node) ages: Vec<SyncAge>,
}

impl Partner {
    /// It and all others of whom it can tell, and how far it lags each, but not `other`.
    fn sources(&self, other: Incarnation) -> impl Iterator<Item = SyncAge> {
        let itself = SyncAge { node: self.id, age_ms: 0, lived_ms: self.lived_ms };
        let others = self.ages.iter().copied();
        others.chain([itself]).filter(move |age| age.node != other && age.age_ms <= AGE_MS_MAX)
    }

    /// Of whom it has more than `other`, which lacks what is older than `most_ms`. What a node has had of
    /// another one is told by its ages; of one that these do not name it has nothing.
    fn is_ahead_of(&self, other: &Self, most_ms: u64) -> BTreeSet<Incarnation> {
        let had: BTreeMap<_, _> = other.ages.iter().map(|age| (age.node, age.age_ms)).collect();
        // Who cannot name all of whom it has something lacks nothing for not naming them.
        let unnamed_ms = if had.len() >= SYNC_AGES_MAX { 0 } else { u64::MAX };
        let is_behind = |age: &SyncAge| {
            // What it knows alone is no older than its life.
            let lag_ms = had.get(&age.node).copied().unwrap_or(unnamed_ms).min(age.lived_ms);
            // Not by the few milliseconds that answers take and clocks drift: whoever talked to the
            // partner meanwhile got what that one knew.
            lag_ms > most_ms && lag_ms > age.age_ms.saturating_add(LAG_MS_MIN)
        };
        self.sources(other.id).filter(is_behind).map(|age| age.node).collect()
    }

    /// Compares it with another one: who of the two is the source of what is older than their rounds reach.
    ///
    /// It is outdated if it has missed more than half of the retention of what the other one had, and if
    /// both have, the other one is of the older line. Of the same line more nodes are right, and of as many
    /// those with the lowest number.
    pub(in crate::node) fn compare(&self, other: &Self, retention_ms: u64) -> Verdict {
        let most_ms = (retention_ms / 2).max(LAG_MS_MIN);
        let missed = other.is_ahead_of(self, most_ms);
        let has = self.is_ahead_of(other, most_ms);
        let lowest = |ids: &BTreeSet<Incarnation>| core::cmp::Reverse(ids.first().copied());
        let is_right = match self.line.origin == other.line.origin {
            true => (missed.len(), lowest(&missed)) > (has.len(), lowest(&has)),
            false => is_older(other.line, self.line),
        };
        match missed.is_empty() {
            true => Verdict::Equal,
            false if has.is_empty() || is_right => Verdict::Outdated,
            false => Verdict::Source(missed),
        }
    }
}

/// What a node is beside its partner in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum Verdict {
    /// Their rounds reach everything that one of them lacks.
    Equal,
    /// The partner is the source: this node gives up what that one does not know, and copies the rest.
    Outdated,
    /// This node is the source, although it has missed what these know: of that no more counts than rounds
    /// reach.
    Source(BTreeSet<Incarnation>),
}

/// Whether a line is older than another one.
pub(in crate::node) fn is_older(line: Lineage, than: Lineage) -> bool {
    match line.age_ms.abs_diff(than.age_ms) <= LINE_MS_MIN {
        true => line.origin < than.origin,
        false => line.age_ms > than.age_ms,
    }
}

impl Ages {
    /// Whether nobody is known of whom it had anything.
    pub(in crate::node) fn is_empty(&self) -> bool {
        self.had.is_empty()
    }

    /// When this node last had everything that `id` knew.
    pub(in crate::node) fn of(&self, id: Incarnation) -> Option<Instant> {
        self.had.get(&id).map(|had| had.at)
    }

    /// What is told to others, the latest first.
    pub(in crate::node) fn told(&self, now: Instant) -> Vec<SyncAge> {
        let mut ages: Vec<_> = self
            .had
            .iter()
            .filter(|(_, had)| now.since_ms(had.at) <= AGE_MS_MAX)
            .map(|(of, had)| {
                let ms = now.since_ms(had.at);
                SyncAge { node: *of, age_ms: ms, lived_ms: had.lived_ms.saturating_add(ms) }
            })
            .collect();
        if ages.len() > SYNC_AGES_MAX {
            ages.sort_unstable_by_key(|age| age.age_ms);
            ages.truncate(SYNC_AGES_MAX);
        }
        ages
    }

    /// At `at` this node had everything that the partner knew, so also what the partner had of others: but
    /// what it was the source of, which is no older than its rounds reach.
    pub(in crate::node) fn merge(
        &mut self,
        own: Incarnation,
        (partner, verdict): (&Partner, &Verdict),
        at: Instant,
    ) {
        self.had.retain(|_, had| at.since_ms(had.at) <= AGE_MS_MAX);
        for age in partner.sources(own) {
            let is_given_up =
                matches!(verdict, Verdict::Source(missed) if missed.contains(&age.node));
            let most_ms = if is_given_up { LAG_MS_MIN } else { u64::MAX };
            let lived_ms = age.lived_ms.saturating_sub(age.age_ms).min(most_ms);
            self.note(age.node, at.minus_ms(age.age_ms), lived_ms);
        }
    }

    /// Takes over what an earlier life of this node had, itself included, as it was told `away_ms` before
    /// `now`.
    pub(in crate::node) fn inherit(&mut self, ages: &[SyncAge], away_ms: u64, now: Instant) {
        for age in ages.iter().take(SYNC_AGES_MAX) {
            let ms = age.age_ms.saturating_add(away_ms);
            self.note(age.node, now.minus_ms(ms), age.lived_ms.saturating_sub(age.age_ms));
        }
    }

    fn note(&mut self, of: Incarnation, at: Instant, lived_ms: u64) {
        let had = self.had.entry(of).or_insert(Had { at, lived_ms });
        if had.at <= at {
            // What counts of it gets no older than by the time that passes.
            let lived_ms = lived_ms.min(had.lived_ms.saturating_add(at.since_ms(had.at)));
            *had = Had { at, lived_ms };
        }
        if self.had.len() > SYNC_AGES_MAX
            && let Some(oldest) = self.had.iter().min_by_key(|(_, had)| had.at).map(|(id, _)| *id)
        {
            self.had.remove(&oldest);
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
        let line = Lineage { origin: Incarnation(1), age_ms: 10 * HOUR_MS };
        Partner { id: Incarnation(id), lived_ms, line, ages: ages(had) }
    }

    /// A node of a line of its own that began so long ago.
    fn alone(id: u64, lived_ms: u64) -> Partner {
        let line = Lineage { origin: Incarnation(id), age_ms: lived_ms };
        Partner { line, ..node(id, lived_ms, &[]) }
    }

    const OLD: u64 = 10 * HOUR_MS;

    fn is_outdated(one: &Partner, other: &Partner) -> bool {
        one.compare(other, HOUR_MS) == Verdict::Outdated
    }

    #[test]
    fn who_was_away_for_more_than_half_the_retention_is_outdated() {
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
    fn nobody_is_outdated_by_a_newcomer_and_a_newcomer_is() {
        let newcomer = node(9, 2_000, &[(8, 100, 3_000), (1, 5, OLD)]);
        assert!(!is_outdated(&node(1, OLD, &[]), &newcomer));
        // Who has started alone lacks what was before, old as it may be.
        assert!(is_outdated(&alone(9, 2_000), &alone(1, 2 * HOUR_MS)));
        assert!(!is_outdated(&alone(1, 2 * HOUR_MS), &alone(9, 2_000)));
        assert!(!is_outdated(&alone(9, 2_000), &alone(1, 14_000)));
    }

    #[test]
    fn of_two_that_were_apart_one_is_outdated_whoever_looks_first() {
        // Two halves that started alone: the line that is older is the source, however many are in it.
        let (mut first, mut second) = (alone(5, 3 * HOUR_MS), alone(6, 2 * HOUR_MS));
        second.ages = ages(&[(7, 10, 2 * HOUR_MS), (8, 10, HOUR_MS)]);
        let both = |a: &Partner, b: &Partner| (is_outdated(a, b), is_outdated(b, a));
        assert_eq!(both(&first, &second), (false, true));
        first.line.age_ms = second.line.age_ms + 3;
        assert_eq!(both(&first, &second), (false, true));
        // The outdated one took everything: nothing that it alone knows is old.
        let taken = Partner { lived_ms: 500, line: first.line, ages: vec![], ..second };
        assert_eq!(both(&first, &taken), (false, true));
        let taken = Partner { ages: ages(&[(5, 500, 3 * HOUR_MS)]), ..taken };
        assert_eq!(both(&first, &taken), (false, false));
        // The source had its round first: the other one still has to take everything.
        let merged = Partner { ages: ages(&[(6, 5, 2 * HOUR_MS), (7, 15, 2 * HOUR_MS)]), ..first };
        assert_eq!(both(&merged, &alone(6, 2 * HOUR_MS)), (false, true));
        // One line, cut in two: more nodes are right.
        let cut = node(2, OLD, &[(3, 2 * HOUR_MS - 1, OLD), (4, 2 * HOUR_MS - 1, OLD)]);
        let rest = node(3, OLD, &[(4, 50, OLD), (2, 2 * HOUR_MS - 1, OLD)]);
        assert_eq!(both(&cut, &rest), (true, false));
        let pair = node(2, OLD, &[(5, 3, OLD), (3, 2 * HOUR_MS - 1, OLD)]);
        assert_eq!(both(&pair, &rest), (false, true));
    }

    #[test]
    fn what_is_told_can_be_merged() {
        let mut first = Ages::default();
        let partner = node(2, 5_000, &[(3, 40, 9_000), (1, 7, 7)]);
        first.merge(OWN, (&partner, &Verdict::Equal), at(1_000));
        let told = first.told(at(1_500));
        assert_eq!(told, ages(&[(2, 500, 5_500), (3, 540, 9_500)]));
    }

    #[test]
    fn who_hears_of_those_that_the_source_outlasted_is_not_outdated_by_it() {
        let mut had = Ages::default();
        let second = node(6, OLD, &[(7, 10, OLD)]);
        let verdict = Verdict::Source([Incarnation(6), Incarnation(7)].into());
        had.merge(OWN, (&second, &verdict), at(OLD));
        // Nor after a further round, before the other one has taken everything.
        had.merge(OWN, (&second, &Verdict::Equal), at(OLD + 1_000));
        let source = Partner { ages: had.told(at(OLD + 1_000)), ..node(1, OLD, &[]) };
        assert!(!is_outdated(&node(2, OLD, &[(1, 1_000, OLD)]), &source));
    }
}
