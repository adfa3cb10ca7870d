//! Values that are served because computing the next one takes too long.

#![cfg(feature = "macros")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all, poll_immediate};
use support::{bounded, in_time, other, poll_until};
use tokio::sync::Semaphore;
use zerocache_client::{
    ZerocacheClient,
    memo::Call,
    report::{CallOutcome, CallWrite},
    zerocache,
};

/// Short against every wait of these tests, and over in any case when it is looked at.
const SHORT: Duration = Duration::from_millis(1);

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

/// Something to compute that a test holds open: each run takes one permit.
struct Source {
    cache: ZerocacheClient,
    key: &'static str,
    runs: AtomicUsize,
    permits: Semaphore,
}

impl Source {
    fn new(key: &'static str) -> Arc<Self> {
        let (runs, permits) = (AtomicUsize::new(0), Semaphore::new(1));
        Arc::new(Source { cache: other(key), key, runs, permits })
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Fails at every third run, and panics at every fourth.
    async fn run(self: Arc<Self>) -> Result<usize, String> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        self.permits.acquire().await.expect("never closed").forget();
        assert!(!run.is_multiple_of(4), "run {run}");
        if run.is_multiple_of(3) { Err("down".to_owned()) } else { Ok(run) }
    }

    fn call(
        self: &Arc<Self>,
        soft_timeout: Duration,
    ) -> Call<impl Future<Output = Result<usize, String>> + use<>> {
        let source = Arc::clone(self);
        self.cache.get_or_compute(self.key, 1, move || source.run()).soft_timeout(soft_timeout)
    }

    /// Waits until what was stored is no longer fresh.
    async fn past(&self) {
        until(async || self.cache.get(self.key).await.expect("reads").is_none()).await;
    }
}

