//! Codecs of clients and functions.

#![cfg(feature = "macros")]
#![cfg(feature = "messagepack")]

mod support;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use support::log::{collect, news, warnings};
use support::{bounded, builder, other};
use zerocache_client::codec::{Codec, CodecError, Compared};
use zerocache_client::{Error, ErrorKind, Value, ZerocacheClient, zerocache};

/// The first bytes of typed values.
const BINCODE: u8 = 0x81;
const MESSAGEPACK: u8 = 0x82;

fn writing(codec: Codec) -> ZerocacheClient {
    builder("london").codec(codec).build().expect("the configuration is allowed")
}

/// The codec of what is stored under `key`.
async fn tag(cache: &ZerocacheClient, key: impl AsRef<[u8]>) -> u8 {
    cache.get(key).await.expect("reads").expect("is there")[0]
}

#[zerocache(cache, 60, skip(cache))]
async fn json(cache: &ZerocacheClient, n: u64) -> Json {
    json!({ "n": n, "list": [1, null, "a"] })
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "error")]
enum Problem {
    Absent { id: u64 },
}

#[zerocache(cache, 60, skip(cache), negative(err = |_: &Problem| true, ttl = 60))]
async fn failing(cache: &ZerocacheClient, id: u64) -> Result<Json, Problem> {
    Err(Problem::Absent { id })
}

#[tokio::test]
async fn value_that_bincode_does_not_read_back_is_cached() {
    bounded(async {
        let cache = other("auto");
        for _ in 0..3 {
            assert_eq!(json(&cache, 1).await["n"], 1);
            assert_eq!(failing(&cache, 2).await, Err(Problem::Absent { id: 2 }));
            let compute = async || Ok::<_, Problem>(json!([1]));
            assert_eq!(cache.get_or_compute("auto", 60, compute).await, Ok(json!([1])));
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.hits, stats.write_errors), (3, 6, 0));
        assert_eq!((stats.negative_hits, stats.mismatched), (2, 0));
        cache.put("typed", Value(&json!({ "a": 1 })), 60).await.expect("stores");
        let typed = cache.get("typed").value::<Json>().await.expect("reads");
        assert_eq!(typed, Some(json!({ "a": 1 })));
    })
    .await;
}

#[zerocache(cache, 60, skip(cache))]
async fn plain(cache: &ZerocacheClient, n: u64) -> u64 {
    n
}

#[zerocache(cache, 60, skip(cache), codec = bincode)]
async fn in_bincode(cache: &ZerocacheClient, n: u64) -> u64 {
    n
}

#[zerocache(cache, 60, skip(cache), codec = messagepack)]
async fn in_messagepack(cache: &ZerocacheClient, n: u64) -> u64 {
    n
}

#[tokio::test]
async fn attribute_goes_before_the_client_and_a_call_before_the_attribute() {
    bounded(async {
        let cache = writing(Codec::MessagePack);
        let (first, second, third) = (plain(&cache, 1), in_bincode(&cache, 1), plain(&cache, 2));
        let keys = [first.key(), second.key()].map(|key| key.expect("has a key"));
        assert_eq!((first.await, second.await), (1, 1));
        assert_eq!(tag(&cache, &keys[0]).await, MESSAGEPACK);
        assert_eq!(tag(&cache, &keys[1]).await, BINCODE);
        let key = third.key().expect("has a key");
        assert_eq!(third.codec(Codec::Bincode).await, 2);
        assert_eq!(tag(&cache, key).await, BINCODE);
        cache.put("client's codec", Value(&7_u64), 60).await.expect("stores");
        assert_eq!(tag(&cache, "client's codec").await, MESSAGEPACK);
        cache.put_many([("many", Value(&7_u64))], 60).await.expect("stores");
        assert_eq!(tag(&cache, "many").await, MESSAGEPACK);
        let other = other("attribute");
        let call = in_messagepack(&other, 1);
        let key = call.key().expect("has a key");
        assert_eq!((call.await, tag(&cache, key).await), (1, MESSAGEPACK));
    })
    .await;
}

