//! User code that panics leaves nobody waiting: neither in this process nor for its lease.

#![cfg(feature = "macros")]

mod support;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::poll_immediate;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{bounded, other};
use tokio::sync::Semaphore;
use zerocache_client::{ZerocacheClient, memo::LeaseScope, report::LeaseOutcome, zerocache};

/// Where the next one who comes by panics.
static WRITING: AtomicBool = AtomicBool::new(false);
static READING: AtomicBool = AtomicBool::new(false);
static CLONING: AtomicBool = AtomicBool::new(false);
static JUDGING: AtomicBool = AtomicBool::new(false);
static LIVING: AtomicBool = AtomicBool::new(false);

fn trip(place: &AtomicBool) {
    assert!(!place.swap(false, Ordering::SeqCst), "on purpose");
}

#[derive(Debug, PartialEq)]
struct Worth(u64);

impl Serialize for Worth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        trip(&WRITING);
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Worth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        trip(&READING);
        u64::deserialize(deserializer).map(Worth)
    }
}

#[derive(Debug, PartialEq)]
struct Problem;

impl Clone for Problem {
    fn clone(&self) -> Self {
        trip(&CLONING);
        Problem
    }
}

#[zerocache(
    cache,
    |_: &Worth| { trip(&LIVING); 60 },
    key = key,
    cache_if = |_: &Worth| { trip(&JUDGING); true },
    lease(region, life = "5m", wait = "1m"),
)]
async fn worth(cache: &ZerocacheClient, key: &str, gate: &Semaphore) -> Result<Worth, Problem> {
    gate.acquire().await.expect("never closed").forget();
    if key == "clone" { Err(Problem) } else { Ok(Worth(7)) }
}

/// A leader and one who waits for it, and then a panic of the leader's at `place`.
async fn panics_at(place: &AtomicBool, key: &'static str) {
    let cache = other("panics");
    // Long enough to be told from a wait that ended.
    cache.set_memo_wait(Duration::from_secs(60));
    let gate = Semaphore::new(0);
    let call = || {
        worth(&cache, key, &gate).lease_within(
            LeaseScope::Region,
            Duration::from_secs(300),
            Duration::from_secs(60),
        )
    };
    let leases = cache.memo_stats().leases_granted;
    let mut leader = Box::pin(AssertUnwindSafe(call()).catch_unwind());
    while cache.memo_stats().leases_granted == leases {
        assert!(poll_immediate(&mut leader).await.is_none());
        tokio::task::yield_now().await;
    }
    let mut waiter = Box::pin(call().explain());
    assert!(poll_immediate(&mut waiter).await.is_none(), "{key}");
    gate.add_permits(10);
    place.store(true, Ordering::SeqCst);
    assert!(leader.await.is_err(), "{key}: the leader panics");
    let expected = if key == "clone" { Err(Problem) } else { Ok(Worth(7)) };
    let (value, report) = waiter.await;
    assert_eq!(value, expected, "{key}");
    // Its lease is not left standing either: the next one gets it, or hears that there is none.
    assert!(
        matches!(report.lease, Some(LeaseOutcome::Granted | LeaseOutcome::Busy)),
        "{key}: {report}"
    );
    assert_eq!(call().await, expected, "{key}");
    assert_eq!(cache.memo_stats().wait_timeouts, 0, "{key}");
}

// One test: the places are the process's.
#[tokio::test]
async fn panic_in_user_code_leaves_nobody_waiting() {
    bounded(async {
        panics_at(&WRITING, "write").await;
        panics_at(&JUDGING, "judge").await;
        panics_at(&LIVING, "live").await;
        panics_at(&CLONING, "clone").await;
        // The first value was read back; here a read is what panics.
        let (cache, gate) = (other("panics"), Semaphore::new(1));
        let call = || worth(&cache, "read", &gate);
        assert_eq!(call().await, Ok(Worth(7)));
        READING.store(true, Ordering::SeqCst);
        assert!(AssertUnwindSafe(call()).catch_unwind().await.is_err());
        assert_eq!(call().await, Ok(Worth(7)));
        assert_eq!(cache.memo_stats().wait_timeouts, 0);
    })
    .await;
}
