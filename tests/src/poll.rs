//! Waiting for a condition, with a bound, instead of sleeping for as long as it usually takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zerocache_net::clock;

/// Longer than anything here takes, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two probes.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls until `probe` returns a value.
///
/// # Panics
///
/// If it finds nothing for [`PATIENCE`]; `what` describes the awaited condition.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    let _after = time_until(PATIENCE, || {
        found = probe();
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("awaited in vain: {what}"))
}

/// Polls until `probe` holds.
///
/// # Panics
///
/// As [`until`] does.
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) {
    until(what, || probe().then_some(()));
}

/// Polls until `probe` holds, and lets other tasks run meanwhile.
///
/// # Panics
///
/// As [`until`] does.
pub async fn until_true_async(what: &str, mut probe: impl FnMut() -> bool) {
    let started = clock::elapsed();
    while !probe() {
        let passed = clock::elapsed().saturating_sub(started);
        assert!(passed < PATIENCE, "awaited in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Polls until a probe that does I/O of its own holds.
///
/// # Panics
///
/// As [`until`] does.
pub async fn until_async(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let started = clock::elapsed();
    while !probe().await {
        let passed = clock::elapsed().saturating_sub(started);
        assert!(passed < PATIENCE, "awaited in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns the time until `probe` holds; none if it does not within `bound`.
pub fn time_until(bound: Duration, mut probe: impl FnMut() -> bool) -> Option<Duration> {
    let started = clock::elapsed();
    loop {
        let held = probe();
        let passed = clock::elapsed().saturating_sub(started);
        if held {
            return Some(passed);
        }
        if passed >= bound {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Lets time pass, where time itself is what a measurement is about.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Returns the result of `work`, and its duration.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = clock::elapsed();
    let result = work();
    (result, clock::elapsed().saturating_sub(started))
}

/// A flag that stops threads, also when the test that started them panics.
#[derive(Debug, Default)]
pub struct StopFlag(AtomicBool);

impl StopFlag {
    /// Returns whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns a guard that sets the flag when dropped.
    #[must_use]
    pub fn set_on_drop(&self) -> impl Drop + '_ {
        struct SetOnDrop<'a>(&'a AtomicBool);
        impl Drop for SetOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        SetOnDrop(&self.0)
    }
}
