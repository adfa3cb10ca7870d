//! The near cache of a client beside nodes: what others write is heard of, and whatever could have
//! been missed empties it.

use std::time::Duration;

use bytes::Bytes;
use zerocache_client::{ClientBuilder, ZerocacheClient, zerocache};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::{PATIENCE, until, until_true};

/// So long that nothing in these tests goes because of its age.
const NO_AGE: Duration = Duration::from_secs(3_600);

fn long(builder: ClientBuilder) -> ClientBuilder {
    builder.near_age(NO_AGE)
}

fn get(client: &ZerocacheClient, key: &str) -> Option<Bytes> {
    client.get(key).near().deadline(PATIENCE).wait().expect("an answer")
}

/// Reads until the key is served near.
fn warm(client: &ZerocacheClient, key: &str) -> Bytes {
    until(&format!("{key} near"), || {
        let before = client.near_stats().hits;
        let value = get(client, key);
        (client.near_stats().hits > before).then_some(value).flatten()
    })
}

/// The node that the only client follows.
fn followed(cluster: &Cluster) -> usize {
    until("a node that is followed", || {
        cluster.nodes.iter().position(|node| !node.is_frozen() && node.stat("feed_followers") > 0)
    })
}

#[test]
fn near_cache_follows_writes_and_deletes_of_others() {
    let cluster = Cluster::start(&["oslo", "oslo", "rome"]);
    let client = cluster.client_with("oslo", long);
    // Of every node, so also of those that the client does not follow.
    for writer in &cluster.nodes {
        writer.put(b"k", b"old", "ttl=600&ack=all");
        until_true("the old value near", || warm(&client, "k") == "old");
        let before = client.near_stats();
        writer.put(b"k", b"new", "ttl=600");
        until_true("the new value", || get(&client, "k").as_deref() == Some(b"new"));
        writer.delete(b"k", "");
        until_true("the delete", || get(&client, "k").is_none());
        let after = client.near_stats();
        assert!(after.invalidated > before.invalidated, "{after:?}");
        assert_eq!(after.cleared, before.cleared, "no gap was needed for it");
    }
}

#[test]
fn own_writes_are_visible_at_once() {
    let cluster = Cluster::start(&["oslo", "oslo"]);
    let client = cluster.client_with("oslo", long);
    client.put("k", "0", 600).wait().expect("stored");
    warm(&client, "k");
    for n in 1..200 {
        let value = n.to_string();
        client.put("k", value.as_str(), 600).wait().expect("stored");
        assert_eq!(get(&client, "k").as_deref(), Some(value.as_bytes()));
        assert_eq!(get(&client, "k").as_deref(), Some(value.as_bytes()));
    }
    client.delete("k").wait().expect("deleted");
    assert_eq!(get(&client, "k"), None);
}

#[test]
fn get_many_asks_nodes_only_for_keys_not_in_the_near_cache() {
    let mut cluster = Cluster::start(&["oslo"]);
    let client = cluster.client_with("oslo", long);
    let many = |keys: [&str; 3]| {
        let found = client.get_many(keys).near().deadline(PATIENCE).wait().expect("an answer");
        found.iter().map(|value| value.as_deref().map(<[u8]>::to_vec)).collect::<Vec<_>>()
    };
    let asked = || client.stats().hits.total() + client.stats().misses;
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        cluster[0].put(key.as_bytes(), value.as_bytes(), "ttl=600");
    }
    warm(&client, "a");
    let (near, before) = (client.near_stats(), asked());
    assert_eq!(many(["b", "a", "none"]), [Some(b"2".to_vec()), Some(b"1".to_vec()), None]);
    let after = client.near_stats();
    assert_eq!((after.hits - near.hits, after.misses - near.misses), (1, 2));
    assert_eq!(asked() - before, 2, "the node is asked for what is not near");
    // Fetched values are in the near cache now, for single reads too.
    assert_eq!(many(["a", "b", "a"]).iter().flatten().count(), 3);
    assert_eq!(get(&client, "b").as_deref(), Some(&b"2"[..]));
    assert_eq!((client.near_stats().hits - after.hits, asked() - before), (4, 2));
    // Reads without `near` ask the node.
    let plain = client.get_many(["a", "b"]).wait().expect("an answer");
    assert_eq!((plain.len(), asked() - before), (2, 4));
    // Writes of others are read, and those of this client at once.
    cluster[0].put(b"a", b"4", "ttl=600");
    until_true("the new value", || many(["a", "b", "c"])[0].as_deref() == Some(b"4"));
    client.put_many([("b", "5"), ("c", "6")], 600).wait().expect("stored");
    assert_eq!(many(["a", "b", "c"]), [b"4", b"5", b"6"].map(|value| Some(value.to_vec())));
    // Nothing is served without the word of a node.
    cluster[0].kill();
    until_true("an end of near hits", || {
        let hits = client.near_stats().hits;
        let short = client.get_many(["a", "b"]).near().deadline(Duration::from_millis(50));
        short.wait().is_err() && client.near_stats().hits == hits
    });
}

