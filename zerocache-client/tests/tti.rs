//! Time to idle, at nodes in the process of the test. Each client is as another process.

#[path = "support/soon.rs"]
mod soon;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use soon::soon;
use zerocache_client::{Ack, Error, Version, ZerocacheClient, testing::Cluster, zerocache};

const MINUTE: Duration = Duration::from_secs(60);

/// Ends 12 minutes after its last use, and an hour after it was computed.
#[zerocache(cache, "1h", skip(cache, runs), tti = "12m")]
async fn square(cache: &ZerocacheClient, runs: &AtomicUsize, n: u64) -> u64 {
    runs.fetch_add(1, SeqCst);
    n * n
}

#[zerocache(cache, "1h", skip(cache, runs), tti = "12m", near)]
async fn near_square(cache: &ZerocacheClient, runs: &AtomicUsize, n: u64) -> u64 {
    runs.fetch_add(1, SeqCst);
    n * n
}

/// Waits until a node knows of a use: until `key` has a newer version.
async fn used(cache: &ZerocacheClient, key: &[u8], before: Version) {
    soon(async || version(cache, key).await != before).await;
    assert!(version(cache, key).await > before);
}

async fn version(cache: &ZerocacheClient, key: &[u8]) -> Version {
    cache.get(key).entry().await.expect("reads").expect("a value").version
}

#[tokio::test]
async fn uses_in_two_processes_keep_a_value_in_both() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "sydney"]);
    let (london, sydney) = (cluster.client("london")?, cluster.client("sydney")?);
    let runs = AtomicUsize::new(0);
    assert_eq!(square(&london, &runs, 7).ack(Ack::All).await, 49);
    let key = square(&london, &runs, 7).key().expect("a key");
    // Neither asks more often than each 16 minutes; together they do.
    for (minute, cache) in [(8, &sydney), (16, &london), (24, &sydney), (32, &london)] {
        cluster.advance(8 * MINUTE);
        let before = version(cache, &key).await;
        assert_eq!(square(cache, &runs, 7).await, 49);
        assert_eq!(runs.load(SeqCst), 1, "after {minute} minutes");
        used(cache, &key, before).await;
    }
    // A use within a quarter of the time is not worth a message.
    cluster.advance(2 * MINUTE);
    let before = version(&london, &key).await;
    assert_eq!(square(&london, &runs, 7).await, 49);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(version(&london, &key).await, before);
    // Unused it ends, in both.
    cluster.advance(11 * MINUTE);
    assert_eq!(sydney.get(&key).await?, None);
    assert_eq!(square(&london, &runs, 7).await, 49);
    assert_eq!(runs.load(SeqCst), 2);
    Ok(())
}

#[tokio::test]
async fn lifetime_is_the_most_that_uses_give() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let cache = cluster.client("london")?;
    let runs = AtomicUsize::new(0);
    square(&cache, &runs, 3).await;
    let key = square(&cache, &runs, 3).key().expect("a key");
    for minute in [9, 18, 27, 36, 45, 54] {
        cluster.advance(9 * MINUTE);
        let before = version(&cache, &key).await;
        square(&cache, &runs, 3).await;
        assert_eq!(runs.load(SeqCst), 1, "after {minute} minutes");
        if minute < 54 {
            used(&cache, &key, before).await;
        }
    }
    cluster.advance(7 * MINUTE);
    square(&cache, &runs, 3).await;
    assert_eq!(runs.load(SeqCst), 2, "after an hour");
    Ok(())
}

#[tokio::test]
async fn near_hits_are_uses() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let (own, other) = (cluster.client("london")?, cluster.client("london")?);
    let runs = AtomicUsize::new(0);
    near_square(&own, &runs, 5).await;
    for _ in 0..20 {
        cluster.advance(2 * MINUTE);
        // Changes are followed again, and uses reach the node, a moment after the time was moved.
        let before = own.memo_stats().near_hits;
        soon(async || {
            assert_eq!(near_square(&own, &runs, 5).await, 25);
            own.memo_stats().near_hits > before + 1
        })
        .await;
    }
    assert_eq!(near_square(&other, &runs, 5).await, 25);
    assert_eq!(runs.load(SeqCst), 1, "after forty minutes");
    Ok(())
}

#[tokio::test]
async fn use_brings_nothing_back() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "sydney"]);
    let (london, sydney) = (cluster.client("london")?, cluster.client("sydney")?);
    let runs = AtomicUsize::new(0);
    square(&london, &runs, 9).ack(Ack::All).await;
    cluster.advance(8 * MINUTE);
    // The use reaches a node while the value is invalidated elsewhere.
    let (value, deleted) = tokio::join!(async { square(&london, &runs, 9).await }, async {
        square(&sydney, &runs, 9).invalidate().ack(Ack::All).await
    },);
    deleted?;
    assert_eq!(value, 81);
    tokio::time::sleep(Duration::from_millis(50)).await;
    square(&sydney, &runs, 9).await;
    square(&london, &runs, 9).await;
    assert!(runs.load(SeqCst) >= 2, "computed after the invalidation");
    Ok(())
}

#[tokio::test]
async fn options_of_a_call_have_it_too() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let cache = cluster.client("london")?;
    let runs = AtomicUsize::new(0);
    let call = async || {
        let compute = async || Ok::<_, Error>(runs.fetch_add(1, SeqCst));
        cache.get_or_compute("k", 3_600, compute).tti(600).await
    };
    assert_eq!(call().await?, 0);
    let left = cache.get("k").entry().await?.expect("a value").ttl;
    assert!(left <= 10 * MINUTE && left > 9 * MINUTE, "{left:?}");
    cluster.advance(8 * MINUTE);
    let before = version(&cache, b"k").await;
    assert_eq!(call().await?, 0);
    used(&cache, b"k", before).await;
    cluster.advance(8 * MINUTE);
    assert_eq!(call().await?, 0);
    cluster.advance(20 * MINUTE);
    assert_eq!(call().await?, 1);
    Ok(())
}
