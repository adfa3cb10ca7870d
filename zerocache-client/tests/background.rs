//! Refreshes behind the caller's back, where the function asks for it.

#![cfg(feature = "macros")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use support::{bounded, current_thread, in_time, other};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use zerocache_client::{ZerocacheClient, report::CallOutcome, zerocache};

/// Something to compute that a test holds open: each run takes one permit.
struct Source {
    cache: ZerocacheClient,
    runs: AtomicUsize,
    permits: Semaphore,
}

impl Source {
    fn new(test: &str) -> Arc<Self> {
        let (runs, permits) = (AtomicUsize::new(0), Semaphore::new(1));
        Arc::new(Source { cache: other(test), runs, permits })
    }

    fn run(&self) -> usize {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }
}

#[zerocache(&source.cache, 1, skip(source), stale(while = 60, background))]
async fn value(source: Arc<Source>, test: &'static str) -> usize {
    let run = source.run();
    source.permits.acquire().await.expect("never closed").forget();
    run
}

#[zerocache(&source.cache, 1, skip(source), stale(while = 60, background), call = sync_call)]
fn sync(source: Arc<Source>, test: &'static str) -> usize {
    // The first run is the caller's own; later ones wait until the test lets them.
    let run = source.run();
    while source.permits.try_acquire().map(|permit| permit.forget()).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    run
}

