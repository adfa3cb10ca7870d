//! Pins the keys that the attribute gives functions, and what is stored under them. A line that changes with a new compiler is to
//! be brought back in `normalise`; one that changes with our code needs a new scheme.

#![cfg(feature = "macros")]

mod support;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use support::{bounded, client};
use zerocache_client::{
    Value,
    ops::{Encoding, EntryKind, IntoValue},
    zerocache,
};

#[zerocache(client(), 60)]
async fn free(id: u64, name: &str) -> u64 {
    id + name.len() as u64
}

#[zerocache(client(), 60, version = 1)]
async fn versioned(id: u64) -> u64 {
    id
}

#[zerocache(client(), 60, name = "shop::named")]
async fn named(id: u64) -> u64 {
    id
}

#[zerocache(client(), 60, call = sync_call)]
fn sync(id: u64) -> u64 {
    id
}

#[zerocache(client(), 60)]
async fn generic<T, const N: usize>(items: [T; N], other: impl Serialize) -> usize
where
    [T; N]: Serialize,
{
    let _ = (items, other);
    N
}

#[derive(Serialize)]
struct Shop<T>(T);

impl<T: Serialize> Shop<T> {
    #[zerocache(client(), 60)]
    async fn method(&self, id: u64) -> u64 {
        id
    }
}

trait Find: Serialize {
    #[zerocache(client(), 60)]
    fn find(&self, id: u64) -> u64 {
        id
    }
    async fn own(&self, id: u64) -> u64;
}

impl<T: Serialize> Find for Shop<T> {
    #[zerocache(client(), 60)]
    async fn own(&self, id: u64) -> u64 {
        id
    }
}

fn hex(bytes: Option<Bytes>) -> String {
    let bytes = bytes.expect("the call has a key");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn keys_of_functions() {
    let shop = Shop(Some(1_u8));
    let found = [
        hex(free(1, "a").key()),
        hex(versioned(1).key()),
        hex(named(1).key()),
        hex(sync_call(1).key()),
        hex(generic([1_u8], String::new()).key()),
        hex(shop.method(1).key()),
        hex(shop.own(1).key()),
    ];
    assert_eq!(
        found,
        [
            "020078dfb94c4e89af969ddb065afef8c4a40b0000000000000001100161",
            "0200151803e4312b0fd7aff7468d0d1687f30b0000000000000001",
            "020027d71c7a84a0381280e10eab4aa59b210b0000000000000001",
            "0200d3d3c141a335403edfd42bc0a6cebbbd0b0000000000000001",
            "020061d5afe8890fe4729f0dae5743aa43001b0801001000",
            "0200bb16cec9eaa33fc76c4b484ce9522dc6170453686f701308010b0000000000000001",
            "020060bee79a82d71dc5347310c029960c0b170453686f701308010b0000000000000001",
        ]
    );
    assert_eq!((sync(1), shop.find(1)), (1, 1));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: Option<String>,
    roles: Vec<Role>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Role {
    Reader,
    Writer { until: i32 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Problem {
    Absent(u64),
}

#[zerocache(
    client(), 600,
    stale(while = "2s", if_error = "5s"), ahead = "300ms",
    negative(none = 60, err = |_: &Problem| true, ttl = 60),
    tags = ["users", format!("user:{id}")]
)]
async fn stored(id: u64) -> Result<Option<User>, Problem> {
    match id {
        0 => Err(Problem::Absent(300)),
        1 => Ok(None),
        _ => {
            let roles = vec![Role::Reader, Role::Writer { until: -1 }];
            Ok(Some(User { id, name: Some("Ada".to_owned()), roles }))
        }
    }
}

#[tokio::test]
async fn golden_values_and_metadata() {
    bounded(async {
        let mut found = Vec::new();
        for id in [7, 1, 0] {
            let _ = stored(id).await;
            let entry = client().get(stored(id).key().expect("has a key")).entry().await;
            let entry = entry.expect("reads").expect("is there");
            assert_eq!(entry.metadata.encoding, Encoding::Plain);
            assert_eq!(entry.metadata.kind == EntryKind::Error, id == 0);
            found.push((hex(Some(entry.value)), hex(Some(entry.metadata.encode()))));
        }
        let found: Vec<_> = found.iter().map(|(v, m)| (v.as_str(), m.as_str())).collect();
        // A value: codec, shape, bincode. Beside it: times, kind, tags.
        assert_eq!(
            found,
            [
                (
                    "813407700cdffc7e56\
                     0107010341646102000101",
                    "0102d00f020288270302ac02\
                     060575736572730606757365723a37"
                ),
                ("813407700cdffc7e5600", "060575736572730606757365723a31"),
                ("81c747b3ec64fd645e00fb2c01", "050101060575736572730606757365723a30"),
            ]
        );
    })
    .await;
}

/// The first byte of a key is its scheme: releases of two schemes use one cluster side by side.
#[tokio::test]
async fn schemes_do_not_collide() {
    bounded(async {
        let key = free(7, "x").key().expect("has a key");
        assert_eq!(key[0], 2);
        assert_eq!(free(7, "x").await, 8);
        let mine = client().get(&key).await.expect("reads").expect("is there");
        for scheme in [0, 1, 3, 0xff] {
            let other = [&[scheme], &key[1..]].concat();
            assert_eq!(client().get(&other).await.expect("reads"), None);
            client().put(&other, "of another release", 60).await.expect("stores");
            assert_eq!(free(7, "x").peek().await.expect("reads"), Some(8));
            free(7, "x").invalidate().await.expect("deletes");
            assert_eq!(free(7, "x").peek().await.expect("reads"), None);
            let theirs = client().get(&other).await.expect("reads");
            assert_eq!(theirs.as_deref(), Some(&b"of another release"[..]));
            assert_eq!(free(7, "x").await, 8);
        }
        assert_eq!(client().get(&key).await.expect("reads"), Some(mine));
    })
    .await;
}

/// Where a value is stored whose place is taken by one of another shape: programs in other languages can
/// find it.
#[tokio::test]
async fn golden_shape_entries() {
    bounded(async {
        let key = stored(8).key().expect("has a key");
        for put in ["of another release", "and once more"] {
            let base = client().put(&key, put, 60).await.expect("stores");
            let own = stored(8).await.expect("works");
            assert_eq!(own.as_ref().map(|user| user.id), Some(8));
            // What values of the two types begin with: the codec, and the shape.
            let shape_of = |value: Bytes| value.slice(1..9);
            let value = shape_of(Value(&own).into_value().expect("encodes"));
            let error = shape_of(Value(&Problem::Absent(0)).into_value().expect("encodes"));
            let hash = blake3::hash(&key);
            let beside = [&[0xfe, 0x00, 0x81], &value[..], &error[..], hash.as_bytes()].concat();
            let entry = client().get(&beside).entry().await.expect("reads").expect("is there");
            assert_eq!(entry.value, Value(&own).into_value().expect("encodes"));
            assert_eq!(entry.metadata.base, base.version);
            // No longer than the one beside which it stands.
            assert!(entry.ttl.as_secs() <= 60, "{:?}", entry.ttl);
            assert_eq!(client().get(&key).await.expect("reads").as_deref(), Some(put.as_bytes()));
        }
    })
    .await;
}
