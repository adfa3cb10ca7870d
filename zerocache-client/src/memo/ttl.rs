//! Lifetimes of memoized values.
//!
//! A lifetime never fails a call. Zero, a negative lifetime or one below a second means "do not store": the
//! value must not be kept for longer than intended. A lifetime above the maximum is lowered to it, and
//! counted.

use std::time::Duration;

use crate::counters::{MemoCounters, count};
use crate::lifetime::Lifetime;

/// The longest lifetime that a node accepts.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(99_999_999);

/// The shortest lifetime that a node accepts.
pub(crate) const TTL_MIN: Duration = Duration::from_secs(1);

/// Converts a time that is an expression in the attribute.
pub fn duration(time: impl Lifetime) -> Duration {
    time.into_duration()
}

/// The lifetime of a call's value: fixed, or computed from the value.
pub struct TtlRule<T>(Rule<T>);

enum Rule<T> {
    Fixed(Duration),
    OfValue(Box<dyn Fn(&T) -> Duration + Send + Sync>),
}

impl<T> TtlRule<T> {
    /// Creates a fixed lifetime of seconds that the attribute has validated.
    pub fn seconds(seconds: u64) -> Self {
        TtlRule(Rule::Fixed(Duration::from_secs(seconds)))
    }

    /// Creates a fixed lifetime from an expression.
    pub fn given(lifetime: impl Lifetime) -> Self {
        TtlRule(Rule::Fixed(lifetime.into_duration()))
    }

    /// Creates a lifetime that is computed from the value. A closure without captures costs no allocation.
    pub(crate) fn of_value(rule: impl Fn(&T) -> Duration + Send + Sync + 'static) -> Self {
        TtlRule(Rule::OfValue(Box::new(rule)))
    }

    /// Returns the lifetime of `value`; `None` if the value is not stored.
    pub(crate) fn apply(&self, value: &T, counters: &MemoCounters) -> Option<Duration> {
        let lifetime = match &self.0 {
            Rule::Fixed(lifetime) => *lifetime,
            Rule::OfValue(rule) => rule(value),
        };
        checked(lifetime, counters)
    }
}

/// Returns the lifetime as nodes accept it; `None` if the value is not stored.
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
    fn lifetime_in_range_is_kept() {
        let rule = TtlRule::given(Duration::from_millis(1_500));
        assert_eq!(apply(&rule, &()), (Some(Duration::from_millis(1_500)), 0, 0));
        assert_eq!(apply(&TtlRule::given(1), &()), (Some(TTL_MIN), 0, 0));
        assert_eq!(apply(&TtlRule::given(99_999_999_u32), &()), (Some(TTL_MAX), 0, 0));
    }

    #[test]
    fn value_with_a_lifetime_below_a_second_is_not_stored() {
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
    fn lifetime_above_the_maximum_is_lowered() {
        for rule in
            [TtlRule::given(100_000_000), TtlRule::given(u128::MAX), TtlRule::given(Duration::MAX)]
        {
            assert_eq!(apply(&rule, &()), (Some(TTL_MAX), 0, 1));
        }
    }

    #[test]
    fn lifetime_is_computed_from_the_value() {
        let rule = TtlRule::of_value(|seconds: &u64| Duration::from_secs(*seconds));
        assert_eq!(apply(&rule, &7).0, Some(Duration::from_secs(7)));
        assert_eq!(apply(&rule, &0).0, None);
    }
}
