//! One computation per key at a time, and what happens when it does not end well.

#![cfg(feature = "macros")]

mod support;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join_all, poll_immediate};
use support::gate::{Gate, waiters};
use support::{bounded, client, current_thread, in_time, other};
use zerocache_client::zerocache;

#[zerocache(&gate.cache, 60, key = test)]
async fn value(gate: Arc<Gate>, test: &'static str) -> usize {
    gate.pass().await
}

#[derive(Debug, PartialEq)]
struct Unclonable(usize);

#[zerocache(&gate.cache, 60, key = test)]
async fn fails(gate: Arc<Gate>, test: &'static str) -> Result<u8, Unclonable> {
    Err(Unclonable(gate.pass().await))
}

#[zerocache(&gate.cache, 60, key = test)]
async fn fails_alike(gate: Arc<Gate>, test: &'static str) -> Result<u8, usize> {
    Err(gate.pass().await)
}

#[zerocache(&gate.cache, |_: &usize| 0, key = test)]
async fn unstored(gate: Arc<Gate>, test: &'static str) -> usize {
    gate.pass().await
}

/// Waits until a computation has begun.
async fn first_started(gate: &Gate) {
    gate.started.notified().await;
}

#[tokio::test]
async fn thousand_callers_compute_once() {
    bounded(async {
        let gate = Gate::new();
        let calls = (0..1_000).map(|_| tokio::spawn(value(gate.clone(), "thousand")));
        let calls: Vec<_> = calls.collect();
        first_started(&gate).await;
        gate.permits.add_permits(1_000);
        for value in join_all(calls).await {
            assert_eq!(value.expect("no panic"), 0);
        }
        assert_eq!(gate.runs(), 1);
    })
    .await;
}

#[tokio::test]
async fn cancelled_leader_is_replaced_by_a_follower() {
    bounded(async {
        let gate = Gate::new();
        let leader = tokio::spawn(value(gate.clone(), "cancelled"));
        first_started(&gate).await;
        let waiter = tokio::spawn(value(gate.clone(), "cancelled"));
        leader.abort();
        assert!(leader.await.expect_err("aborted").is_cancelled());
        gate.permits.add_permits(1);
        assert_eq!(waiter.await.expect("no panic"), 1, "the second run");
    })
    .await;
}

#[zerocache(&gate.cache, 60, key = test)]
async fn panics_first(gate: Arc<Gate>, test: &'static str) -> usize {
    let run = gate.pass().await;
    assert_ne!(run, 0, "the first run panics on purpose");
    run
}

#[tokio::test]
async fn panicking_leader_is_replaced_by_a_follower() {
    bounded(async {
        let gate = Gate::new();
        let leader = tokio::spawn(panics_first(gate.clone(), "panic"));
        first_started(&gate).await;
        let waiter = tokio::spawn(panics_first(gate.clone(), "panic"));
        gate.permits.add_permits(2);
        assert!(leader.await.expect_err("panicked").is_panic());
        assert_eq!(waiter.await.expect("no panic"), 1);
        // Nothing is left behind on the thread: the next call is an ordinary hit.
        let caught = AssertUnwindSafe(panics_first(gate.clone(), "panic")).catch_unwind().await;
        assert_eq!(caught.expect("no panic"), 1);
    })
    .await;
}

#[tokio::test]
async fn clone_error_is_shared_with_followers() {
    bounded(async {
        let gate = Gate::new();
        let (leader, waiters) = waiters(100, || fails_alike(gate.clone(), "shared"), &gate).await;
        gate.permits.add_permits(1);
        assert_eq!(leader.await, Err(0));
        for result in join_all(waiters).await {
            assert_eq!(result, Err(0));
        }
        assert_eq!(gate.runs(), 1);
    })
    .await;
}

