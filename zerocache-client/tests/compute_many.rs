//! Many keys that one loader computes.

mod support;

use std::collections::HashMap;
use std::future::IntoFuture;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all, poll_immediate};
use support::{bounded, dam::Dam, dead, other};
use tokio::sync::Semaphore;
use zerocache_client::{Error, Value, ZerocacheClient};
use zerocache_server::EmbeddedNode;

/// Loads the length of each key, notes which keys it was asked for, and may be held open.
struct Loader {
    loads: Mutex<Vec<Vec<String>>>,
    permits: Semaphore,
}

impl Loader {
    fn new(permits: usize) -> Self {
        Loader { loads: Mutex::default(), permits: Semaphore::new(permits) }
    }

    async fn load(&self, keys: Vec<String>) -> Result<Vec<(String, usize)>, String> {
        self.loads.lock().expect("no panic").push(keys.clone());
        self.permits.acquire().await.expect("never closed").forget();
        Ok(keys.into_iter().map(|key| (key.clone(), key.len())).collect())
    }

    fn loads(&self) -> Vec<Vec<String>> {
        self.loads.lock().expect("no panic").clone()
    }

    /// How often each key was loaded.
    fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        self.loads().into_iter().flatten().for_each(|key| *counts.entry(key).or_default() += 1);
        counts
    }
}

fn keys(prefix: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("{prefix}-{n}")).collect()
}

async fn get(
    cache: &ZerocacheClient,
    keys: &[String],
    loader: &Loader,
) -> Result<HashMap<String, usize>, String> {
    cache.get_or_compute_many(keys.to_vec(), 60, async |missing| loader.load(missing).await).await
}

#[tokio::test]
async fn hundred_keys_with_ten_missing_take_one_read_one_load_and_one_write() {
    bounded(async {
        let start = || EmbeddedNode::start(support::node_config("trips"), Duration::from_secs(10));
        let node = tokio::task::spawn_blocking(start).await.expect("no panic").expect("it starts");
        let dam = Dam::before(node.address()).await;
        let builder = ZerocacheClient::builder("london").cluster("trips").mdns(false);
        let builder = builder.seed(dam.address.to_string());
        let long = Duration::from_secs(15);
        let builder =
            builder.total_timeout(long).tier_timeout(zerocache_client::ops::Tier::Local, long);
        let cache = builder.build().expect("is allowed");
        cache.ready(Duration::from_secs(10)).await.expect("a node is ready");
        let keys: Vec<_> = (0..100).map(|n| format!("{n:0200}")).collect();
        let present = keys.iter().enumerate().filter(|(n, _)| n % 10 > 0);
        let present = present.map(|(_, key)| (key.clone(), Value(&7_usize)));
        cache.put_many(present, 60).await.expect("writes");
        let before = cache.stats();
        let loads = AtomicUsize::new(0);
        // No answer passes before all requests have: one after the other they would not.
        dam.close(100 * 200);
        let values = cache
            .get_or_compute_many(keys.clone(), 60, async |missing: Vec<String>| {
                loads.fetch_add(1, Ordering::SeqCst);
                assert_eq!(missing, keys.iter().step_by(10).cloned().collect::<Vec<_>>());
                dam.close(10 * 200);
                Ok::<_, Error>(missing.into_iter().map(|key| (key, 8_usize)).collect::<Vec<_>>())
            })
            .await
            .expect("loads");
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(values.get(key), Some(&if n % 10 > 0 { 7 } else { 8 }), "{n}");
        }
        let after = cache.stats();
        let reads = (after.hits.total() - before.hits.total(), after.misses - before.misses);
        assert_eq!((reads, after.stored - before.stored), ((90, 10), 10), "each key once");
        let stats = cache.memo_stats();
        assert_eq!((stats.hits, stats.misses, stats.computed, stats.stored), (90, 10, 10, 10));
        drop(node);
    })
    .await;
}

