//! Lifetimes of entries that pass a suspended node or relay: they end at the same time everywhere.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::{
    key::Key,
    limits::Limits,
    wire::{Request, Response},
};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::{Framed, compact_message};
use zerocache_tests::http::Answer;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{pass, until_true};

/// Room for a busy machine, in milliseconds.
const TOLERANCE_MS: i64 = 500;

fn remaining_ms(answer: &Answer) -> Option<i64> {
    let text = answer.header("zerocache-ttl-ms")?;
    Some(text.parse().expect("milliseconds"))
}

fn cluster() -> Cluster {
    let regions = ["london", "london", "sydney", "sydney"];
    Cluster::start_with(&regions, |node| node.flag("--connections", "framed"))
}

/// The expiry of an entry on a node, in milliseconds of this process's clock.
fn end_ms(node: &Node, key: &[u8]) -> Option<i64> {
    let now_ms = clock::mono().as_millis() as i64;
    Some(now_ms + remaining_ms(&node.get(key))?)
}

/// Writes keys with a TTL of 20 s while the nodes at `frozen` are suspended for `time`. Afterwards
/// no node may hold one for longer than the writer.
fn lives_end_together(frozen: &[usize], time: Duration) {
    const KEYS: usize = 16;
    let mut cluster = cluster();
    let key = |n: usize| format!("key {n}").into_bytes();
    for at in frozen {
        cluster[*at].freeze();
    }
    // Both nodes of sydney are the relay of some.
    for n in 0..KEYS {
        cluster[0].put(&key(n), &vec![n as u8; 10_000 * n], "ttl=20");
    }
    pass(time);
    for at in frozen {
        cluster[*at].resume();
    }
    // The resumed nodes find them in their buffers or, after a long suspension, get them by repair.
    until_true("every node has every key", || {
        cluster.nodes.iter().all(|node| (0..KEYS).all(|n| node.get(&key(n)).status == 200))
    });
    for n in 0..KEYS {
        let principal = end_ms(&cluster[0], &key(n)).expect("the principal has it");
        for node in &cluster.nodes[1..] {
            let longer = end_ms(node, &key(n)).expect("a replica") - principal;
            assert!(longer <= TOLERANCE_MS, "{longer} ms longer at {} for {n}", node.region());
            assert!(longer >= -TOLERANCE_MS, "{longer} ms at {} for {n}", node.region());
        }
    }
}

#[test]
fn ttl_is_not_extended_by_a_briefly_suspended_peer() {
    // Shorter than HTTP would notice.
    lives_end_together(&[1], Duration::from_millis(1_500));
}

#[test]
fn ttl_is_not_extended_by_a_briefly_suspended_relay() {
    lives_end_together(&[2, 3], Duration::from_millis(1_200));
}

#[test]
fn ttl_is_not_extended_by_a_long_suspension() {
    lives_end_together(&[1, 2], Duration::from_secs(5));
}

#[test]
fn entry_that_expired_in_the_buffers_of_a_frozen_node_is_gone() {
    let mut cluster = cluster();
    for n in [1, 2, 3] {
        cluster[n].freeze();
    }
    cluster[0].put(b"short", b"x", "ttl=1");
    cluster[0].put(b"long", b"x", "ttl=60");
    pass(Duration::from_millis(1_200));
    for n in [1, 2, 3] {
        cluster[n].resume();
    }
    cluster.everywhere(b"long", |answer| answer.status == 200);
    for node in &cluster.nodes {
        assert_eq!(node.value(b"short"), None, "at {}", node.address());
    }
}

#[test]
fn connections_recover_after_a_long_freeze_and_stay_framed() {
    let mut cluster = cluster();
    cluster[1].freeze();
    // Longer than the others take to give connections up and to dial in vain.
    pass(Duration::from_secs(6));
    cluster[1].resume();
    cluster.wait_until_joined();
    cluster[0].put(b"k", b"v", "ttl=60");
    cluster.everywhere(b"k", |answer| answer.body == b"v");
    for node in &cluster.nodes {
        let log = node.log();
        assert!(!log.contains("no framed connection"), "{log}");
    }
}

#[test]
fn resumed_node_does_not_serve_what_was_deleted_meanwhile() {
    let mut cluster = cluster();
    cluster[0].put(b"k", b"old", "ttl=600&ack=all");
    cluster.everywhere(b"k", |answer| answer.body == b"old");
    let key = Key::new(Bytes::from_static(b"k"), &Limits::default()).expect("a key");
    let get = compact_message(Request::Get { key });
    let mut caller = Framed::open(cluster[1].address());
    assert!(matches!(caller.ask(&get), Response::Found { .. }));
    cluster[1].freeze();
    cluster[0].delete(b"k", "");
    pass(Duration::from_secs(3));
    // This one waits in the node's buffers, its caller does not give it up.
    let waited = caller.request(&get, 0);
    cluster[1].resume();
    assert!(matches!(caller.response(waited), Response::NotFound { warming: true, .. }));
    until_true("the node to be in sync", || match caller.ask(&get) {
        Response::NotFound { warming, .. } => !warming,
        other => panic!("{other:?}"),
    });
}