/// Two releases, or a function before and after a change of its codec.
#[tokio::test]
async fn values_of_one_codec_are_hits_for_functions_with_another() {
    bounded(async {
        let clients = [Codec::Auto, Codec::Bincode, Codec::MessagePack].map(writing);
        for (n, writer) in (10..).zip(&clients) {
            assert_eq!(plain(writer, n).await, n);
            for reader in &clients {
                assert_eq!(plain(reader, n).await, n);
                assert_eq!(plain(reader, n).peek().await.expect("reads"), Some(n));
            }
            writer.put("either", Value(&n), 60).await.expect("stores");
            for reader in &clients {
                let read = reader.get("either").value::<u64>().await.expect("reads");
                assert_eq!(read, Some(n));
            }
        }
        for client in &clients {
            let stats = client.memo_stats();
            assert_eq!((stats.computed, stats.hits, stats.mismatched), (1, 3, 0));
        }
    })
    .await;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    #[serde(default, skip_serializing)]
    secret: u8,
    stars: u8,
}

#[zerocache(cache, 60, skip(cache))]
async fn account(cache: &ZerocacheClient) -> Account {
    Account { secret: 7, stars: 1 }
}

#[tokio::test]
async fn field_that_is_never_written_keeps_a_value_out_of_every_codec() {
    bounded(async {
        for codec in [Codec::Auto, Codec::MessagePack] {
            let cache = writing(codec);
            for _ in 0..2 {
                assert_eq!(account(&cache).await, Account { secret: 7, stars: 1 });
            }
            let value = Account { secret: 7, stars: 1 };
            let refused = cache.put("account", Value(&value), 60).await.expect_err("is refused");
            assert_eq!(refused.kind(), ErrorKind::Codec);
            let stats = cache.memo_stats();
            assert_eq!((stats.stored, stats.write_errors), (0, 2));
        }
    })
    .await;
}

/// Reads `B` as `A`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Fitting {
    A {
        x: u64,
    },
    B {
        x: u64,
        #[serde(default)]
        y: u64,
    },
}

/// As [`Fitting`], but no two of them can be compared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Unlike {
    #[serde(flatten)]
    inner: Fitting,
    #[serde(default, skip_serializing)]
    lost: u8,
}

const A: Fitting = Fitting::A { x: 1 };
const B: Fitting = Fitting::B { x: 1, y: 2 };

#[zerocache(cache, 60, skip(cache))]
async fn fitting(cache: &ZerocacheClient, value: Fitting) -> Fitting {
    value
}

#[zerocache(cache, 60, skip(cache))]
async fn optional(cache: &ZerocacheClient, value: Fitting) -> Result<Option<Fitting>, String> {
    Ok(Some(value))
}

#[zerocache(cache, 60, skip(cache), negative(err = |_| true, ttl = 60))]
async fn always_fails(cache: &ZerocacheClient, value: Fitting) -> Result<u8, Fitting> {
    Err(value)
}

#[zerocache(cache, 60, skip(cache))]
async fn bound<T>(cache: &ZerocacheClient, value: T) -> T
where
    T: Copy + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    value
}

#[zerocache(cache, 60, skip(cache))]
async fn generic<T>(cache: &ZerocacheClient, value: T) -> T
where
    T: Copy + Serialize + DeserializeOwned + Send + 'static,
{
    value
}

#[zerocache(cache, 60, key = value.lost)]
async fn unlike(cache: &ZerocacheClient, value: Unlike) -> Unlike {
    value
}

#[zerocache(cache, 60, key = value.lost, codec = messagepack)]
async fn trusted(cache: &ZerocacheClient, value: Unlike) -> Unlike {
    value
}

#[tokio::test]
async fn comparable_value_of_a_function_is_cached_if_it_is_read_back_equal() {
    bounded(async {
        let cache = other("comparable");
        for _ in 0..2 {
            assert_eq!(fitting(&cache, A).await, A);
            assert_eq!(optional(&cache, A).await, Ok(Some(A)));
            assert_eq!(always_fails(&cache, A).await, Err(A));
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.hits, stats.write_errors), (3, 3, 0));
        for _ in 0..2 {
            assert_eq!(fitting(&cache, B).await, B);
            assert_eq!(optional(&cache, B).await, Ok(Some(B)));
            assert_eq!(always_fails(&cache, B).await, Err(B));
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.hits, stats.write_errors), (3, 3, 6));
        // The refused values have not moved the others.
        assert_eq!(fitting(&cache, Fitting::A { x: 2 }).await, Fitting::A { x: 2 });
        assert_eq!(cache.memo_stats().stored, 4);
    })
    .await;
}

