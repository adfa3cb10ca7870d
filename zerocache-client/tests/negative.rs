//! What is stored beside ordinary values, and what is not: `None`, errors, values that a function does
//! not want to keep; and the tags of what is.

#![cfg(feature = "macros")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{bounded, builder, other};
use zerocache_client::{
    ZerocacheClient,
    ops::{EntryKind, Freshness},
    zerocache,
};

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
enum Problem {
    Absent(u64),
    Busy,
}

type Found<T> = Result<Option<T>, Problem>;

static RUNS: AtomicUsize = AtomicUsize::new(0);

/// What a lookup comes to, by its argument.
fn lookup(id: u64) -> Found<u64> {
    RUNS.fetch_add(1, Ordering::SeqCst);
    match id {
        0 => Err(Problem::Absent(id)),
        1 => Err(Problem::Busy),
        2 => Ok(None),
        _ => Ok(Some(id)),
    }
}

#[zerocache(
    cache,
    600,
    skip(cache),
    negative(none = 5, err = |error: &Problem| matches!(error, Problem::Absent(_)), ttl = 7)
)]
async fn keeps(cache: &ZerocacheClient, id: u64) -> Found<u64> {
    lookup(id)
}

/// The whole life of an entry, in seconds, rounded up.
async fn life(cache: &ZerocacheClient, key: Option<bytes::Bytes>) -> Option<u64> {
    let entry = cache.get(key.expect("has a key")).entry().await.expect("reads")?;
    assert_eq!(entry.freshness, Freshness::Fresh);
    assert_eq!(entry.metadata.stale_ms(), 0, "nothing of this is served past its time");
    Some(entry.ttl.as_millis().div_ceil(1_000) as u64)
}

#[tokio::test]
async fn none_and_selected_errors_have_lifetimes_of_their_own() {
    bounded(async {
        let cache = other("negative");
        for id in [0, 1, 2, 3] {
            for _ in 0..2 {
                assert_eq!(keeps(&cache, id).await, lookup(id));
            }
        }
        let expected = [Some(7), None, Some(5), Some(600)];
        for (id, expected) in expected.into_iter().enumerate() {
            let life = life(&cache, keeps(&cache, id as u64).key()).await;
            assert!(life <= expected && life.is_some() == expected.is_some(), "{id}: {life:?}");
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.stored), (5, 3), "only `Busy` is computed again");
        assert_eq!((stats.negative_stored, stats.negative_hits, stats.hits), (2, 1, 3));
        assert_eq!(keeps(&cache, 0).peek().await.expect("reads"), Some(Err(Problem::Absent(0))));
        let key = keeps(&cache, 0).key().expect("has a key");
        let entry = cache.get(&key).entry().await.expect("reads").expect("is there");
        assert_eq!(entry.metadata.kind, EntryKind::Error);
        keeps(&cache, 0).invalidate().await.expect("deletes");
        assert_eq!(keeps(&cache, 0).peek().await.expect("reads"), None);
    })
    .await;
}

#[zerocache(cache, 600, skip(cache))]
async fn plain(cache: &ZerocacheClient, id: u64) -> Result<u64, Problem> {
    Err(Problem::Absent(id))
}

#[tokio::test]
async fn stored_error_is_returned_whatever_the_readers_options_are() {
    bounded(async {
        let cache = other("negative-reader");
        assert_eq!(plain(&cache, 1).await, Err(Problem::Absent(1)));
        let computed = || cache.memo_stats().computed;
        assert_eq!((computed(), cache.memo_stats().stored), (1, 0));
        let keeping = plain(&cache, 1).negative_err(|_| true, 60);
        assert_eq!(keeping.await, Err(Problem::Absent(1)));
        assert_eq!(plain(&cache, 1).await, Err(Problem::Absent(1)));
        assert_eq!((computed(), cache.memo_stats().negative_hits), (2, 1));
        assert_eq!(plain(&cache, 1).refresh().await, Err(Problem::Absent(1)));
        assert_eq!(computed(), 3);
    })
    .await;
}

#[tokio::test]
async fn stored_error_that_does_not_decode_is_a_miss() {
    bounded(async {
        let cache = other("negative-unreadable");
        let failing = || cache.get_or_compute("k", 60, async || Err::<u8, _>(Problem::Busy));
        assert_eq!(failing().negative_err(|_| true, 60).await, Err(Problem::Busy));
        // Without that word the error type is not known to be readable.
        let works = cache.get_or_compute("k", 60, async || Ok::<_, Problem>(7_u8));
        assert_eq!(works.await, Ok(7));
        assert_eq!(cache.memo_stats().mismatched, 1);
        assert_eq!(failing().await, Ok(7), "who cannot read it has a value beside it");
        assert_eq!(failing().negative_err(|_| true, 60).await, Err(Problem::Busy), "it stays");
        assert_eq!(cache.memo_stats().computed, 2);
    })
    .await;
}

