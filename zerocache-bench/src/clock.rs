//! The one place where the benchmark reads a clock: what is measured is time itself.

use std::time::Instant;

/// The present moment.
#[expect(clippy::disallowed_methods, reason = "the clock module of the benchmark")]
pub fn now() -> Instant {
    Instant::now()
}
