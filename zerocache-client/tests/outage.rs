//! Values from the near cache while no node can be reached (feature `testing`).

#[path = "support/soon.rs"]
mod soon;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::join_all;
use soon::soon;
use zerocache_client::{
    Ack, Error, ZerocacheClient, memo::LeaseScope, report::CallOutcome, testing::Cluster, zerocache,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs of a function, and the revision of what it computes from.
#[derive(Default)]
struct Origin {
    runs: AtomicUsize,
    revision: AtomicUsize,
}

impl Origin {
    fn runs(&self) -> usize {
        self.runs.load(SeqCst)
    }
}

#[zerocache(cache, 60, skip(cache, origin), near(outage = "10m"), tags = ["prices"])]
async fn price(cache: &ZerocacheClient, origin: &Origin, product: usize) -> usize {
    origin.runs.fetch_add(1, SeqCst);
    tokio::task::yield_now().await;
    product * 100 + origin.revision.load(SeqCst)
}

/// Calls until the value is near.
async fn warm(cache: &ZerocacheClient, origin: &Origin, product: usize) {
    soon(async || {
        let hits = cache.memo_stats().near_hits;
        price(cache, origin, product).await;
        cache.memo_stats().near_hits > hits
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn hot_values_are_served_for_the_time_of_the_attribute() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "sydney"]);
    let (cache, origin) = (cluster.client("london")?, Origin::default());
    warm(&cache, &origin, 1).await;
    (0..2).for_each(|node| cluster.kill(node));
    // Longer than its lifetime, and than values are near otherwise.
    for _ in 0..8 {
        assert_eq!(price(&cache, &origin, 1).await, 100);
        cluster.advance(60 * SECOND);
    }
    let (value, report) = price(&cache, &origin, 1).explain().await;
    assert_eq!((value, report.outcome), (100, CallOutcome::Outage));
    let stats = cache.memo_stats();
    // The first one may come before the end of the node is noticed.
    assert!(origin.runs() == 1 && stats.outage_served >= 8, "{stats:?}");

    // The end of the time: one computation for all callers, and then for as long again.
    cluster.advance(121 * SECOND);
    origin.revision.store(7, SeqCst);
    let all = (0..20).map(|_| price(&cache, &origin, 1));
    assert_eq!(join_all(all).await, [107; 20]);
    assert_eq!(price(&cache, &origin, 1).await, 107);
    cluster.advance(300 * SECOND);
    assert_eq!((price(&cache, &origin, 1).await, origin.runs()), (107, 2));
    cluster.advance(301 * SECOND);
    assert_eq!((price(&cache, &origin, 1).await, origin.runs()), (107, 3));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn functions_without_an_outage_compute() -> Result<(), Error> {
    #[zerocache(cache, 60, skip(cache, origin), near)]
    async fn stock(cache: &ZerocacheClient, origin: &Origin, product: usize) -> usize {
        origin.runs.fetch_add(1, SeqCst) + product
    }

    let cluster = Cluster::new(["london"]);
    let (cache, origin) = (cluster.client("london")?, Origin::default());
    soon(async || {
        stock(&cache, &origin, 1).await;
        cache.memo_stats().near_hits > 0
    })
    .await;
    cluster.kill(0);
    soon(async || {
        stock(&cache, &origin, 1).await;
        origin.runs() == 3
    })
    .await;
    // Unless that is the client's default.
    let cluster = Cluster::new(["london"]);
    let cache = cluster.builder("london").near_outage(600 * SECOND).build()?;
    cache.wait_ready(10 * SECOND)?;
    soon(async || {
        stock(&cache, &origin, 1).await;
        cache.memo_stats().near_hits > 0
    })
    .await;
    let runs = origin.runs();
    cluster.kill(0);
    for _ in 0..100 {
        stock(&cache, &origin, 1).await;
    }
    assert_eq!(origin.runs(), runs);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn own_invalidations_writes_and_purges_count() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let (cache, origin) = (cluster.client("london")?, Origin::default());
    for product in 1..=5 {
        warm(&cache, &origin, product).await;
    }
    cluster.kill(0);
    assert_eq!((price(&cache, &origin, 1).await, origin.runs()), (100, 5));
    origin.revision.store(1, SeqCst);
    // None of these reaches a node.
    price(&cache, &origin, 1).invalidate().await.expect_err("no node");
    assert_eq!((price(&cache, &origin, 1).await, origin.runs()), (101, 6));
    assert_eq!(price(&cache, &origin, 2).refresh().await, 201);
    assert_eq!((price(&cache, &origin, 2).await, origin.runs()), (201, 7));
    let key = price(&cache, &origin, 3).key().expect("a key");
    cache.delete(key).await.expect_err("no node");
    assert_eq!((price(&cache, &origin, 3).await, origin.runs()), (301, 8));
    assert_eq!((price(&cache, &origin, 4).await, origin.runs()), (400, 8), "untouched");
    cache.invalidate_tag("prices").await.expect_err("no node");
    for product in 1..=5 {
        assert_eq!(price(&cache, &origin, product).await, product * 100 + 1);
    }
    assert_eq!(origin.runs(), 13);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn values_are_read_again_when_a_node_is_back() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "london"]);
    let (cache, other) = (cluster.client("london")?, cluster.client("london")?);
    let origin = Origin::default();
    for product in 1..=200 {
        warm(&cache, &origin, product).await;
    }
    (0..2).for_each(|node| cluster.kill(node));
    origin.revision.store(1, SeqCst);
    for product in 1..=200 {
        assert_eq!(price(&cache, &origin, product).await, product * 100);
    }
    cluster.revive(0);
    // Another process computes one, and this one all others, each once.
    soon(async || {
        cluster.advance(SECOND / 10);
        let (_, report) = price(&other, &origin, 1).explain().await;
        report.outcome == CallOutcome::Hit
    })
    .await;
    soon(async || {
        cluster.advance(SECOND / 10);
        let values = (1..=200).map(|product| price(&cache, &origin, product));
        join_all(values).await.iter().enumerate().all(|(n, value)| *value == (n + 1) * 100 + 1)
    })
    .await;
    let stats = cache.memo_stats();
    assert!(stats.computed <= 400, "{stats:?}");
    assert_eq!(cache.get("nothing").await?, None);
    // What was deleted by others is not served when the node goes once more.
    for product in 1..=3 {
        soon(async || {
            // A client rests a moment before it follows another node.
            cluster.advance(SECOND / 10);
            let hits = cache.memo_stats().near_hits;
            price(&cache, &origin, product).await;
            price(&cache, &origin, product).await;
            cache.memo_stats().near_hits > hits
        })
        .await;
    }
    price(&other, &origin, 2).invalidate().ack(Ack::All).await?;
    origin.revision.store(2, SeqCst);
    soon(async || price(&cache, &origin, 2).await == 202).await;
    cluster.kill(0);
    assert_eq!(price(&cache, &origin, 2).await, 202);
    assert_eq!(price(&cache, &origin, 3).await, 301);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_lease_that_no_node_grants() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let cache = cluster.builder("london").near_outage(600 * SECOND).build()?;
    cache.wait_ready(10 * SECOND)?;
    cluster.kill(0);
    soon(async || cache.get("k").await.is_err()).await;
    let runs = AtomicUsize::new(0);
    let compute = || {
        let call = cache.get_or_compute("key", 60, async || {
            Ok::<_, std::convert::Infallible>(runs.fetch_add(1, SeqCst))
        });
        call.near().lease(LeaseScope::All)
    };
    let all = join_all((0..10).map(|_| compute())).await;
    assert!(all.iter().all(|value| *value == Ok(0)), "{all:?}");
    // It is kept near although no value was before, for many keys too.
    assert_eq!(compute().await, Ok(0));
    let many = cache.get_or_compute_many(["key", "other"], 60, async |missing| {
        Ok::<_, std::convert::Infallible>(missing.into_iter().map(|key| (key, 5_usize)))
    });
    let many = many.near().await.expect("infallible");
    assert_eq!((many.get("key"), many.get("other")), (Some(&0), Some(&5)));
    let again = cache.get_or_compute_many(["other"], 60, async |_| {
        Err::<Vec<(&str, usize)>, _>("the loader is not asked")
    });
    assert_eq!(again.near().await.map(|all| all["other"]), Ok(5));
    assert_eq!(cache.memo_stats().lease_unavailable, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn values_of_many_keys_are_computed_once() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let (cache, loads) = (cluster.client("london")?, AtomicUsize::new(0));
    let keys: Vec<String> = (0..2_000).map(|n| format!("key/{n}")).collect();
    let read = async || {
        let load = async |missing: Vec<String>| {
            loads.fetch_add(missing.len(), SeqCst);
            Ok::<_, Error>(missing.into_iter().map(|key| (key.clone(), key)).collect::<Vec<_>>())
        };
        let call = cache.get_or_compute_many(keys.clone(), 60, load);
        call.near().near_outage(600).await
    };
    cluster.kill(0);
    for _ in 0..3 {
        assert_eq!(read().await?.len(), keys.len());
    }
    assert_eq!(loads.load(SeqCst), keys.len());
    cluster.advance(601 * SECOND);
    assert_eq!(read().await?.len(), keys.len());
    assert_eq!(loads.load(SeqCst), 2 * keys.len());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn value_computed_before_an_own_delete_is_not_kept() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let (cache, runs) = (cluster.client("london")?, AtomicUsize::new(0));
    cluster.kill(0);
    let read = async |changed: bool| {
        let compute = async || {
            if changed {
                // What was read before this is not true any more. No node hears of it.
                assert!(cache.delete("k").await.is_err());
            }
            Ok::<_, Error>(runs.fetch_add(1, SeqCst))
        };
        cache.get_or_compute("k", 60, compute).near().near_outage(600).await
    };
    assert_eq!(read(true).await?, 0);
    assert_eq!(read(false).await?, 1, "computed after the delete");
    assert_eq!(read(false).await?, 1);
    assert!(cache.put("k", "v", 60).await.is_err());
    assert_eq!(read(false).await?, 2, "it was replaced");
    assert!(cache.invalidate_everything().await.is_err());
    assert_eq!((read(false).await?, read(false).await?), (3, 3), "it was purged");
    Ok(())
}
