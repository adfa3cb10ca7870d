//! Nodes in the process of a test, and their clock (feature `testing`).

#[path = "support/soon.rs"]
mod soon;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use soon::soon;
use zerocache_client::{Ack, Error, ZerocacheClient, testing::Cluster, zerocache};

const SECOND: Duration = Duration::from_secs(1);

#[zerocache(cache, 60, skip(cache, runs), stale(while = "30s"))]
async fn square(cache: &ZerocacheClient, runs: &AtomicUsize, n: u64) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    n * n
}

#[tokio::test]
async fn two_lines_make_a_cluster() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "london", "sydney"]);
    let (london, sydney) = (cluster.client("london")?, cluster.client("sydney")?);

    let written = london.put("k", "v", 60).ack(Ack::All).tags(["t"]).await?;
    assert_eq!((written.replicas, written.replicas_wanted), (3, 3));
    assert_eq!(sydney.get("k").await?.as_deref(), Some(&b"v"[..]));
    let place = sydney.locate("k").await?;
    assert_eq!(place.iter().count(), 3);
    sydney.invalidate_tag("t").ack(Ack::All).await?;
    assert_eq!(london.get("k").await?, None);

    let runs = AtomicUsize::new(0);
    assert_eq!((square(&london, &runs, 7).await, square(&sydney, &runs, 7).await), (49, 49));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    Ok(())
}

#[tokio::test]
async fn clock_moves_on_request() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "london"]);
    let (one, other) = (cluster.client("london")?, cluster.client("london")?);
    one.put("hour", "v", 3_600).ack(Ack::All).await?;
    one.put("day", "v", 86_400).ack(Ack::All).await?;
    cluster.advance(3_500 * SECOND);
    assert!(other.get("hour").await?.is_some());
    cluster.advance(101 * SECOND);
    assert_eq!(other.get("hour").await?, None);
    let left = other.get("day").entry().await?.expect("a value").ttl;
    assert!((82_790..=82_800).contains(&left.as_secs()), "{left:?}");
    // The nodes did meanwhile what nodes do, and are as they were.
    other.put("new", "v", 60).ack(Ack::All).await?;
    assert!(one.get("new").await?.is_some());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn paused_time_of_the_runtime_is_that_of_the_cache() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let (cache, runs) = (cluster.client("london")?, AtomicUsize::new(0));
    let count = || runs.load(Ordering::SeqCst);
    square(&cache, &runs, 3).await;
    tokio::time::advance(59 * SECOND).await;
    square(&cache, &runs, 3).await;
    assert_eq!(count(), 1, "fresh");
    tokio::time::advance(2 * SECOND).await;
    square(&cache, &runs, 3).await;
    assert_eq!(count(), 2, "renewed");
    tokio::time::sleep(91 * SECOND).await;
    square(&cache, &runs, 3).await;
    assert_eq!(count(), 3, "gone");
    Ok(())
}

#[test]
fn blocking_tests_have_a_clock_too() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let cache = cluster.client("london")?;
    cache.put("k", "v", 10).wait()?;
    cluster.advance(11 * SECOND);
    assert_eq!(cache.get("k").wait()?, None);
    Ok(())
}

#[test]
fn threads_enter_the_cluster() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let cache = cluster.client("london")?;
    cache.put("k", "v", 3_600).wait()?;
    cluster.advance(1_800 * SECOND);
    let ttl = || Ok::<_, Error>(cache.get("k").entry().wait()?.expect("a value").ttl);
    let (here, clock) = (ttl()?, cluster.clock());
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            let _inside = clock.enter();
            ttl()
        });
        let there = there.join().expect("no panic")?;
        assert!(here.abs_diff(there) < SECOND, "{here:?} {there:?}");
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn killed_nodes_are_missed() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "sydney"]);
    let (cache, runs) = (cluster.client("london")?, AtomicUsize::new(0));
    cache.put("k", "v", 3_600).ack(Ack::All).await?;
    cluster.kill(0);
    assert!(cache.get("k").await?.is_some(), "sydney has it");
    cluster.kill(1);
    assert!(matches!(cache.get("k").await, Err(Error::Unreachable { .. })));
    assert_eq!(square(&cache, &runs, 5).await, 25, "a cache that is gone fails no call");
    Ok(())
}