async fn until(done: impl AsyncFn() -> bool) {
    while !done().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn previous_value_is_served_when_computing_takes_long_and_the_new_one_is_stored() {
    bounded(async {
        let source = Source::new("soft-slow");
        let call = |soft| source.call(soft).stale_while(60);
        assert_eq!(call(SHORT).await, Ok(1), "a miss is computed by its caller");
        source.past().await;
        let (value, report) = call(SHORT).explain().await;
        assert_eq!((value, report.outcome), (Ok(1), CallOutcome::Stale));
        assert!(report.read.is_some());
        until(async || source.runs() == 2).await;
        source.permits.add_permits(1);
        until(async || source.cache.memo_stats().stored == 2).await;
        assert_eq!(call(SHORT).await, Ok(2));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.soft_timeouts, stats.stale_served, stats.refreshed), (1, 1, 1));
        assert_eq!((stats.computed, stats.misses, stats.hits), (2, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn caller_gets_what_is_computed_in_time() {
    bounded(async {
        let source = Source::new("soft-quick");
        source.permits.add_permits(1);
        let call = || source.call(LONG).stale_while(60);
        assert_eq!(call().await, Ok(1));
        source.past().await;
        let (value, report) = call().explain().await;
        assert_eq!((value, report.outcome), (Ok(2), CallOutcome::Refreshed));
        assert!(report.compute_time.is_some());
        assert!(matches!(report.write, Some(CallWrite::Written(_))), "{report:?}");
        source.past().await;
        source.permits.add_permits(2);
        assert_eq!(call().await, Err("down".to_owned()), "its error too");
        let (value, report) = call().explain().await;
        assert_eq!((value, report.outcome), (Ok(2), CallOutcome::Stale), "after a panic");
        let stats = source.cache.memo_stats();
        assert_eq!((stats.computed, stats.stale_served, stats.stored), (3, 1, 2));
    })
    .await;
}

#[tokio::test]
async fn too_long_counts_as_a_failure_for_values_that_are_served_on_errors() {
    bounded(async {
        let source = Source::new("soft-if-error");
        let call = |soft| source.call(soft).stale_if_error(60);
        assert_eq!(call(SHORT).await, Ok(1));
        source.past().await;
        assert_eq!(call(SHORT).await, Ok(1));
        until(async || source.runs() == 2).await;
        // Another caller's computation stands still.
        assert_eq!(join_all((0..5).map(|_| call(SHORT))).await, [const { Ok(1) }; 5]);
        let mut patient = Box::pin(call(LONG));
        assert!(poll_immediate(&mut patient).await.is_none());
        let alone = async || Err::<usize, _>("alone".to_owned());
        let mut without = Box::pin(source.cache.get_or_compute(source.key, 1, alone));
        assert!(poll_immediate(&mut without).await.is_none());
        source.permits.add_permits(1);
        assert_eq!((patient.await, without.await), (Ok(2), Ok(2)));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.soft_timeouts, stats.stale_served), (6, 6));
        assert_eq!((stats.computed, stats.coalesced, stats.wait_timeouts), (2, 2, 0));
    })
    .await;
}

#[tokio::test]
async fn refresh_in_the_background_has_no_waiting_caller_within_stale_while_alone() {
    bounded(async {
        let source = Source::new("background-call");
        let call = |source: &Arc<Source>| {
            let run = Arc::clone(source);
            source.cache.get_or_compute(source.key, 1, move || run.run()).background()
        };
        let stale = || call(&source).stale_while(60);
        assert_eq!(stale().await, Ok(1));
        source.past().await;
        let (value, report) = stale().explain().await;
        assert_eq!((value, report.outcome), (Ok(1), CallOutcome::Stale));
        source.permits.add_permits(1);
        until(async || source.cache.memo_stats().stored == 2).await;
        assert_eq!(stale().await, Ok(2));

        let source = Source::new("background-if-error");
        let kept = || call(&source).stale_if_error(60);
        assert_eq!(kept().await, Ok(1));
        source.past().await;
        let allow = async {
            until(async || source.runs() == 2).await;
            source.permits.add_permits(1);
        };
        assert_eq!(join(kept(), allow).await.0, Ok(2), "not the old value, which is for errors");
    })
    .await;
}

#[tokio::test]
async fn computation_continues_without_its_caller() {
    bounded(async {
        let source = Source::new("soft-dropped");
        let call = || source.call(LONG).stale_while(60);
        assert_eq!(call().await, Ok(1));
        source.past().await;
        let mut dropped = Box::pin(call());
        poll_until(&mut dropped, || source.runs() >= 2).await;
        drop(dropped);
        source.permits.add_permits(1);
        until(async || source.cache.memo_stats().stored == 2).await;
        assert_eq!(source.cache.memo_stats().soft_timeouts, 0);
    })
    .await;
}

#[tokio::test]
async fn caller_without_a_previous_value_waits() {
    bounded(async {
        let source = Source::new("soft-miss");
        source.permits.forget_permits(1);
        let mut call = Box::pin(source.call(SHORT).stale_while(60));
        poll_until(&mut call, || source.runs() >= 1).await;
        let mut follower = Box::pin(source.call(SHORT));
        tokio::time::sleep(10 * SHORT).await;
        assert!(poll_immediate(&mut follower).await.is_none());
        assert!(poll_immediate(&mut call).await.is_none());
        source.permits.add_permits(1);
        assert_eq!((call.await, follower.await), (Ok(1), Ok(1)));
        assert_eq!(source.cache.memo_stats().soft_timeouts, 0);
    })
    .await;
}

#[zerocache(&source.cache, 1, skip(source), stale(if_error = 60), soft_timeout = "1ms")]
async fn value(source: Arc<Source>, test: &'static str) -> Result<usize, String> {
    source.run().await
}

#[tokio::test]
async fn attribute_of_an_async_function() {
    bounded(async {
        let source = Source::new("soft-attribute");
        let call = || value(Arc::clone(&source), "async");
        assert_eq!(call().await, Ok(1));
        until(async || call().peek().await.expect("reads").is_none()).await;
        assert_eq!(call().await, Ok(1));
        until(async || source.runs() == 2).await;
        source.permits.add_permits(1);
        until(async || call().peek().await.expect("reads") == Some(Ok(2))).await;
    })
    .await;
}

#[zerocache(
    &source.cache, 1, skip(source), stale(while = 60, if_error = 120, background),
    soft_timeout = Duration::from_secs(3_600), call = sync_call,
)]
fn background(source: Arc<Source>, test: &'static str) -> Result<usize, String> {
    // The first run is the caller's own; later ones wait until the test lets them.
    let run = source.runs.fetch_add(1, Ordering::SeqCst) + 1;
    while source.permits.try_acquire().map(|permit| permit.forget()).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(run)
}

