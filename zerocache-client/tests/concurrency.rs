//! Functions of which only so many runs are in progress at a time.

#![cfg(feature = "macros")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all, poll_immediate};
use support::{bounded, builder, in_time, other, poll_until};
use tokio::sync::Semaphore;
use zerocache_client::{ZerocacheClient, memo::LeaseScope, zerocache};

/// Something to compute that a test holds open, and that counts the runs in progress.
struct Source {
    cache: ZerocacheClient,
    runs: AtomicUsize,
    running: AtomicUsize,
    running_max: AtomicUsize,
    permits: Semaphore,
}

impl Source {
    fn new(test: &str) -> Arc<Self> {
        let permits = Semaphore::new(0);
        let [runs, running, running_max] = [0; 3].map(AtomicUsize::new);
        Arc::new(Source { cache: other(test), runs, running, running_max, permits })
    }

    fn begin(&self) -> usize {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.running_max.fetch_max(running, Ordering::SeqCst);
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn end(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    async fn run(&self) -> usize {
        let run = self.begin();
        self.permits.acquire().await.expect("never closed").forget();
        self.end();
        run
    }

    /// The runs so far, and the most that were in progress at a time.
    fn counts(&self) -> (usize, usize) {
        (self.runs.load(Ordering::SeqCst), self.running_max.load(Ordering::SeqCst))
    }
}

#[zerocache(&source.cache, 60, skip(source), max_concurrent = 3)]
async fn three(source: &Source, key: usize) -> usize {
    source.run().await
}

#[tokio::test]
async fn no_more_runs_than_allowed_are_in_progress() {
    bounded(async {
        let source = Source::new("three");
        let mut calls = Vec::new();
        for key in 0..20 {
            // One after the other, so that their order is known.
            let mut call = Box::pin(three(&source, key));
            poll_until(&mut call, || {
                source.counts().0 + source.cache.memo_stats().limit_waits as usize > key
            })
            .await;
            calls.push(call);
        }
        let mut calls = join_all(calls);
        assert_eq!(source.counts(), (3, 3));
        source.permits.add_permits(1);
        poll_until(&mut calls, || source.counts().0 >= 4).await;
        // A caller that goes away gives its place to the next one.
        let mut gone = Box::pin(three(&source, 20));
        assert!(poll_immediate(&mut gone).await.is_none());
        drop(gone);
        // An explicit refresh and a call without the cache are runs like others.
        let more =
            async { (three(&source, 21).refresh().await, three(&source, 22).uncached().await) };
        source.permits.add_permits(100);
        let (mut values, more) = join(calls, more).await;
        assert!(values.is_sorted(), "each in its turn: {values:?}");
        values.extend([more.0, more.1]);
        assert_eq!(source.counts(), (22, 3));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.computed, stats.limit_exceeded), (21, 0));
    })
    .await;
}

#[zerocache(&source.cache, 60, skip(source), max_concurrent = 1)]
async fn one(source: &Source, key: usize, wait: bool) -> usize {
    source.run().await
}

#[tokio::test]
async fn caller_whose_wait_is_over_computes_beside_the_others() {
    bounded(async {
        let source = Source::new("one");
        source.cache.set_memo_wait(Duration::from_millis(1));
        let mut first = Box::pin(one(&source, 1, false));
        poll_until(&mut first, || source.counts().0 >= 1).await;
        let mut second = Box::pin(one(&source, 2, false));
        poll_until(&mut second, || source.counts().0 >= 2).await;
        source.permits.add_permits(2);
        assert_eq!((first.await, second.await), (1, 2));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.limit_waits, stats.limit_exceeded), (1, 1));
    })
    .await;
}

#[zerocache(&source.cache, 1, skip(source), stale(if_error = 60), max_concurrent = 1)]
async fn stale(source: &Source, key: usize) -> Result<usize, ()> {
    Ok(source.run().await)
}

