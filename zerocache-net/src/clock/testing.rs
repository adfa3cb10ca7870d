//! Clocks of tests: each runs with the time of a runtime, which may be paused, and can be moved.
//!
//! A thread that has entered one reads it wherever this process reads a clock; all others read the system's.

use std::{
    cell::RefCell,
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use zerocache_core::time::Now;

thread_local! {
    static CURRENT: RefCell<Option<Arc<TestClock>>> = const { RefCell::new(None) };
}

/// A clock of a test.
pub struct TestClock {
    /// What the system's clock read when this one began.
    begun: Duration,
    /// The runtime that the test is inside of, and what its clock read then.
    runtime: Option<Handle>,
    runtime_begun: Instant,
    moved_ns: AtomicU64,
}

impl TestClock {
    /// Begins a clock that reads what the system's does, and goes with that of the runtime that the caller is inside
    /// of. Outside of any it goes with real time.
    #[must_use]
    pub fn start() -> Arc<Self> {
        let runtime = Handle::try_current().ok();
        Arc::new(Self {
            begun: super::system_monotonic(),
            runtime,
            runtime_begun: runtime_now(),
            moved_ns: AtomicU64::new(0),
        })
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        // The closure always gives a value.
        let _ = self.moved_ns.fetch_update(SeqCst, SeqCst, |ns| Some(ns.saturating_add(by)));
    }

    /// Returns what it reads.
    #[must_use]
    pub fn now(&self) -> Now {
        super::at(super::anchor(), self.monotonic())
    }

    /// Makes this thread read this clock until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> EnteredClock {
        EnteredClock { before: CURRENT.replace(Some(Arc::clone(self))), of_thread: PhantomData }
    }

    /// Makes this thread read this clock from now on.
    pub fn enter_for_good(self: &Arc<Self>) {
        CURRENT.set(Some(Arc::clone(self)));
    }

    fn monotonic(&self) -> Duration {
        let passed = {
            let _inside = self.runtime.as_ref().map(Handle::enter);
            runtime_now().saturating_duration_since(self.runtime_begun)
        };
        self.begun + passed + Duration::from_nanos(self.moved_ns.load(SeqCst))
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClock").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// See [`TestClock::enter`].
#[derive(Debug)]
pub struct EnteredClock {
    before: Option<Arc<TestClock>>,
    /// It belongs to its thread.
    of_thread: PhantomData<*const ()>,
}

impl Drop for EnteredClock {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// Returns the time of a thread that has entered a clock.
pub(super) fn monotonic() -> Option<Duration> {
    CURRENT.with_borrow(|clock| clock.as_ref().map(|clock| clock.monotonic()))
}

#[expect(clippy::disallowed_methods, reason = "the runtime's own clock, which may be paused")]
fn runtime_now() -> Instant {
    Instant::now()
}
