//! The clock of tests with paused time: it advances with the time of the runtime.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

thread_local! {
    static BEGUN: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
}

/// Makes this thread's clock follow its runtime until the guard is dropped.
pub(crate) fn follow_runtime() -> FollowGuard {
    BEGUN.set(Some((super::system_monotonic(), runtime_now())));
    FollowGuard
}

/// See [`follow_runtime`].
pub(crate) struct FollowGuard;

impl Drop for FollowGuard {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

/// Returns the time of a thread whose clock follows its runtime.
pub(super) fn monotonic() -> Option<Duration> {
    BEGUN.get().map(|(mono, begun)| mono + runtime_now().duration_since(begun))
}

#[expect(clippy::disallowed_methods, reason = "the runtime's own clock, which is paused")]
fn runtime_now() -> Instant {
    Instant::now()
}
