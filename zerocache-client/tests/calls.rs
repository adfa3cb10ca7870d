//! The client's own calls: what they take, and what they say.

mod support;

use std::{future::Future, time::Duration};

use support::{bounded, dead, other};
use zerocache_client::{
    Error, Status, Version, ZerocacheClient,
    ops::{Encoding, Freshness, Tier},
    report::{AttemptOutcome, ReadOutcome},
};

/// Repeats `look` until it gives something; whoever calls bounds it.
async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    loop {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn connected(name: &str) -> ZerocacheClient {
    let cache = other(name);
    cache.ready(Duration::from_secs(10)).await.expect("a node is ready");
    cache
}

#[tokio::test]
async fn stale_entry_is_returned_to_readers_that_allow_it() {
    bounded(async {
        let cache = connected("stale").await;
        let key = "stale";
        let write = cache.put(key, "value", 1).stale_while(60).stale_if_error(90).tags(["a", "b"]);
        assert_eq!(write.await.expect("writes").status, Status::Stored);
        let entry = cache.get(key).entry().await.expect("reads").expect("is fresh");
        assert_eq!(entry.freshness, Freshness::Fresh);
        assert!(entry.fresh_for() <= Duration::from_secs(1));
        assert!(entry.ttl > Duration::from_secs(80));
        assert_eq!(entry.metadata.tags(), ["a", "b"]);
        assert_eq!(
            (entry.metadata.stale_while_ms, entry.metadata.stale_if_error_ms),
            (60_000, 90_000)
        );

        until(|| async { cache.get(key).await.expect("reads").is_none().then_some(()) }).await;
        assert_eq!(cache.get(key).entry().await.expect("reads"), None);
        let stale = cache.get(key).allow_stale().entry().await.expect("reads").expect("lives");
        assert_eq!((stale.freshness, &stale.value[..]), (Freshness::Stale, &b"value"[..]));
        assert_eq!(stale.fresh_for(), Duration::ZERO);
        assert_eq!(stale.version, entry.version);
        let stats = cache.stats();
        assert_eq!((stale.tier, stats.stale_hits), (Tier::Local, 1));
        assert!(stats.stale_misses >= 2 && stats.misses >= stats.stale_misses);

        let fresh = cache.get(key).explain().await.expect("a node");
        assert_eq!(fresh.report.outcome, ReadOutcome::Miss);
        assert_eq!(fresh.report.attempts[0].outcome, AttemptOutcome::Stale { accepted: false });
        let taken = cache.get(key).allow_stale().explain().await.expect("a node");
        assert_eq!(taken.report.outcome, ReadOutcome::Stale);
    })
    .await;
}

#[tokio::test]
async fn large_values_are_compressed_and_any_client_decompresses_them() {
    bounded(async {
        let packs = connected("packs").await;
        let plain = support::builder("london").compress_above(None).build().expect("is allowed");
        let large = "one of many ".repeat(5_000);
        let written = packs.put("packed", large.as_str(), 60).await.expect("writes");
        assert_eq!(written.status, Status::Stored);
        let entry = plain.get("packed").entry().await.expect("reads").expect("was stored");
        assert_eq!((entry.metadata.encoding, &entry.value[..]), (Encoding::Lz4, large.as_bytes()));

        plain.put("plain", large.as_str(), 60).await.expect("writes");
        let entry = packs.get("plain").entry().await.expect("reads").expect("was stored");
        assert_eq!(
            (entry.metadata.encoding, &entry.value[..]),
            (Encoding::Plain, large.as_bytes())
        );
        // Not larger than the threshold.
        packs.put("small", &large[..16 << 10], 60).await.expect("writes");
        let entry = packs.get("small").entry().await.expect("reads").expect("was stored");
        assert_eq!(entry.metadata.encoding, Encoding::Plain);
    })
    .await;
}

#[tokio::test]
async fn invalid_tag_fails_the_write() {
    bounded(async {
        let cache = connected("tags").await;
        for tag in [String::new(), "x".repeat(129)] {
            let failed = cache.put("tagged", "value", 60).tags([tag]).await;
            assert!(matches!(failed, Err(Error::InvalidTag(_))), "{failed:?}");
        }
        assert_eq!(cache.get("tagged").await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn description_of_a_value_is_read_back() {
    bounded(async {
        let cache = connected("description").await;
        let write = cache.put("described", "value", 60).content_type("image/png");
        let write = write.content_encoding("gzip").origin("s3://a/1").origin("s3://b/1");
        assert_eq!(write.await.expect("writes").status, Status::Stored);
        let entry = cache.get("described").entry().await.expect("reads").expect("was stored");
        let metadata = &entry.metadata;
        assert_eq!((&entry.value[..], metadata.content_type()), (&b"value"[..], Some("image/png")));
        assert_eq!(metadata.content_encoding(), Some("gzip"));
        assert_eq!(metadata.origins(), ["s3://a/1", "s3://b/1"]);
        let many = cache.put_many([("many 1", "a"), ("many 2", "b")], 60).content_type("text/css");
        many.await.expect("writes");
        let entry = cache.get("many 2").entry().await.expect("reads").expect("was stored");
        assert_eq!(entry.metadata.content_type(), Some("text/css"));
        let put = || cache.put("refused", "value", 60);
        for write in [put().content_type("png"), put().content_encoding(""), put().origin("a b")] {
            let failed = write.await;
            assert!(matches!(failed, Err(Error::InvalidDescription(_))), "{failed:?}");
        }
        assert_eq!(cache.get("refused").await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn report_names_the_nodes_and_their_outcomes() {
    bounded(async {
        let cache = connected("report").await;
        let missed = cache.get("report").explain().await.expect("a node");
        assert_eq!(missed.result.expect("reads"), None);
        assert_eq!(missed.report.outcome, ReadOutcome::Miss);
        let written = cache.put("report", "value", 60).await.expect("writes");
        let found = cache.get("report").explain().await.expect("a node");
        let entry = found.result.expect("reads").expect("was stored");
        assert_eq!((&entry.value[..], Some(entry.version)), (&b"value"[..], written.version));
        let [attempt] = &found.report.attempts[..] else { panic!("{}", found.report) };
        assert_eq!(
            (found.report.outcome, &attempt.outcome),
            (ReadOutcome::Hit, &AttemptOutcome::Found)
        );
        assert_eq!((attempt.tier, attempt.region.as_str()), (Tier::Local, "london"));
        assert_eq!(attempt.node, entry.node);
        assert!(attempt.elapsed <= found.report.total);
        let nobody = dead().get("report").explain().await.expect("the key is allowed");
        assert_eq!(nobody.report.outcome, ReadOutcome::Failed);
        assert!(matches!(nobody.result, Err(Error::Unreachable { .. })));
        assert!(matches!(cache.get("").explain().await, Err(Error::InvalidKey(_))));
    })
    .await;
}

#[tokio::test]
async fn value_older_than_the_required_version_is_rejected() {
    bounded(async {
        let (writer, reader) = (connected("writer").await, connected("reader").await);
        let written = writer.put("version", "one", 60).await.expect("writes");
        let first = written.version.expect("was stored");
        let found = reader.get("version").at_least(first).entry().await.expect("reads");
        assert_eq!(found.expect("the node has it").version, first);

        let later = Version::new(first.stamp() + (60_000 << 16), first.incarnation());
        let explained = reader.get("version").at_least(later).explain().await.expect("a node");
        assert_eq!(explained.result.expect("a node answers"), None);
        assert_eq!(explained.report.attempts[0].outcome, AttemptOutcome::OlderVersion);
        assert_eq!(reader.get("version").at_least(later).await.expect("a node answers"), None);

        let deleted = writer.delete("version").await.expect("deletes");
        let version = deleted.version.expect("was stored");
        assert!(version > first);
        assert_eq!(reader.get("version").at_least(version).await.expect("reads"), None);
    })
    .await;
}
