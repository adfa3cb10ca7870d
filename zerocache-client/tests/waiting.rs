//! Callers who wait for a computation that takes longer than they wait.

#![cfg(feature = "macros")]

mod support;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use support::gate::{Gate, waiters};
use support::{bounded, current_thread, in_time, other};
use tokio::sync::Semaphore;
use zerocache_client::{ZerocacheClient, report::CallWrite, zerocache};

#[zerocache(&gate.cache, 60, key = test)]
async fn value(gate: Arc<Gate>, test: &'static str) -> usize {
    gate.pass().await
}

/// A client whose calls wait for so long.
fn patient(test: &str, wait_ms: u64) -> ZerocacheClient {
    let cache = other(test);
    cache.set_memo_wait(Duration::from_millis(wait_ms));
    cache
}

/// Waits for so many runs.
async fn runs(gate: &Gate, count: usize) {
    while gate.runs() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn expired_followers_compute_one_at_a_time() {
    bounded(async {
        let gate = Gate::of(patient("herd", 50));
        let calls: Vec<_> = (0..500).map(|_| tokio::spawn(value(gate.clone(), "herd"))).collect();
        runs(&gate, 3).await;
        gate.permits.add_permits(500);
        for value in join_all(calls).await {
            value.expect("no panic");
        }
        // Three, and on a machine that stands still some more; not all of them.
        assert!(gate.runs() < 100, "{} runs", gate.runs());
        let stats = gate.cache.memo_stats();
        assert_eq!((stats.stored, stats.computed), (1, gate.runs() as u64));
        assert_eq!(stats.coalesced + stats.computed, 500);
        assert_eq!(stats.wait_timeouts, stats.computed - 1);
    })
    .await;
}

/// Polls those who wait until so many compute.
async fn drive<F: Future>(waiting: &mut Pin<Box<F>>, gate: &Gate, count: usize) {
    while gate.runs() < count {
        assert!(poll_immediate(&mut *waiting).await.is_none());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn first_finished_leader_publishes_for_all() {
    bounded(async {
        let gate = Gate::of(patient("second-first", 20));
        let call = || value(gate.clone(), "second first");
        let (first, waiters) = waiters(20, || call().explain(), &gate).await;
        let mut waiters = Box::pin(join_all(waiters));
        drive(&mut waiters, &gate, 2).await;
        // The first permit goes to the first one, who does not come for it now.
        gate.permits.add_permits(100);
        let values: Vec<_> = waiters.await.into_iter().map(|(value, _)| value).collect();
        let stored = call().peek().await.expect("reads").expect("is there");
        assert_ne!(stored, 0);
        // The others computed it, each for itself: one, as a rule.
        let shared = values.iter().filter(|value| **value == stored).count();
        assert_eq!(shared + gate.runs(), 22);
        // What is done later is its caller's, and does not replace what is newer.
        let (value, report) = first.await;
        assert_eq!(value, 0);
        assert!(matches!(report.write, Some(CallWrite::NotStored)), "{report}");
        assert_eq!(call().await, stored);
        assert_eq!(gate.cache.memo_stats().stored, 1);
    })
    .await;
}

#[tokio::test]
async fn cancelled_leaders_do_not_affect_other_keys() {
    bounded(async {
        for cancel_first in [true, false] {
            let gate = Gate::of(patient("second-cancelled", 20));
            let test = if cancel_first { "first" } else { "second" };
            let call = || value(gate.clone(), test);
            let first = tokio::spawn(call());
            runs(&gate, 1).await;
            let second = tokio::spawn(call());
            runs(&gate, 2).await;
            // From now on nobody else leads.
            gate.cache.set_memo_wait(Duration::from_secs(60));
            let mut waiter = Box::pin(call());
            assert!(poll_immediate(&mut waiter).await.is_none());
            let (cancelled, left) = if cancel_first { (first, second) } else { (second, first) };
            cancelled.abort();
            assert!(cancelled.await.expect_err("aborted").is_cancelled());
            assert!(poll_immediate(&mut waiter).await.is_none(), "the other one computes");
            gate.permits.add_permits(1);
            let value = usize::from(cancel_first);
            assert_eq!((left.await.expect("no panic"), waiter.await), (value, value));
            assert_eq!(gate.runs(), 2);
        }
    })
    .await;
}

#[zerocache(&gate.cache, 60, key = test)]
async fn panics_second(gate: Arc<Gate>, test: &'static str) -> usize {
    let run = gate.runs();
    assert_ne!(run, 1, "the second run panics on purpose");
    gate.pass().await
}

#[tokio::test]
async fn panic_of_a_second_leader_keeps_the_first() {
    bounded(async {
        let gate = Gate::of(patient("second-panics", 20));
        let call = || panics_second(gate.clone(), "panics");
        let first = tokio::spawn(call());
        runs(&gate, 1).await;
        let second = tokio::spawn(call());
        assert!(second.await.expect_err("panicked").is_panic());
        gate.cache.set_memo_wait(Duration::from_secs(60));
        let mut waiter = Box::pin(call());
        assert!(poll_immediate(&mut waiter).await.is_none());
        gate.permits.add_permits(1);
        assert_eq!((first.await.expect("no panic"), waiter.await), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn invalidation_reaches_all_leaders() {
    bounded(async {
        let gate = Gate::of(patient("second-void", 20));
        let call = || value(gate.clone(), "void");
        let first = tokio::spawn(call());
        runs(&gate, 1).await;
        let second = tokio::spawn(call());
        runs(&gate, 2).await;
        call().invalidate().await.expect("deletes");
        gate.permits.add_permits(2);
        let values = (first.await.expect("no panic"), second.await.expect("no panic"));
        assert!(values == (0, 1) || values == (0, 0) || values == (1, 1), "{values:?}");
        assert_eq!(call().peek().await.expect("reads"), None);
        assert_eq!(gate.cache.memo_stats().stored, 0);
    })
    .await;
}

#[tokio::test]
async fn waits_are_bounded() {
    bounded(async {
        let gate = Gate::of(patient("for-ever", 20));
        let call = || value(gate.clone(), "for ever");
        // Whoever leads stands still: a thousand after each other would take 20 s.
        let calls = (0..1_000).map(|_| tokio::spawn(call()));
        let calls: Vec<_> = calls.collect();
        runs(&gate, 1_000).await;
        gate.permits.add_permits(1_000);
        for value in join_all(calls).await {
            value.expect("no panic");
        }
    })
    .await;
}

static HELD_RUNS: AtomicUsize = AtomicUsize::new(0);

#[zerocache(cache, 60, key = (), call = held_call)]
fn held(cache: &ZerocacheClient, barrier: Arc<Barrier>) -> Result<usize, usize> {
    let run = HELD_RUNS.fetch_add(1, Ordering::SeqCst);
    if run == 0 {
        barrier.wait();
        barrier.wait();
        panic!("on purpose: it leaves the others an async leader");
    }
    Ok(run)
}

#[test]
fn blocking_caller_does_not_wait_for_a_remaining_async_leader() {
    in_time(|| {
        let barrier = Arc::new(Barrier::new(2));
        let blocking = |cache: ZerocacheClient| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || held(&cache, barrier))
        };
        let first = blocking(other("held-first"));
        barrier.wait();
        let (short, long) = (patient("held-async", 20), patient("held-blocking", 60_000));
        current_thread(async {
            let key = held_call(&short, Arc::clone(&barrier)).key().expect("has a key");
            let started = Semaphore::new(0);
            let mut second = Box::pin(short.get_or_compute(key, 60, async || {
                started.add_permits(1);
                std::future::pending::<Result<usize, usize>>().await
            }));
            while started.available_permits() == 0 {
                assert!(poll_immediate(&mut second).await.is_none());
                tokio::task::yield_now().await;
            }
            let third = blocking(long.clone());
            barrier.wait();
            assert!(first.join().is_err(), "it panicked");
            // This thread is blocked; the leader that is left goes nowhere meanwhile.
            assert_eq!(third.join().expect("no panic"), Ok(1));
            assert_eq!(long.memo_stats().wait_timeouts, 0);
        });
    });
}
