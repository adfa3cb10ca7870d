//! How long ago this node last had everything that others knew; who has missed too much.
//!
//! Traces are kept for the retention. Who was without another node's writes for longer may hold values
//! that were deleted long ago, and cannot tell (contract section 3).

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    time::Instant,
    version::Incarnation,
    wire::{AGES_MAX, Age},
};

/// Who lags by less than this, or by less than this more than its partner, is never outdated, in
/// milliseconds: six turns of the rounds between regions, more than a healthy node lags.
const LAG_MS_MIN: u64 = 15_000;

/// What somebody had longer ago, in milliseconds, is no longer told: two hours, twice the longest
/// retention. Of nodes that are gone nothing is left then.
const AGE_MS_MAX: u64 = 7_200_000;

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

/// A partner in a round, as it describes itself.
#[derive(Clone, Debug)]
pub(in crate::node) struct Partner {
    /// Who it is.
    pub(in crate::node) id: Incarnation,
    /// For how long it has lived, in milliseconds.
    pub(in crate::node) lived_ms: u64,
    /// What it had of others.
    pub(in crate::node) ages: Vec<Age>,
}

impl Ages {
    /// When this node last had everything that `id` knew.
    pub(in crate::node) fn of(&self, id: Incarnation) -> Option<Instant> {
        self.had.get(&id).map(|had| had.at)
    }

    /// What is told to others, the latest first.
    pub(in crate::node) fn told(&self, now: Instant) -> Vec<Age> {
        let mut ages: Vec<_> = self
            .had
            .iter()
            .filter(|(_, had)| now.since_ms(had.at) <= AGE_MS_MAX)
            .map(|(of, had)| {
                let ms = now.since_ms(had.at);
                Age { of: *of, ms, lived_ms: had.lived_ms.saturating_add(ms) }
            })
            .collect();
        if ages.len() > AGES_MAX {
            ages.sort_unstable_by_key(|age| age.ms);
            ages.truncate(AGES_MAX);
        }
        ages
    }

    /// At `at` this node had everything that the partner knew, so also what the partner had of others.
    pub(in crate::node) fn merge(&mut self, own: Incarnation, partner: &Partner, at: Instant) {
        self.note(partner.id, at, partner.lived_ms);
        self.had.retain(|_, had| at.since_ms(had.at) <= AGE_MS_MAX);
        for age in partner.ages.iter().filter(|age| age.of != own && age.ms <= AGE_MS_MAX) {
            let lived_ms = age.lived_ms.saturating_sub(age.ms);
            self.note(age.of, at.minus_ms(age.ms), lived_ms);
        }
    }

    /// Takes over what an earlier life of this node had, as it was told `away_ms` before `now`.
    pub(in crate::node) fn inherit(&mut self, ages: &[Age], away_ms: u64, now: Instant) {
        for age in ages {
            let ms = age.ms.saturating_add(away_ms);
            self.note(age.of, now.minus_ms(ms), age.lived_ms.saturating_sub(age.ms));
        }
    }

    fn note(&mut self, of: Incarnation, at: Instant, lived_ms: u64) {
        let had = self.had.entry(of).or_insert(Had { at, lived_ms });
        if had.at <= at {
            *had = Had { at, lived_ms };
        }
        if self.had.len() > AGES_MAX
            && let Some(oldest) = self.had.iter().min_by_key(|(_, had)| had.at).map(|(id, _)| *id)
        {
            self.had.remove(&oldest);
        }
    }

    /// Whether this node, `own`, which has lived for `lived_ms`, lags somebody by more than half of the
    /// retention while the partner lags less.
    pub(in crate::node) fn is_outdated(
        &self,
        own: (Incarnation, u64),
        partner: &Partner,
        retention_ms: u64,
        now: Instant,
    ) -> bool {
        let most_ms = (retention_ms / 2).max(LAG_MS_MIN);
        // Of somebody never heard of nothing is known since the later of two births: what was before
        // came from others.
        let lag_ms = |of, lived_ms: u64| match self.had.get(&of) {
            Some(had) => now.since_ms(had.at),
            None => lived_ms.min(own.1),
        };
        let itself = Age { of: partner.id, ms: 0, lived_ms: partner.lived_ms };
        let others = partner.ages.iter().filter(|age| age.of != own.0 && age.ms <= AGE_MS_MAX);
        others.chain([&itself]).any(|age| {
            let lag_ms = lag_ms(age.of, age.lived_ms);
            // Not by the few milliseconds that answers take and clocks drift: whoever talked to the
            // partner meanwhile got what that one knew.
            lag_ms > most_ms && lag_ms > age.ms.saturating_add(LAG_MS_MIN)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const OWN: Incarnation = Incarnation(1);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn partner(id: u64, lived_ms: u64, ages: &[(u64, u64, u64)]) -> Partner {
        let age = |&(of, ms, lived_ms): &(u64, u64, u64)| Age { of: Incarnation(of), ms, lived_ms };
        Partner { id: Incarnation(id), lived_ms, ages: ages.iter().map(age).collect() }
    }

    #[test]
    fn who_was_away_for_more_than_half_the_retention_is_outdated() {
        let mut ages = Ages::default();
        let other = partner(2, 10 * HOUR_MS, &[(3, 700, 10 * HOUR_MS)]);
        ages.merge(OWN, &other, at(0));
        let outdated = |ages: &Ages, other: &Partner, ms| {
            ages.is_outdated((OWN, 10 * HOUR_MS), other, HOUR_MS, at(ms))
        };
        assert!(!outdated(&ages, &other, HOUR_MS / 2));
        assert!(outdated(&ages, &other, HOUR_MS / 2 + 1));
        // Both were without node 3: no reason to believe one more than the other.
        let ill = partner(2, 10 * HOUR_MS, &[(3, HOUR_MS + 800, 10 * HOUR_MS)]);
        ages.merge(OWN, &partner(2, 10 * HOUR_MS, &[]), at(HOUR_MS));
        assert!(!outdated(&ages, &ill, HOUR_MS));
        let hardly_better = partner(2, 10 * HOUR_MS, &[(3, HOUR_MS - 5, 10 * HOUR_MS)]);
        assert!(!outdated(&ages, &hardly_better, HOUR_MS));
        assert!(outdated(&ages, &partner(2, 10 * HOUR_MS, &[(3, 5, HOUR_MS)]), HOUR_MS));
    }

    #[test]
    fn nobody_is_outdated_by_a_newcomer() {
        let ages = Ages::default();
        let newcomer = partner(9, 2_000, &[(8, 100, 3_000)]);
        assert!(!ages.is_outdated((OWN, 10 * HOUR_MS), &newcomer, HOUR_MS, at(0)));
        // But who has just started and copied what is old inherits its age.
        let old = partner(9, 2 * HOUR_MS, &[]);
        assert!(ages.is_outdated((OWN, 2 * HOUR_MS), &old, HOUR_MS, at(0)));
        assert!(!ages.is_outdated((OWN, 2_000), &old, HOUR_MS, at(0)));
    }

    #[test]
    fn what_is_told_can_be_merged() {
        let mut first = Ages::default();
        first.merge(OWN, &partner(2, 5_000, &[(3, 40, 9_000), (1, 7, 7)]), at(1_000));
        let told = first.told(at(1_500));
        let expected = [(2, 500, 5_500), (3, 540, 9_500)];
        let expected: Vec<_> = partner(0, 0, &expected).ages;
        assert_eq!(told, expected);
    }
}