#[tokio::test]
async fn callers_with_overlapping_keys_load_each_key_once() {
    bounded(async {
        let cache = other("overlap");
        let loader = Loader::new(0);
        let (low, high) = (keys("overlap", 0..10), keys("overlap", 5..15));
        let mut both = Box::pin(join(get(&cache, &low, &loader), get(&cache, &high, &loader)));
        while loader.loads().len() < 2 {
            assert!(poll_immediate(&mut both).await.is_none());
            tokio::task::yield_now().await;
        }
        // A call of one key waits for them too.
        let one = cache.get_or_compute(&low[3], 60, async || Err::<usize, _>("computed again"));
        let mut one = Box::pin(one);
        assert!(poll_immediate(&mut one).await.is_none());
        loader.permits.add_permits(2);
        let ((low_values, high_values), one) = join(both, one).await;
        assert_eq!((low_values.expect("loads").len(), one), (10, Ok(low[3].len())));
        assert_eq!(high_values.expect("loads").len(), 10);
        assert!(loader.counts().values().all(|loads| *loads == 1), "{:?}", loader.loads());
        assert_eq!((loader.counts().len(), loader.loads().len()), (15, 2));
        let stats = cache.memo_stats();
        assert_eq!((stats.computed, stats.coalesced, stats.wait_timeouts), (15, 6, 0));
    })
    .await;
}

#[tokio::test]
async fn many_callers_at_a_time_never_wait_for_each_other() {
    bounded(async {
        let cache = other("rings");
        let loader = Loader::new(Semaphore::MAX_PERMITS);
        let rings: Vec<_> = (0..30)
            .map(|at| keys("ring", (0..20).map(|n| (at * 7 + n * (at % 3 + 1)) % 60)))
            .collect();
        let values = join_all(rings.iter().map(|ring| get(&cache, ring, &loader))).await;
        for (values, ring) in values.into_iter().zip(&rings) {
            let values = values.expect("loads");
            assert!(ring.iter().all(|key| values[key] == key.len()));
        }
        assert!(loader.counts().values().all(|loads| *loads == 1));
        assert_eq!(cache.memo_stats().wait_timeouts, 0);
    })
    .await;
}

