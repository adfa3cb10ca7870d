//! Many keys in one call.

mod support;

use std::{net::SocketAddr, time::Duration};

use support::{bounded, dam::Dam, dead, other};
use zerocache_client::{
    Ack, Error, Status, ZerocacheClient,
    ops::{Connections, Freshness, Tier},
};
use zerocache_server::{
    EmbeddedNode,
    config::{DiscoverySet, HostPort},
};

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

async fn ready(cache: ZerocacheClient) -> ZerocacheClient {
    cache.ready(Duration::from_secs(10)).await.expect("a node is ready");
    cache
}

async fn what_is_written_is_read_and_deleted(cache: &ZerocacheClient, prefix: &str) {
    // More than one chunk.
    let keys = keys(prefix, 700);
    let written = cache.put_many(keys.iter().map(|key| (key, key)), 60).await.expect("writes");
    assert_eq!(written.len(), 700);
    assert!(written.iter().all(|written| written.status == Status::Stored));
    let mut asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    asked.insert(3, "absent");
    asked.push(&keys[0]);
    let values = cache.get_many(&asked).await.expect("reads");
    for (key, value) in asked.iter().zip(&values) {
        let expected = (*key != "absent").then_some(key.as_bytes());
        assert_eq!(value.as_deref(), expected, "{key}");
    }
    let gone = cache.delete_many(&keys[..699]).ack(Ack::Region).await.expect("deletes");
    assert!(gone.iter().all(|gone| gone.status == Status::Stored));
    let left = cache.get_many(&keys).await.expect("reads");
    assert_eq!(left.iter().flatten().count(), 1);
    assert_eq!(left[699].as_deref(), Some(keys[699].as_bytes()));
}

#[tokio::test]
async fn many_keys_over_frames() {
    bounded(async {
        let cache = ready(other("many")).await;
        what_is_written_is_read_and_deleted(&cache, "frames").await;
    })
    .await;
}

#[tokio::test]
async fn many_keys_over_http() {
    bounded(async {
        // 700 requests at a time may take longer than a tier has, on a busy machine.
        let most = Duration::from_secs(10);
        let builder = support::builder("london").connections(Connections::Http).total_timeout(most);
        let builder = builder.tier_timeout(Tier::Local, most);
        let cache = ready(builder.build().expect("is allowed")).await;
        what_is_written_is_read_and_deleted(&cache, "http").await;
    })
    .await;
}

#[test]
fn many_keys_in_blocking_code() {
    support::in_time(|| {
        let cache = other("blocking");
        cache.wait_ready(Duration::from_secs(10)).expect("a node is ready");
        cache.put_many([("blocked-1", "1"), ("blocked-2", "2")], 60).wait().expect("writes");
        let values = cache.get_many(["blocked-2", "blocked-1"]).wait().expect("reads");
        let values: Vec<_> = values.iter().map(|value| value.as_deref()).collect();
        assert_eq!(values, [Some(&b"2"[..]), Some(&b"1"[..])]);
    });
}

#[tokio::test]
async fn last_value_of_a_repeated_key_is_stored() {
    bounded(async {
        let cache = ready(other("twice")).await;
        let written = cache.put_many([("twice", "a"), ("other", "b"), ("twice", "c")], 60).await;
        let written = written.expect("writes");
        assert_eq!((written.len(), written[0]), (3, written[2]));
        assert_eq!(cache.get("twice").await.expect("reads").as_deref(), Some(&b"c"[..]));
        let twice = cache.get_many(["twice", "twice"]).await.expect("reads");
        assert_eq!(twice[0], twice[1]);
        assert_eq!(cache.get_many([""; 0]).await.expect("asks nobody").len(), 0);
    })
    .await;
}

#[tokio::test]
async fn batch_options_hold_for_all_and_outcomes_are_per_key() {
    bounded(async {
        let cache = ready(other("each")).await;
        let large = "x".repeat(9 << 20);
        // Packed it would not be too large.
        let plain = ready(support::builder("london").compress_above(None).build().unwrap()).await;
        let entries = [("each-1", "1"), ("each-2", large.as_str()), ("each-3", "3")];
        let write = plain.put_many(entries, 60).stale_while(60).tags(["t"]);
        let each = write.each().await.expect("is sent");
        assert!(each[0].is_ok() && each[2].is_ok());
        assert!(matches!(&each[1], Err(Error::Refused(_))), "{:?}", each[1]);
        let written = plain.put_many(entries, 60).await.expect("two are stored");
        let statuses: Vec<_> = written.iter().map(|written| written.status).collect();
        assert_eq!(statuses, [Status::Stored, Status::Refused, Status::Stored]);

        plain.put_many([("each-1", "1")], 60).stale_while(60).tags(["t"]).await.expect("writes");
        let each = cache.get_many(["each-1", "each-2"]).each().await.expect("is sent");
        let entry = each[0].as_ref().expect("a node answers").as_ref().expect("was stored");
        assert_eq!((entry.freshness, entry.metadata.stale_while_ms), (Freshness::Fresh, 60_000));
        assert_eq!(entry.metadata.tags(), ["t"]);
        assert_eq!(each[1].as_ref().expect("a node answers"), &None);
    })
    .await;
}

