//! Values that are on their way into the cache while their key is invalidated or replaced.

#![cfg(feature = "macros")]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use support::gate::Gate;
use support::{bounded, current_thread, in_time, other};
use zerocache_client::{ZerocacheClient, zerocache};

/// What a first run gives: so large that another write overtakes it on its way to the node.
const LARGE: usize = 400_000;

#[zerocache(&gate.cache, 60, key = test)]
async fn value(gate: Arc<Gate>, test: String) -> Vec<u64> {
    if gate.pass().await > 0 {
        return Vec::new();
    }
    // What does not become smaller when it is packed.
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state ^ (state >> 29)
    };
    (0..LARGE).map(|_| next()).collect()
}

/// A call whose value is being written for so many seconds, its gate with a client of its own, and its key.
async fn storing(
    test: &str,
    ttl_s: u64,
) -> (Pin<Box<impl Future<Output = Vec<u64>>>>, Arc<Gate>, String) {
    // On a machine that is busy elsewhere the value may be there at once: then once more.
    for attempt in 0.. {
        let test = format!("{test} {attempt}");
        let gate = Gate::of(other(&test));
        let mut call = Box::pin(value(gate.clone(), test.clone()).ttl(ttl_s));
        while gate.runs() == 0 {
            assert!(poll_immediate(&mut call).await.is_none());
            tokio::task::yield_now().await;
        }
        gate.permits.add_permits(1);
        if poll_immediate(&mut call).await.is_none() {
            return (call, gate, test);
        }
    }
    unreachable!("it takes a while to store")
}

/// Waits until so many writes of a client have ended.
async fn written(cache: &ZerocacheClient, count: u64) {
    while cache.stats().stored + cache.stats().superseded < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn invalidated_value_that_is_being_stored_is_never_read() {
    bounded(async {
        let (leader, gate, test) = storing("storing", 60).await;
        let call = || value(gate.clone(), test.clone());
        call().invalidate().await.expect("deletes");
        // Nobody polls the call that stores.
        written(&gate.cache, 2).await;
        assert_eq!(call().peek().await.expect("reads"), None);
        assert_eq!(leader.await.len(), LARGE);
        assert_eq!(call().peek().await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn invalidated_value_is_removed_when_the_storing_call_is_dropped() {
    bounded(async {
        let (leader, gate, test) = storing("dropped", 60).await;
        let call = || value(gate.clone(), test.clone());
        let mut removing = Box::pin(call().invalidate());
        let _ = poll_immediate(&mut removing).await;
        drop(leader);
        removing.await.expect("deletes");
        written(&gate.cache, 2).await;
        assert_eq!(call().peek().await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn invalidation_completes_when_it_is_dropped() {
    bounded(async {
        let (leader, gate, test) = storing("both dropped", 60).await;
        let call = || value(gate.clone(), test.clone());
        let mut removing = Box::pin(call().invalidate());
        assert!(poll_immediate(&mut removing).await.is_none());
        drop((removing, leader));
        written(&gate.cache, 2).await;
        assert_eq!(call().peek().await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn invalidation_waits_for_the_value_of_a_dropped_call() {
    bounded(async {
        let (leader, gate, test) = storing("dropped before", 60).await;
        let call = || value(gate.clone(), test.clone());
        drop(leader);
        call().invalidate().await.expect("deletes");
        written(&gate.cache, 2).await;
        assert_eq!(call().peek().await.expect("reads"), None);
    })
    .await;
}

#[test]
fn blocking_invalidation_completes_while_the_storing_call_is_not_polled() {
    in_time(|| {
        current_thread(async {
            let (leader, gate, test) = storing("blocked", 60).await;
            let call = || value(gate.clone(), test.clone());
            // Blocks the thread on which the value is being stored.
            call().invalidate().wait().expect("deletes");
            assert_eq!(call().peek().wait().expect("reads"), None);
            assert_eq!(leader.await.len(), LARGE);
        });
    });
}

#[tokio::test]
async fn refreshed_value_wins_over_a_pending_write() {
    bounded(async {
        let (leader, gate, test) = storing("refresh", 60).await;
        let call = || value(gate.clone(), test.clone());
        gate.permits.add_permits(1);
        assert!(call().refresh().await.is_empty());
        assert_eq!(leader.await.len(), LARGE);
        assert_eq!(call().peek().await.expect("reads"), Some(Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn nobody_computes_while_a_dropped_call_stores() {
    bounded(async {
        let (leader, gate, test) = storing("joined", 60).await;
        let call = || value(gate.clone(), test.clone());
        drop(leader);
        assert_eq!(call().await.len(), LARGE);
        assert_eq!(gate.runs(), 1);
        // It is counted although its caller is gone.
        while gate.cache.memo_stats().stored == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn call_that_is_not_polled_while_it_stores_delays_nobody() {
    bounded(async {
        let (leader, gate, test) = storing("still", 1).await;
        gate.permits.add_permits(1);
        let call = || value(gate.clone(), test.clone());
        assert_eq!(call().await.len(), LARGE, "it has told the others");
        // Nobody polls it any more. Its value lives for a second, for the others too.
        while !call().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(gate.runs(), 2);
        drop(leader);
    })
    .await;
}
