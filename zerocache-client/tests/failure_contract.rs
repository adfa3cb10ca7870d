//! The lines of `docs/memoize.md` on failures that no other test shows.

#![cfg(feature = "macros")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use support::gate::Gate;
use support::{bounded, builder, dead, other};
use zerocache_client::{
    ZerocacheClient,
    memo::LeaseScope,
    report::{CallOutcome, CallWrite, LeaseOutcome},
    zerocache,
};

#[zerocache(&gate.cache, 60, lease = region, key = test)]
async fn leased(gate: Arc<Gate>, test: &'static str) -> usize {
    gate.pass().await
}

#[tokio::test]
async fn process_without_a_node_computes_one_at_a_time() {
    bounded(async {
        let gate = Gate::of(dead());
        let calls: Vec<_> = (0..20).map(|_| tokio::spawn(leased(gate.clone(), "dead"))).collect();
        gate.started.notified().await;
        gate.permits.add_permits(20);
        for value in join_all(calls).await {
            value.expect("no panic");
        }
        let stats = gate.cache.memo_stats();
        let runs = gate.runs() as u64;
        assert_eq!((stats.computed, stats.coalesced), (runs, 20 - runs));
        assert_eq!((stats.read_errors, stats.write_errors), (runs, runs));
        assert_eq!(stats.lease_unavailable, runs);
        // Who comes once the first is done finds nothing, and computes: not many of those who came at once.
        assert!(runs < 10, "{runs}");
    })
    .await;
}

/// A client that knows nothing of what others of this process compute: as one of another process.
fn another_process() -> ZerocacheClient {
    // Nobody is there; but it finds its nodes in another way.
    let seed = SocketAddr::from(([127, 0, 0, 1], 1));
    builder("london").seed(seed.to_string()).build().expect("the configuration is allowed")
}

#[zerocache(&gate.cache, 60, key = test)]
async fn unleased(gate: Arc<Gate>, test: &'static str) -> usize {
    gate.pass().await
}

#[tokio::test]
async fn remote_invalidation_rejects_values_that_were_computed_meanwhile() {
    bounded(async {
        let elsewhere = Gate::of(another_process());
        let gate = Gate::of(other("here"));
        gate.permits.add_permits(1);
        let mut with = Box::pin(leased(elsewhere.clone(), "crossing").explain());
        while elsewhere.runs() == 0 {
            assert!(poll_immediate(&mut with).await.is_none());
            tokio::task::yield_now().await;
        }
        leased(gate.clone(), "crossing").invalidate().await.expect("deletes");
        let mut without = Box::pin(unleased(elsewhere.clone(), "crossing").explain());
        while elsewhere.runs() == 1 {
            assert!(poll_immediate(&mut without).await.is_none());
            tokio::task::yield_now().await;
        }
        unleased(gate.clone(), "crossing").invalidate().await.expect("deletes");
        elsewhere.permits.add_permits(2);
        let ((_, with), (_, without)) = (with.await, without.await);
        assert_eq!(with.lease, Some(LeaseOutcome::Granted));
        assert!(matches!(with.write, Some(CallWrite::Written(_))), "{with}");
        assert!(matches!(without.write, Some(CallWrite::Written(_))), "{without}");
        let found = leased(gate.clone(), "crossing").peek().await.expect("reads");
        assert_eq!(found, None, "its token is below the delete");
        let found = unleased(gate.clone(), "crossing").peek().await.expect("reads");
        assert_eq!(found, None, "it was begun before the delete");
    })
    .await;
}

#[tokio::test]
async fn caller_whose_lease_wait_expired_computes_beside_the_late_holder() {
    bounded(async {
        let late = Gate::of(another_process());
        let gate = Gate::of(other("in-vain"));
        let mut leader = Box::pin(leased(late.clone(), "in vain").explain());
        while late.runs() == 0 {
            assert!(poll_immediate(&mut leader).await.is_none());
            tokio::task::yield_now().await;
        }
        // The first run of the other process is this one's second: the values differ.
        gate.permits.add_permits(2);
        gate.pass().await;
        let call = || leased(gate.clone(), "in vain");
        let (life, wait) = (Duration::from_secs(60), Duration::from_millis(50));
        let waiting = call().lease_within(LeaseScope::Region, life, wait);
        let (value, report) = waiting.explain().await;
        assert_eq!((value, report.lease), (1, Some(LeaseOutcome::Busy)));
        assert_eq!(gate.cache.memo_stats().lease_busy, 1);
        assert_eq!(call().peek().await.expect("reads"), Some(1));
        late.permits.add_permits(1);
        assert_eq!(leader.await.0, 0);
        // Both began within a second, by which clocks may differ: the later grant or begin, less that, wins.
        assert_eq!(call().peek().await.expect("reads"), Some(0));
    })
    .await;
}

static FAILING: AtomicUsize = AtomicUsize::new(0);

#[zerocache(cache, 1, skip(cache), stale(while = 2, background))]
async fn failing(cache: ZerocacheClient) -> Result<usize, String> {
    match FAILING.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(0),
        run => Err(format!("run {run}")),
    }
}

#[tokio::test]
async fn previous_value_is_served_while_background_refreshes_fail() {
    bounded(async {
        let cache = other("background-failing");
        let call = || failing(cache.clone());
        assert_eq!(call().await, Ok(0));
        while call().peek().await.expect("reads").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut stale = 0;
        let error = loop {
            let (value, report) = call().explain().await;
            match value {
                Ok(value) => assert_eq!((value, report.outcome), (0, CallOutcome::Stale)),
                Err(error) => break error,
            }
            stale += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(stale > 0 && error.starts_with("run"), "{stale} {error}");
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.stale_on_error), (1, 0));
        assert_eq!(stats.stale_served, stale);
        assert!(stats.refreshed > 0 && stats.computed > 2, "{stats:?}");
    })
    .await;
}