#[tokio::test]
async fn generic_function_compares_only_with_the_bound() {
    bounded(async {
        let cache = other("generic");
        for _ in 0..2 {
            assert_eq!(bound(&cache, A).await, A);
            assert_eq!(bound(&cache, B).await, B);
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.hits, stats.write_errors), (1, 1, 2));
        for value in [A, B, A] {
            assert_eq!(generic(&cache, value).await, value);
            assert_eq!(generic(&cache, 7).await, 7);
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.hits, stats.write_errors), (2, 3, 5));
    })
    .await;
}

#[tokio::test]
async fn incomparable_value_is_refused_with_one_warning_that_says_what_to_do() {
    collect();
    bounded(async {
        let cache = other("incomparable");
        for lost in [0, 0, 1, 2] {
            let _ = unlike(&cache, Unlike { inner: A, lost }).await;
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.write_errors), (0, 4));
        let said = warnings("function=\"unlike\"");
        assert_eq!(said.len(), 1, "{said:?}");
        for words in ["PartialEq", "`messagepack`", "flatten", "cannot cache this function's value"]
        {
            assert!(said[0].contains(words), "{said:?}");
        }
        // A codec that is named takes the responsibility.
        for _ in 0..2 {
            let _ = trusted(&cache, Unlike { inner: A, lost: 0 }).await;
            let _ = unlike(&cache, Unlike { inner: A, lost: 3 }).codec(Codec::MessagePack).await;
        }
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.hits, stats.write_errors), (2, 2, 4));
    })
    .await;
}

#[tokio::test]
async fn values_of_put_and_of_closures_are_compared_on_request() {
    bounded(async {
        let cache = other("on request");
        let refused = cache.put("key", Value(&A), 60).await.expect_err("is not compared");
        assert!(matches!(refused, Error::Encode(CodecError::Unproven)), "{refused}");
        cache.put("key", Compared(&A), 60).await.expect("stores");
        assert_eq!(cache.get("key").value::<Fitting>().await.expect("reads"), Some(A));
        let refused = cache.put("key", Compared(&B), 60).await.expect_err("is another one");
        assert!(matches!(refused, Error::Encode(CodecError::Encode(_))), "{refused}");
        for (value, stored) in [(A, 1), (B, 1)] {
            let compute = async || Ok::<_, ()>(value);
            let key = format!("{value:?}");
            assert_eq!(cache.get_or_compute(&key, 60, compute).await, Ok(value));
            assert_eq!(cache.get_or_compute(&key, 60, compute).compared().await, Ok(value));
            assert_eq!(cache.memo_stats().stored, stored);
        }
        assert_eq!(cache.memo_stats().write_errors, 3);
    })
    .await;
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Moving {
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<u8>,
}

#[zerocache(cache, 60, skip(cache))]
async fn moving(cache: &ZerocacheClient, note: Option<u8>) -> Moving {
    Moving { note }
}

#[tokio::test]
async fn change_of_the_codec_is_logged_once_by_a_client_that_stores() {
    collect();
    bounded(async {
        // There is no such region.
        let broken = ZerocacheClient::get_instance("v1");
        for _ in 0..3 {
            assert_eq!(moving(&broken, None).await, Moving { note: None });
            broken.put("key", Value(&Moving { note: None }), 60).await.expect_err("it cannot");
        }
        assert_eq!(news("Moving"), Vec::<String>::new());
        let cache = other("moving");
        for note in [Some(1), None, Some(2), Some(3), None] {
            assert_eq!(moving(&cache, note).await, Moving { note });
        }
        let said = news("Moving");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("is stored as MessagePack"), "{said:?}");
    })
    .await;
}

#[tokio::test]
async fn typed_value_is_replaced_by_its_version() {
    let cache = ZerocacheClient::builder("london").offline(true).build().expect("is allowed");
    let problem = Problem::Absent { id: 7 };
    cache.put("k", Compared(&problem), 60).await.expect("is stored");
    let entry = cache.get("k").entry().await.expect("reads").expect("is there");
    assert_eq!(entry.decode::<Problem>().expect("is one"), problem);
    assert!(matches!(entry.decode::<u64>(), Err(Error::Decode(_))));
    let put = cache.put("k", Value(&8_u64), 60).if_version(entry.version);
    assert!(put.await.expect("a node judges").is_stored());
    let entry = cache.get("k").entry().await.expect("reads").expect("is there");
    assert_eq!(entry.decode::<u64>().expect("is one"), 8);
}
