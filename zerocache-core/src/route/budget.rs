//! The deadline of an operation: each step takes from it, and nothing extends it.

use crate::time::Instant;

/// The time left for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    deadline: Instant,
}

impl Budget {
    /// A budget of `total_ms`, starting at `now`.
    #[must_use]
    pub const fn new(now: Instant, total_ms: u64) -> Self {
        Self { deadline: now.plus_ms(total_ms) }
    }

    /// When it ends.
    #[must_use]
    pub const fn deadline(self) -> Instant {
        self.deadline
    }

    /// The time left at `now`, in milliseconds.
    #[must_use]
    pub const fn remaining_ms(self, now: Instant) -> u64 {
        self.deadline.since_ms(now)
    }

    /// The time left, at most `bound_ms`; none when the deadline has passed.
    #[must_use]
    pub fn clip(self, now: Instant, bound_ms: u64) -> Option<u64> {
        Some(self.remaining_ms(now).min(bound_ms)).filter(|ms| *ms > 0)
    }
}
