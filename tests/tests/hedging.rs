//! Hedged reads beside a node that stops.

use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::until_true;

/// Keys of one read.
const KEYS: usize = 20;

#[test]
fn reads_of_a_frozen_node_are_completed_by_another_one() {
    let mut cluster = Cluster::start(&["oslo", "oslo"]);
    let client = cluster.client_with("oslo", |builder| builder.near_bytes(0).hedge(Some(1.0)));
    let keys: Vec<String> = (0..KEYS).map(|n| format!("key/{n}")).collect();
    for key in &keys {
        cluster[0].put(key.as_bytes(), key.as_bytes(), "ttl=600&ack=all");
    }
    let read_many = || {
        let values = client.get_many(&keys).wait().expect("a node answers");
        assert!(
            values.iter().zip(&keys).all(|(value, key)| value.as_deref() == Some(key.as_bytes()))
        );
    };
    let read_one = || {
        let value = client.get("key/7").wait().expect("a node answers");
        assert_eq!(value.as_deref(), Some(&b"key/7"[..]));
    };
    // It learns how long nodes take, each of which has every second read.
    (0..250).for_each(|_| read_many());
    (0..250).for_each(|_| read_one());
    let before = client.stats();
    cluster[0].freeze();
    until_true("a hedged read of many keys", || {
        read_many();
        client.stats().hedge_wins >= before.hedge_wins + KEYS as u64
    });
    cluster[0].resume();
    until_true("the node in the rotation", || {
        let served = cluster[0].stat("hits");
        read_many();
        cluster[0].stat("hits") > served
    });
    let before = client.stats();
    cluster[0].freeze();
    until_true("a hedged read", || {
        read_one();
        client.stats().hedge_wins > before.hedge_wins
    });
    let stats = client.stats();
    assert!(stats.hedged >= stats.hedge_wins);
    assert_eq!((stats.unreachable, stats.misses), (0, 0));
    cluster[0].resume();
}
