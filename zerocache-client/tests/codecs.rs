//! Codecs of clients and functions.

#![cfg(feature = "messagepack")]

mod support;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use support::{bounded, builder, other};
use zerocache_client::codec::Codec;
use zerocache_client::{ErrorKind, Value, ZerocacheClient, zerocache};

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
