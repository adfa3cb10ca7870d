//! Failover of reads from tier to tier, with nodes that freeze and nodes that die; and the client's
//! error when no node answers.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use zerocache_client::{
    Entry, Error, ErrorKind, Status, ZerocacheClient,
    ops::{Incarnation, Tier},
};
use zerocache_tests::cluster::{self, Cluster};
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, timed, until_true};
use zerocache_tests::setup::{Setup, unique_address};

/// A client that knows every node, and a value on all of them.
struct Ladder {
    cluster: Cluster,
    client: ZerocacheClient,
    fault: fn(&mut Node),
    /// The addresses of the nodes that were hit.
    faulty: Vec<usize>,
}

impl Ladder {
    fn new(fault: fn(&mut Node)) -> Self {
        let cluster = Cluster::start(&["london", "london", "sydney", "oslo"]);
        cluster[0].put(b"key", b"value", "ttl=300");
        cluster.everywhere(b"key", |answer| answer.status == 200);
        let client = cluster.client("london");
        Self { cluster, client, fault, faulty: Vec::new() }
    }

    fn hit(&mut self, at: usize) {
        (self.fault)(&mut self.cluster[at]);
        self.faulty.push(at);
    }

    /// Returns the number of the node with this incarnation.
    fn number(&self, id: Incarnation) -> usize {
        let nodes = self.client.nodes();
        let known = nodes.iter().find(|node| node.id == id).expect("a known node");
        let place = self.cluster.nodes.iter().position(|node| node.address() == known.address);
        place.expect("a node of the cluster")
    }

    fn is_in_rotation(&self, at: usize) -> bool {
        let address = self.cluster[at].address();
        self.client.nodes().iter().any(|node| node.address == address && node.in_rotation)
    }

    /// Reads; it must succeed, at a node that was not hit.
    fn read(&self) -> Entry {
        let entry = self.client.get("key").entry().wait().expect("an answer").expect("a hit");
        assert_eq!(entry.value, "value");
        assert!(!self.faulty.contains(&self.number(entry.node)));
        entry
    }

    /// The number of the region's node that the client finds nearer than the other remote one.
    fn nearest(&self) -> usize {
        let latency = |at: usize| {
            let nodes = self.client.nodes();
            let known = nodes.iter().find(|node| node.address == self.cluster[at].address());
            known.and_then(|node| node.latency).expect("a measured latency")
        };
        if latency(2) <= latency(3) { 2 } else { 3 }
    }
}

/// Goes down one rung after the other. A rung counts as gone down when the read met the faulty
/// node, or when the client knew beforehand and skipped it.
fn down_the_ladder(fault: fn(&mut Node)) -> Ladder {
    let mut ladder = Ladder::new(fault);
    assert_eq!(ladder.read().tier, Tier::Local);

    ladder.hit(0);
    let mut seen = BTreeSet::new();
    let known = !ladder.is_in_rotation(0);
    for _ in 0..2 {
        let entry = ladder.read();
        assert_eq!(ladder.number(entry.node), 1);
        seen.insert(entry.tier);
    }
    assert!(known || !ladder.is_in_rotation(0) || seen.contains(&Tier::NextLocal), "{seen:?}");

    ladder.hit(1);
    let entry = ladder.read();
    assert_eq!(entry.tier, Tier::Nearest);
    let nearest = ladder.number(entry.node);
    assert!(nearest == 2 || nearest == 3);

    ladder.hit(nearest);
    let known = !ladder.is_in_rotation(nearest);
    let entry = ladder.read();
    assert_eq!(ladder.number(entry.node), 5 - nearest);
    assert!(known || entry.tier == Tier::SecondNearest, "{:?}", entry.tier);
    ladder
}

#[test]
fn reads_fail_over_past_frozen_nodes() {
    let mut ladder = down_the_ladder(Node::freeze);
    let last = (2..4).find(|at| !ladder.faulty.contains(at)).expect("one is left");
    ladder.hit(last);
    // Now no node answers: the call fails with that error, within its total time.
    let (result, took) = timed(|| ladder.client.get("key").wait());
    let error = result.expect_err("nobody answers");
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_timeout(), "{error}");
    assert!(took < PATIENCE / 3, "{took:?}");
    // The fault ends, and the client comes back to its own region by itself.
    ladder.cluster[0].resume();
    until_true("the local node is used again", || {
        let entry = ladder.client.get("key").entry().wait().ok().flatten();
        entry.is_some_and(|entry| entry.tier == Tier::Local && ladder.number(entry.node) == 0)
    });
}

