//! A cache that is away, or holds what cannot be used, never fails a call.

#![cfg(feature = "macros")]

mod support;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use support::{bounded, builder, client, dead, other};
use zerocache_client::{
    Error, ErrorKind, Value, ZerocacheClient, codec::Codec, memo::Cacheable, report::CallWrite,
    zerocache,
};
use zerocache_core::limits::Limits;

static RUNS: AtomicUsize = AtomicUsize::new(0);

#[zerocache(cache, 60, skip(cache))]
async fn with_cache(cache: &ZerocacheClient, n: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::SeqCst);
    n
}

#[zerocache(cache, 60, skip(cache))]
fn with_cache_sync(cache: &ZerocacheClient, n: u64) -> u64 {
    n
}

#[tokio::test]
async fn dead_cluster_is_counted_and_the_function_computes() {
    bounded(async {
        let cache = dead();
        assert_eq!(with_cache(&cache, 1).await, 1);
        assert_eq!(with_cache(&cache, 1).await, 1);
        assert_eq!(with_cache_sync(&cache, 2), 2);
        assert_eq!(RUNS.load(Ordering::SeqCst), 2);
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.read_errors, stats.write_errors), (3, 3, 3));
        assert_eq!((stats.hits, stats.stored), (0, 0));
        assert!(with_cache(&cache, 1).peek().await.is_err());
        assert!(with_cache(&cache, 1).invalidate().await.is_err());
    })
    .await;
}

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
struct Old {
    width: u32,
    height: u32,
}

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
#[serde(rename = "Old")]
struct New {
    height: u32,
    width: u32,
}

#[zerocache(cache, 60, skip(cache))]
async fn size(cache: &ZerocacheClient, n: u32) -> New {
    New { height: n, width: 2 }
}

#[tokio::test]
async fn value_that_does_not_decode_is_a_miss() {
    bounded(async {
        let cache = other("mismatch");
        let key = size(&cache, 1).key().expect("has a key");
        let fresh = New { height: 1, width: 2 };
        let old = Old { width: 8, height: 9 };
        cache.put(&key, Value(&old), 60).await.expect("stores");
        assert_eq!(size(&cache, 1).peek().await.expect("reads"), None);
        assert_eq!(size(&cache, 1).await, fresh);
        assert_eq!(size(&cache, 1).peek().await.expect("reads"), Some(fresh.clone()));
        for junk in [&b""[..], b"text", b"\x81", b"\x81\0\0\0\0\0\0\0\0\0"] {
            cache.put(&key, junk, 60).await.expect("stores");
            assert_eq!(size(&cache, 1).await, fresh);
        }
        size(&cache, 1).invalidate().await.expect("deletes");
        assert_eq!(size(&cache, 1).await, fresh);
        let good = cache.get(&key).await.expect("reads").expect("is there");
        for length in 0..good.len() {
            cache.put(&key, &good[..length], 60).await.expect("stores");
            assert_eq!(size(&cache, 1).await, fresh);
        }
        let longer = [&good[..], b"!"].concat();
        cache.put(&key, longer, 60).await.expect("stores");
        assert_eq!(size(&cache, 1).await, fresh);
        let stats = cache.memo_stats();
        let mismatched = 1 + 4 + good.len() as u64 + 1;
        assert_eq!((stats.mismatched, stats.shape_entries_stored), (mismatched, mismatched));
        assert_eq!((stats.stored, stats.hits), (mismatched + 1, 0));
    })
    .await;
}

struct Refuses;

impl Serialize for Refuses {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("refused"))
    }
}

#[zerocache(cache, 60, skip(cache))]
async fn unkeyed(cache: &ZerocacheClient, argument: Refuses) -> u8 {
    let _ = argument;
    7
}

#[tokio::test]
async fn argument_whose_serialize_fails_leaves_the_call_uncached() {
    bounded(async {
        let cache = other("unkeyed");
        assert_eq!(unkeyed(&cache, Refuses).key(), None);
        assert_eq!(unkeyed(&cache, Refuses).await, 7);
        assert_eq!(unkeyed(&cache, Refuses).peek().await.expect("looks nowhere"), None);
        assert!(unkeyed(&cache, Refuses).invalidate().await.is_err());
        assert_eq!(cache.memo_stats().unkeyed, 1);
    })
    .await;
}

#[derive(Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("refused"))
    }
}

#[zerocache(cache, 60, skip(cache))]
async fn unwritable(cache: &ZerocacheClient) -> Unwritable {
    Unwritable
}