#[zerocache(cache, 60, skip(cache, runs), near, lease = region)]
async fn cube(cache: &ZerocacheClient, runs: &AtomicUsize, n: u64) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(SECOND).await;
    n * n * n
}

#[tokio::test(start_paused = true)]
async fn near_values_and_leases_keep_the_time_of_the_test() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let (one, other) = (cluster.client("london")?, cluster.client("london")?);
    let runs = AtomicUsize::new(0);
    let count = || runs.load(Ordering::SeqCst);
    // Two processes ask at once: one has the lease, the other waits for its value.
    let both = tokio::join!(cube(&one, &runs, 3), cube(&other, &runs, 3));
    assert_eq!((both, count()), ((27, 27), 1));
    // Values are kept near as soon as a node reports changes, which takes a moment of real time.
    soon(async || {
        assert_eq!((cube(&one, &runs, 3).await, count()), (27, 1));
        one.memo_stats().near_hits > 0
    })
    .await;
    cluster.advance(61 * SECOND);
    cube(&one, &runs, 3).await;
    assert_eq!(count(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn changes_reach_near_caches_while_time_stands_still() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "sydney"]);
    let (one, other) = (cluster.client("london")?, cluster.client("sydney")?);
    let begin = now();
    let runs = AtomicUsize::new(0);
    let call = async || cube(&one, &runs, 4).await;
    call().await;
    for computed in 1..=3 {
        let hits = one.memo_stats().near_hits;
        soon(async || {
            call().await;
            one.memo_stats().near_hits > hits
        })
        .await;
        assert_eq!(runs.load(Ordering::SeqCst), computed);
        // Longer than a call for changes may take where time passes.
        std::thread::sleep(Duration::from_millis(FOLLOW_TIMEOUT_MS / 3 + 100));
        cube(&other, &runs, 4).invalidate().await?;
        soon(async || {
            call().await;
            runs.load(Ordering::SeqCst) > computed
        })
        .await;
    }
    // The computations took this long, and nothing else did.
    assert_eq!(now() - begin, 4 * SECOND);
    Ok(())
}

/// The timeout of a call for changes, in milliseconds of real time.
const FOLLOW_TIMEOUT_MS: u64 = 2_500;

#[expect(clippy::disallowed_methods, reason = "the time of the runtime, which the test moves")]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[tokio::test(start_paused = true)]
async fn writes_are_everywhere_at_once_while_time_stands_still() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "london", "sydney", "sydney"]);
    let (london, sydney) = (cluster.client("london")?, cluster.client("sydney")?);
    for n in 0..100 {
        let key = format!("key/{n}");
        let (from, to) = if n % 2 == 0 { (&london, &sydney) } else { (&sydney, &london) };
        from.put(&key, "v", 60).await?;
        // At each node of the other region, which a client asks in turns.
        for _ in 0..4 {
            assert!(to.get(&key).await?.is_some(), "{key}");
        }
        to.delete(&key).await?;
        for _ in 0..4 {
            assert_eq!(from.get(&key).await?, None, "{key}");
        }
    }
    let runs = AtomicUsize::new(0);
    for n in 0..30 {
        assert_eq!(square(&london, &runs, n).await, square(&sydney, &runs, n).await);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 30);
    Ok(())
}

#[tokio::test]
async fn writes_need_a_node_that_is_there() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let cache = cluster.client("london")?;
    cache.put("k", "v", 60).await?;
    cluster.kill(0);
    let written = cache.put("k", "w", 60).await;
    assert!(matches!(written, Err(Error::Unreachable { .. })), "{written:?}");
    let deleted = cache.delete("k").await;
    assert!(matches!(deleted, Err(Error::Unreachable { .. })), "{deleted:?}");
    Ok(())
}

#[tokio::test]
async fn clusters_of_parallel_tests_are_apart() -> Result<(), Error> {
    let first = Cluster::new(["london"]);
    let second = Cluster::new(["london"]);
    let (one, other) = (first.client("london")?, second.client("london")?);
    let runs = AtomicUsize::new(0);
    square(&one, &runs, 2).await;
    square(&other, &runs, 2).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    second.advance(3_600 * SECOND);
    square(&other, &runs, 2).await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    Ok(())
}
