//! Listeners of a client beside nodes of their own processes.

use std::time::Duration;

use zerocache_client::{
    Error, ZerocacheClient,
    error::DenialReason,
    ops::{Change, Changes, Subject},
};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, until, until_true};
use zerocache_tests::security::Keys;
use zerocache_tests::setup::{Access, Setup};

fn listen(client: &ZerocacheClient) -> Changes {
    client.changes().key("k").tag("t").deadline(PATIENCE).wait().expect("a node that reports")
}

fn next(changes: &mut Changes) -> Change {
    changes.wait(PATIENCE).expect("a change")
}

/// The node that the only client follows.
fn followed(cluster: &Cluster) -> usize {
    until("a node that is followed", || {
        cluster.nodes.iter().position(|node| node.stat("feed_followers") > 0)
    })
}

fn assert_written(changes: &mut Changes) {
    let change = next(changes);
    let is_written = matches!(&change, Change::Written { subject: Subject::Key(_), .. });
    assert!(is_written, "{change:?}");
}

#[test]
fn listener_hears_each_change_once_and_of_a_gap_when_its_node_dies() {
    let mut cluster = Cluster::start(&["oslo", "oslo", "oslo"]);
    let client = cluster.client_with("oslo", |builder| builder.near_bytes(0));
    let mut listeners: Vec<_> = (0..3).map(|_| listen(&client)).collect();
    let first = followed(&cluster);
    let followers: u64 = cluster.nodes.iter().map(|node| node.stat("feed_followers")).sum();
    assert_eq!(followers, 1, "one for all listeners");
    // At each node, and by this client.
    let writes = 30;
    for n in 0..writes {
        cluster.nodes[n % 3].put(b"k", n.to_string().as_bytes(), "ttl=600&ack=all");
        cluster.nodes[n % 3].put(b"other", b"v", "ttl=600");
    }
    client.put("k", "own", 600).wait().expect("stored");
    for changes in &mut listeners {
        let mut last = None;
        for _ in 0..=writes {
            let Change::Written { version, .. } = next(changes) else { panic!("no write") };
            assert!(Some(version) > last, "in their order");
            last = Some(version);
        }
    }
    cluster[first].kill();
    for changes in &mut listeners {
        assert_eq!(next(changes), Change::Interrupted);
        assert_eq!(next(changes), Change::Gap);
    }
    // From the gap on everything is reported again.
    let alive = (first + 1) % 3;
    cluster[alive].put(b"k", b"after", "ttl=600");
    listeners.iter_mut().for_each(assert_written);
    for changes in &mut listeners {
        assert_eq!(changes.wait(Duration::from_millis(200)), None, "nothing twice");
    }
    drop(listeners);
    let alive = [(first + 1) % 3, (first + 2) % 3];
    until_true("the end of its cost", || {
        alive.iter().all(|node| cluster[*node].stat("feed_followers") == 0)
    });
}

#[test]
fn frozen_node_is_left_and_listeners_hear_of_it() {
    let mut cluster = Cluster::start(&["oslo", "oslo"]);
    let client = cluster.client_with("oslo", |builder| builder);
    let mut changes = listen(&client);
    let first = followed(&cluster);
    cluster[first].freeze();
    assert_eq!(next(&mut changes), Change::Interrupted);
    assert_eq!(next(&mut changes), Change::Gap);
    cluster[1 - first].put(b"k", b"v", "ttl=600");
    assert_written(&mut changes);
    cluster[first].resume();
}

#[test]
fn client_with_some_keys_only_is_denied() {
    let keys = Keys::new();
    let node: Node = Setup::new("oslo").access(Access::Secret(keys.clone())).start();
    let client = |arguments: &[&str]| {
        let builder = ZerocacheClient::builder("oslo").mdns(false);
        let builder = builder.seed(node.address().to_string());
        let client = builder.token(keys.token(arguments)).build().expect("a client");
        client.wait_ready(PATIENCE).expect("a node in sync");
        client
    };
    let scoped = client(&["--name", "some", "--role", "read", "--prefix", "k"]);
    let denied = scoped.changes().key("k").deadline(PATIENCE).wait();
    let is_denied = matches!(&denied, Err(Error::Denied { reason: DenialReason::Forbidden, .. }));
    assert!(is_denied, "{denied:?}");
    // Reads go on as before.
    assert!(scoped.get("k").wait().expect("permitted").is_none());
    let all = client(&["--name", "all", "--role", "write"]);
    let mut changes = listen(&all);
    all.put("k", "v", 60).wait().expect("stored");
    assert_written(&mut changes);
}
