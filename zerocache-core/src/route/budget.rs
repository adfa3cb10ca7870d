//! One deadline for an operation: subtracted from, never restarted.

use crate::time::Instant;

/// The time that is left for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    deadline: Instant,
}

impl Budget {
    /// A budget of `total_ms` from `now` on.
    #[must_use]
    pub const fn new(now: Instant, total_ms: u64) -> Self {
        Self { deadline: now.plus_ms(total_ms) }
    }

    /// What is left at `now`, in milliseconds.
    #[must_use]
    pub const fn remaining_ms(self, now: Instant) -> u64 {
        self.deadline.since_ms(now)
    }

    /// At most `bound_ms` of what is left, none when nothing is.
    #[must_use]
    pub fn clip(self, now: Instant, bound_ms: u64) -> Option<u64> {
        Some(self.remaining_ms(now).min(bound_ms)).filter(|ms| *ms > 0)
    }
}