#[tokio::test]
async fn invalid_input_or_no_node_fails_the_whole_batch() {
    bounded(async {
        let cache = ready(other("not allowed")).await;
        let failed = cache.put_many([("fine", "1"), ("", "2")], 60).await;
        assert!(matches!(failed, Err(Error::InvalidKey(_))), "{failed:?}");
        assert_eq!(cache.get("fine").await.expect("reads"), None);
        assert!(matches!(cache.get_many(["fine", ""]).await, Err(Error::InvalidKey(_))));
        let failed = cache.put_many([("fine", "1")], 60).tags([""]).await;
        assert!(matches!(failed, Err(Error::InvalidTag(_))), "{failed:?}");

        let nobody = dead();
        assert!(matches!(nobody.get_many(["a", "b"]).await, Err(Error::Unreachable { .. })));
        let failed = nobody.delete_many(["a", "b"]).await;
        assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
        let each = nobody.get_many(["a", "b"]).each().await.expect("the keys are allowed");
        assert!(each.iter().all(Result::is_err) && each.len() == 2);
    })
    .await;
}

fn node(seed: Option<SocketAddr>) -> EmbeddedNode {
    let mut config = support::node_config("many-tests");
    config.discovery = DiscoverySet::SEEDS;
    let seed = seed.map(|seed| HostPort::try_from(seed).expect("it can be dialled"));
    config.seeds = seed.into_iter().collect();
    EmbeddedNode::start(config, Duration::from_secs(20)).expect("a node on a free port")
}

fn client(seed: SocketAddr) -> zerocache_client::ClientBuilder {
    let client = ZerocacheClient::builder("london").cluster("many-tests").mdns(false);
    let client = client.seed(seed.to_string());
    Tier::ALL
        .into_iter()
        .fold(client, |client, tier| client.tier_timeout(tier, Duration::from_secs(15)))
}

#[tokio::test]
async fn hundred_keys_are_sent_before_the_first_response() {
    bounded(async {
        let node = tokio::task::spawn_blocking(|| node(None)).await.expect("it starts");
        let dam = Dam::before(node.address()).await;
        let patient = client(dam.address).total_timeout(Duration::from_secs(15));
        let cache = ready(patient.build().expect("is allowed")).await;
        cache.put("before", "a connection of this runtime", 60).await.expect("writes");
        let keys: Vec<_> = (0..100).map(|n| format!("{n:0200}")).collect();
        // One after the other they would never pass.
        dam.close(100 * 200);
        let missed = cache.get_many(&keys).await.expect("reads");
        assert!(missed.len() == 100 && missed.iter().all(Option::is_none));
        dam.close(100 * 200);
        let written = cache.put_many(keys.iter().map(|key| (key, "v")), 60).await.expect("writes");
        assert!(written.iter().all(|written| written.status == Status::Stored));
        dam.close(100 * 200);
        let found = cache.get_many(&keys).await.expect("reads");
        assert_eq!(found.iter().flatten().count(), 100);
        drop(node);
    })
    .await;
}

#[tokio::test]
async fn keys_of_a_gone_node_are_read_from_the_next() {
    bounded(async {
        let (first, second) = tokio::task::spawn_blocking(|| {
            let first = node(None);
            let second = node(Some(first.address()));
            (first, second)
        })
        .await
        .expect("they start");
        let cache =
            ready(client(first.address()).seed(second.address().to_string()).build().unwrap())
                .await;
        while cache.nodes().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let keys = keys("next", 50);
        let entries = keys.iter().map(|key| (key, key));
        cache.put_many(entries, 60).ack(Ack::Region).await.expect("writes");
        tokio::task::spawn_blocking(move || first.kill()).await.expect("it ends");
        for _ in 0..2 {
            let found = cache.get_many(&keys).await.expect("reads");
            assert_eq!(found.iter().flatten().count(), 50);
            let entries = keys.iter().map(|key| (key, key));
            let written = cache.put_many(entries, 60).await.expect("writes");
            // A write whose answer was lost with the node may have been stored there.
            assert!(written.iter().all(|written| written.status != Status::Refused));
        }
        let written = cache.put_many(keys.iter().map(|key| (key, key)), 60).await.expect("writes");
        assert!(written.iter().all(|written| written.status == Status::Stored));
        drop(second);
    })
    .await;
}

#[tokio::test]
async fn reads_go_on_while_two_of_three_nodes_say_nothing_and_all_take_turns_again() {
    bounded(async {
        // They do not know each other, so that only the client sees what happens.
        let nodes = tokio::task::spawn_blocking(|| [node(None), node(None), node(None)]);
        let nodes = nodes.await.expect("they start");
        let dams = [
            Dam::before(nodes[0].address()).await,
            Dam::before(nodes[1].address()).await,
            Dam::before(nodes[2].address()).await,
        ];
        let builder =
            client(dams[0].address).seeds(dams[1..3].iter().map(|dam| dam.address.to_string()));
        let short = Duration::from_millis(200);
        let builder =
            Tier::ALL.into_iter().fold(builder, |builder, tier| builder.tier_timeout(tier, short));
        let cache = ready(builder.build().expect("is allowed")).await;
        while cache.nodes().len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let node_hits = || -> Vec<u64> { cache.nodes().iter().map(|node| node.hits).collect() };
        // Writes rotate: each node has it then. A client that wrote would take nothing older than its last
        // write, which only one of the nodes has.
        let writer = client(dams[0].address);
        let writer = writer.seeds(dams[1..3].iter().map(|dam| dam.address.to_string()));
        let writer = ready(writer.build().expect("is allowed")).await;
        while writer.nodes().len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..3 {
            writer.put("held", "value", 60).await.expect("writes");
        }
        // More than any probe says: it stays closed until it is opened by hand.
        dams[0].close(usize::MAX);
        dams[1].close(usize::MAX);
        for _ in 0..20 {
            let found = cache.get("held").allow_stale().await.expect("one node answers");
            assert!(found.is_some());
        }
        dams[0].open();
        dams[1].open();
        let before = node_hits();
        while node_hits().iter().zip(&before).any(|(now, before)| now == before) {
            let fresh = cache.get("held").await.expect("nodes answer");
            assert!(fresh.is_some());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(nodes);
    })
    .await;
}