#[tokio::test]
async fn keys_of_a_dropped_call_are_loaded_by_those_who_wait_for_them() {
    bounded(async {
        let cache = other("handover");
        let (held, loader) = (Loader::new(0), Loader::new(10));
        let (first, second) = (keys("handover", 0..4), keys("handover", 2..6));
        let mut dropped = Box::pin(get(&cache, &first, &held));
        while held.loads().is_empty() {
            assert!(poll_immediate(&mut dropped).await.is_none());
            tokio::task::yield_now().await;
        }
        let mut call = Box::pin(get(&cache, &second, &loader));
        while loader.loads().is_empty() {
            assert!(poll_immediate(&mut call).await.is_none());
            tokio::task::yield_now().await;
        }
        drop(dropped);
        assert_eq!(call.await.expect("loads").len(), 4);
        assert_eq!(loader.loads()[0], keys("handover", 4..6));
        assert_eq!(loader.counts().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn error_of_the_loader_is_returned_unless_there_are_previous_values() {
    bounded(async {
        let cache = other("load-error");
        let two = keys("load-error", 0..2);
        let fail = async |_: Vec<String>| Err::<Vec<(String, usize)>, _>("down");
        assert_eq!(cache.get_or_compute_many(two.clone(), 60, fail).await, Err("down"));
        assert_eq!(cache.get_many(&two).await.expect("reads"), [None, None]);
        let loader = Loader::new(1);
        let load = async |missing| loader.load(missing).await;
        let stored = cache.get_or_compute_many(two.clone(), 1, load).stale_if_error(60).await;
        let stored = stored.expect("loads");
        while cache.get_many(&two).await.expect("reads").iter().any(Option::is_some) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(cache.get_or_compute_many(two.clone(), 60, fail).await, Ok(stored));
        let three = keys("load-error", 0..3);
        assert_eq!(cache.get_or_compute_many(three, 60, fail).await, Err("down"), "one has none");
        let stats = cache.memo_stats();
        assert_eq!((stats.stale_on_error, stats.stored), (4, 2));
    })
    .await;
}

#[tokio::test]
async fn keys_that_the_loader_leaves_out_have_no_value_and_others_are_ignored() {
    bounded(async {
        let cache = other("left-out");
        let three = ["left-out-1", "left-out-2", "left-out-1"];
        let load = async |missing: Vec<&'static str>| {
            assert_eq!(missing, ["left-out-1", "left-out-2"], "each key once");
            Ok::<_, Error>(HashMap::from([("left-out-2", 2), ("left-out-9", 9)]))
        };
        let values = cache.get_or_compute_many(three, 60, load).await.expect("loads");
        assert_eq!(values, HashMap::from([("left-out-2", 2)]));
        let stored = cache.get_many(["left-out-1", "left-out-2", "left-out-9"]).values::<i32>();
        assert_eq!(stored.await.expect("reads"), [None, Some(2), None]);
        let none = cache.get_or_compute_many([""; 0], 60, async |_| {
            Err::<Vec<(&str, u8)>, _>("nothing is missing")
        });
        assert_eq!(none.await, Ok(HashMap::new()));
    })
    .await;
}

#[tokio::test]
async fn cache_that_is_not_there_fails_no_call() {
    bounded(async {
        let loader = Loader::new(10);
        let nobody = dead();
        let two = keys("dead", 0..2);
        assert_eq!(get(&nobody, &two, &loader).await.expect("loads").len(), 2);
        let stats = nobody.memo_stats();
        assert!(stats.read_errors >= 2 && stats.write_errors >= 2, "{stats:?}");
        // A key that is not allowed is loaded, and not stored.
        let cache = other("invalid-key");
        let mixed = [String::new(), "invalid-key".to_owned()];
        for _ in 0..2 {
            let values = get(&cache, &mixed, &loader).await.expect("loads");
            assert_eq!((values[""], values["invalid-key"]), (0, 11));
        }
        assert_eq!(loader.counts()["invalid-key"], 1);
        assert_eq!((loader.counts()[""], cache.memo_stats().write_errors), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn value_that_is_invalidated_while_it_is_loaded_is_not_stored() {
    bounded(async {
        let cache = other("load-invalidated");
        let loader = Loader::new(0);
        let two = keys("load-invalidated", 0..2);
        let mut call = Box::pin(get(&cache, &two, &loader));
        while loader.loads().is_empty() {
            assert!(poll_immediate(&mut call).await.is_none());
            tokio::task::yield_now().await;
        }
        let one = cache.get_or_compute(&two[0], 60, async || Err::<usize, _>("not computed"));
        one.invalidate().await.expect("a node answers");
        loader.permits.add_permits(1);
        assert_eq!(call.await.expect("loads").len(), 2, "its caller gets it");
        let stored = cache.get_many(&two).values::<usize>().await.expect("reads");
        assert_eq!(stored, [None, Some(two[1].len())]);
    })
    .await;
}

#[tokio::test]
async fn near_values_are_served_without_a_node() {
    bounded(async {
        let cache = other("many-near");
        let loader = Loader::new(1);
        let keys = keys("many-near", 0..10);
        let load = async |missing| loader.load(missing).await;
        let get = || cache.get_or_compute_many(keys.clone(), 60, load).near();
        while cache.memo_stats().near_hits < 10 {
            assert_eq!(get().await.expect("loads").len(), 10);
        }
        let before = cache.stats();
        assert_eq!(get().await.expect("loads").len(), 10);
        assert_eq!(cache.stats(), before);
        assert_eq!(loader.loads().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn callers_of_values_that_are_not_stored_load_at_once() {
    bounded(async {
        let cache = other("many-unstored");
        let loader = Loader::new(0);
        let key = keys("many-unstored", 0..1);
        let load = async |missing| loader.load(missing).await;
        let get = || cache.get_or_compute_many(key.clone(), 0, load).into_future();
        let mut all = Box::pin(join_all((0..4).map(|_| get())));
        while loader.loads().is_empty() {
            assert!(poll_immediate(&mut all).await.is_none());
            tokio::task::yield_now().await;
        }
        // The first one's value is for itself alone; the others do not wait for each other.
        loader.permits.add_permits(1);
        while loader.loads().len() < 4 {
            assert!(poll_immediate(&mut all).await.is_none());
            tokio::task::yield_now().await;
        }
        loader.permits.add_permits(3);
        assert!(all.await.into_iter().all(|values| values.is_ok_and(|values| values.len() == 1)));
    })
    .await;
}

/// A value that serde reads from a copy.
#[derive(serde::Deserialize, PartialEq, serde::Serialize)]
struct Flattened {
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, u8>,
}

#[tokio::test]
async fn values_that_are_compared_are_stored_if_they_are_equal() {
    bounded(async {
        let cache = other("many-compared");
        let loads = AtomicUsize::new(0);
        let load = async |missing: Vec<&'static str>| {
            loads.fetch_add(1, Ordering::SeqCst);
            let value = || Flattened { rest: [("a".to_owned(), 1)].into() };
            Ok::<_, Error>(missing.into_iter().map(|key| (key, value())).collect::<Vec<_>>())
        };
        for loaded in [1, 2] {
            let values = cache.get_or_compute_many(["many-plain"], 60, load).await;
            assert_eq!((values.expect("loads").len(), loads.load(Ordering::SeqCst)), (1, loaded));
        }
        for _ in 0..2 {
            let values = cache.get_or_compute_many(["many-compared"], 60, load).compared().await;
            assert_eq!((values.expect("loads").len(), loads.load(Ordering::SeqCst)), (1, 3));
        }
        assert_eq!(cache.memo_stats().write_errors, 2);
    })
    .await;
}

#[tokio::test]
async fn values_of_another_shape_are_kept_beside() {
    bounded(async {
        let cache = other("many-shapes");
        let loader = Loader::new(10);
        let two = keys("many-shapes", 0..2);
        let text = "text".to_owned();
        let texts = two.iter().map(|key| (key, Value(&text)));
        cache.put_many(texts, 60).await.expect("writes");
        for _ in 0..2 {
            assert_eq!(get(&cache, &two, &loader).await.expect("loads").len(), 2);
        }
        assert_eq!(loader.loads().len(), 1);
        let stats = cache.memo_stats();
        assert_eq!((stats.shape_entries_stored, stats.shape_entry_hits), (2, 2));
        let texts = cache.get_many(&two).values::<String>().await.expect("reads");
        assert!(texts.iter().all(|text| text.as_deref() == Some("text")));
        let each = cache.get_many(&two).values::<usize>().each().await.expect("reads");
        assert!(each.iter().all(|value| matches!(value, Err(Error::Decode(_)))), "{each:?}");
        assert_eq!(cache.get_many(&two).values::<usize>().await.expect("reads"), [None, None]);
    })
    .await;
}

#[tokio::test]
async fn more_keys_than_fit_into_one_group_are_loaded_in_groups() {
    bounded(async {
        let cache = other("many-groups");
        let loader = Loader::new(10);
        let keys = keys("many-groups", 0..5_000);
        assert_eq!(get(&cache, &keys, &loader).await.expect("loads").len(), 5_000);
        let loads: Vec<_> = loader.loads().iter().map(Vec::len).collect();
        assert_eq!(loads, [4_096, 904]);
    })
    .await;
}

#[tokio::test]
async fn call_can_be_spawned() {
    let cache = other("many-spawned");
    let spawned = tokio::spawn(bounded(async move {
        let load = async |missing: Vec<&'static str>| {
            tokio::task::yield_now().await;
            Ok::<_, Error>(missing.into_iter().map(|key| (key, 1_u8)).collect::<Vec<_>>())
        };
        cache.get_or_compute_many(["many-spawned"], 60, load).await.map(|values| values.len())
    }));
    assert_eq!(spawned.await.expect("no panic").expect("loads"), 1);
}
