//! Faults that only the log shows: each is logged once, at WARN.

#![cfg(feature = "macros")]

mod support;

use std::time::Duration;

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use support::log::{collect, warnings};
use support::{bounded, builder, dead, other};
use zerocache_client::{ZerocacheClient, zerocache};
use zerocache_core::limits::Limits;

#[zerocache(cache, 60, skip(cache))]
async fn plain(cache: &ZerocacheClient, n: u64) -> u64 {
    n
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
}

#[zerocache(cache, 60, skip(cache), codec = bincode)]
async fn unreadable(cache: &ZerocacheClient) -> Untagged {
    Untagged::Number(7)
}

#[derive(Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
}

#[zerocache(cache, 60, skip(cache), codec = bincode)]
async fn unwritable(cache: &ZerocacheClient, first: Option<u8>) -> Sparse {
    Sparse { first }
}

/// A key part that refuses to be one, at times.
struct Refusing(bool);

impl Serialize for Refusing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 { Err(S::Error::custom("not today")) } else { serializer.serialize_unit() }
    }
}

#[zerocache(cache, 60, skip(cache))]
async fn refusing(cache: &ZerocacheClient, part: &Refusing) -> bool {
    part.0
}

/// More than a node takes, however it is packed.
const LARGE: usize = Limits::VALUE_BYTES_DEFAULT + 1;

#[zerocache(cache, 60, skip(cache))]
async fn large(cache: &ZerocacheClient) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..LARGE).map(|_| next()).collect()
}

#[zerocache(cache, 60, skip(cache, f))]
async fn given<F: Fn() -> u8>(cache: &ZerocacheClient, f: F) -> u8 {
    f()
}

mod first {
    #[super::zerocache(cache, 60, skip(cache), name = "logged twice")]
    pub(super) async fn named(cache: &super::ZerocacheClient) -> u8 {
        1
    }
}

mod second {
    #[super::zerocache(cache, 60, skip(cache), name = "logged twice")]
    pub(super) async fn named(cache: &super::ZerocacheClient) -> u8 {
        2
    }
}

#[tokio::test]
async fn missing_sources_are_named() {
    collect();
    let _dead = dead();
    let _elsewhere = builder("lndon").build().expect("the configuration is allowed");
    bounded(async {
        while warnings("no node stands in the region of this client").is_empty()
            || warnings("no node of the cluster answers at these addresses").is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let said = warnings("no node stands in the region of this client");
    assert!(said[0].contains("region=\"lndon\"") && said[0].contains("[\"london\"]"), "{said:?}");
    let said = warnings("no node of the cluster answers at these addresses");
    assert!(said[0].contains("127.0.0.1:1"), "{said:?}");
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test]
async fn uncacheable_value_is_logged_once() {
    collect();
    bounded(async {
        for _ in 0..3 {
            assert_eq!(plain(&dead(), 1).await, 1);
        }
        while warnings("no node of the cache can be reached").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(plain(&dead(), 1).await, 1);
        assert_eq!(warnings("no node of the cache can be reached").len(), 1);

        let cache = other("logged");
        for _ in 0..3 {
            let Untagged::Number(7) = unreadable(&cache).await else { panic!("as it was given") };
        }
        // Some of its values can be written.
        assert_eq!(unwritable(&cache, Some(1)).await.first, Some(1));
        for first in [Some(1), None, None] {
            assert_eq!(unwritable(&cache, first).await.first, first);
        }
        for _ in 0..2 {
            assert_eq!(large(&cache).await.len(), LARGE);
        }
        let said = warnings("cannot cache");
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("function=\"unreadable\""), "{said:?}");
        assert!(said[1].contains("function=\"unwritable\""), "{said:?}");
        assert!(said[2].contains("function=\"large\" "), "{said:?}");
        assert!(said[2].contains("refused by the node"), "{said:?}");
        let stats = cache.memo_stats();
        assert_eq!((stats.stored, stats.hits, stats.write_errors), (1, 1, 7));

        for _ in 0..3 {
            assert_eq!((first::named(&cache).await, second::named(&cache).await), (1, 2));
        }
        let said = warnings("same identity");
        assert_eq!(said.len(), 1, "{said:?}");
        // Where the one is, and where the other.
        assert_eq!(said[0].matches("warnings.rs:").count(), 2, "{said:?}");
        assert_eq!(cache.memo_stats().unkeyed, 3);

        for refuses in [false, true, true] {
            assert_eq!(refusing(&cache, &Refusing(refuses)).await, refuses);
        }
        let said = warnings("has no key");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("function=\"refusing\"") && said[0].contains("not today"),
            "{said:?}"
        );
        assert_eq!(cache.memo_stats().unkeyed, 5);

        for _ in 0..2 {
            assert_eq!((given(&cache, || 1).await, given(&cache, || 2).await), (1, 2));
        }
        let said = warnings("has no key");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("function=\"given\"") && said[1].contains("closure"), "{said:?}");
        assert_eq!(cache.memo_stats().unkeyed, 9);

        // Of each function that finds values of another release, or of anybody else.
        for n in 0..3 {
            let key = plain(&cache, n).key().expect("has a key");
            cache.put(key, "what no release of it writes", 60).await.expect("stores");
            cache.put("logged", "nor this", 60).await.expect("stores");
            for _ in 0..2 {
                assert_eq!(plain(&cache, n).await, n);
                let given = cache.get_or_compute("logged", 60, async || Ok::<_, ()>(n));
                assert_eq!(given.await, Ok(n));
            }
        }
        let said = warnings("cannot read");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("function=\"plain\""), "{said:?}");
        assert!(said[0].contains("were not written as a typed value"), "{said:?}");
        assert!(said[1].contains("function=\"get_or_compute\""), "{said:?}");
    })
    .await;
}
