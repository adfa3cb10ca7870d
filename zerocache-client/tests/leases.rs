//! Calls under a lease, of clients that stand for processes.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use support::{bounded, builder, other};
use tokio::sync::Semaphore;
use zerocache_client::{ZerocacheClient, memo::LeaseScope, report::LeaseOutcome, stats::MemoStats};

/// How long a value takes to compute, so that others come meanwhile.
const A_WHILE: Duration = Duration::from_millis(100);

/// Longer than a test takes.
const A_MINUTE: Duration = Duration::from_secs(60);

/// Clients that know nothing of each other's computations, as if each were a process.
fn processes<const N: usize>(test: &str) -> [ZerocacheClient; N] {
    std::array::from_fn(|n| {
        builder("london").namespace(format!("{test}-{n}")).build().expect("allowed")
    })
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn one_process_computes_a_shape_entry() {
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
        let leases: u64 = processes.iter().map(|process| process.memo_stats().leases_granted).sum();
        assert_eq!(leases, 1);
    })
    .await;
}

#[tokio::test]
async fn fresh_value_is_refreshed_ahead_by_one_process() {
    bounded(async {
        let (runs, permits) = (AtomicUsize::new(0), Semaphore::new(1));
        let processes = processes::<10>("ahead-leased");
        let call = |cache: &ZerocacheClient| {
            let compute = async || {
                let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                permits.acquire().await.expect("never closed").forget();
                Ok::<_, io::Error>(run)
            };
            let call = cache.get_or_compute("ahead-leased", 20, compute).refresh_ahead(20);
            Box::pin(call.lease_within(LeaseScope::Region, A_MINUTE, A_MINUTE))
        };
        assert_eq!(call(&processes[0]).await.expect("works"), 1);
        let stats = |process: &ZerocacheClient| process.memo_stats();
        let sum = |of: fn(MemoStats) -> u64| processes.iter().map(stats).map(of).sum::<u64>();
        // All draw lots; the calls of those who compute are held and stay.
        let mut held = Vec::new();
        while sum(|stats| stats.lease_busy) < 5 {
            for process in &processes {
                let mut call = call(process);
                let ended = tokio::select! {
                    value = &mut call => Some(value.expect("works")),
                    () = until(|| runs.load(Ordering::SeqCst) == 2), if held.is_empty() => None,
                };
                match ended {
                    Some(value) => assert_eq!(value, 1, "the old one, which is fresh"),
                    None => held.push(call),
                }
            }
        }
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!((held.len(), sum(|stats| stats.stale_served)), (1, 0));
        permits.add_permits(1);
        for call in held {
            assert_eq!(call.await.expect("works"), 2);
        }
        assert_eq!(sum(|stats| stats.refreshed_ahead), 1);
    })
    .await;
}

#[tokio::test]
async fn after_a_panic_one_waiting_process_computes() {
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

#[tokio::test]
async fn deadline_bounds_the_wait_for_another_process() {
    bounded(async {
        let [first, second] = processes("deadline");
        let gate = Semaphore::new(0);
        let held = first.get_or_compute("deadline", 60, async || {
            gate.acquire().await.expect("never closed").forget();
            Ok::<_, io::Error>(1)
        });
        let mut held = Box::pin(held.lease(LeaseScope::Region));
        while first.memo_stats().leases_granted == 0 {
            assert!(poll_immediate(&mut held).await.is_none());
            tokio::task::yield_now().await;
        }
        // Without it the wait alone is longer than the test may take.
        let waits = second
            .get_or_compute("deadline", 60, async || Ok::<_, io::Error>(2))
            .lease_within(LeaseScope::Region, Duration::from_secs(60), Duration::from_secs(60))
            .deadline(Duration::from_millis(200));
        let (value, report) = waits.explain().await;
        assert_eq!((value.expect("works"), report.lease), (2, Some(LeaseOutcome::Busy)));
        gate.add_permits(1);
        assert_eq!(held.await.expect("works"), 1);
    })
    .await;
}

#[tokio::test]
async fn report_names_the_nodes_of_the_lease_and_of_the_write() {
    bounded(async {
        let cache = other("reported");
        let call = || cache.get_or_compute("reported", 60, async || Ok::<_, io::Error>(1));
        let (value, report) = call().lease(LeaseScope::Region).explain().await;
        assert_eq!((value.expect("works"), report.lease), (1, Some(LeaseOutcome::Granted)));
        let node = cache.nodes().pop().expect("it was asked");
        for (by, took) in
            [(&report.lease_node, report.lease_time), (&report.write_node, report.write_time)]
        {
            let by = by.as_ref().expect("it answered");
            assert_eq!((by.node, by.address, &by.region), (node.id, node.address, &node.region));
            assert!(took.expect("it was asked") <= report.total, "{report}");
        }
        let text = report.to_string();
        let name = format!("london {} ({})", node.address, node.id);
        assert!(text.contains(&format!("lease: granted, {name}, ")), "{text}");
        assert!(text.contains(&format!("1 of 1 nodes, {name}, ")), "{text}");
        // Nothing of that where nothing of it was done.
        let (_, report) = call().lease(LeaseScope::Region).explain().await;
        assert!(report.lease_node.is_none() && report.lease_time.is_none());
        assert!(report.write_node.is_none() && report.write_time.is_none());
    })
    .await;
}