#[test]
fn near_cache_follows_another_node_when_one_dies_or_freezes() {
    let mut cluster = Cluster::start(&["oslo", "oslo", "oslo"]);
    let client = cluster.client_with("oslo", long);
    cluster[0].put(b"k", b"v", "ttl=600&ack=all");
    warm(&client, "k");
    let mut cleared = client.near_stats().cleared;
    let first = followed(&cluster);
    cluster[first].freeze();
    until_true("an empty cache", || client.near_stats().cleared > cleared);
    warm(&client, "k");
    cleared = client.near_stats().cleared;
    let second = followed(&cluster);
    assert_ne!(second, first);
    cluster[second].kill();
    until_true("an empty cache", || client.near_stats().cleared > cleared);
    warm(&client, "k");
    // The one that is left tells of what is written.
    let third = 3 - first - second;
    cluster[third].put(b"k", b"new", "ttl=600");
    until_true("the new value", || get(&client, "k").as_deref() == Some(b"new"));
}

#[test]
fn near_cache_serves_nothing_without_a_feed() {
    let mut cluster = Cluster::start(&["oslo"]);
    let client = cluster.client_with("oslo", long);
    cluster[0].put(b"k", b"v", "ttl=600");
    warm(&client, "k");
    cluster[0].freeze();
    until_true("an end of near hits", || {
        let before = client.near_stats().hits;
        let found = client.get("k").near().deadline(Duration::from_millis(50)).wait();
        client.near_stats().hits == before && found.is_err()
    });
    cluster[0].resume();
    warm(&client, "k");
}

#[test]
fn near_hits_respect_the_age_bound() {
    let cluster = Cluster::start(&["oslo"]);
    let age = Duration::from_millis(200);
    let client = cluster.client_with("oslo", |builder| builder.near_bytes(1 << 20).near_age(age));
    cluster[0].put(b"k", b"v", "ttl=600");
    for _ in 0..3 {
        warm(&client, "k");
        // Read again each time, though nothing was written.
        let inserts = client.near_stats().inserts;
        until_true("another read", || {
            get(&client, "k");
            client.near_stats().inserts > inserts
        });
    }
    assert_eq!(client.near_stats().invalidated, 0);
}

#[test]
fn client_without_a_near_cache_follows_no_node() {
    let cluster = Cluster::start(&["oslo"]);
    let client = cluster.client_with("oslo", long);
    let off = cluster.client_with("oslo", |builder| builder.near_bytes(0));
    cluster[0].put(b"k", b"v", "ttl=600");
    for _ in 0..20 {
        assert!(client.get("k").wait().expect("an answer").is_some());
        assert!(get(&off, "k").is_some());
    }
    assert_eq!(cluster[0].stat("feed_followers"), 0);
    assert_eq!((client.near_stats(), off.near_stats()), Default::default());
    warm(&client, "k");
    assert_eq!(followed(&cluster), 0);
    drop(client);
    until_true("the end of it", || cluster[0].stat("feed_followers") == 0);
}

#[zerocache("oslo", "10m", near)]
fn square(number: u64) -> u64 {
    number * number
}

#[zerocache("oslo", "10m", near = "1h")]
async fn cube(number: u64) -> u64 {
    number * number * number
}

#[test]
fn functions_and_clients_of_a_process_share_one_near_cache() {
    let cluster = Cluster::start(&["oslo"]);
    let [client, other] = [0, 1].map(|_| cluster.client_with("oslo", long));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    until_true("both near", || {
        let before = client.memo_stats();
        let values = client.scope_sync(|| (square(7), runtime.block_on(cube(7))));
        assert_eq!(values, (49, 343));
        client.memo_stats().near_hits == before.near_hits + 2
    });
    let stats = client.near_stats();
    assert_eq!((stats.entries, client.memo_stats().computed >= 2), (2, true));
    // A value that one of them has read is a near hit of the other.
    assert_eq!(other.scope_sync(|| (square(7), runtime.block_on(cube(7)))), (49, 343));
    let memo = other.memo_stats();
    assert_eq!((memo.near_hits, memo.hits, memo.computed), (2, 2, 0));
    assert_eq!(other.near_stats().entries, 2);
}

#[test]
fn invalidated_call_is_recomputed_by_other_clients_too() {
    let cluster = Cluster::start(&["oslo"]);
    let client = cluster.client_with("oslo", long);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let call = || client.scope_sync(|| cube(3));
    until_true("a near hit", || {
        let before = client.memo_stats().near_hits;
        assert_eq!(client.scope_sync(|| runtime.block_on(call())), 27);
        client.memo_stats().near_hits > before
    });
    let computed = client.memo_stats().computed;
    // As another process would do it.
    let key = call().key().expect("a key");
    cluster[0].delete(&key, "");
    until_true("another computation", || {
        assert_eq!(client.scope_sync(|| runtime.block_on(call())), 27);
        client.memo_stats().computed > computed
    });
}