#[zerocache(
    &source.cache, 1, skip(source), stale(while = 60), soft_timeout = SHORT, near, call = soft_call,
)]
fn soft(source: Arc<Source>, test: &'static str) -> Result<usize, String> {
    let run = source.runs.fetch_add(1, Ordering::SeqCst) + 1;
    while source.permits.try_acquire().map(|permit| permit.forget()).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(run)
}

#[test]
fn attribute_of_sync_functions() {
    in_time(|| {
        let pause = || std::thread::sleep(Duration::from_millis(5));
        let source = Source::new("soft-sync");
        assert_eq!(soft(source.clone(), "soft"), Ok(1));
        while soft_call(source.clone(), "soft").peek().wait().expect("reads").is_some() {
            pause();
        }
        while source.runs() < 2 {
            // The near cache may have it for a moment longer.
            assert_eq!(soft(source.clone(), "soft"), Ok(1));
            pause();
        }
        source.permits.add_permits(2);
        while soft(source.clone(), "soft") != Ok(2) {
            pause();
        }
        // While `background` holds nobody waits, however long the soft timeout is.
        let call = || background(source.clone(), "background");
        assert_eq!(call(), Ok(3));
        while sync_call(source.clone(), "background").peek().wait().expect("reads").is_some() {
            pause();
        }
        assert_eq!(call(), Ok(3));
        source.permits.add_permits(1);
        while call() != Ok(4) {
            pause();
        }
    });
}

#[tokio::test]
async fn waits_for_another_caller_and_for_the_own_computation_are_one() {
    bounded(async {
        let source = Source::new("soft-once");
        let soft = Duration::from_millis(1_500);
        let call = || source.call(soft).stale_if_error(60);
        assert_eq!(call().await, Ok(1));
        source.past().await;
        // It computes in its own caller, and stands still.
        let never = || std::future::pending::<Result<usize, String>>();
        let mut leader = Box::pin(source.cache.get_or_compute(source.key, 1, never));
        poll_until(&mut leader, || source.cache.memo_stats().misses == 2).await;
        let mut caller = Box::pin(call());
        tokio::select! {
            _ = &mut caller => panic!("too early"),
            _ = &mut leader => panic!("it never ends"),
            () = tokio::time::sleep(soft * 9 / 10) => {}
        }
        drop(leader);
        let value = tokio::time::timeout(soft * 8 / 10, caller).await;
        assert_eq!(value.expect("it has waited already"), Ok(1));
        assert_eq!(source.cache.memo_stats().soft_timeouts, 1);
    })
    .await;
}

#[zerocache(
    &source.cache, 1, skip(source), stale(if_error = 60), max_concurrent = 1,
    soft_timeout = Duration::from_secs(3_600),
)]
async fn limited(source: Arc<Source>, key: usize) -> Result<usize, String> {
    source.run().await
}

#[tokio::test]
async fn caller_that_waited_is_counted_by_what_the_other_task_found() {
    bounded(async {
        let source = Source::new("soft-counted");
        let stats = || source.cache.memo_stats();
        let call = |key| limited(Arc::clone(&source), key);
        source.cache.set_memo_wait(LONG);
        assert_eq!(call(1).await, Ok(1));
        until(async || call(1).peek().await.expect("reads").is_none()).await;
        let mut running = Box::pin(call(2));
        poll_until(&mut running, || source.runs() == 2).await;
        let mut first = Box::pin(call(1));
        poll_until(&mut first, || stats().limit_waits == 1).await;
        // The second one leads beside the first, and gets its value in the queue.
        source.cache.set_memo_wait(Duration::from_millis(500));
        let mut second = Box::pin(call(1));
        assert!(poll_immediate(&mut second).await.is_none());
        source.cache.set_memo_wait(LONG);
        poll_until(&mut second, || stats().limit_waits == 2).await;
        source.runs.store(4, Ordering::SeqCst);
        source.permits.add_permits(2);
        assert_eq!(running.await, Ok(2));
        assert_eq!((first.await, second.await), (Ok(5), Ok(5)));
        assert_eq!((stats().coalesced, stats().lease_found, stats().computed), (1, 0, 3));
    })
    .await;
}