async fn until<F: Future<Output = bool>>(done: impl Fn() -> F) {
    while !done().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nobody_waits_for_a_refresh_in_the_background() {
    bounded(async {
        let source = Source::new("background");
        let call = || value(source.clone(), "tasks");
        let peek = || async { call().peek().await.expect("reads") };
        assert_eq!(call().await, 1, "a miss is computed by its caller");
        until(|| async { peek().await.is_none() }).await;
        let (old, report) = call().explain().await;
        assert_eq!((old, report.outcome), (1, CallOutcome::Stale));
        until(|| async { source.runs.load(Ordering::SeqCst) == 2 }).await;
        // The second run stands still.
        for _ in 0..10 {
            assert_eq!(call().await, 1);
        }
        source.permits.add_permits(1);
        until(|| async { peek().await == Some(2) }).await;
        // The node has it a moment before its writer knows.
        until(|| async { source.cache.memo_stats().stored == 2 }).await;
        let stats = source.cache.memo_stats();
        assert_eq!(stats.computed, 2, "one refreshed");
        assert_eq!((stats.refreshed, stats.misses), (1, 1));
        assert_eq!(stats.stale_served, 11, "who set it off, and those who came meanwhile");
    })
    .await;
}

#[test]
fn sync_function_is_refreshed_on_another_thread() {
    in_time(|| {
        let source = Source::new("background-sync");
        let call = || sync(source.clone(), "threads");
        let peek = || sync_call(source.clone(), "threads").peek().wait().expect("reads");
        assert_eq!(call(), 1);
        let pause = || std::thread::sleep(Duration::from_millis(5));
        while peek().is_some() {
            pause();
        }
        // Outside of any runtime: the client's own runs it.
        assert_eq!(call(), 1);
        while source.runs.load(Ordering::SeqCst) < 2 {
            pause();
        }
        assert_eq!(call(), 1);
        // And inside of one, whose only thread is blocked meanwhile.
        current_thread(async { assert_eq!(call(), 1) });
        source.permits.add_permits(1);
        while peek() != Some(2) {
            pause();
        }
        assert_eq!(source.cache.memo_stats().computed, 2);
    });
}

/// Has a runtime serve the old value, and set off what computes the next one.
fn refresh_from(runtime: &Runtime, source: &Arc<Source>, test: &'static str) {
    let call = || value(source.clone(), test);
    runtime.block_on(bounded(async {
        assert_eq!(call().await, 1);
        until(|| async { call().peek().await.expect("reads").is_none() }).await;
        assert_eq!(call().await, 1, "the old one");
    }));
}

#[test]
fn background_refresh_completes_without_the_callers_runtime() {
    in_time(|| {
        let source = Source::new("background-undriven");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        refresh_from(&runtime, &source, "undriven");
        source.permits.add_permits(1);
        // The runtime is there, and nobody runs what is on it.
        while source.cache.memo_stats().stored < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(runtime);
        assert_eq!(source.cache.memo_stats().wait_timeouts, 0);
    });
}

#[test]
fn refresh_of_a_runtime_that_ends_is_taken_over() {
    in_time(|| {
        let source = Source::new("background-ended");
        let call = || value(source.clone(), "ended");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        refresh_from(&runtime, &source, "ended");
        while source.runs.load(Ordering::SeqCst) < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // With it ends the task, which stands still.
        drop(runtime);
        source.permits.add_permits(1);
        current_thread(bounded(async {
            until(|| async { call().await == 3 }).await;
        }));
        assert_eq!(source.cache.memo_stats().wait_timeouts, 0);
    });
}

#[zerocache(&source.cache, 1, skip(source), stale(while = 60, background))]
async fn hogging(source: Arc<Source>, test: &'static str) -> usize {
    let run = source.run();
    // Does not yield, which it should not do.
    while source.permits.try_acquire().map(|permit| permit.forget()).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    run
}

#[tokio::test]
async fn refresh_that_blocks_its_thread_does_not_stop_io() {
    bounded(async {
        let source = Source::new("background-hogging");
        let tests = ["a", "b", "c", "d"];
        source.permits.add_permits(tests.len() - 1);
        for test in tests {
            hogging(source.clone(), test).await;
        }
        for test in tests {
            let call = || hogging(source.clone(), test);
            until(|| async { call().peek().await.expect("reads").is_none() }).await;
            call().await;
        }
        // More than there are threads stand still, and the client works; in blocking code too, which
        // leaves all to it.
        source.cache.put("hogging", "x", 60).wait().expect("stores");
        assert!(source.cache.get("hogging").wait().expect("reads").is_some());
        source.permits.add_permits(tests.len());
        until(|| async { source.cache.memo_stats().stored == 8 }).await;
    })
    .await;
}

#[zerocache(&source.cache, 1, skip(source), lease = region, stale(while = 60, background))]
async fn leased(source: Arc<Source>, test: &'static str) -> usize {
    let run = source.run();
    source.permits.acquire().await.expect("never closed").forget();
    run
}

#[tokio::test]
async fn background_refresh_does_not_wait_for_its_lease() {
    bounded(async {
        let source = Source::new("background-leased");
        let call = || leased(source.clone(), "leased");
        assert_eq!(call().await, 1);
        until(|| async { call().peek().await.expect("reads").is_none() }).await;
        let (old, report) = call().explain().await;
        assert_eq!((old, report.outcome, report.lease), (1, CallOutcome::Stale, None));
        source.permits.add_permits(1);
        until(|| async { source.cache.memo_stats().stored == 2 }).await;
        let stats = source.cache.memo_stats();
        assert_eq!((stats.leases_granted, stats.stale_served, stats.computed), (2, 1, 2));
    })
    .await;
}

static DECODED: AtomicUsize = AtomicUsize::new(0);

/// Counts how often one is decoded.
#[derive(Debug, PartialEq, Serialize)]
struct Counted(usize);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::SeqCst);
        usize::deserialize(deserializer).map(Counted)
    }
}

#[zerocache(&source.cache, 1, skip(source), stale(while = 60, background))]
async fn counted(source: Arc<Source>, test: &'static str) -> Counted {
    let run = source.run();
    source.permits.acquire().await.expect("never closed").forget();
    Counted(run)
}

#[tokio::test]
async fn previous_value_is_decoded_once() {
    bounded(async {
        let source = Source::new("background-decoded");
        let call = || counted(source.clone(), "decoded");
        assert_eq!(call().await, Counted(1));
        until(|| async { call().peek().await.expect("reads").is_none() }).await;
        let before = DECODED.load(Ordering::SeqCst);
        assert_eq!(call().await, Counted(1));
        // The run stands still.
        until(|| async { source.runs.load(Ordering::SeqCst) == 2 }).await;
        assert_eq!(DECODED.load(Ordering::SeqCst) - before, 1);
    })
    .await;
}
