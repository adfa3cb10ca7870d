//! Peers and relays that die or freeze: every other node still gets every acknowledged write.

use std::sync::atomic::{AtomicUsize, Ordering};

use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{StopFlag, timed, until_true};

/// Enough keys that each node of a region is the relay of some.
const KEYS: usize = 24;

fn key(n: usize) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

/// Puts keys from `from` on at a node until the flag is set; returns the number of acknowledged
/// writes.
fn load(node: &Node, from: usize, stop: &StopFlag, count: &AtomicUsize) -> usize {
    let mut acknowledged = 0;
    while !stop.is_set() {
        let n = from + acknowledged;
        let written = node.put(&key(n), &key(n), "ttl=300");
        assert_eq!(written["status"], "stored");
        acknowledged += 1;
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

fn has_all(node: &Node, keys: impl Iterator<Item = usize>) {
    for n in keys {
        let what = format!("key {n} at {} ({})", node.address(), node.region());
        until_true(&what, || node.value(&key(n)) == Some(key(n)));
    }
}

/// Returns how many of the first `count` keys a node lacks.
fn lacks(node: &Node, count: usize) -> usize {
    (0..count).filter(|n| node.value(&key(*n)) != Some(key(*n))).count()
}

/// Writes at the first node, lets `fault` happen to another one under load, and writes on. Returns
/// the others, that other one, and the number of keys written; every one was acknowledged.
fn fault_under_load(victim: usize, fault: impl FnOnce(&mut Node)) -> (Vec<Node>, Node, usize) {
    let regions = ["london", "london", "london", "sydney", "sydney", "oslo"];
    let Cluster { mut nodes } = Cluster::start(&regions);
    let mut victim = nodes.remove(victim);
    let (stop, count) = (StopFlag::default(), AtomicUsize::new(0));
    let acknowledged = std::thread::scope(|threads| {
        let writer = threads.spawn(|| load(&nodes[0], 0, &stop, &count));
        let end = stop.set_on_drop();
        until_true("a cluster under load", || count.load(Ordering::Relaxed) >= 50);
        fault(&mut victim);
        let then = count.load(Ordering::Relaxed);
        until_true("writes after the fault", || count.load(Ordering::Relaxed) >= then + 100);
        drop(end);
        writer.join().expect("every write was stored")
    });
    (nodes, victim, acknowledged)
}

fn a_local_peer_fails(victim: usize, fault: fn(&mut Node)) {
    let (others, _victim, acknowledged) = fault_under_load(victim, fault);
    for node in &others {
        has_all(node, 0..acknowledged);
    }
}

/// Returns the relay's local peer, when it has everything: from the relay, from the next one, and
/// by repair what the relay had acknowledged and not passed on.
fn a_relay_fails(victim: usize, fault: fn(&mut Node)) -> (Node, Node, usize) {
    let (mut others, relay, acknowledged) = fault_under_load(victim, fault);
    let peer = others.iter().position(|node| node.region() == relay.region());
    let peer = others.remove(peer.expect("a node of the relay's region"));
    for node in &others {
        has_all(node, 0..acknowledged);
    }
    until_true("what the relay had not passed on", || lacks(&peer, acknowledged) == 0);
    (peer, relay, acknowledged)
}

#[test]
fn write_survives_a_local_peer_killed_during_fan_out() {
    a_local_peer_fails(1, Node::kill);
}

#[test]
fn write_survives_a_local_peer_frozen_during_fan_out() {
    a_local_peer_fails(2, Node::freeze);
}

#[test]
fn write_survives_a_relay_killed_during_fan_out() {
    a_relay_fails(3, Node::kill);
}

#[test]
fn write_survives_a_relay_frozen_during_fan_out() {
    let (peer, mut relay, acknowledged) = a_relay_fails(4, Node::freeze);
    // It passes acknowledged writes on as soon as it can.
    relay.resume();
    has_all(&peer, 0..acknowledged);
}

#[test]
fn writes_do_not_wait_for_a_region_that_is_down() {
    let mut cluster = Cluster::start(&["london", "london", "sydney", "oslo"]);
    cluster[2].kill();
    let (_, took) = timed(|| {
        for n in 0..KEYS {
            assert_eq!(cluster[0].put(&key(n), &key(n), "ttl=300")["status"], "stored");
        }
    });
    assert!(took.as_secs() < 10, "{took:?}");
    for node in [1, 3] {
        has_all(&cluster[node], 0..KEYS);
    }
    // Once its silence is noticed, no write waits for it.
    until_true("sydney is out", || cluster[0].reaches() == 3);
    let written = cluster[0].put(b"later", b"x", "ttl=60&ack=all");
    assert_eq!(
        (written["replicas"].as_u64(), written["replicas_wanted"].as_u64()),
        (Some(3), Some(3))
    );
}

#[test]
fn dead_and_frozen_relays_are_replaced_for_one_write_each() {
    for fault in [Node::kill, Node::freeze] {
        let mut cluster = Cluster::start(&["london", "sydney", "sydney"]);
        fault(&mut cluster[1]);
        // At once: no node has noticed yet, and that node is the relay of about half of the keys.
        for n in 0..KEYS {
            cluster[0].put(&key(n), &key(n), "ttl=300");
        }
        has_all(&cluster[2], 0..KEYS);
    }
}

#[test]
fn frozen_node_is_a_member_again_when_it_resumes() {
    let mut cluster = Cluster::start(&["london", "london", "sydney"]);
    cluster[1].freeze();
    until_true("it is out", || cluster[0].reaches() == 2 && cluster[2].reaches() == 2);
    cluster[1].resume();
    cluster.wait_until_joined();
    cluster[2].put(b"welcome", b"back", "ttl=60");
    cluster.everywhere(b"welcome", |answer| answer.body == b"back");
}