#[tokio::test]
async fn caller_with_a_previous_value_gets_it_at_its_deadline() {
    bounded(async {
        let source = Source::new("stale");
        source.permits.add_permits(1);
        assert_eq!(stale(&source, 1).await, Ok(1));
        while stale(&source, 1).peek().await.expect("reads").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut running = Box::pin(stale(&source, 2));
        poll_until(&mut running, || source.counts().0 >= 2).await;
        let deadline = Duration::from_millis(500);
        assert_eq!(stale(&source, 1).deadline(deadline).await, Ok(1), "the old one");
        source.permits.add_permits(2);
        assert_eq!(running.await, Ok(2));
        assert_eq!(stale(&source, 1).deadline(deadline).await, Ok(3));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.limit_exceeded, stats.stale_served), (0, 1));
        assert_eq!(source.counts(), (3, 1));
    })
    .await;
}

#[zerocache(&source.cache, 60, skip(source), max_concurrent = 1)]
fn depth(source: &Source, n: usize) -> usize {
    source.begin();
    let below = if n == 0 { 0 } else { depth(source, n - 1) + 1 };
    source.end();
    below
}

#[test]
fn function_that_calls_itself_takes_one_place() {
    in_time(|| {
        let source = Source::new("depth");
        assert_eq!(depth(&source, 5), 5);
        let stats = source.cache.memo_stats();
        assert_eq!((stats.computed, stats.limit_waits, stats.limit_exceeded), (6, 0, 0));
    });
}

#[zerocache(
    &source.cache, 2, skip(source), stale(while = 60), ahead = 1, max_concurrent = 1,
)]
async fn refreshed(source: &Source, key: usize) -> usize {
    source.run().await
}

#[tokio::test]
async fn nobody_waits_for_a_place_to_refresh_a_value_that_may_be_served() {
    bounded(async {
        let source = Source::new("refreshed");
        source.cache.set_memo_wait(LONG);
        source.permits.add_permits(1);
        assert_eq!(refreshed(&source, 1).await, 1);
        let mut running = Box::pin(refreshed(&source, 2));
        poll_until(&mut running, || source.counts().0 == 2).await;
        // Ever more of these calls would refresh it ahead of its expiry.
        while refreshed(&source, 1).peek().await.expect("reads").is_some() {
            assert_eq!(refreshed(&source, 1).await, 1);
        }
        assert_eq!(join_all([(); 5].map(|()| refreshed(&source, 1))).await, [1; 5], "stale");
        let stats = source.cache.memo_stats();
        assert_eq!((stats.limit_waits, stats.refreshed, stats.refreshed_ahead), (0, 0, 0));
        assert_eq!((source.counts().0, stats.computed), (2, 1));
        source.permits.add_permits(2);
        assert_eq!((running.await, refreshed(&source, 1).await), (2, 3));
    })
    .await;
}

#[zerocache(
    &source.cache, 1, skip(source), stale(while = 60, background), max_concurrent = 1,
)]
async fn behind_caller(source: Arc<Source>, key: usize) -> usize {
    source.run().await
}

#[tokio::test]
async fn refresh_in_the_background_waits_for_a_place() {
    bounded(async {
        let source = Source::new("refreshed-background");
        let call = |key| behind_caller(Arc::clone(&source), key);
        source.permits.add_permits(1);
        assert_eq!(call(1).await, 1);
        while call(1).peek().await.expect("reads").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut running = Box::pin(call(2));
        poll_until(&mut running, || source.counts().0 == 2).await;
        assert_eq!(call(1).await, 1);
        source.permits.add_permits(2);
        assert_eq!(running.await, 2);
        while call(1).peek().await.expect("reads") != Some(3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stats = source.cache.memo_stats();
        assert_eq!((stats.limit_waits, stats.stale_served, source.counts().1), (1, 1, 1));
    })
    .await;
}

/// Longer than any test: a call that waits so long hangs.
const LONG: Duration = Duration::from_secs(3_600);

#[zerocache(&source.cache, 60, skip(source), max_concurrent = 1)]
async fn nested(source: &Source, is_early: bool, n: usize) -> usize {
    source.run().await;
    if n < 2 { n } else { Box::pin(nested(source, is_early, n - 1)).await + 1 }
}

#[tokio::test]
async fn run_that_calls_its_function_does_not_wait_for_a_call_that_needs_its_place() {
    bounded(async {
        // The other call of the key is in the queue before the run calls the function, or enters it later.
        for is_early in [true, false] {
            let source = Source::new(if is_early { "early" } else { "late" });
            source.cache.set_memo_wait(LONG);
            let is_queued = || source.cache.memo_stats().limit_waits == 1;
            let mut running = Box::pin(nested(&source, is_early, 2));
            poll_until(&mut running, || source.counts().0 == 1).await;
            let mut other = Box::pin(nested(&source, is_early, 1));
            assert!(poll_immediate(&mut other).await.is_none());
            if is_early {
                poll_until(&mut other, is_queued).await;
            }
            source.permits.add_permits(1);
            assert!(poll_immediate(&mut running).await.is_none());
            poll_until(&mut other, is_queued).await;
            source.permits.add_permits(2);
            assert_eq!(join(running, other).await, (2, 1));
            let stats = source.cache.memo_stats();
            assert_eq!((stats.limit_waits, stats.limit_exceeded, stats.wait_timeouts), (1, 0, 0));
        }
    })
    .await;
}

#[zerocache(&source.cache, 60, skip(source), max_concurrent = 1)]
fn nested_sync(source: &Source, n: usize) -> usize {
    source.begin();
    while source.cache.memo_stats().limit_waits == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let value = if n < 2 { n } else { nested_sync(source, n - 1) + 1 };
    source.end();
    value
}

#[test]
fn sync_run_that_calls_its_function_does_not_wait_for_a_call_that_needs_its_place() {
    in_time(|| {
        let source = Source::new("nested-sync");
        source.cache.set_memo_wait(LONG);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| nested_sync(&source, 2));
            while source.counts().0 < 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(nested_sync(&source, 1), 1);
            assert_eq!(running.join().expect("no panic"), 2);
        });
        let stats = source.cache.memo_stats();
        assert_eq!((stats.limit_waits, stats.limit_exceeded, stats.wait_timeouts), (1, 0, 0));
    });
}

