//! Listeners, at nodes in the process of the test.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use zerocache_client::{
    Ack, Error, Status, ZerocacheClient,
    ops::{Change, Changes, Subject},
    testing::Cluster,
    zerocache,
};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than a node takes to report what there is.
const QUIET: Duration = Duration::from_millis(100);

fn key(text: &'static str) -> Subject {
    Subject::Key(Bytes::from_static(text.as_bytes()))
}

fn next(changes: &mut Changes) -> Change {
    changes.wait(PATIENCE).expect("a change")
}

fn assert_written(change: &Change, wanted: &Subject) {
    assert!(matches!(change, Change::Written { subject, .. } if subject == wanted), "{change:?}");
}

fn assert_quiet(changes: &mut Changes) {
    assert_eq!(changes.wait(QUIET), None);
}

#[test]
fn own_and_other_writes_are_reported_once_with_their_versions() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "london", "sydney"]);
    let (own, other) = (cluster.client("london")?, cluster.client("sydney")?);
    let mut changes = own.changes().key("a").keys(["b", "c"]).key("a").wait()?;
    for (client, name) in [(&own, "a"), (&other, "b")] {
        let version = client.put(name, "v", 60).ack(Ack::All).wait()?.version;
        let Change::Written { subject, version: reported, .. } = next(&mut changes) else {
            panic!("no write")
        };
        assert_eq!((subject, Some(reported)), (key(name), version));
        // Whichever node is asked: never what was there before.
        assert!(own.get(name).at_least(reported).wait()?.is_some());
    }
    own.put("unrelated", "v", 60).ack(Ack::All).wait()?;
    let version = other.delete("a").ack(Ack::All).wait()?.version.expect("a version");
    match next(&mut changes) {
        Change::Deleted { subject, version: reported, .. } => {
            assert_eq!((subject, reported), (key("a"), version));
        }
        other => panic!("{other:?}"),
    }
    assert_quiet(&mut changes);
    Ok(())
}

#[test]
fn tags_and_purges_are_reported() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "london"]);
    let (own, other) = (cluster.client("london")?, cluster.client("london")?);
    other.put("before", "v", 60).tags(["t"]).ack(Ack::All).wait()?;
    let mut changes = own.changes().tag("t").wait()?;
    let tag = Subject::Tag("t".into());
    other.put("k", "v", 60).tags(["t", "u"]).ack(Ack::All).wait()?;
    assert_written(&next(&mut changes), &tag);
    // It loses the tag.
    other.put("k", "v", 60).ack(Ack::All).wait()?;
    assert_written(&next(&mut changes), &tag);
    other.put("k", "v", 60).ack(Ack::All).wait()?;
    other.delete("before").ack(Ack::All).wait()?;
    let change = next(&mut changes);
    assert!(matches!(&change, Change::Deleted { subject, .. } if *subject == tag), "{change:?}");
    let purge = || other.invalidate_tag("t").ack(Ack::All);
    assert_eq!(purge().wait()?.status, Status::Stored);
    let change = next(&mut changes);
    assert!(matches!(&change, Change::Purged { subject, .. } if *subject == tag), "{change:?}");
    other.invalidate_tag("u").ack(Ack::All).wait()?;
    other.invalidate_everything().ack(Ack::All).wait()?;
    let change = next(&mut changes);
    let is_all = matches!(&change, Change::Purged { subject: Subject::Everything, .. });
    assert!(is_all, "{change:?}");
    assert_quiet(&mut changes);
    Ok(())
}

#[zerocache(cache, 60, skip(cache))]
async fn square(cache: &ZerocacheClient, n: u64) -> u64 {
    n * n
}

#[tokio::test]
async fn namespace_reports_memoized_results_and_is_a_stream() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let listening = cluster.client("london")?;
    let shop = cluster.builder("london").namespace("shop").build()?;
    shop.ready(PATIENCE).await?;
    let mut changes = listening.changes().namespace("shop").await?;
    shop.put("plain", "v", 60).await?;
    assert_eq!(square(&shop, 7).await, 49);
    let namespace = Subject::Namespace("shop".into());
    // As any stream.
    let change = Pin::new(&mut changes).next().await.expect("a stream without an end");
    assert_written(&change, &namespace);
    shop.invalidate_namespace("shop").await?;
    let change = changes.next().await.expect("a change");
    let is_purge = matches!(&change, Change::Purged { subject, .. } if *subject == namespace);
    assert!(is_purge, "{change:?}");
    Ok(())
}

#[test]
fn killed_node_is_an_interruption_and_a_gap() -> Result<(), Error> {
    let cluster = Cluster::new(["london", "london"]);
    let own = cluster.client("london")?;
    let mut changes = own.changes().key("k").wait()?;
    own.put("k", "1", 60).ack(Ack::All).wait()?;
    assert_written(&next(&mut changes), &key("k"));
    // One of them is followed.
    cluster.kill(0);
    if changes.wait(Duration::from_secs(4)).is_some_and(|change| {
        assert_eq!(change, Change::Interrupted);
        true
    }) {
        assert_eq!(next(&mut changes), Change::Gap);
        own.put("k", "2", 60).wait()?;
        assert_written(&next(&mut changes), &key("k"));
        cluster.kill(1);
    } else {
        own.put("k", "2", 60).wait()?;
        assert_written(&next(&mut changes), &key("k"));
        cluster.kill(1);
    }
    assert_eq!(next(&mut changes), Change::Interrupted);
    assert_quiet(&mut changes);
    // Nobody is left who could report.
    let outcome = own.changes().key("k").deadline(QUIET).wait();
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    Ok(())
}

#[test]
fn near_cache_in_use_shares_the_feed_and_stays_filled() -> Result<(), Error> {
    let cluster = Cluster::new(["london"]);
    let own = cluster.client("london")?;
    own.put("k", "v", 60).wait()?;
    for _ in 0..20_000 {
        if own.near_stats().hits > 0 {
            break;
        }
        own.get("k").near().wait()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = own.near_stats();
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(own.changes().key("k").wait()?);
    }
    own.get("k").near().wait()?;
    let after = own.near_stats();
    assert_eq!((after.hits, after.cleared), (before.hits + 1, before.cleared));
    own.put("k", "w", 60).wait()?;
    for changes in &mut listeners {
        assert_written(&next(changes), &key("k"));
    }
    drop(listeners);
    // And goes on after them.
    own.get("k").near().wait()?;
    own.get("k").near().wait()?;
    assert!(own.near_stats().hits > after.hits);
    assert_eq!(own.near_stats().cleared, before.cleared);
    Ok(())
}

#[test]
fn offline_client_listens_to_itself() -> Result<(), Error> {
    let cache = ZerocacheClient::builder("london").offline(true).near_bytes(0).build()?;
    let mut changes = cache.changes().key("k").wait()?;
    for _ in 0..3 {
        cache.put("k", "v", 60).wait()?;
        assert_written(&next(&mut changes), &key("k"));
    }
    // It keeps the client.
    drop(cache);
    assert_quiet(&mut changes);
    Ok(())
}

#[test]
fn subjects_that_cannot_be_are_errors() -> Result<(), Error> {
    let cache = ZerocacheClient::builder("london").offline(true).build()?;
    assert!(matches!(cache.changes().key("").wait(), Err(Error::InvalidKey(_))));
    assert!(matches!(cache.changes().key("k").tag("").wait(), Err(Error::InvalidTag(_))));
    assert!(matches!(cache.changes().namespace("a b").wait(), Err(Error::Refused(_))));
    Ok(())
}