#[tokio::test]
async fn all_followers_compute_after_an_error_that_is_not_clone() {
    bounded(async {
        let gate = Gate::new();
        let (leader, waiters) = waiters(100, || fails(gate.clone(), "at once"), &gate).await;
        gate.permits.add_permits(1);
        assert_eq!(leader.await, Err(Unclonable(0)));
        let mut all = Box::pin(join_all(waiters));
        assert!(poll_immediate(&mut all).await.is_none());
        assert_eq!(gate.runs(), 101, "not one after the other");
        gate.permits.add_permits(100);
        assert!(all.await.iter().all(Result::is_err));
    })
    .await;
}

#[tokio::test]
async fn value_that_is_not_stored_is_not_shared() {
    bounded(async {
        let gate = Gate::new();
        let (leader, waiters) = waiters(3, || unstored(gate.clone(), "unstored"), &gate).await;
        gate.permits.add_permits(4);
        assert_eq!(leader.await, 0);
        let mut runs = join_all(waiters).await;
        runs.sort_unstable();
        assert_eq!(runs, [1, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn value_computed_during_an_invalidation_is_not_stored() {
    bounded(async {
        let gate = Gate::new();
        let (leader, waiters) = waiters(3, || value(gate.clone(), "void"), &gate).await;
        value(gate.clone(), "void").invalidate().await.expect("deletes");
        gate.permits.add_permits(1);
        assert_eq!(leader.await, 0);
        assert_eq!(join_all(waiters).await, [0, 0, 0], "they asked before the invalidation");
        assert_eq!(value(gate.clone(), "void").peek().await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn invalidation_reaches_unshared_computations() {
    bounded(async {
        let gate = Gate::new();
        let mut refresh = Box::pin(value(gate.clone(), "aside").refresh());
        assert!(poll_immediate(&mut refresh).await.is_none());
        value(gate.clone(), "aside").invalidate().await.expect("deletes");
        gate.permits.add_permits(1);
        assert_eq!(refresh.await, 0);
        assert_eq!(value(gate.clone(), "aside").peek().await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn last_of_two_refreshes_wins() {
    bounded(async {
        let gate = Gate::new();
        let refresh = || Box::pin(value(gate.clone(), "two").refresh());
        let (mut first, mut second) = (refresh(), refresh());
        assert!(poll_immediate(&mut first).await.is_none());
        assert!(poll_immediate(&mut second).await.is_none());
        gate.permits.add_permits(2);
        assert_eq!((second.await, first.await), (1, 0));
        assert_eq!(value(gate.clone(), "two").peek().await.expect("reads"), Some(1));
    })
    .await;
}

#[tokio::test]
async fn refresh_does_not_join_and_its_value_wins() {
    bounded(async {
        let gate = Gate::new();
        let (leader, _) = waiters(3, || value(gate.clone(), "refresh"), &gate).await;
        let mut refresh = Box::pin(value(gate.clone(), "refresh").refresh());
        assert!(poll_immediate(&mut refresh).await.is_none());
        assert_eq!(gate.runs(), 2);
        gate.permits.add_permits(2);
        assert_eq!(refresh.await, 1);
        assert_eq!(leader.await, 0);
        assert_eq!(value(gate.clone(), "refresh").peek().await.expect("reads"), Some(1));
    })
    .await;
}

#[tokio::test]
async fn leader_that_is_not_polled_is_waited_for_within_bounds() {
    bounded(async {
        let cache = other("bounded-wait");
        cache.set_memo_wait(Duration::from_millis(20));
        let gate = Gate::of(cache.clone());
        let (leader, _) = waiters(3, || value(gate.clone(), "unpolled"), &gate).await;
        // The leader is first in line for one of them, and never comes for it.
        gate.permits.add_permits(2);
        assert_eq!(value(gate.clone(), "unpolled").await, 1);
        assert_eq!(cache.memo_stats().wait_timeouts, 1);
        drop(leader);
    })
    .await;
}

#[tokio::test]
async fn value_is_stored_when_its_caller_is_dropped() {
    bounded(async {
        let gate = Gate::new();
        let (mut leader, _) = waiters(3, || value(gate.clone(), "dropped"), &gate).await;
        gate.permits.add_permits(1);
        // Computes, hands the value to the cache, and is not polled again.
        let _ = poll_immediate(&mut leader).await;
        drop(leader);
        while value(gate.clone(), "dropped").peek().await.expect("reads") != Some(0) {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.runs(), 1);
    })
    .await;
}

static CROWD_RUNNING: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

#[zerocache(client(), 60)]
async fn crowd(key: usize) -> usize {
    /// Counts a computation as running, also when it is cancelled.
    struct Running(usize);
    impl Drop for Running {
        fn drop(&mut self) {
            CROWD_RUNNING[self.0].fetch_sub(1, Ordering::SeqCst);
        }
    }
    let before = CROWD_RUNNING[key].fetch_add(1, Ordering::SeqCst);
    let _running = Running(key);
    assert_eq!(before, 0, "one computation per key at a time");
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_with_cancellations_complete() {
    bounded(async {
        for _ in 0..20 {
            let spawn = |n: usize| (n, tokio::spawn(crowd(n % 4)));
            let tasks: Vec<_> = (0..64).map(spawn).collect();
            for (n, task) in &tasks {
                if n % 3 == 0 {
                    task.abort();
                }
            }
            for (n, task) in tasks {
                match task.await {
                    Ok(value) => assert_eq!(value, n % 4),
                    Err(error) => assert!(error.is_cancelled(), "{error}"),
                }
            }
            for key in 0..4 {
                crowd(key).invalidate().await.expect("deletes");
            }
        }
    })
    .await;
}

#[zerocache(other("recursion"), 60, key = depth.min(1))]
async fn same_key(depth: u32) -> u32 {
    if depth > 3 { depth } else { Box::pin(same_key(depth + 1)).await }
}

#[zerocache(other("recursion"), 60, key = depth.min(1))]
fn same_key_sync(depth: u32) -> u32 {
    if depth > 3 { depth } else { same_key_sync(depth + 1) }
}

#[tokio::test]
async fn recursion_on_the_same_key_computes_unshared() {
    bounded(async {
        assert_eq!(same_key(1).await, 4);
        assert_eq!(same_key_sync(1), 4);
        assert_eq!(other("recursion").memo_stats().wait_timeouts, 0);
    })
    .await;
}

static BLOCKING_RUNS: AtomicUsize = AtomicUsize::new(0);

#[zerocache(client(), 60, skip(barrier), call = blocking_call)]
fn blocking(barrier: &Barrier, test: &str) -> usize {
    if BLOCKING_RUNS.fetch_add(1, Ordering::SeqCst) == 0 {
        // Until the test has seen that this runs, nobody else can have a value.
        barrier.wait();
    }
    test.len()
}

#[test]
fn blocking_callers_share_one_computation() {
    in_time(|| {
        let barrier = Arc::new(Barrier::new(2));
        let call = |barrier: Arc<Barrier>| move || blocking(&barrier, "threads");
        let threads: Vec<_> =
            (0..8).map(|_| std::thread::spawn(call(Arc::clone(&barrier)))).collect();
        barrier.wait();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 7);
        }
        assert_eq!(BLOCKING_RUNS.load(Ordering::SeqCst), 1);
    });
}

static MIXED_RUNS: AtomicUsize = AtomicUsize::new(0);

#[zerocache(other("mixed"), 60, call = mixed_call)]
fn mixed() -> usize {
    MIXED_RUNS.fetch_add(1, Ordering::SeqCst)
}

#[test]
fn blocking_caller_never_waits_for_an_async_leader() {
    in_time(|| {
        current_thread(async {
            // The async call leads: it was polled and waits for its look into the cache.
            let mut leader = Box::pin(mixed_call());
            let polled = std::future::poll_fn(|context| {
                Poll::Ready(leader.as_mut().poll(context).is_pending())
            });
            assert!(polled.await, "it leads and is not done");
            // This blocks the only thread; the leader cannot go on meanwhile.
            assert_eq!(mixed(), 0);
            assert_eq!(other("mixed").memo_stats().wait_timeouts, 0);
            let _ = leader.await;
        });
    });
}