#[zerocache(&source.cache, 60, skip(source), max_concurrent = 1)]
async fn beside(source: &Source, n: usize) -> usize {
    source.run().await;
    if n == 2 { Box::pin(beside(source, 3)).await } else { n }
}

#[tokio::test]
async fn run_beside_the_limit_calls_its_function_without_a_place() {
    bounded(async {
        let source = Source::new("beside");
        source.cache.set_memo_wait(Duration::from_millis(1));
        let mut first = Box::pin(beside(&source, 1));
        poll_until(&mut first, || source.counts().0 == 1).await;
        let mut second = Box::pin(beside(&source, 2));
        poll_until(&mut second, || source.counts().0 == 2).await;
        source.permits.add_permits(3);
        assert_eq!((second.await, first.await), (3, 1));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.limit_waits, stats.limit_exceeded), (1, 1));
    })
    .await;
}

#[zerocache(&source.cache, 60, skip(source), max_concurrent = 1)]
async fn behind(source: &Source, key: usize) -> usize {
    source.run().await
}

#[tokio::test]
async fn queued_call_gets_what_another_one_computes_without_its_turn() {
    bounded(async {
        let source = Source::new("superseded");
        source.cache.set_memo_wait(LONG);
        let waits = |n| {
            let cache = source.cache.clone();
            move || cache.memo_stats().limit_waits == n
        };
        let mut running = Box::pin(behind(&source, 1));
        poll_until(&mut running, || source.counts().0 == 1).await;
        let mut leader = Box::pin(behind(&source, 2));
        poll_until(&mut leader, waits(1)).await;
        let mut between = Box::pin(behind(&source, 3));
        poll_until(&mut between, waits(2)).await;
        // It leads beside the other one, and is the last in the queue.
        source.cache.set_memo_wait(Duration::from_millis(500));
        let mut last = Box::pin(behind(&source, 2));
        assert!(poll_immediate(&mut last).await.is_none());
        source.cache.set_memo_wait(LONG);
        poll_until(&mut last, waits(3)).await;
        source.permits.add_permits(2);
        assert_eq!((running.await, leader.await), (1, 2));
        poll_until(&mut between, || source.counts().0 == 3).await;
        assert_eq!(last.await, 2, "while the place is taken");
        source.permits.add_permits(1);
        assert_eq!(between.await, 3);
        assert_eq!(source.cache.memo_stats().coalesced, 1);
    })
    .await;
}

#[zerocache(
    &source.cache, 60, skip(source), max_concurrent = 1, lease(region, life = "1m", wait = "1m"),
)]
async fn leased(source: &Source, key: usize) -> usize {
    source.run().await
}

