//! `get_or_compute`, and what a call tells of itself.

#![cfg(feature = "macros")]

mod support;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use serde::{Deserialize, Serialize};
use support::{bounded, builder, dead, in_time, other};
use tokio::sync::Semaphore;
use zerocache_client::{
    Ack, Status, Value, ZerocacheClient,
    memo::LeaseScope,
    ops::Tier,
    report::{CallOutcome, CallWrite, ReadOutcome},
    zerocache,
};

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

fn user(id: u64) -> User {
    User { id, name: format!("user {id}") }
}

#[tokio::test]
async fn missing_value_is_computed_once_for_all() {
    bounded(async {
        let cache = other("compute");
        let runs = AtomicUsize::new(0);
        let call = || {
            cache.get_or_compute("user:7", 60, async || {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok::<_, io::Error>(user(7))
            })
        };
        for found in join_all((0..1_000).map(|_| call())).await {
            assert_eq!(found.expect("works"), user(7));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        // It is an ordinary value of that key.
        assert_eq!(cache.get("user:7").value().await.expect("reads"), Some(user(7)));
        assert_eq!(call().key().as_deref(), Some(&b"user:7"[..]));
        cache.put("user:7", Value(&user(8)), 60).await.expect("stores");
        assert_eq!(call().await.expect("works"), user(8));
        call().invalidate().await.expect("deletes");
        assert_eq!(cache.get("user:7").await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn follower_of_a_leader_that_waits_for_a_lease_waits_as_long() {
    bounded(async {
        // Of two namespaces, so that they compute beside each other as two processes do.
        let client = |namespace: &str| builder("london").namespace(namespace).build();
        let (first, second) = (client("one").expect("allowed"), client("two").expect("allowed"));
        second.set_memo_wait(Duration::from_millis(1));
        let (runs, gate) = (AtomicUsize::new(0), Semaphore::new(0));
        let call = |cache: &ZerocacheClient| {
            let (runs, gate) = (&runs, &gate);
            let compute = async move || {
                let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                gate.acquire().await.expect("never closed").forget();
                Ok::<_, io::Error>(run)
            };
            let (life, wait) = (Duration::from_secs(60), Duration::from_secs(15));
            cache.get_or_compute("in line", 60, compute).lease_within(
                LeaseScope::Region,
                life,
                wait,
            )
        };
        let mut leader = Box::pin(call(&first));
        while runs.load(Ordering::SeqCst) == 0 {
            assert!(poll_immediate(&mut leader).await.is_none());
            tokio::task::yield_now().await;
        }
        let mut others = Box::pin(join_all((0..10).map(|_| call(&second))));
        let a_while = tokio::time::timeout(Duration::from_millis(100), &mut others);
        assert!(a_while.await.is_err(), "they wait for what the other client computes");
        gate.add_permits(100);
        assert_eq!(leader.await.expect("works"), 1);
        assert!(others.await.into_iter().all(|found| found.expect("works") == 1));
        assert_eq!(second.memo_stats().wait_timeouts, 0);
    })
    .await;
}

#[tokio::test]
async fn error_passes_through_unchanged() {
    bounded(async {
        let cache = other("compute-error");
        let failing = || {
            cache.get_or_compute("failing", 60, async || {
                Err::<u8, _>(io::Error::new(io::ErrorKind::NotFound, "no such file"))
            })
        };
        let error = failing().await.expect_err("it fails");
        assert_eq!(
            (error.kind(), error.to_string()),
            (io::ErrorKind::NotFound, "no such file".into())
        );
        assert_eq!(cache.get("failing").await.expect("reads"), None);
        assert!(failing().await.is_err());
        assert_eq!(cache.memo_stats().computed, 2);
    })
    .await;
}

#[tokio::test]
async fn followers_share_an_error_if_allowed() {
    bounded(async {
        let cache = other("compute-shared");
        let runs = AtomicUsize::new(0);
        let call = || {
            let failing = cache.get_or_compute("shared", 60, async || {
                tokio::task::yield_now().await;
                Err::<u8, _>(runs.fetch_add(1, Ordering::SeqCst))
            });
            failing.share_errors()
        };
        assert_eq!(join_all((0..100).map(|_| call())).await, [const { Err(0) }; 100]);
        assert_eq!(runs.load(Ordering::SeqCst), 1, "one round");
    })
    .await;
}

#[tokio::test]
async fn raw_bytes_and_other_types_are_kept_beside_a_shape_entry() {
    bounded(async {
        let cache = other("compute-mismatch");
        let call = || cache.get_or_compute("k", 60, async || Ok::<_, io::Error>(user(1)));
        cache.put("k", "raw", 60).await.expect("stores");
        assert_eq!(call().await.expect("works"), user(1));
        assert_eq!(cache.get("k").await.expect("reads").as_deref(), Some(&b"raw"[..]));
        cache.put("k", Value(&7_u8), 60).await.expect("stores");
        assert_eq!(call().await.expect("works"), user(1));
        assert_eq!(call().await.expect("works"), user(1));
        assert_eq!(cache.get("k").value::<u8>().await.expect("reads"), Some(7));
        let stats = cache.memo_stats();
        assert_eq!((stats.mismatched, stats.computed, stats.hits), (3, 2, 1));
        assert_eq!((stats.shape_entries_stored, stats.shape_entry_hits), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn dead_cluster_fails_no_call() {
    bounded(async {
        let call = dead().get_or_compute("k", 60, async || Ok::<_, io::Error>(1));
        let (value, report) = call.deadline(Duration::from_millis(50)).explain().await;
        assert_eq!(value.expect("computes"), 1);
        assert_eq!(report.outcome, CallOutcome::Miss);
        assert_eq!(report.read.map(|read| read.outcome), Some(ReadOutcome::Failed));
        assert!(matches!(report.write, Some(CallWrite::Failed(_))), "{:?}", report.write);
    })
    .await;
}

#[zerocache(cache, 60, skip(cache))]
async fn square(cache: &ZerocacheClient, n: u64) -> u64 {
    n * n
}

#[tokio::test]
async fn call_reports_its_steps() {
    bounded(async {
        let cache = other("explain");
        let (value, report) = square(&cache, 7).explain().await;
        assert_eq!((value, report.outcome), (49, CallOutcome::Miss));
        assert!(report.compute_time <= Some(report.total), "{report}");
        let read = report.read.clone().expect("it looked");
        assert_eq!((read.outcome, read.attempts.len()), (ReadOutcome::Miss, 1));
        let Some(CallWrite::Written(written)) = &report.write else {
            panic!("{report}");
        };
        assert_eq!(written.status, Status::Stored);
        let text = report.to_string();
        for part in ["miss, ", "\nread: miss, ", "\ncomputed: ", "\nwrite: stored, "] {
            assert!(text.contains(part), "{text}");
        }
        let (value, report) = square(&cache, 7).explain().await;
        assert_eq!((value, report.outcome), (49, CallOutcome::Hit));
        assert!(report.compute_time.is_none() && report.write.is_none() && report.lease.is_none());
        assert_eq!(report.read.map(|read| read.attempts[0].tier), Some(Tier::Local));
        let (_, report) = square(&cache, 7).refresh().explain().await;
        assert_eq!(report.outcome, CallOutcome::Refreshed);
        assert!(report.read.is_none() && report.compute_time.is_some());
        let (_, report) = square(&cache, 7).uncached().explain().await;
        assert_eq!(report.outcome, CallOutcome::Uncached);
        assert!(report.read.is_none() && report.write.is_none() && report.compute_time.is_some());
        let (_, report) = square(&cache, 8).ttl(0).explain().await;
        assert!(matches!(report.write, Some(CallWrite::NotStored)), "{report}");
        let all = (0..3).map(|_| square(&cache, 9).ack(Ack::All).explain());
        let outcomes: Vec<_> = join_all(all).await.into_iter().map(|(_, r)| r.outcome).collect();
        let coalesced = CallOutcome::Coalesced;
        assert_eq!(outcomes, [CallOutcome::Miss, coalesced, coalesced]);
    })
    .await;
}

#[zerocache(other("explain-sync"), 60, call = cube_call)]
fn cube(n: u64) -> u64 {
    n * n * n
}

#[test]
fn sync_call_reports_its_steps() {
    in_time(|| {
        let (value, report) = cube_call(3).explain().wait();
        assert_eq!((value, report.outcome), (27, CallOutcome::Miss));
        assert_eq!(cube(3), 27);
        let (value, report) = cube_call(3).explain().wait();
        assert_eq!((value, report.outcome), (27, CallOutcome::Hit));
    });
}

#[tokio::test]
async fn two_types_for_one_key_in_one_process_get_their_own_values() {
    bounded(async {
        let cache = other("compute-two-types");
        let runs = AtomicUsize::new(0);
        let slow = async || {
            tokio::time::sleep(Duration::from_millis(20)).await;
            runs.fetch_add(1, Ordering::SeqCst) + 1
        };
        for _ in 0..3 {
            let of_number = || {
                cache.get_or_compute("two-types", 60, async || io::Result::Ok(slow().await as u32))
            };
            let of_text = || {
                cache.get_or_compute("two-types", 60, async || {
                    io::Result::Ok(slow().await.to_string())
                })
            };
            let (number, text) = tokio::join!(of_number(), of_text());
            let (number, text) = (number.expect("works"), text.expect("works"));
            assert_ne!(number.to_string(), text);
            of_number().invalidate().await.expect("deletes");
            assert!(of_text().peek().await.expect("reads").is_none());
        }
    })
    .await;
}
