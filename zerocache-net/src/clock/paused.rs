//! The clock of tests whose runtime has its time paused: it advances with the runtime's.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

thread_local! {
    static BEGUN: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
}

/// Has this thread's clock follow its runtime until the result is dropped.
pub(crate) fn follow() -> Following {
    BEGUN.set(Some((super::system_monotonic(), runtime_now())));
    Following
}

/// See [`follow`].
pub(crate) struct Following;

impl Drop for Following {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

/// The time of a thread that follows its runtime.
pub(super) fn monotonic() -> Option<Duration> {
    BEGUN.get().map(|(mono, begun)| mono + runtime_now().duration_since(begun))
}

#[expect(clippy::disallowed_methods, reason = "the runtime's own clock, which is paused")]
fn runtime_now() -> Instant {
    Instant::now()
}
