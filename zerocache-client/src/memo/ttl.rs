//! Lifetimes of memoized values.
//!
//! A lifetime never fails a call: zero, less than a second or less than nothing means "do not
//! store"; more than the maximum is lowered to it, and counted. Below a second the value is left
//! out, not kept longer than it was meant to be.

use std::time::Duration;

use crate::counters::{MemoCounters, count};
use crate::lifetime::Lifetime;

/// The longest lifetime that a node accepts.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(99_999_999);

/// The shortest.
pub(crate) const TTL_MIN: Duration = Duration::from_secs(1);

/// A time that the attribute has as an expression.
pub fn duration(time: impl Lifetime) -> Duration {
    time.into_duration()
}

/// How one call's lifetime is found.
pub struct TtlRule<T>(Rule<T>);

enum Rule<T> {
    Fixed(Duration),
    OfValue(Box<dyn Fn(&T) -> Duration + Send + Sync>),
}

impl<T> TtlRule<T> {
    /// Seconds that the attribute has checked.
    pub fn seconds(seconds: u64) -> Self {
        TtlRule(Rule::Fixed(Duration::from_secs(seconds)))
    }

    /// From an expression.
    pub fn given(lifetime: impl Lifetime) -> Self {
        TtlRule(Rule::Fixed(lifetime.into_duration()))
    }

    /// From the value. A closure without captures costs no allocation.
    pub(crate) fn of_value(rule: impl Fn(&T) -> Duration + Send + Sync + 'static) -> Self {
        TtlRule(Rule::OfValue(Box::new(rule)))
    }

    /// The lifetime to store the value with, or none where it is not to be stored.
    pub(crate) fn apply(&self, value: &T, counters: &MemoCounters) -> Option<Duration> {
        let lifetime = match &self.0 {
            Rule::Fixed(lifetime) => *lifetime,
            Rule::OfValue(rule) => rule(value),
        };
        checked(lifetime, counters)
    }
}

/// A lifetime as nodes take it, or none where the value is not to be stored.
pub(crate) fn checked(lifetime: Duration, counters: &MemoCounters) -> Option<Duration> {
    if lifetime < TTL_MIN {
        count(&counters.not_stored);
        return None;
    }
    if lifetime > TTL_MAX {
        count(&counters.ttl_clamped);
        return Some(TTL_MAX);
    }
    Some(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply<T>(rule: &TtlRule<T>, value: &T) -> (Option<Duration>, u64, u64) {
        let counters = MemoCounters::new(0);
        let lifetime = rule.apply(value, &counters);
        let stats = counters.snapshot();
        (lifetime, stats.not_stored, stats.ttl_clamped)
    }

    #[test]
    fn keeps_what_is_in_range() {
        let rule = TtlRule::given(Duration::from_millis(1_500));
        assert_eq!(apply(&rule, &()), (Some(Duration::from_millis(1_500)), 0, 0));
        assert_eq!(apply(&TtlRule::given(1), &()), (Some(TTL_MIN), 0, 0));
        assert_eq!(apply(&TtlRule::given(99_999_999_u32), &()), (Some(TTL_MAX), 0, 0));
    }

    #[test]
    fn does_not_store_below_a_second() {
        for rule in [
            TtlRule::given(0),
            TtlRule::given(-5_i64),
            TtlRule::given(i128::MIN),
            TtlRule::given(Duration::from_millis(999)),
        ] {
            assert_eq!(apply(&rule, &()), (None, 1, 0));
        }
    }

    #[test]
    fn lowers_what_is_above_the_maximum() {
        for rule in
            [TtlRule::given(100_000_000), TtlRule::given(u128::MAX), TtlRule::given(Duration::MAX)]
        {
            assert_eq!(apply(&rule, &()), (Some(TTL_MAX), 0, 1));
        }
    }

    #[test]
    fn asks_the_value() {
        let rule = TtlRule::of_value(|seconds: &u64| Duration::from_secs(*seconds));
        assert_eq!(apply(&rule, &7).0, Some(Duration::from_secs(7)));
        assert_eq!(apply(&rule, &0).0, None);
    }
}