/// A client that stands for another process which computes `key` under a lease: `value`, when it has a permit.
fn compute_elsewhere<'a>(
    test: &str,
    key: Bytes,
    permits: &'a Semaphore,
    value: usize,
) -> (ZerocacheClient, impl Future<Output = usize> + use<'a>) {
    let cache = builder("london").namespace(test).build().expect("allowed");
    let compute = async move || {
        permits.acquire().await.expect("never closed").forget();
        Ok::<_, ()>(value)
    };
    let call = cache.get_or_compute(key, 60, compute);
    let call = call.lease_within(LeaseScope::Region, A_MINUTE, A_MINUTE);
    (cache, async move { call.await.expect("works") })
}

const A_MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn queued_call_has_no_lease_and_gets_what_another_process_stores() {
    bounded(async {
        let source = Source::new("leased-queue");
        let mut running = Box::pin(leased(&source, 1));
        poll_until(&mut running, || source.counts().0 == 1).await;
        let mut queued = Box::pin(leased(&source, 2));
        poll_until(&mut queued, || source.cache.memo_stats().limit_waits == 1).await;
        let key = leased(&source, 2).key().expect("has one");
        let permits = Semaphore::new(1);
        let (_, elsewhere) = compute_elsewhere("leased-queue-2", key, &permits, 7);
        assert_eq!(elsewhere.await, 7);
        source.permits.add_permits(1);
        assert_eq!((running.await, queued.await), (1, 7));
        let stats = source.cache.memo_stats();
        assert_eq!((source.counts().0, stats.lease_found, stats.leases_granted), (1, 1, 1));
    })
    .await;
}

#[zerocache(
    &source.cache, 60, skip(source), max_concurrent = 1, lease(region, life = "1m", wait = "1m"),
)]
async fn contended(source: &Source, key: usize) -> usize {
    source.run().await
}

#[tokio::test]
async fn call_takes_no_place_while_another_process_has_the_lease() {
    bounded(async {
        let source = Source::new("leased-elsewhere");
        let key = contended(&source, 11).key().expect("has one");
        let permits = Semaphore::new(0);
        let (other, elsewhere) = compute_elsewhere("leased-elsewhere-2", key, &permits, 7);
        let mut elsewhere = Box::pin(elsewhere);
        poll_until(&mut elsewhere, || other.memo_stats().leases_granted == 1).await;
        let mut waiting = Box::pin(contended(&source, 11));
        // It has the place when it has read the cache.
        poll_until(&mut waiting, || source.cache.memo_stats().misses == 1).await;
        let mut running = Box::pin(contended(&source, 12));
        poll_until(&mut join(&mut waiting, &mut running), || source.counts().0 == 1).await;
        let waits = source.cache.memo_stats().limit_waits;
        // The other process gives up. Who waited gets the lease, has no place, and passes it on.
        drop(elsewhere);
        poll_until(&mut waiting, || source.cache.memo_stats().limit_waits == waits + 1).await;
        let key = contended(&source, 11).key().expect("has one");
        let (_, elsewhere) = compute_elsewhere("leased-elsewhere-3", key, &permits, 8);
        permits.add_permits(1);
        assert_eq!(elsewhere.await, 8);
        source.permits.add_permits(1);
        assert_eq!((running.await, waiting.await), (1, 8));
        let stats = source.cache.memo_stats();
        assert_eq!((source.counts().0, stats.lease_found, stats.leases_granted), (1, 1, 1));
        assert_eq!((stats.lease_busy, stats.limit_exceeded), (0, 0));
    })
    .await;
}

const TWO: usize = 2;

#[zerocache(&source.cache, 60, skip(source), max_concurrent = TWO, call = blocking_call)]
fn blocking(source: &Source, key: usize) -> usize {
    let run = source.begin();
    std::thread::sleep(Duration::from_millis(2));
    source.end();
    run
}

#[test]
fn sync_function_and_its_sibling_have_one_limit() {
    in_time(|| {
        let source = Source::new("sync-limit");
        std::thread::scope(|scope| {
            for key in 0..20 {
                let source = &source;
                scope.spawn(move || match key % 2 {
                    0 => blocking(source, key),
                    _ => blocking_call(source, key).wait(),
                });
            }
        });
        assert_eq!(source.counts(), (20, 2));
        assert_eq!(source.cache.memo_stats().limit_exceeded, 0);
    });
}