#[tokio::test]
async fn value_whose_serialize_fails_is_returned_and_not_stored() {
    bounded(async {
        let cache = other("unwritable");
        let Unwritable = unwritable(&cache).await;
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.write_errors, stats.stored), (1, 1, 0));
    })
    .await;
}

/// A client that writes bincode alone, and has counts of its own.
fn in_bincode() -> ZerocacheClient {
    builder("london").codec(Codec::Bincode).build().expect("the configuration is allowed")
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
}

#[zerocache(cache, 60, skip(cache))]
async fn unreadable(cache: &ZerocacheClient) -> Untagged {
    Untagged::Number(7)
}

#[tokio::test]
async fn value_that_does_not_read_back_is_not_stored() {
    bounded(async {
        let cache = in_bincode();
        for _ in 0..2 {
            assert_eq!(unreadable(&cache).await, Untagged::Number(7));
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.write_errors, stats.stored), (2, 2, 0));
        let key = unreadable(&cache).key().expect("has a key");
        assert_eq!(cache.get(&key).await.expect("reads"), None);
    })
    .await;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<u8>,
    stars: u8,
    tags: Vec<u8>,
}

#[zerocache(cache, 60, skip(cache))]
async fn page(cache: &ZerocacheClient, note: Option<u8>) -> Page {
    Page { note, stars: 0, tags: vec![2, 8, 9] }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    #[serde(skip_serializing, default)]
    secret: u8,
    stars: u8,
    tags: Vec<u8>,
}

#[zerocache(cache, 60, skip(cache))]
async fn account(cache: &ZerocacheClient) -> Account {
    Account { secret: 7, stars: 0, tags: vec![2, 8, 9] }
}

#[tokio::test]
async fn value_with_an_omitted_field_does_not_decode_as_another_one() {
    bounded(async {
        let cache = in_bincode();
        // Of this one nothing is left out; it is kept.
        for _ in 0..2 {
            assert_eq!(page(&cache, Some(1)).await.note, Some(1));
        }
        assert_eq!(cache.memo_stats().hits, 1);
        for _ in 0..2 {
            let whole = Page { note: None, stars: 0, tags: vec![2, 8, 9] };
            assert_eq!(page(&cache, None).await, whole);
            assert_eq!(account(&cache).await, Account { secret: 7, stars: 0, tags: vec![2, 8, 9] });
            let given = || async { Ok::<_, Infallible>(whole.clone()) };
            assert_eq!(cache.get_or_compute("left out", 60, given).await, Ok(whole.clone()));
            let refused =
                cache.put("left out", Value(&whole), 60).await.expect_err("is not stored");
            assert_eq!(refused.kind(), ErrorKind::Codec);
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.write_errors), (1, 6));
    })
    .await;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Results {
    #[serde(default, skip_serializing)]
    cursor: u32,
    items: Vec<u32>,
    total: u32,
}

#[zerocache(cache, 60, skip(cache))]
async fn results(cache: &ZerocacheClient, results: Option<Results>) -> Option<Results> {
    results
}

#[zerocache(cache, 60, skip(cache))]
async fn numbers(cache: &ZerocacheClient, count: u64) -> Vec<Untagged> {
    (0..count).map(Untagged::Number).collect()
}

#[tokio::test]
async fn each_value_is_checked_whatever_others_of_its_type_are() {
    bounded(async {
        let cache = in_bincode();
        let some = Some(Results { cursor: 0, items: vec![1, 7], total: 9 });
        for _ in 0..2 {
            assert_eq!(results(&cache, None).await, None);
            assert_eq!(results(&cache, some.clone()).await, some);
            assert_eq!(numbers(&cache, 0).await, []);
            assert_eq!(numbers(&cache, 2).await, [Untagged::Number(0), Untagged::Number(1)]);
            cache.put("none", Value(&None::<Results>), 60).await.expect("stores");
            let refused = cache.put("some", Value(&some), 60).await.expect_err("is not stored");
            assert_eq!(refused.kind(), ErrorKind::Codec);
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.hits, stats.write_errors), (2, 2, 4));
    })
    .await;
}

#[zerocache(cache, 60, skip(cache), negative(err = |_: &Account| true, ttl = 5))]
async fn no_account(cache: &ZerocacheClient) -> Result<u8, Account> {
    Err(Account { secret: 7, stars: 0, tags: vec![2, 8, 9] })
}

#[tokio::test]
async fn error_with_an_unwritten_field_is_not_stored() {
    bounded(async {
        let cache = in_bincode();
        for _ in 0..2 {
            assert_eq!(no_account(&cache).await.map_err(|account| account.secret), Err(7));
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.negative_stored, stats.write_errors), (2, 0, 2));
    })
    .await;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Denied {
    #[serde(skip)]
    #[allow(dead_code, reason = "only its place counts")]
    Io(std::io::ErrorKind),
    Forbidden,
    Gone,
}