#[test]
fn reads_fail_over_past_dead_nodes() {
    let mut ladder = down_the_ladder(Node::kill);
    let last = (2..4).find(|at| !ladder.faulty.contains(at)).expect("one is left");
    ladder.hit(last);
    let (result, took) = timed(|| ladder.client.get("key").wait());
    assert_eq!(result.expect_err("nobody is there").kind(), ErrorKind::Unreachable);
    assert!(took < PATIENCE / 3, "{took:?}");
}

#[test]
fn one_read_reaches_the_fourth_node() {
    let mut ladder = Ladder::new(Node::freeze);
    let nearest = ladder.nearest();
    for at in [0, 1, nearest] {
        ladder.hit(at);
    }
    // Three bounds of 0.5, 0.5 and 0.75 s, and what is left of 2.75 s for the fourth.
    let entry = ladder.read();
    assert_eq!(ladder.number(entry.node), 5 - nearest);
    assert!(matches!(entry.tier, Tier::Nearest | Tier::SecondNearest));
    let errors = ladder.client.stats().errors;
    assert!(errors.local >= 1, "a frozen node was asked: {errors:?}");
}

#[test]
fn write_fails_over_past_a_dead_node() {
    let mut ladder = Ladder::new(Node::kill);
    let writes = |ladder: &Ladder, name: &str| {
        let mut unknown = 0;
        for n in 0..10 {
            let key = format!("{name} {n}");
            let written = ladder.client.put(key, "x", 60).wait().expect("an answer");
            // Sent on a connection whose end was not noticed yet: it may have arrived.
            unknown += u32::from(written.status == Status::Unknown);
            assert!(matches!(written.status, Status::Stored | Status::Unknown));
        }
        unknown
    };
    ladder.hit(0);
    // Each of two connections can cost one write.
    assert!(writes(&ladder, "key") <= 2);
    ladder.hit(1);
    assert!(writes(&ladder, "other") <= 2, "a node of another region takes them");
    let written = ladder.client.put("elsewhere", "x", 60).wait().expect("an answer");
    assert_eq!(written.status, Status::Stored);
    assert_eq!(
        ladder.client.get("elsewhere").wait().expect("an answer").as_deref(),
        Some(&b"x"[..])
    );
}

#[test]
fn unanswered_write_is_unknown() {
    let mut cluster = Cluster::start(&["london"]);
    let client = cluster.client("london");
    cluster[0].freeze();
    for result in [client.put("key", "x", 60).wait(), client.delete("key").wait()] {
        let written = result.expect("no failure: it may have arrived");
        assert_eq!((written.status, written.replicas), (Status::Unknown, 0));
        assert_eq!(written.version, None);
    }
    assert_eq!(client.stats().unknown, 2);
    cluster[0].resume();
    // A request in its buffers may still be executed after a later write, for a bounded time.
    until_true("the node is used again", || {
        let written = client.put("key", "y", 60).wait();
        let stored = written.is_ok_and(|written| written.status == Status::Stored);
        stored && cluster[0].value(b"key").as_deref() == Some(b"y")
    });
}

#[test]
fn no_reachable_node_is_a_prompt_error() {
    // A port that was just free, on an address of this test's own.
    let closed = TcpListener::bind((unique_address(), 0)).expect("bound");
    let seed = closed.local_addr().expect("an address");
    drop(closed);
    let client = cluster::builder("london").mdns(false).seed(seed.to_string());
    let client = client.total_timeout(2 * PATIENCE).build().expect("a client");
    let (results, took) = timed(|| {
        let get = client.get("key").wait().map(drop);
        let put = client.put("key", "x", 60).wait().map(drop);
        [get, put, client.delete("key").wait().map(drop)]
    });
    for result in results {
        let error = result.expect_err("nobody is there");
        assert!(matches!(error, Error::Unreachable { timed_out: false }), "{error}");
    }
    assert!(took < PATIENCE / 2, "{took:?}, so that not the total ended them");
    assert!(client.wait_ready(Duration::from_millis(200)).is_err());
    assert_eq!(client.stats().unreachable, 3);
}

#[test]
fn returning_node_is_used_under_its_new_incarnation() {
    let mut cluster = Cluster::start(&["london"]);
    let client = cluster.client("london");
    for round in 0..2 {
        let old = client.nodes()[0].id;
        cluster[0].kill();
        let mut setup = Setup::new("london");
        setup.listen = cluster[0].address();
        cluster[0] = setup.start();
        let key = format!("round {round}");
        until_true("the new node takes writes", || {
            let written = client.put(&key, "x", 60).wait();
            written.is_ok_and(|written| written.status == Status::Stored)
        });
        let entry = client.get(&key).entry().wait().expect("an answer").expect("a hit");
        assert_ne!(entry.node, old);
        let ids: Vec<_> = client.nodes().iter().map(|node| node.id).collect();
        assert_eq!(ids, [entry.node], "the old life is forgotten");
    }
}
