//! Calls under a lease, of clients that stand for processes.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use support::{bounded, builder, other};
use zerocache_client::{LeaseScope, ZerocacheClient};

/// How long a value takes to compute, so that others come meanwhile.
const A_WHILE: Duration = Duration::from_millis(100);

/// Clients that know nothing of each other's computations, as if each were a process.
fn processes<const N: usize>(test: &str) -> [ZerocacheClient; N] {
    std::array::from_fn(|n| {
        builder("london").namespace(format!("{test}-{n}")).build().expect("allowed")
    })
}

#[tokio::test]
async fn what_cannot_be_used_is_replaced_by_one_of_all() {
    bounded(async {
        // No text that a memoized call has written.
        other("foreign").put("foreign", "x", 60).await.expect("stores");
        let runs = Arc::new(AtomicUsize::new(0));
        let processes = processes::<10>("foreign");
        let call = |cache: &ZerocacheClient| {
            let runs = Arc::clone(&runs);
            let compute = async move || {
                tokio::time::sleep(A_WHILE).await;
                Ok::<_, io::Error>(runs.fetch_add(1, Ordering::SeqCst) + 1)
            };
            cache.get_or_compute("foreign", 60, compute).lease(LeaseScope::Region)
        };
        for found in join_all(processes.iter().map(call)).await {
            assert_eq!(found.expect("works"), 1);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let leases: u64 = processes.iter().map(|process| process.memo_stats().leases).sum();
        assert_eq!(leases, 1);
    })
    .await;
}

#[tokio::test]
async fn after_a_panic_one_of_those_who_wait_computes() {
    bounded(async {
        let runs = Arc::new(AtomicUsize::new(0));
        let processes = processes::<10>("panic");
        let call = |cache: &ZerocacheClient| {
            let runs = Arc::clone(&runs);
            let compute = async move || {
                let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(A_WHILE).await;
                assert!(run > 3, "on purpose");
                Ok::<_, io::Error>(run)
            };
            tokio::spawn(cache.get_or_compute("panic", 60, compute).lease(LeaseScope::Region))
        };
        let ended = join_all(processes.iter().map(call)).await;
        let values: Vec<_> = ended.into_iter().flatten().flatten().collect();
        assert_eq!(values, [4; 7]);
        assert_eq!(runs.load(Ordering::SeqCst), 4);
    })
    .await;
}