#[zerocache(cache, 60, skip(cache), negative(err = |_: &Denied| true, ttl = 5))]
async fn denied(cache: &ZerocacheClient) -> Result<u8, Denied> {
    Err(Denied::Forbidden)
}

#[tokio::test]
async fn error_after_a_skipped_variant_does_not_decode_as_another() {
    bounded(async {
        let cache = in_bincode();
        for _ in 0..2 {
            assert_eq!(denied(&cache).await, Err(Denied::Forbidden));
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.negative_stored, stats.write_errors), (2, 0, 2));
    })
    .await;
}

#[zerocache(cache, 60, skip(cache))]
async fn generic<T: Cacheable + From<u64>>(cache: &ZerocacheClient, n: u64) -> T {
    T::from(n)
}

impl From<u64> for Untagged {
    fn from(n: u64) -> Self {
        Untagged::Number(n)
    }
}

#[tokio::test]
async fn each_type_of_a_generic_function_is_read_back() {
    bounded(async {
        let cache = in_bincode();
        assert_eq!(generic::<u64>(&cache, 7).await, 7);
        for _ in 0..2 {
            assert_eq!(generic::<Untagged>(&cache, 7).await, Untagged::Number(7));
        }
        assert_eq!(generic::<u128>(&cache, 7).await, 7);
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.write_errors, stats.stored), (4, 2, 2));
        assert_eq!((stats.mismatched, stats.hits), (0, 0));
    })
    .await;
}

mod first {
    #[super::zerocache(cache, 60, skip(cache), name = "one name")]
    pub(super) async fn named(cache: &super::ZerocacheClient) -> u8 {
        1
    }
}

mod second {
    #[super::zerocache(cache, 60, skip(cache), name = "one name")]
    pub(super) async fn named(cache: &super::ZerocacheClient) -> u8 {
        2
    }
}

#[tokio::test]
async fn second_function_of_one_identity_is_not_cached() {
    bounded(async {
        let cache = client();
        assert_eq!(first::named(&cache).await, 1);
        assert_eq!(second::named(&cache).await, 2);
        assert!(first::named(&cache).key().is_some());
        assert_eq!(second::named(&cache).key(), None);
    })
    .await;
}

#[zerocache(region, 60)]
async fn anywhere(region: &str, n: u64) -> u64 {
    n + region.len() as u64
}

#[tokio::test]
async fn invalid_configuration_is_counted_and_the_function_computes() {
    bounded(async {
        // No name of a region; so would a variable be that cannot be read.
        let region = "two words";
        assert_eq!(anywhere(region, 1).await, 10);
        assert_eq!(anywhere(region, 1).await, 10);
        let cache = ZerocacheClient::get_instance(region);
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.read_errors, stats.write_errors), (2, 2, 2));
        let error = cache.ready(Duration::from_secs(5)).await.expect_err("says what is wrong");
        assert_eq!(error.kind(), ErrorKind::Config);
    })
    .await;
}

#[zerocache(cache, 60, skip(cache))]
async fn large(cache: &ZerocacheClient, bytes: usize) -> String {
    // Nothing that could be packed.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 58) as u8)
    };
    (0..bytes).map(|_| next()).collect()
}

#[tokio::test]
async fn too_large_value_is_returned_and_not_stored() {
    bounded(async {
        let cache = other("large");
        let bytes = Limits::VALUE_BYTES_DEFAULT + 1;
        assert_eq!(large(&cache, bytes).await.len(), bytes);
        assert_eq!(large(&cache, bytes).peek().await.expect("reads"), None);
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.stored, stats.write_errors), (1, 0, 1));
        // The node has said how much it takes: nothing is sent that it refuses.
        for more in 0..3 {
            let (_, report) = large(&cache, bytes + more).explain().await;
            let Some(CallWrite::Failed(Error::Refused(text))) = report.write else {
                panic!("{report}");
            };
            // A sixteenth of the node's budget.
            assert!(text.ends_with("at most 4194304 are allowed"), "{text}");
        }
        let stats = (cache.stats().too_large, cache.stats().too_large_unsent);
        assert_eq!((stats, cache.memo_stats().write_errors), ((4, 3), 4));
        assert_eq!(large(&cache, 4 << 10).await.len(), 4 << 10);
        assert_eq!(cache.memo_stats().stored, 1);
    })
    .await;
}