#[zerocache(cache, 600, skip(cache), negative(none = none))]
async fn bare(cache: &ZerocacheClient, id: u64, none: u64) -> Option<u64> {
    (id > 2).then_some(id)
}

#[tokio::test]
async fn none_with_a_lifetime_of_zero_is_not_stored() {
    bounded(async {
        let cache = other("none");
        for none in [0, 9] {
            for id in [1, 3] {
                assert_eq!(bare(&cache, id, none).await, (id > 2).then_some(id));
            }
        }
        assert_eq!(life(&cache, bare(&cache, 1, 0).key()).await, None);
        assert!(life(&cache, bare(&cache, 1, 9).key()).await <= Some(9));
        assert!(life(&cache, bare(&cache, 3, 0).key()).await > Some(9));
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.not_stored, stats.negative_stored), (3, 1, 1));
    })
    .await;
}

#[zerocache(cache, 600, skip(cache), cache_if = |n: &u64| n.is_multiple_of(2))]
async fn even(cache: &ZerocacheClient, n: u64) -> Result<u64, Problem> {
    Ok(n)
}

#[tokio::test]
async fn cache_if_selects_the_stored_values() {
    bounded(async {
        let cache = other("cache-if");
        for n in [4, 5] {
            for _ in 0..2 {
                assert_eq!(even(&cache, n).await, Ok(n));
            }
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.hits), (3, 1));
        assert_eq!((stats.stored, stats.not_stored), (1, 2));
    })
    .await;
}

#[zerocache(
    cache, 600, skip(cache),
    tags = ["users", format!("user:{id}"), "x".repeat(long)],
    stale(while = "1m", if_error = "1h"),
    ahead = "30s"
)]
async fn tagged(cache: &ZerocacheClient, id: u64, long: usize) -> Result<u64, Problem> {
    Ok(id)
}

#[tokio::test]
async fn tags_and_times_are_in_the_entry() {
    bounded(async {
        let cache = other("tags");
        assert_eq!(tagged(&cache, 7, 3).await, Ok(7));
        let key = tagged(&cache, 7, 3).key().expect("has a key");
        let entry = cache.get(&key).entry().await.expect("reads").expect("is there");
        assert_eq!(entry.metadata.tags(), ["users", "user:7", "xxx"]);
        let times = (entry.metadata.stale_while_ms, entry.metadata.stale_if_error_ms);
        assert_eq!((times, entry.metadata.refresh_ahead_ms), ((60_000, 3_600_000), 30_000));
        assert!(entry.ttl > Duration::from_secs(4_000), "fresh, and then stale");
        assert_eq!(cache.memo_stats().tags_rejected, 0);
        // A tag that is not allowed fails nothing, and the value is not stored: a purge of the tag would miss it.
        assert_eq!(tagged(&cache, 8, 5_000).await, Ok(8));
        let key = tagged(&cache, 8, 5_000).key().expect("has a key");
        assert!(cache.get(&key).entry().await.expect("reads").is_none());
        assert_eq!(cache.memo_stats().tags_rejected, 1);
    })
    .await;
}

#[tokio::test]
async fn stored_errors_have_shape_entries_too() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Coded(u32);
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Worded(String);

    bounded(async {
        let (coded, worded) = (builder("london"), builder("london"));
        let coded = coded.namespace("errors-coded").build().expect("allowed");
        let worded = worded.namespace("errors-worded").build().expect("allowed");
        let runs = AtomicUsize::new(0);
        let run = || runs.fetch_add(1, Ordering::SeqCst) + 1;
        let of_coded = || {
            let call =
                coded.get_or_compute("errors", 60, async || Err::<u8, _>(Coded(run() as u32)));
            call.negative_err(|_| true, 60)
        };
        let of_worded = || {
            let text = async || Err::<u8, _>(Worded(run().to_string()));
            worded.get_or_compute("errors", 60, text).negative_err(|_| true, 60)
        };
        for _ in 0..5 {
            assert_eq!(of_coded().await, Err(Coded(1)));
            assert_eq!(of_worded().await, Err(Worded("2".to_owned())));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        of_worded().invalidate().await.expect("deletes");
        assert_eq!(of_coded().await, Err(Coded(3)));
    })
    .await;
}
