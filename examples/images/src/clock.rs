//! The example's one reading of the clock.

use std::time::Instant;

/// The present moment.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}
