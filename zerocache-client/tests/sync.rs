//! Sync functions inside and outside of runtimes, and their siblings.

#![cfg(feature = "macros")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use support::{client, current_thread, in_time, other};
use zerocache_client::{report::LeaseOutcome, zerocache};

#[derive(Debug, PartialEq, Clone)]
enum Problem {
    Absent,
}

static SLOW_RUNS: AtomicUsize = AtomicUsize::new(0);

fn ran() -> usize {
    SLOW_RUNS.load(Ordering::SeqCst)
}

#[zerocache(client(), "5m", call = slow_call)]
fn slow(n: u64) -> Result<u64, Problem> {
    SLOW_RUNS.fetch_add(1, Ordering::SeqCst);
    if n == 0 {
        return Err(Problem::Absent);
    }
    Ok(n * 2)
}

#[test]
fn sync_function_needs_no_runtime_and_has_a_sibling() {
    in_time(|| {
        assert_eq!(slow(4), Ok(8));
        assert_eq!(slow(4), Ok(8));
        assert_eq!(slow_call(4).wait(), Ok(8));
        assert_eq!(ran(), 1);
        assert_eq!(slow_call(4).peek().wait().expect("reads"), Some(Ok(8)));
        slow_call(4).invalidate().wait().expect("deletes");
        assert_eq!(slow_call(4).peek().wait().expect("reads"), None);
        assert_eq!(slow_call(4).refresh().wait(), Ok(8));
        assert_eq!(slow_call(4).uncached().wait(), Ok(8));
        assert_eq!(ran(), 3);
        assert_eq!(slow(0), Err(Problem::Absent));
        assert_eq!(slow(0), Err(Problem::Absent));
        assert_eq!(ran(), 5);
    });
}

#[zerocache(client(), "5m", call = half_call)]
fn half(n: u64) -> Result<u64, Problem> {
    Ok(n / 2)
}

#[test]
fn sync_function_works_in_a_current_thread_runtime() {
    in_time(|| {
        current_thread(async {
            assert_eq!(half(50), Ok(25));
            assert_eq!(half_call(50).await, Ok(25));
            // A task that blocks often, without yielding to its runtime.
            for n in 0..1_000 {
                assert_eq!(half(n % 10), Ok(n % 10 / 2));
            }
        });
    });
}

#[test]
fn calls_work_on_an_executor_that_is_not_tokio() {
    in_time(|| {
        let call = async { (foreign(1).await, foreign(1).await, half(60)) };
        assert_eq!(futures_executor(client().scope(call)), (2, 2, Ok(30)));
    });
}

#[zerocache("london", 42)]
async fn foreign(n: u64) -> u64 {
    n + 1
}

/// As small as an executor can be: it wakes a thread.
fn futures_executor<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn sync_function_works_in_a_multi_thread_runtime() {
    in_time(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .expect("a runtime");
        let on_worker = runtime.spawn(async { half(52) });
        let on_blocking_thread = runtime.spawn_blocking(|| half(52));
        assert_eq!(runtime.block_on(on_worker).expect("runs"), Ok(26));
        assert_eq!(runtime.block_on(on_blocking_thread).expect("runs"), Ok(26));
    });
}

static AGEING_RUNS: AtomicUsize = AtomicUsize::new(0);

#[zerocache(other("ageing"), 1, call = ageing_call, stale(while = "1m", if_error = "1h"))]
fn ageing(test: &str) -> Result<usize, Problem> {
    let run = AGEING_RUNS.fetch_add(1, Ordering::SeqCst);
    if run == 1 { Err(Problem::Absent) } else { Ok(run + test.len()) }
}

fn wait_until_old(test: &str) {
    while ageing_call(test).peek().wait().expect("reads").is_some() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn previous_values_serve_blocking_callers() {
    in_time(|| {
        assert_eq!(ageing("a"), Ok(1));
        wait_until_old("a");
        assert_eq!(ageing("a"), Ok(1), "it ran and failed");
        assert_eq!(AGEING_RUNS.load(Ordering::SeqCst), 2);
        current_thread(async {
            // The async caller leads, and is not polled while this thread is blocked.
            let mut leader = Box::pin(ageing_call("a"));
            let polled = std::future::poll_fn(|context| {
                Poll::Ready(leader.as_mut().poll(context).is_pending())
            });
            assert!(polled.await, "it leads and is not done");
            assert_eq!(ageing("a"), Ok(1), "another one is at it");
            assert_eq!(leader.await, Ok(3));
            assert_eq!(ageing("a"), Ok(3));
        });
        let stats = other("ageing").memo_stats();
        assert_eq!((stats.stale_on_error, stats.stale_served, stats.wait_timeouts), (1, 1, 0));
    });
}

static LEASED_RUNS: AtomicUsize = AtomicUsize::new(0);

#[zerocache(other("leased"), 60, lease = region, call = leased_call)]
fn leased(n: u64) -> Result<u64, Problem> {
    LEASED_RUNS.fetch_add(1, Ordering::SeqCst);
    if n == 0 { Err(Problem::Absent) } else { Ok(n) }
}

#[test]
fn blocking_callers_compute_under_a_lease() {
    in_time(|| {
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(|| leased(1))).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), Ok(1));
        }
        assert_eq!(LEASED_RUNS.load(Ordering::SeqCst), 1);
        current_thread(async {
            let (value, report) = leased_call(2).explain().wait();
            assert_eq!((value, report.lease), (Ok(2), Some(LeaseOutcome::Granted)));
            // A failure gives its leave back: the next one asks before that arrives, and hears of it,
            // or after it; it does not wait for the end of the lease.
            for _ in 0..3 {
                let (value, report) = leased_call(0).explain().wait();
                assert_eq!(value, Err(Problem::Absent));
                let outcome = report.lease.expect("it asked");
                assert!(matches!(outcome, LeaseOutcome::Granted | LeaseOutcome::Busy), "{report}");
            }
        });
        let stats = other("leased").memo_stats();
        assert_eq!((stats.leases_granted + stats.lease_busy, stats.lease_unavailable), (5, 0));
        assert!(
            stats
                .iter()
                .any(|(name, count)| name == "leases_granted" && count == stats.leases_granted)
        );
    });
}
